/*
 * The files of a workspace. A path is touched only if it is exactly what the old commit says (kind,
 * executable or not, content), or if there is nothing and the old commit says so too. What is at
 * its new state already, of a sync that was cut off, is left as it is.
 */
#include "pool/sandbox/init/apply.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
#define GITLINK 0160000u
#define DEPTH_MAX 128 /* of a folder that gives way to a file */

static const char *last_name(const struct apply_change *change)
{
	const char *slash = strrchr(change->path, '/');

	return slash != NULL ? slash + 1 : change->path;
}

/* Changes come sorted: the folder of the last one is kept open, until folders are removed. */
static char last[APPLY_PATH_MAX + 1];
static int last_fd = -1;

/* The folder that holds the path, or a negative errno. */
static int parent_open(struct apply *apply, const struct apply_change *change)
{
	char folder[APPLY_PATH_MAX + 1];
	size_t length = (size_t)(last_name(change) - change->path);

	memcpy(folder, change->path, length);
	folder[length > 0 ? length - 1 : 0] = '\0';
	if (last_fd >= 0 && strcmp(folder, last) == 0) {
		return last_fd;
	}
	fd_close(&last_fd);
	last_fd = path_open(apply->root_fd, folder[0] != '\0' ? folder : ".",
		O_RDONLY | O_DIRECTORY | O_NONBLOCK, BENEATH);
	memcpy(last, folder, sizeof(last));
	return last_fd;
}

/* ---- what is there ---- */

static void sha1_file(
	struct apply *apply, int fd, const char *path, uint64_t size, uint8_t id[APPLY_ID_SIZE])
{
	struct apply_sha1 sha1;
	char head[32];
	ssize_t got;

	text_format(head, sizeof(head), "blob %llu", (unsigned long long)size);
	apply_sha1_start(&sha1);
	apply_sha1_add(&sha1, head, strlen(head) + 1);
	while ((got = read(fd, scratch, sizeof(scratch))) != 0) {
		if (got < 0 && errno != EINTR) {
			apply_fail(apply, errno, "read %s", path);
		}
		apply_sha1_add(&sha1, scratch, got > 0 ? (size_t)got : 0);
	}
	apply_sha1_end(&sha1, id);
}

static void sha1_link(const char *target, size_t length, uint8_t id[APPLY_ID_SIZE])
{
	struct apply_sha1 sha1;
	char head[32];

	text_format(head, sizeof(head), "blob %zu", length);
	apply_sha1_start(&sha1);
	apply_sha1_add(&sha1, head, strlen(head) + 1);
	apply_sha1_add(&sha1, target, length);
	apply_sha1_end(&sha1, id);
}

static bool is_program(mode_t mode)
{
	return (mode & 0100) != 0;
}

/* The content's id of what is at (dir, name), of git's `mode`. False: it is of another kind. */
static bool content_id(struct apply *apply, int dir_fd, const char *name, const struct stat *st,
	uint32_t mode, uint8_t id[APPLY_ID_SIZE])
{
	char target[APPLY_PATH_MAX + 1];
	int fd;

	if ((mode & S_IFMT) == S_IFLNK && S_ISLNK(st->st_mode)) {
		ssize_t length = readlinkat(dir_fd, name, target, sizeof(target));

		if (length < 0 || (size_t)length == sizeof(target)) {
			return false;
		}
		sha1_link(target, (size_t)length, id);
		return true;
	}
	if ((mode & S_IFMT) != S_IFREG || !S_ISREG(st->st_mode) ||
		is_program(st->st_mode) != is_program(mode)) {
		return false;
	}
	fd = path_open(dir_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, BENEATH);
	if (fd < 0) {
		return false;
	}
	sha1_file(apply, fd, name, (uint64_t)st->st_size, id);
	close(fd);
	return true;
}

static bool is_as_before(
	struct apply *apply, const struct apply_change *change, int dir_fd, const struct stat *st)
{
	uint8_t id[APPLY_ID_SIZE];

	if (change->record.old_mode == GITLINK) {
		return S_ISDIR(st->st_mode);
	}
	return content_id(apply, dir_fd, last_name(change), st, change->record.old_mode, id) &&
	       memcmp(id, change->record.old_content, sizeof(id)) == 0;
}

