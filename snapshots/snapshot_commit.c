/*
 * From sealed layers to a snapshot: what is checked, what is taken from the parent, and the one
 * transaction.
 */
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"

#include "base/clock.h"
#include "base/json.h"

/* UTF-8 without control characters, as jansson checks it. */
static bool is_text(const char *text)
{
	CLEANUP(json_decref_p) json_t *json = json_string(text);

	for (const char *byte = text; *byte != '\0'; byte++) {
		if ((unsigned char)*byte < 0x20 || *byte == 0x7f) {
			return false;
		}
	}
	return json != NULL;
}

static int check_metadata(const char *metadata, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	const char *key;
	json_t *value;
	int status;

	if (metadata == NULL) {
		return 0;
	}
	if (strlen(metadata) > SNAPSHOT_METADATA_MAX) {
		return error_set(err, ERROR_LIMIT, "metadata of %zu bytes; %d are possible",
			strlen(metadata), SNAPSHOT_METADATA_MAX);
	}
	status = json_parse_object(metadata, strlen(metadata), &json, err);
	if (status < 0) {
		return error_wrap(err, "metadata");
	}
	json_object_foreach (json, key, value) {
		if (!json_is_string(value)) {
			return error_set(
				err, ERROR_INVALID, "metadata: \"%s\" is not a string", key);
		}
	}
	return 0;
}

static int check_snapshot(const struct snapshot *snapshot, struct error *err)
{
	size_t count = snapshot->layer_count;

	if (!name_is_valid(snapshot->environment)) {
		return error_set(err, ERROR_INVALID, "\"%s\" is no name of an environment",
			snapshot->environment);
	}
	if (!is_text(snapshot->label) || !is_text(snapshot->sandbox)) {
		return error_set(err, ERROR_INVALID,
			"a label is one line of UTF-8 without control characters");
	}
	/* With a parent that has been flattened meanwhile, it may become fewer. */
	if (count == 0 || snapshot->own_count > count ||
		count > SNAPSHOT_LAYERS_MAX + (snapshot->parent_id != 0)) {
		error_set(err, ERROR_LIMIT,
			"a snapshot of %zu layers, %zu its own; 1 to %d are possible", count,
			snapshot->own_count, SNAPSHOT_LAYERS_MAX);
		return error_hint(err, "hob snapshots flatten makes one of several");
	}
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < i; j++) {
			if (snapshot->layers[i].id == snapshot->layers[j].id) {
				return error_set(err, ERROR_INVALID, "layer %lld is there twice",
					(long long)snapshot->layers[i].id);
			}
		}
	}
	return check_metadata(snapshot->metadata, err);
}

/* Fills in what the caller left to the parent. */
static int take_from(struct store *store, const char *sql, int64_t id, const char *prefix,
	struct snapshot *snapshot, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, sql);
	query_bind_int(&query, id);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	if (row == 0) {
		return error_set(
			err, ERROR_NOT_FOUND, "no %s-%lld to be the parent", prefix, (long long)id);
	}
	snapshot->image_id = query_int(&query, 0);
	if (snapshot->commit[0] == '\0') {
		query_copy(&query, 1, snapshot->commit, sizeof(snapshot->commit));
	}
	if (snapshot->manifest == NULL) {
		snapshot->manifest = xstrdup(query_text(&query, 2));
	}
	return 0;
}

static int take_from_parent(struct store *store, struct snapshot *snapshot, struct error *err)
{
	if (snapshot->parent_id != 0) {
		return take_from(store,
			"SELECT image_id, commit_id, manifest FROM snapshots WHERE id = ?",
			snapshot->parent_id, "snap", snapshot, err);
	}
	if (snapshot->image_id != 0) {
		return take_from(store, "SELECT id, commit_id, manifest FROM images WHERE id = ?",
			snapshot->image_id, "img", snapshot, err);
	}
	return 0;
}

/* Is what the snapshot stands on a list that the parent had in this generation? */
static int is_list_of(struct store *store, const struct snapshot *snapshot, int64_t generation,
	bool *ret_is, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	size_t below = snapshot->layer_count - snapshot->own_count, count = 0;
	bool same = true;
	int row;

	query_init(&query, store->db,
		"SELECT layer_id FROM snapshot_layers WHERE snapshot_id = ? AND generation = ?"
		" ORDER BY position");
	query_bind_int(&query, snapshot->parent_id);
	query_bind_int(&query, generation);
	while ((row = query_row(&query, err)) > 0) {
		same = same && count < below && snapshot->layers[count].id == query_int(&query, 0);
		count++;
	}
	*ret_is = same && count == below;
	return row;
}

static int use_list(
	struct store *store, struct snapshot *snapshot, int64_t generation, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	struct layer *list = xcalloc(snapshot->layer_count + 1, sizeof(*list));
	size_t count = 0, below = snapshot->layer_count - snapshot->own_count;
	int row;

	query_init(&query, store->db,
		"SELECT layer_id FROM snapshot_layers WHERE snapshot_id = ? AND generation = ?"
		" ORDER BY position");
	query_bind_int(&query, snapshot->parent_id);
	query_bind_int(&query, generation);
	while ((row = query_row(&query, err)) > 0 && count < below) {
		list[count++].id = query_int(&query, 0);
	}
	if (row == 0) {
		memcpy(list + count, snapshot->layers + below, snapshot->own_count * sizeof(*list));
		memcpy(snapshot->layers, list, (count + snapshot->own_count) * sizeof(*list));
		snapshot->layer_count = count + snapshot->own_count;
	}
	free(list);
	return row < 0 ? row : 0;
}

