/* The one parser of all verbs. Values point into the arguments; only lists are copies. */
#include "pool/cli/options.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/text.h"

#include <stdio.h>

/* More names than any verb has, for the search of the nearest. */
#define NAMES_MAX 64

struct parser {
	const struct option_set *sets;
	size_t set_count;
	struct error *err;
};

static const struct option_row *row_by_name(
	const struct parser *parser, const char *name, size_t length, void **ret_values)
{
	for (size_t s = 0; s < parser->set_count; s++) {
		for (size_t i = 0; i < parser->sets[s].count; i++) {
			const struct option_row *row = &parser->sets[s].rows[i];

			if (strlen(row->name) == length && strncmp(row->name, name, length) == 0) {
				*ret_values = parser->sets[s].values;
				return row;
			}
		}
	}
	return NULL;
}

static const struct option_row *row_by_letter(
	const struct parser *parser, char letter, void **ret_values)
{
	for (size_t s = 0; s < parser->set_count; s++) {
		for (size_t i = 0; i < parser->sets[s].count; i++) {
			if (parser->sets[s].rows[i].letter == letter) {
				*ret_values = parser->sets[s].values;
				return &parser->sets[s].rows[i];
			}
		}
	}
	return NULL;
}

static int unknown_name(const struct parser *parser, const char *name, size_t length)
{
	CLEANUP(free_p) char *word = xstrndup(name, length);
	const char *names[NAMES_MAX];
	const char *nearest;
	size_t count = 0;

	for (size_t s = 0; s < parser->set_count; s++) {
		for (size_t i = 0; i < parser->sets[s].count && count < NAMES_MAX; i++) {
			names[count++] = parser->sets[s].rows[i].name;
		}
	}
	nearest = text_nearest(word, names, count);
	error_set(parser->err, ERROR_USAGE, "unknown option --%s", word);
	return nearest != NULL ? error_hint(parser->err, "did you mean --%s?", nearest)
			       : -(int)ERROR_USAGE;
}

static int value_set(
	const struct parser *parser, const struct option_row *row, void *values, char *text)
{
	void *place = (char *)values + row->offset;

	switch (row->type) {
	case OPTION_FLAG:
		*(bool *)place = true;
		return 0;
	case OPTION_TEXT:
		*(const char **)place = text;
		return 0;
	case OPTION_LIST:
		strv_add((char ***)place, text);
		return 0;
	case OPTION_DURATION:
		if (!duration_parse(text, (int64_t *)place)) {
			error_set(parser->err, ERROR_USAGE, "--%s %s: not a duration", row->name,
				text);
			return error_hint(parser->err, "write it like 90s, 30m or 1h30m");
		}
		return 0;
	}
	return 0;
}

/* `--name`, `--name=value` or `--name value`; takes what it uses off *args. */
static int parse_long(const struct parser *parser, char ***args)
{
	char *name = **args + 2;
	size_t length = strcspn(name, "=");
	char *text = name[length] == '=' ? name + length + 1 : NULL;
	void *values = NULL;
	const struct option_row *row = row_by_name(parser, name, length, &values);

	(*args)++;
	if (row == NULL) {
		return unknown_name(parser, name, length);
	}
	if (row->type == OPTION_FLAG && text != NULL) {
		return error_set(parser->err, ERROR_USAGE, "--%s takes no value", row->name);
	}
	if (row->type != OPTION_FLAG && text == NULL) {
		text = *(*args);
		if (text == NULL) {
			return error_set(parser->err, ERROR_USAGE, "--%s needs a value: %s",
				row->name, row->value);
		}
		(*args)++;
	}
	return value_set(parser, row, values, text);
}

/* `-it`, `-eK=V` or `-e K=V`. */
static int parse_short(const struct parser *parser, char ***args)
{
	char *letters = **args + 1;

	(*args)++;
	while (*letters != '\0') {
		void *values = NULL;
		const struct option_row *row = row_by_letter(parser, *letters, &values);
		int status;

		if (row == NULL) {
			return error_set(parser->err, ERROR_USAGE, "unknown option -%c", *letters);
		}
		letters++;
		if (row->type == OPTION_FLAG) {
			status = value_set(parser, row, values, NULL);
		} else if (*letters != '\0') {
			return value_set(parser, row, values, letters);
		} else if (**args != NULL) {
			return value_set(parser, row, values, *(*args)++);
		} else {
			return error_set(parser->err, ERROR_USAGE, "-%c needs a value: %s",
				row->letter, row->value);
		}
		if (status < 0) {
			return status;
		}
	}
	return 0;
}

int options_parse(const struct option_set *sets, size_t set_count, size_t command_after,
	char **args, size_t *ret_operands, struct error *err)
{
	const struct parser parser = {sets, set_count, err};
	char **operands = args;
	size_t count = 0;

	while (*args != NULL) {
		int status = 0;

		if (streq(*args, "--") || ((*args)[0] != '-' && count == command_after)) {
			args += streq(*args, "--") ? 1 : 0;
			while (*args != NULL) {
				operands[count++] = *args++;
			}
		} else if (str_starts(*args, "--")) {
			status = parse_long(&parser, &args);
		} else if ((*args)[0] == '-' && (*args)[1] != '\0') {
			status = parse_short(&parser, &args);
		} else {
			operands[count++] = *args++;
		}
		if (status < 0) {
			return status;
		}
	}
	operands[count] = NULL;
	*ret_operands = count;
	return 0;
}

void options_done(const struct option_set *set)
{
	for (size_t i = 0; i < set->count; i++) {
		if (set->rows[i].type == OPTION_LIST) {
			char ***list =
				(char ***)(void *)((char *)set->values + set->rows[i].offset);

			strv_free(*list);
			*list = NULL;
		}
	}
}

static int row_width(const struct option_row *row)
{
	return (int)(strlen(row->name) + (row->value != NULL ? strlen(row->value) + 1 : 0));
}

void options_print(const struct option_row *rows, size_t count)
{
	int width = 0;

	for (size_t i = 0; i < count; i++) {
		width = row_width(&rows[i]) > width ? row_width(&rows[i]) : width;
	}
	for (size_t i = 0; i < count; i++) {
		const struct option_row *row = &rows[i];
		char letter[5] = "    ";

		if (row->letter != '\0') {
			snprintf(letter, sizeof(letter), "-%c, ", row->letter);
		}
		printf("  %s--%s%s%s%*s  %s\n", letter, row->name, row->value != NULL ? " " : "",
			row->value != NULL ? row->value : "", width - row_width(row), "",
			row->help);
	}
}
