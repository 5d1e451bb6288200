/*
 * `hob-snapshots take`: the store's side of a snapshot that hobd takes. syncfs and the catalog's
 * transactions may block for as long as the disk likes, and hobd must not; so one process of this
 * verb has the handle, the staging folder's lock and the run from the first step to the last, with
 * no more rights than hobd has. hobd starts it and tells it, in lines of JSON, what to take; it
 * says where; once the tree is there hobd says so, and it seals and commits. The end of its input
 * before that, hobd's death too, undoes everything. Killed itself, its locks go, and the sweep of
 * the next start takes the rest. Only what a sandbox leaves at its end ("keep") nobody else has
 * once it was renamed: its staging folder and run stay, and the next hobd asks for it again.
 *
 *     in   {"sandbox", "environment", "image", "parent", "reason", "label", "metadata", "keep"}
 *     out  {"staging"}
 *     in   {"layers", "id_base", "id_count", "files", "bytes", "commits", "torn"}
 *          layers: those below, lowest first; commits: of the workspaces, where another than the
 *          parent's; torn: a sync of them is not at its end
 *     in   {"give_up"}    in its place: there is nothing to be kept
 *     out  {"snapshot": …, "layer"} or {"error": {"kind", "message", "hint"}}
 *     out  {"remove", "room"}    at any time: to be deleted by hobd's launcher, which may
 */
#include "snapshots/cli/cli.h"

#include "snapshots/snapshot.h"

#include <inttypes.h>
#include <signal.h>

/* Two minutes for the layers of one snapshot. */
#define FLAT_LOOKS 1200
#define FLAT_LOOK_US 100000

struct take {
	struct snapshots_cli *cli;
	struct staging *staging;
	struct snapshot snapshot;
	struct layer own;
	bool keep; /* what a sandbox leaves at its end */
	bool leave; /* hobd died: the next one takes it up */
	struct tree_usage usage; /* as hobd was told by who made the tree */
};

static void say(json_t *json)
{
	CLEANUP(json_decref_p) json_t *line = json;

	json_print(line);
	fflush(stdout);
}

static int ask_to_remove(void *context, const char *room, const char *name, struct error *err)
{
	(void)context;
	(void)err;
	say(json_pack("{s:s, s:s}", "remove", name, "room", room));
	return 0;
}

/* The tree has folders that only its sandbox may read: what was counted when it was made counts,
 * and of the blocks in use what can be seen. */
static int tell_usage(
	void *context, const char *name, struct tree_usage *ret_usage, struct error *err)
{
	const struct take *take = context;
	struct tree_usage seen = {0};
	int status;

	(void)name;
	status = io_tree_usage(staging_fd(take->staging), "tree", &seen, err);
	if (status < 0) {
		return status;
	}
	if (seen.unread > 0 && take->usage.files > 0) {
		seen.files = take->usage.files;
		seen.stored = seen.stored > take->usage.bytes ? seen.stored : take->usage.bytes;
		seen.bytes = take->usage.bytes;
	}
	*ret_usage = seen;
	return 0;
}

/* The next line; ERROR_CANCELLED at the end of input. */
static int hear(json_t **ret_json, struct error *err)
{
	CLEANUP(free_p) char *line = NULL;
	size_t room = 0;
	ssize_t length = getline(&line, &room, stdin);

	if (length <= 0 || line[length - 1] != '\n') {
		return error_set(err, ERROR_CANCELLED, "hobd gave up");
	}
	return json_parse_object(line, (size_t)length, ret_json, err);
}

static int copy_text(
	const json_t *json, const char *key, char *text, size_t size, struct error *err)
{
	const char *value = "";
	int status = json_get_str(json, key, &value, err);

	if (status < 0) {
		return status;
	}
	if (strlen(value) >= size) {
		return error_set(err, ERROR_LIMIT, "\"%s\" is over %zu bytes long", key, size - 1);
	}
	memcpy(text, value, strlen(value) + 1);
	return 0;
}

