/* Writing a snapshot's archive. libarchive only writes here; what it is given was read by our own
 * walk, so nothing of this depends on what a sandbox has made of its files. */
#include "snapshots/archive/archive.h"
#include "snapshots/tree/layer_walk.h"
#include "snapshots/share/share.h"
#include "snapshots/store_private.h"
#include "snapshots/tree/tree_walk.h"

#include "base/io.h"
#include "base/json.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/sysmacros.h>

#define BLOCK_BYTES (256 * 1024)

static void write_free(struct archive *archive)
{
	archive_write_free(archive);
}
DEFINE_CLEANUP(write_free_p, struct archive, write_free)
DEFINE_CLEANUP(entry_free_p, struct archive_entry, archive_entry_free)

struct exporting {
	struct store *store;
	struct archive *archive;
	size_t layer; /* its number in the archive */
	char *block;
	uint64_t left_out; /* sockets */
};

static int archive_failed(struct archive *archive, const char *what, struct error *err)
{
	int sys = archive_errno(archive);
	const char *why = archive_error_string(archive);

	if (sys > 0) {
		return error_sys(err, sys, "write the archive: %s", what);
	}
	return error_set(err, ERROR_IO, "write the archive: %s: %s", what,
		why != NULL ? why : "no reason given");
}

/* ---- the header ---- */

static int layers_json(struct store *store, const struct snapshot *snapshot, bool with_parents,
	json_t *list, struct error *err)
{
	for (size_t i = 0; i < snapshot->layer_count; i++) {
		const struct layer *layer = &snapshot->layers[i];
		char digest[SHA256_TEXT_SIZE];
		bool own = i >= snapshot->layer_count - snapshot->own_count;
		int status = layer_digest(store, layer, digest, err);

		if (status < 0) {
			return status;
		}
		json_array_append_new(
			list, json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:b, s:b}", "digest",
				      digest, "kind", layer->kind, "title", layer->title,
				      "host_usr", layer->host_usr, "files",
				      (json_int_t)layer->files, "bytes", (json_int_t)layer->bytes,
				      "own", own, "included", own || with_parents));
	}
	return 0;
}

static int header_text(struct store *store, const struct snapshot *snapshot, bool with_parents,
	char **ret_text, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	json_t *layers = json_array(), *metadata = json_loads(snapshot->metadata, 0, NULL);
	json_t *manifest = json_loads(snapshot->manifest, 0, NULL);
	int status = layers_json(store, snapshot, with_parents, layers, err);

	json = json_pack("{s:i, s:s, s:s, s:s, s:s, s:I, s:o, s:o, s:o}", "format", 1,
		"environment", snapshot->environment, "reason",
		snapshot_reason_name(snapshot->reason), "label", snapshot->label, "commit",
		snapshot->commit, "created_ms", (json_int_t)snapshot->created_ms, "metadata",
		metadata != NULL ? metadata : json_object(), "manifest",
		manifest != NULL ? manifest : json_object(), "layers", layers);
	if (status == 0) {
		*ret_text = json_dumps(json, JSON_SORT_KEYS | JSON_INDENT(1));
	}
	return status;
}

static int write_header(struct archive *archive, const char *text, struct error *err)
{
	CLEANUP(entry_free_p) struct archive_entry *entry = archive_entry_new();
	size_t length = strlen(text);

	archive_entry_set_pathname(entry, ARCHIVE_HEADER_NAME);
	archive_entry_set_mode(entry, S_IFREG | 0644);
	archive_entry_set_size(entry, (int64_t)length);
	archive_entry_set_mtime(entry, 0, 0);
	if (archive_write_header(archive, entry) != ARCHIVE_OK ||
		archive_write_data(archive, text, length) != (la_ssize_t)length) {
		return archive_failed(archive, ARCHIVE_HEADER_NAME, err);
	}
	return 0;
}

/* ---- entries ---- */

/* Where the data is, so that holes stay holes. A file without any is one hole. */
static void add_sparse(struct archive_entry *to, const struct walk_entry *entry)
{
	off_t at = 0, size = entry->stat.st_size;

	if (entry->stat.st_blocks * 512 >= size) {
		return;
	}
	while (at < size) {
		off_t data = lseek(entry->fd, at, SEEK_DATA), hole;

		if (data < 0) {
			break;
		}
		hole = lseek(entry->fd, data, SEEK_HOLE);
		if (hole < 0 || hole > size) {
			hole = size;
		}
		archive_entry_sparse_add_entry(to, data, hole - data);
		at = hole;
	}
	if (at == 0 && size > 0) {
		archive_entry_sparse_add_entry(to, size, 0);
	}
}

static int write_content(
	struct exporting *export, const struct walk_entry *entry, struct error *err)
{
	off_t at = 0, size = entry->stat.st_size;

	while (at < size) {
		size_t wanted = size - at < BLOCK_BYTES ? (size_t)(size - at) : BLOCK_BYTES;
		ssize_t got = pread(entry->fd, export->block, wanted, at);

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got <= 0) {
			return got < 0 ? error_sys(err, errno, "read %s", entry->path)
				       : error_set(err, ERROR_CORRUPT, "%s is shorter than it says",
						 entry->path);
		}
		for (ssize_t done = 0; done < got;) {
			la_ssize_t put = archive_write_data(
				export->archive, export->block + done, (size_t)(got - done));

			if (put <= 0) {
				return archive_failed(export->archive, entry->path, err);
			}
			done += put;
		}
		at += got;
		store_advance(export->store, 0, (uint64_t)got);
	}
	return 0;
}

