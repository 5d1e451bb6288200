/* Folders for sandboxes' writable layers, made ahead: a file system may take half a millisecond to
 * find places for them. */
#ifndef HOB_POOL_SANDBOX_SPARES_H
#define HOB_POOL_SANDBOX_SPARES_H

#include "base/error.h"

#include <stdbool.h>

struct places;

/* As NETNS_POOL_READY and NETNS_POOL_MAX. */
#define SPARES_READY 8
#define SPARES_MAX 64

struct spares {
	unsigned made, taken; /* numbers of names; those in between are there */
};

unsigned spares_count(const struct spares *spares);
/* One more: upper and work, owned by root. */
MUSTCHECK int spares_add(struct spares *spares, const struct places *places, struct error *err);
/* Moves one to sandboxes/<id>. False when there is none. */
bool spares_take(struct spares *spares, const struct places *places, const char *id);
void spares_done(struct spares *spares, const struct places *places);
/* Removes those of launchers that are no more. */
void spares_sweep(const struct places *places);

#endif
