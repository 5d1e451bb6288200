/* What the verbs of hob-snapshots share: options, the opened store, and columns. */
#ifndef HOB_SNAPSHOTS_CLI_H
#define HOB_SNAPSHOTS_CLI_H

#include "base/json.h"
#include "snapshots/helper.h"
#include "snapshots/store.h"

#include <stdio.h>

struct snapshots_cli {
	const char *config_path; /* --config */
	const char *store_path; /* --store */
	bool json;
	bool dry_run;
	bool head;
	bool help;
	char *const *operands; /* after the verb, NULL-terminated */
	size_t operand_count;
	struct store_helper *helper;
	struct store *store; /* after cli_open */
};

/* Opens the store that --store or hob.yaml names, as its owner when this is root. */
MUSTCHECK int cli_open(struct snapshots_cli *cli, enum store_mode mode, struct error *err);
void cli_done(struct snapshots_cli *cli);

/* The verbs. 0, or the failure that the program ends with. */
int cli_images_ls(struct snapshots_cli *cli, struct error *err);
int cli_images_info(struct snapshots_cli *cli, struct error *err);
int cli_images_rm(struct snapshots_cli *cli, struct error *err);
int cli_recover(struct snapshots_cli *cli, struct error *err);

#define CLI_TEXT_SIZE 32
/* "812 B", "1.4 KiB", "20 MiB". */
void cli_bytes(char text[CLI_TEXT_SIZE], uint64_t bytes);
/* Time since, "12s", "3m", "5h", "2d". */
void cli_age(char text[CLI_TEXT_SIZE], int64_t real_ms);

/* Rows of cells, printed with each column as wide as its widest cell. */
struct cli_table {
	size_t columns;
	const bool *right; /* per column: numbers, to the right */
	char **cells;
	size_t count, room;
};

void cli_cell(struct cli_table *table, const char *text);
void cli_table_print(const struct cli_table *table);
void cli_table_done(struct cli_table *table);

#endif
