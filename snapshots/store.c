/* The handle of a store: its folders, its connection to the catalog, and the locks it holds. Every
 * folder is 0700: layers hold whatever a build made, set-user-id programs too, and nobody but hob
 * and the launcher has business with them. */
#include "snapshots/store.h"
#include "snapshots/store_private.h"

#include "base/fault.h"
#include "base/io.h"
#include "snapshots/volume/volume.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define STORE_FOLDER_MODE 0700

static const char *const folders[] = {
	"layers", "staging", "mirrors", "downloads", "sandboxes", "heads", "builds"};

static int make_folders(int fd, struct error *err)
{
	CLEANUP(close_p) int catalog = -1;

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		if (mkdirat(fd, folders[i], STORE_FOLDER_MODE) < 0 && errno != EEXIST) {
			return error_sys(err, errno, "make folder %s", folders[i]);
		}
	}
	io_spread_below(fd, "staging");
	catalog = io_open(fd, CATALOG_FILE, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, err);
	return catalog < 0 ? catalog : 0;
}

static int make_top(const char *path, struct error *err)
{
	CLEANUP(free_p) char *parents = xstrdup(path);
	char *slash = strrchr(parents, '/');

	if (slash != NULL && slash != parents) {
		*slash = '\0';
		if (io_mkdir_all(AT_FDCWD, parents, 0755, err) < 0) {
			return error_wrap(err, "store %s", path);
		}
	}
	if (mkdir(path, STORE_FOLDER_MODE) < 0 && errno != EEXIST) {
		return error_sys(err, errno, "make store %s", path);
	}
	return 0;
}

static int open_folders(struct store *store, struct error *err)
{
	const struct {
		const char *name;
		int *fd;
	} wanted[] = {{"layers", &store->layers_fd}, {"staging", &store->staging_fd},
		{"heads", &store->heads_fd}, {"builds", &store->builds_fd}};

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		int fd = io_open(
			store->fd, wanted[i].name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);

		if (fd < 0) {
			return fd;
		}
		*wanted[i].fd = fd;
	}
	return 0;
}

static int explain_open(const char *path, struct error *err)
{
	struct stat status;

	if (err->kind == ERROR_NOT_FOUND) {
		error_set(err, ERROR_NOT_FOUND, "no store at %s", path);
		return error_hint(err, "the first build or start of hobd makes it");
	}
	if (err->kind == ERROR_DENIED && stat(path, &status) == 0) {
		error_hint(err, "the store belongs to user id %u: run this as root or as that user",
			status.st_uid);
	}
	(void)!volume_explain(path, err);
	return error_wrap(err, "store %s", path);
}

static int open_parts(
	struct store *store, const char *path, enum store_mode mode, struct error *err)
{
	CLEANUP(free_p) char *catalog = NULL;
	char real[PATH_MAX];
	int status;

	store->fd = io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, err);
	if (store->fd < 0) {
		return store->fd;
	}
	if (realpath(path, real) == NULL) {
		return error_sys(err, errno, "resolve %s", path);
	}
	store->path = xstrdup(real);
	if (mode == STORE_CREATE && (status = make_folders(store->fd, err)) < 0) {
		return status;
	}
	status = open_folders(store, err);
	if (status < 0) {
		return status;
	}
	/* sqlite3 would say "unable to open" of a missing file: look first. */
	if (faccessat(store->fd, CATALOG_FILE, R_OK | W_OK, 0) < 0) {
		return error_sys(err, errno, "open %s", CATALOG_FILE);
	}
	catalog = xasprintf("%s/%s", store->path, CATALOG_FILE);
	status = catalog_open(catalog, store->fd, mode == STORE_READ, &store->db, err);
	if (status == -ERROR_NO_SPACE && ballast_release(store->fd)) {
		status = catalog_open(catalog, store->fd, mode == STORE_READ, &store->db, err);
	} else if (status == 0 && mode == STORE_CREATE) {
		ballast_make(store->fd);
	}
	return status;
}

int store_open(const char *path, enum store_mode mode, struct store **ret_store, struct error *err)
{
	CLEANUP(store_close_p) struct store *store = xcalloc(1, sizeof(*store));
	int status;

	store->mode = mode;
	store->fd = store->layers_fd = store->staging_fd = store->heads_fd = store->builds_fd = -1;
	if (mode == STORE_CREATE && (status = make_top(path, err)) < 0) {
		return status;
	}
	if (open_parts(store, path, mode, err) < 0) {
		return explain_open(path, err);
	}
	*ret_store = steal_ptr(store);
	return 0;
}

