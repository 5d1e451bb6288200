/* The forecast's arithmetic against direct computation over all claims, and what clocks, restarts
 * and damaged files may do to it. */
#include "tests/lib/test.h"

#include "pool/forecast/forecast.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#define MINUTE_MS INT64_C(60000)
#define HOUR_MS (60 * MINUTE_MS)
#define DAY_MS (24 * HOUR_MS)
/* A Monday, 00:00 UTC. */
#define MONDAY_MS (INT64_C(20605) * DAY_MS)

static uint64_t seed = 1;

static double chance(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (double)(seed >> 11) / 9007199254740992.0;
}

static void assert_near(double value, double wanted, double share)
{
	if (fabs(value - wanted) > share * fabs(wanted) + 1e-12) {
		fail_msg("%g, wanted %g", value, wanted);
	}
}

/* Minute by minute, as the pool asks. */
static void wait_until(struct forecast *forecast, int64_t *now_ms, int64_t until_ms)
{
	while (*now_ms + MINUTE_MS < until_ms) {
		*now_ms += MINUTE_MS;
		(void)forecast_target(forecast, *now_ms, 100);
	}
	*now_ms = until_ms;
	(void)forecast_target(forecast, *now_ms, 100);
}

static void test_counts_decay(void **state)
{
	static const double lifetimes[] = {60, 600, 3600, 21600};
	struct forecast_price price = forecast_price_first(0.95);
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, NULL);
	struct forecast_view view;
	int64_t times[300];
	int64_t now_ms = MONDAY_MS;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		wait_until(forecast, &now_ms, now_ms + (int64_t)(chance() * 200e3));
		times[i] = now_ms;
		forecast_claim(forecast, now_ms, i % 3 != 0);
	}
	wait_until(forecast, &now_ms, now_ms + 17 * MINUTE_MS);
	forecast_look(forecast, &view);
	for (size_t base = 0; base < ARRAY_SIZE(lifetimes); base++) {
		double sum = 0;

		for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
			sum += exp(-(double)(now_ms - times[i]) / 1e3 / lifetimes[base]);
		}
		assert_near(view.rates[base], sum / lifetimes[base], 1e-9);
	}
	assert_int_equal(view.claims, ARRAY_SIZE(times));
}

static void test_weights_and_mixture(void **state)
{
	struct forecast_price price = forecast_price_first(0.95);
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, NULL);
	struct forecast_view view;
	int64_t now_ms = MONDAY_MS;
	double sum = 0, rate = 0;

	(void)state;
	/* Bursts of ten within seconds, hours apart: the last minute foretells most of them. */
	for (int burst = 0; burst < 60; burst++) {
		wait_until(forecast, &now_ms, now_ms + 3 * HOUR_MS + (int64_t)(chance() * 4e6));
		for (int i = 0; i < 10; i++) {
			now_ms += 700;
			forecast_claim(forecast, now_ms, true);
		}
	}
	forecast_look(forecast, &view);
	for (size_t i = 0; i < FORECAST_BASES; i++) {
		assert_true(view.weights[i] > 0);
		sum += view.weights[i];
		rate += view.weights[i] * view.rates[i];
	}
	assert_near(sum, 1, 1e-9);
	assert_near(view.rate, rate, 1e-9);
	assert_true(view.weights[FORECAST_MINUTE] > 0.5);
}

