/*
 * The sweep of a start: whatever a killed process left half done is finished or thrown away, and
 * what is missing is said. It runs beside living processes: a folder or log that somebody has
 * locked is left alone, and everything is looked at again in the catalog once its lock is held.
 */
#include "snapshots/store_private.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

struct id_list {
	int64_t *ids;
	size_t count, room;
};

static void id_list_done(struct id_list *list)
{
	free(list->ids);
}

static int read_ids(struct store *store, const char *sql, struct id_list *list, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, sql);
	while ((row = query_row(&query, err)) > 0) {
		*array_add(&list->ids, &list->count, &list->room) = query_int(&query, 0);
	}
	return row;
}

/* The names in a folder, so that it can be changed while one goes through them. */
static int read_names(int dir_fd, char ***ret_names, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(dir_fd, ".", err);
	CLEANUP(strv_free_p) char **names = xcalloc(1, sizeof(*names));
	struct dirent *entry;
	size_t count = 0, room = 1;

	if (dir == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (streq(entry->d_name, ".") || streq(entry->d_name, "..")) {
			continue;
		}
		if (count + 1 >= room) {
			room *= 2;
			names = xreallocarray(names, room + 1, sizeof(*names));
		}
		names[count++] = xstrdup(entry->d_name);
		names[count] = NULL;
	}
	*ret_names = steal_ptr(names);
	return 0;
}

/* ---- is this the catalog of these layers? ---- */

static int highest_layer_id(struct store *store, int64_t *ret_id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT seq FROM sqlite_sequence WHERE name = 'layers'");
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	*ret_id = row > 0 ? query_int(&query, 0) : 0;
	return 0;
}

/* A row is durable before its folder gets its number, so a number that was never given out is not a
 * crash: the catalog was lost or replaced, and the layers are all that is left of the images. */
static int check_belongs(struct store *store, char *const *names, struct error *err)
{
	int64_t highest = 0, id;
	int status = highest_layer_id(store, &highest, err);

	for (size_t i = 0; status == 0 && names[i] != NULL; i++) {
		if (id_parse(names[i], "", &id) && id > highest) {
			error_set(err, ERROR_CORRUPT,
				"layers/%s exists, but this catalog has given out numbers up to "
				"%lld only",
				names[i], (long long)highest);
			return error_hint(err, "catalog.db is not the one of these layers: put the "
					       "right one back, or move "
					       "the folders out of layers/ if they are not wanted");
		}
	}
	return status;
}

/* ---- layers ---- */

static int staging_of(struct store *store, int64_t id, char **ret_name, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(
		&query, store->db, "SELECT staging FROM layers WHERE id = ? AND state = 'sealing'");
	query_bind_int(&query, id);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	*ret_name = row > 0 ? xstrdup(query_text(&query, 0)) : NULL;
	return 0;
}

/* Notes what could not be deleted and goes on: one stuck folder must not keep hob from starting. */
static void note_stuck(struct store_sweep *sweep, const char *name, const struct error *err)
{
	sweep->stuck++;
	log_failure("store.stuck", err, "name", name);
}

/* Back to where the next try looks for what the ended sandbox wrote. */
static int unseal_kept(struct store *store, const char *name, const char *staging, int layer_lock,
	struct error *err)
{
	bool kept = false;
	int status = staging_is_kept(store, staging, &kept, err);

	if (status < 0 || !kept || layer_lock < 0) {
		return status;
	}
	if (renameat2(store->layers_fd, name, store->staging_fd, staging, RENAME_NOREPLACE) < 0) {
		return error_sys(err, errno, "move layers/%s back to staging/%s", name, staging);
	}
	return 0;
}

/* The owner moves the folder from staging/ to layers/, never back while it lives, so look there
 * first and in layers/ second; a lock that somebody has means that the owner lives. */
static int recover_sealing(
	struct store *store, int64_t id, struct store_sweep *sweep, struct error *err)
{
	CLEANUP(close_p) int staging_lock = -1;
	CLEANUP(close_p) int layer_lock = -1;
	CLEANUP(free_p) char *staging = NULL;
	char name[ID_TEXT_SIZE];
	int64_t changed = 0;
	int status = staging_of(store, id, &staging, err);

