/* Mounting, unmounting and looking at a store's own file system. */
#include "snapshots/volume/volume.h"

#include "base/io.h"
#include "base/memory.h"
#include "configs/free_space.h"
#include "snapshots/volume/volume_private.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#define XFS_MAGIC 0x58465342
#define STORE_FOLDER_MODE 0711
/* Mounting takes milliseconds, growing a second: 30 s. */
#define LOCK_ATTEMPTS 3000
#define LOCK_PAUSE_US 10000
/* Below this a disk counts as full: XFS writes some megabytes of log at a time. */
#define HOST_FULL_BYTES (UINT64_C(32) << 20)

int volume_need_root(struct error *err)
{
	if (geteuid() == 0) {
		return 0;
	}
	error_set(err, ERROR_DENIED, "a store's file system is made and mounted by root");
	return error_hint(err, "run this as root, or by sudo");
}

int volume_open(const char *store, int *ret_fd, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf(VOLUME_FILE, store);
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, path, O_RDWR, 0, err);
	struct stat file;

	if (fd < 0) {
		return fd;
	}
	if (fstat(fd, &file) < 0 || !S_ISREG(file.st_mode)) {
		return error_set(err, ERROR_INVALID, "%s is not a file", path);
	}
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (errno != EWOULDBLOCK || i == LOCK_ATTEMPTS) {
			return errno == EWOULDBLOCK ? error_set(err, ERROR_BUSY,
							      "another process has %s locked", path)
						    : error_sys(err, errno, "lock %s", path);
		}
		usleep(LOCK_PAUSE_US);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

bool volume_is_at(const char *path, int file_fd)
{
	struct stat here;

	return stat(path, &here) == 0 && loop_device_is(here.st_dev, file_fd);
}

int volume_attach(const char *path, int file_fd, struct error *err)
{
	/* What is deleted goes back to the host's disk, unless it was all taken at the start. */
	const char *options =
		fgetxattr(file_fd, VOLUME_PREALLOCATED_XATTR, NULL, 0) >= 0 ? "" : "discard";
	CLEANUP(loop_device_done) struct loop_device device = LOOP_DEVICE_INIT;
	int status = loop_device_find(file_fd, &device, err);

	if (status == 0 && device.fd < 0) {
		status = loop_device_attach(file_fd, &device, err);
	}
	if (status < 0) {
		return error_wrap(err, "store %s", path);
	}
	if (mount(device.path, path, "xfs", 0, options) == 0) {
		return 0;
	}
	error_sys(err, errno, "mount %s at %s", device.path, path);
	return err->sys == ENODEV
		       ? error_hint(err, "this kernel has no XFS: load its module (`modprobe xfs`)")
		       : error_hint(err, "`dmesg` says more; `xfs_repair` mends an XFS in a file");
}

/* Somebody fills a new volume right now; a store that is opened meanwhile would be missed. */
static int check_making(const char *store, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf(VOLUME_NEW_FILE, store);
	CLEANUP(close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK) {
		return 0;
	}
	error_set(err, ERROR_BUSY, "`hob store create` is at work on %s", store);
	return error_hint(err, "try again when it has ended");
}

static int mount_as_root(const char *store, struct error *err)
{
	CLEANUP(close_p) int file = -1;
	int status = volume_open(store, &file, err);

	if (status < 0) {
		return status;
	}
	if (volume_is_at(store, file)) {
		return 0;
	}
	status = io_mkdir_all(AT_FDCWD, store, STORE_FOLDER_MODE, err);
	return status < 0 ? status : volume_attach(store, file, err);
}

int volume_mount(const char *store, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf(VOLUME_FILE, store);
	struct stat here;

	if (access(path, F_OK) < 0) {
		return check_making(store, err);
	}
	if (geteuid() == 0) {
		return mount_as_root(store, err);
	}
	/* The file is root's alone: that something is mounted there has to do. */
	if (stat(store, &here) == 0 && major(here.st_dev) == 7) {
		return 0;
	}
	error_set(err, ERROR_UNAVAILABLE, "the store is in %s, which is not mounted", path);
	return error_hint(err, "`hob store mount`, or any start of hobd, as root mounts it");
}

