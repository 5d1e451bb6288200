/*
 * Layers: from a staging folder to a numbered one that never changes again. The order of layer_seal
 * is what survives a power cut (row, syncfs, rename, fsync of both folders); the layer counts for
 * nothing until a later transaction makes it reachable.
 */
#include "snapshots/store_private.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "snapshots/volume/volume.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

void layer_from_row(const struct query *query, int column, struct layer *layer)
{
	*layer = (struct layer){.id = query_int(query, column),
		.id_base = query_int(query, column + 4),
		.id_count = query_int(query, column + 5),
		.host_usr = query_int(query, column + 6) != 0,
		.files = (uint64_t)query_int(query, column + 7),
		.bytes = (uint64_t)query_int(query, column + 8),
		.stored = (uint64_t)query_int(query, column + 9),
		.created_ms = query_int(query, column + 10),
		.refs = query_int(query, column + 11),
		.shared = (uint64_t)query_int(query, column + 12),
		.over = query_int(query, column + 15)};
	query_copy(query, column + 1, layer->kind, sizeof(layer->kind));
	query_copy(query, column + 2, layer->title, sizeof(layer->title));
	query_copy(query, column + 3, layer->step_key, sizeof(layer->step_key));
	query_copy(query, column + 13, layer->line_key, sizeof(layer->line_key));
	query_copy(query, column + 14, layer->origin, sizeof(layer->origin));
}

