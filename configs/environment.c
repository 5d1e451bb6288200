/* Reading an environment: its file by the table of settings, defaults that depend on others, what
 * they must be together, and the fingerprint of what shapes its image. */
#include "configs/environment.h"

#include "base/buffer.h"
#include "base/digest.h"
#include "configs/deb_reference.h"
#include "configs/environment_checks.h"
#include "configs/environment_packages.h"
#include "configs/settings.h"
#include "configs/yaml.h"

#include <assert.h>

#include <stdio.h>

static void lines_set(struct environment *environment, const struct yaml_node *root)
{
	const struct yaml_node *steps = settings_node(root, "steps");
	const struct yaml_node *files = settings_node(root, "files");

	for (size_t i = 0; i < environment->step_count; i++) {
		environment->steps[i].line = steps->items[i].line;
	}
	for (size_t i = 0; i < environment->file_count; i++) {
		environment->files[i].line = files->items[i].line;
	}
}

static const char *const lifecycle_names[LIFECYCLES] = {[LIFECYCLE_EPHEMERAL] = "ephemeral",
	[LIFECYCLE_HYBRID] = "hybrid",
	[LIFECYCLE_LONG_RUNNING] = "long-running"};

const char *environment_lifecycle_name(enum environment_lifecycle lifecycle)
{
	return lifecycle_names[lifecycle];
}

bool environment_lifecycle_from_name(const char *name, enum environment_lifecycle *ret)
{
	for (size_t i = 0; i < LIFECYCLES; i++) {
		if (streq(lifecycle_names[i], name)) {
			*ret = (enum environment_lifecycle)i;
			return true;
		}
	}
	return false;
}

#define IDLE_MS (15 * 60 * INT64_C(1000))
#define MAX_AGE_MS (8 * 3600 * INT64_C(1000))
#define HYBRID_PAUSE_MS (5 * 60 * INT64_C(1000))

static void lifecycle_complete(struct environment *environment)
{
	bool ephemeral, known = environment_lifecycle_from_name(
				environment->lifecycle_type, &environment->lifecycle);

	assert(known); /* one of its choices */
	ephemeral = environment->lifecycle == LIFECYCLE_EPHEMERAL;
	if (environment->idle_ms < 0) {
		environment->idle_ms =
			environment->lifecycle == LIFECYCLE_LONG_RUNNING ? 0 : IDLE_MS;
	}
	if (environment->max_age_ms < 0) {
		environment->max_age_ms = ephemeral ? MAX_AGE_MS : 0;
	}
	if (environment->pause_ms < 0) {
		int64_t half_ms = environment->idle_ms / 2;

		environment->pause_ms = environment->lifecycle != LIFECYCLE_HYBRID ? 0
					: half_ms < HYBRID_PAUSE_MS                ? half_ms
								    : HYBRID_PAUSE_MS;
	}
}

/* Defaults that depend on other settings. */
static void environment_complete(struct environment *environment)
{
	if (environment->workdir == NULL && environment->source_count > 0) {
		environment->workdir = xstrdup(environment->sources[0].path);
	}
	if (environment->workdir == NULL && environment->base != BASE_OCI) {
		environment->workdir = xstrdup("/");
	}
	if (environment->user == NULL && environment->base != BASE_OCI) {
		environment->user = xstrdup("root");
	}
	if (environment->base == BASE_DEB && environment->base_mirror == NULL) {
		environment->base_mirror = xstrdup(DEB_MIRROR_DEFAULT);
	}
	if (environment->base == BASE_DEB && environment->base_components == NULL) {
		environment->base_components = xstrdup(DEB_COMPONENTS_DEFAULT);
	}
	if (environment->schedule.cron_text != NULL) {
		char problem[CRON_PROBLEM_SIZE];
		bool fits = cron_parse(
			environment->schedule.cron_text, &environment->schedule.cron, problem);

		assert(fits); /* check_cron has seen it */
	}
	lifecycle_complete(environment);
	environment_packages_env(environment);
	if (environment->pool_max < 0) {
		environment->pool_max = environment->pool_min > 20 ? environment->pool_min : 20;
	}
}

static void step_inputs_add(struct digest *digest, const struct environment_step *step)
{
	char count[32];

	digest_add_str_or_null(digest, step->strict ? "strict" : NULL);
	digest_add_str_or_null(digest, step->incremental ? "incremental" : NULL);
	snprintf(count, sizeof(count), "%zu", strv_count(step->inputs));
	digest_add_str_or_null(digest, step->inputs != NULL ? count : NULL);
	for (char **input = step->inputs; input != NULL && *input != NULL; input++) {
		digest_add_str_or_null(digest, *input);
	}
}

/* Counts stand before lists, so that no two environments give the same row of texts. Limits of time
 * are left out: raising one does not change what a step makes. */
