/* Every file is looked at, whatever the others are like: one run shows all that is wrong. */
#include "pool/cli/env_check.h"

#include "base/json.h"
#include "base/memory.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "configs/packages/pin.h"
#include "pool/cli/human.h"
#include "pool/cli/options.h"

#include <stdio.h>

#define PROGRAM "hob env check"

struct values {
	bool json, help, explain;
	const char *config;
};

static const struct option_row options[] = {
	{"explain", '\0', OPTION_FLAG, NULL, offsetof(struct values, explain),
		"print each environment with every default written out"},
	{"json", '\0', OPTION_FLAG, NULL, offsetof(struct values, json),
		"print JSON, for programs"},
	{"config", '\0', OPTION_TEXT, "FILE", offsetof(struct values, config),
		"hob.yaml whose build_every stands in for schedule.every"},
	{"help", 'h', OPTION_FLAG, NULL, offsetof(struct values, help), "print this help"},
};

static char *explain(struct environment *environment, const struct config *config)
{
	if (config != NULL) {
		environment->schedule.every_ms =
			schedule_of(environment, config->build_every_ms).every_ms;
	}
	return environment_explain(environment);
}

static json_t *file_json(const char *file, const struct environment *environment,
	const char *explained, const struct error *err)
{
	json_t *json = json_object();

	json_object_set_new(json, "file", json_str_or_null(file));
	json_object_set_new(json, "ok", json_boolean(environment != NULL));
	if (environment != NULL) {
		json_object_set_new(json, "environment", json_str_or_null(environment->name));
		json_object_set_new(json, "fingerprint", json_string(environment->fingerprint));
	} else {
		json_object_set_new(json, "message", json_str_or_null(err->message));
		json_object_set_new(json, "hint",
			err->hint[0] != '\0' ? json_str_or_null(err->hint) : json_null());
	}
	if (explained != NULL) {
		json_object_set_new(json, "explained", json_str_or_null(explained));
	}
	return json;
}

/* Messages begin with the file already, when it could be read at all. */
static void file_print(const char *file, const struct environment *environment,
	const char *explained, const struct error *err)
{
	if (environment == NULL) {
		fflush(stdout);
		if (strstr(err->message, file) != NULL) {
			fprintf(stderr, "%s\n", err->message);
		} else {
			fprintf(stderr, "%s: %s\n", file, err->message);
		}
		if (err->hint[0] != '\0') {
			fprintf(stderr, "  hint: %s\n", err->hint);
		}
	} else if (explained != NULL) {
		printf("# %s\n%s", file, explained);
	} else {
		printf("%s: ok (environment %s)\n", file, environment->name);
	}
}

static bool file_check(
	const char *file, const struct values *values, const struct config *config, json_t *lines)
{
	CLEANUP(environment_free_p) struct environment *environment = NULL;
	CLEANUP(free_p) char *explained = NULL;
	struct error err = ERROR_INIT;
	bool good = environment_load(file, &environment, &err) == 0;

	if (!good) {
		pin_explain(file, &err);
	} else if (environment_check_pinned(environment, &err) < 0) {
		environment_free_p(&environment);
		environment = NULL;
		good = false;
	}
	if (good && values->explain) {
		explained = explain(environment, config);
	}
	if (values->json) {
		json_array_append_new(lines, file_json(file, environment, explained, &err));
	} else {
		file_print(file, environment, explained, &err);
	}
	return good;
}

static void print_help(void)
{
	puts("Usage: hob env check [options] FILE…\n\n"
	     "Reads environment files and says what is wrong with them, without using them. Ends "
	     "with\n"
	     "0 when all are good, else with 2.\n");
	options_print(options, ARRAY_SIZE(options));
	puts("\nWhat a file may say:\n");
	environment_print_reference();
}

static int files_check(
	char *const *files, size_t count, const struct values *values, const struct config *config)
{
	CLEANUP(json_decref_p) json_t *lines = json_array();
	CLEANUP(json_decref_p) json_t *whole = json_object();
	bool good = true;

	for (size_t i = 0; i < count; i++) {
		good = file_check(files[i], values, config, lines) && good;
	}
	if (values->json) {
		json_object_set_new(whole, "ok", json_boolean(good));
		json_object_set(whole, "files", lines);
		human_print_json(whole);
	}
	return good ? 0 : error_exit_code(ERROR_INVALID);
}

int env_check_main(int argc, char **argv)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	struct values values = {0};
	const struct option_set set = {options, ARRAY_SIZE(options), &values};
	struct error err = ERROR_INIT;
	size_t count = 0;

	if (argc > 0 && options_parse(&set, 1, OPTIONS_NO_COMMAND, argv + 1, &count, &err) < 0) {
		error_print(PROGRAM, &err);
		return error_exit_code(err.kind);
	}
	if (values.help) {
		print_help();
		return 0;
	}
	if (count == 0) {
		error_set(&err, ERROR_USAGE, "which file?");
		error_hint(&err, "%s FILE…; %s --help", PROGRAM, PROGRAM);
		error_print(PROGRAM, &err);
		return error_exit_code(err.kind);
	}
	if (values.explain && config_load(values.config, &config, &err) < 0) {
		error_print(PROGRAM, &err);
		return error_exit_code(err.kind);
	}
	return files_check(argv + 1, count, &values, config);
}
