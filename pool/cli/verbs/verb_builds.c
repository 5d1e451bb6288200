/* hob builds: the attempts to make images, and their logs. */
#include "base/memory.h"
#include "pool/cli/build_follow.h"
#include "pool/cli/cli.h"
#include "pool/cli/table.h"

#include <stdio.h>
#include <time.h>

struct builds_values {
	const char *environment;
	const char *limit;
};

static const struct option_row builds_rows[] = {
	{"env", 'e', OPTION_TEXT, "ENV", offsetof(struct builds_values, environment),
		"only those of an environment"},
	{"limit", 'n', OPTION_TEXT, "N", offsetof(struct builds_values, limit),
		"at most so many, the newest first (default 20)"},
};

static const struct builds_values builds_defaults = {.limit = "20"};

struct log_values {
	bool follow;
};

static const struct option_row log_rows[] = {
	{"follow", 'f', OPTION_FLAG, NULL, offsetof(struct log_values, follow),
		"go on until the build ends"},
};

static void add_build(struct table *table, const json_t *build)
{
	CLEANUP(free_p) char *state = human_member(build, "state");
	CLEANUP(free_p) char *commit = human_commit(build);
	bool ended = json_is_string(json_object_get(build, "ended_at"));
	char text[HUMAN_SIZE];

	table_add_member(table, build, "id");
	table_add_member(table, build, "environment");
	table_add_styled(table, state, style_of_state(state));
	table_add(table, commit);
	table_add_member(table, build, "image");
	human_age(text, json_string_value(json_object_get(build, "started_at")));
	table_add(table, text);
	human_span(text, json_integer_value(json_object_get(build, "took_ms")) * 1000);
	table_add(table, ended ? text : "");
	table_add_member(table, build, "message");
}

static int builds_ls_run(struct call *call, struct error *err)
{
	static const struct table_column columns[] = {{"ID", false}, {"ENVIRONMENT", false},
		{"STATE", false}, {"COMMIT", false}, {"IMAGE", false}, {"AGE", true},
		{"TOOK", true}, {"MESSAGE", false}};
	const struct builds_values *values = call->values;
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	CLEANUP(free_p)
	char *environment = values->environment != NULL ? cli_escape(values->environment) : NULL;
	CLEANUP(free_p) char *limit = cli_escape(values->limit);
	CLEANUP(json_decref_p) json_t *reply = NULL;
	size_t i;
	json_t *build;
	int status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/builds?limit=%s%s%s", limit,
		environment != NULL ? "&environment=" : "", environment != NULL ? environment : "");

	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
		return 0;
	}
	json_array_foreach (json_object_get(reply, "builds"), i, build) {
		add_build(table, build);
	}
	table_print(table, "no builds yet: `hob build ENV` makes one");
	return 0;
}

static int builds_info_run(struct call *call, struct error *err)
{
	static const char *const members[][2] = {{"Id", "id"}, {"Environment", "environment"},
		{"State", "state"}, {"Commit", "commit"}, {"Image", "image"},
		{"Started", "started_at"}, {"Ended", "ended_at"}, {"Message", "message"}};
	CLEANUP(free_p) char *escaped = cli_escape(call->operands[0]);
	CLEANUP(json_decref_p) json_t *build = NULL;
	char took[HUMAN_SIZE];
	int status = cli_call(call->cli, "GET", NULL, &build, err, "/v1/builds/%s", escaped);

	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(build);
		return 0;
	}
	human_print_members(build, members, ARRAY_SIZE(members));
	human_span(took, json_integer_value(json_object_get(build, "took_ms")) * 1000);
	human_print_field("Took", took);
	return 0;
}

static int builds_log_run(struct call *call, struct error *err)
{
	const struct log_values *values = call->values;
	const char *id = call->operands[0];
	CLEANUP(json_decref_p) json_t *build = NULL;
	int status;

	if (call->cli->json) {
		return error_set(err, ERROR_USAGE, "a log is text: no --json here");
	}
	/* The name of an environment stands for its newest build. */
	if (!str_starts(id, "bld-")) {
		status = build_newest(call->cli, id, &build, err);
		if (status < 0) {
			return status;
		}
		if (build == NULL) {
			return error_set(err, ERROR_NOT_FOUND, "%s has no build", id);
		}
		id = json_string_value(json_object_get(build, "id"));
	}
	return build_log_print(call->cli, id, values->follow, err);
}

