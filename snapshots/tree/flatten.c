/* Which layers are flattened, and the transaction that publishes the new list. */
#include "snapshots/tree/flatten.h"
#include "snapshots/store_private.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* Beyond, some keep their long lists until they are flattened themselves. */
#define DESCENDANTS_MAX 256

/* How many of the lowest layers are its image's: those stay, since others stand on them. */
static int count_below(
	struct store *store, const struct snapshot *snapshot, size_t *ret_count, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	size_t count = 0;
	int row;

	query_init(&query, store->db,
		"SELECT layer_id FROM image_layers WHERE image_id = ? ORDER BY position");
	query_bind_int(&query, snapshot->image_id);
	while ((row = query_row(&query, err)) > 0 && count < snapshot->layer_count &&
		snapshot->layers[count].id == query_int(&query, 0)) {
		count++;
	}
	*ret_count = count;
	return row < 0 ? row : 0;
}

/* The new layer's owners are those of the most bytes: these need no copy. */
static struct layer describe(const struct snapshot *snapshot, size_t below)
{
	const struct layer *best = &snapshot->layers[below];
	struct layer about = {.kind = "flat"};

	for (size_t i = below; i < snapshot->layer_count; i++) {
		uint64_t bytes = 0, most = 0;

		for (size_t j = below; j < snapshot->layer_count; j++) {
			const struct layer *other = &snapshot->layers[j];

			bytes += other->id_base == snapshot->layers[i].id_base ? other->bytes : 0;
			most += other->id_base == best->id_base ? other->bytes : 0;
		}
		best = bytes > most ? &snapshot->layers[i] : best;
		about.host_usr = about.host_usr || snapshot->layers[i].host_usr;
	}
	about.id_base = best->id_base;
	about.id_count = best->id_count;
	snprintf(about.title, sizeof(about.title), "%zu layers of snap-%lld",
		snapshot->layer_count - below, (long long)snapshot->id);
	return about;
}

static int make_layer(struct store *store, const struct snapshot *snapshot, size_t below,
	struct layer *about, struct flatten_result *result, struct error *err)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	CLEANUP(close_p) int tree = -1;
	uint64_t entries = 0;
	int status = staging_new(store, &staging, err);

	if (status < 0) {
		return status;
	}
	if (mkdirat(staging_fd(staging), "tree", 0700) < 0) {
		return error_sys(err, errno, "make a tree");
	}
	tree = io_open(staging_fd(staging), "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
	for (size_t i = below; i < snapshot->layer_count; i++) {
		entries += snapshot->layers[i].files;
	}
	store_phase(store, "link", entries, 0); /* at most: what several have counts once */
	status = tree < 0 ? tree
			  : flatten_trees(store, snapshot->layers, below, snapshot->layers + below,
				    snapshot->layer_count - below, about, tree, result, err);
	if (status == 0) {
		status = store_fault("flatten.written", err);
	}
	return status < 0 ? status : layer_seal(store, staging, about, err);
}

/* ---- publishing ---- */

static int same_generation(struct store *store, const struct snapshot *snapshot, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT 1 FROM snapshots WHERE id = ? AND generation = ?");
	query_bind_int(&query, snapshot->id);
	query_bind_int(&query, snapshot->generation);
	row = query_row(&query, err);
	return row > 0   ? 0
	       : row < 0 ? row
			 : error_set(err, ERROR_CONFLICT,
				   "snap-%lld was removed or flattened meanwhile",
				   (long long)snapshot->id);
}

static int update_row(struct store *store, const struct snapshot *flat, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, store->db,
		"UPDATE snapshots SET generation = ?, layer_count = ?, own_count = ?, bytes = ?,"
		" stored = ? WHERE id = ?");
	query_bind_int(&query, flat->generation);
	query_bind_int(&query, (int64_t)flat->layer_count);
	query_bind_int(&query, (int64_t)flat->own_count);
	query_bind_int(&query, (int64_t)flat->bytes);
	query_bind_int(&query, (int64_t)flat->stored);
	query_bind_int(&query, flat->id);
	return query_run(&query, NULL, err);
}

