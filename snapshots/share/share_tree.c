/*
 * Two trees side by side. Only entries of one path and both regular files matter; folders are
 * entered where both have one. When names are replaced there are two walks: the first counts names
 * of one inode within each layer, and writes down the folders that will change; the second works.
 * A file that has a second name in its own layer is left alone: whatever became a link to it would
 * be that other file too.
 */
#include "snapshots/share/share_private.h"
#include "snapshots/tree/tree_walk.h"

#include "base/buffer.h"
#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#define PROGRESS_FILES 1000

struct inodes {
	ino_t *list;
	size_t count, room;
};

struct sharing {
	struct store *store;
	const struct share_pair *pair;
	const struct share_events *events;
	enum share_method method;
	bool preparing;
	struct inodes old_names, new_names; /* a number for each name of files with several */
	struct restamp old_times, new_times;
	struct staging *staging; /* where a new name is made before it replaces one */
	struct buffer path;
	size_t depth;
	uint64_t seen;
	struct share_counts counts;
};

/* Two folders of one path. */
struct both {
	int old_fd, new_fd;
	bool old_noted, new_noted;
};

static void sharing_done(struct sharing *sharing)
{
	free(sharing->old_names.list);
	free(sharing->new_names.list);
	restamp_done(&sharing->old_times);
	restamp_done(&sharing->new_times);
	staging_free(sharing->staging);
	buffer_done(&sharing->path);
}

static void both_done(struct both *both)
{
	fd_done(&both->old_fd);
	fd_done(&both->new_fd);
}

static int compare_inodes(const void *a, const void *b)
{
	const ino_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

static void note_name(struct inodes *names, const struct stat *status)
{
	if (S_ISREG(status->st_mode) && status->st_nlink > 1) {
		*array_add(&names->list, &names->count, &names->room) = status->st_ino;
	}
}

/* What is left are the inodes that have several names. */
static void keep_several(struct inodes *names)
{
	size_t kept = 0;

	if (names->count > 0) {
		qsort(names->list, names->count, sizeof(*names->list), compare_inodes);
	}
	for (size_t i = 1; i < names->count; i++) {
		if (names->list[i] == names->list[i - 1] &&
			(kept == 0 || names->list[kept - 1] != names->list[i])) {
			names->list[kept++] = names->list[i];
		}
	}
	names->count = kept;
}

static bool has_several(const struct inodes *names, const struct stat *status)
{
	return status->st_nlink > 1 && names->count > 0 &&
	       bsearch(&status->st_ino, names->list, names->count, sizeof(*names->list),
		       compare_inodes) != NULL;
}

/* ---- links ---- */

/* Which of the two may become a link to the other: the new one, the old one (-1), or none. */
static int choose(const struct sharing *sharing, const struct stat *old, const struct stat *new)
{
	if (!share_may_link(old, new) || has_several(&sharing->old_names, old) ||
		has_several(&sharing->new_names, new)) {
		return 0;
	}
	if (sharing->pair->new_free && new->st_nlink == 1) {
		return 1;
	}
	return sharing->pair->old_free && old->st_nlink == 1 ? -1 : 0;
}

/* The new name is made in staging, where a killed process's leftovers are swept, and takes the old
 * one's place in one rename. */
static int replace(struct sharing *sharing, int from_fd, int to_fd, const char *name,
	bool *ret_replaced, struct error *err)
{
	int folder = staging_fd(sharing->staging), status;

	if (linkat(from_fd, name, folder, "link", 0) < 0) {
		/* Full of links, or a file that may not have any: it stays as it is. */
		return errno == EMLINK || errno == EPERM ? 0 : error_sys(err, errno, "link it");
	}
	status = store_fault("share.linked", err);
	if (status == 0 && renameat(folder, "link", to_fd, name) < 0) {
		status = error_sys(err, errno, "replace it by a link");
	}
	if (status < 0) {
		unlinkat(folder, "link", 0);
		return status;
	}
	*ret_replaced = true;
	return store_fault("share.replaced", err);
}

static int open_files(
	const struct both *both, const char *name, struct share_file *file, struct error *err)
{
	const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME;

	file->old_fd = io_open(both->old_fd, name, flags, 0, err);
	file->new_fd = file->old_fd < 0 ? -1 : io_open(both->new_fd, name, flags, 0, err);
	return file->new_fd < 0 ? -(int)err->kind : 0;
}

static void files_done(struct share_file *file)
{
	fd_done(&file->old_fd);
	fd_done(&file->new_fd);
}

static int link_file(struct sharing *sharing, const struct both *both, const char *name,
	struct share_file *file, struct error *err)
{
	int which = choose(sharing, &file->old, &file->new);
	uint64_t bytes = (uint64_t)file->new.st_blocks * 512;
	bool equal = false, replaced = false;
	int status;

	if (which == 0) {
		return 0;
	}
	status = open_files(both, name, file, err);
	if (status == 0) {
		status = share_is_equal(sharing->store, file, &equal, err);
	}
	if (status < 0 || !equal) {
		return status;
	}
	status = which > 0 ? replace(sharing, both->old_fd, both->new_fd, name, &replaced, err)
			   : replace(sharing, both->new_fd, both->old_fd, name, &replaced, err);
	sharing->counts.files += replaced;
	sharing->counts.bytes += replaced ? bytes : 0;
	sharing->counts.saved += replaced ? bytes : 0;
	return status;
}

/* The folders that will lose their times are written down once each, on the first need. */
static int note_folder(struct sharing *sharing, struct both *both, int which, struct error *err)
{
	bool *noted = which > 0 ? &both->new_noted : &both->old_noted;
	struct stat status;

	if (*noted) {
		return 0;
	}
	if (fstat(which > 0 ? both->new_fd : both->old_fd, &status) < 0) {
		return error_sys(err, errno, "look at a folder");
	}
	restamp_add(which > 0 ? &sharing->new_times : &sharing->old_times,
		buffer_text(&sharing->path), &status);
	*noted = true;
	return 0;
}

/* ---- the walk ---- */

static int take_blocks(struct sharing *sharing, const struct both *both, const char *name,
	struct share_file *file, struct error *err)
{
	uint64_t bytes = 0;
	int status = open_files(both, name, file, err);

	if (status == 0) {
		status = share_blocks(file, &bytes, err);
	}
	sharing->counts.files += bytes > 0;
	sharing->counts.bytes += bytes;
	sharing->counts.saved += bytes;
	return status;
}

static int take_pair(struct sharing *sharing, struct both *both, const char *name,
	size_t folder_length, const struct stat *old, const struct stat *new, struct error *err)
{
	CLEANUP(files_done)
	struct share_file file = {.old_fd = -1, .new_fd = -1, .old = *old, .new = *new};
	int which, status = 0;

	if (old->st_size != new->st_size || new->st_size == 0) {
		return 0;
	}
	if (old->st_ino == new->st_ino && old->st_dev == new->st_dev) {
		sharing->counts.bytes += sharing->preparing ? 0 : (uint64_t) new->st_blocks * 512;
		return 0;
	}
	if (sharing->preparing) {
		which = choose(sharing, old, new);
		sharing->path.length = folder_length;
		sharing->path.data[folder_length] = '\0';
		return which != 0 ? note_folder(sharing, both, which, err) : 0;
	}
	status = sharing->method == SHARE_BLOCKS ? take_blocks(sharing, both, name, &file, err)
						 : link_file(sharing, both, name, &file, err);
	if (++sharing->seen % PROGRESS_FILES == 0 && sharing->events->progress != NULL) {
		sharing->events->progress(sharing->events->context, &sharing->pair->new,
			sharing->counts.files, sharing->counts.saved);
	}
	return status;
}

static int share_folder(struct sharing *sharing, struct both *both, struct error *err);

static int enter(
	struct sharing *sharing, const struct both *both, const char *name, struct error *err)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
	CLEANUP(both_done) struct both inner = {.old_fd = -1, .new_fd = -1};

	inner.old_fd = io_open(both->old_fd, name, flags, 0, err);
	inner.new_fd = inner.old_fd < 0 ? -1 : io_open(both->new_fd, name, flags, 0, err);
	if (inner.new_fd < 0) {
		return -(int)err->kind;
	}
	if (++sharing->depth > TREE_DEPTH_MAX) {
		return error_set(
			err, ERROR_LIMIT, "folders are nested deeper than %d", TREE_DEPTH_MAX);
	}
	if (share_folder(sharing, &inner, err) < 0) {
		return -(int)err->kind;
	}
	sharing->depth--;
	return 0;
}

