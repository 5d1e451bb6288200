/*
 * Runs of snapshots: the row that keeps a second snapshot of the same sandbox away, and the folder
 * in which what an ended sandbox has written waits for its commit. A run counts only while the
 * staging folder that it names, or the layer made of it, is locked by a process.
 */
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"

#include "base/clock.h"
#include "base/log.h"

#include <fcntl.h>
#include <sys/file.h>

static int layer_of_staging(
	struct store *store, const char *staging, int64_t *ret_id, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(
		&query, store->db, "SELECT id FROM layers WHERE staging = ? AND state = 'sealing'");
	query_bind_text(&query, staging);
	row = query_row(&query, err);
	if (row >= 0) {
		*ret_id = row > 0 ? query_int(&query, 0) : 0;
	}
	return row < 0 ? row : 0;
}

/* Its process locks the folder wherever it is: in staging/, later in layers/. */
static int run_is_alive(
	struct store *store, const char *staging, bool *ret_alive, struct error *err)
{
	CLEANUP(close_p) int in_staging = -1;
	CLEANUP(close_p) int in_layers = -1;
	char name[ID_TEXT_SIZE];
	int64_t id = 0;
	int status = store_lock(store->staging_fd, staging, LOCK_EX, &in_staging, err);

	if (status == -ERROR_NOT_FOUND) {
		status = layer_of_staging(store, staging, &id, err);
		if (status == 0 && id != 0) {
			id_format(name, id);
			status = store_lock(store->layers_fd, name, LOCK_EX, &in_layers, err);
		}
	}
	*ret_alive = status == -ERROR_BUSY;
	return status == 0 || status == -ERROR_BUSY || status == -ERROR_NOT_FOUND ? 0 : status;
}

int snapshot_run_end(struct store *store, const char *sandbox, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	query_init(&query, store->db, "DELETE FROM snapshot_runs WHERE sandbox = ?");
	query_bind_text(&query, sandbox);
	return query_run(&query, NULL, err);
}

static int run_staging(
	struct store *store, const char *sandbox, char **ret_staging, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT staging FROM snapshot_runs WHERE sandbox = ?");
	query_bind_text(&query, sandbox);
	row = query_row(&query, err);
	*ret_staging = row > 0 ? xstrdup(query_text(&query, 0)) : NULL;
	return row < 0 ? row : 0;
}

static int refuse_second(
	struct store *store, const char *sandbox, const struct staging *staging, struct error *err)
{
	CLEANUP(free_p) char *running = NULL;
	bool alive = false;
	int status = run_staging(store, sandbox, &running, err);

	/* That an earlier process began with this very folder is no second one. */
	if (status < 0 || running == NULL || streq(running, staging->name)) {
		return status;
	}
	status = run_is_alive(store, running, &alive, err);
	if (status < 0) {
		return status;
	}
	if (alive) {
		error_set(err, ERROR_BUSY, "a snapshot of %s is being taken already", sandbox);
		return error_hint(err, "try again when it has ended");
	}
	return 0;
}

int snapshot_begin(
	struct store *store, const char *sandbox, const struct staging *staging, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	CLEANUP(query_done) struct query query = {0};
	int status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);

	if (status == 0) {
		status = refuse_second(store, sandbox, staging, err);
	}
	if (status < 0) {
		return status;
	}
	query_init(&query, store->db,
		"INSERT INTO snapshot_runs (sandbox, staging, started_ms) VALUES (?, ?, ?)"
		" ON CONFLICT (sandbox) DO UPDATE SET staging = excluded.staging,"
		" started_ms = excluded.started_ms");
	query_bind_text(&query, sandbox);
	query_bind_text(&query, staging->name);
	query_bind_int(&query, clock_real_ms());
	status = query_run(&query, NULL, err);
	if (status == 0) {
		status = transaction_commit(&transaction, err);
	}
	if (status < 0) {
		return error_wrap(err, "begin a snapshot of %s", sandbox);
	}
	return store_fault("snapshot.begun", err);
}

