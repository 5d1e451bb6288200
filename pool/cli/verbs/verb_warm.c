/* hob warm: says that somebody is about to need a sandbox; `hob pool hints` lists what it said. */
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/table.h"

#include <stdio.h>

struct warm_values {
	const char *key;
	const char *snapshot;
	const char *cancel;
	int64_t ttl_ms;
};

static const struct option_row warm_rows[] = {
	{"key", 'k', OPTION_TEXT, "K", offsetof(struct warm_values, key),
		"your name for it; `hob create --key K` takes exactly this one"},
	{"ttl", '\0', OPTION_DURATION, "DUR", offsetof(struct warm_values, ttl_ms),
		"keep it for this long, anew with each call (default 60s)"},
	{"snapshot", '\0', OPTION_TEXT, "ID", offsetof(struct warm_values, snapshot),
		"restore this snapshot ahead, instead of an environment"},
	{"cancel", '\0', OPTION_TEXT, "K", offsetof(struct warm_values, cancel),
		"give back what the key K keeps"},
};

static const struct warm_values warm_defaults = {.ttl_ms = -1};

static int cancel(struct call *call, const char *key, struct error *err)
{
	CLEANUP(free_p) char *escaped = cli_escape(key);
	CLEANUP(json_decref_p) json_t *reply = NULL;
	int status = cli_call(call->cli, "DELETE", NULL, &reply, err, "/v1/warm/%s", escaped);

	if (status == 0 && call->cli->json) {
		human_print_json(reply);
	}
	return status;
}

static int check_usage(const struct call *call, struct error *err)
{
	const struct warm_values *values = call->values;
	size_t targets = call->operand_count + (values->snapshot != NULL ? 1 : 0);

	if (values->cancel != NULL) {
		return targets == 0 && values->key == NULL && values->ttl_ms < 0
			       ? 0
			       : error_set(err, ERROR_USAGE, "--cancel K stands alone");
	}
	if (targets != 1) {
		error_set(err, ERROR_USAGE,
			"hob warm needs an environment or --snapshot ID, and not both");
		return error_hint(err, "`hob env ls` lists the environments");
	}
	if (values->key == NULL) {
		error_set(err, ERROR_USAGE, "hob warm needs --key K");
		return error_hint(
			err, "any name: one for each person who types, such as --key \"$USER\"");
	}
	return 0;
}

static void print_hint(const json_t *hint)
{
	const char *snapshot = json_string_value(json_object_get(hint, "snapshot"));
	CLEANUP(free_p) char *sandbox = human_member(hint, "sandbox");
	CLEANUP(free_p) char *environment = human_member(hint, "environment");
	const char *state = json_string_value(json_object_get(hint, "state"));
	char eta[HUMAN_SIZE], left[HUMAN_SIZE];

	human_span(eta, json_integer_value(json_object_get(hint, "eta_ms")) * 1000);
	human_until(left, json_string_value(json_object_get(hint, "expires_at")));
	if (state != NULL && streq(state, "ready")) {
		printf("%s of %s is ready, kept for %s\n", sandbox,
			snapshot != NULL ? snapshot : environment, left);
	} else {
		printf("%s of %s starts, about %s to go, kept for %s\n", sandbox,
			snapshot != NULL ? snapshot : environment, eta, left);
	}
}

static int warm_run(struct call *call, struct error *err)
{
	const struct warm_values *values = call->values;
	CLEANUP(json_decref_p) json_t *body = json_object();
	CLEANUP(json_decref_p) json_t *reply = NULL;
	int status = check_usage(call, err);

	if (status < 0) {
		return status;
	}
	if (values->cancel != NULL) {
		return cancel(call, values->cancel, err);
	}
	json_object_set_new(body, "key", json_string(values->key));
	json_object_set_new(body, values->snapshot != NULL ? "snapshot" : "environment",
		json_string(values->snapshot != NULL ? values->snapshot : call->operands[0]));
	if (values->ttl_ms >= 0) {
		json_object_set_new(body, "ttl_s", json_integer((values->ttl_ms + 999) / 1000));
	}
	status = cli_call(call->cli, "POST", body, &reply, err, "/v1/warm");
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
	} else {
		print_hint(reply);
	}
	return 0;
}

const struct verb verb_warm = {
	.name = "warm",
	.group = "Sandboxes",
	.operands = "ENV --key K | --snapshot ID --key K | --cancel K",
	.summary = "Say that somebody is about to need a sandbox, at the first keystroke",
	.details = "Reserves a ready sandbox, or starts one, for `hob create --key K` of the same\n"
		   "user. Call it again while somebody types; it ends by itself.\n\n"
		   "  hob warm webapp --key \"$USER\"; hob create webapp --key \"$USER\"",
	VERB_OPTIONS(warm_rows, struct warm_values),
	.defaults = &warm_defaults,
	.operands_max = 1,
	.run = warm_run,
};

/* ---- hob pool hints ---- */

static int hints_run(struct call *call, struct error *err)
{
	static const struct table_column columns[] = {{"KEY", false}, {"ENVIRONMENT", false},
		{"SNAPSHOT", false}, {"STATE", false}, {"SANDBOX", false}, {"COMMIT", false},
		{"ENDS IN", true}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	CLEANUP(json_decref_p) json_t *reply = NULL;
	int status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/warm");
	size_t i;
	json_t *hint;

	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	json_array_foreach (json_object_get(reply, "hints"), i, hint) {
		CLEANUP(free_p) char *commit = human_commit(hint);
		char left[HUMAN_SIZE];

		human_until(left, json_string_value(json_object_get(hint, "expires_at")));
		table_add_member(table, hint, "key");
		table_add_member(table, hint, "environment");
		table_add_member(table, hint, "snapshot");
		table_add_member(table, hint, "state");
		table_add_member(table, hint, "sandbox");
		table_add(table, commit);
		table_add(table, left);
	}
	table_print(table, "no hints of yours: `hob warm ENV --key K` makes one");
	return 0;
}

const struct verb pool_hints = {
	.name = "hints",
	.operands = "",
	.summary = "List your hints: sandboxes reserved by `hob warm`",
	.run = hints_run,
};
