/* `hob images diff` and `hob images info --packages` for those who are not root: what hobd says, in
 * the words of hob-snapshots. */
#include "base/memory.h"
#include "pool/cli/table.h"
#include "pool/cli/verbs/images.h"
#include "snapshots/cli/images_changes.h"

#include <stdio.h>

void images_print_packages(const json_t *reply)
{
	static const struct table_column columns[] = {{"MANAGER", false}, {"NAME", false},
		{"VERSION", false}, {"ASKED FOR", false}, {"DIGEST", false}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	json_t *one;
	size_t i;

	json_array_foreach (json_object_get(reply, "packages"), i, one) {
		table_add_member(table, one, "manager");
		table_add_member(table, one, "name");
		table_add_member(table, one, "version");
		table_add(table, json_is_true(json_object_get(one, "requested")) ? "yes" : "no");
		table_add_member(table, one, "digest");
	}
	json_array_foreach (json_object_get(reply, "files"), i, one) {
		CLEANUP(free_p) char *digest = human_member(one, "digest");
		CLEANUP(free_p) char *text = xasprintf("sha256:%s", digest);

		table_add(table, "files");
		table_add_member(table, one, "path");
		table_add(table, "-");
		table_add(table, "yes");
		table_add(table, text);
	}
	table_print(table, "nothing is installed below its sources but its base");
}

/* ---- diff ---- */

/* A name may hold what a terminal would obey. */
static void print_path(const char *path)
{
	for (const unsigned char *byte = (const unsigned char *)path; *byte != '\0'; byte++) {
		if (*byte < 0x20 || *byte == 0x7f || *byte == '\\') {
			printf("\\x%02x", *byte);
		} else {
			putchar(*byte);
		}
	}
}

static void print_tree(const json_t *reply)
{
	static const char *const kinds[] = {"added", "changed", "deleted"};
	json_t *change, *aspect;
	size_t i, j;

	json_array_foreach (json_object_get(reply, "changes"), i, change) {
		const char *path = json_string_value(json_object_get(change, "path"));

		printf("%c ", images_change_mark(change));
		print_path(path != NULL ? path : "?");
		json_array_foreach (json_object_get(change, "what"), j, aspect) {
			printf("%s%s", j == 0 ? "  " : ",", json_string_value(aspect));
		}
		putchar('\n');
	}
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		const json_t *sum = json_object_get(reply, kinds[i]);
		char bytes[HUMAN_SIZE];

		human_bytes(bytes, json_integer_value(json_object_get(sum, "bytes")));
		printf("%s%lld %s (%s)", i > 0 ? ", " : "",
			(long long)json_integer_value(json_object_get(sum, "entries")), kinds[i],
			bytes);
	}
	putchar('\n');
}

static int images_diff_run(struct call *call, struct error *err)
{
	const struct images_options *options = call->values;
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *before = NULL;
	CLEANUP(free_p) char *after = NULL;
	bool done = false;
	int status = images_begin(call, &done, err);

	if (status < 0 || done) {
		return status;
	}
	if (call->operand_count != 2) {
		return error_set(err, ERROR_USAGE, "hob images diff compares two images");
	}
	before = cli_escape(call->operands[0]);
	after = cli_escape(call->operands[1]);
	status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/images/%s/diff?from=%s%s",
		after, before, options->stat ? "&stat=1" : "");
	if (status >= 0 && call->cli->json) {
		human_print_json(reply);
	} else if (status >= 0) {
		images_changes_print(reply);
		puts("Tree:");
		print_tree(reply);
	}
	return status;
}

static const struct option_row diff_options[] = {{"stat", '\0', OPTION_FLAG, NULL,
	offsetof(struct images_options, stat), "of files only the sums"}};

const struct verb images_diff = {
	.name = "diff",
	.operands = "A B",
	.summary = "Compare two: commits, packages, layers and files",
	VERB_OPTIONS(diff_options, struct images_options),
	.raw = true,
	.run = images_diff_run,
};
