/* A forecast as text: a first line with format, version and the SHA-256 of the rest, which is JSON.
 * Claims of the last seconds are not in it: nobody restarts within a burst and expects it to go on
 * unseen. */
#include "pool/forecast/forecast_private.h"

#include "base/digest.h"
#include "base/json.h"

#include <math.h>

#define VERSION "hob-forecast 1 "

static json_t *numbers(const double *values, size_t count)
{
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++) {
		json_array_append_new(list, json_real(values[i]));
	}
	return list;
}

/* [index, value] of those that are not 0. */
static json_t *sparse(const double *values, size_t count, double unit)
{
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++) {
		if (values[i] / unit > 1e-6) {
			json_array_append_new(list, json_pack("[i, f]", (int)i, values[i] / unit));
		}
	}
	return list;
}

static json_t *season_to_json(const struct forecast *forecast)
{
	json_t *list = json_array();

	for (size_t i = 0; i < DAY_KINDS * DAY_SLOTS; i++) {
		const struct season_slot *slot = &forecast->season[i / DAY_SLOTS][i % DAY_SLOTS];

		json_array_append_new(list, json_pack("[f, f]", slot->sum, slot->weight));
	}
	return list;
}

static json_t *makings_to_json(const struct forecast *forecast)
{
	json_t *list = json_array();

	for (size_t i = 0; i < forecast->making_count; i++) {
		json_array_append_new(list, json_integer(forecast->makings[i]));
	}
	return list;
}

static void text_end(json_t *json, struct buffer *text)
{
	CLEANUP(free_p) char *body = json_text(json);
	char digest[SHA256_TEXT_SIZE];

	json_decref(json);
	digest_of(body, strlen(body), digest);
	buffer_addf(text, VERSION "%s\n%s\n", digest, body);
}

void forecast_save(const struct forecast *forecast, struct buffer *text)
{
	json_t *json = json_object();

	json_object_set_new(json, "now_ms", json_integer(forecast->now_ms));
	json_object_set_new(json, "claims", json_integer((json_int_t)forecast->claims));
	json_object_set_new(json, "hits", json_real(forecast->hits));
	json_object_set_new(json, "tries", json_real(forecast->tries));
	json_object_set_new(json, "counts", numbers(forecast->counts, COUNTS));
	json_object_set_new(json, "credits", numbers(forecast->credits, FORECAST_BASES));
	json_object_set_new(json, "season", season_to_json(forecast));
	json_object_set_new(json, "slot", json_integer(forecast->slot));
	json_object_set_new(json, "slot_claims", json_integer(forecast->slot_claims));
	json_object_set_new(json, "slot_seen_ms", json_integer(forecast->slot_seen_ms));
	json_object_set_new(
		json, "depths", sparse(forecast->depths, DEPTH_MAX + 1, forecast->depth_unit));
	json_object_set_new(json, "makings", makings_to_json(forecast));
	text_end(json, text);
}

void forecast_price_save(const struct forecast_price *price, struct buffer *text)
{
	json_t *json = json_object();

	json_object_set_new(json, "now_ms", json_integer(price->now_ms));
	json_object_set_new(json, "log_idle", json_real(price->log_idle));
	json_object_set_new(json, "correction", json_real(price->correction));
	json_object_set_new(
		json, "needed", sparse(price->needed, FORECAST_PRICE_BINS, price->needed_unit));
	text_end(json, text);
}

/* ---- reading ---- */

static bool read_number(const json_t *value, double *ret)
{
	double number = json_number_value(value);

	/* Rates, weights and sums are never negative. */
	if (!json_is_number(value) || !isfinite(number) || number < 0) {
		return false;
	}
	*ret = number;
	return true;
}

static bool read_numbers(const json_t *list, double *ret, size_t count)
{
	if (json_array_size(list) != count) {
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		if (!read_number(json_array_get(list, i), &ret[i])) {
			return false;
		}
	}
	return true;
}

static bool read_sparse(const json_t *list, double *ret, size_t count, double *ret_sum)
{
	double sum = 0;
	size_t i;
	json_t *pair;

	memset(ret, 0, count * sizeof(*ret));
	json_array_foreach (list, i, pair) {
		json_int_t at = json_integer_value(json_array_get(pair, 0));

		if (!json_is_integer(json_array_get(pair, 0)) || at < 0 || (size_t)at >= count ||
			!read_number(json_array_get(pair, 1), &ret[at])) {
			return false;
		}
		sum += ret[at];
	}
	*ret_sum = sum;
	return json_is_array(list);
}

