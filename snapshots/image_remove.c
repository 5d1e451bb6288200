/*
 * Who needs an image, what removing it frees, and removing it. The rows go first, in one
 * transaction; then the folders go to the trash by rename and are deleted. Killed at any point, a
 * removal leaves either everything or rubbish that the sweep of a start takes.
 */
#include "snapshots/store_private.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <sys/file.h>

/* A step's result that no image took up within a day will not be asked for again, and one that was
 * made anew not at all. */
#define KEPT_LAYER_MAX_AGE_MS (24LL * 3600 * 1000)

/* Layers of image ?1 that no other image and no snapshot has. */
#define EXCLUSIVE_OF_IMAGE                                                                         \
	" FROM image_layers AS il JOIN layers AS l ON l.id = il.layer_id WHERE il.image_id = ?1"   \
	" AND l.refs = 1"

/* Naming a few of a thousand snapshots is enough. */
#define USERS_SHOWN "8"

int image_users(struct store *store, int64_t id, char ***ret_users, struct error *err)
{
	CLEANUP(strv_free_p) char **users = xcalloc(1, sizeof(*users));
	int status = users_add(store,
		"SELECT environment FROM heads WHERE image_id = ? ORDER BY environment", USER_HEAD,
		id, &users, err);

	if (status == 0) {
		status = users_add(store,
			"SELECT holder FROM leases WHERE image_id = ? ORDER BY holder", USER_LEASE,
			id, &users, err);
	}
	if (status == 0) {
		status = users_add(store,
			"SELECT 'snap-' || id FROM snapshots WHERE image_id = ? ORDER BY id"
			" LIMIT " USERS_SHOWN,
			USER_SNAPSHOT, id, &users, err);
	}
	if (status < 0) {
		return status;
	}
	*ret_users = steal_ptr(users);
	return 0;
}

static int must_exist(struct store *store, int64_t id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT 1 FROM images WHERE id = ?");
	query_bind_int(&query, id);
	row = query_row(&query, err);
	if (row == 0) {
		return error_set(err, ERROR_NOT_FOUND, "no image img-%lld", (long long)id);
	}
	return row < 0 ? row : 0;
}

int image_bytes(struct store *store, int64_t id, uint64_t *ret_exclusive, uint64_t *ret_shared,
	struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	int64_t exclusive = 0, all = 0;
	int status = transaction_begin(&transaction, store->db, TRANSACTION_READ, err);

	if (status == 0) {
		status = must_exist(store, id, err);
	}
	if (status == 0) {
		status = store_number(store, "SELECT sum(l.stored - l.shared)" EXCLUSIVE_OF_IMAGE,
			id, &exclusive, err);
	}
	if (status == 0) {
		status = store_number(store,
			"SELECT sum(l.stored) FROM layers AS l WHERE l.id IN"
			" (SELECT layer_id FROM image_layers WHERE image_id = ?)",
			id, &all, err);
	}
	if (status < 0) {
		return status;
	}
	*ret_exclusive = (uint64_t)exclusive;
	*ret_shared = (uint64_t)(all - exclusive);
	return 0;
}

static int refuse_if_used(struct store *store, int64_t id, struct error *err)
{
	CLEANUP(strv_free_p) char **users = NULL;
	int status = image_users(store, id, &users, err);

	return status < 0 ? status : users_refuse("img", id, users, err);
}

static int remove_rows(struct store *store, int64_t id, struct doomed *doomed, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	int status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);

	if (status == 0) {
		status = must_exist(store, id, err);
	}
	if (status == 0) {
		status = refuse_if_used(store, id, err);
	}
	if (status == 0) {
		status = doomed_add(
			store, "SELECT DISTINCT l.id" EXCLUSIVE_OF_IMAGE, id, doomed, err);
	}
	if (status == 0) {
		status = store_run_id(store, "DELETE FROM images WHERE id = ?", id, NULL, err);
	}
	if (status == 0) {
		status = doomed_delete_rows(store, doomed, err);
	}
	if (status == 0) {
		status = store_fault("remove.before_commit", err);
	}
	return status < 0 ? status : transaction_commit(&transaction, err);
}

int image_remove(struct store *store, int64_t id, uint64_t *ret_freed, struct error *err)
{
	return doomed_remove(store, "img", id, remove_rows, ret_freed, err);
}

static int remove_stale_kept(struct store *store, uint64_t *freed, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	CLEANUP(doomed_done) struct doomed doomed = {0};
	int status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);

	if (status == 0) {
		status = doomed_add(store,
			"SELECT l.id FROM layers AS l WHERE l.state = 'ready'"
			" AND (l.created_ms < ? OR EXISTS (SELECT 1 FROM layers AS n"
			"  WHERE n.step_key = l.step_key AND n.state = 'ready' AND n.id > l.id))"
			" AND l.refs = 0",
			clock_real_ms() - KEPT_LAYER_MAX_AGE_MS, &doomed, err);
	}
	if (status == -ERROR_BUSY) {
		return 0; /* a build is about to take one of them up */
	}
	if (status == 0) {
		status = doomed_delete_rows(store, &doomed, err);
	}
	if (status == 0) {
		status = transaction_commit(&transaction, err);
	}
	return status < 0 ? status : doomed_trash(store, &doomed, freed, err);
}

static int list_prunable(struct store *store, const char *environment, size_t keep,
	int64_t **ret_ids, size_t *ret_count, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int64_t *ids = NULL;
	size_t count = 0, room = 0;
	int row;

	query_init(&query, store->db,
		"SELECT id FROM (SELECT id FROM images WHERE environment = ?"
		"  ORDER BY id DESC LIMIT -1 OFFSET ?) AS old"
		" WHERE id NOT IN (SELECT image_id FROM heads)"
		" AND id NOT IN (SELECT image_id FROM leases)"
		" AND NOT EXISTS (SELECT 1 FROM snapshots WHERE image_id = old.id)");
	query_bind_text(&query, environment);
	query_bind_int(&query, (int64_t)keep);
	while ((row = query_row(&query, err)) > 0) {
		*array_add(&ids, &count, &room) = query_int(&query, 0);
	}
	*ret_ids = ids;
	*ret_count = count;
	return row;
}

int images_prune(struct store *store, const char *environment, size_t keep, uint64_t *ret_images,
	uint64_t *ret_freed, struct error *err)
{
	CLEANUP(free_p) int64_t *ids = NULL;
	uint64_t images = 0, freed = 0;
	size_t count = 0;
	int status = list_prunable(store, environment, keep, &ids, &count, err);

	for (size_t i = 0; status == 0 && i < count; i++) {
		uint64_t one = 0;

		status = image_remove(store, ids[i], &one, err);
		if (status == 0) {
			images++;
			freed += one;
		} else if (status == -ERROR_BUSY || status == -ERROR_CONFLICT ||
			   status == -ERROR_NOT_FOUND) {
			status = 0; /* somebody took it up, or removed it, since it was listed */
		}
	}
	if (status == 0) {
		status = remove_stale_kept(store, &freed, err);
	}
	if (status < 0) {
		return error_wrap(err, "prune images of %s", environment);
	}
	if (ret_images != NULL) {
		*ret_images = images;
	}
	if (ret_freed != NULL) {
		*ret_freed = freed;
	}
	return 0;
}
