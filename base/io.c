/* Reading, writing and naming files, one descriptor at a time. Trees are in base/tree.c. */
#include "base/io.h"

#include "base/memory.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define COPY_CHUNK 65536

int io_read_full(int fd, void *data, size_t length, struct error *err)
{
	size_t done = 0;

	while (done < length) {
		ssize_t got = read(fd, (char *)data + done, length - done);

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return error_sys(err, errno, "read");
		}
		if (got == 0) {
			return error_set(err, ERROR_CORRUPT, "read: ended after %zu of %zu bytes",
				done, length);
		}
		done += (size_t)got;
	}
	return 0;
}

int io_write_full(int fd, const void *data, size_t length, struct error *err)
{
	size_t done = 0;

	while (done < length) {
		ssize_t put = write(fd, (const char *)data + done, length - done);

		if (put < 0 && errno == EINTR) {
			continue;
		}
		if (put < 0) {
			return error_sys(err, errno, "write");
		}
		done += (size_t)put;
	}
	return 0;
}

int io_read_file(int dir_fd, const char *path, struct buffer *buffer, struct error *err)
{
	CLEANUP(close_p) int fd = io_open(dir_fd, path, O_RDONLY, 0, err);
	char chunk[COPY_CHUNK];
	ssize_t got;

	if (fd < 0) {
		return fd;
	}
	while ((got = read(fd, chunk, sizeof(chunk))) != 0) {
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return error_sys(err, errno, "read %s", path);
		}
		if (!buffer_add(buffer, chunk, (size_t)got)) {
			return error_set(
				err, ERROR_LIMIT, "%s is larger than %zu bytes", path, buffer->max);
		}
	}
	return 0;
}

static int write_and_rename(int dir_fd, const char *temporary, const char *path, const void *data,
	size_t length, mode_t mode, struct error *err)
{
	CLEANUP(close_p)
	int fd = io_open(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL, mode, err);

	if (fd < 0) {
		return fd;
	}
	if (io_write_full(fd, data, length, err) < 0) {
		return error_wrap(err, "%s", path);
	}
	if (fsync(fd) < 0) {
		return error_sys(err, errno, "fsync %s", path);
	}
	if (renameat(dir_fd, temporary, dir_fd, path) < 0) {
		return error_sys(err, errno, "rename to %s", path);
	}
	return 0;
}

int io_write_file(int dir_fd, const char *path, const void *data, size_t length, mode_t mode,
	struct error *err)
{
	char suffix[ID_SIZE];
	CLEANUP(free_p) char *temporary = NULL;
	int status;

	id_random(suffix, ".tmp-");
	temporary = xasprintf("%s%s", path, suffix);
	status = write_and_rename(dir_fd, temporary, path, data, length, mode, err);
	if (status < 0) {
		unlinkat(dir_fd, temporary, 0);
	}
	return status;
}

int io_open(int dir_fd, const char *path, int flags, mode_t mode, struct error *err)
{
	int fd = openat(dir_fd, path, flags | O_CLOEXEC, mode);

	return fd >= 0 ? fd : error_sys(err, errno, "open %s", path);
}

int io_open_beneath(int dir_fd, const char *path, int flags, mode_t mode, struct error *err)
{
	struct open_how how = {
		.flags = (unsigned)flags | O_CLOEXEC,
		.mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? mode : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd;

	do {
		fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
	} while (fd < 0 && (errno == EAGAIN || errno == EINTR));
	return fd >= 0 ? (int)fd : error_sys(err, errno, "open %s", path);
}

int io_mkdir_all(int dir_fd, const char *path, mode_t mode, struct error *err)
{
	CLEANUP(free_p) char *copy = xstrdup(path);

	for (char *slash = copy + 1; *copy != '\0'; slash++) {
		char was = *slash;

		if (was != '/' && was != '\0') {
			continue;
		}
		*slash = '\0';
		if (mkdirat(dir_fd, copy, mode) < 0 && errno != EEXIST) {
			return error_sys(err, errno, "mkdir %s", copy);
		}
		*slash = was;
		if (was == '\0') {
			break;
		}
	}
	return 0;
}

int io_fsync_dir(int dir_fd, const char *path, struct error *err)
{
	CLEANUP(close_p) int fd = io_open(dir_fd, path, O_RDONLY | O_DIRECTORY, 0, err);

	if (fd < 0) {
		return fd;
	}
	return fsync(fd) < 0 ? error_sys(err, errno, "fsync %s", path) : 0;
}

void io_spread_below(int dir_fd, const char *path)
{
	struct error ignored = ERROR_INIT;
	CLEANUP(close_p)
	int fd = io_open(dir_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, &ignored);
	int flags = 0;

	if (fd >= 0 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & FS_TOPDIR_FL) == 0) {
		flags |= FS_TOPDIR_FL;
		(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
}

DIR *io_opendir(int dir_fd, const char *path, struct error *err)
{
	int fd = io_open(dir_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
	DIR *dir;

	if (fd < 0) {
		return NULL;
	}
	dir = fdopendir(fd);
	if (dir == NULL) {
		error_sys(err, errno, "open folder %s", path);
		close(fd);
	}
	return dir;
}

ssize_t io_send_fds(
	int fd, const void *data, size_t length, const int *fds, size_t fd_count, int flags)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * IO_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec part = {(void *)(uintptr_t)data, length};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	ssize_t sent;

	if (fd_count > IO_FDS_MAX) {
		errno = E2BIG;
		return -1;
	}
	if (fd_count > 0) {
		struct cmsghdr *header;

		memset(&control, 0, sizeof(control));
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(header), fds, sizeof(int) * fd_count);
	}
	do {
		sent = sendmsg(fd, &message, flags | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent;
}

ssize_t io_recv_fds(
	int fd, void *data, size_t length, int *ret_fds, size_t *ret_fd_count, int flags)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * IO_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec part = {data, length};
	struct msghdr message = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes)};
	ssize_t got;

	do {
		got = recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	*ret_fd_count = 0;
	if (got < 0) {
		return got;
	}
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL;
		header = CMSG_NXTHDR(&message, header)) {
		size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
			memcpy(ret_fds + *ret_fd_count, CMSG_DATA(header), count * sizeof(int));
			*ret_fd_count += count;
		}
	}
	return got;
}

int io_set_nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0) {
		return -1;
	}
	return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

bool name_is_valid(const char *name)
{
	size_t length = strlen(name);

	return length > 0 && length <= NAME_MAX_LENGTH && name[0] != '.' && name[0] != '-' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

void id_random(char *text, const char *prefix)
{
	uint64_t bits = 0;

	while (getrandom(&bits, sizeof(bits), 0) != (ssize_t)sizeof(bits)) {
		continue;
	}
	snprintf(
		text, ID_SIZE, "%s%012llx", prefix, (unsigned long long)(bits & 0xffffffffffffULL));
}