/* A sandbox keeps the list that it started with; its snapshot need not, when both show the same. */
static int take_flat_list(struct store *store, struct snapshot *snapshot, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int64_t generation = 0;
	bool former = false;
	int row;

	if (snapshot->parent_id == 0) {
		return 0;
	}
	query_init(&query, store->db, "SELECT generation FROM snapshots WHERE id = ?");
	query_bind_int(&query, snapshot->parent_id);
	row = query_row(&query, err);
	if (row <= 0) {
		return row;
	}
	generation = query_int(&query, 0);
	for (int64_t i = generation - 1; i > 0 && !former; i--) {
		int status = is_list_of(store, snapshot, i, &former, err);

		if (status < 0) {
			return status;
		}
	}
	return former ? use_list(store, snapshot, generation, err) : 0;
}

static int check_count(const struct snapshot *snapshot, struct error *err)
{
	if (snapshot->layer_count <= SNAPSHOT_LAYERS_MAX) {
		return 0;
	}
	error_set(err, ERROR_LIMIT, "a snapshot of %zu layers; %d are possible",
		snapshot->layer_count, SNAPSHOT_LAYERS_MAX);
	return error_hint(err, "hob snapshots flatten snap-%lld makes one of several",
		(long long)snapshot->parent_id);
}

static void bind_id(struct query *query, int64_t id)
{
	if (id != 0) {
		query_bind_int(query, id);
	} else {
		query_bind_text(query, NULL);
	}
}

static int insert_row(struct store *store, struct snapshot *snapshot, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int status;

	query_init(&query, store->db,
		"INSERT INTO snapshots (environment, image_id, parent_id, reason, label, sandbox,"
		" commit_id, layer_count, own_count, bytes, stored, created_ms, metadata, manifest)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
	query_bind_text(&query, snapshot->environment);
	bind_id(&query, snapshot->image_id);
	bind_id(&query, snapshot->parent_id);
	query_bind_text(&query, snapshot_reason_name(snapshot->reason));
	query_bind_text(&query, snapshot->label);
	query_bind_text(&query, snapshot->sandbox);
	query_bind_text(&query, snapshot->commit);
	query_bind_int(&query, (int64_t)snapshot->layer_count);
	query_bind_int(&query, (int64_t)snapshot->own_count);
	query_bind_int(&query, (int64_t)snapshot->bytes);
	query_bind_int(&query, (int64_t)snapshot->stored);
	query_bind_int(&query, snapshot->created_ms);
	query_bind_text(&query, snapshot->metadata != NULL ? snapshot->metadata : "{}");
	query_bind_text(&query, snapshot->manifest != NULL ? snapshot->manifest : "{}");
	status = query_run(&query, NULL, err);
	if (status == 0) {
		snapshot->id = sqlite3_last_insert_rowid(store->db);
	}
	return status;
}

int snapshot_insert_layers(struct store *store, const struct snapshot *snapshot, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int status = 0;

	query_init(&query, store->db,
		"INSERT INTO snapshot_layers (snapshot_id, generation, position, layer_id)"
		" VALUES (?, ?, ?, ?)");
	for (size_t i = 0; status == 0 && i < snapshot->layer_count; i++) {
		query_bind_int(&query, snapshot->id);
		query_bind_int(&query, snapshot->generation);
		query_bind_int(&query, (int64_t)i);
		query_bind_int(&query, snapshot->layers[i].id);
		status = query_run(&query, NULL, err);
		query_again(&query);
	}
	return status;
}

static int commit_rows(struct store *store, struct snapshot *snapshot, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	int status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);

	if (status == 0) {
		status = take_from_parent(store, snapshot, err);
	}
	if (status == 0) {
		status = take_flat_list(store, snapshot, err);
	}
	if (status == 0) {
		status = check_count(snapshot, err);
	}
	for (size_t i = 0; status == 0 && i < snapshot->layer_count; i++) {
		status = layer_claim(store, &snapshot->layers[i], err);
		snapshot->bytes += snapshot->layers[i].bytes;
		snapshot->stored += snapshot->layers[i].stored;
	}
	if (status == 0) {
		status = insert_row(store, snapshot, err);
	}
	if (status == 0) {
		status = snapshot_insert_layers(store, snapshot, err);
	}
	if (status == 0 && snapshot->sandbox[0] != '\0') {
		status = snapshot_run_end(store, snapshot->sandbox, err);
	}
	if (status == 0) {
		status = store_fault("snapshot.before_commit", err);
	}
	return status < 0 ? status : transaction_commit(&transaction, err);
}

int snapshot_commit(struct store *store, struct snapshot *snapshot, struct error *err)
{
	struct error ignored = ERROR_INIT;
	int status = check_snapshot(snapshot, err);

	snapshot->created_ms = clock_real_ms();
	snapshot->generation = 1;
	snapshot->bytes = snapshot->stored = snapshot->exclusive = 0;
	if (status == 0) {
		status = commit_rows(store, snapshot, err);
	}
	if (status < 0) {
		snapshot->id = 0;
		return error_wrap(err, "commit a snapshot of %s", snapshot->environment);
	}
	for (size_t i = 0; i < snapshot->layer_count; i++) {
		struct layer *layer = &snapshot->layers[i];

		layer->refs++;
		snapshot->exclusive += layer->refs == 1 ? layer->stored - layer->shared : 0;
		store_release(store, HOLD_SEALED, layer->id);
		store_release(store, HOLD_USED, layer->id);
	}
	(void)!store_fault("snapshot.committed", &ignored); /* nothing is left to fail */
	return 0;
}
