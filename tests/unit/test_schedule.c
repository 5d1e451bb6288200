/* The grid of builds: never twice within half an interval, never later than one and a half, always
 * on the same grid, and spread over the interval. */
#include "tests/lib/test.h"

#include "configs/schedule.h"

#include <stdio.h>

#define MINUTE INT64_C(60000)
#define NOW INT64_C(1800000000000)

static int64_t next_ms(const char *name, int64_t last_started_ms, int64_t every_ms)
{
	const struct schedule schedule = {.every_ms = every_ms};

	return schedule_next_ms(name, &schedule, last_started_ms);
}

static void test_first_and_never(void **state)
{
	(void)state;
	assert_true(next_ms("webapp", 0, 30 * MINUTE) <= NOW);
	assert_int_equal(next_ms("webapp", NOW, 0), INT64_MAX);
	assert_int_equal(next_ms("webapp", 0, 0), INT64_MAX);
}

static void test_distance(void **state)
{
	static const int64_t intervals[] = {1000, 30 * MINUTE, 24 * 60 * MINUTE, 1001};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(intervals); i++) {
		int64_t every = intervals[i];

		for (int64_t shift = 0; shift < 50; shift++) {
			int64_t last = NOW + shift * every / 17;
			int64_t next = next_ms("webapp", last, every);

			assert_true(next - last >= every / 2);
			assert_true(next - last < every / 2 + 1 + every);
			/* Started when due, the next is exactly one interval later. */
			assert_int_equal(next_ms("webapp", next, every), next + every);
		}
	}
}

/* A build that started late goes back to the grid. */
static void test_grid(void **state)
{
	int64_t every = 30 * MINUTE;
	int64_t slot = next_ms("webapp", NOW, every);

	(void)state;
	assert_int_equal(next_ms("webapp", slot + 5 * MINUTE, every), slot + every);
	assert_int_equal(next_ms("webapp", slot + 20 * MINUTE, every), slot + 2 * every);
}

static void test_spread(void **state)
{
	int64_t every = 30 * MINUTE;
	int buckets[10] = {0};

	(void)state;
	for (int i = 0; i < 1000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "service-%d", i);
		buckets[next_ms(name, NOW, every) % every * 10 / every]++;
	}
	for (size_t i = 0; i < ARRAY_SIZE(buckets); i++) {
		assert_in_range(buckets[i], 60, 140);
	}
}

static int64_t cron_due(const char *text, int64_t jitter_ms, int64_t last_started_ms)
{
	struct schedule schedule = {.cron_text = (char *)(uintptr_t)text,
		.zone = (char[]){"UTC"},
		.jitter_ms = jitter_ms};
	char problem[CRON_PROBLEM_SIZE];

	assert_true(cron_parse(text, &schedule.cron, problem));
	return schedule_next_ms("webapp", &schedule, last_started_ms);
}

static void test_cron_and_jitter(void **state)
{
	int64_t hour = 60 * MINUTE, due = cron_due("0 * * * *", 0, NOW);
	int64_t late = cron_due("0 * * * *", 20 * MINUTE, NOW);

	(void)state;
	assert_int_equal(cron_due("0 * * * *", 0, 0), 0);
	assert_int_equal(due % hour, 0);
	assert_true(due > NOW && due <= NOW + hour);
	assert_true(late > due - hour && late < due + 20 * MINUTE);
	/* Started when due: the next is exactly one hour later, not the rest of the jitter. */
	assert_int_equal(cron_due("0 * * * *", 20 * MINUTE, late), late + hour);
}

static void test_whichever_comes_first(void **state)
{
	struct schedule schedule = {
		.every_ms = 30 * MINUTE, .cron_text = (char[]){"@yearly"}, .zone = (char[]){"UTC"}};
	char problem[CRON_PROBLEM_SIZE];

	(void)state;
	assert_true(cron_parse(schedule.cron_text, &schedule.cron, problem));
	assert_int_equal(
		schedule_next_ms("webapp", &schedule, NOW), next_ms("webapp", NOW, 30 * MINUTE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_and_never),
		cmocka_unit_test(test_distance),
		cmocka_unit_test(test_grid),
		cmocka_unit_test(test_spread),
		cmocka_unit_test(test_cron_and_jitter),
		cmocka_unit_test(test_whichever_comes_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
