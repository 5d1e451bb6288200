/* Network namespaces with only `lo`, made ahead: making one costs 0.4 ms, taking one nothing. */
#ifndef HOB_POOL_SANDBOX_NETNS_H
#define HOB_POOL_SANDBOX_NETNS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/* 215 kB of kernel memory each. Enough for a claim or two per launcher while a burst begins; and
 * the most that are made when somebody says that there will be a burst. */
#define NETNS_POOL_READY 8
#define NETNS_POOL_MAX 64

struct netns_pool {
	int host_fd; /* the namespace that the launcher lives in */
	int fds[NETNS_POOL_MAX];
	size_t count;
};

MUSTCHECK int netns_pool_init(struct netns_pool *pool, struct error *err);
void netns_pool_done(struct netns_pool *pool);
/* Makes one more. Fewer than NETNS_POOL_MAX must be there. */
MUSTCHECK int netns_pool_add(struct netns_pool *pool, struct error *err);
/* Enters one of the pool (made now if it is empty), so that a clone is born in it. */
MUSTCHECK int netns_pool_enter(struct netns_pool *pool, struct error *err);
/* Back home. Never fails: a launcher that cannot come back ends. */
void netns_pool_leave(struct netns_pool *pool);

#endif
