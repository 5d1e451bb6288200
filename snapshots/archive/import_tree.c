/*
 * Entries become files, beneath one folder and never outside: a parent is opened by openat2 beneath
 * the tree without links, must have come as a folder before, and everything is made new. Folders
 * get their own attributes last, so that a default access list or a mode does not reach into what
 * is made in them.
 */
#include "snapshots/archive/import_private.h"
#include "snapshots/tree/layer_walk.h"
#include "snapshots/store_private.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define IDS 65536

void import_entry_done(struct import_entry *entry)
{
	free(entry->path);
	free(entry->link);
	free(entry->xattrs);
	*entry = (struct import_entry){0};
}

void import_tree_done(struct import_tree *tree)
{
	for (size_t i = 0; i < tree->folder_count; i++) {
		import_entry_done(&tree->folders[i]);
	}
	free(tree->folders);
	import_entry_done(&tree->file);
	fd_done(&tree->file_fd);
	fd_done(&tree->fd);
	*tree = IMPORT_TREE_INIT;
}

static int refuse(const char *path, const char *why, struct error *err)
{
	return error_set(err, ERROR_INVALID, "the archive's entry \"%s\" %s", path, why);
}

bool import_path_is_clean(const char *path)
{
	const char *part = path;

	while (*path != '\0') {
		size_t length = strcspn(part, "/");

		if (length == 0 || length > NAME_MAX || (length == 1 && part[0] == '.') ||
			(length == 2 && part[0] == '.' && part[1] == '.')) {
			return false;
		}
		if (part[length] == '\0') {
			return true;
		}
		part += length + 1;
	}
	return true;
}

/* The folder that holds `path`; *ret_name is the last part, within path. */
static int open_parent(
	const struct import_tree *tree, const char *path, const char **ret_name, struct error *err)
{
	const char *slash = strrchr(path, '/');
	CLEANUP(free_p)
	char *parent = slash != NULL ? xstrndup(path, (size_t)(slash - path)) : NULL;
	int fd;

	*ret_name = slash != NULL ? slash + 1 : path;
	fd = io_open_beneath(tree->fd, parent != NULL ? parent : ".", O_PATH | O_DIRECTORY, 0, err);
	if (fd < 0 && (err->sys == ENOENT || err->sys == ENOTDIR || err->sys == ELOOP)) {
		return refuse(path, "is in a folder that has not come before it", err);
	}
	return fd < 0 ? error_wrap(err, "%s", path) : fd;
}

/* ---- attributes ---- */

static bool acl_is_in_range(const char *value, size_t size)
{
	for (size_t at = 4; at + 8 <= size; at += 8) {
		const unsigned char *entry = (const unsigned char *)value + at;

		if ((entry[0] == 0x02 || entry[0] == 0x08) && (entry[6] != 0 || entry[7] != 0)) {
			return false;
		}
	}
	return size >= 4 && (size - 4) % 8 == 0;
}

static int set_xattr(struct import_tree *tree, int fd, const char *path, const char *name,
	const char *value, size_t size, struct error *err)
{
	CLEANUP(free_p) char *copy = xmalloc(size + WALK_CAPABILITY_SIZE);

	memcpy(copy, value, size);
	if (streq(name, OPAQUE_XATTR)) {
		return size == 1 && value[0] == 'y'
			       ? store_opaque_set(tree->store, fd, err)
			       : refuse(path, "is opaque in an unknown way", err);
	}
	if (str_starts(name, "system.posix_acl_")) {
		if (!acl_is_in_range(value, size)) {
			return refuse(path, "has an access list with ids out of range", err);
		}
		walk_acl_shift(copy, size, 0, tree->id_base);
	} else if (streq(name, "security.capability")) {
		if (size != 20) {
			return refuse(path, "has capabilities of an unknown form", err);
		}
		walk_capability_root(copy, &size, (uint32_t)tree->id_base);
	} else if (!str_starts(name, "user.")) {
		return refuse(path, "has an attribute that does not belong in a layer", err);
	}
	if (fsetxattr(fd, name, copy, size, 0) < 0) {
		return error_sys(err, errno, "set the attribute %s of %s", name, path);
	}
	return 0;
}

