/*
 * One layer's tree as it lies on disk, whiteouts and all: every entry in the order of names, with
 * what belongs to it as it would be on any machine. Owners, access lists and capabilities count
 * from the layer's range of ids; attributes that only this machine has are left out. The digest of
 * a layer is the SHA-256 of all that, so it is the same wherever and by whatever it was unpacked.
 */
#ifndef HOB_SNAPSHOTS_LAYER_WALK_H
#define HOB_SNAPSHOTS_LAYER_WALK_H

#include "base/digest.h"
#include "snapshots/store.h"

#include <sys/stat.h>

struct walk_xattr {
	char *name;
	char *value;
	size_t size;
};

struct walk_entry {
	const char *path; /* without a slash at its start; "" for the root */
	int dir_fd; /* the folder it is in, and its name there */
	const char *name;
	int fd; /* of a folder or regular file, open for reading; else -1 */
	struct stat stat;
	int64_t uid, gid; /* inside the range; out of it: TREE_NOBODY */
	const char *target; /* of a symbolic link, else NULL */
	const char *hardlink; /* path of an earlier entry that is the same file, else NULL */
	struct walk_xattr *xattrs; /* by name */
	size_t xattr_count;
};

/* Return non-zero to stop; the walk returns it. */
typedef int walk_entry_fn(void *context, const struct walk_entry *entry, struct error *err);
/* tree_fd is of the folder `tree`. ERROR_LIMIT deeper than TREE_DEPTH_MAX. */
MUSTCHECK int layer_walk(struct store *store, const struct layer *layer, int tree_fd,
	walk_entry_fn *fn, void *context, struct error *err);

/* Ids of an access list, and the root of a file capability, moved from one range's start to
 * another's. The value is changed in place; a capability may change its size by one number. */
#define WALK_CAPABILITY_SIZE 24
void walk_acl_shift(char *value, size_t size, int64_t from, int64_t to);
/* With root 0 it is that of any machine's root, the short form; `value` has room. */
void walk_capability_root(char value[WALK_CAPABILITY_SIZE], size_t *size, uint32_t root);

MUSTCHECK int layer_digest_of(struct store *store, const struct layer *layer, int tree_fd,
	char digest[SHA256_TEXT_SIZE], struct error *err);
/* The same of a committed layer; remembered in the catalog when the store is open for writing. */
MUSTCHECK int layer_digest(struct store *store, const struct layer *layer,
	char digest[SHA256_TEXT_SIZE], struct error *err);

#endif
