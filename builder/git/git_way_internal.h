/* Between the files that write the way between two commits; all in a child process. */
#ifndef HOB_BUILDER_GIT_WAY_INTERNAL_H
#define HOB_BUILDER_GIT_WAY_INTERNAL_H

#include "builder/git/git_internal.h"
#include "builder/git/git_way.h"

struct apply_record;

struct git_way_side {
	git_repository *repository; /* of its own: attributes are cached by path */
	git_commit *commit;
	git_tree *tree;
};
struct git_way_out {
	struct child *child;
	const struct git_way *way;
	struct git_way_result *result;
	struct git_way_side from, to;
	int64_t time; /* of the files that are written */
};
/* The changes of the work tree. */
MUSTCHECK int git_way_files(struct git_way_out *out, struct error *err);
/* One record with its path and data, whose lengths it fills in. */
MUSTCHECK int git_way_put(struct git_way_out *out, struct apply_record *record, const char *path,
	const void *data, size_t length, struct error *err);

#endif
