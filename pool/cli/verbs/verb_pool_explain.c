/* hob pool explain: why an environment's target is what it is. */
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/table.h"

#include <stdio.h>

static void add_real(struct table *table, const json_t *object, const char *key, int digits)
{
	char text[HUMAN_SIZE];

	snprintf(text, sizeof(text), "%.*f", digits,
		json_number_value(json_object_get(object, key)));
	table_add(table, text);
}

static void print_bases(const json_t *explained)
{
	static const struct table_column columns[] = {
		{"CLAIMS BY", false}, {"AN HOUR", true}, {"WEIGHT", true}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	size_t i;
	json_t *base;

	json_array_foreach (json_object_get(explained, "bases"), i, base) {
		table_add_member(table, base, "name");
		add_real(table, base, "per_hour", 2);
		add_real(table, base, "weight", 2);
	}
	table_add(table, "together");
	add_real(table, explained, "per_hour", 2);
	table_add(table, "");
	table_print(table, NULL);
}

static void print_worth(const json_t *explained)
{
	static const struct table_column columns[] = {
		{"READY", true}, {"HITS A DAY", true}, {"WORTH IT", false}, {"KEPT", false}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	size_t i;
	json_t *worth;

	json_array_foreach (json_object_get(explained, "worth"), i, worth) {
		table_add_member(table, worth, "k");
		add_real(table, worth, "hits_per_day", 2);
		table_add(table, json_is_true(json_object_get(worth, "worth_it")) ? "yes" : "no");
		table_add(table, json_is_true(json_object_get(worth, "kept")) ? "yes" : "no");
	}
	table_print(table, NULL);
}

/* What one takes, where it is known. */
static void print_bytes(const json_t *explained)
{
	const json_t *memory = json_object_get(explained, "bytes_each");
	const json_t *disk = json_object_get(explained, "disk_each");
	char text[HUMAN_SIZE];

	if (json_is_integer(memory)) {
		human_bytes(text, json_integer_value(memory));
		printf("A ready one takes %s of memory", text);
		if (json_is_integer(disk)) {
			human_bytes(text, json_integer_value(disk));
			printf(" and %s of disk", text);
		}
		puts(".");
	}
	human_bytes(text, json_integer_value(json_object_get(explained, "disk_claimed")));
	printf("Claimed ones have written %s.\n\n", text);
}

static int explain_run(struct call *call, struct error *err)
{
	CLEANUP(json_decref_p) json_t *explained = NULL;
	CLEANUP(free_p) char *name = cli_escape(call->operands[0]);
	int status = cli_call(call->cli, "GET", NULL, &explained, err, "/v1/pool/%s/explain", name);
	const char *why;

	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(explained);
		return 0;
	}
	why = json_string_value(json_object_get(explained, "why"));
	printf("%s: target %" JSON_INTEGER_FORMAT ". %s\n\n", call->operands[0],
		json_integer_value(json_object_get(explained, "target")), why != NULL ? why : "");
	print_bytes(explained);
	print_bases(explained);
	putchar('\n');
	print_worth(explained);
	return 0;
}

const struct verb pool_explain = {
	.name = "explain",
	.operands = "ENVIRONMENT",
	.summary = "Say why as many sandboxes stand ready as do",
	.operands_min = 1,
	.operands_max = 1,
	.run = explain_run,
};
