/* The environment's sync.run: a command inside after a sync that changed files. Nobody's session,
 * so it is not among the commands that its owner sees. */
#ifndef HOB_POOL_SYNC_SYNC_RUN_H
#define HOB_POOL_SYNC_SYNC_RUN_H

#include "base/error.h"

struct entry;
struct sync_run;

/* Killed after so long. */
#define SYNC_RUN_TIMEOUT_MS (10 * 60 * 1000)

typedef void sync_run_done_fn(void *context, int code, const struct error *err);

MUSTCHECK int sync_run_start(struct entry *entry, const char *command, sync_run_done_fn *fn,
	void *context, struct sync_run **ret_run, struct error *err);
/* Kills it; no call from here on. NULL is fine. */
void sync_run_abandon(struct sync_run *run);

#endif
