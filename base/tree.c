/*
 * Walks over file trees that untrusted code has written: by descriptor, links as links, and never
 * across a mount. A tree of any depth is walked with few descriptors: of the folders on the way
 * down only the last OPEN_LEVELS_MAX are open. A closed one is opened again through "..", and must
 * then be the very folder that it was, on the same mount; so no rename on the way leads a walk
 * astray.
 */
#include "base/io.h"

#include "base/inode_map.h"
#include "base/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Real trees are less deep; the rest of the 1,024 descriptors that a process has stays free. */
#define OPEN_LEVELS_MAX 64
/* 48 bytes of memory each; as folders they have cost their maker 16 GB. */
#define LEVELS_MAX (1U << 22)
/* How often an emptied folder is read again because something is in it after all: a file system may
 * pass over entries while others are deleted, but a folder that keeps filling has a living writer.
 */
#define READS_MAX 8

struct level {
	DIR *dir; /* NULL: closed for now */
	char *name; /* in its parent; NULL while that is closed */
	long position; /* of a closed one, to go on from */
	dev_t device;
	ino_t inode;
	unsigned reads;
};

struct walk {
	struct level *levels;
	size_t count, room;
	size_t first_open; /* levels before it are closed */
	uint64_t mount; /* id of the mount that it may not leave */
	bool removing;
	struct inode_map seen; /* files with several names, when adding up */
};

/* A bind mount of the same file system has the same device number, but never the same mount id. */
static int identify(int fd, const char *name, uint64_t *ret_mount, dev_t *ret_device,
	ino_t *ret_inode, struct error *err)
{
	struct statx status;

	if (statx(fd, name, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT,
		    STATX_INO | STATX_MNT_ID, &status) < 0) {
		return error_sys(err, errno, "stat %s", name);
	}
	*ret_mount = status.stx_mnt_id;
	*ret_device = makedev(status.stx_dev_major, status.stx_dev_minor);
	*ret_inode = status.stx_ino;
	return 0;
}

/* The mount of the folder that `name` is in. */
static int parent_mount(int dir_fd, const char *name, uint64_t *ret_mount, struct error *err)
{
	CLEANUP(free_p) char *parent = xstrdup(name);
	char *slash = strrchr(parent, '/');
	dev_t device;
	ino_t inode;

	if (slash == NULL) {
		return identify(
			dir_fd, dir_fd == AT_FDCWD ? "." : "", ret_mount, &device, &inode, err);
	}
	slash[slash == parent ? 1 : 0] = '\0';
	return identify(dir_fd, parent, ret_mount, &device, &inode, err);
}

static void level_done(struct level *level)
{
	if (level->dir != NULL) {
		closedir(level->dir);
	}
	free(level->name);
}

static void walk_done(struct walk *walk)
{
	for (size_t i = 0; i < walk->count; i++) {
		level_done(&walk->levels[i]);
	}
	free(walk->levels);
	inode_map_done(&walk->seen, NULL);
}

static struct level *walk_top(const struct walk *walk)
{
	return &walk->levels[walk->count - 1];
}

/* Opens a folder that forbids it, after giving its owner the permission; through a descriptor, so
 * that it can be no other than the one that is opened. */
