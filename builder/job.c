/*
 * The order of a build and its end. Invariant: a build that was begun is ended in the catalog, by
 * image_commit or by build_end, unless the process is killed; then the next start says so.
 */
#include "builder/job_private.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "builder/base.h"
#include "builder/bases/oci.h"
#include "builder/local.h"
#include "builder/lock.h"
#include "builder/report.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "configs/free_space.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <xxhash.h>

int job_fault(const char *name, struct error *err)
{
	int sys = fault_point(name);

	return sys != 0 ? error_sys(err, sys, "fault point %s", name) : 0;
}

int job_add_layer(struct job *job, const struct layer *layer, struct error *err)
{
	if (job->layer_count >= IMAGE_LAYERS_MAX) {
		error_set(err, ERROR_LIMIT, "more than %d layers", IMAGE_LAYERS_MAX);
		return error_hint(err, "join some of the steps");
	}
	job->layers[job->layer_count++] = *layer;
	return 0;
}

/* Everything that shapes the image: equal to the head's means that there is nothing to do. */
static int make_fingerprint(struct job *job, struct error *err)
{
	struct digest *digest;

	if (oci_base_check(job->machine, job->environment, err) < 0 ||
		base_key(job->environment, job->base_key, err) < 0 ||
		job_packages_keys(job, err) < 0) {
		return -(int)err->kind;
	}
	digest = digest_new();
	digest_add_str(digest, job->environment->fingerprint);
	digest_add_str(digest, job->below_key);
	for (size_t i = 0; i < job->environment->source_count; i++) {
		digest_add_str(digest, job->sources[i].found.ref);
		digest_add_str(digest, job->sources[i].found.commit);
	}
	digest_end(digest, job->fingerprint);
	digest_free(digest);
	return 0;
}

/* Is it time for a build from nothing? */
static void compare_with_clock(struct job *job)
{
	int64_t every_ms = job->environment->clean_every_ms;
	struct error ignored = ERROR_INIT;
	json_t *manifest = NULL;
	int64_t last_ms = job->head.created_ms;

	if (json_parse_object(
		    job->head.manifest, strlen(job->head.manifest), &manifest, &ignored) == 0) {
		const json_t *value = json_object_get(manifest, "clean_ms");

		last_ms = json_is_integer(value) ? json_integer_value(value) : last_ms;
		json_decref(manifest);
	}
	if (every_ms > 0 && clock_real_ms() - last_ms >= every_ms) {
		job->clean = true;
		report_line(job->machine->report,
			"schedule.clean_every has passed: everything is made from nothing");
	}
	if (!job->clean) {
		job->clean_ms = last_ms;
	}
}

static int compare_with_head(struct job *job, struct error *err)
{
	int status = image_head(job->machine->store, job->environment->name, &job->head, err);

	if (status == -ERROR_NOT_FOUND) {
		return 0;
	}
	if (status < 0) {
		return status;
	}
	job->has_head = true;
	compare_with_clock(job);
	job->unchanged = streq(job->head.fingerprint, job->fingerprint) && !job->options.force &&
			 !job->clean;
	if (job->unchanged) {
		job->image_id = job->head.id;
	}
	return 0;
}

/* ---- what is not tried again ---- */

#define RETRY_FIRST_MS (INT64_C(20) * 60 * 1000)
#define RETRY_MAX_MS (INT64_C(24) * 60 * 60 * 1000)

int64_t job_retry_ms(int64_t count)
{
	int64_t ms = RETRY_FIRST_MS;

	for (int64_t i = 1; i < count && ms < RETRY_MAX_MS; i++) {
		ms *= 2;
	}
	return ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS;
}

static int compare_with_failures(struct job *job, struct error *err)
{
	struct build_failures failures = {0};
	char again[CLOCK_TEXT_SIZE];
	int64_t again_ms;
	int status;

	if (!job->options.scheduled || job->options.force) {
		return 0;
	}
	status = build_failures(
		job->machine->store, job->environment->name, job->fingerprint, &failures, err);
	if (status < 0 || failures.count == 0) {
		return status;
	}
	again_ms = failures.last_ms + job_retry_ms(failures.count);
	if (again_ms > clock_real_ms()) {
		clock_format(again, again_ms);
		job->unchanged = true;
		job->unchanged_why =
			xasprintf("nothing has changed since bld-%lld failed; tried again after %s",
				(long long)failures.last_id, again);
	}
	return 0;
}

