/* Layers as one tree. A folder is opened in every layer that has it, from the top down, until one
 * hides the rest; its entries are those of all of them, the first of a name counting. */
#include "snapshots/tree/tree_walk.h"
#include "snapshots/share/share.h"
#include "snapshots/store_private.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

struct tree_view {
	struct store *store;
	struct layer *layers;
	int *locks; /* of layers/<id>, shared */
	size_t count;
};

bool tree_is_whiteout(const struct stat *status)
{
	return S_ISCHR(status->st_mode) && status->st_rdev == makedev(0, 0);
}

int64_t tree_id(const struct layer *layer, uint32_t id)
{
	int64_t inside = (int64_t)id - layer->id_base;

	return inside >= 0 && inside < layer->id_count ? inside : TREE_NOBODY;
}

/* A folder is open in every layer that has it, at every level of the walk. */
static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int tree_view_open(struct store *store, const struct layer *layers, size_t count,
	struct tree_view **ret_view, struct error *err)
{
	CLEANUP(tree_view_close_p) struct tree_view *view = xcalloc(1, sizeof(*view));

	raise_descriptors();
	view->store = store;
	view->layers = xcalloc(count, sizeof(*view->layers));
	view->locks = xcalloc(count, sizeof(*view->locks));
	for (size_t i = 0; i < count; i++) {
		char name[ID_TEXT_SIZE];
		int status;

		id_format(name, layers[i].id);
		view->layers[i] = layers[i];
		status = store_lock(store->layers_fd, name, LOCK_SH, &view->locks[i], err);
		if (status < 0) {
			return error_wrap(err, "read layer %s", name);
		}
		view->count++;
		/* Who may not put a folder's time back does not need it either. */
		status = share_settle(view->locks[i], err);
		if (status < 0 && status != -ERROR_DENIED) {
			return error_wrap(err, "read layer %s", name);
		}
		if (status < 0) {
			*err = ERROR_INIT;
		}
	}
	*ret_view = steal_ptr(view);
	return 0;
}

void tree_view_close(struct tree_view *view)
{
	if (view == NULL) {
		return;
	}
	for (size_t i = 0; i < view->count; i++) {
		fd_done(&view->locks[i]);
	}
	free(view->locks);
	free(view->layers);
	free(view);
}

const struct layer *tree_view_layer(const struct tree_view *view, size_t index)
{
	return &view->layers[index];
}

void tree_dir_done(struct tree_dir *dir)
{
	for (size_t i = 0; i < dir->count; i++) {
		fd_done(&dir->fds[i]);
	}
	free(dir->fds);
	free(dir->from);
	*dir = (struct tree_dir){0};
}

#define FOLDER_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* 1: goes on below; 0: this one hides the rest. */
static int add_folder(struct tree_view *view, int at_fd, const char *name, size_t from,
	struct tree_dir *dir, struct error *err)
{
	int fd = openat(at_fd, name, FOLDER_FLAGS);
	bool opaque = false;
	int status;

	if (fd < 0) {
		/* Nothing here; or no folder: a file, a link or a whiteout hides what is below. */
		return errno == ENOENT ? 1
		       : errno == ENOTDIR || errno == ELOOP
			       ? 0
			       : error_sys(err, errno, "open %s", name);
	}
	dir->fds[dir->count] = fd;
	dir->from[dir->count++] = from;
	status = store_opaque_get(view->store, fd, &opaque, err);
	return status < 0 ? status : !opaque;
}

int tree_dir_open(struct tree_view *view, const struct tree_dir *parent, const char *name,
	struct tree_dir *ret_dir, struct error *err)
{
	CLEANUP(tree_dir_done) struct tree_dir dir = {0};
	size_t count = parent != NULL ? parent->count : view->count;
	int more = 1;

	dir.fds = xcalloc(count + 1, sizeof(*dir.fds));
	dir.from = xcalloc(count + 1, sizeof(*dir.from));
	for (size_t i = 0; more > 0 && i < count; i++) {
		size_t from = parent != NULL ? parent->from[i] : count - 1 - i;

		more = parent != NULL
			       ? add_folder(view, parent->fds[i], name, from, &dir, err)
			       : add_folder(view, view->locks[from], "tree", from, &dir, err);
	}
	if (more < 0) {
		return more;
	}
	if (dir.count == 0) {
		return error_set(err, ERROR_NOT_FOUND, "no folder \"%s\"", name);
	}
	*ret_dir = dir;
	dir = (struct tree_dir){0};
	return 0;
}

void tree_entries_free(struct tree_entry *entries, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(entries[i].name);
	}
	free(entries);
}

struct listing {
	struct tree_entry *entries;
	size_t count, room;
};

static void listing_done(struct listing *listing)
{
	tree_entries_free(listing->entries, listing->count);
}

static int list_one(
	const struct tree_dir *dir, size_t index, struct listing *listing, struct error *err)
{
	CLEANUP(closedir_p) DIR *stream = io_opendir(dir->fds[index], ".", err);
	struct dirent *entry;

	if (stream == NULL) {
		return -(int)err->kind;
	}
	errno = 0;
	while ((entry = readdir(stream)) != NULL) {
		if (!streq(entry->d_name, ".") && !streq(entry->d_name, "..")) {
			*array_add(&listing->entries, &listing->count, &listing->room) =
				(struct tree_entry){.name = xstrdup(entry->d_name),
					.dir_fd = dir->fds[index],
					.from = dir->from[index]};
		}
	}
	return errno != 0 ? error_sys(err, errno, "read a folder") : 0;
}

