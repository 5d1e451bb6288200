/* Snapshots in the catalog: the commit point, names, lists, lineage, who needs one, what removing
 * it frees, runs, leases, and what images make of them. */
#include "snapshots/snapshot.h"

#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"

#include <stdio.h>
#include <sys/wait.h>
#include <time.h>

/* A snapshot over the image's or parent's layers with one new layer of `bytes`. */
static int64_t take(struct store *store, int64_t image, int64_t parent, size_t bytes)
{
	struct layer own = store_kit_seal(store, "", bytes), list[SNAPSHOT_LAYERS_MAX] = {0};
	struct snapshot snapshot = {.environment = "webapp",
		.image_id = image,
		.parent_id = parent,
		.reason = SNAPSHOT_MANUAL,
		.layers = list,
		.own_count = 1};
	CLEANUP(free_p) char *name = xasprintf("%lld", (long long)(parent != 0 ? parent : image));
	struct error err = ERROR_INIT;
	struct snapshot above;
	struct image below;

	if (parent != 0) {
		assert_ok(snapshot_find(store, name, &above, &err), &err);
		for (size_t i = 0; i < above.layer_count; i++) {
			list[snapshot.layer_count++].id = above.layers[i].id;
		}
		snapshot_done(&above);
	} else {
		assert_ok(image_find(store, name, &below, &err), &err);
		for (size_t i = 0; i < below.layer_count; i++) {
			list[snapshot.layer_count++].id = below.layers[i].id;
		}
		image_done(&below);
	}
	list[snapshot.layer_count++].id = own.id;
	snprintf(snapshot.label, sizeof(snapshot.label), "over %s", name);
	assert_ok(snapshot_commit(store, &snapshot, &err), &err);
	free(snapshot.manifest);
	return snapshot.id;
}

static void find(struct store *store, const char *name, struct snapshot *ret_snapshot)
{
	struct error err = ERROR_INIT;

	assert_ok(snapshot_find(store, name, ret_snapshot, &err), &err);
}

static void test_commit_and_find(void **state)
{
	int64_t image = store_kit_image(*state, "webapp");
	int64_t first = take(*state, image, 0, 3000), second = take(*state, 0, first, 5000);
	struct snapshot found;

	find(*state, "snap-2", &found);
	assert_int_equal(found.id, second);
	assert_int_equal(found.parent_id, first);
	assert_int_equal(found.image_id, image);
	assert_int_equal(found.layer_count, 3);
	assert_int_equal(found.own_count, 1);
	assert_int_equal(found.layers[0].bytes, 10000);
	assert_int_equal(found.layers[0].refs, 3);
	assert_int_equal(found.layers[2].bytes, 5000);
	assert_int_equal(found.bytes, 18000);
	assert_int_equal(found.exclusive, found.layers[2].stored);
	assert_string_equal(found.manifest, "{\"user\":\"root\"}");
	assert_string_equal(found.commit, "0123456789abcdef0123456789abcdef01234567");
	assert_string_equal(found.label, "over 1");
	assert_string_equal(found.metadata, "{}");
	assert_null(found.tags);
	snapshot_done(&found);
}

static void test_commit_refuses(void **state)
{
	struct layer own = store_kit_seal(*state, "", 100);
	struct layer list[SNAPSHOT_LAYERS_MAX + 1] = {own};
	struct snapshot snapshot = {.environment = "webapp", .layers = list, .layer_count = 0};
	struct error err = ERROR_INIT;

	assert_kind(snapshot_commit(*state, &snapshot, &err), &err, ERROR_LIMIT);
	snapshot.layer_count = SNAPSHOT_LAYERS_MAX + 1;
	assert_kind(snapshot_commit(*state, &snapshot, &err), &err, ERROR_LIMIT);
	snapshot.layer_count = 1;
	snapshot.image_id = 12;
	assert_kind(snapshot_commit(*state, &snapshot, &err), &err, ERROR_NOT_FOUND);
	snapshot.image_id = 0;
	snapshot.parent_id = 12;
	assert_kind(snapshot_commit(*state, &snapshot, &err), &err, ERROR_NOT_FOUND);
	snapshot.parent_id = 0;
	snapshot.metadata = (char *)(uintptr_t) "{\"a\":1}";
	assert_kind(snapshot_commit(*state, &snapshot, &err), &err, ERROR_INVALID);
	snapshot.metadata = NULL;
	snprintf(snapshot.label, sizeof(snapshot.label), "two\nlines");
	assert_kind(snapshot_commit(*state, &snapshot, &err), &err, ERROR_INVALID);
	snprintf(snapshot.label, sizeof(snapshot.label), "\xff");
	assert_kind(snapshot_commit(*state, &snapshot, &err), &err, ERROR_INVALID);
	snapshot.label[0] = '\0';
	snapshot.layer_count = 2;
	list[1].id = 4711;
	assert_kind(snapshot_commit(*state, &snapshot, &err), &err, ERROR_CONFLICT);
	assert_int_equal(snapshot.id, 0);
	snapshot.layer_count = 1;
	assert_ok(snapshot_commit(*state, &snapshot, &err), &err);
	assert_int_equal(snapshot.id, 1);
}

