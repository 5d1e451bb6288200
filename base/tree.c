/*
 * Walks over file trees that untrusted code has written: by descriptor, links as links, and never
 * across a mount. The folders on the way down stay open, so removal moves what lies deeper than
 * DEPTH_KEEP up to the top and comes back to it: a tree of any depth goes with few descriptors.
 */
#include "base/io.h"

#include "base/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* Below the usual limit of 1,024 descriptors; real trees stay far below it. */
#define TREE_DEPTH_MAX 512
#define DEPTH_KEEP 64

struct level {
	DIR *dir;
	char *name;
};

struct walk {
	struct level *levels;
	size_t count, room;
	uint64_t mount; /* id of the mount that it may not leave */
	unsigned moved; /* folders moved to the top so far */
};

/* A bind mount of the same file system has the same device number, but never the same mount id. */
static int mount_id(int dir_fd, const char *name, uint64_t *ret_id, struct error *err)
{
	struct statx status;

	if (statx(dir_fd, name, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_MNT_ID,
		    &status) < 0) {
		return error_sys(err, errno, "stat %s", name);
	}
	*ret_id = status.stx_mnt_id;
	return 0;
}

static int walk_init(struct walk *walk, int dir_fd, struct error *err)
{
	*walk = (struct walk){0};
	return mount_id(dir_fd, dir_fd == AT_FDCWD ? "." : "", &walk->mount, err);
}

static void walk_done(struct walk *walk)
{
	for (size_t i = 0; i < walk->count; i++) {
		closedir(walk->levels[i].dir);
		free(walk->levels[i].name);
	}
	free(walk->levels);
}

static int walk_push(struct walk *walk, int dir_fd, const char *name, struct error *err)
{
	struct level *level;
	uint64_t mount;
	DIR *dir;

	if (walk->count >= TREE_DEPTH_MAX) {
		return error_set(
			err, ERROR_LIMIT, "%s: more than %d folders deep", name, TREE_DEPTH_MAX);
	}
	dir = io_opendir(dir_fd, name, err);
	if (dir == NULL && err->sys == EACCES && fchmodat(dir_fd, name, 0700, 0) == 0) {
		dir = io_opendir(dir_fd, name, err);
	}
	if (dir == NULL) {
		return -(int)err->kind;
	}
	if (mount_id(dirfd(dir), "", &mount, err) < 0 || mount != walk->mount) {
		closedir(dir);
		return error_set(err, ERROR_BUSY, "%s: something is mounted there", name);
	}
	level = array_add(&walk->levels, &walk->count, &walk->room);
	*level = (struct level){dir, xstrdup(name)};
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

/* Removes the folder that has become empty and goes up one level. The top one may hold what was
 * moved there since it was read. */
static int pop_and_remove(struct walk *walk, int dir_fd, struct error *err)
{
	struct level level = walk->levels[walk->count - 1];
	int parent = walk->count > 1 ? dirfd(walk->levels[walk->count - 2].dir) : dir_fd;
	int status = 0;

	if (walk->count == 1 && walk->moved > 0) {
		walk->moved = 0;
		rewinddir(level.dir);
		return 0;
	}
	walk->count--;
	if (unlinkat(parent, level.name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
		status = error_sys(err, errno, "remove folder %s", level.name);
	}
	closedir(level.dir);
	free(level.name);
	return status;
}

static int move_to_top(struct walk *walk, DIR *dir, const char *name, struct error *err)
{
	char moved[ID_SIZE];

	id_random(moved, "deep-");
	if (renameat(dirfd(dir), name, dirfd(walk->levels[0].dir), moved) < 0) {
		return error_sys(err, errno, "move %s to the top of its tree", name);
	}
	walk->moved++;
	return 0;
}

static int remove_entry(struct walk *walk, DIR *dir, const struct dirent *entry, struct error *err)
{
	if (entry->d_type != DT_DIR) {
		if (unlinkat(dirfd(dir), entry->d_name, 0) == 0 || errno == ENOENT) {
			return 0;
		}
		if (errno == EACCES && fchmod(dirfd(dir), 0700) == 0 &&
			unlinkat(dirfd(dir), entry->d_name, 0) == 0) {
			return 0;
		}
		if (errno != EISDIR) {
			return error_sys(err, errno, "remove %s", entry->d_name);
		}
	}
	if (walk->count >= DEPTH_KEEP) {
		return move_to_top(walk, dir, entry->d_name, err);
	}
	return walk_push(walk, dirfd(dir), entry->d_name, err);
}

int io_remove_tree(int dir_fd, const char *name, struct error *err)
{
	CLEANUP(walk_done) struct walk walk = {0};
	int status;

	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT) {
		return 0;
	}
	if (errno != EISDIR && errno != EPERM) {
		return error_sys(err, errno, "remove %s", name);
	}
	status = walk_init(&walk, dir_fd, err);
	if (status == 0) {
		status = walk_push(&walk, dir_fd, name, err);
	}
	while (status == 0 && walk.count > 0) {
		DIR *dir = walk.levels[walk.count - 1].dir;
		struct dirent *entry = next_entry(dir);

		status = entry != NULL ? remove_entry(&walk, dir, entry, err)
				       : pop_and_remove(&walk, dir_fd, err);
	}
	return status;
}

static int count_entry(
	struct walk *walk, DIR *dir, const char *name, struct tree_usage *usage, struct error *err)
{
	struct stat status;

	if (fstatat(dirfd(dir), name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
		return errno == ENOENT ? 0 : error_sys(err, errno, "stat %s", name);
	}
	usage->files++;
	/* A hard link counts its share, so that all links of a file add up to one. */
	usage->stored +=
		(uint64_t)status.st_blocks * 512 / (S_ISDIR(status.st_mode) ? 1 : status.st_nlink);
	if (S_ISREG(status.st_mode)) {
		usage->bytes += (uint64_t)status.st_size / status.st_nlink;
	}
	return S_ISDIR(status.st_mode) ? walk_push(walk, dirfd(dir), name, err) : 0;
}

int io_tree_usage(int dir_fd, const char *name, struct tree_usage *ret_usage, struct error *err)
{
	CLEANUP(walk_done) struct walk walk = {0};
	struct tree_usage usage = {.files = 1};
	int status = walk_init(&walk, dir_fd, err);

	if (status == 0) {
		status = walk_push(&walk, dir_fd, name, err);
	}
	while (status == 0 && walk.count > 0) {
		DIR *dir = walk.levels[walk.count - 1].dir;
		struct dirent *entry = next_entry(dir);

		if (entry != NULL) {
			status = count_entry(&walk, dir, entry->d_name, &usage, err);
		} else {
			struct level level = walk.levels[--walk.count];

			closedir(level.dir);
			free(level.name);
		}
	}
	if (status == 0) {
		*ret_usage = usage;
	}
	return status;
}
