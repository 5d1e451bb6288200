/* The upkeep's decisions: which snapshot is flattened next, how failures put it off, how a snapshot
 * follows its parent's flattening, and what goes when space is short. Needs root. */
#include "snapshots/gc.h"
#include "snapshots/snapshot.h"
#include "snapshots/store_private.h"
#include "snapshots/tree/flatten.h"

#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"
#include "tests/lib/tree_kit.h"

#include <stdio.h>

/* A snapshot of `own` layers above the image's one, each with a file of its own. */
static struct snapshot take(struct store *store, int64_t image, int64_t base, size_t own)
{
	struct snapshot snapshot = {.environment = "webapp",
		.image_id = image,
		.layers = xcalloc(own + 1, sizeof(struct layer)),
		.layer_count = own + 1,
		.own_count = own};
	struct error err = ERROR_INIT;

	snapshot.layers[0].id = base;
	for (size_t i = 1; i <= own; i++) {
		CLEANUP(free_p) char *script = xasprintf("echo %zu > f%zu", i, i);

		snapshot.layers[i] = tree_kit_layer(store, 0, script);
	}
	assert_ok(snapshot_commit(store, &snapshot, &err), &err);
	return snapshot;
}

static int64_t due(struct store *store)
{
	struct error err = ERROR_INIT;
	int64_t id = -1;

	assert_ok(flatten_due(store, &id, &err), &err);
	return id;
}

static void test_deepest_first(void **state)
{
	struct layer base = store_kit_seal(*state, "", 100);
	int64_t image = store_kit_commit(*state, "webapp", &base.id, 1);
	CLEANUP(snapshot_done) struct snapshot good = take(*state, image, base.id, 15);
	struct flatten_result result;
	struct error err = ERROR_INIT;

	assert_int_equal(good.layer_count, SNAPSHOT_LAYERS_GOOD);
	assert_int_equal(due(*state), 0);
	CLEANUP(snapshot_done) struct snapshot deep = take(*state, image, base.id, 17);
	CLEANUP(snapshot_done) struct snapshot deeper = take(*state, image, base.id, 20);

	assert_int_equal(due(*state), deeper.id);
	assert_ok(snapshot_flatten(*state, deeper.id, &result, &err), &err);
	assert_int_equal(result.after, 2);
	assert_int_equal(due(*state), deep.id);
	assert_ok(snapshot_flatten(*state, deep.id, &result, &err), &err);
	assert_int_equal(due(*state), 0);
}

static void test_failures_wait(void **state)
{
	struct layer base = store_kit_seal(*state, "", 100);
	int64_t image = store_kit_commit(*state, "webapp", &base.id, 1);
	CLEANUP(snapshot_done) struct snapshot first = take(*state, image, base.id, 20);
	CLEANUP(snapshot_done) struct snapshot second = take(*state, image, base.id, 17);
	struct flatten_failure failure = {0};
	struct error broken = ERROR_INIT, err = ERROR_INIT;
	int64_t delay = 0;
	uint64_t freed = 0;

	error_set(&broken, ERROR_FAILED, "the disk is tired");
	assert_int_equal(due(*state), first.id);
	for (int attempt = 1; attempt <= 9; attempt++) {
		assert_ok(flatten_note(*state, first.id, &broken, &err), &err);
		assert_ok(flatten_failure_get(*state, first.id, &failure, &err), &err);
		assert_int_equal(failure.attempts, attempt);
		assert_string_equal(failure.message, "the disk is tired");
		assert_true(failure.retry_ms - failure.failed_ms >= delay);
		delay = failure.retry_ms - failure.failed_ms;
		/* The other one has its turn meanwhile. */
		assert_int_equal(due(*state), second.id);
	}
	assert_int_equal(delay, 3600000);
	assert_ok(flatten_note(*state, first.id, NULL, &err), &err);
	assert_int_equal(due(*state), first.id);
	/* A removed snapshot takes its failures along. */
	assert_ok(flatten_note(*state, first.id, &broken, &err), &err);
	assert_ok(snapshot_remove(*state, first.id, &freed, &err), &err);
	assert_ok(flatten_failure_get(*state, first.id, &failure, &err), &err);
	assert_int_equal(failure.attempts, 0);
}