/* Both ends of a link: their bytes on disk are counted in each. */
static int mark_linked(struct store *store, const struct snapshot *snapshot, size_t below,
	int64_t flat_id, struct error *err)
{
	static const char sql[] = "UPDATE layers SET linked = 1 WHERE id = ?";
	int status = store_run_id(store, sql, flat_id, NULL, err);

	for (size_t i = below; status == 0 && i < snapshot->layer_count; i++) {
		status = store_run_id(store, sql, snapshot->layers[i].id, NULL, err);
	}
	return status;
}

/* ---- what was taken above it ---- */

/* The nearest descendants; each step down is one snapshot of a sandbox that stood on the last. */
static int list_descendants(
	struct store *store, int64_t id, int64_t **ret_ids, size_t *ret_count, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	size_t room = 0;
	int row;

	query_init(&query, store->db,
		"WITH RECURSIVE below(id, depth) AS (SELECT id, 1 FROM snapshots WHERE parent_id = "
		"?1"
		" UNION ALL SELECT s.id, depth + 1 FROM snapshots AS s JOIN below AS b"
		" ON s.parent_id = b.id WHERE depth < ?2)"
		" SELECT id FROM below ORDER BY depth LIMIT ?3");
	query_bind_int(&query, id);
	query_bind_int(&query, SNAPSHOT_LAYERS_MAX);
	query_bind_int(&query, DESCENDANTS_MAX);
	while ((row = query_row(&query, err)) > 0) {
		*array_add(ret_ids, ret_count, &room) = query_int(&query, 0);
	}
	return row;
}

/* The list of `id` over what is flat now, into `list`; 0 layers: it does not stand on it. */
static int rest_of(struct store *store, int64_t id, const struct snapshot *before,
	const struct snapshot *flat, struct snapshot *above, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	size_t position = 0;
	bool same = true;
	int row;

	query_init(&query, store->db,
		"SELECT s.generation, s.own_count, l.layer_id FROM snapshots AS s"
		" JOIN snapshot_layers AS l ON l.snapshot_id = s.id AND l.generation = s.generation"
		" WHERE s.id = ? ORDER BY l.position");
	query_bind_int(&query, id);
	above->id = id;
	above->layer_count = 0;
	for (size_t i = 0; i < flat->layer_count; i++) {
		above->layers[above->layer_count++].id = flat->layers[i].id;
	}
	while ((row = query_row(&query, err)) > 0 && position < SNAPSHOT_LAYERS_MAX) {
		above->generation = query_int(&query, 0) + 1;
		above->own_count = (size_t)query_int(&query, 1);
		if (position >= before->layer_count) {
			above->layers[above->layer_count++].id = query_int(&query, 2);
		} else {
			same = same && before->layers[position].id == query_int(&query, 2);
		}
		position++;
	}
	if (!same || position < before->layer_count ||
		above->own_count > position - before->layer_count) {
		above->layer_count = 0;
	}
	return row < 0 ? row : 0;
}

/* A list that begins with the old one shows the same when it begins with the new one. */
static int publish_above(struct store *store, const struct snapshot *before,
	const struct snapshot *flat, struct error *err)
{
	CLEANUP(free_p) int64_t *ids = NULL;
	size_t count = 0;
	int status = list_descendants(store, before->id, &ids, &count, err);

	for (size_t i = 0; status == 0 && i < count; i++) {
		struct layer list[2 * SNAPSHOT_LAYERS_MAX] = {0};
		struct snapshot above = {.layers = list};

		status = rest_of(store, ids[i], before, flat, &above, err);
		for (size_t j = 0; status == 0 && j < above.layer_count; j++) {
			status = layer_claim(store, &list[j], err);
			above.bytes += list[j].bytes;
			above.stored += list[j].stored;
		}
		if (status == 0 && above.layer_count > 0) {
			status = snapshot_insert_layers(store, &above, err);
			status = status < 0 ? status : update_row(store, &above, err);
		}
	}
	return status;
}

