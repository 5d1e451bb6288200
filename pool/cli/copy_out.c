/*
 * From a sandbox to this machine. Names and types come from the sandbox and are not trusted: every
 * entry is made in its folder's descriptor under a name without slashes, folders are opened without
 * following links, and files are renamed into place, so that a link made a moment ago is replaced
 * rather than written through.
 */
#include "base/io.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/copy.h"
#include "pool/cli/http.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

struct download {
	struct copy *copy;
	int fd;
};

static int on_data(void *context, const void *data, size_t length, struct error *err)
{
	struct download *download = context;
	int status = io_write_full(download->fd, data, length, err);

	copy_progress(download->copy, length);
	return status;
}

/* A file goes to `fd`; a folder's listing to *ret_listing. */
static int fetch(struct copy *copy, const char *path, int fd, struct http_reply *ret_reply,
	struct error *err)
{
	CLEANUP(free_p) char *url = copy_url(copy, path);
	struct download download = {copy, fd};
	const struct http_request request = {
		.method = "GET", .path = url, .data = on_data, .context = &download};
	struct http *http = NULL;
	int status = cli_http(copy->cli, &http, err);

	return status < 0 ? status : http_run(http, &request, ret_reply, err);
}

int copy_out_stream(struct copy *copy, const char *source, struct error *err)
{
	struct http_reply reply = {0};
	int status;

	fflush(stdout);
	status = fetch(copy, source, STDOUT_FILENO, &reply, err);
	if (status >= 0 && reply.json != NULL) {
		status = error_set(err, ERROR_INVALID, "%s is a folder", source);
	}
	json_decref(reply.json);
	return status;
}

static bool entry_name_is_safe(const char *name)
{
	return name != NULL && name[0] != '\0' && strchr(name, '/') == NULL && !streq(name, ".") &&
	       !streq(name, "..");
}

static int make_link(int dir_fd, const char *name, const char *target, struct error *err)
{
	if (symlinkat(target, dir_fd, name) == 0) {
		return 0;
	}
	if (errno == EEXIST && unlinkat(dir_fd, name, 0) == 0 &&
		symlinkat(target, dir_fd, name) == 0) {
		return 0;
	}
	return error_sys(err, errno, "make the link %s", name);
}

