/*
 * Sources of a build as layers: a full checkout, found again by commit and path, and over it at
 * most one delta, always against that full checkout, so that an image's depth does not grow with
 * the number of its builds. Which full checkout is meant is told by the image before; when the
 * delta would be large, the next one is made.
 */
#include "builder/job_private.h"

#include "base/digest.h"
#include "base/io.h"
#include "base/json.h"
#include "builder/report.h"
#include "configs/environment.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* A change of how a workspace is written makes new layers. */
#define SOURCE_VERSION "1"
#define DELTA_VERSION "1"

static void checkout_key(const struct job *job, size_t index, const char *commit, char *key)
{
	const struct environment_source *source = &job->environment->sources[index];
	const struct git_found *found = &job->sources[index].found;
	CLEANUP(free_p)
	char *text = xasprintf("source %s\n%s\n%s%s\n%s\n%s\nowner %u\nsubmodules %s",
		SOURCE_VERSION, source->url, found->ref, found->is_head ? " head" : "", commit,
		source->path, (unsigned)geteuid(), source->submodules);

	digest_of(text, strlen(text), key);
}

static void delta_key(
	const struct job *job, size_t index, const char *full, const char *commit, char *key)
{
	char below[SHA256_TEXT_SIZE], above[SHA256_TEXT_SIZE];
	CLEANUP(free_p) char *text = NULL;

	checkout_key(job, index, full, below);
	checkout_key(job, index, commit, above);
	text = xasprintf("delta %s\n%s\n%s", DELTA_VERSION, below, above);
	digest_of(text, strlen(text), key);
}

/* ---- the image before ---- */

/* The source's commit in the image before, and that of its full checkout. */
bool job_source_before(const struct job *job, size_t index, char *commit, char *checkout)
{
	const struct environment_source *source = &job->environment->sources[index];
	struct error ignored = ERROR_INIT;
	const json_t *entry;
	json_t *manifest = NULL;
	bool found = false;
	size_t i;

	if (!job->has_head || job->head.manifest == NULL ||
		json_parse_object(
			job->head.manifest, strlen(job->head.manifest), &manifest, &ignored) < 0) {
		return false;
	}
	json_array_foreach (json_object_get(manifest, "sources"), i, entry) {
		const char *path = json_string_value(json_object_get(entry, "path"));
		const char *was = json_string_value(json_object_get(entry, "commit"));
		const char *full = json_string_value(json_object_get(entry, "checkout"));

		if (path != NULL && was != NULL && streq(path, source->path)) {
			snprintf(commit, COMMIT_TEXT_SIZE, "%s", was);
			snprintf(checkout, COMMIT_TEXT_SIZE, "%s", full != NULL ? full : was);
			found = true;
		}
	}
	json_decref(manifest);
	return found;
}

int job_open_in_layer(const struct job *job, const struct layer *layer, const char *path, int flags)
{
	struct error ignored = ERROR_INIT;
	CLEANUP(free_p)
	char *below = xasprintf("layers/%lld/tree%s", (long long)layer->id, path);
	int fd = io_open_beneath(store_fd(job->machine->store), below, flags, 0, &ignored);

	return fd < 0 ? -1 : fd;
}

static int open_index_in(
	const struct job *job, const struct layer *layer, size_t index, const char *module)
{
	CLEANUP(free_p)
	char *path = xasprintf("%s/%s%s.git/index", job->environment->sources[index].path, module,
		module[0] != '\0' ? "/" : "");

	return job_open_in_layer(job, layer, path, O_RDONLY);
}

/* For the times of files that did not change. A delta has the index of no submodule that is as the
 * full checkout has it. */
int job_open_index_before(const struct job *job, size_t index, const char *module)
{
	char commit[COMMIT_TEXT_SIZE], full[COMMIT_TEXT_SIZE], key[SHA256_TEXT_SIZE];
	struct error ignored = ERROR_INIT;
	struct layer layer;
	int fd = -1;

	if (!job_source_before(job, index, commit, full)) {
		return -1;
	}
	if (!streq(commit, full)) {
		delta_key(job, index, full, commit, key);
		fd = layer_find(job->machine->store, key, &layer, &ignored) == 0
			     ? open_index_in(job, &layer, index, module)
			     : -1;
	}
	if (fd >= 0 || (!streq(commit, full) && module[0] == '\0')) {
		return fd;
	}
	checkout_key(job, index, full, key);
	return layer_find(job->machine->store, key, &layer, &ignored) == 0
		       ? open_index_in(job, &layer, index, module)
		       : -1;
}

int job_open_index(const struct job *job, size_t index, const char *module)
{
	const struct job_source *source = &job->sources[index];
	int fd = -1;

	for (size_t i = source->layer_count; fd < 0 && i > 0; i--) {
		fd = open_index_in(job, &source->layers[i - 1], index, module);
	}
	return fd;
}

