/*
 * heads/<environment>: a symbolic link to "img-<n>" that says in the file system what the catalog
 * says, for whoever watches. The catalog is right when the two differ. Every change reads the
 * catalog under the lock of heads/, so that the last writer writes the newest state. And the way
 * back to an older image.
 */
#include "snapshots/store_private.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#define HEAD_TEXT_SIZE 32
#define HEAD_TEMPORARY ".new"

static int read_head(
	struct store *store, const char *environment, char text[HEAD_TEXT_SIZE], struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT image_id FROM heads WHERE environment = ?");
	query_bind_text(&query, environment);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	text[0] = '\0';
	if (row > 0) {
		snprintf(text, HEAD_TEXT_SIZE, "img-%lld", (long long)query_int(&query, 0));
	}
	return 0;
}

/* What the link says; "" when there is none. */
static void read_link(const struct store *store, const char *environment, char text[HEAD_TEXT_SIZE])
{
	ssize_t length = readlinkat(store->heads_fd, environment, text, HEAD_TEXT_SIZE - 1);

	text[length > 0 ? length : 0] = '\0';
}

static int write_link(
	const struct store *store, const char *environment, const char *text, struct error *err)
{
	/* Under the lock a temporary link can only be a dead process's. */
	if (unlinkat(store->heads_fd, HEAD_TEMPORARY, 0) < 0 && errno != ENOENT) {
		return error_sys(err, errno, "remove heads/%s", HEAD_TEMPORARY);
	}
	if (symlinkat(text, store->heads_fd, HEAD_TEMPORARY) < 0) {
		return error_sys(err, errno, "make heads/%s", environment);
	}
	if (store_fault("head.made", err) < 0) {
		return -(int)err->kind;
	}
	if (renameat(store->heads_fd, HEAD_TEMPORARY, store->heads_fd, environment) < 0) {
		return error_sys(err, errno, "move heads/%s", environment);
	}
	return 0;
}

static int update_locked(
	struct store *store, const char *environment, bool *ret_changed, struct error *err)
{
	char wanted[HEAD_TEXT_SIZE], found[HEAD_TEXT_SIZE];
	int status = read_head(store, environment, wanted, err);

	if (status < 0) {
		return status;
	}
	read_link(store, environment, found);
	if (ret_changed != NULL) {
		*ret_changed = !streq(wanted, found);
	}
	if (streq(wanted, found)) {
		return 0;
	}
	if (wanted[0] != '\0') {
		return write_link(store, environment, wanted, err);
	}
	if (unlinkat(store->heads_fd, environment, 0) < 0 && errno != ENOENT) {
		return error_sys(err, errno, "remove heads/%s", environment);
	}
	return 0;
}

int head_link_update(
	struct store *store, const char *environment, bool *ret_changed, struct error *err)
{
	CLEANUP(close_p) int lock = io_open(store->heads_fd, ".", O_RDONLY | O_DIRECTORY, 0, err);

	if (lock < 0) {
		return lock;
	}
	if (flock(lock, LOCK_EX) < 0) {
		return error_sys(err, errno, "lock heads/");
	}
	return update_locked(store, environment, ret_changed, err);
}

int image_head_clear(struct store *store, const char *environment, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int64_t changed = 0;
	int status;

	query_init(&query, store->db, "DELETE FROM heads WHERE environment = ?");
	query_bind_text(&query, environment);
	status = query_run(&query, &changed, err);
	if (status < 0) {
		return status;
	}
	if (changed == 0) {
		return error_set(err, ERROR_NOT_FOUND, "environment %s has no head", environment);
	}
	return head_link_update(store, environment, NULL, err);
}

/* ---- going back ---- */

static int find_former(struct store *store, const struct image *head, int64_t to_id,
	int64_t *ret_id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db,
		"SELECT id FROM images WHERE environment = ?1 AND id <> ?2"
		" AND (CASE WHEN ?3 = 0 THEN id < ?2 ELSE id = ?3 END) ORDER BY id DESC LIMIT 1");
	query_bind_text(&query, head->environment);
	query_bind_int(&query, head->id);
	query_bind_int(&query, to_id);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	if (row > 0) {
		*ret_id = query_int(&query, 0);
		return 0;
	}
	if (to_id == head->id) {
		return error_set(err, ERROR_CONFLICT, "img-%lld is the head of %s already",
			(long long)to_id, head->environment);
	}
	if (to_id != 0) {
		error_set(err, ERROR_NOT_FOUND, "%s has no image img-%lld", head->environment,
			(long long)to_id);
	} else {
		error_set(err, ERROR_NOT_FOUND, "%s has no image older than its head, img-%lld",
			head->environment, (long long)head->id);
	}
	return error_hint(err, "hob images ls %s", head->environment);
}

static int move_head(
	struct store *store, const struct image *head, int64_t to_id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int64_t changed = 0;
	int status;

	query_init(&query, store->db,
		"UPDATE heads SET image_id = ?, refused = ? WHERE environment = ? AND image_id = "
		"?");
	query_bind_int(&query, to_id);
	query_bind_text(&query, head->fingerprint);
	query_bind_text(&query, head->environment);
	query_bind_int(&query, head->id);
	status = query_run(&query, &changed, err);
	if (status == 0 && changed != 1) {
		return error_set(
			err, ERROR_CONFLICT, "the head of %s has just moved", head->environment);
	}
	return status;
}

int image_rollback(struct store *store, const char *environment, int64_t to_id,
	struct image *ret_image, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	struct image head = {0};
	int64_t former = 0;
	char name[ID_TEXT_SIZE + 8];
	int status = image_head(store, environment, &head, err);

	if (status == 0) {
		status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);
	}
	if (status == 0) {
		status = find_former(store, &head, to_id, &former, err);
	}
	if (status == 0) {
		status = move_head(store, &head, former, err);
	}
	if (status == 0) {
		status = transaction_commit(&transaction, err);
	}
	image_done(&head);
	if (status == 0) {
		status = head_link_update(store, environment, NULL, err);
	}
	if (status < 0) {
		return status;
	}
	snprintf(name, sizeof(name), "img-%lld", (long long)former);
	return image_find(store, name, ret_image, err);
}

int image_refused(
	struct store *store, const char *environment, char ret_fingerprint[65], struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT refused FROM heads WHERE environment = ?");
	query_bind_text(&query, environment);
	row = query_row(&query, err);
	ret_fingerprint[0] = '\0';
	if (row > 0) {
		query_copy(&query, 0, ret_fingerprint, 65);
	}
	return row < 0 ? row : 0;
}
