/* hob sync: bringing a sandbox that runs to a newer commit. */
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/human.h"

#include <stdio.h>

struct sync_values {
	const char *to;
};

static const struct option_row sync_rows[] = {
	{"to", '\0', OPTION_TEXT, "COMMIT", offsetof(struct sync_values, to),
		"this commit, in full, instead of the newest"},
};

static void print_result(const json_t *reply)
{
	const json_t *sync = json_object_get(reply, "sync");
	CLEANUP(free_p) char *commit = human_commit(reply);
	json_int_t changes = json_integer_value(json_object_get(sync, "changes"));
	const char *from = json_string_value(json_object_get(reply, "from"));
	size_t i;
	json_t *step;

	if (changes == 0) {
		printf("%s, as before\n", commit);
	} else {
		printf("%.12s -> %s, %" JSON_INTEGER_FORMAT " files, %" JSON_INTEGER_FORMAT " ms\n",
			from != NULL ? from : "?", commit, changes,
			json_integer_value(json_object_get(sync, "took_ms")));
	}
	json_array_foreach (json_object_get(sync, "steps_stale"), i, step) {
		fprintf(stderr, "step %s read what has changed: its result is of before\n",
			json_string_value(step));
	}
}

static int sync_run(struct call *call, struct error *err)
{
	const struct sync_values *values = call->values;
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(json_decref_p) json_t *body = json_object();
	CLEANUP(free_p) char *id = NULL;
	int status = cli_sandbox_id(call->cli, call->operands[0], &id, err);

	if (values->to != NULL) {
		json_object_set_new(body, "to", json_string(values->to));
	}
	if (status >= 0) {
		status =
			cli_call(call->cli, "POST", body, &reply, err, "/v1/sandboxes/%s/sync", id);
	}
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		human_print_json(reply);
	} else {
		print_result(reply);
	}
	return 0;
}

const struct verb verb_sync = {
	.name = "sync",
	.group = "Sandboxes",
	.operands = "ID",
	.summary = "Bring a sandbox's source to the newest commit",
	.details = "The newest commit is fetched and only what differs is changed inside; .git "
		   "follows. A file\nthat was worked on and that the commit changes too is a "
		   "conflict: then nothing changes at all.",
	VERB_OPTIONS(sync_rows, struct sync_values),
	.operands_min = 1,
	.operands_max = 1,
	.run = sync_run,
};
