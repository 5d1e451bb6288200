/* `hob-snapshots tree`: lineage, from each image down to its newest children. An only child stands
 * under its parent without another step to the right, so that a long chain stays on the screen. */
#include "snapshots/cli/cli.h"
#include "snapshots/snapshot.h"

#include "base/buffer.h"

struct node {
	const struct snapshot *snapshot;
	size_t first_child, next; /* index + 1; 0: none */
	bool wanted;
};

struct forest {
	struct snapshots_cli *cli;
	struct snapshot *snapshots;
	struct node *nodes; /* as the snapshots: the newest first */
	size_t count;
	struct image *images;
	size_t image_count;
};

static void forest_done(struct forest *forest)
{
	for (size_t i = 0; i < forest->image_count; i++) {
		image_done(&forest->images[i]);
	}
	free(forest->images);
	free(forest->nodes);
	snapshots_free(forest->snapshots, forest->count);
}

static int compare_id(const void *key, const void *element)
{
	const int64_t *id = key;
	const struct node *node = element;

	return (node->snapshot->id > *id) - (node->snapshot->id < *id);
}

static struct node *find_node(const struct forest *forest, int64_t id)
{
	return forest->count > 0 ? bsearch(&id, forest->nodes, forest->count,
					   sizeof(*forest->nodes), compare_id)
				 : NULL;
}

static int forest_read(struct forest *forest, struct error *err)
{
	struct snapshot_filter filter = SNAPSHOT_FILTER_ALL;
	int status;

	filter.environment = forest->cli->environment;
	status =
		snapshot_list(forest->cli->store, &filter, &forest->snapshots, &forest->count, err);
	if (status == 0) {
		status = image_list(forest->cli->store, forest->cli->environment, &forest->images,
			&forest->image_count, err);
	}
	if (status < 0) {
		return status;
	}
	forest->nodes = xcalloc(forest->count, sizeof(*forest->nodes));
	for (size_t i = 0; i < forest->count; i++) {
		forest->nodes[i].snapshot = &forest->snapshots[i];
	}
	/* From the newest: each goes before its elder siblings' place, so the eldest ends first. */
	for (size_t i = 0; i < forest->count; i++) {
		struct node *parent = find_node(forest, forest->snapshots[i].parent_id);

		if (parent != NULL) {
			forest->nodes[i].next = parent->first_child;
			parent->first_child = i + 1;
		}
	}
	return 0;
}

/* The named one, what it came from, and what came from it. Ids grow from parent to child. */
static void want_line(struct forest *forest, int64_t id)
{
	struct node *named = find_node(forest, id);

	for (struct node *node = named; node != NULL;
		node = find_node(forest, node->snapshot->parent_id)) {
		node->wanted = true;
	}
	for (size_t i = forest->count; i-- > 0;) {
		struct node *node = &forest->nodes[i];
		const struct node *parent = find_node(forest, node->snapshot->parent_id);

		/* Not by way of an ancestor: those are wanted without their other children. */
		if (parent != NULL && parent->wanted && parent->snapshot->id >= id) {
			node->wanted = true;
		}
	}
}

static int choose(struct forest *forest, struct error *err)
{
	const char *name = forest->cli->operands[0];
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	struct image image;
	int64_t image_id = 0;
	int status;

	if (name != NULL && snapshot_find(forest->cli->store, name, &snapshot, err) == 0) {
		want_line(forest, snapshot.id);
		return 0;
	}
	if (name != NULL) {
		status = image_find(forest->cli->store, name, &image, err);
		if (status < 0) {
			return error_set(
				err, ERROR_NOT_FOUND, "no snapshot and no image \"%s\"", name);
		}
		image_id = image.id;
		image_done(&image);
	}
	for (size_t i = 0; i < forest->count; i++) {
		forest->nodes[i].wanted = name == NULL || forest->snapshots[i].image_id == image_id;
	}
	return 0;
}

/* ---- for people ---- */

static void describe(const struct snapshot *snapshot)
{
	char age[CLI_TEXT_SIZE], exclusive[CLI_TEXT_SIZE];

	cli_age(age, snapshot->created_ms);
	text_bytes(exclusive, snapshot->exclusive);
	printf("snap-%lld  %s, %s ago, %s own", (long long)snapshot->id,
		snapshot_reason_name(snapshot->reason), age, exclusive);
	if (snapshot->label[0] != '\0') {
		printf("  \"%s\"", snapshot->label);
	}
	if (snapshot->tags != NULL) {
		printf("  [%s]", snapshot->tags);
	}
	puts(snapshot->pinned ? "  pinned" : "");
}