static int compare_with_refused(struct job *job, struct error *err)
{
	char refused[65];
	int status = image_refused(job->machine->store, job->environment->name, refused, err);

	if (status == 0 && streq(refused, job->fingerprint) && !job->options.force) {
		job->unchanged = true;
		job->unchanged_why = xstrdup("nothing has changed since its image was rolled "
					     "back; --force builds it all the same");
	}
	return status;
}

/* Sets job->unchanged when there is nothing to do. */
static int compare(struct job *job, struct error *err)
{
	int status = compare_with_head(job, err);

	if (status == 0 && !job->unchanged) {
		status = compare_with_refused(job, err);
	}
	if (status == 0 && !job->unchanged) {
		status = compare_with_failures(job, err);
	}
	return status;
}

/* ---- news while it runs ---- */

/* hobd leaves the commit that has been pushed in a note, and says so by SIGUSR1. Is it none of
 * those that this build has fetched? */
static bool is_superseded(void *context)
{
	const struct job *job = context;
	CLEANUP(free_p) char *path = xasprintf("builds/%s.news", job->environment->name);
	CLEANUP(close_p) int fd = -1;
	char commit[COMMIT_TEXT_SIZE] = "";
	struct error ignored = ERROR_INIT;
	ssize_t got;

	if (job->build.commit[0] == '\0') {
		return false; /* it has still to fetch, and will find it */
	}
	fd = io_open(store_fd(job->machine->store), path, O_RDONLY | O_NOFOLLOW, 0, &ignored);
	got = fd >= 0 ? read(fd, commit, sizeof(commit) - 1) : -1;
	commit[got > 0 ? got : 0] = '\0';
	for (size_t i = 0; i < job->environment->source_count; i++) {
		if (streq(job->sources[i].found.commit, commit)) {
			return false;
		}
	}
	return commit[0] != '\0';
}

static int base_fd(const struct job *job, int *ret_fd, struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	const struct local_file *file;

	*ret_fd = -1;
	if (job->environment->base != BASE_TAR && job->environment->base != BASE_OCI) {
		return 0;
	}
	path = git_url_path(job->environment->base_location);
	file = path != NULL ? local_find(job->files, path) : NULL;
	if (path != NULL && (file == NULL || file->fd < 0)) {
		if (file == NULL) {
			return error_set(
				err, ERROR_INTERNAL, "the archive %s was not opened", path);
		}
		error_copy(err, &file->error);
		return error_wrap(err, "base %s", base_kind_name(job->environment->base));
	}
	*ret_fd = file != NULL ? file->fd : -1;
	return 0;
}

/* The mount points, the image's layers, and what the image says of how it is run. */
static int add_oci(struct job *job, int fd, struct error *err)
{
	struct oci_base *base = xcalloc(1, sizeof(*base));
	struct layer skeleton = {0};
	int status = base_skeleton(job->machine, &job->range, &skeleton, err);

	if (status == 0) {
		status = job_add_layer(job, &skeleton, err);
	}
	if (status == 0) {
		status = oci_base_prepare(
			job->machine, job->environment, fd, &job->range, base, err);
	}
	for (size_t i = 0; status == 0 && i < base->layer_count; i++) {
		status = job_add_layer(job, &base->layers[i], err);
	}
	if (status == 0) {
		/* Some are made twice: alone, and then in one with those below. */
		size_t made = base->made < base->layer_count ? base->made : base->layer_count;

		job->made += made;
		job->reused += base->layer_count - made;
		oci_defaults(&base->image, job->environment, &job->own);
		job->environment = &job->own;
	}
	free(base);
	return status;
}

static int make_base(struct job *job, struct error *err)
{
	struct layer layer = {0};
	int fd = -1, status = base_fd(job, &fd, err);

	if (status == 0 && job->environment->base == BASE_OCI) {
		status = add_oci(job, fd, err);
		return status < 0 ? status : job_fault("build.base", err);
	}
	if (status == 0) {
		status = base_prepare(job->machine, job->environment, job->base_key, fd,
			&job->range, &layer, err);
	}
	if (status == 0 && job->environment->base == BASE_DEB) {
		CLEANUP(json_decref_p) json_t *list = installed_read(job->machine->store, &layer);

		json_array_extend(job->installed, list);
	}
	if (status == 0) {
		*(layer.created_ms < job->build.started_ms ? &job->reused : &job->made) += 1;
		status = job_add_layer(job, &layer, err);
	}
	return status < 0 ? status : job_fault("build.base", err);
}

