/* What a claim or a hint asks for, as a pool and an image. */
#ifndef HOB_POOL_CHOOSE_H
#define HOB_POOL_CHOOSE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct entry;
struct manager;
struct pool;
struct pool_image;

struct choice {
	const char *environment; /* its head; exactly one of the three */
	const char *image; /* "img-3" */
	const char *snapshot; /* "snap-4" or a tag */
};

/* ERROR_NOT_FOUND; ERROR_CONFLICT when the environment has no image yet. The image is counted. */
MUSTCHECK int choose(struct manager *manager, const struct choice *choice, struct pool **ret_pool,
	struct pool_image **ret_image, struct error *err);

/* How new it has to be. */
struct terms {
	int64_t max_age_ms; /* since the image was last known to be the newest; -1: any */
	const char *min_commit; /* at least 7 hex digits of a commit; NULL: any */
};
#define TERMS_ANY ((struct terms){.max_age_ms = -1})

bool terms_are_any(const struct terms *terms);
/* Is what stands on `image`, its workspace at `commit`, new enough? min_commit holds at that commit
 * and at those that come after it in history. Where nobody can say whether one does (ancestry.h),
 * it holds on images that were published after one at it. */
bool terms_hold(struct pool *pool, const struct pool_image *image, const char *commit,
	const struct terms *terms);
/* Always ERROR_CONFLICT: not even the environment's newest image meets them. Asks for a build. */
int terms_refuse(struct pool *pool, const struct terms *terms, struct error *err);

/* The oldest ready one on the image that no hint reserves, with its services as they are wanted;
 * one of which a service is just started again only when there is no other. NULL: none. */
struct entry *ready_find(const struct pool *pool, const struct pool_image *image);
/* Ready, unreserved, on the image and within the terms, which the image itself is not: the source
 * of some may have been brought further. NULL: none. */
struct entry *ready_find_newer(
	struct pool *pool, const struct pool_image *image, const struct terms *terms);
/* Ready, unreserved and within the terms, though its image has been replaced: the newest of them.
 * Only for terms that say how old it may be. */
struct entry *ready_find_older(struct pool *pool, const struct terms *terms);
/* Reserved, ready and on the image, and the hint longest not renewed. NULL: none. */
struct entry *reserved_find(const struct pool *pool, const struct pool_image *image);
/* May this one, which a hint reserves, be handed out for `image` under the terms? */
bool reserved_fits(const struct entry *entry, const struct pool *pool,
	const struct pool_image *image, const struct terms *terms);

/* Whom a limit may cost its place: ready ones of other images. A hint ends nobody's; a claim those
 * that nobody waits for, and when there are none, those that a hint reserves. */
enum room_cost { ROOM_NOBODY, ROOM_UNRESERVED, ROOM_RESERVED };
/* Room for one more on `image`. ERROR_UNAVAILABLE "over_limit: …". `owed`: others that are promised
 * and not begun. */
MUSTCHECK int room_check(struct pool *pool, const struct pool_image *image, int64_t owed,
	enum room_cost cost, struct error *err);

#endif
