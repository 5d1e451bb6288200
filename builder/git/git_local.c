/*
 * Fetching from a repository on this machine, in a child process, without a transport: libgit2's
 * own makes a pack of everything for each fetch. The first time its packs are copied as they are;
 * afterwards one pack is written of what the mirror lacks. Nothing is ever written to the source.
 */
#include "builder/git/git_internal.h"

#include "base/fault.h"
#include "base/io.h"
#include "builder/child.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

/* The folder with `objects` and `config`: <path>/.git or, of a bare one, <path>. */
static int find_folder(const char *path, char **ret_folder, struct error *err)
{
	CLEANUP(free_p) char *git = xasprintf("%s/.git", path);
	CLEANUP(free_p) char *head = xasprintf("%s/HEAD", path);
	struct stat seen;

	if (stat(git, &seen) == 0 && S_ISDIR(seen.st_mode)) {
		*ret_folder = steal_ptr(git);
		return 0;
	}
	if (errno != ENOENT && errno != ENOTDIR && stat(path, &seen) < 0) {
		return error_sys(err, errno, "read the repository %s", path);
	}
	if (stat(git, &seen) == 0) {
		error_set(err, ERROR_UNSUPPORTED, "%s is a linked worktree or a submodule", path);
		return error_hint(
			err, "name the main repository as the url and the branch as the ref");
	}
	if (stat(head, &seen) == 0) {
		*ret_folder = xstrdup(path);
		return 0;
	}
	if (stat(path, &seen) < 0) {
		return error_sys(err, errno, "read the repository %s", path);
	}
	return error_set(err, ERROR_NOT_FOUND, "%s is no git repository", path);
}

static int refuse(struct error *err, const char *path, const char *what)
{
	error_set(err, ERROR_UNSUPPORTED, "%s is a %s clone: parts of its history are not there",
		path, what);
	return error_hint(err,
		"complete it (git fetch --unshallow, or --refetch without a filter) or use "
		"the repository that it was cloned from");
}

/* Asked before libgit2 opens it: some of these it does not know and would answer wrongly for. */
static int check_complete(const char *path, const char *folder, struct error *err)
{
	CLEANUP(free_p) char *shallow = xasprintf("%s/shallow", folder);
	CLEANUP(free_p) char *config_path = xasprintf("%s/config", folder);
	CLEANUP(git_config_p) git_config *config = NULL;
	git_config_iterator *iterator = NULL;
	git_config_entry *entry;
	bool partial = false;
	struct stat seen;

	if (stat(shallow, &seen) == 0 && seen.st_size > 0) {
		return refuse(err, path, "shallow");
	}
	if (git_config_open_ondisk(&config, config_path) < 0 ||
		git_config_iterator_new(&iterator, config) < 0) {
		return git_error_take(err, GIT_ERROR, "read %s", config_path);
	}
	while (!partial && git_config_next(&entry, iterator) == 0) {
		size_t length = strlen(entry->name);

		partial = streq(entry->name, "extensions.partialclone") ||
			  (length > 9 && streq(entry->name + length - 9, ".promisor"));
	}
	git_config_iterator_free(iterator);
	return partial ? refuse(err, path, "partial") : 0;
}

static int open_source(const struct git_source *source, git_repository **ret_repository,
	char **ret_folder, struct error *err)
{
	CLEANUP(free_p) char *folder = NULL;
	int status = find_folder(source->local, &folder, err), code;

	if (status == 0) {
		status = check_complete(source->local, folder, err);
	}
	if (status < 0) {
		if (err->kind == ERROR_DENIED) {
			error_hint(err, "let user hob read it, or start hob-build as root");
		}
		return status;
	}
	code = git_repository_open_ext(ret_repository, folder,
		GIT_REPOSITORY_OPEN_NO_SEARCH | GIT_REPOSITORY_OPEN_BARE, NULL);
	if (code < 0) {
		return git_error_take(err, code, "open the repository %s", source->local);
	}
	*ret_folder = steal_ptr(folder);
	return 0;
}

