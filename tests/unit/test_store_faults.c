/*
 * The store broken at every step: a child does a build's work, seals, keeps, commits, removes and
 * prunes, and dies, or is told that the disk is full, at one fault point after the other, at every
 * passage of it. After each, the sweep must leave a store in which everything that was reachable is
 * whole, nothing unreachable is left on disk, and the next build works.
 */
#include "tests/lib/fault_kit.h"
#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "snapshots/catalog.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

/* ---- the work, in a child that is this program again ---- */

static int seal_one(struct store *store, const char *key, struct layer *layer, struct error *err)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	int status = staging_new(store, &staging, err);

	if (status < 0) {
		return status;
	}
	store_kit_write_tree(staging, "file", "some text");
	*layer = (struct layer){.kind = "step", .title = "step", .id_count = 1};
	snprintf(layer->step_key, sizeof(layer->step_key), "%s", key);
	return layer_seal(store, staging, layer, err);
}

static int work_image(struct store *store, int64_t build_id, struct error *err)
{
	struct layer layers[3];
	struct image image = {.environment = "webapp", .layers = layers, .layer_count = 2};
	int status = seal_one(store, "", &layers[0], err);

	if (status == 0) {
		status = seal_one(store, "new-key", &layers[1], err);
	}
	if (status == 0) {
		status = layer_keep(store, layers[1].id, err);
	}
	if (status == 0) {
		status = seal_one(store, "", &layers[2], err); /* never used: discarded */
	}
	return status < 0 ? status : image_commit(store, &image, build_id, err);
}

static int work_build(struct store *store, struct error *err)
{
	struct build build;
	int log = -1;
	int status = build_begin(store, "webapp", &build, &log, err);

	if (status < 0) {
		return status;
	}
	close(log);
	status = work_image(store, build.id, err);
	if (status < 0) {
		struct error ended = ERROR_INIT;

		(void)!build_end(store, &build, BUILD_FAILED, err->message, &ended);
	}
	build_done(&build);
	return status < 0 ? status : layers_discard(store, err);
}

static int work_failed_build(struct store *store, struct error *err)
{
	struct build build;
	struct layer layer;
	int log = -1;
	int status = build_begin(store, "webapp", &build, &log, err);

	if (status < 0) {
		return status;
	}
	close(log);
	status = seal_one(store, "", &layer, err);
	if (status == 0) {
		status = build_end(store, &build, BUILD_FAILED, "a step failed", err);
	}
	build_done(&build);
	return status;
}

static int work(struct store *store, struct error *err)
{
	int status = work_failed_build(store, err);

	if (status == 0) {
		status = work_build(store, err);
	}
	if (status == 0) {
		status = images_prune(store, "webapp", 1, NULL, NULL, err);
	}
	if (status == 0) {
		status = builds_prune(store, "webapp", 3, err);
	}
	return status;
}

/* Two images of which the older is due to be pruned, an unfinished layer in the past of the store,
 * and an image of another environment that shares a layer. */
static void prepare(struct store *store)
{
	struct layer base = store_kit_seal(store, "base-key", 100),
		     one = store_kit_seal(store, "", 100);
	int64_t lists[2][2] = {{base.id, one.id}, {base.id}};

	(void)store_kit_commit(store, "webapp", lists[0], 2);
	(void)store_kit_commit(store, "other", lists[1], 1);
}

static bool layer_is_whole(const struct store *store, int64_t id)
{
	CLEANUP(free_p) char *path = xasprintf("layers/%lld/tree/file", (long long)id);

	return faccessat(store_fd(store), path, R_OK, 0) == 0;
}

/* Layers that were kept for their key and that no image has. */
static size_t count_kept(const struct store *store, const bool *seen)
{
	CLEANUP(free_p) char *path = xasprintf("%s/catalog.db", store_path(store));
	struct query query = {0};
	struct error err = ERROR_INIT;
	sqlite3 *db = NULL;
	size_t count = 0;

	assert_ok(catalog_open(path, store_fd(store), true, &db, &err), &err);
	query_init(
		&query, db, "SELECT id FROM layers WHERE state = 'ready' AND step_key = 'new-key'");
	while (query_row(&query, &err) > 0) {
		assert_true(layer_is_whole(store, query_int(&query, 0)));
		count += !seen[query_int(&query, 0)];
	}
	query_done(&query);
	catalog_close(db);
	return count;
}

