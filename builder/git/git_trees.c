/*
 * Questions about the trees of commits, answered from the mirror without a checkout: what the
 * inputs of steps come to, which paths two commits differ in, and a layer of nothing but inputs.
 */
#include "builder/git/git_internal.h"

#include "base/digest.h"
#include "base/glob.h"
#include "base/io.h"
#include "builder/child.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define TREE_DEPTH_MAX 256

int git_tree_of(git_repository *repository, const char *hex, git_oid *ret_id, int64_t *ret_time,
	git_tree **ret_tree, struct error *err)
{
	CLEANUP(git_commit_p) git_commit *commit = NULL;
	git_oid id;
	int code = git_oid_fromstr(&id, hex);

	if (code == 0) {
		code = git_commit_lookup(&commit, repository, &id);
	}
	if (code == 0) {
		code = git_commit_tree(ret_tree, commit);
	}
	if (code < 0) {
		git_error_take(err, code, "read commit %.12s", hex);
		err->kind = err->kind == ERROR_NOT_FOUND ? ERROR_CORRUPT : err->kind;
		return -(int)err->kind;
	}
	if (ret_id != NULL) {
		*ret_id = id;
	}
	if (ret_time != NULL) {
		*ret_time = git_commit_time(commit);
	}
	return 0;
}

/* ---- every file of a tree ---- */

struct walk {
	git_repository *repository;
	struct child *child;
	struct buffer path;
	git_file_fn *fn;
	void *context;
	uint64_t seen;
};

static int walk_tree(struct walk *walk, const git_tree *tree, int depth, struct error *err)
{
	size_t length = walk->path.length;

	if (depth > TREE_DEPTH_MAX) {
		return error_set(err, ERROR_LIMIT, "folders more than %d deep", TREE_DEPTH_MAX);
	}
	for (size_t i = 0; i < git_tree_entrycount(tree); i++) {
		const git_tree_entry *entry = git_tree_entry_byindex(tree, i);
		CLEANUP(git_tree_p) git_tree *inner = NULL;
		int status, code;

		if (++walk->seen > GIT_FILES_MAX) {
			return error_set(err, ERROR_LIMIT,
				"the commit has more than %d files and folders", GIT_FILES_MAX);
		}
		child_progress(walk->child, "files", walk->seen, 0, 0);
		walk->path.length = length;
		buffer_add_str(&walk->path, git_tree_entry_name(entry));
		if (git_tree_entry_type(entry) != GIT_OBJECT_TREE) {
			status = walk->fn(walk->context, buffer_text(&walk->path), entry, err);
		} else {
			code = git_tree_lookup(&inner, walk->repository, git_tree_entry_id(entry));
			if (code < 0) {
				return git_error_take(err, code, "read a folder");
			}
			buffer_add_str(&walk->path, "/");
			status = walk_tree(walk, inner, depth + 1, err);
		}
		if (status < 0) {
			return status;
		}
	}
	return 0;
}

int git_files_walk(git_repository *repository, struct child *child, const git_tree *tree,
	git_file_fn *fn, void *context, struct error *err)
{
	struct walk walk = {.repository = repository, .child = child, .fn = fn, .context = context};
	int status;

	buffer_init(&walk.path, 0);
	status = walk_tree(&walk, tree, 0, err);
	buffer_done(&walk.path);
	return status;
}

/* ---- what inputs come to ---- */

struct inputs {
	const struct git_inputs_task *task;
	struct digest *digests[GIT_INPUTS_MAX];
	struct git_inputs *result;
};

static int add_input(
	void *context, const char *path, const git_tree_entry *entry, struct error *err)
{
	struct inputs *inputs = context;
	bool module = inputs->task->modules && git_tree_entry_type(entry) == GIT_OBJECT_COMMIT;
	char line[GIT_OID_HEXSZ + 16] = "";
	char hex[GIT_OID_HEXSZ + 1];

	(void)err;
	for (size_t i = 0; i < inputs->task->count; i++) {
		if (glob_list_match(inputs->task->lists[i], path) ||
			(module && glob_list_reaches(inputs->task->lists[i], path))) {
			if (line[0] == '\0') {
				git_oid_tostr(hex, sizeof(hex), git_tree_entry_id(entry));
				snprintf(line, sizeof(line), "%o %s",
					(unsigned)git_tree_entry_filemode(entry), hex);
			}
			digest_add_str(inputs->digests[i], path);
			digest_add_str(inputs->digests[i], line);
			inputs->result->files[i]++;
		}
	}
	return 0;
}

int git_inputs_child(struct child *child, void *context, void *ret_inputs, struct error *err)
{
	CLEANUP(git_mirror_close) struct git_mirror mirror = {.lock_fd = -1};
	CLEANUP(git_tree_p) git_tree *tree = NULL;
	struct inputs inputs = {.task = context, .result = ret_inputs};
	int status = git_library_start(err);

	if (status == 0) {
		status = git_mirror_open(inputs.task->source, child, &mirror, err);
	}
	if (status == 0) {
		status =
			git_tree_of(mirror.repository, inputs.task->commit, NULL, NULL, &tree, err);
	}
	if (status < 0) {
		return status;
	}
	for (size_t i = 0; i < inputs.task->count; i++) {
		inputs.digests[i] = digest_new();
	}
	status = git_files_walk(mirror.repository, child, tree, add_input, &inputs, err);
	for (size_t i = 0; i < inputs.task->count; i++) {
		digest_end(inputs.digests[i], inputs.result->digests[i]);
		digest_free(inputs.digests[i]);
	}
	return status;
}

