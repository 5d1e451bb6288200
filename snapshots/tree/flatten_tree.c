/* The tree of a flattening: folder by folder, the top layer's entry of each name. */
#include "snapshots/tree/flatten.h"
#include "snapshots/tree/layer_walk.h"
#include "snapshots/store_private.h"
#include "snapshots/tree/tree_walk.h"

#include "base/inode_map.h"
#include "base/io.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define XATTR_NAMES_MAX 65536
#define XATTR_VALUE_MAX 65536

struct flattening {
	struct store *store;
	struct tree_view *view, *below; /* below NULL: nothing is */
	const struct layer *about;
	struct flatten_result *result;
	int root_fd;
	struct buffer path;
	size_t depth;
	struct inode_map copies; /* of files with several names: paths in the new tree */
};

static void flattening_done(struct flattening *flattening)
{
	inode_map_done(&flattening->copies, free);
	tree_view_close(flattening->view);
	tree_view_close(flattening->below);
	buffer_done(&flattening->path);
}

/* ---- attributes ---- */

static int copy_xattr(const struct flattening *flattening, const struct layer *from,
	const char *source, int to_fd, const char *name, struct error *err)
{
	CLEANUP(free_p) char *value = xmalloc(XATTR_VALUE_MAX + WALK_CAPABILITY_SIZE);
	ssize_t got = getxattr(source, name, value, XATTR_VALUE_MAX);
	size_t size = (size_t)got;

	if (got < 0) {
		return error_sys(err, errno, "read the attribute %s", name);
	}
	if (str_starts(name, "system.posix_acl_")) {
		walk_acl_shift(value, size, from->id_base, flattening->about->id_base);
	} else if (streq(name, "security.capability")) {
		walk_capability_root(value, &size, (uint32_t)flattening->about->id_base);
	}
	return fsetxattr(to_fd, name, value, size, 0) < 0
		       ? error_sys(err, errno, "set the attribute %s", name)
		       : 0;
}

static int copy_xattrs(const struct flattening *flattening, const struct layer *from, int from_fd,
	int to_fd, struct error *err)
{
	CLEANUP(free_p) char *names = xmalloc(XATTR_NAMES_MAX);
	char source[64];
	ssize_t length;
	int status = 0;

	snprintf(source, sizeof(source), "/proc/self/fd/%d", from_fd);
	length = listxattr(source, names, XATTR_NAMES_MAX);
	if (length < 0 && errno != ENOTSUP) {
		return error_sys(err, errno, "list attributes");
	}
	for (ssize_t i = 0; status == 0 && i < length; i += (ssize_t)strlen(names + i) + 1) {
		if (str_starts(names + i, "user.") || str_starts(names + i, "system.posix_acl_") ||
			streq(names + i, "security.capability")) {
			status = copy_xattr(flattening, from, source, to_fd, names + i, err);
		}
	}
	return status;
}

static uid_t owner(const struct flattening *flattening, const struct layer *from, uint32_t id)
{
	return (uid_t)(flattening->about->id_base + tree_id(from, id));
}

/* Owner, mode, attributes, times, in the order in which one does not undo the other. */
static int give_attributes(const struct flattening *flattening, const struct layer *from,
	int from_fd, const struct stat *status, int to_fd, struct error *err)
{
	struct timespec times[2] = {status->st_atim, status->st_mtim};
	int code;

	if (fchown(to_fd, owner(flattening, from, status->st_uid),
		    owner(flattening, from, status->st_gid)) < 0 ||
		fchmod(to_fd, status->st_mode & 07777) < 0) {
		return error_sys(err, errno, "give an owner and a mode");
	}
	code = copy_xattrs(flattening, from, from_fd, to_fd, err);
	if (code == 0 && futimens(to_fd, times) < 0) {
		return error_sys(err, errno, "give a time");
	}
	return code;
}

/* ---- files ---- */