static int read_what(const json_t *json, struct take *take, struct error *err)
{
	struct snapshot *snapshot = &take->snapshot;
	const json_t *metadata = json_object_get(json, "metadata");
	const char *reason = "";
	int status;

	if ((status = copy_text(
		     json, "sandbox", snapshot->sandbox, sizeof(snapshot->sandbox), err)) < 0 ||
		(status = copy_text(json, "environment", snapshot->environment,
			 sizeof(snapshot->environment), err)) < 0 ||
		(status = copy_text(json, "label", snapshot->label, sizeof(snapshot->label), err)) <
			0 ||
		(status = json_get_int(json, "image", 0, INT64_MAX, &snapshot->image_id, err)) <
			0 ||
		(status = json_get_int(json, "parent", 0, INT64_MAX, &snapshot->parent_id, err)) <
			0 ||
		(status = json_get_str(json, "reason", &reason, err)) < 0) {
		return status;
	}
	if (!snapshot_reason_parse(reason, &snapshot->reason)) {
		return error_set(err, ERROR_INVALID, "no reason \"%s\"", reason);
	}
	take->keep = json_is_true(json_object_get(json, "keep"));
	snapshot->metadata = json_is_object(metadata) ? json_text(metadata) : xstrdup("{}");
	return 0;
}

static int parent_manifest(const struct take *take, char **ret_text, struct error *err)
{
	struct store *store = take->cli->store;
	char name[CLI_ID_SIZE];
	int status;

	if (take->snapshot.parent_id != 0) {
		CLEANUP(snapshot_done) struct snapshot parent = {0};

		cli_snapshot_id(name, take->snapshot.parent_id);
		status = snapshot_find(store, name, &parent, err);
		*ret_text = steal_ptr(parent.manifest);
	} else {
		CLEANUP(image_done) struct image parent = {0};

		snprintf(name, sizeof(name), "img-%" PRId64, take->snapshot.image_id);
		status = image_find(store, name, &parent, err);
		*ret_text = steal_ptr(parent.manifest);
	}
	return status;
}

/* Its workspaces are at other commits than those of what it stood on: its manifest says so. */
static int read_commits(const json_t *json, struct take *take, struct error *err)
{
	const json_t *commits = json_object_get(json, "commits"), *item;
	bool torn = json_is_true(json_object_get(json, "torn"));
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(json_decref_p) json_t *manifest = NULL;
	json_t *sources;
	size_t i;
	int status;

	if (json_array_size(commits) == 0 && !torn) {
		return 0;
	}
	if ((status = parent_manifest(take, &text, err)) < 0 ||
		(status = json_parse_object(text != NULL ? text : "{}",
			 text != NULL ? strlen(text) : 2, &manifest, err)) < 0) {
		return error_wrap(err, "the manifest of what %s stood on", take->snapshot.sandbox);
	}
	sources = json_object_get(manifest, "sources");
	json_array_foreach ((json_t *)(uintptr_t)commits, i, item) {
		json_t *source = json_array_get(sources, i);

		if (json_is_object(source) && json_is_string(item)) {
			json_object_set(source, "commit", (json_t *)(uintptr_t)item);
		}
	}
	json_array_foreach (sources, i, item) {
		json_object_set_new((json_t *)(uintptr_t)item, "torn", json_boolean(torn));
	}
	free(take->snapshot.manifest);
	take->snapshot.manifest = json_text(manifest);
	return copy_text(json_array_get(sources, 0), "commit", take->snapshot.commit,
		sizeof(take->snapshot.commit), err);
}

static int read_made(const json_t *json, struct take *take, struct error *err)
{
	struct snapshot *snapshot = &take->snapshot;
	const json_t *layers = json_object_get(json, "layers");
	int64_t files = 0, bytes = 0;
	int status;

	if ((status = json_get_int(json, "id_base", 0, INT64_MAX, &take->own.id_base, err)) < 0 ||
		(status = json_get_int(json, "id_count", 1, INT64_MAX, &take->own.id_count, err)) <
			0 ||
		(status = json_get_int(json, "files", 0, INT64_MAX, &files, err)) < 0 ||
		(status = json_get_int(json, "bytes", 0, INT64_MAX, &bytes, err)) < 0) {
		return status;
	}
	take->usage = (struct tree_usage){.files = (uint64_t)files, .bytes = (uint64_t)bytes};
	snapshot->layer_count = json_array_size(layers) + 1;
	snapshot->own_count = 1;
	snapshot->layers = xcalloc(snapshot->layer_count, sizeof(*snapshot->layers));
	for (size_t i = 0; i + 1 < snapshot->layer_count; i++) {
		snapshot->layers[i].id = json_integer_value(json_array_get(layers, i));
	}
	return read_commits(json, take, err);
}

