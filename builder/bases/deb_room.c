/*
 * A root folder on a tmpfs in an own mount namespace, owned by the build's user namespace: with the
 * last process all of it is gone. /usr is a read-only copy of the machine's mounts; the tree
 * is reached through the working folder, as the range's root may not walk the store.
 */
#include "builder/bases/deb.h"

#include "base/io.h"
#include "base/memory.h"
#include "builder/base.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif

#define ROOM "/tmp" /* in the own namespace only, so what lies there is covered, not lost */
#define TEXT_BYTES_MAX (1024 * 1024)

static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};

static const char *const folders[] = {"target", "work", "old", "dev/pts", "dev/shm",
	"etc/apt/keyrings", "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d",
	"var/lib/dpkg", "var/cache/apt"};

/* Of the machine, for the network. */
static const char *const machine_files[] = {"etc/resolv.conf", "etc/hosts"};

/* A detached copy of what is mounted at a path, with all below it. */
static int clone_tree(const char *path, bool read_only, struct error *err)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
	int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
		OPEN_TREE_CLONE | O_CLOEXEC | (unsigned)AT_RECURSIVE);

	if (fd < 0) {
		return error_sys(err, errno, "open the mounts of %s", path);
	}
	if (read_only && syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr,
				 sizeof(attr)) < 0) {
		error_sys(err, errno, "make a copy of %s read-only", path);
		close(fd);
		return -(int)err->kind;
	}
	return fd;
}

static int place(int fd, const char *target, struct error *err)
{
	return syscall(SYS_move_mount, fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0
		       ? error_sys(err, errno, "mount %s", target)
		       : 0;
}

static int put_text(int root_fd, const char *path, const char *text, size_t length, mode_t mode,
	struct error *err)
{
	CLEANUP(close_p)
	int fd = io_open(root_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode, err);

	return fd < 0 ? fd : io_write_full(fd, text, length, err);
}

static int put_machine_files(int host_fd, int room_fd, struct error *err)
{
	int status = 0;

	for (size_t i = 0; status == 0 && i < ARRAY_SIZE(machine_files); i++) {
		CLEANUP(buffer_done) struct buffer text = {.max = TEXT_BYTES_MAX};
		struct error ignored = ERROR_INIT;

		if (io_read_file(host_fd, machine_files[i], &text, &ignored) == 0) {
			status = put_text(room_fd, machine_files[i], buffer_text(&text),
				text.length, 0644, err);
		}
	}
	return status;
}

static int put_scripts(int room_fd, const struct deb_room *room, struct error *err)
{
	int status = 0;

	for (size_t i = 0; status == 0 && i < room->script_count; i++) {
		const struct deb_script *script = &room->scripts[i];
		CLEANUP(free_p) char *path = xasprintf("%s/%s", &DEB_ROOM_WORK[1], script->name);

		status = put_text(room_fd, path, script->text, strlen(script->text), 0755, err);
	}
	return status;
}

/* What base: host shows of /etc, and what apt and the network need besides. */
static int fill(int host_fd, int room_fd, const struct deb_room *room, struct error *err)
{
	int status = skeleton_host_write(host_fd, room_fd, err);

	for (size_t i = 0; status == 0 && i < ARRAY_SIZE(folders); i++) {
		status = io_mkdir_all(room_fd, folders[i], 0755, err);
	}
	for (size_t i = 0; status == 0 && i < ARRAY_SIZE(devices); i++) {
		CLEANUP(free_p) char *path = xasprintf("dev/%s", devices[i]);

		status = put_text(room_fd, path, "", 0, 0644, err);
	}
	if (status == 0) {
		status = put_text(room_fd, "var/lib/dpkg/status", "", 0, 0644, err);
	}
	if (status == 0 && room->keyring != NULL) {
		status = put_text(room_fd, &DEB_ROOM_KEYRING[1], room->keyring,
			room->keyring_length, 0644, err);
	}
	if (status == 0 && (symlinkat("/proc/self/fd", room_fd, "dev/fd") < 0 ||
				   symlinkat("/dev/pts/ptmx", room_fd, "dev/ptmx") < 0)) {
		status = error_sys(err, errno, "make the links of /dev");
	}
	if (status == 0) {
		status = put_machine_files(host_fd, room_fd, err);
	}
	return status < 0 ? status : put_scripts(room_fd, room, err);
}

static int place_devices(struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
		CLEANUP(free_p) char *from = xasprintf("/dev/%s", devices[i]);
		CLEANUP(free_p) char *to = xasprintf(ROOM "/dev/%s", devices[i]);
		CLEANUP(close_p) int fd = clone_tree(from, false, err);

		if (fd == -ERROR_NOT_FOUND) {
			continue; /* a container may have few */
		}
		if (fd < 0 || place(fd, to, err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

/* The room itself, with all but its processes' /proc. */
static int furnish(const struct deb_room *room, int tree_fd, struct error *err)
{
	CLEANUP(close_p) int host = io_open(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(close_p) int usr = host < 0 ? -1 : clone_tree("/usr", true, err);
	CLEANUP(close_p) int root = -1;

	if (usr < 0) {
		return -(int)err->kind;
	}
	if (mount("hob-deb", ROOM, "tmpfs", MS_NOSUID, "mode=0755,size=256m") < 0) {
		return error_sys(err, errno, "mount a tmpfs");
	}
	root = io_open(AT_FDCWD, ROOM, O_RDONLY | O_DIRECTORY, 0, err);
	if (root < 0 || fill(host, root, room, err) < 0 || place(usr, ROOM "/usr", err) < 0 ||
		place(tree_fd, ROOM DEB_ROOM_TREE, err) < 0 || place_devices(err) < 0) {
		return -(int)err->kind;
	}
	return 0;
}

/* As mounts with all rights of this machine's are locked in an own namespace, /proc of the new
 * process namespace may be refused: then it is the machine's. mmdebstrap does the same inside. */
static int turn(struct error *err)
{
	CLEANUP(close_p) int proc = clone_tree("/proc", false, err);

	if (proc < 0 || place(proc, ROOM "/proc", err) < 0) {
		return -(int)err->kind;
	}
	if (syscall(SYS_pivot_root, ROOM, ROOM "/old") < 0 || chdir("/") < 0 ||
		umount2("/old", MNT_DETACH) < 0) {
		return error_sys(err, errno, "turn to the new root folder");
	}
	return 0;
}

int deb_room_enter(const struct deb_room *room, struct error *err)
{
	mode_t mask = umask(0);
	CLEANUP(close_p) int tree = -1;
	int status;

	/* The working folder goes along into the new namespace, a descriptor would not. */
	if (fchdir(room->tree_fd) < 0 ||
		unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS) < 0 ||
		mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		return error_sys(err, errno, "make own namespaces");
	}
	tree = clone_tree(".", false, err);
	status = tree < 0 ? tree : furnish(room, tree, err);
	umask(mask);
	return status < 0 ? status : turn(err);
}
