/*
 * Steps of a build: one whose key has a result takes that; another runs in a sandbox over the
 * layers so far, and what it wrote becomes the next layer. A strict step's sandbox has a layer of
 * its inputs in place of the sources; an incremental step starts over its last result.
 */
#include "builder/job_private.h"

#include "base/digest.h"
#include "base/io.h"
#include "builder/report.h"
#include "builder/step.h"
#include "configs/environment.h"
#include "pool/sandbox/sandbox.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* The command's own words last: they are what explains it. */
static int command_failed(
	const struct job *job, const struct step_outcome *outcome, struct error *err)
{
	char how[64];

	if (outcome->signal != 0) {
		snprintf(how, sizeof(how), "was killed by signal %d", outcome->signal);
	} else {
		snprintf(how, sizeof(how), "exit code %d", outcome->code);
	}
	error_set(err, ERROR_FAILED, "%s%s%s", how,
		outcome->tail[0] != '\0' ? "; it said last:\n" : "", outcome->tail);
	return error_hint(err, "hob builds log bld-%lld", (long long)job->build.id);
}

/* What a step's sandbox stands on. */
struct ground {
	struct layer layers[SANDBOX_LAYERS_MAX];
	size_t count;
	struct job_result start; /* what it starts over, on top of the others; count 0: nothing */
};

static int run_step(struct job *job, const struct environment_step *step,
	const struct ground *ground, struct staging *staging, struct step_outcome *outcome,
	struct error *err)
{
	struct step_spec spec = {.environment = job->environment,
		.name = step->name,
		.run = step->run,
		.timeout_ms = step->timeout_ms,
		.network = job->environment->build_network,
		.secrets = &job->secrets,
		.secret_names = step->secrets,
		.staging = staging_name(staging),
		.layers = ground->layers,
		.layer_count = ground->count};
	int status = step_run(job->machine, &job->range, &spec, outcome, err);

	if (status == -ERROR_TIMEOUT && outcome->tail[0] != '\0') {
		struct error inner = *err;

		error_set(
			err, ERROR_TIMEOUT, "%s; it said last:\n%s", inner.message, outcome->tail);
		error_hint(err, "%s", inner.hint);
	}
	if (status == 0 && outcome->code != 0) {
		status = command_failed(job, outcome, err);
	}
	return status;
}

/* A step that may fail leaves what it wrote, as caches that are half full are still caches. */
static bool is_forgiven(const struct environment_step *step, int status)
{
	return step->allow_failure && (status == -ERROR_FAILED || status == -ERROR_TIMEOUT);
}

/* ---- what it stands on ---- */

static void ground_add(struct ground *ground, const struct layer *layers, size_t count)
{
	memcpy(ground->layers + ground->count, layers, count * sizeof(*layers));
	ground->count += count;
}

static int write_inputs(struct job *job, const struct environment_step *step, size_t source_index,
	struct staging *staging, struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	struct git_source source = job_git_source(job, source_index, &path);
	CLEANUP(close_p) int tree = -1;
	CLEANUP(close_p) int index = job_open_index(job, source_index, "");
	struct git_place place = {
		.path = job->environment->sources[source_index].path, .previous_fd = index};
	uint64_t files = 0;
	int status;

	if (mkdirat(staging_fd(staging), "tree", 0755) < 0) {
		return error_sys(err, errno, "make the tree of a layer");
	}
	tree = io_open(staging_fd(staging), "tree", O_RDONLY | O_DIRECTORY, 0, err);
	if (tree < 0) {
		return tree;
	}
	place.tree_fd = tree;
	status = git_write_inputs(job->machine, &source, &job->sources[source_index].found,
		step->inputs, "", &place, &files, err);
	return status < 0 ? status : job_modules_inputs(job, source_index, step->inputs, tree, err);
}

/* The inputs of a strict step of one source, as a layer that no image lists. */
static int inputs_layer(struct job *job, size_t index, size_t source_index, struct layer *ret_layer,
	struct error *err)
{
	const struct environment_step *step = &job->environment->steps[index];
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct layer layer = {.kind = "inputs", .id_base = geteuid(), .id_count = 1};
	CLEANUP(free_p)
	char *text = xasprintf("inputs 1\n%s\n%s\n%s\nowner %u",
		job->environment->sources[source_index].path,
		job->environment->sources[source_index].submodules,
		job->steps[index].inputs[source_index], (unsigned)geteuid());
	int status;

