/* Opening the store on behalf of an operator, and how sizes, ages and columns are written. */
#include "snapshots/cli/cli.h"

#include "base/clock.h"
#include "configs/config.h"
#include "snapshots/progress.h"
#include "snapshots/volume/volume.h"

#include <inttypes.h>
#include <signal.h>

#define PROGRESS_EVERY_MS 100

int cli_open(struct snapshots_cli *cli, enum store_mode mode, struct error *err)
{
	CLEANUP(config_free_p) struct config *config = NULL;
	const char *path = cli->store_path;
	int status;

	if (path == NULL) {
		status = config_load(cli->config_path, &config, err);
		if (status < 0) {
			return status;
		}
		path = config->store;
	}
	status = volume_mount(path, err);
	if (status == 0) {
		status = store_become_owner(path, cli->rights, &cli->helper, err);
	}
	if (status == 0) {
		status = store_open(path, mode, &cli->store, err);
	}
	if (status == 0 && cli->helper != NULL) {
		store_set_remover(cli->store, store_helper_remove, cli->helper);
		store_set_usage(cli->store, store_helper_usage, cli->helper);
		store_set_opaque(cli->store, store_helper_opaque, cli->helper);
		store_set_compare(cli->store, store_helper_compare, cli->helper);
	}
	return status;
}

void cli_done(struct snapshots_cli *cli)
{
	store_close(cli->store);
	store_helper_stop(cli->helper);
}

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
	(void)number;
	stopped = 1;
}

void cli_stop_gently(void)
{
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
}

bool cli_is_stopped(void *context)
{
	(void)context;
	return stopped != 0;
}

void cli_event(const struct snapshots_cli *cli, const char *name, json_t *what)
{
	CLEANUP(json_decref_p) json_t *event = json_pack("{s:o}", name, what);
	CLEANUP(free_p) char *text = cli->events ? json_text(event) : NULL;

	if (text != NULL) {
		fprintf(stderr, "%s\n", text);
	}
}

static void progress_line(struct snapshots_cli *cli, const struct store_progress *progress)
{
	char bytes[CLI_TEXT_SIZE];

	text_bytes(bytes, progress->bytes);
	fprintf(stderr, "\r%s: %" PRIu64, progress->phase, progress->entries);
	if (progress->entries_all > 0) {
		fprintf(stderr, " of %" PRIu64, progress->entries_all);
	}
	fprintf(stderr, " entries, %s  ", bytes);
	cli->shows = true;
}

static void on_progress(void *context, const struct store_progress *progress)
{
	struct snapshots_cli *cli = context;
	int64_t now_ms = clock_mono_ms();
	json_t *json;

	if (now_ms < cli->next_progress_ms) {
		return;
	}
	cli->next_progress_ms = now_ms + PROGRESS_EVERY_MS;
	if (!cli->events) {
		progress_line(cli, progress);
		return;
	}
	json = json_pack("{s:s, s:I, s:I}", "phase", progress->phase, "entries",
		(json_int_t)progress->entries, "bytes", (json_int_t)progress->bytes);
	if (progress->entries_all > 0) {
		json_object_set_new(
			json, "entries_all", json_integer((json_int_t)progress->entries_all));
	}
	if (progress->bytes_all > 0) {
		json_object_set_new(
			json, "bytes_all", json_integer((json_int_t)progress->bytes_all));
	}
	cli_event(cli, "progress", json);
}

void cli_progress_show(struct snapshots_cli *cli)
{
	if (cli->events || (isatty(STDERR_FILENO) && !cli->json)) {
		store_on_progress(cli->store, on_progress, cli);
	}
}

void cli_progress_end(struct snapshots_cli *cli)
{
	if (cli->shows) {
		fprintf(stderr, "\r%60s\r", "");
		cli->shows = false;
	}
}

