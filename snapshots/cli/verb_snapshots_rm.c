/* `hob-snapshots rm`: says what the snapshots free, removes them one after the other, says what
 * they have freed. One that cannot be removed does not keep the others. */
#include "snapshots/cli/cli.h"
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"

struct removal {
	struct snapshots_cli *cli;
	struct snapshot *chosen;
	size_t count, room;
	json_t *removed, *failed; /* of --json */
	uint64_t freed;
	struct error first; /* decides the exit code */
};

static void removal_done(struct removal *removal)
{
	snapshots_free(removal->chosen, removal->count);
	json_decref(removal->removed);
	json_decref(removal->failed);
}

static int choose(struct removal *removal, struct error *err)
{
	int status = 0;

	for (size_t i = 0; status == 0 && i < removal->cli->operand_count; i++) {
		struct snapshot snapshot;
		bool twice = false;

		status = snapshot_find(
			removal->cli->store, removal->cli->operands[i], &snapshot, err);
		if (status < 0) {
			return status;
		}
		for (size_t j = 0; j < removal->count; j++) {
			twice = twice || removal->chosen[j].id == snapshot.id;
		}
		if (twice) {
			snapshot_done(&snapshot);
		} else {
			*array_add(&removal->chosen, &removal->count, &removal->room) = snapshot;
		}
	}
	return status;
}

/* A layer goes when the chosen ones are all that list it. */
static uint64_t freed_together(const struct removal *removal)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < removal->count; i++) {
		for (size_t j = 0; j < removal->chosen[i].layer_count; j++) {
			const struct layer *layer = &removal->chosen[i].layers[j];
			int64_t uses = 0;
			bool seen = false;

			for (size_t k = 0; k < removal->count; k++) {
				for (size_t l = 0; l < removal->chosen[k].layer_count; l++) {
					bool same = removal->chosen[k].layers[l].id == layer->id;

					uses += same;
					seen = seen || (same && k < i);
				}
			}
			bytes += !seen && uses == layer->refs ? layer->stored - layer->shared : 0;
		}
	}
	return bytes;
}

static int remove_one(struct removal *removal, const struct snapshot *snapshot, struct error *err)
{
	CLEANUP(strv_free_p) char **users = NULL;
	uint64_t freed = 0;
	int status;

	if (!removal->cli->dry_run) {
		status = snapshot_remove(removal->cli->store, snapshot->id, &freed, err);
		removal->freed += status == 0 ? freed : 0;
		return status;
	}
	status = snapshot_users(removal->cli->store, snapshot->id, &users, err);
	return status < 0 ? status : users_refuse("snap", snapshot->id, users, err);
}

static void report_one(
	struct removal *removal, const struct snapshot *snapshot, const struct error *failure)
{
	char id[CLI_ID_SIZE];

	cli_snapshot_id(id, snapshot->id);
	if (failure == NULL) {
		json_array_append_new(removal->removed, json_string(id));
		if (!removal->cli->json) {
			printf("%s %s of %s\n", removal->cli->dry_run ? "would remove" : "removed",
				id, snapshot->environment);
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

static void report_sum(const struct removal *removal, uint64_t bytes)
{
	char text[CLI_TEXT_SIZE];

	if (removal->cli->json) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:b, s:O, s:O, s:I}", "dry_run", removal->cli->dry_run,
			"removed", removal->removed, "failed", removal->failed, "freed_bytes",
			(json_int_t)bytes);

		json_print(json);
		return;
	}
	text_bytes(text, bytes);
	printf("%s %s\n", removal->cli->dry_run ? "would free" : "freed", text);
}

static void remove_all(struct removal *removal)
{
	uint64_t expected = freed_together(removal);
	char text[CLI_TEXT_SIZE];

	if (!removal->cli->json && !removal->cli->dry_run) {
		text_bytes(text, expected);
		printf("removing frees %s\n", text);
		fflush(stdout);
	}
	for (size_t i = 0; i < removal->count; i++) {
		struct error err = ERROR_INIT;
		int status = remove_one(removal, &removal->chosen[i], &err);

		report_one(removal, &removal->chosen[i], status < 0 ? &err : NULL);
	}
	report_sum(removal, removal->cli->dry_run ? expected : removal->freed);
}

int cli_rm(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(removal_done)
	struct removal removal = {.cli = cli, .removed = json_array(), .failed = json_array()};
	int status = cli_open(cli, cli->dry_run ? STORE_READ : STORE_WRITE, err);

	if (status == 0) {
		status = choose(&removal, err);
	}
	if (status < 0) {
		return status;
	}
	remove_all(&removal);
	if (removal.first.kind != ERROR_NONE) {
		error_copy(err, &removal.first);
		return -(int)err->kind;
	}
	return 0;
}
