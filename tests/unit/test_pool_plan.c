/* The reconciler's rules, by hand-made views and by a small simulation that must settle. */
#include "tests/lib/test.h"

#include "pool/plan.h"

static struct pool_view view_of(int64_t target, int64_t max)
{
	return (struct pool_view){
		.has_head = true, .target = target, .max = max, .machine_max = 1000};
}

static void test_fills(void **state)
{
	struct pool_view view = view_of(5, 10);

	(void)state;
	assert_int_equal(pool_plan_make(&view).create, 5);
	view.creating_head = 5;
	assert_int_equal(pool_plan_make(&view).create, 0);
	/* Those under way for claims that wait are not the pool's. */
	view.waiting_head = 2;
	assert_int_equal(pool_plan_make(&view).create, 2);
	view = view_of(100, 200);
	assert_int_equal(pool_plan_make(&view).create, CREATES_PER_POOL);
	view.machine_creating = CREATES_OVERALL - 1;
	assert_int_equal(pool_plan_make(&view).create, 1);
}

static void test_limits(void **state)
{
	struct pool_view view = view_of(5, 10);

	(void)state;
	view.claimed = 8;
	assert_int_equal(pool_plan_make(&view).create, 2);
	assert_true(pool_plan_make(&view).capped);
	view.claimed = 10;
	assert_int_equal(pool_plan_make(&view).create, 0);
	assert_true(pool_plan_make(&view).capped);
	view.claimed = 0;
	view.machine_total = 999;
	assert_int_equal(pool_plan_make(&view).create, 1);
	view.machine_total = 1200;
	assert_int_equal(pool_plan_make(&view).create, 0);
}

/* What hints reserve is nobody's but theirs: the pool is filled beside them, within the limits. */
static void test_hinted(void **state)
{
	struct pool_view view = view_of(3, 10);

	(void)state;
	view.ready_head = 3;
	view.hinted = 2;
	assert_int_equal(pool_plan_make(&view).create, 0);
	assert_int_equal(pool_plan_make(&view).retire_ready, 0);
	view.ready_head = 1;
	assert_int_equal(pool_plan_make(&view).create, 2);
	view.claimed = 6;
	assert_int_equal(pool_plan_make(&view).create, 1);
	assert_true(pool_plan_make(&view).capped);
}

static void test_waits(void **state)
{
	struct pool_view view = view_of(5, 10);

	(void)state;
	view.backing_off = true;
	assert_int_equal(pool_plan_make(&view).create, 0);
	assert_false(pool_plan_make(&view).capped);
	view = view_of(5, 10);
	view.has_head = false;
	assert_int_equal(pool_plan_make(&view).create, 0);
}

static void test_shrinks(void **state)
{
	struct pool_view view = view_of(2, 10);
	struct pool_plan plan;

	(void)state;
	view.ready_head = 5;
	plan = pool_plan_make(&view);
	assert_int_equal(plan.retire_ready, 3);
	assert_int_equal(plan.create, 0);
	view.draining = true;
	view.ready_stale = 1;
	plan = pool_plan_make(&view);
	assert_int_equal(plan.retire_ready, 5);
	assert_int_equal(plan.retire_stale, 1);
}

/* A new head: one new one at a time, an old one goes for each, and the sum never falls short. */
static void replace_all(int64_t target, int64_t max, int64_t lowest)
{
	struct pool_view view = view_of(target, max);
	int rounds = 0;

	view.ready_stale = target;
	while (view.ready_stale > 0 || view.ready_head < target) {
		struct pool_plan plan = pool_plan_make(&view);

		assert_true(++rounds < 200);
		assert_true(plan.create + view.creating_head <= 1);
		view.ready_stale -= plan.retire_stale;
		view.ready_head -= plan.retire_ready;
		view.creating_head += plan.create;
		assert_true(view.ready_stale + view.ready_head >= lowest);
		assert_true(view.ready_stale + view.ready_head + view.creating_head <= max);
		if (plan.create == 0 && view.creating_head > 0) {
			view.creating_head--;
			view.ready_head++;
		}
	}
	assert_int_equal(view.ready_head, target);
	assert_int_equal(pool_plan_make(&view).create, 0);
}

static void test_replaces(void **state)
{
	(void)state;
	replace_all(5, 10, 5);
	replace_all(1, 2, 1);
	/* No room for an old and a new one: short by one, and no more. */
	replace_all(5, 5, 4);
	replace_all(1, 1, 0);
}

static void test_backoff(void **state)
{
	int64_t before = 0;

	(void)state;
	for (unsigned attempts = 1; attempts < 40; attempts++) {
		int64_t most = backoff_ms(attempts, 0);

		assert_true(most >= before);
		assert_true(most <= BACKOFF_MAX_MS);
		for (uint32_t random = 0; random < 5000; random += 7) {
			assert_true(backoff_ms(attempts, random) <= most);
			assert_true(backoff_ms(attempts, random) >= most * 3 / 4);
		}
		before = most;
	}
	assert_int_equal(backoff_ms(1, 0), BACKOFF_FIRST_MS);
	assert_int_equal(before, BACKOFF_MAX_MS);
	assert_true(backoff_ms(5, 1) != backoff_ms(5, 900));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fills),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_waits),
		cmocka_unit_test(test_hinted),
		cmocka_unit_test(test_shrinks),
		cmocka_unit_test(test_replaces),
		cmocka_unit_test(test_backoff),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
