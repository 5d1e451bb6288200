/*
 * One pass of a live copy: the original and the copy are walked side by side, by descriptor, never
 * through a link and never across a mount. Of the folders on the way down only the last
 * OPEN_LEVELS_MAX are open; a closed one is opened again through "..", and must then be the very
 * folder that it was, so that no rename leads the walk out of the tree.
 */
#include "pool/sandbox/live/live_copy_private.h"

#include "base/memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>

/* Three descriptors each. */
#define OPEN_LEVELS_MAX 64

bool live_is_fleeting(const struct live *live, int sys)
{
	return !live->frozen &&
	       (sys == ENOENT || sys == ENOTDIR || sys == ELOOP || sys == ESTALE || sys == EXDEV);
}

bool live_is_young(int64_t ctime_ns, int64_t now_ns)
{
	return now_ns - ctime_ns < LIVE_YOUNG_NS;
}

int live_throw_away(struct live *live, int tree_fd, const char *name, struct error *err)
{
	char dead[32];

	if (unlinkat(tree_fd, name, 0) == 0 || errno == ENOENT) {
		return 0;
	}
	snprintf(dead, sizeof(dead), "dead-%" PRIu64, ++live->dead);
	if (errno != EISDIR || renameat(tree_fd, name, live->spec->scratch_fd, dead) < 0) {
		return error_sys(err, errno, "take %s out of the copy", name);
	}
	return 0;
}

/* ---- levels ---- */

static void level_close(struct live_level *level)
{
	if (level->dir != NULL) {
		closedir(level->dir);
		level->dir = NULL;
	}
	fd_done(&level->tree_fd);
	fd_done(&level->previous_fd);
}

static struct live_level *level_top(const struct live *live)
{
	return &live->levels[live->level_count - 1];
}

static void levels_drop(struct live *live)
{
	while (live->level_count > 0) {
		level_close(level_top(live));
		live->level_count--;
	}
	live->first_open = 0;
}

static void make_room(struct live *live)
{
	struct live_level *level = &live->levels[live->first_open];

	if (live->level_count - live->first_open < OPEN_LEVELS_MAX) {
		return;
	}
	level->position = telldir(level->dir);
	level_close(level);
	live->first_open++;
}

static int folder_open(int dir_fd, const char *name, uint64_t resolve)
{
	struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC,
		.resolve = resolve | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS};

	return (int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
}