/* ---- what two commits differ in ---- */

static int count_change(
	const git_diff *diff, const git_diff_delta *change, const char *pathspec, void *payload)
{
	(void)diff;
	(void)change;
	(void)pathspec;
	return ++*(uint64_t *)payload > GIT_FILES_MAX ? GIT_EUSER : 0;
}

static int send_paths(const git_diff *diff, int to_fd, struct error *err)
{
	CLEANUP(buffer_done) struct buffer paths;

	buffer_init(&paths, 0);
	for (size_t i = 0; i < git_diff_num_deltas(diff); i++) {
		const char *path = git_diff_get_delta(diff, i)->new_file.path;

		if (paths.length + strlen(path) >= GIT_CHANGES_BYTES_MAX) {
			return error_set(err, ERROR_LIMIT, "too many paths differ");
		}
		buffer_add(&paths, path, strlen(path) + 1);
	}
	return io_write_full(to_fd, buffer_text(&paths), paths.length, err);
}

int git_changes_child(struct child *child, void *context, void *ret_nothing, struct error *err)
{
	const struct git_changes_task *task = context;
	CLEANUP(git_mirror_close) struct git_mirror mirror = {.lock_fd = -1};
	CLEANUP(git_tree_p) git_tree *from = NULL;
	CLEANUP(git_tree_p) git_tree *to = NULL;
	CLEANUP(git_diff_p) git_diff *diff = NULL;
	git_diff_options options;
	uint64_t count = 0;
	int status = git_library_start(err), code;

	(void)ret_nothing;
	if (status == 0) {
		status = git_mirror_open(task->source, child, &mirror, err);
	}
	if (status == 0) {
		status = git_tree_of(mirror.repository, task->from, NULL, NULL, &from, err);
	}
	if (status == 0) {
		status = git_tree_of(mirror.repository, task->to, NULL, NULL, &to, err);
	}
	if (status < 0) {
		err->kind = err->kind == ERROR_CORRUPT ? ERROR_NOT_FOUND : err->kind;
		return -(int)err->kind;
	}
	git_diff_options_init(&options, GIT_DIFF_OPTIONS_VERSION);
	options.flags = GIT_DIFF_INCLUDE_TYPECHANGE | GIT_DIFF_SKIP_BINARY_CHECK;
	options.notify_cb = count_change;
	options.payload = &count;
	code = git_diff_tree_to_tree(&diff, mirror.repository, from, to, &options);
	return code < 0 ? git_error_take(err, code, "compare the commits")
			: send_paths(diff, task->to_fd, err);
}

/* ---- a layer of inputs ---- */

struct picking {
	const struct git_pick_task *task;
	struct git_times times;
	struct git_writer writer;
	uint64_t files;
};

static int pick_file(
	void *context, const char *path, const git_tree_entry *entry, struct error *err)
{
	struct picking *picking = context;
	git_index_entry file = {.path = path,
		.mode = git_tree_entry_filemode(entry),
		.id = *git_tree_entry_id(entry)};

	CLEANUP(free_p) char *whole = xasprintf("%s%s", picking->task->below, path);

	if (!glob_list_match(picking->task->patterns, whole)) {
		return 0;
	}
	picking->files++;
	return git_writer_put(&picking->writer, &file,
		git_time_of(&picking->times, path, &file.id, file.mode), err);
}

static int pick(
	struct picking *picking, git_repository *mirror, struct child *child, struct error *err)
{
	const struct git_checkout_task *task = &picking->task->checkout;
	CLEANUP(git_tree_p) git_tree *tree = NULL;
	int64_t time = 0;
	int status = git_tree_of(
		mirror, task->found->commit, &picking->writer.commit, &time, &tree, err);

	if (status == 0) {
		status = git_times_open(task, time, &picking->times, err);
	}
	if (status == 0) {
		status = git_enter_workspace(task->tree_fd, task->path, err);
	}
	if (status < 0) {
		return status;
	}
	picking->writer.repository = mirror;
	picking->writer.root_fd = io_open(AT_FDCWD, ".", O_RDONLY | O_DIRECTORY, 0, err);
	if (picking->writer.root_fd < 0) {
		return picking->writer.root_fd;
	}
	return git_files_walk(mirror, child, tree, pick_file, picking, err);
}

int git_pick_child(struct child *child, void *context, void *ret_files, struct error *err)
{
	CLEANUP(git_mirror_close) struct git_mirror mirror = {.lock_fd = -1};
	struct picking picking = {.task = context, .writer = GIT_WRITER_INIT};
	int status = git_library_start(err);

	if (status == 0) {
		status = git_mirror_open(picking.task->checkout.source, child, &mirror, err);
	}
	if (status == 0) {
		status = pick(&picking, mirror.repository, child, err);
	}
	git_writer_done(&picking.writer);
	git_times_done(&picking.times);
	*(uint64_t *)ret_files = picking.files;
	return status;
}
