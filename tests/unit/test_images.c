/* Images: the commit point, names, lists, who uses one, what removing it frees, and leases. */
#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void test_commit_publishes_everything_at_once(void **state)
{
	struct layer layers[2] = {
		store_kit_seal(*state, "", 100), store_kit_seal(*state, "k", 200)};
	struct image image = {.environment = "webapp",
		.commit = "abcd",
		.fingerprint = "f",
		.manifest = (char *)(uintptr_t) "{}",
		.layers = layers,
		.layer_count = 2};
	struct image found;
	struct build build;
	struct error err = ERROR_INIT;
	char head[32];
	int log = -1;

	assert_ok(build_begin(*state, "webapp", &build, &log, &err), &err);
	close(log);
	assert_ok(image_commit(*state, &image, build.id, &err), &err);
	assert_true(image.id > 0 && image.is_head && image.created_ms > 0);
	assert_int_equal(image.layers[1].bytes, 200);
	store_kit_head(*state, "webapp", head);
	assert_string_equal(head, "img-1");
	assert_ok(image_head(*state, "webapp", &found, &err), &err);
	assert_int_equal(found.id, image.id);
	assert_string_equal(found.commit, "abcd");
	assert_int_equal(found.layer_count, 2);
	assert_int_equal(found.layers[0].bytes, 100);
	assert_int_equal(found.layers[1].bytes, 200);
	image_done(&found);
	assert_ok(build_get(*state, "1", &build, &err), &err);
	assert_int_equal(build.state, BUILD_PUBLISHED);
	assert_int_equal(build.image_id, image.id);
	assert_true(build.ended_ms > 0);
	build_done(&build);
}

static void test_commit_refuses_what_it_cannot_hold(void **state)
{
	struct layer layers[IMAGE_LAYERS_MAX + 1] = {store_kit_seal(*state, "", 100)};
	struct image image = {.environment = "webapp", .layers = layers, .layer_count = 0}, found;
	struct error err = ERROR_INIT;
	CLEANUP(store_close_p) struct store *other = NULL;

	assert_kind(image_commit(*state, &image, 0, &err), &err, ERROR_LIMIT);
	image.layer_count = IMAGE_LAYERS_MAX + 1;
	assert_kind(image_commit(*state, &image, 0, &err), &err, ERROR_LIMIT);
	image.layer_count = 2;
	layers[1].id = 4711;
	assert_kind(image_commit(*state, &image, 0, &err), &err, ERROR_CONFLICT);
	image.layer_count = 1;
	assert_kind(image_commit(*state, &image, 12, &err), &err, ERROR_CONFLICT);
	assert_ok(store_open(store_path(*state), STORE_WRITE, &other, &err), &err);
	assert_kind(image_commit(other, &image, 0, &err), &err, ERROR_CONFLICT);
	assert_contains(err.message, "another build");
	snprintf(image.environment, sizeof(image.environment), "../x");
	assert_kind(image_commit(*state, &image, 0, &err), &err, ERROR_INVALID);
	assert_kind(image_head(*state, "webapp", &found, &err), &err, ERROR_NOT_FOUND);
	assert_int_equal(store_kit_count(*state, "heads"), 0);
}

static void test_commit_looks_for_the_layers_on_disk(void **state)
{
	struct layer layer = store_kit_seal(*state, "", 100);
	struct image image = {.environment = "webapp", .layers = &layer, .layer_count = 1};
	struct error err = ERROR_INIT;
	CLEANUP(free_p) char *path = xasprintf("layers/%lld/tree", (long long)layer.id);

	assert_int_equal(renameat(store_fd(*state), path, store_fd(*state), "staging/away"), 0);
	assert_kind(image_commit(*state, &image, 0, &err), &err, ERROR_CORRUPT);
}

static void test_names(void **state)
{
	int64_t first = store_kit_image(*state, "webapp"),
		second = store_kit_image(*state, "webapp");
	static const char *const bad[] = {"img-", "img-0", "img-99", "99", "-1", "+1", " 1", "01",
		"img-1x", "", "9999999999999999999999", "absent", "bld-1"};
	struct image image;
	struct error err = ERROR_INIT;

	assert_int_equal(first, 1);
	assert_ok(image_find(*state, "img-1", &image, &err), &err);
	assert_int_equal(image.id, 1);
	assert_false(image.is_head);
	image_done(&image);
	assert_ok(image_find(*state, "2", &image, &err), &err);
	assert_int_equal(image.id, second);
	image_done(&image);
	assert_ok(image_find(*state, "webapp", &image, &err), &err);
	assert_int_equal(image.id, second);
	assert_true(image.is_head);
	assert_string_equal(image.manifest, "{\"user\":\"root\"}");
	image_done(&image);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_kind(image_find(*state, bad[i], &image, &err), &err, ERROR_NOT_FOUND);
	}
}