/* Only where there is data, so that holes stay. */
static int copy_ranges(int from, int to, off_t size, struct error *err)
{
	off_t at = 0;

	if (ioctl(to, FICLONE, from) == 0) {
		return 0;
	}
	while ((at = lseek(from, at, SEEK_DATA)) >= 0 && at < size) {
		off_t end = lseek(from, at, SEEK_HOLE);

		if (end < 0) {
			return error_sys(err, errno, "look for a hole");
		}
		for (off_t out = at; at < end;) {
			ssize_t done = copy_file_range(from, &at, to, &out, (size_t)(end - at), 0);

			if (done < 0 && errno == EINTR) {
				continue;
			}
			if (done <= 0) {
				return error_sys(err, done < 0 ? errno : EIO, "copy");
			}
		}
	}
	if (at < 0 && errno != ENXIO) {
		return error_sys(err, errno, "look for data");
	}
	return ftruncate(to, size) < 0 ? error_sys(err, errno, "copy") : 0;
}

static int copy_regular(const struct flattening *flattening, const struct layer *from,
	const struct tree_entry *entry, int to_dir, struct error *err)
{
	CLEANUP(close_p)
	int source =
		io_open(entry->dir_fd, entry->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, err);
	CLEANUP(close_p)
	int target = source < 0 ? -1
				: io_open(to_dir, entry->name,
					  O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, err);
	int status;

	if (source < 0 || target < 0) {
		return -(int)err->kind;
	}
	status = copy_ranges(source, target, entry->stat.st_size, err);
	return status < 0 ? status
			  : give_attributes(flattening, from, source, &entry->stat, target, err);
}

static int copy_special(const struct flattening *flattening, const struct layer *from,
	const struct tree_entry *entry, int to_dir, struct error *err)
{
	const struct stat *status = &entry->stat;
	struct timespec times[2] = {status->st_atim, status->st_mtim};
	char target[PATH_MAX];
	ssize_t length;
	int made;

	if (S_ISLNK(status->st_mode)) {
		length = readlinkat(entry->dir_fd, entry->name, target, sizeof(target) - 1);
		if (length < 0) {
			return error_sys(err, errno, "read a link");
		}
		target[length] = '\0';
		made = symlinkat(target, to_dir, entry->name);
	} else {
		made = mknodat(
			to_dir, entry->name, status->st_mode & (S_IFMT | 0777), status->st_rdev);
	}
	if (made < 0 ||
		fchownat(to_dir, entry->name, owner(flattening, from, status->st_uid),
			owner(flattening, from, status->st_gid), AT_SYMLINK_NOFOLLOW) < 0 ||
		(!S_ISLNK(status->st_mode) &&
			fchmodat(to_dir, entry->name, status->st_mode & 07777, 0) < 0) ||
		utimensat(to_dir, entry->name, times, AT_SYMLINK_NOFOLLOW) < 0) {
		return error_sys(err, errno, "make it");
	}
	return 0;
}

static int copy_file(struct flattening *flattening, const struct layer *from,
	const struct tree_entry *entry, int to_dir, struct error *err)
{
	const struct stat *about = &entry->stat;
	bool named = about->st_nlink > 1 && !tree_is_whiteout(about);
	void **copy =
		named ? inode_map_at(&flattening->copies, about->st_dev, about->st_ino) : NULL;
	int status;

	/* A second name of a file that was copied is a link to the copy. */
	if (named && *copy != NULL) {
		return linkat(flattening->root_fd, *copy, to_dir, entry->name, 0) < 0
			       ? error_sys(err, errno, "link a copy")
			       : 0;
	}
	status = S_ISREG(about->st_mode) ? copy_regular(flattening, from, entry, to_dir, err)
					 : copy_special(flattening, from, entry, to_dir, err);
	if (status == 0 && named) {
		*copy = xstrdup(buffer_text(&flattening->path));
	}
	flattening->result->copied++;
	return status;
}