/* A claim each 100 s between 9 and 10 on weekdays; after some weeks the table knows. */
static void test_season(void **state)
{
	struct forecast_price price = forecast_price_first(0.95);
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, NULL);
	struct forecast_view view;
	int64_t now_ms = MONDAY_MS;

	(void)state;
	for (int day = 0; day < 28; day++) {
		int64_t nine_ms = MONDAY_MS + day * DAY_MS + 9 * HOUR_MS;

		for (int i = 0; i < 36 && day % 7 < 5; i++) {
			wait_until(forecast, &now_ms, nine_ms + i * 100000);
			forecast_claim(forecast, now_ms, true);
		}
	}
	wait_until(forecast, &now_ms, MONDAY_MS + 28 * DAY_MS + 9 * HOUR_MS + 15 * MINUTE_MS);
	forecast_look(forecast, &view);
	/* Half of it from the half-hour itself, a quarter each from its neighbours: 8:30 has none.
	 */
	assert_near(view.rates[FORECAST_SEASON], 0.01 * 0.75, 0.05);
	wait_until(forecast, &now_ms, MONDAY_MS + 28 * DAY_MS + 12 * HOUR_MS);
	forecast_look(forecast, &view);
	assert_near(view.rates[FORECAST_SEASON], 0, 0);
	/* Saturday at nine. */
	wait_until(forecast, &now_ms, MONDAY_MS + 33 * DAY_MS + 9 * HOUR_MS + 15 * MINUTE_MS);
	forecast_look(forecast, &view);
	assert_near(view.rates[FORECAST_SEASON], 0, 0);
}

/* With R known, the target is where the sum of worth less cost is greatest. */
static void test_target(void **state)
{
	struct forecast_price price = forecast_price_first(0.9);
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, NULL);
	struct forecast_view view;
	int64_t now_ms = MONDAY_MS;

	(void)state;
	assert_int_equal(forecast_target(forecast, now_ms, 100), 0);
	forecast_made(forecast, 20000);
	for (int i = 0; i < 2000; i++) {
		wait_until(forecast, &now_ms, now_ms + (int64_t)(-log(1 - chance()) * 10e3));
		forecast_claim(forecast, now_ms, i % 10 != 0);
		if (i % 50 == 0) {
			int64_t target = forecast_target(forecast, now_ms, 1000);
			double best = 0, sum = 0;
			int64_t wanted = 0;

			forecast_look(forecast, &view);
			for (int64_t k = 1; k <= 200; k++) {
				sum += forecast_worth(forecast, k) - 1 / view.idle_seconds;
				if (sum >= best) {
					best = sum;
					wanted = k;
				}
			}
			assert_int_equal(target, wanted);
			assert_true(forecast_target(forecast, now_ms, 2) <= 2);
			assert_int_equal(forecast_target(forecast, now_ms, 0), 0);
		}
	}
	(void)forecast_target(forecast, now_ms, 1000);
	forecast_look(forecast, &view);
	/* Poisson with a mean of two in 20 s: P(0) = e^-2, P(2) = 2 e^-2. */
	assert_near(forecast_worth(forecast, 1) / view.rate, exp(-2), 0.5);
	assert_near(forecast_worth(forecast, 3) / view.rate, 2 * exp(-2), 0.3);
	assert_true(forecast_target(forecast, now_ms, 1000) >= 3);
	assert_true(forecast_target(forecast, now_ms, 1000) <= 12);
}

/* Nothing is foretold for what nobody uses; and the first claim ends that. */
static void test_not_stuck_at_zero(void **state)
{
	struct forecast_price price = forecast_price_first(0.95);
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, NULL);
	int64_t now_ms = MONDAY_MS;

	(void)state;
	for (int i = 0; i < 500; i++) {
		now_ms += 20000;
		forecast_claim(forecast, now_ms, true);
	}
	assert_true(forecast_target(forecast, now_ms, 100) > 0);
	wait_until(forecast, &now_ms, now_ms + 30 * DAY_MS);
	assert_int_equal(forecast_target(forecast, now_ms, 100), 0);
	forecast_claim(forecast, now_ms, false);
	assert_true(forecast_target(forecast, now_ms, 100) > 0);
}

static void test_making_time(void **state)
{
	struct forecast_price price = forecast_price_first(0.95);
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, NULL);

	(void)state;
	for (int i = 1; i <= 20; i++) {
		forecast_made(forecast, i * 100);
	}
	assert_int_equal(forecast_making_ms(forecast), 1900);
	for (int i = 0; i < 64; i++) {
		forecast_made(forecast, 7);
	}
	assert_int_equal(forecast_making_ms(forecast), 7);
}

