/* What hard links between layers save: the same blocks, counted in each layer that has them. */
#ifndef HOB_SNAPSHOTS_LINKED_H
#define HOB_SNAPSHOTS_LINKED_H

#include "snapshots/store.h"

/* Walks the layers that a flattening has linked; *ret_bytes is what the sum of all layers' stored
 * bytes counts more than once. Needs the right to read trees. */
MUSTCHECK int linked_bytes(struct store *store, uint64_t *ret_bytes, struct error *err);

#endif
