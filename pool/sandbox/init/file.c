/*
 * File requests: a few at a time, each moved on by one piece in a turn of the loop, so that a large
 * file or folder holds nothing else up. Only regular files are read or written, and they are opened
 * without blocking: whoever is inside may put a fifo in their place at any time.
 */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct file_job *jobs;

struct file_job *file_find(uint32_t id)
{
	for (struct file_job *job = jobs; job != NULL; job = job->next) {
		if (job->id == id && !job->dead) {
			return job;
		}
	}
	return NULL;
}

static size_t job_count(void)
{
	size_t count = 0;

	for (const struct file_job *job = jobs; job != NULL; job = job->next) {
		count += job->dead ? 0 : 1;
	}
	return count;
}

/* Gives up what it holds; file_bury frees it. */
void file_cancel(struct file_job *job)
{
	if (job->temporary[0] != '\0') {
		(void)unlinkat(job->dir_fd, job->temporary, 0);
		job->temporary[0] = '\0';
	}
	fd_close(&job->fd);
	fd_close(&job->dir_fd);
	removal_free(job->removal);
	job->removal = NULL;
	job->dead = true;
}

void file_cancel_all(void)
{
	for (struct file_job *job = jobs; job != NULL; job = job->next) {
		file_cancel(job);
	}
}

void file_bury(void)
{
	struct file_job **at = &jobs;

	while (*at != NULL) {
		struct file_job *job = *at;

		if (job->dead) {
			*at = job->next;
			free(job->name);
			free(job->path);
			free(job);
		} else {
			at = &job->next;
		}
	}
}

/* Answers last: whoever hears it must find no rest of it. */
void file_fail(struct file_job *job, int sys, const char *what)
{
	file_cancel(job);
	wire_refuse(job->id, sys, "%.300s: %s", job->path, what != NULL ? what : strerror(sys));
}

void file_done(struct file_job *job, uint64_t count)
{
	file_cancel(job);
	wire_send(INIT_FILE_DONE, job->id, &count, sizeof(count), NULL, 0);
}

void file_send_info(const struct file_job *job, const struct stat *st)
{
	struct init_file_info info = {
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.size = (uint64_t)st->st_size,
		.mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
	};

	wire_send(INIT_FILE_INFO, job->id, &info, sizeof(info), NULL, 0);
}

/* What kind of thing it is must be known before it is opened: opening some devices does something.
 * That it may be another thing by then is why it is looked at again. */
