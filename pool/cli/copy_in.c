/*
 * From this machine to a sandbox. Files go by PUT, which makes their folders; what PUT cannot make
 * (empty folders, modes of folders, symbolic links) is collected on the walk and made by commands
 * inside at the end, many names at a time.
 */
#include "base/io.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/copy.h"
#include "pool/cli/http.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

/* hob-init takes 60 kB of arguments. */
#define ARGUMENT_BYTES_MAX (48 * 1024)
#define FOLDER_MODE 0755

struct upload {
	struct copy *copy;
	int fd;
	uint64_t left; /* of the size that was announced; UINT64_MAX: until the end */
};

struct folder {
	char *path;
	mode_t mode;
	bool empty;
};

struct link {
	char *path, *target;
};

struct walk {
	struct copy *copy;
	struct folder *folders;
	size_t folder_count, folder_room;
	struct link *links;
	size_t link_count, link_room;
};

static ssize_t on_upload(void *context, void *data, size_t room, struct error *err)
{
	struct upload *upload = context;
	size_t wanted = room < upload->left ? room : (size_t)upload->left;
	ssize_t got;

	do {
		got = read(upload->fd, data, wanted);
	} while (got < 0 && errno == EINTR);
	if (got < 0) {
		return error_sys(err, errno, "read");
	}
	if (upload->left != UINT64_MAX) {
		if (got == 0 && wanted > 0) {
			return error_set(
				err, ERROR_CORRUPT, "the file became shorter while it was read");
		}
		upload->left -= (uint64_t)got;
	}
	copy_progress(upload->copy, (size_t)got);
	return got;
}

static int put_file(struct copy *copy, int fd, const char *target, mode_t mode, int64_t bytes,
	struct error *err)
{
	CLEANUP(free_p) char *url = copy_url(copy, target);
	CLEANUP(free_p) char *path = xasprintf("%s?mode=%04o", url, mode & 07777);
	struct upload upload = {copy, fd, bytes >= 0 ? (uint64_t)bytes : UINT64_MAX};
	const struct http_request request = {.method = "PUT",
		.path = path,
		.upload = on_upload,
		.upload_bytes = bytes,
		.context = &upload};
	struct http_reply reply = {0};
	struct http *http = NULL;
	int status = cli_http(copy->cli, &http, err);

	if (status >= 0) {
		status = http_run(http, &request, &reply, err);
		json_decref(reply.json);
	}
	copy->files += status >= 0 ? 1 : 0;
	return status;
}

int copy_in_stream(struct copy *copy, const char *target, struct error *err)
{
	return put_file(copy, STDIN_FILENO, target, 0644, -1, err);
}

static int in_file(
	struct walk *walk, int dir_fd, const char *name, const char *target, struct error *err)
{
	CLEANUP(close_p) int fd = io_open(dir_fd, name, O_RDONLY | O_NONBLOCK, 0, err);
	struct stat stat;
	int status;

	if (fd < 0) {
		return fd;
	}
	if (fstat(fd, &stat) < 0) {
		return error_sys(err, errno, "look at %s", name);
	}
	/* A size of 0 may be a file of /proc, which has more to say. */
	status = put_file(walk->copy, fd, target, stat.st_mode,
		stat.st_size > 0 && S_ISREG(stat.st_mode) ? stat.st_size : -1, err);
	return status < 0 ? error_wrap(err, "%s", name) : 0;
}

static int in_link(
	struct walk *walk, int dir_fd, const char *name, const char *target, struct error *err)
{
	char text[PATH_MAX];
	ssize_t length = readlinkat(dir_fd, name, text, sizeof(text) - 1);
	struct link *link;

	if (length < 0) {
		return error_sys(err, errno, "read the link %s", name);
	}
	text[length] = '\0';
	link = array_add(&walk->links, &walk->link_count, &walk->link_room);
	link->path = xstrdup(target);
	link->target = xstrdup(text);
	walk->copy->files++;
	return 0;
}