static bool is_as_after(
	struct apply *apply, const struct apply_change *change, int dir_fd, const struct stat *st)
{
	uint8_t id[APPLY_ID_SIZE], staged_id[APPLY_ID_SIZE];
	struct stat staged;
	char name[16];

	if (change->record.new_mode == GITLINK) {
		return S_ISDIR(st->st_mode);
	}
	apply_staged_name(change->staged, name);
	return change->staged != 0 &&
	       fstatat(apply->staging_fd, name, &staged, AT_SYMLINK_NOFOLLOW) == 0 &&
	       staged.st_size == st->st_size &&
	       content_id(apply, dir_fd, last_name(change), st, change->record.new_mode, id) &&
	       content_id(apply, apply->staging_fd, name, &staged, change->record.new_mode,
		       staged_id) &&
	       memcmp(id, staged_id, sizeof(id)) == 0;
}

/* ---- a folder where a file is to be ---- */

static bool goes_away(const struct apply *apply, const char *path)
{
	const struct apply_change *change = apply_find(apply, path, strlen(path));

	return change != NULL && change->record.new_mode == 0;
}

/* Does the folder hold nothing but what this sync removes, and folders? */
static bool folder_gives_way(
	struct apply *apply, int dir_fd, const char *name, const char *path, unsigned depth)
{
	int fd = path_open(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK, BENEATH);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	bool gives = dir != NULL && depth < DEPTH_MAX;

	while (gives && (entry = readdir(dir)) != NULL) {
		size_t room = strlen(path) + strlen(entry->d_name) + 2;
		char *below;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
			continue;
		}
		below = apply_alloc(apply, NULL, room, 1);
		text_format(below, room, "%s/%s", path, entry->d_name);
		gives = goes_away(apply, below) ||
			(entry->d_type == DT_DIR &&
				folder_gives_way(apply, fd, entry->d_name, below, depth + 1));
		free(below);
	}
	if (dir != NULL) {
		closedir(dir);
	} else {
		fd_close(&fd);
	}
	return gives;
}

/* Is one of the folders of the path a file or link now that this sync removes? */
static bool parent_goes_away(const struct apply *apply, const struct apply_change *change)
{
	for (size_t i = 1; i < change->length; i++) {
		const struct apply_change *above;

		if (change->path[i] != '/') {
			continue;
		}
		above = apply_find(apply, change->path, i);
		if (above != NULL && above->record.new_mode == 0 && above->record.old_mode != 0) {
			return true;
		}
	}
	return false;
}

static bool may_change(struct apply *apply, struct apply_change *change)
{
	const struct apply_record *record = &change->record;
	int dir_fd = parent_open(apply, change);
	bool absent = dir_fd == -ENOENT;
	struct stat st;

	if (dir_fd < 0 && !absent) {
		/* A link or file where a folder is to be: there, but to go. */
		absent =
			(dir_fd == -ENOTDIR || dir_fd == -ELOOP) && parent_goes_away(apply, change);
		if (!absent) {
			return false;
		}
	}
	if (!absent && fstatat(dir_fd, last_name(change), &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT) {
			return false;
		}
		absent = true;
	}
	if (absent) {
		change->needed = record->new_mode != 0;
		return record->old_mode == 0 || record->new_mode == 0 ||
		       (record->old_mode == GITLINK && record->new_mode == GITLINK);
	}
	if (record->new_mode != 0 && is_as_after(apply, change, dir_fd, &st)) {
		return true;
	}
	change->needed = true;
	if (record->old_mode != 0) {
		return is_as_before(apply, change, dir_fd, &st) &&
		       (!S_ISDIR(st.st_mode) ||
			       folder_gives_way(apply, dir_fd, last_name(change), change->path, 0));
	}
	return S_ISDIR(st.st_mode) &&
	       folder_gives_way(apply, dir_fd, last_name(change), change->path, 0);
}

void apply_tree_check(struct apply *apply)
{
	for (size_t i = 0; i < apply->change_count; i++) {
		if (!may_change(apply, &apply->changes[i])) {
			apply_conflict(apply, apply->changes[i].path);
		}
	}
}

/* ---- writing ---- */