/* Neither a name that only one of the two has nor a link nor a device is of any use. */
static int look_at(const struct both *both, const char *name, struct stat *old, struct stat *new,
	struct error *err)
{
	if (fstatat(both->new_fd, name, new, AT_SYMLINK_NOFOLLOW) < 0) {
		return errno == ENOENT ? 0 : error_sys(err, errno, "look at it");
	}
	if (fstatat(both->old_fd, name, old, AT_SYMLINK_NOFOLLOW) < 0) {
		old->st_mode = 0;
		return errno == ENOENT ? 1 : error_sys(err, errno, "look at it");
	}
	return 1;
}

static int share_entry(
	struct sharing *sharing, struct both *both, const char *name, struct error *err)
{
	size_t length = sharing->path.length;
	struct stat old = {0}, new = {0};
	int status = look_at(both, name, &old, &new, err);

	if (status <= 0) {
		return status;
	}
	if (sharing->events->stop != NULL && sharing->events->stop(sharing->events->context)) {
		return error_set(err, ERROR_CANCELLED, "stopped");
	}
	buffer_addf(&sharing->path, "%s%s", length > 0 ? "/" : "", name);
	status = 0;
	if (S_ISDIR(new.st_mode) && S_ISDIR(old.st_mode)) {
		status = enter(sharing, both, name, err);
	} else if (S_ISREG(new.st_mode) && S_ISREG(old.st_mode)) {
		status = take_pair(sharing, both, name, length, &old, &new, err);
	}
	if (status == 0) {
		sharing->path.length = length;
		sharing->path.data[length] = '\0';
	}
	return status;
}

