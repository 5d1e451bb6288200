/* `hob-snapshots ls|info`: what there is, who needs it, and what removing it would free. */
#include "snapshots/cli/cli.h"
#include "snapshots/snapshot.h"

#include "base/clock.h"
#include "base/text.h"

#include <assert.h>

void cli_snapshot_id(char text[CLI_ID_SIZE], int64_t id)
{
	snprintf(text, CLI_ID_SIZE, "snap-%lld", (long long)id);
}

/* The parent as people read it: a snapshot, an image, or nothing. */
static void parent_id(char text[CLI_ID_SIZE], const struct snapshot *snapshot)
{
	if (snapshot->parent_id != 0) {
		cli_snapshot_id(text, snapshot->parent_id);
	} else if (snapshot->image_id != 0) {
		snprintf(text, CLI_ID_SIZE, "img-%lld", (long long)snapshot->image_id);
	} else {
		text[0] = '\0';
	}
}

json_t *cli_snapshot_json(const struct snapshot *snapshot)
{
	char id[CLI_ID_SIZE], parent[CLI_ID_SIZE], image[CLI_ID_SIZE] = "";
	char created[CLOCK_TEXT_SIZE];
	CLEANUP(free_p) char *copy = xstrdup(snapshot->tags != NULL ? snapshot->tags : "");
	json_t *tags = json_array();
	json_t *metadata =
		streq(snapshot->metadata, "{}") ? NULL : json_loads(snapshot->metadata, 0, NULL);
	char *rest = NULL;

	cli_snapshot_id(id, snapshot->id);
	parent_id(parent, snapshot);
	if (snapshot->image_id != 0) {
		snprintf(image, sizeof(image), "img-%lld", (long long)snapshot->image_id);
	}
	clock_format(created, snapshot->created_ms);
	for (char *tag = strtok_r(copy, " ", &rest); tag != NULL;
		tag = strtok_r(NULL, " ", &rest)) {
		json_array_append_new(tags, json_string(tag));
	}
	return json_pack("{s:s, s:s, s:o, s:o, s:s, s:s, s:o, s:o, s:s, s:b, s:o, s:o, s:I, s:I,"
			 " s:I, s:I, s:I, s:I}",
		"id", id, "environment", snapshot->environment, "image",
		json_str_or_null(image[0] != '\0' ? image : NULL), "parent",
		json_str_or_null(parent[0] != '\0' ? parent : NULL), "reason",
		snapshot_reason_name(snapshot->reason), "label", snapshot->label, "sandbox",
		json_str_or_null(snapshot->sandbox[0] != '\0' ? snapshot->sandbox : NULL), "commit",
		json_str_or_null(snapshot->commit[0] != '\0' ? snapshot->commit : NULL),
		"created_at", created, "pinned", snapshot->pinned, "tags", tags, "metadata",
		metadata != NULL ? metadata : json_object(), "layer_count",
		(json_int_t)snapshot->layer_count, "own_layers", (json_int_t)snapshot->own_count,
		"bytes", (json_int_t)snapshot->bytes, "stored_bytes", (json_int_t)snapshot->stored,
		"exclusive_bytes", (json_int_t)snapshot->exclusive, "shared_bytes",
		(json_int_t)(snapshot->stored - snapshot->exclusive));
}

/* ---- columns ---- */

enum column {
	COLUMN_ID,
	COLUMN_ENVIRONMENT,
	COLUMN_REASON,
	COLUMN_LABEL,
	COLUMN_PARENT,
	COLUMN_AGE,
	COLUMN_LAYERS,
	COLUMN_EXCLUSIVE,
	COLUMN_SHARED,
	COLUMN_TAGS,
	COLUMN_PINNED,
	COLUMN_SIZE,
	COLUMN_CREATED,
	COLUMN_SANDBOX,
	COLUMN_COMMIT,
	COLUMNS
};

static const struct {
	const char *name;
	const char *title;
	bool right;
} columns[] = {
	{"id", "SNAPSHOT", false},
	{"environment", "ENVIRONMENT", false},
	{"reason", "REASON", false},
	{"label", "LABEL", false},
	{"parent", "PARENT", false},
	{"age", "AGE", true},
	{"layers", "LAYERS", true},
	{"exclusive", "EXCLUSIVE", true},
	{"shared", "SHARED", true},
	{"tags", "TAGS", false},
	{"pinned", "PINNED", false},
	{"size", "SIZE", true},
	{"created", "CREATED", false},
	{"sandbox", "SANDBOX", false},
	{"commit", "COMMIT", false},
};
static_assert(ARRAY_SIZE(columns) == COLUMNS, "a row for each column");

