/* hob exec: a command in a sandbox, with this process's streams and signals. */
#include "base/base64.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/exec_request.h"
#include "pool/cli/human.h"
#include "pool/cli/session.h"

#include <stdio.h>

struct exec_values {
	struct exec_options options;
	bool interactive, tty, detach;
};

static const struct option_row exec_rows[] = {
	{"interactive", 'i', OPTION_FLAG, NULL, offsetof(struct exec_values, interactive),
		"forward standard input even when it is a terminal (a pipe or file always is)"},
	{"tty", 't', OPTION_FLAG, NULL, offsetof(struct exec_values, tty),
		"give the command a terminal"},
	{"detach", 'd', OPTION_FLAG, NULL, offsetof(struct exec_values, detach),
		"let it run on, print its number for `hob attach`"},
	{"env", 'e', OPTION_LIST, "K=V", offsetof(struct exec_values, options.env),
		"set a variable; K alone passes on the value it has here"},
	{"cwd", 'w', OPTION_TEXT, "PATH", offsetof(struct exec_values, options.cwd),
		"folder to start in (default: the image's)"},
	{"user", 'u', OPTION_TEXT, "USER", offsetof(struct exec_values, options.user),
		"name or UID[:GID] inside (default: the image's)"},
	{"timeout", '\0', OPTION_DURATION, "DUR", offsetof(struct exec_values, options.timeout_ms),
		"kill the command after this long, e.g. 90s"},
};

static int exec_detached(struct call *call, const char *id, json_t *request, struct error *err)
{
	CLEANUP(json_decref_p) json_t *reply = NULL;
	int status;

	json_object_set_new(request, "detach", json_true());
	status = cli_call(call->cli, "POST", request, &reply, err, "/v1/sandboxes/%s/exec", id);
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
	} else {
		printf("%" JSON_INTEGER_FORMAT "\n",
			json_integer_value(json_object_get(reply, "exec")));
	}
	return 0;
}

/* A collected stream into the members that a captured exec has. */
static void add_stream(json_t *json, const char *name, const struct buffer *stream, bool cut)
{
	json_t *text = json_stringn(buffer_text(stream), stream->length);

	if (text == NULL) {
		CLEANUP(free_p) char *encoded = base64_encode(stream->data, stream->length);
		CLEANUP(free_p) char *key = xasprintf("%s_encoding", name);

		text = json_string(encoded);
		json_object_set_new(json, key, json_string("base64"));
	}
	json_object_set_new(json, name, text);
	if (cut) {
		CLEANUP(free_p) char *key = xasprintf("%s_truncated", name);

		json_object_set_new(json, key, json_true());
	}
}

static void print_result(const struct session_result *result)
{
	CLEANUP(json_decref_p)
	json_t *json = result->exit != NULL ? json_deep_copy(result->exit) : json_object();

	if (result->exit == NULL) {
		json_object_set_new(json, "exit_code", json_integer(result->exit_code));
	}
	add_stream(json, "stdout", &result->out, result->out_cut);
	add_stream(json, "stderr", &result->err, result->err_cut);
	human_print_json(json);
}

static int exec_attached(struct call *call, const char *id, json_t *request, struct error *err)
{
	const struct exec_values *values = call->values;
	struct session_spec spec = {
		.sandbox = id,
		.request = request,
		.tty = values->tty,
		.forward_stdin = values->interactive || !isatty(STDIN_FILENO),
		.collect = call->cli->json,
		.ret_refused = &call->exit_code,
	};
	struct session_result result = {0};
	int status = cli_socket(call->cli, &spec.socket, err);

	if (status >= 0) {
		status = session_run(&spec, &result, err);
	}
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		print_result(&result);
	} else if (json_is_true(json_object_get(result.exit, "timed_out"))) {
		fprintf(stderr, "hob: the command was killed when its --timeout was over\n");
	}
	call->exit_code = result.exit_code;
	session_result_done(&result);
	return 0;
}

static int exec_run(struct call *call, struct error *err)
{
	const struct exec_values *values = call->values;
	CLEANUP(free_p) char *id = NULL;
	CLEANUP(json_decref_p) json_t *request = NULL;
	int status;

	if (values->detach && (values->interactive || values->tty)) {
		return error_set(err, ERROR_USAGE, "--detach goes with neither -i nor -t");
	}
	status = exec_request_new(&values->options, call->operands + 1, &request, err);
	if (status >= 0) {
		status = cli_sandbox_id(call->cli, call->operands[0], &id, err);
	}
	if (status < 0) {
		return status;
	}
	return values->detach ? exec_detached(call, id, request, err)
			      : exec_attached(call, id, request, err);
}

const struct verb verb_exec = {
	.name = "exec",
	.group = "Sandboxes",
	.operands = "ID [--] CMD…",
	.summary = "Run a command in a sandbox",
	.details =
		"Standard output and error come separately, and the exit code is the command's, "
		"or\n"
		"128 + the signal that ended it; 127 for a command that is not there, 126 for one "
		"that\n"
		"cannot be run, as in a shell. Ctrl-C goes to the command; the third kills it.\n"
		"With --json the output is collected and printed with the exit code and times.\n\n"
		"  hob exec sb-0123 -- make -j4\n"
		"  hob exec -it sb-0123 vim README.md\n"
		"  git diff | hob exec sb-0123 git apply",
	VERB_OPTIONS(exec_rows, struct exec_values),
	.operands_min = 2,
	.operands_max = SIZE_MAX,
	.command_after = 1,
	.run = exec_run,
};
