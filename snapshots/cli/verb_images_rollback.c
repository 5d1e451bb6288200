/* `hob-snapshots images rollback`: an environment's head goes back to an older image. Its sandboxes
 * are hobd's affair, which watches the heads. */
#include "snapshots/cli/cli.h"

static int wanted_image(const struct snapshots_cli *cli, const char *environment, int64_t *ret_id,
	struct error *err)
{
	struct image image = {0};
	int status;

	*ret_id = 0;
	if (cli->operand_count < 2) {
		return 0;
	}
	status = image_find(cli->store, cli->operands[1], &image, err);
	if (status == 0 && !streq(image.environment, environment)) {
		error_set(err, ERROR_INVALID, "img-%lld is an image of %s, not of %s",
			(long long)image.id, image.environment, environment);
		status = error_hint(err, "hob images ls %s", environment);
	}
	*ret_id = image.id;
	image_done(&image);
	return status;
}

int cli_images_rollback(struct snapshots_cli *cli, struct error *err)
{
	const char *environment = cli->operands[0];
	struct image image = {0};
	int64_t wanted = 0;
	int status = cli_open(cli, STORE_WRITE, err);

	if (status == 0) {
		status = wanted_image(cli, environment, &wanted, err);
	}
	if (status == 0) {
		status = image_rollback(cli->store, environment, wanted, &image, err);
	}
	if (status < 0) {
		return status;
	}
	if (cli->json) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:s, s:o, s:s}", "environment", environment, "head",
			json_sprintf("img-%lld", (long long)image.id), "commit", image.commit);

		json_print(json);
	} else {
		printf("img-%lld is the head of %s again%s%.12s\n", (long long)image.id,
			environment, image.commit[0] != '\0' ? ": " : "", image.commit);
	}
	image_done(&image);
	return 0;
}
