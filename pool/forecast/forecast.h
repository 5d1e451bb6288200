/*
 * How many sandboxes of one environment should stand ready, from its claims so far. Nothing here
 * reads a clock or a file: the caller says what time it is, which may be a simulated one, and times
 * may jump. Every event costs the same, apart from the depth of a burst.
 *
 * The rate of claims is a mixture of five views of the past (what they foretold decides what they
 * weigh). The k-th ready sandbox is worth `rate * P(k-1 claims while one is made)` cold starts a
 * second, and stands as long as that is at least 1/R. R, the idle seconds worth paying to spare one
 * cold start, is steered slowly until as many claims are hits as were asked for.
 */
#ifndef HOB_POOL_FORECAST_FORECAST_H
#define HOB_POOL_FORECAST_FORECAST_H

#include "base/buffer.h"
#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

struct forecast;

/* Local time of a real time, in ms, for the table of half-hours. */
typedef int64_t forecast_local_fn(int64_t real_ms);

/*
 * R, and what it is steered towards. Environments that share a price spend idle seconds where they
 * spare the most cold starts of all of them together; one with a price of its own gets its own
 * share of hits, whatever that costs.
 */
#define FORECAST_PRICE_BINS 128
struct forecast_price {
	double hit_rate; /* the share of claims that are to find a sandbox ready: above 0, below 1
			  */
	/* The R that each of about the last thousand claims would have needed to be a hit, by ln R:
	 * its quantile is the price, but for what the forecast misjudges, which is steered. */
	double needed[FORECAST_PRICE_BINS];
	double needed_sum, needed_unit;
	int64_t now_ms; /* of the last claim */
	double correction; /* added to ln R */
	double log_idle; /* ln R, R in seconds */
};
struct forecast_price forecast_price_first(double hit_rate);

/* The price stays the caller's. `local` NULL: times are local already. */
struct forecast *forecast_new(struct forecast_price *price, forecast_local_fn *local);
void forecast_free(struct forecast *forecast);
DEFINE_CLEANUP(forecast_free_p, struct forecast, forecast_free)

void forecast_set_price(struct forecast *forecast, struct forecast_price *price);
/* One came, and found one ready or not. */
void forecast_claim(struct forecast *forecast, int64_t now_ms, bool hit);
/* A sandbox took this long from its request until it was ready. */
void forecast_made(struct forecast *forecast, int64_t took_ms);
/* Ready ones wanted now, 0 to `most`. To be asked after every claim and once a minute: longer
 * pauses count as time that nobody watched. */
int64_t forecast_target(struct forecast *forecast, int64_t now_ms, int64_t most);
/* Cold starts a second that the k-th ready one (from 1) spares, as of the last target. */
double forecast_worth(const struct forecast *forecast, int64_t k);
/* The best mean of the k-th and those after it: what decides, where the depths have gaps. */
double forecast_worth_mean(const struct forecast *forecast, int64_t k);
/* The 95th percentile of the time to make one. */
int64_t forecast_making_ms(const struct forecast *forecast);

enum forecast_base {
	FORECAST_MINUTE,
	FORECAST_TEN_MINUTES,
	FORECAST_HOUR,
	FORECAST_SIX_HOURS,
	FORECAST_SEASON,
	FORECAST_BASES
};
const char *forecast_base_name(enum forecast_base base);

/* What a target came from. */
struct forecast_view {
	double rates[FORECAST_BASES]; /* claims a second */
	double weights[FORECAST_BASES]; /* their sum is 1 */
	double rate; /* the mixture */
	int64_t making_ms;
	double idle_seconds; /* R */
	double hit_rate; /* aimed at */
	double recent_hit_rate; /* of about the last 200 claims; negative: none yet */
	uint64_t claims; /* since it began */
};
void forecast_look(const struct forecast *forecast, struct forecast_view *ret_view);

/* As text with a version and a checksum, to go on after a restart. */
#define FORECAST_TEXT_MAX (256u << 10)
void forecast_save(const struct forecast *forecast, struct buffer *text);
/* ERROR_CORRUPT (and nothing changed) for what no forecast_save wrote. */
MUSTCHECK int forecast_load(
	struct forecast *forecast, const char *text, size_t length, struct error *err);
void forecast_price_save(const struct forecast_price *price, struct buffer *text);
MUSTCHECK int forecast_price_load(
	struct forecast_price *price, const char *text, size_t length, struct error *err);

#endif