static void test_removal_keeps_lineage_and_shared_layers(void **state)
{
	int64_t image = store_kit_image(*state, "webapp");
	int64_t first = take(*state, image, 0, 3000), second = take(*state, 0, first, 50000);
	int64_t third = take(*state, 0, second, 1000);
	struct error err = ERROR_INIT;
	struct snapshot found;
	uint64_t freed = 7;

	assert_ok(snapshot_remove(*state, second, &freed, &err), &err);
	assert_int_equal(freed, 0);
	assert_int_equal(store_kit_count(*state, "layers"), 4);
	find(*state, "snap-3", &found);
	assert_int_equal(found.parent_id, first);
	snapshot_done(&found);
	assert_ok(snapshot_remove(*state, third, &freed, &err), &err);
	assert_in_range(freed, 51000, 70000);
	assert_int_equal(store_kit_count(*state, "layers"), 2);
	assert_kind(snapshot_remove(*state, third, &freed, &err), &err, ERROR_NOT_FOUND);
	assert_ok(snapshot_remove(*state, first, &freed, &err), &err);
	assert_int_equal(store_kit_count(*state, "layers"), 1);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
}

static void test_images_know_their_snapshots(void **state)
{
	int64_t old = store_kit_image(*state, "webapp");
	int64_t snapshot = take(*state, old, 0, 3000);
	CLEANUP(strv_free_p) char **users = NULL;
	struct error err = ERROR_INIT;
	uint64_t exclusive, shared, images, freed;

	store_kit_image(*state, "webapp");
	assert_ok(image_users(*state, old, &users, &err), &err);
	assert_string_equal(users[0], "snapshot snap-1");
	assert_null(users[1]);
	assert_ok(image_bytes(*state, old, &exclusive, &shared, &err), &err);
	assert_int_equal(exclusive, 0);
	assert_true(shared >= 10000);
	assert_kind(image_remove(*state, old, &freed, &err), &err, ERROR_CONFLICT);
	assert_contains(err.message, "snap-1");
	assert_ok(images_prune(*state, "webapp", 1, &images, &freed, &err), &err);
	assert_int_equal(images, 0);
	assert_ok(snapshot_remove(*state, snapshot, &freed, &err), &err);
	assert_ok(images_prune(*state, "webapp", 1, &images, &freed, &err), &err);
	assert_int_equal(images, 1);
	assert_int_equal(store_kit_count(*state, "layers"), 1);
}

