/* Loop devices by their ioctls. Which file a device is over is known by the file's own number, so
 * that it does not matter by which path, or in which mount namespace, it was attached. */
#include "snapshots/volume/loop_device.h"

#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <linux/major.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Others may take the free one that was found; a device that went may stay in between for a while.
 */
#define ATTACH_ATTEMPTS 64
#define ATTACH_PAUSE_US 10000

void loop_device_done(struct loop_device *device)
{
	fd_done(&device->fd);
}

static bool is_over(int fd, const struct stat *file)
{
	struct loop_info64 info;

	return ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == file->st_ino &&
	       info.lo_device == file->st_dev;
}

int loop_device_find(int file_fd, struct loop_device *ret_device, struct error *err)
{
	CLEANUP(closedir_p) DIR *blocks = io_opendir(AT_FDCWD, "/sys/block", err);
	struct dirent *entry;
	struct stat file;

	*ret_device = LOOP_DEVICE_INIT;
	if (blocks == NULL) {
		return -(int)err->kind;
	}
	if (fstat(file_fd, &file) < 0) {
		return error_sys(err, errno, "stat the store's file");
	}
	while ((entry = readdir(blocks)) != NULL) {
		CLEANUP(close_p) int fd = -1;
		char path[sizeof(entry->d_name) + sizeof("/loop/backing_file")];

		snprintf(path, sizeof(path), "%s/loop/backing_file", entry->d_name);
		if (!str_starts(entry->d_name, "loop") || strlen(entry->d_name) > 16 ||
			faccessat(dirfd(blocks), path, F_OK, 0) < 0) {
			continue;
		}
		snprintf(ret_device->path, LOOP_PATH_SIZE, "/dev/%.16s", entry->d_name);
		fd = open(ret_device->path, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && is_over(fd, &file)) {
			ret_device->fd = steal_fd(&fd);
			return 0;
		}
	}
	ret_device->path[0] = '\0';
	return 0;
}

/* The device keeps the open file that it is given, with any lock on it: so it gets its own. */
static int reopen(int file_fd, struct error *err)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file_fd);
	return io_open(AT_FDCWD, path, O_RDWR, 0, err);
}

static int attach_once(
	int control_fd, int file_fd, struct loop_device *ret_device, struct error *err)
{
	/* Direct: what the store has in memory need not be there a second time. */
	const struct loop_config config = {.fd = (unsigned)file_fd,
		.info = {.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO}};
	CLEANUP(close_p) int fd = -1;
	int number = ioctl(control_fd, LOOP_CTL_GET_FREE);

	if (number < 0) {
		return error_sys(err, errno, "find a free loop device");
	}
	snprintf(ret_device->path, LOOP_PATH_SIZE, "/dev/loop%d", number);
	fd = io_open(AT_FDCWD, ret_device->path, O_RDWR, 0, err);
	if (fd < 0) {
		return fd;
	}
	if (ioctl(fd, LOOP_CONFIGURE, &config) < 0) {
		return error_sys(err, errno, "attach %s", ret_device->path);
	}
	ret_device->fd = steal_fd(&fd);
	return 0;
}

int loop_device_attach(int file_fd, struct loop_device *ret_device, struct error *err)
{
	CLEANUP(close_p) int control = io_open(AT_FDCWD, "/dev/loop-control", O_RDWR, 0, err);
	CLEANUP(close_p) int own = -1;
	int status;

	*ret_device = LOOP_DEVICE_INIT;
	if (control < 0) {
		return error_hint(err, "load the kernel's module loop (`modprobe loop`); in a "
				       "container, give it /dev/loop-control and loop devices");
	}
	if ((own = reopen(file_fd, err)) < 0) {
		return own;
	}
	for (int i = 0; (status = attach_once(control, own, ret_device, err)) < 0; i++) {
		if ((err->sys != EBUSY && err->sys != ENXIO) || i == ATTACH_ATTEMPTS) {
			return status;
		}
		*err = ERROR_INIT;
		usleep(ATTACH_PAUSE_US);
	}
	return 0;
}

int loop_device_resize(const struct loop_device *device, struct error *err)
{
	return ioctl(device->fd, LOOP_SET_CAPACITY) < 0
		       ? error_sys(err, errno, "resize %s", device->path)
		       : 0;
}

bool loop_device_is(dev_t device, int file_fd)
{
	CLEANUP(close_p) int fd = -1;
	char path[LOOP_PATH_SIZE];
	struct stat file;

	if (major(device) != LOOP_MAJOR || fstat(file_fd, &file) < 0) {
		return false;
	}
	snprintf(path, sizeof(path), "/dev/loop%u", minor(device));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && is_over(fd, &file);
}
