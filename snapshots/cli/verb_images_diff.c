/* `hob-snapshots images diff A B`: commits, packages, files by digest, layers, and what differs in
 * the trees. */
#include "snapshots/cli/cli.h"
#include "snapshots/cli/images_changes.h"
#include "snapshots/tree/tree_walk.h"

/* One list of the manifests: what names an entry, and what tells two of one name apart. */
struct list {
	const char *member;
	const char *names[2]; /* of members; the second may be NULL */
	const char *value, *digest;
};

static const struct list lists[] = {
	{"sources", {"path", NULL}, "commit", "commit"},
	{"packages", {"manager", "name"}, "version", "digest"},
	{"files", {"path", NULL}, "url", "digest"},
};

static const char *text_of(const json_t *object, const char *member)
{
	const char *text =
		member != NULL ? json_string_value(json_object_get(object, member)) : NULL;

	return text != NULL ? text : "";
}

static bool is_same_thing(const struct list *list, const json_t *a, const json_t *b)
{
	return streq(text_of(a, list->names[0]), text_of(b, list->names[0])) &&
	       streq(text_of(a, list->names[1]), text_of(b, list->names[1]));
}

static bool is_equal(const struct list *list, const json_t *a, const json_t *b)
{
	return streq(text_of(a, list->value), text_of(b, list->value)) &&
	       streq(text_of(a, list->digest), text_of(b, list->digest));
}

/* npm may have several versions of one name: an equal one first, then any. */
static const json_t *find(const struct list *list, const json_t *entries, const json_t *wanted)
{
	const json_t *found = NULL;
	json_t *value;
	size_t i;

	json_array_foreach (entries, i, value) {
		if (is_same_thing(list, value, wanted)) {
			if (is_equal(list, value, wanted)) {
				return value;
			}
			found = value;
		}
	}
	return found;
}

static json_t *change_json(const char *change, const json_t *before, const json_t *after)
{
	json_t *json = json_object();

	json_object_set_new(json, "change", json_string(change));
	json_object_set(json, "before", before != NULL ? (json_t *)(uintptr_t)before : json_null());
	json_object_set(json, "after", after != NULL ? (json_t *)(uintptr_t)after : json_null());
	return json;
}

static json_t *compare_lists(const struct list *list, const json_t *before, const json_t *after)
{
	json_t *changes = json_array(), *value;
	size_t i;

	json_array_foreach (before, i, value) {
		const json_t *other = find(list, after, value);

		if (other == NULL) {
			json_array_append_new(changes, change_json("removed", value, NULL));
		} else if (!is_equal(list, value, other)) {
			json_array_append_new(changes, change_json("changed", value, other));
		}
	}
	json_array_foreach (after, i, value) {
		if (find(list, before, value) == NULL) {
			json_array_append_new(changes, change_json("added", NULL, value));
		}
	}
	return changes;
}

/* ---- layers ---- */

static const struct layer *layer_titled(const struct image *image, const struct layer *wanted)
{
	for (size_t i = 0; i < image->layer_count; i++) {
		const struct layer *layer = &image->layers[i];

		if (layer->id == wanted->id ||
			(streq(layer->kind, wanted->kind) && streq(layer->title, wanted->title))) {
			return layer;
		}
	}
	return NULL;
}

static void add_layer(
	json_t *changes, const char *change, const struct layer *before, const struct layer *after)
{
	const struct layer *shown = after != NULL ? after : before;
	json_t *json = json_object();

	json_object_set_new(json, "change", json_string(change));
	json_object_set_new(json, "kind", json_string(shown->kind));
	json_object_set_new(json, "title", json_str_or_null(shown->title));
	json_object_set_new(
		json, "before", before != NULL ? json_integer(before->id) : json_null());
	json_object_set_new(json, "after", after != NULL ? json_integer(after->id) : json_null());
	json_array_append_new(changes, json);
}

static json_t *compare_layers(const struct image *before, const struct image *after)
{
	json_t *changes = json_array();

	for (size_t i = 0; i < before->layer_count; i++) {
		const struct layer *layer = &before->layers[i];
		const struct layer *other = layer_titled(after, layer);

		if (other == NULL) {
			add_layer(changes, "removed", layer, NULL);
		} else if (other->id != layer->id) {
			add_layer(changes, "changed", layer, other);
		}
	}
	for (size_t i = 0; i < after->layer_count; i++) {
		if (layer_titled(before, &after->layers[i]) == NULL) {
			add_layer(changes, "added", NULL, &after->layers[i]);
		}
	}
	return changes;
}

static int compare(struct snapshots_cli *cli, const struct image *before, const struct image *after,
	struct error *err)
{
	CLEANUP(tree_view_close_p) struct tree_view *a = NULL;
	CLEANUP(tree_view_close_p) struct tree_view *b = NULL;
	CLEANUP(json_decref_p) json_t *old = json_loads(before->manifest, 0, NULL);
	CLEANUP(json_decref_p) json_t *new = json_loads(after->manifest, 0, NULL);
	CLEANUP(json_decref_p) json_t *json = json_object();
	json_t *layers = compare_layers(before, after);
	int status;

	json_object_set_new(json, "before", json_sprintf("img-%lld", (long long)before->id));
	json_object_set_new(json, "after", json_sprintf("img-%lld", (long long)after->id));
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		json_t *changes = compare_lists(&lists[i], json_object_get(old, lists[i].member),
			json_object_get(new, lists[i].member));

		json_object_set_new(json, lists[i].member, changes);
	}
	json_object_set_new(json, "layers", layers);
	if (!cli->json) {
		images_changes_print(json);
		puts("Tree:");
	}
	status = tree_view_open(cli->store, before->layers, before->layer_count, &a, err);
	if (status == 0) {
		status = tree_view_open(cli->store, after->layers, after->layer_count, &b, err);
	}
	if (status == 0) {
		status = cli_diff_views(cli, a, b, json, err);
	}
	if (status == 0 && cli->json) {
		json_print(json);
	}
	return status;
}

int cli_images_diff(struct snapshots_cli *cli, struct error *err)
{
	struct image before = {0}, after = {0};
	int status;

	cli->rights = STORE_RIGHTS_READ_TREES;
	status = cli_open(cli, STORE_READ, err);
	if (status == 0) {
		status = image_find(cli->store, cli->operands[0], &before, err);
	}
	if (status == 0) {
		status = image_find(cli->store, cli->operands[1], &after, err);
	}
	if (status == 0) {
		status = compare(cli, &before, &after, err);
	}
	image_done(&before);
	image_done(&after);
	return status;
}
