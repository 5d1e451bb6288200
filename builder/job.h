/*
 * One build of one environment, from its lock to the moved head (DESIGN: "Build"): fetch, compare,
 * base, sources, steps, check, publish. Whatever fails before the last transaction leaves the head
 * where it was.
 */
#ifndef HOB_BUILDER_JOB_H
#define HOB_BUILDER_JOB_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct environment;
struct local_files;
struct machine;

struct job_options {
	bool force; /* build although nothing changed, or it was refused by a rollback; run every
		       step */
	bool no_cache; /* and reuse no layer; with force */
	bool scheduled; /* nobody asked: what has failed is tried again only when its time comes */
};

/*
 * How long after its `count`th failure a scheduled build tries the same again, ms: 20 min, doubled
 * each time, a day at the most. A flaky network gets its second chance with the next schedule.
 */
int64_t job_retry_ms(int64_t count);

/* Builds it and reports the result; a failure is recorded and reported too, then returned.
 * ERROR_BUSY: somebody else is building it. */
MUSTCHECK int job_run(struct machine *machine, const struct environment *environment,
	const struct local_files *files, const struct job_options *options, struct error *err);

/* Prints what a build would do now to each layer and why, as text or as one line of JSON. Fetches,
 * and changes nothing else. */
MUSTCHECK int job_explain(struct machine *machine, const struct environment *environment,
	const struct local_files *files, const struct job_options *options, bool json,
	struct error *err);

#endif
