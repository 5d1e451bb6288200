/* One scalar of a file into one field of a struct: types, units, ranges, and the words that say
 * what was expected. A field that already holds a text gives it up. */
#include "configs/settings.h"

#include "base/clock.h"
#include "base/path.h"
#include "base/text.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

/* Of a text whose row does not say. */
#define TEXT_BYTES_MAX 1024

static const struct {
	const char *name;
	int64_t bytes;
} size_units[] = {{"TiB", INT64_C(1) << 40}, {"GiB", INT64_C(1) << 30}, {"MiB", INT64_C(1) << 20},
	{"KiB", INT64_C(1) << 10}, {"TB", INT64_C(1000000000000)}, {"GB", INT64_C(1000000000)},
	{"MB", INT64_C(1000000)}, {"kB", INT64_C(1000)}, {"KB", INT64_C(1000)}, {"B", 1}};

/* "12" or "12.345": the number in thousandths; at most `whole_max` before the point. */
static bool thousandths_parse(const char **text, int64_t whole_max, int64_t *ret_thousandths)
{
	int64_t number = 0, scale = 1000;

	if (!isdigit((unsigned char)**text)) {
		return false;
	}
	for (; isdigit((unsigned char)**text); (*text)++) {
		if (number > (whole_max - 9) / 10) {
			return false;
		}
		number = number * 10 + (**text - '0');
	}
	number *= 1000;
	if (**text == '.') {
		(*text)++;
		if (!isdigit((unsigned char)**text)) {
			return false;
		}
		for (; isdigit((unsigned char)**text); (*text)++) {
			scale /= 10;
			if (scale == 0) {
				return false;
			}
			number += (**text - '0') * scale;
		}
	}
	*ret_thousandths = number;
	return true;
}

bool size_parse(const char *text, int64_t *ret_bytes)
{
	int64_t thousandths;

	if (streq(text, "0")) {
		*ret_bytes = 0;
		return true;
	}
	/* A thousandth of what 64 bits hold. */
	if (!thousandths_parse(&text, INT64_MAX / 1000 - 1, &thousandths)) {
		return false;
	}
	while (*text == ' ') {
		text++;
	}
	for (size_t i = 0; i < ARRAY_SIZE(size_units); i++) {
		if (streq(text, size_units[i].name)) {
			__int128 bytes = (__int128)thousandths * size_units[i].bytes;

			if (bytes % 1000 != 0 || bytes / 1000 > INT64_MAX) {
				return false;
			}
			*ret_bytes = (int64_t)(bytes / 1000);
			return true;
		}
	}
	return false;
}

void size_format(char *text, int64_t bytes)
{
	size_t best = ARRAY_SIZE(size_units) - 1;

	if (bytes <= 0) {
		snprintf(text, 32, "0");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(size_units); i++) {
		if (bytes % size_units[i].bytes == 0 &&
			size_units[i].bytes > size_units[best].bytes) {
			best = i;
		}
	}
	snprintf(text, 32, "%" PRId64 "%s", bytes / size_units[best].bytes, size_units[best].name);
}

bool cpus_parse(const char *text, int64_t *ret_millis)
{
	int64_t millis;

	if (!thousandths_parse(&text, 1000000, &millis) || *text != '\0') {
		return false;
	}
	*ret_millis = millis;
	return true;
}

void cpus_format(char *text, int64_t millis)
{
	size_t used =
		(size_t)snprintf(text, 32, "%" PRId64 ".%03d", millis / 1000, (int)(millis % 1000));

	while (text[used - 1] == '0') {
		text[--used] = '\0';
	}
	if (text[used - 1] == '.') {
		text[used - 1] = '\0';
	}
}

static bool int_parse(const char *text, int64_t *ret_number)
{
	char *end;

	if (!isdigit((unsigned char)*text) || strlen(text) > 18) {
		return false;
	}
	*ret_number = (int64_t)strtoll(text, &end, 10);
	return *end == '\0';
}

static void number_format(const struct setting *row, int64_t number, char *text)
{
	if (row->type == SETTING_SIZE) {
		size_format(text, number);
	} else if (row->type == SETTING_DURATION) {
		duration_format(text, number);
	} else if (row->type == SETTING_CPUS) {
		cpus_format(text, number);
	} else {
		snprintf(text, 32, "%" PRId64, number);
	}
}

static const char *number_expects(const struct setting *row)
{
	return row->type == SETTING_SIZE       ? "a size such as \"512MiB\" or \"4GiB\""
	       : row->type == SETTING_DURATION ? "a duration such as \"30m\" or \"1h30m\""
	       : row->type == SETTING_CPUS     ? "a number of CPUs such as 2 or 0.5"
					       : "a whole number";
}

static bool number_parse(const struct setting *row, const char *text, int64_t *ret_number)
{
	return row->type == SETTING_SIZE       ? size_parse(text, ret_number)
	       : row->type == SETTING_DURATION ? duration_parse(text, ret_number)
	       : row->type == SETTING_CPUS     ? cpus_parse(text, ret_number)
					       : int_parse(text, ret_number);
}

