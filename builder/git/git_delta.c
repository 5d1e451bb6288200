/*
 * A commit as what differs from a full checkout of another, in a child process: changed files,
 * whiteouts for those that are gone, and of .git the index, the refs and the objects that the full
 * checkout lacks. Laid over it, both show what a full checkout of the commit would be. All comes
 * from the two trees and the full checkout's index; no folder is walked. Where a delta would be
 * large, or rules that change every file (.gitattributes) differ, a full checkout is asked for.
 */
#include "builder/git/git_internal.h"

#include "base/fault.h"
#include "base/io.h"
#include "builder/child.h"
#include "builder/git/git_modules.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* Beyond this share of the full checkout's files or bytes, it is made anew. */
#define DELTA_SHARE 4
#define SUBMODULE_LINES_MAX 8

struct delta {
	const struct git_delta_task *task;
	struct child *child;
	struct git_delta *result;
	git_repository *mirror;
	git_odb *odb;
	git_tree *full, *tree;
	git_oid commit;
	git_diff *diff;
	struct git_index_map index; /* the full checkout's */
	int index_fd;
	struct change {
		git_index_entry entry;
		bool gone;
	} * changes; /* of it */
	size_t change_count;
	struct git_times times;
	int64_t newest_ms;
	struct git_writer writer;
};

static void delta_done(struct delta *delta)
{
	git_writer_done(&delta->writer);
	git_times_done(&delta->times);
	git_index_map_done(&delta->index);
	fd_done(&delta->index_fd);
	free(delta->changes);
	git_diff_free(delta->diff);
	git_tree_free(delta->full);
	git_tree_free(delta->tree);
	git_odb_free(delta->odb);
}

static int ask_for_full(struct delta *delta, const char *why)
{
	delta->result->whole = true;
	snprintf(delta->result->why, sizeof(delta->result->why), "%s", why);
	return 0;
}

static bool is_attributes(const char *path)
{
	const char *slash = strrchr(path, '/');

	return streq(slash != NULL ? slash + 1 : path, ".gitattributes");
}

/* What the changed files come to; stops the diff when that is too much. */
struct weight {
	uint64_t files, files_max;
	bool attributes;
	bool modules; /* .gitmodules is another */
	bool links; /* a submodule came or went */
};

static int weigh(
	const git_diff *diff, const git_diff_delta *change, const char *pathspec, void *payload)
{
	struct weight *weight = payload;

	(void)diff;
	(void)pathspec;
	weight->modules = weight->modules || streq(change->new_file.path, ".gitmodules");
	weight->links = weight->links || (change->old_file.mode == GIT_FILEMODE_COMMIT) !=
						 (change->new_file.mode == GIT_FILEMODE_COMMIT);
	weight->attributes = weight->attributes || is_attributes(change->new_file.path) ||
			     is_attributes(change->old_file.path);
	return ++weight->files > weight->files_max || weight->attributes ? GIT_EUSER : 0;
}

static uint64_t index_bytes(const struct git_index_map *index)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < index->count; i++) {
		git_index_entry entry;

		git_index_map_get(index, i, &entry);
		bytes += entry.file_size;
	}
	return bytes;
}

static uint64_t changed_bytes(struct delta *delta)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < git_diff_num_deltas(delta->diff); i++) {
		const git_diff_delta *change = git_diff_get_delta(delta->diff, i);
		git_object_t type;
		size_t size = 0;

		if (change->status != GIT_DELTA_DELETED && S_ISREG(change->new_file.mode) &&
			git_odb_read_header(&size, &type, delta->odb, &change->new_file.id) == 0) {
			bytes += size;
		}
	}
	return bytes;
}

static int compare(struct delta *delta, struct error *err)
{
	bool any_size = delta->task->checkout.any_size;
	struct weight weight = {
		.files_max = any_size ? UINT64_MAX : delta->index.count / DELTA_SHARE};
	git_diff_options options;
	int code;

	git_diff_options_init(&options, GIT_DIFF_OPTIONS_VERSION);
	options.flags = GIT_DIFF_INCLUDE_TYPECHANGE | GIT_DIFF_SKIP_BINARY_CHECK;
	options.notify_cb = weigh;
	options.payload = &weight;
	code = git_diff_tree_to_tree(
		&delta->diff, delta->mirror, delta->full, delta->tree, &options);
	if (weight.attributes) {
		return ask_for_full(delta, ".gitattributes changed");
	}
	if (weight.files > weight.files_max) {
		return ask_for_full(delta, "more than a quarter of the files changed");
	}
	if (code < 0) {
		return git_error_take(err, code, "compare the commits");
	}
	if (delta->task->checkout.modules != NULL &&
		(weight.modules || (weight.links && git_tree_entry_byname(
							    delta->tree, ".gitmodules") != NULL))) {
		return ask_for_full(delta, "the set of submodules changed");
	}
	if (!any_size && changed_bytes(delta) > index_bytes(&delta->index) / DELTA_SHARE) {
		return ask_for_full(delta, "more than a quarter of the bytes changed");
	}
	return 0;
}