static bool read_season(const json_t *list, struct forecast *forecast)
{
	if (json_array_size(list) != DAY_KINDS * DAY_SLOTS) {
		return false;
	}
	for (size_t i = 0; i < DAY_KINDS * DAY_SLOTS; i++) {
		struct season_slot *slot = &forecast->season[i / DAY_SLOTS][i % DAY_SLOTS];
		const json_t *pair = json_array_get(list, i);

		if (!read_number(json_array_get(pair, 0), &slot->sum) ||
			!read_number(json_array_get(pair, 1), &slot->weight)) {
			return false;
		}
	}
	return true;
}

static bool read_makings(const json_t *list, struct forecast *forecast)
{
	size_t i;
	json_t *value;

	if (!json_is_array(list) || json_array_size(list) > MAKINGS_KEPT) {
		return false;
	}
	forecast->making_count = 0;
	forecast->making_next = 0;
	json_array_foreach (list, i, value) {
		forecast_made(forecast, json_integer_value(value));
	}
	return true;
}

static bool read_integer(const json_t *json, const char *key, int64_t *ret)
{
	const json_t *value = json_object_get(json, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0) {
		return false;
	}
	*ret = json_integer_value(value);
	return true;
}

static bool read_forecast(const json_t *json, struct forecast *forecast)
{
	int64_t claims = 0;

	if (!read_integer(json, "now_ms", &forecast->now_ms) ||
		!read_integer(json, "claims", &claims) ||
		!read_integer(json, "slot", &forecast->slot) ||
		!read_integer(json, "slot_claims", &forecast->slot_claims) ||
		!read_integer(json, "slot_seen_ms", &forecast->slot_seen_ms) ||
		!read_number(json_object_get(json, "hits"), &forecast->hits) ||
		!read_number(json_object_get(json, "tries"), &forecast->tries) ||
		!read_numbers(json_object_get(json, "counts"), forecast->counts, COUNTS) ||
		!read_numbers(
			json_object_get(json, "credits"), forecast->credits, FORECAST_BASES) ||
		!read_season(json_object_get(json, "season"), forecast) ||
		!read_sparse(json_object_get(json, "depths"), forecast->depths, DEPTH_MAX + 1,
			&forecast->depth_sum) ||
		!read_makings(json_object_get(json, "makings"), forecast)) {
		return false;
	}
	forecast->claims = (uint64_t)claims;
	forecast->depth_unit = 1;
	forecast->deepest = 0;
	forecast->recent_count = 0;
	for (size_t i = 0; i <= DEPTH_MAX; i++) {
		forecast->deepest = forecast->depths[i] > 0 ? i : forecast->deepest;
	}
	return true;
}

/* The JSON behind a first line that fits it. */
static int text_open(const char *text, size_t length, json_t **ret_json, struct error *err)
{
	const char *body = memchr(text, '\n', length);
	char digest[SHA256_TEXT_SIZE];
	size_t left;

	if (length < strlen(VERSION) || memcmp(text, VERSION, strlen(VERSION)) != 0 ||
		body == NULL ||
		body - text != (ptrdiff_t)(strlen(VERSION) + SHA256_TEXT_SIZE - 1)) {
		return error_set(err, ERROR_CORRUPT, "not a forecast of this version");
	}
	body++;
	left = length - (size_t)(body - text);
	if (left > 0 && body[left - 1] == '\n') {
		left--;
	}
	digest_of(body, left, digest);
	if (memcmp(text + strlen(VERSION), digest, SHA256_TEXT_SIZE - 1) != 0) {
		return error_set(err, ERROR_CORRUPT, "its checksum does not match");
	}
	return json_parse_object(body, left, ret_json, err);
}

int forecast_load(struct forecast *forecast, const char *text, size_t length, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct forecast loaded = *forecast;

	if (text_open(text, length, &json, err) < 0) {
		return -(int)err->kind;
	}
	if (!read_forecast(json, &loaded)) {
		return error_set(err, ERROR_CORRUPT, "a value is missing or out of range");
	}
	*forecast = loaded;
	return 0;
}

int forecast_price_load(
	struct forecast_price *price, const char *text, size_t length, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct forecast_price loaded = *price;
	const json_t *correction;

	if (text_open(text, length, &json, err) < 0) {
		return -(int)err->kind;
	}
	correction = json_object_get(json, "correction");
	if (!read_integer(json, "now_ms", &loaded.now_ms) ||
		!read_number(json_object_get(json, "log_idle"), &loaded.log_idle) ||
		!json_is_number(correction) ||
		!read_sparse(json_object_get(json, "needed"), loaded.needed, FORECAST_PRICE_BINS,
			&loaded.needed_sum)) {
		return error_set(err, ERROR_CORRUPT, "a value is missing or out of range");
	}
	loaded.correction = fmin(fmax(json_number_value(correction), -3), 3);
	loaded.needed_unit = 1;
	*price = loaded;
	return 0;
}