static void assert_head(struct store *store, int64_t id, const char *refused)
{
	struct image head;
	struct error err = ERROR_INIT;
	char text[65], link[32], expected[32];

	snprintf(expected, sizeof(expected), "img-%lld", (long long)id);
	assert_ok(image_head(store, "webapp", &head, &err), &err);
	assert_int_equal(head.id, id);
	image_done(&head);
	store_kit_head(store, "webapp", link);
	assert_string_equal(link, expected);
	assert_ok(image_refused(store, "webapp", text, &err), &err);
	assert_string_equal(text, refused);
}

static void test_rollback(void **state)
{
	int64_t ids[3];
	struct image image;
	struct error err = ERROR_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		struct layer layer = store_kit_seal(*state, "", 100);
		struct image one = {.environment = "webapp",
			.layers = &layer,
			.layer_count = 1,
			.fingerprint = {(char)('a' + i), 0}};

		assert_ok(image_commit(*state, &one, 0, &err), &err);
		ids[i] = one.id;
	}
	assert_kind(image_rollback(*state, "absent", 0, &image, &err), &err, ERROR_NOT_FOUND);
	assert_kind(image_rollback(*state, "webapp", 99, &image, &err), &err, ERROR_NOT_FOUND);
	assert_kind(image_rollback(*state, "webapp", ids[2], &image, &err), &err, ERROR_CONFLICT);
	assert_head(*state, ids[2], "");
	assert_ok(image_rollback(*state, "webapp", 0, &image, &err), &err);
	assert_int_equal(image.id, ids[1]);
	assert_true(image.is_head);
	image_done(&image);
	assert_head(*state, ids[1], "c");
	assert_ok(image_rollback(*state, "webapp", ids[2], &image, &err), &err);
	image_done(&image);
	assert_head(*state, ids[2], "b");
	assert_ok(image_rollback(*state, "webapp", ids[0], &image, &err), &err);
	image_done(&image);
	assert_head(*state, ids[0], "c");
	assert_kind(image_rollback(*state, "webapp", 0, &image, &err), &err, ERROR_NOT_FOUND);
	/* The next that is published is as good as any. */
	ids[0] = store_kit_image(*state, "webapp");
	assert_head(*state, ids[0], "");
}

static void test_failures_are_counted_by_what_was_tried(void **state)
{
	static const char *const tried[] = {"a", "b", "a", "a"};
	struct build_failures failures;
	struct error err = ERROR_INIT;
	int64_t last = 0;

	for (size_t i = 0; i < ARRAY_SIZE(tried); i++) {
		struct build build;
		int log = -1;

		assert_ok(build_begin(*state, "webapp", &build, &log, &err), &err);
		close(log);
		snprintf(build.fingerprint, sizeof(build.fingerprint), "%s", tried[i]);
		assert_ok(build_end(*state, &build, i == 3 ? BUILD_UNCHANGED : BUILD_FAILED, "no",
				  &err),
			&err);
		last = i == 2 ? build.id : last;
		build_done(&build);
	}
	assert_ok(build_failures(*state, "webapp", "a", &failures, &err), &err);
	assert_int_equal(failures.count, 2);
	assert_int_equal(failures.last_id, last);
	assert_true(failures.last_ms > 0);
	assert_ok(build_failures(*state, "other", "a", &failures, &err), &err);
	assert_int_equal(failures.count, 0);
}

static void test_list_is_newest_first(void **state)
{
	struct image *images = NULL;
	struct error err = ERROR_INIT;
	size_t count = 7;

	assert_ok(image_list(*state, NULL, &images, &count, &err), &err);
	assert_int_equal(count, 0);
	free(images);
	store_kit_image(*state, "one");
	store_kit_image(*state, "two");
	store_kit_image(*state, "one");
	assert_ok(image_list(*state, NULL, &images, &count, &err), &err);
	assert_int_equal(count, 3);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(images[i].id, 3 - i);
		assert_int_equal(images[i].layer_count, 1);
		assert_int_equal(images[i].is_head, i < 2);
		image_done(&images[i]);
	}
	free(images);
	assert_ok(image_list(*state, "two", &images, &count, &err), &err);
	assert_int_equal(count, 1);
	assert_int_equal(images[0].layers[0].id, 2);
	image_done(&images[0]);
	free(images);
}

