/* The simulator on arrivals that this test makes: known answers on tiny ones, and the forecast
 * beside the best fixed sizes on larger ones. */
#include "tests/lib/test.h"

#include "pool/simulate/compare.h"
#include "pool/simulate/hindsight.h"
#include "pool/simulate/replay.h"

#include "base/buffer.h"

#include <math.h>

static uint64_t seed;

static double chance(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (double)(seed >> 11) / 9007199254740992.0;
}

static void add(struct arrivals *arrivals, uint32_t environment, double seconds, double typing)
{
	while (arrivals->name_count <= environment) {
		*array_add(&arrivals->names, &arrivals->name_count, &arrivals->name_room) =
			xasprintf("e%zu", arrivals->name_count);
	}
	*array_add(&arrivals->items, &arrivals->count, &arrivals->room) =
		(struct arrival){.at_ms = llround(seconds * 1e3),
			.typing_ms = typing < 0 ? -1 : llround(typing * 1e3),
			.chars = -1,
			.environment = environment};
}

static int64_t always(void *context, int64_t now_ms)
{
	(void)now_ms;
	return *(const int64_t *)context;
}

static struct replay_result replay(const struct arrivals *arrivals, int64_t level, bool hints)
{
	struct replay_spec spec = {.arrivals = arrivals, .making_ms = 10000, .hints = hints};
	struct policy policy = {.context = &level, .target = always};
	struct replay_result result;

	replay_run(&spec, &policy, &result);
	return result;
}

/* One ready, ten seconds to make one: claims at 60, 65 and 100 s are hit, miss, hit. */
static void test_replay_by_hand(void **state)
{
	struct arrivals arrivals = {0};
	struct error err = ERROR_INIT;
	struct replay_result result;

	(void)state;
	add(&arrivals, 0, 0, -1);
	add(&arrivals, 0, 60, -1);
	add(&arrivals, 0, 65, -1);
	add(&arrivals, 0, 100, -1);
	assert_ok(arrivals_finish(&arrivals, &err), &err);
	result = replay(&arrivals, 1, false);
	assert_int_equal(result.claims, 4);
	assert_int_equal(result.hits, 2);
	/* The first came before anything was ready and took 10 s; the third waited for the one that
	 * was under way since 60. */
	assert_int_equal(result.wait_count, 2);
	assert_int_equal(result.waits[0] + result.waits[1], 10000 + 5000);
	/* Ready from 10 to 60 and, made anew for the one that the third took, from 75 to 100. */
	assert_true(fabs(result.idle_seconds - (50 + 25)) < 1e-6);
	replay_result_done(&result);
	result = replay(&arrivals, 0, false);
	assert_int_equal(result.hits, 0);
	assert_true(result.idle_seconds == 0);
	replay_result_done(&result);
	arrivals_done(&arrivals);
}

/* With nothing ready, a hint 12 s ahead is enough and one 4 s ahead saves 4 of 10 s. */
static void test_hints_by_hand(void **state)
{
	struct arrivals arrivals = {0};
	struct error err = ERROR_INIT;
	struct replay_result result;

	(void)state;
	add(&arrivals, 0, 100, 12);
	add(&arrivals, 0, 200, 4);
	assert_ok(arrivals_finish(&arrivals, &err), &err);
	result = replay(&arrivals, 0, true);
	assert_int_equal(result.hits, 1);
	assert_true(fabs(result.wait_seconds - 6) < 1e-6);
	assert_true(fabs(result.idle_seconds - 2) < 1e-6);
	replay_result_done(&result);
	arrivals_done(&arrivals);
}

static void check_level(struct arrivals *arrivals, double rate, int64_t first, int64_t second)
{
	CLEANUP(hindsight_free_p)
	struct hindsight *hindsight = hindsight_new(arrivals, 3600000, 10000);

	hindsight_aim(hindsight, rate);
	assert_int_equal(hindsight_level(hindsight, 0, 1000), first);
	assert_int_equal(hindsight_level(hindsight, 0, 3700000), second);
}