	if (status < 0 || staging == NULL) {
		return status;
	}
	id_format(name, id);
	status = store_lock(store->staging_fd, staging, LOCK_EX, &staging_lock, err);
	if (status == 0 || status == -ERROR_NOT_FOUND) {
		status = store_lock(store->layers_fd, name, LOCK_EX, &layer_lock, err);
	}
	if (status < 0 && status != -ERROR_NOT_FOUND) {
		return status == -ERROR_BUSY ? 0 : status;
	}
	if (str_starts(staging, KEEP_PREFIX)) {
		status = unseal_kept(store, name, staging, layer_lock, err);
	}
	if (status < 0 && status != -ERROR_NOT_FOUND) {
		return status;
	}
	status = store_run_id(
		store, "DELETE FROM layers WHERE id = ? AND state = 'sealing'", id, &changed, err);
	if (status < 0 || changed == 0) {
		return status;
	}
	sweep->finished++;
	status = store_fault("recover.discarded", err);
	if (status == 0 && layer_lock >= 0 && layer_trash(store, id, err) < 0) {
		note_stuck(sweep, name, err);
	}
	return status;
}

static int recover_orphan(
	struct store *store, const char *name, struct store_sweep *sweep, struct error *err)
{
	CLEANUP(close_p) int lock = -1;
	int64_t exists = 0;
	int64_t id = 0;
	bool numbered = id_parse(name, "", &id);
	int status = store_lock(store->layers_fd, name, LOCK_EX, &lock, err);

	if (status == -ERROR_BUSY || status == -ERROR_NOT_FOUND) {
		return 0;
	}
	if (status == 0 && numbered) {
		status = store_number(store, "SELECT 1 FROM layers WHERE id = ?", id, &exists, err);
	}
	if (status < 0 || exists != 0) {
		return status;
	}
	status = numbered ? layer_trash(store, id, err) : store_remove(store, "layers", name, err);
	if (status < 0) {
		note_stuck(sweep, name, err);
	} else {
		sweep->orphans++;
	}
	return 0;
}

static int report_missing(
	struct store *store, int64_t id, struct store_sweep *sweep, struct error *err)
{
	char path[ID_TEXT_SIZE + sizeof("/tree")];
	struct stat found;
	int64_t exists = 0;
	int status;

