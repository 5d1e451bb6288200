/*
 * Makes a build's writable folder fit to be a layer (DESIGN: commit, step 2). A mount with index=on
 * is refused by the kernel while the folder is the upper of a live mount, which is the proof that
 * nobody writes to it. Then everything is on disk, and the marks that tie files to the layers they
 * were copied from are gone, as the layer will stand on others.
 */
#include "base/buffer.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/memory.h"
#include "pool/sandbox/overlay.h"
#include "pool/sandbox/worker.h"
#include "snapshots/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

/* A mount goes a little later than the last process in it. */
#define PROBE_MS 100
#define PROBE_AGAIN_US 2000
#define DEPTH_MAX 2048
#define OPAQUE_LIST_MAX (16 * 1024 * 1024)

static int probe_once(int folder_fd, int tree_fd, struct error *err)
{
	CLEANUP(close_p) int upper = -1;
	CLEANUP(close_p) int work = -1;
	CLEANUP(close_p) int mounted = -1;
	struct overlay overlay = {.lower_fds = &tree_fd, .lower_count = 1, .is_probe = true};
	int status;

	if (mkdirat(folder_fd, "probe", 0700) < 0 || mkdirat(folder_fd, "probe/upper", 0700) < 0 ||
		mkdirat(folder_fd, "probe/work", 0700) < 0) {
		return error_sys(err, errno, "mkdir probe");
	}
	upper = io_open_beneath(folder_fd, "probe/upper", O_PATH | O_DIRECTORY, 0, err);
	work = upper < 0 ? -1
			 : io_open_beneath(folder_fd, "probe/work", O_PATH | O_DIRECTORY, 0, err);
	if (work < 0) {
		return -(int)err->kind;
	}
	overlay.upper_fd = upper;
	overlay.work_fd = work;
	status = overlay_mount(&overlay, &mounted, err);
	return status;
}

static int probe(int folder_fd, int tree_fd, const char *name, struct error *err)
{
	int64_t deadline_ms = clock_mono_ms() + PROBE_MS;

	for (;;) {
		struct error cleaning = ERROR_INIT;
		int status = probe_once(folder_fd, tree_fd, err);

		if (io_remove_tree(folder_fd, "probe", &cleaning) < 0) {
			error_copy(err, &cleaning);
			return error_wrap(err, "%s", name);
		}
		if (status == 0 || err->sys != EBUSY) {
			return status;
		}
		if (clock_mono_ms() >= deadline_ms) {
			return error_set(err, ERROR_BUSY, "something still writes to %s", name);
		}
		*err = ERROR_INIT;
		usleep(PROBE_AGAIN_US);
	}
}

/* By name in the current folder: extended attributes of a link are reached in no other way here. */
static int strip_entry(const char *name, struct error *err)
{
	static const char *const marks[] = {
		"trusted.overlay.origin", "trusted.overlay.impure", "trusted.overlay.uuid"};

	for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
		if (lremovexattr(name, marks[i]) < 0 && errno != ENODATA && errno != EOPNOTSUPP) {
			return error_sys(err, errno, "remove %s of %s", marks[i], name);
		}
	}
	return 0;
}

/* Folders that hide all that lies below, noted as they are come by. */
struct covers {
	struct buffer path; /* of the folder that is being looked at, without that of the tree */
	struct buffer list; /* LAYER_OPAQUE */
	bool wanted;
};

/* Too long a list becomes that of the root, which covers everything. */
static void covers_add(struct covers *covers)
{
	char value[2];

	if (covers->wanted && lgetxattr(".", "trusted.overlay.opaque", value, sizeof(value)) == 1 &&
		value[0] == 'y' &&
		!buffer_add(&covers->list, buffer_text(&covers->path), covers->path.length + 1)) {
		buffer_clear(&covers->list);
		buffer_add(&covers->list, "", 1);
		covers->wanted = false;
	}
}

static int strip_folder(DIR *dir, size_t depth, struct covers *covers, struct error *err);

