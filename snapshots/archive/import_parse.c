/* The parsing side: libarchive reads, this translates. It runs as nobody with no rights, so all
 * that a hostile archive can win here is to say something wrong, which the other side checks. */
#include "snapshots/archive/import_wire.h"

#include "base/io.h"
#include "base/memory.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>

static void read_free(struct archive *archive)
{
	archive_read_free(archive);
}
DEFINE_CLEANUP(read_free_p, struct archive, read_free)

static int damaged(struct archive *archive, struct error *err)
{
	const char *why = archive_error_string(archive);

	error_set(
		err, ERROR_CORRUPT, "the archive is damaged: %s", why != NULL ? why : "unreadable");
	return error_hint(err, "it must be one that hob snapshots export has written");
}

static void add_xattrs(struct archive_entry *entry, struct buffer *text)
{
	const char *name;
	const void *value;
	size_t size;

	archive_entry_xattr_reset(entry);
	while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
		uint32_t length = (uint32_t)size;

		if (name != NULL && size < IMPORT_XATTRS_MAX) {
			buffer_add(text, name, strlen(name) + 1);
			buffer_add(text, &length, sizeof(length));
			buffer_add(text, value, size);
		}
	}
}

static int send_entry(struct archive_entry *entry, int out, struct error *err)
{
	const char *path = archive_entry_pathname(entry);
	const char *hardlink = archive_entry_hardlink(entry);
	const char *link = hardlink != NULL ? hardlink : archive_entry_symlink(entry);
	CLEANUP(buffer_done) struct buffer message = {0};
	CLEANUP(buffer_done) struct buffer xattrs = {.max = IMPORT_XATTRS_MAX};
	struct import_head head = {.kind = IMPORT_ENTRY,
		.mode = archive_entry_mode(entry),
		.uid = archive_entry_uid(entry),
		.gid = archive_entry_gid(entry),
		.mtime = archive_entry_mtime(entry),
		.mtime_nsec = (uint32_t)archive_entry_mtime_nsec(entry),
		.major = (uint32_t)archive_entry_rdevmajor(entry),
		.minor = (uint32_t)archive_entry_rdevminor(entry),
		.is_hardlink = hardlink != NULL,
		.size = archive_entry_size_is_set(entry) ? (uint64_t)archive_entry_size(entry) : 0};

	if (path == NULL || strlen(path) > IMPORT_PATH_MAX ||
		(link != NULL && strlen(link) > IMPORT_PATH_MAX)) {
		return error_set(err, ERROR_INVALID, "an entry of the archive has no usable name");
	}
	add_xattrs(entry, &xattrs);
	head.path_length = (uint32_t)strlen(path);
	head.link_length = link != NULL ? (uint32_t)strlen(link) : 0;
	head.xattr_length = (uint32_t)xattrs.length;
	buffer_add(&message, &head, sizeof(head));
	buffer_add_str(&message, path);
	buffer_add_str(&message, link != NULL ? link : "");
	buffer_add(&message, buffer_text(&xattrs), xattrs.length);
	return io_write_full(out, message.data, message.length, err);
}

static int send_data(struct archive *archive, int out, struct error *err)
{
	const void *block;
	size_t length;
	la_int64_t offset;
	int code;

	while ((code = archive_read_data_block(archive, &block, &length, &offset)) == ARCHIVE_OK) {
		for (size_t done = 0; done < length;) {
			size_t part =
				length - done < IMPORT_DATA_MAX ? length - done : IMPORT_DATA_MAX;
			struct import_head head = {.kind = IMPORT_DATA,
				.offset = (uint64_t)offset + done,
				.data_length = (uint32_t)part};
			int status = io_write_full(out, &head, sizeof(head), err);

			if (status == 0) {
				status = io_write_full(out, (const char *)block + done, part, err);
			}
			if (status < 0) {
				return status;
			}
			done += part;
		}
	}
	return code == ARCHIVE_EOF ? 0 : damaged(archive, err);
}

static int parse(int fd, int out, struct error *err)
{
	CLEANUP(read_free_p) struct archive *archive = archive_read_new();
	struct archive_entry *entry;
	int code, status = 0;

	if (archive_read_support_format_tar(archive) != ARCHIVE_OK ||
		archive_read_support_filter_zstd(archive) != ARCHIVE_OK ||
		archive_read_support_filter_none(archive) != ARCHIVE_OK ||
		archive_read_open_fd(archive, fd, 256 * 1024) != ARCHIVE_OK) {
		return damaged(archive, err);
	}
	while (status == 0 && (code = archive_read_next_header(archive, &entry)) != ARCHIVE_EOF) {
		if (code != ARCHIVE_OK && code != ARCHIVE_WARN) {
			return damaged(archive, err);
		}
		status = send_entry(entry, out, err);
		if (status == 0) {
			status = send_data(archive, out, err);
		}
	}
	return status;
}

void import_parse(int fd, int out)
{
	struct import_head head = {.kind = IMPORT_END};
	struct error err = ERROR_INIT, ignored = ERROR_INIT;

	if (parse(fd, out, &err) < 0) {
		head = (struct import_head){.kind = IMPORT_FAILED, .data_length = sizeof(err)};
	}
	if (io_write_full(out, &head, sizeof(head), &ignored) == 0 && head.kind == IMPORT_FAILED) {
		(void)!io_write_full(out, &err, sizeof(err), &ignored);
	}
}