static void test_pins_and_leases_hold(void **state)
{
	int64_t id = take(*state, store_kit_image(*state, "webapp"), 0, 3000);
	CLEANUP(strv_free_p) char **users = NULL;
	struct error err = ERROR_INIT;
	uint64_t freed;

	assert_ok(snapshot_pin(*state, id, true, &err), &err);
	assert_ok(snapshot_lease(*state, id, "hobd", &err), &err);
	assert_ok(snapshot_lease(*state, id, "hobd", &err), &err);
	assert_ok(snapshot_users(*state, id, &users, &err), &err);
	assert_string_equal(users[0], "pinned");
	assert_string_equal(users[1], "leased by hobd");
	assert_null(users[2]);
	assert_kind(snapshot_remove(*state, id, &freed, &err), &err, ERROR_CONFLICT);
	assert_ok(snapshot_pin(*state, id, false, &err), &err);
	assert_kind(snapshot_remove(*state, id, &freed, &err), &err, ERROR_CONFLICT);
	assert_contains(err.message, "leased by hobd");
	assert_ok(snapshot_leases_keep(*state, "hobd", &id, 1, &err), &err);
	assert_kind(snapshot_remove(*state, id, &freed, &err), &err, ERROR_CONFLICT);
	assert_ok(snapshot_leases_keep(*state, "hobd", NULL, 0, &err), &err);
	assert_ok(snapshot_remove(*state, id, &freed, &err), &err);
	assert_kind(snapshot_lease(*state, id, "hobd", &err), &err, ERROR_NOT_FOUND);
	assert_kind(snapshot_pin(*state, id, true, &err), &err, ERROR_NOT_FOUND);
}

static void test_tags(void **state)
{
	int64_t image = store_kit_image(*state, "webapp");
	int64_t one = take(*state, image, 0, 3000), two = take(*state, image, 0, 3000);
	static const char *const bad[] = {"", "snap-1", "img-x", "12", "a b", "-x", "Big"};
	struct error err = ERROR_INIT;
	struct snapshot found;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_kind(snapshot_tag(*state, one, bad[i], false, &err), &err, ERROR_INVALID);
	}
	assert_ok(snapshot_tag(*state, one, "good", false, &err), &err);
	assert_ok(snapshot_tag(*state, one, "best", false, &err), &err);
	assert_kind(snapshot_tag(*state, two, "good", false, &err), &err, ERROR_EXISTS);
	assert_contains(err.message, "snap-1");
	find(*state, "good", &found);
	assert_int_equal(found.id, one);
	assert_string_equal(found.tags, "best good");
	snapshot_done(&found);
	assert_ok(snapshot_tag(*state, two, "good", true, &err), &err);
	find(*state, "good", &found);
	assert_int_equal(found.id, two);
	snapshot_done(&found);
	assert_ok(snapshot_untag(*state, "good", &err), &err);
	assert_kind(snapshot_untag(*state, "good", &err), &err, ERROR_NOT_FOUND);
	assert_kind(snapshot_find(*state, "good", &found, &err), &err, ERROR_NOT_FOUND);
}

static size_t list(struct store *store, const struct snapshot_filter *filter, int64_t *ret_first)
{
	struct snapshot *snapshots = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;

	assert_ok(snapshot_list(store, filter, &snapshots, &count, &err), &err);
	for (size_t i = 1; i < count; i++) {
		assert_true(snapshots[i - 1].id > snapshots[i].id);
	}
	*ret_first = count > 0 ? snapshots[0].id : 0;
	for (size_t i = 0; i < count; i++) {
		assert_true(
			snapshots[i].exclusive > 0 && snapshots[i].exclusive < snapshots[i].stored);
	}
	snapshots_free(snapshots, count);
	return count;
}

static void test_lists_filter(void **state)
{
	int64_t image = store_kit_image(*state, "webapp"), first;
	struct snapshot_filter filter = SNAPSHOT_FILTER_ALL;

	take(*state, image, 0, 3000);
	take(*state, image, 0, 3000);
	assert_int_equal(list(*state, &filter, &first), 2);
	assert_int_equal(first, 2);
	filter.environment = "webapp";
	filter.label = "over *";
	filter.reason = SNAPSHOT_MANUAL;
	filter.older_than_ms = clock_real_ms() + 10000;
	assert_int_equal(list(*state, &filter, &first), 2);
	filter.older_than_ms = 1000;
	assert_int_equal(list(*state, &filter, &first), 0);
	filter = SNAPSHOT_FILTER_ALL;
	filter.label = "over";
	assert_int_equal(list(*state, &filter, &first), 0);
	filter = SNAPSHOT_FILTER_ALL;
	filter.reason = SNAPSHOT_EXIT;
	assert_int_equal(list(*state, &filter, &first), 0);
	filter = SNAPSHOT_FILTER_ALL;
	filter.environment = "other";
	assert_int_equal(list(*state, &filter, &first), 0);
}

