/*
 * A new head whose layers differ from a warm sandbox's in the source only: the sandbox is brought
 * to the new commit instead of being replaced, and counts as the head's from then on.
 */
#ifndef HOB_POOL_SYNC_REFRESH_H
#define HOB_POOL_SYNC_REFRESH_H

#include <stdbool.h>
#include <stddef.h>

struct entry;
struct layer;
struct pool;
struct pool_image;

/* After so many, or so many bytes, it is replaced: what it has written itself lies on memory and
 * disk that a fresh one shares. */
#define REFRESHES_MAX 32
#define REFRESH_BYTES_MAX (64LL << 20)
/* Of one pool at a time. */
#define REFRESHES_AT_ONCE 2

/* Do two lists of layers differ in layers of sources alone? Pure. */
bool layers_differ_in_source_only(
	const struct layer *from, size_t from_count, const struct layer *to, size_t to_count);
/* Is what a sandbox of `from` sees, its source apart, what one of `to` sees? */
bool image_refreshes_to(const struct pool_image *from, const struct pool_image *to);

/* Is this ready sandbox of an older image to be refreshed, or being so? */
bool entry_refreshes(const struct entry *entry);
/* Starts what may be started now. */
void pool_refresh(struct pool *pool);

#endif
