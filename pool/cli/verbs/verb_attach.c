/* hob attach and hob ps: commands that already run in a sandbox. */
#include "base/base64.h"
#include "base/io.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/http.h"
#include "pool/cli/sse.h"
#include "pool/cli/table.h"

#include <stdio.h>

/* hobd sends pieces of 64 KiB; escaped or in Base64 they grow. */
#define EVENT_MAX (1024 * 1024)

struct attach {
	struct sse *sse;
	json_t *exit;
};

static int write_output(const json_t *event, int fd, struct error *err)
{
	const json_t *data = json_object_get(event, "data");
	const char *encoding = json_string_value(json_object_get(event, "encoding"));
	struct buffer bytes;
	int status;

	if (!json_is_string(data)) {
		return 0;
	}
	if (encoding == NULL) {
		return io_write_full(fd, json_string_value(data), json_string_length(data), err);
	}
	buffer_init(&bytes, EVENT_MAX);
	if (streq(encoding, "base64") &&
		base64_decode(json_string_value(data), json_string_length(data), &bytes)) {
		status = io_write_full(fd, bytes.data, bytes.length, err);
	} else {
		status = error_set(
			err, ERROR_CORRUPT, "output in an unknown encoding: %s", encoding);
	}
	buffer_done(&bytes);
	return status;
}

static int on_event(void *context, const char *name, const char *data, size_t length,
	const char *last_id, struct error *err)
{
	struct attach *attach = context;
	CLEANUP(json_decref_p) json_t *event = NULL;
	int status = json_parse_object(data, length, &event, err);

	(void)last_id;
	if (status < 0) {
		return error_wrap(err, "event \"%s\" of hobd", name);
	}
	if (streq(name, "stdout")) {
		return write_output(event, STDOUT_FILENO, err);
	}
	if (streq(name, "stderr")) {
		return write_output(event, STDERR_FILENO, err);
	}
	if (streq(name, "exit") && attach->exit == NULL) {
		attach->exit = steal_ptr(event);
	} else if (streq(name, "error")) {
		CLEANUP(free_p) char *text = xasprintf("{\"error\":%.*s}", (int)length, data);

		return http_error_from_reply(0, text, strlen(text), err);
	}
	return 0;
}

static int on_data(void *context, const void *data, size_t length, struct error *err)
{
	struct attach *attach = context;

	return sse_feed(attach->sse, data, length, err);
}

static int attach_run(struct call *call, struct error *err)
{
	struct attach attach = {.sse = sse_new(EVENT_MAX, on_event, &attach)};
	CLEANUP(free_p) char *id = NULL;
	CLEANUP(free_p) char *path = NULL;
	CLEANUP(free_p) char *number = cli_escape(call->operands[1]);
	struct http *http = NULL;
	struct http_reply reply = {0};
	int status = cli_sandbox_id(call->cli, call->operands[0], &id, err);

	if (status >= 0) {
		status = cli_http(call->cli, &http, err);
	}
	if (status >= 0) {
		path = xasprintf("/v1/sandboxes/%s/execs/%s", id, number);
		const struct http_request request = {.method = "GET",
			.path = path,
			.accept = "text/event-stream",
			.data = on_data,
			.context = &attach};

		fflush(stdout);
		status = http_run(http, &request, &reply, err);
		json_decref(reply.json);
	}
	if (status >= 0 && attach.exit == NULL) {
		status = error_set(
			err, ERROR_UNAVAILABLE, "the stream ended before the command did");
	}
	if (status >= 0) {
		const json_t *code = json_object_get(attach.exit, "exit_code");

		call->exit_code = json_is_integer(code) ? (int)(json_integer_value(code) & 255) : 1;
	}
	json_decref(attach.exit);
	sse_free(attach.sse);
	return status;
}

/* A word as a shell would take it back. */
static void add_quoted(struct buffer *line, const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_-./=:,+@%^";

	if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
		buffer_add_str(line, word);
		return;
	}
	buffer_add_str(line, "'");
	for (; *word != '\0'; word++) {
		if (*word == '\'') {
			buffer_add_str(line, "'\\''");
		} else {
			buffer_add(line, word, 1);
		}
	}
	buffer_add_str(line, "'");
}

static void add_command(struct table *table, const json_t *argv)
{
	struct buffer line;
	size_t i;
	json_t *word;

	buffer_init(&line, 0);
	json_array_foreach (argv, i, word) {
		buffer_add_str(&line, i > 0 ? " " : "");
		add_quoted(&line, json_is_string(word) ? json_string_value(word) : "?");
	}
	table_add(table, buffer_text(&line));
	buffer_done(&line);
}

static int ps_run(struct call *call, struct error *err)
{
	static const struct table_column columns[] = {
		{"EXEC", true}, {"STATE", false}, {"PID", true}, {"AGE", true}, {"COMMAND", false}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *id = NULL;
	size_t i;
	json_t *exec;
	int status = cli_sandbox_id(call->cli, call->operands[0], &id, err);

	if (status >= 0) {
		status =
			cli_call(call->cli, "GET", NULL, &reply, err, "/v1/sandboxes/%s/execs", id);
	}
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	json_array_foreach (json_object_get(reply, "execs"), i, exec) {
		bool running = json_is_true(json_object_get(exec, "running"));
		CLEANUP(free_p) char *code = human_member(exec, "exit_code");
		CLEANUP(free_p)
		char *state = running ? xstrdup("running") : xasprintf("ended %s", code);
		char age[HUMAN_SIZE];

		human_age(age, json_string_value(json_object_get(exec, "started_at")));
		table_add_member(table, exec, "exec");
		table_add_styled(table, state, running ? STYLE_GOOD : STYLE_DIM);
		table_add_member(table, exec, "pid");
		table_add(table, age);
		add_command(table, json_object_get(exec, "argv"));
	}
	table_print(table, "no command runs in it");
	return 0;
}

const struct verb verb_attach = {
	.name = "attach",
	.group = "Sandboxes",
	.operands = "ID EXEC",
	.summary = "Follow a command started with `hob exec --detach`",
	.details =
		"Prints the output that was kept, then what comes, and exits as the command does.\n"
		"Ctrl-C leaves the command running.",
	.operands_min = 2,
	.operands_max = 2,
	.run = attach_run,
};

const struct verb verb_ps = {
	.name = "ps",
	.group = "Sandboxes",
	.operands = "ID",
	.summary = "List the commands of a sandbox",
	.operands_min = 1,
	.operands_max = 1,
	.run = ps_run,
};
