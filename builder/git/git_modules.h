/*
 * Submodules: what a commit's .gitmodules and tree say of them. Both are a stranger's, so names,
 * paths and urls are refused wherever git would refuse them, and urls also where they lead to what
 * the environment's own url gives no right to: other folders of this machine, other schemes.
 */
#ifndef HOB_BUILDER_GIT_MODULES_H
#define HOB_BUILDER_GIT_MODULES_H

#include "base/error.h"
#include "base/memory.h"
#include "snapshots/store.h"

#include <stdbool.h>
#include <stddef.h>

struct git_source;
struct machine;

/* Of one commit. */
#define GIT_MODULES_MAX 512
#define GIT_MODULES_BYTES_MAX (1024 * 1024)

/* In a mirror: a file with the names of the mirrors of its submodules. */
#define GIT_MODULES_NOTE "hob-modules"

struct git_module {
	char *name, *path;
	char *url; /* as .gitmodules has it; NULL: not said */
	char commit[COMMIT_TEXT_SIZE]; /* "": the commit has no submodule at this path */
	bool left_out; /* update = none */
};

struct git_module_list {
	struct git_module *items;
	size_t count, room;
};
void git_module_list_done(struct git_module_list *list);

/* What .gitmodules says, without commits. ERROR_INVALID: it is none; ERROR_DENIED: what git refuses
 * too; ERROR_LIMIT. */
MUSTCHECK int git_modules_parse(
	const char *text, size_t length, struct git_module_list *list, struct error *err);

/* Is there one at this path that is fetched? The list may be NULL. */
bool git_module_is_listed(const struct git_module_list *list, const char *path);

/* The submodules of a commit that have a place in .gitmodules, by a process that reads the mirror.
 * ERROR_CORRUPT: the mirror lacks it. */
MUSTCHECK int git_modules_read(struct machine *machine, const struct git_source *source,
	const char *commit, struct git_module_list *list, struct error *err);

/*
 * Where a submodule is fetched from, by the url of the repository that names it: relative ones as
 * git resolves them; ssh to the very host of an http(s) parent becomes that scheme. ERROR_DENIED.
 * free() *ret_url.
 */
MUSTCHECK int git_module_url(
	const char *parent, const char *url, char **ret_url, struct error *err);
/* Do both name the same server, so that what is good for one may be shown to the other? */
bool git_urls_share_host(const char *one, const char *other);

#endif
