/*
 * A commit as an ordinary workspace, in a child process. Its packs are links to the mirror's, so it
 * stays whole when the mirror goes. Every file has the commit's time and the index says the same,
 * so that the first `git status` inside a sandbox compares times and sizes and reads no content.
 */
#include "builder/git/git_internal.h"

#include "base/fault.h"
#include "base/io.h"
#include "builder/child.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

/* Size of a large-file pointer: three short lines. */
#define LFS_SIZE_MIN 100
#define LFS_SIZE_MAX 300
#define SUBMODULE_LINES_MAX 8

struct checkout {
	const struct git_checkout_task *task;
	struct child *child;
	struct git_checked_out *counts;
	git_oid commit;
	int64_t commit_time;
};

static int copy_pack(int from_dir, int to_dir, const char *name, struct error *err)
{
	CLEANUP(close_p) int from = io_open(from_dir, name, O_RDONLY | O_NOFOLLOW, 0, err);
	CLEANUP(close_p) int to = -1;
	ssize_t put;

	if (from < 0) {
		return from;
	}
	to = io_open(to_dir, name, O_WRONLY | O_CREAT | O_EXCL, 0444, err);
	if (to < 0) {
		return to;
	}
	do {
		put = copy_file_range(from, NULL, to, NULL, 1 << 30, 0);
	} while (put > 0 || (put < 0 && errno == EINTR));
	return put < 0 ? error_sys(err, errno, "copy %s", name) : 0;
}