static int set_xattrs(
	struct import_tree *tree, int fd, const struct import_entry *entry, struct error *err)
{
	const char *at = entry->xattrs, *end = entry->xattrs + entry->head.xattr_length;

	while (at < end) {
		const char *name = at, *value;
		uint32_t size;
		size_t length = strnlen(name, (size_t)(end - at));
		int status;

		if ((size_t)(end - at) < length + 1 + sizeof(size)) {
			return refuse(entry->path, "has attributes that are cut off", err);
		}
		memcpy(&size, name + length + 1, sizeof(size));
		value = name + length + 1 + sizeof(size);
		if (size > (size_t)(end - value)) {
			return refuse(entry->path, "has attributes that are cut off", err);
		}
		status = set_xattr(tree, fd, entry->path, name, value, size, err);
		if (status < 0) {
			return status;
		}
		at = value + size;
	}
	return 0;
}

static void get_times(const struct import_entry *entry, struct timespec times[2])
{
	times[0] = (struct timespec){.tv_nsec = UTIME_NOW};
	times[1] = (struct timespec){entry->head.mtime, entry->head.mtime_nsec};
}

/* Owner first: changing it takes set-user-id bits and capabilities away. */
static int finish_fd(
	struct import_tree *tree, int fd, const struct import_entry *entry, struct error *err)
{
	struct timespec times[2];
	int status;

	get_times(entry, times);
	if (fchown(fd, (uid_t)(tree->id_base + entry->head.uid),
		    (gid_t)(tree->id_base + entry->head.gid)) < 0 ||
		fchmod(fd, entry->head.mode & 07777) < 0) {
		return error_sys(err, errno, "give %s its owner and mode", entry->path);
	}
	status = set_xattrs(tree, fd, entry, err);
	if (status == 0 && futimens(fd, times) < 0) {
		return error_sys(err, errno, "give %s its time", entry->path);
	}
	return status;
}

static int finish_file(struct import_tree *tree, struct error *err)
{
	int status = 0;

	if (tree->file_fd < 0) {
		return 0;
	}
	if (ftruncate(tree->file_fd, (off_t)tree->file.head.size) < 0) {
		status = error_sys(err, errno, "write %s", tree->file.path);
	}
	if (status == 0) {
		status = finish_fd(tree, tree->file_fd, &tree->file, err);
	}
	fd_done(&tree->file_fd);
	import_entry_done(&tree->file);
	return status;
}

int import_tree_finish(struct import_tree *tree, struct error *err)
{
	int status = finish_file(tree, err);

	for (size_t i = tree->folder_count; status == 0 && i-- > 0;) {
		const struct import_entry *entry = &tree->folders[i];
		CLEANUP(close_p)
		int fd = io_open_beneath(tree->fd, entry->path[0] != '\0' ? entry->path : ".",
			O_RDONLY | O_DIRECTORY, 0, err);

		status = fd < 0 ? fd : finish_fd(tree, fd, entry, err);
	}
	return status;
}

/* ---- entries ---- */

static int check_entry(const struct import_entry *entry, struct error *err)
{
	const struct import_head *head = &entry->head;

	if (!import_path_is_clean(entry->path)) {
		return refuse(entry->path, "has a path that would leave its layer", err);
	}
	if (head->uid < 0 || head->uid >= IDS || head->gid < 0 || head->gid >= IDS) {
		return refuse(entry->path, "has an owner out of range", err);
	}
	if (head->mtime_nsec >= 1000000000) {
		return refuse(entry->path, "has an impossible time", err);
	}
	if (entry->path[0] == '\0' && !S_ISDIR(head->mode)) {
		return refuse("(root)", "is no folder", err);
	}
	return 0;
}

