/*
 * One entry of the copy that is no folder. Everything of the original is looked at through a
 * descriptor that was opened without following anything and without opening what it is, so that
 * neither a link nor a fifo nor a device that appears in its place has an effect.
 */
#include "pool/sandbox/live/live_copy_private.h"

#include "base/clock.h"
#include "base/memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/sysmacros.h>

/* Entries, or buffers of a large one, between two looks whether the copy is still wanted. */
#define LOOK_EVERY 32

#define INODE_TEXT_SIZE 20

static void entry_fill(struct live_entry *entry, const struct stat *status, int64_t now_ns)
{
	entry->inode = status->st_ino;
	entry->ctime_ns = live_time_ns(&status->st_ctim);
	entry->flags = live_is_young(entry->ctime_ns, now_ns) ? LIVE_YOUNG : 0;
	if (S_ISREG(status->st_mode)) {
		entry->flags |= LIVE_REGULAR;
		entry->bytes =
			(uint64_t)status->st_size / (status->st_nlink > 0 ? status->st_nlink : 1);
	}
}

static int original_failed(const struct live *live, const char *name, struct error *err)
{
	return live_is_fleeting(live, errno) ? 0 : error_sys(err, errno, "open %s", name);
}

/* ---- hard links ---- */

static void share_name(char *text, uint64_t inode)
{
	snprintf(text, INODE_TEXT_SIZE, "%" PRIx64, inode);
}

/* True: `name` is now another name of the copy that its inode has already. */
static bool share_use(struct live *live, const struct live_level *level, const char *name,
	bool mapped, struct live_entry *entry)
{
	const struct live_shared *slot = live_shares_find(&live->shares, entry->inode);
	char text[INODE_TEXT_SIZE];

	if (slot == NULL || slot->ctime_ns != entry->ctime_ns ||
		(slot->pass != live->pass && (mapped || (slot->flags & LIVE_YOUNG) != 0))) {
		return false;
	}
	share_name(text, entry->inode);
	if (linkat(live->spec->scratch_fd, text, level->tree_fd, name, 0) < 0) {
		return false; /* too many links: a copy of its own */
	}
	entry->flags = slot->flags;
	return true;
}

static int share_add(struct live *live, const struct live_level *level, const char *name,
	const struct live_entry *entry, struct error *err)
{
	struct live_shared *slot = live_shares_put(&live->shares, entry->inode);
	char text[INODE_TEXT_SIZE];

	share_name(text, entry->inode);
	(void)unlinkat(live->spec->scratch_fd, text, 0);
	if (linkat(level->tree_fd, name, live->spec->scratch_fd, text, 0) < 0 && errno != EMLINK) {
		return error_sys(err, errno, "keep a link to the copy of %s", name);
	}
	slot->ctime_ns = entry->ctime_ns;
	slot->pass = live->pass;
	slot->flags = entry->flags;
	return 0;
}

/* ---- regular files ---- */

static bool previous_is_same(const struct stat *now, const struct stat *then)
{
	return S_ISREG(then->st_mode) && then->st_size == now->st_size &&
	       then->st_mode == now->st_mode && then->st_uid == now->st_uid &&
	       then->st_gid == now->st_gid &&
	       live_time_ns(&then->st_mtim) == live_time_ns(&now->st_mtim);
}

static bool previous_use(struct live *live, const struct live_level *level, const char *name,
	const struct stat *status, struct live_entry *entry)
{
	struct live_line line = {live_path_hash(level->path, name), entry->inode, entry->ctime_ns};
	CLEANUP(close_p) int fd = -1;
	struct stat then;

	if (level->previous_fd < 0 || !live->cannot_clone ||
		!live_list_has(&live->previous, &line)) {
		return false;
	}
	fd = openat(level->previous_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &then) < 0 || !previous_is_same(status, &then) ||
		linkat(fd, "", level->tree_fd, name, AT_EMPTY_PATH) < 0) {
		return false;
	}
	entry->flags |= LIVE_LINKED;
	return true;
}

