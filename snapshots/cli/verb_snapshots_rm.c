/* `hob-snapshots rm`: says what the snapshots free, removes them one after the other, says what
 * they have freed. One that cannot be removed does not keep the others. */
#include "snapshots/cli/removal.h"
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"

/* Upkeep reads layers in the background; it is asked again for five seconds. */
#define BUSY_LOOKS 50
#define BUSY_LOOK_US 100000

struct chosen {
	struct snapshot *list;
	size_t count, room;
};

static void chosen_done(struct chosen *chosen)
{
	snapshots_free(chosen->list, chosen->count);
}

static int choose(const struct snapshots_cli *cli, struct chosen *chosen, struct error *err)
{
	int status = 0;

	for (size_t i = 0; status == 0 && i < cli->operand_count; i++) {
		struct snapshot snapshot;
		bool twice = false;

		status = snapshot_find(cli->store, cli->operands[i], &snapshot, err);
		if (status < 0) {
			return status;
		}
		for (size_t j = 0; j < chosen->count; j++) {
			twice = twice || chosen->list[j].id == snapshot.id;
		}
		if (twice) {
			snapshot_done(&snapshot);
		} else {
			*array_add(&chosen->list, &chosen->count, &chosen->room) = snapshot;
		}
	}
	return status;
}

static int compare_layers(const void *a, const void *b)
{
	const struct layer *left = *(const struct layer *const *)a;
	const struct layer *right = *(const struct layer *const *)b;

	return (left->id > right->id) - (left->id < right->id);
}

/* A layer goes when the chosen ones are all that list it. */
static uint64_t freed_together(const struct chosen *chosen)
{
	CLEANUP(free_p) const struct layer **layers = NULL;
	size_t count = 0, room = 0;
	uint64_t bytes = 0;
	int64_t uses = 0;

	for (size_t i = 0; i < chosen->count; i++) {
		for (size_t j = 0; j < chosen->list[i].layer_count; j++) {
			*array_add(&layers, &count, &room) = &chosen->list[i].layers[j];
		}
	}
	if (count > 0) {
		qsort(layers, count, sizeof(struct layer *), compare_layers);
	}
	for (size_t i = 0; i < count; i++) {
		uses = i > 0 && layers[i]->id == layers[i - 1]->id ? uses + 1 : 1;
		bytes += uses == layers[i]->refs ? layers[i]->stored - layers[i]->shared : 0;
	}
	return bytes;
}

static int remove_one(const struct snapshots_cli *cli, const struct snapshot *snapshot,
	uint64_t *ret_freed, struct error *err)
{
	CLEANUP(strv_free_p) char **users = NULL;
	int status;

	if (!cli->dry_run) {
		status = snapshot_remove(cli->store, snapshot->id, ret_freed, err);
		for (int i = 0; status == -ERROR_BUSY && i < BUSY_LOOKS; i++) {
			*err = ERROR_INIT;
			usleep(BUSY_LOOK_US);
			status = snapshot_remove(cli->store, snapshot->id, ret_freed, err);
		}
		return status;
	}
	status = snapshot_users(cli->store, snapshot->id, &users, err);
	return status < 0 ? status : users_refuse("snap", snapshot->id, users, err);
}

static int remove_all(
	const struct snapshots_cli *cli, const struct chosen *chosen, struct error *err)
{
	struct removal removal;

	removal_begin(&removal, cli, freed_together(chosen));
	for (size_t i = 0; i < chosen->count; i++) {
		const struct snapshot *snapshot = &chosen->list[i];
		struct error failure = ERROR_INIT;
		uint64_t freed = 0;
		char id[CLI_ID_SIZE];
		int status = remove_one(cli, snapshot, &freed, &failure);

		if (status == -ERROR_CONFLICT) {
			cli_standing_hint(cli, snapshot->id, &failure);
		}
		cli_snapshot_id(id, snapshot->id);
		removal_note(
			&removal, id, snapshot->environment, freed, status < 0 ? &failure : NULL);
	}
	return removal_end(&removal, err);
}

int cli_rm(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(chosen_done) struct chosen chosen = {0};
	int status = cli_open(cli, cli->dry_run ? STORE_READ : STORE_WRITE, err);

	if (status == 0) {
		status = choose(cli, &chosen, err);
	}
	return status < 0 ? status : remove_all(cli, &chosen, err);
}
