/*
 * The submodules of a commit, read from the mirror in a child process: what .gitmodules says, with
 * the commits that the tree has at those paths. Handed over as texts with their final '\0', which
 * the parent checks again.
 */
#include "builder/git/git_modules.h"

#include "base/io.h"
#include "builder/child.h"
#include "builder/git/git_internal.h"

#include <stdio.h>
#include <sys/mman.h>

struct modules_task {
	const struct git_source *source;
	const char *commit;
	int to_fd;
};

/* The text of .gitmodules; *ret_blob NULL: there is none. */
static int find_file(
	git_repository *repository, const git_tree *tree, git_blob **ret_blob, struct error *err)
{
	const git_tree_entry *entry = git_tree_entry_byname(tree, ".gitmodules");
	git_filemode_t mode = entry != NULL ? git_tree_entry_filemode(entry) : 0;

	if (entry == NULL) {
		return 0;
	}
	if (mode != GIT_FILEMODE_BLOB && mode != GIT_FILEMODE_BLOB_EXECUTABLE) {
		return error_set(err, ERROR_DENIED, ".gitmodules is no file, which git refuses");
	}
	if (git_blob_lookup(ret_blob, repository, git_tree_entry_id(entry)) < 0) {
		git_error_take(err, GIT_ERROR, "read .gitmodules");
		err->kind = ERROR_CORRUPT;
		return -ERROR_CORRUPT;
	}
	return git_blob_rawsize(*ret_blob) > GIT_MODULES_BYTES_MAX
		       ? error_set(err, ERROR_LIMIT, ".gitmodules is larger than %d KiB",
				 GIT_MODULES_BYTES_MAX >> 10)
		       : 0;
}

static void find_commits(const git_tree *tree, struct git_module_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		struct git_module *module = &list->items[i];
		git_tree_entry *entry = NULL;

		if (module->path != NULL &&
			git_tree_entry_bypath(&entry, tree, module->path) == 0) {
			if (git_tree_entry_filemode(entry) == GIT_FILEMODE_COMMIT) {
				git_oid_tostr(module->commit, sizeof(module->commit),
					git_tree_entry_id(entry));
			}
			git_tree_entry_free(entry);
		}
	}
}

static void add_text(struct buffer *out, const char *text)
{
	buffer_add(out, text, strlen(text) + 1);
}

static int send_list(const struct git_module_list *list, int to_fd, struct error *err)
{
	CLEANUP(buffer_done) struct buffer out = {0};

	for (size_t i = 0; i < list->count; i++) {
		const struct git_module *module = &list->items[i];

		if (module->commit[0] != '\0' && module->url != NULL) {
			add_text(&out, module->name);
			add_text(&out, module->path);
			add_text(&out, module->url);
			add_text(&out, module->commit);
			add_text(&out, module->left_out ? "none" : "checkout");
		}
	}
	return io_write_full(to_fd, buffer_text(&out), out.length, err);
}

static int modules_child(struct child *child, void *context, void *ret_nothing, struct error *err)
{
	const struct modules_task *task = context;
	CLEANUP(git_mirror_close) struct git_mirror mirror = {.lock_fd = -1};
	CLEANUP(git_tree_p) git_tree *tree = NULL;
	CLEANUP(git_blob_p) git_blob *blob = NULL;
	CLEANUP(git_module_list_done) struct git_module_list list = {0};
	int status = git_library_start(err);

	(void)ret_nothing;
	if (status == 0) {
		status = git_mirror_open(task->source, child, &mirror, err);
	}
	if (status == 0) {
		status = git_tree_of(mirror.repository, task->commit, NULL, NULL, &tree, err);
	}
	if (status == 0) {
		status = find_file(mirror.repository, tree, &blob, err);
	}
	if (status < 0 || blob == NULL) {
		return status;
	}
	status = git_modules_parse(
		git_blob_rawcontent(blob), (size_t)git_blob_rawsize(blob), &list, err);
	if (status < 0) {
		return status;
	}
	find_commits(tree, &list);
	return send_list(&list, task->to_fd, err);
}

/* ---- the parent's side ---- */

/* The next text, NULL at the end or when it has none. */
static const char *take_text(const char **at, const char *end)
{
	const char *text = *at, *zero = memchr(text, '\0', (size_t)(end - text));

	if (zero == NULL) {
		return NULL;
	}
	*at = zero + 1;
	return text;
}

static int nonsense(struct error *err)
{
	return error_set(err, ERROR_INTERNAL, "the list of submodules makes no sense");
}

static int take_list(const struct buffer *text, struct git_module_list *list, struct error *err)
{
	const char *at = buffer_text(text), *end = at + text->length;

	while (at < end) {
		const char *fields[5];
		struct git_module *module;

		for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
			fields[i] = take_text(&at, end);
			if (fields[i] == NULL) {
				return nonsense(err);
			}
		}
		if (!git_ref_is_commit(fields[3]) || git_path_check(fields[1], err) < 0 ||
			fields[1][0] == '/' || list->count >= GIT_MODULES_MAX) {
			return nonsense(err);
		}
		module = array_add(&list->items, &list->count, &list->room);
		module->name = xstrdup(fields[0]);
		module->path = xstrdup(fields[1]);
		module->url = xstrdup(fields[2]);
		snprintf(module->commit, sizeof(module->commit), "%s", fields[3]);
		module->left_out = streq(fields[4], "none");
	}
	return 0;
}

static int read_all(int fd, struct buffer *text, struct error *err)
{
	char part[65536];
	ssize_t got;
	off_t at = 0;

	while ((got = pread(fd, part, sizeof(part), at)) > 0) {
		at += got;
		if (at > 2 * GIT_MODULES_BYTES_MAX) {
			return nonsense(err);
		}
		buffer_add(text, part, (size_t)got);
	}
	return got < 0 ? error_sys(err, errno, "read the list of submodules") : 0;
}

int git_modules_read(struct machine *machine, const struct git_source *source, const char *commit,
	struct git_module_list *list, struct error *err)
{
	CLEANUP(free_p) char *what = xasprintf("read the submodules of %.12s", commit);
	CLEANUP(close_p) int fd = memfd_create("modules", MFD_CLOEXEC);
	CLEANUP(buffer_done) struct buffer text = {0};
	struct modules_task task = {source, commit, fd};
	struct child_spec spec = {
		.what = what,
		.run = modules_child,
		.context = &task,
		.fds = &fd,
		.fd_count = 1,
		.stall_ms = source->stall_ms,
	};
	int status;

	if (fd < 0) {
		return error_sys(err, errno, "%s: memfd_create", what);
	}
	status = child_run(machine, &spec, NULL, err);
	if (status == 0) {
		status = read_all(fd, &text, err);
	}
	if (status == 0) {
		status = take_list(&text, list, err);
	}
	if (status < 0) {
		git_module_list_done(list);
	}
	return status;
}
