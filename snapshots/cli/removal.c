/* All failures but the first are shown as they come; that one by the program's end. */
#include "snapshots/cli/removal.h"

void removal_begin(
	struct removal *removal, const struct snapshots_cli *cli, uint64_t expected_bytes)
{
	char text[CLI_TEXT_SIZE];

	*removal = (struct removal){.cli = cli,
		.expected = expected_bytes,
		.removed = json_array(),
		.failed = json_array(),
		.first = ERROR_INIT};
	if (!cli->json && !cli->dry_run) {
		text_bytes(text, expected_bytes);
		printf("removing frees %s\n", text);
		fflush(stdout);
	}
}

void removal_note(struct removal *removal, const char *id, const char *environment, uint64_t freed,
	const struct error *failure)
{
	if (failure == NULL) {
		removal->freed += freed;
		json_array_append_new(removal->removed, json_string(id));
		if (!removal->cli->json) {
			printf("%s %s of %s\n", removal->cli->dry_run ? "would remove" : "removed",
				id, environment);
		}
		return;
	}
	json_array_append_new(removal->failed,
		json_pack("{s:s, s:s, s:s}", "id", id, "kind", error_kind_name(failure->kind),
			"message", failure->message));
	if (removal->first.kind == ERROR_NONE) {
		error_copy(&removal->first, failure);
	} else if (!removal->cli->json) {
		error_print("hob-snapshots", failure);
	}
}

int removal_end(struct removal *removal, struct error *err)
{
	const struct snapshots_cli *cli = removal->cli;
	uint64_t bytes = cli->dry_run ? removal->expected : removal->freed;
	CLEANUP(json_decref_p)
	json_t *json = json_pack("{s:b, s:o, s:o, s:I}", "dry_run", cli->dry_run, "removed",
		removal->removed, "failed", removal->failed, "freed_bytes", (json_int_t)bytes);
	char text[CLI_TEXT_SIZE];

	if (cli->json) {
		json_print(json);
	} else {
		text_bytes(text, bytes);
		printf("%s %s\n", cli->dry_run ? "would free" : "freed", text);
	}
	if (removal->first.kind == ERROR_NONE) {
		return 0;
	}
	error_copy(err, &removal->first);
	return -(int)err->kind;
}