static void describe(const struct walk_entry *entry, struct archive_entry *to)
{
	const struct stat *status = &entry->stat;

	archive_entry_set_mode(to, status->st_mode);
	archive_entry_set_uid(to, entry->uid);
	archive_entry_set_gid(to, entry->gid);
	archive_entry_set_mtime(to, status->st_mtim.tv_sec, status->st_mtim.tv_nsec);
	archive_entry_set_size(to, 0);
	if (S_ISCHR(status->st_mode) || S_ISBLK(status->st_mode)) {
		archive_entry_set_rdevmajor(to, major(status->st_rdev));
		archive_entry_set_rdevminor(to, minor(status->st_rdev));
	}
	if (entry->target != NULL) {
		archive_entry_copy_symlink(to, entry->target);
	}
	for (size_t i = 0; i < entry->xattr_count && entry->hardlink == NULL; i++) {
		archive_entry_xattr_add_entry(
			to, entry->xattrs[i].name, entry->xattrs[i].value, entry->xattrs[i].size);
	}
}

static int write_entry(void *context, const struct walk_entry *entry, struct error *err)
{
	struct exporting *export = context;
	CLEANUP(entry_free_p) struct archive_entry *to = archive_entry_new();
	CLEANUP(free_p)
	char *path = xasprintf(
		"layers/%zu%s%s", export->layer, entry->path[0] != '\0' ? "/" : "", entry->path);
	CLEANUP(free_p) char *link = NULL;
	bool content = S_ISREG(entry->stat.st_mode) && entry->hardlink == NULL;

	if (S_ISSOCK(entry->stat.st_mode)) {
		export->left_out++; /* tar has none, and nobody listens on it any more */
		return 0;
	}
	store_advance(export->store, 1, 0);
	describe(entry, to);
	archive_entry_copy_pathname(to, path);
	if (entry->hardlink != NULL) {
		link = xasprintf("layers/%zu/%s", export->layer, entry->hardlink);
		archive_entry_copy_hardlink(to, link);
	}
	if (content) {
		archive_entry_set_size(to, entry->stat.st_size);
		add_sparse(to, entry);
	}
	if (archive_write_header(export->archive, to) != ARCHIVE_OK) {
		return archive_failed(export->archive, entry->path, err);
	}
	return content ? write_content(export, entry, err) : 0;
}

static int write_layer(struct exporting *export, const struct layer *layer, struct error *err)
{
	struct store *store = export->store;
	CLEANUP(close_p) int lock = -1;
	CLEANUP(close_p) int tree = -1;
	char name[ID_TEXT_SIZE];
	int status;

	id_format(name, layer->id);
	status = store_lock(store->layers_fd, name, LOCK_SH, &lock, err);
	if (status == 0) {
		status = share_settle(lock, err);
	}
	if (status < 0) {
		return error_wrap(err, "read layer %s", name);
	}
	tree = io_open(lock, "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
	return tree < 0 ? tree : layer_walk(store, layer, tree, write_entry, export, err);
}

static void announce(struct store *store, const struct snapshot *snapshot, size_t first)
{
	uint64_t entries = 0, bytes = 0;

	for (size_t i = first; i < snapshot->layer_count; i++) {
		entries += snapshot->layers[i].files;
		bytes += snapshot->layers[i].bytes;
	}
	store_phase(store, "write", entries, bytes);
}

static int open_archive(struct archive *archive, int fd, struct error *err)
{
	if (archive_write_set_format_pax(archive) != ARCHIVE_OK ||
		archive_write_set_options(archive,
			"pax:hdrcharset=BINARY,pax:xattrheader=LIBARCHIVE") != ARCHIVE_OK ||
		archive_write_add_filter_zstd(archive) != ARCHIVE_OK ||
		archive_write_set_bytes_per_block(archive, 1024 * 1024) != ARCHIVE_OK ||
		archive_write_set_bytes_in_last_block(archive, 1) != ARCHIVE_OK ||
		archive_write_open_fd(archive, fd) != ARCHIVE_OK) {
		return archive_failed(archive, "open", err);
	}
	return 0;
}

int snapshot_export(struct store *store, const struct snapshot *snapshot, bool with_parents, int fd,
	uint64_t *ret_left_out, struct error *err)
{
	CLEANUP(write_free_p) struct archive *archive = archive_write_new();
	CLEANUP(free_p) char *block = xmalloc(BLOCK_BYTES);
	CLEANUP(free_p) char *header = NULL;
	struct exporting export = {.store = store, .archive = archive, .block = block};
	size_t first = with_parents ? 0 : snapshot->layer_count - snapshot->own_count;
	int status = header_text(store, snapshot, with_parents, &header, err);

	if (status == 0) {
		status = open_archive(archive, fd, err);
	}
	if (status == 0) {
		status = write_header(archive, header, err);
	}
	announce(store, snapshot, first);
	for (size_t i = first; status == 0 && i < snapshot->layer_count; i++) {
		export.layer = i;
		status = write_layer(&export, &snapshot->layers[i], err);
	}
	if (status == 0 && archive_write_close(archive) != ARCHIVE_OK) {
		status = archive_failed(archive, "close", err);
	}
	if (status < 0) {
		return error_wrap(err, "export snap-%lld", (long long)snapshot->id);
	}
	*ret_left_out = export.left_out;
	return 0;
}
