/*
 * Two stacks of layers walked side by side. Where both see a folder through the same layers, all
 * below is the same and is not walked; an entry of the same layer is the same. So the cost is that
 * of the layers in which the two differ.
 */
#include "snapshots/tree/tree_walk.h"

#include "base/buffer.h"
#include "base/io.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

#define BLOCK_BYTES (64 * 1024)

struct walk {
	struct tree_view *before, *after;
	tree_change_fn *fn;
	void *context;
	struct buffer path;
	size_t depth;
};

/* A folder's two sides; an absent side has count 0. */
struct sides {
	struct tree_dir before, after;
};

static void sides_done(struct sides *sides)
{
	tree_dir_done(&sides->before);
	tree_dir_done(&sides->after);
}

static bool same_layer(const struct walk *walk, size_t before, size_t after)
{
	return tree_view_layer(walk->before, before)->id == tree_view_layer(walk->after, after)->id;
}

static bool same_sources(const struct walk *walk, const struct sides *sides)
{
	if (sides->before.count != sides->after.count) {
		return false;
	}
	for (size_t i = 0; i < sides->before.count; i++) {
		if (!same_layer(walk, sides->before.from[i], sides->after.from[i])) {
			return false;
		}
	}
	return true;
}

/* ---- comparing one entry ---- */

static int open_entry(const struct tree_entry *entry, struct error *err)
{
	return io_open(entry->dir_fd, entry->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, err);
}

static int read_block(int fd, char *block, size_t *ret_length, struct error *err)
{
	size_t length = 0;

	while (length < BLOCK_BYTES) {
		ssize_t got = read(fd, block + length, BLOCK_BYTES - length);

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return error_sys(err, errno, "read");
		}
		if (got == 0) {
			break;
		}
		length += (size_t)got;
	}
	*ret_length = length;
	return 0;
}

static int files_differ(
	const struct tree_entry *a, const struct tree_entry *b, bool *ret_differ, struct error *err)
{
	CLEANUP(close_p) int left = open_entry(a, err);
	CLEANUP(close_p) int right = left < 0 ? -1 : open_entry(b, err);
	CLEANUP(free_p) char *blocks = xmalloc(2 * BLOCK_BYTES);
	size_t x = 0, y = 0;
	int status;

	if (left < 0 || right < 0) {
		return -(int)err->kind;
	}
	do {
		status = read_block(left, blocks, &x, err);
		if (status == 0) {
			status = read_block(right, blocks + BLOCK_BYTES, &y, err);
		}
		if (status < 0) {
			return error_wrap(err, "%s", a->name);
		}
		if (x != y || memcmp(blocks, blocks + BLOCK_BYTES, x) != 0) {
			*ret_differ = true;
			return 0;
		}
	} while (x == BLOCK_BYTES);
	*ret_differ = false;
	return 0;
}

static bool links_differ(const struct tree_entry *a, const struct tree_entry *b)
{
	char left[4096], right[4096];
	ssize_t x = readlinkat(a->dir_fd, a->name, left, sizeof(left));
	ssize_t y = readlinkat(b->dir_fd, b->name, right, sizeof(right));

	return x < 0 || y < 0 || x != y || memcmp(left, right, (size_t)x) != 0;
}

