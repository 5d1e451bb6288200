/*
 * Brings a workspace from one commit to another. Everything is received and put aside in
 * .git/hob-sync first; then every path is looked at; only then things are moved into place, objects
 * before files before index before refs. So a stream that ends early, whoever was killed, changes
 * nothing, and what is torn in the short last part is healed by the same stream again.
 */
#include "pool/sandbox/init/apply.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAGING "hob-sync"
#define LOCK_NAME "index.lock"
#define OWN_LOCK "lock" /* in STAGING: another name of the index.lock that we made */
#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
/* Of a pack or a file. More is not brought to a sandbox that runs. */
#define DATA_MAX (UINT64_C(4) << 30)

static void remove_staging(struct apply *apply)
{
	struct removal *removal = removal_new(apply->git_fd, STAGING);

	while (removal != NULL && removal_run(removal) == 0) {
	}
}

/* Gives the index back, if its lock is ours. */
static void unlock(struct apply *apply)
{
	struct stat ours, lock;

	if (apply->index_locked && fstatat(apply->staging_fd, OWN_LOCK, &ours, 0) == 0 &&
		fstatat(apply->git_fd, LOCK_NAME, &lock, AT_SYMLINK_NOFOLLOW) == 0 &&
		ours.st_ino == lock.st_ino) {
		(void)unlinkat(apply->git_fd, LOCK_NAME, 0);
	}
}

void apply_fail(struct apply *apply, int sys, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vdprintf(STDERR_FILENO, format, args);
	va_end(args);
	if (sys != 0) {
		(void)dprintf(STDERR_FILENO, ": %s", strerror(sys));
	}
	if (!apply->touched && apply->staging_fd >= 0) {
		unlock(apply);
		remove_staging(apply);
	}
	_exit(apply->touched ? APPLY_TORN : APPLY_UNTOUCHED);
}

static void __attribute__((noreturn)) apply_cut_off(struct apply *apply)
{
	unlock(apply);
	remove_staging(apply);
	(void)dprintf(STDERR_FILENO, "the change was cut off");
	_exit(APPLY_CUT_OFF);
}

void apply_conflict(struct apply *apply, const char *path)
{
	apply->conflicts++;
	(void)!write(STDOUT_FILENO, path, strlen(path) + 1);
}

void *apply_alloc(struct apply *apply, void *old, size_t count, size_t size)
{
	void *memory = count <= SIZE_MAX / size ? realloc(old, count * size) : NULL;

	if (memory == NULL) {
		apply_fail(apply, ENOMEM, "no memory to sync %s", apply->workspace);
	}
	return memory;
}

void apply_staged_name(unsigned staged, char name[16])
{
	text_format(name, 16, "%u", staged);
}

/* ---- the stream ---- */

static void read_all(struct apply *apply, void *data, size_t length)
{
	char *at = data;

	while (length > 0) {
		ssize_t got = read(STDIN_FILENO, at, length);

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got <= 0) {
			apply_cut_off(apply);
		}
		at += got;
		length -= (size_t)got;
	}
}

/* The next `length` bytes as a file in the staging folder, whose number is returned. */
static unsigned stage(struct apply *apply, uint64_t length, mode_t mode)
{
	char name[16];
	int fd;

	apply_staged_name(++apply->staged_count, name);
	fd = openat(apply->staging_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		0600);
	if (fd < 0) {
		apply_fail(apply, errno, "make .git/" STAGING "/%s", name);
	}
	while (length > 0) {
		size_t piece = length < sizeof(scratch) ? (size_t)length : sizeof(scratch);
		size_t done = 0;

		read_all(apply, scratch, piece);
		while (done < piece) {
			ssize_t put = write(fd, scratch + done, piece - done);

			if (put < 0 && errno != EINTR) {
				apply_fail(apply, errno, "write .git/" STAGING "/%s", name);
			}
			done += put > 0 ? (size_t)put : 0;
		}
		length -= piece;
	}
	if (fchmod(fd, mode) < 0) {
		apply_fail(apply, errno, "chmod .git/" STAGING "/%s", name);
	}
	close(fd);
	return apply->staged_count;
}

