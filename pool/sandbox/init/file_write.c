/*
 * Writing a file: under a temporary name in its folder, which takes the real name at the end. So a
 * reader inside sees the old file or the new one, and what is cut off leaves nothing behind.
 */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#define MODE_BITS 07777
#define CREATE_TRIES 8
#define REPORT_AT (INIT_WINDOW_DEFAULT / 4)

/* The file that will be replaced, if any, must be a regular one. 0 or an errno. */
static int target_check(const struct file_job *job, bool *ret_exists, struct stat *st)
{
	*ret_exists = fstatat(job->dir_fd, job->name, st, AT_SYMLINK_NOFOLLOW) == 0;
	if (!*ret_exists) {
		return errno == ENOENT ? 0 : errno;
	}
	return S_ISREG(st->st_mode) ? 0 : S_ISDIR(st->st_mode) ? EISDIR : EINVAL;
}

static int temporary_open(struct file_job *job)
{
	static uint32_t counter;

	for (int i = 0; i < CREATE_TRIES; i++) {
		text_format(job->temporary, sizeof(job->temporary), ".hob-%08x-%08x",
			(uint32_t)now_us(), counter++);
		job->fd = path_open(job->dir_fd, job->temporary,
			O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NONBLOCK, 0);
		if (job->fd >= 0) {
			return 0;
		}
		if (job->fd != -EEXIST) {
			break;
		}
	}
	job->temporary[0] = '\0';
	return -job->fd;
}

void file_write_start(struct file_job *job)
{
	bool make = (job->request.flags & INIT_FILE_PARENTS) != 0;
	int result = path_parent(job->path, make, true, &job->dir_fd, &job->name);
	bool exists = false;
	struct statfs fs;
	struct stat st;
	int sys;

	if (result < 0 || job->name == NULL) {
		file_fail(job, result < 0 ? -result : ENOMEM, NULL);
		return;
	}
	if (fstatfs(job->dir_fd, &fs) < 0 || (unsigned long)fs.f_type == PROC_SUPER_MAGIC) {
		file_fail(job, EACCES, "files of the kernel are not written from outside");
		return;
	}
	sys = target_check(job, &exists, &st);
	if (sys != 0) {
		file_fail(job, sys, sys == EINVAL ? "not a regular file" : NULL);
		return;
	}
	sys = temporary_open(job);
	if (sys != 0) {
		job->fd = -1;
		file_fail(job, sys, NULL);
		return;
	}
	if (exists) {
		/* Whoever owned it goes on owning it. */
		(void)!fchown(job->fd, st.st_uid, st.st_gid);
	}
	wire_send_u32(INIT_STDIN_WINDOW, job->id, INIT_WINDOW_DEFAULT);
}

void file_data(struct file_job *job, const char *data, size_t length)
{
	if (job->type != INIT_FILE_WRITE) {
		wire_reject();
		return;
	}
	job->bytes += length;
	if (job->bytes > job->request.bytes_max) {
		file_fail(job, EFBIG, "larger than what may be written");
		return;
	}
	job->unreported += (uint32_t)length;
	while (length > 0) {
		ssize_t put = write(job->fd, data, length);

		if (put < 0 && errno == EINTR) {
			continue;
		}
		if (put <= 0) {
			file_fail(job, put < 0 ? errno : EIO, NULL);
			return;
		}
		data += put;
		length -= (size_t)put;
	}
	if (job->unreported >= REPORT_AT) {
		wire_send_u32(INIT_STDIN_WINDOW, job->id, job->unreported);
		job->unreported = 0;
	}
}

void file_end(struct file_job *job)
{
	if (job->type != INIT_FILE_WRITE) {
		wire_reject();
		return;
	}
	if (fchmod(job->fd, (mode_t)(job->request.mode & MODE_BITS)) < 0 ||
		renameat(job->dir_fd, job->temporary, job->dir_fd, job->name) < 0) {
		file_fail(job, errno, NULL);
		return;
	}
	job->temporary[0] = '\0';
	file_done(job, job->bytes);
}
