/* The digest of a layer: each entry as a record of texts with their ends, and a file's content as
 * its blocks that are not all zero, so that holes do not count and cost nothing. */
#include "snapshots/tree/layer_walk.h"
#include "snapshots/share/share.h"
#include "snapshots/store_private.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/sysmacros.h>

#define BLOCK_BYTES (64 * 1024)

struct digesting {
	struct store *store;
	struct digest *digest;
	char *block;
};

static bool is_zero(const char *block, size_t length)
{
	return length == 0 || (block[0] == 0 && memcmp(block, block + 1, length - 1) == 0);
}

static int add_block(struct digesting *digesting, int fd, off_t at, struct error *err)
{
	char text[64];
	size_t length = 0;

	while (length < BLOCK_BYTES) {
		ssize_t got = pread(
			fd, digesting->block + length, BLOCK_BYTES - length, at + (off_t)length);

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return error_sys(err, errno, "read");
		}
		if (got == 0) {
			break;
		}
		length += (size_t)got;
	}
	if (!is_zero(digesting->block, length)) {
		snprintf(text, sizeof(text), "@%lld+%zu", (long long)at, length);
		digest_add_str(digesting->digest, text);
		digest_add(digesting->digest, digesting->block, length);
	}
	return 0;
}

static int add_content(
	struct digesting *digesting, const struct walk_entry *entry, struct error *err)
{
	off_t at = 0;

	while (at < entry->stat.st_size) {
		off_t data = lseek(entry->fd, at, SEEK_DATA);
		int status;

		if (data < 0 && errno == ENXIO) {
			break;
		}
		if (data > at) {
			at = data - data % BLOCK_BYTES;
		}
		status = add_block(digesting, entry->fd, at, err);
		if (status < 0) {
			return error_wrap(err, "%s", entry->path);
		}
		at += BLOCK_BYTES;
		store_advance(digesting->store, 0, BLOCK_BYTES);
	}
	return 0;
}

static int add_entry(void *context, const struct walk_entry *entry, struct error *err)
{
	struct digesting *digesting = context;
	const struct stat *status = &entry->stat;
	bool file = S_ISREG(status->st_mode);
	char text[192];

	snprintf(text, sizeof(text), "%o %lld:%lld %lld.%09ld %lld %u:%u %zu", status->st_mode,
		(long long)entry->uid, (long long)entry->gid, (long long)status->st_mtim.tv_sec,
		status->st_mtim.tv_nsec, file ? (long long)status->st_size : 0,
		major(status->st_rdev), minor(status->st_rdev), entry->xattr_count);
	digest_add_str(digesting->digest, entry->path);
	digest_add_str(digesting->digest, text);
	digest_add_str(digesting->digest, entry->target != NULL ? entry->target : "");
	digest_add_str(digesting->digest, entry->hardlink != NULL ? entry->hardlink : "");
	for (size_t i = 0; i < entry->xattr_count; i++) {
		snprintf(text, sizeof(text), "%zu", entry->xattrs[i].size);
		digest_add_str(digesting->digest, entry->xattrs[i].name);
		digest_add_str(digesting->digest, text);
		digest_add(digesting->digest, entry->xattrs[i].value, entry->xattrs[i].size);
	}
	store_advance(digesting->store, 1, 0);
	return file && entry->hardlink == NULL ? add_content(digesting, entry, err) : 0;
}

int layer_digest_of(struct store *store, const struct layer *layer, int tree_fd,
	char digest[SHA256_TEXT_SIZE], struct error *err)
{
	CLEANUP(free_p) char *block = xmalloc(BLOCK_BYTES);
	struct digesting digesting = {.store = store, .digest = digest_new(), .block = block};
	int status;

	digest_add_str(
		digesting.digest, layer->host_usr ? "hob layer 1, host /usr" : "hob layer 1");
	status = layer_walk(store, layer, tree_fd, add_entry, &digesting, err);
	if (status == 0) {
		digest_end(digesting.digest, digest);
	}
	digest_free(digesting.digest);
	return status;
}

static int remember(
	struct store *store, int64_t id, const char digest[SHA256_TEXT_SIZE], struct error *err)
{
	CLEANUP(query_done) struct query query = {0};

	if (store->mode == STORE_READ) {
		return 0;
	}
	query_init(&query, store->db, "UPDATE layers SET digest = ? WHERE id = ?");
	query_bind_text(&query, digest);
	query_bind_int(&query, id);
	return query_run(&query, NULL, err);
}

int layer_digest(struct store *store, const struct layer *layer, char digest[SHA256_TEXT_SIZE],
	struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	CLEANUP(close_p) int lock = -1;
	CLEANUP(close_p) int tree = -1;
	char name[ID_TEXT_SIZE];
	int row;

	query_init(&query, store->db, "SELECT digest FROM layers WHERE id = ?");
	query_bind_int(&query, layer->id);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	if (row > 0 && query_text(&query, 0)[0] != '\0') {
		query_copy(&query, 0, digest, SHA256_TEXT_SIZE);
		return 0;
	}
	query_done(&query);
	id_format(name, layer->id);
	row = store_lock(store->layers_fd, name, LOCK_SH, &lock, err);
	if (row == 0) {
		row = share_settle(lock, err);
	}
	if (row == 0) {
		tree = io_open(lock, "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
		store_phase(store, "digest", layer->files, layer->bytes);
		row = tree < 0 ? tree : layer_digest_of(store, layer, tree, digest, err);
	}
	return row < 0 ? error_wrap(err, "layer %s", name)
		       : remember(store, layer->id, digest, err);
}
