/*
 * Id-mapped bind mounts on a small tmpfs, all of it in an own mount namespace: when the process
 * ends, by whatever means, nothing is left of it. Where a file system cannot be id-mapped the path
 * itself is used, and what user hob may read there decides.
 */
#include "builder/local.h"

#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "builder/git/git.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "pool/sandbox/idmap.h"
#include "pool/sandbox/privileges.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif

struct mapper {
	const struct config *config;
	struct local_files *files;
	struct idmaps *idmaps;
	uid_t hob;
	char *folder; /* the tmpfs; NULL: not yet mounted */
};

static int set_attributes(int tree_fd, uint64_t attributes, int userns_fd)
{
	struct mount_attr attr = {.attr_set = attributes};

	if (userns_fd >= 0) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = (__u64)userns_fd;
	}
	return (int)syscall(SYS_mount_setattr, tree_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr));
}

/* The own namespace, with a place for the mounts. Mounts made later on the machine still arrive. */
static int enter_namespace(struct mapper *mapper, struct error *err)
{
	CLEANUP(free_p) char *folder = xasprintf("%s/sources", mapper->config->run);

	if (mapper->folder != NULL) {
		return 0;
	}
	if (io_mkdir_all(AT_FDCWD, folder, 0755, err) < 0) {
		return -(int)err->kind;
	}
	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) {
		return error_sys(err, errno, "make an own mount namespace");
	}
	if (mount("hob-sources", folder, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		    "mode=0755,size=1m") < 0) {
		return error_sys(err, errno, "mount a tmpfs on %s", folder);
	}
	mapper->folder = steal_ptr(folder);
	return 0;
}

/* Whose repository it is: of its .git, or of a bare one itself. */
static int find_owner(const char *path, struct stat *ret_seen, struct error *err)
{
	CLEANUP(free_p) char *git = xasprintf("%s/.git", path);

	if (stat(git, ret_seen) < 0 && stat(path, ret_seen) < 0) {
		return error_sys(err, errno, "read the repository %s", path);
	}
	return 0;
}

/* No userns for an owner who is hob, or on a file system that has no id-mapping. */
static int attach(struct mapper *mapper, const char *path, const struct stat *owner,
	const char *target, struct error *err)
{
	const uint64_t attributes =
		MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
	CLEANUP(close_p)
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | O_CLOEXEC);
	int userns = -1;

	if (tree < 0) {
		return error_sys(err, errno, "open %s", path);
	}
	if (owner->st_uid != mapper->hob && idmap_get(mapper->idmaps, owner->st_uid, owner->st_gid,
						    mapper->hob, 1, &userns, err) < 0) {
		return -(int)err->kind;
	}
	if (set_attributes(tree, attributes, userns) < 0) {
		return error_sys(err, errno, "map the owner of %s", path);
	}
	if (syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0) {
		return error_sys(err, errno, "mount %s", path);
	}
	return 0;
}

static int map_repository(struct mapper *mapper, struct local_file *file, struct error *err)
{
	CLEANUP(free_p) char *target = NULL;
	struct stat owner;
	int status = find_owner(file->path, &owner, err);

	if (status == 0) {
		status = enter_namespace(mapper, err);
	}
	if (status < 0) {
		return status;
	}
	target = xasprintf("%s/%zu", mapper->folder, mapper->files->count);
	if (mkdir(target, 0755) < 0) {
		return error_sys(err, errno, "make %s", target);
	}
	status = attach(mapper, file->path, &owner, target, err);
	if (status == 0) {
		file->mapped = steal_ptr(target);
	}
	return status;
}

static struct local_file *file_add(struct mapper *mapper, const char *path)
{
	struct local_files *files = mapper->files;
	struct local_file *file;

	if (local_find(files, path) != NULL) {
		return NULL;
	}
	file = array_add(&files->items, &files->count, &files->room);
	file->path = xstrdup(path);
	file->fd = -1;
	return file;
}

static void prepare_source(struct mapper *mapper, const char *url)
{
	CLEANUP(free_p) char *path = git_url_path(url);
	struct error err = ERROR_INIT;
	struct local_file *file = path != NULL ? file_add(mapper, path) : NULL;

	if (file != NULL && map_repository(mapper, file, &err) < 0) {
		/* It may still be readable as it is; if not, the fetch says so. */
		log_debug("local.not_mapped", "path", path, "reason", err.message);
	}
}

static void prepare_archive(struct mapper *mapper, const char *location)
{
	CLEANUP(free_p) char *path = git_url_path(location);
	struct local_file *file = path != NULL ? file_add(mapper, path) : NULL;

	if (file != NULL) {
		file->fd = io_open(AT_FDCWD, path, O_RDONLY, 0, &file->error);
	}
}

int local_prepare(const struct config *config, struct environment *const *environments,
	size_t count, struct local_files *ret_files, struct error *err)
{
	struct mapper mapper = {.config = config, .files = ret_files};
	gid_t group;
	int status = user_find(config, &mapper.hob, &group, err);

	if (status < 0) {
		return status;
	}
	mapper.idmaps = xcalloc(1, sizeof(*mapper.idmaps));
	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < environments[i]->source_count; j++) {
			prepare_source(&mapper, environments[i]->sources[j].url);
		}
		if (environments[i]->base == BASE_TAR || environments[i]->base == BASE_OCI) {
			prepare_archive(&mapper, environments[i]->base_location);
		}
	}
	idmaps_done(mapper.idmaps);
	free(mapper.idmaps);
	free(mapper.folder);
	return 0;
}

void local_done(struct local_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		free(files->items[i].path);
		free(files->items[i].mapped);
		fd_done(&files->items[i].fd);
	}
	free(files->items);
	*files = (struct local_files){0};
}

const struct local_file *local_find(const struct local_files *files, const char *path)
{
	for (size_t i = 0; i < files->count; i++) {
		if (streq(files->items[i].path, path)) {
			return &files->items[i];
		}
	}
	return NULL;
}