static unsigned stage_file(struct apply *apply, const struct apply_record *record)
{
	bool program = (record->new_mode & 0111) != 0;
	unsigned staged = stage(apply, record->data_length, program ? 0755 : 0644);
	struct timespec times[2] = {{.tv_sec = apply->begin.time}, {.tv_sec = apply->begin.time}};
	char name[16];

	apply_staged_name(staged, name);
	if (utimensat(apply->staging_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0) {
		apply_fail(apply, errno, "set a time in .git/" STAGING);
	}
	return staged;
}

static unsigned stage_link(struct apply *apply, const struct apply_record *record)
{
	struct timespec times[2] = {{.tv_sec = apply->begin.time}, {.tv_sec = apply->begin.time}};
	char target[APPLY_PATH_MAX + 1], name[16];

	if (record->data_length == 0 || record->data_length > APPLY_PATH_MAX) {
		apply_fail(apply, 0, "a symbolic link of %llu bytes",
			(unsigned long long)record->data_length);
	}
	read_all(apply, target, (size_t)record->data_length);
	target[record->data_length] = '\0';
	apply_staged_name(++apply->staged_count, name);
	if (symlinkat(target, apply->staging_fd, name) < 0 ||
		utimensat(apply->staging_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0) {
		apply_fail(apply, errno, "make a symbolic link in .git/" STAGING);
	}
	return apply->staged_count;
}

/* What git itself would refuse to check out, however the other end came by it. */
static bool path_is_safe(const char *path)
{
	for (;;) {
		size_t length = strcspn(path, "/");

		if (length == 0 || (length == 1 && path[0] == '.') ||
			(length == 2 && path[0] == '.' && path[1] == '.') ||
			(length == 4 && strncasecmp(path, ".git", 4) == 0)) {
			return false;
		}
		if (path[length] == '\0') {
			return true;
		}
		path += length + 1;
	}
}

static char *read_path(struct apply *apply, const struct apply_record *record)
{
	char *path;

	if (record->path_length > APPLY_PATH_MAX || record->data_length > DATA_MAX) {
		apply_fail(apply, 0, "a path or a file that is too long");
	}
	path = apply_alloc(apply, NULL, record->path_length + 1, 1);
	read_all(apply, path, record->path_length);
	path[record->path_length] = '\0';
	if (strlen(path) != record->path_length) {
		apply_fail(apply, 0, "a path with a zero byte");
	}
	return path;
}

static void add_change(struct apply *apply, const struct apply_record *record, char *path)
{
	uint32_t type = record->new_mode & S_IFMT;
	struct apply_change *change;

	if (!path_is_safe(path)) {
		apply_fail(apply, 0, "the commit holds a path that git refuses: %s", path);
	}
	if (apply->change_count >= APPLY_CHANGES_MAX) {
		apply_fail(apply, 0, "more than %d paths change", APPLY_CHANGES_MAX);
	}
	if (apply->change_count == apply->change_room) {
		apply->change_room = 2 * apply->change_room + 64;
		apply->changes = apply_alloc(
			apply, apply->changes, apply->change_room, sizeof(*apply->changes));
	}
	change = &apply->changes[apply->change_count++];
	*change = (struct apply_change){
		.path = path, .length = record->path_length, .record = *record};
	if (type == S_IFREG) {
		change->staged = stage_file(apply, record);
	} else if (type == S_IFLNK) {
		change->staged = stage_link(apply, record);
	} else if (record->data_length != 0) {
		apply_fail(apply, 0, "%s: content without a file", path);
	}
}

static void add_pack(struct apply *apply, const struct apply_record *record, char *path)
{
	size_t count = sizeof(apply->packs) / sizeof(apply->packs[0]);
	char name[16];

	if (apply->pack_count >= count || strncmp(path, "pack-", 5) != 0 ||
		strchr(path, '/') != NULL) {
		apply_fail(apply, 0, "%s: not a pack of this sync", path);
	}
	apply_staged_name(stage(apply, record->data_length, 0444), name);
	/* By its own name, so that the order of arrival is the order of placing. */
	if (renameat(apply->staging_fd, name, apply->staging_fd, path) < 0) {
		apply_fail(apply, errno, "rename to .git/" STAGING "/%s", path);
	}
	apply->packs[apply->pack_count++] = path;
}

static void add_ref(struct apply *apply, const struct apply_record *record, char *path)
{
	size_t count = sizeof(apply->refs) / sizeof(apply->refs[0]);
	struct apply_ref *ref = &apply->refs[apply->ref_count];

	if (apply->ref_count >= count || !path_is_safe(path) ||
		(strcmp(path, "HEAD") != 0 && strncmp(path, "refs/", 5) != 0)) {
		apply_fail(apply, 0, "%s: not a ref of this sync", path);
	}
	*ref = (struct apply_ref){path, stage(apply, record->data_length, 0644)};
	apply->ref_count++;
}

static void receive(struct apply *apply)
{
	struct apply_record record;
	char *path;

	read_all(apply, &apply->begin, sizeof(apply->begin));
	if (apply->begin.type != APPLY_BEGIN || apply->begin.version != APPLY_VERSION ||
		apply->begin.data_length != 0) {
		apply_fail(apply, 0, "the change does not begin as it should");
	}
	apply->branch = read_path(apply, &apply->begin);
	for (;;) {
		read_all(apply, &record, sizeof(record));
		path = read_path(apply, &record);
		switch ((enum apply_type)record.type) {
		case APPLY_OBJECTS:
			add_pack(apply, &record, path);
			break;
		case APPLY_CHANGE:
			add_change(apply, &record, path);
			break;
		case APPLY_REF:
			add_ref(apply, &record, path);
			break;
		case APPLY_END:
			return;
		case APPLY_BEGIN:
			apply_fail(apply, 0, "the change begins twice");
		}
		if (record.type > APPLY_END) {
			apply_fail(apply, 0, "a part of the change that is of no kind");
		}
	}
}

/* ---- the order of things ---- */

static int compare_paths(const char *a, size_t a_length, const char *b, size_t b_length)
{
	size_t shorter = a_length < b_length ? a_length : b_length;
	int order = memcmp(a, b, shorter);

	return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_changes(const void *a, const void *b)
{
	const struct apply_change *one = a, *other = b;

	return compare_paths(one->path, one->length, other->path, other->length);
}

struct apply_change *apply_find(const struct apply *apply, const char *path, size_t length)
{
	size_t low = 0, high = apply->change_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct apply_change *change = &apply->changes[middle];
		int order = compare_paths(path, length, change->path, change->length);

		if (order == 0) {
			return change;
		}
		if (order < 0) {
			high = middle;
		} else {
			low = middle + 1;
		}
	}
	return NULL;
}

static void open_workspace(struct apply *apply)
{
	struct stat st;
	int fd = path_open(-1, apply->workspace, O_RDONLY | O_DIRECTORY,
		RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);

	if (fd < 0 || fstat(fd, &st) < 0) {
		apply_fail(apply, fd < 0 ? -fd : errno, "%s", apply->workspace);
	}
	apply->root_fd = fd;
	/* Whoever owns it can do no more than what its owner can. */
	if ((st.st_uid != 0 || st.st_gid != 0) &&
		(setgroups(0, NULL) < 0 || setresgid(st.st_gid, st.st_gid, st.st_gid) < 0 ||
			setresuid(st.st_uid, st.st_uid, st.st_uid) < 0)) {
		apply_fail(apply, errno, "become the owner of %s", apply->workspace);
	}
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	apply->git_fd = path_open(fd, ".git", O_RDONLY | O_DIRECTORY, BENEATH);
	if (apply->git_fd < 0) {
		apply_fail(apply, -apply->git_fd, "%s/.git is not an ordinary folder",
			apply->workspace);
	}
}

/* What a process that was killed left: its lock on the index, and what it had put aside. */
static void clear_staging(struct apply *apply)
{
	struct removal *removal;
	int result = 0;

	apply->index_locked = true;
	unlock(apply);
	apply->index_locked = false;
	removal = removal_new(apply->git_fd, STAGING);
	while (removal != NULL && (result = removal_run(removal)) == 0) {
	}
	if (result < 0) {
		apply_fail(apply, -result, "clear .git/" STAGING);
	}
}

static int staging_lock(struct apply *apply)
{
	int fd = path_open(apply->git_fd, STAGING, O_RDONLY | O_DIRECTORY, BENEATH);

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
		apply->staging_fd = -1; /* it is not ours to clear */
		apply_fail(apply, 0, "another sync of %s is under way", apply->workspace);
	}
	return fd;
}

static void open_staging(struct apply *apply)
{
	apply->staging_fd = staging_lock(apply);
	if (apply->staging_fd >= 0) {
		clear_staging(apply);
		fd_close(&apply->staging_fd);
	}
	if (mkdirat(apply->git_fd, STAGING, 0700) < 0) {
		apply_fail(apply, errno, "make .git/" STAGING);
	}
	apply->staging_fd = staging_lock(apply);
	if (apply->staging_fd < 0) {
		apply_fail(apply, -apply->staging_fd, "open .git/" STAGING);
	}
}

static void place_packs(struct apply *apply)
{
	int fd = path_open(apply->git_fd, "objects/pack", O_RDONLY | O_DIRECTORY, BENEATH);

	if (fd < 0) {
		apply_fail(apply, -fd, ".git/objects/pack");
	}
	for (size_t i = 0; i < apply->pack_count; i++) {
		if (renameat(apply->staging_fd, apply->packs[i], fd, apply->packs[i]) < 0) {
			apply_fail(apply, errno, "place %s", apply->packs[i]);
		}
	}
	close(fd);
}

void apply_run(const char *workspace)
{
	struct apply apply = {
		.workspace = workspace, .root_fd = -1, .git_fd = -1, .staging_fd = -1};

	open_workspace(&apply);
	open_staging(&apply);
	receive(&apply);
	qsort(apply.changes, apply.change_count, sizeof(*apply.changes), compare_changes);
	apply_refs_check(&apply);
	apply_index_stage(&apply);
	apply_tree_check(&apply);
	if (apply.conflicts > 0) {
		unlock(&apply);
		remove_staging(&apply);
		_exit(APPLY_CONFLICT);
	}
	place_packs(&apply);
	apply.touched = true;
	apply_tree_write(&apply);
	apply_index_commit(&apply);
	apply_refs_write(&apply);
	remove_staging(&apply);
	_exit(APPLY_DONE);
}