	snprintf(path, sizeof(path), "%lld/tree", (long long)id);
	if (fstatat(store->layers_fd, path, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
		S_ISDIR(found.st_mode)) {
		return 0;
	}
	/* A removal may have taken row and folder since the row was read. */
	status = store_number(
		store, "SELECT 1 FROM layers WHERE id = ? AND state = 'ready'", id, &exists, err);
	if (status == 0 && exists != 0) {
		sweep->missing++;
		log_error("layer.missing", "layer", id, "path", path);
	}
	return status;
}

static int compare_ids(const void *a, const void *b)
{
	const int64_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

static bool is_listed(const struct id_list *list, const char *name)
{
	int64_t id = 0;

	return id_parse(name, "", &id) && list->count > 0 &&
	       bsearch(&id, list->ids, list->count, sizeof(id), compare_ids) != NULL;
}

static int recover_layers(
	struct store *store, char *const *names, struct store_sweep *sweep, struct error *err)
{
	CLEANUP(id_list_done) struct id_list sealing = {0};
	CLEANUP(id_list_done) struct id_list ready = {0};
	int status =
		read_ids(store, "SELECT id FROM layers WHERE state = 'sealing'", &sealing, err);

	for (size_t i = 0; status == 0 && i < sealing.count; i++) {
		status = recover_sealing(store, sealing.ids[i], sweep, err);
	}
	if (status == 0) {
		status = read_ids(store, "SELECT id FROM layers WHERE state = 'ready' ORDER BY id",
			&ready, err);
	}
	/* Only what is not in the list is locked: a lock on a sound layer, however short, would
	 * tell a build or a removal beside this that the layer is in use. */
	for (size_t i = 0; status == 0 && names[i] != NULL; i++) {
		if (!is_listed(&ready, names[i])) {
			status = recover_orphan(store, names[i], sweep, err);
		}
	}
	for (size_t i = 0; status == 0 && i < ready.count; i++) {
		status = report_missing(store, ready.ids[i], sweep, err);
	}
	return status;
}

/* ---- staging ---- */

static void recover_leftover(struct store *store, const char *name, struct store_sweep *sweep)
{
	CLEANUP(close_p) int lock = -1;
	struct error err = ERROR_INIT;
	bool kept = false;
	int status = store_lock(store->staging_fd, name, LOCK_EX, &lock, &err);

	if (status == -ERROR_BUSY || status == -ERROR_NOT_FOUND) {
		return;
	}
	if (str_starts(name, KEEP_PREFIX) &&
		(staging_is_kept(store, name, &kept, &err) < 0 || kept)) {
		return;
	}
	/* Not even openable (a link, a socket): nobody's staging folder either. */
	if (store_remove(store, "staging", name, &err) < 0) {
		note_stuck(sweep, name, &err);
	} else {
		sweep->staging++;
	}
}

static int recover_staging(struct store *store, struct store_sweep *sweep, struct error *err)
{
	CLEANUP(strv_free_p) char **names = NULL;
	int status = read_names(store->staging_fd, &names, err);

	for (size_t i = 0; status == 0 && names[i] != NULL; i++) {
		recover_leftover(store, names[i], sweep);
	}
	return status;
}

/* ---- builds ---- */

static int recover_build(
	struct store *store, int64_t id, struct store_sweep *sweep, struct error *err)
{
	CLEANUP(close_p) int lock = -1;
	CLEANUP(query_done) struct query query = {0};
	char name[ID_TEXT_SIZE + 8];
	int64_t changed = 0;
	int status;

	snprintf(name, sizeof(name), "%lld.log", (long long)id);
	status = store_lock(store->builds_fd, name, LOCK_EX, &lock, err);
	if (status < 0 && status != -ERROR_NOT_FOUND) {
		return status == -ERROR_BUSY ? 0 : status;
	}
	query_init(&query, store->db,
		"UPDATE builds SET state = 'failed', ended_ms = ?,"
		" message = 'its process ' || pid || ' was killed before it was done'"
		" WHERE id = ? AND state = 'running'");
	query_bind_int(&query, clock_real_ms());
	query_bind_int(&query, id);
	status = query_run(&query, &changed, err);
	sweep->builds += status == 0 ? (uint64_t)changed : 0;
	return status;
}

static int recover_builds(struct store *store, struct store_sweep *sweep, struct error *err)
{
	CLEANUP(id_list_done) struct id_list running = {0};
	int status =
		read_ids(store, "SELECT id FROM builds WHERE state = 'running'", &running, err);

	for (size_t i = 0; status == 0 && i < running.count; i++) {
		status = recover_build(store, running.ids[i], sweep, err);
	}
	return status;
}

/* ---- heads ---- */

static int recover_head(
	struct store *store, const char *environment, struct store_sweep *sweep, struct error *err)
{
	bool changed = false;
	int status = head_link_update(store, environment, &changed, err);

	sweep->heads += status == 0 && changed;
	return status;
}

static int list_heads(struct store *store, char ***names, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT environment FROM heads");
	while ((row = query_row(&query, err)) > 0) {
		strv_add(names, query_text(&query, 0));
	}
	return row;
}

static int recover_heads(struct store *store, struct store_sweep *sweep, struct error *err)
{
	CLEANUP(strv_free_p) char **links = NULL;
	CLEANUP(strv_free_p) char **heads = xcalloc(1, sizeof(*heads));
	int status = read_names(store->heads_fd, &links, err);

	if (status == 0) {
		status = list_heads(store, &heads, err);
	}
	for (size_t i = 0; status == 0 && heads[i] != NULL; i++) {
		status = recover_head(store, heads[i], sweep, err);
	}
	for (size_t i = 0; status == 0 && links[i] != NULL; i++) {
		/* The temporary link is the writer's own affair. */
		if (links[i][0] != '.') {
			status = recover_head(store, links[i], sweep, err);
		}
	}
	return status;
}

/* Staging first: what it frees needs no room in the catalog, and gives the rest some. */
static int recover_all(struct store *store, struct store_sweep *sweep, struct error *err)
{
	CLEANUP(strv_free_p) char **layers = NULL;
	int status = read_names(store->layers_fd, &layers, err);

	if (status == 0) {
		status = check_belongs(store, layers, err);
	}
	if (status == 0) {
		status = recover_staging(store, sweep, err);
	}
	if (status == 0) {
		status = recover_builds(store, sweep, err);
	}
	if (status == 0) {
		status = recover_layers(store, layers, sweep, err);
	}
	if (status == 0) {
		status = snapshot_runs_recover(store, &sweep->snapshots, err);
	}
	return status < 0 ? status : recover_heads(store, sweep, err);
}

int store_recover(struct store *store, struct store_sweep *ret_sweep, struct error *err)
{
	struct store_sweep sweep = {0};
	int status = recover_all(store, &sweep, err);

	if (status == -ERROR_NO_SPACE && ballast_release(store->fd)) {
		sweep = (struct store_sweep){0};
		status = recover_all(store, &sweep, err);
	}
	if (status < 0) {
		return error_wrap(err, "recover the store %s", store->path);
	}
	ballast_make(store->fd);
	*ret_sweep = sweep;
	return 0;
}
