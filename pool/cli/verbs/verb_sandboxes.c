/* hob ls, info, timeout: looking at sandboxes, which never extends a life, and setting their end.
 */
#include "base/buffer.h"
#include "base/clock.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/table.h"

#include <inttypes.h>
#include <stdio.h>

struct ls_values {
	const char *environment, *state;
	bool quiet;
};

static const struct option_row ls_rows[] = {
	{"env", 'e', OPTION_TEXT, "ENV", offsetof(struct ls_values, environment),
		"only those of an environment"},
	{"state", 's', OPTION_TEXT, "STATE", offsetof(struct ls_values, state),
		"only those in a state: creating, warming, ready, claimed, paused, dormant,"
		" releasing"},
	{"quiet", 'q', OPTION_FLAG, NULL, offsetof(struct ls_values, quiet), "print only the ids"},
};

/* "?environment=E&state=S" with what is given. The caller frees it. */
static char *list_query(const struct ls_values *values)
{
	const char *const pairs[][2] = {
		{"environment", values->environment}, {"state", values->state}};
	struct buffer query;

	buffer_init(&query, 0);
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		if (pairs[i][1] != NULL) {
			CLEANUP(free_p) char *escaped = cli_escape(pairs[i][1]);

			buffer_addf(&query, "%s%s=%s", query.length > 0 ? "&" : "?", pairs[i][0],
				escaped);
		}
	}
	return buffer_steal(&query);
}

static void add_metadata(struct table *table, const json_t *metadata)
{
	struct buffer line;
	const char *key;
	json_t *value;

	buffer_init(&line, 0);
	json_object_foreach ((json_t *)(uintptr_t)metadata, key, value) {
		buffer_addf(&line, "%s%s=%s", line.length > 0 ? " " : "", key,
			json_is_string(value) ? json_string_value(value) : "?");
	}
	table_add(table, buffer_text(&line));
	buffer_done(&line);
}

static void add_sandbox(struct table *table, const json_t *sandbox)
{
	CLEANUP(free_p) char *state = human_member(sandbox, "state");
	CLEANUP(free_p) char *commit = human_commit(sandbox);
	char text[HUMAN_SIZE];

	table_add_member(table, sandbox, "id");
	table_add_member(table, sandbox, "environment");
	table_add_member(table, sandbox, "image");
	table_add(table, commit);
	table_add_styled(table, state, style_of_state(state));
	human_age(text, json_string_value(json_object_get(sandbox, "created_at")));
	table_add(table, text);
	human_age(text, json_string_value(json_object_get(sandbox, "last_active_at")));
	table_add(table, text);
	human_until(text, json_string_value(json_object_get(sandbox, "expires_at")));
	table_add(table, text);
	add_metadata(table, json_object_get(sandbox, "metadata"));
}

static int ls_run(struct call *call, struct error *err)
{
	static const struct table_column columns[] = {{"ID", false}, {"ENVIRONMENT", false},
		{"IMAGE", false}, {"COMMIT", false}, {"STATE", false}, {"AGE", true},
		{"IDLE", true}, {"ENDS IN", true}, {"METADATA", false}};
	const struct ls_values *values = call->values;
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	CLEANUP(free_p) char *query = list_query(values);
	CLEANUP(json_decref_p) json_t *reply = NULL;
	size_t i;
	json_t *sandbox;
	int status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/sandboxes%s", query);

	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	json_array_foreach (json_object_get(reply, "sandboxes"), i, sandbox) {
		if (values->quiet) {
			puts(json_string_value(json_object_get(sandbox, "id")));
		} else {
			add_sandbox(table, sandbox);
		}
	}
	if (!values->quiet) {
		table_print(table, "no sandboxes");
	}
	return 0;
}

static void print_time(const json_t *object, const char *name, const char *key, const char *format)
{
	const char *at = json_string_value(json_object_get(object, key));
	CLEANUP(free_p) char *line = NULL;
	char text[HUMAN_SIZE];

	if (at == NULL) {
		human_print_field(name, "-");
		return;
	}
	(streq(key, "expires_at") ? human_until : human_age)(text, at);
	line = xasprintf("%s (%s%s)", at, text, format);
	human_print_field(name, line);
}

