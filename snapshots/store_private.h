/*
 * What the files of snapshots/ share: the handle itself, the locks that tell a living process's
 * work from a dead one's, and the way a folder leaves the store.
 *
 * Locks are flock()s on the folder or log itself: a process that uses a folder holds it shared, one
 * that deletes it must get it exclusively. They follow the inode through renames and vanish with
 * their process, so nothing here depends on process ids.
 */
#ifndef HOB_SNAPSHOTS_STORE_PRIVATE_H
#define HOB_SNAPSHOTS_STORE_PRIVATE_H

#include "snapshots/catalog.h"
#include "snapshots/progress.h"
#include "snapshots/store.h"

enum hold_kind {
	HOLD_SEALED, /* a layer that this handle sealed and that nothing reaches yet */
	HOLD_USED, /* a ready layer that layer_find gave out: not deleted while a build counts on it
		    */
	HOLD_BUILD, /* the log of a build that runs in this process */
};

struct hold {
	enum hold_kind kind;
	int64_t id;
	int fd;
};

struct store {
	char *path;
	enum store_mode mode;
	int fd;
	int layers_fd;
	int staging_fd;
	int heads_fd;
	int builds_fd;
	sqlite3 *db;
	store_remove_fn *remove;
	void *remove_context;
	store_usage_fn *usage;
	void *usage_context;
	store_opaque_fn *opaque;
	void *opaque_context;
	store_compare_fn *compare;
	void *compare_context;
	store_progress_fn *progress_fn; /* NULL: nobody wants to know */
	void *progress_context;
	struct store_progress progress;
	struct hold *holds;
	size_t hold_count, hold_room;
};

/* Takes over `fd` and what is locked through it. */
void store_hold(struct store *store, enum hold_kind kind, int64_t id, int fd);
bool store_holds(const struct store *store, enum hold_kind kind, int64_t id);
void store_release(struct store *store, enum hold_kind kind, int64_t id);

/* Opens a folder or file and locks it (LOCK_SH or LOCK_EX) without waiting. ERROR_BUSY: somebody
 * holds it; ERROR_NOT_FOUND. The descriptor is the caller's and keeps the lock. */
MUSTCHECK int store_lock(
	int dir_fd, const char *name, int operation, int *ret_fd, struct error *err);

/* A file of the store that one process at a time has locked, made when missing. ERROR_BUSY says
 * `busy`. The descriptor is the caller's and keeps the lock. */
MUSTCHECK int store_turn(
	struct store *store, const char *name, const char *busy, int *ret_fd, struct error *err);

/* Deletes a folder of a room by the remover, or by itself. */
MUSTCHECK int store_remove(
	struct store *store, const char *room, const char *name, struct error *err);
/* Moves layers/<id> to the staging folder's trash, then deletes it: from the rename on, the sweep
 * of a start finishes what this did not. The caller holds the folder's lock. A missing one is fine.
 */
MUSTCHECK int layer_trash(struct store *store, int64_t id, struct error *err);

/* Takes room on the disk in good times; no failure: without room there is none to take. */
void ballast_make(int store_fd);
/* Gives it up; false if there was none. */
bool ballast_release(int store_fd);

#define OPAQUE_XATTR "trusted.overlay.opaque"
/* Of a folder's descriptor, by the hook or the system call. */
MUSTCHECK int store_opaque_get(struct store *store, int fd, bool *ret_opaque, struct error *err);
MUSTCHECK int store_opaque_set(struct store *store, int fd, struct error *err);
/* The calls themselves. */
MUSTCHECK int opaque_access(int fd, bool set, bool *opaque, struct error *err);

/* Are all extended attributes of two open files that this process may see equal? */
MUSTCHECK int xattrs_compare(int old_fd, int new_fd, bool *ret_same, struct error *err);

/* 0, or the error of a fault point that was told to fail. */
MUSTCHECK int store_fault(const char *point, struct error *err);

struct staging {
	struct store *store;
	char *name;
	int fd; /* locked LOCK_SH */
	bool sealed;
};

#define TRASH_PREFIX "trash-"
#define STAGING_PREFIX "new-"
/* Of what an ended sandbox is kept in. While the catalog has its run, the sweep leaves it alone, as
 * from the rename on nothing else has what the sandbox wrote. */
#define KEEP_PREFIX "keep-"
MUSTCHECK int staging_new_kept(
	struct store *store, struct staging **ret_staging, struct error *err);
/* One that is there, and that nobody is about to delete. */
MUSTCHECK int staging_again(
	struct store *store, const char *name, struct staging **ret_staging, struct error *err);