#define COLUMNS_DEFAULT "id,environment,reason,label,parent,age,layers,exclusive,shared,pinned,tags"
#define COMMIT_SHOWN 12
#define TEXT_OR_DASH(text) ((text) != NULL && (text)[0] != '\0' ? (text) : "-")

static int find_column(const char *name, enum column *ret_column, struct error *err)
{
	const char *known[COLUMNS], *nearest;

	for (size_t i = 0; i < COLUMNS; i++) {
		known[i] = columns[i].name;
		if (streq(name, columns[i].name)) {
			*ret_column = (enum column)i;
			return 0;
		}
	}
	error_set(err, ERROR_USAGE, "no column \"%s\"", name);
	nearest = text_nearest(name, known, COLUMNS);
	return nearest != NULL ? error_hint(err, "did you mean \"%s\"?", nearest)
			       : error_hint(err, "there are %s,size,created,sandbox,commit",
					 COLUMNS_DEFAULT);
}

struct choice {
	enum column columns[COLUMNS];
	size_t count;
};

static int choose_columns(const char *list, struct choice *ret_choice, struct error *err)
{
	CLEANUP(free_p) char *copy = xstrdup(list != NULL ? list : COLUMNS_DEFAULT);
	struct choice choice = {.count = 0};
	char *rest = NULL;

	for (size_t i = 0; streq(copy, "all") && i < COLUMNS; i++) {
		choice.columns[choice.count++] = (enum column)i;
	}
	for (char *name = choice.count > 0 ? NULL : strtok_r(copy, ",", &rest); name != NULL;
		name = strtok_r(NULL, ",", &rest)) {
		if (choice.count == COLUMNS) {
			return error_set(err, ERROR_USAGE, "more columns than there are");
		}
		int status = find_column(name, &choice.columns[choice.count++], err);

		if (status < 0) {
			return status;
		}
	}
	if (choice.count == 0) {
		return error_set(err, ERROR_USAGE, "--columns needs the name of a column");
	}
	*ret_choice = choice;
	return 0;
}

static void add_cell(struct cli_table *table, const struct snapshot *snapshot, enum column column)
{
	char text[128];

	switch (column) {
	case COLUMN_ID:
		cli_snapshot_id(text, snapshot->id);
		break;
	case COLUMN_ENVIRONMENT:
		snprintf(text, sizeof(text), "%s", snapshot->environment);
		break;
	case COLUMN_REASON:
		snprintf(text, sizeof(text), "%s", snapshot_reason_name(snapshot->reason));
		break;
	case COLUMN_LABEL:
		cli_cell(table, TEXT_OR_DASH(snapshot->label));
		return;
	case COLUMN_PARENT:
		parent_id(text, snapshot);
		cli_cell(table, TEXT_OR_DASH(text));
		return;
	case COLUMN_AGE:
		cli_age(text, snapshot->created_ms);
		break;
	case COLUMN_LAYERS:
		snprintf(text, sizeof(text), "%zu", snapshot->layer_count);
		break;
	case COLUMN_EXCLUSIVE:
		text_bytes(text, snapshot->exclusive);
		break;
	case COLUMN_SHARED:
		text_bytes(text, snapshot->stored - snapshot->exclusive);
		break;
	case COLUMN_TAGS:
		cli_cell(table, TEXT_OR_DASH(snapshot->tags));
		return;
	case COLUMN_PINNED:
		snprintf(text, sizeof(text), "%s", snapshot->pinned ? "pinned" : "-");
		break;
	case COLUMN_SIZE:
		text_bytes(text, snapshot->bytes);
		break;
	case COLUMN_CREATED:
		clock_format(text, snapshot->created_ms);
		break;
	case COLUMN_SANDBOX:
		cli_cell(table, TEXT_OR_DASH(snapshot->sandbox));
		return;
	case COLUMN_COMMIT:
		snprintf(text, sizeof(text), "%.*s", COMMIT_SHOWN, TEXT_OR_DASH(snapshot->commit));
		break;
	case COLUMNS:
		return;
	}
	cli_cell(table, text);
}

/* ---- order ---- */

struct order {
	enum column column;
	bool reversed;
};

