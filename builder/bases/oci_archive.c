/* Files in a tar archive of an image layout. The archive is read by its headers; what a blob holds
 * is judged by its digest later. */
#include "builder/bases/oci_source.h"

#include "base/io.h"
#include "base/memory.h"
#include "builder/child.h"

#include <archive.h>
#include <archive_entry.h>

#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <sys/mman.h>

#define BLOCK_BYTES (64 * 1024)
#define ENTRIES_MAX 100000

static void read_free(struct archive *archive)
{
	archive_read_free(archive);
}
DEFINE_CLEANUP(read_free_p, struct archive, read_free)

/* "./blobs/sha256/…", without what does not count. */
static bool is_named(const char *name, const char *path)
{
	while (name != NULL && str_starts(name, "./")) {
		name += 2;
	}
	return name != NULL && streq(name, path);
}

static int damaged(struct archive *from, struct error *err)
{
	const char *why = archive_error_string(from);

	error_set(err, ERROR_CORRUPT, "read the archive: %s", why != NULL ? why : "it is damaged");
	return error_hint(
		err, "it must be a tar archive of an image layout, as skopeo's oci-archive:");
}

/* To the next entry of that name. */
static int seek_file(struct child *child, struct archive *from, const char *path, struct error *err)
{
	struct archive_entry *entry;
	int code;

	for (uint64_t i = 0; i < ENTRIES_MAX; i++) {
		code = archive_read_next_header(from, &entry);
		if (code == ARCHIVE_EOF) {
			return error_set(err, ERROR_NOT_FOUND, "no %s in it", path);
		}
		if (code != ARCHIVE_OK && code != ARCHIVE_WARN) {
			return damaged(from, err);
		}
		if (archive_entry_filetype(entry) == AE_IFREG &&
			is_named(archive_entry_pathname(entry), path)) {
			return 0;
		}
		child_progress(child, "entries", i, 0, 0);
	}
	return error_set(err, ERROR_LIMIT, "more than %d entries", ENTRIES_MAX);
}

/* To a file without a name, which becomes a download when its digest is right. */
static int copy_out(
	struct child *child, struct archive *from, int fd, uint64_t bytes_max, struct error *err)
{
	const void *block;
	size_t size;
	int64_t offset;
	uint64_t bytes = 0;
	int code;

	while ((code = archive_read_data_block(from, &block, &size, &offset)) == ARCHIVE_OK) {
		if ((uint64_t)offset + size > bytes_max) {
			return error_set(err, ERROR_CORRUPT, "a file has more than %llu bytes",
				(unsigned long long)bytes_max);
		}
		if (pwrite(fd, block, size, offset) != (ssize_t)size) {
			return error_sys(err, errno, "copy a file out of the archive");
		}
		bytes += size;
		child_progress(child, "bytes", bytes, 0, bytes);
	}
	return code == ARCHIVE_EOF ? 0 : damaged(from, err);
}

int oci_archive_file(struct child *child, const struct oci_place *place, const char *path,
	uint64_t bytes_max, int *ret_fd, struct error *err)
{
	CLEANUP(read_free_p) struct archive *from = archive_read_new();
	CLEANUP(close_p) int fd = -1;
	int status;

	setlocale(LC_CTYPE, "C.UTF-8");
	archive_read_support_format_tar(from);
	archive_read_support_filter_gzip(from);
	archive_read_support_filter_zstd(from);
	if (lseek(place->local_fd, 0, SEEK_SET) < 0 ||
		archive_read_open_fd(from, place->local_fd, BLOCK_BYTES) != ARCHIVE_OK) {
		return damaged(from, err);
	}
	status = seek_file(child, from, path, err);
	if (status < 0) {
		return status;
	}
	fd = place->folder_fd < 0
		     ? memfd_create("hob-layout", MFD_CLOEXEC)
		     : openat(place->folder_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0) {
		return error_sys(err, errno, "make a temporary file");
	}
	status = copy_out(child, from, fd, bytes_max, err);
	if (status == 0) {
		*ret_fd = steal_fd(&fd);
	}
	return status;
}