/* Files keep their link counts apart: two layers' links of one inode are one file all the same. */
static int take_file(struct flattening *flattening, const struct tree_entry *entry, int to_dir,
	struct error *err)
{
	const struct layer *from = tree_view_layer(flattening->view, entry->from);

	if (from->id_base == flattening->about->id_base &&
		from->id_count == flattening->about->id_count) {
		if (linkat(entry->dir_fd, entry->name, to_dir, entry->name, 0) == 0) {
			flattening->result->linked++;
			flattening->result->linked_bytes += (uint64_t)entry->stat.st_blocks * 512;
			return 0;
		}
		/* Full of links, or a file system that has none: a copy does as well. */
		if (errno != EMLINK && errno != EXDEV && errno != EPERM) {
			return error_sys(err, errno, "link it");
		}
	}
	return copy_file(flattening, from, entry, to_dir, err);
}

/* ---- folders ---- */

struct place {
	struct tree_dir dir; /* in the layers that are flattened */
	struct tree_dir below; /* count 0: the stack below does not show this folder */
	int to_fd;
};

static void place_done(struct place *place)
{
	tree_dir_done(&place->dir);
	tree_dir_done(&place->below);
	fd_done(&place->to_fd);
}

static int below_has(const struct place *place, const char *name, bool *ret_has, struct error *err)
{
	struct stat status;

	*ret_has = false;
	for (size_t i = 0; i < place->below.count; i++) {
		if (fstatat(place->below.fds[i], name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
			*ret_has = !tree_is_whiteout(&status);
			return 0;
		}
		if (errno != ENOENT) {
			return error_sys(err, errno, "look at %s", name);
		}
	}
	return 0;
}

static int flatten_folder(struct flattening *flattening, struct place *place, struct error *err);

/* Does something of the layers hide what is below: an opaque one, or one that is no folder? */
static int is_cut(struct flattening *flattening, const struct place *place,
	const struct place *inner, const char *name, bool *ret_cut, struct error *err)
{
	bool opaque = false;
	struct stat status;

	for (size_t i = 0; i < inner->dir.count && !opaque; i++) {
		int code = store_opaque_get(flattening->store, inner->dir.fds[i], &opaque, err);

		if (code < 0) {
			return code;
		}
	}
	for (size_t i = 0; i < place->dir.count && !opaque; i++) {
		opaque = fstatat(place->dir.fds[i], name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
			 !S_ISDIR(status.st_mode);
	}
	*ret_cut = opaque;
	return 0;
}

static int open_below(struct flattening *flattening, const struct place *place, const char *name,
	struct tree_dir *ret_dir, struct error *err)
{
	struct error ignored = ERROR_INIT;
	int status;

	if (place->below.count == 0) {
		return 0;
	}
	status = tree_dir_open(flattening->below, &place->below, name, ret_dir, &ignored);
	if (status < 0 && status != -ERROR_NOT_FOUND) {
		error_copy(err, &ignored);
		return status;
	}
	return 0;
}

static int take_folder(struct flattening *flattening, struct place *place,
	const struct tree_entry *entry, struct error *err)
{
	CLEANUP(place_done) struct place inner = {.to_fd = -1};
	const struct layer *from = tree_view_layer(flattening->view, entry->from);
	bool cut = false, hides = false;
	int status = tree_dir_open(flattening->view, &place->dir, entry->name, &inner.dir, err);

	if (status == 0) {
		status = is_cut(flattening, place, &inner, entry->name, &cut, err);
	}
	if (status == 0) {
		status = below_has(place, entry->name, &hides, err);
	}
	if (status == 0 && !cut) {
		status = open_below(flattening, place, entry->name, &inner.below, err);
	}
	if (status == 0 && mkdirat(place->to_fd, entry->name, 0700) < 0) {
		status = error_sys(err, errno, "make a folder");
	}
	if (status == 0) {
		inner.to_fd = io_open(
			place->to_fd, entry->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
		status = inner.to_fd < 0 ? inner.to_fd : flatten_folder(flattening, &inner, err);
	}
	if (status == 0 && cut && hides) {
		status = store_opaque_set(flattening->store, inner.to_fd, err);
	}
	return status < 0 ? status
			  : give_attributes(flattening, from, inner.dir.fds[0], &entry->stat,
				    inner.to_fd, err);
}

static int take_entry(struct flattening *flattening, struct place *place,
	const struct tree_entry *entry, struct error *err)
{
	size_t length = flattening->path.length;
	bool hides = true;
	int status = 0;

	buffer_addf(&flattening->path, "%s%s", length > 0 ? "/" : "", entry->name);
	store_advance(flattening->store, 1, 0);
	if (tree_is_whiteout(&entry->stat)) {
		status = below_has(place, entry->name, &hides, err);
	}
	if (status == 0 && S_ISDIR(entry->stat.st_mode)) {
		status = take_folder(flattening, place, entry, err);
	} else if (status == 0 && hides) {
		status = take_file(flattening, entry, place->to_fd, err);
	}
	if (status < 0) {
		return status;
	}
	flattening->path.length = length;
	flattening->path.data[length] = '\0';
	return 0;
}

static int flatten_folder(struct flattening *flattening, struct place *place, struct error *err)
{
	struct tree_entry *entries = NULL;
	size_t count = 0;
	int status = tree_dir_list_all(flattening->view, &place->dir, &entries, &count, err);

	if (status == 0 && ++flattening->depth > TREE_DEPTH_MAX) {
		status = error_set(
			err, ERROR_LIMIT, "folders are nested deeper than %d", TREE_DEPTH_MAX);
	}
	for (size_t i = 0; status == 0 && i < count; i++) {
		status = take_entry(flattening, place, &entries[i], err);
	}
	flattening->depth--;
	tree_entries_free(entries, count);
	return status;
}

static int flatten_root(struct flattening *flattening, int tree_fd, struct error *err)
{
	CLEANUP(place_done) struct place root = {.to_fd = -1};
	struct stat seen;
	bool opaque = false;
	int status = tree_dir_open(flattening->view, NULL, "/", &root.dir, err);

	for (size_t i = 0; status == 0 && i < root.dir.count && !opaque; i++) {
		status = store_opaque_get(flattening->store, root.dir.fds[i], &opaque, err);
	}
	if (status == 0 && flattening->below != NULL && !opaque) {
		status = tree_dir_open(flattening->below, NULL, "/", &root.below, err);
	}
	if (status == 0) {
		root.to_fd = fcntl(tree_fd, F_DUPFD_CLOEXEC, 3);
		status = root.to_fd < 0 ? error_sys(err, errno, "open the new tree")
					: flatten_folder(flattening, &root, err);
	}
	if (status == 0 && opaque && flattening->below != NULL) {
		status = store_opaque_set(flattening->store, tree_fd, err);
	}
	if (status == 0 && fstat(root.dir.fds[0], &seen) < 0) {
		status = error_sys(err, errno, "look at the root");
	}
	return status < 0 ? status
			  : give_attributes(flattening,
				    tree_view_layer(flattening->view, root.dir.from[0]),
				    root.dir.fds[0], &seen, tree_fd, err);
}

int flatten_trees(struct store *store, const struct layer *below, size_t below_count,
	const struct layer *layers, size_t count, const struct layer *about, int tree_fd,
	struct flatten_result *result, struct error *err)
{
	CLEANUP(flattening_done)
	struct flattening flattening = {
		.store = store, .about = about, .result = result, .root_fd = tree_fd};
	int status = tree_view_open(store, layers, count, &flattening.view, err);

	if (status == 0 && below_count > 0) {
		status = tree_view_open(store, below, below_count, &flattening.below, err);
	}
	if (status == 0) {
		status = flatten_root(&flattening, tree_fd, err);
	}
	if (status < 0 && flattening.path.length > 0) {
		return error_wrap(err, "%s", buffer_text(&flattening.path));
	}
	return status;
}
