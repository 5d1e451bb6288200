/* The grid of builds: never twice within half an interval, never later than one and a half, always
 * on the same grid, and spread over the interval. */
#include "tests/lib/test.h"

#include "configs/schedule.h"

#include <stdio.h>

#define MINUTE INT64_C(60000)
#define NOW INT64_C(1800000000000)

static void test_first_and_never(void **state)
{
	(void)state;
	assert_true(schedule_next_ms("webapp", 0, 30 * MINUTE) <= NOW);
	assert_int_equal(schedule_next_ms("webapp", NOW, 0), INT64_MAX);
	assert_int_equal(schedule_next_ms("webapp", 0, 0), INT64_MAX);
}

static void test_distance(void **state)
{
	static const int64_t intervals[] = {1000, 30 * MINUTE, 24 * 60 * MINUTE, 1001};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(intervals); i++) {
		int64_t every = intervals[i];

		for (int64_t shift = 0; shift < 50; shift++) {
			int64_t last = NOW + shift * every / 17;
			int64_t next = schedule_next_ms("webapp", last, every);

			assert_true(next - last >= every / 2);
			assert_true(next - last < every / 2 + 1 + every);
			/* Started when due, the next is exactly one interval later. */
			assert_int_equal(schedule_next_ms("webapp", next, every), next + every);
		}
	}
}

/* A build that started late goes back to the grid. */
static void test_grid(void **state)
{
	int64_t every = 30 * MINUTE;
	int64_t slot = schedule_next_ms("webapp", NOW, every);

	(void)state;
	assert_int_equal(schedule_next_ms("webapp", slot + 5 * MINUTE, every), slot + every);
	assert_int_equal(schedule_next_ms("webapp", slot + 20 * MINUTE, every), slot + 2 * every);
}

static void test_spread(void **state)
{
	int64_t every = 30 * MINUTE;
	int buckets[10] = {0};

	(void)state;
	for (int i = 0; i < 1000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "service-%d", i);
		buckets[schedule_next_ms(name, NOW, every) % every * 10 / every]++;
	}
	for (size_t i = 0; i < ARRAY_SIZE(buckets); i++) {
		assert_in_range(buckets[i], 60, 140);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_and_never),
		cmocka_unit_test(test_distance),
		cmocka_unit_test(test_grid),
		cmocka_unit_test(test_spread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
