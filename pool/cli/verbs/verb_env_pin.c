/* hob env pin: what an environment names without an exact version, digest or date gets the one of
 * now. */
#include "base/buffer.h"
#include "base/memory.h"
#include "base/process.h"
#include "configs/packages/pin.h"
#include "configs/packages/resolve.h"
#include "pool/cli/cli.h"
#include "pool/cli/human.h"

#include <stdio.h>

struct pin_values {
	bool dry_run;
};

static const struct option_row pin_rows[] = {
	{"dry-run", '\0', OPTION_FLAG, NULL, offsetof(struct pin_values, dry_run),
		"write nothing; show what would change"},
};

static json_t *file_json(const char *file, const struct pin_result *result, bool dry_run)
{
	json_t *json = json_object(), *changes = json_array();

	for (size_t i = 0; i < result->count; i++) {
		const struct pin_change *change = &result->changes[i];
		json_t *one = json_object();

		json_object_set_new(one, "key", json_string(change->key));
		json_object_set_new(one, "line", json_integer(change->line));
		json_object_set_new(one, "column", json_integer(change->column));
		json_object_set_new(one, "before", json_str_or_null(change->before));
		json_object_set_new(one, "after", json_str_or_null(change->after));
		json_array_append_new(changes, one);
	}
	json_object_set_new(json, "file", json_str_or_null(file));
	json_object_set_new(json, "written", json_boolean(!dry_run && result->count > 0));
	json_object_set_new(json, "changes", changes);
	return json;
}

static void print_file(const char *file, const struct pin_result *result, bool dry_run)
{
	CLEANUP(buffer_done) struct buffer diff = {0};

	if (result->count == 0) {
		printf("%s: every version is exact\n", file);
		return;
	}
	if (dry_run) {
		pin_diff(file, result, &diff);
		fputs(buffer_text(&diff), stdout);
		return;
	}
	for (size_t i = 0; i < result->count; i++) {
		const struct pin_change *change = &result->changes[i];

		printf("%s:%d: %s: %s -> %s\n", file, change->line, change->key, change->before,
			change->after);
	}
}

static int take_answer(const char *output, char **ret_digest, struct error *err)
{
	CLEANUP(json_decref_p) json_t *answer = NULL;
	const char *digest;

	if (json_parse_object(output, strlen(output), &answer, err) < 0) {
		return error_set(err, ERROR_INTERNAL, "hob-build gave no answer");
	}
	digest = json_string_value(json_object_get(answer, "digest"));
	if (digest != NULL) {
		*ret_digest = xstrdup(digest);
		return 0;
	}
	return json_to_error(
		json_object_get(answer, "error"), ERROR_INTERNAL, "hob-build gave no answer", err);
}

/* Registries are asked by hob-build, which gives up its rights first. */
static int ask_digest(
	void *context, const struct pin_image *image, char **ret_digest, struct error *err)
{
	const struct cli *cli = context;
	const char *const options[][2] = {{"--resolve-base", image->reference},
		{"--user", image->user}, {"--secret", image->secret},
		{"--config", cli->config_option}};
	CLEANUP(free_p) char *path = NULL;
	CLEANUP(free_p) char *output = NULL;
	CLEANUP(strv_free_p) char **argv = NULL;
	int code, status = process_sibling("hob-build", &path, err);

	if (status < 0) {
		return status;
	}
	strv_add(&argv, path);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (options[i][1] != NULL) {
			strv_add(&argv, options[i][0]);
			strv_add(&argv, options[i][1]);
		}
	}
	status = process_run(argv, &output, &code, err);
	return status < 0 ? status : take_answer(output, ret_digest, err);
}

static int env_pin_run(struct call *call, struct error *err)
{
	const struct pin_values *values = call->values;
	const struct pin_asking asking = {package_resolve, ask_digest, call->cli};
	CLEANUP(json_decref_p) json_t *json = json_object();
	json_t *files = json_array();
	int status = 0;

	json_object_set_new(json, "files", files);
	for (size_t i = 0; status == 0 && i < call->operand_count; i++) {
		struct pin_result result = {0};

		status = pin_file(call->operands[i], values->dry_run, &asking, &result, err);
		if (status == 0 && call->cli->json) {
			json_array_append_new(
				files, file_json(call->operands[i], &result, values->dry_run));
		} else if (status == 0) {
			print_file(call->operands[i], &result, values->dry_run);
		}
		pin_result_done(&result);
	}
	if (status == 0 && call->cli->json) {
		human_print_json(json);
	}
	return status;
}

const struct verb verb_env_pin = {
	.name = "pin",
	.operands = "FILE…",
	.summary = "Write exact versions, digests and dates into environment files",
	.details =
		"Asks this machine's apt-cache, npm and pip which version each name that is not\n"
		"exact stands for now, and replaces just that text. A base of another\n"
		"distribution has versions of its own: take those of packages.apt from there.\n"
		"A base oci:NAME:TAG gets the digest that its registry (or layout) has now, and\n"
		"deb:SUITE the date of now.",
	VERB_OPTIONS(pin_rows, struct pin_values),
	.operands_min = 1,
	.operands_max = SIZE_MAX,
	.run = env_pin_run,
};
