/*
 * What images and snapshots have in common: who needs one, and how the layers that only it has
 * leave the store. The rows go in one transaction, then the folders: killed at any point, a removal
 * leaves either everything or rubbish that the sweep of a start takes.
 */
#include "snapshots/store_private.h"

#include <stdio.h>
#include <sys/file.h>

int store_run_id(
	struct store *store, const char *sql, int64_t id, int64_t *ret_changed, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, store->db, sql);
	query_bind_int(&query, id);
	return query_run(&query, ret_changed, err);
}

int store_number(
	struct store *store, const char *sql, int64_t id, int64_t *ret_number, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, sql);
	query_bind_int(&query, id);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	*ret_number = row > 0 ? query_int(&query, 0) : 0;
	return 0;
}

int users_add(struct store *store, const char *sql, const char *prefix, int64_t id, char ***users,
	struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, sql);
	query_bind_int(&query, id);
	while ((row = query_row(&query, err)) > 0) {
		CLEANUP(free_p) char *line = xasprintf("%s%s", prefix, query_text(&query, 0));

		strv_add(users, line);
	}
	return row;
}

int users_refuse(const char *what, int64_t id, char *const *users, struct error *err)
{
	char text[ERROR_MESSAGE_SIZE / 2] = "";
	size_t used = 0;

	if (users[0] == NULL) {
		return 0;
	}
	for (size_t i = 0; users[i] != NULL && used < sizeof(text); i++) {
		used += (size_t)snprintf(
			text + used, sizeof(text) - used, "%s%s", i > 0 ? ", " : "", users[i]);
	}
	return error_set(err, ERROR_CONFLICT, "%s-%lld is in use: %s", what, (long long)id, text);
}

void doomed_done(struct doomed *doomed)
{
	for (size_t i = 0; i < doomed->count; i++) {
		fd_done(&doomed->layers[i].lock);
	}
	free(doomed->layers);
	*doomed = (struct doomed){0};
}

static int doom(struct store *store, struct doomed *doomed, int64_t id, struct error *err)
{
	char name[ID_TEXT_SIZE];
	int lock = -1, status;

	id_format(name, id);
	status = store_lock(store->layers_fd, name, LOCK_EX, &lock, err);
	if (status == -ERROR_BUSY) {
		error_set(
			err, ERROR_BUSY, "layer %s is in use by a running build or command", name);
		return error_hint(err, "try again when it has ended");
	}
	if (status < 0 && status != -ERROR_NOT_FOUND) {
		return status;
	}
	*array_add(&doomed->layers, &doomed->count, &doomed->room) =
		(struct doomed_layer){.id = id, .lock = lock};
	return 0;
}

/* Reads the ids that a query gives and locks each. */
int doomed_add(struct store *store, const char *sql, int64_t value, struct doomed *doomed,
	struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row, status = 0;

	query_init(&query, store->db, sql);
	query_bind_int(&query, value);
	while (status == 0 && (row = query_row(&query, err)) != 0) {
		status = row < 0 ? row : doom(store, doomed, query_int(&query, 0), err);
	}
	return status;
}

int doomed_delete_rows(struct store *store, const struct doomed *doomed, struct error *err)
{
	int status = 0;

	for (size_t i = 0; status == 0 && i < doomed->count; i++) {
		struct doomed_layer *layer = &doomed->layers[i];
		int64_t freed = 0;

		/* What is stored in another layer too stays. The deletion of one makes that the
		 * other's own, so that of two that go together the second frees it. */
		status = store_number(store, "SELECT stored - shared FROM layers WHERE id = ?",
			layer->id, &freed, err);
		layer->freed = (uint64_t)freed;
		if (status == 0) {
			status = store_run_id(
				store, "DELETE FROM layers WHERE id = ?", layer->id, NULL, err);
		}
	}
	return status;
}

int doomed_trash(
	struct store *store, const struct doomed *doomed, uint64_t *freed, struct error *err)
{
	int status = store_fault("remove.committed", err);

	for (size_t i = 0; status == 0 && i < doomed->count; i++) {
		status = layer_trash(store, doomed->layers[i].id, err);
		if (status == 0) {
			*freed += doomed->layers[i].freed;
		}
	}
	return status;
}

int doomed_remove(struct store *store, const char *prefix, int64_t id, doomed_rows_fn *rows,
	uint64_t *ret_freed, struct error *err)
{
	CLEANUP(doomed_done) struct doomed doomed = {0};
	uint64_t freed = 0;
	int status = rows(store, id, &doomed, err);

	if (status == -ERROR_NO_SPACE && ballast_release(store->fd)) {
		doomed_done(&doomed);
		status = rows(store, id, &doomed, err);
	}
	if (status < 0) {
		return error_wrap(err, "remove %s-%lld", prefix, (long long)id);
	}
	if (doomed_trash(store, &doomed, &freed, err) < 0) {
		error_wrap(err, "%s-%lld is removed, but not all of its layers could be deleted",
			prefix, (long long)id);
		return error_hint(err, "hob-snapshots recover tries again");
	}
	ballast_make(store->fd);
	*ret_freed = freed;
	return 0;
}
