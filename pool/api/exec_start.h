/* From an exec body to a running command: what all three ways of running one share. */
#ifndef HOB_POOL_API_EXEC_START_H
#define HOB_POOL_API_EXEC_START_H

#include "base/error.h"

#include <stdbool.h>

struct entry;
struct exec_body;
struct run;
struct run_sink;

/* The image's environment, user and folder hold where the body says nothing. */
MUSTCHECK int exec_start(struct entry *entry, const struct exec_body *body, bool capture,
	bool stdin_open, struct run_sink *sink, struct run **ret_run, struct error *err);

#endif
