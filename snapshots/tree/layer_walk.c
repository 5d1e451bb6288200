/* The walk. Names are read whole and sorted, folders are opened by descriptor and never by path,
 * and a file with several names is told by its inode. */
#include "snapshots/tree/layer_walk.h"
#include "snapshots/store_private.h"
#include "snapshots/tree/tree_walk.h"

#include "base/buffer.h"
#include "base/inode_map.h"
#include "base/io.h"

#include <endian.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/xattr.h>

#define ACL_USER_TAG 0x02
#define ACL_GROUP_TAG 0x08
#define XATTR_NAMES_MAX 65536
#define XATTR_VALUE_MAX 65536

struct walk {
	struct store *store;
	const struct layer *layer;
	walk_entry_fn *fn;
	void *context;
	struct buffer path;
	size_t depth;
	struct inode_map seen; /* the first paths of files with several names */
};

/* ---- files with several names ---- */

/* The path of an earlier name of the same file, or NULL. Whiteouts share an inode and are none. */
static const char *seen_before(struct walk *walk, const struct stat *status)
{
	void **path;

	if (S_ISDIR(status->st_mode) || status->st_nlink < 2 || tree_is_whiteout(status)) {
		return NULL;
	}
	path = inode_map_at(&walk->seen, status->st_dev, status->st_ino);
	if (*path == NULL) {
		*path = xstrdup(buffer_text(&walk->path));
		return NULL;
	}
	return *path;
}

static void walk_done(struct walk *walk)
{
	inode_map_done(&walk->seen, free);
	buffer_done(&walk->path);
}

/* ---- attributes ---- */

