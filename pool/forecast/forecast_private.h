/* The state of a forecast, for the two files that know it: forecast.c and forecast_save.c. */
#ifndef HOB_POOL_FORECAST_FORECAST_PRIVATE_H
#define HOB_POOL_FORECAST_FORECAST_PRIVATE_H

#include "pool/forecast/forecast.h"

#define COUNTS FORECAST_SEASON /* the bases that are decayed counts come first */
#define DAY_KINDS 2 /* weekdays, weekend */
#define DAY_SLOTS 48
/* Claims while one sandbox is made that are told apart; deeper bursts count as this deep. */
#define DEPTH_MAX 1024
#define MAKINGS_KEPT 64

struct season_slot {
	double sum, weight; /* of rates: the mean is sum / weight */
};

struct forecast {
	forecast_local_fn *local;
	struct forecast_price *price;
	int64_t now_ms; /* of the last event; 0: none yet */
	uint64_t claims;
	double counts[COUNTS]; /* as of now_ms */
	double credits[FORECAST_BASES];
	double hits, tries; /* of about the last 200 claims */
	/* The season, and the half-hour that is not over yet. */
	struct season_slot season[DAY_KINDS][DAY_SLOTS];
	int64_t slot; /* half-hours of local time since 1970 */
	int64_t slot_claims, slot_seen_ms;
	/* What is added to local's argument in the current quarter of an hour. */
	int64_t offset_ms, offset_quarter;
	/* Claims while one is made, as claims saw it. Newer ones count more: the unit grows. */
	double depths[DEPTH_MAX + 1];
	double depth_sum, depth_unit;
	size_t deepest; /* that any claim saw */
	int64_t recent_ms[DEPTH_MAX]; /* a ring of the last claims */
	float recent_rates[DEPTH_MAX][FORECAST_BASES]; /* just before each of them */
	size_t recent_next, recent_count;
	/* The last times it took to make one. */
	int64_t makings[MAKINGS_KEPT];
	size_t making_next, making_count;
	int64_t making_ms;
	double rate; /* as of the last target */
};

#endif
