/* Which commits have a certain one in their history, by the mirror alone. */
#ifndef HOB_BUILDER_GIT_ANCESTRY_H
#define HOB_BUILDER_GIT_ANCESTRY_H

#include "builder/git/git.h"

#define GIT_ANCESTRY_MAX 8

enum git_descent { GIT_DESCENDS, GIT_DOES_NOT_DESCEND, GIT_COMMIT_UNKNOWN, GIT_DESCENTS };

struct git_ancestry {
	bool known; /* the mirror has the commit that was asked for */
	char commit[COMMIT_TEXT_SIZE]; /* in full; "": not known */
	enum git_descent of[GIT_ANCESTRY_MAX];
};

/* Is each of `count` commits (in full) the `wanted` one (7 digits or more), or after it in history?
 * ERROR_CONFLICT: several commits begin with these digits; ERROR_NOT_FOUND: there is no mirror. */
MUSTCHECK int git_ask_ancestry(struct machine *machine, const struct git_source *source,
	const char *wanted, char *const *commits, size_t count, struct git_ancestry *ret_ancestry,
	struct error *err);

#endif
