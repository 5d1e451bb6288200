/* `hob-snapshots flatten`: a long list of layers made short. */
#include "snapshots/cli/cli.h"
#include "snapshots/tree/flatten.h"

static void report(const struct snapshots_cli *cli, int64_t id, const struct flatten_result *result)
{
	char name[CLI_ID_SIZE], freed[CLI_TEXT_SIZE];

	cli_snapshot_id(name, id);
	text_bytes(freed, result->freed);
	if (cli->json) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "id", name,
			"layers_before", (json_int_t)result->before, "layers_after",
			(json_int_t)result->after, "linked", (json_int_t)result->linked, "copied",
			(json_int_t)result->copied, "freed_bytes", (json_int_t)result->freed);

		json_print(json);
	} else if (result->before == result->after) {
		printf("%s: %zu layers, nothing to flatten\n", name, result->before);
	} else {
		printf("%s: %zu layers are %zu now; %llu files linked, %llu copied, freed %s\n",
			name, result->before, result->after, (unsigned long long)result->linked,
			(unsigned long long)result->copied, freed);
	}
}

int cli_flatten(struct snapshots_cli *cli, struct error *err)
{
	int status;

	cli->rights = STORE_RIGHTS_MAKE_TREES;
	status = cli_open(cli, STORE_WRITE, err);
	if (status == 0) {
		cli_progress_show(cli);
	}
	for (size_t i = 0; status == 0 && i < cli->operand_count; i++) {
		CLEANUP(snapshot_done) struct snapshot snapshot = {0};
		struct flatten_result result;

		status = snapshot_find(cli->store, cli->operands[i], &snapshot, err);
		if (status == 0) {
			cli_event(cli, "progress",
				json_pack("{s:s, s:I}", "phase", "look", "layers",
					(json_int_t)snapshot.layer_count));
			status = snapshot_flatten(cli->store, snapshot.id, &result, err);
			cli_progress_end(cli);
		}
		if (status == 0) {
			report(cli, snapshot.id, &result);
		}
	}
	return status;
}