static void fingerprint_set(struct environment *environment)
{
	struct digest *digest = digest_new();
	char counts[96];

	snprintf(counts, sizeof(counts), "%zu %zu %zu", environment->source_count,
		strv_count(environment->env), environment->step_count);
	digest_add_str(digest, "hob environment 2");
	digest_add_str(digest, counts);
	digest_add_str(digest, base_kind_name(environment->base));
	/* Where an archive lies does not matter, its digest says what it is. */
	digest_add_str_or_null(digest, environment->base_sha256);
	if (environment->base == BASE_DEB) {
		digest_add_str_or_null(digest, environment->base_location);
		digest_add_str_or_null(digest, environment->base_date);
		digest_add_str_or_null(digest, environment->base_mirror);
		digest_add_str_or_null(digest, environment->base_components);
		digest_add_str_or_null(digest, environment->base_security);
	}
	for (size_t i = 0; i < environment->source_count; i++) {
		digest_add_str_or_null(digest, environment->sources[i].url);
		digest_add_str_or_null(digest, environment->sources[i].ref);
		digest_add_str_or_null(digest, environment->sources[i].path);
		digest_add_str_or_null(digest, environment->sources[i].submodules);
	}
	environment_packages_digest(environment, digest);
	for (char **entry = environment->env; *entry != NULL; entry++) {
		digest_add_str_or_null(digest, *entry);
	}
	digest_add_str_or_null(digest, environment->user);
	digest_add_str_or_null(digest, environment->workdir);
	for (size_t i = 0; i < environment->step_count; i++) {
		digest_add_str_or_null(digest, environment->steps[i].name);
		digest_add_str_or_null(digest, environment->steps[i].run);
		for (char *const *name = environment->steps[i].secrets;
			name != NULL && *name != NULL; name++) {
			digest_add_str_or_null(digest, *name);
		}
		digest_add_str_or_null(
			digest, environment->steps[i].allow_failure ? "may fail" : NULL);
		step_inputs_add(digest, &environment->steps[i]);
	}
	digest_add_str_or_null(digest, environment->build_network ? "network" : NULL);
	digest_add_str_or_null(digest, environment->check.run);
	digest_end(digest, environment->fingerprint);
	digest_free(digest);
	environment_warm_fingerprint_set(environment);
}

static int environment_from_yaml(const char *name, const struct yaml_node *root,
	struct environment **ret_environment, struct error *err)
{
	CLEANUP(environment_free_p)
	struct environment *environment = xcalloc(1, sizeof(*environment));
	CLEANUP(free_p) char *folder = folder_of_file(name);
	struct settings_input in = {
		.settings = environment_settings(), .name = name, .folder = folder};
	int code;

	environment->file = xstrdup(name);
	environment->env = xcalloc(1, sizeof(*environment->env));
	environment->schedule.every_ms = -1;
	environment->pool_max = -1;
	environment->pool_hit_rate = -1;
	environment->idle_ms = -1;
	environment->pause_ms = -1;
	environment->max_age_ms = -1;
	code = settings_read(&in, root, environment, err);
	if (code == 0) {
		lines_set(environment, root);
		environment_complete(environment);
		code = environment_check_whole(environment, name, root, err);
	}
	if (code < 0) {
		return code;
	}
	fingerprint_set(environment);
	*ret_environment = steal_ptr(environment);
	return 0;
}

int environment_parse(const char *name, const char *text, size_t length,
	struct environment **ret_environment, struct error *err)
{
	CLEANUP(yaml_tree_free_p) struct yaml_node *root = NULL;
	int code = yaml_tree_parse(name, text, length, &root, err);

	return code < 0 ? code : environment_from_yaml(name, root, ret_environment, err);
}

int environment_load(const char *path, struct environment **ret_environment, struct error *err)
{
	CLEANUP(yaml_tree_free_p) struct yaml_node *root = NULL;
	int code = yaml_tree_load(path, &root, err);

	return code < 0 ? code : environment_from_yaml(path, root, ret_environment, err);
}

char *environment_explain(const struct environment *environment)
{
	struct buffer out;

	buffer_init(&out, 0);
	settings_write(environment_settings(), environment, &out);
	return buffer_steal(&out);
}

void environment_print_reference(void)
{
	CLEANUP(buffer_done) struct buffer out;

	buffer_init(&out, 0);
	settings_reference(environment_settings(), &out);
	fputs(buffer_text(&out), stdout);
}

void environment_free(struct environment *environment)
{
	if (environment == NULL) {
		return;
	}
	for (size_t i = 0; i < environment->source_count; i++) {
		free(environment->sources[i].url);
		free(environment->sources[i].ref);
		free(environment->sources[i].path);
		free(environment->sources[i].submodules);
		free(environment->sources[i].auth.type);
		free(environment->sources[i].auth.secret);
		free(environment->sources[i].auth.user);
		free(environment->sources[i].auth.app);
		free(environment->sources[i].auth.known_hosts);
	}
	for (size_t i = 0; i < environment->step_count; i++) {
		free(environment->steps[i].name);
		free(environment->steps[i].run);
		strv_free(environment->steps[i].secrets);
		strv_free(environment->steps[i].inputs);
	}
	environment_services_free(environment);
	environment_packages_free(environment);
	free(environment->sources);
	free(environment->steps);
	free(environment->check.run);
	free(environment->file);
	free(environment->name);
	free(environment->base_location);
	free(environment->base_sha256);
	free(environment->base_user);
	free(environment->base_secret);
	free(environment->base_date);
	free(environment->base_mirror);
	free(environment->base_components);
	free(environment->base_security);
	free(environment->base_keyring);
	strv_free(environment->env);
	free(environment->user);
	free(environment->lifecycle_type);
	free(environment->schedule.cron_text);
	free(environment->schedule.zone);
	free(environment->sync.at);
	free(environment->sync.run);
	free(environment->workdir);
	free(environment);
}
