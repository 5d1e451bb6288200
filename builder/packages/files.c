/*
 * `files` of an environment: each is downloaded once for all environments, and placed by a process
 * that is confined to the new layer and to the build's range of ids. A folder on the way that the
 * layers below have keeps their mode; a link there is refused, since a folder would hide it.
 */
#include "builder/packages/packages.h"

#include "base/digest.h"
#include "base/io.h"
#include "builder/archive.h"
#include "builder/child.h"
#include "builder/download.h"
#include "builder/job_private.h"
#include "builder/report.h"
#include "configs/environment.h"
#include "pool/sandbox/sandbox.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* A change of how files are placed makes new layers. */
#define FILES_VERSION "1"
#define DOWNLOAD_STALL_MS 60000
#define PLACE_STALL_MS 120000
#define FOLDERS_MAX 64 /* on the way to one place */
#define COPY_BYTES (256 * 1024)

void files_key(const struct environment *environment, const char *below, char *key)
{
	struct digest *digest = digest_new();

	digest_add_str(digest, "files " FILES_VERSION);
	digest_add_str(digest, below);
	for (size_t i = 0; i < environment->file_count; i++) {
		const struct environment_file *file = &environment->files[i];

		digest_add_str(digest, file->sha256);
		digest_add_str(digest, file->path != NULL ? "path" : "unpack");
		digest_add_str(digest, file->path != NULL ? file->path : file->unpack);
		digest_add_str(digest, file->mode != NULL ? file->mode : "");
	}
	digest_end(digest, key);
	digest_free(digest);
}

/* ---- downloading ---- */

static bool worth_a_mirror(int status)
{
	return status == -ERROR_REMOTE || status == -ERROR_TIMEOUT || status == -ERROR_CORRUPT ||
	       status == -ERROR_LIMIT;
}

static int download_file(struct job *job, const struct environment_file *file, int folder_fd,
	int *ret_fd, struct error *err)
{
	struct download download = {.location = file->url,
		.sha256 = file->sha256,
		.local_fd = -1,
		.folder_fd = folder_fd,
		.bytes_max = (uint64_t)file->size_max,
		.stall_ms = DOWNLOAD_STALL_MS};
	int status = download_get(job->machine, &download, ret_fd, err);

	for (char **mirror = file->mirrors;
		worth_a_mirror(status) && mirror != NULL && *mirror != NULL; mirror++) {
		if (job->machine->cancelled != 0) {
			break;
		}
		report_line(job->machine->report, "%s: trying %s", err->message, *mirror);
		download.location = *mirror;
		status = download_get(job->machine, &download, ret_fd, err);
	}
	return status;
}

/* ---- folders on the way ---- */

struct way {
	char *paths[FOLDERS_MAX]; /* without a slash at the start, the outermost first */
	mode_t modes[FOLDERS_MAX];
	size_t count;
};

static void way_done(struct way *way)
{
	for (size_t i = 0; i < way->count; i++) {
		free(way->paths[i]);
	}
}

/* In one layer; 0: it is not there. */
static mode_t mode_in_layer(struct job *job, const struct layer *layer, const char *path)
{
	CLEANUP(free_p) char *tree_path = xasprintf("layers/%lld/tree", (long long)layer->id);
	struct error ignored = ERROR_INIT;
	CLEANUP(close_p)
	int tree = io_open(
		store_fd(job->machine->store), tree_path, O_PATH | O_DIRECTORY, 0, &ignored);
	CLEANUP(close_p)
	int fd = tree < 0 ? -1 : io_open_beneath(tree, path, O_PATH | O_NOFOLLOW, 0, &ignored);
	struct stat seen;

	return fd >= 0 && fstat(fd, &seen) == 0 ? seen.st_mode : 0;
}

