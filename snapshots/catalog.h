/*
 * The catalog's plumbing: one sqlite3 connection, and queries that read like what they ask. An
 * error in preparing or binding is kept in the query and comes out of the next query_row or
 * query_run, so that a caller checks once. Only the files of snapshots/ include this.
 */
#ifndef HOB_SNAPSHOTS_CATALOG_H
#define HOB_SNAPSHOTS_CATALOG_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sqlite3.h>

#define CATALOG_FILE "catalog.db"

/* `path` must exist (an empty file is a new catalog). `lock_fd` is flock()ed while the schema is
 * made or brought up to date. ERROR_CORRUPT: not a catalog; ERROR_UNSUPPORTED: a newer schema. */
MUSTCHECK int catalog_open(
	const char *path, int lock_fd, bool read_only, sqlite3 **ret_db, struct error *err);
void catalog_close(sqlite3 *db);

/* Turns the connection's last failure into an error about `what`. */
int catalog_error(sqlite3 *db, int code, struct error *err, const char *what);

struct query {
	sqlite3 *db;
	sqlite3_stmt *statement;
	int bound; /* how many parameters have a value */
	int code; /* first failure, or SQLITE_OK */
};

void query_init(struct query *query, sqlite3 *db, const char *sql);
void query_done(struct query *query);
/* In the order of the question marks. Text must live until query_done. */
void query_bind_int(struct query *query, int64_t value);
void query_bind_text(struct query *query, const char *text); /* NULL is SQL's NULL */
/* 1: a row; 0: no more; negative: failed. */
MUSTCHECK int query_row(struct query *query, struct error *err);
/* Runs it to the end and counts the rows it changed (NULL: not wanted). */
MUSTCHECK int query_run(struct query *query, int64_t *ret_changed, struct error *err);
/* query_run without waiting for the disk: for what need not outlive a power cut (a kill it does).
 * The next transaction that waits takes it along. */
MUSTCHECK int query_run_relaxed(struct query *query, int64_t *ret_changed, struct error *err);
/* For running the same statement with other values. */
void query_again(struct query *query);

int64_t query_int(const struct query *query, int column);
/* "" for SQL's NULL; valid until the next row. */
const char *query_text(const struct query *query, int column);
void query_copy(const struct query *query, int column, char *text, size_t size);

/* Rolled back by _done unless it was committed. */
struct transaction {
	sqlite3 *db; /* NULL: none is open */
};

enum transaction_kind { TRANSACTION_READ, TRANSACTION_WRITE };

MUSTCHECK int transaction_begin(struct transaction *transaction, sqlite3 *db,
	enum transaction_kind kind, struct error *err);
MUSTCHECK int transaction_commit(struct transaction *transaction, struct error *err);
void transaction_done(struct transaction *transaction);

/* One statement without parameters. */
MUSTCHECK int catalog_exec(sqlite3 *db, const char *sql, struct error *err);
/* Makes the tables, or brings an older catalog's up to date. */
MUSTCHECK int schema_update(sqlite3 *db, int lock_fd, struct error *err);

#endif
