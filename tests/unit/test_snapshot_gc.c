/* Garbage collection: what each policy keeps and lets go and why, old lists, unlisted layers, and
 * that what is in use is passed over. */
#include "snapshots/gc.h"
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"

#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"

#include <stdio.h>

static int64_t take(struct store *store, const char *environment, const char *label)
{
	struct layer layer = store_kit_seal(store, "", 5000);
	struct snapshot snapshot = {
		.reason = SNAPSHOT_SESSION, .layers = &layer, .layer_count = 1, .own_count = 1};
	struct error err = ERROR_INIT;

	snprintf(snapshot.environment, sizeof(snapshot.environment), "%s", environment);
	snprintf(snapshot.label, sizeof(snapshot.label), "%s", label);
	assert_ok(snapshot_commit(store, &snapshot, &err), &err);
	free(snapshot.manifest);
	return snapshot.id;
}

/* Six of webapp: 1 labelled, 2 pinned, 3 tagged, 4 leased, 5 and 6 plain; 7 of other. */
static void fill(struct store *store)
{
	struct error err = ERROR_INIT;

	for (int i = 1; i <= 6; i++) {
		take(store, "webapp", i == 1 ? "release" : "");
	}
	take(store, "other", "");
	assert_ok(snapshot_pin(store, 2, true, &err), &err);
	assert_ok(snapshot_tag(store, 3, "good", false, &err), &err);
	assert_ok(snapshot_lease(store, 4, "hobd", &err), &err);
}

static void plan(struct store *store, const struct gc_policy *policy, struct gc_plan *ret_plan)
{
	struct error err = ERROR_INIT;

	assert_ok(gc_plan_make(store, policy, policy != NULL, ret_plan, &err), &err);
}

static const struct gc_decision *about(const struct gc_plan *made, const char *name)
{
	size_t i = 0;

	while (i < made->count && !streq(made->decisions[i].name, name)) {
		i++;
	}
	assert_true(i < made->count);
	return &made->decisions[i];
}

static void assert_keeps(const struct gc_plan *made, const char *name, const char *reason)
{
	assert_false(about(made, name)->remove);
	assert_contains(about(made, name)->reason, reason);
}

static void test_without_policy_all_stay(void **state)
{
	CLEANUP(gc_plan_done) struct gc_plan none = {0};
	CLEANUP(gc_plan_done) struct gc_plan empty = {0};
	struct gc_policy policy = {.environment = "webapp", .keep_labelled = true};

	fill(*state);
	plan(*state, NULL, &none);
	assert_int_equal(none.count, 7);
	assert_int_equal(none.removals, 0);
	assert_keeps(&none, "snap-6", "limits neither");
	plan(*state, &policy, &empty);
	assert_int_equal(empty.removals, 0);
}

static void test_each_reason_keeps(void **state)
{
	CLEANUP(gc_plan_done) struct gc_plan made = {0};
	CLEANUP(gc_plan_done) struct gc_plan strict = {0};
	struct gc_policy policy = {.environment = "webapp", .keep_last = 1, .keep_labelled = true};
	struct gc_result result;
	struct error err = ERROR_INIT;

	fill(*state);
	plan(*state, &policy, &made);
	assert_keeps(&made, "snap-1", "labelled");
	assert_keeps(&made, "snap-2", "pinned");
	assert_keeps(&made, "snap-3", "tagged good");
	assert_keeps(&made, "snap-4", "leased by hobd");
	assert_keeps(&made, "snap-6", "newest 1");
	assert_keeps(&made, "snap-7", "limits neither");
	assert_true(about(&made, "snap-5")->remove);
	assert_true(about(&made, "snap-5")->bytes >= 5000);
	assert_int_equal(made.removals, 1);
	assert_ok(gc_plan_run(*state, &made, &result, &err), &err);
	assert_int_equal(result.removed, 1);
	assert_true(result.freed >= 5000);
	assert_int_equal(store_kit_count(*state, "layers"), 6);
	policy.keep_labelled = false;
	policy.environment = NULL;
	plan(*state, &policy, &strict);
	assert_true(about(&strict, "snap-1")->remove);
	assert_keeps(&strict, "snap-7", "newest 1");
}

static void test_age_keeps(void **state)
{
	CLEANUP(gc_plan_done) struct gc_plan young = {0};
	CLEANUP(gc_plan_done) struct gc_plan old = {0};
	struct gc_policy policy = {.keep_for_ms = 3600 * 1000};
	struct store *store = *state;
	struct error err = ERROR_INIT;

	take(store, "webapp", "");
	take(store, "webapp", "");
	plan(store, &policy, &young);
	assert_keeps(&young, "snap-1", "younger than 1h");
	assert_ok(catalog_exec(store->db,
			  "UPDATE snapshots SET created_ms = created_ms - 7200000 WHERE id = 1",
			  &err),
		&err);
	plan(store, &policy, &old);
	assert_true(about(&old, "snap-1")->remove);
	assert_contains(about(&old, "snap-1")->reason, "older than 1h");
	assert_int_equal(old.removals, 1);
}

static void test_what_came_into_use_is_passed_over(void **state)
{
	CLEANUP(gc_plan_done) struct gc_plan made = {0};
	struct gc_policy policy = {.keep_last = 1};
	struct gc_result result;
	struct error err = ERROR_INIT;

	take(*state, "webapp", "");
	take(*state, "webapp", "");
	take(*state, "webapp", "");
	plan(*state, &policy, &made);
	assert_int_equal(made.removals, 2);
	assert_ok(snapshot_lease(*state, 1, "hobd", &err), &err);
	assert_ok(gc_plan_run(*state, &made, &result, &err), &err);
	assert_int_equal(result.removed, 1);
	assert_int_equal(result.passed_over, 1);
	assert_keeps(&made, "snap-1", "leased by hobd");
	assert_int_equal(store_kit_count(*state, "layers"), 2);
}

static void test_images_and_unlisted_layers(void **state)
{
	CLEANUP(gc_plan_done) struct gc_plan made = {0};
	struct store *store = *state;
	struct layer kept = store_kit_seal(store, "key", 100);
	struct gc_result result;
	struct error err = ERROR_INIT;

	assert_ok(layer_keep(store, kept.id, &err), &err);
	store_release(store, HOLD_USED, kept.id);
	for (int i = 0; i < 5; i++) {
		store_kit_image(store, "webapp");
	}
	assert_ok(image_lease(store, 1, "hobd", &err), &err);
	plan(store, NULL, &made);
	assert_keeps(&made, "img-5", "head");
	assert_keeps(&made, "img-3", "newest 3");
	assert_keeps(&made, "img-1", "leased by hobd");
	assert_int_equal(made.removals, 1);
	assert_true(about(&made, "img-2")->remove);
	gc_plan_done(&made);
	assert_ok(catalog_exec(store->db, "UPDATE layers SET created_ms = 5 WHERE refs = 0", &err),
		&err);
	plan(store, NULL, &made);
	assert_int_equal(made.removals, 2);
	assert_true(about(&made, "layer 1")->remove);
	assert_ok(gc_plan_run(store, &made, &result, &err), &err);
	assert_int_equal(result.removed, 2);
	assert_int_equal(store_kit_count(store, "layers"), 4);
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_without_policy_all_stay),
		IN_STORE(test_each_reason_keeps),
		IN_STORE(test_age_keeps),
		IN_STORE(test_what_came_into_use_is_passed_over),
		IN_STORE(test_images_and_unlisted_layers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
