/*
 * The way from one commit to another as a stream of records, in a child process: objects that are
 * new, then what changes in the work tree, then refs. It reads the mirror without its lock: objects
 * there are only ever added or moved to another pack, which libgit2 looks for again.
 */
#include "builder/git/git_way.h"

#include "base/fault.h"
#include "base/io.h"
#include "builder/child.h"
#include "builder/git/git_way_internal.h"
#include "pool/sandbox/init_protocol.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#define SCRATCH_PREFIX ".sync-"
/* A folder of packs that its maker did not live to remove. */
#define SCRATCH_STALE_S 600
#define COPY_SIZE (256 * 1024)

struct git_way_task {
	const struct git_source *source;
	const struct git_way *way;
};

static int put_bytes(struct git_way_out *out, const void *data, size_t length, struct error *err)
{
	out->result->bytes += length;
	return io_write_full(out->way->fd, data, length, err);
}

int git_way_put(struct git_way_out *out, struct apply_record *record, const char *path,
	const void *data, size_t length, struct error *err)
{
	int status;

	record->version = APPLY_VERSION;
	record->path_length = (uint32_t)strlen(path);
	record->data_length = length;
	if ((status = put_bytes(out, record, sizeof(*record), err)) < 0 ||
		(status = put_bytes(out, path, record->path_length, err)) < 0) {
		return status;
	}
	return length > 0 ? put_bytes(out, data, length, err) : 0;
}

/* ---- objects ---- */

static int put_file(struct git_way_out *out, int dir_fd, const char *name, struct error *err)
{
	CLEANUP(close_p) int fd = io_open(dir_fd, name, O_RDONLY, 0, err);
	CLEANUP(free_p) char *piece = xmalloc(COPY_SIZE);
	struct apply_record record = {.type = APPLY_OBJECTS,
		.version = APPLY_VERSION,
		.path_length = (uint32_t)strlen(name)};
	struct stat seen;
	uint64_t left;
	int status;

	if (fd < 0 || fstat(fd, &seen) < 0) {
		return fd < 0 ? fd : error_sys(err, errno, "look at %s", name);
	}
	left = record.data_length = (uint64_t)seen.st_size;
	if ((status = put_bytes(out, &record, sizeof(record), err)) < 0 ||
		(status = put_bytes(out, name, strlen(name), err)) < 0) {
		return status;
	}
	while (left > 0) {
		size_t size = left < COPY_SIZE ? (size_t)left : COPY_SIZE;

		if ((status = io_read_full(fd, piece, size, err)) < 0 ||
			(status = put_bytes(out, piece, size, err)) < 0) {
			return status;
		}
		child_progress(out->child, "bytes", out->result->bytes, 0, 0);
		left -= size;
	}
	return 0;
}

static int choose_objects(struct git_way_out *out, git_packbuilder *builder, struct error *err)
{
	CLEANUP(git_revwalk_p) git_revwalk *walk = NULL;
	const char *ref = out->way->ref;
	git_oid tag;
	int code = git_revwalk_new(&walk, out->to.repository);

	if (code == 0) {
		code = git_revwalk_push(walk, git_commit_id(out->to.commit));
	}
	if (code == 0) {
		code = git_revwalk_hide(walk, git_commit_id(out->from.commit));
	}
	if (code == 0) {
		code = git_packbuilder_insert_walk(builder, walk);
	}
	if (code == 0 && str_starts(ref, "refs/tags/") &&
		git_reference_name_to_id(&tag, out->to.repository, ref) == 0 &&
		!git_oid_equal(&tag, git_commit_id(out->to.commit))) {
		code = git_packbuilder_insert(builder, &tag, NULL);
	}
	return code < 0 ? git_error_take(err, code, "choose the objects of %.12s", out->way->to)
			: 0;
}

/* The pack before its index: git reads a pack as soon as there is an index for it. */
static int put_packs(struct git_way_out *out, const char *folder, struct error *err)
{
	static const char *const ends[] = {".pack", ".idx"};
	CLEANUP(closedir_p) DIR *dir = io_opendir(AT_FDCWD, folder, err);
	struct dirent *entry;
	int status = 0;

	if (dir == NULL) {
		return -(int)err->kind;
	}
	for (size_t i = 0; status == 0 && i < ARRAY_SIZE(ends); i++) {
		rewinddir(dir);
		while (status == 0 && (entry = readdir(dir)) != NULL) {
			size_t length = strlen(entry->d_name), end = strlen(ends[i]);

			if (str_starts(entry->d_name, "pack-") && length > end &&
				streq(entry->d_name + length - end, ends[i])) {
				status = put_file(out, dirfd(dir), entry->d_name, err);
			}
		}
	}
	return status;
}

static int put_objects(struct git_way_out *out, const char *folder, struct error *err)
{
	CLEANUP(git_packbuilder_p) git_packbuilder *builder = NULL;
	int code = git_packbuilder_new(&builder, out->to.repository), status;

	if (code < 0) {
		return git_error_take(err, code, "make a pack");
	}
	git_packbuilder_set_threads(builder, 1);
	status = choose_objects(out, builder, err);
	if (status < 0 || git_packbuilder_object_count(builder) == 0) {
		return status;
	}
	code = git_packbuilder_write(builder, folder, 0644, NULL, NULL);
	return code < 0 ? git_error_take(err, code, "write a pack") : put_packs(out, folder, err);
}

/* ---- refs ---- */