static int file_copy(struct live *live, const struct live_level *level, const char *name, int from,
	const struct stat *status, struct live_entry *entry, struct error *err)
{
	CLEANUP(close_p)
	int to = openat(
		level->tree_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	uint8_t how = 0;

	if (to < 0) {
		return error_sys(err, errno, "make the copy of %s", name);
	}
	if (live_data_copy(live, from, to, status, name, &how, err) < 0) {
		return -(int)err->kind;
	}
	entry->flags |= how;
	return live_attributes_copy(live, from, to, status, name, err);
}

/*
 * What a running program does to the file from here on must show in its ctime: a write in progress
 * is waited for, and pages that are mapped are written out, which makes the next store into each
 * one a change again. Frozen, nothing is in progress.
 */
static int file_settle(const struct live *live, int fd, const char *name, struct error *err)
{
	if (live->frozen) {
		return 0;
	}
	(void)lseek(fd, 0, SEEK_DATA);
	(void)lseek(fd, 0, SEEK_SET);
	if (sync_file_range(fd, 0, 0,
		    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
			    SYNC_FILE_RANGE_WAIT_AFTER) < 0) {
		return error_sys(err, errno, "write %s to disk", name);
	}
	return 0;
}

/* Opens what `path_fd` is, and not what has its name by now. */
static int reopen(int path_fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", path_fd);
	return open(path, O_RDONLY | O_NONBLOCK | O_NOATIME | O_CLOEXEC);
}

static int file_make(struct live *live, const struct live_level *level, const char *name,
	bool mapped, struct live_entry *entry, bool *ret_made, struct error *err)
{
	CLEANUP(close_p)
	int path_fd = openat(dirfd(level->dir), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	CLEANUP(close_p) int from = -1;
	int64_t now_ns = live_now_ns();
	struct stat status;

	if (path_fd < 0) {
		return original_failed(live, name, err);
	}
	if (fstat(path_fd, &status) < 0 || !S_ISREG(status.st_mode)) {
		errno = ESTALE;
		return original_failed(live, name, err);
	}
	entry_fill(entry, &status, now_ns);
	*ret_made = status.st_nlink > 1 && share_use(live, level, name, mapped, entry);
	if (*ret_made) {
		return 0;
	}
	from = reopen(path_fd);
	if (from < 0) {
		return original_failed(live, name, err);
	}
	if (file_settle(live, from, name, err) < 0) {
		return -(int)err->kind;
	}
	if ((mapped || !previous_use(live, level, name, &status, entry)) &&
		file_copy(live, level, name, from, &status, entry, err) < 0) {
		return -(int)err->kind;
	}
	*ret_made = true;
	live_work_add(&live->done, &status);
	if ((entry->flags & LIVE_YOUNG) != 0) {
		live_work_add(&live->young, &status);
	}
	return status.st_nlink > 1 ? share_add(live, level, name, entry, err) : 0;
}

/* ---- all the rest ---- */

static int node_copy(struct live *live, const struct live_level *level, const char *name,
	int path_fd, const struct stat *status, bool *ret_made, struct error *err)
{
	char target[PATH_MAX];
	ssize_t length;
	int made;

	if (S_ISLNK(status->st_mode)) {
		length = readlinkat(path_fd, "", target, sizeof(target) - 1);
		if (length < 0) {
			return original_failed(live, name, err);
		}
		target[length] = '\0';
		made = symlinkat(target, level->tree_fd, name);
	} else {
		made = mknodat(level->tree_fd, name, status->st_mode, status->st_rdev);
	}
	if (made < 0 && errno == EPERM && !S_ISLNK(status->st_mode)) {
		live->report.skipped++;
		return 0;
	}
	if (made < 0) {
		return error_sys(err, errno, "make the copy of %s", name);
	}
	*ret_made = true;
	return 0;
}

/* Names of at most 255 bytes below a descriptor. */
static void object_path(char *path, size_t size, int dir_fd, const char *name)
{
	snprintf(path, size, "/proc/self/fd/%d/%s", dir_fd, name);
}

static int node_attributes(struct live *live, const struct live_level *level, const char *name,
	const struct stat *status, struct error *err)
{
	struct timespec times[] = {status->st_atim, status->st_mtim};
	char from[NAME_MAX + 32], to[NAME_MAX + 32];

	if (fchownat(level->tree_fd, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) <
			0 ||
		(!S_ISLNK(status->st_mode) &&
			fchmodat(level->tree_fd, name, status->st_mode & 07777, 0) < 0)) {
		return error_sys(err, errno, "give the copy of %s its owner and mode", name);
	}
	object_path(from, sizeof(from), dirfd(level->dir), name);
	object_path(to, sizeof(to), level->tree_fd, name);
	if (live_xattrs_copy(live, (struct live_object){-1, from}, (struct live_object){-1, to},
		    name, err) < 0) {
		return -(int)err->kind;
	}
	if (utimensat(level->tree_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0) {
		return error_sys(err, errno, "give the copy of %s its times", name);
	}
	return 0;
}

static int node_make(struct live *live, const struct live_level *level, const char *name,
	bool mapped, struct live_entry *entry, bool *ret_made, struct error *err)
{
	CLEANUP(close_p)
	int path_fd = openat(dirfd(level->dir), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	int64_t now_ns = live_now_ns();
	struct stat status;
	bool shared;

	if (path_fd < 0) {
		return original_failed(live, name, err);
	}
	if (fstat(path_fd, &status) < 0 || S_ISDIR(status.st_mode) || S_ISREG(status.st_mode) ||
		S_ISSOCK(status.st_mode)) {
		errno = ESTALE;
		return original_failed(live, name, err);
	}
	entry_fill(entry, &status, now_ns);
	/* Overlayfs makes all whiteouts of one inode; they are no hard links to anybody. */
	shared = status.st_nlink > 1 && !(S_ISCHR(status.st_mode) && status.st_rdev == 0);
	*ret_made = shared && share_use(live, level, name, mapped, entry);
	if (*ret_made) {
		return 0;
	}
	if (node_copy(live, level, name, path_fd, &status, ret_made, err) < 0 || !*ret_made) {
		return -(int)err->kind;
	}
	if (node_attributes(live, level, name, &status, err) < 0) {
		if (!live_is_fleeting(live, err->sys)) {
			return -(int)err->kind;
		}
		*err = ERROR_INIT;
		*ret_made = false;
		return live_throw_away(live, level->tree_fd, name, err);
	}
	return shared ? share_add(live, level, name, entry, err) : 0;
}

bool live_is_late(const struct live *live)
{
	return live->deadline_us != 0 && clock_mono_us() > live->deadline_us;
}

int live_late(const struct live *live, struct error *err)
{
	error_set(err, ERROR_LIMIT,
		"given up: the sandbox would have stood still for more than %" PRId64 " ms",
		live->spec->max_pause_us / 1000);
	return error_hint(err, "it changes too much at a time, or the machine is busy; allow it a "
			       "longer pause, or try again later");
}

int live_check(struct live *live, struct error *err)
{
	const struct live_copy_spec *spec = live->spec;

	if (live_is_late(live)) {
		return live_late(live, err);
	}
	if (spec->cancelled != NULL && ++live->looks % LOOK_EVERY == 0 &&
		spec->cancelled(spec->context)) {
		return error_set(err, ERROR_CANCELLED, "the copy is not wanted any more");
	}
	return 0;
}

int live_make(struct live *live, const struct live_level *level, const char *name, mode_t type,
	bool mapped, struct live_entry *ret_entry, bool *ret_made, struct error *err)
{
	*ret_made = false;
	if (live_check(live, err) < 0) {
		return -(int)err->kind;
	}
	if (S_ISSOCK(type)) {
		live->report.skipped++;
		return 0;
	}
	return S_ISREG(type) ? file_make(live, level, name, mapped, ret_entry, ret_made, err)
			     : node_make(live, level, name, mapped, ret_entry, ret_made, err);
}
