/*
 * What a workspace's .git is made of beside its index, for full checkouts and for deltas: links to
 * the mirror's packs, so that it stays whole when the mirror goes; configuration, HEAD and refs;
 * the times in the index. The process stands in the workspace's folder.
 */
#include "builder/git/git_internal.h"

#include "base/io.h"
#include "builder/git/git_modules.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

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

int git_link_packs(const char *mirror, int beside_fd, struct error *err)
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
		if (!str_starts(entry->d_name, "pack-") ||
			(beside_fd >= 0 && faccessat(beside_fd, entry->d_name, F_OK, 0) == 0)) {
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

/* As `git submodule init` leaves them; git reads the rest in .gitmodules. */
static void add_modules(struct buffer *text, const struct git_module_list *modules)
{
	for (size_t i = 0; modules != NULL && i < modules->count; i++) {
		const struct git_module *module = &modules->items[i];
		CLEANUP(free_p) char *url = git_url_public(module->url);

		if (!module->left_out) {
			buffer_add_str(text, "[submodule ");
			add_quoted(text, module->name);
			buffer_add_str(text, "]\n\tactive = true\n\turl = ");
			add_quoted(text, url);
			buffer_add_str(text, "\n");
		}
	}
}

int git_write_config(const struct git_source *source, const struct git_found *found,
	const struct git_module_list *modules, struct error *err)
{
	const char *branch = branch_of(found->ref);
	CLEANUP(free_p) char *url = git_url_public(source->url);
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
		add_quoted(&text, found->ref);
		buffer_add_str(&text, "\n");
	}
	add_modules(&text, modules);
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
int git_write_refs(
	git_repository *mirror, const struct git_found *found, bool delta, struct error *err)
{
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
	if (write_text(".git/packed-refs", &packed, err) < 0) {
		return -(int)err->kind;
	}
	if (delta && branch != NULL) {
		return 0; /* HEAD and origin's are the full checkout's: they name the branch */
	}
	if (branch != NULL && found->is_head) {
		buffer_addf(&origin, "ref: refs/remotes/origin/%s\n", branch);
		if (io_mkdir_all(AT_FDCWD, ".git/refs/remotes/origin", 0755, err) < 0 ||
			write_text(".git/refs/remotes/origin/HEAD", &origin, err) < 0) {
			return -(int)err->kind;
		}
	}
	return write_text(".git/HEAD", &head, err);
}

/* git reads a file again whose time is not before the index's own: one of this very second. */
int git_age_index(int64_t newest_ms, struct error *err)
{
	struct timespec times[2];

	clock_gettime(CLOCK_REALTIME, &times[1]);
	if (times[1].tv_sec < newest_ms / 1000 + 2) {
		times[1].tv_sec = newest_ms / 1000 + 2;
	}
	times[0] = times[1];
	return utimensat(AT_FDCWD, ".git/index", times, 0) < 0
		       ? error_sys(err, errno, "set the time of the index")
		       : 0;
}

/* The way there may lie in a stranger's tree, when it is a submodule's: no link is followed. */
int git_enter_workspace(int tree_fd, const char *path, struct error *err)
{
	CLEANUP(close_p) int fd = fcntl(tree_fd, F_DUPFD_CLOEXEC, 0);

	while (fd >= 0 && *(path += strspn(path, "/")) != '\0') {
		size_t length = strcspn(path, "/");
		CLEANUP(free_p) char *name = xstrndup(path, length);
		int next;

		if (mkdirat(fd, name, 0755) < 0 && errno != EEXIST) {
			return error_sys(err, errno, "make the folder %s", path);
		}
		next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0) {
			return error_sys(err, errno, "enter the folder %s", path);
		}
		close(fd);
		fd = next;
		path += length;
	}
	return fd < 0 || fchdir(fd) < 0 ? error_sys(err, errno, "enter the staging folder") : 0;
}

/* ---- times ---- */

int git_times_open(const struct git_checkout_task *task, int64_t commit_s,
	struct git_times *ret_times, struct error *err)
{
	/* What an index can hold. */
	ret_times->fallback_ms = commit_s <= 0 || commit_s > INT32_MAX ? 1000 : commit_s * 1000;
	if (ret_times->fallback_ms <= task->after_ms) {
		ret_times->fallback_ms = task->after_ms + 1;
	}
	if (task->previous_fd >= 0 &&
		git_index_map_open(task->previous_fd, &ret_times->index, err) < 0) {
		return error_wrap(err, "read the index of the image before");
	}
	return 0;
}

void git_times_done(struct git_times *times)
{
	git_index_map_done(&times->index);
}

int64_t git_time_of(
	const struct git_times *times, const char *path, const git_oid *id, uint32_t mode)
{
	git_index_entry before;

	return git_index_map_find(&times->index, path, &before) && before.mode == mode &&
			       git_oid_equal(&before.id, id)
		       ? before.mtime.seconds * INT64_C(1000) + before.mtime.nanoseconds / 1000000
		       : times->fallback_ms;
}

void git_time_set(git_index_entry *entry, int64_t ms)
{
	entry->mtime.seconds = (int32_t)(ms / 1000);
	entry->mtime.nanoseconds = (uint32_t)(ms % 1000 * 1000000);
	entry->ctime = entry->mtime;
}
