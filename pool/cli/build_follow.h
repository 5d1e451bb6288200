/* A build's log as it is written, until the build ends. */
#ifndef HOB_POOL_CLI_BUILD_FOLLOW_H
#define HOB_POOL_CLI_BUILD_FOLLOW_H

#include "base/json.h"

struct cli;

/* The log to standard output; with `follow` until the build has ended. */
MUSTCHECK int build_log_print(struct cli *cli, const char *id, bool follow, struct error *err);
/* The newest build of an environment, NULL if there is none. The caller owns it. */
MUSTCHECK int build_newest(
	struct cli *cli, const char *environment, json_t **ret_build, struct error *err);

#endif