static int list_refs(git_repository *repository, struct git_ref_list *list, struct error *err)
{
	CLEANUP(git_reference_p) git_reference *head = NULL;
	git_reference_iterator *iterator = NULL;
	git_reference *reference = NULL;

	if (git_reference_lookup(&head, repository, "HEAD") == 0) {
		list->head_target = xstrdup(git_reference_symbolic_target(head));
		list->has_head = git_reference_name_to_id(&list->head_id, repository, "HEAD") == 0;
	}
	if (git_reference_iterator_new(&iterator, repository) < 0) {
		return git_error_take(err, GIT_ERROR, "list the refs");
	}
	while (git_reference_next(&reference, iterator) == 0) {
		git_oid id;

		if (git_reference_name_to_id(&id, repository, git_reference_name(reference)) == 0) {
			git_ref_list_add(list, git_reference_name(reference), &id);
		}
		git_reference_free(reference);
	}
	git_reference_iterator_free(iterator);
	return 0;
}

/* ---- the first time: its packs as they are ---- */

static int copy_bytes(int from, int to, uint64_t size, struct child *child, struct error *err)
{
	uint64_t done = 0;

	if (ioctl(to, FICLONE, from) == 0) {
		return 0;
	}
	while (done < size) {
		ssize_t put = copy_file_range(from, NULL, to, NULL, size - done, 0);

		if (put < 0 && errno == EINTR) {
			continue;
		}
		if (put <= 0) {
			return error_sys(err, put < 0 ? errno : EIO, "copy a pack");
		}
		done += (uint64_t)put;
		child_progress(child, "copying", 0, 0, done);
	}
	return 0;
}

static int copy_file(int from_dir, int to_dir, const char *name, struct child *child,
	uint64_t *bytes, struct error *err)
{
	CLEANUP(close_p) int from = io_open(from_dir, name, O_RDONLY | O_NOFOLLOW, 0, err);
	CLEANUP(close_p) int to = -1;
	CLEANUP(free_p) char *temporary = xasprintf("tmp-%s", name);
	struct stat seen;
	int status;

	if (from < 0) {
		return from;
	}
	to = io_open(to_dir, temporary, O_WRONLY | O_CREAT | O_TRUNC, 0444, err);
	if (to < 0) {
		return to;
	}
	if (fstat(from, &seen) < 0) {
		return error_sys(err, errno, "stat %s", name);
	}
	status = copy_bytes(from, to, (uint64_t)seen.st_size, child, err);
	if (status < 0) {
		return status;
	}
	if (fsync(to) < 0 || renameat(to_dir, temporary, to_dir, name) < 0) {
		return error_sys(err, errno, "finish %s", name);
	}
	*bytes += (uint64_t)seen.st_size;
	return 0;
}

static bool is_pack_index(const char *name)
{
	size_t length = strlen(name);

	return str_starts(name, "pack-") && length > 4 && streq(name + length - 4, ".idx");
}

/* Pack before index: a pack without its index is not looked at. Packs that vanish meanwhile (a gc
 * in the source) are no failure here; what is missing then comes the other way. */
static int copy_packs(const char *folder, const struct git_mirror *mirror, struct child *child,
	struct git_found *found, struct error *err)
{
	CLEANUP(free_p) char *from_path = xasprintf("%s/objects/pack", folder);
	CLEANUP(free_p) char *to_path = xasprintf("%s/objects/pack", mirror->path);
	CLEANUP(closedir_p) DIR *from = io_opendir(AT_FDCWD, from_path, err);
	CLEANUP(close_p) int to = -1;
	struct dirent *entry;
	int status = 0;

