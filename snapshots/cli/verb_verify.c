/* `hob-snapshots verify`: layer by layer, with how far it is on a terminal. Without names it is a
 * run over the whole store, which an interrupted one's successor goes on with. */
#include "snapshots/cli/cli.h"
#include "base/clock.h"
#include "snapshots/snapshot.h"
#include "snapshots/verify.h"

#include <inttypes.h>

#define EVENT_EVERY_MS 100

struct verification {
	struct snapshots_cli *cli;
	struct layer *layers;
	size_t count, room;
	size_t at;
	bool whole, resumed, terminal;
	uint64_t damages, by_outcome[3];
	json_t *list;
	int64_t next_event_ms;
};

static void verification_done(struct verification *verification)
{
	free(verification->layers);
	json_decref(verification->list);
}

static void show_damage(
	void *context, const struct layer *layer, const char *path, const char *what)
{
	struct verification *verification = context;

	verification->damages++;
	json_array_append_new(
		verification->list, json_pack("{s:I, s:o, s:s}", "layer", (json_int_t)layer->id,
					    "path", json_str_or_null(path), "what", what));
	if (!verification->cli->json) {
		printf("%slayer %" PRId64 ": ", verification->terminal ? "\r" : "", layer->id);
		cli_print_path(path);
		printf(" %s\n", what);
	}
}

static void show_progress(void *context, uint64_t entries, uint64_t bytes)
{
	struct verification *verification = context;
	char text[CLI_TEXT_SIZE];
	int64_t now_ms = clock_mono_ms();

	if (verification->cli->events && now_ms >= verification->next_event_ms) {
		verification->next_event_ms = now_ms + EVENT_EVERY_MS;
		cli_event(verification->cli, "progress",
			json_pack("{s:s, s:I, s:I, s:I, s:I}", "phase", "read", "layer",
				(json_int_t)verification->at + 1, "layers",
				(json_int_t)verification->count, "entries", (json_int_t)entries,
				"bytes", (json_int_t)bytes));
	}

	if (verification->terminal) {
		text_bytes(text, bytes);
		fprintf(stderr, "\rlayer %zu of %zu: %" PRIu64 " entries, %s  ",
			verification->at + 1, verification->count, entries, text);
	}
}

static void add_layers(struct verification *verification, const struct layer *layers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		bool known = false;

		for (size_t j = 0; j < verification->count; j++) {
			known = known || verification->layers[j].id == layers[i].id;
		}
		if (!known) {
			*array_add(&verification->layers, &verification->count,
				&verification->room) = layers[i];
		}
	}
}

static int add_named(struct verification *verification, const char *name, struct error *err)
{
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	struct image image = {0};
	int status = snapshot_find(verification->cli->store, name, &snapshot, err);

	if (status == 0) {
		add_layers(verification, snapshot.layers, snapshot.layer_count);
		return 0;
	}
	if (status != -ERROR_NOT_FOUND ||
		image_find(verification->cli->store, name, &image, err) < 0) {
		return status == -ERROR_NOT_FOUND ? error_set(err, ERROR_NOT_FOUND,
							    "no snapshot and no image \"%s\"", name)
						  : status;
	}
	add_layers(verification, image.layers, image.layer_count);
	image_done(&image);
	return 0;
}

static int choose(struct verification *verification, struct error *err)
{
	struct snapshots_cli *cli = verification->cli;
	int64_t started = 0;
	int status = 0;

	for (size_t i = 0; status == 0 && i < cli->operand_count; i++) {
		status = add_named(verification, cli->operands[i], err);
	}
	if (cli->operand_count > 0 || status < 0) {
		return status;
	}
	verification->whole = true;
	if (!cli->quick) {
		status = verify_run_begin(cli->store, &started, &verification->resumed, err);
	}
	return status < 0 ? status
			  : verify_run_layers(cli->store, started, &verification->layers,
				    &verification->count, err);
}

static int verify_one(struct verification *verification, struct error *err)
{
	const struct verify_events events = {show_damage, show_progress, verification};
	const struct layer *layer = &verification->layers[verification->at];
	struct snapshots_cli *cli = verification->cli;
	enum verify_outcome outcome;
	int status = layer_verify(cli->store, layer, cli->quick, &events, &outcome, err);

	if (status == -ERROR_BUSY) {
		return 0; /* it is being removed */
	}
	if (status < 0) {
		return status;
	}
	verification->by_outcome[outcome]++;
	show_progress(verification, layer->files, layer->bytes);
	return cli->quick || outcome == VERIFY_DAMAGED ? 0
						       : layer_verified(cli->store, layer->id, err);
}

static void report(const struct verification *verification)
{
	const uint64_t *by = verification->by_outcome;

	if (verification->terminal) {
		fprintf(stderr, "\r%60s\r", "");
	}
	if (verification->cli->json) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:I, s:I, s:I, s:b, s:O}", "sound",
			(json_int_t)by[VERIFY_SOUND], "recorded", (json_int_t)by[VERIFY_RECORDED],
			"damaged", (json_int_t)by[VERIFY_DAMAGED], "resumed", verification->resumed,
			"damages", verification->list);

		json_print(json);
		return;
	}
	printf("%s%" PRIu64 " layers sound, %" PRIu64 "%s, %" PRIu64 " damaged\n",
		verification->resumed ? "went on with an interrupted run: " : "", by[VERIFY_SOUND],
		by[VERIFY_RECORDED],
		verification->cli->quick ? " not recorded yet" : " recorded for the first time",
		by[VERIFY_DAMAGED]);
}

int cli_verify(struct snapshots_cli *cli, struct error *err)
{
	CLEANUP(verification_done)
	struct verification verification = {.cli = cli, .list = json_array()};
	int status;

	verification.terminal = isatty(STDERR_FILENO) && !cli->json;
	cli->rights = STORE_RIGHTS_READ_TREES;
	status = cli_open(cli, STORE_WRITE, err);
	if (status == 0) {
		status = choose(&verification, err);
	}
	for (; status == 0 && verification.at < verification.count; verification.at++) {
		status = verify_one(&verification, err);
	}
	if (status == 0 && verification.whole && !cli->quick) {
		status = verify_run_end(cli->store, err);
	}
	if (status < 0) {
		return status;
	}
	report(&verification);
	if (verification.damages > 0) {
		error_set(err, ERROR_CORRUPT, "%" PRIu64 " entries are not what they were",
			verification.damages);
		return error_hint(err,
			"do not restore what has these layers; build images again, and "
			"import snapshots from their archives");
	}
	return 0;
}
