/* A machine's budget shared by several environments: memory is given back before any sandbox is
 * given up, then the one goes that saves the least waiting for its bytes, those of pool.min last.
 */
#include "tests/lib/test.h"

#include "base/memory.h"
#include "pool/demand/demand_private.h"

#define MIB ((double)(1 << 20))

enum { BUSY, RARE, KEPT, POOLS };

struct machine {
	struct manager manager;
	struct config config;
	struct demands demands;
	struct pool pools[POOLS];
	struct environment files[POOLS];
	struct demand demand[POOLS];
};

static void claims(struct demand *demand, int count, int64_t apart_ms)
{
	int64_t start_ms = INT64_C(1700000000000);

	forecast_made(demand->forecast, 5000);
	for (int i = 0; i < count; i++) {
		forecast_claim(demand->forecast, start_ms + i * apart_ms, true);
	}
	(void)forecast_target(demand->forecast, start_ms + count * apart_ms, 100);
}

static int machine_open(void **state)
{
	struct machine *machine = xcalloc(1, sizeof(*machine));
	static const char *const names[POOLS] = {"busy", "rare", "kept"};

	machine->manager.config = &machine->config;
	machine->manager.demands = &machine->demands;
	machine->demands.price = forecast_price_first(0.95);
	machine->config.max_sandboxes = 1000;
	machine->config.freeze_after_ms = 2000;
	for (size_t i = 0; i < POOLS; i++) {
		struct pool *pool = &machine->pools[i];

		pool->manager = &machine->manager;
		pool->next = i + 1 < POOLS ? &machine->pools[i + 1] : NULL;
		snprintf(pool->name, sizeof(pool->name), "%s", names[i]);
		pool->conf = &machine->files[i];
		pool->demand = &machine->demand[i];
		pool->demand->forecast = forecast_new(&machine->demands.price, NULL);
		pool->demand->target = 4;
		pool->demand->bytes = 100 * MIB;
		pool->demand->measured = true;
		/* There are as many as are wanted. */
		pool->entries[ENTRY_READY].count = 4;
	}
	machine->manager.pools = machine->pools;
	machine->files[KEPT].pool_min = 4;
	claims(&machine->demand[BUSY], 400, 1000);
	claims(&machine->demand[RARE], 10, 3600000);
	*state = machine;
	return 0;
}

static int machine_close(void **state)
{
	struct machine *machine = *state;

	for (size_t i = 0; i < POOLS; i++) {
		forecast_free(machine->demand[i].forecast);
	}
	free(machine);
	return 0;
}

static void share(struct machine *machine, double budget, const int64_t targets[POOLS])
{
	machine->config.memory_budget = (int64_t)budget;
	budget_share(&machine->manager);
	for (size_t i = 0; i < POOLS; i++) {
		assert_int_equal(machine->demand[i].target, targets[i]);
	}
}

static void test_the_least_worth_goes_first_and_the_least_last(void **state)
{
	struct machine *machine = *state;

	share(machine, 1200 * MIB, (const int64_t[]){4, 4, 4});
	assert_null(machine->demand[RARE].limited_by);
	share(machine, 1000 * MIB, (const int64_t[]){4, 2, 4});
	assert_string_equal(machine->demand[RARE].limited_by, "memory_budget");
	assert_null(machine->demand[BUSY].limited_by);
	/* pool.min is worth nothing by the forecast, and is kept all the same. */
	share(machine, 500 * MIB, (const int64_t[]){1, 0, 4});
	share(machine, 300 * MIB, (const int64_t[]){0, 0, 3});
}

static void test_bytes_count_as_much_as_worth(void **state)
{
	struct machine *machine = *state;

	/* Both as busy; one takes fifty times as much. */
	claims(&machine->demand[RARE], 400, 1000);
	machine->demand[BUSY].bytes = 5000 * MIB;
	machine->pools[RARE].next = NULL;
	machine->config.memory_budget = (int64_t)(5400 * MIB);
	budget_share(&machine->manager);
	assert_int_equal(machine->demand[BUSY].target, 1);
	assert_int_equal(machine->demand[RARE].target, 4);
}

static void test_disk_is_shared_out_in_the_same_way(void **state)
{
	struct machine *machine = *state;

	for (size_t i = 0; i < POOLS; i++) {
		machine->demand[i].disk = 10 * MIB;
	}
	machine->config.disk_budget = (int64_t)(120 * MIB);
	budget_share(&machine->manager);
	assert_int_equal(machine->demand[RARE].target, 4);
	/* What is claimed has the right of way, in whatever pool. */
	machine->pools[KEPT].disk_claimed = (int64_t)(25 * MIB);
	budget_share(&machine->manager);
	assert_int_equal(machine->demand[RARE].target, 1);
	assert_int_equal(machine->demand[BUSY].target, 4);
	assert_int_equal(machine->demand[KEPT].target, 4);
	assert_string_equal(machine->demand[RARE].limited_by, "disk_budget");
	/* And over it already: nothing is left, without an end to the search. */
	machine->pools[KEPT].disk_claimed = (int64_t)(500 * MIB);
	budget_share(&machine->manager);
	for (size_t i = 0; i < POOLS; i++) {
		assert_int_equal(machine->demand[i].target, 0);
	}
}