/* Two images over one base: each has one layer of its own. */
static void make_two(struct store *store, int64_t ids[2])
{
	struct layer base = store_kit_seal(store, "", 100000);
	struct layer one = store_kit_seal(store, "", 20000), two = store_kit_seal(store, "", 40000);
	int64_t lists[2][2] = {{base.id, one.id}, {base.id, two.id}};

	ids[0] = store_kit_commit(store, "webapp", lists[0], 2);
	ids[1] = store_kit_commit(store, "webapp", lists[1], 2);
}

static void test_bytes_tell_own_from_shared(void **state)
{
	uint64_t exclusive = 0, shared = 0, freed = 0;
	struct error err = ERROR_INIT;
	int64_t ids[2];

	make_two(*state, ids);
	assert_ok(image_bytes(*state, ids[0], &exclusive, &shared, &err), &err);
	assert_in_range(exclusive, 20000, 60000);
	assert_in_range(shared, 100000, 140000);
	assert_ok(image_remove(*state, ids[0], &freed, &err), &err);
	assert_int_equal(freed, exclusive);
	assert_int_equal(store_kit_count(*state, "layers"), 2);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
	assert_ok(image_bytes(*state, ids[1], &exclusive, &shared, &err), &err);
	assert_in_range(exclusive, 140000, 200000);
	assert_int_equal(shared, 0);
	assert_kind(image_bytes(*state, ids[0], &exclusive, &shared, &err), &err, ERROR_NOT_FOUND);
	assert_kind(image_remove(*state, ids[0], &freed, &err), &err, ERROR_NOT_FOUND);
}

static void test_removal_names_who_needs_it(void **state)
{
	CLEANUP(strv_free_p) char **users = NULL;
	struct error err = ERROR_INIT;
	struct image image;
	uint64_t freed = 0;
	int64_t ids[2];
	char head[32];

	make_two(*state, ids);
	assert_ok(image_lease(*state, ids[1], "hobd", &err), &err);
	assert_ok(image_users(*state, ids[1], &users, &err), &err);
	assert_int_equal(strv_count(users), 2);
	assert_string_equal(users[0], "head of webapp");
	assert_string_equal(users[1], "leased by hobd");
	assert_kind(image_remove(*state, ids[1], &freed, &err), &err, ERROR_CONFLICT);
	assert_contains(err.message, "head of webapp, leased by hobd");
	assert_ok(image_unlease(*state, ids[1], "hobd", &err), &err);
	assert_kind(image_remove(*state, ids[1], &freed, &err), &err, ERROR_CONFLICT);
	assert_ok(image_head_clear(*state, "webapp", &err), &err);
	assert_kind(image_head_clear(*state, "webapp", &err), &err, ERROR_NOT_FOUND);
	store_kit_head(*state, "webapp", head);
	assert_string_equal(head, "");
	assert_kind(image_head(*state, "webapp", &image, &err), &err, ERROR_NOT_FOUND);
	assert_ok(image_remove(*state, ids[1], &freed, &err), &err);
}

static void test_leases(void **state)
{
	struct error err = ERROR_INIT;
	int64_t ids[2];
	uint64_t freed = 0;

	make_two(*state, ids);
	assert_kind(image_lease(*state, 99, "hobd", &err), &err, ERROR_NOT_FOUND);
	assert_ok(image_lease(*state, ids[0], "hobd", &err), &err);
	assert_ok(image_lease(*state, ids[0], "hobd", &err), &err);
	assert_ok(image_lease(*state, ids[1], "hobd", &err), &err);
	assert_ok(image_lease(*state, ids[0], "somebody", &err), &err);
	assert_ok(image_leases_keep(*state, "hobd", &ids[1], 1, &err), &err);
	assert_kind(image_remove(*state, ids[0], &freed, &err), &err, ERROR_CONFLICT);
	assert_contains(err.message, "somebody");
	assert_null(strstr(err.message, "hobd"));
	assert_ok(image_leases_keep(*state, "somebody", NULL, 0, &err), &err);
	assert_ok(image_remove(*state, ids[0], &freed, &err), &err);
	assert_ok(image_unlease(*state, ids[0], "nobody", &err), &err);
}