static void read_start(struct file_job *job)
{
	int seen = path_open(-1, job->path, O_PATH, 0);
	struct stat st;
	int sys;

	if (seen < 0) {
		file_fail(job, -seen, NULL);
		return;
	}
	sys = fstat(seen, &st) < 0 ? errno : S_ISDIR(st.st_mode) ? EISDIR : 0;
	close(seen);
	if (sys == 0 && S_ISREG(st.st_mode)) {
		job->fd = path_open(-1, job->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
		sys = job->fd < 0 ? -job->fd : fstat(job->fd, &st) < 0 ? errno : 0;
	}
	if (sys != 0) {
		file_fail(job, sys, NULL);
	} else if (!S_ISREG(st.st_mode)) {
		file_fail(job, EINVAL, "not a regular file");
	} else if ((uint64_t)st.st_size > job->request.bytes_max) {
		file_fail(job, EFBIG, "larger than what may be read at once");
	} else {
		job->size = (uint64_t)st.st_size;
		job->grant = INIT_WINDOW_DEFAULT;
		file_send_info(job, &st);
	}
}

static void read_run(struct file_job *job)
{
	uint64_t max = job->grant < PAYLOAD_MAX ? job->grant : PAYLOAD_MAX;
	ssize_t got;

	if (job->size > 0 && max > job->size - job->bytes) {
		max = job->size - job->bytes;
	}
	got = max > 0 ? read(job->fd, scratch, (size_t)max) : 0;
	scratch_used(got);
	if (got < 0 && errno != EINTR) {
		file_fail(job, errno, NULL);
	} else if (got == 0) {
		file_done(job, job->bytes);
	} else if (got > 0) {
		job->bytes += (uint64_t)got;
		job->grant -= (uint64_t)got;
		if (job->bytes > job->request.bytes_max) {
			file_fail(job, EFBIG, "larger than what may be read at once");
			return;
		}
		wire_send(INIT_FILE_DATA, job->id, NULL, 0, scratch, (size_t)got);
	}
}

static void list_start(struct file_job *job)
{
	struct stat st;

	job->fd = path_open(-1, job->path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, 0);
	if (job->fd < 0 || fstat(job->fd, &st) < 0) {
		file_fail(job, job->fd < 0 ? -job->fd : errno, NULL);
		return;
	}
	file_send_info(job, &st);
}

static void remove_start(struct file_job *job)
{
	int result = path_parent(job->path, false, false, &job->dir_fd, &job->name);
	struct stat st;

	if (result < 0 || job->name == NULL) {
		file_fail(job, result < 0 ? -result : ENOMEM,
			result == -EISDIR ? "cannot be removed" : NULL);
		return;
	}
	if (fstatat(job->dir_fd, job->name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		file_fail(job, errno, NULL);
	} else if (!S_ISDIR(st.st_mode)) {
		if (unlinkat(job->dir_fd, job->name, 0) < 0) {
			file_fail(job, errno, NULL);
		} else {
			file_done(job, 1);
		}
	} else if ((job->request.flags & INIT_FILE_RECURSIVE) != 0) {
		job->removal = removal_new(job->dir_fd, job->name);
		if (job->removal == NULL) {
			file_fail(job, errno, errno == EXDEV ? "is a mount point" : NULL);
		}
	} else if (unlinkat(job->dir_fd, job->name, AT_REMOVEDIR) < 0) {
		file_fail(job, errno, errno == ENOTEMPTY ? "folder is not empty" : NULL);
	} else {
		file_done(job, 1);
	}
}

static void remove_run(struct file_job *job)
{
	int result = removal_run(job->removal);

	if (result < 0) {
		file_fail(job, -result,
			result == -EXDEV    ? "something is mounted in it"
			: result == -ESTALE ? "changed while it was removed"
			: result == -ELOOP  ? "nested too deep to be removed at once"
					    : NULL);
	} else if (result == 1) {
		file_done(job, removal_count(job->removal));
	}
}

struct file_job *file_job_new(uint32_t type, uint32_t id, const char *path, size_t path_length)
{
	struct file_job **last = &jobs;
	struct file_job *job;

	if (id < INIT_FILE_ID_FIRST || file_find(id) != NULL) {
		wire_refuse(id, EEXIST, "%u: not a free number for a file request", id);
		return NULL;
	}
	if (job_count() >= INIT_FILES_MAX) {
		wire_refuse(id, EBUSY, "more than %d file requests at a time", INIT_FILES_MAX);
		return NULL;
	}
	job = calloc(1, sizeof(*job));
	if (job == NULL || (job->path = strndup(path, path_length)) == NULL) {
		free(job);
		wire_refuse(id, ENOMEM, "no memory for a file request");
		return NULL;
	}
	job->id = id;
	job->type = type;
	job->fd = -1;
	job->dir_fd = -1;
	while (*last != NULL) {
		last = &(*last)->next;
	}
	*last = job;
	return job;
}

void file_request(uint32_t type, uint32_t id, const char *body, size_t length)
{
	size_t path_length =
		length > sizeof(struct init_file) ? length - sizeof(struct init_file) : 0;
	const char *path = body + sizeof(struct init_file);
	struct file_job *job;

	if (path_length == 0 || path[0] != '/' || memchr(path, '\0', path_length) != NULL) {
		wire_refuse(id, EINVAL, "not an absolute path");
		return;
	}
	job = file_job_new(type, id, path, path_length);
	if (job == NULL) {
		return;
	}
	memcpy(&job->request, body, sizeof(job->request));
	if (type == INIT_FILE_READ) {
		read_start(job);
	} else if (type == INIT_FILE_WRITE) {
		file_write_start(job);
	} else if (type == INIT_FILE_LIST) {
		list_start(job);
	} else {
		remove_start(job);
	}
}

/* Can it go on without anything from outside? Writing only goes on by packets. */
static bool is_runnable(const struct file_job *job)
{
	if (job->type == INIT_LOG) {
		return !job->dead && wire_is_clear() && log_is_runnable(job);
	}
	return !job->dead && wire_is_clear() && job->type != INIT_FILE_WRITE &&
	       (job->type != INIT_FILE_READ || job->grant > 0);
}

void file_logs_move(uint32_t from, uint32_t to)
{
	for (struct file_job *job = jobs; job != NULL; job = job->next) {
		if (job->type == INIT_LOG && job->log.exec == from) {
			job->log.exec = to;
		}
	}
}

bool file_run(void)
{
	bool more = false;

	for (struct file_job *job = jobs; job != NULL; job = job->next) {
		if (!is_runnable(job)) {
			continue;
		}
		if (job->type == INIT_FILE_READ) {
			read_run(job);
		} else if (job->type == INIT_LOG) {
			log_run(job);
		} else if (job->type == INIT_FILE_LIST) {
			file_list_run(job);
		} else {
			remove_run(job);
		}
		more = is_runnable(job) || more;
	}
	return more;
}