static void print_usage(const json_t *usage)
{
	CLEANUP(free_p) char *line = NULL;
	char memory[HUMAN_SIZE], cpu[HUMAN_SIZE];

	human_bytes(memory, json_integer_value(json_object_get(usage, "memory_bytes")));
	human_span(cpu, json_integer_value(json_object_get(usage, "cpu_us")));
	line = xasprintf("%s of memory, %s of CPU time, %" JSON_INTEGER_FORMAT " processes", memory,
		cpu, json_integer_value(json_object_get(usage, "pids")));
	human_print_field("Usage", line);
}

static void print_metered(const json_t *metered)
{
	CLEANUP(free_p) char *line = NULL;
	char active[HUMAN_SIZE], paused[HUMAN_SIZE], cpu[HUMAN_SIZE];
	double gib_s = (double)json_integer_value(json_object_get(metered, "memory_kib_s")) /
		       (1024.0 * 1024.0);

	human_span(active, json_integer_value(json_object_get(metered, "active_ms")) * 1000);
	human_span(paused, json_integer_value(json_object_get(metered, "paused_ms")) * 1000);
	human_span(cpu, json_integer_value(json_object_get(metered, "cpu_us")));
	line = xasprintf("%s active, %s paused, %s of CPU time, %.1f GiB*s of memory", active,
		paused, cpu, gib_s);
	human_print_field("Since claim", line);
}

/* "dev ready, db restarting (3 restarts)". */
static void print_services(const json_t *services)
{
	struct buffer line;
	size_t i;
	json_t *service;

	buffer_init(&line, 0);
	json_array_foreach (services, i, service) {
		CLEANUP(free_p) char *name = human_member(service, "name");
		CLEANUP(free_p) char *state = human_member(service, "state");
		json_int_t restarts = json_integer_value(json_object_get(service, "restarts"));

		buffer_addf(&line, "%s%s %s", i > 0 ? ", " : "", name, state);
		if (restarts > 0) {
			buffer_addf(&line, " (%" JSON_INTEGER_FORMAT " restarts)", restarts);
		}
	}
	if (line.length > 0) {
		buffer_add_str(&line, " (`hob logs` shows more)");
		human_print_field("Services", buffer_text(&line));
	}
	buffer_done(&line);
}

/* "done: 3 files changed", "12 s behind"; what is stale by it. */
static void print_sync(const json_t *sandbox)
{
	const json_t *sync = json_object_get(sandbox, "sync");
	int64_t behind_s = json_integer_value(json_object_get(sandbox, "behind_s"));
	const char *message = json_string_value(json_object_get(sync, "message"));
	struct buffer line;
	size_t i;
	json_t *step;

	buffer_init(&line, 0);
	if (json_is_object(sync)) {
		CLEANUP(free_p) char *state = human_member(sync, "state");

		buffer_addf(&line, "%s, ", state);
	}
	if (behind_s > 0) {
		buffer_addf(&line, "%" PRId64 " s behind the newest known", behind_s);
	} else {
		buffer_add_str(&line, "at the newest known");
	}
	json_array_foreach (json_object_get(sync, "steps_stale"), i, step) {
		buffer_addf(
			&line, "%s%s", i == 0 ? "; stale steps: " : ", ", json_string_value(step));
	}
	if (message != NULL) {
		buffer_addf(&line, "; %s", message);
	}
	human_print_field("Source", buffer_text(&line));
	buffer_done(&line);
}

