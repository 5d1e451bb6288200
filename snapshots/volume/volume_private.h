/* What the files about volumes share. */
#ifndef HOB_SNAPSHOTS_VOLUME_VOLUME_PRIVATE_H
#define HOB_SNAPSHOTS_VOLUME_VOLUME_PRIVATE_H

#include "configs/config.h"
#include "snapshots/volume/loop_device.h"
#include "snapshots/volume/volume.h"

#define VOLUME_FILE STORE_VOLUME_FORMAT
#define VOLUME_NEW_FILE "%s.xfs.new"
#define VOLUME_OLD_FOLDER "%s.old"
/* An attribute of the file: its blocks are all there, and stay. */
#define VOLUME_PREALLOCATED_XATTR "trusted.hob.preallocated"

/* Opened and locked. ERROR_NOT_FOUND. */
MUSTCHECK int volume_open(const char *store, int *ret_fd, struct error *err);
/* Is this file what is mounted at `path`? */
bool volume_is_at(const char *path, int file_fd);
/* Mounts the locked file over a folder. */
MUSTCHECK int volume_attach(const char *path, int file_fd, struct error *err);
MUSTCHECK int volume_need_root(struct error *err);
/* Runs a program of xfsprogs or the like. ERROR_UNSUPPORTED naming the package when it is missing.
 */
MUSTCHECK int volume_run(char *const *argv, const char *package, struct error *err);

#endif
