/* `hob-snapshots dedupe`: equal files of successive layers are stored once. Ctrl-C ends it between
 * two files; the next run goes on with what is left. */
#include "snapshots/cli/cli.h"
#include "snapshots/share/share.h"

#include <inttypes.h>

static void show_progress(void *context, const struct layer *layer, uint64_t files, uint64_t bytes)
{
	const struct snapshots_cli *cli = context;
	char text[CLI_TEXT_SIZE];

	if (cli->events) {
		cli_event(cli, "progress",
			json_pack("{s:s, s:I, s:I, s:I}", "phase", "share", "layer",
				(json_int_t)layer->id, "entries", (json_int_t)files, "bytes",
				(json_int_t)bytes));
		return;
	}
	text_bytes(text, bytes);
	fprintf(stderr, "\rlayer %" PRId64 ": %" PRIu64 " files, %s  ", layer->id, files, text);
}

static void report(const struct snapshots_cli *cli, const struct share_result *result)
{
	char saved[CLI_TEXT_SIZE];

	if (cli->json) {
		CLEANUP(json_decref_p)
		json_t *json = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "method",
			share_method_name(result->method), "layers", (json_int_t)result->layers,
			"files", (json_int_t)result->files, "freed_bytes",
			(json_int_t)result->bytes, "in_use", (json_int_t)result->waiting,
			"other_owners", (json_int_t)result->owners, "interrupted",
			cli_is_stopped(NULL));

		json_print(json);
		return;
	}
	text_bytes(saved, result->bytes);
	printf("compared %" PRIu64 " layers with those before them: %" PRIu64
	       " files are stored once now, by %s; freed %s\n",
		result->layers, result->files,
		result->method == SHARE_BLOCKS ? "shared blocks" : "hard links", saved);
	if (result->waiting > 0) {
		printf("%" PRIu64 " layers are in use by sandboxes or builds: next time\n",
			result->waiting);
	}
	if (result->owners > 0) {
		printf("%" PRIu64 " layers have other owners on disk than those before them: links "
		       "cannot be shared\n",
			result->owners);
	}
}

int cli_dedupe(struct snapshots_cli *cli, struct error *err)
{
	bool terminal = isatty(STDERR_FILENO) && !cli->json && !cli->events;
	const struct share_events events = {
		cli_is_stopped, cli->events || terminal ? show_progress : NULL, cli};
	struct share_result result = {0};
	int status;

	cli->rights = STORE_RIGHTS_MAKE_TREES;
	status = cli_open(cli, STORE_WRITE, err);
	if (status == 0) {
		status = share_settle_all(cli->store, err);
	}
	if (status == 0) {
		cli_stop_gently();
		cli_event(cli, "progress",
			json_pack("{s:s, s:i, s:i}", "phase", "share", "entries", 0, "bytes", 0));
		status = store_share(cli->store, &events, &result, err);
	}
	if (terminal) {
		fprintf(stderr, "\r%60s\r", "");
	}
	if (status == 0 || err->kind == ERROR_CANCELLED) {
		report(cli, &result);
	}
	return status;
}