static int strip_below(
	int dir_fd, const char *name, size_t depth, struct covers *covers, struct error *err)
{
	size_t length = covers->path.length;
	CLEANUP(closedir_p) DIR *dir = io_opendir(dir_fd, name, err);

	if (dir == NULL) {
		return -(int)err->kind;
	}
	if (depth == DEPTH_MAX) {
		return error_set(
			err, ERROR_LIMIT, "%s: more than %d folders deep", name, DEPTH_MAX);
	}
	if (depth > 0) {
		buffer_addf(&covers->path, "%s%s", length > 0 ? "/" : "", name);
	}
	if (strip_folder(dir, depth, covers, err) < 0 || fchdir(dir_fd) < 0) {
		return err->kind != ERROR_NONE ? -(int)err->kind : error_sys(err, errno, "fchdir");
	}
	covers->path.length = length;
	return 0;
}

/* The worker is a process of its own, so it may stand in the folder that it works on. */
static int strip_folder(DIR *dir, size_t depth, struct covers *covers, struct error *err)
{
	struct dirent *entry;

	if (fchdir(dirfd(dir)) < 0 || strip_entry(".", err) < 0) {
		return err->kind != ERROR_NONE ? -(int)err->kind : error_sys(err, errno, "fchdir");
	}
	covers_add(covers);
	while ((entry = readdir(dir)) != NULL) {
		if (streq(entry->d_name, ".") || streq(entry->d_name, "..")) {
			continue;
		}
		if (entry->d_type == DT_DIR
				? strip_below(dirfd(dir), entry->d_name, depth + 1, covers, err) < 0
				: strip_entry(entry->d_name, err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

static int write_covers(int folder_fd, const struct covers *covers, struct error *err)
{
	CLEANUP(close_p)
	int fd = io_open_beneath(
		folder_fd, LAYER_OPAQUE, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644, err);

	if (fd < 0) {
		return fd;
	}
	/* Whatever the umask: those who build read it. */
	if (fchmod(fd, 0644) < 0) {
		return error_sys(err, errno, "chmod " LAYER_OPAQUE);
	}
	return io_write_full(fd, covers->list.data, covers->list.length, err);
}

/* With `note`, beside the tree, which of its folders are opaque: the attribute is for root alone,
 * and what they hide is every builder's business. */
static int strip(int folder_fd, const char *tree, bool note, struct error *err)
{
	struct covers covers = {.wanted = note};
	int status;

	buffer_init(&covers.path, 0);
	buffer_init(&covers.list, OPAQUE_LIST_MAX);
	status = strip_below(folder_fd, tree, 0, &covers, err);
	if (chdir("/") < 0 && status == 0) {
		status = error_sys(err, errno, "chdir");
	}
	if (status == 0 && covers.list.length > 0) {
		status = write_covers(folder_fd, &covers, err);
	}
	buffer_done(&covers.list);
	buffer_done(&covers.path);
	return status;
}

/* ---- opaque folders ---- */

static int set_opaque(int tree_fd, const char *path, struct error *err)
{
	CLEANUP(close_p)
	int fd = io_open_beneath(tree_fd, path, O_RDONLY | O_DIRECTORY, 0, err);

	if (fd < 0) {
		return fd;
	}
	return fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0) < 0
		       ? error_sys(err, errno, "make the folder %s opaque", path)
		       : 0;
}

/* Paths of the tree, each with '\0', in a file beside it: whoever unpacked the tree may not set the
 * attribute himself. A path that leads through a link, or out, or to no folder is refused. */
static int mark_opaque(int folder_fd, int tree_fd, struct error *err)
{
	CLEANUP(close_p)
	int fd = io_open_beneath(folder_fd, "opaque", O_RDONLY | O_NONBLOCK, 0, err);
	CLEANUP(free_p) char *list = NULL;
	struct stat seen;
	int status = 0;

	if (fd < 0 && err->kind == ERROR_NOT_FOUND) {
		*err = ERROR_INIT;
		return 0;
	}
	if (fd < 0) {
		return fd;
	}
	if (fstat(fd, &seen) < 0 || !S_ISREG(seen.st_mode) || seen.st_size > OPAQUE_LIST_MAX) {
		return error_set(err, ERROR_INVALID, "the list of opaque folders is no such list");
	}
	list = xcalloc((size_t)seen.st_size + 1, 1);
	status = io_read_full(fd, list, (size_t)seen.st_size, err);
	for (const char *at = list; status == 0 && at < list + seen.st_size; at += strlen(at) + 1) {
		status = set_opaque(tree_fd, at, err);
	}
	if (status == 0 && unlinkat(folder_fd, "opaque", 0) < 0) {
		status = error_sys(err, errno, "remove the list of opaque folders");
	}
	return status;
}

/* Of an earlier try that failed later. */
static int clear_note(int folder_fd, struct error *err)
{
	return unlinkat(folder_fd, LAYER_OPAQUE, 0) < 0 && errno != ENOENT
		       ? error_sys(err, errno, "remove " LAYER_OPAQUE)
		       : 0;
}

int seal_layer(const struct places *places, const char *staging, struct error *err)
{
	CLEANUP(close_p)
	int folder = io_open_beneath(places->staging_fd, staging, O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(close_p) int tree = -1;
	int fault;

	if (folder < 0) {
		return error_wrap(err, "staging/%s", staging);
	}
	tree = io_open_beneath(folder, "tree", O_RDONLY | O_DIRECTORY, 0, err);
	if (tree < 0 || probe(folder, tree, staging, err) < 0) {
		return -(int)err->kind;
	}
	fault = fault_point("seal.probed");
	if (fault != 0) {
		return error_sys(err, fault, "seal staging/%s", staging);
	}
	if (io_remove_tree(folder, "work", err) < 0 || mark_opaque(folder, tree, err) < 0 ||
		clear_note(folder, err) < 0 || strip(folder, "tree", true, err) < 0) {
		return error_wrap(err, "seal staging/%s", staging);
	}
	if (syncfs(tree) < 0) {
		return error_sys(err, errno, "sync staging/%s", staging);
	}
	return 0;
}

/* True if an earlier try got as far as the rename. */
static bool is_kept(int staging_fd, struct error *err)
{
	struct stat status;

	if (err->kind != ERROR_NOT_FOUND ||
		fstatat(staging_fd, "tree", &status, AT_SYMLINK_NOFOLLOW) < 0) {
		return false;
	}
	*err = ERROR_INIT;
	return true;
}

static int upper_move(int folder_fd, int staging_fd, const char *id, struct error *err)
{
	int fault = fault_point("keep.sealed");

	if (fault != 0) {
		return error_sys(err, fault, "keep sandboxes/%s", id);
	}
	if (renameat2(folder_fd, "upper", staging_fd, "tree", RENAME_NOREPLACE) < 0) {
		return error_sys(err, errno, "keep sandboxes/%s", id);
	}
	fault = fault_point("keep.renamed");
	return fault == 0 ? 0 : error_sys(err, fault, "keep sandboxes/%s", id);
}

/* All that may take long or fail comes before the rename, so that what was not kept is where it
 * was. */
int seal_upper(const struct places *places, const char *id, const char *staging, struct error *err)
{
	CLEANUP(close_p)
	int to = io_open_beneath(places->staging_fd, staging, O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(close_p) int folder = -1;
	CLEANUP(close_p) int upper = -1;

	if (to < 0) {
		return error_wrap(err, "staging/%s", staging);
	}
	folder = io_open_beneath(places->sandboxes_fd, id, O_RDONLY | O_DIRECTORY, 0, err);
	upper = folder < 0 ? -1 : io_open_beneath(folder, "upper", O_RDONLY | O_DIRECTORY, 0, err);
	if (upper < 0) {
		return is_kept(to, err) ? 0 : error_wrap(err, "sandboxes/%s", id);
	}
	if (probe(folder, upper, id, err) < 0) {
		return -(int)err->kind;
	}
	if (strip(folder, "upper", false, err) < 0) {
		return error_wrap(err, "seal sandboxes/%s", id);
	}
	if (syncfs(upper) < 0) {
		return error_sys(err, errno, "sync sandboxes/%s", id);
	}
	return upper_move(folder, to, id, err);
}