static int put_ref(struct git_way_out *out, const char *name, const char *commit, struct error *err)
{
	struct apply_record record = {.type = APPLY_REF};
	CLEANUP(free_p) char *text = xasprintf("%s\n", commit);

	return git_way_put(out, &record, name, text, strlen(text), err);
}

/* As the checkout of the builder leaves them: a branch and its origin's twin, or a tag and HEAD. */
static int put_refs(struct git_way_out *out, struct error *err)
{
	const struct git_way *way = out->way;
	CLEANUP(free_p) char *twin = NULL;
	char tag[GIT_OID_HEXSZ + 1];
	git_oid id;
	int status;

	if (str_starts(way->ref, "refs/heads/")) {
		twin = xasprintf("refs/remotes/origin/%s", way->ref + strlen("refs/heads/"));
		status = put_ref(out, twin, way->to, err);
		return status < 0 ? status : put_ref(out, way->ref, way->to, err);
	}
	if (str_starts(way->ref, "refs/tags/") &&
		git_reference_name_to_id(&id, out->to.repository, way->ref) == 0) {
		git_oid_tostr(tag, sizeof(tag), &id);
		if (put_ref(out, way->ref, tag, err) < 0) {
			return -(int)err->kind;
		}
	}
	return put_ref(out, "HEAD", way->to, err);
}

/* ---- all of it ---- */

static int side_open(
	const char *mirror, const char *commit, struct git_way_side *side, struct error *err)
{
	git_oid id;
	int code = git_repository_open_bare(&side->repository, mirror);

	if (code == 0) {
		code = git_oid_fromstr(&id, commit);
	}
	if (code == 0) {
		code = git_commit_lookup(&side->commit, side->repository, &id);
	}
	if (code == 0) {
		code = git_commit_tree(&side->tree, side->commit);
	}
	if (code == 0) {
		return 0;
	}
	git_error_take(err, code, "find commit %.12s", commit);
	err->kind = ERROR_NOT_FOUND;
	return error_hint(err, "the mirror does not have it: was it pushed, and fetched?");
}

static void side_close(struct git_way_side *side)
{
	git_tree_free(side->tree);
	git_commit_free(side->commit);
	git_repository_free(side->repository);
}

static void sweep(const char *mirrors)
{
	struct error ignored = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = io_opendir(AT_FDCWD, mirrors, &ignored);
	struct dirent *entry;
	struct stat seen;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (str_starts(entry->d_name, SCRATCH_PREFIX) &&
			fstatat(dirfd(dir), entry->d_name, &seen, AT_SYMLINK_NOFOLLOW) == 0 &&
			seen.st_mtime + SCRATCH_STALE_S < time(NULL)) {
			(void)!io_remove_tree(dirfd(dir), entry->d_name, &ignored);
		}
	}
}

static int put_all(struct git_way_out *out, const char *folder, struct error *err)
{
	struct apply_record begin = {.type = APPLY_BEGIN, .time = out->time};
	struct apply_record end = {.type = APPLY_END};
	const char *ref = out->way->ref;
	int status;

	memcpy(begin.old_id, git_commit_id(out->from.commit)->id, APPLY_ID_SIZE);
	memcpy(begin.new_id, git_commit_id(out->to.commit)->id, APPLY_ID_SIZE);
	status = git_way_put(out, &begin, str_starts(ref, "refs/heads/") ? ref : "", NULL, 0, err);
	if (status == 0) {
		status = put_objects(out, folder, err);
	}
	if (status == 0) {
		status = git_way_files(out, err);
	}
	if (status == 0) {
		status = put_refs(out, err);
	}
	fault_point("way.end");
	return status < 0 ? status : git_way_put(out, &end, "", NULL, 0, err);
}

static int way_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	const struct git_way_task *task = context;
	CLEANUP(free_p) char *mirror = git_mirror_path(task->source);
	CLEANUP(free_p)
	char *folder = xasprintf("%s/" SCRATCH_PREFIX "XXXXXX", task->source->mirrors);
	struct git_way_out out = {
		.child = child, .way = task->way, .result = ret_result, .time = time(NULL)};
	struct error ignored = ERROR_INIT;
	int status = git_library_start(err);

	if (status < 0) {
		return status;
	}
	/* What a pack says is checked by git when it is read; here only speed counts. */
	git_libgit2_opts(GIT_OPT_ENABLE_FSYNC_GITDIR, 0);
	sweep(task->source->mirrors);
	status = side_open(mirror, task->way->from, &out.from, err);
	if (status == 0) {
		status = side_open(mirror, task->way->to, &out.to, err);
	}
	if (status == 0 && mkdtemp(folder) == NULL) {
		status = error_sys(err, errno, "make %s", folder);
	}
	if (status == 0) {
		out.result->to_time = git_commit_time(out.to.commit);
		status = put_all(&out, folder, err);
		(void)!io_remove_tree(AT_FDCWD, folder, &ignored);
	}
	side_close(&out.from);
	side_close(&out.to);
	return status;
}

int git_way_write(struct machine *machine, const struct git_source *source,
	const struct git_way *way, struct git_way_result *ret_result, struct error *err)
{
	CLEANUP(free_p) char *what = xasprintf("compare %.12s with %.12s", way->from, way->to);
	struct git_way_task task = {source, way};
	struct git_way_result result = {0};
	struct child_spec spec = {
		.what = what,
		.run = way_child,
		.context = &task,
		.result_size = sizeof(result),
		.fds = &way->fd,
		.fd_count = 1,
	};
	int status = child_run(machine, &spec, &result, err);

	if (status == 0) {
		*ret_result = result;
	}
	return status;
}
