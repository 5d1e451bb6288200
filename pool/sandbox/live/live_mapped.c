/*
 * Stores into a shared mapping change a file without a call. Those whose mappings are there while
 * the sandbox is frozen are found through /proc/PID/map_files, as the sandbox sees them: through
 * its overlay, whose inode numbers may be those of a lower layer. Size and times are the upper
 * file's own, so a file is known by these; another that has the same by chance is copied once more.
 */
#include "pool/sandbox/live/live_copy_private.h"

#include "base/memory.h"

#include <stdio.h>

#define PATH_SIZE 96

static void fclose_p(FILE **file)
{
	if (*file != NULL) {
		fclose(*file);
	}
}

static int by_times(const void *a, const void *b)
{
	const struct live_mapped_file *left = a, *right = b;

	if (left->ctime_ns != right->ctime_ns) {
		return left->ctime_ns < right->ctime_ns ? -1 : 1;
	}
	if (left->mtime_ns != right->mtime_ns) {
		return left->mtime_ns < right->mtime_ns ? -1 : 1;
	}
	return left->size < right->size ? -1 : left->size > right->size;
}

static struct live_mapped_file file_of(const struct stat *status)
{
	return (struct live_mapped_file){.size = status->st_size,
		.mtime_ns = live_time_ns(&status->st_mtim),
		.ctime_ns = live_time_ns(&status->st_ctim)};
}

/* A process that was killed since, although frozen, has no mappings any more. */
static bool has_ended(int sys)
{
	return sys == ENOENT || sys == ESRCH;
}

static int mapping_add(struct live_mapped *mapped, pid_t pid, unsigned long start,
	unsigned long end, struct error *err)
{
	char path[PATH_SIZE];
	struct stat status;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", pid, start, end);
	if (stat(path, &status) < 0) {
		return has_ended(errno) ? 0 : error_sys(err, errno, "stat %s", path);
	}
	if (S_ISREG(status.st_mode)) {
		*array_add(&mapped->files, &mapped->count, &mapped->room) = file_of(&status);
	}
	return 0;
}

static int process_read(struct live_mapped *mapped, pid_t pid, struct error *err)
{
	CLEANUP(fclose_p) FILE *maps = NULL;
	CLEANUP(free_p) char *line = NULL;
	char path[PATH_SIZE];
	size_t room = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (maps == NULL) {
		return has_ended(errno) ? 0 : error_sys(err, errno, "open %s", path);
	}
	while (getline(&line, &room, maps) > 0) {
		char *rest = NULL;
		unsigned long start = strtoul(line, &rest, 16), end;

		if (rest == NULL || *rest != '-') {
			continue;
		}
		end = strtoul(rest + 1, &rest, 16);
		/* " rw-s " */
		if (strlen(rest) < 5 || rest[2] != 'w' || rest[4] != 's') {
			continue;
		}
		if (mapping_add(mapped, pid, start, end, err) < 0) {
			return -(int)err->kind;
		}
	}
	return ferror(maps) != 0 && !has_ended(errno) ? error_sys(err, errno, "read %s", path) : 0;
}

int live_mapped_read(struct live_mapped *mapped, const pid_t *pids, size_t count, struct error *err)
{
	for (size_t i = 0; i < count; i++) {
		if (process_read(mapped, pids[i], err) < 0) {
			return -(int)err->kind;
		}
	}
	if (mapped->count > 0) {
		qsort(mapped->files, mapped->count, sizeof(*mapped->files), by_times);
	}
	return 0;
}

bool live_mapped_has(const struct live_mapped *mapped, const struct stat *status)
{
	struct live_mapped_file file = file_of(status);

	return mapped->count > 0 &&
	       bsearch(&file, mapped->files, mapped->count, sizeof(file), by_times) != NULL;
}