#define CANCEL_LOOKS 150
#define CANCEL_PAUSE_MS 200

/* Until its record says that it is over. */
static int wait_for_end(struct cli *cli, const char *id, json_t **ret_build, struct error *err)
{
	const struct timespec pause = {0, CANCEL_PAUSE_MS * 1000000};

	for (int look = 0; look < CANCEL_LOOKS; look++) {
		CLEANUP(json_decref_p) json_t *build = NULL;
		int status = cli_call(cli, "GET", NULL, &build, err, "/v1/builds/%s", id);

		if (status < 0) {
			return status;
		}
		if (json_is_string(json_object_get(build, "ended_at"))) {
			*ret_build = steal_ptr(build);
			return 0;
		}
		nanosleep(&pause, NULL);
	}
	return error_set(err, ERROR_TIMEOUT, "%s was told to stop %d s ago and has not yet", id,
		CANCEL_LOOKS * CANCEL_PAUSE_MS / 1000);
}

/* The one that an environment waits for, which has no id yet. */
static int unqueue(struct cli *cli, const char *environment, struct error *err)
{
	CLEANUP(free_p) char *escaped = cli_escape(environment);
	CLEANUP(json_decref_p) json_t *reply = NULL;
	int status =
		cli_call(cli, "DELETE", NULL, &reply, err, "/v1/environments/%s/build", escaped);
	const char *state = json_string_value(json_object_get(reply, "state"));

	if (status < 0) {
		return status;
	}
	if (state == NULL || !streq(state, "unqueued")) {
		return error_set(err, ERROR_CONFLICT, "%s has no build to cancel", environment);
	}
	if (cli->json) {
		human_print_json(reply);
	} else {
		printf("%s: taken off the queue\n", environment);
	}
	return 0;
}

static int builds_cancel_run(struct call *call, struct error *err)
{
	const char *id = call->operands[0];
	CLEANUP(json_decref_p) json_t *build = NULL;
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(json_decref_p) json_t *ended = NULL;
	CLEANUP(free_p) char *state = NULL;
	int status = 0;

	if (!str_starts(id, "bld-")) {
		status = build_newest(call->cli, id, &build, err);
		if (status < 0) {
			return status;
		}
		if (json_is_string(json_object_get(build, "ended_at")) || build == NULL) {
			return unqueue(call->cli, id, err);
		}
		id = json_string_value(json_object_get(build, "id"));
	}
	status = cli_call(call->cli, "POST", NULL, &reply, err, "/v1/builds/%s/cancel", id);
	if (status >= 0) {
		status = wait_for_end(call->cli, id, &ended, err);
	}
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(ended);
		return 0;
	}
	state = human_member(ended, "state");
	printf("%s has ended: %s\n", id, state);
	return 0;
}

static const struct verb builds_ls = {
	.name = "ls",
	.operands = "",
	.summary = "List them, the newest first",
	VERB_OPTIONS(builds_rows, struct builds_values),
	.defaults = &builds_defaults,
	.run = builds_ls_run,
};

static const struct verb builds_info = {
	.name = "info",
	.operands = "ID",
	.summary = "Show all about one",
	.operands_min = 1,
	.operands_max = 1,
	.run = builds_info_run,
};

static const struct verb builds_log = {
	.name = "log",
	.operands = "ID|ENV",
	.summary = "Print the log of one, or of the newest of an environment",
	VERB_OPTIONS(log_rows, struct log_values),
	.operands_min = 1,
	.operands_max = 1,
	.run = builds_log_run,
};

static const struct verb builds_cancel = {
	.name = "cancel",
	.operands = "ID|ENV",
	.summary = "Stop one, or an environment's, running or still waiting; its image stays as it "
		   "was",
	.operands_min = 1,
	.operands_max = 1,
	.run = builds_cancel_run,
};

static const struct verb *const builds_parts[] = {
	&builds_ls, &builds_info, &builds_log, &builds_cancel, NULL};

const struct verb verb_builds = {
	.name = "builds",
	.group = "Environments and images",
	.summary = "Look at builds and their logs, and cancel them",
	.parts = builds_parts,
};
