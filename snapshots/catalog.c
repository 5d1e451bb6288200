/* One sqlite3 connection: how it is opened, how its failures read, and the few helpers that the
 * other files ask their questions with. Every connection has foreign keys on and synchronous=FULL,
 * because a commit of the catalog is the commit point of a build. */
#include "snapshots/catalog.h"

#include "base/memory.h"

#include <assert.h>
#include <stdio.h>

/* Longer than any transaction here takes on a slow disk; whoever waits longer is told. */
#define CATALOG_BUSY_MS 10000

static enum error_kind kind_of(int code)
{
	switch (code & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return ERROR_BUSY;
	case SQLITE_FULL:
		return ERROR_NO_SPACE;
	case SQLITE_NOTADB:
	case SQLITE_CORRUPT:
		return ERROR_CORRUPT;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return ERROR_DENIED;
	case SQLITE_CONSTRAINT:
		return ERROR_CONFLICT;
	case SQLITE_MISUSE:
	case SQLITE_ERROR:
	case SQLITE_RANGE:
		return ERROR_INTERNAL;
	default:
		return ERROR_IO;
	}
}

int catalog_error(sqlite3 *db, int code, struct error *err, const char *what)
{
	enum error_kind kind = kind_of(code);
	int sys = db != NULL ? sqlite3_system_errno(db) : 0;
	const char *reason = db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(code);

	if (kind == ERROR_IO && sys != 0) {
		return error_sys(err, sys, "catalog: %s: %s", what, reason);
	}
	error_set(err, kind, "catalog: %s: %s", what, reason);
	if (kind == ERROR_CORRUPT) {
		error_hint(err, "stop hobd and look at it with: sqlite3 catalog.db "
				"'PRAGMA integrity_check'; the layers themselves are not touched");
	} else if (kind == ERROR_BUSY) {
		error_hint(err, "another process has held the catalog for %d s",
			CATALOG_BUSY_MS / 1000);
	}
	return -(int)err->kind;
}

static int set_up(sqlite3 *db, int lock_fd, bool read_only, struct error *err)
{
	int status;

	sqlite3_extended_result_codes(db, 1);
	sqlite3_busy_timeout(db, CATALOG_BUSY_MS);
	status = catalog_exec(db, "PRAGMA synchronous = FULL", err);
	if (status == 0) {
		status = catalog_exec(db, "PRAGMA foreign_keys = ON", err);
	}
	if (status == 0) {
		status = schema_update(db, lock_fd, err);
	}
	if (status == 0 && read_only) {
		status = catalog_exec(db, "PRAGMA query_only = ON", err);
	}
	return status;
}

int catalog_open(const char *path, int lock_fd, bool read_only, sqlite3 **ret_db, struct error *err)
{
	sqlite3 *db = NULL;
	int code, status;

	/* Readers open it for writing too: a WAL left by a killed process may have to be recovered.
	 */
	code = sqlite3_open_v2(path, &db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
	if (code != SQLITE_OK) {
		status = catalog_error(db, code, err, "open");
	} else {
		status = set_up(db, lock_fd, read_only, err);
	}
	if (status < 0) {
		sqlite3_close_v2(db);
		return status;
	}
	*ret_db = db;
	return 0;
}

void catalog_close(sqlite3 *db)
{
	sqlite3_close_v2(db);
}

int catalog_exec(sqlite3 *db, const char *sql, struct error *err)
{
	int code = sqlite3_exec(db, sql, NULL, NULL, NULL);

	return code == SQLITE_OK ? 0 : catalog_error(db, code, err, sql);
}

void query_init(struct query *query, sqlite3 *db, const char *sql)
{
	*query = (struct query){.db = db};
	query->code = sqlite3_prepare_v2(db, sql, -1, &query->statement, NULL);
}

void query_done(struct query *query)
{
	sqlite3_finalize(query->statement);
	query->statement = NULL;
}

void query_bind_int(struct query *query, int64_t value)
{
	if (query->code == SQLITE_OK) {
		query->code = sqlite3_bind_int64(query->statement, ++query->bound, value);
	}
}

void query_bind_text(struct query *query, const char *text)
{
	if (query->code == SQLITE_OK) {
		query->code = sqlite3_bind_text(
			query->statement, ++query->bound, text, -1, SQLITE_STATIC);
	}
}

static const char *query_name(const struct query *query)
{
	const char *sql = query->statement != NULL ? sqlite3_sql(query->statement) : NULL;

	return sql != NULL ? sql : "a query";
}

int query_row(struct query *query, struct error *err)
{
	if (query->code == SQLITE_OK) {
		int code = sqlite3_step(query->statement);

		if (code == SQLITE_ROW) {
			return 1;
		}
		if (code == SQLITE_DONE) {
			return 0;
		}
		query->code = code;
	}
	return catalog_error(query->db, query->code, err, query_name(query));
}

int query_run(struct query *query, int64_t *ret_changed, struct error *err)
{
	int row;

	do {
		row = query_row(query, err);
	} while (row > 0);
	if (row == 0 && ret_changed != NULL) {
		*ret_changed = sqlite3_changes64(query->db);
	}
	return row;
}

int query_run_relaxed(struct query *query, int64_t *ret_changed, struct error *err)
{
	struct error ignored = ERROR_INIT;
	/* Inside a transaction it is that one's commit which waits or not. */
	bool alone = sqlite3_get_autocommit(query->db) != 0;
	int status;

	if (alone && (status = catalog_exec(query->db, "PRAGMA synchronous = NORMAL", err)) < 0) {
		return status;
	}
	status = query_run(query, ret_changed, err);
	if (alone && catalog_exec(query->db, "PRAGMA synchronous = FULL", &ignored) < 0) {
		return status < 0 ? status : error_set(err, ignored.kind, "%s", ignored.message);
	}
	return status;
}

void query_again(struct query *query)
{
	sqlite3_reset(query->statement);
	sqlite3_clear_bindings(query->statement);
	query->bound = 0;
}

int64_t query_int(const struct query *query, int column)
{
	return sqlite3_column_int64(query->statement, column);
}

const char *query_text(const struct query *query, int column)
{
	const char *text = (const char *)sqlite3_column_text(query->statement, column);

	return text != NULL ? text : "";
}

void query_copy(const struct query *query, int column, char *text, size_t size)
{
	snprintf(text, size, "%s", query_text(query, column));
}

int transaction_begin(
	struct transaction *transaction, sqlite3 *db, enum transaction_kind kind, struct error *err)
{
	int status;

	assert(transaction->db == NULL);
	/* IMMEDIATE: a transaction that will write waits for its turn here, never in the middle. */
	status = catalog_exec(db, kind == TRANSACTION_WRITE ? "BEGIN IMMEDIATE" : "BEGIN", err);
	if (status == 0) {
		transaction->db = db;
	}
	return status;
}

int transaction_commit(struct transaction *transaction, struct error *err)
{
	int status = catalog_exec(transaction->db, "COMMIT", err);

	if (status == 0) {
		transaction->db = NULL;
	}
	return status;
}

void transaction_done(struct transaction *transaction)
{
	if (transaction->db != NULL) {
		/* After some failures sqlite3 has rolled back by itself; then this does nothing. */
		sqlite3_exec(transaction->db, "ROLLBACK", NULL, NULL, NULL);
		transaction->db = NULL;
	}
}
