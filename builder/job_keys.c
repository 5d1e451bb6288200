/*
 * Keys of steps: what a step's result depends on, as one digest. Equal keys: the result is the same
 * and its layer is reused, whatever the sources below have become. A step that declares no inputs
 * reads every source and what the steps before it have made; so its key covers their commits.
 */
#include "builder/job_private.h"

#include "base/digest.h"
#include "builder/report.h"
#include "configs/environment.h"

#include <stdio.h>

/* A change of what a key covers, or of how a step is run, makes new layers. */
#define STEP_VERSION "2"

static int read_inputs_of(struct job *job, size_t index, char *const *const *lists, size_t count,
	struct git_inputs *inputs, struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	struct git_source source = job_git_source(job, index, &path);

	return git_read_inputs(job->machine, &source, job->sources[index].found.commit, lists,
		count, job_has_modules(job, index), inputs, err);
}

static int read_inputs(struct job *job, size_t index, struct error *err)
{
	char *const *lists[GIT_INPUTS_MAX];
	size_t steps[GIT_INPUTS_MAX], count = 0;
	struct git_inputs inputs = {0};
	int status;

	for (size_t i = 0; i < job->environment->step_count && count < GIT_INPUTS_MAX; i++) {
		if (job->environment->steps[i].inputs != NULL) {
			steps[count] = i;
			lists[count++] = job->environment->steps[i].inputs;
		}
	}
	if (count == 0) {
		return 0;
	}
	status = read_inputs_of(job, index, lists, count, &inputs, err);
	if (status == -ERROR_CORRUPT) {
		status = job_refetch(job, index, err);
		if (status == 0) {
			status = read_inputs_of(job, index, lists, count, &inputs, err);
		}
	}
	for (size_t i = 0; status == 0 && i < count; i++) {
		struct job_step *step = &job->steps[steps[i]];

		memcpy(step->inputs[index], inputs.digests[i], sizeof(step->inputs[index]));
		step->input_files += inputs.files[i];
	}
	return status;
}

static void add_text(struct digest *digest, const char *text)
{
	digest_add_str(digest, text != NULL ? text : "");
}

/* What is the same whatever the sources hold: the layers below, the steps before, the command. */
static struct digest *begin_key(const struct job *job, size_t index, const char *kind)
{
	const struct environment *environment = job->environment;
	const struct environment_step *step = &environment->steps[index];
	struct digest *digest = digest_new();

	add_text(digest, kind);
	add_text(digest, job->below_key);
	add_text(digest, index > 0 ? job->steps[index - 1].key : "");
	add_text(digest, step->run);
	for (char *const *name = step->secrets; name != NULL && *name != NULL; name++) {
		add_text(digest, *name);
	}
	add_text(digest, step->strict ? "strict" : "");
	add_text(digest, step->incremental ? "incremental" : "");
	add_text(digest, environment->build_network ? "network" : "");
	add_text(digest, environment->user);
	add_text(digest, environment->workdir);
	for (size_t i = 0; i < environment->source_count; i++) {
		add_text(digest, environment->sources[i].url);
		add_text(digest, environment->sources[i].path);
		add_text(digest, environment->sources[i].submodules);
	}
	for (char **entry = environment->env; *entry != NULL; entry++) {
		add_text(digest, *entry);
	}
	return digest;
}

static void make_keys(struct job *job, size_t index)
{
	struct job_step *step = &job->steps[index];
	struct digest *digest = begin_key(job, index, "line " STEP_VERSION);

	digest_end(digest, step->line);
	digest_free(digest);
	digest = begin_key(job, index, "step " STEP_VERSION);
	for (size_t i = 0; i < job->environment->source_count; i++) {
		if (job->environment->steps[index].inputs != NULL) {
			add_text(digest, step->inputs[i]);
		} else {
			add_text(digest, job->sources[i].found.ref);
			add_text(digest, job->sources[i].found.commit);
		}
	}
	digest_end(digest, step->key);
	digest_free(digest);
}

int job_make_keys(struct job *job, struct error *err)
{
	size_t count = job->environment->step_count;
	int status = 0;

	free(job->steps);
	job->steps = xcalloc(count + 1, sizeof(*job->steps));
	for (size_t i = 0; status == 0 && i < job->environment->source_count; i++) {
		status = read_inputs(job, i, err);
	}
	for (size_t i = 0; status == 0 && i < count; i++) {
		make_keys(job, i);
	}
	return status < 0 ? error_wrap(err, "read the inputs of the steps") : 0;
}

void job_origin(const struct job *job, char *text)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < job->environment->source_count; i++) {
		used += (size_t)snprintf(
			text + used, LAYER_ORIGIN_SIZE - used, "%s ", job->sources[i].found.commit);
	}
}