static void test_what_takes_much_disk_goes_first(void **state)
{
	struct machine *machine = *state;

	claims(&machine->demand[RARE], 400, 1000);
	machine->pools[RARE].next = NULL;
	machine->demand[BUSY].disk = 1000 * MIB;
	machine->demand[RARE].disk = MIB;
	machine->config.disk_budget = (int64_t)(1500 * MIB);
	budget_share(&machine->manager);
	assert_int_equal(machine->demand[BUSY].target, 1);
	assert_int_equal(machine->demand[RARE].target, 4);
}

static void test_an_environment_has_a_budget_of_disk(void **state)
{
	struct machine *machine = *state;
	struct pool *pool = &machine->pools[BUSY];

	pool->demand->disk = 10 * MIB;
	assert_int_equal(disk_count(pool), INT64_MAX);
	machine->files[BUSY].pool_disk = (int64_t)(45 * MIB);
	assert_int_equal(disk_count(pool), 4);
	pool->disk_claimed = (int64_t)(20 * MIB);
	assert_int_equal(disk_count(pool), 2);
	pool->disk_claimed = (int64_t)(60 * MIB);
	assert_int_equal(disk_count(pool), 0);
}

static void test_memory_is_given_back_before_any_goes(void **state)
{
	struct machine *machine = *state;

	machine->manager.pages_out = true;
	for (size_t i = 0; i < POOLS; i++) {
		machine->demand[i].idle_bytes = 10 * MIB;
		machine->demand[i].idle_measured = true;
	}
	share(machine, 1200 * MIB, (const int64_t[]){4, 4, 4});
	assert_false(demand_is_squeezed(&machine->pools[RARE]));
	/* Those that spare the least waiting first. */
	share(machine, 500 * MIB, (const int64_t[]){4, 4, 4});
	assert_true(demand_is_squeezed(&machine->pools[RARE]));
	assert_true(demand_is_squeezed(&machine->pools[KEPT]));
	assert_false(demand_is_squeezed(&machine->pools[BUSY]));
	assert_null(machine->demand[RARE].limited_by);
	share(machine, 120 * MIB, (const int64_t[]){4, 4, 4});
	assert_true(demand_is_squeezed(&machine->pools[BUSY]));
	/* Only now. */
	share(machine, 100 * MIB, (const int64_t[]){4, 2, 4});
	assert_string_equal(machine->demand[RARE].limited_by, "memory_budget");
}

static void test_nothing_is_squeezed_in_vain(void **state)
{
	struct machine *machine = *state;

	machine->manager.pages_out = true;
	for (size_t i = 0; i < POOLS; i++) {
		machine->demand[i].idle_bytes = 100 * MIB;
		machine->demand[i].idle_measured = true;
	}
	share(machine, 1100 * MIB, (const int64_t[]){4, 3, 4});
	assert_false(demand_is_squeezed(&machine->pools[RARE]));
	/* The operator wants them never frozen; and too many are too many. */
	machine->demand[RARE].idle_bytes = 1 * MIB;
	machine->config.freeze_after_ms = 0;
	share(machine, 1000 * MIB, (const int64_t[]){4, 2, 4});
	assert_false(demand_is_squeezed(&machine->pools[RARE]));
	machine->config.freeze_after_ms = 2000;
	machine->config.max_sandboxes = 8;
	share(machine, 1000 * MIB, (const int64_t[]){4, 0, 4});
	assert_false(demand_is_squeezed(&machine->pools[RARE]));
	assert_string_equal(machine->demand[RARE].limited_by, "max_sandboxes");
}

/* What squeezing gives back is not known: what there is stays, and no more are made meanwhile. */
static void test_unknown_gains(void **state)
{
	struct machine *machine = *state;

	machine->manager.pages_out = true;
	machine->demand[RARE].target = 20;
	share(machine, 1200 * MIB, (const int64_t[]){4, 4, 4});
	assert_true(demand_is_squeezed(&machine->pools[RARE]));
	/* None there: one is made, to know. */
	machine->pools[RARE].entries[ENTRY_READY].count = 0;
	machine->demand[RARE].squeezed = false;
	assert_int_equal(budget_count(&machine->pools[RARE], 20, 1 << 20), 1);
	assert_string_equal(machine->demand[RARE].limited_by, "pool.memory");
}

static void test_a_share_of_its_own(void **state)
{
	struct machine *machine = *state;
	struct pool *pool = &machine->pools[BUSY];

	assert_true(budget_count(pool, 4, 0) > 1000);
	assert_int_equal(budget_count(pool, 4, (int64_t)(250 * MIB)), 2);
	machine->manager.pages_out = true;
	machine->demand[BUSY].idle_bytes = 10 * MIB;
	machine->demand[BUSY].idle_measured = true;
	assert_int_equal(budget_count(pool, 4, (int64_t)(400 * MIB)), 4);
	assert_false(demand_is_squeezed(pool));
	assert_int_equal(budget_count(pool, 4, (int64_t)(250 * MIB)), 4);
	assert_true(demand_is_squeezed(pool));
	machine->demand[BUSY].squeezed = false;
	assert_int_equal(budget_count(pool, 40, (int64_t)(250 * MIB)), 25);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, machine_open, machine_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_the_least_worth_goes_first_and_the_least_last),
		TEST(test_bytes_count_as_much_as_worth),
		TEST(test_disk_is_shared_out_in_the_same_way),
		TEST(test_what_takes_much_disk_goes_first),
		TEST(test_an_environment_has_a_budget_of_disk),
		TEST(test_memory_is_given_back_before_any_goes),
		TEST(test_nothing_is_squeezed_in_vain),
		TEST(test_unknown_gains),
		TEST(test_a_share_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