static int make_link(const struct import_tree *tree, const struct import_entry *entry, int parent,
	const char *name, struct error *err)
{
	CLEANUP(close_p) int from = -1;
	const char *from_name;
	struct stat status;

	if (!import_path_is_clean(entry->link) || entry->link[0] == '\0') {
		return refuse(entry->path, "is a hard link to a path outside its layer", err);
	}
	from = open_parent(tree, entry->link, &from_name, err);
	if (from < 0) {
		return from;
	}
	if (fstatat(from, from_name, &status, AT_SYMLINK_NOFOLLOW) < 0 || S_ISDIR(status.st_mode)) {
		return refuse(entry->path, "is a hard link to what has not come before it", err);
	}
	if (linkat(from, from_name, parent, name, 0) < 0) {
		return error_sys(err, errno, "link %s", entry->path);
	}
	return 0;
}

/* Symbolic links, pipes and whiteouts: made by name, finished by name. */
static int make_special(const struct import_tree *tree, const struct import_entry *entry,
	int parent, const char *name, struct error *err)
{
	const struct import_head *head = &entry->head;
	struct timespec times[2];
	int made;

	if (S_ISLNK(head->mode)) {
		made = symlinkat(entry->link, parent, name);
	} else if (S_ISFIFO(head->mode) ||
		   (S_ISCHR(head->mode) && head->major == 0 && head->minor == 0)) {
		made = mknodat(parent, name, head->mode & (S_IFMT | 0777), makedev(0, 0));
	} else {
		return refuse(entry->path, "is of a type that does not belong in a layer", err);
	}
	get_times(entry, times);
	if (made < 0 ||
		fchownat(parent, name, (uid_t)(tree->id_base + head->uid),
			(gid_t)(tree->id_base + head->gid), AT_SYMLINK_NOFOLLOW) < 0 ||
		(!S_ISLNK(head->mode) && fchmodat(parent, name, head->mode & 07777, 0) < 0) ||
		utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0) {
		return error_sys(err, errno, "make %s", entry->path);
	}
	return 0;
}

static int make_file(struct import_tree *tree, struct import_entry *entry, int parent,
	const char *name, struct error *err)
{
	tree->file_fd = io_open(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, err);
	if (tree->file_fd < 0) {
		return error_wrap(err, "make %s", entry->path);
	}
	tree->file = *entry;
	*entry = (struct import_entry){0};
	return 0;
}

static int make_folder(struct import_tree *tree, struct import_entry *entry, int parent,
	const char *name, struct error *err)
{
	if (entry->path[0] != '\0' && mkdirat(parent, name, 0700) < 0) {
		return error_sys(err, errno, "make %s", entry->path);
	}
	*array_add(&tree->folders, &tree->folder_count, &tree->folder_room) = *entry;
	*entry = (struct import_entry){0};
	return 0;
}

int import_tree_add(struct import_tree *tree, struct import_entry *entry, struct error *err)
{
	CLEANUP(close_p) int parent = -1;
	const char *name = NULL;
	int status = finish_file(tree, err);

	if (status == 0) {
		status = check_entry(entry, err);
	}
	if (status < 0) {
		return status;
	}
	parent = open_parent(tree, entry->path, &name, err);
	if (parent < 0) {
		return parent;
	}
	if (entry->head.is_hardlink != 0) {
		return make_link(tree, entry, parent, name, err);
	}
	if (S_ISDIR(entry->head.mode)) {
		return make_folder(tree, entry, parent, name, err);
	}
	return S_ISREG(entry->head.mode) ? make_file(tree, entry, parent, name, err)
					 : make_special(tree, entry, parent, name, err);
}

int import_tree_data(struct import_tree *tree, uint64_t offset, const void *data, size_t length,
	struct error *err)
{
	const char *from = data;

	if (tree->file_fd < 0 || offset > tree->file.head.size ||
		length > tree->file.head.size - offset) {
		return error_set(err, ERROR_CORRUPT, "the archive has more data than it says");
	}
	while (length > 0) {
		ssize_t put = pwrite(tree->file_fd, from, length, (off_t)offset);

		if (put < 0 && errno == EINTR) {
			continue;
		}
		if (put < 0) {
			return error_sys(err, errno, "write %s", tree->file.path);
		}
		from += put;
		offset += (uint64_t)put;
		length -= (size_t)put;
	}
	return 0;
}
