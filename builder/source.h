/*
 * Sources without a build: fetching the newest commits into the mirrors, the way from one commit to
 * another for a sandbox that runs, and whether one commit comes after another. hobd starts
 * hob-build for all of these, since it reads no git data.
 */
#ifndef HOB_BUILDER_SOURCE_H
#define HOB_BUILDER_SOURCE_H

#include "base/error.h"

#include <stddef.h>

struct environment;
struct local_files;
struct machine;

/*
 * Fetches every source and writes what was found to <store>/mirrors/<environment>.json:
 * {"started_ms", "sources": [{"url", "ref", "commit", "path"}]} or {"started_ms", "error": {"kind",
 * "message", "hint"}}. Fails only when that cannot be written.
 */
MUSTCHECK int source_fetch(struct machine *machine, const struct environment *environment,
	const struct local_files *files, struct error *err);

struct source_sync {
	size_t index; /* of the environment's sources */
	const char *from, *to; /* commits */
	const char *ref; /* that the workspace is on; "": none */
};
/*
 * Writes the stream to standard output, and at the end one JSON line to standard error: {"changes",
 * "bytes", "commit_s", "stale": [steps]}, or {"error": {…}}. Fails only when it cannot tell.
 */
MUSTCHECK int source_sync(struct machine *machine, const struct environment *environment,
	const struct source_sync *sync, struct error *err);

/* Writes which of `commits` (a NULL-terminated list, in full) have `wanted` in the history of the
 * first source, as one JSON line to standard output: {"known", "commit", "of": {COMMIT: true,
 * false, or null when the mirror lacks it}}, or {"error": {…}}. */
MUSTCHECK int source_ancestry(struct machine *machine, const struct environment *environment,
	const char *wanted, char *const *commits, struct error *err);

/* The program of all: `hob-build --fetch …`, `--sync …`, `--ancestry …`. */
int source_main(int argc, char **argv);

#endif
