/* One file of two layers: sharing its blocks, or finding out whether the two are the same. */
#include "snapshots/share/share_private.h"

#include "base/io.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#define BLOCK_BYTES (128 * 1024)
/* What a file system takes in one request at least; more may be cut short. */
#define RANGE_BYTES (16u << 20)
#define XATTR_NAMES_MAX 65536
#define XATTR_VALUE_MAX 65536

/* ---- blocks ---- */

union range_request {
	struct file_dedupe_range range;
	char room[sizeof(struct file_dedupe_range) + sizeof(struct file_dedupe_range_info)];
};

/* How far it got is in *ret_bytes; 0: this range is different. */
static int dedupe_range(
	const struct share_file *file, off_t at, uint64_t length, uint64_t *ret_bytes)
{
	union range_request request = {
		.range = {.src_offset = (uint64_t)at, .src_length = length, .dest_count = 1}};
	struct file_dedupe_range_info *info = request.range.info;

	*info = (struct file_dedupe_range_info){
		.dest_fd = file->new_fd, .dest_offset = (uint64_t)at};
	if (ioctl(file->old_fd, FIDEDUPERANGE, &request) < 0) {
		return errno;
	}
	if (info->status < 0) {
		return -info->status;
	}
	*ret_bytes = info->status == FILE_DEDUPE_RANGE_SAME ? info->bytes_deduped : 0;
	return 0;
}

int share_blocks(const struct share_file *file, uint64_t *ret_bytes, struct error *err)
{
	off_t size = file->new.st_size;
	uint64_t shared = 0;

	for (off_t at = 0; at < size;) {
		uint64_t left = (uint64_t)(size - at), done = 0;
		uint64_t length = left < RANGE_BYTES ? left : RANGE_BYTES;
		int sys = dedupe_range(file, at, length, &done);

		if (sys == EINTR) {
			continue;
		}
		/* A hole, a file that is being executed, one that cannot be shared: as it was. */
		if (sys == EINVAL || sys == ETXTBSY || sys == EPERM || sys == EOPNOTSUPP) {
			break;
		}
		if (sys != 0) {
			return error_sys(err, sys, "share blocks");
		}
		shared += done;
		at += (off_t)(done > 0 ? done : length);
	}
	*ret_bytes = shared;
	return 0;
}

/* ---- equality ---- */

bool share_may_link(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && a->st_mode == b->st_mode && a->st_uid == b->st_uid &&
	       a->st_gid == b->st_gid && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static ssize_t read_whole(int fd, char *data, size_t length, off_t at)
{
	size_t got = 0;

	while (got < length) {
		ssize_t more = pread(fd, data + got, length - got, at + (off_t)got);

		if (more < 0 && errno == EINTR) {
			continue;
		}
		if (more <= 0) {
			return more < 0 ? -1 : (ssize_t)got;
		}
		got += (size_t)more;
	}
	return (ssize_t)got;
}

static int same_content(const struct share_file *file, bool *ret_same, struct error *err)
{
	CLEANUP(free_p) char *blocks = xmalloc(2 * BLOCK_BYTES);
	off_t at = 0;

	*ret_same = false;
	while (at < file->new.st_size) {
		ssize_t old = read_whole(file->old_fd, blocks, BLOCK_BYTES, at);
		ssize_t new = read_whole(file->new_fd, blocks + BLOCK_BYTES, BLOCK_BYTES, at);

		if (old < 0 || new < 0) {
			return error_sys(err, errno, "read it");
		}
		if (old == 0 || old != new ||
			memcmp(blocks, blocks + BLOCK_BYTES, (size_t)old) != 0) {
			return 0;
		}
		at += old;
	}
	*ret_same = true;
	return 0;
}

static int same_value(int old_fd, int new_fd, const char *name, bool *ret_same, struct error *err)
{
	CLEANUP(free_p) char *values = xmalloc(2 * XATTR_VALUE_MAX);
	ssize_t old = fgetxattr(old_fd, name, values, XATTR_VALUE_MAX);
	ssize_t new = fgetxattr(new_fd, name, values + XATTR_VALUE_MAX, XATTR_VALUE_MAX);

	if ((old < 0 || new < 0) && errno != ENODATA) {
		return error_sys(err, errno, "read the attribute %s", name);
	}
	*ret_same =
		old >= 0 && old == new &&memcmp(values, values + XATTR_VALUE_MAX, (size_t)old) == 0;
	return 0;
}

/* Names sorted by the file system: equal sets may come in another order, so each is looked up. */
int xattrs_compare(int old_fd, int new_fd, bool *ret_same, struct error *err)
{
	CLEANUP(free_p) char *names = xmalloc(XATTR_NAMES_MAX);
	ssize_t other = flistxattr(new_fd, NULL, 0);
	ssize_t length = flistxattr(old_fd, names, XATTR_NAMES_MAX);
	int status = 0;

	if ((length < 0 || other < 0) && errno != ENOTSUP) {
		return error_sys(err, errno, "list attributes");
	}
	*ret_same = length == other;
	for (ssize_t i = 0; status == 0 && *ret_same && i < length;
		i += (ssize_t)strlen(names + i) + 1) {
		status = same_value(old_fd, new_fd, names + i, ret_same, err);
	}
	return status;
}

int share_is_equal(
	struct store *store, const struct share_file *file, bool *ret_equal, struct error *err)
{
	bool same = false;
	int status = xattrs_compare(file->old_fd, file->new_fd, &same, err);

	if (status == 0 && same) {
		status = same_content(file, &same, err);
	}
	/* Those that only root sees, last: it may have to be asked of another process. */
	if (status == 0 && same && store->compare != NULL) {
		status = store->compare(
			store->compare_context, file->old_fd, file->new_fd, &same, err);
	}
	*ret_equal = status == 0 && same;
	return status;
}
