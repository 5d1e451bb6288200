/*
 * Making and growing a store's own file system. All that takes long happens in <store>.xfs.new, in
 * a mount namespace that goes with its process; the renaming to <store>.xfs is the point from which
 * on every start mounts the new one, over the old folder if it was not even moved away yet.
 */
#include "base/fault.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/path.h"
#include "base/process.h"
#include "snapshots/volume/volume_private.h"

#include <fcntl.h>
#include <libgen.h>
#include <sched.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

int volume_run(char *const *argv, const char *package, struct error *err)
{
	static const char system_paths[] = ":/usr/sbin:/sbin";
	const char *path = getenv("PATH");
	CLEANUP(free_p) char *wider = xasprintf("%s%s", path != NULL ? path : "", system_paths);
	int code = 0, status;

	if (path == NULL || strstr(path, system_paths) == NULL) {
		(void)setenv("PATH", wider, 1);
	}
	if (!process_exists(argv[0])) {
		error_set(err, ERROR_UNSUPPORTED, "the program %s is not installed", argv[0]);
		return error_hint(err, "apt-get install %s", package);
	}
	status = process_run(argv, NULL, &code, err);
	if (status == 0 && code != 0) {
		status = error_set(err, ERROR_FAILED, "%s failed with exit code %d", argv[0], code);
	}
	return status;
}

static int fault(const char *point, struct error *err)
{
	int sys = fault_point(point);

	return sys == 0 ? 0 : error_sys(err, sys, "at %s", point);
}

/* ---- may it be made? ---- */

static int is_empty(const char *path, bool *ret_empty, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(AT_FDCWD, path, err);
	struct dirent *entry;

	*ret_empty = true;
	if (dir == NULL) {
		if (err->kind != ERROR_NOT_FOUND) {
			return -(int)err->kind;
		}
		*err = ERROR_INIT;
		return 0;
	}
	while ((entry = readdir(dir)) != NULL) {
		*ret_empty =
			*ret_empty && (streq(entry->d_name, ".") || streq(entry->d_name, ".."));
	}
	return 0;
}

/* A process that has something below the store open, or stands there; this one apart. */
static bool process_uses(const char *pid, const char *store)
{
	CLEANUP(free_p) char *folder = xasprintf("/proc/%s/fd", pid);
	CLEANUP(closedir_p) DIR *dir = opendir(folder);
	struct dirent *entry;
	char target[4096];

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		ssize_t length = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (length > 0) {
			target[length] = '\0';
			if (target[0] == '/' && path_is_below(target, store)) {
				return true;
			}
		}
	}
	return false;
}

static int check_unused(const char *store, struct error *err)
{
	static const char *const rooms[] = {"sandboxes", "staging"};
	CLEANUP(closedir_p) DIR *proc = io_opendir(AT_FDCWD, "/proc", err);
	struct dirent *entry;

	if (proc == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(proc)) != NULL) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9' ||
			strtol(entry->d_name, NULL, 10) == (long)getpid()) {
			continue;
		}
		if (process_uses(entry->d_name, store)) {
			error_set(err, ERROR_BUSY, "process %s uses the store %s", entry->d_name,
				store);
			return error_hint(err, "end hobd with its sandboxes (SIGINT) and wait for "
					       "builds");
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
		CLEANUP(free_p) char *room = xasprintf("%s/%s", store, rooms[i]);
		bool empty;
		int status = is_empty(room, &empty, err);

		if (status < 0 || !empty) {
			return status < 0 ? status
					  : error_set(err, ERROR_CONFLICT,
						    "%s is not empty: end hobd with its sandboxes "
						    "(SIGINT), then `hob snapshots recover`",
						    room);
		}
	}
	return 0;
}

static int check_order(const struct volume_order *order, bool *ret_empty, struct error *err)
{
	CLEANUP(free_p) char *file = xasprintf(VOLUME_FILE, order->store);
	CLEANUP(free_p) char *old = xasprintf(VOLUME_OLD_FOLDER, order->store);
	struct volume_info info;
	struct stat found;
	int status = volume_need_root(err);

	if (status < 0 || (status = volume_info(order->store, &info, err)) < 0) {
		return status;
	}
	if (lstat(file, &found) == 0) {
		error_set(err, ERROR_EXISTS, "%s is there already", file);
		return error_hint(
			err, "`hob store info` shows it, `hob store grow` makes it larger");
	}
	if (order->bytes < VOLUME_BYTES_MIN) {
		return error_set(err, ERROR_INVALID, "an XFS needs 512MiB at least");
	}
	if (info.shares_blocks && !order->replace) {
		error_set(err, ERROR_CONFLICT,
			"%s is on %s, which shares blocks: nothing would be gained", order->store,
			info.file_system);
		return error_hint(err, "--force makes one all the same");
	}
	if (order->preallocate && info.host_free < (uint64_t)order->bytes) {
		return error_set(err, ERROR_NO_SPACE,
			"%llu MiB are free, too few for all of it at once",
			(unsigned long long)(info.host_free >> 20));
	}
	if ((status = is_empty(order->store, ret_empty, err)) < 0) {
		return status;
	}
	if (!*ret_empty && !order->copy) {
		error_set(err, ERROR_CONFLICT,
			"there is a store in %s, and nothing is moved unasked", order->store);
		return error_hint(
			err, "end hobd, then add --copy: it is copied, and kept as %s", old);
	}
	if (!*ret_empty && lstat(old, &found) == 0) {
		return error_set(
			err, ERROR_EXISTS, "%s, where the old one would go, is there already", old);
	}
	return *ret_empty ? 0 : check_unused(order->store, err);
}