static size_t next_wanted(const struct forest *forest, size_t at)
{
	while (at != 0 && !forest->nodes[at - 1].wanted) {
		at = forest->nodes[at - 1].next;
	}
	return at;
}

/* Prints the chain of only children that begins at `at`, then goes one step right at a fork. */
static void print_below(const struct forest *forest, size_t at, struct buffer *indent)
{
	for (;;) {
		size_t child = next_wanted(forest, forest->nodes[at - 1].first_child), next;

		if (child == 0) {
			return;
		}
		next = next_wanted(forest, forest->nodes[child - 1].next);
		if (next != 0) {
			break;
		}
		printf("%s", buffer_text(indent));
		describe(forest->nodes[child - 1].snapshot);
		at = child;
	}
	for (size_t child = next_wanted(forest, forest->nodes[at - 1].first_child); child != 0;) {
		size_t next = next_wanted(forest, forest->nodes[child - 1].next);
		size_t length = indent->length;

		printf("%s%s", buffer_text(indent), next != 0 ? "├─ " : "└─ ");
		describe(forest->nodes[child - 1].snapshot);
		buffer_add_str(indent, next != 0 ? "│  " : "   ");
		print_below(forest, child, indent);
		indent->length = length;
		indent->data[length] = '\0';
		child = next;
	}
}

static bool is_root(const struct forest *forest, const struct node *node, int64_t image_id)
{
	return node->wanted && node->snapshot->image_id == image_id &&
	       find_node(forest, node->snapshot->parent_id) == NULL;
}

/* The snapshots right above an image, the eldest first. */
static void print_roots(const struct forest *forest, int64_t image_id)
{
	size_t left = 0;

	for (size_t i = 0; i < forest->count; i++) {
		left += is_root(forest, &forest->nodes[i], image_id);
	}
	for (size_t i = forest->count; i-- > 0;) {
		CLEANUP(buffer_done) struct buffer indent = {0};

		if (is_root(forest, &forest->nodes[i], image_id)) {
			left--;
			printf("%s", left > 0 ? "├─ " : "└─ ");
			describe(&forest->snapshots[i]);
			buffer_add_str(&indent, left > 0 ? "│  " : "   ");
			print_below(forest, i + 1, &indent);
		}
	}
}

static bool has_roots(const struct forest *forest, int64_t image_id)
{
	for (size_t i = 0; i < forest->count; i++) {
		if (is_root(forest, &forest->nodes[i], image_id)) {
			return true;
		}
	}
	return false;
}

static void print_forest(const struct forest *forest)
{
	bool narrowed = forest->cli->operands[0] != NULL;

	for (size_t i = forest->image_count; i-- > 0;) {
		const struct image *image = &forest->images[i];

		if (has_roots(forest, image->id) || (image->is_head && !narrowed)) {
			printf("img-%lld  %s %.12s%s\n", (long long)image->id, image->environment,
				image->commit, image->is_head ? "  head" : "");
			print_roots(forest, image->id);
		}
	}
	if (has_roots(forest, 0)) {
		puts("imported");
		print_roots(forest, 0);
	}
}

/* ---- for programs: flat, each with its parent; a nested list would be as deep as the chain ----
 */

static void print_json(const struct forest *forest)
{
	CLEANUP(json_decref_p) json_t *json = json_object();
	json_t *images = json_array(), *snapshots = json_array();

	for (size_t i = forest->image_count; i-- > 0;) {
		const struct image *image = &forest->images[i];
		char id[CLI_ID_SIZE];

		if (has_roots(forest, image->id)) {
			snprintf(id, sizeof(id), "img-%lld", (long long)image->id);
			json_array_append_new(
				images, json_pack("{s:s, s:s, s:s, s:b}", "id", id, "environment",
						image->environment, "commit", image->commit, "head",
						image->is_head));
		}
	}
	for (size_t i = forest->count; i-- > 0;) {
		if (forest->nodes[i].wanted) {
			json_array_append_new(snapshots, cli_snapshot_json(&forest->snapshots[i]));
		}
	}
	json_object_set_new(json, "images", images);
	json_object_set_new(json, "snapshots", snapshots);
	json_print(json);
}

int cli_tree(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(forest_done) struct forest forest = {.cli = cli};
	int status = cli_open(cli, STORE_READ, err);

	if (status == 0) {
		status = forest_read(&forest, err);
	}
	if (status == 0) {
		status = choose(&forest, err);
	}
	if (status < 0) {
		return status;
	}
	if (cli->json) {
		print_json(&forest);
	} else {
		print_forest(&forest);
	}
	return 0;
}