/* Something on the walk: dir_fd/name here, `target` there. */
struct place {
	int dir_fd;
	const char *name, *target;
	int depth;
	bool merge; /* there may be a folder at `target` already */
};

static int in_folder(struct walk *walk, const struct place *place, struct error *err);

static int in_entry(struct walk *walk, const struct place *place, struct error *err)
{
	struct stat stat;

	if (fstatat(place->dir_fd, place->name, &stat, AT_SYMLINK_NOFOLLOW) < 0) {
		return error_sys(err, errno, "look at %s", place->name);
	}
	if (S_ISREG(stat.st_mode)) {
		return in_file(walk, place->dir_fd, place->name, place->target, err);
	}
	if (S_ISDIR(stat.st_mode)) {
		return in_folder(walk, place, err);
	}
	if (S_ISLNK(stat.st_mode)) {
		return in_link(walk, place->dir_fd, place->name, place->target, err);
	}
	fprintf(stderr, "hob: skipped %s: neither file, folder nor link\n", place->name);
	return 0;
}

/* The entries of a folder; *ret_empty: there are none. */
static int in_entries(
	struct walk *walk, const struct place *place, int fd, bool *ret_empty, struct error *err)
{
	CLEANUP(closedir_p) DIR *dir = io_opendir(fd, ".", err);
	const struct dirent *entry;

	if (dir == NULL) {
		return -(int)err->kind;
	}
	while ((entry = readdir(dir)) != NULL) {
		CLEANUP(free_p) char *path = copy_join(place->target, entry->d_name);
		const struct place child = {
			fd, entry->d_name, path, place->depth + 1, place->merge};
		int status;

		if (streq(entry->d_name, ".") || streq(entry->d_name, "..")) {
			continue;
		}
		*ret_empty = false;
		status = in_entry(walk, &child, err);
		if (status < 0) {
			return status;
		}
	}
	return 0;
}

/* A folder that is there already keeps its mode, as /tmp and / had better. */
static int in_folder(struct walk *walk, const struct place *place, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	enum remote_kind kind = REMOTE_NONE;
	struct place here = *place;
	struct stat stat;
	bool empty = true;
	int status = 0;

	if (place->depth > COPY_DEPTH_MAX) {
		return error_set(err, ERROR_LIMIT, "%s is over %d folders deep", place->target,
			COPY_DEPTH_MAX);
	}
	fd = io_open(place->dir_fd, place->name, O_RDONLY | O_DIRECTORY, 0, err);
	if (fd < 0) {
		return fd;
	}
	if (fstat(fd, &stat) < 0) {
		return error_sys(err, errno, "look at %s", place->name);
	}
	if (place->merge) {
		status = copy_remote_kind(walk->copy, place->target, &kind, err);
		here.merge = kind == REMOTE_FOLDER;
	}
	status = status < 0 ? status : in_entries(walk, &here, fd, &empty, err);
	if (status >= 0 && !here.merge) {
		*array_add(&walk->folders, &walk->folder_count, &walk->folder_room) =
			(struct folder){.path = xstrdup(place->target),
				.mode = stat.st_mode & 07777,
				.empty = empty};
	}
	return status;
}

static int run_inside(struct copy *copy, json_t *argv, struct error *err)
{
	CLEANUP(json_decref_p) json_t *request = json_object();
	CLEANUP(json_decref_p) json_t *reply = NULL;
	const char *text;
	int status;

	json_object_set(request, "argv", argv);
	json_object_set_new(request, "cwd", json_string("/"));
	json_object_set_new(request, "user", json_string("0"));
	status = cli_call(
		copy->cli, "POST", request, &reply, err, "/v1/sandboxes/%s/exec", copy->id);
	if (status < 0) {
		return status;
	}
	if (json_integer_value(json_object_get(reply, "exit_code")) == 0) {
		return 0;
	}
	text = json_string_value(json_object_get(reply, "stderr"));
	return error_set(err, ERROR_FAILED, "%s in the sandbox: %.*s",
		json_string_value(json_array_get(argv, 0)),
		text != NULL ? (int)strcspn(text, "\n") : 6, text != NULL ? text : "failed");
}