/* ---- making them ---- */

static void report_counts(struct job *job, const struct git_checked_out *counts)
{
	if (counts->submodules > 0) {
		report_line(job->machine->report, "%llu submodules are not fetched",
			(unsigned long long)counts->submodules);
	}
	if (counts->lfs > 0) {
		report_line(job->machine->report, "%llu large files (LFS) are left as pointers",
			(unsigned long long)counts->lfs);
	}
}

static int make_tree(struct staging *staging, struct error *err)
{
	if (mkdirat(staging_fd(staging), "tree", 0755) < 0) {
		return error_sys(err, errno, "make the tree of a layer");
	}
	return io_open(staging_fd(staging), "tree", O_RDONLY | O_DIRECTORY, 0, err);
}

/* What one attempt to write a layer needs. */
struct making {
	struct job *job;
	size_t index;
	struct layer *layer;
	int previous_fd; /* index of the image before */
	const char *full; /* NULL: a full checkout; else a delta over that commit's */
	const struct layer *full_layer;
	int full_fd;
	bool whole; /* result: it should be a full checkout */
};

static int write_source(struct making *making, struct staging *staging, struct error *err)
{
	struct job *job = making->job;
	const struct git_found *found = &job->sources[making->index].found;
	CLEANUP(free_p) char *path = NULL;
	struct git_source source = job_git_source(job, making->index, &path);
	CLEANUP(close_p) int tree = make_tree(staging, err);
	struct git_place place = {.tree_fd = tree,
		.path = job->environment->sources[making->index].path,
		.previous_fd = making->previous_fd,
		.after_ms = job->has_head ? job->head.created_ms : 0};
	struct job_modules_place modules = {tree, making->full_layer};
	struct git_delta delta = {0};
	int status;

	if (tree < 0) {
		return tree;
	}
	if (job_modules_find(job, making->index, err) < 0) {
		return -(int)err->kind;
	}
	place.modules = job_has_modules(job, making->index)
				? &job->sources[making->index].modules.top
				: NULL;
	if (making->full == NULL) {
		status = git_checkout(job->machine, &source, found, &place, &delta.counts, err);
	} else {
		status = git_write_delta(job->machine, &source, found, making->full,
			making->full_fd, &place, &delta, err);
	}
	if (status == 0 && !delta.whole) {
		status = job_modules_write(job, making->index, &modules, &delta, err);
	}
	if (status == 0 && delta.whole) {
		making->whole = true;
		report_line(job->machine->report, "%s: a new full checkout", delta.why);
	} else if (status == 0) {
		report_counts(job, &delta.counts);
	}
	return status;
}

static int make_layer(struct making *making, struct error *err)
{
	struct store *store = making->job->machine->store;
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	int status = staging_new(store, &staging, err);

	if (status == 0) {
		status = write_source(making, staging, err);
	}
	if (status < 0 || making->whole) {
		return status;
	}
	status = job_fault("build.checked_out", err);
	if (status == 0) {
		status = layer_seal(store, staging, making->layer, err);
	}
	return status < 0 ? status : layer_keep(store, making->layer->id, err);
}

/* Once more with a fresh mirror when this one lacks something. */
static int make_layer_healing(struct making *making, struct error *err)
{
	int status = make_layer(making, err);

	if (status != -ERROR_CORRUPT) {
		return status;
	}
	report_line(making->job->machine->report, "%s: fetching it anew", err->message);
	status = job_refetch(making->job, making->index, err);
	return status < 0 ? status : make_layer(making, err);
}

static void add_source_layer(struct job_source *source, const struct layer *layer)
{
	source->layers[source->layer_count++] = *layer;
}

static int make_full(struct job *job, size_t index, int previous_fd, struct error *err)
{
	struct job_source *source = &job->sources[index];
	struct layer layer = {.kind = "source", .id_base = geteuid(), .id_count = 1};
	struct making making = {
		.job = job, .index = index, .layer = &layer, .previous_fd = previous_fd};
	int status;

	checkout_key(job, index, source->found.commit, layer.step_key);
	snprintf(layer.title, sizeof(layer.title), "%.60s@%.12s", job->environment->name,
		source->found.commit);
	status = make_layer_healing(&making, err);
	if (status == 0) {
		snprintf(source->checkout, sizeof(source->checkout), "%s", source->found.commit);
		add_source_layer(source, &layer);
		job->made++;
		report_stage_end(job->machine->report, "layer %lld, %llu files",
			(long long)layer.id, (unsigned long long)layer.files);
	}
	return status;
}

