/*
 * A package manager's layer: found by its key, or made by its command in a sandbox over the layers
 * so far. The list of what it installed lies beside the tree, so that a layer which is found again
 * brings it along. A layer that was made stays findable although a later stage fails.
 */
#include "builder/packages/packages.h"

#include "base/digest.h"
#include "base/io.h"
#include "base/json.h"
#include "builder/job_private.h"
#include "builder/report.h"
#include "builder/step.h"
#include "configs/environment.h"
#include "pool/sandbox/sandbox.h"

#include <fcntl.h>
#include <stdio.h>

/* A change of how packages are installed makes new layers. */
#define PACKAGES_VERSION "1"

static int make_key(struct job *job, enum package_manager manager, const char *below, char *key,
	struct error *err)
{
	const struct environment *environment = job->environment;
	CLEANUP(strv_free_p) char **env = package_env(environment);
	char tools[SHA256_TEXT_SIZE] = "";
	struct digest *digest;

	if (environment->base == BASE_HOST && host_tools_key(manager, tools, err) < 0) {
		return -(int)err->kind;
	}
	digest = digest_new();
	digest_add_str(digest, "packages " PACKAGES_VERSION);
	digest_add_str(digest, package_manager_name(manager));
	digest_add_str(digest, below);
	digest_add_str(digest, tools);
	for (char *const *text = environment->packages[manager]; *text != NULL; text++) {
		digest_add_str(digest, *text);
	}
	for (char **entry = env; *entry != NULL; entry++) {
		digest_add_str(digest, *entry);
	}
	digest_end(digest, key);
	digest_free(digest);
	return 0;
}

int job_packages_keys(struct job *job, struct error *err)
{
	const char *below = job->base_key;

	for (size_t i = 0; i < PACKAGE_MANAGERS; i++) {
		if (job->environment->packages[i] == NULL) {
			continue;
		}
		if (make_key(job, (enum package_manager)i, below, job->package_keys[i], err) < 0) {
			return error_wrap(err, "packages");
		}
		below = job->package_keys[i];
	}
	if (job->environment->file_count > 0) {
		files_key(job->environment, below, job->files_key);
		below = job->files_key;
	}
	memcpy(job->below_key, below, sizeof(job->below_key));
	return 0;
}

/* ---- installing ---- */

static int explain(const struct job *job, const struct step_outcome *outcome, struct error *err)
{
	error_set(err, ERROR_FAILED, "exit code %d%s%s", outcome->code,
		outcome->tail[0] != '\0' ? "; it said last:\n" : "", outcome->tail);
	if (!job->environment->build_network) {
		return error_hint(err,
			"`build: {network: none}` keeps it from its registry; the last image stays "
			"in use");
	}
	return error_hint(err, "hob builds log bld-%lld; the last image stays in use",
		(long long)job->build.id);
}

/* apt over base: host has one layer more below, which no image lists. */
static int make_ground(struct job *job, enum package_manager manager, struct layer *layers,
	size_t *ret_count, struct error *err)
{
	memcpy(layers, job->layers, job->layer_count * sizeof(*layers));
	*ret_count = job->layer_count;
	if (manager != PACKAGE_APT || job->environment->base != BASE_HOST) {
		return 0;
	}
	return host_apt_layer(job, &layers[(*ret_count)++], err);
}

static int install(struct job *job, enum package_manager manager, const struct staging *staging,
	json_t **ret_list, struct error *err)
{
	CLEANUP(free_p)
	struct layer *layers = xcalloc(SANDBOX_LAYERS_MAX, sizeof(*layers));
	CLEANUP(free_p) char *script = package_script(job->environment, manager);
	CLEANUP(strv_free_p) char **env = package_env(job->environment);
	CLEANUP(buffer_done) struct buffer report = {.max = INSTALLED_BYTES_MAX};
	struct step_outcome outcome = {0};
	struct step_spec spec = {.environment = job->environment,
		.name = package_manager_name(manager),
		.run = script,
		.network = job->environment->build_network,
		.env = env,
		.output = &report,
		.staging = staging_name(staging),
		.layers = layers};
	int status = make_ground(job, manager, layers, &spec.layer_count, err);

	if (status == 0) {
		status = step_run(job->machine, &job->range, &spec, &outcome, err);
	}
	if (status == 0 && outcome.code != 0) {
		status = explain(job, &outcome, err);
	}
	if (status == 0) {
		status = job_fault("packages.installed", err);
	}
	return status < 0 ? status
			  : installed_parse(manager, buffer_text(&report),
				    job->environment->packages[manager], ret_list, err);
}

static int make_layer(struct job *job, enum package_manager manager, struct layer *layer,
	json_t **ret_list, struct error *err)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	CLEANUP(json_decref_p) json_t *list = NULL;
	int status = staging_new(job->machine->store, &staging, err);

	if (status == 0) {
		status = install(job, manager, staging, &list, err);
	}
	if (status == 0) {
		status = machine_seal(job->machine, staging_name(staging), err);
	}
	if (status == 0) {
		status = installed_write(staging, list, err);
	}
	snprintf(layer->title, sizeof(layer->title), "packages %s", package_manager_name(manager));
	snprintf(layer->step_key, sizeof(layer->step_key), "%s", job->package_keys[manager]);
	layer->id_base = job->range.first;
	layer->id_count = ID_RANGE;
	if (status == 0) {
		status = layer_seal(job->machine->store, staging, layer, err);
	}
	if (status == 0) {
		status = layer_keep(job->machine->store, layer->id, err);
	}
	if (status == 0) {
		*ret_list = steal_ptr(list);
	}
	return status;
}

static int add_layer(
	struct job *job, const struct layer *layer, const json_t *list, struct error *err)
{
	json_array_extend(job->installed, (json_t *)(uintptr_t)list);
	return job_add_layer(job, layer, err);
}

static int packages_of(struct job *job, enum package_manager manager, struct error *err)
{
	CLEANUP(json_decref_p) json_t *list = NULL;
	struct layer layer = {.kind = "packages"}, found;

	report_stage(job->machine->report, "packages", "%s: %zu", package_manager_name(manager),
		strv_count(job->environment->packages[manager]));
	if (!job->clean &&
		layer_find(job->machine->store, job->package_keys[manager], &found, err) == 0) {
		list = installed_read(job->machine->store, &found);
	}
	if (list != NULL) {
		job->reused++;
		report_stage_end(
			job->machine->report, "layer %lld, as before", (long long)found.id);
		return add_layer(job, &found, list, err);
	}
	if (make_layer(job, manager, &layer, &list, err) < 0) {
		return error_wrap(err, "packages.%s (%s)", package_manager_name(manager),
			job->environment->file);
	}
	job->made++;
	report_stage_end(job->machine->report, "layer %lld, %zu packages, %llu files",
		(long long)layer.id, json_array_size(list), (unsigned long long)layer.files);
	return add_layer(job, &layer, list, err);
}

int job_packages(struct job *job, struct error *err)
{
	for (size_t i = 0; i < PACKAGE_MANAGERS; i++) {
		if (job->environment->packages[i] != NULL &&
			packages_of(job, (enum package_manager)i, err) < 0) {
			return -(int)err->kind;
		}
	}
	if (job->environment->file_count > 0 && files_layer(job, err) < 0) {
		return -(int)err->kind;
	}
	return job_fault("build.packages", err);
}