/* Runs `tool argument -- …` over the folders that are empty, or of that mode, as many at once as
 * fit. */
static int over_folders(struct walk *walk, const char *tool, const char *argument, bool empty_only,
	mode_t mode, struct error *err)
{
	size_t i = 0;

	while (i < walk->folder_count) {
		CLEANUP(json_decref_p) json_t *argv = json_array();
		size_t bytes = 0, taken = 0;

		json_array_append_new(argv, json_string(tool));
		json_array_append_new(argv, json_string(argument));
		json_array_append_new(argv, json_string("--"));
		for (; i < walk->folder_count && bytes < ARGUMENT_BYTES_MAX; i++) {
			const struct folder *folder = &walk->folders[i];

			if (empty_only ? folder->empty : folder->mode == mode) {
				if (json_array_append_new(argv, json_string(folder->path)) != 0) {
					return error_set(err, ERROR_INVALID,
						"a folder's name is not UTF-8: %s", folder->path);
				}
				bytes += strlen(folder->path) + 1;
				taken++;
			}
		}
		if (taken > 0) {
			int status = run_inside(walk->copy, argv, err);

			if (status < 0) {
				return status;
			}
		}
	}
	return 0;
}

/* chmod once for each mode that some folder has. */
static int set_folder_modes(struct walk *walk, struct error *err)
{
	for (mode_t mode = 0; mode <= 07777; mode++) {
		char text[8];
		bool used = false;
		int status;

		for (size_t i = 0; i < walk->folder_count && !used; i++) {
			used = walk->folders[i].mode == mode;
		}
		if (!used || mode == FOLDER_MODE) {
			continue;
		}
		snprintf(text, sizeof(text), "%04o", mode);
		status = over_folders(walk, "chmod", text, false, mode, err);
		if (status < 0) {
			return status;
		}
	}
	return 0;
}

static int make_rest(struct walk *walk, struct error *err)
{
	int status = over_folders(walk, "mkdir", "-p", true, 0, err);

	for (size_t i = 0; i < walk->link_count && status >= 0; i++) {
		CLEANUP(json_decref_p)
		json_t *argv = json_pack("[s,s,s,s,s]", "ln", "-sfn", "--", walk->links[i].target,
			walk->links[i].path);

		if (argv == NULL) {
			return error_set(err, ERROR_INVALID, "a link's name is not UTF-8: %s",
				walk->links[i].path);
		}
		status = run_inside(walk->copy, argv, err);
	}
	return status < 0 ? status : set_folder_modes(walk, err);
}

static void walk_done(struct walk *walk)
{
	for (size_t i = 0; i < walk->folder_count; i++) {
		free(walk->folders[i].path);
	}
	for (size_t i = 0; i < walk->link_count; i++) {
		free(walk->links[i].path);
		free(walk->links[i].target);
	}
	free(walk->folders);
	free(walk->links);
}

int copy_in(
	struct copy *copy, const char *source, const char *target, bool merge, struct error *err)
{
	const struct place top = {AT_FDCWD, source, target, 0, merge};
	struct walk walk = {.copy = copy};
	struct stat stat_;
	int status;

	if (stat(source, &stat_) < 0) {
		return error_sys(err, errno, "%s", source);
	}
	if (S_ISDIR(stat_.st_mode)) {
		status = in_folder(&walk, &top, err);
		status = status < 0 ? status : make_rest(&walk, err);
	} else {
		status = in_file(&walk, AT_FDCWD, source, target, err);
	}
	walk_done(&walk);
	return status;
}
