/*
 * Steps of a build: each in a sandbox over the layers so far, what it wrote becomes the next layer.
 * The check runs in a sandbox like those that agents get, over the finished layers; what it writes
 * is thrown away.
 */
#include "builder/job_private.h"

#include "builder/report.h"
#include "builder/step.h"
#include "configs/environment.h"
#include "pool/sandbox/sandbox.h"

#include <stdio.h>

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

static int run_step(struct job *job, const struct environment_step *step, struct staging *staging,
	struct step_outcome *outcome, struct error *err)
{
	struct step_spec spec = {.environment = job->environment,
		.name = step->name,
		.run = step->run,
		.timeout_ms = step->timeout_ms,
		.network = job->environment->build_network,
		.staging = staging_name(staging),
		.layers = job->layers,
		.layer_count = job->layer_count};
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

static int seal_step(struct job *job, const struct environment_step *step, struct staging *staging,
	struct layer *layer, struct error *err)
{
	int status = machine_seal(job->machine, staging_name(staging), err);

	snprintf(layer->title, sizeof(layer->title), "step %s", step->name);
	layer->id_base = job->range.first;
	layer->id_count = ID_RANGE;
	if (status == 0) {
		status = job_fault("build.step_sealed", err);
	}
	return status < 0 ? status : layer_seal(job->machine->store, staging, layer, err);
}

static int step_layer(struct job *job, const struct environment_step *step, struct error *err)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct layer layer = {.kind = "step"};
	struct step_outcome outcome = {0};
	int status = staging_new(job->machine->store, &staging, err);

	if (status < 0) {
		return status;
	}
	report_stage(job->machine->report, "step", "%s", step->name);
	status = run_step(job, step, staging, &outcome, err);
	if (is_forgiven(step, status) && job->machine->cancelled == 0) {
		report_line(job->machine->report, "failed, which it may: %.*s",
			(int)strcspn(err->message, ";\n"), err->message);
		status = 0;
	}
	if (status == 0) {
		status = seal_step(job, step, staging, &layer, err);
	}
	if (status < 0) {
		return error_wrap(
			err, "step %s (%s:%d)", step->name, job->environment->file, step->line);
	}
	report_stage_end(job->machine->report, "layer %lld, %llu files", (long long)layer.id,
		(unsigned long long)layer.files);
	return job_add_layer(job, &layer, err);
}

int job_steps(struct job *job, struct error *err)
{
	for (size_t i = 0; i < job->environment->step_count; i++) {
		if (step_layer(job, &job->environment->steps[i], err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
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
