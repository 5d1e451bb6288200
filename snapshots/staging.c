/* Folders that are not committed yet, and the way out of the store. A staging folder is locked from
 * just after it is made until its handle is freed; what nobody holds is rubbish of a dead process.
 */
#include "snapshots/store_private.h"

#include "base/io.h"
#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

/* A sweep may delete a folder between its making and its lock; it does not do so often. */
#define STAGING_TRIES 16

/* True if the folder that `fd` is open on still has its name. */
static bool has_name(int dir_fd, const char *name, int fd)
{
	struct stat by_name, by_fd;

	return fstat(fd, &by_fd) == 0 &&
	       fstatat(dir_fd, name, &by_name, AT_SYMLINK_NOFOLLOW) == 0 &&
	       by_fd.st_ino == by_name.st_ino && by_fd.st_dev == by_name.st_dev;
}

static int make_locked(struct store *store, const char *name, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	int status;

	if (mkdirat(store->staging_fd, name, 0700) < 0) {
		return error_sys(err, errno, "make staging folder %s", name);
	}
	status = store_lock(store->staging_fd, name, LOCK_SH, &fd, err);
	if (status < 0) {
		return status;
	}
	if (!has_name(store->staging_fd, name, fd)) {
		return error_set(err, ERROR_NOT_FOUND, "staging folder %s was swept", name);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int staging_make(
	struct store *store, const char *prefix, struct staging **ret_staging, struct error *err)
{
	struct staging *staging;
	char name[ID_SIZE];
	int fd = -1, status, tries = STAGING_TRIES;

	do {
		id_random(name, prefix);
		status = make_locked(store, name, &fd, err);
	} while ((status == -ERROR_BUSY || status == -ERROR_NOT_FOUND) && --tries > 0);
	if (status < 0) {
		return status;
	}
	status = store_fault("staging.made", err);
	staging = xcalloc(1, sizeof(*staging));
	*staging = (struct staging){.store = store, .name = xstrdup(name), .fd = fd};
	if (status < 0) {
		staging_free(staging);
		return status;
	}
	*ret_staging = staging;
	return 0;
}

int staging_new(struct store *store, struct staging **ret_staging, struct error *err)
{
	return staging_make(store, STAGING_PREFIX, ret_staging, err);
}

int staging_new_kept(struct store *store, struct staging **ret_staging, struct error *err)
{
	return staging_make(store, KEEP_PREFIX, ret_staging, err);
}

int staging_again(
	struct store *store, const char *name, struct staging **ret_staging, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	int status = store_lock(store->staging_fd, name, LOCK_SH, &fd, err);

	if (status < 0) {
		return status;
	}
	*ret_staging = xcalloc(1, sizeof(**ret_staging));
	**ret_staging =
		(struct staging){.store = store, .name = xstrdup(name), .fd = steal_fd(&fd)};
	return 0;
}

const char *staging_name(const struct staging *staging)
{
	return staging->name;
}

int staging_fd(const struct staging *staging)
{
	return staging->fd;
}

void staging_free(struct staging *staging)
{
	struct error err = ERROR_INIT;

	if (staging == NULL) {
		return;
	}
	if (!staging->sealed && store_remove(staging->store, "staging", staging->name, &err) < 0) {
		log_failure("staging.stuck", &err, "name", staging->name);
	}
	fd_done(&staging->fd);
	free(staging->name);
	free(staging);
}

int store_remove(struct store *store, const char *room, const char *name, struct error *err)
{
	CLEANUP(close_p) int fd = -1;

	if (store->remove != NULL) {
		return store->remove(store->remove_context, room, name, err);
	}
	fd = io_open(store->fd, room, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
	if (fd < 0) {
		return fd;
	}
	return io_remove_tree(fd, name, err) < 0 ? error_wrap(err, "delete %s/%s", room, name) : 0;
}

int layer_trash(struct store *store, int64_t id, struct error *err)
{
	char name[ID_TEXT_SIZE], trash[ID_SIZE];
	int status;

	id_format(name, id);
	id_random(trash, TRASH_PREFIX);
	status = store_fault("trash.before", err);
	if (status < 0) {
		return status;
	}
	if (renameat(store->layers_fd, name, store->staging_fd, trash) < 0) {
		return errno == ENOENT ? 0
				       : error_sys(err, errno, "move layer %s to the trash", name);
	}
	status = store_fault("trash.renamed", err);
	if (status == 0) {
		status = store_remove(store, "staging", trash, err);
	}
	return status < 0 ? status : store_fault("trash.deleted", err);
}
