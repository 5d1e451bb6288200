/* One build of an environment at a time: an flock on builds/<environment>.lock, which the kernel
 * drops with the process, with the holder's name in it for the one who finds it taken. */
#ifndef HOB_BUILDER_LOCK_H
#define HOB_BUILDER_LOCK_H

#include "base/error.h"

#include <stdint.h>

/* ERROR_BUSY says who holds it and since when. The lock goes with the descriptor. */
MUSTCHECK int build_lock(int store_fd, const char *environment, int *ret_fd, struct error *err);
/* Writes who we are. */
void build_lock_note(int fd, int64_t build_id);

#endif
