/*
 * Sources and archives on this machine that user hob may not read, such as a clone below /root:
 * they are opened while the program still is root. A repository appears in a mount namespace of
 * this process only, read-only, its owner standing for hob; the namespace takes it away at the end.
 */
#ifndef HOB_BUILDER_LOCAL_H
#define HOB_BUILDER_LOCAL_H

#include "base/error.h"

#include <stddef.h>

struct config;
struct environment;

struct local_files {
	struct local_file {
		char *path; /* as the environment names it */
		char *mapped; /* a repository: where to read it; NULL: at its path */
		int fd; /* an archive, open; or -1 */
		struct error error; /* why it cannot be had; told when it is needed */
	} * items;
	size_t count, room;
};

/* As root, after launcher_start. A path that fails is noted, not an error. */
MUSTCHECK int local_prepare(const struct config *config, struct environment *const *environments,
	size_t count, struct local_files *ret_files, struct error *err);
void local_done(struct local_files *files);
/* NULL if the path was not prepared. */
const struct local_file *local_find(const struct local_files *files, const char *path);

#endif
