/*
 * While the sandbox stands still: one look at each thing that was copied, by several threads. What
 * is surely still what its copy was made of is marked as seen; a folder only when all its names
 * were, as every change of these shows in its own ctime. So the walk that follows goes nowhere but
 * to the rest, and what fails here is only left to it. Nothing is remembered from one freeze to
 * another.
 */
#include "pool/sandbox/live/live_copy_private.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

/* Entries that a thread takes at a time: mostly neighbours, of one folder. */
#define BLOCK 128
#define THREADS_MAX 4
/* Fewer are looked at before another thread has started. */
#define ALONE_MAX 1024

struct sweep {
	struct live *live;
	_Atomic size_t next;
	atomic_bool late;
	bool rehearses;
};

/* One thread's. */
struct sweeper {
	uint32_t folder; /* that is open; LIVE_NONE: none */
	int fd; /* -1: it cannot be opened */
	char path[PATH_MAX];
};

/* From the root down; NULL: it is too long, or was removed meanwhile. */
static const char *path_of(const struct live_index *index, uint32_t folder, char *path)
{
	char *at = path + PATH_MAX - 1;

	*at = '\0';
	if (folder == LIVE_ROOT) {
		return ".";
	}
	while (folder != LIVE_ROOT) {
		const char *name = live_index_name(index, folder);
		size_t length = strlen(name);

		folder = index->entries[folder].parent;
		if (folder == LIVE_NONE || (size_t)(at - path) < length + 1) {
			return NULL;
		}
		at -= length;
		memcpy(at, name, length);
		if (folder != LIVE_ROOT) {
			*--at = '/';
		}
	}
	return at;
}

static void sweeper_enter(struct sweeper *sweeper, const struct live *live, uint32_t folder)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS};
	const char *path = path_of(&live->index, folder, sweeper->path);

	fd_done(&sweeper->fd);
	sweeper->folder = folder;
	if (path != NULL) {
		sweeper->fd =
			(int)syscall(SYS_openat2, live->spec->upper_fd, path, &how, sizeof(how));
	}
}

static bool is_same(const struct sweeper *sweeper, const struct live *live, uint32_t number)
{
	const struct live_entry *entry = &live->index.entries[number];
	bool is_folder = (entry->flags & LIVE_FOLDER) != 0;
	struct stat status;

	if (sweeper->fd < 0 || (entry->flags & LIVE_YOUNG) != 0 ||
		(is_folder && (entry->flags & LIVE_WHOLE) == 0) ||
		fstatat(sweeper->fd, is_folder ? "" : live_index_name(&live->index, number),
			&status, AT_SYMLINK_NOFOLLOW | (is_folder ? AT_EMPTY_PATH : 0)) < 0) {
		return false;
	}
	return entry->inode == status.st_ino && entry->ctime_ns == live_time_ns(&status.st_ctim) &&
	       is_folder == S_ISDIR(status.st_mode) && !live_mapped_has(&live->mapped, &status);
}

static void look(struct sweeper *sweeper, const struct live *live, uint32_t number, bool mark)
{
	bool same;

	struct live_entry *entry = &live->index.entries[number];
	uint32_t folder = (entry->flags & LIVE_FOLDER) != 0 ? number : entry->parent;

	if (entry->parent == LIVE_NONE && number != LIVE_ROOT) {
		return;
	}
	if (folder != sweeper->folder) {
		sweeper_enter(sweeper, live, folder);
	}
	same = is_same(sweeper, live, number);
	if (mark && same) {
		entry->pass = live->pass;
	} else if (mark) {
		entry->flags |= LIVE_DIRTY;
	}
}

static void *sweep_run(void *context)
{
	struct sweep *sweep = context;
	const struct live *live = sweep->live;
	struct sweeper sweeper = {.folder = LIVE_NONE, .fd = -1};
	size_t from;

	while ((from = atomic_fetch_add(&sweep->next, BLOCK)) < live->index.count) {
		for (size_t i = from; i < from + BLOCK && i < live->index.count; i++) {
			look(&sweeper, live, (uint32_t)i, !sweep->rehearses);
		}
		if (live_is_late(live)) {
			atomic_store(&sweep->late, true);
			break;
		}
	}
	fd_done(&sweeper.fd);
	return NULL;
}

static size_t threads_wanted(size_t entries)
{
	cpu_set_t cpus;
	size_t count;

	if (entries <= ALONE_MAX || sched_getaffinity(0, sizeof(cpus), &cpus) < 0) {
		return 1;
	}
	count = (size_t)CPU_COUNT(&cpus);
	return count < THREADS_MAX ? count : THREADS_MAX;
}

static void sweep_all(struct sweep *sweep)
{
	size_t wanted = threads_wanted(sweep->live->index.count), started = 0;
	pthread_t threads[THREADS_MAX];

	while (started + 1 < wanted &&
		pthread_create(&threads[started], NULL, sweep_run, sweep) == 0) {
		started++;
	}
	(void)sweep_run(sweep);
	while (started > 0) {
		(void)pthread_join(threads[--started], NULL);
	}
}

int64_t live_rehearse(struct live *live)
{
	struct sweep sweep = {.live = live, .rehearses = true};
	int64_t start_us = clock_mono_us();

	sweep_all(&sweep);
	return clock_mono_us() - start_us;
}

int live_sweep(struct live *live, struct error *err)
{
	struct sweep sweep = {.live = live};
	struct live_entry *entries = live->index.entries;

	sweep_all(&sweep);
	if (atomic_load(&sweep.late)) {
		return live_late(live, err);
	}
	/* What lies in a folder has a higher number. */
	for (size_t i = live->index.count - 1; i > 0; i--) {
		if ((entries[i].flags & LIVE_DIRTY) != 0 && entries[i].parent != LIVE_NONE) {
			entries[entries[i].parent].flags |= LIVE_DIRTY;
		}
	}
	return 0;
}

/* ---- the numbers ---- */

static void line_add(struct live *live, const struct live_entry *entry, uint64_t path)
{
	if ((entry->flags & LIVE_REGULAR) != 0 &&
		(entry->flags & (LIVE_MAPPED | LIVE_YOUNG)) == 0) {
		*array_add(&live->list.lines, &live->list.count, &live->list.room) =
			(struct live_line){path, entry->inode, entry->ctime_ns};
	}
}

void live_count(struct live *live)
{
	struct live_entry *entries = live->index.entries;
	struct sandbox_copied *report = &live->report;
	CLEANUP(free_p) uint64_t *paths = xcalloc(live->index.count, sizeof(*paths));

	report->files = 1; /* the folder itself */
	for (size_t i = 1; i < live->index.count; i++) {
		struct live_entry *entry = &entries[i];

		if (entry->parent == LIVE_NONE ||
			(entry->parent != LIVE_ROOT &&
				entries[entry->parent].parent == LIVE_NONE)) {
			entry->parent = LIVE_NONE; /* so is what lies in it */
			continue;
		}
		paths[i] = live_path_hash(
			paths[entry->parent], live_index_name(&live->index, (uint32_t)i));
		report->files++;
		if ((entry->flags & LIVE_REGULAR) != 0) {
			report->bytes += entry->bytes;
			report->cloned += (entry->flags & LIVE_CLONED) != 0 ? 1 : 0;
			report->linked += (entry->flags & LIVE_LINKED) != 0 ? 1 : 0;
			report->copied += (entry->flags & (LIVE_CLONED | LIVE_LINKED)) == 0 ? 1 : 0;
		}
		if (live->spec->list_fd >= 0) {
			line_add(live, entry, paths[i]);
		}
	}
}
