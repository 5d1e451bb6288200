/* What people see of a table of settings: a whole struct as YAML, and the reference. */
#include "configs/settings.h"

#include "base/clock.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#define INDENT 2

static bool is_bare_safe(const char *text)
{
	static const char *const meant[] = {"true", "false", "null", "yes", "no", "on", "off"};

	if (text[0] == '\0' || strchr("/._", text[0]) == NULL) {
		if (!isalnum((unsigned char)text[0])) {
			return false;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(meant); i++) {
		if (strcasecmp(text, meant[i]) == 0) {
			return false;
		}
	}
	for (const char *at = text; *at != '\0'; at++) {
		bool colon = *at == ':' && at[1] != ' ' && at[1] != '\0';
		bool space = *at == ' ' && at[1] != '#' && at[1] != '\0';

		if (!isalnum((unsigned char)*at) && strchr("/._-+=@,;", *at) == NULL && !colon &&
			!space) {
			return false;
		}
	}
	return true;
}

/* The first character of a text in UTF-8, and its bytes. */
static size_t character_of(const char *text, uint32_t *ret_character)
{
	unsigned char first = (unsigned char)text[0];
	size_t length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	uint32_t character = length == 1 ? first : first & (0xffu >> (length + 1));

	for (size_t i = 1; i < length; i++) {
		if (((unsigned char)text[i] & 0xc0) != 0x80) {
			break;
		}
		character = character << 6 | ((unsigned char)text[i] & 0x3f);
	}
	*ret_character = character;
	return strnlen(text, length);
}

/* One character between double quotes; the bytes that it took. YAML takes some beyond ASCII for
 * line ends, and refuses others that may only stand escaped. */
static size_t write_escaped(struct buffer *out, const char *text)
{
	uint32_t character;
	size_t length = character_of(text, &character);

	if (character == '"' || character == '\\') {
		buffer_addf(out, "\\%c", (char)character);
	} else if (character == '\n') {
		buffer_add_str(out, "\\n");
	} else if (character == '\t') {
		buffer_add_str(out, "\\t");
	} else if (character < 0x20 || (character >= 0x7f && character < 0xa0) ||
		   character == 0x2028 || character == 0x2029 || character == 0xfeff ||
		   character == 0xfffe || character == 0xffff) {
		buffer_addf(out, "\\u%04x", character);
	} else {
		buffer_add(out, text, length);
	}
	return length;
}

void yaml_write_quoted(struct buffer *out, const char *text)
{
	buffer_add_str(out, "\"");
	while (*text != '\0') {
		text += write_escaped(out, text);
	}
	buffer_add_str(out, "\"");
}

void yaml_write_text(struct buffer *out, const char *text)
{
	if (is_bare_safe(text)) {
		buffer_add_str(out, text);
	} else {
		yaml_write_quoted(out, text);
	}
}

static void number_text(const struct setting *row, int64_t number, char *text, size_t size)
{
	switch (row->type) {
	case SETTING_CPUS:
		cpus_format(text, number);
		break;
	case SETTING_SIZE:
		size_format(text, number);
		break;
	case SETTING_DURATION:
		duration_format(text, number);
		break;
	case SETTING_TEXT:
	case SETTING_HOST_PATH:
	case SETTING_INNER_PATH:
	case SETTING_CHOICE:
	case SETTING_SWITCH:
	case SETTING_BOOL:
	case SETTING_INT:
	case SETTING_SECTION:
	case SETTING_LIST:
	case SETTING_CUSTOM:
	case SETTING_TYPES:
	default:
		snprintf(text, size, "%" PRId64, number);
		break;
	}
}

static void section_write(const struct settings *settings, const char *prefix, const void *target,
	int indent, struct buffer *out);

static void list_write(const struct settings *settings, const struct setting *row,
	const void *target, int indent, struct buffer *out)
{
	CLEANUP(free_p) char *prefix = xasprintf("%s[].", row->key);
	const char *entries = *(char *const *)(const void *)((const char *)target + row->offset);
	size_t count = *(const size_t *)(const void *)((const char *)target + row->count_offset);

	buffer_add_str(out, count > 0 ? "\n" : " []\n");
	for (size_t i = 0; i < count; i++) {
		size_t start = out->length;

		section_write(settings, prefix, entries + i * row->element_size,
			indent + 2 * INDENT, out);
		out->data[start + (size_t)indent + INDENT] = '-';
	}
}

/* False when there is nothing to write: a text or number that is not set. */
static bool value_write(const struct setting *row, const void *field, struct buffer *out)
{
	char text[32];

	switch (row->type) {
	case SETTING_TEXT:
	case SETTING_HOST_PATH:
	case SETTING_INNER_PATH:
	case SETTING_CHOICE:
		if (*(char *const *)field == NULL) {
			return false;
		}
		yaml_write_text(out, *(char *const *)field);
		return true;
	case SETTING_SWITCH:
		buffer_add_str(out, row->choices[*(const bool *)field ? 1 : 0]);
		return true;
	case SETTING_BOOL:
		buffer_add_str(out, *(const bool *)field ? "true" : "false");
		return true;
	case SETTING_INT:
	case SETTING_CPUS:
	case SETTING_SIZE:
	case SETTING_DURATION:
		if (*(const int64_t *)field < 0) {
			return false;
		}
		number_text(row, *(const int64_t *)field, text, sizeof(text));
		buffer_add_str(out, text);
		return true;
	case SETTING_SECTION:
	case SETTING_LIST:
	case SETTING_CUSTOM:
	case SETTING_TYPES:
	default:
		return false;
	}
}

/* Optional mappings whose required value is not set are left out whole, like `check`. */
static bool section_is_set(
	const struct settings *settings, const struct setting *section, const void *target)
{
	size_t length = strlen(section->key);

	for (size_t i = 0; i < settings->count; i++) {
		const struct setting *row = &settings->rows[i];

		if (row->required && strncmp(row->key, section->key, length) == 0 &&
			row->key[length] == '.' &&
			*(char *const *)(const void *)((const char *)target + row->offset) ==
				NULL) {
			return false;
		}
	}
	return true;
}

static void row_write(const struct settings *settings, const struct setting *row, const char *key,
	const void *target, int indent, struct buffer *out)
{
	CLEANUP(buffer_done) struct buffer value;
	CLEANUP(free_p) char *prefix = NULL;

	buffer_init(&value, 0);
	if (row->type == SETTING_SECTION) {
		prefix = xasprintf("%s.", row->key);
		buffer_add_str(&value, "\n");
		if (section_is_set(settings, row, target)) {
			section_write(settings, prefix, target, indent + INDENT, &value);
		}
		if (value.length <= 1) {
			return;
		}
	} else if (row->type == SETTING_LIST) {
		list_write(settings, row, target, indent, &value);
	} else if (row->type == SETTING_CUSTOM) {
		row->write(row, target, indent, &value);
		if (value.length == 0) {
			return;
		}
	} else {
		buffer_add_str(&value, " ");
		if (!value_write(row, (const char *)target + row->offset, &value)) {
			return;
		}
		buffer_add_str(&value, "\n");
	}
	buffer_addf(out, "%*s%s:%s", indent, "", key, buffer_text(&value));
}

static void section_write(const struct settings *settings, const char *prefix, const void *target,
	int indent, struct buffer *out)
{
	size_t length = strlen(prefix);

	for (size_t i = 0; i < settings->count; i++) {
		const struct setting *row = &settings->rows[i];

		if (strncmp(row->key, prefix, length) == 0 &&
			strchr(row->key + length, '.') == NULL) {
			row_write(settings, row, row->key + length, target, indent, out);
		}
	}
}

void settings_write(const struct settings *settings, const void *target, struct buffer *out)
{
	section_write(settings, "", target, 0, out);
}

static void range_text(const struct setting *row, const char *name, char *text, size_t size)
{
	char lowest[32], highest[32];

	number_text(row, row->lowest, lowest, sizeof(lowest));
	number_text(row, row->highest, highest, sizeof(highest));
	snprintf(text, size, "%s %s..%s%s", name, lowest, highest,
		row->zero && row->lowest > 0 ? " or 0" : "");
}

void setting_type_text(const struct setting *row, char *text, size_t size)
{
	static const char *const names[] = {
		[SETTING_TEXT] = "text",
		[SETTING_HOST_PATH] = "path",
		[SETTING_INNER_PATH] = "absolute path",
		[SETTING_CHOICE] = "word",
		[SETTING_SWITCH] = "word",
		[SETTING_BOOL] = "true|false",
		[SETTING_INT] = "number",
		[SETTING_CPUS] = "number",
		[SETTING_SIZE] = "size",
		[SETTING_DURATION] = "duration",
		[SETTING_SECTION] = "mapping",
		[SETTING_LIST] = "list",
		[SETTING_CUSTOM] = "",
	};
	_Static_assert(ARRAY_SIZE(names) == SETTING_TYPES, "every type has a name");
	size_t used = 0;

	if (row->type == SETTING_CHOICE || row->type == SETTING_SWITCH) {
		for (size_t i = 0; row->choices[i] != NULL && used < size; i++) {
			used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? "|" : "",
				row->choices[i]);
		}
	} else if (row->type == SETTING_CUSTOM ||
		   (row->type == SETTING_TEXT && row->expects != NULL)) {
		snprintf(text, size, "%s", row->expects);
	} else if (row->type >= SETTING_INT && row->type <= SETTING_DURATION) {
		range_text(row, names[row->type], text, size);
	} else {
		snprintf(text, size, "%s%s", row->single ? "mapping or " : "", names[row->type]);
	}
}

void settings_reference(const struct settings *settings, struct buffer *out)
{
	for (size_t i = 0; i < settings->count; i++) {
		const struct setting *row = &settings->rows[i];
		const char *fallback = row->fallback != NULL ? row->fallback : row->derived;
		char type[128];

		setting_type_text(row, type, sizeof(type));
		buffer_addf(out, "  %s  (%s%s%s%s)\n      %s\n", row->key, type,
			row->required ? ", required" : "", fallback != NULL ? "; default: " : "",
			fallback != NULL ? fallback : "", row->about);
	}
}