	if (from == NULL) {
		return err->kind == ERROR_NOT_FOUND ? 0 : -(int)err->kind;
	}
	to = io_open(AT_FDCWD, to_path, O_RDONLY | O_DIRECTORY, 0, err);
	if (to < 0) {
		return to;
	}
	while (status == 0 && (entry = readdir(from)) != NULL) {
		CLEANUP(free_p) char *pack = NULL;

		if (!is_pack_index(entry->d_name)) {
			continue;
		}
		pack = xasprintf("%.*s.pack", (int)strlen(entry->d_name) - 4, entry->d_name);
		status = copy_file(dirfd(from), to, pack, child, &found->bytes, err);
		if (status == 0) {
			status = copy_file(
				dirfd(from), to, entry->d_name, child, &found->bytes, err);
		}
		if (status == -ERROR_NOT_FOUND) {
			status = 0;
		}
	}
	return status;
}

/* ---- one pack of what is missing ---- */

static int on_pack(int stage, uint32_t current, uint32_t total, void *payload)
{
	(void)stage;
	child_progress(payload, "objects", current, total, 0);
	return 0;
}

static int on_index(const git_indexer_progress *stats, void *payload)
{
	child_progress(payload, "objects", stats->indexed_objects, stats->total_objects,
		stats->received_bytes);
	return 0;
}

struct missing {
	git_repository *from;
	git_odb *ours;
	git_packbuilder *builder;
	struct child *child;
	uint64_t seen;
};

static int add_blob(struct missing *missing, const git_oid *id, const char *name)
{
	return git_odb_exists_ext(missing->ours, id, GIT_ODB_LOOKUP_NO_REFRESH)
		       ? 0
		       : git_packbuilder_insert(missing->builder, id, name);
}

/* A tree that the mirror has is whole there, with all below it. */
static int add_tree(struct missing *missing, const git_oid *id, const char *name)
{
	CLEANUP(git_tree_p) git_tree *tree = NULL;
	size_t before = git_packbuilder_object_count(missing->builder);
	int code;

	child_progress(missing->child, "objects", ++missing->seen, 0, 0);
	if (git_odb_exists_ext(missing->ours, id, GIT_ODB_LOOKUP_NO_REFRESH) == 1) {
		return 0;
	}
	code = git_packbuilder_insert(missing->builder, id, name);
	if (code == 0 && git_packbuilder_object_count(missing->builder) == before) {
		return 0; /* added through another path, with all below it */
	}
	if (code == 0) {
		code = git_tree_lookup(&tree, missing->from, id);
	}
	for (size_t i = 0; code == 0 && i < git_tree_entrycount(tree); i++) {
		const git_tree_entry *entry = git_tree_entry_byindex(tree, i);
		git_object_t type = git_tree_entry_type(entry);

		if (type == GIT_OBJECT_TREE) {
			code = add_tree(
				missing, git_tree_entry_id(entry), git_tree_entry_name(entry));
		} else if (type == GIT_OBJECT_BLOB) {
			code = add_blob(
				missing, git_tree_entry_id(entry), git_tree_entry_name(entry));
		}
	}
	return code;
}

static int add_commit(struct missing *missing, const git_oid *id)
{
	CLEANUP(git_commit_p) git_commit *commit = NULL;
	int code = git_commit_lookup(&commit, missing->from, id);

	if (code == 0 && git_odb_exists_ext(missing->ours, id, GIT_ODB_LOOKUP_NO_REFRESH) == 0) {
		code = git_packbuilder_insert(missing->builder, id, NULL);
	}
	return code < 0 ? code : add_tree(missing, git_commit_tree_id(commit), NULL);
}

