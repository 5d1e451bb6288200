/*
 * Command-line options from tables. A row says an option's name, type, place in the verb's values
 * and line of help, so that parsing and --help cannot disagree.
 */
#ifndef HOB_POOL_CLI_OPTIONS_H
#define HOB_POOL_CLI_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_type {
	OPTION_FLAG, /* bool */
	OPTION_TEXT, /* const char *, NULL when not given */
	OPTION_LIST, /* char **, NULL when not given; every use adds one */
	OPTION_DURATION, /* int64_t in ms; keeps the caller's default when not given */
};

struct option_row {
	const char *name;
	char letter; /* '\0': none */
	enum option_type type;
	const char *value; /* what stands for the value in --help; NULL for a flag */
	size_t offset; /* of the member in the values */
	const char *help;
};

/* Rows that fill one struct of values. */
struct option_set {
	const struct option_row *rows;
	size_t count;
	void *values;
};

#define OPTIONS_NO_COMMAND SIZE_MAX

/*
 * Takes the options out of the NULL-terminated `args` and leaves the operands at its front. Options
 * and operands may be mixed; "--" ends the options. After `command_after` operands the next one
 * starts a command, and everything from there on is an operand as it stands. ERROR_USAGE with the
 * nearest option as hint.
 */
MUSTCHECK int options_parse(const struct option_set *sets, size_t set_count, size_t command_after,
	char **args, size_t *ret_operands, struct error *err);
/* Frees the lists. */
void options_done(const struct option_set *set);
/* The rows as lines of --help. */
void options_print(const struct option_row *rows, size_t count);

#endif
