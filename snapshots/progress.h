/* How far long work in a store is. Whoever wants to know sets a function; what reads and writes the
 * trees of layers calls it as it goes, for each entry and for each piece of a large file. */
#ifndef HOB_SNAPSHOTS_PROGRESS_H
#define HOB_SNAPSHOTS_PROGRESS_H

#include <stdint.h>

struct store;

struct store_progress {
	const char *phase; /* a literal: "digest", "read", "write", "check", "link" */
	uint64_t entries, bytes; /* done in this phase */
	uint64_t entries_all, bytes_all; /* as far as known; 0: not. Files with holes end earlier */
};

typedef void store_progress_fn(void *context, const struct store_progress *progress);
void store_on_progress(struct store *store, store_progress_fn *fn, void *context);

/* For the parts of snapshots/: a phase begins, and so much more of it is done. */
void store_phase(struct store *store, const char *phase, uint64_t entries_all, uint64_t bytes_all);
void store_advance(struct store *store, uint64_t entries, uint64_t bytes);

#endif