	digest_of(text, strlen(text), layer.step_key);
	if (!job->clean && layer_find(job->machine->store, layer.step_key, ret_layer, err) == 0) {
		return 0;
	}
	snprintf(layer.title, sizeof(layer.title), "inputs of %s", step->name);
	status = staging_new(job->machine->store, &staging, err);
	if (status == 0) {
		status = write_inputs(job, step, source_index, staging, err);
	}
	if (status == 0) {
		status = layer_seal(job->machine->store, staging, &layer, err);
	}
	if (status == 0) {
		status = layer_keep(job->machine->store, layer.id, err);
	}
	if (status == 0) {
		*ret_layer = layer;
	}
	return status;
}

static int strict_ground(struct job *job, size_t index, struct ground *ground, struct error *err)
{
	size_t first = job->first_source, after = job->first_step;
	int status = 0;

	ground_add(ground, job->layers, first);
	for (size_t i = 0; status == 0 && i < job->environment->source_count; i++) {
		struct layer layer;

		status = inputs_layer(job, index, i, &layer, err);
		if (status == 0) {
			ground_add(ground, &layer, 1);
		}
	}
	if (status == 0) {
		ground_add(ground, job->layers + after, job->layer_count - after);
	}
	return status;
}

/* Layers that are still to come need room. */
static bool has_room(const struct job *job, size_t index, size_t count)
{
	return job->layer_count + count + job->environment->step_count - index <= IMAGE_LAYERS_MAX;
}

/* Over its last result, unless that has grown high: then from nothing, which makes one layer. */
static void start_over(struct job *job, size_t index, struct ground *ground)
{
	struct job_result *start = &ground->start;
	bool found = job_find_start(job, index, start);

	if (found && start->count < RESULT_LAYERS_MAX && has_room(job, index, start->count)) {
		ground_add(ground, start->layers, start->count);
		report_line(job->machine->report, "over its last result, layer %lld",
			(long long)start->layers[start->count - 1].id);
		return;
	}
	if (found) {
		report_line(job->machine->report,
			"from nothing: its last result has %zu layers already", start->count);
	} else if (start->hidden != NULL) {
		report_line(job->machine->report, "from nothing: its last result would hide %s",
			start->hidden);
	}
	start->count = 0;
}

static int make_ground(struct job *job, size_t index, struct ground *ground, struct error *err)
{
	const struct environment_step *step = &job->environment->steps[index];
	int status = 0;

	if (step->strict) {
		status = strict_ground(job, index, ground, err);
	} else {
		ground_add(ground, job->layers, job->layer_count);
	}
	if (status == 0 && step->incremental && !job->clean) {
		start_over(job, index, ground);
	}
	return status;
}

/* ---- running it ---- */

static int seal_step(struct job *job, size_t index, bool whole, const struct ground *ground,
	struct staging *staging, struct layer *layer, struct error *err)
{
	int status = machine_seal(job->machine, staging_name(staging), err);

	snprintf(
		layer->title, sizeof(layer->title), "step %s", job->environment->steps[index].name);
	layer->id_base = job->range.first;
	layer->id_count = ID_RANGE;
	if (ground->start.count > 0) {
		layer->over = ground->start.layers[ground->start.count - 1].id;
	}
	job_origin(job, layer->origin);
	if (whole) { /* what has failed is no result to come back to */
		snprintf(layer->step_key, sizeof(layer->step_key), "%s", job->steps[index].key);
		snprintf(layer->line_key, sizeof(layer->line_key), "%s", job->steps[index].line);
	}
	if (status == 0) {
		status = job_fault("build.step_sealed", err);
	}
	if (status == 0) {
		status = layer_seal(job->machine->store, staging, layer, err);
	}
	return status < 0 || !whole ? status : layer_keep(job->machine->store, layer->id, err);
}

static int make_step(struct job *job, size_t index, struct ground *ground, struct layer *layer,
	struct error *err)
{
	const struct environment_step *step = &job->environment->steps[index];
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct step_outcome outcome = {0};
	bool whole = true;
	int status = make_ground(job, index, ground, err);

