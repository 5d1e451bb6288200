/*
 * What changes in a work tree between two commits: for each path its modes and blobs, the content
 * as a checkout writes it, and the id of the content as the old checkout wrote it, so that the
 * other end can tell whether somebody has worked on the file. Attributes are those of the commits.
 */
#include "builder/git/git_way_internal.h"

#include "builder/child.h"
#include "pool/sandbox/init_protocol.h"

#include <sys/stat.h>

DEFINE_CLEANUP(git_diff_one_p, git_diff, git_diff_free)
DEFINE_CLEANUP(git_filter_list_p, git_filter_list, git_filter_list_free)

struct files {
	struct git_way_out *out;
	bool attributes; /* one of the commits has any */
	char **folders; /* whose attributes changed, "" for all; NULL-terminated */
	git_diff *diff;
	struct error *err;
};

static int find_attributes(const char *root, const git_tree_entry *entry, void *payload)
{
	(void)root;
	if (streq(git_tree_entry_name(entry), ".gitattributes")) {
		*(bool *)payload = true;
		return GIT_EUSER;
	}
	return 0;
}

static bool has_attributes(const git_tree *tree)
{
	bool found = false;

	return git_tree_walk(tree, GIT_TREEWALK_PRE, find_attributes, &found) < 0 || found;
}

/* The blob as a checkout writes it at `path`; NULL filters: as it is. */
static int filters_find(const struct git_way_side *side, git_blob *blob, const char *path,
	git_filter_list **ret_filters)
{
	git_filter_options options = {.version = GIT_FILTER_OPTIONS_VERSION};

	options.flags = GIT_FILTER_ATTRIBUTES_FROM_COMMIT | GIT_FILTER_NO_SYSTEM_ATTRIBUTES;
	git_oid_cpy(&options.attr_commit_id, git_commit_id(side->commit));
	return git_filter_list_load_ext(
		ret_filters, side->repository, blob, path, GIT_FILTER_TO_WORKTREE, &options);
}

/* *ret_data is disposed of by the caller, also after a failure. */
static int content_of(struct files *files, const struct git_way_side *side, const git_oid *id,
	const char *path, bool is_file, git_buf *ret_data)
{
	CLEANUP(git_blob_p) git_blob *blob = NULL;
	CLEANUP(git_filter_list_p) git_filter_list *filters = NULL;
	int code = git_blob_lookup(&blob, side->repository, id);

	if (code == 0 && is_file && files->attributes) {
		code = filters_find(side, blob, path, &filters);
	}
	if (code == 0 && filters != NULL) {
		code = git_filter_list_apply_to_blob(ret_data, filters, blob);
	} else if (code == 0) {
		code = git_buf_set(
			ret_data, git_blob_rawcontent(blob), (size_t)git_blob_rawsize(blob));
	}
	return code < 0 ? git_error_take(files->err, code, "read %s", path) : 0;
}

/* The id of what the old checkout wrote: without filters that of the blob. */
static int old_content(struct files *files, const git_diff_file *old, struct apply_record *record)
{
	git_buf data = {0};
	git_oid id;
	int status;

	memcpy(record->old_content, old->id.id, APPLY_ID_SIZE);
	if (!S_ISREG(old->mode) || !files->attributes) {
		return 0;
	}
	status = content_of(files, &files->out->from, &old->id, old->path, true, &data);
	if (status == 0 && git_odb_hash(&id, data.ptr, data.size, GIT_OBJECT_BLOB) < 0) {
		status = git_error_take(files->err, GIT_ERROR, "hash %s", old->path);
	}
	memcpy(record->old_content, id.id, APPLY_ID_SIZE);
	git_buf_dispose(&data);
	return status;
}

static int put_change(struct files *files, const git_diff_file *old, const git_diff_file *new)
{
	struct git_way_out *out = files->out;
	struct apply_record record = {.type = APPLY_CHANGE};
	const char *path = new != NULL ? new->path : old->path;
	git_buf data = {0};
	int status = 0;

	if (++out->result->changes > APPLY_CHANGES_MAX) {
		return error_set(
			files->err, ERROR_LIMIT, "more than %d paths change", APPLY_CHANGES_MAX);
	}
	if (out->way->modules && ((old != NULL && old->mode == GIT_FILEMODE_COMMIT) ||
					 (new != NULL &&new->mode == GIT_FILEMODE_COMMIT))) {
		error_set(files->err, ERROR_UNSUPPORTED, "the submodule %s changes", path);
		return error_hint(files->err, "a sandbox of the next image has it");
	}
	if (out->way->mark != NULL) {
		out->result->marks |= out->way->mark(out->way->context, path);
	}
	if (old != NULL) {
		record.old_mode = old->mode;
		memcpy(record.old_id, old->id.id, APPLY_ID_SIZE);
		status = old_content(files, old, &record);
	}
	if (status == 0 && new != NULL) {
		record.new_mode = new->mode;
		memcpy(record.new_id, new->id.id, APPLY_ID_SIZE);
		if (new->mode != GIT_FILEMODE_COMMIT) {
			status = content_of(
				files, &out->to, &new->id, path, S_ISREG(new->mode), &data);
		}
	}
	if (status == 0) {
		status = git_way_put(out, &record, path, data.ptr, data.size, files->err);
	}
	git_buf_dispose(&data);
	child_progress(out->child, "changes", out->result->changes, 0, out->result->bytes);
	return status;
}

