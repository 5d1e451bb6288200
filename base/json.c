/* Strict reading, compact writing. `*ret` keeps its value when a member is absent, so that callers
 * put the default there first. */
#include "base/json.h"

#include "base/buffer.h"
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

/* Length of the UTF-8 sequence at `at`, 0 when it is none (or overlong, or a surrogate). */
static size_t utf8_length(const unsigned char *at, size_t left)
{
	size_t length = at[0] < 0x80   ? 1
			: at[0] < 0xc2 ? 0
			: at[0] < 0xe0 ? 2
			: at[0] < 0xf0 ? 3
				       : 4;

	if (length == 0 || at[0] > 0xf4 || length > left) {
		return 0;
	}
	for (size_t i = 1; i < length; i++) {
		if ((at[i] & 0xc0) != 0x80) {
			return 0;
		}
	}
	if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
		(at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f)) {
		return 0;
	}
	return length;
}

json_t *json_str_lossy(const char *text, size_t length)
{
	json_t *json = json_stringn(text, length);
	struct buffer repaired;

	if (json != NULL) {
		return json;
	}
	buffer_init(&repaired, 0);
	while (length > 0) {
		size_t part = utf8_length((const unsigned char *)text, length);

		if (part > 0) {
			buffer_add(&repaired, text, part);
		} else {
			buffer_add_str(&repaired, "\xef\xbf\xbd");
			part = 1;
		}
		text += part;
		length -= part;
	}
	json = json_stringn(repaired.data, repaired.length);
	buffer_done(&repaired);
	return json;
}

json_t *json_str_or_null(const char *text)
{
	return text != NULL ? json_str_lossy(text, strlen(text)) : json_null();
}

json_t *json_from_error(const struct error *err)
{
	json_t *json = json_pack("{s:s, s:o}", "kind", error_kind_name(err->kind), "message",
		json_str_or_null(err->message));

	if (err->hint[0] != '\0') {
		json_object_set_new(json, "hint", json_str_or_null(err->hint));
	}
	return json;
}

int json_to_error(const json_t *json, enum error_kind fallback, const char *what, struct error *err)
{
	const char *name = json_string_value(json_object_get(json, "kind"));
	const char *message = json_string_value(json_object_get(json, "message"));
	const char *hint = json_string_value(json_object_get(json, "hint"));
	enum error_kind kind = name != NULL ? error_kind_from_name(name) : ERROR_NONE;

	error_set(
		err, kind != ERROR_NONE ? kind : fallback, "%s", message != NULL ? message : what);
	return hint != NULL && *hint != '\0' ? error_hint(err, "%s", hint) : -(int)err->kind;
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
