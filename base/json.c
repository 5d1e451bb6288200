/* Strict reading, compact writing. `*ret` keeps its value when a member is absent, so that callers
 * put the default there first. */
#include "base/json.h"

#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

int json_parse_object(const char *text, size_t length, json_t **ret_json, struct error *err)
{
	json_error_t at;
	json_t *json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &at);

	if (json == NULL) {
		return error_set(err, ERROR_INVALID, "not JSON: line %d column %d: %s", at.line,
			at.column, at.text);
	}
	if (!json_is_object(json)) {
		json_decref(json);
		return error_set(err, ERROR_INVALID, "not a JSON object");
	}
	*ret_json = json;
	return 0;
}

static bool is_known(const char *key, const char *const *known)
{
	for (; *known != NULL; known++) {
		if (streq(key, *known)) {
			return true;
		}
	}
	return false;
}

int json_check_keys(const json_t *json, const char *const *known, struct error *err)
{
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)json, key, value) {
		if (!is_known(key, known)) {
			return error_set(err, ERROR_INVALID, "unknown member \"%s\"", key);
		}
	}
	return 0;
}

int json_get_str(const json_t *json, const char *key, const char **ret, struct error *err)
{
	const json_t *value = json_object_get(json, key);

	if (value == NULL || json_is_null(value)) {
		return 0;
	}
	if (!json_is_string(value) ||
		strlen(json_string_value(value)) != json_string_length(value)) {
		return error_set(err, ERROR_INVALID, "\"%s\" must be a string", key);
	}
	*ret = json_string_value(value);
	return 0;
}

int json_get_int(const json_t *json, const char *key, int64_t lowest, int64_t highest, int64_t *ret,
	struct error *err)
{
	const json_t *value = json_object_get(json, key);

	if (value == NULL || json_is_null(value)) {
		return 0;
	}
	if (!json_is_integer(value) || json_integer_value(value) < lowest ||
		json_integer_value(value) > highest) {
		return error_set(err, ERROR_INVALID,
			"\"%s\" must be a whole number from %" PRId64 " to %" PRId64, key, lowest,
			highest);
	}
	*ret = json_integer_value(value);
	return 0;
}

int json_get_bool(const json_t *json, const char *key, bool *ret, struct error *err)
{
	const json_t *value = json_object_get(json, key);

	if (value == NULL || json_is_null(value)) {
		return 0;
	}
	if (!json_is_boolean(value)) {
		return error_set(err, ERROR_INVALID, "\"%s\" must be true or false", key);
	}
	*ret = json_is_true(value);
	return 0;
}

json_t *json_str_or_null(const char *text)
{
	json_t *json = text != NULL ? json_string(text) : json_null();

	/* Not UTF-8: a name of a file, or a message that was cut within a character. */
	if (json == NULL) {
		CLEANUP(free_p) char *ascii = xstrdup(text);

		for (char *at = ascii; *at != '\0'; at++) {
			*at = (char)((*at & 0x80) != 0 ? '?' : *at);
		}
		json = json_string(ascii);
	}
	return json;
}

char *json_text(const json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

	if (text == NULL) {
		abort();
	}
	return text;
}

void json_print(const json_t *json)
{
	CLEANUP(free_p) char *text = json_text(json);

	puts(text);
	fflush(stdout);
}
