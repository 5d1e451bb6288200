/*
 * A store with a file system of its own: an XFS that can share blocks, in the sparse file
 * <store>.xfs, mounted over <store>. Whoever opens the store calls volume_mount first; without the
 * file it does nothing, so that a plain folder stays what it is.
 *
 * The file is its own lock (flock): one process at a time mounts, makes or grows it. A mount
 * namespace that lacks the mount gets one of the same device, hence the same file system. Removing
 * or renaming the file by hand, while it is not mounted, is how one goes back to a folder.
 *
 *     <store>.xfs        complete, or it would not have this name; may be a symbolic link
 *     <store>.xfs.new    being made, locked by who makes it; else left over by a killed one
 *     <store>.old        what was in the folder before `create --copy`
 */
#ifndef HOB_SNAPSHOTS_VOLUME_VOLUME_H
#define HOB_SNAPSHOTS_VOLUME_VOLUME_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* mkfs.xfs makes none below 300 MiB. */
#define VOLUME_BYTES_MIN (INT64_C(512) << 20)

/* Mounts the store's file if it has one and it is not mounted here. Call it as root before the
 * store is opened or its folder made. ERROR_BUSY while a volume is being made; ERROR_UNAVAILABLE
 * when it is not mounted and this is not root. */
MUSTCHECK int volume_mount(const char *store, struct error *err);
/* ERROR_BUSY while anything uses it. No volume, or not mounted: fine. */
MUSTCHECK int volume_unmount(const char *store, struct error *err);

struct volume_order {
	const char *store;
	int64_t bytes;
	bool copy; /* what is in the folder; nobody may use it meanwhile */
	bool preallocate; /* no later full disk, and no room given back to it */
	bool replace; /* although the folder's file system shares blocks itself */
};
/* Makes the file, and mounts it. ERROR_EXISTS: there is one; ERROR_CONFLICT: the folder is not
 * empty and not to be copied, or in use. Killed at any point, the store is the old one or the new.
 */
MUSTCHECK int volume_create(const struct volume_order *order, struct error *err);
/* To `bytes` in all, while it is in use. It never shrinks: ERROR_INVALID. */
MUSTCHECK int volume_grow(const char *store, int64_t bytes, struct error *err);

struct volume_info {
	const char *file_system; /* of the store's folder: "xfs", "ext4", or "other" */
	bool shares_blocks; /* tried */
	bool exists; /* the file */
	bool mounted; /* here */
	bool preallocated;
	uint64_t file_bytes, file_stored; /* its size, and what it takes up on the host */
	uint64_t host_free; /* of the file system that the file, or else the store, is on */
	uint64_t total, free; /* of the store's file system */
};
MUSTCHECK int volume_info(const char *store, struct volume_info *ret_info, struct error *err);
/* What can really still be written: a sparse file promises more than the disk below it may have. */
uint64_t volume_writable(const struct volume_info *info);
/* After a failed write or sync: says so in the hint if it is the disk below that is full. */
int volume_explain(const char *store, struct error *err);

#endif