static json_t *files_json(const struct environment *environment)
{
	json_t *list = json_array();

	for (size_t i = 0; i < environment->file_count; i++) {
		const struct environment_file *file = &environment->files[i];
		json_t *one = json_object();

		json_object_set_new(one, "url", json_str_or_null(file->url));
		json_object_set_new(one, "digest", json_str_or_null(file->sha256));
		json_object_set_new(one, "path",
			json_str_or_null(file->path != NULL ? file->path : file->unpack));
		json_object_set_new(one, "unpacked", json_boolean(file->unpack != NULL));
		json_array_append_new(list, one);
	}
	return list;
}

/* How a sandbox of the image starts; pool reads it. */
static char *make_manifest(const struct job *job)
{
	const struct environment *environment = job->environment;
	json_t *json = json_object(), *variables = json_object(), *sources = json_array();
	char *text;

	for (size_t i = 0; environment->env[i] != NULL; i++) {
		size_t length = strcspn(environment->env[i], "=");

		json_object_setn_new(variables, environment->env[i], length,
			json_string(environment->env[i] + length + 1));
	}
	for (size_t i = 0; i < environment->source_count; i++) {
		CLEANUP(free_p) char *url = git_url_public(environment->sources[i].url);
		json_t *source = json_object();

		json_object_set_new(source, "url", json_string(url));
		json_object_set_new(source, "ref", json_string(job->sources[i].found.ref));
		json_object_set_new(source, "commit", json_string(job->sources[i].found.commit));
		json_object_set_new(source, "checkout", json_string(job->sources[i].checkout));
		json_object_set_new(source, "path", json_string(environment->sources[i].path));
		json_array_append_new(sources, source);
	}
	json_object_set_new(json, "env", variables);
	json_object_set_new(json, "user", json_string(environment->user));
	json_object_set_new(json, "workdir", json_string(environment->workdir));
	json_object_set_new(json, "sources", sources);
	json_object_set(json, "packages", job->installed);
	json_object_set_new(json, "files", files_json(environment));
	json_object_set_new(json, "clean_ms", json_integer(job->clean_ms));
	text = json_text(json);
	json_decref(json);
	return text;
}

static void prune(struct job *job)
{
	struct error err = ERROR_INIT;
	uint64_t images = 0, freed = 0;

	if (images_prune(job->machine->store, job->environment->name, IMAGES_KEEP, &images, &freed,
		    &err) < 0 ||
		builds_prune(job->machine->store, job->environment->name, BUILDS_KEEP, &err) < 0) {
		report_line(
			job->machine->report, "older images could not be removed: %s", err.message);
	} else if (images > 0) {
		report_line(job->machine->report, "removed %llu older images, %llu KiB",
			(unsigned long long)images, (unsigned long long)freed / 1024);
	}
}

static int publish(struct job *job, struct error *err)
{
	CLEANUP(free_p) char *manifest = make_manifest(job);
	CLEANUP(free_p)
	char *note = xasprintf("%zu layers made, %zu reused", job->made, job->reused);
	struct image image = {.note = note,
		.manifest = manifest,
		.layers = job->layers,
		.layer_count = job->layer_count};
	int status;

	report_stage(job->machine->report, "publish", "%zu layers", job->layer_count);
	snprintf(image.environment, sizeof(image.environment), "%s", job->environment->name);
	snprintf(image.commit, sizeof(image.commit), "%s", job->build.commit);
	snprintf(image.fingerprint, sizeof(image.fingerprint), "%s", job->fingerprint);
	status = image_commit(job->machine->store, &image, job->build.id, err);
	if (status < 0) {
		return error_wrap(err, "publish");
	}
	job->image_id = image.id;
	job->published_us = clock_mono_us();
	report_stage_end(
		job->machine->report, "img-%lld is the head, %s", (long long)image.id, note);
	prune(job); /* what it takes is nobody's wait */
	return 0;
}

int job_look(struct job *job, struct error *err)
{
	int status = job_fetch(job, err);

	if (status == 0) {
		status = make_fingerprint(job, err);
	}
	return status < 0 ? status : compare(job, err);
}

static int build_image(struct job *job, struct error *err)
{
	int status = job_look(job, err);

	if (status < 0 || job->unchanged) {
		return status;
	}
	job->machine->no_cache = job->clean;
	job->installed = json_array();
	status = make_base(job, err);
	if (status == 0) {
		status = job_packages(job, err);
	}
	if (status == 0) {
		status = job_sources(job, err);
	}
	if (status == 0) {
		status = job_steps(job, err);
	}
	if (status == 0) {
		status = job_check(job, err);
	}
	return status < 0 ? status : publish(job, err);
}

