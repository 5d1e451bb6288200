/* Whiteouts. In a tree that becomes a layer of its own they are what overlayfs takes for one, a
 * device 0:0; an opaque folder needs an attribute that only root may set, so it is listed for the
 * launcher. In a tree of several layers, what is gone is deleted. */
#include "builder/archive_layer.h"

#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define MARK ".wh."
#define MARK_OF_AUFS ".wh..wh."
#define MARK_OF_OPAQUE ".wh..wh..opq"
/* More of them, and the layer is taken as one that needs those below. */
#define IMPLIED_MAX 4096

enum layer_mark layer_mark_of(const char *name, char **ret_target)
{
	const char *slash = strrchr(name, '/');
	const char *last = slash != NULL ? slash + 1 : name;
	size_t folder = slash != NULL ? (size_t)(slash - name) : 0;

	if (!str_starts(last, MARK)) {
		return MARK_NONE;
	}
	if (streq(last, MARK_OF_OPAQUE)) {
		*ret_target = xstrndup(name, folder);
		return MARK_OPAQUE;
	}
	if (str_starts(last, MARK_OF_AUFS)) {
		return MARK_IGNORED;
	}
	last += strlen(MARK);
	if (last[0] == '\0' || streq(last, ".") || streq(last, "..")) {
		return MARK_NONSENSE;
	}
	*ret_target = xasprintf("%.*s%s%s", (int)folder, name, slash != NULL ? "/" : "", last);
	return MARK_GONE;
}

void layer_unpacking_done(struct layer_unpacking *layer)
{
	for (size_t i = 0; i < layer->implied_count; i++) {
		free(layer->implied[i]);
	}
	free(layer->implied);
	layer->implied = NULL;
	layer->implied_count = layer->implied_room = 0;
}

void layer_implied_add(struct layer_unpacking *layer, const char *folder)
{
	if (layer->implied_count >= IMPLIED_MAX) {
		layer->counts->needs_below = true;
		return;
	}
	*array_add(&layer->implied, &layer->implied_count, &layer->implied_room) = xstrdup(folder);
}

void layer_implied_drop(struct layer_unpacking *layer, const char *folder)
{
	for (size_t i = 0; i < layer->implied_count; i++) {
		if (streq(layer->implied[i], folder)) {
			free(layer->implied[i]);
			layer->implied[i] = layer->implied[--layer->implied_count];
			return;
		}
	}
}

static int add_opaque(struct layer_unpacking *layer, const char *folder, struct error *err)
{
	layer->counts->opaque++;
	return io_write_full(layer->options->opaque_fd, folder, strlen(folder) + 1, err);
}

/* What the same layer brings wins, wherever in it the mark stands. */
static int write_gone(struct layer_unpacking *layer, const char *target, struct error *err)
{
	struct stat seen;

	if (fstatat(layer->tree_fd, target, &seen, AT_SYMLINK_NOFOLLOW) == 0) {
		return S_ISDIR(seen.st_mode) ? add_opaque(layer, target, err) : 0;
	}
	if (errno != ENOENT || mknodat(layer->tree_fd, target, S_IFCHR | 0600, makedev(0, 0)) < 0) {
		return error_sys(err, errno, "make the whiteout of %s", target);
	}
	return 0;
}

static int remove_one(int tree_fd, const char *target, struct error *err)
{
	const char *slash = strrchr(target, '/');
	CLEANUP(free_p)
	char *folder = slash != NULL ? xstrndup(target, (size_t)(slash - target)) : xstrdup(".");
	CLEANUP(close_p)
	int fd = io_open_beneath(tree_fd, folder, O_RDONLY | O_DIRECTORY, 0, err);

	return fd < 0 ? fd : io_remove_tree(fd, slash != NULL ? slash + 1 : target, err);
}

static int empty_folder(int tree_fd, const char *folder, struct error *err)
{
	CLEANUP(close_p)
	int fd = io_open_beneath(
		tree_fd, folder[0] != '\0' ? folder : ".", O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(closedir_p) DIR *dir = NULL;
	struct dirent *entry;

	if (fd < 0) {
		return err->kind == ERROR_NOT_FOUND || err->sys == ENOTDIR ? 0 : fd;
	}
	dir = io_opendir(fd, ".", err);
	if (dir == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (!streq(entry->d_name, ".") && !streq(entry->d_name, "..") &&
			io_remove_tree(fd, entry->d_name, err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

int layer_mark_apply(
	struct layer_unpacking *layer, enum layer_mark mark, const char *target, struct error *err)
{
	bool clear = layer->options->form == ARCHIVE_CLEAR;

	if (mark == MARK_GONE) {
		return clear ? remove_one(layer->tree_fd, target, err)
			     : write_gone(layer, target, err);
	}
	if (clear) {
		return empty_folder(layer->tree_fd, target, err);
	}
	if (target[0] == '\0') {
		layer->counts->needs_below = true; /* overlayfs merges roots whatever they say */
		return 0;
	}
	return add_opaque(layer, target, err);
}

int layer_place_clear(
	struct layer_unpacking *layer, const char *name, bool is_folder, struct error *err)
{
	struct stat seen;

	if (fstatat(layer->tree_fd, name, &seen, AT_SYMLINK_NOFOLLOW) < 0) {
		return errno == ENOENT ? 0 : error_sys(err, errno, "look at the place of %s", name);
	}
	if (layer->options->form == ARCHIVE_OVER) {
		/* A folder over a folder is both; anything else takes the place. */
		return is_folder && S_ISDIR(seen.st_mode) ? 0
							  : remove_one(layer->tree_fd, name, err);
	}
	if (!S_ISCHR(seen.st_mode)) {
		return 0;
	}
	if (unlinkat(layer->tree_fd, name, 0) < 0) {
		return error_sys(err, errno, "take the whiteout of %s away", name);
	}
	return is_folder ? add_opaque(layer, name, err) : 0;
}
