/*
 * The content and the attributes of one file, from a descriptor to a descriptor. Never more than
 * the size that the file had when it was looked at, so that a growing file comes to an end.
 */
#include "pool/sandbox/live/live_copy_private.h"

#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

/* While the sandbox waits: sharing the blocks of a file needs its data on disk, copying does not.
 */
#define COPY_RATHER_BYTES (128 * 1024)
/* XATTR_LIST_MAX and XATTR_SIZE_MAX. */
#define XATTRS_SIZE 65536
/* Of a large file at a time, so that giving up does not wait for its end. */
#define CHUNK_BYTES ((size_t)8 << 20)

static int range_by_buffer(struct live *live, int from, int to, off_t at, off_t end,
	const char *name, struct error *err)
{
	while (at < end) {
		size_t wanted =
			end - at < (off_t)LIVE_BUFFER_SIZE ? (size_t)(end - at) : LIVE_BUFFER_SIZE;
		ssize_t got = pread(from, live->buffer, wanted, at);

		if (got < 0) {
			return error_sys(err, errno, "read %s", name);
		}
		if (got == 0) {
			return 0;
		}
		for (ssize_t put = 0; put < got;) {
			ssize_t done =
				pwrite(to, live->buffer + put, (size_t)(got - put), at + put);

			if (done < 0) {
				return error_sys(err, errno, "write the copy of %s", name);
			}
			put += done;
		}
		at += got;
	}
	return 0;
}

static int range_copy(struct live *live, int from, int to, off_t at, off_t end, const char *name,
	struct error *err)
{
	loff_t in = at, out = at;

	if (end - at <= (off_t)LIVE_BUFFER_SIZE) {
		return range_by_buffer(live, from, to, at, end, name, err);
	}
	while (in < end) {
		size_t wanted = (size_t)(end - in) < CHUNK_BYTES ? (size_t)(end - in) : CHUNK_BYTES;
		ssize_t got = live_check(live, err) < 0
				      ? -2
				      : copy_file_range(from, &in, to, &out, wanted, 0);

		if (got == -2) {
			return -(int)err->kind;
		}
		if (got == 0) {
			return 0;
		}
		if (got > 0) {
			continue;
		}
		if (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS) {
			return range_by_buffer(live, from, to, in, end, name, err);
		}
		return error_sys(err, errno, "copy %s", name);
	}
	return 0;
}

static int bytes_copy(
	struct live *live, int from, int to, off_t size, const char *name, struct error *err)
{
	off_t at = 0, written = 0;

	while (at < size) {
		off_t data = lseek(from, at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO) {
			break;
		}
		data = data < 0 ? at : data;
		hole = lseek(from, data, SEEK_HOLE);
		hole = hole < 0 || hole > size ? size : hole;
		if (data >= hole) {
			break;
		}
		if (range_copy(live, from, to, data, hole, name, err) < 0) {
			return -(int)err->kind;
		}
		at = written = hole;
	}
	if (written < size && ftruncate(to, size) < 0) {
		return error_sys(err, errno, "make the copy of %s as long as it is", name);
	}
	return 0;
}

int live_data_copy(struct live *live, int from, int to, const struct stat *status, const char *name,
	uint8_t *ret_flags, struct error *err)
{
	*ret_flags = 0;
	if (status->st_size == 0) {
		return 0;
	}
	if (!live->cannot_clone && !(live->frozen && status->st_size <= COPY_RATHER_BYTES)) {
		if (ioctl(to, FICLONE, from) == 0) {
			*ret_flags = LIVE_CLONED;
			return 0;
		}
		if (errno == ENOSPC || errno == EDQUOT || errno == EIO) {
			return error_sys(err, errno, "share the blocks of %s", name);
		}
		live->cannot_clone =
			errno == EOPNOTSUPP || errno == ENOTTY || errno == EXDEV || errno == ENOSYS;
	}
	return bytes_copy(live, from, to, status->st_size, name, err);
}

/* ---- attributes ---- */

static ssize_t object_list(struct live_object object, char *list)
{
	return object.fd >= 0 ? flistxattr(object.fd, list, XATTRS_SIZE)
			      : llistxattr(object.path, list, XATTRS_SIZE);
}

static ssize_t object_get(struct live_object object, const char *key, char *value)
{
	return object.fd >= 0 ? fgetxattr(object.fd, key, value, XATTRS_SIZE)
			      : lgetxattr(object.path, key, value, XATTRS_SIZE);
}

static int object_set(struct live_object object, const char *key, const char *value, size_t size)
{
	return object.fd >= 0 ? fsetxattr(object.fd, key, value, size, 0)
			      : lsetxattr(object.path, key, value, size, 0);
}

static int object_remove(struct live_object object, const char *key)
{
	return object.fd >= 0 ? fremovexattr(object.fd, key) : lremovexattr(object.path, key);
}

/* Of overlayfs' marks only those say something about the tree itself. */
static bool belongs(const char *key)
{
	return !str_starts(key, "trusted.overlay.") || streq(key, "trusted.overlay.opaque") ||
	       streq(key, "trusted.overlay.whiteout");
}

static bool list_has(const char *list, ssize_t length, const char *key)
{
	for (const char *at = list; at < list + length; at += strlen(at) + 1) {
		if (streq(at, key)) {
			return belongs(key);
		}
	}
	return false;
}

int live_xattrs_copy(struct live *live, struct live_object from, struct live_object to,
	const char *name, struct error *err)
{
	char *wanted = live->buffer, *there = wanted + XATTRS_SIZE, *value = there + XATTRS_SIZE;
	ssize_t wanted_length = object_list(from, wanted);
	ssize_t there_length = object_list(to, there);

	if (wanted_length < 0 || there_length < 0) {
		return errno == EOPNOTSUPP ? 0
					   : error_sys(err, errno, "list attributes of %s", name);
	}
	/* A folder with a default ACL gives its new entries one that they may not have. */
	for (const char *key = there; key < there + there_length; key += strlen(key) + 1) {
		if (!list_has(wanted, wanted_length, key) && object_remove(to, key) < 0 &&
			errno != ENODATA) {
			return error_sys(err, errno, "remove %s of the copy of %s", key, name);
		}
	}
	for (const char *key = wanted; key < wanted + wanted_length; key += strlen(key) + 1) {
		ssize_t size = belongs(key) ? object_get(from, key, value) : -1;

		if (!belongs(key) || (size < 0 && errno == ENODATA)) {
			continue;
		}
		if (size < 0 || object_set(to, key, value, (size_t)size) < 0) {
			return error_sys(err, errno, "copy the attribute %s of %s", key, name);
		}
	}
	return 0;
}

int live_attributes_copy(struct live *live, int from, int to, const struct stat *status,
	const char *name, struct error *err)
{
	struct timespec times[] = {status->st_atim, status->st_mtim};

	if (fchown(to, status->st_uid, status->st_gid) < 0 ||
		fchmod(to, status->st_mode & 07777) < 0) {
		return error_sys(err, errno, "give the copy of %s its owner and mode", name);
	}
	if (live_xattrs_copy(live, (struct live_object){from, NULL}, (struct live_object){to, NULL},
		    name, err) < 0) {
		return -(int)err->kind;
	}
	if (futimens(to, times) < 0) {
		return error_sys(err, errno, "give the copy of %s its times", name);
	}
	return 0;
}
