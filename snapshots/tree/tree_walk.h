/*
 * What a list of layers looks like as one tree, read from the layers' own trees with the meaning
 * that overlayfs gives them: an upper entry hides a lower one, a whiteout (character device 0:0)
 * hides it with nothing, a folder with trusted.overlay.opaque=y hides what is below. No link is
 * followed and no folder is entered by more than one name, so a hostile tree leads nowhere.
 *
 * The reading process needs CAP_DAC_READ_SEARCH (helper.h); trusted attributes are read by the
 * store's hook. An open view holds its layers: their removal says that they are in use.
 */
#ifndef HOB_SNAPSHOTS_TREE_WALK_H
#define HOB_SNAPSHOTS_TREE_WALK_H

#include "snapshots/store.h"

#include <sys/stat.h>

#define TREE_DEPTH_MAX 512 /* of folders; each is open while what it holds is walked */

struct tree_view;

/* `layers` lowest first; copied. ERROR_BUSY while one is being removed. */
MUSTCHECK int tree_view_open(struct store *store, const struct layer *layers, size_t count,
	struct tree_view **ret_view, struct error *err);
void tree_view_close(struct tree_view *view);
DEFINE_CLEANUP(tree_view_close_p, struct tree_view, tree_view_close)
const struct layer *tree_view_layer(const struct tree_view *view, size_t index);

/* A folder as all layers that contribute to it, the top one first. */
struct tree_dir {
	int *fds;
	size_t *from; /* index of the layer, lowest 0 */
	size_t count;
};

void tree_dir_done(struct tree_dir *dir);
/* parent NULL: the root. ERROR_NOT_FOUND when there is no folder of that name. */
MUSTCHECK int tree_dir_open(struct tree_view *view, const struct tree_dir *parent, const char *name,
	struct tree_dir *ret_dir, struct error *err);

struct tree_entry {
	char *name;
	int dir_fd; /* of the folder it is in; that folder's */
	size_t from; /* index of its layer */
	struct stat stat; /* owners as on disk: tree_uid, tree_gid */
};

/* What the folder holds, sorted by the bytes of the names. Free with tree_entries_free. */
MUSTCHECK int tree_dir_list(struct tree_view *view, const struct tree_dir *dir,
	struct tree_entry **ret_entries, size_t *ret_count, struct error *err);
/* The same with the whiteouts that count. */
MUSTCHECK int tree_dir_list_all(struct tree_view *view, const struct tree_dir *dir,
	struct tree_entry **ret_entries, size_t *ret_count, struct error *err);
void tree_entries_free(struct tree_entry *entries, size_t count);

/* The owners as a sandbox sees them; those out of the layer's range are nobody's. */
#define TREE_NOBODY 65534
int64_t tree_id(const struct layer *layer, uint32_t id);

/* A whiteout? */
bool tree_is_whiteout(const struct stat *status);

/* Finds a path (absolute or not; "." and ".." are refused, links are not followed). The folder that
 * holds it comes in *ret_dir, for tree_dir_done. */
MUSTCHECK int tree_find(struct tree_view *view, const char *path, struct tree_dir *ret_dir,
	struct tree_entry *ret_entry, struct error *err);

/* Differences of two views, folders before what they hold, sorted. */
enum tree_change_kind { TREE_ADDED, TREE_CHANGED, TREE_DELETED };

enum {
	TREE_TYPE = 1 << 0,
	TREE_CONTENT = 1 << 1, /* bytes, link target or device number */
	TREE_MODE = 1 << 2,
	TREE_OWNER = 1 << 3,
	TREE_MTIME = 1 << 4, /* not of folders: any change below one moves it */
	TREE_XATTRS = 1 << 5,
};

struct tree_change {
	const char *path; /* without a slash at its start */
	enum tree_change_kind kind;
	unsigned what; /* of TREE_CHANGED */
	const struct stat *before; /* NULL when added */
	const struct stat *after; /* NULL when deleted */
};

/* Return non-zero to stop; the walk returns it. */
typedef int tree_change_fn(void *context, const struct tree_change *change, struct error *err);
MUSTCHECK int tree_diff(struct tree_view *before, struct tree_view *after, tree_change_fn *fn,
	void *context, struct error *err);

#endif
