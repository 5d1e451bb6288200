/* What `hob help`, `hob VERB --help` and a misspelt verb print. */
#ifndef HOB_POOL_CLI_HELP_H
#define HOB_POOL_CLI_HELP_H

#include "pool/cli/verb.h"

extern const struct option_row cli_option_rows[];
extern const size_t cli_option_count;

void help_print(const struct verb *const *verbs);
/* `path` is what was typed before the verb's name, "hob" or "hob builds". */
void help_print_verb(const char *path, const struct verb *verb);
/* The verb of that name, or ERROR_USAGE with the nearest one as hint. */
MUSTCHECK int help_find(const struct verb *const *verbs, const char *path, const char *name,
	const struct verb **ret_verb, struct error *err);

#endif
