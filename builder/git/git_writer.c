/*
 * Single entries of a commit's tree, written as `git checkout` would: filters of .gitattributes,
 * modes, links. The tree is a stranger's: folders are opened one by one without following links,
 * files are made new or not at all, and no path may reach a .git.
 */
#include "builder/git/git_internal.h"

#include "base/io.h"

#include <git2/sys/filter.h>

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <xxhash.h>

/* Size of a large-file pointer: three short lines. */
#define LFS_SIZE_MIN 100
#define LFS_SIZE_MAX 300

/* Places where a folder may be kept. */
#define FOLDER_PROBES 4

static void drop_folder(struct git_folder *folder)
{
	if (folder->path != NULL) {
		close(folder->fd);
		free(folder->path);
		folder->path = NULL;
	}
}

/* The place of a folder that is kept, or one to keep it at. */
static struct git_folder *folder_place(struct git_writer *writer, const char *path)
{
	size_t first = XXH3_64bits(path, strlen(path)) % GIT_FOLDERS_KEPT;

	for (size_t i = 0; i < FOLDER_PROBES; i++) {
		struct git_folder *place = writer->folders + (first + i) % GIT_FOLDERS_KEPT;

		if (place->path == NULL || streq(place->path, path)) {
			return place;
		}
	}
	drop_folder(writer->folders + first);
	return writer->folders + first;
}

void git_writer_done(struct git_writer *writer)
{
	fd_done(&writer->root_fd);
	for (size_t i = 0; i < GIT_FOLDERS_KEPT; i++) {
		drop_folder(writer->folders + i);
	}
	writer->folder_fd = -1;
}

/* ".git" as git refuses it everywhere: in any case, with what NTFS drops (final dots and spaces,
 * streams), and by its short name. */
static bool is_dot_git(const char *name, size_t length)
{
	char plain[8];
	size_t used = 0;

	while (used < length && name[used] != ':' && name[used] != '\\') {
		if (used + 1 == sizeof(plain) && name[used] != '.' && name[used] != ' ') {
			return false;
		}
		if (used + 1 < sizeof(plain)) {
			plain[used] = (char)tolower((unsigned char)name[used]);
		}
		used++;
	}
	used = used < sizeof(plain) ? used : sizeof(plain) - 1;
	while (used > 0 && (plain[used - 1] == '.' || plain[used - 1] == ' ')) {
		used--;
	}
	plain[used] = '\0';
	return streq(plain, ".git") || streq(plain, "git~1");
}

int git_path_check(const char *path, struct error *err)
{
	const char *name = path;

	for (;;) {
		size_t length = strcspn(name, "/");

		if (length == 0 || (length == 1 && name[0] == '.') ||
			(length == 2 && name[0] == '.' && name[1] == '.') ||
			is_dot_git(name, length)) {
			error_set(err, ERROR_DENIED,
				"the repository holds a path that git refuses: %.200s", path);
			return error_hint(err, "`git fsck` in the source names the commit");
		}
		if (name[length] == '\0') {
			return 0;
		}
		name += length + 1;
	}
}

/* Opens the folder that holds `path`, making what is missing; ret_name points into path. */
static int open_folder(
	struct git_writer *writer, const char *path, const char **ret_name, struct error *err)
{
	const char *slash = strrchr(path, '/');
	size_t length = slash != NULL ? (size_t)(slash - path) : 0;
	CLEANUP(free_p) char *folder = xstrndup(path, length);
	CLEANUP(close_p) int fd = -1;
	struct git_folder *place;

	*ret_name = slash != NULL ? slash + 1 : path;
	place = folder_place(writer, folder);
	if (place->path != NULL) {
		writer->folder_fd = place->fd;
		return 0;
	}
	fd = fcntl(writer->root_fd, F_DUPFD_CLOEXEC, 0);
	for (char *name = folder; fd >= 0 && *name != '\0';) {
		char *end = name + strcspn(name, "/");
		bool last = *end == '\0';
		int next;

		*end = '\0';
		if (mkdirat(fd, name, 0755) < 0 && errno != EEXIST) {
			return error_sys(err, errno, "make the folder of %s", path);
		}
		next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0) {
			return error_sys(err, errno, "enter the folder of %s", path);
		}
		close(fd);
		fd = next;
		*end = last ? '\0' : '/';
		name = last ? end : end + 1;
	}
	if (fd < 0) {
		return error_sys(err, errno, "open the folder of %s", path);
	}
	*place = (struct git_folder){steal_ptr(folder), steal_fd(&fd)};
	writer->folder_fd = place->fd;
	return 0;
}

static bool is_lfs_pointer(const void *data, size_t size)
{
	static const char start[] = "version https://git-lfs.github.com/spec/";

	return size >= LFS_SIZE_MIN && size <= LFS_SIZE_MAX &&
	       memcmp(data, start, sizeof(start) - 1) == 0;
}

