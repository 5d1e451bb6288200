/* hob shell: an interactive shell in a sandbox, or in a new one that goes when the shell ends. */
#include "base/memory.h"
#include "pool/cli/claim.h"
#include "pool/cli/cli.h"
#include "pool/cli/exec_request.h"
#include "pool/cli/session.h"

#include <stdio.h>

struct shell_values {
	struct exec_options options;
	bool keep;
};

static const struct option_row shell_rows[] = {
	{"keep", 'k', OPTION_FLAG, NULL, offsetof(struct shell_values, keep),
		"keep the sandbox that was made for an environment"},
	{"env", 'e', OPTION_LIST, "K=V", offsetof(struct shell_values, options.env),
		"set a variable; K alone passes on the value it has here"},
	{"cwd", 'w', OPTION_TEXT, "PATH", offsetof(struct shell_values, options.cwd),
		"folder to start in (default: the image's)"},
	{"user", 'u', OPTION_TEXT, "USER", offsetof(struct shell_values, options.user),
		"name or UID[:GID] inside (default: the image's)"},
};

/* bash where the image has it. Not a login shell: /etc/profile would undo the image's PATH. */
static char *const shell_argv[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
	(char *)(uintptr_t) "command -v bash >/dev/null 2>&1 && exec bash; exec sh", NULL};

static int environment_exists(
	struct cli *cli, const char *name, bool *ret_exists, struct error *err)
{
	CLEANUP(free_p) char *escaped = cli_escape(name);
	CLEANUP(json_decref_p) json_t *reply = NULL;
	int status = cli_call(cli, "GET", NULL, &reply, err, "/v1/environments/%s", escaped);

	if (status < 0 && status != -(int)ERROR_NOT_FOUND) {
		return status;
	}
	*ret_exists = status >= 0;
	return 0;
}

/* The sandbox that `name` means; one made for it when it is an environment. */
static int find_or_make(
	struct cli *cli, const char *name, char **ret_id, bool *ret_made, struct error *err)
{
	CLEANUP(json_decref_p) json_t *reply = NULL;
	bool exists = false;
	int status;

	if (!str_starts(name, "sb-")) {
		status = environment_exists(cli, name, &exists, err);
		if (status < 0) {
			return status;
		}
	}
	if (!exists) {
		status = cli_sandbox_id(cli, name, ret_id, err);
		if (status == -(int)ERROR_NOT_FOUND) {
			error_set(err, ERROR_NOT_FOUND, "no sandbox or environment \"%s\"", name);
			error_hint(err, "`hob ls` and `hob env ls` show them");
		}
		return status;
	}
	status = claim_sandbox(cli, name, &claim_defaults, &reply, err);
	if (status >= 0) {
		claim_explain(reply);
		*ret_id = xstrdup(json_string_value(json_object_get(reply, "id")));
		*ret_made = true;
	}
	return status;
}

static int shell_session(struct call *call, const char *id, struct error *err)
{
	const struct shell_values *values = call->values;
	struct session_spec spec = {.sandbox = id,
		.tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO),
		.forward_stdin = true,
		.ret_refused = &call->exit_code};
	struct session_result result = {0};
	json_t *env;
	int status = exec_request_new(&values->options, shell_argv, &spec.request, err);

	if (status < 0) {
		return status;
	}
	env = json_object_get(spec.request, "env");
	if (spec.tty && json_object_get(env, "TERM") == NULL && getenv("TERM") != NULL) {
		json_object_set_new(env, "TERM", json_string(getenv("TERM")));
	}
	status = cli_socket(call->cli, &spec.socket, err);
	if (status >= 0) {
		status = session_run(&spec, &result, err);
	}
	if (status >= 0) {
		call->exit_code = result.exit_code;
		session_result_done(&result);
	}
	json_decref(spec.request);
	return status;
}

static int shell_run(struct call *call, struct error *err)
{
	const struct shell_values *values = call->values;
	CLEANUP(free_p) char *id = NULL;
	struct error removal = ERROR_INIT;
	bool made = false;
	int status;

	if (call->cli->json) {
		return error_set(
			err, ERROR_USAGE, "hob shell has no --json: `hob exec --json` has");
	}
	status = find_or_make(call->cli, call->operands[0], &id, &made, err);
	if (status < 0) {
		return status;
	}
	status = shell_session(call, id, err);
	if (made && values->keep) {
		fprintf(stderr, "kept: %s\n", id);
	} else if (made && cli_call(call->cli, "DELETE", NULL, NULL, &removal, "/v1/sandboxes/%s",
				   id) < 0) {
		error_wrap(&removal, "remove %s", id);
		if (status >= 0) {
			error_copy(err, &removal);
			return -(int)removal.kind;
		}
		error_print("hob", &removal);
	}
	return status;
}

const struct verb verb_shell = {
	.name = "shell",
	.group = "Sandboxes",
	.operands = "ID|ENV",
	.summary = "Open a shell in a sandbox, or in a new one of an environment",
	.details = "A sandbox made for an environment goes when the shell ends, unless --keep is "
		   "given.\n"
		   "Without a terminal the shell reads commands from standard input.",
	VERB_OPTIONS(shell_rows, struct shell_values),
	.operands_min = 1,
	.operands_max = 1,
	.run = shell_run,
};