/* Every image is whole, and each layer on disk is one of an image or was kept by its key. */
static void assert_all_reachable_and_nothing_else(struct store *store, const char *fault)
{
	struct image *images = NULL;
	struct error err = ERROR_INIT;
	bool seen[64] = {false};
	size_t count = 0, layers = 0;

	assert_ok(image_list(store, NULL, &images, &count, &err), &err);
	for (size_t i = 0; i < count; i++) {
		assert_true(images[i].layer_count > 0);
		for (size_t j = 0; j < images[i].layer_count; j++) {
			int64_t id = images[i].layers[j].id;

			if (!layer_is_whole(store, id)) {
				fail_msg("%s: layer %lld is lost", fault, (long long)id);
			}
			layers += !seen[id];
			seen[id] = true;
		}
		image_done(&images[i]);
	}
	free(images);
	layers += count_kept(store, seen);
	if (store_kit_count(store, "layers") != layers || store_kit_count(store, "staging") != 0) {
		fail_msg("%s: %zu layers on disk for %zu reachable, %zu in staging", fault,
			store_kit_count(store, "layers"), layers,
			store_kit_count(store, "staging"));
	}
}

static void assert_heads_and_builds(struct store *store, const char *fault)
{
	static const char *const environments[] = {"webapp", "other"};
	struct build *builds = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(environments); i++) {
		struct image head;
		char link[32], wanted[32];

		assert_ok(image_head(store, environments[i], &head, &err), &err);
		snprintf(wanted, sizeof(wanted), "img-%lld", (long long)head.id);
		store_kit_head(store, environments[i], link);
		if (!streq(link, wanted)) {
			fail_msg("%s: link says %s, catalog %s", fault, link, wanted);
		}
		image_done(&head);
	}
	assert_int_equal(store_kit_count(store, "heads"), 2);
	assert_ok(build_list(store, NULL, 100, &builds, &count, &err), &err);
	for (size_t i = 0; i < count; i++) {
		assert_int_not_equal(builds[i].state, BUILD_RUNNING);
		build_done(&builds[i]);
	}
	free(builds);
}

static bool break_once(struct store *store, const char *fault, int passage)
{
	struct store_sweep sweep;
	struct error err = ERROR_INIT;
	int status = fault_kit_run(store, fault);

	if (WIFSIGNALED(status)) {
		assert_int_equal(WTERMSIG(status), SIGKILL);
	}
	assert_ok(store_recover(store, &sweep, &err), &err);
	assert_int_equal(sweep.missing + sweep.stuck, 0);
	assert_all_reachable_and_nothing_else(store, fault);
	assert_heads_and_builds(store, fault);
	assert_int_equal(fault_kit_run(store, NULL), 0);
	assert_all_reachable_and_nothing_else(store, fault);
	/* A point that fails may be one that only logs; one that kills cannot be missed. */
	return strstr(fault, ":kill") != NULL ? WIFSIGNALED(status) : passage < 8;
}

static const struct fault_kit kit = {work, prepare, break_once};

static void test_every_step_of_the_protocol_has_a_point(void **state)
{
	static const char *const wanted[] = {"layer.row", "layer.synced", "layer.renamed",
		"layer.fsynced", "layer.kept", "image.before_commit", "image.committed",
		"head.made", "image.linked", "remove.before_commit", "remove.committed",
		"trash.before", "trash.renamed", "trash.deleted", "build.logged",
		"build.before_end", "build.ended"};

	fault_kit_expect(&kit, *state, wanted, ARRAY_SIZE(wanted));
}

static void test_killed_at_every_step(void **state)
{
	fault_kit_everywhere(&kit, *state, "kill");
}

static void test_disk_full_at_every_step(void **state)
{
	fault_kit_everywhere(&kit, *state, "ENOSPC");
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown_folder)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		IN_FOLDER(test_every_step_of_the_protocol_has_a_point),
		IN_FOLDER(test_killed_at_every_step),
		IN_FOLDER(test_disk_full_at_every_step),
	};
	int code = fault_kit_child(&kit, argc, argv);

	if (code >= 0) {
		return code;
	}
	temp_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