/* Upwards, as long as they are empty, as git does. */
static void remove_empty_parents(struct apply *apply, const struct apply_change *change)
{
	char path[APPLY_PATH_MAX + 1];
	char *slash;

	memcpy(path, change->path, change->length + 1);
	fd_close(&last_fd);
	while ((slash = strrchr(path, '/')) != NULL) {
		int fd;

		*slash = '\0';
		slash = strrchr(path, '/');
		if (slash != NULL) {
			*slash = '\0';
		}
		fd = path_open(apply->root_fd, slash != NULL ? path : ".", O_RDONLY | O_DIRECTORY,
			BENEATH);
		if (slash != NULL) {
			*slash = '/';
		}
		if (fd < 0 || unlinkat(fd, slash != NULL ? slash + 1 : path, AT_REMOVEDIR) < 0) {
			fd_close(&fd);
			return;
		}
		close(fd);
	}
}

static void remove_one(struct apply *apply, const struct apply_change *change)
{
	int dir_fd = parent_open(apply, change);
	int flags = change->record.old_mode == GITLINK ? AT_REMOVEDIR : 0;

	if (dir_fd < 0 || (unlinkat(dir_fd, last_name(change), flags) < 0 && errno != ENOENT)) {
		apply_fail(apply, dir_fd < 0 ? -dir_fd : errno, "remove %s", change->path);
	}
	remove_empty_parents(apply, change);
}

/* Folders alone: everything else in it is gone by now. */
static void remove_folders(int dir_fd, const char *name, unsigned depth)
{
	int fd = path_open(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK, BENEATH);
	DIR *dir = fd >= 0 && depth < DEPTH_MAX ? fdopendir(fd) : NULL;
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
			remove_folders(fd, entry->d_name, depth + 1);
		}
	}
	if (dir != NULL) {
		closedir(dir);
	} else {
		fd_close(&fd);
	}
	(void)unlinkat(dir_fd, name, AT_REMOVEDIR);
}

/* The folder of a path, making what is missing. The caller closes it. */
static int parent_make(struct apply *apply, const struct apply_change *change)
{
	int fd = path_open(apply->root_fd, ".", O_RDONLY | O_DIRECTORY, BENEATH);
	char name[APPLY_PATH_MAX + 1];
	const char *path = change->path, *slash;

	while (fd >= 0 && (slash = strchr(path, '/')) != NULL) {
		size_t length = (size_t)(slash - path);
		int next;

		memcpy(name, path, length);
		name[length] = '\0';
		next = path_open(fd, name, O_RDONLY | O_DIRECTORY, BENEATH);
		if (next == -ENOENT && (mkdirat(fd, name, 0755) == 0 || errno == EEXIST)) {
			next = path_open(fd, name, O_RDONLY | O_DIRECTORY, BENEATH);
		}
		close(fd);
		fd = next;
		path = slash + 1;
	}
	if (fd < 0) {
		apply_fail(apply, -fd, "the folder of %s", change->path);
	}
	return fd;
}

static void write_one(struct apply *apply, const struct apply_change *change)
{
	int known = parent_open(apply, change);
	int dir_fd = known >= 0 ? known : parent_make(apply, change);
	const char *name = last_name(change);
	struct stat st;
	char staged[16];

	if (change->record.new_mode != GITLINK &&
		fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) {
		remove_folders(dir_fd, name, 0);
	}
	apply_staged_name(change->staged, staged);
	if (change->record.new_mode == GITLINK) {
		if ((change->record.old_mode & S_IFMT) != 0 && change->record.old_mode != GITLINK) {
			(void)unlinkat(dir_fd, name, 0);
		}
		if (mkdirat(dir_fd, name, 0755) < 0 && errno != EEXIST) {
			apply_fail(apply, errno, "make the folder %s", change->path);
		}
	} else if (renameat(apply->staging_fd, staged, dir_fd, name) < 0) {
		apply_fail(apply, errno, "write %s", change->path);
	}
	if (known < 0) {
		close(dir_fd);
	}
}

void apply_tree_write(struct apply *apply)
{
	/* From the end, so that what is in a folder goes before the folder. */
	for (size_t i = apply->change_count; i > 0; i--) {
		const struct apply_change *change = &apply->changes[i - 1];

		if (change->needed && change->record.new_mode == 0) {
			remove_one(apply, change);
		}
	}
	for (size_t i = 0; i < apply->change_count; i++) {
		const struct apply_change *change = &apply->changes[i];

		if (change->needed && change->record.new_mode != 0) {
			write_one(apply, change);
		}
	}
}