static int open_forbidden(int dir_fd, const char *name)
{
	CLEANUP(close_p)
	int fd = openat(dir_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char path[32];

	if (fd < 0) {
		return -1;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return chmod(path, 0700) < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static DIR *open_level(const struct walk *walk, int dir_fd, const char *name, struct error *err)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir;

	if (fd < 0 && errno == EACCES && walk->removing) {
		fd = open_forbidden(dir_fd, name);
	}
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		error_sys(err, errno, "open folder %s", name);
		close_p(&fd);
	}
	return dir;
}

/* Closes the highest open folder when there are too many. What lies below it loses its name: it is
 * found again by reading on. */
static void make_room(struct walk *walk)
{
	struct level *level = &walk->levels[walk->first_open];

	if (walk->count - walk->first_open < OPEN_LEVELS_MAX) {
		return;
	}
	level->position = telldir(level->dir);
	closedir(level->dir);
	level->dir = NULL;
	free(level[1].name);
	level[1].name = NULL;
	walk->first_open++;
}

static int walk_push(struct walk *walk, int dir_fd, const char *name, struct error *err)
{
	struct level level = {0};
	uint64_t mount = 0;

	if (walk->count >= LEVELS_MAX) {
		return error_set(err, ERROR_LIMIT, "more than %u folders deep", LEVELS_MAX);
	}
	level.dir = open_level(walk, dir_fd, name, err);
	if (level.dir == NULL) {
		return -(int)err->kind;
	}
	if (identify(dirfd(level.dir), "", &mount, &level.device, &level.inode, err) < 0) {
		closedir(level.dir);
		return -(int)err->kind;
	}
	if (mount != walk->mount) {
		closedir(level.dir);
		return error_set(err, ERROR_BUSY, "%s: something is mounted there", name);
	}
	/* One that may be listed but not entered is as good as closed: not even its ".." opens. */
	if (!walk->removing && faccessat(dirfd(level.dir), "..", F_OK, 0) < 0) {
		error_sys(err, errno, "look into folder %s", name);
		closedir(level.dir);
		return -(int)err->kind;
	}
	level.name = walk->removing ? xstrdup(name) : NULL;
	*array_add(&walk->levels, &walk->count, &walk->room) = level;
	make_room(walk);
	return 0;
}

/* Opens the closed folder above the lowest one again. */
static int reopen_parent(struct walk *walk, struct error *err)
{
	struct level *parent = &walk->levels[walk->count - 2];
	int below = dirfd(walk_top(walk)->dir);
	uint64_t mount = 0;
	dev_t device = 0;
	ino_t inode = 0;
	DIR *dir = NULL;

	if (walk->removing && faccessat(below, "..", F_OK, 0) < 0 && errno == EACCES) {
		(void)!fchmod(below, 0700); /* opening says what is wrong if this does not help */
	}
	dir = open_level(walk, below, "..", err);
	if (dir == NULL) {
		return -(int)err->kind;
	}
	if (identify(dirfd(dir), "", &mount, &device, &inode, err) < 0 || mount != walk->mount ||
		device != parent->device || inode != parent->inode) {
		closedir(dir);
		return error_set(err, ERROR_BUSY, "the tree is being moved while it is walked");
	}
	/* What has been read before is gone when removing, and counted already when not. */
	if (!walk->removing) {
		seekdir(dir, parent->position);
	}
	parent->dir = dir;
	walk->first_open--;
	return 0;
}

/* Leaves the lowest folder for the one above. */
static int walk_pop(struct walk *walk, struct error *err)
{
	struct level level;

	if (walk->count > 1 && walk->levels[walk->count - 2].dir == NULL &&
		reopen_parent(walk, err) < 0) {
		return -(int)err->kind;
	}
	level = walk->levels[--walk->count];
	level_done(&level);
	return 0;
}

static struct dirent *next_entry(DIR *dir)
{
	struct dirent *entry;

	do {
		entry = readdir(dir);
	} while (entry != NULL && (streq(entry->d_name, ".") || streq(entry->d_name, "..")));
	return entry;
}

/* unlinkat, once more after giving the folder the permission when that was missing. */
static int unlink_entry(int dir_fd, const char *name, int flags)
{
	if (unlinkat(dir_fd, name, flags) == 0 || errno == ENOENT) {
		return 0;
	}
	if (errno != EACCES || fchmod(dir_fd, 0700) < 0) {
		return -1;
	}
	return unlinkat(dir_fd, name, flags) == 0 || errno == ENOENT ? 0 : -1;
}

static int unlink_failed(const char *name, struct error *err)
{
	if (errno == EBUSY) {
		return error_set(err, ERROR_BUSY, "%s: something is mounted there", name);
	}
	return error_sys(err, errno, "remove %s", name);
}

static int remove_entry(struct walk *walk, DIR *dir, const struct dirent *entry, struct error *err)
{
	int fd = dirfd(dir), status;

	if (entry->d_type != DT_DIR) {
		if (unlink_entry(fd, entry->d_name, 0) == 0) {
			return 0;
		}
		if (errno != EISDIR) {
			return unlink_failed(entry->d_name, err);
		}
	}
	if (unlink_entry(fd, entry->d_name, AT_REMOVEDIR) == 0) {
		return 0;
	}
	if (errno != ENOTEMPTY && errno != EEXIST) {
		return unlink_failed(entry->d_name, err);
	}
	status = walk_push(walk, fd, entry->d_name, err);
	return status == -ERROR_NOT_FOUND ? 0 : status; /* somebody else deletes it too */
}

/* Removes the folder that has become empty and goes up one level. */
static int remove_emptied(struct walk *walk, int dir_fd, struct error *err)
{
	struct level *level = walk_top(walk);
	const struct level *parent = walk->count > 1 ? level - 1 : NULL;

	/* Below a closed folder nothing is removed: reading that one again meets this one, empty.
	 */
	if (level->name == NULL) {
		return walk_pop(walk, err);
	}
	if (unlink_entry(parent != NULL ? dirfd(parent->dir) : dir_fd, level->name, AT_REMOVEDIR) ==
		0) {
		return walk_pop(walk, err);
	}
	if (errno != ENOTEMPTY && errno != EEXIST) {
		return unlink_failed(level->name, err);
	}
	if (++level->reads >= READS_MAX) {
		return error_set(err, ERROR_BUSY, "%s: something still writes to it", level->name);
	}
	rewinddir(level->dir);
	return 0;
}

int io_remove_tree(int dir_fd, const char *name, struct error *err)
{
	CLEANUP(walk_done) struct walk walk = {.removing = true};
	int status;

	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT) {
		return 0;
	}
	if (errno != EISDIR && errno != EPERM) {
		return unlink_failed(name, err);
	}
	status = parent_mount(dir_fd, name, &walk.mount, err);
	if (status == 0) {
		status = walk_push(&walk, dir_fd, name, err);
	}
	while (status == 0 && walk.count > 0) {
		DIR *dir = walk_top(&walk)->dir;
		struct dirent *entry = next_entry(dir);

		status = entry != NULL ? remove_entry(&walk, dir, entry, err)
				       : remove_emptied(&walk, dir_fd, err);
	}
	return status;
}