/* Tags on the way to a commit. */
static int add_tags(struct missing *missing, const git_oid *tip, git_oid *ret_commit)
{
	CLEANUP(git_object_p) git_object *object = NULL;
	int code = git_object_lookup(&object, missing->from, tip, GIT_OBJECT_ANY);

	while (code == 0 && git_object_type(object) == GIT_OBJECT_TAG) {
		git_object *next = NULL;

		code = git_packbuilder_insert(missing->builder, git_object_id(object), NULL);
		if (code == 0) {
			code = git_tag_target(&next, (git_tag *)object);
		}
		if (code == 0) {
			git_object_free(object);
			object = next;
		}
	}
	if (code == 0 && git_object_type(object) != GIT_OBJECT_COMMIT) {
		git_error_set_str(GIT_ERROR_INVALID, "the ref names no commit");
		return GIT_EPEEL;
	}
	if (code == 0) {
		*ret_commit = *git_object_id(object);
	}
	return code;
}

/* Commits that the mirror's refs reach, and that the source still has, need not come. */
static void hide_known(git_revwalk *walk, const struct git_mirror *mirror, git_repository *from)
{
	git_reference_iterator *iterator = NULL;
	git_reference *reference = NULL;

	if (git_reference_iterator_new(&iterator, mirror->repository) < 0) {
		return;
	}
	while (git_reference_next(&reference, iterator) == 0) {
		git_object *commit = NULL, *theirs = NULL;

		if (git_reference_peel(&commit, reference, GIT_OBJECT_COMMIT) == 0 &&
			git_object_lookup(
				&theirs, from, git_object_id(commit), GIT_OBJECT_COMMIT) == 0) {
			git_revwalk_hide(walk, git_object_id(commit));
		}
		git_object_free(theirs);
		git_object_free(commit);
		git_reference_free(reference);
	}
	git_reference_iterator_free(iterator);
}

static int gather_missing(
	struct missing *missing, const struct git_mirror *mirror, const git_oid *tip)
{
	CLEANUP(git_revwalk_p) git_revwalk *walk = NULL;
	git_oid id;
	int code = add_tags(missing, tip, &id);

	if (code == 0) {
		code = git_revwalk_new(&walk, missing->from);
	}
	if (code == 0) {
		code = git_revwalk_push(walk, &id);
	}
	if (code < 0) {
		return code;
	}
	hide_known(walk, mirror, missing->from);
	while ((code = git_revwalk_next(&id, walk)) == 0) {
		code = add_commit(missing, &id);
		if (code < 0) {
			return code;
		}
	}
	return code == GIT_ITEROVER ? 0 : code;
}

static int add_loose(const git_oid *id, void *payload)
{
	struct missing *missing = payload;

	return add_blob(missing, id, NULL);
}

/* After its packs were copied: the objects that are in none of them. */
static int gather_loose(struct missing *missing, const char *folder)
{
	CLEANUP(free_p) char *objects = xasprintf("%s/objects", folder);
	CLEANUP(git_odb_p) git_odb *odb = NULL;
	git_odb_backend *backend = NULL;
	int code = git_odb_new(&odb);

	if (code == 0) {
		code = git_odb_backend_loose(&backend, objects, -1, 0, 0, 0);
	}
	if (code == 0) {
		code = git_odb_add_backend(odb, backend, 1);
	}
	return code < 0 ? code : git_odb_foreach(odb, add_loose, missing);
}

int git_pack_missing(git_repository *from, const struct git_mirror *mirror, const git_oid *tip,
	const char *folder, struct child *child, struct git_found *found, struct error *err)
{
	CLEANUP(free_p) char *to = xasprintf("%s/objects/pack", mirror->path);
	CLEANUP(git_odb_p) git_odb *ours = NULL;
	CLEANUP(git_packbuilder_p) git_packbuilder *builder = NULL;
	struct missing missing = {.from = from, .child = child};
	int code = git_repository_odb(&ours, mirror->repository);

	if (code == 0) {
		code = git_odb_refresh(ours);
	}
	if (code == 0) {
		code = git_packbuilder_new(&builder, from);
	}
	if (code < 0) {
		return git_error_take(err, code, "prepare a pack");
	}
	missing.ours = ours;
	missing.builder = builder;
	git_packbuilder_set_callbacks(builder, on_pack, child);
	code = folder != NULL ? gather_loose(&missing, folder)
			      : gather_missing(&missing, mirror, tip);
	if (code < 0) {
		git_error_take(err, code, "read the source");
		err->kind = ERROR_REMOTE; /* its objects, not the mirror's */
		return error_hint(err,
			"`git fsck` in the source says what is wrong with it; one that borrows "
			"objects (objects/info/alternates) needs those to be readable for hob");
	}
	found->objects += git_packbuilder_object_count(builder);
	if (git_packbuilder_object_count(builder) > 0) {
		code = git_packbuilder_write(builder, to, 0444, on_index, child);
	}
	return code < 0 ? git_error_take(err, code, "write the pack") : 0;
}

