/* A block device over a file. One file is never attached twice: two devices over the same file
 * would be two caches of it. */
#ifndef HOB_SNAPSHOTS_VOLUME_LOOP_DEVICE_H
#define HOB_SNAPSHOTS_VOLUME_LOOP_DEVICE_H

#include "base/error.h"

#include <stdbool.h>
#include <sys/types.h>

#define LOOP_PATH_SIZE 32
struct loop_device {
	char path[LOOP_PATH_SIZE]; /* "/dev/loop3"; empty: none */
	int fd; /* -1: none. As long as it is open, or the device mounted, the device is there */
};
#define LOOP_DEVICE_INIT ((struct loop_device){.fd = -1})

void loop_device_done(struct loop_device *device);
/* The one over this file, whoever attached it; none is no failure. */
MUSTCHECK int loop_device_find(int file_fd, struct loop_device *ret_device, struct error *err);
/* A new one, which goes by itself when nobody has it open or mounted. */
MUSTCHECK int loop_device_attach(int file_fd, struct loop_device *ret_device, struct error *err);
/* The file has grown. */
MUSTCHECK int loop_device_resize(const struct loop_device *device, struct error *err);
/* Is the file system of this st_dev on a device over the file? */
bool loop_device_is(dev_t device, int file_fd);

#endif
