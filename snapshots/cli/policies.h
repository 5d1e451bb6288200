/* The retention policies of the environments' files, as gc wants them. */
#ifndef HOB_SNAPSHOTS_CLI_POLICIES_H
#define HOB_SNAPSHOTS_CLI_POLICIES_H

#include "configs/environment.h"
#include "snapshots/cli/cli.h"
#include "snapshots/gc.h"

struct policies {
	struct environment_list environments;
	struct gc_policy *list;
	size_t count, room;
};

void policies_done(struct policies *policies);
/* Before cli_open, while the files may be read. */
MUSTCHECK int policies_read(
	const struct snapshots_cli *cli, struct policies *policies, struct error *err);

#endif
