/* Folders for sandboxes' writable layers, made ahead: a file system may take half a millisecond to
 * find places for them. */
#ifndef HOB_POOL_SANDBOX_SPARES_H
#define HOB_POOL_SANDBOX_SPARES_H

#include "base/error.h"

#include <stdbool.h>

struct places;

#define SPARES_MAX 8

struct spares {
	unsigned made, taken; /* numbers of names; those in between are there */
};

bool spares_are_full(const struct spares *spares);
/* One more: upper and work, owned by root. */
MUSTCHECK int spares_add(struct spares *spares, const struct places *places, struct error *err);
/* Moves one to sandboxes/<id>. False when there is none. */
bool spares_take(struct spares *spares, const struct places *places, const char *id);
void spares_done(struct spares *spares, const struct places *places);
/* Removes those of launchers that are no more. */
void spares_sweep(const struct places *places);

#endif
