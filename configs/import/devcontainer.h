/*
 * A repository's .devcontainer/devcontainer.json as an environment. What has no counterpart here is
 * never dropped in silence: it stands as a comment in the text that comes out.
 *
 * The format: https://containers.dev/implementors/json_reference/
 */
#ifndef HOB_CONFIGS_IMPORT_DEVCONTAINER_H
#define HOB_CONFIGS_IMPORT_DEVCONTAINER_H

#include "base/error.h"

#include <stddef.h>

struct devcontainer_place {
	const char *file; /* for messages */
	const char *name; /* of the environment, a valid one; NULL: from the file's "name" */
	const char *url; /* of the source */
	const char *folder; /* the repository's own name, for its place in the sandbox */
};

/* `text` is JSON with comments and commas at ends. YAML into *ret_yaml, the caller's; it reads as
 * an environment. ERROR_INVALID. */
MUSTCHECK int devcontainer_import(const struct devcontainer_place *place, const char *text,
	size_t length, char **ret_yaml, struct error *err);

/* Comments and commas before a closing bracket become blanks, in place; texts stay. Lines keep
 * their numbers. */
void json_comments_blank(char *text, size_t length);

#endif
