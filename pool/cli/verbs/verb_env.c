/* hob env: the environments that hobd knows, and a check of their files that needs no hobd. */
#include "base/clock.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/env_check.h"
#include "pool/cli/table.h"

#include <stdio.h>

static void format_every(char *text, const json_t *environment)
{
	int64_t ms = json_integer_value(json_object_get(environment, "every_ms"));
	const char *cron = json_string_value(json_object_get(environment, "cron"));

	if (cron != NULL) {
		snprintf(text, CLOCK_TEXT_SIZE, "%s", cron);
	} else if (ms > 0) {
		duration_format(text, ms);
	} else {
		snprintf(text, CLOCK_TEXT_SIZE, "when told");
	}
}

static void add_environment(struct table *table, const json_t *environment)
{
	CLEANUP(free_p) char *commit = human_commit(environment);
	bool building = json_is_true(json_object_get(environment, "building"));
	char text[HUMAN_SIZE];
	char every[CLOCK_TEXT_SIZE];

	table_add_member(table, environment, "name");
	table_add_member(table, environment, "base");
	table_add_member(table, environment, "head");
	table_add(table, commit);
	human_age(text, json_string_value(json_object_get(environment, "built_at")));
	table_add(table, text);
	format_every(every, environment);
	table_add(table, every);
	human_until(text, json_string_value(json_object_get(environment, "next_due_at")));
	table_add_styled(table, building ? "building" : text, building ? STYLE_WARN : STYLE_PLAIN);
	table_add_member(table, environment, "source_url");
}

static void print_failures(const json_t *reply)
{
	size_t i;
	json_t *failure;

	fflush(stdout);
	json_array_foreach (json_object_get(reply, "failures"), i, failure) {
		CLEANUP(free_p) char *file = human_member(failure, "file");
		CLEANUP(free_p) char *message = human_member(failure, "message");

		fprintf(stderr, "not used: %s: %s\n", file, message);
	}
}

static int env_ls_run(struct call *call, struct error *err)
{
	static const struct table_column columns[] = {{"NAME", false}, {"BASE", false},
		{"IMAGE", false}, {"COMMIT", false}, {"BUILT", true}, {"EVERY", true},
		{"NEXT", true}, {"SOURCE", false}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	CLEANUP(json_decref_p) json_t *reply = NULL;
	size_t i;
	json_t *environment;
	int status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/environments");

	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	json_array_foreach (json_object_get(reply, "environments"), i, environment) {
		add_environment(table, environment);
	}
	table_print(table, "no environments: put a YAML file into the environments folder");
	print_failures(reply);
	return 0;
}

static int env_info_run(struct call *call, struct error *err)
{
	static const char *const members[][2] = {{"Name", "name"}, {"File", "file"},
		{"Source", "source_url"}, {"Ref", "ref"}, {"Base", "base"}, {"Image", "head"},
		{"Commit", "commit"}, {"Built", "built_at"}, {"Next build", "next_due_at"},
		{"Building", "building"}};
	CLEANUP(free_p) char *escaped = cli_escape(call->operands[0]);
	CLEANUP(json_decref_p) json_t *reply = NULL;
	char every[CLOCK_TEXT_SIZE];
	int status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/environments/%s", escaped);

	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	human_print_members(reply, members, ARRAY_SIZE(members));
	format_every(every, reply);
	human_print_field("Every", every);
	return 0;
}

static int env_check_run(struct call *call, struct error *err)
{
	(void)err;
	call->exit_code = cli_run_part(call->cli, "hob env check", env_check_main, call->operands);
	return 0;
}

static const struct verb env_ls = {
	.name = "ls",
	.operands = "",
	.summary = "List the environments, and the files that are not used because of errors",
	.run = env_ls_run,
};

static const struct verb env_info = {
	.name = "info",
	.operands = "NAME",
	.summary = "Show all about one",
	.operands_min = 1,
	.operands_max = 1,
	.run = env_info_run,
};

static const struct verb env_check = {
	.name = "check",
	.operands = "FILE…",
	.summary = "Check environment files without using them",
	.raw = true,
	.run = env_check_run,
};

static const struct verb *const env_parts[] = {
	&env_ls, &env_info, &env_check, &verb_env_import, &verb_env_pin, NULL};

const struct verb verb_env = {
	.name = "env",
	.group = "Environments and images",
	.summary = "Look at environments and check their files",
	.parts = env_parts,
};
