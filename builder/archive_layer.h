/* What the entries .wh.NAME and .wh..wh..opq of a layer of a container image mean for the tree that
 * it is unpacked to. Names are clean and relative, and lead through no links. */
#ifndef HOB_BUILDER_ARCHIVE_LAYER_H
#define HOB_BUILDER_ARCHIVE_LAYER_H

#include "base/error.h"
#include "builder/archive.h"

#include <stdbool.h>
#include <stddef.h>

enum layer_mark {
	MARK_NONE, /* an entry like any other */
	MARK_GONE, /* the name beside it is not there any more */
	MARK_OPAQUE, /* nothing of its folder is, but what this layer has there */
	MARK_IGNORED, /* aufs's own */
	MARK_NONSENSE,
};

/* Of a name; *ret_target is what it speaks of ("" is the root), the caller's to free. */
enum layer_mark layer_mark_of(const char *name, char **ret_target);

struct layer_unpacking {
	int tree_fd;
	const struct archive_options *options;
	struct archive_counts *counts;
	char **implied; /* folders that were made without an entry */
	size_t implied_count, implied_room;
};

void layer_unpacking_done(struct layer_unpacking *layer);
/* ARCHIVE_LAYER, ARCHIVE_CLEAR: does what the mark says. Its folder is there. */
MUSTCHECK int layer_mark_apply(
	struct layer_unpacking *layer, enum layer_mark mark, const char *target, struct error *err);
/* Before an entry is written: makes its place free. */
MUSTCHECK int layer_place_clear(
	struct layer_unpacking *layer, const char *name, bool is_folder, struct error *err);
/* A folder was made for want of an entry; one has its entry now. */
void layer_implied_add(struct layer_unpacking *layer, const char *folder);
void layer_implied_drop(struct layer_unpacking *layer, const char *folder);

#endif