static void print_sandbox(const json_t *sandbox)
{
	static const char *const members[][2] = {{"Id", "id"}, {"Environment", "environment"},
		{"Image", "image"}, {"Commit", "commit"}, {"State", "state"}, {"User", "user"},
		{"Folder", "cwd"}, {"PID", "pid"}};
	const json_t *metadata = json_object_get(sandbox, "metadata");
	int64_t idle_s = json_integer_value(json_object_get(sandbox, "idle_s"));
	char idle[CLOCK_TEXT_SIZE] = "never";
	CLEANUP(free_p)
	char *execs = xasprintf(
		"%zu (`hob ps` lists them)", json_array_size(json_object_get(sandbox, "execs")));

	human_print_members(sandbox, members, ARRAY_SIZE(members));
	print_sync(sandbox);
	print_time(sandbox, "Created", "created_at", " ago");
	print_time(sandbox, "Claimed", "claimed_at", " ago");
	print_time(sandbox, "Active", "last_active_at", " ago");
	print_time(sandbox, "Paused", "paused_at", " ago");
	print_time(sandbox, "Ends", "expires_at", " from now");
	if (idle_s > 0) {
		duration_format(idle, idle_s * 1000);
	}
	human_print_field("Idle limit", idle);
	if (json_object_size(metadata) > 0) {
		CLEANUP(free_p) char *text = json_text(metadata);

		human_print_field("Metadata", text);
	}
	if (json_is_object(json_object_get(sandbox, "usage"))) {
		print_usage(json_object_get(sandbox, "usage"));
	}
	if (json_is_object(json_object_get(sandbox, "metered"))) {
		print_metered(json_object_get(sandbox, "metered"));
	}
	human_print_field("Commands", execs);
	print_services(json_object_get(sandbox, "services"));
}

static int info_run(struct call *call, struct error *err)
{
	static const char *const members[][2] = {{"Version", "version"}, {"PID", "pid"},
		{"Store", "store"}, {"Run", "run"}, {"Cgroup", "cgroup"},
		{"Sandboxes", "sandboxes"}, {"Ready", "ready"}, {"Claimed", "claimed"},
		{"At most", "max_sandboxes"}};
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *id = NULL;
	int status = 0;

	if (call->operand_count == 0) {
		status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/info");
	} else {
		status = cli_sandbox_id(call->cli, call->operands[0], &id, err);
		if (status >= 0) {
			status = cli_call(
				call->cli, "GET", NULL, &reply, err, "/v1/sandboxes/%s", id);
		}
	}
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
	} else if (id != NULL) {
		print_sandbox(reply);
	} else {
		human_print_members(reply, members, ARRAY_SIZE(members));
		print_time(reply, "Started", "started_at", " ago");
	}
	return 0;
}

static int timeout_run(struct call *call, struct error *err)
{
	const char *word = call->operands[1];
	CLEANUP(json_decref_p) json_t *body = NULL;
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *id = NULL;
	int64_t ms = 0;
	int status;

	if (!streq(word, "never") && !duration_parse(word, &ms)) {
		error_set(err, ERROR_USAGE, "not a duration: %s", word);
		return error_hint(err, "write it like 90s, 30m or 1h30m; 0 or never for no end");
	}
	status = cli_sandbox_id(call->cli, call->operands[0], &id, err);
	if (status < 0) {
		return status;
	}
	body = json_pack("{s:I}", "seconds", (json_int_t)((ms + 999) / 1000));
	status = cli_call(call->cli, "POST", body, &reply, err, "/v1/sandboxes/%s/timeout", id);
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
	} else {
		CLEANUP(free_p) char *at = human_member(reply, "expires_at");

		printf("%s ends %s\n", id, streq(at, "-") ? "never by time" : at);
	}
	return 0;
}

const struct verb verb_ls = {
	.name = "ls",
	.group = "Sandboxes",
	.operands = "",
	.summary = "List the sandboxes",
	VERB_OPTIONS(ls_rows, struct ls_values),
	.run = ls_run,
};

const struct verb verb_info = {
	.name = "info",
	.group = "Sandboxes",
	.operands = "[ID]",
	.summary = "Show all about a sandbox; without an id, about hobd",
	.operands_max = 1,
	.run = info_run,
};

const struct verb verb_timeout = {
	.name = "timeout",
	.group = "Sandboxes",
	.operands = "ID DUR",
	.summary = "Let a sandbox end after DUR from now, \"never\" for no end",
	.operands_min = 2,
	.operands_max = 2,
	.run = timeout_run,
};