static void test_hindsight(void **state)
{
	struct arrivals arrivals = {0};
	struct error err = ERROR_INIT;

	(void)state;
	/* Three at once every minute of the first hour, one every ten minutes of the second. */
	for (int i = 0; i < 60; i++) {
		add(&arrivals, 0, i * 60, -1);
		add(&arrivals, 0, i * 60 + 0.1, -1);
		add(&arrivals, 0, i * 60 + 0.2, -1);
	}
	for (int i = 0; i < 6; i++) {
		add(&arrivals, 0, 3600 + i * 600, -1);
	}
	assert_ok(arrivals_finish(&arrivals, &err), &err);
	check_level(&arrivals, 0.9, 3, 0);
	check_level(&arrivals, 1, 3, 1);
	check_level(&arrivals, 0.3, 1, 0);
	arrivals_done(&arrivals);
}

enum shape { POISSON, BURSTS, WEEK, SHAPES };

static void make(struct arrivals *arrivals, enum shape shape)
{
	seed = 42 + (uint64_t)shape;
	for (uint32_t environment = 0; environment < 3; environment++) {
		double at = 0;

		while (at < 14 * 86400.0) {
			double hour = fmod(at / 3600, 24);
			bool open = fmod(at / 86400, 7) < 5 && hour > 8 && hour < 18;

			at += -log(1 - chance()) * (300 + 300 * environment) *
			      (shape == WEEK && !open ? 20 : 1);
			add(arrivals, environment, at, -1);
			for (int i = 0; shape == BURSTS && chance() < 0.7 && i < 20; i++) {
				at += chance() * 3;
				add(arrivals, environment, at, -1);
			}
			at += shape == BURSTS ? 1800 * chance() : 0;
		}
	}
}

/* At 95 % hits the forecast costs less than the best fixed sizes that hindsight finds, and, by how
 * it is made, no less than the clairvoyant. It reaches what it is steered to. */
static void test_forecast_beats_fixed(void **state)
{
	/* Where demand, or that of bursts, never changes, nothing is gained over the right
	 * constant. */
	static const double most[SHAPES] = {[POISSON] = 1.15, [BURSTS] = 1.2, [WEEK] = 0.85};

	(void)state;
	for (enum shape shape = POISSON; shape < SHAPES; shape++) {
		struct arrivals arrivals = {0};
		struct error err = ERROR_INIT;
		struct curve fixed, forecast, bound;

		make(&arrivals, shape);
		assert_ok(arrivals_finish(&arrivals, &err), &err);
		curve_make(&arrivals, POLICY_FIXED, 30000, 0.95, true, &fixed);
		curve_make(&arrivals, POLICY_FORECAST, 30000, 0.95, true, &forecast);
		curve_make(&arrivals, POLICY_CLAIRVOYANT, 30000, 0.95, true, &bound);
		assert_true(forecast.idle_at > 0);
		assert_true(forecast.idle_at < most[shape] * fixed.idle_at);
		assert_true(forecast.idle_at > bound.idle_at * 0.9);
		assert_true(forecast.aimed.hit_rate > 0.92 && forecast.aimed.hit_rate < 0.98);
		arrivals_done(&arrivals);
	}
}