/* Whatever the clock does, targets stay within their bounds and rates are numbers. */
static void test_clock_jumps(void **state)
{
	struct forecast_price price = forecast_price_first(0.95);
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, NULL);
	struct forecast_view view;
	int64_t now_ms = MONDAY_MS;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		double kind = chance();
		int64_t most = (int64_t)(chance() * 50);
		int64_t target;

		now_ms += (int64_t)((chance() - (kind < 0.02 ? 0.5 : 0)) * (kind < 0.05 ? 5e8
										   : kind < 0.5
											   ? 1e5
											   : 1e3));
		if (chance() < 0.5) {
			forecast_claim(forecast, now_ms, chance() < 0.8);
		}
		forecast_made(forecast, (int64_t)(chance() * 60e3) - 10);
		target = forecast_target(forecast, now_ms, most);
		assert_true(target >= 0 && target <= most);
		forecast_look(forecast, &view);
		assert_true(isfinite(view.rate) && view.rate >= 0);
		assert_true(view.idle_seconds >= 10 && view.idle_seconds <= 86400);
	}
}

/* An hour back does not make the claims of that hour count as if they came at once. */
static void test_clock_put_back(void **state)
{
	struct forecast_price price = forecast_price_first(0.95);
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, NULL);
	struct forecast_view view;
	int64_t now_ms = MONDAY_MS;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		now_ms += 10000;
		forecast_claim(forecast, now_ms, true);
	}
	now_ms -= HOUR_MS;
	for (int i = 0; i < 300; i++) {
		now_ms += 10000;
		forecast_claim(forecast, now_ms, true);
	}
	forecast_look(forecast, &view);
	assert_near(view.rates[FORECAST_MINUTE], 0.1, 0.2);
	assert_near(view.rates[FORECAST_TEN_MINUTES], 0.1, 0.2);
}

static int64_t berlin(int64_t real_ms)
{
	time_t at = (time_t)(real_ms / 1000);
	struct tm local;

	localtime_r(&at, &local);
	return real_ms + local.tm_gmtoff * 1000;
}

/* People come at nine by their clock, also after it was changed. */
static void test_daylight_saving(void **state)
{
	/* 2026-03-29 is the Sunday of the change in Berlin; this is Monday the 9th, 00:00 UTC. */
	int64_t start_ms = INT64_C(20521) * DAY_MS;
	struct forecast_price price = forecast_price_first(0.95);
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, berlin);
	struct forecast_view view;
	int64_t now_ms = start_ms;

	(void)state;
	setenv("TZ", "Europe/Berlin", 1);
	tzset();
	if (berlin(start_ms) - start_ms != HOUR_MS) {
		unsetenv("TZ");
		skip(); /* no time zones on this machine */
	}
	for (int day = 0; day < 19; day++) {
		for (int i = 0; i < 60 && day % 7 < 5; i++) {
			wait_until(forecast, &now_ms,
				start_ms + day * DAY_MS + 8 * HOUR_MS + i * MINUTE_MS);
			forecast_claim(forecast, now_ms, true);
		}
	}
	/* Monday the 30th at 9:15 in summer time is 7:15 UTC. */
	wait_until(forecast, &now_ms, start_ms + 21 * DAY_MS + 7 * HOUR_MS + 15 * MINUTE_MS);
	forecast_look(forecast, &view);
	assert_near(view.rates[FORECAST_SEASON], 1.0 / 60 * 0.75, 0.05);
	unsetenv("TZ");
	tzset();
}

static void fill(struct forecast *forecast, int64_t *now_ms, int claims)
{
	for (int i = 0; i < claims; i++) {
		wait_until(forecast, now_ms, *now_ms + (int64_t)(chance() * 400e3));
		forecast_claim(forecast, *now_ms, chance() < 0.9);
		forecast_made(forecast, 1000 + (int64_t)(chance() * 3000));
	}
}

