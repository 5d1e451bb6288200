/* The note in the lock is for people: a holder that dies leaves an old one, but no lock. */
#include "builder/lock.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#define NOTE_SIZE 128

static int busy(int fd, const char *environment, struct error *err)
{
	char note[NOTE_SIZE] = "", since[CLOCK_TEXT_SIZE] = "";
	long long pid = 0, build = 0;
	ssize_t got = pread(fd, note, sizeof(note) - 1, 0);

	if (got <= 0 || sscanf(note, "pid %lld build %lld since %31s", &pid, &build, since) != 3) {
		return error_set(
			err, ERROR_BUSY, "%s is being built by another process", environment);
	}
	if (build == 0) {
		return error_set(err, ERROR_BUSY, "%s is being built by process %lld since %s",
			environment, pid, since);
	}
	error_set(err, ERROR_BUSY, "%s is being built by process %lld since %s (bld-%lld)",
		environment, pid, since, build);
	return error_hint(err, "hob builds log bld-%lld --follow", build);
}

int build_lock(int store_fd, const char *environment, int *ret_fd, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("builds/%s.lock", environment);
	CLEANUP(close_p) int fd = io_open(store_fd, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, err);

	if (fd < 0) {
		return error_wrap(err, "lock the builds of %s", environment);
	}
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK) {
			return busy(fd, environment, err);
		}
		if (errno != EINTR) {
			return error_sys(err, errno, "lock the builds of %s", environment);
		}
	}
	build_lock_note(fd, 0);
	*ret_fd = steal_fd(&fd);
	return 0;
}

void build_lock_note(int fd, int64_t build_id)
{
	char note[NOTE_SIZE], since[CLOCK_TEXT_SIZE];
	int length;

	clock_format(since, clock_real_ms());
	length = snprintf(note, sizeof(note), "pid %d build %lld since %s\n", (int)getpid(),
		(long long)build_id, since);
	/* A full disk costs the note only. */
	if (ftruncate(fd, 0) == 0) {
		(void)!pwrite(fd, note, (size_t)length, 0);
	}
}