static int tree_open(int dir_fd, const char *name)
{
	return openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int previous_open(int dir_fd, const char *name)
{
	return dir_fd < 0 ? -1
			  : openat(dir_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* Takes over the descriptor of the original, which may then not be left open by the caller. */
static int level_fill(struct live_level *level, int fd, int64_t now_ns, struct error *err)
{
	struct stat status;

	level->dir = fdopendir(fd);
	if (level->dir == NULL || fstat(dirfd(level->dir), &status) < 0) {
		int sys = errno;

		if (level->dir == NULL) {
			close(fd);
		}
		return error_sys(err, sys, "read a folder");
	}
	level->device = status.st_dev;
	level->inode = status.st_ino;
	level->ctime_ns = live_time_ns(&status.st_ctim);
	level->young = live_is_young(level->ctime_ns, now_ns);
	return 0;
}

/* Its names are not known any more until it has been read to the end, but for those that the sweep
 * has found to be right. */
static void entry_enter(struct live *live, struct live_level *level)
{
	struct live_entry *entry = &live->index.entries[level->entry];

	level->known = live->frozen && entry->pass == live->pass;
	level->next = entry->child;
	entry->pass = live->pass;
	entry->flags &= (uint8_t)~LIVE_WHOLE;
}

static int root_push(struct live *live, struct error *err)
{
	const struct live_copy_spec *spec = live->spec;
	struct live_level level = {.entry = LIVE_ROOT, .path = 0};
	int64_t now_ns = live_now_ns();
	int fd = folder_open(spec->upper_fd, ".", 0), status;

	if (fd < 0) {
		return error_sys(err, errno, "open the sandbox's folder");
	}
	level.tree_fd = tree_open(spec->tree_fd, ".");
	level.previous_fd = previous_open(spec->previous_fd, ".");
	level.has_previous = level.previous_fd >= 0;
	status = level_fill(&level, fd, now_ns, err);
	if (status == 0 && level.tree_fd < 0) {
		status = error_sys(err, errno, "open the copy's folder");
	}
	if (status < 0) {
		level_close(&level);
		return status;
	}
	entry_enter(live, &level);
	*array_add(&live->levels, &live->level_count, &live->level_room) = level;
	return 0;
}

/* The folder of the copy, made when the entry is new. */
static int tree_enter(struct live *live, const char *name, uint32_t *entry, struct error *err)
{
	struct live_level *parent = level_top(live);
	int fd;

	if (*entry == LIVE_NONE) {
		if (mkdirat(parent->tree_fd, name, 0700) < 0) {
			return error_sys(err, errno, "make the copy of folder %s", name);
		}
		parent->touched = true;
		if (live_index_add(&live->index, parent->entry, name, entry, err) < 0) {
			return -(int)err->kind;
		}
		live->index.entries[*entry].flags = LIVE_FOLDER;
	}
	fd = tree_open(parent->tree_fd, name);
	return fd >= 0 ? fd : error_sys(err, errno, "open the copy of folder %s", name);
}

static int level_push(struct live *live, const char *name, uint32_t entry, struct error *err)
{
	const struct live_level *parent = level_top(live);
	struct live_level level = {.tree_fd = -1, .previous_fd = -1};
	int64_t now_ns = live_now_ns();
	int fd = folder_open(dirfd(parent->dir), name, RESOLVE_BENEATH), status;

	if (fd < 0) {
		return live_is_fleeting(live, errno)
			       ? 0
			       : error_sys(err, errno, "open folder %s", name);
	}
	status = level_fill(&level, fd, now_ns, err);
	if (status == 0) {
		level.tree_fd = tree_enter(live, name, &entry, err);
		status = level.tree_fd < 0 ? level.tree_fd : 0;
	}
	if (status < 0) {
		level_close(&level);
		return status;
	}
	level.entry = entry;
	entry_enter(live, &level);
	level.path = live_path_hash(parent->path, name);
	level.previous_fd = previous_open(parent->previous_fd, name);
	level.has_previous = level.previous_fd >= 0;
	*array_add(&live->levels, &live->level_count, &live->level_room) = level;
	make_room(live);
	return 0;
}

/* Opens the closed folder above the lowest one again. 0: it is another by now. */
static int parent_reopen(struct live *live, struct error *err)
{
	struct live_level *parent = &live->levels[live->level_count - 2];
	const struct live_level *below = level_top(live);
	int fd = folder_open(dirfd(below->dir), "..", 0);
	struct stat status;

	if (fd >= 0 && (fstat(fd, &status) < 0 || status.st_dev != parent->device ||
			       status.st_ino != parent->inode)) {
		fd_done(&fd);
		errno = ESTALE;
	}
	if (fd < 0) {
		return live_is_fleeting(live, errno) ? 0 : error_sys(err, errno, "go up a folder");
	}
	parent->dir = fdopendir(fd);
	parent->tree_fd = tree_open(below->tree_fd, "..");
	parent->previous_fd = parent->has_previous ? previous_open(below->previous_fd, "..") : -1;
	if (parent->dir == NULL || parent->tree_fd < 0) {
		if (parent->dir == NULL) {
			close(fd);
		}
		return error_sys(err, errno, "open a folder again");
	}
	seekdir(parent->dir, parent->position);
	live->first_open--;
	return 1;
}

/* ---- the end of a folder ---- */

static int unseen_remove(struct live *live, struct live_level *level, struct error *err)
{
	struct live_index *index = &live->index;
	uint32_t *link = &index->entries[level->entry].child;

	while (*link != LIVE_NONE) {
		struct live_entry *child = &index->entries[*link];

		if (child->pass == live->pass) {
			link = &child->next;
			continue;
		}
		if (live_throw_away(live, level->tree_fd, live_index_name(index, *link), err) < 0) {
			return -(int)err->kind;
		}
		level->touched = true;
		live_index_remove(index, link);
	}
	return 0;
}

/* Is each name that was read a child that is in the copy? A socket is not, for one. */
static bool is_whole(const struct live *live, const struct live_level *level)
{
	const struct live_entry *entries = live->index.entries;
	size_t seen = 0;

	if (level->torn) {
		return false;
	}
	for (uint32_t at = entries[level->entry].child; at != LIVE_NONE; at = entries[at].next) {
		seen += entries[at].pass == live->pass ? 1 : 0;
	}
	return seen == level->names;
}

static int folder_finish(struct live *live, struct live_level *level, struct error *err)
{
	struct live_entry *entry = &live->index.entries[level->entry];
	struct stat status;

	if (!level->torn && unseen_remove(live, level, err) < 0) {
		return -(int)err->kind;
	}
	if (level->touched || entry->inode != level->inode || entry->ctime_ns != level->ctime_ns ||
		(entry->flags & LIVE_YOUNG) != 0) {
		if (fstat(dirfd(level->dir), &status) < 0) {
			return error_sys(err, errno, "stat a folder");
		}
		if (live_attributes_copy(live, dirfd(level->dir), level->tree_fd, &status,
			    live_index_name(&live->index, level->entry), err) < 0) {
			return -(int)err->kind;
		}
	}
	entry->inode = level->inode;
	entry->ctime_ns = level->ctime_ns;
	entry->flags = (uint8_t)(LIVE_FOLDER | (level->young ? LIVE_YOUNG : 0U) |
				 (is_whole(live, level) ? LIVE_WHOLE : 0U));
	return 0;
}

static int level_pop(struct live *live, struct error *err)
{
	if (folder_finish(live, level_top(live), err) < 0) {
		return -(int)err->kind;
	}
	if (live->level_count > 1 && live->levels[live->level_count - 2].dir == NULL) {
		int status = parent_reopen(live, err);

		if (status <= 0) {
			/* The rest is for the next pass. */
			levels_drop(live);
			return status;
		}
	}
	level_close(level_top(live));
	live->level_count--;
	return 0;
}

/* ---- entries ---- */

static bool is_current(
	struct live *live, const struct live_entry *entry, const struct stat *status, bool mapped)
{
	int64_t ctime_ns = live_time_ns(&status->st_ctim);

	if (entry->inode != status->st_ino || entry->ctime_ns != ctime_ns || mapped) {
		return false;
	}
	if ((entry->flags & LIVE_YOUNG) == 0) {
		return true;
	}
	/* One more copy makes sense only when it can be the last one. */
	if (live->frozen || !live_is_young(ctime_ns, live_now_ns())) {
		return false;
	}
	if (S_ISREG(status->st_mode)) {
		live_work_add(&live->still, status);
		live_work_add(&live->young, status);
	}
	return true;
}

static int entry_renew(struct live *live, const char *name, uint32_t number,
	const struct stat *status, bool mapped, struct error *err)
{
	struct live_level *level = level_top(live);
	struct live_entry made = {0}, *entry;
	bool was_made = false;

	if (number != LIVE_NONE && live_throw_away(live, level->tree_fd, name, err) < 0) {
		return -(int)err->kind;
	}
	if (live_make(live, level, name, status->st_mode, mapped, &made, &was_made, err) < 0) {
		return -(int)err->kind;
	}
	level->touched = true;
	if (!was_made) {
		if (number != LIVE_NONE) {
			live->index.entries[number].inode = 0; /* nothing is a copy of it */
		}
		return 0;
	}
	if (number == LIVE_NONE &&
		live_index_add(&live->index, level->entry, name, &number, err) < 0) {
		return -(int)err->kind;
	}
	entry = &live->index.entries[number];
	entry->inode = made.inode;
	entry->ctime_ns = made.ctime_ns;
	entry->bytes = made.bytes;
	entry->flags = (uint8_t)(made.flags | (mapped ? LIVE_MAPPED : 0U));
	entry->pass = live->pass;
	return 0;
}

/* A folder where there was a file, or the other way round. */
static int entry_forget(struct live *live, const char *name, uint32_t number, struct error *err)
{
	const struct live_level *level = level_top(live);
	uint32_t *link = &live->index.entries[level->entry].child;

	while (*link != number) {
		link = &live->index.entries[*link].next;
	}
	live_index_remove(&live->index, link);
	return live_throw_away(live, level->tree_fd, name, err);
}

/* Frozen: has the sweep found nothing to do there? */
static bool is_clean(const struct live *live, uint32_t number)
{
	const struct live_entry *entry = &live->index.entries[number];

	return entry->pass == live->pass && (entry->flags & LIVE_DIRTY) == 0;
}

static int visit(struct live *live, const char *name, struct error *err)
{
	const struct live_level *level = level_top(live);
	struct live_entry *entry;
	struct stat status;
	uint32_t number;
	bool mapped;

	number = live_index_find(&live->index, level->entry, name);
	if (live->frozen && number != LIVE_NONE && is_clean(live, number)) {
		return 0;
	}
	if (fstatat(dirfd(level->dir), name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
		return live_is_fleeting(live, errno) ? 0 : error_sys(err, errno, "stat %s", name);
	}
	if (number != LIVE_NONE && ((live->index.entries[number].flags & LIVE_FOLDER) != 0) !=
					   S_ISDIR(status.st_mode)) {
		if (entry_forget(live, name, number, err) < 0) {
			return -(int)err->kind;
		}
		number = LIVE_NONE;
	}
	if (S_ISDIR(status.st_mode)) {
		return level_push(live, name, number, err);
	}
	mapped = live->mapped.count > 0 && live_mapped_has(&live->mapped, &status);
	entry = number != LIVE_NONE ? &live->index.entries[number] : NULL;
	if (entry == NULL || !is_current(live, entry, &status, mapped)) {
		return entry_renew(live, name, number, &status, mapped, err);
	}
	entry->pass = live->pass;
	return 0;
}

/* The next child that is not clean; its name is copied, as names move when one is added. */
static int step_known(struct live *live, struct live_level *level, struct error *err)
{
	const struct live_index *index = &live->index;
	char name[NAME_MAX + 1];

	while (level->next != LIVE_NONE && is_clean(live, level->next)) {
		level->next = index->entries[level->next].next;
	}
	if (level->next == LIVE_NONE) {
		return level_pop(live, err);
	}
	snprintf(name, sizeof(name), "%s", live_index_name(index, level->next));
	level->next = index->entries[level->next].next;
	return visit(live, name, err);
}

static int step(struct live *live, struct error *err)
{
	struct live_level *level = level_top(live);
	const struct dirent *found;

	if (level->known) {
		return step_known(live, level, err);
	}
	errno = 0;
	found = readdir(level->dir);
	if (found == NULL) {
		if (errno != 0 && !live_is_fleeting(live, errno)) {
			return error_sys(err, errno, "read a folder");
		}
		level->torn = errno != 0;
		return level_pop(live, err);
	}
	if (streq(found->d_name, ".") || streq(found->d_name, "..")) {
		return 0;
	}
	level->names++;
	return visit(live, found->d_name, err);
}

int live_pass(struct live *live, struct error *err)
{
	int status = 0;

	live->pass++;
	live->done = live->still = live->young = (struct live_work){0, 0};
	live->report.skipped = 0;
	if (live->frozen) {
		status = live_sweep(live, err);
	}
	if (status == 0) {
		status = root_push(live, err);
	}
	while (status == 0 && live->level_count > 0) {
		status = live_is_late(live) ? live_late(live, err) : step(live, err);
	}
	levels_drop(live);
	return status;
}