	if (status == 0) {
		status = staging_new(job->machine->store, &staging, err);
	}
	if (status < 0) {
		return status;
	}
	status = run_step(job, step, ground, staging, &outcome, err);
	if (is_forgiven(step, status) && job->machine->cancelled == 0) {
		report_line(job->machine->report, "failed, which it may: %.*s",
			(int)strcspn(err->message, ";\n"), err->message);
		status = 0;
		whole = false;
	}
	if (status == 0) {
		status =
			step_secrets_search(&job->secrets, &job->range, staging_name(staging), err);
	}
	return status < 0 ? status : seal_step(job, index, whole, ground, staging, layer, err);
}

static int add_result(struct job *job, const struct layer *layers, size_t count, struct error *err)
{
	for (size_t i = 0; i < count; i++) {
		if (job_add_layer(job, &layers[i], err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

static int run_anew(struct job *job, size_t index, struct error *err)
{
	const struct environment_step *step = &job->environment->steps[index];
	struct ground *ground = xcalloc(1, sizeof(*ground));
	struct layer layer = {.kind = "step"};
	int status = make_step(job, index, ground, &layer, err);

	if (status == 0) {
		status = add_result(job, ground->start.layers, ground->start.count, err);
	}
	if (status == 0) {
		status = add_result(job, &layer, 1, err);
	}
	job->reused += ground->start.count;
	job_result_done(&ground->start);
	free(ground);
	if (status < 0) {
		return error_wrap(
			err, "step %s (%s:%d)", step->name, job->environment->file, step->line);
	}
	job->made++;
	report_stage_end(job->machine->report, "layer %lld, %llu files", (long long)layer.id,
		(unsigned long long)layer.files);
	return 0;
}

static int step_layer(struct job *job, size_t index, struct error *err)
{
	struct job_result result = {0};
	int status;

	report_stage(job->machine->report, "step", "%s", job->environment->steps[index].name);
	if (!job->options.force && !job->clean && job_find_result(job, index, &result)) {
		status = add_result(job, result.layers, result.count, err);
		job->reused += result.count;
		report_stage_end(job->machine->report,
			"layer %lld, as before: nothing that it "
			"reads has changed",
			(long long)result.layers[result.count - 1].id);
	} else {
		if (result.hidden != NULL) {
			report_line(job->machine->report,
				"run again: its result would hide %s, which has changed",
				result.hidden);
		}
		status = run_anew(job, index, err);
	}
	job_result_done(&result);
	return status;
}

int job_steps(struct job *job, struct error *err)
{
	int status = job->environment->step_count > 0 ? job_make_keys(job, err) : 0;

	if (status == 0) {
		status = step_secrets_read(job->machine, job->environment, &job->secrets, err);
	}
	job->first_step = job->layer_count;
	for (size_t i = 0; status == 0 && i < job->environment->step_count; i++) {
		status = step_layer(job, i, err);
	}
	return status;
}

int job_check(struct job *job, struct error *err)
{
	const struct environment_check *check = &job->environment->check;
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct step_spec spec = {.environment = job->environment,
		.name = "check",
		.run = check->run != NULL ? check->run : ":",
		.timeout_ms = check->timeout_ms,
		.services = true,
		.layers = job->layers,
		.layer_count = job->layer_count};
	struct step_outcome outcome = {0};
	int status;

	/* Services that do not come up here come up nowhere. */
	if (check->run == NULL && job->environment->warm_fingerprint[0] == '\0') {
		return 0;
	}
	status = staging_new(job->machine->store, &staging, err);
	if (status < 0) {
		return status;
	}
	report_stage(
		job->machine->report, "check", "%s", check->run != NULL ? check->run : "services");
	spec.staging = staging_name(staging);
	status = step_run(job->machine, &job->range, &spec, &outcome, err);
	if (status == 0 && outcome.code != 0) {
		status = command_failed(job, &outcome, err);
	}
	if (status < 0) {
		return error_wrap(err, "check (%s)", job->environment->file);
	}
	report_stage_end(job->machine->report, "passed");
	return job_fault("build.checked", err);
}
