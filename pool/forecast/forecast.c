/* The arithmetic of a forecast. Times go forward by `advance` alone, which also closes the
 * half-hours that have passed; a clock that was put back stands still once. */
#include "pool/forecast/forecast_private.h"

#include <assert.h>
#include <math.h>

#define SECOND_MS INT64_C(1000)
#define MINUTE_MS (60 * SECOND_MS)
#define QUARTER_MS (15 * MINUTE_MS)
#define SLOT_MS (30 * MINUTE_MS)
#define DAY_MS (DAY_SLOTS * SLOT_MS)

/* A mean lifetime of about a thousand claims for what the bases have earned. */
#define CREDIT_KEPT (1.0 - 1.0 / 1000)
#define CREDIT_FIRST 4.0
/* Of a half-hour's rate, what a day later is left of its weight in the mean. */
#define SEASON_KEPT 0.7
/* And about 200 for the depths of bursts and the hit rate that is shown. */
#define DEPTH_KEPT (1.0 - 1.0 / 200)
#define UNIT_MAX 1e100
/* Without an event for so long, nobody was there to see claims. */
#define WATCHED_MS (5 * MINUTE_MS)
/* R: where it starts (as if so many claims had needed it), and its bounds. */
#define IDLE_FIRST 3600.0
#define NEEDED_FIRST 10
#define IDLE_LEAST 10.0
#define IDLE_MOST 86400.0
#define NEEDED_STEP 0.1
#define NEEDED_KEPT (1.0 - 1.0 / 1000)
#define PRICE_LIFETIME_MS (7.0 * DAY_MS)
#define CORRECTION_STEP 0.005
#define CORRECTION_MOST 3.0
#define MAKING_FIRST_MS SECOND_MS

static const double lifetimes_ms[COUNTS] = {60e3, 600e3, 3600e3, 6 * 3600e3};

static const char *const base_names[FORECAST_BASES] = {
	[FORECAST_MINUTE] = "1m",
	[FORECAST_TEN_MINUTES] = "10m",
	[FORECAST_HOUR] = "1h",
	[FORECAST_SIX_HOURS] = "6h",
	[FORECAST_SEASON] = "season",
};

const char *forecast_base_name(enum forecast_base base)
{
	assert(base < FORECAST_BASES);
	return base_names[base];
}

struct forecast_price forecast_price_first(double hit_rate)
{
	struct forecast_price price = {
		.hit_rate = hit_rate, .log_idle = log(IDLE_FIRST), .needed_unit = 1};

	assert(hit_rate > 0 && hit_rate < 1);
	return price;
}

struct forecast *forecast_new(struct forecast_price *price, forecast_local_fn *local)
{
	struct forecast *forecast = xcalloc(1, sizeof(*forecast));

	forecast->price = price;
	forecast->local = local;
	forecast->offset_quarter = INT64_MIN;
	forecast->depth_unit = 1;
	forecast->making_ms = MAKING_FIRST_MS;
	for (size_t i = 0; i < FORECAST_BASES; i++) {
		forecast->credits[i] = CREDIT_FIRST;
	}
	return forecast;
}

void forecast_free(struct forecast *forecast)
{
	free(forecast);
}

void forecast_set_price(struct forecast *forecast, struct forecast_price *price)
{
	forecast->price = price;
}

/* ---- the season ---- */

/* Offsets change only at quarters of an hour, all over the world. */
static int64_t slot_of(struct forecast *forecast, int64_t now_ms)
{
	int64_t quarter = now_ms / QUARTER_MS;

	if (quarter != forecast->offset_quarter) {
		forecast->offset_quarter = quarter;
		forecast->offset_ms =
			forecast->local != NULL ? forecast->local(now_ms) - now_ms : 0;
	}
	return (now_ms + forecast->offset_ms) / SLOT_MS;
}

/* 1970 began on a Thursday. */
static size_t day_kind(int64_t slot)
{
	int64_t weekday = (slot / DAY_SLOTS + 4) % 7;

	return weekday == 0 || weekday == 6 ? 1 : 0;
}