static void drop_above(struct store *store, int64_t id)
{
	CLEANUP(free_p) int64_t *ids = NULL;
	struct error late = ERROR_INIT;
	size_t count = 0;
	uint64_t freed;

	if (list_descendants(store, id, &ids, &count, &late) == 0) {
		for (size_t i = 0; i < count; i++) {
			(void)!snapshot_drop_old_lists(store, ids[i], &freed, &late);
		}
	}
}

static int publish_rows(struct store *store, const struct snapshot *snapshot, size_t below,
	struct snapshot *flat, bool linked, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	int status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);

	if (status == 0) {
		status = same_generation(store, snapshot, err);
	}
	for (size_t i = 0; status == 0 && i < flat->layer_count; i++) {
		status = layer_claim(store, &flat->layers[i], err);
		flat->bytes += flat->layers[i].bytes;
		flat->stored += flat->layers[i].stored;
	}
	if (status == 0) {
		status = snapshot_insert_layers(store, flat, err);
	}
	if (status == 0) {
		status = update_row(store, flat, err);
	}
	if (status == 0) {
		status = publish_above(store, snapshot, flat, err);
	}
	if (status == 0) {
		status = linked ? mark_linked(store, snapshot, below, flat->layers[below].id, err)
				: 0;
	}
	if (status == 0) {
		status = store_fault("flatten.before_commit", err);
	}
	return status < 0 ? status : transaction_commit(&transaction, err);
}

static int publish(struct store *store, const struct snapshot *snapshot, size_t below,
	const struct layer *layer, bool linked, struct error *err)
{
	struct layer list[SNAPSHOT_LAYERS_MAX] = {0};
	struct snapshot flat = {.id = snapshot->id,
		.generation = snapshot->generation + 1,
		.layers = list,
		.layer_count = below + 1,
		.own_count = 1};
	int status;

	for (size_t i = 0; i < below; i++) {
		list[i].id = snapshot->layers[i].id;
	}
	list[below].id = layer->id;
	status = publish_rows(store, snapshot, below, &flat, linked, err);
	if (status == 0) {
		store_release(store, HOLD_SEALED, layer->id);
		status = store_fault("flatten.committed", err);
	}
	return status;
}

static int flatten_found(struct store *store, const struct snapshot *snapshot,
	struct flatten_result *result, struct error *err)
{
	struct error late = ERROR_INIT;
	struct layer layer;
	uint64_t freed = 0;
	size_t below = 0;
	int status = count_below(store, snapshot, &below, err);

	result->before = result->after = snapshot->layer_count;
	if (status < 0 || snapshot->layer_count - below < 2) {
		return status;
	}
	layer = describe(snapshot, below);
	status = make_layer(store, snapshot, below, &layer, result, err);
	if (status == 0) {
		status = publish(store, snapshot, below, &layer, result->linked > 0, err);
	}
	if (status < 0) {
		(void)!layers_discard(store, &late);
		return status;
	}
	result->after = below + 1;
	/* The new lists count already. What cannot go now is for gc. */
	drop_above(store, snapshot->id);
	(void)!snapshot_drop_old_lists(store, snapshot->id, &freed, &late);
	result->freed = freed > result->linked_bytes ? freed - result->linked_bytes : 0;
	return 0;
}

int snapshot_flatten(
	struct store *store, int64_t id, struct flatten_result *ret_result, struct error *err)
{
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	struct flatten_result result = {0};
	char name[ID_TEXT_SIZE];
	int status;

	id_format(name, id);
	status = snapshot_find(store, name, &snapshot, err);
	if (status == 0) {
		status = flatten_found(store, &snapshot, &result, err);
	}
	if (status < 0) {
		return error_wrap(err, "flatten snap-%s", name);
	}
	*ret_result = result;
	return 0;
}
