/*
 * Sources of a build: fetched and resolved first, all of them, because the commits decide whether
 * there is anything to do; then one layer each, found again by commit and path.
 */
#include "builder/job_private.h"

#include "base/digest.h"
#include "base/fault.h"
#include "base/io.h"
#include "builder/local.h"
#include "builder/report.h"
#include "configs/environment.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define STALL_MS 60000 /* a server that sends nothing for a minute has gone */
/* A change of how a workspace is written makes new layers. */
#define SOURCE_VERSION "1"

/* As git.h wants it; *ret_path holds the text that it points to. */
static struct git_source source_of(const struct job *job, size_t index, char **ret_path)
{
	const struct environment_source *from = &job->environment->sources[index];
	const struct local_file *file;
	int64_t limit = job->environment->build_timeout_ms;
	struct git_source source = {.url = from->url,
		.ref = from->ref,
		.mirrors = job->mirrors,
		.stall_ms = limit > 0 && limit < STALL_MS ? limit : STALL_MS};

	*ret_path = git_url_path(from->url);
	if (*ret_path != NULL) {
		file = local_find(job->files, *ret_path);
		source.local = file != NULL && file->mapped != NULL ? file->mapped : *ret_path;
	}
	return source;
}

static int fetch_one(struct job *job, size_t index, struct error *err)
{
	struct git_found *found = &job->found[index];
	CLEANUP(free_p) char *path = NULL;
	CLEANUP(free_p) char *url = git_url_public(job->environment->sources[index].url);
	struct git_source source = source_of(job, index, &path);
	int status;

	report_stage(job->machine->report, "fetch", "%s", url);
	status = git_fetch(job->machine, &source, found, err);
	if (status < 0) {
		return error_wrap(err, "source %s", url);
	}
	report_stage_end(job->machine->report, "%.12s%s%s%s", found->commit,
		found->ref[0] != '\0' ? " " : "", found->ref, found->fetched ? "" : ", as before");
	return 0;
}

int job_fetch(struct job *job, struct error *err)
{
	size_t count = job->environment->source_count;

	job->found = xcalloc(count, sizeof(*job->found));
	for (size_t i = 0; i < count; i++) {
		if (fetch_one(job, i, err) < 0) {
			return -(int)err->kind;
		}
	}
	if (count > 0) {
		snprintf(job->build.commit, sizeof(job->build.commit), "%s", job->found[0].commit);
	}
	return job_fault("build.fetched", err);
}

static void source_key(const struct job *job, size_t index, char *key)
{
	const struct environment_source *source = &job->environment->sources[index];
	const struct git_found *found = &job->found[index];
	CLEANUP(free_p)
	char *text = xasprintf("source %s\n%s\n%s%s\n%s\n%s\nowner %u", SOURCE_VERSION, source->url,
		found->ref, found->is_head ? " head" : "", found->commit, source->path,
		(unsigned)geteuid());

	digest_of(text, strlen(text), key);
}

static int check_out(struct job *job, size_t index, struct staging *staging,
	struct git_checked_out *counts, struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	struct git_source source = source_of(job, index, &path);
	CLEANUP(close_p) int tree = -1;

	if (mkdirat(staging_fd(staging), "tree", 0755) < 0) {
		return error_sys(err, errno, "make the tree of a layer");
	}
	tree = io_open(staging_fd(staging), "tree", O_RDONLY | O_DIRECTORY, 0, err);
	if (tree < 0) {
		return tree;
	}
	return git_checkout(job->machine, &source, &job->found[index], tree,
		job->environment->sources[index].path, counts, err);
}

static int make_layer(struct job *job, size_t index, struct layer *layer, struct error *err)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct git_checked_out counts = {0};
	int status = staging_new(job->machine->store, &staging, err);

	if (status == 0) {
		status = check_out(job, index, staging, &counts, err);
	}
	if (status < 0) {
		return status;
	}
	if (counts.submodules > 0) {
		report_line(job->machine->report, "%llu submodules are not fetched",
			(unsigned long long)counts.submodules);
	}
	if (counts.lfs > 0) {
		report_line(job->machine->report, "%llu large files (LFS) are left as pointers",
			(unsigned long long)counts.lfs);
	}
	status = job_fault("build.checked_out", err);
	if (status == 0) {
		status = layer_seal(job->machine->store, staging, layer, err);
	}
	return status < 0 ? status : layer_keep(job->machine->store, layer->id, err);
}

/* Once more with a fresh mirror when this one lacks something. */
static int make_layer_healing(struct job *job, size_t index, struct layer *layer, struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	struct git_source source;
	int status = make_layer(job, index, layer, err);

	if (status != -ERROR_CORRUPT) {
		return status;
	}
	report_line(job->machine->report, "%s: fetching it anew", err->message);
	source = source_of(job, index, &path);
	status = git_mirror_drop(&source, err);
	if (status == 0) {
		status = git_fetch(job->machine, &source, &job->found[index], err);
	}
	return status < 0 ? status : make_layer(job, index, layer, err);
}

static int source_layer(struct job *job, size_t index, struct error *err)
{
	const struct environment_source *source = &job->environment->sources[index];
	struct layer layer = {.kind = "source", .id_base = geteuid(), .id_count = 1}, found;
	int status;

	report_stage(job->machine->report, "source", "%s at %.12s", source->path,
		job->found[index].commit);
	source_key(job, index, layer.step_key);
	status = layer_find(job->machine->store, layer.step_key, &found, err);
	if (status == 0) {
		report_stage_end(
			job->machine->report, "layer %lld, as before", (long long)found.id);
		return job_add_layer(job, &found, err);
	}
	if (status != -ERROR_NOT_FOUND) {
		return status;
	}
	snprintf(layer.title, sizeof(layer.title), "%.60s@%.12s", job->environment->name,
		job->found[index].commit);
	status = make_layer_healing(job, index, &layer, err);
	if (status < 0) {
		return error_wrap(err, "source %s", source->path);
	}
	report_stage_end(job->machine->report, "layer %lld, %llu files", (long long)layer.id,
		(unsigned long long)layer.files);
	return job_add_layer(job, &layer, err);
}

int job_sources(struct job *job, struct error *err)
{
	for (size_t i = 0; i < job->environment->source_count; i++) {
		if (source_layer(job, i, err) < 0) {
			return -(int)err->kind;
		}
	}
	return job_fault("build.sources", err);
}
