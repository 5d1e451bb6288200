/*
 * Every fetch that brings something adds a pack, and every workspace links them all: after two
 * dozen the small ones are put together. The new pack is there before the old ones go; workspaces
 * keep their links to those. Runs under the mirror's lock.
 */
#include "builder/git/git_internal.h"

#include "base/fault.h"
#include "base/io.h"
#include "builder/child.h"

#include <git2/sys/odb_backend.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define PACKS_MAX 24
#define PACK_SMALL_BYTES (32LL * 1024 * 1024)

/* Paths without their ".pack" of the packs that are small. */
static int list_small(const char *folder, char ***ret_stems, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(AT_FDCWD, folder, err);
	CLEANUP(strv_free_p) char **stems = NULL;
	struct dirent *entry;

	if (dir == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(dir)) != NULL) {
		size_t length = strlen(entry->d_name);
		CLEANUP(free_p) char *stem = NULL;
		struct stat seen;

		if (length < 6 || !streq(entry->d_name + length - 5, ".pack") ||
			fstatat(dirfd(dir), entry->d_name, &seen, 0) < 0 ||
			seen.st_size > PACK_SMALL_BYTES) {
			continue;
		}
		stem = xasprintf("%s/%.*s", folder, (int)length - 5, entry->d_name);
		strv_add(&stems, stem);
	}
	*ret_stems = steal_ptr(stems);
	return 0;
}

struct gather {
	git_packbuilder *builder;
	struct child *child;
	uint64_t count;
};

static int gather_object(const git_oid *id, void *payload)
{
	struct gather *gather = payload;

	child_progress(gather->child, "objects", ++gather->count, 0, 0);
	return git_packbuilder_insert(gather->builder, id, NULL);
}

/* Everything in one pack, through an object store that knows nothing but that pack. */
static int gather_pack(struct gather *gather, const char *stem)
{
	CLEANUP(free_p) char *index = xasprintf("%s.idx", stem);
	CLEANUP(git_odb_p) git_odb *odb = NULL;
	git_odb_backend *backend = NULL;
	int code = git_odb_new(&odb);

	if (code == 0) {
		code = git_odb_backend_one_pack(&backend, index);
	}
	if (code == 0) {
		code = git_odb_add_backend(odb, backend, 1);
	}
	return code < 0 ? code : git_odb_foreach(odb, gather_object, gather);
}

static void remove_pack(const char *stem)
{
	static const char *const ends[] = {
		".idx", ".pack"}; /* a pack without index is not looked at */

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		CLEANUP(free_p) char *path = xasprintf("%s%s", stem, ends[i]);

		unlink(path);
	}
}

int git_mirror_tidy(const struct git_mirror *mirror, struct child *child, struct error *err)
{
	CLEANUP(free_p) char *folder = xasprintf("%s/objects/pack", mirror->path);
	CLEANUP(free_p) char *fresh = NULL;
	CLEANUP(strv_free_p) char **stems = NULL;
	CLEANUP(git_packbuilder_p) git_packbuilder *builder = NULL;
	struct gather gather = {.child = child};
	int code;

	if (list_small(folder, &stems, err) < 0) {
		return error_wrap(err, "tidy the mirror");
	}
	if (strv_count(stems) <= PACKS_MAX) {
		return 0;
	}
	code = git_packbuilder_new(&builder, mirror->repository);
	gather.builder = builder;
	for (size_t i = 0; code == 0 && stems[i] != NULL; i++) {
		code = gather_pack(&gather, stems[i]);
	}
	if (code == 0) {
		code = git_packbuilder_write(builder, folder, 0444, NULL, NULL);
	}
	if (code < 0) {
		return git_error_take(err, code, "put the mirror's packs together");
	}
	fault_point("git.tidied");
	fresh = xasprintf("%s/pack-%s", folder, git_packbuilder_name(builder));
	for (size_t i = 0; stems[i] != NULL; i++) {
		if (!streq(stems[i], fresh)) {
			remove_pack(stems[i]);
		}
	}
	return 0;
}
