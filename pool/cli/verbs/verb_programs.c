/* Verbs that are other programs, or other parts of this one: snapshots, store, simulate, doctor,
 * version. */
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/doctor/doctor.h"
#include "pool/cli/human.h"
#include "gen/version.h"

#include <stdio.h>

static int snapshots_run(struct call *call, struct error *err)
{
	return cli_become(call->cli, "hob-snapshots", NULL, call->operands, err);
}

static int simulate_run(struct call *call, struct error *err)
{
	return cli_become(call->cli, "hob-simulate", NULL, call->operands, err);
}

static int store_run(struct call *call, struct error *err)
{
	static const char *const words[] = {"store", NULL};
	static const char *const info[] = {"store", "info", NULL};
	const char *first = call->operands[0];
	bool bare = first == NULL ||
		    (first[0] == '-' && !streq(first, "--help") && !streq(first, "-h"));

	return cli_become(call->cli, "hob-snapshots", bare ? info : words, call->operands, err);
}

static int doctor_run(struct call *call, struct error *err)
{
	(void)err;
	call->exit_code = cli_run_part(call->cli, "hob doctor", doctor_main, call->operands);
	return 0;
}

static int version_run(struct call *call, struct error *err)
{
	CLEANUP(json_decref_p) json_t *reply = NULL;
	CLEANUP(free_p) char *hobd = NULL;
	int status = cli_call(call->cli, "GET", NULL, &reply, err, "/v1/info");

	if (status < 0 && status != -(int)ERROR_UNAVAILABLE) {
		return status;
	}
	hobd = status < 0 ? NULL : human_member(reply, "version");
	if (call->cli->json) {
		CLEANUP(json_decref_p) json_t *json = json_object();

		json_object_set_new(json, "hob", json_string(HOB_VERSION));
		json_object_set_new(json, "hobd", json_str_or_null(hobd));
		human_print_json(json);
	} else {
		printf("hob   %s\nhobd  %s\n", HOB_VERSION, hobd != NULL ? hobd : "not running");
	}
	return 0;
}

const struct verb verb_snapshots = {
	.name = "snapshots",
	.group = "Environments and images",
	.operands = "…",
	.summary = "Inspect and mend the store (hob-snapshots)",
	.raw = true,
	.run = snapshots_run,
};

const struct verb verb_simulate = {
	.name = "simulate",
	.group = "This machine",
	.operands = "FILE…",
	.summary = "Replay arrivals against the pool's forecast, beside other policies",
	.raw = true,
	.run = simulate_run,
};

const struct verb verb_store = {
	.name = "store",
	.group = "This machine",
	.operands = "info | create --xfs SIZE | grow SIZE | mount | unmount",
	.summary = "Show the store's file system, or give it one that shares blocks",
	.raw = true,
	.run = store_run,
};

const struct verb verb_doctor = {
	.name = "doctor",
	.group = "This machine",
	.operands = "",
	.summary = "Say what hob needs of this machine, and what is lost where it is missing",
	.raw = true,
	.run = doctor_run,
};

const struct verb verb_version = {
	.name = "version",
	.group = "This machine",
	.operands = "",
	.summary = "Print the versions of hob and of the running hobd",
	.run = version_run,
};
