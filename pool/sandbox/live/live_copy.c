/*
 * The order of a live copy: everything is synced, copied while the sandbox runs, and again what has
 * changed, until what is left is small or does not get smaller; then the sandbox stands still for
 * one more pass. Whatever fails, it runs again afterwards.
 */
#include "pool/sandbox/live/live_copy_private.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <time.h>

/* What a sandbox may wait for: a few milliseconds of copying. */
#define SMALL_FILES 64
#define SMALL_BYTES (4U * 1024 * 1024)
/* A sandbox that changes as fast as it is copied is frozen after as many, with what there is. */
#define PASSES_MAX 6
/* A whole pass as quick as this leaves no time for much to change. */
#define QUICK_US 20000
/* From so many entries on, it pays to find out beforehand how long looking at them takes. */
#define REHEARSE_ENTRIES 20000
/* Once in a copy: until files that nobody changes any more are no longer young. */
#define SETTLE_NS (LIVE_YOUNG_NS + 50000000LL)
#define SETTLE_STEP_NS 20000000LL

int64_t live_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return live_time_ns(&now);
}

static bool is_small(const struct live_work *work)
{
	return work->files <= SMALL_FILES && work->bytes <= SMALL_BYTES;
}

static int fault(const char *point, struct error *err)
{
	int sys = fault_point(point);

	return sys == 0 ? 0 : error_sys(err, sys, "%s", point);
}

/* Asked once, of two empty files: the file system's own answer. */
static int clone_probe(struct live *live, struct error *err)
{
	static const char *const names[] = {"clone-from", "clone-to"};
	int fds[2] = {-1, -1}, status = 0;

	for (size_t i = 0; i < 2 && status == 0; i++) {
		fds[i] = io_open(
			live->spec->scratch_fd, names[i], O_RDWR | O_CREAT | O_EXCL, 0600, err);
		status = fds[i] < 0 ? fds[i] : 0;
	}
	if (status == 0) {
		live->cannot_clone = ioctl(fds[1], FICLONE, fds[0]) < 0;
	}
	for (size_t i = 0; i < 2; i++) {
		fd_done(&fds[i]);
		(void)unlinkat(live->spec->scratch_fd, names[i], 0);
	}
	return status;
}

/* Sleeps until what was changed before `since_ns` is no longer young, a little at a time so that it
 * may be given up. */
static int settle(struct live *live, int64_t since_ns, struct error *err)
{
	const struct live_copy_spec *spec = live->spec;
	const struct timespec pause = {0, SETTLE_STEP_NS};
	int64_t left_ns = since_ns + SETTLE_NS - live_now_ns();

	for (; left_ns > 0 && left_ns <= SETTLE_NS; left_ns -= SETTLE_STEP_NS) {
		if (spec->cancelled != NULL && spec->cancelled(spec->context)) {
			return error_set(err, ERROR_CANCELLED, "the copy is not wanted any more");
		}
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	}
	return 0;
}

static int copy_running(struct live *live, struct error *err)
{
	bool settled = false;

	while (live->pass < PASSES_MAX - 1) {
		int64_t since_ns = live_now_ns(), start_us = clock_mono_us();
		bool quick;

		if (live_pass(live, err) < 0 || fault("live.pass", err) < 0) {
			return -(int)err->kind;
		}
		quick = clock_mono_us() - start_us < QUICK_US;
		if (is_small(&live->young) && (quick || is_small(&live->done))) {
			break;
		}
		if (!settled && live->pass > 1 && !is_small(&live->still)) {
			if (settle(live, since_ns, err) < 0) {
				return -(int)err->kind;
			}
			settled = true;
		}
	}
	return 0;
}

