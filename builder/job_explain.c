/*
 * What a build would do now, and why, without doing it: the sources are fetched, since what is new
 * there decides; then every layer's key is looked for, as the build itself would. Nothing is run
 * and no build is recorded.
 */
#include "builder/job_private.h"

#include "base/glob.h"
#include "base/json.h"
#include "builder/base.h"
#include "builder/bases/oci.h"
#include "builder/report.h"
#include "configs/environment.h"

#include <stdio.h>

#define NAMES_MAX 5 /* of changed files, in one line */

/* One layer of the plan. */
struct plan_row {
	const char *kind, *name;
	const char *action; /* "reuse", "make", "run" */
	int64_t layer; /* that is reused, or that it starts from; 0: none */
	char *why;
	char **changed; /* what of its inputs has, the first few */
	size_t changed_count;
};

struct plan {
	struct job *job;
	struct plan_row *rows;
	size_t count, room;
	bool running; /* a step before is run */
	const char *running_name;
	char *base;
};

static struct plan_row *add_row(
	struct plan *plan, const char *kind, const char *name, const char *action, int64_t layer)
{
	struct plan_row *row = array_add(&plan->rows, &plan->count, &plan->room);

	*row = (struct plan_row){.kind = kind, .name = name, .action = action, .layer = layer};
	return row;
}

static void plan_done(struct plan *plan)
{
	for (size_t i = 0; i < plan->count; i++) {
		free(plan->rows[i].why);
		strv_free(plan->rows[i].changed);
	}
	free(plan->rows);
	free(plan->base);
}

/* Notes which of the paths the patterns name. */
static void note_changed(struct plan_row *row, const struct buffer *paths, char *const *patterns)
{
	const char *end = paths->data + paths->length;

	for (const char *path = paths->data; path != NULL && path < end; path += strlen(path) + 1) {
		if (glob_list_match(patterns, path)) {
			if (row->changed_count < NAMES_MAX) {
				strv_add(&row->changed, path);
			}
			row->changed_count++;
		}
	}
}

/* ---- base, packages, files and sources ---- */

static void plan_fixed(struct plan *plan, const char *kind, const char *name, const char *key)
{
	struct job *job = plan->job;
	struct error ignored = ERROR_INIT;
	struct layer layer;
	bool found = !job->clean && layer_find(job->machine->store, key, &layer, &ignored) == 0;
	struct plan_row *row =
		add_row(plan, kind, name, found ? "reuse" : "make", found ? layer.id : 0);

	row->why = xstrdup(found        ? "the same as before"
			   : job->clean ? "everything is made from nothing"
					: "there is no layer of it");
}

/* Its layers are found by their blobs, also by a build from nothing. What it says of its user and
 * variables is part of the steps' keys from here on. */
static void plan_oci(struct plan *plan)
{
	struct job *job = plan->job;
	struct oci_base *base = xcalloc(1, sizeof(*base));
	struct error err = ERROR_INIT;
	size_t missing = 0;
	int status = oci_base_look(job->machine, job->environment, base, &missing, &err);
	bool found = status == 0 && missing == 0 && base->layer_count > 0;
	struct plan_row *row = add_row(plan, "base", plan->base, found ? "reuse" : "make",
		found ? base->layers[base->layer_count - 1].id : 0);

	if (status < 0) {
		row->why = xstrdup(err.message);
	} else {
		row->why = found ? xasprintf("all of its %zu layers are there", base->layer_count)
				 : xasprintf("%zu of the image's %u layers are missing", missing,
					   base->image.layer_count);
		oci_defaults(&base->image, job->environment, &job->own);
		job->environment = &job->own;
	}
	free(base);
}

/* What lies below the sources. */
static void plan_below(struct plan *plan)
{
	const struct job *job = plan->job;

	plan->base = base_text(job->environment);
	if (job->environment->base == BASE_OCI) {
		plan_oci(plan);
	} else {
		plan_fixed(plan, "base", plan->base, job->base_key);
	}
	for (size_t i = 0; i < PACKAGE_MANAGERS; i++) {
		if (job->environment->packages[i] != NULL) {
			plan_fixed(plan, "packages", package_manager_name((enum package_manager)i),
				job->package_keys[i]);
		}
	}
	if (job->environment->file_count > 0) {
		plan_fixed(plan, "files", "files", job->files_key);
	}
}