static void test_save_and_load(void **state)
{
	struct forecast_price price = forecast_price_first(0.95), price_again = price;
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, NULL);
	CLEANUP(forecast_free_p) struct forecast *again = forecast_new(&price_again, NULL);
	CLEANUP(buffer_done) struct buffer text, price_text;
	struct forecast_view view, view_again;
	struct error err = ERROR_INIT;
	int64_t now_ms = MONDAY_MS;

	(void)state;
	buffer_init(&text, FORECAST_TEXT_MAX);
	buffer_init(&price_text, FORECAST_TEXT_MAX);
	fill(forecast, &now_ms, 3000);
	forecast_save(forecast, &text);
	forecast_price_save(&price, &price_text);
	assert_true(text.length > 0 && price_text.length > 0);
	assert_ok(forecast_load(again, text.data, text.length, &err), &err);
	assert_ok(
		forecast_price_load(&price_again, price_text.data, price_text.length, &err), &err);
	/* The day goes on the same for both. */
	for (int i = 0; i < 200; i++) {
		now_ms += 45000;
		assert_int_equal(forecast_target(forecast, now_ms, 100),
			forecast_target(again, now_ms, 100));
		if (i % 7 == 0) {
			forecast_claim(forecast, now_ms, true);
			forecast_claim(again, now_ms, true);
		}
	}
	forecast_look(forecast, &view);
	forecast_look(again, &view_again);
	assert_near(view_again.rate, view.rate, 1e-6);
	assert_near(view_again.idle_seconds, view.idle_seconds, 1e-6);
	assert_int_equal(view_again.making_ms, view.making_ms);
	assert_int_equal(view_again.claims, view.claims);
}

/* Every truncation and many a flipped bit is found, and changes nothing. */
static void test_damaged(void **state)
{
	struct forecast_price price = forecast_price_first(0.95);
	CLEANUP(forecast_free_p) struct forecast *forecast = forecast_new(&price, NULL);
	CLEANUP(forecast_free_p) struct forecast *fresh = forecast_new(&price, NULL);
	CLEANUP(buffer_done) struct buffer text, untouched, after;
	struct error err = ERROR_INIT;
	int64_t now_ms = MONDAY_MS;

	(void)state;
	buffer_init(&text, FORECAST_TEXT_MAX);
	buffer_init(&untouched, FORECAST_TEXT_MAX);
	buffer_init(&after, FORECAST_TEXT_MAX);
	forecast_save(fresh, &untouched);
	fill(forecast, &now_ms, 100);
	forecast_save(forecast, &text);
	for (size_t length = 0; length + 1 < text.length; length += 1 + length / 50) {
		assert_kind(forecast_load(fresh, text.data, length, &err), &err, ERROR_CORRUPT);
	}
	for (size_t at = 0; at + 1 < text.length; at += 1 + at / 50) {
		text.data[at] ^= 4;
		assert_kind(
			forecast_load(fresh, text.data, text.length, &err), &err, ERROR_CORRUPT);
		text.data[at] ^= 4;
	}
	assert_kind(forecast_price_load(&price, text.data, text.length, &err), &err, ERROR_CORRUPT);
	forecast_save(fresh, &after);
	assert_string_equal(buffer_text(&after), buffer_text(&untouched));
	assert_ok(forecast_load(fresh, text.data, text.length, &err), &err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_decay),
		cmocka_unit_test(test_weights_and_mixture),
		cmocka_unit_test(test_season),
		cmocka_unit_test(test_target),
		cmocka_unit_test(test_not_stuck_at_zero),
		cmocka_unit_test(test_making_time),
		cmocka_unit_test(test_clock_jumps),
		cmocka_unit_test(test_clock_put_back),
		cmocka_unit_test(test_daylight_saving),
		cmocka_unit_test(test_save_and_load),
		cmocka_unit_test(test_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