/* A half-hour of which only a part was watched moves the mean by that part. */
static void season_close(struct forecast *forecast)
{
	struct season_slot *slot =
		&forecast->season[day_kind(forecast->slot)][forecast->slot % DAY_SLOTS];
	double seen_ms = (double)forecast->slot_seen_ms;
	double share = fmin(seen_ms / (double)SLOT_MS, 1);

	if (forecast->slot_seen_ms >= MINUTE_MS) {
		double kept = pow(SEASON_KEPT, share);

		slot->sum =
			slot->sum * kept + share * (double)forecast->slot_claims / seen_ms * 1e3;
		slot->weight = slot->weight * kept + share;
	}
	forecast->slot_claims = 0;
	forecast->slot_seen_ms = 0;
}

/* A half-hour that was never seen is taken to be as the last hours were. */
static double slot_rate(const struct forecast *forecast, int64_t slot, double otherwise)
{
	const struct season_slot *at = &forecast->season[day_kind(slot)][slot % DAY_SLOTS];

	return at->weight > 0 ? at->sum / at->weight : otherwise;
}

static double season_rate(const struct forecast *forecast, double otherwise)
{
	/* A week later is the same, and the one before the first has no negative number. */
	int64_t slot = forecast->slot + 7 * DAY_SLOTS;

	return slot_rate(forecast, slot - 1, otherwise) / 4 +
	       slot_rate(forecast, slot, otherwise) / 2 +
	       slot_rate(forecast, slot + 1, otherwise) / 4;
}

/* ---- time ---- */

/* Claims of a time that has not come yet again happened just now. */
static void put_back(struct forecast *forecast, int64_t now_ms)
{
	for (size_t i = 0; i < forecast->recent_count; i++) {
		if (forecast->recent_ms[i] > now_ms) {
			forecast->recent_ms[i] = now_ms;
		}
	}
}

static void advance(struct forecast *forecast, int64_t now_ms)
{
	int64_t gap_ms = now_ms - forecast->now_ms;
	int64_t slot;

	if (forecast->now_ms == now_ms) {
		return;
	}
	if (gap_ms < 0) {
		put_back(forecast, now_ms);
		gap_ms = 0;
	}
	slot = slot_of(forecast, now_ms);
	if (forecast->now_ms == 0) {
		forecast->slot = slot;
		gap_ms = 0;
	}
	for (size_t i = 0; i < COUNTS && gap_ms > 0; i++) {
		forecast->counts[i] *= exp(-(double)gap_ms / lifetimes_ms[i]);
	}
	if (slot != forecast->slot) {
		season_close(forecast);
		forecast->slot = slot;
	}
	if (gap_ms <= WATCHED_MS) {
		forecast->slot_seen_ms += gap_ms;
	}
	forecast->now_ms = now_ms;
}

/* ---- claims ---- */

static void rates_of(const struct forecast *forecast, double rates[FORECAST_BASES])
{
	for (size_t i = 0; i < COUNTS; i++) {
		rates[i] = forecast->counts[i] * 1e3 / lifetimes_ms[i];
	}
	rates[FORECAST_SEASON] = season_rate(forecast, rates[FORECAST_SIX_HOURS]);
}

static double mixture(const struct forecast *forecast, const double rates[FORECAST_BASES],
	double weights[FORECAST_BASES])
{
	double credit = 0, rate = 0;

	for (size_t i = 0; i < FORECAST_BASES; i++) {
		credit += forecast->credits[i];
	}
	for (size_t i = 0; i < FORECAST_BASES; i++) {
		weights[i] = forecast->credits[i] / credit;
		rate += weights[i] * rates[i];
	}
	return rate;
}

/* To each base the part of a claim that it foretold. */
static void give_credit(struct forecast *forecast, const double rates[FORECAST_BASES],
	const double weights[FORECAST_BASES], double rate)
{
	for (size_t i = 0; i < FORECAST_BASES && rate > 0; i++) {
		forecast->credits[i] =
			forecast->credits[i] * CREDIT_KEPT + weights[i] * rates[i] / rate;
	}
}

/* Claims of the last making_ms, from the newest back. */
static size_t recent_depth(const struct forecast *forecast)
{
	size_t depth = 0;

	while (depth < forecast->recent_count) {
		size_t at = (forecast->recent_next + DEPTH_MAX - 1 - depth) % DEPTH_MAX;

		if (forecast->now_ms - forecast->recent_ms[at] >= forecast->making_ms) {
			break;
		}
		depth++;
	}
	return depth;
}