static void explain_source(struct plan *plan, size_t index, struct plan_row *row)
{
	struct job *job = plan->job;
	char before[COMMIT_TEXT_SIZE], full[COMMIT_TEXT_SIZE];
	const struct buffer *paths = NULL;
	struct error ignored = ERROR_INIT;

	if (job->clean) {
		row->why = xstrdup("everything is made from nothing");
	} else if (!job_source_before(job, index, before, full)) {
		row->why = xstrdup("no image has it yet");
	} else if (job_changes_since(job, index, before, &paths, &ignored) < 0) {
		row->why = xasprintf("%.12s is not to be had any more", before);
	} else {
		note_changed(row, paths, NULL);
		row->why = xasprintf("%zu files changed since %.12s", row->changed_count, before);
	}
}

static void plan_source(struct plan *plan, size_t index)
{
	struct job *job = plan->job;
	const char *path = job->environment->sources[index].path;
	struct plan_row *row;

	if (job_find_source(job, index)) {
		const struct job_source *source = &job->sources[index];

		row = add_row(
			plan, "source", path, "reuse", source->layers[source->layer_count - 1].id);
		row->why = xasprintf("%.12s is there", source->found.commit);
		return;
	}
	row = add_row(plan, "source", path, "make", 0);
	explain_source(plan, index, row);
}

/* ---- steps ---- */

/* The step's layer in the image before. */
static const struct layer *layer_before(const struct job *job, const char *name)
{
	CLEANUP(free_p) char *title = xasprintf("step %s", name);

	for (size_t i = job->has_head ? job->head.layer_count : 0; i > 0; i--) {
		if (streq(job->head.layers[i - 1].kind, "step") &&
			streq(job->head.layers[i - 1].title, title)) {
			return &job->head.layers[i - 1];
		}
	}
	return NULL;
}

static void note_inputs(
	struct plan *plan, size_t index, const struct layer *before, struct plan_row *row)
{
	struct job *job = plan->job;
	struct error ignored = ERROR_INIT;

	for (size_t i = 0; i < job->environment->source_count; i++) {
		char commit[COMMIT_TEXT_SIZE];
		const struct buffer *paths = NULL;

		if (job_origin_of(before, i, commit) &&
			job_changes_since(job, i, commit, &paths, &ignored) == 0) {
			note_changed(row, paths, job->environment->steps[index].inputs);
		}
	}
}

static void explain_run(struct plan *plan, size_t index, const char *hidden, struct plan_row *row)
{
	struct job *job = plan->job;
	const struct environment_step *step = &job->environment->steps[index];
	const struct layer *before = layer_before(job, step->name);

	if (job->clean || job->options.force) {
		row->why = xstrdup(
			job->clean ? "everything is made from nothing" : "--force runs every step");
		return;
	}
	if (hidden != NULL) {
		row->why = xasprintf("its result would hide %s, which has changed", hidden);
		return;
	}
	if (before == NULL) {
		row->why = xstrdup("the image before has no such step");
		return;
	}
	note_inputs(plan, index, before, row);
	if (row->changed_count > 0 && step->inputs != NULL) {
		row->why = xasprintf("%zu of its inputs changed", row->changed_count);
	} else if (row->changed_count > 0) {
		row->why = xasprintf(
			"it declares no inputs, and %zu files changed", row->changed_count);
	} else if (plan->running) {
		row->why = xasprintf("step %s before it runs", plan->running_name);
	} else {
		row->why = xstrdup("its command, its environment or what lies below it changed");
	}
}

static void plan_step(struct plan *plan, size_t index)
{
	struct job *job = plan->job;
	const struct environment_step *step = &job->environment->steps[index];
	struct job_result result = {0}, start = {0};
	bool reuse = !job->options.force && !job->clean && job_find_result(job, index, &result);
	struct plan_row *row = add_row(plan, "step", step->name, reuse ? "reuse" : "run",
		reuse ? result.layers[result.count - 1].id : 0);

	if (reuse) {
		row->why = step->inputs == NULL
				   ? xstrdup("nothing in the sources changed")
				   : xasprintf("none of its %llu input files changed",
					     (unsigned long long)job->steps[index].input_files);
	} else {
		explain_run(plan, index, result.hidden, row);
		if (step->incremental && !job->clean && job_find_start(job, index, &start)) {
			row->layer = start.layers[start.count - 1].id;
		}
		plan->running = true;
		plan->running_name = step->name;
	}
	job_result_done(&result);
	job_result_done(&start);
}