void store_close(struct store *store)
{
	if (store == NULL) {
		return;
	}
	catalog_close(store->db);
	for (size_t i = 0; i < store->hold_count; i++) {
		fd_done(&store->holds[i].fd);
	}
	free(store->holds);
	fd_done(&store->layers_fd);
	fd_done(&store->staging_fd);
	fd_done(&store->heads_fd);
	fd_done(&store->builds_fd);
	fd_done(&store->fd);
	free(store->path);
	free(store);
}

int store_fd(const struct store *store)
{
	return store->fd;
}

const char *store_path(const struct store *store)
{
	return store->path;
}

void store_set_remover(struct store *store, store_remove_fn *fn, void *context)
{
	store->remove = fn;
	store->remove_context = context;
}

void store_set_usage(struct store *store, store_usage_fn *fn, void *context)
{
	store->usage = fn;
	store->usage_context = context;
}

void store_set_opaque(struct store *store, store_opaque_fn *fn, void *context)
{
	store->opaque = fn;
	store->opaque_context = context;
}

void store_set_compare(struct store *store, store_compare_fn *fn, void *context)
{
	store->compare = fn;
	store->compare_context = context;
}

int opaque_access(int fd, bool set, bool *opaque, struct error *err)
{
	char value[2];
	ssize_t length;

	if (set) {
		return fsetxattr(fd, OPAQUE_XATTR, "y", 1, 0) < 0
			       ? error_sys(err, errno, "make a folder opaque")
			       : 0;
	}
	length = fgetxattr(fd, OPAQUE_XATTR, value, sizeof(value));
	if (length < 0 && errno != ENODATA && errno != ENOTSUP && errno != ERANGE) {
		return error_sys(err, errno, "read " OPAQUE_XATTR);
	}
	*opaque = length == 1 && value[0] == 'y';
	return 0;
}

int store_opaque_get(struct store *store, int fd, bool *ret_opaque, struct error *err)
{
	return store->opaque != NULL
		       ? store->opaque(store->opaque_context, fd, false, ret_opaque, err)
		       : opaque_access(fd, false, ret_opaque, err);
}

int store_opaque_set(struct store *store, int fd, struct error *err)
{
	bool ignored = false;

	return store->opaque != NULL ? store->opaque(store->opaque_context, fd, true, &ignored, err)
				     : opaque_access(fd, true, &ignored, err);
}

void store_hold(struct store *store, enum hold_kind kind, int64_t id, int fd)
{
	*array_add(&store->holds, &store->hold_count, &store->hold_room) =
		(struct hold){kind, id, fd};
}

bool store_holds(const struct store *store, enum hold_kind kind, int64_t id)
{
	for (size_t i = 0; i < store->hold_count; i++) {
		if (store->holds[i].kind == kind && store->holds[i].id == id) {
			return true;
		}
	}
	return false;
}

void store_release(struct store *store, enum hold_kind kind, int64_t id)
{
	for (size_t i = store->hold_count; i-- > 0;) {
		if (store->holds[i].kind == kind && store->holds[i].id == id) {
			fd_done(&store->holds[i].fd);
			store->holds[i] = store->holds[--store->hold_count];
		}
	}
}

int store_lock(int dir_fd, const char *name, int operation, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int fd = io_open(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0, err);

	if (fd < 0) {
		return fd;
	}
	if (flock(fd, operation | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK) {
			return error_set(err, ERROR_BUSY, "%s is in use by another process", name);
		}
		return error_sys(err, errno, "lock %s", name);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

int store_turn(
	struct store *store, const char *name, const char *busy, int *ret_fd, struct error *err)
{
	CLEANUP(close_p)
	int fd = io_open(store->fd, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, err);

	if (fd < 0) {
		return fd;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		return errno == EWOULDBLOCK ? error_set(err, ERROR_BUSY, "%s", busy)
					    : error_sys(err, errno, "lock %s", name);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

int store_fault(const char *point, struct error *err)
{
	int sys = fault_point(point);

	return sys == 0 ? 0 : error_sys(err, sys, "at %s", point);
}

void id_format(char text[ID_TEXT_SIZE], int64_t id)
{
	snprintf(text, ID_TEXT_SIZE, "%lld", (long long)id);
}

bool id_parse(const char *text, const char *prefix, int64_t *ret_id)
{
	char *end;
	long long id;

	if (str_starts(text, prefix)) {
		text += strlen(prefix);
	}
	/* strtoll alone would take signs, blanks and leading zeros too. */
	if (*text < '1' || *text > '9') {
		return false;
	}
	errno = 0;
	id = strtoll(text, &end, 10);
	if (*end != '\0' || errno != 0) {
		return false;
	}
	*ret_id = id;
	return true;
}