static uint32_t get_le32(const char *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static void put_le32(char *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

void walk_acl_shift(char *value, size_t size, int64_t from, int64_t to)
{
	/* A version, then entries of tag, permissions and id. */
	for (size_t at = 4; at + 8 <= size; at += 8) {
		uint32_t tag = get_le32(value + at) & 0xffff, id = get_le32(value + at + 4);

		if (tag == ACL_USER_TAG || tag == ACL_GROUP_TAG) {
			put_le32(value + at + 4, (uint32_t)((int64_t)id - from + to));
		}
	}
}

void walk_capability_root(char value[WALK_CAPABILITY_SIZE], size_t *size, uint32_t root)
{
	uint32_t head = get_le32(value);
	uint32_t revision = root != 0 ? VFS_CAP_REVISION_3 : VFS_CAP_REVISION_2;

	if (*size != XATTR_CAPS_SZ_2 && *size != XATTR_CAPS_SZ_3) {
		return;
	}
	put_le32(value, (head & ~(uint32_t)VFS_CAP_REVISION_MASK) | revision);
	*size = root != 0 ? XATTR_CAPS_SZ_3 : XATTR_CAPS_SZ_2;
	if (root != 0) {
		put_le32(value + XATTR_CAPS_SZ_2, root);
	}
}

static bool is_portable(const char *name)
{
	return str_starts(name, "user.") || str_starts(name, "system.posix_acl_") ||
	       streq(name, "security.capability");
}

static int compare_xattrs(const void *a, const void *b)
{
	const struct walk_xattr *left = a, *right = b;

	return strcmp(left->name, right->name);
}

static void xattrs_free(struct walk_xattr *xattrs, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(xattrs[i].name);
		free(xattrs[i].value);
	}
	free(xattrs);
}

struct xattr_list {
	struct walk_xattr *list;
	size_t count, room;
};

static void add_xattr(struct xattr_list *xattrs, const char *name, const char *value, size_t size)
{
	struct walk_xattr *one = array_add(&xattrs->list, &xattrs->count, &xattrs->room);

	one->name = xstrdup(name);
	one->value = xmalloc(size + WALK_CAPABILITY_SIZE);
	memcpy(one->value, value, size);
	one->size = size;
}

static int read_portable(
	const struct walk *walk, const char *place, struct xattr_list *xattrs, struct error *err)
{
	CLEANUP(free_p) char *names = xmalloc(XATTR_NAMES_MAX);
	CLEANUP(free_p) char *value = xmalloc(XATTR_VALUE_MAX);
	ssize_t length = listxattr(place, names, XATTR_NAMES_MAX);

	if (length < 0 && errno != ENOTSUP) {
		return error_sys(err, errno, "list attributes");
	}
	for (ssize_t i = 0; i < length; i += (ssize_t)strlen(names + i) + 1) {
		const char *name = names + i;
		struct walk_xattr *one;
		ssize_t size;

		if (!is_portable(name)) {
			continue;
		}
		size = getxattr(place, name, value, XATTR_VALUE_MAX);
		if (size < 0) {
			return error_sys(err, errno, "read the attribute %s", name);
		}
		add_xattr(xattrs, name, value, (size_t)size);
		one = &xattrs->list[xattrs->count - 1];
		if (str_starts(name, "system.")) {
			walk_acl_shift(one->value, one->size, walk->layer->id_base, 0);
		} else if (str_starts(name, "security.")) {
			walk_capability_root(one->value, &one->size, 0);
		}
	}
	return 0;
}

static int read_xattrs(
	struct walk *walk, struct walk_entry *entry, struct xattr_list *xattrs, struct error *err)
{
	char place[64];
	bool opaque = false;
	int status = 0;

	if (entry->fd < 0) {
		return 0; /* links, pipes and devices have none that a sandbox can set */
	}
	snprintf(place, sizeof(place), "/proc/self/fd/%d", entry->fd);
	status = read_portable(walk, place, xattrs, err);
	if (status == 0 && S_ISDIR(entry->stat.st_mode)) {
		status = store_opaque_get(walk->store, entry->fd, &opaque, err);
	}
	if (status == 0 && opaque) {
		add_xattr(xattrs, OPAQUE_XATTR, "y", 1);
	}
	if (xattrs->count > 0) {
		qsort(xattrs->list, xattrs->count, sizeof(*xattrs->list), compare_xattrs);
	}
	return status;
}

/* ---- the walk ---- */

static int walk_folder(struct walk *walk, int fd, struct error *err);

static int visit(struct walk *walk, int dir_fd, const char *name, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	struct walk_entry entry = {
		.path = buffer_text(&walk->path), .dir_fd = dir_fd, .name = name};
	struct xattr_list xattrs = {0};
	char target[PATH_MAX];
	ssize_t length;
	int status;

	if (fstatat(dir_fd, name, &entry.stat, AT_SYMLINK_NOFOLLOW) < 0) {
		return error_sys(err, errno, "look at %s", entry.path);
	}
	if (S_ISREG(entry.stat.st_mode) || S_ISDIR(entry.stat.st_mode)) {
		int kind = S_ISDIR(entry.stat.st_mode) ? O_DIRECTORY : O_NONBLOCK;

		fd = io_open(dir_fd, name, O_RDONLY | O_NOFOLLOW | kind, 0, err);
		if (fd < 0) {
			return error_wrap(err, "%s", entry.path);
		}
	}
	entry.fd = fd;
	entry.uid = tree_id(walk->layer, entry.stat.st_uid);
	entry.gid = tree_id(walk->layer, entry.stat.st_gid);
	if (S_ISLNK(entry.stat.st_mode)) {
		length = readlinkat(dir_fd, name, target, sizeof(target) - 1);
		if (length < 0) {
			return error_sys(err, errno, "read the link %s", entry.path);
		}
		target[length] = '\0';
		entry.target = target;
	}
	entry.hardlink = seen_before(walk, &entry.stat);
	status = read_xattrs(walk, &entry, &xattrs, err);
	entry.xattrs = xattrs.list;
	entry.xattr_count = xattrs.count;
	if (status == 0) {
		status = walk->fn(walk->context, &entry, err);
	}
	xattrs_free(xattrs.list, xattrs.count);
	if (status == 0 && S_ISDIR(entry.stat.st_mode)) {
		status = walk_folder(walk, fd, err);
	}
	return status;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
	char **list;
	size_t count, room;
};

static void names_done(struct names *names)
{
	for (size_t i = 0; i < names->count; i++) {
		free(names->list[i]);
	}
	free(names->list);
}

static int read_names(int fd, struct names *names, struct error *err)
{
	CLEANUP(closedir_p) DIR *stream = io_opendir(fd, ".", err);
	struct dirent *entry;

	if (stream == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(stream)) != NULL) {
		if (!streq(entry->d_name, ".") && !streq(entry->d_name, "..")) {
			*array_add(&names->list, &names->count, &names->room) =
				xstrdup(entry->d_name);
		}
	}
	if (names->count > 0) {
		qsort(names->list, names->count, sizeof(*names->list), compare_names);
	}
	return 0;
}

static int walk_folder(struct walk *walk, int fd, struct error *err)
{
	CLEANUP(names_done) struct names names = {0};
	size_t length = walk->path.length;
	int status = read_names(fd, &names, err);

	if (++walk->depth > TREE_DEPTH_MAX) {
		return error_set(
			err, ERROR_LIMIT, "folders are nested deeper than %d", TREE_DEPTH_MAX);
	}
	for (size_t i = 0; status == 0 && i < names.count; i++) {
		if (length > 0) {
			buffer_add_str(&walk->path, "/");
		}
		buffer_add_str(&walk->path, names.list[i]);
		status = visit(walk, fd, names.list[i], err);
		walk->path.length = length;
		walk->path.data[length] = '\0';
	}
	walk->depth--;
	return status;
}

int layer_walk(struct store *store, const struct layer *layer, int tree_fd, walk_entry_fn *fn,
	void *context, struct error *err)
{
	CLEANUP(walk_done)
	struct walk walk = {.store = store, .layer = layer, .fn = fn, .context = context};

	return visit(&walk, tree_fd, ".", err);
}