/* ---- the file ---- */

/* Empty, locked; a killed maker's is taken over. */
static int file_new(const char *path, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, err);

	if (fd < 0) {
		return fd;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		return error_set(err, ERROR_BUSY, "another process makes %s", path);
	}
	if (ftruncate(fd, 0) < 0 || fchmod(fd, 0600) < 0) {
		return error_sys(err, errno, "empty %s", path);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int file_fill(const struct volume_order *order, const char *path, int fd, struct error *err)
{
	/* -K: the blocks of a preallocated file are not to be given back. Sectors of 4096: direct
	 * access to a disk that has such sectors needs them, any other can do with them. */
	char *argv[] = {(char *)(uintptr_t) "mkfs.xfs", (char *)(uintptr_t) "-q",
		(char *)(uintptr_t) "-K", (char *)(uintptr_t) "-s", (char *)(uintptr_t) "size=4096",
		(char *)(uintptr_t) "-m", (char *)(uintptr_t) "reflink=1", (char *)(uintptr_t)path,
		NULL};
	int sys = 0;

	if (ftruncate(fd, order->bytes) < 0) {
		return error_sys(err, errno, "make %s", path);
	}
	if (order->preallocate) {
		sys = posix_fallocate(fd, 0, order->bytes);
		if (sys == 0 && fsetxattr(fd, VOLUME_PREALLOCATED_XATTR, "1", 1, 0) < 0) {
			sys = errno;
		}
	}
	return sys != 0 ? error_sys(err, sys, "preallocate %s", path)
			: volume_run(argv, "xfsprogs", err);
}

/* ---- the copy ---- */

static int compare(const char *from, const char *to, struct error *err)
{
	CLEANUP(close_p) int from_fd = io_open(AT_FDCWD, from, O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(close_p) int to_fd = -1;
	struct tree_usage old, new;

	if (from_fd < 0 || (to_fd = io_open(AT_FDCWD, to, O_RDONLY | O_DIRECTORY, 0, err)) < 0 ||
		io_tree_usage(from_fd, ".", &old, err) < 0 ||
		io_tree_usage(to_fd, ".", &new, err) < 0) {
		return -(int)err->kind;
	}
	if (old.files != new.files || old.bytes != new.bytes) {
		return error_set(err, ERROR_CORRUPT,
			"the copy has %llu entries of %llu bytes, the store %llu of %llu: did "
			"something write to it?",
			(unsigned long long)new.files, (unsigned long long)new.bytes,
			(unsigned long long)old.files, (unsigned long long)old.bytes);
	}
	return syncfs(to_fd) < 0 ? error_sys(err, errno, "sync the copy") : 0;
}

static int copy_in_namespace(const char *store, const char *at, int file_fd, struct error *err)
{
	CLEANUP(free_p) char *from = xasprintf("%s/.", store);
	char *argv[] = {(char *)(uintptr_t) "cp", (char *)(uintptr_t) "-a",
		(char *)(uintptr_t) "--", from, (char *)(uintptr_t)at, NULL};
	int status;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		return error_sys(err, errno, "make a mount namespace");
	}
	if ((status = volume_attach(at, file_fd, err)) < 0 ||
		(status = volume_run(argv, "coreutils", err)) < 0 ||
		(status = fault("volume.copied", err)) < 0 ||
		(status = compare(store, at, err)) < 0) {
		return status;
	}
	return umount2(at, 0) < 0 ? error_sys(err, errno, "unmount the copy") : 0;
}

/* In a child, because a namespace cannot be left again. */
static int copy(const char *store, const char *at, int file_fd, struct error *err)
{
	struct error answer = ERROR_INIT;
	int ends[2], ignored;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0) {
		return error_sys(err, errno, "pipe");
	}
	pid = fork();
	if (pid == 0) {
		(void)copy_in_namespace(store, at, file_fd, &answer);
		(void)!write(ends[1], &answer, sizeof(answer));
		_exit(0);
	}
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return error_sys(err, errno, "fork");
	}
	if (read(ends[0], &answer, sizeof(answer)) != (ssize_t)sizeof(answer)) {
		error_set(&answer, ERROR_FAILED, "the process that copied was killed");
	}
	close(ends[0]);
	while (waitpid(pid, &ignored, 0) < 0 && errno == EINTR) {
	}
	error_copy(err, &answer);
	return answer.kind == ERROR_NONE ? 0 : -(int)answer.kind;
}