/* Opens a new or existing folder, never through a link. A new one is private until it is full. */
static int make_folder(int dir_fd, const char *name, bool *ret_made, struct error *err)
{
	*ret_made = mkdirat(dir_fd, name, 0700) == 0;
	if (!*ret_made && errno != EEXIST) {
		return error_sys(err, errno, "make the folder %s", name);
	}
	return io_open(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
}

/* What mkdir would have given without a wish of its own. */
static mode_t default_folder_mode(void)
{
	mode_t mask = umask(022);

	umask(mask);
	return 0777 & ~mask;
}

static int out_any(struct copy *copy, const char *source, int dir_fd, const char *name, long mode,
	int depth, struct error *err);

static int out_entry(struct copy *copy, const char *source, int dir_fd, const json_t *entry,
	int depth, struct error *err)
{
	const char *name = json_string_value(json_object_get(entry, "name"));
	const char *type = json_string_value(json_object_get(entry, "type"));
	const char *mode_text = json_string_value(json_object_get(entry, "mode"));
	const char *target = json_string_value(json_object_get(entry, "target"));
	CLEANUP(free_p) char *path = NULL;

	if (!entry_name_is_safe(name) || type == NULL) {
		return error_set(
			err, ERROR_CORRUPT, "%s holds an entry without a proper name", source);
	}
	path = copy_join(source, name);
	if (streq(type, "symlink") && target != NULL) {
		copy->files++;
		return make_link(dir_fd, name, target, err);
	}
	if (streq(type, "file") || streq(type, "dir")) {
		long mode = mode_text != NULL ? strtol(mode_text, NULL, 8) : -1;

		return out_any(copy, path, dir_fd, name, mode, depth + 1, err);
	}
	fprintf(stderr, "hob: skipped %s: a %s\n", path, type);
	return 0;
}

static int out_folder(struct copy *copy, const char *source, int dir_fd, const char *name,
	long mode, const json_t *listing, int depth, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	bool made = false;
	size_t i;
	json_t *entry;

	if (depth > COPY_DEPTH_MAX) {
		return error_set(
			err, ERROR_LIMIT, "%s is over %d folders deep", source, COPY_DEPTH_MAX);
	}
	fd = make_folder(dir_fd, name, &made, err);
	if (fd < 0) {
		return fd;
	}
	json_array_foreach (json_object_get(listing, "entries"), i, entry) {
		int status = out_entry(copy, source, fd, entry, depth, err);

		if (status < 0) {
			return status;
		}
	}
	/* A folder that was here before keeps its mode: it may be the user's home. */
	if (made && fchmod(fd, mode >= 0 ? (mode_t)mode & 0777 : default_folder_mode()) < 0) {
		return error_sys(err, errno, "set the mode of %s", name);
	}
	return 0;
}

/* Fetches `source`, a file or a folder as it turns out, and makes it dir_fd/name. */
static int out_any(struct copy *copy, const char *source, int dir_fd, const char *name, long mode,
	int depth, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	struct http_reply reply = {0};
	char temporary[ID_SIZE];
	int status;

	id_random(temporary, ".hob-");
	fd = io_open(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, err);
	if (fd < 0) {
		return fd;
	}
	status = fetch(copy, source, fd, &reply, err);
	if (status >= 0 && reply.json != NULL) {
		unlinkat(dir_fd, temporary, 0);
		status = out_folder(copy, source, dir_fd, name, mode, reply.json, depth, err);
		json_decref(reply.json);
		return status;
	}
	if (status >= 0 && fchmod(fd, (mode_t)((reply.mode >= 0 ? reply.mode : 0644) & 0777)) < 0) {
		status = error_sys(err, errno, "set the mode of %s", name);
	}
	if (status >= 0 && renameat(dir_fd, temporary, dir_fd, name) < 0) {
		status = error_sys(err, errno, "put %s in its place", name);
	}
	if (status < 0) {
		unlinkat(dir_fd, temporary, 0);
		return status;
	}
	copy->files++;
	return 0;
}

/* To a device, a pipe, or through a link that the user has named himself. */
static int out_through(struct copy *copy, const char *source, const char *target, struct error *err)
{
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, target, O_WRONLY | O_TRUNC, 0, err);
	struct http_reply reply = {0};
	int status = fd < 0 ? fd : fetch(copy, source, fd, &reply, err);

	if (status >= 0 && reply.json != NULL) {
		status = error_set(err, ERROR_INVALID, "%s is a folder, %s is not", source, target);
	}
	json_decref(reply.json);
	copy->files++;
	return status;
}

int copy_out(struct copy *copy, const char *source, const char *target, struct error *err)
{
	CLEANUP(free_p) char *folder = xstrdup(target);
	CLEANUP(close_p) int dir_fd = -1;
	struct stat stat;
	const char *name;
	char *slash;
	size_t length = strlen(folder);

	while (length > 1 && folder[length - 1] == '/') {
		folder[--length] = '\0';
	}
	if (lstat(folder, &stat) == 0 && !S_ISREG(stat.st_mode) && !S_ISDIR(stat.st_mode)) {
		return out_through(copy, source, folder, err);
	}
	slash = strrchr(folder, '/');
	name = slash != NULL ? slash + 1 : folder;
	if (name[0] == '\0' || streq(name, ".") || streq(name, "..")) {
		dir_fd = io_open(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0, err);
		name = ".";
	} else if (slash == NULL) {
		dir_fd = io_open(AT_FDCWD, ".", O_RDONLY | O_DIRECTORY, 0, err);
	} else {
		*slash = '\0';
		dir_fd = io_open(
			AT_FDCWD, folder[0] != '\0' ? folder : "/", O_RDONLY | O_DIRECTORY, 0, err);
	}
	return dir_fd < 0 ? dir_fd : out_any(copy, source, dir_fd, name, -1, 0, err);
}
