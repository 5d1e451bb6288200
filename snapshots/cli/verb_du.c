/* `hob-snapshots du`: what each image and snapshot takes: apparent, stored, and of that shared with
 * others and exclusive; and all layers together, each once. */
#include "snapshots/cli/cli.h"
#include "snapshots/inventory.h"
#include "snapshots/share/share.h"
#include "snapshots/snapshot.h"

struct usage_line {
	char name[CLI_ID_SIZE];
	const char *environment;
	uint64_t apparent, stored, exclusive;
};

struct usage {
	struct inventory inventory;
	struct snapshot *snapshots;
	size_t snapshot_count;
	struct store_bytes total;
	uint64_t linked; /* of total.stored: there only once, by hard links or shared blocks */
};

static void usage_done(struct usage *usage)
{
	inventory_done(&usage->inventory);
	snapshots_free(usage->snapshots, usage->snapshot_count);
}

static struct usage_line image_line(const struct inventory_row *row)
{
	struct usage_line line = {.environment = row->image.environment,
		.apparent = row->bytes,
		.stored = row->exclusive + row->shared,
		.exclusive = row->exclusive};

	snprintf(line.name, sizeof(line.name), "img-%lld", (long long)row->image.id);
	return line;
}

static struct usage_line snapshot_line(const struct snapshot *snapshot)
{
	struct usage_line line = {.environment = snapshot->environment,
		.apparent = snapshot->bytes,
		.stored = snapshot->stored,
		.exclusive = snapshot->exclusive};

	cli_snapshot_id(line.name, snapshot->id);
	return line;
}

static void add_line(struct cli_table *table, json_t *list, const struct usage_line *line)
{
	const uint64_t numbers[] = {
		line->apparent, line->stored, line->stored - line->exclusive, line->exclusive};
	char text[CLI_TEXT_SIZE];

	json_array_append_new(
		list, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "name", line->name, "environment",
			      line->environment, "apparent_bytes", (json_int_t)numbers[0],
			      "stored_bytes", (json_int_t)numbers[1], "shared_bytes",
			      (json_int_t)numbers[2], "exclusive_bytes", (json_int_t)numbers[3]));
	cli_cell(table, line->name);
	cli_cell(table, line->environment);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		text_bytes(text, numbers[i]);
		cli_cell(table, text);
	}
}

static bool is_wanted(const struct snapshots_cli *cli, const char *environment)
{
	return cli->environment == NULL || streq(cli->environment, environment);
}

static void list_lines(const struct snapshots_cli *cli, const struct usage *usage,
	struct cli_table *table, json_t *list)
{
	for (size_t i = 0; i < usage->inventory.count; i++) {
		struct usage_line line = image_line(&usage->inventory.rows[i]);

		if (is_wanted(cli, line.environment)) {
			add_line(table, list, &line);
		}
	}
	for (size_t i = 0; i < usage->snapshot_count; i++) {
		struct usage_line line = snapshot_line(&usage->snapshots[i]);

		if (is_wanted(cli, line.environment)) {
			add_line(table, list, &line);
		}
	}
}

static void print_usage(const struct snapshots_cli *cli, const struct usage *usage)
{
	static const bool right[] = {false, false, true, true, true, true};
	static const char *const titles[] = {
		"NAME", "ENVIRONMENT", "APPARENT", "STORED", "SHARED", "EXCLUSIVE"};
	CLEANUP(cli_table_done)
	struct cli_table table = {.columns = ARRAY_SIZE(titles), .right = right};
	json_t *list = json_array();
	char apparent[CLI_TEXT_SIZE], stored[CLI_TEXT_SIZE], unlisted[CLI_TEXT_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(titles); i++) {
		cli_cell(&table, titles[i]);
	}
	list_lines(cli, usage, &table, list);
	if (cli->json) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:o, s:{s:I, s:I, s:I, s:I, s:I}}", "items", list,
			"total", "layers", (json_int_t)usage->total.layers, "apparent_bytes",
			(json_int_t)usage->total.bytes, "stored_bytes",
			(json_int_t)usage->total.stored, "unlisted_bytes",
			(json_int_t)usage->total.unlisted, "linked_bytes",
			(json_int_t)usage->linked);

		json_print(json);
		return;
	}
	json_decref(list);
	cli_table_print(&table);
	text_bytes(apparent, usage->total.bytes);
	text_bytes(stored, usage->total.stored);
	text_bytes(unlisted, usage->total.unlisted);
	printf("%llu layers, each counted once: %s apparent, %s stored; %s of it in no image and "
	       "no "
	       "snapshot\n",
		(unsigned long long)usage->total.layers, apparent, stored, unlisted);
	if (usage->linked > 0) {
		text_bytes(stored, usage->linked);
		printf("%s of it are equal files of several layers, stored once.\n", stored);
	}
}

int cli_du(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(usage_done) struct usage usage = {0};
	int status;

	cli->rights = STORE_RIGHTS_READ_TREES;
	status = cli_open(cli, STORE_READ, err);
	if (status == 0) {
		status = inventory_read(cli->store, &usage.inventory, err);
	}
	if (status == 0) {
		status = snapshot_list(cli->store, &SNAPSHOT_FILTER_ALL, &usage.snapshots,
			&usage.snapshot_count, err);
	}
	if (status == 0) {
		status = store_bytes(cli->store, &usage.total, err);
	}
	if (status == 0) {
		status = shared_bytes(cli->store, &usage.linked, err);
	}
	if (status == 0) {
		usage.total.stored -= usage.linked;
		print_usage(cli, &usage);
	}
	return status;
}
