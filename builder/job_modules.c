/*
 * Submodules of a source: which a commit has, each fetched into a mirror of its own, and written
 * into the layer of the source. In a delta, a submodule whose commit is that of the full checkout
 * is not written again. A credential of the source goes to its own server only.
 */
#include "builder/job_private.h"

#include "base/glob.h"
#include "base/io.h"
#include "builder/git/git_modules.h"
#include "builder/report.h"
#include "configs/environment.h"

#include <fcntl.h>
#include <stdio.h>

static bool is_recursive(const struct job *job, size_t index)
{
	return streq(job->environment->sources[index].submodules, "recursive");
}

bool job_has_modules(const struct job *job, size_t index)
{
	return !streq(job->environment->sources[index].submodules, "false");
}

void job_modules_done(struct job_modules *modules)
{
	for (size_t i = 0; i < modules->count; i++) {
		free(modules->items[i]->path);
		free(modules->items[i]->url);
		free(modules->items[i]->local);
		git_module_list_done(&modules->items[i]->inner);
		free(modules->items[i]);
	}
	free(modules->items);
	git_module_list_done(&modules->top);
	*modules = (struct job_modules){0};
}

static struct git_source module_source(
	const struct job *job, size_t index, const struct job_module *module)
{
	CLEANUP(free_p) char *unused = NULL;
	struct git_source source = job_git_source(job, index, &unused);

	source.url = module->url;
	source.local = module->local;
	source.ref = module->found.commit;
	return source;
}

/* ---- which there are ---- */

/* Notes those of a list that are to be fetched, with their urls as they really are. */
static int add_list(struct job_modules *modules, const char *parent_url, const char *parent_path,
	struct git_module_list *list, struct error *err)
{
	for (size_t i = 0; i < list->count; i++) {
		struct git_module *from = &list->items[i];
		struct job_module *module, **place;
		char *url = NULL;

		if (from->left_out) {
			continue;
		}
		if (git_module_url(parent_url, from->url, &url, err) < 0) {
			return error_wrap(err, "submodule %s%s", parent_path, from->path);
		}
		free(from->url);
		from->url = url;
		if (modules->count == GIT_MODULES_MAX) {
			return error_set(err, ERROR_LIMIT,
				"more than %d submodules, with those of submodules",
				GIT_MODULES_MAX);
		}
		place = array_add(&modules->items, &modules->count, &modules->room);
		module = *place = xcalloc(1, sizeof(*module));
		module->path = xasprintf("%s%s", parent_path, from->path);
		module->url = xstrdup(url);
		module->local = git_url_path(url);
		snprintf(module->found.commit, sizeof(module->found.commit), "%s", from->commit);
	}
	return 0;
}

static int fetch_module(
	struct job *job, size_t index, const struct job_module *module, struct error *err)
{
	const char *from = job->environment->sources[index].url;
	struct git_source source = module_source(job, index, module);
	bool trusted = git_urls_share_host(from, module->url);
	struct git_found found = {.commit = ""};
	CLEANUP(free_p) char *url = git_url_public(module->url);
	int status = job_fetch_source(job, index, &source, trusted, &found, err);

	if (status == 0 && found.fetched) {
		report_line(
			job->machine->report, "submodule %s: fetched from %s", module->path, url);
	}
	return status < 0 ? error_wrap(err, "submodule %s (%s)", module->path, url) : 0;
}

/* A module's own come behind it, so the list grows while it is walked. */
static int find_all(struct job *job, size_t index, struct job_modules *modules, struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	struct git_source source = job_git_source(job, index, &path);
	int status = git_modules_read(
		job->machine, &source, job->sources[index].found.commit, &modules->top, err);

	if (status == 0) {
		status = add_list(modules, source.url, "", &modules->top, err);
	}
	for (size_t i = 0; status == 0 && i < modules->count; i++) {
		struct job_module *module = modules->items[i];
		CLEANUP(free_p) char *below = xasprintf("%s/", module->path);

		status = fetch_module(job, index, module, err);
		if (status < 0 || !is_recursive(job, index)) {
			continue;
		}
		source = module_source(job, index, module);
		status = git_modules_read(
			job->machine, &source, module->found.commit, &module->inner, err);
		if (status == 0) {
			status = add_list(modules, module->url, below, &module->inner, err);
		}
	}
	return status;
}

/* Beside the source's mirror, so that theirs are kept as long as that is (collect.c). */
static int note_mirrors(struct job *job, size_t index, struct error *err)
{
	const struct job_modules *modules = &job->sources[index].modules;
	CLEANUP(free_p) char *unused = NULL;
	struct git_source source = job_git_source(job, index, &unused);
	CLEANUP(free_p) char *mirror = git_mirror_path(&source);
	CLEANUP(free_p) char *file = xasprintf("%s/" GIT_MODULES_NOTE, mirror);
	CLEANUP(buffer_done) struct buffer names = {0};

	for (size_t i = 0; i < modules->count; i++) {
		CLEANUP(free_p) char *path = NULL;

		source = module_source(job, index, modules->items[i]);
		path = git_mirror_path(&source);
		buffer_addf(&names, "%s\n", strrchr(path, '/') + 1);
	}
	return names.length == 0
		       ? 0
		       : io_write_file(AT_FDCWD, file, names.data, names.length, 0600, err);
}