static void depth_add(struct forecast *forecast, size_t depth)
{
	forecast->depth_unit /= DEPTH_KEPT;
	forecast->depths[depth] += forecast->depth_unit;
	forecast->depth_sum += forecast->depth_unit;
	forecast->deepest = depth > forecast->deepest ? depth : forecast->deepest;
	if (forecast->depth_unit > UNIT_MAX) {
		for (size_t i = 0; i <= DEPTH_MAX; i++) {
			forecast->depths[i] /= forecast->depth_unit;
		}
		forecast->depth_sum /= forecast->depth_unit;
		forecast->depth_unit = 1;
	}
}

/* The price at which the pool would have been deep enough for a claim that comes after `depth`
 * others: one over the best mean worth of the next ones. */
static double needed_price(const struct forecast *forecast, double rate, size_t depth)
{
	double sum = 0, best = 0;

	for (size_t k = depth; k <= forecast->deepest; k++) {
		sum += rate * forecast->depths[k] / forecast->depth_sum;
		best = fmax(best, sum / (double)(k - depth + 1));
	}
	return best > 0 ? -log(best) : INFINITY;
}

static double price_quantile(const struct forecast_price *price)
{
	const size_t first = (size_t)(log(IDLE_FIRST) / NEEDED_STEP);
	double standing = NEEDED_FIRST * price->needed_unit;
	double wanted = price->hit_rate * (price->needed_sum + standing), sum = 0;

	for (size_t i = 0; i < FORECAST_PRICE_BINS; i++) {
		double here = price->needed[i] + (i == first ? standing : 0);

		if (sum + here >= wanted) {
			return ((double)i + (here > 0 ? (wanted - sum) / here : 0)) * NEEDED_STEP;
		}
		sum += here;
	}
	return FORECAST_PRICE_BINS * NEEDED_STEP;
}

/* What was learnt fades with claims and with time, so that a price of busy days does not keep
 * everything cold in quiet ones. */
static void price_fade(struct forecast_price *price, int64_t now_ms)
{
	int64_t gap_ms = price->now_ms > 0 ? now_ms - price->now_ms : 0;
	double kept = exp(-(double)(gap_ms > 0 ? gap_ms : 0) / PRICE_LIFETIME_MS);

	price->now_ms = now_ms;
	price->correction *= kept;
	price->needed_unit /= fmax(NEEDED_KEPT * kept, 1 / UNIT_MAX);
	if (price->needed_unit > UNIT_MAX) {
		for (size_t i = 0; i < FORECAST_PRICE_BINS; i++) {
			price->needed[i] /= price->needed_unit;
		}
		price->needed_sum /= price->needed_unit;
		price->needed_unit = 1;
	}
}

static void price_learn(struct forecast_price *price, int64_t now_ms, double needed, bool hit)
{
	double place = fmin(fmax(needed / NEEDED_STEP, 0), FORECAST_PRICE_BINS - 1);

	price_fade(price, now_ms);
	price->needed[(size_t)place] += price->needed_unit;
	price->needed_sum += price->needed_unit;
	price->correction += CORRECTION_STEP * (price->hit_rate - (hit ? 1 : 0));
	price->correction = fmin(fmax(price->correction, -CORRECTION_MOST), CORRECTION_MOST);
	price->log_idle = fmin(
		fmax(price_quantile(price) + price->correction, log(IDLE_LEAST)), log(IDLE_MOST));
}

/* What the bases said when there was still time to make a sandbox for a claim of this depth: before
 * the first claim of the last making_ms. Within a burst everybody foretells the rest of it. */
static void rates_before(const struct forecast *forecast, size_t depth,
	const double now[FORECAST_BASES], double ret_rates[FORECAST_BASES])
{
	size_t first = (forecast->recent_next + DEPTH_MAX - depth) % DEPTH_MAX;

	for (size_t i = 0; i < FORECAST_BASES; i++) {
		ret_rates[i] = depth > 0 ? (double)forecast->recent_rates[first][i] : now[i];
	}
}

static void recent_add(struct forecast *forecast, const double rates[FORECAST_BASES])
{
	forecast->recent_ms[forecast->recent_next] = forecast->now_ms;
	for (size_t i = 0; i < FORECAST_BASES; i++) {
		forecast->recent_rates[forecast->recent_next][i] = (float)rates[i];
	}
	forecast->recent_next = (forecast->recent_next + 1) % DEPTH_MAX;
	forecast->recent_count += forecast->recent_count < DEPTH_MAX ? 1 : 0;
}

