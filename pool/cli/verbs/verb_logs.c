/* hob logs: what the services of a sandbox said, and starting one again. */
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/http.h"
#include "pool/cli/table.h"

#include <stdio.h>

struct logs_values {
	bool follow, restart;
};

static const struct option_row logs_rows[] = {
	{"follow", 'f', OPTION_FLAG, NULL, offsetof(struct logs_values, follow),
		"go on with what comes, until the sandbox ends"},
	{"restart", '\0', OPTION_FLAG, NULL, offsetof(struct logs_values, restart),
		"end the service and start it again, instead"},
};

static int on_log(void *context, const void *data, size_t length, struct error *err)
{
	(void)context;
	if (fwrite(data, 1, length, stdout) != length || fflush(stdout) != 0) {
		return error_sys(err, errno, "write to standard output");
	}
	return 0;
}

static int print_log(
	struct cli *cli, const char *id, const char *name, bool follow, struct error *err)
{
	CLEANUP(free_p) char *escaped = cli_escape(name);
	CLEANUP(free_p)
	char *path = xasprintf(
		"/v1/sandboxes/%s/services/%s/log%s", id, escaped, follow ? "?follow=1" : "");
	const struct http_request request = {.method = "GET", .path = path, .data = on_log};
	struct http_reply reply = {0};
	struct http *http = NULL;
	int status = cli_http(cli, &http, err);

	if (status >= 0) {
		status = http_run(http, &request, &reply, err);
		json_decref(reply.json);
	}
	return status;
}

static void print_services(const json_t *services)
{
	static const struct table_column columns[] = {{"SERVICE", false}, {"STATE", false},
		{"PID", true}, {"RESTARTS", true}, {"FOR", true}, {"MESSAGE", false}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	size_t i;
	json_t *service;

	json_array_foreach (services, i, service) {
		CLEANUP(free_p) char *state = human_member(service, "state");
		char text[HUMAN_SIZE];

		table_add_member(table, service, "name");
		table_add_styled(table, state, style_of_state(state));
		table_add_member(table, service, "pid");
		table_add_member(table, service, "restarts");
		human_age(text, json_string_value(json_object_get(service, "since")));
		table_add(table, text);
		table_add_member(table, service, "message");
	}
	table_print(table, "no services: its environment has none");
}

static int restart(struct cli *cli, const char *id, const char *name, struct error *err)
{
	CLEANUP(free_p) char *escaped = cli_escape(name);
	CLEANUP(json_decref_p) json_t *service = NULL;
	int status = cli_call(cli, "POST", NULL, &service, err,
		"/v1/sandboxes/%s/services/%s/restart", id, escaped);

	if (status < 0) {
		return status;
	}
	if (cli->json) {
		human_print_json(service);
	} else {
		printf("%s is started again\n", name);
	}
	return 0;
}

/* The only service there is, when none is named; otherwise they are listed. */
static int show(struct call *call, const char *id, struct error *err)
{
	const struct logs_values *values = call->values;
	CLEANUP(json_decref_p) json_t *reply = NULL;
	const json_t *services;
	int status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/sandboxes/%s/services", id);

	if (status < 0) {
		return status;
	}
	services = json_object_get(reply, "services");
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	if (json_array_size(services) == 1) {
		const json_t *name = json_object_get(json_array_get(services, 0), "name");

		return print_log(call->cli, id, json_string_value(name), values->follow, err);
	}
	print_services(services);
	return 0;
}

static int logs_run(struct call *call, struct error *err)
{
	const struct logs_values *values = call->values;
	CLEANUP(free_p) char *id = NULL;
	int status = cli_sandbox_id(call->cli, call->operands[0], &id, err);

	if (status < 0) {
		return status;
	}
	if (values->restart && call->operand_count < 2) {
		return error_set(err, ERROR_USAGE, "--restart: of which service?");
	}
	if (call->operand_count < 2) {
		return show(call, id, err);
	}
	if (values->restart) {
		return restart(call->cli, id, call->operands[1], err);
	}
	if (call->cli->json) {
		return error_set(err, ERROR_USAGE, "a log is text: no --json here");
	}
	return print_log(call->cli, id, call->operands[1], values->follow, err);
}

const struct verb verb_logs = {
	.name = "logs",
	.group = "Sandboxes",
	.operands = "ID [SERVICE]",
	.summary = "Print what a service of a sandbox said; without one, list them",
	.details =
		"The last 64 KiB of a service are kept. A sandbox with a single service needs no "
		"name.",
	VERB_OPTIONS(logs_rows, struct logs_values),
	.operands_min = 1,
	.operands_max = 2,
	.run = logs_run,
};
