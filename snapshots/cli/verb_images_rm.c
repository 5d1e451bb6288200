/* `hob-snapshots images rm`: says what the images free, removes them one after the other, says what
 * they have freed. One that cannot be removed does not keep the others. */
#include "snapshots/cli/cli.h"
#include "snapshots/inventory.h"
#include "snapshots/store_private.h"

struct removal {
	struct snapshots_cli *cli;
	json_t *removed; /* of --json */
	json_t *failed;
	uint64_t freed;
	size_t count;
	struct error first; /* decides the exit code */
};

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

static int remove_one(struct removal *removal, const struct inventory_row *row, struct error *err)
{
	struct snapshots_cli *cli = removal->cli;
	uint64_t freed = 0;
	int status = refuse_if_needed(cli, row, err);

	if (status == 0 && cli->head && row->image.is_head && !cli->dry_run) {
		status = image_head_clear(cli->store, row->image.environment, err);
	}
	if (status == 0 && !cli->dry_run) {
		status = image_remove(cli->store, row->image.id, &freed, err);
	}
	if (status == 0) {
		removal->freed += freed;
		removal->count++;
	}
	return status;
}

static void report_one(
	struct removal *removal, const struct inventory_row *row, const struct error *failure)
{
	char id[CLI_TEXT_SIZE];

	snprintf(id, sizeof(id), "img-%lld", (long long)row->image.id);
	if (failure == NULL) {
		json_array_append_new(removal->removed, json_string(id));
		if (!removal->cli->json) {
			printf("%s %s of %s\n", removal->cli->dry_run ? "would remove" : "removed",
				id, row->image.environment);
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

static void report_sum(const struct removal *removal, uint64_t expected)
{
	const struct snapshots_cli *cli = removal->cli;
	uint64_t bytes = cli->dry_run ? expected : removal->freed;
	char text[CLI_TEXT_SIZE];

	if (cli->json) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:b, s:O, s:O, s:I}", "dry_run", cli->dry_run, "removed",
			removal->removed, "failed", removal->failed, "freed_bytes",
			(json_int_t)bytes);

		json_print(json);
		return;
	}
	text_bytes(text, bytes);
	printf("%s %s\n", cli->dry_run ? "would free" : "freed", text);
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

static void remove_chosen(struct removal *removal, struct inventory *inventory)
{
	uint64_t expected = expected_bytes(removal->cli, inventory);
	char text[CLI_TEXT_SIZE];

	if (!removal->cli->json && !removal->cli->dry_run) {
		text_bytes(text, expected);
		printf("removing frees %s\n", text);
		fflush(stdout);
	}
	for (size_t i = 0; i < inventory->count; i++) {
		struct error err = ERROR_INIT;

		if (inventory->rows[i].chosen) {
			int status = remove_one(removal, &inventory->rows[i], &err);

			report_one(removal, &inventory->rows[i], status < 0 ? &err : NULL);
		}
	}
	report_sum(removal, expected);
}

int cli_images_rm(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(inventory_done) struct inventory inventory = {0};
	struct removal removal = {.cli = cli, .first = ERROR_INIT};
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
	if (status < 0) {
		return status;
	}
	removal.removed = json_array();
	removal.failed = json_array();
	remove_chosen(&removal, &inventory);
	json_decref(removal.removed);
	json_decref(removal.failed);
	if (removal.first.kind != ERROR_NONE) {
		error_copy(err, &removal.first);
		return -(int)err->kind;
	}
	return 0;
}
