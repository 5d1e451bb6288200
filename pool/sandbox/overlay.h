/* Overlay mounts by descriptor: id-mapped layers below, one writable folder on top. */
#ifndef HOB_POOL_SANDBOX_OVERLAY_H
#define HOB_POOL_SANDBOX_OVERLAY_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

struct overlay {
	const int *lower_fds; /* highest first, at least one */
	size_t lower_count;
	int upper_fd, work_fd; /* under one mount */
	bool is_volatile; /* not synced by itself; whoever seals it does */
	bool is_probe; /* index=on: fails with EBUSY while a lower is the upper of a live mount */
};

/* A detached mount, checked to be writable. The descriptor is the caller's. */
MUSTCHECK int overlay_mount(const struct overlay *overlay, int *ret_fd, struct error *err);

/* A detached copy of the mount at `fd` beginning in its folder; userns_fd < 0: ids as they are. */
MUSTCHECK int mount_clone(
	int fd, int userns_fd, unsigned long attributes, int *ret_fd, struct error *err);

#endif