/* ---- telling ---- */

static json_t *row_json(const struct plan_row *row)
{
	json_t *json = json_object(), *changed = json_array();

	for (char **name = row->changed; name != NULL && *name != NULL; name++) {
		json_t *text = json_string(*name);

		json_array_append_new(changed, text != NULL ? text : json_string("?"));
	}
	json_object_set_new(json, "kind", json_string(row->kind));
	json_object_set_new(json, "name", json_string(row->name));
	json_object_set_new(json, "action", json_string(row->action));
	json_object_set_new(
		json, "layer", row->layer != 0 ? json_integer(row->layer) : json_null());
	json_object_set_new(json, "why", json_string(row->why));
	json_object_set_new(json, "changed", changed);
	json_object_set_new(json, "changed_count", json_integer((json_int_t)row->changed_count));
	return json;
}

static void print_json(const struct plan *plan)
{
	const struct job *job = plan->job;
	json_t *json = json_object(), *layers = json_array();

	for (size_t i = 0; i < plan->count; i++) {
		json_array_append_new(layers, row_json(&plan->rows[i]));
	}
	json_object_set_new(json, "event", json_string("plan"));
	json_object_set_new(json, "environment", json_string(job->environment->name));
	json_object_set_new(json, "commit", json_string(job->build.commit));
	json_object_set_new(json, "image",
		job->has_head ? json_sprintf("img-%lld", (long long)job->head.id) : json_null());
	json_object_set_new(json, "unchanged", json_boolean(job->unchanged));
	json_object_set_new(json, "clean", json_boolean(job->clean));
	json_object_set_new(json, "layers", layers);
	json_print(json);
	json_decref(json);
}

static void print_row(const struct plan_row *row)
{
	CLEANUP(free_p)
	char *layer =
		row->layer != 0 ? xasprintf(" layer %lld", (long long)row->layer) : xstrdup("");

	printf("  %-6s %-20s %s%s: %s", row->kind, row->name, row->action, layer, row->why);
	for (size_t i = 0; row->changed != NULL && row->changed[i] != NULL; i++) {
		printf("%s%s", i == 0 ? ": " : ", ", row->changed[i]);
	}
	printf("%s\n", row->changed_count > NAMES_MAX ? ", …" : "");
}

static void print_text(const struct plan *plan)
{
	const struct job *job = plan->job;

	printf("%s%s%.12s: ", job->environment->name, job->build.commit[0] != '\0' ? " at " : "",
		job->build.commit);
	if (job->unchanged) {
		printf("nothing to do, %s\n", job->unchanged_why != NULL
						      ? job->unchanged_why
						      : "the head is what it would make");
	} else {
		printf("%s\n", job->clean      ? "everything would be made from nothing"
			       : job->has_head ? "would make a new image"
					       : "would make its first image");
	}
	for (size_t i = 0; i < plan->count; i++) {
		print_row(&plan->rows[i]);
	}
}

int job_explain(struct machine *machine, const struct environment *environment,
	const struct local_files *files, const struct job_options *options, bool json,
	struct error *err)
{
	struct job *job = job_new(machine, environment, files, options);
	struct plan plan = {.job = job};
	int status = job_look(job, err);

	if (status == 0) {
		plan_below(&plan);
		status = job_make_keys(job, err);
	}
	if (status == 0) {
		for (size_t i = 0; i < environment->source_count; i++) {
			plan_source(&plan, i);
		}
		for (size_t i = 0; i < environment->step_count; i++) {
			plan_step(&plan, i);
		}
		(json ? print_json : print_text)(&plan);
	}
	plan_done(&plan);
	job_free(job);
	return status < 0 ? error_wrap(err, "explain %s", environment->name) : 0;
}