static void test_a_layer_a_build_found_stays(void **state)
{
	struct layer layer = store_kit_seal(*state, "base-key", 100), found;
	struct error err = ERROR_INIT;
	struct store *builder = NULL;
	uint64_t freed = 0;
	int64_t first;

	assert_ok(layer_keep(*state, layer.id, &err), &err);
	first = store_kit_commit(*state, "one", &layer.id, 1);
	store_kit_image(*state, "one");
	assert_ok(store_open(store_path(*state), STORE_WRITE, &builder, &err), &err);
	assert_ok(layer_find(builder, "base-key", &found, &err), &err);
	assert_kind(image_remove(*state, first, &freed, &err), &err, ERROR_BUSY);
	assert_contains(err.message, "running build");
	(void)store_kit_commit(builder, "two", &found.id, 1);
	assert_ok(image_remove(*state, first, &freed, &err), &err);
	assert_int_equal(freed, 0);
	store_close(builder);
	assert_ok(layer_get(*state, layer.id, &found, &err), &err);
}

static void test_prune_keeps_newest_head_and_leased(void **state)
{
	struct image *images = NULL;
	struct error err = ERROR_INIT;
	uint64_t removed = 0, freed = 0;
	size_t count = 0;
	int64_t ids[6];

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		ids[i] = store_kit_image(*state, "webapp");
	}
	store_kit_image(*state, "other");
	assert_ok(image_lease(*state, ids[1], "hobd", &err), &err);
	assert_ok(images_prune(*state, "webapp", 2, &removed, &freed, &err), &err);
	assert_int_equal(removed, 3);
	assert_true(freed >= 30000);
	assert_ok(image_list(*state, "webapp", &images, &count, &err), &err);
	assert_int_equal(count, 3);
	assert_int_equal(images[2].id, ids[1]);
	for (size_t i = 0; i < count; i++) {
		image_done(&images[i]);
	}
	free(images);
	assert_int_equal(store_kit_count(*state, "layers"), 4);
	assert_ok(images_prune(*state, "webapp", 0, NULL, NULL, &err), &err);
	assert_ok(images_prune(*state, "absent", 0, NULL, NULL, &err), &err);
	assert_int_equal(store_kit_count(*state, "layers"), 3);
}

/* Commits `count` images of its own environment; the child's exit code is 0 when all went well. */
static int commit_many(const char *path, const char *environment, int count)
{
	struct store *store = NULL;
	struct error err = ERROR_INIT;

	if (store_open(path, STORE_WRITE, &store, &err) < 0) {
		return 1;
	}
	for (int i = 0; i < count; i++) {
		store_kit_image(store, environment);
		if (images_prune(store, environment, 2, NULL, NULL, &err) < 0) {
			return 2;
		}
	}
	store_close(store);
	return 0;
}

static void test_two_processes_and_a_sweep_beside_them(void **state)
{
	static const char *const names[2] = {"one", "two"};
	struct store_sweep sweep;
	struct error err = ERROR_INIT;
	pid_t children[2];

	for (int i = 0; i < 2; i++) {
		children[i] = fork();
		assert_true(children[i] >= 0);
		if (children[i] == 0) {
			_exit(commit_many(store_path(*state), names[i], 20));
		}
	}
	for (int i = 0; i < 40; i++) {
		assert_ok(store_recover(*state, &sweep, &err), &err);
		assert_int_equal(sweep.missing, 0);
		assert_int_equal(sweep.finished, 0);
		assert_int_equal(sweep.orphans, 0);
		usleep(5000);
	}
	for (int i = 0; i < 2; i++) {
		int status = 0;
		char head[32];

		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
		store_kit_head(*state, names[i], head);
		assert_true(str_starts(head, "img-"));
	}
	assert_ok(store_recover(*state, &sweep, &err), &err);
	assert_int_equal(sweep.staging + sweep.orphans + sweep.finished + sweep.missing, 0);
	assert_int_equal(sweep.heads, 0);
	assert_int_equal(store_kit_count(*state, "layers"), 4);
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_commit_publishes_everything_at_once),
		IN_STORE(test_commit_refuses_what_it_cannot_hold),
		IN_STORE(test_commit_looks_for_the_layers_on_disk),
		IN_STORE(test_names),
		IN_STORE(test_list_is_newest_first),
		IN_STORE(test_rollback),
		IN_STORE(test_failures_are_counted_by_what_was_tried),
		IN_STORE(test_bytes_tell_own_from_shared),
		IN_STORE(test_removal_names_who_needs_it),
		IN_STORE(test_leases),
		IN_STORE(test_a_layer_a_build_found_stays),
		IN_STORE(test_prune_keeps_newest_head_and_leased),
		IN_STORE(test_two_processes_and_a_sweep_beside_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