static int seal(struct take *take, struct error *err)
{
	struct snapshot *snapshot = &take->snapshot;
	int status;

	snprintf(take->own.kind, sizeof(take->own.kind), "session");
	snprintf(take->own.title, sizeof(take->own.title), "%s of %s",
		snapshot_reason_name(snapshot->reason), snapshot->sandbox);
	store_set_usage(take->cli->store, tell_usage, take);
	status = layer_seal(take->cli->store, take->staging, &take->own, err);
	if (status < 0) {
		return status;
	}
	snapshot->layers[snapshot->layer_count - 1].id = take->own.id;
	return snapshot_commit(take->cli->store, snapshot, err);
}

/* hobd has deep snapshots flattened as they come; the one at the limit waits for that. */
static int wait_for_flat(struct take *take, struct error *err)
{
	char name[CLI_ID_SIZE];
	int status = 0;

	cli_snapshot_id(name, take->snapshot.parent_id);
	for (int i = 0; status == 0 && take->snapshot.parent_id != 0 && i < FLAT_LOOKS; i++) {
		CLEANUP(snapshot_done) struct snapshot parent = {0};

		status = snapshot_find(take->cli->store, name, &parent, err);
		if (status < 0 || parent.layer_count < SNAPSHOT_LAYERS_MAX) {
			return status;
		}
		usleep(FLAT_LOOK_US);
	}
	return status;
}

static int take_one(struct take *take, struct error *err)
{
	CLEANUP(json_decref_p) json_t *what = NULL;
	CLEANUP(json_decref_p) json_t *made = NULL;
	struct store *store = take->cli->store;
	int status;

	if ((status = hear(&what, err)) < 0 || (status = read_what(what, take, err)) < 0 ||
		(status = wait_for_flat(take, err)) < 0) {
		return status;
	}
	if (take->keep) {
		status = snapshot_keep_begin(store, take->snapshot.sandbox, &take->staging, err);
	} else if ((status = staging_new(store, &take->staging, err)) == 0) {
		status = snapshot_begin(store, take->snapshot.sandbox, take->staging, err);
	}
	if (status < 0) {
		return status;
	}
	say(json_pack("{s:s}", "staging", staging_name(take->staging)));
	status = hear(&made, err);
	if (status < 0 || json_object_get(made, "give_up") != NULL) {
		take->leave = take->keep && status < 0;
		return status < 0 ? status : error_set(err, ERROR_CANCELLED, "hobd gave up");
	}
	status = read_made(made, take, err);
	return status < 0 ? status : seal(take, err);
}

static void say_error(const struct error *err)
{
	say(json_pack("{s:o}", "error", json_from_error(err)));
}

int cli_take(struct snapshots_cli *cli, struct error *err)
{
	struct take take = {.cli = cli};
	struct error failure = ERROR_INIT, ignored = ERROR_INIT;
	int status;

	signal(SIGPIPE, SIG_IGN); /* a hobd that died is no reason to leave half of it */
	status = cli_open(cli, STORE_WRITE, err);
	if (status < 0) {
		say_error(err);
		return status;
	}
	store_set_remover(cli->store, ask_to_remove, NULL);
	status = take_one(&take, &failure);
	if (status == 0) {
		say(json_pack("{s:o, s:I}", "snapshot", cli_snapshot_json(&take.snapshot), "layer",
			(json_int_t)take.own.id));
	} else {
		say_error(&failure);
	}
	if (take.leave) {
		snapshot_keep_leave(steal_ptr(take.staging));
	}
	/* Only our own run: one that was refused is another's. */
	if (status < 0 && failure.kind != ERROR_BUSY && take.staging != NULL) {
		(void)!snapshot_abort(cli->store, take.snapshot.sandbox, &ignored);
	}
	staging_free(take.staging);
	snapshot_done(&take.snapshot);
	return 0;
}