static int link_packs(const char *mirror, struct error *err)
{
	CLEANUP(free_p) char *folder = xasprintf("%s/objects/pack", mirror);
	CLEANUP(closedir_p) DIR *from = io_opendir(AT_FDCWD, folder, err);
	CLEANUP(close_p) int to = -1;
	struct dirent *entry;

	if (from == NULL) {
		return error_set(err, ERROR_CORRUPT, "the mirror %s has no packs", mirror);
	}
	to = io_open(AT_FDCWD, ".git/objects/pack", O_RDONLY | O_DIRECTORY, 0, err);
	if (to < 0) {
		return to;
	}
	while ((entry = readdir(from)) != NULL) {
		if (!str_starts(entry->d_name, "pack-")) {
			continue;
		}
		/* No link across file systems, nor beyond ext4's 65,000: then a copy. */
		if (linkat(dirfd(from), entry->d_name, to, entry->d_name, 0) < 0 &&
			copy_pack(dirfd(from), to, entry->d_name, err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

static void add_quoted(struct buffer *text, const char *value)
{
	buffer_add_str(text, "\"");
	for (const char *c = value; *c != '\0'; c++) {
		if (*c == '"' || *c == '\\') {
			buffer_add_str(text, "\\");
		}
		buffer_add(text, c, 1);
	}
	buffer_add_str(text, "\"");
}

static int write_text(const char *path, const struct buffer *text, struct error *err)
{
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0644, err);

	if (fd < 0) {
		return fd;
	}
	return io_write_full(fd, buffer_text(text), text->length, err);
}

static const char *branch_of(const char *ref)
{
	return str_starts(ref, "refs/heads/") ? ref + strlen("refs/heads/") : NULL;
}

static int write_config(const struct checkout *checkout, struct error *err)
{
	const char *branch = branch_of(checkout->task->found->ref);
	CLEANUP(free_p) char *url = git_url_public(checkout->task->source->url);
	CLEANUP(buffer_done) struct buffer text = {0};

	/* Layers change a file's ctime and inode, so only size and time say whether it changed. */
	buffer_add_str(&text,
		"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n"
		"\tlogallrefupdates = true\n\ttrustctime = false\n\tcheckStat = minimal\n"
		"[remote \"origin\"]\n\turl = ");
	add_quoted(&text, url);
	buffer_add_str(&text, "\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n");
	if (branch != NULL) {
		buffer_add_str(&text, "[branch ");
		add_quoted(&text, branch);
		buffer_add_str(&text, "]\n\tremote = origin\n\tmerge = ");
		add_quoted(&text, checkout->task->found->ref);
		buffer_add_str(&text, "\n");
	}
	return write_text(".git/config", &text, err);
}

/* An annotated tag is an object of its own, noted with the commit that it stands for. */
static void add_tag(struct buffer *packed, git_repository *mirror, const struct git_found *found)
{
	char hex[GIT_OID_HEXSZ + 1] = "";
	git_oid id;

	if (git_reference_name_to_id(&id, mirror, found->ref) == 0) {
		git_oid_tostr(hex, sizeof(hex), &id);
	}
	if (hex[0] == '\0' || streq(hex, found->commit)) {
		buffer_addf(packed, "%s %s\n", found->commit, found->ref);
	} else {
		buffer_addf(packed, "%s %s\n^%s\n", hex, found->ref, found->commit);
	}
}

/* All refs as one packed file: a branch and its origin's twin, or a tag. */
static int write_refs(git_repository *mirror, const struct checkout *checkout, struct error *err)
{
	const struct git_found *found = checkout->task->found;
	const char *branch = branch_of(found->ref);
	CLEANUP(buffer_done) struct buffer packed = {0};
	CLEANUP(buffer_done) struct buffer head = {0};
	CLEANUP(buffer_done) struct buffer origin = {0};

	buffer_add_str(&packed, "# pack-refs with: peeled fully-peeled sorted \n");
	if (branch == NULL) {
		buffer_addf(&head, "%s\n", found->commit);
		if (str_starts(found->ref, "refs/tags/")) {
			add_tag(&packed, mirror, found);
		}
	} else {
		buffer_addf(&head, "ref: %s\n", found->ref);
		buffer_addf(&packed, "%s %s\n%s refs/remotes/origin/%s\n", found->commit,
			found->ref, found->commit, branch);
	}
	if (branch != NULL && found->is_head) {
		buffer_addf(&origin, "ref: refs/remotes/origin/%s\n", branch);
		if (io_mkdir_all(AT_FDCWD, ".git/refs/remotes/origin", 0755, err) < 0 ||
			write_text(".git/refs/remotes/origin/HEAD", &origin, err) < 0) {
			return -(int)err->kind;
		}
	}
	if (write_text(".git/packed-refs", &packed, err) < 0) {
		return -(int)err->kind;
	}
	return write_text(".git/HEAD", &head, err);
}

static void on_checkout(const char *path, size_t done, size_t total, void *payload)
{
	(void)path;
	child_progress(payload, "files", done, total, 0);
}

static int find_attributes(const char *root, const git_tree_entry *entry, void *payload)
{
	(void)root;
	if (streq(git_tree_entry_name(entry), ".gitattributes")) {
		*(bool *)payload = true;
		return GIT_EUSER;
	}
	return 0;
}

/* Without attributes no file is changed on its way out, and libgit2 need not ask for each of them,
 * which takes it two realpath()s a file. */
static bool has_attributes(const git_tree *tree)
{
	bool found = false;

	return git_tree_walk(tree, GIT_TREEWALK_PRE, find_attributes, &found) < 0 || found;
}

static int write_files(git_repository *repository, struct checkout *checkout, struct error *err)
{
	CLEANUP(git_commit_p) git_commit *commit = NULL;
	CLEANUP(git_tree_p) git_tree *tree = NULL;
	git_checkout_options options;
	int code = git_commit_lookup(&commit, repository, &checkout->commit);

	if (code == 0) {
		checkout->commit_time = git_commit_time(commit);
		code = git_commit_tree(&tree, commit);
	}
	if (code < 0) {
		git_error_take(err, code, "read commit %.12s", checkout->task->found->commit);
		err->kind = err->kind == ERROR_NOT_FOUND ? ERROR_CORRUPT : err->kind;
		return -(int)err->kind;
	}
	git_checkout_options_init(&options, GIT_CHECKOUT_OPTIONS_VERSION);
	options.checkout_strategy = GIT_CHECKOUT_FORCE | GIT_CHECKOUT_DONT_WRITE_INDEX;
	options.disable_filters = !has_attributes(tree);
	options.progress_cb = on_checkout;
	options.progress_payload = checkout->child;
	code = git_checkout_tree(repository, (const git_object *)tree, &options);
	return code < 0 ? git_error_take(err, code, "write the files of %.12s",
				  checkout->task->found->commit)
			: 0;
}

static bool is_lfs_pointer(const git_index_entry *entry)
{
	static const char start[] = "version https://git-lfs.github.com/spec/";
	char text[sizeof(start)] = "";
	CLEANUP(close_p) int fd = -1;

	if (entry->file_size < LFS_SIZE_MIN || entry->file_size > LFS_SIZE_MAX) {
		return false;
	}
	fd = open(entry->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 && read(fd, text, sizeof(start) - 1) == (ssize_t)sizeof(start) - 1 &&
	       streq(text, start);
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
	} else if (S_ISREG(entry->mode) && is_lfs_pointer(entry)) {
		counts->lfs++;
	}
}

/* Gives file and index entry the commit's time. */
static int set_time(struct checkout *checkout, git_index *index, size_t position, struct error *err)
{
	git_index_entry entry = *git_index_get_byindex(index, position);
	const struct timespec times[2] = {
		{.tv_sec = checkout->commit_time},
		{.tv_sec = checkout->commit_time},
	};

	count_entry(checkout, &entry);
	if (entry.mode == GIT_FILEMODE_COMMIT) {
		return 0;
	}
	if (utimensat(AT_FDCWD, entry.path, times, AT_SYMLINK_NOFOLLOW) < 0) {
		return error_sys(err, errno, "set the time of %s", entry.path);
	}
	entry.mtime.seconds = (int32_t)checkout->commit_time;
	entry.mtime.nanoseconds = 0;
	entry.ctime = entry.mtime;
	entry.dev = entry.ino = entry.uid = entry.gid = 0;
	if (git_index_add(index, &entry) < 0) {
		return git_error_take(err, GIT_ERROR, "write the index entry of %s", entry.path);
	}
	return 0;
}

/* git reads a file again whose time is not before the index's own: a commit of this very second. */
static int age_index(const struct checkout *checkout, struct error *err)
{
	struct timespec times[2];

	clock_gettime(CLOCK_REALTIME, &times[1]);
	if (times[1].tv_sec < checkout->commit_time + 2) {
		times[1].tv_sec = checkout->commit_time + 2;
	}
	times[0] = times[1];
	return utimensat(AT_FDCWD, ".git/index", times, 0) < 0
		       ? error_sys(err, errno, "set the time of the index")
		       : 0;
}

static int write_index(git_repository *repository, struct checkout *checkout, struct error *err)
{
	CLEANUP(git_index_p) git_index *index = NULL;
	size_t count;
	int status = 0;

	if (checkout->commit_time <= 0 || checkout->commit_time > INT32_MAX) {
		checkout->commit_time = 1; /* what an index can hold */
	}
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
	return status < 0 ? status : age_index(checkout, err);
}

static int make_folder(const struct git_checkout_task *task, struct error *err)
{
	const char *path = task->path + strspn(task->path, "/");

	if (fchdir(task->tree_fd) < 0) {
		return error_sys(err, errno, "enter the staging folder");
	}
	if (path[0] == '\0') {
		return 0;
	}
	if (io_mkdir_all(AT_FDCWD, path, 0755, err) < 0) {
		return -(int)err->kind;
	}
	return chdir(path) < 0 ? error_sys(err, errno, "enter %s", path) : 0;
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
	status = link_packs(mirror.path, err);
	git_repository_free(*ret_repository);
	*ret_repository = NULL;
	if (status == 0) {
		status = write_config(checkout, err);
	}
	if (status == 0) {
		status = write_refs(mirror.repository, checkout, err);
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
		status = make_folder(checkout.task, err);
	}
	if (status < 0) {
		return status;
	}
	git_oid_fromstr(&checkout.commit, checkout.task->found->commit);
	status = init_workspace(&repository, &checkout, err);
	if (status == 0) {
		status = write_files(repository, &checkout, err);
	}
	if (status == 0) {
		status = write_index(repository, &checkout, err);
	}
	fault_point("checkout.written");
	return status;
}
