/* hobd put together: what is started in which order, what the signals do, how it ends. */
#ifndef HOB_POOL_DAEMON_H
#define HOB_POOL_DAEMON_H

#include "base/error.h"

#include <stdbool.h>

struct config;

struct daemon_options {
	bool stop_sandboxes; /* SIGTERM ends them too, not only SIGINT */
};

/* Runs until a signal ends it or the launcher is lost. */
MUSTCHECK int daemon_run(
	const struct config *config, const struct daemon_options *options, struct error *err);

#endif