int volume_unmount(const char *store, struct error *err)
{
	CLEANUP(close_p) int file = -1;
	int status = volume_need_root(err);

	if (status == 0) {
		status = volume_open(store, &file, err);
	}
	if (status < 0 || !volume_is_at(store, file)) {
		return status == -ERROR_NOT_FOUND ? 0 : status;
	}
	if (umount2(store, UMOUNT_NOFOLLOW) < 0) {
		error_sys(err, errno, "unmount %s", store);
		return err->sys == EBUSY ? error_hint(err, "stop hobd with its sandboxes (SIGINT) "
							   "and wait for builds to end")
					 : -(int)err->kind;
	}
	return 0;
}

/* ---- looking ---- */

/* Nothing less than trying says whether it can. */
static bool can_share(const char *folder)
{
	static const char text[] = "hob";
	CLEANUP(close_p) int from = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	CLEANUP(close_p) int to = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	return from >= 0 && to >= 0 && write(from, text, sizeof(text)) == sizeof(text) &&
	       ioctl(to, FICLONE, from) == 0;
}

static uint64_t free_of(const char *path)
{
	struct statvfs fs;

	return statvfs(path, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
}

/* The folder itself, or the nearest above it. */
static char *existing_folder(const char *path)
{
	char *folder = xstrdup(path);
	char *slash;

	while (access(folder, F_OK) < 0 && (slash = strrchr(folder, '/')) != NULL) {
		slash[slash == folder ? 1 : 0] = '\0';
		if (slash == folder) {
			break;
		}
	}
	return folder;
}

static void look_at_file(const char *store, struct volume_info *info)
{
	CLEANUP(free_p) char *path = xasprintf(VOLUME_FILE, store);
	CLEANUP(close_p) int fd = -1;
	struct stat file, here;

	if (stat(path, &file) < 0) {
		return;
	}
	info->exists = true;
	info->file_bytes = (uint64_t)file.st_size;
	info->file_stored = (uint64_t)file.st_blocks * 512;
	info->host_free = free_of(path);
	info->preallocated = getxattr(path, VOLUME_PREALLOCATED_XATTR, NULL, 0) >= 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	info->mounted = fd >= 0 ? volume_is_at(store, fd)
				: stat(store, &here) == 0 && major(here.st_dev) == 7;
}

int volume_info(const char *store, struct volume_info *ret_info, struct error *err)
{
	CLEANUP(free_p) char *folder = existing_folder(store);
	struct volume_info info = {0};
	struct statfs fs;

	if (statfs(folder, &fs) < 0) {
		return error_sys(err, errno, "look at %s", folder);
	}
	info.file_system = fs.f_type == XFS_MAGIC           ? "xfs"
			   : fs.f_type == EXT4_SUPER_MAGIC  ? "ext4"
			   : fs.f_type == BTRFS_SUPER_MAGIC ? "btrfs"
			   : fs.f_type == TMPFS_MAGIC       ? "tmpfs"
							    : "other";
	info.shares_blocks = can_share(folder);
	info.total = (uint64_t)fs.f_blocks * (uint64_t)fs.f_bsize;
	info.free = info.host_free = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
	look_at_file(store, &info);
	*ret_info = info;
	return 0;
}

uint64_t volume_writable(const struct volume_info *info)
{
	return info->mounted ? free_in_sparse(info->free, info->file_bytes, info->file_stored,
				       info->host_free)
			     : info->free;
}

int volume_explain(const char *store, struct error *err)
{
	struct error ignored = ERROR_INIT;
	struct volume_info info;

	if ((err->sys != EIO && err->sys != ENOSPC && err->sys != EUCLEAN) ||
		volume_info(store, &info, &ignored) < 0 || !info.mounted ||
		info.host_free > HOST_FULL_BYTES || info.preallocated) {
		return -(int)err->kind;
	}
	return error_hint(err,
		"the disk that holds %s.xfs is full, so the store's file cannot grow: make room "
		"there; if the store answers only with errors then, stop hobd and run `hob store "
		"unmount` and `hob store mount`",
		store);
}
