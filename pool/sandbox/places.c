/*
 * Leaves the host's mount namespace for one that holds a tmpfs and, below it, clones of the store,
 * of the run folder and of /usr, an own /proc and the template of /dev: six mounts instead of the
 * host's hundreds. The clones are private, so that no mount of the host finds its way in.
 */
#include "pool/sandbox/places.h"

#include "base/buffer.h"
#include "base/io.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/sandbox/privileges.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#define RESOLV_MAX 65536

static int folder_make(const char *path, mode_t mode, uid_t uid, gid_t gid, struct error *err)
{
	if (mkdir(path, mode) < 0) {
		return errno == EEXIST ? 0 : error_sys(err, errno, "mkdir %s", path);
	}
	if (chown(path, uid, gid) < 0 || chmod(path, mode) < 0) {
		return error_sys(err, errno, "chown %s", path);
	}
	return 0;
}

int places_make(const struct config *config, struct error *err)
{
	static const char *const rooms[] = {"layers", "staging", "sandboxes"};
	CLEANUP(free_p) char *runs = xasprintf("%s/sandboxes", config->run);
	CLEANUP(free_p) char *slots = xasprintf("%s/slots", config->run);
	CLEANUP(free_p) char *spares = xasprintf("%s/spares", config->store);
	uid_t uid;
	gid_t gid;

	if (user_find(config, &uid, &gid, err) < 0 ||
		io_mkdir_all(AT_FDCWD, config->store, 0755, err) < 0 ||
		io_mkdir_all(AT_FDCWD, config->run, 0755, err) < 0) {
		return -(int)err->kind;
	}
	if (chown(config->store, uid, gid) < 0 || chmod(config->store, 0711) < 0 ||
		chown(config->run, uid, gid) < 0) {
		return error_sys(err, errno, "chown %s and %s", config->store, config->run);
	}
	for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
		CLEANUP(free_p) char *path = xasprintf("%s/%s", config->store, rooms[i]);

		if (folder_make(path, 0711, uid, gid, err) < 0) {
			return -(int)err->kind;
		}
		io_spread_below(AT_FDCWD, path);
	}
	if (folder_make(spares, 0700, 0, 0, err) < 0 ||
		folder_make(slots, 0700, uid, gid, err) < 0) {
		return -(int)err->kind;
	}
	io_spread_below(AT_FDCWD, spares);
	return folder_make(runs, 0711, uid, gid, err);
}

/* A detached copy that shares no mount events with its origin. */
static int clone_private(const char *path, unsigned attributes, struct error *err)
{
	CLEANUP(close_p) int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	struct mount_attr attr = {.attr_set = attributes, .propagation = MS_PRIVATE};

	if (fd < 0) {
		return error_sys(err, errno, "clone the mount of %s", path);
	}
	if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0) {
		return error_sys(err, errno, "make the clone of %s private", path);
	}
	return steal_fd(&fd);
}

/* A new file system of this type, detached. */
static int mount_fresh(const char *type, const char *mode, unsigned attributes, struct error *err)
{
	CLEANUP(close_p) int fs = fsopen(type, FSOPEN_CLOEXEC);
	int fd;

	if (fs < 0 || (mode != NULL && fsconfig(fs, FSCONFIG_SET_STRING, "mode", mode, 0) < 0) ||
		fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
		return error_sys(err, errno, "make a %s", type);
	}
	fd = fsmount(fs, FSMOUNT_CLOEXEC, attributes);
	return fd >= 0 ? fd : error_sys(err, errno, "mount a %s", type);
}

static int attach(int fd, const char *path, struct error *err)
{
	if (move_mount(fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0) {
		return error_sys(err, errno, "attach %s", path);
	}
	return 0;
}

/* All that a program expects in /dev; what a sandbox mounts for itself are empty folders here. */
static int devices_make(int dev_fd, struct error *err)
{
	static const struct {
		const char *name;
		unsigned minor, major;
	} nodes[] = {{"null", 3, 1}, {"zero", 5, 1}, {"full", 7, 1}, {"random", 8, 1},
		{"urandom", 9, 1}, {"tty", 0, 5}};
	static const char *const links[][2] = {{"ptmx", "pts/ptmx"}, {"fd", "/proc/self/fd"},
		{"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"}};

	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
		dev_t device = makedev(nodes[i].major, nodes[i].minor);

		if (mknodat(dev_fd, nodes[i].name, S_IFCHR | 0666, device) < 0 ||
			fchmodat(dev_fd, nodes[i].name, 0666, 0) < 0) {
			return error_sys(err, errno, "make the device %s", nodes[i].name);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		if (symlinkat(links[i][1], dev_fd, links[i][0]) < 0) {
			return error_sys(err, errno, "make the link %s", links[i][0]);
		}
	}
	if (mkdirat(dev_fd, "pts", 0755) < 0 || mkdirat(dev_fd, "shm", 0755) < 0) {
		return error_sys(err, errno, "make folders in the template of /dev");
	}
	return 0;
}

static int furnish(struct error *err)
{
	CLEANUP(close_p)
	int proc = mount_fresh(
		"proc", NULL, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, err);
	CLEANUP(close_p) int dev = -1;

	if (proc < 0 || attach(proc, "/proc", err) < 0) {
		return -(int)err->kind;
	}
	dev = mount_fresh("tmpfs", "0755", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);
	if (dev < 0 || devices_make(dev, err) < 0) {
		return -(int)err->kind;
	}
	return attach(dev, PLACE_DEV, err);
}

/* A tmpfs as the root, with the given detached mounts in it; the host's tree is let go. */
static int root_move(int store, int run, int usr, struct error *err)
{
	static const char *const folders[] = {"proc", "dev", "empty", "usr", "root", "own-proc",
		"own-dev", "scratch", "store", "run"};
	CLEANUP(close_p) int root = mount_fresh("tmpfs", "0755", MOUNT_ATTR_NODEV, err);

	if (root < 0) {
		return root;
	}
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		if (mkdirat(root, folders[i], 0755) < 0) {
			return error_sys(err, errno, "mkdir %s", folders[i]);
		}
	}
	/* Any folder will do to hang it up until it is the root. */
	if (attach(root, "/proc", err) < 0) {
		return -(int)err->kind;
	}
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
		umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) {
		return error_sys(err, errno, "make an empty root");
	}
	if (attach(store, "/store", err) < 0 || attach(run, "/run", err) < 0 ||
		(usr >= 0 && attach(usr, PLACE_USR, err) < 0)) {
		return -(int)err->kind;
	}
	return furnish(err);
}

