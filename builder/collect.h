/*
 * Mirrors and downloads that no environment names any more: deleted after a day, so that a file
 * that is moved or edited costs no new fetch. Images keep what they have: their packs are their own
 * links. Environments must be all there are; with one that cannot be read, collect nothing.
 */
#ifndef HOB_BUILDER_COLLECT_H
#define HOB_BUILDER_COLLECT_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct environment;
struct store;

struct collected {
	uint64_t mirrors, downloads;
};

/* A mirror that somebody is using is left for the next time. */
MUSTCHECK int collect_unused(struct store *store, struct environment *const *environments,
	size_t count, struct collected *ret_collected, struct error *err);

#endif