int job_modules_find(struct job *job, size_t index, struct error *err)
{
	struct job_source *source = &job->sources[index];
	int status;

	if (source->modules.known || !job_has_modules(job, index)) {
		return 0;
	}
	status = find_all(job, index, &source->modules, err);
	if (status == 0) {
		status = note_mirrors(job, index, err);
	}
	if (status < 0) {
		job_modules_done(&source->modules);
		return status;
	}
	source->modules.known = true;
	return 0;
}

int job_modules_refetch(struct job *job, size_t index, struct error *err)
{
	struct job_source *source = &job->sources[index];
	int status = 0;

	for (size_t i = 0; status == 0 && i < source->modules.count; i++) {
		struct git_source module = module_source(job, index, source->modules.items[i]);

		status = git_mirror_drop(&module, err);
	}
	job_modules_done(&source->modules);
	return status;
}

/* ---- writing them ---- */

/* The commit that the full checkout has of it, as its HEAD says. */
static bool read_full_commit(
	const struct job *job, const struct layer *full, const char *path, char *commit)
{
	CLEANUP(free_p) char *head = xasprintf("%s/.git/HEAD", path);
	CLEANUP(close_p) int fd = job_open_in_layer(job, full, head, O_RDONLY);
	char text[64] = "";
	ssize_t got = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	if (got <= 0) {
		return false;
	}
	text[strcspn(text, "\n")] = '\0';
	snprintf(commit, COMMIT_TEXT_SIZE, "%s", text);
	return strlen(text) == 40 && strspn(text, "0123456789abcdef") == 40;
}

static int write_delta(struct job *job, const struct git_source *source,
	const struct job_module *module, const struct layer *full, const struct git_place *place,
	struct git_delta *delta, struct error *err)
{
	CLEANUP(close_p)
	int full_fd = job_open_in_layer(job, full, place->path, O_RDONLY | O_DIRECTORY);
	char commit[COMMIT_TEXT_SIZE];
	int status;

	if (full_fd < 0 || !read_full_commit(job, full, place->path, commit)) {
		delta->whole = true;
		snprintf(delta->why, sizeof(delta->why), "a submodule is new");
		return 0;
	}
	if (streq(commit, module->found.commit)) {
		return 0;
	}
	status = git_write_delta(
		job->machine, source, &module->found, commit, full_fd, place, delta, err);
	if (status == -ERROR_CORRUPT) {
		report_line(job->machine->report, "%s", err->message);
		*err = (struct error)ERROR_INIT;
		delta->whole = true;
		snprintf(delta->why, sizeof(delta->why), "a submodule's history is another");
		status = 0;
	}
	return status;
}

static int write_module(struct job *job, size_t index, const struct job_module *module,
	const struct job_modules_place *to, struct git_delta *delta, struct error *err)
{
	CLEANUP(free_p)
	char *path = xasprintf("%s/%s", job->environment->sources[index].path, module->path);
	CLEANUP(close_p) int previous = job_open_index_before(job, index, module->path);
	struct git_source source = module_source(job, index, module);
	struct git_place place = {.tree_fd = to->tree_fd,
		.path = path,
		.previous_fd = previous,
		.after_ms = job->has_head ? job->head.created_ms : 0,
		.modules = is_recursive(job, index) ? &module->inner : NULL,
		.any_size = true};

	if (to->full != NULL) {
		return write_delta(job, &source, module, to->full, &place, delta, err);
	}
	return git_checkout(job->machine, &source, &module->found, &place, &delta->counts, err);
}

int job_modules_write(struct job *job, size_t index, const struct job_modules_place *to,
	struct git_delta *delta, struct error *err)
{
	const struct job_modules *modules = &job->sources[index].modules;

	for (size_t i = 0; i < modules->count && !delta->whole; i++) {
		struct git_delta one = {0};

		if (write_module(job, index, modules->items[i], to, &one, err) < 0) {
			return error_wrap(err, "submodule %s", modules->items[i]->path);
		}
		delta->whole = one.whole;
		memcpy(delta->why, one.why, sizeof(delta->why));
		delta->counts.lfs += one.counts.lfs;
		delta->counts.submodules += one.counts.submodules;
		if (one.counts.files > 0 && !one.whole) {
			report_line(job->machine->report, "submodule %s at %.12s: %llu files",
				modules->items[i]->path, modules->items[i]->found.commit,
				(unsigned long long)one.counts.files);
		}
	}
	return 0;
}

int job_modules_inputs(
	struct job *job, size_t index, char *const *patterns, int tree_fd, struct error *err)
{
	const struct job_modules *modules = &job->sources[index].modules;
	int status = job_modules_find(job, index, err);

	for (size_t i = 0; status == 0 && i < modules->count; i++) {
		const struct job_module *module = modules->items[i];
		CLEANUP(free_p)
		char *path =
			xasprintf("%s/%s", job->environment->sources[index].path, module->path);
		CLEANUP(free_p) char *below = xasprintf("%s/", module->path);
		CLEANUP(close_p) int written = job_open_index(job, index, module->path);
		struct git_source source = module_source(job, index, module);
		struct git_place place = {.tree_fd = tree_fd, .path = path, .previous_fd = written};
		uint64_t files = 0;

		if (glob_list_reaches(patterns, module->path)) {
			status = git_write_inputs(job->machine, &source, &module->found, patterns,
				below, &place, &files, err);
		}
	}
	return status;
}