static int places_open(struct places *places, bool usr, struct error *err)
{
	const struct {
		const char *path;
		int *fd;
	} wanted[] = {{"/store/layers", &places->layers_fd},
		{"/store/sandboxes", &places->sandboxes_fd},
		{"/store/staging", &places->staging_fd}, {"/store/spares", &places->spares_fd},
		{"/run/sandboxes", &places->run_fd}};

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		/* Their owner is not root, and might have put a link there. */
		*wanted[i].fd = io_open(
			AT_FDCWD, wanted[i].path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
		if (*wanted[i].fd < 0) {
			return *wanted[i].fd;
		}
	}
	places->null_fd = io_open(AT_FDCWD, PLACE_DEV "/null", O_RDWR, 0, err);
	if (places->null_fd >= 0 && usr) {
		places->usr_fd = io_open(AT_FDCWD, PLACE_USR, O_PATH | O_DIRECTORY, 0, err);
	}
	return places->null_fd < 0 || (usr && places->usr_fd < 0) ? -(int)err->kind : 0;
}

int places_enter(const struct config *config, struct places *ret_places, struct error *err)
{
	CLEANUP(close_p) int store = clone_private(config->store, 0, err);
	CLEANUP(close_p) int run = store < 0 ? -1 : clone_private(config->run, 0, err);
	struct error no_usr = ERROR_INIT;
	CLEANUP(close_p) int usr = clone_private("/usr", MOUNT_ATTR_RDONLY, &no_usr);

	if (store < 0 || run < 0) {
		return -(int)err->kind;
	}
	ret_places->host_mounts_fd = io_open(AT_FDCWD, "/proc/self/ns/mnt", O_RDONLY, 0, err);
	ret_places->host_root_fd =
		ret_places->host_mounts_fd < 0 ? -1 : io_open(AT_FDCWD, "/", O_PATH, 0, err);
	if (ret_places->host_root_fd < 0) {
		return -(int)err->kind;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		return error_sys(err, errno, "make a mount namespace");
	}
	if (root_move(store, run, usr, err) < 0) {
		return -(int)err->kind;
	}
	return places_open(ret_places, usr >= 0, err);
}

/* The host's may be a link, and may change with its network. */
static int resolv_read(const struct places *places, struct buffer *text, struct error *err)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
	CLEANUP(close_p)
	int fd = (int)syscall(
		SYS_openat2, places->host_root_fd, "etc/resolv.conf", &how, sizeof(how));
	char chunk[4096];
	ssize_t got;

	if (fd < 0) {
		return errno == ENOENT ? 0 : error_sys(err, errno, "open the host's resolv.conf");
	}
	while ((got = read(fd, chunk, sizeof(chunk))) > 0) {
		if (!buffer_add(text, chunk, (size_t)got)) {
			return error_set(err, ERROR_LIMIT, "the host's resolv.conf is too large");
		}
	}
	return got < 0 ? error_sys(err, errno, "read the host's resolv.conf") : 0;
}

int places_resolv(const struct places *places, struct error *err)
{
	CLEANUP(buffer_done) struct buffer now, before;
	struct error missing = ERROR_INIT;
	int fd, status;

	buffer_init(&now, RESOLV_MAX);
	buffer_init(&before, RESOLV_MAX);
	if (resolv_read(places, &now, err) < 0) {
		return -(int)err->kind;
	}
	if (io_read_file(AT_FDCWD, PLACE_RESOLV, &before, &missing) == 0 &&
		streq(buffer_text(&before), buffer_text(&now))) {
		return 0;
	}
	/* In place, so that running sandboxes see it too. */
	fd = io_open(AT_FDCWD, PLACE_RESOLV, O_WRONLY | O_CREAT | O_TRUNC, 0644, err);
	if (fd < 0) {
		return fd;
	}
	status = io_write_full(fd, buffer_text(&now), now.length, err);
	close(fd);
	return status;
}
