/*
 * A commit as an ordinary workspace, in a child process. Its packs are links to the mirror's, so it
 * stays whole when the mirror goes. A file that the image before had too keeps its time there,
 * others have the commit's, and the index says the same, so that the first `git status` inside a
 * sandbox compares times and sizes and reads no content. The list of files comes from one walk of
 * the tree; two processes write them, in the order of the packs where that costs no folder's being
 * opened again.
 */
#include "builder/git/git_internal.h"

#include "base/fault.h"
#include "base/io.h"
#include "builder/child.h"
#include "builder/git/git_modules.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define SUBMODULE_LINES_MAX 8
#define PATHS_BYTES_MAX (512 * 1024 * 1024)
/* Files that a process takes at a time, and from how many on a second one is worth its start. */
#define PORTION 256
#define HELP_FROM 2000

struct file {
	size_t path; /* in checkout.paths */
	git_oid id;
	uint32_t mode;
};

/* What the writing processes share. */
struct together {
	_Atomic size_t next; /* file that nobody has taken */
	_Atomic size_t done;
	_Atomic uint64_t lfs;
	atomic_bool failed;
	struct error error; /* the helper's */
	uint32_t sizes[]; /* of the files as written */
};

struct checkout {
	const struct git_checkout_task *task;
	struct child *child;
	struct git_checked_out *counts;
	git_oid commit;
	struct git_times times;
	int64_t commit_s; /* its time */
	struct file *files; /* sorted by path */
	size_t file_count, file_room;
	struct turn {
		uint64_t at; /* git_pack_order_of */
		size_t file;
	} * turns; /* in which order they are written; NULL: by path */
	struct buffer paths;
	bool attributes; /* there are .gitattributes */
	struct together *together;
	size_t together_bytes;
};

static void checkout_done(struct checkout *checkout)
{
	if (checkout->together != NULL) {
		munmap(checkout->together, checkout->together_bytes);
	}
	git_times_done(&checkout->times);
	buffer_done(&checkout->paths);
	free(checkout->turns);
	free(checkout->files);
}

static const char *path_of(const struct checkout *checkout, const struct file *file)
{
	return checkout->paths.data + file->path;
}

/* ---- what there is to write ---- */

static int list_file(
	void *context, const char *path, const git_tree_entry *entry, struct error *err)
{
	struct checkout *checkout = context;
	struct file *file =
		array_add(&checkout->files, &checkout->file_count, &checkout->file_room);

	file->path = checkout->paths.length;
	file->id = *git_tree_entry_id(entry);
	file->mode = git_tree_entry_filemode(entry);
	if (file->mode == GIT_FILEMODE_COMMIT &&
		!git_module_is_listed(checkout->task->modules, path) &&
		++checkout->counts->submodules <= SUBMODULE_LINES_MAX) {
		child_line(
			checkout->child, "submodule %s is not fetched; its folder is empty", path);
	}
	checkout->attributes =
		checkout->attributes || streq(git_tree_entry_name(entry), ".gitattributes");
	return buffer_add(&checkout->paths, path, strlen(path) + 1)
		       ? 0
		       : error_set(err, ERROR_LIMIT, "the commit's paths come to more than %d MiB",
				 PATHS_BYTES_MAX >> 20);
}

static int compare_files(const void *a, const void *b, void *paths)
{
	return strcmp((const char *)paths + ((const struct file *)a)->path,
		(const char *)paths + ((const struct file *)b)->path);
}

/* Trees are sorted as the index is, unless somebody made them by hand. */
static void sort_files(struct checkout *checkout)
{
	for (size_t i = 1; i < checkout->file_count; i++) {
		if (compare_files(checkout->files + i - 1, checkout->files + i,
			    checkout->paths.data) > 0) {
			qsort_r(checkout->files, checkout->file_count, sizeof(*checkout->files),
				compare_files, checkout->paths.data);
			return;
		}
	}
}

