/*
 * libarchive reads and writes; what is allowed is decided here, entry by entry, before it writes.
 * A parent is looked at through openat2 beneath the tree without links, so an entry can neither
 * leave the tree nor reach through a link that an earlier entry made.
 */
#include "builder/archive.h"

#include "base/io.h"
#include "base/memory.h"
#include "base/path.h"
#include "builder/archive_layer.h"
#include "builder/child.h"

#include <archive.h>
#include <archive_entry.h>

#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <sys/stat.h>

#define BLOCK_BYTES (64 * 1024)
#define LINES_MAX 8 /* of complaints about single entries */

static void read_free(struct archive *archive)
{
	archive_read_free(archive);
}
DEFINE_CLEANUP(read_free_p, struct archive, read_free)

static void write_free(struct archive *archive)
{
	archive_write_free(archive);
}
DEFINE_CLEANUP(write_free_p, struct archive, write_free)

struct unpacking {
	struct archive *from, *to;
	int tree_fd;
	const struct archive_options *options;
	uint64_t bytes_max;
	struct child *child;
	struct archive_counts counts;
	uint64_t lines;
	struct layer_unpacking layer; /* unless it is ARCHIVE_PLAIN */
};

static int refuse(struct error *err, const char *name, const char *why)
{
	error_set(err, ERROR_INVALID, "the archive's entry \"%s\" %s", name, why);
	return error_hint(err,
		"hob unpacks only archives whose entries stay inside; make it with paths "
		"relative to its root");
}

/* "./usr//bin/" -> "usr/bin", in place; empty for the root itself. */
static void clean_name(char *name)
{
	char *to = name;

	for (char *from = name; *from != '\0';) {
		size_t length = strcspn(from, "/");

		if (length > 0 && !(length == 1 && from[0] == '.')) {
			if (to != name) {
				*to++ = '/';
			}
			memmove(to, from, length);
			to += length;
		}
		from += length;
		from += strspn(from, "/");
	}
	*to = '\0';
}

/* A name fit for the tree, or the refusal. The caller owns *ret_name. */
static int take_name(const char *name, char **ret_name, struct error *err)
{
	CLEANUP(free_p) char *copy = NULL;

	if (name == NULL) {
		return error_set(
			err, ERROR_INVALID, "the archive has an entry whose name is no text");
	}
	if (name[0] == '/') {
		return refuse(err, name, "has an absolute path");
	}
	if (path_has_dotdot(name)) {
		return refuse(err, name, "has \"..\" in its path");
	}
	copy = xstrdup(name);
	clean_name(copy);
	*ret_name = steal_ptr(copy);
	return 0;
}

/* Is the way to the name's last component free of links? 0: it is there; 1: some of it is missing.
 */
static int check_parents(const struct unpacking *unpacking, const char *name, struct error *err)
{
	const char *slash = strrchr(name, '/');
	CLEANUP(free_p) char *parent = NULL;
	CLEANUP(close_p) int fd = -1;

	if (slash == NULL) {
		return 0;
	}
	parent = xstrndup(name, (size_t)(slash - name));
	fd = io_open_beneath(unpacking->tree_fd, parent, O_PATH | O_DIRECTORY, 0, err);
	if (fd >= 0 || err->sys == ENOENT) {
		return fd >= 0 ? 0 : 1;
	}
	if (err->sys == ELOOP || err->sys == EXDEV) {
		return refuse(err, name, "goes through a symbolic link");
	}
	return err->sys == ENOTDIR ? refuse(err, name, "goes through something that is no folder")
				   : error_wrap(err, "unpack %s", name);
}

/* Makes the missing ones as plain folders, looking again after each: openat2 says ENOENT as soon as
 * one is missing, whatever comes after it. */