static bool is_first_name(struct walk *walk, const struct stat *found)
{
	void **seen = inode_map_at(&walk->seen, found->st_dev, found->st_ino);
	bool first = *seen == NULL;

	*seen = walk; /* anything */
	return first;
}

static int count_entry(
	struct walk *walk, DIR *dir, const char *name, struct tree_usage *usage, struct error *err)
{
	struct stat found;
	int status;

	if (fstatat(dirfd(dir), name, &found, AT_SYMLINK_NOFOLLOW) < 0) {
		return errno == ENOENT ? 0 : error_sys(err, errno, "stat %s", name);
	}
	usage->files++;
	/* Of a file with several names the first counts, wherever the others are. */
	if (S_ISDIR(found.st_mode) || found.st_nlink < 2 || is_first_name(walk, &found)) {
		usage->stored += (uint64_t)found.st_blocks * 512;
		usage->bytes += S_ISREG(found.st_mode) ? (uint64_t)found.st_size : 0;
	}
	if (!S_ISDIR(found.st_mode)) {
		return 0;
	}
	status = walk_push(walk, dirfd(dir), name, err);
	if (status == -ERROR_DENIED) {
		usage->unread++;
		return 0;
	}
	return status == -ERROR_NOT_FOUND ? 0 : status;
}

int io_tree_usage(int dir_fd, const char *name, struct tree_usage *ret_usage, struct error *err)
{
	CLEANUP(walk_done) struct walk walk = {0};
	struct tree_usage usage = {.files = 1};
	int status = parent_mount(dir_fd, name, &walk.mount, err);

	if (status == 0) {
		status = walk_push(&walk, dir_fd, name, err);
	}
	while (status == 0 && walk.count > 0) {
		DIR *dir = walk_top(&walk)->dir;
		struct dirent *entry = next_entry(dir);

		status = entry != NULL ? count_entry(&walk, dir, entry->d_name, &usage, err)
				       : walk_pop(&walk, err);
	}
	if (status == 0) {
		*ret_usage = usage;
	}
	return status;
}