static void test_reads_lines(void **state)
{
	const char *folder = *state;
	CLEANUP(free_p) char *path = xasprintf("%s/lines.csv", folder);
	struct arrivals arrivals = {0};
	struct error err = ERROR_INIT;

	temp_write(folder, "lines.csv",
		"t,image,user,chars,keystroke\r\n10.5,a,u1,,4.5\n\n3,\"b\",u2,120,\n7,a,u1,,\n");
	assert_ok(arrivals_read(&arrivals, path, &err), &err);
	assert_ok(arrivals_finish(&arrivals, &err), &err);
	assert_int_equal(arrivals.claims, 3);
	assert_int_equal(arrivals.name_count, 2);
	assert_string_equal(arrivals.names[0], "a");
	assert_int_equal(arrivals.items[0].at_ms, 7000);
	assert_int_equal(arrivals.items[1].at_ms, 10500);
	assert_int_equal(arrivals.items[1].typing_ms, 6000);
	assert_int_equal(arrivals.items[2].chars, 120);
	assert_int_equal(arrivals.first[1], 2);
	assert_true(arrivals.keystrokes);
	arrivals_done(&arrivals);
	temp_write(folder, "lines.csv", "t,image\n1,a\nsoon,a\n");
	assert_kind(arrivals_read(&arrivals, path, &err), &err, ERROR_INVALID);
	assert_contains(err.message, "lines.csv:3");
	arrivals_done(&arrivals);
	temp_write(folder, "lines.csv", "colour,size\n1,a\n");
	assert_kind(arrivals_read(&arrivals, path, &err), &err, ERROR_INVALID);
	arrivals_done(&arrivals);
}

static void test_reads_minutes(void **state)
{
	const char *folder = *state;
	CLEANUP(free_p) char *path = xasprintf("%s/minutes.csv", folder);
	CLEANUP(buffer_done) struct buffer text;
	struct arrivals arrivals = {0}, again = {0};
	struct error err = ERROR_INIT;

	buffer_init(&text, 0);
	buffer_add_str(&text, "HashOwner,HashApp,HashFunction,Trigger");
	for (int i = 1; i <= 1440; i++) {
		buffer_addf(&text, ",%d", i);
	}
	buffer_add_str(&text, "\no,a,f,http");
	for (int i = 1; i <= 1440; i++) {
		buffer_addf(&text, ",%d", i == 3 ? 2 : i == 1440 ? 1 : 0);
	}
	buffer_add_str(&text, "\n");
	temp_write(folder, "minutes.csv", buffer_text(&text));
	assert_ok(arrivals_read(&arrivals, path, &err), &err);
	assert_ok(arrivals_finish(&arrivals, &err), &err);
	assert_int_equal(arrivals.claims, 3);
	assert_int_equal(arrivals.items[0].at_ms / 60000, 2);
	assert_int_equal(arrivals.items[1].at_ms / 60000, 2);
	assert_int_equal(arrivals.items[2].at_ms / 60000, 1439);
	assert_int_equal(arrivals.end_ms, 86400000);
	/* The same every time. */
	assert_ok(arrivals_read(&again, path, &err), &err);
	assert_ok(arrivals_finish(&again, &err), &err);
	assert_memory_equal(arrivals.items, again.items, 3 * sizeof(*again.items));
	arrivals_done(&arrivals);
	arrivals_done(&again);
}

static void test_typing(void **state)
{
	struct arrivals arrivals = {0};
	struct error err = ERROR_INIT;
	size_t abandoned = 0;

	(void)state;
	for (int i = 0; i < 4000; i++) {
		add(&arrivals, 0, 10000 + i * 100, -1);
	}
	arrivals_type(&arrivals);
	assert_ok(arrivals_finish(&arrivals, &err), &err);
	for (size_t i = 0; i < arrivals.count; i++) {
		assert_true(arrivals.items[i].typing_ms >= 0);
		abandoned += arrivals.items[i].abandoned ? 1 : 0;
	}
	assert_int_equal(arrivals.claims, 4000);
	/* One draft in five. */
	assert_true(abandoned > 900 && abandoned < 1100);
	arrivals_done(&arrivals);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replay_by_hand),
		cmocka_unit_test(test_hints_by_hand),
		cmocka_unit_test(test_hindsight),
		cmocka_unit_test(test_forecast_beats_fixed),
		cmocka_unit_test_setup_teardown(test_reads_lines, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_reads_minutes, setup_folder, teardown_folder),
		cmocka_unit_test(test_typing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
