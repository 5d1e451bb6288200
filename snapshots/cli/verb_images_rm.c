/* `hob-snapshots images rm`: says what the images free, removes them one after the other, says what
 * they have freed. One that cannot be removed does not keep the others. */
#include "snapshots/cli/removal.h"
#include "snapshots/inventory.h"
#include "snapshots/store_private.h"

static int choose(struct snapshots_cli *cli, struct inventory *inventory, struct error *err)
{
	int status = 0;

	for (size_t i = 0; status == 0 && i < cli->operand_count; i++) {
		struct image image;
		struct inventory_row *row;

		status = image_find(cli->store, cli->operands[i], &image, err);
		if (status < 0) {
			return status;
		}
		row = inventory_find(inventory, image.id);
		image_done(&image);
		if (row == NULL) {
			return error_set(err, ERROR_NOT_FOUND, "image \"%s\" has just been removed",
				cli->operands[i]);
		}
		row->chosen = true;
	}
	return status;
}

/* Who stands in the way: with --head not the environment itself. */
static int refuse_if_needed(
	const struct snapshots_cli *cli, const struct inventory_row *row, struct error *err)
{
	for (size_t i = 0; row->users[i] != NULL; i++) {
		if (str_starts(row->users[i], USER_HEAD) && cli->head) {
			continue;
		}
		error_set(err, ERROR_CONFLICT, "img-%lld is in use: %s", (long long)row->image.id,
			row->users[i]);
		if (str_starts(row->users[i], USER_HEAD)) {
			return error_hint(err,
				"--head removes it all the same; %s has no image then until its "
				"next build",
				row->image.environment);
		}
		return str_starts(row->users[i], USER_SNAPSHOT)
			       ? error_hint(err, "its snapshots need the same layers: remove them "
						 "first, if at all")
			       : error_hint(err, "remove the sandboxes that stand on it first");
	}
	return 0;
}

static int remove_one(const struct snapshots_cli *cli, const struct inventory_row *row,
	uint64_t *ret_freed, struct error *err)
{
	int status = refuse_if_needed(cli, row, err);

	if (status == 0 && cli->head && row->image.is_head && !cli->dry_run) {
		status = image_head_clear(cli->store, row->image.environment, err);
	}
	return status < 0 || cli->dry_run ? status
					  : image_remove(cli->store, row->image.id, ret_freed, err);
}

/* What those that nothing stands in the way of free together. */
static uint64_t expected_bytes(const struct snapshots_cli *cli, struct inventory *inventory)
{
	struct error ignored = ERROR_INIT;
	bool *chosen = xcalloc(inventory->count, sizeof(*chosen));
	uint64_t bytes;

	for (size_t i = 0; i < inventory->count; i++) {
		struct inventory_row *row = &inventory->rows[i];

		chosen[i] = row->chosen;
		row->chosen = row->chosen && refuse_if_needed(cli, row, &ignored) == 0;
	}
	bytes = inventory_chosen_bytes(inventory);
	for (size_t i = 0; i < inventory->count; i++) {
		inventory->rows[i].chosen = chosen[i];
	}
	free(chosen);
	return bytes;
}

static int remove_chosen(
	const struct snapshots_cli *cli, struct inventory *inventory, struct error *err)
{
	struct removal removal;

	removal_begin(&removal, cli, expected_bytes(cli, inventory));
	for (size_t i = 0; i < inventory->count; i++) {
		const struct inventory_row *row = &inventory->rows[i];
		struct error failure = ERROR_INIT;
		uint64_t freed = 0;
		char id[CLI_ID_SIZE];

		if (row->chosen) {
			int status = remove_one(cli, row, &freed, &failure);

			snprintf(id, sizeof(id), "img-%lld", (long long)row->image.id);
			removal_note(&removal, id, row->image.environment, freed,
				status < 0 ? &failure : NULL);
		}
	}
	return removal_end(&removal, err);
}

int cli_images_rm(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(inventory_done) struct inventory inventory = {0};
	int status;

	if (cli->operand_count == 0) {
		return error_set(err, ERROR_USAGE, "images rm needs the names of images");
	}
	status = cli_open(cli, cli->dry_run ? STORE_READ : STORE_WRITE, err);
	if (status == 0) {
		status = inventory_read(cli->store, &inventory, err);
	}
	if (status == 0) {
		status = choose(cli, &inventory, err);
	}
	return status < 0 ? status : remove_chosen(cli, &inventory, err);
}
