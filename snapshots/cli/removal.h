/* Removing several images or snapshots: what is said of each, and of all. One that cannot be
 * removed does not keep the others. */
#ifndef HOB_SNAPSHOTS_CLI_REMOVAL_H
#define HOB_SNAPSHOTS_CLI_REMOVAL_H

#include "snapshots/cli/cli.h"

struct removal {
	const struct snapshots_cli *cli;
	uint64_t expected; /* bytes that it will free, as was said before */
	uint64_t freed; /* bytes */
	json_t *removed, *failed; /* of --json */
	struct error first; /* decides the exit code */
};

/* Says what removing them frees, unless --json or --dry-run. */
void removal_begin(
	struct removal *removal, const struct snapshots_cli *cli, uint64_t expected_bytes);
/* Of one: `freed` bytes, or why it could not be (failure NULL: it could). */
void removal_note(struct removal *removal, const char *id, const char *environment, uint64_t freed,
	const struct error *failure);
/* Says the sum. The first failure, if there was any. */
MUSTCHECK int removal_end(struct removal *removal, struct error *err);

#endif
