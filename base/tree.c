/* Walks over file trees that untrusted code has written: by descriptor, links as links, and never
 * across a mount. Depth is bounded by memory only: folders are kept on an explicit stack. */
#include "base/io.h"

#include "base/memory.h"

#include <fcntl.h>
#include <sys/stat.h>

/* Open folders on the way down; a deeper tree is refused rather than risked (PATH_MAX / 2 levels
 * are all that a path can name, and a process that builds deeper ones is up to something). */
#define TREE_DEPTH_MAX 2048

struct level {
	DIR *dir;
	char *name;
};

struct walk {
	struct level *levels;
	size_t count, room;
	dev_t device;
};

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
	struct stat status;
	DIR *dir;

	if (walk->count >= TREE_DEPTH_MAX) {
		return error_set(err, ERROR_LIMIT, "%s: more than %d folders deep", name, TREE_DEPTH_MAX);
	}
	dir = io_opendir(dir_fd, name, err);
	if (dir == NULL && err->sys == EACCES && fchmodat(dir_fd, name, 0700, 0) == 0) {
		dir = io_opendir(dir_fd, name, err);
	}
	if (dir == NULL) {
		return -(int)err->kind;
	}
	if (fstat(dirfd(dir), &status) < 0 || (walk->count > 0 && status.st_dev != walk->device)) {
		closedir(dir);
		return error_set(err, ERROR_BUSY, "%s: something is mounted there", name);
	}
	walk->device = status.st_dev;
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

/* Removes the folder that has become empty and goes up one level. */
static int pop_and_remove(struct walk *walk, int dir_fd, struct error *err)
{
	struct level level = walk->levels[--walk->count];
	int parent = walk->count > 0 ? dirfd(walk->levels[walk->count - 1].dir) : dir_fd;
	int status = 0;

	if (unlinkat(parent, level.name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
		status = error_sys(err, errno, "remove folder %s", level.name);
	}
	closedir(level.dir);
	free(level.name);
	return status;
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
	status = walk_push(&walk, dir_fd, name, err);
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
	usage->stored += (uint64_t)status.st_blocks * 512 / (S_ISDIR(status.st_mode) ? 1 : status.st_nlink);
	if (S_ISREG(status.st_mode)) {
		usage->bytes += (uint64_t)status.st_size / status.st_nlink;
	}
	return S_ISDIR(status.st_mode) ? walk_push(walk, dirfd(dir), name, err) : 0;
}

int io_tree_usage(int dir_fd, const char *name, struct tree_usage *ret_usage, struct error *err)
{
	CLEANUP(walk_done) struct walk walk = {0};
	struct tree_usage usage = {.files = 1};
	int status = walk_push(&walk, dir_fd, name, err);

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
