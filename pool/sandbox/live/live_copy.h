/*
 * A copy of the writable folder of a running sandbox that is as if it had been taken in one
 * instant. The sandbox runs while nearly all of it is copied, again and again what has changed, and
 * is frozen only for the rest. What it keeps for each entry is 56 bytes, its name, and 32 bytes
 * more where a list is read or written: about 100 MB for a million entries.
 */
#ifndef HOB_POOL_SANDBOX_LIVE_COPY_H
#define HOB_POOL_SANDBOX_LIVE_COPY_H

#include "base/error.h"
#include "pool/sandbox/sandbox.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Beyond it ERROR_LIMIT: 800 MB of memory for one copy. */
#define LIVE_ENTRIES_MAX 8000000U

struct live_copy_spec {
	int upper_fd; /* what is copied; readable folder */
	int tree_fd; /* an empty folder on the same file system, which becomes the copy */
	int scratch_fd; /* another, which holds the hard-linked files until the end */
	/* The copy of the same folder before this one, and the list that it wrote: unchanged files
	 * become links to it where blocks cannot be shared. -1, -1: none. */
	int previous_fd, previous_list_fd;
	/* How long the sandbox may stand still; 0: as long as it takes. What would surely take
	 * longer is refused before, what does take longer is given up: ERROR_LIMIT. */
	int64_t max_pause_us;
	int list_fd; /* writable, empty: what the next copy gets as previous_list_fd; -1: none */
	/* Returns when nothing in the sandbox runs any more; everything runs again after thaw,
	 * which is called once for each freeze, also for one that failed. */
	int (*freeze)(void *context, struct error *err);
	int (*thaw)(void *context, struct error *err);
	/* Those whose mappings may be of files below upper_fd; called when frozen. */
	int (*processes)(void *context, pid_t **ret_pids, size_t *ret_count, struct error *err);
	/* Is it wanted no more? Asked now and then; NULL: it always is. */
	bool (*cancelled)(void *context);
	void *context;
};

/* Owners, modes, times, attributes, links, holes, whiteouts are as in the original; the marks that
 * tie an upper folder to its lower ones are not. The caller syncs. On failure the copy is unusable:
 * ERROR_NO_SPACE, ERROR_LIMIT (too many, too long), ERROR_IO, and whatever the callbacks give. */
MUSTCHECK int live_copy(
	const struct live_copy_spec *spec, struct sandbox_copied *ret_copied, struct error *err);

#endif