static void test_one_snapshot_of_a_sandbox_at_a_time(void **state)
{
	CLEANUP(staging_free_p) struct staging *first = NULL;
	CLEANUP(staging_free_p) struct staging *second = NULL;
	struct layer layer = {.kind = "step", .title = "t", .id_count = 1};
	struct snapshot snapshot = {.environment = "webapp",
		.sandbox = "sb-1",
		.layers = &layer,
		.layer_count = 1,
		.own_count = 1};
	struct error err = ERROR_INIT;
	struct store_sweep sweep;

	assert_ok(staging_new(*state, &first, &err), &err);
	assert_ok(staging_new(*state, &second, &err), &err);
	assert_ok(snapshot_begin(*state, "sb-1", first, &err), &err);
	assert_kind(snapshot_begin(*state, "sb-1", second, &err), &err, ERROR_BUSY);
	assert_ok(snapshot_begin(*state, "sb-2", second, &err), &err);
	store_kit_write_tree(first, "file", "text");
	assert_ok(layer_seal(*state, first, &layer, &err), &err);
	assert_kind(snapshot_begin(*state, "sb-1", second, &err), &err, ERROR_BUSY);
	assert_ok(store_recover(*state, &sweep, &err), &err);
	assert_int_equal(sweep.snapshots, 0);
	assert_ok(snapshot_commit(*state, &snapshot, &err), &err);
	free(snapshot.manifest);
	assert_ok(snapshot_begin(*state, "sb-1", second, &err), &err);
	staging_free(steal_ptr(second));
	assert_ok(store_recover(*state, &sweep, &err), &err);
	assert_int_equal(sweep.snapshots, 2);
}

static void test_a_killed_run_is_replaced(void **state)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct error err = ERROR_INIT;
	pid_t child = fork();
	int status;

	if (child == 0) {
		struct store *store = NULL;

		_exit(store_open(store_path(*state), STORE_WRITE, &store, &err) < 0 ||
			staging_new(store, &staging, &err) < 0 ||
			snapshot_begin(store, "sb-1", staging, &err) < 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_ok(staging_new(*state, &staging, &err), &err);
	assert_ok(snapshot_begin(*state, "sb-1", staging, &err), &err);
	assert_ok(snapshot_abort(*state, "sb-1", &err), &err);
	assert_ok(snapshot_abort(*state, "sb-1", &err), &err);
}

static void test_many_are_listed_fast(void **state)
{
	int64_t image = store_kit_image(*state, "webapp"), first, start;
	struct snapshot_filter filter = SNAPSHOT_FILTER_ALL;
	struct snapshot above;

	take(*state, image, 0, 100);
	find(*state, "1", &above);
	for (int i = 0; i < 300; i++) {
		struct snapshot copy = above;
		struct error err = ERROR_INIT;

		copy.own_count = 0;
		copy.manifest = NULL;
		copy.parent_id = i % 7 == 0 ? 1 : 0;
		assert_ok(snapshot_commit(*state, &copy, &err), &err);
		free(copy.manifest);
	}
	snapshot_done(&above);
	start = clock();
	filter.label = "*";
	struct snapshot *snapshots = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;

	assert_ok(snapshot_list(*state, &filter, &snapshots, &count, &err), &err);
	first = snapshots[0].id;
	assert_int_equal(count, 301);
	assert_int_equal(first, 301);
	assert_int_equal(snapshots[5].exclusive, 0);
	assert_true(clock() - start < CLOCKS_PER_SEC); /* of the processor, whoever else works */
	snapshots_free(snapshots, count);
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_commit_and_find),
		IN_STORE(test_commit_refuses),
		IN_STORE(test_removal_keeps_lineage_and_shared_layers),
		IN_STORE(test_images_know_their_snapshots),
		IN_STORE(test_pins_and_leases_hold),
		IN_STORE(test_tags),
		IN_STORE(test_lists_filter),
		IN_STORE(test_one_snapshot_of_a_sandbox_at_a_time),
		IN_STORE(test_a_killed_run_is_replaced),
		IN_STORE(test_many_are_listed_fast),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