/* A sandbox stands on the list from before its snapshot was flattened; what is taken of it stands
 * on the new one, also at the limit. */
static void test_child_of_a_flattened(void **state)
{
	struct layer base = store_kit_seal(*state, "", 100);
	int64_t image = store_kit_commit(*state, "webapp", &base.id, 1);
	CLEANUP(snapshot_done)
	struct snapshot parent = take(*state, image, base.id, SNAPSHOT_LAYERS_MAX - 1);
	struct layer *list = xcalloc(SNAPSHOT_LAYERS_MAX + 1, sizeof(*list));
	CLEANUP(snapshot_done)
	struct snapshot child = {.environment = "webapp",
		.parent_id = parent.id,
		.layers = list,
		.layer_count = SNAPSHOT_LAYERS_MAX + 1,
		.own_count = 1};
	struct flatten_result result;
	struct error err = ERROR_INIT;

	memcpy(list, parent.layers, SNAPSHOT_LAYERS_MAX * sizeof(*list));
	list[SNAPSHOT_LAYERS_MAX] = tree_kit_layer(*state, 0, "echo own > own");
	assert_ok(snapshot_lease(*state, parent.id, "hobd", &err), &err);
	assert_kind(snapshot_commit(*state, &child, &err), &err, ERROR_LIMIT);
	assert_contains(err.hint, "flatten");
	err = ERROR_INIT;
	assert_ok(snapshot_flatten(*state, parent.id, &result, &err), &err);
	assert_ok(snapshot_commit(*state, &child, &err), &err);
	assert_int_equal(child.layer_count, 3);
	assert_int_equal(child.layers[0].id, base.id);
	assert_int_equal(child.own_count, 1);
	assert_ok(snapshot_unlease(*state, parent.id, "hobd", &err), &err);
}

/* ---- garbage ---- */

static size_t removals(const struct gc_plan *plan, const char *name)
{
	size_t count = 0;

	for (size_t i = 0; i < plan->count; i++) {
		count += plan->decisions[i].remove &&
			 (name == NULL || streq(plan->decisions[i].name, name));
	}
	return count;
}

static bool one_is_enough(void *context)
{
	return ++*(unsigned *)context > 1;
}

static void test_pressed(void **state)
{
	struct layer kept = store_kit_seal(*state, "key-of-a-step", 5000);
	int64_t second;
	unsigned asked = 0;
	struct gc_plan plan = {0};
	struct gc_result result;
	struct error err = ERROR_INIT;

	assert_ok(layer_keep(*state, kept.id, &err), &err);
	store_release(*state, HOLD_USED, kept.id);
	store_kit_image(*state, "webapp");
	second = store_kit_image(*state, "webapp");
	store_kit_image(*state, "webapp");
	assert_ok(image_lease(*state, second, "hobd", &err), &err);

	/* In good times nothing goes; when space is short, what nobody needs, oldest first. */
	assert_ok(gc_plan_make(*state, NULL, 0, &plan, &err), &err);
	assert_int_equal(removals(&plan, NULL), 0);
	gc_plan_done(&plan);
	assert_ok(gc_plan_pressed(*state, NULL, 0, &plan, &err), &err);
	assert_int_equal(removals(&plan, NULL), 2);
	assert_int_equal(removals(&plan, "img-1"), 1);
	assert_ok(gc_plan_run_until(*state, &plan, one_is_enough, &asked, &result, &err), &err);
	assert_int_equal(result.removed, 1);
	gc_plan_done(&plan);
	assert_kind(layer_get(*state, kept.id, &kept, &err), &err, ERROR_NOT_FOUND);
	err = ERROR_INIT;
	assert_ok(gc_plan_pressed(*state, NULL, 0, &plan, &err), &err);
	assert_int_equal(removals(&plan, NULL), 1);
	gc_plan_done(&plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_deepest_first, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(test_failures_wait, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(
			test_child_of_a_flattened, setup_store, teardown_store),
		cmocka_unit_test_setup_teardown(test_pressed, setup_store, teardown_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