void cli_age(char text[CLI_TEXT_SIZE], int64_t real_ms)
{
	int64_t seconds = (clock_real_ms() - real_ms) / 1000;

	if (seconds < 0) {
		seconds = 0;
	}
	if (seconds < 60) {
		snprintf(text, CLI_TEXT_SIZE, "%llds", (long long)seconds);
	} else if (seconds < 3600) {
		snprintf(text, CLI_TEXT_SIZE, "%lldm", (long long)(seconds / 60));
	} else if (seconds < 2 * 86400) {
		snprintf(text, CLI_TEXT_SIZE, "%lldh", (long long)(seconds / 3600));
	} else {
		snprintf(text, CLI_TEXT_SIZE, "%lldd", (long long)(seconds / 86400));
	}
}

void cli_cell(struct cli_table *table, const char *text)
{
	size_t length = strlen(text);

	*array_add(&table->cells, &table->count, &table->room) =
		(struct cli_cell_text){table->text.length, length};
	buffer_add(&table->text, text, length);
}

static size_t column_width(const struct cli_table *table, size_t column)
{
	size_t width = 0;

	for (size_t i = column; i < table->count; i += table->columns) {
		width = table->cells[i].length > width ? table->cells[i].length : width;
	}
	return width;
}

static void add_blanks(struct buffer *out, size_t count)
{
	static const char blanks[] = "                                ";

	for (; count > 0; count -= count < 32 ? count : 32) {
		buffer_add(out, blanks, count < 32 ? count : 32);
	}
}

void cli_table_print(const struct cli_table *table)
{
	size_t *widths = xcalloc(table->columns, sizeof(*widths));
	CLEANUP(buffer_done) struct buffer out = {0};

	for (size_t i = 0; i < table->columns; i++) {
		widths[i] = column_width(table, i);
	}
	for (size_t i = 0; i < table->count; i++) {
		size_t column = i % table->columns, length = table->cells[i].length;
		bool last = column + 1 == table->columns;

		if (table->right[column] && !last) {
			add_blanks(&out, widths[column] - length);
		}
		buffer_add(&out, table->text.data + table->cells[i].start, length);
		if (!table->right[column] && !last) {
			add_blanks(&out, widths[column] - length);
		}
		buffer_add(&out, last ? "\n" : "  ", last ? 1 : 2);
	}
	fwrite(out.data, 1, out.length, stdout);
	free(widths);
}

void cli_table_done(struct cli_table *table)
{
	free(table->cells);
	buffer_done(&table->text);
	*table = (struct cli_table){0};
}

static void add_bytes(struct cli_table *table, uint64_t bytes)
{
	char text[CLI_TEXT_SIZE];

	text_bytes(text, bytes);
	cli_cell(table, text);
}

static void add_layer(struct cli_table *table, const struct layer *layer, bool sharing)
{
	char text[CLI_TEXT_SIZE];

	snprintf(text, sizeof(text), "%lld", (long long)layer->id);
	cli_cell(table, text);
	cli_cell(table, layer->kind);
	if (sharing) {
		cli_cell(table, layer->refs > 1 ? "shared" : "exclusive");
	}
	snprintf(text, sizeof(text), "%llu", (unsigned long long)layer->files);
	cli_cell(table, text);
	add_bytes(table, layer->bytes);
	add_bytes(table, layer->stored);
	cli_cell(table, layer->title);
}

void cli_layers_print(const struct layer *layers, size_t count, bool sharing)
{
	static const bool right[] = {true, false, true, true, true, false},
			  right_sharing[] = {true, false, false, true, true, true, false};
	static const char *const titles[] = {
		"LAYER", "KIND", "", "FILES", "SIZE", "ON DISK", "TITLE"};
	CLEANUP(cli_table_done)
	struct cli_table table = {
		.columns = ARRAY_SIZE(titles) - !sharing, .right = sharing ? right_sharing : right};

	for (size_t i = 0; i < ARRAY_SIZE(titles); i++) {
		if (sharing || titles[i][0] != '\0') {
			cli_cell(&table, titles[i]);
		}
	}
	for (size_t i = count; i-- > 0;) {
		add_layer(&table, &layers[i], sharing);
	}
	cli_table_print(&table);
}
