/* What the verbs of hob-snapshots share: options, the opened store, and columns. */
#ifndef HOB_SNAPSHOTS_CLI_H
#define HOB_SNAPSHOTS_CLI_H

#include "base/buffer.h"
#include "base/json.h"
#include "base/text.h"
#include "snapshots/helper.h"
#include "snapshots/store.h"

#include <stdio.h>

struct snapshots_cli {
	const char *config_path; /* --config */
	const char *store_path; /* --store */
	bool json;
	bool events; /* progress, errors and the end as JSON lines, to standard error */
	bool help;
	bool dry_run;
	bool head;
	bool move;
	bool stat;
	bool packages;
	bool quick;
	bool with_parents;
	bool copy;
	bool preallocate;
	bool force;
	const char *xfs; /* --xfs SIZE */
	const char *environment; /* --env */
	const char *reason;
	const char *label;
	const char *older_than;
	const char *sort;
	const char *columns;
	const char *patch;
	const char *output;
	const char *keep_last;
	const char *keep_for;
	bool keep_labelled;
	char *const *operands; /* after the verb, NULL-terminated */
	size_t operand_count;
	enum store_rights rights; /* for cli_open; NONE unless a verb says otherwise */
	struct store_helper *helper;
	struct store *store; /* after cli_open */
	int64_t next_progress_ms;
	bool shows; /* a line of progress is on the terminal */
};

/* Opens the store that --store or hob.yaml names, as its owner when this is root. */
MUSTCHECK int cli_open(struct snapshots_cli *cli, enum store_mode mode, struct error *err);
void cli_done(struct snapshots_cli *cli);

/* The verbs. 0, or the failure that the program ends with. */
int cli_images_ls(struct snapshots_cli *cli, struct error *err);
int cli_images_info(struct snapshots_cli *cli, struct error *err);
int cli_images_diff(struct snapshots_cli *cli, struct error *err);
int cli_images_rm(struct snapshots_cli *cli, struct error *err);
int cli_images_rollback(struct snapshots_cli *cli, struct error *err);
int cli_recover(struct snapshots_cli *cli, struct error *err);
int cli_ls(struct snapshots_cli *cli, struct error *err);
int cli_tree(struct snapshots_cli *cli, struct error *err);
int cli_info(struct snapshots_cli *cli, struct error *err);
int cli_rm(struct snapshots_cli *cli, struct error *err);
int cli_pin(struct snapshots_cli *cli, struct error *err);
int cli_unpin(struct snapshots_cli *cli, struct error *err);
int cli_tag(struct snapshots_cli *cli, struct error *err);
int cli_untag(struct snapshots_cli *cli, struct error *err);
int cli_gc(struct snapshots_cli *cli, struct error *err);
int cli_du(struct snapshots_cli *cli, struct error *err);
int cli_take(struct snapshots_cli *cli, struct error *err);
int cli_diff(struct snapshots_cli *cli, struct error *err);
int cli_export(struct snapshots_cli *cli, struct error *err);
int cli_import(struct snapshots_cli *cli, struct error *err);
int cli_verify(struct snapshots_cli *cli, struct error *err);
int cli_flatten(struct snapshots_cli *cli, struct error *err);
int cli_dedupe(struct snapshots_cli *cli, struct error *err);
int cli_upkeep(struct snapshots_cli *cli, struct error *err);
int cli_cp(struct snapshots_cli *cli, struct error *err);
int cli_store_info(struct snapshots_cli *cli, struct error *err);
int cli_store_create(struct snapshots_cli *cli, struct error *err);
int cli_store_grow(struct snapshots_cli *cli, struct error *err);
int cli_store_mount(struct snapshots_cli *cli, struct error *err);
int cli_store_unmount(struct snapshots_cli *cli, struct error *err);
struct tree_view;
/* Of "snap-3", "img-2", a tag, an environment's name (its head); a bare number is a snapshot's. */
MUSTCHECK int cli_view_open(struct snapshots_cli *cli, const char *name,
	struct tree_view **ret_view, struct error *err);
/* Prints what `after` has changed over `before`; with --json, adds that to `json` instead. */
int cli_diff_views(struct snapshots_cli *cli, struct tree_view *before, struct tree_view *after,
	json_t *json, struct error *err);
/* Bytes that a terminal would take as its own become \xNN. */
void cli_print_path(const char *path);

/* "snap-12" into a text for people and JSON. */
#define CLI_ID_SIZE 32
void cli_snapshot_id(char text[CLI_ID_SIZE], int64_t id);
struct snapshot;
/* Everything that a list says of one. The caller owns it. */
json_t *cli_snapshot_json(const struct snapshot *snapshot);

/* From now on SIGINT and SIGTERM do not end this process: cli_is_stopped says that one came. */
void cli_stop_gently(void);
bool cli_is_stopped(void *context); /* as callbacks want it; `context` is ignored */

/* An event {name: what}, if they are wanted; takes `what`. */
void cli_event(const struct snapshots_cli *cli, const char *name, json_t *what);

/* Ids of the sandboxes that stand on it, of a hobd of this store. Free with strv_free. */
char **cli_standing(const struct snapshots_cli *cli, int64_t snapshot_id);
/* Names them in the hint, if there are any. */
void cli_standing_hint(const struct snapshots_cli *cli, int64_t snapshot_id, struct error *err);

/* Shows from here on how far the work in the store is: as events, or in a line on a terminal. */
void cli_progress_show(struct snapshots_cli *cli);
/* Takes that line away, before anything else is printed. */
void cli_progress_end(struct snapshots_cli *cli);

#define CLI_TEXT_SIZE TEXT_BYTES_SIZE
/* Time since, "12s", "3m", "5h", "2d". */
void cli_age(char text[CLI_TEXT_SIZE], int64_t real_ms);

/* Rows of cells, printed with each column as wide as its widest cell. */
struct cli_table {
	size_t columns;
	const bool *right; /* per column: numbers, to the right */
	struct cli_cell_text {
		size_t start, length; /* in `text`: ten thousand rows are one piece of memory */
	} * cells;
	size_t count, room;
	struct buffer text;
};

void cli_cell(struct cli_table *table, const char *text);
void cli_table_print(const struct cli_table *table);
void cli_table_done(struct cli_table *table);

struct layer;
/* A table of them, the top one first; `sharing`: with a column for whether others share it. */
void cli_layers_print(const struct layer *layers, size_t count, bool sharing);

#endif
