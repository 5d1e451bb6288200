/* hob usage: what ended sandboxes have used. */
#include "base/clock.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/table.h"

#include <inttypes.h>
#include <stdio.h>

struct usage_values {
	const char *since, *environment;
};

static const struct option_row usage_rows[] = {
	{"since", 's', OPTION_TEXT, "DUR", offsetof(struct usage_values, since),
		"only those that ended within this time, such as 24h"},
	{"env", 'e', OPTION_TEXT, "ENV", offsetof(struct usage_values, environment),
		"only those of an environment"},
};

struct totals {
	size_t count;
	int64_t active_ms, cpu_us;
	double memory_gib_s;
};

static int64_t number(const json_t *line, const char *key)
{
	return json_integer_value(json_object_get(line, key));
}

static void add_line(struct table *table, const json_t *line, struct totals *totals)
{
	double gib_s = (double)number(line, "memory_kib_s") / (1024.0 * 1024.0);
	CLEANUP(free_p) char *memory = xasprintf("%.1f", gib_s);
	char text[HUMAN_SIZE], ended[CLOCK_TEXT_SIZE];

	clock_format(ended, number(line, "ended_ms"));
	table_add_member(table, line, "sandbox");
	table_add_member(table, line, "environment");
	human_age(text, ended);
	table_add(table, text);
	human_span(text, number(line, "active_ms") * 1000);
	table_add(table, text);
	human_span(text, number(line, "paused_ms") * 1000);
	table_add(table, text);
	human_span(text, number(line, "cpu_us"));
	table_add(table, text);
	table_add(table, memory);
	table_add_member(table, line, "reason");
	totals->count++;
	totals->active_ms += number(line, "active_ms");
	totals->cpu_us += number(line, "cpu_us");
	totals->memory_gib_s += gib_s;
}

static bool is_wanted(const json_t *line, const char *environment)
{
	const char *name = json_string_value(json_object_get(line, "environment"));

	return environment == NULL || (name != NULL && streq(name, environment));
}

/* Every page of it, as one array. */
static int fetch(struct call *call, int64_t since_ms, json_t *all, struct error *err)
{
	const struct usage_values *values = call->values;
	int64_t after = 0;

	for (;;) {
		CLEANUP(json_decref_p) json_t *reply = NULL;
		json_t *line;
		size_t i, count;
		int status = cli_call(call->cli, "GET", NULL, &reply, err,
			"/v1/usage?after=%" PRId64 "&since_ms=%" PRId64, after, since_ms);

		if (status < 0) {
			return status;
		}
		count = json_array_size(json_object_get(reply, "usage"));
		json_array_foreach (json_object_get(reply, "usage"), i, line) {
			after = number(line, "n");
			if (is_wanted(line, values->environment)) {
				json_array_append(all, line);
			}
		}
		if (count == 0) {
			return 0;
		}
	}
}

static int usage_run(struct call *call, struct error *err)
{
	static const struct table_column columns[] = {{"SANDBOX", false}, {"ENVIRONMENT", false},
		{"ENDED", true}, {"ACTIVE", true}, {"PAUSED", true}, {"CPU", true},
		{"MEMORY GiB*s", true}, {"REASON", false}};
	const struct usage_values *values = call->values;
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	CLEANUP(json_decref_p) json_t *all = json_array();
	struct totals totals = {0};
	char active[HUMAN_SIZE], cpu[HUMAN_SIZE];
	int64_t within_ms = 0;
	json_t *line;
	size_t i;
	int status;

	if (values->since != NULL && !duration_parse(values->since, &within_ms)) {
		error_set(err, ERROR_USAGE, "not a duration: %s", values->since);
		return error_hint(err, "write it like 90s, 30m or 24h");
	}
	status = fetch(call, values->since != NULL ? clock_real_ms() - within_ms : 0, all, err);
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		CLEANUP(json_decref_p) json_t *object = json_pack("{s:O}", "usage", all);

		human_print_json(object);
		return 0;
	}
	json_array_foreach (all, i, line) {
		add_line(table, line, &totals);
	}
	table_print(table, "no sandbox that was claimed has ended");
	if (totals.count > 0) {
		human_span(active, totals.active_ms * 1000);
		human_span(cpu, totals.cpu_us);
		printf("%zu in all: %s active, %s of CPU time, %.1f GiB*s of memory\n",
			totals.count, active, cpu, totals.memory_gib_s);
	}
	return 0;
}

const struct verb verb_usage = {
	.name = "usage",
	.group = "Sandboxes",
	.operands = "",
	.summary = "Show what ended sandboxes have used: time, CPU, memory",
	.details =
		"Active is the time claimed and not paused, CPU what its processes used since the "
		"claim,\nmemory the integral of what its cgroup held. hobd keeps some ten thousand "
		"of the newest;\n`hob info ID` shows the same of a living sandbox.",
	VERB_OPTIONS(usage_rows, struct usage_values),
	.run = usage_run,
};
