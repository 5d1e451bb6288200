/*
 * Snapshots of sandboxes, from the asking to the row in the catalog. A job has three parties: the
 * launcher copies (or, after the end, renames) what the sandbox wrote; a process of its own,
 * `hob-snapshots take`, does all that is done to the store, since syncfs and the commit may block;
 * and this file passes word between the two. Whichever of them dies, the snapshot is there in whole
 * or not at all: only the process commits, and it does so only when told that the tree is complete.
 */
#ifndef HOB_POOL_SNAPSHOT_H
#define HOB_POOL_SNAPSHOT_H

#include "base/error.h"
#include "base/json.h"
#include "snapshots/snapshot.h"

#include <stdbool.h>
#include <stdint.h>

struct entry;
struct manager;
struct snapshot_job;

struct snapshot_order {
	enum snapshot_reason reason;
	const char *label; /* NULL: none */
	const json_t *metadata; /* an object of strings; NULL: none */
	int64_t max_pause_ms; /* it may stand still no longer than this; 0: the longest there is */
	bool only_looks; /* nobody's doing: the sandbox is as idle as before */
};

struct snapshot_result {
	int64_t id;
	const json_t *about; /* as the store shows it; lent */
	int64_t pause_us; /* how long the sandbox stood still */
	int64_t copy_us; /* how long the copy took in all */
	int64_t took_us; /* from the asking to the commit */
};

/* Exactly one of result and err; later, never before the start returns. */
typedef void snapshot_done_fn(
	void *context, const struct snapshot_result *result, const struct error *err);

/* Of a claimed sandbox that goes on. ERROR_CONFLICT: it is not usable, or one is being taken. */
MUSTCHECK int snapshot_start(struct entry *entry, const struct snapshot_order *order,
	snapshot_done_fn *fn, void *context, struct snapshot_job **ret_job, struct error *err);
/* Of one that is being released: ends it, and keeps its files by renaming them. */
MUSTCHECK int snapshot_keep(
	struct entry *entry, snapshot_done_fn *fn, void *context, struct error *err);
/* The sandbox is gone; a job that still runs does not need it any more. */
void snapshot_detach(struct entry *entry);
/* Nobody waits for it any more; it is taken all the same. */
void snapshot_forget(struct snapshot_job *job);
/* Ends the processes of all jobs; nobody is told. For the manager's own end. */
void snapshots_close(struct manager *manager);

#endif