/* Where `path` ended to exist: the first of its folders that the commit has no more, or itself.
 * False when something in its place hides it already. */
static bool hidden_at(struct delta *delta, const char *path, char **ret_path)
{
	CLEANUP(git_tree_p) git_tree *inner = NULL;
	const git_tree *tree = delta->tree;
	const char *name = path;

	for (;;) {
		size_t length = strcspn(name, "/");
		CLEANUP(free_p) char *part = xstrndup(name, length);
		const git_tree_entry *entry = git_tree_entry_byname(tree, part);
		git_tree *next = NULL;

		if (entry == NULL) {
			*ret_path = xstrndup(path, (size_t)(name - path) + length);
			return true;
		}
		if (name[length] == '\0') {
			return false;
		}
		if (git_tree_entry_type(entry) == GIT_OBJECT_COMMIT) {
			/* An empty folder now, which would let show what the one below holds. */
			name += length + 1;
			*ret_path = xstrndup(path, (size_t)(name - path) + strcspn(name, "/"));
			return true;
		}
		if (git_tree_entry_type(entry) != GIT_OBJECT_TREE ||
			git_tree_lookup(&next, delta->mirror, git_tree_entry_id(entry)) < 0) {
			return false;
		}
		git_tree_free(inner);
		tree = inner = next;
		name += length + 1;
	}
}

static int take_away(struct delta *delta, const char *path, struct error *err)
{
	CLEANUP(free_p) char *at = NULL;
	int status = git_path_check(path, err);

	if (status < 0) {
		return status;
	}
	delta->changes[delta->change_count++] =
		(struct change){.entry = {.path = path}, .gone = true};
	return hidden_at(delta, path, &at) ? git_writer_hide(&delta->writer, at, err) : 0;
}

static void count_entry(struct delta *delta, const git_index_entry *entry)
{
	struct git_checked_out *counts = &delta->result->counts;

	if (entry->mode == GIT_FILEMODE_COMMIT &&
		!git_module_is_listed(delta->task->checkout.modules, entry->path)) {
		if (++counts->submodules <= SUBMODULE_LINES_MAX) {
			child_line(delta->child, "submodule %s is not fetched; its folder is empty",
				entry->path);
		}
	}
}

static int bring(struct delta *delta, const git_diff_file *file, struct error *err)
{
	git_index_entry entry = {.path = file->path, .mode = file->mode, .id = file->id};
	int64_t time = git_time_of(&delta->times, file->path, &file->id, file->mode);
	int status = git_writer_put(&delta->writer, &entry, time, err);

	if (status < 0) {
		return status;
	}
	delta->newest_ms = time > delta->newest_ms ? time : delta->newest_ms;
	delta->changes[delta->change_count++].entry = entry;
	count_entry(delta, &entry);
	return 0;
}

/* What goes first: a folder may stand where a file was. */
static int write_changes(struct delta *delta, struct error *err)
{
	size_t count = git_diff_num_deltas(delta->diff);
	int status = 0;

	delta->result->counts.files = count;
	delta->changes = xcalloc(count + 1, sizeof(*delta->changes));
	for (size_t i = 0; status == 0 && i < count; i++) {
		const git_diff_delta *change = git_diff_get_delta(delta->diff, i);

		if (change->status == GIT_DELTA_DELETED) {
			status = take_away(delta, change->old_file.path, err);
		}
	}
	for (size_t i = 0; status == 0 && i < count; i++) {
		const git_diff_delta *change = git_diff_get_delta(delta->diff, i);

		if (change->status != GIT_DELTA_DELETED) {
			status = bring(delta, &change->new_file, err);
		}
		child_progress(delta->child, "files", i, count, 0);
	}
	delta->result->counts.lfs = delta->writer.lfs;
	return status;
}

static int open_index(struct delta *delta, struct error *err)
{
	int fd = io_open_beneath(delta->task->full_fd, ".git/index", O_RDONLY, 0, err);

	if (fd < 0) {
		return fd;
	}
	delta->index_fd = fd;
	if (git_index_map_open(fd, &delta->index, err) < 0) {
		return error_wrap(err, "read the full checkout's index");
	}
	return io_mkdir_all(AT_FDCWD, ".git/objects/pack", 0755, err);
}

static int compare_changes(const void *a, const void *b)
{
	return strcmp(
		((const struct change *)a)->entry.path, ((const struct change *)b)->entry.path);
}

/* The full checkout's index with the changes. */
static int write_index(struct delta *delta, struct error *err)
{
	const struct change *change = delta->changes, *end = change + delta->change_count;
	CLEANUP(git_index_out_done) struct git_index_out out;

	qsort(delta->changes, delta->change_count, sizeof(*change), compare_changes);
	git_index_out_init(&out);
	for (size_t i = 0; i < delta->index.count || change < end;) {
		git_index_entry before;
		int order = 1;

		if (i < delta->index.count) {
			git_index_map_get(&delta->index, i, &before);
			order = change < end ? strcmp(before.path, change->entry.path) : -1;
		}
		if (order < 0) {
			git_index_out_copy(&out, &delta->index, i++);
			continue;
		}
		i += order == 0 ? 1 : 0;
		if (!change->gone) {
			git_index_out_add(&out, &change->entry);
		}
		change++;
	}
	return git_index_out_write(&out, &delta->index, delta->index_fd, err);
}

