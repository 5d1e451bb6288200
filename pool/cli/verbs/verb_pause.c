/* hob pause, resume: letting sandboxes stand still. One that fails does not keep the others. */
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/human.h"

#include <stdio.h>

static int change_one(struct call *call, const char *word, struct error *err)
{
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *id = NULL;
	int status = cli_sandbox_id(call->cli, word, &id, err);

	if (status >= 0) {
		status = cli_call(call->cli, "POST", NULL, &reply, err, "/v1/sandboxes/%s/%s", id,
			call->verb->name);
	}
	if (status < 0) {
		return status;
	}
	if (call->cli->json) {
		json_print(reply);
	} else {
		puts(id);
	}
	if (streq(call->verb->name, "pause") && !json_is_true(json_object_get(reply, "frozen"))) {
		fprintf(stderr,
			"%s: one of its processes is in the kernel and stops when it comes out\n",
			id);
	}
	return 0;
}

static int change_run(struct call *call, struct error *err)
{
	return cli_each(call, call->operands, change_one, err);
}

const struct verb verb_pause = {
	.name = "pause",
	.group = "Sandboxes",
	.operands = "ID…",
	.summary = "Let sandboxes stand still until somebody needs them",
	.details =
		"Processes and files stay as they are, and no processor time is used. `hob "
		"resume`, a\ncommand or a file request wakes a paused sandbox; looking at it does "
		"not. Its max_age and\ntimeout go on, its idle limit starts anew.",
	.operands_min = 1,
	.operands_max = SIZE_MAX,
	.run = change_run,
};

const struct verb verb_resume = {
	.name = "resume",
	.group = "Sandboxes",
	.operands = "ID…",
	.summary = "Let paused sandboxes go on",
	.operands_min = 1,
	.operands_max = SIZE_MAX,
	.run = change_run,
};
