/*
 * What layers hold together. Links: only files with several names can be in several layers; sorted
 * by inode, those of one inode that are in different layers stand together. Blocks: the file system
 * says which extents of a file have another user, and where on the disk they are; sorted by place,
 * what overlaps is there once.
 */
#include "snapshots/share/share.h"
#include "snapshots/store_private.h"
#include "snapshots/tree/layer_walk.h"

#include "base/io.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#define EXTENTS_AT_A_TIME 64

struct shared_file {
	ino_t inode;
	uint64_t bytes; /* in use on disk */
};

struct extent {
	uint64_t start, length; /* on the device */
};

struct sharers {
	struct shared_file *files;
	size_t file_count, file_room;
	struct extent *extents;
	size_t extent_count, extent_room;
	bool has_map; /* of extents */
};

union map_request {
	struct fiemap map;
	char room[sizeof(struct fiemap) + EXTENTS_AT_A_TIME * sizeof(struct fiemap_extent)];
};

/* False when the file system has no map. */
static bool add_extents(struct sharers *sharers, int fd)
{
	union map_request request;
	uint64_t at = 0;
	bool last = false;

	while (!last) {
		request.map = (struct fiemap){.fm_start = at,
			.fm_length = FIEMAP_MAX_OFFSET - at,
			.fm_extent_count = EXTENTS_AT_A_TIME};
		if (ioctl(fd, FS_IOC_FIEMAP, &request) < 0) {
			return false;
		}
		last = request.map.fm_mapped_extents == 0;
		for (uint32_t i = 0; i < request.map.fm_mapped_extents; i++) {
			const struct fiemap_extent *found = &request.map.fm_extents[i];

			if ((found->fe_flags & FIEMAP_EXTENT_SHARED) != 0) {
				*array_add(&sharers->extents, &sharers->extent_count,
					&sharers->extent_room) =
					(struct extent){found->fe_physical, found->fe_length};
			}
			last = last || (found->fe_flags & FIEMAP_EXTENT_LAST) != 0;
			at = found->fe_logical + found->fe_length;
		}
	}
	return true;
}

static int add_file(void *context, const struct walk_entry *entry, struct error *err)
{
	struct sharers *sharers = context;

	(void)err;
	if (!S_ISREG(entry->stat.st_mode) || entry->hardlink != NULL) {
		return 0;
	}
	if (entry->stat.st_nlink > 1) {
		*array_add(&sharers->files, &sharers->file_count, &sharers->file_room) =
			(struct shared_file){
				entry->stat.st_ino, (uint64_t)entry->stat.st_blocks * 512};
	}
	if (sharers->has_map && entry->stat.st_blocks > 0) {
		sharers->has_map = add_extents(sharers, entry->fd);
	}
	return 0;
}

static int walk_layer(
	struct store *store, const struct layer *layer, struct sharers *sharers, struct error *err)
{
	CLEANUP(close_p) int lock = -1;
	CLEANUP(close_p) int tree = -1;
	char name[ID_TEXT_SIZE];
	int status;

	id_format(name, layer->id);
	status = store_lock(store->layers_fd, name, LOCK_SH, &lock, err);
	if (status == -ERROR_BUSY || status == -ERROR_NOT_FOUND) {
		*err = ERROR_INIT;
		return 0; /* on its way out */
	}
	if (status == 0) {
		tree = io_open(lock, "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
		status = tree < 0 ? tree : 0;
	}
	return status < 0 ? status : layer_walk(store, layer, tree, add_file, sharers, err);
}

static int compare_files(const void *a, const void *b)
{
	const struct shared_file *left = a, *right = b;

	return (left->inode > right->inode) - (left->inode < right->inode);
}

static int compare_extents(const void *a, const void *b)
{
	const struct extent *left = a, *right = b;

	return (left->start > right->start) - (left->start < right->start);
}

static uint64_t add_up_files(struct sharers *sharers)
{
	uint64_t bytes = 0;

	if (sharers->file_count > 0) {
		qsort(sharers->files, sharers->file_count, sizeof(*sharers->files), compare_files);
	}
	for (size_t i = 1; i < sharers->file_count; i++) {
		bytes += sharers->files[i].inode == sharers->files[i - 1].inode
				 ? sharers->files[i].bytes
				 : 0;
	}
	return bytes;
}

/* Of each extent, what one before it has covered. */
static uint64_t add_up_extents(struct sharers *sharers)
{
	uint64_t bytes = 0, covered = 0;

	if (sharers->extent_count > 0) {
		qsort(sharers->extents, sharers->extent_count, sizeof(*sharers->extents),
			compare_extents);
	}
	for (size_t i = 0; i < sharers->extent_count; i++) {
		uint64_t start = sharers->extents[i].start;
		uint64_t end = start + sharers->extents[i].length;

		if (start < covered) {
			bytes += (end < covered ? end : covered) - start;
		}
		covered = end > covered ? end : covered;
	}
	return bytes;
}

int shared_bytes(struct store *store, uint64_t *ret_bytes, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	struct sharers sharers = {.has_map = true};
	int row, status = 0;

	/* Live copies are links to, or share blocks with, the copy before from their first day. */
	query_init(&query, store->db,
		"SELECT " LAYER_COLUMNS " FROM layers AS l"
		" WHERE (l.linked OR l.kind IN ('session', 'flat')) AND l.state = 'ready'");
	while (status == 0 && (row = query_row(&query, err)) != 0) {
		struct layer layer;

		status = row < 0 ? row : 0;
		if (row > 0) {
			layer_from_row(&query, 0, &layer);
			status = walk_layer(store, &layer, &sharers, err);
		}
	}
	if (status == 0) {
		*ret_bytes = add_up_files(&sharers) + add_up_extents(&sharers);
	}
	free(sharers.files);
	free(sharers.extents);
	return status < 0 ? error_wrap(err, "count what layers share") : 0;
}