/* Over `full`, whose commit is source->checkout. *ret_whole: it is not worth it. */
static int make_delta(struct job *job, size_t index, const struct layer *full, int previous_fd,
	bool *ret_whole, struct error *err)
{
	struct job_source *source = &job->sources[index];
	struct layer layer = {.kind = "delta", .id_base = geteuid(), .id_count = 1};
	CLEANUP(close_p)
	int full_fd = job_open_in_layer(
		job, full, job->environment->sources[index].path, O_RDONLY | O_DIRECTORY);
	struct making making = {.job = job,
		.index = index,
		.layer = &layer,
		.previous_fd = previous_fd,
		.full = source->checkout,
		.full_layer = full,
		.full_fd = full_fd};
	int status;

	if (full_fd < 0) {
		*ret_whole = true;
		return 0;
	}
	delta_key(job, index, source->checkout, source->found.commit, layer.step_key);
	snprintf(layer.title, sizeof(layer.title), "%.40s@%.12s over %.12s", job->environment->name,
		source->found.commit, source->checkout);
	status = make_layer_healing(&making, err);
	*ret_whole = making.whole;
	if (status == 0 && !making.whole) {
		add_source_layer(source, full);
		add_source_layer(source, &layer);
		job->made++;
		job->reused++;
		report_stage_end(job->machine->report, "layer %lld, %llu files over layer %lld",
			(long long)layer.id, (unsigned long long)layer.files, (long long)full->id);
	}
	return status;
}

/* ---- finding them ---- */

static bool find_layer(const struct job *job, const char *key, struct layer *ret_layer)
{
	struct error ignored = ERROR_INIT;

	return layer_find(job->machine->store, key, ret_layer, &ignored) == 0;
}

static bool find_full(struct job *job, size_t index, const char *commit, struct layer *ret_layer)
{
	char key[SHA256_TEXT_SIZE];

	checkout_key(job, index, commit, key);
	return find_layer(job, key, ret_layer);
}

/* The commit as it is already: a full checkout of its own, or the delta over the one before. */
bool job_find_source(struct job *job, size_t index)
{
	struct job_source *source = &job->sources[index];
	const char *commit = source->found.commit;
	char before[COMMIT_TEXT_SIZE] = "", full_commit[COMMIT_TEXT_SIZE] = "";
	struct layer full, delta;
	char key[SHA256_TEXT_SIZE];

	if (job->clean) {
		return false;
	}
	if (find_full(job, index, commit, &full)) {
		snprintf(source->checkout, sizeof(source->checkout), "%s", commit);
		add_source_layer(source, &full);
		return true;
	}
	if (!job_source_before(job, index, before, full_commit) ||
		!find_full(job, index, full_commit, &full)) {
		return false;
	}
	delta_key(job, index, full_commit, commit, key);
	if (!find_layer(job, key, &delta)) {
		return false;
	}
	snprintf(source->checkout, sizeof(source->checkout), "%s", full_commit);
	add_source_layer(source, &full);
	add_source_layer(source, &delta);
	return true;
}

static int source_layers(struct job *job, size_t index, struct error *err)
{
	struct job_source *source = &job->sources[index];
	char before[COMMIT_TEXT_SIZE] = "", full_commit[COMMIT_TEXT_SIZE] = "";
	bool known = job_source_before(job, index, before, full_commit), whole = true;
	CLEANUP(close_p) int previous_fd = -1;
	struct layer full;
	int status = 0;

	if (job_find_source(job, index)) {
		report_stage_end(job->machine->report, "layer %lld, as before",
			(long long)source->layers[source->layer_count - 1].id);
		job->reused += source->layer_count;
		return 0;
	}
	if (known) {
		previous_fd = job_open_index_before(job, index, "");
	}
	if (known && !job->clean && find_full(job, index, full_commit, &full)) {
		snprintf(source->checkout, sizeof(source->checkout), "%s", full_commit);
		status = make_delta(job, index, &full, previous_fd, &whole, err);
	}
	return status < 0 || !whole ? status : make_full(job, index, previous_fd, err);
}

static int add_source(struct job *job, size_t index, struct error *err)
{
	struct job_source *source = &job->sources[index];
	int status = 0;

	report_stage(job->machine->report, "source", "%s at %.12s",
		job->environment->sources[index].path, source->found.commit);
	if (source_layers(job, index, err) < 0) {
		return error_wrap(err, "source %s", job->environment->sources[index].path);
	}
	for (size_t i = 0; status == 0 && i < source->layer_count; i++) {
		status = job_add_layer(job, &source->layers[i], err);
	}
	return status;
}

int job_sources(struct job *job, struct error *err)
{
	job->first_source = job->layer_count;
	for (size_t i = 0; i < job->environment->source_count; i++) {
		if (add_source(job, i, err) < 0) {
			return -(int)err->kind;
		}
	}
	return job_fault("build.sources", err);
}
