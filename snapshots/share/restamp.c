/*
 * The times of folders whose names are replaced. They are in layers/<id>/times, synced, before the
 * first name is; the file is locked by the process at work and goes after everything else has been
 * synced. Whoever finds it there unlocked finishes what a killed process did not.
 */
#include "snapshots/share/share_private.h"

#include "base/buffer.h"
#include "base/io.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>

#define TIMES_FILE "times"
#define TIMES_NEW "times.new"
#define TIMES_MAX (1u << 30)

void restamp_add(struct restamp *restamp, const char *path, const struct stat *status)
{
	buffer_addf(&restamp->text, "%" PRId64 " %ld ", (int64_t)status->st_mtim.tv_sec,
		status->st_mtim.tv_nsec);
	buffer_add(&restamp->text, path, strlen(path) + 1);
}

static int write_text(int fd, const struct buffer *text, struct error *err)
{
	for (size_t put = 0; put < text->length;) {
		ssize_t more = write(fd, text->data + put, text->length - put);

		if (more < 0 && errno != EINTR) {
			return error_sys(err, errno, "write " TIMES_NEW);
		}
		put += more > 0 ? (size_t)more : 0;
	}
	return 0;
}

int restamp_begin(struct restamp *restamp, int layer_fd, struct error *err)
{
	CLEANUP(close_p) int fd = -1;

	/* What a killed one was writing when it was killed says nothing. */
	if (unlinkat(layer_fd, TIMES_NEW, 0) < 0 && errno != ENOENT) {
		return error_sys(err, errno, "remove " TIMES_NEW);
	}
	fd = io_open(layer_fd, TIMES_NEW, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, err);
	if (fd < 0) {
		return fd;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		return error_sys(err, errno, "lock " TIMES_NEW);
	}
	if (write_text(fd, &restamp->text, err) < 0) {
		return -(int)err->kind;
	}
	if (fsync(fd) < 0 || renameat(layer_fd, TIMES_NEW, layer_fd, TIMES_FILE) < 0 ||
		fsync(layer_fd) < 0) {
		return error_sys(err, errno, "write " TIMES_FILE);
	}
	restamp->layer_fd = layer_fd;
	restamp->fd = steal_fd(&fd);
	return store_fault("share.noted", err);
}

static int restore_one(int tree, const char *path, struct timespec time, struct error *err)
{
	CLEANUP(close_p)
	int fd = io_open_beneath(tree, *path != '\0' ? path : ".", O_RDONLY | O_DIRECTORY, 0, err);
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time};

	if (fd < 0) {
		return fd;
	}
	return futimens(fd, times) < 0 ? error_sys(err, errno, "set the time of %s", path) : 0;
}

static int restore_all(int layer_fd, const struct buffer *text, struct error *err)
{
	CLEANUP(close_p)
	int tree = io_open(layer_fd, "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
	int status = tree < 0 ? tree : 0;

	for (size_t at = 0; status == 0 && at < text->length;) {
		const char *line = text->data + at;
		int64_t seconds = 0;
		long nanoseconds = 0;
		int path = 0;

		if (sscanf(line, "%" SCNd64 " %ld%n", &seconds, &nanoseconds, &path) != 2) {
			return error_set(err, ERROR_CORRUPT, TIMES_FILE " is damaged");
		}
		status = restore_one(tree, line + path + 1,
			(struct timespec){.tv_sec = seconds, .tv_nsec = nanoseconds}, err);
		at += strlen(line) + 1;
	}
	return status;
}

int restamp_end(struct restamp *restamp, struct error *err)
{
	int status = restore_all(restamp->layer_fd, &restamp->text, err);

	if (status == 0) {
		status = store_fault("share.restored", err);
	}
	if (status == 0 && syncfs(restamp->layer_fd) < 0) {
		status = error_sys(err, errno, "sync a layer");
	}
	if (status == 0 && unlinkat(restamp->layer_fd, TIMES_FILE, 0) < 0) {
		status = error_sys(err, errno, "remove " TIMES_FILE);
	}
	return status;
}

void restamp_done(struct restamp *restamp)
{
	fd_done(&restamp->fd);
	buffer_done(&restamp->text);
}

int share_settle(int layer_fd, struct error *err)
{
	CLEANUP(restamp_done) struct restamp restamp = {.layer_fd = layer_fd, .fd = -1};
	struct stat status;
	int code;

	restamp.fd = openat(layer_fd, TIMES_FILE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (restamp.fd < 0) {
		return errno == ENOENT ? 0 : error_sys(err, errno, "open " TIMES_FILE);
	}
	if (flock(restamp.fd, LOCK_EX) < 0 || fstat(restamp.fd, &status) < 0) {
		return error_sys(err, errno, "wait for a sharing");
	}
	if (status.st_nlink == 0) {
		return 0; /* it has ended well */
	}
	restamp.text.max = TIMES_MAX;
	code = io_read_file(layer_fd, TIMES_FILE, &restamp.text, err);
	if (code == 0) {
		code = restamp_end(&restamp, err);
	}
	if (code < 0) {
		error_wrap(err, "end an interrupted sharing");
		return error_hint(err, "hob snapshots dedupe, as root, ends it");
	}
	return 0;
}