static int compare_numbers(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int compare(const void *left, const void *right, void *context)
{
	const struct snapshot *a = left, *b = right;
	const struct order *order = context;
	char x[CLI_ID_SIZE], y[CLI_ID_SIZE];
	int result = 0;

	switch (order->column) {
	case COLUMN_ENVIRONMENT:
		result = strcmp(a->environment, b->environment);
		break;
	case COLUMN_REASON:
		result = (int)a->reason - (int)b->reason;
		break;
	case COLUMN_LABEL:
		result = strcmp(a->label, b->label);
		break;
	case COLUMN_PARENT:
		parent_id(x, a);
		parent_id(y, b);
		result = strcmp(x, y);
		break;
	case COLUMN_LAYERS:
		result = compare_numbers(b->layer_count, a->layer_count);
		break;
	case COLUMN_EXCLUSIVE:
		result = compare_numbers(b->exclusive, a->exclusive);
		break;
	case COLUMN_SHARED:
		result = compare_numbers(b->stored - b->exclusive, a->stored - a->exclusive);
		break;
	case COLUMN_TAGS:
		result = strcmp(a->tags != NULL ? a->tags : "~", b->tags != NULL ? b->tags : "~");
		break;
	case COLUMN_PINNED:
		result = (int)b->pinned - (int)a->pinned;
		break;
	case COLUMN_SIZE:
		result = compare_numbers(b->bytes, a->bytes);
		break;
	case COLUMN_SANDBOX:
		result = strcmp(a->sandbox, b->sandbox);
		break;
	case COLUMN_COMMIT:
		result = strcmp(a->commit, b->commit);
		break;
	case COLUMN_ID:
	case COLUMN_AGE:
	case COLUMN_CREATED:
	case COLUMNS:
		break;
	}
	if (result == 0) {
		result = (b->id > a->id) - (b->id < a->id);
	}
	return order->reversed ? -result : result;
}

static int sort_by(const char *name, struct snapshot *snapshots, size_t count, struct error *err)
{
	struct order order = {.reversed = name != NULL && name[0] == '-'};
	int status;

	if (name == NULL) {
		return 0;
	}
	status = find_column(order.reversed ? name + 1 : name, &order.column, err);
	if (status == 0 && count > 0) {
		qsort_r(snapshots, count, sizeof(*snapshots), compare, &order);
	}
	return status;
}

/* ---- ls ---- */

static int read_filter(
	const struct snapshots_cli *cli, struct snapshot_filter *ret_filter, struct error *err)
{
	struct snapshot_filter filter = SNAPSHOT_FILTER_ALL;
	enum snapshot_reason reason;
	int64_t ms;

	filter.environment = cli->environment;
	filter.label = cli->label;
	if (cli->reason != NULL) {
		if (!snapshot_reason_parse(cli->reason, &reason)) {
			return error_set(err, ERROR_USAGE,
				"no reason \"%s\": base, session, exit and manual are",
				cli->reason);
		}
		filter.reason = (int)reason;
	}
	if (cli->older_than != NULL) {
		if (!duration_parse(cli->older_than, &ms)) {
			return error_set(err, ERROR_USAGE, "\"%s\" is no time: 12h or 30d would be",
				cli->older_than);
		}
		filter.older_than_ms = clock_real_ms() - ms;
	}
	*ret_filter = filter;
	return 0;
}

static void print_table(const struct snapshot *snapshots, size_t count, const struct choice *choice)
{
	bool right[COLUMNS];
	CLEANUP(cli_table_done)
	struct cli_table table = {.columns = choice->count, .right = right};
	uint64_t exclusive = 0;
	char text[CLI_TEXT_SIZE];

	for (size_t i = 0; i < choice->count; i++) {
		right[i] = columns[choice->columns[i]].right;
		cli_cell(&table, columns[choice->columns[i]].title);
	}
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < choice->count; j++) {
			add_cell(&table, &snapshots[i], choice->columns[j]);
		}
		exclusive += snapshots[i].exclusive;
	}
	cli_table_print(&table);
	text_bytes(text, exclusive);
	printf("%zu snapshot%s; %s are in one of them only\n", count, count == 1 ? "" : "s", text);
}

static void print_json(const struct snapshot *snapshots, size_t count)
{
	CLEANUP(json_decref_p) json_t *json = json_object();
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++) {
		json_array_append_new(list, cli_snapshot_json(&snapshots[i]));
	}
	json_object_set_new(json, "snapshots", list);
	json_print(json);
}

int cli_ls(struct snapshots_cli *cli, struct error *err)
{
	struct snapshot *snapshots = NULL;
	struct snapshot_filter filter = SNAPSHOT_FILTER_ALL;
	struct choice choice = {.count = 0};
	size_t count = 0;
	int status = choose_columns(cli->columns, &choice, err);

	if (status == 0) {
		status = read_filter(cli, &filter, err);
	}
	if (status == 0) {
		status = cli_open(cli, STORE_READ, err);
	}
	if (status == 0) {
		status = snapshot_list(cli->store, &filter, &snapshots, &count, err);
	}
	if (status == 0) {
		status = sort_by(cli->sort, snapshots, count, err);
	}
	if (status == 0 && cli->json) {
		print_json(snapshots, count);
	} else if (status == 0 && count == 0) {
		fprintf(stderr, "no such snapshots\n");
	} else if (status == 0) {
		print_table(snapshots, count, &choice);
	}
	snapshots_free(snapshots, count);
	return status;
}
