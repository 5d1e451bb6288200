/* `hob-snapshots recover`: the sweep that every start does, by hand, with what it found. */
#include "snapshots/cli/cli.h"

#include <inttypes.h>

struct finding {
	const char *key;
	uint64_t count;
	const char *text;
};

static void print_findings(const struct finding *findings, size_t count)
{
	bool any = false;

	for (size_t i = 0; i < count; i++) {
		if (findings[i].count > 0) {
			printf("%6" PRIu64 "  %s\n", findings[i].count, findings[i].text);
			any = true;
		}
	}
	if (!any) {
		puts("nothing to do: the store is in order");
	}
}

static void print_json(const struct finding *findings, size_t count)
{
	CLEANUP(json_decref_p) json_t *json = json_object();

	for (size_t i = 0; i < count; i++) {
		json_object_set_new(
			json, findings[i].key, json_integer((json_int_t)findings[i].count));
	}
	json_print(json);
}

int cli_recover(struct snapshots_cli *cli, struct error *err)
{
	struct store_sweep sweep;
	int status = cli_open(cli, STORE_WRITE, err);

	if (status == 0) {
		status = store_recover(cli->store, &sweep, err);
	}
	if (status < 0) {
		return status;
	}
	const struct finding findings[] = {
		{"staging", sweep.staging, "leftovers of killed processes deleted"},
		{"orphans", sweep.orphans, "folders without a record deleted"},
		{"finished", sweep.finished, "unfinished layers discarded"},
		{"builds", sweep.builds, "builds whose process is gone recorded as failed"},
		{"snapshots", sweep.snapshots, "snapshots that were being taken forgotten"},
		{"heads", sweep.heads, "links in heads/ put right"},
		{"stuck", sweep.stuck, "leftovers that could not be deleted (see above)"},
		{"missing", sweep.missing, "layers recorded but missing on disk (see above)"},
	};

	if (cli->json) {
		print_json(findings, ARRAY_SIZE(findings));
	} else {
		print_findings(findings, ARRAY_SIZE(findings));
	}
	if (sweep.missing > 0) {
		error_set(err, ERROR_CORRUPT, "%" PRIu64 " layers are missing", sweep.missing);
		return error_hint(err,
			"images that need them cannot start: build their environments "
			"again, or put layers/ back from a backup");
	}
	if (sweep.stuck > 0) {
		error_set(err, ERROR_FAILED, "%" PRIu64 " leftovers could not be deleted",
			sweep.stuck);
		return error_hint(err, "files of sandboxes need root: run this as root");
	}
	return 0;
}
