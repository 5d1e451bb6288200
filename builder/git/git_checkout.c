/*
 * A commit as an ordinary workspace, in a child process. Its packs are links to the mirror's, so it
 * stays whole when the mirror goes. A file that the image
 * before had too keeps its time there, others have the commit's, and the index says the same, so
 * that the first `git status` inside a sandbox compares times and sizes and reads no content.
 */
#include "builder/git/git_internal.h"

#include "base/fault.h"
#include "base/io.h"
#include "builder/child.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#define SUBMODULE_LINES_MAX 8

struct checkout {
	const struct git_checkout_task *task;
	struct child *child;
	struct git_checked_out *counts;
	git_oid commit;
	struct git_times times;
	int64_t commit_s; /* its time */
	int64_t newest_ms; /* of all files */
};

static void on_checkout(const char *path, size_t done, size_t total, void *payload)
{
	(void)path;
	child_progress(payload, "files", done, total, 0);
}

static int write_files(git_repository *repository, struct checkout *checkout, struct error *err)
{
	CLEANUP(git_tree_p) git_tree *tree = NULL;
	git_checkout_options options;
	bool attributes = true;
	int status = git_tree_of(repository, checkout->task->found->commit, &checkout->commit,
		&checkout->commit_s, &tree, err);
	int code;

	if (status == 0) {
		status = git_tree_inspect(repository, checkout->child, tree, &attributes, err);
	}
	if (status < 0) {
		return status;
	}
	git_checkout_options_init(&options, GIT_CHECKOUT_OPTIONS_VERSION);
	options.checkout_strategy = GIT_CHECKOUT_FORCE | GIT_CHECKOUT_DONT_WRITE_INDEX;
	/* Without attributes no file is changed on its way out, and libgit2 need not ask for each
	 * of them, which takes it two realpath()s a file. */
	options.disable_filters = !attributes;
	options.progress_cb = on_checkout;
	options.progress_payload = checkout->child;
	code = git_checkout_tree(repository, (const git_object *)tree, &options);
	return code < 0 ? git_error_take(err, code, "write the files of %.12s",
				  checkout->task->found->commit)
			: 0;
}

static void count_entry(struct checkout *checkout, const git_index_entry *entry)
{
	struct git_checked_out *counts = checkout->counts;

	counts->files++;
	if (entry->mode == GIT_FILEMODE_COMMIT) {
		if (++counts->submodules <= SUBMODULE_LINES_MAX) {
			child_line(checkout->child,
				"submodule %s is not fetched; its folder is empty", entry->path);
		}
	} else if (S_ISREG(entry->mode) && git_is_lfs_pointer(entry)) {
		counts->lfs++;
	}
}

/* Gives file and index entry their time. */
static int set_time(struct checkout *checkout, git_index *index, size_t position, struct error *err)
{
	git_index_entry entry = *git_index_get_byindex(index, position);
	int64_t time = git_time_of(&checkout->times, entry.path, &entry.id, entry.mode);
	struct timespec times[2];

	checkout->newest_ms = time > checkout->newest_ms ? time : checkout->newest_ms;
	count_entry(checkout, &entry);
	if (entry.mode == GIT_FILEMODE_COMMIT) {
		return 0;
	}
	git_time_set(&entry, times, time);
	if (utimensat(AT_FDCWD, entry.path, times, AT_SYMLINK_NOFOLLOW) < 0) {
		return error_sys(err, errno, "set the time of %s", entry.path);
	}
	entry.dev = entry.ino = entry.uid = entry.gid = 0;
	if (git_index_add(index, &entry) < 0) {
		return git_error_take(err, GIT_ERROR, "write the index entry of %s", entry.path);
	}
	return 0;
}

static int write_index(git_repository *repository, struct checkout *checkout, struct error *err)
{
	CLEANUP(git_index_p) git_index *index = NULL;
	size_t count;
	int status = 0;

	status = git_times_open(checkout->task, checkout->commit_s, &checkout->times, err);
	if (status < 0) {
		return status;
	}
	checkout->newest_ms = checkout->times.fallback_ms;
	if (git_repository_index(&index, repository) < 0) {
		return git_error_take(err, GIT_ERROR, "open the index");
	}
	count = git_index_entrycount(index);
	for (size_t i = 0; status == 0 && i < count; i++) {
		status = set_time(checkout, index, i, err);
		child_progress(checkout->child, "files", i, count, 0);
	}
	if (status == 0 && git_index_write(index) < 0) {
		return git_error_take(err, GIT_ERROR, "write the index");
	}
	return status < 0 ? status : git_age_index(checkout->newest_ms, err);
}

static int init_workspace(
	git_repository **ret_repository, struct checkout *checkout, struct error *err)
{
	const struct git_source *source = checkout->task->source;
	CLEANUP(git_mirror_close) struct git_mirror mirror = {.lock_fd = -1};
	git_repository_init_options options;
	int status = git_mirror_open(source, checkout->child, &mirror, err), code;

	if (status < 0) {
		return status;
	}
	git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 0); /* the layer is synced as a whole */
	git_libgit2_opts(GIT_OPT_ENABLE_STRICT_OBJECT_CREATION, 0);
	git_repository_init_options_init(&options, GIT_REPOSITORY_INIT_OPTIONS_VERSION);
	options.flags = GIT_REPOSITORY_INIT_NO_REINIT;
	code = git_repository_init_ext(ret_repository, ".", &options);
	if (code < 0) {
		return git_error_take(err, code, "make the workspace's .git");
	}
	status = git_link_packs(mirror.path, -1, err);
	git_repository_free(*ret_repository);
	*ret_repository = NULL;
	if (status == 0) {
		status = git_write_config(source, checkout->task->found, err);
	}
	if (status == 0) {
		status = git_write_refs(mirror.repository, checkout->task->found, false, err);
	}
	if (status < 0) {
		return status;
	}
	code = git_repository_open_ext(ret_repository, ".", GIT_REPOSITORY_OPEN_NO_SEARCH, NULL);
	return code < 0 ? git_error_take(err, code, "open the workspace") : 0;
}

int git_checkout_child(struct child *child, void *context, void *ret_counts, struct error *err)
{
	CLEANUP(git_repository_p) git_repository *repository = NULL;
	struct checkout checkout = {.task = context, .child = child, .counts = ret_counts};
	int status = git_library_start(err);

	if (status == 0) {
		status = git_enter_workspace(checkout.task->tree_fd, checkout.task->path, err);
	}
	if (status < 0) {
		return status;
	}
	status = init_workspace(&repository, &checkout, err);
	if (status == 0) {
		status = write_files(repository, &checkout, err);
	}
	if (status == 0) {
		status = write_index(repository, &checkout, err);
	}
	git_times_done(&checkout.times);
	fault_point("checkout.written");
	return status;
}