static int number_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, int64_t *field, struct error *err)
{
	char lowest[32], highest[32];
	int64_t number;

	if (!number_parse(row, node->text, &number)) {
		return setting_expects(in, row, node, number_expects(row), err);
	}
	if ((number < row->lowest || number > row->highest) && !(row->zero && number == 0)) {
		number_format(row, row->lowest, lowest);
		number_format(row, row->highest, highest);
		return setting_refuse(in, row, node, err, "is %.32s; allowed is %s to %s%s",
			node->text, lowest, highest, row->zero && row->lowest > 0 ? ", or 0" : "");
	}
	*field = number;
	return 0;
}

static int refuse_choice(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, struct error *err)
{
	const char *nearest;
	char found[96], list[160] = "";
	size_t used = 0, count = 0;

	for (; row->choices[count] != NULL; count++) {
		used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
			count > 0 ? ", " : "", row->choices[count]);
		assert(used < sizeof(list));
	}
	nearest = text_nearest(node->text, row->choices, count);
	yaml_describe(node, found, sizeof(found));
	return setting_refuse(in, row, node, err, "expects one of %s, not %s%s%s%s", list, found,
		nearest != NULL ? "; did you mean \"" : "", nearest != NULL ? nearest : "",
		nearest != NULL ? "\"?" : "");
}

static int choice_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, size_t *ret_choice, struct error *err)
{
	for (size_t i = 0; row->choices[i] != NULL; i++) {
		if (streq(row->choices[i], node->text)) {
			*ret_choice = i;
			return 0;
		}
	}
	return refuse_choice(in, row, node, err);
}

static int bool_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, bool *field, struct error *err)
{

	if (node->plain && (streq(node->text, "true") || streq(node->text, "false"))) {
		*field = node->text[0] == 't';
		return 0;
	}
	return setting_expects(in, row, node, "true or false", err);
}

/* Host paths become absolute; paths inside a sandbox must be. */
static int path_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **text, struct error *err)
{
	char *resolved;

	for (const char *at = *text; *at != '\0'; at++) {
		if (iscntrl((unsigned char)*at)) {
			return setting_refuse(
				in, row, node, err, "has a control character in its path");
		}
	}
	if (row->type == SETTING_INNER_PATH && (*text)[0] != '/') {
		return setting_refuse(
			in, row, node, err, "expects an absolute path, not \"%.200s\"", *text);
	}
	if (row->type == SETTING_INNER_PATH && path_has_dotdot(*text)) {
		return setting_refuse(
			in, row, node, err, "expects a path without \"..\", not \"%.200s\"", *text);
	}
	resolved = path_resolve(in->folder, *text);
	free(*text);
	*text = resolved;
	return 0;
}

static int text_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, char **field, struct error *err)
{
	int64_t max = row->highest > 0 ? row->highest : TEXT_BYTES_MAX;
	CLEANUP(free_p) char *text = xstrdup(node->text);
	int code = 0;

	if (text[0] == '\0') {
		return setting_refuse(in, row, node, err, "is empty");
	}
	if ((int64_t)strlen(text) > max) {
		return setting_refuse(in, row, node, err,
			"has %zu bytes; at most %" PRId64 " are allowed", strlen(text), max);
	}
	if (row->type == SETTING_HOST_PATH || row->type == SETTING_INNER_PATH) {
		code = path_read(in, row, node, &text, err);
	} else if (row->type == SETTING_CHOICE) {
		size_t unused;

		code = choice_read(in, row, node, &unused, err);
	}
	if (code == 0 && row->check != NULL) {
		code = row->check(in, row, node, &text, err);
	}
	if (code == 0) {
		free(*field);
		*field = steal_ptr(text);
	}
	return code;
}

static const char *value_expects(const struct setting *row)
{
	switch (row->type) {
	case SETTING_INT:
	case SETTING_CPUS:
	case SETTING_SIZE:
	case SETTING_DURATION:
		return number_expects(row);
	case SETTING_BOOL:
		return "true or false";
	case SETTING_HOST_PATH:
		return "a path";
	case SETTING_INNER_PATH:
		return "an absolute path";
	case SETTING_CHOICE:
	case SETTING_SWITCH:
		return "a word";
	case SETTING_TEXT:
	case SETTING_SECTION:
	case SETTING_LIST:
	case SETTING_CUSTOM:
	case SETTING_TYPES:
	default:
		return row->expects != NULL ? row->expects : "a text";
	}
}

int setting_value_read(const struct settings_input *in, const struct setting *row,
	const struct yaml_node *node, void *target, struct error *err)
{
	void *field = (char *)target + row->offset;
	size_t choice = 0;
	int code;

	if (node->kind != YAML_TEXT || yaml_is_null(node)) {
		return setting_expects(in, row, node, value_expects(row), err);
	}
	switch (row->type) {
	case SETTING_TEXT:
	case SETTING_HOST_PATH:
	case SETTING_INNER_PATH:
	case SETTING_CHOICE:
		return text_read(in, row, node, field, err);
	case SETTING_SWITCH:
		code = choice_read(in, row, node, &choice, err);
		if (code == 0) {
			*(bool *)field = choice == 1;
		}
		return code;
	case SETTING_BOOL:
		return bool_read(in, row, node, field, err);
	case SETTING_INT:
	case SETTING_CPUS:
	case SETTING_SIZE:
	case SETTING_DURATION:
		return number_read(in, row, node, field, err);
	case SETTING_SECTION:
	case SETTING_LIST:
	case SETTING_CUSTOM:
	case SETTING_TYPES:
	default:
		return error_set(err, ERROR_INTERNAL, "setting %s has no single value", row->key);
	}
}