static int make_parents(struct unpacking *unpacking, const char *name, struct error *err)
{
	for (const char *slash = strchr(name, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		CLEANUP(free_p) char *parent = xstrndup(name, (size_t)(slash - name));

		if (mkdirat(unpacking->tree_fd, parent, 0755) == 0) {
			if (unpacking->options->form == ARCHIVE_LAYER) {
				layer_implied_add(&unpacking->layer, parent);
			}
		} else if (errno != EEXIST) {
			return error_sys(err, errno, "make the folder %s", parent);
		}
		if (check_parents(unpacking, name, err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

/* A folder in the place of a link is a folder, not what the link leads to. */
static void clear_place(const struct unpacking *unpacking, const char *name, mode_t type)
{
	struct stat seen;

	if (fstatat(unpacking->tree_fd, name, &seen, AT_SYMLINK_NOFOLLOW) == 0 &&
		S_ISLNK(seen.st_mode) && type == AE_IFDIR) {
		unlinkat(unpacking->tree_fd, name, 0);
	}
}

static int check_hardlink(struct unpacking *unpacking, struct archive_entry *entry,
	const char *name, struct error *err)
{
	bool layer = unpacking->options->form == ARCHIVE_LAYER;
	CLEANUP(free_p) char *target = NULL;
	struct stat seen;

	if (archive_entry_hardlink(entry) == NULL) {
		return 0;
	}
	if (take_name(archive_entry_hardlink(entry), &target, err) < 0 ||
		check_parents(unpacking, target, err) < 0) {
		return error_wrap(err, "hard link \"%s\"", name);
	}
	if (fstatat(unpacking->tree_fd, target, &seen, AT_SYMLINK_NOFOLLOW) < 0 ||
		S_ISDIR(seen.st_mode) || (layer && S_ISCHR(seen.st_mode))) {
		if (layer) {
			unpacking->counts.needs_below = true;
			return 0;
		}
		return refuse(err, name,
			"is a hard link to something that is not in the archive before it");
	}
	archive_entry_set_hardlink(entry, target);
	return 0;
}

/* What only the machine may set, or what overlayfs would take as its own, does not come along. */
static bool xattr_is_welcome(const char *name)
{
	if (str_starts(name, "user.")) {
		return !str_starts(name, "user.overlay.");
	}
	return streq(name, "security.capability");
}

struct kept_xattr {
	char *name;
	void *value;
	size_t size;
};

static void filter_xattrs(struct archive_entry *entry)
{
	struct kept_xattr *kept = NULL;
	size_t count = 0, room = 0, size;
	const char *name;
	const void *value;

	archive_entry_xattr_reset(entry);
	while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
		if (name != NULL && xattr_is_welcome(name)) {
			struct kept_xattr *one = array_add(&kept, &count, &room);

			one->name = xstrdup(name);
			one->value = xmalloc(size);
			memcpy(one->value, value, size);
			one->size = size;
		}
	}
	archive_entry_xattr_clear(entry);
	for (size_t i = 0; i < count; i++) {
		archive_entry_xattr_add_entry(entry, kept[i].name, kept[i].value, kept[i].size);
		free(kept[i].name);
		free(kept[i].value);
	}
	free(kept);
}

static void clip_owners(struct unpacking *unpacking, struct archive_entry *entry)
{
	int64_t ids = unpacking->options->ids;
	bool foreign = false;

	if (ids == 0) {
		return;
	}
	if (archive_entry_uid(entry) < 0 || archive_entry_uid(entry) >= ids) {
		archive_entry_set_uid(entry, ARCHIVE_NOBODY);
		foreign = true;
	}
	if (archive_entry_gid(entry) < 0 || archive_entry_gid(entry) >= ids) {
		archive_entry_set_gid(entry, ARCHIVE_NOBODY);
		foreign = true;
	}
	unpacking->counts.foreign += foreign;
}

static int reader_error(struct unpacking *unpacking, const char *doing, struct error *err)
{
	const char *why = archive_error_string(unpacking->from);

	error_set(err, ERROR_CORRUPT, "%s: %s", doing, why != NULL ? why : "it is damaged");
	return error_hint(err,
		"it must be a tar archive, plain or compressed by gzip, bzip2, xz, lz4 or zstd");
}

/* A failed write: for want of space, or one that only concerns this entry (false). */
static bool writer_failed(
	struct unpacking *unpacking, int code, const char *name, struct error *err)
{
	int sys = archive_errno(unpacking->to);
	const char *why = archive_error_string(unpacking->to);

	if (sys == ENOSPC || sys == EDQUOT) {
		error_sys(err, sys, "unpack %s", name);
		return true;
	}
	if (code < ARCHIVE_WARN) {
		error_set(err, sys == EPERM || sys == EACCES ? ERROR_DENIED : ERROR_IO,
			"unpack %s: %s", name, why != NULL ? why : strerror(sys));
		return true;
	}
	if (unpacking->lines++ < LINES_MAX) {
		child_line(unpacking->child, "%s: %s", name,
			why != NULL ? why : "not wholly unpacked");
	}
	return false;
}

static int copy_data(struct unpacking *unpacking, const char *name, struct error *err)
{
	const void *block;
	size_t size;
	int64_t offset;
	int code;

	while ((code = archive_read_data_block(unpacking->from, &block, &size, &offset)) ==
		ARCHIVE_OK) {
		unpacking->counts.bytes += size;
		if (unpacking->counts.bytes > unpacking->bytes_max ||
			(uint64_t)offset + size > unpacking->bytes_max) {
			return error_set(err, ERROR_LIMIT,
				"the archive unpacks to more than %llu bytes (at %s)",
				(unsigned long long)unpacking->bytes_max, name);
		}
		code = (int)archive_write_data_block(unpacking->to, block, size, offset);
		if (code < ARCHIVE_OK && writer_failed(unpacking, code, name, err)) {
			return -(int)err->kind;
		}
		child_progress(unpacking->child, "entries", unpacking->counts.entries, 0,
			unpacking->counts.bytes);
	}
	return code == ARCHIVE_EOF ? 0 : reader_error(unpacking, name, err);
}

static int write_entry(struct unpacking *unpacking, struct archive_entry *entry, const char *name,
	struct error *err)
{
	int code = archive_write_header(unpacking->to, entry), status = 0;

	if (code < ARCHIVE_OK && writer_failed(unpacking, code, name, err)) {
		return -(int)err->kind;
	}
	if (archive_entry_size(entry) > 0 && archive_entry_hardlink(entry) == NULL) {
		status = copy_data(unpacking, name, err);
	}
	if (status < 0) {
		return status;
	}
	code = archive_write_finish_entry(unpacking->to);
	return code < ARCHIVE_OK && writer_failed(unpacking, code, name, err) ? -(int)err->kind : 0;
}

/* An entry of a layer that marks something instead of being something. 1: it is none. */
static int unpack_mark(struct unpacking *unpacking, const char *name, struct error *err)
{
	CLEANUP(free_p) char *target = NULL;
	enum archive_form form = unpacking->options->form;
	enum layer_mark mark = form == ARCHIVE_PLAIN ? MARK_NONE : layer_mark_of(name, &target);
	int parents;

	if (mark == MARK_NONE) {
		return form == ARCHIVE_CLEAR ? 0 : 1;
	}
	if (mark == MARK_NONSENSE) {
		return refuse(err, name, "takes a name away that no file has");
	}
	if (mark == MARK_IGNORED || form == ARCHIVE_OVER) {
		return 0;
	}
	parents = check_parents(unpacking, name, err);
	if (parents < 0 || (parents == 1 && form == ARCHIVE_CLEAR)) {
		return parents < 0 ? parents : 0;
	}
	if (parents == 1 && make_parents(unpacking, name, err) < 0) {
		return -(int)err->kind;
	}
	return layer_mark_apply(&unpacking->layer, mark, target, err);
}

/* Makes its place ready. 1: it is there already, under another name. */
static int make_place(struct unpacking *unpacking, struct archive_entry *entry, const char *name,
	struct error *err)
{
	bool is_folder =
		archive_entry_filetype(entry) == AE_IFDIR && archive_entry_hardlink(entry) == NULL;
	int parents = check_parents(unpacking, name, err);

	if (parents < 0 || (parents == 1 && make_parents(unpacking, name, err) < 0) ||
		check_hardlink(unpacking, entry, name, err) < 0) {
		return -(int)err->kind;
	}
	if (unpacking->options->form == ARCHIVE_PLAIN) {
		clear_place(unpacking, name, archive_entry_filetype(entry));
		return 0;
	}
	if (unpacking->counts.needs_below || (archive_entry_hardlink(entry) != NULL &&
						     streq(archive_entry_hardlink(entry), name))) {
		return 1;
	}
	if (is_folder) {
		layer_implied_drop(&unpacking->layer, name);
	}
	return layer_place_clear(&unpacking->layer, name, is_folder, err);
}

static int unpack_entry(struct unpacking *unpacking, struct archive_entry *entry, struct error *err)
{
	CLEANUP(free_p) char *name = NULL;
	mode_t type = archive_entry_filetype(entry);
	int status;

	if (++unpacking->counts.entries > ARCHIVE_ENTRIES_MAX) {
		return error_set(err, ERROR_LIMIT, "the archive has more than %llu entries",
			ARCHIVE_ENTRIES_MAX);
	}
	if (take_name(archive_entry_pathname(entry), &name, err) < 0) {
		return -(int)err->kind;
	}
	if (name[0] == '\0') {
		return 0; /* the root itself keeps the owner and mode that it was made with */
	}
	status = unpack_mark(unpacking, name, err);
	if (status <= 0) {
		child_progress(unpacking->child, "entries", unpacking->counts.entries, 0,
			unpacking->counts.bytes);
		return status;
	}
	if (type == AE_IFCHR || type == AE_IFBLK || type == AE_IFSOCK) {
		if (unpacking->counts.devices++ < LINES_MAX) {
			child_line(unpacking->child, "%s is a device or socket: left out", name);
		}
		return 0;
	}
	status = make_place(unpacking, entry, name, err);
	if (status != 0) {
		return status < 0 ? status : 0;
	}
	archive_entry_set_pathname(entry, name);
	archive_entry_set_fflags(entry, 0, 0);
	filter_xattrs(entry);
	clip_owners(unpacking, entry);
	child_progress(
		unpacking->child, "entries", unpacking->counts.entries, 0, unpacking->counts.bytes);
	return write_entry(unpacking, entry, name, err);
}

/* The compressions that are part of libarchive: none that runs a program. */
static struct archive *reader_new(void)
{
	struct archive *reader = archive_read_new();

	archive_read_support_format_tar(reader);
	archive_read_support_filter_gzip(reader);
	archive_read_support_filter_bzip2(reader);
	archive_read_support_filter_xz(reader);
	archive_read_support_filter_lz4(reader);
	archive_read_support_filter_zstd(reader);
	return reader;
}

static struct archive *writer_new(bool owners)
{
	struct archive *writer = archive_write_disk_new();

	archive_write_disk_set_options(writer,
		ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_XATTR |
			ARCHIVE_EXTRACT_ACL | ARCHIVE_EXTRACT_SECURE_SYMLINKS |
			ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS |
			(owners ? ARCHIVE_EXTRACT_OWNER : 0));
	return writer;
}

static int unpack_all(struct unpacking *unpacking, struct error *err)
{
	struct archive_entry *entry;
	int code, status = 0;

	while ((code = archive_read_next_header(unpacking->from, &entry)) == ARCHIVE_OK ||
		code == ARCHIVE_WARN) {
		status = unpack_entry(unpacking, entry, err);
		if (status < 0 || unpacking->counts.needs_below) {
			return status;
		}
	}
	if (code != ARCHIVE_EOF) {
		return reader_error(unpacking, "read the archive", err);
	}
	if (unpacking->counts.entries == 0 && unpacking->options->form == ARCHIVE_PLAIN) {
		return error_set(err, ERROR_CORRUPT, "the archive is empty");
	}
	code = archive_write_close(unpacking->to);
	return code < ARCHIVE_OK && writer_failed(unpacking, code, "the last folders", err)
		       ? -(int)err->kind
		       : 0;
}

int archive_unpack(int fd, int tree_fd, const struct archive_options *options, struct child *child,
	struct archive_counts *ret_counts, struct error *err)
{
	CLEANUP(read_free_p) struct archive *from = reader_new();
	CLEANUP(write_free_p) struct archive *to = writer_new(options->owners);
	struct unpacking unpacking = {.from = from,
		.to = to,
		.tree_fd = tree_fd,
		.options = options,
		.bytes_max = options->bytes_max > 0 ? options->bytes_max : ARCHIVE_BYTES_MAX,
		.child = child};
	int status;

	unpacking.layer = (struct layer_unpacking){
		.tree_fd = tree_fd, .options = options, .counts = &unpacking.counts};
	/* In the C locale libarchive drops names that are not ASCII. */
	setlocale(LC_CTYPE, "C.UTF-8");
	if (fchdir(tree_fd) < 0) {
		return error_sys(err, errno, "enter the folder to unpack to");
	}
	if (archive_read_open_fd(from, fd, BLOCK_BYTES) != ARCHIVE_OK) {
		return reader_error(&unpacking, "open the archive", err);
	}
	status = unpack_all(&unpacking, err);
	if (status == 0) {
		unpacking.counts.needs_below |= unpacking.layer.implied_count > 0;
		*ret_counts = unpacking.counts;
	}
	layer_unpacking_done(&unpacking.layer);
	return status;
}