/* One after the other, each with its '\0'. */
static int folder_names(int fd, struct buffer *names, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(fd, ".", err);
	struct dirent *entry;

	if (dir == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(dir)) != NULL) {
		if (!streq(entry->d_name, ".") && !streq(entry->d_name, "..")) {
			buffer_add(names, entry->d_name, strlen(entry->d_name) + 1);
		}
	}
	return 0;
}

/* The names first: a folder that is changed while it is read may be read twice or in part. */
static int share_folder(struct sharing *sharing, struct both *both, struct error *err)
{
	CLEANUP(buffer_done) struct buffer names = {0};
	int status = folder_names(both->new_fd, &names, err);

	for (size_t at = 0; status == 0 && at < names.length; at += strlen(names.data + at) + 1) {
		status = share_entry(sharing, both, names.data + at, err);
	}
	return status;
}

/* ---- counting names ---- */

static int count_names(int dir_fd, struct inodes *names, size_t depth, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(dir_fd, ".", err);
	struct dirent *entry;

	if (dir == NULL) {
		return -(int)err->kind;
	}
	if (depth > TREE_DEPTH_MAX) {
		return error_set(
			err, ERROR_LIMIT, "folders are nested deeper than %d", TREE_DEPTH_MAX);
	}
	while ((entry = readdir(dir)) != NULL) {
		CLEANUP(close_p) int inner = -1;
		struct stat status;

		if (streq(entry->d_name, ".") || streq(entry->d_name, "..") ||
			(entry->d_type != DT_REG && entry->d_type != DT_DIR &&
				entry->d_type != DT_UNKNOWN)) {
			continue;
		}
		if (fstatat(dir_fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
			return error_sys(err, errno, "look at %s", entry->d_name);
		}
		note_name(names, &status);
		if (!S_ISDIR(status.st_mode)) {
			continue;
		}
		inner = io_open(dir_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
		if (inner < 0 || count_names(inner, names, depth + 1, err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

static int prepare_links(struct sharing *sharing, struct both *root, struct error *err)
{
	int status = count_names(root->old_fd, &sharing->old_names, 0, err);

	if (status == 0) {
		status = count_names(root->new_fd, &sharing->new_names, 0, err);
	}
	if (status < 0) {
		return status;
	}
	keep_several(&sharing->old_names);
	keep_several(&sharing->new_names);
	sharing->preparing = true;
	status = share_folder(sharing, root, err);
	sharing->preparing = false;
	if (status == 0 && sharing->new_times.text.length > 0) {
		status = restamp_begin(&sharing->new_times, sharing->pair->new_fd, err);
	}
	if (status == 0 && sharing->old_times.text.length > 0) {
		status = restamp_begin(&sharing->old_times, sharing->pair->old_fd, err);
	}
	if (status == 0 && sharing->new_times.fd >= 0) {
		status = share_still_free(
			sharing->store, sharing->pair->new.id, sharing->pair->new_fd, err);
	}
	if (status == 0 && sharing->old_times.fd >= 0) {
		status = share_still_free(
			sharing->store, sharing->pair->old.id, sharing->pair->old_fd, err);
	}
	return status == 0 ? staging_new(sharing->store, &sharing->staging, err) : status;
}

/* Also after a failure and a stop: what has been replaced stays replaced. */
static int finish_links(struct sharing *sharing, int status, struct error *err)
{
	struct error ending = ERROR_INIT;

	if (sharing->new_times.fd >= 0 && restamp_end(&sharing->new_times, &ending) < 0 &&
		status == 0) {
		error_copy(err, &ending);
		status = -(int)err->kind;
	}
	ending = ERROR_INIT;
	if (sharing->old_times.fd >= 0 && restamp_end(&sharing->old_times, &ending) < 0 &&
		status == 0) {
		error_copy(err, &ending);
		status = -(int)err->kind;
	}
	return status;
}

int share_trees(struct store *store, const struct share_pair *pair, enum share_method method,
	const struct share_events *events, struct share_counts *ret_counts, struct error *err)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
	CLEANUP(both_done) struct both root = {.old_fd = -1, .new_fd = -1};
	CLEANUP(sharing_done)
	struct sharing sharing = {.store = store,
		.pair = pair,
		.events = events,
		.method = method,
		.old_times = {.fd = -1},
		.new_times = {.fd = -1}};
	int status;

	root.old_fd = io_open(pair->old_fd, "tree", flags, 0, err);
	root.new_fd = root.old_fd < 0 ? -1 : io_open(pair->new_fd, "tree", flags, 0, err);
	if (root.new_fd < 0) {
		return -(int)err->kind;
	}
	buffer_add_str(&sharing.path, "");
	status = method == SHARE_LINKS ? prepare_links(&sharing, &root, err) : 0;
	if (status == 0) {
		status = share_folder(&sharing, &root, err);
	}
	if (method == SHARE_LINKS) {
		status = finish_links(&sharing, status, err);
	}
	*ret_counts = sharing.counts;
	return status < 0 && sharing.path.length > 0
		       ? error_wrap(err, "%s", buffer_text(&sharing.path))
		       : status;
}