/* Is it the list of a layer's packages or of its opaque folders, in a plain file? */
static bool is_list(const struct staging *staging, const char *name)
{
	struct stat status;

	return (streq(name, LAYER_PACKAGES) || streq(name, LAYER_OPAQUE)) &&
	       fstatat(staging->fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISREG(status.st_mode);
}

/* Nothing but a folder `tree` (and those lists) may become a layer: an overlay's
 * leftover `work`, or a link in place of the tree, would stay in the store for good. */
static int check_staging(const struct staging *staging, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = NULL;
	struct dirent *entry;
	struct stat status;

	if (fstatat(staging->fd, "tree", &status, AT_SYMLINK_NOFOLLOW) < 0 ||
		!S_ISDIR(status.st_mode)) {
		return error_set(
			err, ERROR_INVALID, "staging/%s has no folder \"tree\"", staging->name);
	}
	dir = io_opendir(staging->fd, ".", err);
	if (dir == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (!streq(entry->d_name, ".") && !streq(entry->d_name, "..") &&
			!streq(entry->d_name, "tree") && !is_list(staging, entry->d_name)) {
			return error_set(err, ERROR_INVALID,
				"staging/%s holds \"%s\" beside \"tree\"", staging->name,
				entry->d_name);
		}
	}
	return 0;
}

static int measure(struct store *store, const struct staging *staging, struct tree_usage *ret_usage,
	struct error *err)
{
	int status;

	if (store->usage != NULL) {
		return store->usage(store->usage_context, staging->name, ret_usage, err);
	}
	status = io_tree_usage(staging->fd, "tree", ret_usage, err);
	if (status == 0 && ret_usage->unread > 0) {
		log_warn("layer.partly_measured", "staging", staging->name, "folders",
			ret_usage->unread);
	}
	return status;
}

static int insert_row(
	struct store *store, const struct staging *staging, struct layer *layer, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int status;

	query_init(&query, store->db,
		"INSERT INTO layers (state, staging, kind, title, step_key, id_base, id_count, "
		"host_usr,"
		" files, bytes, stored, created_ms, line_key, origin, over_id)"
		" VALUES ('sealing', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
	query_bind_text(&query, staging->name);
	query_bind_text(&query, layer->kind);
	query_bind_text(&query, layer->title);
	query_bind_text(&query, layer->step_key);
	query_bind_int(&query, layer->id_base);
	query_bind_int(&query, layer->id_count);
	query_bind_int(&query, layer->host_usr);
	query_bind_int(&query, (int64_t)layer->files);
	query_bind_int(&query, (int64_t)layer->bytes);
	query_bind_int(&query, (int64_t)layer->stored);
	query_bind_int(&query, layer->created_ms);
	query_bind_text(&query, layer->line_key);
	query_bind_text(&query, layer->origin);
	query_bind_int(&query, layer->over);
	status = query_run(&query, NULL, err);
	if (status == 0) {
		layer->id = sqlite3_last_insert_rowid(store->db);
	}
	return status;
}

static int delete_sealing_row(
	struct store *store, int64_t id, int64_t *ret_changed, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, store->db, "DELETE FROM layers WHERE id = ? AND state = 'sealing'");
	query_bind_int(&query, id);
	return query_run(&query, ret_changed, err);
}

static int move_into_place(
	struct store *store, const struct staging *staging, const char *name, struct error *err)
{
	int status;

	if (renameat2(store->staging_fd, staging->name, store->layers_fd, name, RENAME_NOREPLACE) <
		0) {
		if (errno == EEXIST) {
			error_set(err, ERROR_CORRUPT, "layers/%s exists, unknown to the catalog",
				name);
			return error_hint(err, "was catalog.db replaced by an older one?");
		}
		return error_sys(err, errno, "move staging/%s to layers/%s", staging->name, name);
	}
	status = store_fault("layer.renamed", err);
	if (status == 0 && (fsync(store->layers_fd) < 0 || fsync(store->staging_fd) < 0)) {
		status = error_sys(err, errno, "fsync of layers/ and staging/");
	}
	if (status == 0) {
		status = store_fault("layer.fsynced", err);
	}
	if (status < 0 && renameat(store->layers_fd, name, store->staging_fd, staging->name) < 0) {
		log_warn("layer.stuck", "layer", name); /* the sweep of a start takes it */
	}
	return status;
}

static int sync_and_move(
	struct store *store, const struct staging *staging, int64_t id, struct error *err)
{
	char name[ID_TEXT_SIZE];
	int status = store_fault("layer.row", err);

	if (status == 0 && syncfs(staging->fd) < 0) {
		status = error_sys(err, errno, "syncfs of staging/%s", staging->name);
	}
	if (status == 0) {
		status = store_fault("layer.synced", err);
	}
	if (status < 0) {
		return status;
	}
	id_format(name, id);
	return move_into_place(store, staging, name, err);
}

/* The store keeps an own reference to the lock, because callers free the staging handle early. */
static int hold_sealed(
	struct store *store, const struct staging *staging, int64_t id, struct error *err)
{
	int fd = fcntl(staging->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0) {
		return error_sys(err, errno, "keep the lock of staging/%s", staging->name);
	}
	store_hold(store, HOLD_SEALED, id, fd);
	return 0;
}

int layer_seal(struct store *store, struct staging *staging, struct layer *about, struct error *err)
{
	struct layer layer = *about;
	struct tree_usage usage = {0};
	int status;

	if (staging->sealed) {
		return error_set(
			err, ERROR_CONFLICT, "staging/%s is sealed already", staging->name);
	}
	status = check_staging(staging, err);
	if (status == 0) {
		status = measure(store, staging, &usage, err);
	}
	if (status < 0) {
		return error_wrap(err, "seal %s", about->title);
	}
	layer.files = usage.files;
	layer.bytes = usage.bytes;
	layer.stored = usage.stored;
	layer.created_ms = clock_real_ms();
	status = insert_row(store, staging, &layer, err);
	if (status < 0) {
		return error_wrap(err, "seal %s", about->title);
	}
	status = hold_sealed(store, staging, layer.id, err);
	if (status == 0) {
		status = sync_and_move(store, staging, layer.id, err);
	}
	if (status < 0) {
		struct error ignored = ERROR_INIT;

		store_release(store, HOLD_SEALED, layer.id);
		(void)!delete_sealing_row(store, layer.id, NULL, &ignored);
		(void)!volume_explain(store->path, err);
		return error_wrap(err, "seal %s", about->title);
	}
	staging->sealed = true;
	*about = layer;
	return 0;
}

int layer_keep(struct store *store, int64_t layer_id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int64_t changed = 0;
	int status;

	if (!store_holds(store, HOLD_SEALED, layer_id)) {
		return error_set(err, ERROR_CONFLICT, "layer %lld was not sealed by this process",
			(long long)layer_id);
	}
	query_init(&query, store->db,
		"UPDATE layers SET state = 'ready' WHERE id = ? AND state = 'sealing'");
	query_bind_int(&query, layer_id);
	status = query_run(&query, &changed, err);
	if (status < 0) {
		return status;
	}
	if (changed != 1) {
		return error_set(
			err, ERROR_CONFLICT, "layer %lld is not sealed", (long long)layer_id);
	}
	/* Still wanted by this build: from now on held as what it found, no longer as what it made.
	 */
	for (size_t i = 0; i < store->hold_count; i++) {
		if (store->holds[i].kind == HOLD_SEALED && store->holds[i].id == layer_id) {
			store->holds[i].kind = HOLD_USED;
		}
	}
	return store_fault("layer.kept", err);
}

/* `lock` shares its lock with the staging handle, if that still lives: made exclusive, it keeps a
 * sweep of another process away. */
static int discard_one(struct store *store, int64_t id, int lock, struct error *err)
{
	int64_t changed = 0;
	int status;

	if (flock(lock, LOCK_EX | LOCK_NB) < 0) {
		return error_set(err, ERROR_BUSY, "layer %lld is in use", (long long)id);
	}
	status = delete_sealing_row(store, id, &changed, err);
	if (status == 0 && changed == 1) {
		status = layer_trash(store, id, err);
	}
	return status;
}

int layers_discard(struct store *store, struct error *err)
{
	int status = 0;

	for (size_t i = store->hold_count; i-- > 0 && status == 0;) {
		struct hold hold = store->holds[i];

		if (hold.kind == HOLD_SEALED) {
			status = discard_one(store, hold.id, hold.fd, err);
			store_release(store, HOLD_SEALED, hold.id);
		}
	}
	return status < 0 ? error_wrap(err, "discard a layer") : 0;
}

static int find_row(struct store *store, const char *where, const char *key,
	struct layer *ret_layer, struct error *err)
{
	CLEANUP(free_p)
	char *sql = xasprintf("SELECT " LAYER_COLUMNS " FROM layers AS l WHERE %s"
			      " AND l.state = 'ready' ORDER BY l.id DESC LIMIT 1",
		where);
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, sql);
	query_bind_text(&query, key);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	if (row == 0) {
		return error_set(err, ERROR_NOT_FOUND, "no layer for key %.16s", key);
	}
	layer_from_row(&query, 0, ret_layer);
	return 0;
}