/* Looking at everything once more is the least of the pause; what is then copied comes on top. */
static int foresee(struct live *live, struct error *err)
{
	int64_t most_us = live->spec->max_pause_us, expected_us;

	if (live->index.count < REHEARSE_ENTRIES) {
		return 0;
	}
	expected_us = live_rehearse(live);
	live->report.expected_us = expected_us;
	if (most_us == 0 || expected_us <= most_us) {
		return 0;
	}
	error_set(err, ERROR_LIMIT,
		"the sandbox would stand still for %lld ms or more, as %zu changed files have to "
		"be "
		"looked at; allowed are %lld ms",
		(long long)(expected_us / 1000), live->index.count, (long long)(most_us / 1000));
	return error_hint(err, "allow it a longer pause, delete what need not be kept, or keep it "
			       "when it ends: that takes no longer for many files");
}

static int copy_frozen(struct live *live, struct error *err)
{
	const struct live_copy_spec *spec = live->spec;
	CLEANUP(free_p) pid_t *pids = NULL;
	size_t count = 0;

	live->frozen = true;
	if (fault("live.frozen", err) < 0 ||
		spec->processes(spec->context, &pids, &count, err) < 0 ||
		live_mapped_read(&live->mapped, pids, count, err) < 0 || live_pass(live, err) < 0) {
		return -(int)err->kind;
	}
	return fault("live.copied", err);
}

static int copy_pausing(struct live *live, struct error *err)
{
	const struct live_copy_spec *spec = live->spec;
	int64_t start_us = clock_mono_us();
	struct error thawing = ERROR_INIT;
	int status = spec->freeze(spec->context, err);

	if (status == 0) {
		live->deadline_us = spec->max_pause_us > 0 ? start_us + spec->max_pause_us : 0;
		status = copy_frozen(live, err);
	}
	if (spec->thaw(spec->context, &thawing) < 0 && status == 0) {
		error_copy(err, &thawing);
		status = -(int)err->kind;
	}
	live->deadline_us = 0;
	live->report.pause_us = clock_mono_us() - start_us;
	return status;
}

static int scratch_empty(int scratch_fd, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(scratch_fd, ".", err);
	const struct dirent *found;

	if (dir == NULL) {
		return -(int)err->kind;
	}
	while ((found = readdir(dir)) != NULL) {
		if (!streq(found->d_name, ".") && !streq(found->d_name, "..") &&
			io_remove_tree(scratch_fd, found->d_name, err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

static int copy(struct live *live, struct error *err)
{
	const struct live_copy_spec *spec = live->spec;

	if (syncfs(spec->upper_fd) < 0) {
		return error_sys(err, errno, "sync the sandbox's folder");
	}
	if (clone_probe(live, err) < 0 || fault("live.synced", err) < 0 ||
		copy_running(live, err) < 0 || foresee(live, err) < 0 ||
		copy_pausing(live, err) < 0 || fault("live.thawed", err) < 0 ||
		scratch_empty(spec->scratch_fd, err) < 0) {
		return -(int)err->kind;
	}
	live_count(live);
	return spec->list_fd >= 0 ? live_list_write(&live->list, spec->list_fd, spec->tree_fd, err)
				  : 0;
}

static void live_done(struct live *live)
{
	live_index_done(&live->index);
	live_list_done(&live->previous);
	live_list_done(&live->list);
	free(live->shares.slots);
	free(live->mapped.files);
	free(live->levels);
	free(live->buffer);
}

int live_copy(
	const struct live_copy_spec *spec, struct sandbox_copied *ret_copied, struct error *err)
{
	CLEANUP(live_done) struct live live = {.spec = spec};
	int64_t start_us = clock_mono_us();

	live_index_init(&live.index);
	live.buffer = xmalloc(LIVE_BUFFER_SIZE);
	live_list_read(spec->previous_list_fd, spec->previous_fd, &live.previous);
	if (copy(&live, err) < 0) {
		return error_wrap(err, "copy what the sandbox has changed");
	}
	live.report.passes = live.pass;
	live.report.total_us = clock_mono_us() - start_us;
	*ret_copied = live.report;
	return 0;
}
