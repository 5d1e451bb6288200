/* One command in a sandbox over the layers so far: a build's step, or its check. */
#ifndef HOB_BUILDER_STEP_H
#define HOB_BUILDER_STEP_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer;
struct environment;
struct layer;
struct machine;
struct range;
struct step_secrets;

#define STEP_TAIL_SIZE 640 /* of the last output, for the message: it must fit an error */

struct step_spec {
	const struct environment *environment;
	const char *name; /* for output and messages */
	const char *run; /* for /bin/sh -c */
	int64_t timeout_ms; /* 0: the build's only */
	bool network;
	bool services; /* the environment's run beside it, and prime has run before it */
	const struct step_secrets *secrets; /* NULL: none */
	char *const *secret_names; /* of those, for this step; NULL: none */
	char *const
		*env; /* NULL: the environment's, its user and its workdir; else these, root, / */
	struct buffer *output; /* NULL: standard output is reported like the other */
	const char *staging; /* takes what it writes */
	const struct layer *layers;
	size_t layer_count;
};

struct step_outcome {
	int code; /* 0 to 255, or 128 + signal */
	int signal;
	int64_t took_us;
	char tail[STEP_TAIL_SIZE];
};

/*
 * Runs it to its end and takes the sandbox down: afterwards nothing writes to the staging folder.
 * A command that exits with a code is a success of this function. ERROR_TIMEOUT, ERROR_NO_SPACE
 * (over limits.disk), ERROR_CANCELLED, and whatever keeps a sandbox from starting.
 */
MUSTCHECK int step_run(struct machine *machine, struct range *range, const struct step_spec *spec,
	struct step_outcome *ret_outcome, struct error *err);

#endif
