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

/* Text or null; of a text that is not UTF-8, only ASCII is kept and the rest is "?". */
json_t *json_str_or_null(const char *text);
/* Compact text; free() it. */
char *json_text(const json_t *json);
/* One line on standard output. */
void json_print(const json_t *json);

#endif