/* Has the catalog a run with this staging folder? Only asked of names with KEEP_PREFIX. */
MUSTCHECK int staging_is_kept(
	struct store *store, const char *name, bool *ret_kept, struct error *err);
#define ID_TEXT_SIZE 24
/* The number as layers/ and builds/ name it. */
void id_format(char text[ID_TEXT_SIZE], int64_t id);
/* "12" or "<prefix>12"; false if it is neither. */
bool id_parse(const char *text, const char *prefix, int64_t *ret_id);

/* The columns that layer_from_row reads, of table `layers AS l`, from the given column on. */
#define LAYER_COLUMNS                                                                              \
	"l.id, l.kind, l.title, l.step_key, l.id_base, l.id_count, l.host_usr, l.files, l.bytes, " \
	"l.stored, l.created_ms, l.refs, l.shared, l.line_key, l.origin, l.over_id"
void layer_from_row(const struct query *query, int column, struct layer *layer);

/* How the users of an image are called: "head of webapp", "leased by hobd". */
#define USER_HEAD "head of "
#define USER_LEASE "leased by "
#define USER_SNAPSHOT "snapshot "

/* In a transaction that will list it: a layer that this handle sealed, or that is ready, and that
 * is really there. Reads it whole, by layer->id. */
MUSTCHECK int layer_claim(struct store *store, struct layer *layer, struct error *err);

/* Layers on their way out, each locked exclusively so that no sweep, build or reader is on it. */
struct doomed {
	struct doomed_layer {
		int64_t id;
		uint64_t freed; /* once its row is gone */
		int lock; /* -1: its folder is missing already */
	} * layers;
	size_t count, room;
};

void doomed_done(struct doomed *doomed);
/* Locks the layers whose ids a query with one parameter gives. ERROR_BUSY. */
MUSTCHECK int doomed_add(struct store *store, const char *sql, int64_t value, struct doomed *doomed,
	struct error *err);
/* In the transaction. */
MUSTCHECK int doomed_delete_rows(
	struct store *store, const struct doomed *doomed, struct error *err);
/* After it: to the trash, and adds up what it freed. */
MUSTCHECK int doomed_trash(
	struct store *store, const struct doomed *doomed, uint64_t *freed, struct error *err);

/* The whole of a removal: `rows` deletes what is named and dooms its layers, in one transaction;
 * they go after it. On a full disk once more without the ballast. */
typedef int doomed_rows_fn(
	struct store *store, int64_t id, struct doomed *doomed, struct error *err);
MUSTCHECK int doomed_remove(struct store *store, const char *prefix, int64_t id,
	doomed_rows_fn *rows, uint64_t *ret_freed, struct error *err);

/* Ends all leases of a holder, which a query with its name lists, but those on the given ids. */
typedef int lease_end_fn(struct store *store, int64_t id, const char *holder, struct error *err);
MUSTCHECK int leases_keep(struct store *store, const char *list_sql, lease_end_fn *end,
	const char *holder, const int64_t *ids, size_t count, struct error *err);

/* One statement with one number. */
MUSTCHECK int store_run_id(
	struct store *store, const char *sql, int64_t id, int64_t *ret_changed, struct error *err);
/* The number that a query with one parameter gives; 0 without a row. */
MUSTCHECK int store_number(
	struct store *store, const char *sql, int64_t id, int64_t *ret_number, struct error *err);
/* Adds a line for each row of a query with one parameter. */
MUSTCHECK int users_add(struct store *store, const char *sql, const char *prefix, int64_t id,
	char ***users, struct error *err);
/* ERROR_CONFLICT saying who, unless the list is empty. */
MUSTCHECK int users_refuse(const char *what, int64_t id, char *const *users, struct error *err);

struct snapshot;
/* Its list of layers, under its generation. */
MUSTCHECK int snapshot_insert_layers(
	struct store *store, const struct snapshot *snapshot, struct error *err);
/* Lists that a flattening left and that no lease is old enough for, and what only they had. */
MUSTCHECK int snapshot_drop_old_lists(
	struct store *store, int64_t id, uint64_t *ret_freed, struct error *err);
/* In the transaction that commits it: its sandbox may be taken again. */
MUSTCHECK int snapshot_run_end(struct store *store, const char *sandbox, struct error *err);
/* Forgets the runs of killed processes. */
MUSTCHECK int snapshot_runs_recover(struct store *store, uint64_t *ret_ended, struct error *err);

/* Makes heads/<environment> say what the catalog says; *ret_changed when it did not before (NULL:
 * not wanted). Serialized by a lock on heads/, so that the last one to look wins. */
MUSTCHECK int head_link_update(
	struct store *store, const char *environment, bool *ret_changed, struct error *err);

#endif