void forecast_claim(struct forecast *forecast, int64_t now_ms, bool hit)
{
	double rates[FORECAST_BASES], before[FORECAST_BASES], weights[FORECAST_BASES];
	size_t depth;

	advance(forecast, now_ms);
	rates_of(forecast, rates);
	depth = recent_depth(forecast);
	rates_before(forecast, depth, rates, before);
	/* Nobody could have known of the first. */
	if (forecast->claims > 0) {
		double rate = mixture(forecast, before, weights);

		give_credit(forecast, before, weights, rate);
		/* Before a burst the rate is low, within it high; the pool acts on both. */
		rate = sqrt(rate * mixture(forecast, rates, weights));
		price_learn(forecast->price, now_ms, needed_price(forecast, rate, depth), hit);
	}
	depth_add(forecast, depth);
	forecast->tries = forecast->tries * DEPTH_KEPT + 1;
	forecast->hits = forecast->hits * DEPTH_KEPT + (hit ? 1 : 0);
	recent_add(forecast, rates);
	for (size_t i = 0; i < COUNTS; i++) {
		forecast->counts[i] += 1;
	}
	forecast->slot_claims++;
	forecast->claims++;
}

/* ---- how long one takes ---- */

static int by_size(const void *a, const void *b)
{
	int64_t first = *(const int64_t *)a, second = *(const int64_t *)b;

	return first < second ? -1 : first > second;
}

void forecast_made(struct forecast *forecast, int64_t took_ms)
{
	int64_t sorted[MAKINGS_KEPT];
	size_t count;

	forecast->makings[forecast->making_next] = took_ms > 0 ? took_ms : 0;
	forecast->making_next = (forecast->making_next + 1) % MAKINGS_KEPT;
	forecast->making_count += forecast->making_count < MAKINGS_KEPT ? 1 : 0;
	count = forecast->making_count;
	memcpy(sorted, forecast->makings, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), by_size);
	/* The least that 95 of 100 did not exceed. */
	forecast->making_ms = sorted[(count * 95 + 99) / 100 - 1];
}

int64_t forecast_making_ms(const struct forecast *forecast)
{
	return forecast->making_ms;
}

/* ---- the target ---- */

static double depth_share(const struct forecast *forecast, int64_t depth)
{
	if (forecast->depth_sum <= 0) {
		return depth == 0 ? 1 : 0; /* nothing is known: one at a time */
	}
	return depth <= DEPTH_MAX ? forecast->depths[depth] / forecast->depth_sum : 0;
}

double forecast_worth(const struct forecast *forecast, int64_t k)
{
	return k >= 1 ? forecast->rate * depth_share(forecast, k - 1) : 0;
}

double forecast_worth_mean(const struct forecast *forecast, int64_t k)
{
	double sum = 0, best = 0;

	for (int64_t last = k < 1 ? 1 : k; last <= (int64_t)forecast->deepest + 1; last++) {
		sum += forecast_worth(forecast, last);
		best = fmax(best, sum / (double)(last - k + 1));
	}
	return best;
}

int64_t forecast_target(struct forecast *forecast, int64_t now_ms, int64_t most)
{
	double rates[FORECAST_BASES], weights[FORECAST_BASES];
	double least = exp(-forecast->price->log_idle);
	double sum = 0, best = 0;
	int64_t target = 0;

	advance(forecast, now_ms);
	rates_of(forecast, rates);
	forecast->rate = mixture(forecast, rates, weights);
	/* What k spare together, less what they cost: a gap among the depths does not end it. */
	for (int64_t k = 1; k <= most && k <= (int64_t)forecast->deepest + 1; k++) {
		sum += forecast_worth(forecast, k) - least;
		if (sum >= best) {
			best = sum;
			target = k;
		}
	}
	return target;
}

void forecast_look(const struct forecast *forecast, struct forecast_view *ret_view)
{
	*ret_view = (struct forecast_view){
		.making_ms = forecast->making_ms,
		.idle_seconds = exp(forecast->price->log_idle),
		.hit_rate = forecast->price->hit_rate,
		.recent_hit_rate = forecast->tries > 0 ? forecast->hits / forecast->tries : -1,
		.claims = forecast->claims,
	};
	rates_of(forecast, ret_view->rates);
	ret_view->rate = mixture(forecast, ret_view->rates, ret_view->weights);
}