static int take_folder(struct job *job, struct way *way, const char *path, struct error *err)
{
	mode_t mode = 0;

	for (size_t i = job->layer_count; mode == 0 && i-- > 0;) {
		mode = mode_in_layer(job, &job->layers[i], path);
	}
	if (mode != 0 && !S_ISDIR(mode)) {
		error_set(err, ERROR_CONFLICT, "/%s is no folder in the layers below", path);
		return error_hint(err, "name the place without the link on the way to it");
	}
	if (way->count == FOLDERS_MAX) {
		return error_set(err, ERROR_LIMIT, "/%s is too deep", path);
	}
	way->modes[way->count] = mode != 0 ? mode & 07777 : 0755;
	way->paths[way->count++] = xstrdup(path);
	return 0;
}

/* Every folder of `place`, and `place` itself when it is one. */
static int find_way(
	struct job *job, const char *place, bool whole, struct way *way, struct error *err)
{
	for (const char *at = place + 1; *at != '\0';) {
		const char *slash = strchrnul(at, '/');

		if (*slash == '/' || whole) {
			CLEANUP(free_p)
			char *path = xstrndup(place + 1, (size_t)(slash - place) - 1);
			int status = take_folder(job, way, path, err);

			if (status < 0) {
				return status;
			}
		}
		at = *slash == '/' ? slash + 1 : slash;
	}
	return 0;
}

/* ---- placing, in a child ---- */

struct place_task {
	const struct range *range;
	const struct environment_file *file;
	const struct way *way;
	int archive_fd, tree_fd;
	uint64_t bytes_max;
};

static int make_way(const struct way *way, struct error *err)
{
	for (size_t i = 0; i < way->count; i++) {
		struct stat seen;

		if (mkdir(way->paths[i], 0700) == 0) {
			if (chmod(way->paths[i], way->modes[i]) < 0) {
				return error_sys(err, errno, "set the mode of /%s", way->paths[i]);
			}
		} else if (errno != EEXIST || lstat(way->paths[i], &seen) < 0 ||
			   !S_ISDIR(seen.st_mode)) {
			return error_set(err, ERROR_CONFLICT,
				"/%s is no folder: another of the files has put it there",
				way->paths[i]);
		}
	}
	return 0;
}

static int place_file(
	const struct place_task *task, struct child *child, uint64_t *ret_bytes, struct error *err)
{
	CLEANUP(free_p) char *chunk = xmalloc(COPY_BYTES);
	const char *path = task->file->path + 1;
	mode_t mode = task->file->mode != NULL ? (mode_t)strtol(task->file->mode, NULL, 8) : 0644;
	CLEANUP(close_p)
	int fd = io_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600, err);
	off_t offset = 0;
	ssize_t got;

	if (fd < 0) {
		return fd;
	}
	while ((got = pread(task->archive_fd, chunk, COPY_BYTES, offset)) > 0) {
		if (io_write_full(fd, chunk, (size_t)got, err) < 0) {
			return -(int)err->kind;
		}
		offset += got;
		child_progress(child, "bytes", (uint64_t)offset, 0, (uint64_t)offset);
	}
	*ret_bytes = (uint64_t)offset;
	return got < 0 || fchmod(fd, mode) < 0 ? error_sys(err, errno, "write /%s", path) : 0;
}

static int unpack_file(
	const struct place_task *task, struct child *child, uint64_t *ret_bytes, struct error *err)
{
	const char *folder = streq(task->file->unpack, "/") ? "." : task->file->unpack + 1;
	struct archive_options options = {
		.owners = true, .ids = ID_RANGE, .bytes_max = task->bytes_max};
	struct archive_counts counts = {0};
	CLEANUP(close_p)
	int fd = io_open(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, err);
	int status;

	if (fd < 0) {
		return fd;
	}
	status = archive_unpack(task->archive_fd, fd, &options, child, &counts, err);
	*ret_bytes = counts.bytes;
	if (status == -ERROR_LIMIT) {
		error_hint(err, "raise `limits: {disk: …}` if that is right");
	}
	return status;
}

