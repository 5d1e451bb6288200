/* The writing side of an import, in two parts: what an entry becomes on disk, and the order of
 * layers around it. */
#ifndef HOB_SNAPSHOTS_IMPORT_PRIVATE_H
#define HOB_SNAPSHOTS_IMPORT_PRIVATE_H

#include "snapshots/archive/import_wire.h"
#include "snapshots/store.h"

#include <stddef.h>

/* One entry, its texts ended by '\0'. */
struct import_entry {
	struct import_head head;
	char *path; /* within the layer, "" for its root */
	char *link;
	char *xattrs;
};

void import_entry_done(struct import_entry *entry);

/* A tree that is being written. */
struct import_tree {
	struct store *store;
	int fd; /* of the folder; -1: none */
	int64_t id_base;
	int file_fd; /* the file that data goes to; -1: none */
	struct import_entry file; /* its entry, finished when the next comes */
	struct import_entry *folders; /* finished at the end, the last first */
	size_t folder_count, folder_room;
};

#define IMPORT_TREE_INIT ((struct import_tree){.fd = -1, .file_fd = -1})

void import_tree_done(struct import_tree *tree);
/* Takes over the entry. ERROR_INVALID for what would leave the tree or is not allowed in one. */
MUSTCHECK int import_tree_add(
	struct import_tree *tree, struct import_entry *entry, struct error *err);
MUSTCHECK int import_tree_data(struct import_tree *tree, uint64_t offset, const void *data,
	size_t length, struct error *err);
/* Folders get their owners, modes, attributes and times. */
MUSTCHECK int import_tree_finish(struct import_tree *tree, struct error *err);
/* "a/b" and nothing else: no empty part, ".", "..", no slash at either end. "" is the root. */
bool import_path_is_clean(const char *path);

#endif
