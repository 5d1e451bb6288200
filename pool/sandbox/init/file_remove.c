/*
 * Removes a folder and what it holds, a bounded piece at a time, links as links and never across a
 * mount. The first levels stay open; in what is deeper only the lowest is open, and the way up is
 * "..", whose identity is checked: a folder that was moved meanwhile ends the removal, so that it
 * never works outside of what it came down through.
 */
#include "pool/sandbox/init/init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 128 /* entries in one call */
#define OPEN_MAX_LEVELS 16
#define LEVELS_MAX 4096
#define PASSES_MAX 3 /* over a folder that others keep filling */

struct level {
	int fd; /* -1: deep, closed while a lower one is worked on */
	dev_t device;
	ino_t inode;
	int passes;
	char *name; /* in the level above */
};

struct removal {
	struct level *levels; /* [0] is the folder that holds the name to be removed */
	size_t count, room;
	uint64_t removed;
};

static void level_pop(struct removal *removal)
{
	struct level *level = &removal->levels[--removal->count];

	fd_close(&level->fd);
	free(level->name);
}

/* Takes the descriptor. */
static int level_push(struct removal *removal, int fd, const char *name)
{
	struct stat st;
	char *copy = strdup(name);

	if (removal->count == removal->room && removal->count < LEVELS_MAX) {
		size_t room = removal->room > 0 ? 2 * removal->room : 8;
		struct level *grown = realloc(removal->levels, room * sizeof(*grown));

		if (grown != NULL) {
			removal->levels = grown;
			removal->room = room;
		}
	}
	if (copy == NULL || removal->count == removal->room || fstat(fd, &st) < 0) {
		bool deep = removal->count >= LEVELS_MAX;

		free(copy);
		close(fd);
		return deep ? -ELOOP : -ENOMEM;
	}
	if (removal->count > OPEN_MAX_LEVELS) {
		fd_close(&removal->levels[removal->count - 1].fd);
	}
	removal->levels[removal->count++] =
		(struct level){.fd = fd, .device = st.st_dev, .inode = st.st_ino, .name = copy};
	return 0;
}

static int folder_enter(struct removal *removal, const char *name)
{
	int fd = path_open(removal->levels[removal->count - 1].fd, name,
		O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK, RESOLVE_NO_XDEV);

	return fd < 0 ? fd : level_push(removal, fd, name);
}

struct removal *removal_new(int dir_fd, const char *name)
{
	struct removal *removal = calloc(1, sizeof(*removal));
	int fd = removal != NULL ? path_open(dir_fd, ".", O_RDONLY | O_DIRECTORY, 0) : -ENOMEM;
	int result = fd < 0 ? fd : level_push(removal, fd, "");

	if (result == 0) {
		result = folder_enter(removal, name);
	}
	if (result < 0) {
		removal_free(removal);
		errno = -result;
		return NULL;
	}
	return removal;
}

void removal_free(struct removal *removal)
{
	if (removal == NULL) {
		return;
	}
	while (removal->count > 0) {
		level_pop(removal);
	}
	free(removal->levels);
	free(removal);
}

uint64_t removal_count(const struct removal *removal)
{
	return removal->removed;
}

/* Opens the level above the lowest again, through the lowest. */
static int reopen_parent(struct removal *removal)
{
	struct level *parent = &removal->levels[removal->count - 2];
	struct stat st;
	int fd;

	if (parent->fd >= 0) {
		return 0;
	}
	fd = path_open(removal->levels[removal->count - 1].fd, "..", O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0) {
		return fd;
	}
	if (fstat(fd, &st) < 0 || st.st_dev != parent->device || st.st_ino != parent->inode) {
		close(fd);
		return -ESTALE;
	}
	parent->fd = fd;
	return 0;
}

/* The lowest level has been read to its end: removes it. 1: that was the last. */
static int folder_leave(struct removal *removal)
{
	struct level *level = &removal->levels[removal->count - 1];
	int result = reopen_parent(removal);

	if (result < 0) {
		return result;
	}
	if (unlinkat(removal->levels[removal->count - 2].fd, level->name, AT_REMOVEDIR) < 0 &&
		errno != ENOENT) {
		if ((errno == ENOTEMPTY || errno == EEXIST) && ++level->passes < PASSES_MAX) {
			return lseek(level->fd, 0, SEEK_SET) < 0 ? -errno : 0;
		}
		return -errno;
	}
	removal->removed++;
	level_pop(removal);
	return removal->count == 1 ? 1 : 0;
}

/* 1: went down, so the rest of the batch is for later; 0: removed, or gone already. */
static int entry_remove(struct removal *removal, const struct dirent *entry)
{
	const struct level *level = &removal->levels[removal->count - 1];
	int result;

	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
		return 0;
	}
	if (entry->d_type != DT_DIR) {
		if (unlinkat(level->fd, entry->d_name, 0) == 0) {
			removal->removed++;
			return 0;
		}
		if (errno == ENOENT) {
			return 0;
		}
		if (errno != EISDIR && errno != EPERM) {
			return -errno;
		}
	}
	/* Comes back to the entry after this one. */
	if (lseek(level->fd, entry->d_off, SEEK_SET) < 0) {
		return -errno;
	}
	result = folder_enter(removal, entry->d_name);
	return result == -ENOENT ? 0 : result < 0 ? result : 1;
}

int removal_run(struct removal *removal)
{
	for (int done = 0; done < PIECE;) {
		int got = folder_read(removal->levels[removal->count - 1].fd);
		int result = 0;

		if (got < 0) {
			return -errno;
		}
		if (got == 0) {
			result = folder_leave(removal);
			done++;
		}
		for (int at = 0; result == 0 && at < got; done++) {
			const struct dirent *entry = (const void *)(scratch + at);

			at += entry->d_reclen;
			result = entry_remove(removal, entry);
			if (result == 1) {
				result = 0;
				break;
			}
		}
		if (result != 0) {
			return result;
		}
	}
	return 0;
}
