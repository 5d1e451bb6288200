/* All images of a store with what each costs: read once, added up in memory, for lists and for what
 * the removal of several images together would free. */
#ifndef HOB_SNAPSHOTS_INVENTORY_H
#define HOB_SNAPSHOTS_INVENTORY_H

#include "snapshots/store.h"

struct inventory_row {
	struct image image;
	char **users; /* NULL-terminated, never NULL */
	uint64_t bytes; /* apparent, of all its layers */
	uint64_t exclusive; /* in use on disk: what removing it frees */
	uint64_t shared; /* in use on disk, with other images */
	bool chosen; /* for inventory_chosen_bytes */
};

struct inventory {
	struct inventory_row *rows; /* newest first */
	size_t count;
	uint64_t stored; /* of all layers, each once */
};

MUSTCHECK int inventory_read(
	struct store *store, struct inventory *ret_inventory, struct error *err);
void inventory_done(struct inventory *inventory);
struct inventory_row *inventory_find(const struct inventory *inventory, int64_t image_id);
/* What removing all chosen rows frees: layers that no other row has. */
uint64_t inventory_chosen_bytes(const struct inventory *inventory);

/* All ready layers, each once. */
struct store_bytes {
	uint64_t layers, bytes, stored;
	uint64_t unlisted; /* of `stored`: kept for reuse, or waiting for gc */
};
MUSTCHECK int store_bytes(struct store *store, struct store_bytes *ret_bytes, struct error *err);

#endif
