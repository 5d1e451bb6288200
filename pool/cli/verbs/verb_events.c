/* hob events: what happened to a sandbox since its claim. */
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/http.h"
#include "pool/cli/human.h"
#include "pool/cli/sse.h"

#include <stdio.h>

#define EVENT_BYTES_MAX (1u << 20)
#define TIME_LENGTH 19 /* of "2026-11-21T18:16:07" */

struct events_values {
	bool follow;
	const char *after;
};

static const struct option_row events_rows[] = {
	{"follow", 'f', OPTION_FLAG, NULL, offsetof(struct events_values, follow),
		"go on with what comes, until the sandbox ends"},
	{"after", '\0', OPTION_TEXT, "N", offsetof(struct events_values, after),
		"only those after number N"},
};

struct printer {
	struct sse *sse;
	bool json;
};

/* "key=value" for each member but the time. */
static void print_members(json_t *event)
{
	const char *key;
	json_t *value;

	json_object_foreach (event, key, value) {
		CLEANUP(free_p) char *text = NULL;

		if (streq(key, "at") || json_is_null(value)) {
			continue;
		}
		text = json_is_string(value) ? human_member(event, key)
					     : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY |
									 JSON_REAL_PRECISION(12));
		printf("  %s=%s", key, text);
	}
	putchar('\n');
}

static int on_event(void *context, const char *name, const char *data, size_t length,
	const char *last_id, struct error *err)
{
	const struct printer *printer = context;
	CLEANUP(json_decref_p) json_t *event = NULL;
	const char *at;
	int status = json_parse_object(data, length, &event, err);

	if (status < 0) {
		return error_wrap(err, "an event of hobd");
	}
	if (printer->json) {
		json_object_set_new(
			event, "id", json_integer((json_int_t)strtoll(last_id, NULL, 10)));
		json_object_set_new(event, "event", json_str_or_null(name));
		json_print(event);
	} else {
		at = json_string_value(json_object_get(event, "at"));
		printf("%6s  %.*s  %-12s", last_id, TIME_LENGTH, at != NULL ? at : "", name);
		print_members(event);
	}
	return fflush(stdout) == 0 ? 0 : error_sys(err, errno, "write to standard output");
}

static int on_data(void *context, const void *data, size_t length, struct error *err)
{
	const struct printer *printer = context;

	return sse_feed(printer->sse, data, length, err);
}

static int events_run(struct call *call, struct error *err)
{
	const struct events_values *values = call->values;
	struct printer printer = {.json = call->cli->json};
	CLEANUP(free_p) char *id = NULL;
	CLEANUP(free_p) char *path = NULL;
	CLEANUP(free_p) char *after = NULL;
	struct http_request request = {.method = "GET", .data = on_data, .context = &printer};
	struct http_reply reply = {0};
	struct http *http = NULL;
	int status = cli_sandbox_id(call->cli, call->operands[0], &id, err);

	if (status < 0 || (status = cli_http(call->cli, &http, err)) < 0) {
		return status;
	}
	after = cli_escape(values->after != NULL ? values->after : "0");
	path = xasprintf(
		"/v1/sandboxes/%s/events?after=%s&follow=%d", id, after, values->follow ? 1 : 0);
	request.path = path;
	printer.sse = sse_new(EVENT_BYTES_MAX, on_event, &printer);
	status = http_run(http, &request, &reply, err);
	json_decref(reply.json);
	sse_free(printer.sse);
	return status;
}

const struct verb verb_events = {
	.name = "events",
	.group = "Sandboxes",
	.operands = "ID",
	.summary = "Show what happened to a sandbox since its claim, or follow it",
	.details = "States, commands, snapshots, syncs and services; the newest 256 are kept.",
	VERB_OPTIONS(events_rows, struct events_values),
	.operands_min = 1,
	.operands_max = 1,
	.run = events_run,
};