/* How often the folder changes from file to file; at least the number of folders. */
static size_t count_folders(const struct checkout *checkout)
{
	const char *last = "";
	size_t last_length = SIZE_MAX, count = 0;

	for (size_t i = 0; i < checkout->file_count; i++) {
		const char *path = path_of(checkout, checkout->files + i);
		const char *slash = strrchr(path, '/');
		size_t length = slash != NULL ? (size_t)(slash - path) : 0;

		count += length != last_length || memcmp(path, last, length) != 0 ? 1 : 0;
		last = path;
		last_length = length;
	}
	return count;
}

static int compare_turns(const void *a, const void *b)
{
	const struct turn *one = a, *two = b;

	return one->at != two->at ? (one->at < two->at ? -1 : 1)
				  : (one->file < two->file ? -1 : one->file > two->file);
}

/* With more folders than a writer keeps open, they would be opened time and again. */
static void order_files(struct checkout *checkout)
{
	struct git_pack_order *order = NULL;

	if (count_folders(checkout) > GIT_FOLDERS_KEPT) {
		return;
	}
	order = git_pack_order_new(".git/objects/pack");
	checkout->turns = xcalloc(checkout->file_count + 1, sizeof(*checkout->turns));
	for (size_t i = 0; i < checkout->file_count; i++) {
		checkout->turns[i] =
			(struct turn){git_pack_order_of(order, &checkout->files[i].id), i};
	}
	git_pack_order_free(order);
	qsort(checkout->turns, checkout->file_count, sizeof(*checkout->turns), compare_turns);
}

static int list_files(git_repository *repository, struct checkout *checkout, struct error *err)
{
	CLEANUP(git_tree_p) git_tree *tree = NULL;
	int status = git_tree_of(repository, checkout->task->found->commit, &checkout->commit,
		&checkout->commit_s, &tree, err);
	void *shared;

	buffer_init(&checkout->paths, PATHS_BYTES_MAX);
	if (status == 0) {
		status =
			git_files_walk(repository, checkout->child, tree, list_file, checkout, err);
	}
	if (status < 0) {
		return status;
	}
	sort_files(checkout);
	order_files(checkout);
	checkout->counts->files = checkout->file_count;
	checkout->together_bytes =
		sizeof(*checkout->together) + checkout->file_count * sizeof(uint32_t);
	shared = mmap(NULL, checkout->together_bytes, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		return error_sys(err, errno, "share memory for %zu files", checkout->file_count);
	}
	checkout->together = shared;
	return 0;
}

/* ---- writing ---- */

static git_index_entry entry_of(const struct checkout *checkout, const struct file *file)
{
	return (git_index_entry){
		.path = path_of(checkout, file), .id = file->id, .mode = file->mode};
}

static int64_t time_of(const struct checkout *checkout, const struct file *file)
{
	return git_time_of(&checkout->times, path_of(checkout, file), &file->id, file->mode);
}

static int write_portion(struct checkout *checkout, struct git_writer *writer, size_t from,
	size_t to, struct error *err)
{
	for (size_t i = from; i < to; i++) {
		size_t at = checkout->turns != NULL ? checkout->turns[i].file : i;
		const struct file *file = checkout->files + at;
		git_index_entry entry = entry_of(checkout, file);
		int status = git_writer_put(writer, &entry, time_of(checkout, file), err);

		if (status < 0) {
			return status;
		}
		checkout->together->sizes[at] = entry.file_size;
		child_progress(checkout->child, "files",
			atomic_fetch_add(&checkout->together->done, 1) + 1, checkout->file_count,
			0);
	}
	return 0;
}

/* Portion by portion until all are taken or somebody has failed. */
static int write_portions(git_repository *repository, struct checkout *checkout, struct error *err)
{
	struct together *together = checkout->together;
	CLEANUP(git_writer_done)
	struct git_writer writer = {.repository = repository,
		.commit = checkout->commit,
		.plain = !checkout->attributes,
		.root_fd = io_open(AT_FDCWD, ".", O_RDONLY | O_DIRECTORY, 0, err),
		.folder_fd = -1};
	int status = writer.root_fd < 0 ? writer.root_fd : 0;

	while (status == 0 && !atomic_load(&together->failed)) {
		size_t from = atomic_fetch_add(&together->next, PORTION);
		size_t to = from + PORTION < checkout->file_count ? from + PORTION
								  : checkout->file_count;

		if (from >= checkout->file_count) {
			break;
		}
		status = write_portion(checkout, &writer, from, to, err);
	}
	atomic_fetch_add(&together->lfs, writer.lfs);
	if (status < 0) {
		atomic_store(&together->failed, true);
	}
	return status;
}

