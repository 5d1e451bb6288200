/* Slots: the longest rested first, adoption, and build slots that die with their holder. */
#include "base/io.h"
#include "configs/config.h"
#include "pool/sandbox/sandbox.h"
#include "pool/sandbox/slots.h"
#include "tests/lib/test.h"

#include <stdio.h>
#include <sys/stat.h>

static void test_each_once_then_none(void **state)
{
	CLEANUP(slot_set_free_p) struct slot_set *set = slot_set_new(3);
	struct error err = ERROR_INIT;
	uint32_t slot = 99;

	(void)state;
	for (uint32_t i = 0; i < 3; i++) {
		assert_ok(slot_take(set, &slot, &err), &err);
		assert_int_equal(slot, i);
	}
	assert_kind(slot_take(set, &slot, &err), &err, ERROR_LIMIT);
	assert_contains(err.hint, "id_slots");
}

static void test_longest_rested_first(void **state)
{
	CLEANUP(slot_set_free_p) struct slot_set *set = slot_set_new(4);
	struct error err = ERROR_INIT;
	uint32_t slot;

	(void)state;
	assert_ok(slot_take(set, &slot, &err), &err);
	assert_ok(slot_take(set, &slot, &err), &err);
	slot_give_back(set, 1);
	slot_give_back(set, 0);
	for (uint32_t i = 0; i < 4; i++) {
		static const uint32_t wanted[] = {2, 3, 1, 0};

		assert_ok(slot_take(set, &slot, &err), &err);
		assert_int_equal(slot, wanted[i]);
	}
}

static void test_adoption_takes_a_given_one(void **state)
{
	CLEANUP(slot_set_free_p) struct slot_set *set = slot_set_new(3);
	struct error err = ERROR_INIT;
	uint32_t slot;

	(void)state;
	assert_true(slot_take_this(set, 1));
	assert_false(slot_take_this(set, 1));
	assert_false(slot_take_this(set, 3));
	assert_ok(slot_take(set, &slot, &err), &err);
	assert_int_equal(slot, 0);
	assert_ok(slot_take(set, &slot, &err), &err);
	assert_int_equal(slot, 2);
	assert_kind(slot_take(set, &slot, &err), &err, ERROR_LIMIT);
	slot_give_back(set, 1);
	assert_ok(slot_take(set, &slot, &err), &err);
	assert_int_equal(slot, 1);
}

/* Every order of taking and giving back keeps each slot in one place. */
static void test_random_use_never_doubles(void **state)
{
	enum { COUNT = 16, STEPS = 20000 };
	CLEANUP(slot_set_free_p) struct slot_set *set = slot_set_new(COUNT);
	bool mine[COUNT] = {false};
	struct error err = ERROR_INIT;
	uint32_t taken = 0, random = 1;

	(void)state;
	for (int step = 0; step < STEPS; step++) {
		uint32_t slot;

		random = random * 1664525 + 1013904223;
		slot = (random >> 16) % COUNT;
		if (mine[slot] && (random & 1) != 0) {
			slot_give_back(set, slot);
			mine[slot] = false;
			taken--;
		} else if ((random & 2) != 0) {
			assert_int_equal(slot_take_this(set, slot), !mine[slot]);
			taken += mine[slot] ? 0 : 1;
			mine[slot] = true;
		} else if (taken < COUNT) {
			assert_ok(slot_take(set, &slot, &err), &err);
			assert_false(mine[slot]);
			mine[slot] = true;
			taken++;
		}
	}
}

static void test_no_slots_at_all(void **state)
{
	CLEANUP(slot_set_free_p) struct slot_set *set = slot_set_new(0);
	struct error err = ERROR_INIT;
	uint32_t slot;

	(void)state;
	assert_kind(slot_take(set, &slot, &err), &err, ERROR_LIMIT);
	assert_false(slot_take_this(set, 0));
}

static void test_build_slots_are_locks(void **state)
{
	struct config config = {
		.run = *state, .user = (char[]){"root"}, .id_base = 200000000, .id_slots = 100};
	int locks[BUILD_SLOTS], again = -1;
	struct error err = ERROR_INIT;
	uint32_t slot = 0, freed;

	for (uint32_t i = 0; i < BUILD_SLOTS; i++) {
		assert_ok(build_slot_take(&config, 7, &slot, &locks[i], &err), &err);
		assert_int_equal(slot, 100 - BUILD_SLOTS + (7 + i) % BUILD_SLOTS);
	}
	assert_kind(build_slot_take(&config, 7, &slot, &again, &err), &err, ERROR_BUSY);
	close(locks[30]); /* slot 5 */
	assert_ok(build_slot_take(&config, 3, &freed, &locks[30], &err), &err);
	assert_int_equal(freed, 100 - BUILD_SLOTS + 5);
	for (uint32_t i = 0; i < BUILD_SLOTS; i++) {
		close(locks[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_once_then_none),
		cmocka_unit_test(test_longest_rested_first),
		cmocka_unit_test(test_adoption_takes_a_given_one),
		cmocka_unit_test(test_random_use_never_doubles),
		cmocka_unit_test(test_no_slots_at_all),
		cmocka_unit_test_setup_teardown(
			test_build_slots_are_locks, setup_folder, teardown_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