static int place_child(struct child *child, void *context, void *ret_bytes, struct error *err)
{
	struct place_task *task = context;
	int status = range_enter(task->range, child, err);

	if (status < 0) {
		return status;
	}
	if (fchdir(task->tree_fd) < 0 || chroot(".") < 0) {
		return error_sys(err, errno, "confine the placing to its folder");
	}
	umask(0);
	status = make_way(task->way, err);
	if (status < 0) {
		return status;
	}
	return task->file->path != NULL ? place_file(task, child, ret_bytes, err)
					: unpack_file(task, child, ret_bytes, err);
}

static int place(struct job *job, const struct environment_file *file, int archive_fd, int tree_fd,
	struct error *err)
{
	struct way way = {0};
	struct place_task task = {.range = &job->range,
		.file = file,
		.way = &way,
		.archive_fd = archive_fd,
		.tree_fd = tree_fd,
		.bytes_max = (uint64_t)job->environment->limits.disk_bytes};
	int fds[3] = {archive_fd, tree_fd, job->range.userns_fd};
	uint64_t bytes = 0;
	struct child_spec spec = {.what = "place a file",
		.run = place_child,
		.context = &task,
		.result_size = sizeof(bytes),
		.fds = fds,
		.fd_count = ARRAY_SIZE(fds),
		.stall_ms = PLACE_STALL_MS};
	int status = find_way(job, file->path != NULL ? file->path : file->unpack,
		file->unpack != NULL, &way, err);

	if (status == 0) {
		status = child_run(job->machine, &spec, &bytes, err);
	}
	way_done(&way);
	return status;
}

/* ---- the layer ---- */

static int write_files(struct job *job, struct staging *staging, struct error *err)
{
	CLEANUP(close_p)
	int folder =
		io_open(store_fd(job->machine->store), "downloads", O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(close_p) int tree = -1;
	int status = folder < 0 ? folder : range_prepare(&job->range, staging_name(staging), err);

	if (status == 0) {
		tree = io_open(
			staging_fd(staging), "tree", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0, err);
		status = tree < 0 ? tree : 0;
	}
	for (size_t i = 0; status == 0 && i < job->environment->file_count; i++) {
		const struct environment_file *file = &job->environment->files[i];
		CLEANUP(close_p) int fd = -1;

		status = download_file(job, file, folder, &fd, err);
		if (status == 0) {
			status = place(job, file, fd, tree, err);
		}
		if (status < 0) {
			error_wrap(err, "files (%s:%d)", job->environment->file, file->line);
		}
	}
	return status;
}

static int make_layer(struct job *job, struct layer *layer, struct error *err)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	int status = staging_new(job->machine->store, &staging, err);

	if (status == 0) {
		status = write_files(job, staging, err);
	}
	if (status == 0) {
		status = job_fault("files.placed", err);
	}
	snprintf(layer->title, sizeof(layer->title), "files");
	snprintf(layer->step_key, sizeof(layer->step_key), "%s", job->files_key);
	layer->id_base = job->range.first;
	layer->id_count = ID_RANGE;
	if (status == 0) {
		status = layer_seal(job->machine->store, staging, layer, err);
	}
	return status < 0 ? status : layer_keep(job->machine->store, layer->id, err);
}

int files_layer(struct job *job, struct error *err)
{
	struct layer layer = {.kind = "files"}, found;

	report_stage(job->machine->report, "files", "%zu", job->environment->file_count);
	if (!job->clean && layer_find(job->machine->store, job->files_key, &found, err) == 0) {
		job->reused++;
		report_stage_end(
			job->machine->report, "layer %lld, as before", (long long)found.id);
		return job_add_layer(job, &found, err);
	}
	if (make_layer(job, &layer, err) < 0) {
		return -(int)err->kind;
	}
	job->made++;
	report_stage_end(job->machine->report, "layer %lld, %llu files", (long long)layer.id,
		(unsigned long long)layer.files);
	return job_add_layer(job, &layer, err);
}
