/* Only files with several names can be in several layers. Sorted by inode, those of one inode that
 * are in different layers stand together. */
#include "snapshots/tree/linked.h"
#include "snapshots/tree/layer_walk.h"
#include "snapshots/store_private.h"

#include "base/io.h"

#include <fcntl.h>
#include <sys/file.h>

struct shared_file {
	ino_t inode;
	int64_t layer_id;
	uint64_t bytes; /* in use on disk */
};

struct linked {
	struct shared_file *files;
	size_t count, room;
	int64_t layer_id; /* that is being walked */
};

static int add_file(void *context, const struct walk_entry *entry, struct error *err)
{
	struct linked *linked = context;

	(void)err;
	if (S_ISREG(entry->stat.st_mode) && entry->stat.st_nlink > 1 && entry->hardlink == NULL) {
		*array_add(&linked->files, &linked->count, &linked->room) =
			(struct shared_file){entry->stat.st_ino, linked->layer_id,
				(uint64_t)entry->stat.st_blocks * 512};
	}
	return 0;
}

static int walk_layer(
	struct store *store, const struct layer *layer, struct linked *linked, struct error *err)
{
	CLEANUP(close_p) int lock = -1;
	CLEANUP(close_p) int tree = -1;
	char name[ID_TEXT_SIZE];
	int status;

	id_format(name, layer->id);
	status = store_lock(store->layers_fd, name, LOCK_SH, &lock, err);
	if (status == -ERROR_BUSY || status == -ERROR_NOT_FOUND) {
		return 0; /* on its way out */
	}
	if (status == 0) {
		tree = io_open(lock, "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
		status = tree;
	}
	linked->layer_id = layer->id;
	return status < 0 ? status : layer_walk(store, layer, tree, add_file, linked, err);
}

static int compare_files(const void *a, const void *b)
{
	const struct shared_file *left = a, *right = b;

	return (left->inode > right->inode) - (left->inode < right->inode);
}

int linked_bytes(struct store *store, uint64_t *ret_bytes, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	struct linked linked = {0};
	uint64_t bytes = 0;
	int row, status = 0;

	query_init(&query, store->db,
		"SELECT " LAYER_COLUMNS " FROM layers AS l WHERE l.linked AND l.state = 'ready'");
	while (status == 0 && (row = query_row(&query, err)) != 0) {
		struct layer layer;

		status = row < 0 ? row : 0;
		if (row > 0) {
			layer_from_row(&query, 0, &layer);
			status = walk_layer(store, &layer, &linked, err);
		}
	}
	if (linked.count > 0) {
		qsort(linked.files, linked.count, sizeof(*linked.files), compare_files);
	}
	for (size_t i = 1; i < linked.count; i++) {
		bytes += linked.files[i].inode == linked.files[i - 1].inode ? linked.files[i].bytes
									    : 0;
	}
	free(linked.files);
	if (status < 0) {
		return error_wrap(err, "count links");
	}
	*ret_bytes = bytes;
	return 0;
}