/* The attributes that a user of a sandbox sees, as "name\0length value" in the order of names. */
static void add_xattrs(const struct tree_entry *entry, struct buffer *text)
{
	char path[64], names[65536], value[65536];
	CLEANUP(close_p)
	int fd = openat(entry->dir_fd, entry->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	length = fd < 0 ? -1 : listxattr(path, names, sizeof(names));
	for (ssize_t i = 0; i < length; i += (ssize_t)strlen(names + i) + 1) {
		ssize_t size;

		if (str_starts(names + i, "trusted.")) {
			continue;
		}
		size = getxattr(path, names + i, value, sizeof(value));
		buffer_addf(text, "%s=%zd:", names + i, size);
		if (size > 0) {
			buffer_add(text, value, (size_t)size);
		}
	}
}

static bool xattrs_differ(const struct tree_entry *a, const struct tree_entry *b)
{
	CLEANUP(buffer_done) struct buffer left = {0};
	CLEANUP(buffer_done) struct buffer right = {0};

	if (S_ISLNK(a->stat.st_mode)) {
		return false;
	}
	add_xattrs(a, &left);
	add_xattrs(b, &right);
	return left.length != right.length ||
	       (left.length > 0 && memcmp(left.data, right.data, left.length) != 0);
}

static int compare_content(
	const struct tree_entry *a, const struct tree_entry *b, unsigned *what, struct error *err)
{
	const struct stat *x = &a->stat, *y = &b->stat;
	bool differ = false;
	int status = 0;

	switch (x->st_mode & S_IFMT) {
	case S_IFREG:
		differ = x->st_size != y->st_size;
		if (!differ && (x->st_ino != y->st_ino || x->st_dev != y->st_dev)) {
			status = files_differ(a, b, &differ, err);
		}
		break;
	case S_IFLNK:
		differ = links_differ(a, b);
		break;
	case S_IFCHR:
	case S_IFBLK:
		differ = x->st_rdev != y->st_rdev;
		break;
	default:
		break;
	}
	*what |= differ ? TREE_CONTENT : 0;
	return status;
}

static int compare(const struct walk *walk, const struct tree_entry *a, const struct tree_entry *b,
	unsigned *ret_what, struct error *err)
{
	const struct layer *left = tree_view_layer(walk->before, a->from);
	const struct layer *right = tree_view_layer(walk->after, b->from);
	const struct stat *x = &a->stat, *y = &b->stat;
	unsigned what = 0;

	if (same_layer(walk, a->from, b->from)) {
		*ret_what = 0;
		return 0;
	}
	if ((x->st_mode & S_IFMT) != (y->st_mode & S_IFMT)) {
		*ret_what = TREE_TYPE;
		return 0;
	}
	what |= (x->st_mode & 07777) != (y->st_mode & 07777) ? TREE_MODE : 0;
	what |= tree_id(left, x->st_uid) != tree_id(right, y->st_uid) ||
				tree_id(left, x->st_gid) != tree_id(right, y->st_gid)
			? TREE_OWNER
			: 0;
	if (!S_ISDIR(x->st_mode) && (x->st_mtim.tv_sec != y->st_mtim.tv_sec ||
					    x->st_mtim.tv_nsec != y->st_mtim.tv_nsec)) {
		what |= TREE_MTIME;
	}
	what |= xattrs_differ(a, b) ? TREE_XATTRS : 0;
	*ret_what = what;
	return compare_content(a, b, ret_what, err);
}

/* ---- the walk ---- */

/* At least one of them is there. */
static const char *entry_name(const struct tree_entry *a, const struct tree_entry *b)
{
	assert(a != NULL || b != NULL);
	return a != NULL ? a->name : b->name;
}

static int walk_folder(struct walk *walk, const struct sides *sides, struct error *err);

/* Goes into the entry, which is a folder on at least one side. */
static int descend(struct walk *walk, const struct sides *sides, const struct tree_entry *a,
	const struct tree_entry *b, struct error *err)
{
	const char *name = entry_name(a, b);
	CLEANUP(sides_done) struct sides below = {0};
	int status = 0;

	if (a != NULL && S_ISDIR(a->stat.st_mode)) {
		status = tree_dir_open(walk->before, &sides->before, name, &below.before, err);
	}
	if (status == 0 && b != NULL && S_ISDIR(b->stat.st_mode)) {
		status = tree_dir_open(walk->after, &sides->after, name, &below.after, err);
	}
	if (status < 0 || same_sources(walk, &below)) {
		return status;
	}
	if (++walk->depth > TREE_DEPTH_MAX) {
		return error_set(
			err, ERROR_LIMIT, "folders are nested deeper than %d", TREE_DEPTH_MAX);
	}
	buffer_add_str(&walk->path, "/");
	status = walk_folder(walk, &below, err);
	walk->depth--;
	return status;
}

static int report(struct walk *walk, enum tree_change_kind kind, unsigned what,
	const struct tree_entry *a, const struct tree_entry *b, struct error *err)
{
	struct tree_change change = {.path = buffer_text(&walk->path),
		.kind = kind,
		.what = what,
		.before = a != NULL ? &a->stat : NULL,
		.after = b != NULL ? &b->stat : NULL};

	return walk->fn(walk->context, &change, err);
}

static int visit(struct walk *walk, const struct sides *sides, const struct tree_entry *a,
	const struct tree_entry *b, struct error *err)
{
	size_t length = walk->path.length;
	unsigned what = 0;
	int status = 0;

	buffer_add_str(&walk->path, entry_name(a, b));
	if (a != NULL && b != NULL) {
		status = compare(walk, a, b, &what, err);
		if (status == 0 && what != 0) {
			status = report(walk, TREE_CHANGED, what, a, b, err);
		}
	} else {
		status = report(walk, a == NULL ? TREE_ADDED : TREE_DELETED, 0, a, b, err);
	}
	if (status == 0 && ((a != NULL && S_ISDIR(a->stat.st_mode)) ||
				   (b != NULL && S_ISDIR(b->stat.st_mode)))) {
		status = descend(walk, sides, a, b, err);
	}
	walk->path.length = length;
	if (walk->path.data != NULL) {
		walk->path.data[length] = '\0';
	}
	return status;
}

struct entries {
	struct tree_entry *list;
	size_t count;
};

static void entries_done(struct entries *entries)
{
	tree_entries_free(entries->list, entries->count);
}

static int walk_folder(struct walk *walk, const struct sides *sides, struct error *err)
{
	CLEANUP(entries_done) struct entries a = {0};
	CLEANUP(entries_done) struct entries b = {0};
	size_t i = 0, j = 0;
	int status = tree_dir_list(walk->before, &sides->before, &a.list, &a.count, err);

	if (status == 0) {
		status = tree_dir_list(walk->after, &sides->after, &b.list, &b.count, err);
	}
	while (status == 0 && (i < a.count || j < b.count)) {
		int order = i == a.count   ? 1
			    : j == b.count ? -1
					   : strcmp(a.list[i].name, b.list[j].name);

		status = visit(walk, sides, order <= 0 ? &a.list[i] : NULL,
			order >= 0 ? &b.list[j] : NULL, err);
		i += order <= 0;
		j += order >= 0;
	}
	return status;
}

int tree_diff(struct tree_view *before, struct tree_view *after, tree_change_fn *fn, void *context,
	struct error *err)
{
	struct walk walk = {.before = before, .after = after, .fn = fn, .context = context};
	CLEANUP(sides_done) struct sides root = {0};
	int status = tree_dir_open(before, NULL, "/", &root.before, err);

	if (status == 0) {
		status = tree_dir_open(after, NULL, "/", &root.after, err);
	}
	if (status == 0 && !same_sources(&walk, &root)) {
		status = walk_folder(&walk, &root, err);
	}
	if (status < 0 && walk.path.length > 0) {
		error_wrap(err, "at %s", buffer_text(&walk.path));
	}
	buffer_done(&walk.path);
	return status;
}
