/*
 * One build of one environment, from its lock to the moved head (DESIGN: "Build"): fetch, compare,
 * base, sources, steps, check, publish. Whatever fails before the last transaction leaves the head
 * where it was.
 */
#ifndef HOB_BUILDER_JOB_H
#define HOB_BUILDER_JOB_H

#include "base/error.h"

#include <stdbool.h>

struct environment;
struct local_files;
struct machine;

/* Builds it and reports the result; a failure is recorded and reported too, then returned.
 * ERROR_BUSY: somebody else is building it. force: build although nothing changed. */
MUSTCHECK int job_run(struct machine *machine, const struct environment *environment,
	const struct local_files *files, bool force, struct error *err);

#endif