int snapshot_abort(struct store *store, const char *sandbox, struct error *err)
{
	int status = snapshot_run_end(store, sandbox, err);

	return status < 0 ? status : layers_discard(store, err);
}

static int next_run(struct store *store, const char *after, char **ret_sandbox, char **ret_staging,
	struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db,
		"SELECT sandbox, staging FROM snapshot_runs WHERE sandbox > ?"
		" ORDER BY sandbox LIMIT 1");
	query_bind_text(&query, after);
	row = query_row(&query, err);
	if (row > 0) {
		*ret_sandbox = xstrdup(query_text(&query, 0));
		*ret_staging = xstrdup(query_text(&query, 1));
	}
	return row;
}

/* What an ended sandbox wrote waits there for whoever takes it up. */
static bool is_left(struct store *store, const char *staging)
{
	return str_starts(staging, KEEP_PREFIX) &&
	       faccessat(store->staging_fd, staging, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int snapshot_runs_recover(struct store *store, uint64_t *ret_ended, struct error *err)
{
	CLEANUP(free_p) char *last = xstrdup("");
	uint64_t ended = 0;
	int row;

	for (;;) {
		CLEANUP(free_p) char *staging = NULL;
		char *sandbox = NULL;
		bool alive = false;

		row = next_run(store, last, &sandbox, &staging, err);
		if (row <= 0) {
			break;
		}
		free(last);
		last = sandbox;
		row = run_is_alive(store, staging, &alive, err);
		if (row == 0 && !alive && !is_left(store, staging)) {
			row = snapshot_run_end(store, sandbox, err);
			ended++;
		}
		if (row < 0) {
			break;
		}
	}
	*ret_ended = ended;
	return row;
}

/* ---- what an ended sandbox leaves ---- */

int staging_is_kept(struct store *store, const char *name, bool *ret_kept, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db, "SELECT 1 FROM snapshot_runs WHERE staging = ?");
	query_bind_text(&query, name);
	row = query_row(&query, err);
	*ret_kept = row > 0;
	return row < 0 ? row : 0;
}

int snapshot_keep_begin(
	struct store *store, const char *sandbox, struct staging **ret_staging, struct error *err)
{
	CLEANUP(free_p) char *left = NULL;
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	int status = run_staging(store, sandbox, &left, err);

	if (status == 0 && left != NULL && is_left(store, left)) {
		status = staging_again(store, left, ret_staging, err);
		if (status != -ERROR_NOT_FOUND) {
			return status;
		}
		*err = ERROR_INIT;
		status = 0;
	}
	if (status < 0 || (status = staging_new_kept(store, &staging, err)) < 0 ||
		(status = snapshot_begin(store, sandbox, staging, err)) < 0) {
		return status;
	}
	*ret_staging = steal_ptr(staging);
	return 0;
}

void snapshot_keep_leave(struct staging *staging)
{
	if (staging != NULL) {
		staging->sealed = true; /* so that it is not deleted */
		staging_free(staging);
	}
}

int snapshot_keeps_sweep(struct store *store, bool (*is_known)(void *context, const char *sandbox),
	void *context, struct error *err)
{
	CLEANUP(free_p) char *last = xstrdup("");
	int row;

	for (;;) {
		CLEANUP(free_p) char *staging = NULL;
		CLEANUP(close_p) int lock = -1;
		char *sandbox = NULL;

		row = next_run(store, last, &sandbox, &staging, err);
		if (row <= 0) {
			return row;
		}
		free(last);
		last = sandbox;
		if (!is_left(store, staging) || is_known(context, sandbox) ||
			store_lock(store->staging_fd, staging, LOCK_EX, &lock, err) < 0) {
			*err = ERROR_INIT;
			continue;
		}
		log_warn("snapshot.keep_given_up", "sandbox", sandbox);
		if ((row = snapshot_run_end(store, sandbox, err)) < 0 ||
			(row = store_remove(store, "staging", staging, err)) < 0) {
			return row;
		}
	}
}
