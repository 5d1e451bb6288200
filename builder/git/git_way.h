/* The way from one commit to another, for a workspace that somebody works in: a stream of records
 * as pool/sandbox/init_protocol.h has them, which hob-init applies inside a sandbox. */
#ifndef HOB_BUILDER_GIT_WAY_H
#define HOB_BUILDER_GIT_WAY_H

#include "builder/git/git.h"

struct git_way {
	const char *from, *to; /* commits, in full */
	const char *ref; /* that the workspace is on; "": a bare commit */
	int fd; /* where the stream goes */
	bool modules; /* submodules are checked out, which the stream cannot change: refused then */
	/* Told of each path that changes, in the process that is forked; a bit of `marks` each. */
	uint64_t (*mark)(void *context, const char *path);
	void *context;
};

struct git_way_result {
	uint64_t changes, bytes;
	uint64_t marks; /* of all paths together */
	int64_t to_time; /* of the commit `to`, seconds */
};

/* Writes it, from the mirror alone. ERROR_NOT_FOUND: the mirror has not got both commits;
 * ERROR_LIMIT, ERROR_UNSUPPORTED. */
MUSTCHECK int git_way_write(struct machine *machine, const struct git_source *source,
	const struct git_way *way, struct git_way_result *ret_result, struct error *err);

#endif