/* -1: none, which is no failure. It ends with its parent. */
static pid_t start_helper(git_repository *repository, struct checkout *checkout)
{
	pid_t parent = getpid();
	pid_t helper =
		checkout->file_count < HELP_FROM || sysconf(_SC_NPROCESSORS_ONLN) < 2 ? -1 : fork();

	if (helper == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent) {
			_exit(1);
		}
		_exit(write_portions(repository, checkout, &checkout->together->error) < 0 ? 1 : 0);
	}
	return helper;
}

static int end_helper(struct checkout *checkout, pid_t helper, int status, struct error *err)
{
	int ending = 0;

	while (waitpid(helper, &ending, 0) < 0 && errno == EINTR) {
		continue;
	}
	if (status < 0 || (WIFEXITED(ending) && WEXITSTATUS(ending) == 0)) {
		return status;
	}
	if (WIFEXITED(ending) && checkout->together->error.kind != ERROR_NONE) {
		error_copy(err, &checkout->together->error);
		return -(int)err->kind;
	}
	return error_set(err, ERROR_INTERNAL, "the second process of the checkout was killed");
}

static int write_files(git_repository *repository, struct checkout *checkout, struct error *err)
{
	pid_t helper = start_helper(repository, checkout);
	int status = write_portions(repository, checkout, err);

	if (helper > 0) {
		status = end_helper(checkout, helper, status, err);
	}
	checkout->counts->lfs = atomic_load(&checkout->together->lfs);
	return status;
}

static int write_index(struct checkout *checkout, struct error *err)
{
	CLEANUP(git_index_out_done) struct git_index_out out;
	int64_t newest_ms = checkout->times.fallback_ms;
	int status;

	git_index_out_init(&out);
	for (size_t i = 0; i < checkout->file_count; i++) {
		const struct file *file = checkout->files + i;
		git_index_entry entry = entry_of(checkout, file);
		int64_t time = time_of(checkout, file);

		newest_ms = time > newest_ms ? time : newest_ms;
		if (file->mode != GIT_FILEMODE_COMMIT) {
			entry.file_size = checkout->together->sizes[i];
			git_time_set(&entry, time);
		}
		git_index_out_add(&out, &entry);
	}
	status = git_index_out_write(&out, NULL, -1, err);
	return status < 0 ? status : git_age_index(newest_ms, err);
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
		status = git_write_config(
			source, checkout->task->found, checkout->task->modules, err);
	}
	if (status == 0) {
		status = git_write_refs(mirror.repository, checkout->task->found, false, err);
	}
	if (status < 0) {
		return status;
	}
	/* Bare, so that attributes are the commit's and not those of files half written. */
	code = git_repository_open_ext(ret_repository, ".git",
		GIT_REPOSITORY_OPEN_NO_SEARCH | GIT_REPOSITORY_OPEN_BARE, NULL);
	return code < 0 ? git_error_take(err, code, "open the workspace") : 0;
}

int git_checkout_child(struct child *child, void *context, void *ret_counts, struct error *err)
{
	CLEANUP(git_repository_p) git_repository *repository = NULL;
	CLEANUP(checkout_done)
	struct checkout checkout = {.task = context, .child = child, .counts = ret_counts};
	int status = git_library_start(err);

	if (status == 0) {
		status = git_enter_workspace(checkout.task->tree_fd, checkout.task->path, err);
	}
	if (status == 0) {
		status = init_workspace(&repository, &checkout, err);
	}
	if (status == 0) {
		status = list_files(repository, &checkout, err);
	}
	if (status == 0) {
		status = git_times_open(checkout.task, checkout.commit_s, &checkout.times, err);
	}
	if (status == 0) {
		status = write_files(repository, &checkout, err);
	}
	if (status == 0) {
		status = write_index(&checkout, err);
	}
	fault_point("checkout.written");
	return status;
}
