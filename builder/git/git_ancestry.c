/* Ancestry, in a child process. It reads the mirror without its lock, as git_way.c does: objects
 * there are only ever added or moved to another pack. */
#include "builder/git/git_ancestry.h"

#include "builder/child.h"
#include "builder/git/git_internal.h"

#include <stdio.h>

struct ancestry_task {
	const struct git_source *source;
	const char *wanted;
	char *const *commits;
	size_t count;
};

static enum git_descent descent_of(git_repository *mirror, const char *commit, const git_oid *from)
{
	git_oid id;
	int code;

	if (git_oid_fromstr(&id, commit) < 0) {
		return GIT_COMMIT_UNKNOWN;
	}
	if (git_oid_equal(&id, from)) {
		return GIT_DESCENDS;
	}
	code = git_graph_descendant_of(mirror, &id, from);
	return code == 1 ? GIT_DESCENDS : code == 0 ? GIT_DOES_NOT_DESCEND : GIT_COMMIT_UNKNOWN;
}

static int find_wanted(
	git_repository *mirror, const char *wanted, git_commit **ret_commit, struct error *err)
{
	size_t digits = strlen(wanted);
	git_oid id;
	int code = git_oid_fromstrn(&id, wanted, digits);

	if (code == 0) {
		code = git_commit_lookup_prefix(ret_commit, mirror, &id, digits);
	}
	if (code == GIT_EAMBIGUOUS) {
		error_set(err, ERROR_CONFLICT, "several objects begin with %s", wanted);
		return error_hint(err, "give more digits of the commit");
	}
	if (code < 0 && code != GIT_ENOTFOUND) {
		return git_error_take(err, code, "find commit %s", wanted);
	}
	return 0;
}

static int ancestry_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	const struct ancestry_task *task = context;
	struct git_ancestry *result = ret_result;
	CLEANUP(free_p) char *path = git_mirror_path(task->source);
	CLEANUP(git_repository_p) git_repository *mirror = NULL;
	CLEANUP(git_commit_p) git_commit *wanted = NULL;
	int status = git_library_start(err), code;

	(void)child;
	if (status < 0) {
		return status;
	}
	code = git_repository_open_bare(&mirror, path);
	if (code < 0) {
		git_error_take(err, code, "open the mirror of %s", task->source->url);
		err->kind = ERROR_NOT_FOUND;
		return -(int)err->kind;
	}
	status = find_wanted(mirror, task->wanted, &wanted, err);
	if (status < 0 || wanted == NULL) {
		return status;
	}
	result->known = true;
	git_oid_tostr(result->commit, sizeof(result->commit), git_commit_id(wanted));
	for (size_t i = 0; i < task->count; i++) {
		result->of[i] = descent_of(mirror, task->commits[i], git_commit_id(wanted));
	}
	return 0;
}

int git_ask_ancestry(struct machine *machine, const struct git_source *source, const char *wanted,
	char *const *commits, size_t count, struct git_ancestry *ret_ancestry, struct error *err)
{
	CLEANUP(free_p) char *what = xasprintf("look for commit %s", wanted);
	struct ancestry_task task = {
		source, wanted, commits, count < GIT_ANCESTRY_MAX ? count : GIT_ANCESTRY_MAX};
	struct git_ancestry ancestry = {.known = false};
	struct child_spec spec = {
		.what = what,
		.run = ancestry_child,
		.context = &task,
		.result_size = sizeof(ancestry),
	};
	int status = child_run(machine, &spec, &ancestry, err);

	if (status < 0) {
		return status;
	}
	ancestry.commit[sizeof(ancestry.commit) - 1] = '\0';
	for (size_t i = 0; i < GIT_ANCESTRY_MAX; i++) {
		if ((unsigned)ancestry.of[i] >= GIT_DESCENTS) {
			return error_set(
				err, ERROR_INTERNAL, "%s: the answer makes no sense", what);
		}
	}
	*ret_ancestry = ancestry;
	return 0;
}