static bool is_empty(const struct git_mirror *mirror)
{
	git_strarray names = {0};
	bool empty = git_reference_list(&names, mirror->repository) == 0 && names.count == 0;

	git_strarray_dispose(&names);
	return empty;
}

/* Copying is for a first fetch from a repository whose objects are all its own and mostly packed.
 */
static bool can_copy(const char *folder, const struct git_mirror *mirror)
{
	CLEANUP(free_p) char *alternates = xasprintf("%s/objects/info/alternates", folder);
	CLEANUP(free_p) char *packs = xasprintf("%s/objects/pack", folder);
	struct error ignored = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = NULL;
	struct dirent *entry;

	if (!is_empty(mirror) || access(alternates, F_OK) == 0) {
		return false;
	}
	dir = io_opendir(AT_FDCWD, packs, &ignored);
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (is_pack_index(entry->d_name)) {
			return true;
		}
	}
	return false;
}

static int bring(git_repository *from, const char *folder, const struct git_mirror *mirror,
	const git_oid *tip, struct child *child, struct git_found *found, struct error *err)
{
	bool copy = can_copy(folder, mirror);
	int status = copy ? copy_packs(folder, mirror, child, found, err) : 0;
	git_odb *odb = NULL;

	if (status < 0) {
		return status;
	}
	status = git_pack_missing(from, mirror, tip, copy ? folder : NULL, child, found, err);
	if (status < 0) {
		return status;
	}
	found->fetched = true;
	fault_point("git.fetched");
	if (git_repository_odb(&odb, mirror->repository) == 0) {
		git_odb_refresh(odb);
		git_odb_free(odb);
	}
	return git_mirror_check_history(mirror, tip, child, err);
}

static int choose(git_repository *from, const struct git_source *source, struct git_found *found,
	git_oid *ret_id, struct error *err)
{
	CLEANUP(git_ref_list_done) struct git_ref_list list = {0};
	CLEANUP(git_commit_p) git_commit *commit = NULL;
	int status;

	if (source->ref != NULL && git_ref_is_commit(source->ref)) {
		git_oid_fromstr(ret_id, source->ref);
		if (git_commit_lookup(&commit, from, ret_id) < 0) {
			return error_set(err, ERROR_NOT_FOUND, "%s has no commit %s", source->url,
				source->ref);
		}
		return 0;
	}
	status = list_refs(from, &list, err);
	return status < 0 ? status : git_ref_choose(&list, source, found, ret_id, err);
}

int git_fetch_local(const struct git_source *source, struct git_mirror *mirror, struct child *child,
	struct git_found *found, struct error *err)
{
	CLEANUP(git_repository_p) git_repository *from = NULL;
	CLEANUP(free_p) char *folder = NULL;
	git_oid tip;
	int status = open_source(source, &from, &folder, err);

	if (status == 0) {
		status = choose(from, source, found, &tip, err);
	}
	if (status < 0) {
		return status;
	}
	if (!git_mirror_has(mirror, &tip)) {
		status = bring(from, folder, mirror, &tip, child, found, err);
		if (status < 0) {
			return status;
		}
	}
	status = git_mirror_set_ref(mirror, found->ref, &tip, err);
	return status < 0 ? status : git_peel_text(mirror->repository, &tip, found->commit, err);
}