/* By name, and the top layer's first. */
static int compare_entries(const void *a, const void *b)
{
	const struct tree_entry *left = a, *right = b;
	int order = strcmp(left->name, right->name);

	return order != 0 ? order : (right->from > left->from) - (right->from < left->from);
}

/* Keeps the first of each name, and looks at it. */
static int keep_first(struct listing *listing, struct error *err)
{
	const char *last = NULL;
	size_t kept = 0;
	int status = 0;

	for (size_t i = 0; i < listing->count; i++) {
		struct tree_entry entry = listing->entries[i];
		bool hidden = last != NULL && streq(last, entry.name);

		if (!hidden && status == 0 &&
			fstatat(entry.dir_fd, entry.name, &entry.stat, AT_SYMLINK_NOFOLLOW) < 0) {
			status = error_sys(err, errno, "look at %s", entry.name);
		}
		if (hidden) {
			free(entry.name);
		} else {
			last = entry.name;
			listing->entries[kept++] = entry;
		}
	}
	listing->count = kept;
	return status;
}

static void drop_whiteouts(struct listing *listing)
{
	size_t kept = 0;

	for (size_t i = 0; i < listing->count; i++) {
		if (tree_is_whiteout(&listing->entries[i].stat)) {
			free(listing->entries[i].name);
		} else {
			listing->entries[kept++] = listing->entries[i];
		}
	}
	listing->count = kept;
}

static int list_dir(const struct tree_dir *dir, bool whiteouts, struct tree_entry **ret_entries,
	size_t *ret_count, struct error *err)
{
	CLEANUP(listing_done) struct listing listing = {0};
	int status = 0;

	for (size_t i = 0; status == 0 && i < dir->count; i++) {
		status = list_one(dir, i, &listing, err);
	}
	if (status == 0 && listing.count > 0) {
		qsort(listing.entries, listing.count, sizeof(*listing.entries), compare_entries);
		status = keep_first(&listing, err);
	}
	if (status < 0) {
		return status;
	}
	if (!whiteouts) {
		drop_whiteouts(&listing);
	}
	*ret_entries = steal_ptr(listing.entries);
	*ret_count = listing.count;
	listing.count = 0;
	return 0;
}

int tree_dir_list(struct tree_view *view, const struct tree_dir *dir,
	struct tree_entry **ret_entries, size_t *ret_count, struct error *err)
{
	(void)view;
	return list_dir(dir, false, ret_entries, ret_count, err);
}

int tree_dir_list_all(struct tree_view *view, const struct tree_dir *dir,
	struct tree_entry **ret_entries, size_t *ret_count, struct error *err)
{
	(void)view;
	return list_dir(dir, true, ret_entries, ret_count, err);
}

/* ---- one path ---- */

static int find_entry(struct tree_view *view, const struct tree_dir *dir, const char *name,
	struct tree_entry *ret_entry, struct error *err)
{
	(void)view;
	for (size_t i = 0; i < dir->count; i++) {
		struct tree_entry entry = {.dir_fd = dir->fds[i], .from = dir->from[i]};

		if (fstatat(dir->fds[i], name, &entry.stat, AT_SYMLINK_NOFOLLOW) < 0) {
			if (errno == ENOENT) {
				continue;
			}
			return error_sys(err, errno, "look at %s", name);
		}
		if (tree_is_whiteout(&entry.stat)) {
			break;
		}
		entry.name = xstrdup(name);
		*ret_entry = entry;
		return 0;
	}
	return error_set(err, ERROR_NOT_FOUND, "there is no \"%s\"", name);
}

int tree_find(struct tree_view *view, const char *path, struct tree_dir *ret_dir,
	struct tree_entry *ret_entry, struct error *err)
{
	CLEANUP(tree_dir_done) struct tree_dir dir = {0};
	CLEANUP(free_p) char *copy = xstrdup(path);
	char *rest = NULL, *name = strtok_r(copy, "/", &rest), *next;
	int status = name != NULL ? tree_dir_open(view, NULL, "/", &dir, err)
				  : error_set(err, ERROR_INVALID, "\"%s\" names nothing", path);

	for (; status == 0; name = next) {
		struct tree_dir below = {0};

		next = strtok_r(NULL, "/", &rest);
		if (streq(name, ".") || streq(name, "..")) {
			return error_set(err, ERROR_INVALID, "\"%s\" has \"%s\" in it", path, name);
		}
		if (next == NULL) {
			status = find_entry(view, &dir, name, ret_entry, err);
			break;
		}
		status = tree_dir_open(view, &dir, name, &below, err);
		if (status == 0) {
			tree_dir_done(&dir);
			dir = below;
		}
	}
	if (status < 0) {
		return error_wrap(err, "%s", path);
	}
	*ret_dir = dir;
	dir = (struct tree_dir){0};
	return 0;
}
