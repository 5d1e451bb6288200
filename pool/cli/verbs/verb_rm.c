/* hob rm: ends sandboxes. One that fails does not keep the others. */
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/human.h"

#include <stdio.h>

struct rm_values {
	bool all, yes;
	const char *environment;
};

static const struct option_row rm_rows[] = {
	{"all", 'a', OPTION_FLAG, NULL, offsetof(struct rm_values, all),
		"all that somebody holds (claimed); the pool's ready ones stay"},
	{"env", 'e', OPTION_TEXT, "ENV", offsetof(struct rm_values, environment),
		"with --all: only those of an environment"},
	{"yes", 'y', OPTION_FLAG, NULL, offsetof(struct rm_values, yes),
		"with --all on a terminal: do not ask"},
};

static int list_claimed(
	struct cli *cli, const char *environment, char ***ret_ids, struct error *err)
{
	CLEANUP(free_p) char *escaped = environment != NULL ? cli_escape(environment) : NULL;
	CLEANUP(json_decref_p) json_t *reply = NULL;
	size_t i;
	json_t *sandbox;
	int status = cli_call(cli, "GET", NULL, &reply, err, "/v1/sandboxes?state=claimed%s%s",
		escaped != NULL ? "&environment=" : "", escaped != NULL ? escaped : "");

	if (status < 0) {
		return status;
	}
	json_array_foreach (json_object_get(reply, "sandboxes"), i, sandbox) {
		strv_add(ret_ids, json_string_value(json_object_get(sandbox, "id")));
	}
	return 0;
}

static bool agreed(size_t count)
{
	char answer[8] = "";

	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
		return true;
	}
	fprintf(stderr, "End %zu claimed sandbox%s and all that runs in %s? [y/N] ", count,
		count == 1 ? "" : "es", count == 1 ? "it" : "them");
	return fgets(answer, sizeof(answer), stdin) != NULL &&
	       (answer[0] == 'y' || answer[0] == 'Y');
}

static int remove_one(struct call *call, const char *word, struct error *err)
{
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *id = NULL;
	int status = cli_sandbox_id(call->cli, word, &id, err);

	if (status >= 0) {
		status = cli_call(call->cli, "DELETE", NULL, &reply, err, "/v1/sandboxes/%s", id);
	}
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		json_print(reply);
	} else {
		puts(id);
	}
	return 0;
}

static int rm_run(struct call *call, struct error *err)
{
	const struct rm_values *values = call->values;
	CLEANUP(strv_free_p) char **listed = NULL;
	char **ids = call->operands;

	if (values->all ? call->operand_count > 0 : call->operand_count == 0) {
		return error_set(err, ERROR_USAGE, "hob rm needs ids, or --all");
	}
	if (values->environment != NULL && !values->all) {
		return error_set(err, ERROR_USAGE, "--env goes with --all");
	}
	if (values->all) {
		int status = list_claimed(call->cli, values->environment, &listed, err);

		if (status < 0) {
			return status;
		}
		if (listed == NULL) {
			fprintf(stderr, "no claimed sandboxes\n");
			return 0;
		}
		if (!values->yes && !agreed(strv_count(listed))) {
			return error_set(err, ERROR_CANCELLED, "nothing removed");
		}
		ids = listed;
	}
	return cli_each(call, ids, remove_one, err);
}

const struct verb verb_rm = {
	.name = "rm",
	.group = "Sandboxes",
	.operands = "ID… | --all",
	.summary = "End sandboxes, and wait until they are gone",
	VERB_OPTIONS(rm_rows, struct rm_values),
	.operands_max = SIZE_MAX,
	.run = rm_run,
};