static bool is_there(const git_diff_file *file)
{
	return file->mode != 0 && !git_oid_is_zero(&file->id);
}

static int put_delta(struct files *files, const git_diff_delta *delta)
{
	const git_diff_file *old = delta->status != GIT_DELTA_ADDED ? &delta->old_file : NULL;
	const git_diff_file *new = delta->status != GIT_DELTA_DELETED ? &delta->new_file : NULL;

	if ((old != NULL && !is_there(old)) || (new != NULL && !is_there(new))) {
		return error_set(
			files->err, ERROR_CORRUPT, "%s: a change of nothing", delta->new_file.path);
	}
	return put_change(files, old, new);
}

/* ---- files whose attributes changed, and nothing else of them ---- */

static bool is_below_changed(const struct files *files, const char *path)
{
	for (char **folder = files->folders; folder != NULL && *folder != NULL; folder++) {
		if (str_starts(path, *folder)) {
			return true;
		}
	}
	return false;
}

static void note_attributes(struct files *files, const char *path)
{
	const char *slash = strrchr(path, '/');
	CLEANUP(free_p) char *folder = NULL;

	if (streq(slash != NULL ? slash + 1 : path, ".gitattributes")) {
		folder = xstrndup(path, slash != NULL ? (size_t)(slash + 1 - path) : 0);
		strv_add(&files->folders, folder);
	}
}

/* The same blob, written another way. */
static int put_rewritten(struct files *files, const char *path, const git_tree_entry *entry)
{
	const git_diff_file file = {.id = *git_tree_entry_id(entry),
		.path = path,
		.mode = (uint16_t)git_tree_entry_filemode(entry)};
	git_buf before = {0}, after = {0};
	int status = content_of(files, &files->out->from, &file.id, path, true, &before);

	if (status == 0) {
		status = content_of(files, &files->out->to, &file.id, path, true, &after);
	}
	if (status == 0 &&
		(before.size != after.size || memcmp(before.ptr, after.ptr, before.size) != 0)) {
		status = put_change(files, &file, &file);
	}
	git_buf_dispose(&before);
	git_buf_dispose(&after);
	return status;
}

static int on_entry(const char *root, const git_tree_entry *entry, void *payload)
{
	struct files *files = payload;
	CLEANUP(free_p) char *path = xasprintf("%s%s", root, git_tree_entry_name(entry));
	git_tree_entry *old = NULL;
	int status = 0;

	if (!S_ISREG(git_tree_entry_filemode(entry)) || !is_below_changed(files, path) ||
		git_tree_entry_bypath(&old, files->out->from.tree, path) < 0) {
		return 0;
	}
	if (git_oid_equal(git_tree_entry_id(old), git_tree_entry_id(entry)) &&
		git_tree_entry_filemode(old) == git_tree_entry_filemode(entry)) {
		status = put_rewritten(files, path, entry);
	}
	git_tree_entry_free(old);
	return status < 0 ? GIT_EUSER : 0;
}

static int put_files(struct files *files)
{
	size_t count = git_diff_num_deltas(files->diff);
	int status = 0, code;

	for (size_t i = 0; status == 0 && i < count; i++) {
		const git_diff_delta *delta = git_diff_get_delta(files->diff, i);

		note_attributes(files, delta->new_file.path);
		status = put_delta(files, delta);
	}
	if (status < 0 || files->folders == NULL) {
		return status;
	}
	code = git_tree_walk(files->out->to.tree, GIT_TREEWALK_PRE, on_entry, files);
	if (code < 0 && files->err->kind == ERROR_NONE) {
		git_error_take(files->err, code, "walk the files of %.12s", files->out->way->to);
	}
	return code < 0 ? -(int)files->err->kind : 0;
}

int git_way_files(struct git_way_out *out, struct error *err)
{
	CLEANUP(git_diff_one_p) git_diff *diff = NULL;
	git_diff_options options;
	struct files files = {.out = out, .err = err};
	int code, status;

	git_diff_options_init(&options, GIT_DIFF_OPTIONS_VERSION);
	options.flags = GIT_DIFF_INCLUDE_TYPECHANGE | GIT_DIFF_SKIP_BINARY_CHECK;
	options.ignore_submodules = GIT_SUBMODULE_IGNORE_NONE;
	code = git_diff_tree_to_tree(
		&diff, out->to.repository, out->from.tree, out->to.tree, &options);
	if (code < 0) {
		return git_error_take(
			err, code, "compare %.12s with %.12s", out->way->from, out->way->to);
	}
	files.diff = diff;
	files.attributes = has_attributes(out->from.tree) || has_attributes(out->to.tree);
	status = put_files(&files);
	strv_free(files.folders);
	return status;
}