int layer_use(struct store *store, int64_t id, struct layer *ret_layer, struct error *err)
{
	CLEANUP(close_p) int lock = -1;
	struct layer layer;
	char name[ID_TEXT_SIZE];
	int status;

	id_format(name, id);
	/* The lock first, then the row: between the two a removal may have taken both. */
	status = store_lock(store->layers_fd, name, LOCK_SH, &lock, err);
	if (status == 0) {
		status = layer_get(store, id, &layer, err);
	}
	if (status == -ERROR_BUSY || status == -ERROR_NOT_FOUND) {
		return error_set(err, ERROR_NOT_FOUND, "layer %lld is being removed or missing",
			(long long)id);
	}
	if (status < 0) {
		return status;
	}
	store_hold(store, HOLD_USED, id, steal_fd(&lock));
	*ret_layer = layer;
	return 0;
}

int layer_find(
	struct store *store, const char *step_key, struct layer *ret_layer, struct error *err)
{
	struct layer layer;
	int status = find_row(store, "l.step_key = ? AND l.step_key <> ''", step_key, &layer, err);

	return status < 0 ? status : layer_use(store, layer.id, ret_layer, err);
}

int layer_find_line(
	struct store *store, const char *line_key, struct layer *ret_layer, struct error *err)
{
	struct layer layer;
	int status = find_row(store, "l.line_key = ? AND l.line_key <> ''", line_key, &layer, err);

	return status < 0 ? status : layer_use(store, layer.id, ret_layer, err);
}

int layer_get(struct store *store, int64_t id, struct layer *ret_layer, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT " LAYER_COLUMNS " FROM layers AS l WHERE l.id = ?");
	query_bind_int(&query, id);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	if (row == 0) {
		return error_set(err, ERROR_NOT_FOUND, "no layer %lld", (long long)id);
	}
	layer_from_row(&query, 0, ret_layer);
	return 0;
}