static uint64_t pack_bytes(int dir_fd, int beside_fd, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(dir_fd, ".", err);
	struct dirent *entry;
	uint64_t bytes = 0;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		struct stat seen;

		if (str_starts(entry->d_name, "pack-") &&
			(beside_fd < 0 || faccessat(beside_fd, entry->d_name, F_OK, 0) < 0) &&
			fstatat(dirfd(dir), entry->d_name, &seen, AT_SYMLINK_NOFOLLOW) == 0) {
			bytes += (uint64_t)seen.st_size;
		}
	}
	return bytes;
}

/* The objects of the commit that the full checkout lacks, as a pack of their own. */
static int pack_objects(struct delta *delta, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("/proc/self/fd/%d", delta->task->full_fd);
	CLEANUP(git_repository_p) git_repository *full = NULL;
	char own[] = ".git";
	struct git_mirror to = {.path = own, .lock_fd = -1};
	struct git_found ignored = {0};
	int code = git_repository_open_ext(&full, path, GIT_REPOSITORY_OPEN_NO_SEARCH, NULL);

	if (code < 0) {
		return git_error_take(err, code, "open the full checkout");
	}
	to.repository = full;
	return git_pack_missing(
		delta->mirror, &to, &delta->commit, NULL, delta->child, &ignored, err);
}

/* Links to the mirror's new packs cost nothing; but when it has put its packs together they hold
 * all there ever was. */
static int bring_objects(struct delta *delta, const char *mirror_path, struct error *err)
{
	CLEANUP(free_p) char *folder = xasprintf("%s/objects/pack", mirror_path);
	CLEANUP(close_p) int mirror = io_open(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(close_p) int full = -1;
	uint64_t fresh, before;

	if (mirror < 0) {
		return error_set(err, ERROR_CORRUPT, "the mirror %s has no packs", mirror_path);
	}
	full = io_open_beneath(
		delta->task->full_fd, ".git/objects/pack", O_RDONLY | O_DIRECTORY, 0, err);
	if (full < 0) {
		return full;
	}
	fresh = pack_bytes(mirror, full, err);
	before = pack_bytes(full, -1, err);
	return fresh > before / DELTA_SHARE ? pack_objects(delta, err)
					    : git_link_packs(mirror_path, full, err);
}

static int prepare(struct delta *delta, struct error *err)
{
	const struct git_checkout_task *task = &delta->task->checkout;
	int64_t time = 0;
	int status = git_enter_workspace(task->tree_fd, task->path, err);

	if (status == 0) {
		status = git_tree_of(delta->mirror, task->found->commit, &delta->commit, &time,
			&delta->tree, err);
	}
	if (status == 0) {
		status = git_tree_of(
			delta->mirror, delta->task->full_commit, NULL, NULL, &delta->full, err);
	}
	if (status == 0) {
		status = open_index(delta, err);
	}
	if (status == 0) {
		status = git_times_open(task, time, &delta->times, err);
	}
	if (status < 0) {
		return status;
	}
	if (git_repository_odb(&delta->odb, delta->mirror) < 0) {
		return git_error_take(err, GIT_ERROR, "open the mirror's objects");
	}
	delta->newest_ms = delta->times.fallback_ms;
	delta->writer.repository = delta->mirror;
	delta->writer.commit = delta->commit;
	delta->writer.root_fd = io_open(AT_FDCWD, ".", O_RDONLY | O_DIRECTORY, 0, err);
	return delta->writer.root_fd < 0 ? delta->writer.root_fd : 0;
}

static int write_delta(struct delta *delta, const char *mirror_path, struct error *err)
{
	int status = prepare(delta, err);

	if (status == 0) {
		status = compare(delta, err);
	}
	if (status < 0 || delta->result->whole) {
		return status;
	}
	status = write_changes(delta, err);
	if (status == 0) {
		status = bring_objects(delta, mirror_path, err);
	}
	if (status == 0) {
		status = git_write_refs(delta->mirror, delta->task->checkout.found, true, err);
	}
	if (status == 0) {
		status = write_index(delta, err);
	}
	return status < 0 ? status : git_age_index(delta->newest_ms, err);
}

int git_delta_child(struct child *child, void *context, void *ret_delta, struct error *err)
{
	CLEANUP(git_mirror_close) struct git_mirror mirror = {.lock_fd = -1};
	CLEANUP(delta_done)
	struct delta delta = {.task = context,
		.child = child,
		.result = ret_delta,
		.index_fd = -1,
		.writer = GIT_WRITER_INIT};
	int status = git_library_start(err);

	if (status == 0) {
		status = git_mirror_open(delta.task->checkout.source, child, &mirror, err);
	}
	if (status < 0) {
		return status;
	}
	git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 0); /* the layer is synced as a whole */
	delta.mirror = mirror.repository;
	status = write_delta(&delta, mirror.path, err);
	fault_point("delta.written");
	return status;
}
