/* hob pool: how many sandboxes stand ready for each environment, and what keeps others away. */
#include "base/buffer.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/table.h"

#include <stdio.h>
#include <time.h>

struct pool_values {
	bool watch;
	int64_t every_ms;
};

static const struct option_row pool_rows[] = {
	{"watch", 'w', OPTION_FLAG, NULL, offsetof(struct pool_values, watch),
		"show it again and again, until Ctrl-C"},
	{"every", '\0', OPTION_DURATION, "DUR", offsetof(struct pool_values, every_ms),
		"with --watch: how often (default 1s)"},
};

static const struct pool_values pool_defaults = {.every_ms = 1000};

/* "3 (empty 2, stale 1)". */
static void add_misses(struct table *table, const json_t *misses)
{
	struct buffer line, reasons;
	json_int_t all = 0;
	const char *reason;
	json_t *count;

	buffer_init(&line, 0);
	buffer_init(&reasons, 0);
	json_object_foreach ((json_t *)(uintptr_t)misses, reason, count) {
		if (json_integer_value(count) > 0) {
			buffer_addf(&reasons, "%s%s %" JSON_INTEGER_FORMAT,
				reasons.length > 0 ? ", " : "", reason, json_integer_value(count));
			all += json_integer_value(count);
		}
	}
	buffer_addf(&line, "%" JSON_INTEGER_FORMAT, all);
	if (reasons.length > 0) {
		buffer_addf(&line, " (%s)", buffer_text(&reasons));
	}
	table_add(table, buffer_text(&line));
	buffer_done(&line);
	buffer_done(&reasons);
}

static void add_failing(struct table *table, const json_t *failing)
{
	CLEANUP(free_p) char *message = NULL;
	CLEANUP(free_p) char *line = NULL;
	char since[HUMAN_SIZE], retry[HUMAN_SIZE];

	if (!json_is_object(failing)) {
		table_add(table, "");
		return;
	}
	message = human_member(failing, "message");
	human_age(since, json_string_value(json_object_get(failing, "since")));
	human_span(retry, json_integer_value(json_object_get(failing, "retry_in_ms")) * 1000);
	line = xasprintf("failing for %s (%" JSON_INTEGER_FORMAT " attempts, next in %s): %s",
		since, json_integer_value(json_object_get(failing, "attempts")), retry, message);
	table_add_styled(table, line, STYLE_BAD);
}

static void print_space(const json_t *space)
{
	char free[HUMAN_SIZE], mark[HUMAN_SIZE];

	if (json_is_true(json_object_get(space, "low"))) {
		human_bytes(free, json_integer_value(json_object_get(space, "free_bytes")));
		human_bytes(mark, json_integer_value(json_object_get(space, "mark_bytes")));
		printf("Space is short: %s free for the store, less than free_space (%s). Builds "
		       "wait, pools keep fewer ready.\n",
			free, mark);
	}
}

static void print_pool(const json_t *reply)
{
	static const struct table_column columns[] = {{"ENVIRONMENT", false}, {"IMAGE", false},
		{"COMMIT", false}, {"TARGET", true}, {"FORECAST", true}, {"READY", true},
		{"WARMING", true}, {"STALE", true}, {"BEHIND", true}, {"HINTED", true},
		{"CLAIMED", true}, {"DISK", true}, {"HITS", true}, {"MISSES", false},
		{"TROUBLE", false}};
	static const char *const counts[] = {
		"target", "forecast", "ready", "warming", "stale", "behind", "hinted", "claimed"};
	char disk[HUMAN_SIZE];
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	size_t i;
	json_t *entry;

	json_array_foreach (json_object_get(reply, "environments"), i, entry) {
		CLEANUP(free_p) char *commit = human_commit(entry);

		table_add_member(table, entry, "environment");
		table_add_member(table, entry, "image");
		table_add(table, commit);
		for (size_t k = 0; k < ARRAY_SIZE(counts); k++) {
			table_add_member(table, entry, counts[k]);
		}
		human_bytes(disk, json_integer_value(json_object_get(entry, "disk_bytes")));
		table_add(table, disk);
		table_add_member(table, entry, "hits");
		add_misses(table, json_object_get(entry, "misses"));
		add_failing(table, json_object_get(entry, "failing"));
	}
	table_print(table, "no environments: put a YAML file into the environments folder");
	print_space(json_object_get(reply, "space"));
}

static int pool_run(struct call *call, struct error *err)
{
	const struct pool_values *values = call->values;
	const struct timespec pause = {values->every_ms / 1000, values->every_ms % 1000 * 1000000};
	bool screen = values->watch && !call->cli->json && isatty(STDOUT_FILENO);

	for (;;) {
		CLEANUP(json_decref_p) json_t *reply = NULL;
		int status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/pool");

		if (status < 0) {
			return status;
		}
		if (screen) {
			fputs("\033[H\033[J", stdout);
		}
		if (values->watch && call->cli->json) {
			json_print(reply);
		} else if (call->cli->json) {
			human_print_json(reply);
		} else {
			print_pool(reply);
		}
		if (!values->watch) {
			return 0;
		}
		if (!screen && !call->cli->json) {
			putchar('\n');
		}
		if (fflush(stdout) != 0) {
			return error_sys(err, errno, "write to standard output");
		}
		nanosleep(&pause, NULL);
	}
}

static const struct verb pool_ls = {
	.name = "ls",
	.operands = "",
	.summary = "Show how many sandboxes stand ready, and hits and misses",
	VERB_OPTIONS(pool_rows, struct pool_values),
	.defaults = &pool_defaults,
	.run = pool_run,
};

static const struct verb *const pool_parts[] = {&pool_ls, &pool_explain, &pool_hints, NULL};

const struct verb verb_pool = {
	.name = "pool",
	.group = "Environments and images",
	.summary = "Show how many sandboxes stand ready, hits and misses, hints, and why",
	.parts = pool_parts,
};
