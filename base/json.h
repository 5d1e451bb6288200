/* JSON by jansson, and the few helpers that make reading a request body strict and writing short.
 */
#ifndef HOB_BASE_JSON_H
#define HOB_BASE_JSON_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

static inline void json_decref_p(json_t **json)
{
	json_decref(*json);
}

/* An object from text; ERROR_INVALID with line and column. The caller owns it. */
MUSTCHECK int json_parse_object(
	const char *text, size_t length, json_t **ret_json, struct error *err);
/* ERROR_INVALID naming the first member of `json` that is not in the NULL-terminated list. */
MUSTCHECK int json_check_keys(const json_t *json, const char *const *known, struct error *err);

/* A member of a given type, or the fallback when it is absent or null; ERROR_INVALID when it has
 * another type or is out of range. Strings stay owned by `json`. */
MUSTCHECK int json_get_str(
	const json_t *json, const char *key, const char **ret, struct error *err);
MUSTCHECK int json_get_int(const json_t *json, const char *key, int64_t lowest, int64_t highest,
	int64_t *ret, struct error *err);
MUSTCHECK int json_get_bool(const json_t *json, const char *key, bool *ret, struct error *err);

/* Text of any bytes: what is not UTF-8 in it, such as a file's name or a message that was cut
 * within a character, becomes U+FFFD. */
json_t *json_str_lossy(const char *text, size_t length);
/* The same of a whole text, NULL gives null. */
json_t *json_str_or_null(const char *text);
/* {"kind", "message"} and "hint" where there is one. */
json_t *json_from_error(const struct error *err);
/* The way back, of another program's words: `fallback` and `what` where it does not say. Returns
 * the error's code, as error_set does. */
int json_to_error(
	const json_t *json, enum error_kind fallback, const char *what, struct error *err);
/* Compact text; free() it. */
char *json_text(const json_t *json);
/* One line on standard output. */
void json_print(const json_t *json);

#endif