static int write_file(struct git_writer *writer, const char *name, git_index_entry *entry,
	const void *data, size_t size, struct error *err)
{
	struct timespec times[2] = {
		{.tv_sec = entry->mtime.seconds, .tv_nsec = entry->mtime.nanoseconds}};
	mode_t mode = entry->mode == GIT_FILEMODE_BLOB_EXECUTABLE ? 0755 : 0644;
	CLEANUP(close_p)
	int fd = io_open(
		writer->folder_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode, err);

	if (fd < 0) {
		return fd;
	}
	entry->file_size = (uint32_t)size;
	writer->lfs += is_lfs_pointer(data, size) ? 1 : 0;
	if (io_write_full(fd, data, size, err) < 0) {
		return error_wrap(err, "%s", entry->path);
	}
	times[1] = times[0];
	return futimens(fd, times) < 0 ? error_sys(err, errno, "set the time of %s", entry->path)
				       : 0;
}

static int put_file(struct git_writer *writer, const char *name, git_blob *blob,
	git_index_entry *entry, struct error *err)
{
	git_filter_options options = {.version = GIT_FILTER_OPTIONS_VERSION};
	git_filter_list *filters = NULL;
	git_buf changed = {0};
	int code, status;

	if (writer->plain) {
		return write_file(writer, name, entry, git_blob_rawcontent(blob),
			(size_t)git_blob_rawsize(blob), err);
	}
	options.flags = GIT_FILTER_ATTRIBUTES_FROM_COMMIT | GIT_FILTER_NO_SYSTEM_ATTRIBUTES;
	options.attr_commit_id = writer->commit;
	code = git_filter_list_load_ext(
		&filters, writer->repository, blob, entry->path, GIT_FILTER_TO_WORKTREE, &options);
	if (code == 0 && filters == NULL) {
		return write_file(writer, name, entry, git_blob_rawcontent(blob),
			(size_t)git_blob_rawsize(blob), err);
	}
	if (code == 0) {
		code = git_filter_list_apply_to_blob(&changed, filters, blob);
	}
	status = code < 0 ? git_error_take(err, code, "filter %s", entry->path)
			  : write_file(writer, name, entry, changed.ptr, changed.size, err);
	git_buf_dispose(&changed);
	git_filter_list_free(filters);
	return status;
}

static int put_link(struct git_writer *writer, const char *name, git_blob *blob,
	git_index_entry *entry, struct error *err)
{
	size_t size = (size_t)git_blob_rawsize(blob);
	CLEANUP(free_p) char *target = NULL;
	struct timespec times[2] = {
		{.tv_sec = entry->mtime.seconds, .tv_nsec = entry->mtime.nanoseconds}};

	if (size == 0 || size >= PATH_MAX) {
		return error_set(err, ERROR_INVALID, "the link %s has a target of %zu bytes",
			entry->path, size);
	}
	target = xstrndup(git_blob_rawcontent(blob), size);
	entry->file_size = (uint32_t)strlen(target);
	times[1] = times[0];
	if (symlinkat(target, writer->folder_fd, name) < 0) {
		return error_sys(err, errno, "make the link %s", entry->path);
	}
	return utimensat(writer->folder_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0
		       ? error_sys(err, errno, "set the time of %s", entry->path)
		       : 0;
}

static int put_blob(
	struct git_writer *writer, const char *name, git_index_entry *entry, struct error *err)
{
	CLEANUP(git_blob_p) git_blob *blob = NULL;
	int code = git_blob_lookup(&blob, writer->repository, &entry->id);

	if (code < 0) {
		git_error_take(err, code, "read %s", entry->path);
		err->kind = err->kind == ERROR_NOT_FOUND ? ERROR_CORRUPT : err->kind;
		return -(int)err->kind;
	}
	return entry->mode == GIT_FILEMODE_LINK ? put_link(writer, name, blob, entry, err)
						: put_file(writer, name, blob, entry, err);
}

int git_writer_put(
	struct git_writer *writer, git_index_entry *entry, int64_t time_ms, struct error *err)
{
	const char *name = NULL;
	int status = git_path_check(entry->path, err);

	if (status == 0) {
		status = open_folder(writer, entry->path, &name, err);
	}
	if (status < 0) {
		return status;
	}
	if (entry->mode == GIT_FILEMODE_COMMIT) {
		return mkdirat(writer->folder_fd, name, 0755) < 0 && errno != EEXIST
			       ? error_sys(err, errno, "make the folder %s", entry->path)
			       : 0;
	}
	git_time_set(entry, time_ms);
	return put_blob(writer, name, entry, err);
}

int git_writer_hide(struct git_writer *writer, const char *path, struct error *err)
{
	const char *name = NULL;
	int status = open_folder(writer, path, &name, err);

	if (status < 0) {
		return status;
	}
	/* A whiteout needs no privilege, unlike other devices. */
	return mknodat(writer->folder_fd, name, S_IFCHR, makedev(0, 0)) < 0 && errno != EEXIST
		       ? error_sys(err, errno, "hide %s", path)
		       : 0;
}