static int copy_store(const char *store, int file_fd, struct error *err)
{
	CLEANUP(free_p) char *at = xasprintf("%s.new", store);
	int status;

	if (mkdir(at, 0700) < 0 && errno != EEXIST) {
		return error_sys(err, errno, "make %s", at);
	}
	status = copy(store, at, file_fd, err);
	(void)rmdir(at);
	return status < 0 ? error_wrap(err, "copy %s", store) : 0;
}

/* ---- in place ---- */

static int make_like(const char *store, const char *old, struct error *err)
{
	struct stat was;

	if (mkdir(store, 0711) < 0 && errno != EEXIST) {
		return error_sys(err, errno, "make %s", store);
	}
	if (stat(old, &was) == 0 && (chown(store, was.st_uid, was.st_gid) < 0 ||
					    chmod(store, was.st_mode & 07777) < 0)) {
		return error_sys(err, errno, "give %s its owner", store);
	}
	return 0;
}

static int put_in_place(const struct volume_order *order, const char *new_path, int fd, bool empty,
	struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf(VOLUME_FILE, order->store);
	CLEANUP(free_p) char *old = xasprintf(VOLUME_OLD_FOLDER, order->store);
	CLEANUP(free_p) char *parent = xstrdup(order->store);
	int status;

	if (fsync(fd) < 0) {
		return error_sys(err, errno, "sync %s", new_path);
	}
	if (renameat2(AT_FDCWD, new_path, AT_FDCWD, path, RENAME_NOREPLACE) < 0) {
		return error_sys(err, errno, "rename %s", new_path);
	}
	if ((status = io_fsync_dir(AT_FDCWD, dirname(parent), err)) < 0 ||
		(status = fault("volume.renamed", err)) < 0) {
		return status;
	}
	if (!empty && rename(order->store, old) < 0) {
		return error_sys(err, errno, "move %s away", order->store);
	}
	if ((status = fault("volume.moved", err)) < 0) {
		return status;
	}
	if ((status = empty ? io_mkdir_all(AT_FDCWD, order->store, 0711, err)
			    : make_like(order->store, old, err)) < 0) {
		return status;
	}
	return volume_attach(order->store, fd, err);
}

int volume_create(const struct volume_order *order, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf(VOLUME_NEW_FILE, order->store);
	CLEANUP(free_p) char *parent = xstrdup(order->store);
	CLEANUP(close_p) int fd = -1;
	bool empty = true;
	int status;

	if ((status = check_order(order, &empty, err)) < 0 ||
		(status = io_mkdir_all(AT_FDCWD, dirname(parent), 0755, err)) < 0 ||
		(status = file_new(path, &fd, err)) < 0) {
		return status;
	}
	status = file_fill(order, path, fd, err);
	/* From the lock on nobody new comes to the store; who was before it is seen now. */
	if (status == 0 && !empty && (status = check_unused(order->store, err)) == 0) {
		status = copy_store(order->store, fd, err);
	}
	if (status == 0) {
		status = fault("volume.filled", err);
	}
	if (status < 0) {
		(void)unlink(path);
		return status;
	}
	return put_in_place(order, path, fd, empty, err);
}

/* ---- growing ---- */

static int file_grow(int fd, int64_t bytes, struct error *err)
{
	struct stat file;
	int sys = 0;

	if (fstat(fd, &file) < 0) {
		return error_sys(err, errno, "stat the store's file");
	}
	if (bytes < file.st_size) {
		error_set(err, ERROR_INVALID, "an XFS cannot shrink, and this one has %lld MiB",
			(long long)(file.st_size >> 20));
		return error_hint(err, "give the size that it is to have in all");
	}
	if (fgetxattr(fd, VOLUME_PREALLOCATED_XATTR, NULL, 0) >= 0) {
		sys = posix_fallocate(fd, 0, bytes);
	} else if (ftruncate(fd, bytes) < 0) {
		sys = errno;
	}
	return sys == 0 ? 0 : error_sys(err, sys, "make the store's file larger");
}

int volume_grow(const char *store, int64_t bytes, struct error *err)
{
	CLEANUP(loop_device_done) struct loop_device device = LOOP_DEVICE_INIT;
	char *argv[] = {(char *)(uintptr_t) "xfs_growfs", (char *)(uintptr_t) "-d",
		(char *)(uintptr_t)store, NULL};
	CLEANUP(close_p) int fd = -1;
	int status = volume_need_root(err);

	if (status < 0 || (status = volume_mount(store, err)) < 0) {
		return status;
	}
	status = volume_open(store, &fd, err);
	if (status == -ERROR_NOT_FOUND) {
		error_set(err, ERROR_NOT_FOUND, "%s has no file system of its own", store);
		return error_hint(err, "`hob store create --xfs SIZE` makes one");
	}
	/* Killed after any of these steps, the same command goes on from there. */
	if (status < 0 || (status = file_grow(fd, bytes, err)) < 0 ||
		(status = fault("volume.grown", err)) < 0 ||
		(status = loop_device_find(fd, &device, err)) < 0 ||
		(status = loop_device_resize(&device, err)) < 0) {
		return status;
	}
	return volume_run(argv, "xfsprogs", err);
}