static int begin(struct job *job, struct error *err)
{
	struct store *store = job->machine->store;
	int status = build_lock(store_fd(store), job->environment->name, &job->lock_fd, err);

	if (status == 0) {
		status = build_begin(store, job->environment->name, &job->build, &job->log_fd, err);
	}
	if (status < 0) {
		return status;
	}
	job->begun = true;
	build_lock_note(job->lock_fd, job->build.id);
	report_begin(job->machine->report, job->environment->name, job->build.id, job->log_fd);
	return job_fault("build.begun", err);
}

static enum build_state end_state(const struct job *job, int status)
{
	if (status == -ERROR_CANCELLED && job->machine->cancelled == SIGUSR1) {
		return BUILD_SUPERSEDED;
	}
	return status < 0 ? BUILD_FAILED : job->unchanged ? BUILD_UNCHANGED : BUILD_PUBLISHED;
}

/* Records how it ended, unless image_commit did. */
static void record_end(struct job *job, int status, const struct error *err)
{
	struct error ending = ERROR_INIT;

	if (!job->begun || (status == 0 && !job->unchanged)) {
		return;
	}
	/* Somebody's wish to stop says nothing of what it would have made. */
	if (status < 0 && status != -ERROR_CANCELLED) {
		snprintf(job->build.fingerprint, sizeof(job->build.fingerprint), "%s",
			job->fingerprint);
	}
	if (build_end(job->machine->store, &job->build, end_state(job, status),
		    status < 0 ? err->message : job->unchanged_why, &ending) < 0) {
		log_failure("build.not_recorded", &ending, "environment", job->environment->name);
	}
}

static void report_end(struct job *job, int status, int64_t took_us, const struct error *err)
{
	struct report_result result = {.environment = job->environment->name,
		.build_id = job->build.id,
		.commit = job->build.commit,
		.image_id = status == 0 ? job->image_id : 0,
		.took_us = took_us,
		.error = status < 0 ? err : NULL};

	result.state = status == -ERROR_BUSY && !job->begun
			       ? "busy"
			       : build_state_name(end_state(job, status));
	report_result(job->machine->report, &result);
}

void job_free(struct job *job)
{
	step_secrets_done(&job->secrets);
	range_done(&job->range);
	fd_done(&job->log_fd);
	fd_done(&job->lock_fd);
	build_done(&job->build);
	job_changes_done(job);
	json_decref(job->installed);
	free(job->steps);
	for (size_t i = 0; job->sources != NULL && i < job->environment->source_count; i++) {
		job_modules_done(&job->sources[i].modules);
	}
	free(job->sources);
	oci_defaults_done(&job->own);
	image_done(&job->head);
	free(job->mirrors);
	free(job->unchanged_why);
	free(job);
}

/* First of all: a build that runs out of space takes it from everybody else. */
static int check_space(const struct machine *machine, struct error *err)
{
	struct free_space space = {0};
	int status = free_space_look(
		store_path(machine->store), machine->config->free_space, &space, err);

	return status < 0 ? status : free_space_check(&space, err);
}

struct job *job_new(struct machine *machine, const struct environment *environment,
	const struct local_files *files, const struct job_options *options)
{
	struct job *job = xcalloc(1, sizeof(*job));

	*job = (struct job){.machine = machine,
		.environment = environment,
		.files = files,
		.options = *options,
		.clean = options->no_cache,
		.clean_ms = clock_real_ms(),
		.mirrors = xasprintf("%s/mirrors", store_path(machine->store)),
		.lock_fd = -1,
		.log_fd = -1,
		.range = RANGE_INIT(machine)};
	job->range.preference = (uint32_t)XXH3_64bits(environment->name, strlen(environment->name));
	return job;
}

int job_run(struct machine *machine, const struct environment *environment,
	const struct local_files *files, const struct job_options *options, struct error *err)
{
	struct job *job = job_new(machine, environment, files, options);
	int64_t start_us = clock_mono_us();
	int status;

	machine->deadline_ms = environment->build_timeout_ms > 0
				       ? clock_mono_ms() + environment->build_timeout_ms
				       : 0;
	machine->superseded = is_superseded;
	machine->superseded_context = job;
	store_set_usage(machine->store, range_usage, &job->range);
	status = begin(job, err);
	if (status == 0) {
		status = check_space(machine, err);
	}
	if (status == 0) {
		status = build_image(job, err);
	}
	machine->deadline_ms = 0;
	machine->no_cache = false;
	record_end(job, status, err);
	report_end(job, status,
		(job->published_us != 0 ? job->published_us : clock_mono_us()) - start_us, err);
	store_set_usage(machine->store, NULL, NULL);
	machine->superseded = NULL;
	if (machine->cancelled == SIGUSR1) {
		machine->cancelled = 0; /* the other environments go on */
	}
	job_free(job);
	return status;
}
