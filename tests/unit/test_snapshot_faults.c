/*
 * Snapshots broken at every step: a child takes one, verifies, exports, removes, imports, flattens
 * and collects, and dies, or is told that the disk is full or fails, at one fault point after the
 * other, at every passage of it. After each, the sweep and a collection must leave what was kept
 * whole and verified, nothing unreachable on disk, and the same work must succeed. Needs root.
 */
#include "snapshots/archive/archive.h"
#include "snapshots/tree/flatten.h"
#include "snapshots/gc.h"
#include "snapshots/store_private.h"
#include "snapshots/verify.h"

#include "tests/lib/fault_kit.h"
#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* ---- the work, in a child that is this program again ---- */

static int take(struct store *store, struct snapshot *snapshot, struct error *err)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	CLEANUP(snapshot_done) struct snapshot parent = {0};
	struct layer own = {.kind = "session", .title = "changes", .id_count = 65536};
	struct layer list[SNAPSHOT_LAYERS_MAX] = {0};
	int status = snapshot_find(store, "kept", &parent, err);

	if (status == 0) {
		status = staging_new(store, &staging, err);
	}
	if (status == 0) {
		status = snapshot_begin(store, "sb-1", staging, err);
	}
	if (status < 0) {
		return status;
	}
	store_kit_write_tree(staging, "file", "changed");
	status = layer_seal(store, staging, &own, err);
	for (size_t i = 0; i < parent.layer_count; i++) {
		list[i].id = parent.layers[i].id;
	}
	list[parent.layer_count].id = own.id;
	*snapshot = (struct snapshot){.environment = "webapp",
		.parent_id = parent.id,
		.sandbox = "sb-1",
		.layers = list,
		.layer_count = parent.layer_count + 1,
		.own_count = 1};
	status = status < 0 ? status : snapshot_commit(store, snapshot, err);
	snapshot->layers = NULL;
	return status;
}

static void ignore_damage(
	void *context, const struct layer *layer, const char *path, const char *what)
{
	(void)context;
	(void)layer;
	(void)path;
	(void)what;
}

static int carry_over(struct store *store, int64_t id, struct error *err)
{
	CLEANUP(import_source_close) struct import_source source = IMPORT_SOURCE_INIT;
	CLEANUP(close_p) int archive = memfd_create("archive", MFD_CLOEXEC);
	CLEANUP(free_p) char *name = xasprintf("%lld", (long long)id);
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	CLEANUP(snapshot_done) struct snapshot imported = {0};
	uint64_t freed;
	int status = snapshot_find(store, name, &snapshot, err);

	if (status == 0) {
		status = snapshot_export(store, &snapshot, false, archive, &freed, err);
	}
	if (status == 0) {
		status = snapshot_remove(store, id, &freed, err);
	}
	if (status == 0) {
		lseek(archive, 0, SEEK_SET);
		status = import_source_open(archive, &source, err);
	}
	return status < 0 ? status : snapshot_import(store, &source, 100000, &imported, err);
}

static int work(struct store *store, struct error *err)
{
	const struct verify_events events = {ignore_damage, NULL, NULL};
	const struct gc_policy policy = {.keep_last = 2};
	CLEANUP(gc_plan_done) struct gc_plan plan = {0};
	struct snapshot first = {0}, second = {0};
	struct flatten_result flat;
	struct gc_result collected;
	enum verify_outcome outcome;
	struct layer base;
	int status = take(store, &first, err);

	free(first.manifest);
	status = status < 0 ? status : layer_get(store, 1, &base, err);
	status = status < 0 ? status : layer_verify(store, &base, false, &events, &outcome, err);
	status = status < 0 ? status : carry_over(store, first.id, err);
	status = status < 0 ? status : take(store, &second, err);
	free(second.manifest);
	status = status < 0 ? status : snapshot_flatten(store, second.id, &flat, err);
	status = status < 0 ? status : gc_plan_make(store, &policy, 1, &plan, err);
	return status < 0 ? status : gc_plan_run(store, &plan, &collected, err);
}

/* img-1 of one layer; snap-1 "kept", pinned, with two of its own; two more that are due to go. */
static void prepare(struct store *store)
{
	const struct verify_events events = {ignore_damage, NULL, NULL};
	enum verify_outcome outcome;
	struct error err = ERROR_INIT;
	struct layer list[3];
	struct snapshot snapshot = {
		.environment = "webapp", .layers = list, .layer_count = 3, .own_count = 2};

	snapshot.image_id = store_kit_image(store, "webapp");
	assert_ok(layer_get(store, 1, &list[0], &err), &err);
	for (int i = 0; i < 3; i++) {
		list[1] = store_kit_seal(store, "", 100);
		list[2] = store_kit_seal(store, "", 200);
		snapshot.manifest = NULL;
		snapshot.commit[0] = '\0';
		assert_ok(snapshot_commit(store, &snapshot, &err), &err);
		free(snapshot.manifest);
	}
	assert_ok(snapshot_tag(store, 1, "kept", false, &err), &err);
	assert_ok(snapshot_pin(store, 1, true, &err), &err);
	for (int64_t id = 2; id <= 3; id++) {
		assert_ok(layer_get(store, id, &list[0], &err), &err);
		assert_ok(layer_verify(store, &list[0], false, &events, &outcome, &err), &err);
		assert_int_equal(outcome, VERIFY_RECORDED);
	}
}

static void assert_kept(struct store *store, const char *fault)
{
	const struct verify_events events = {ignore_damage, NULL, NULL};
	CLEANUP(snapshot_done) struct snapshot kept = {0};
	enum verify_outcome outcome;
	struct error err = ERROR_INIT;

	assert_ok(snapshot_find(store, "kept", &kept, &err), &err);
	assert_int_equal(kept.layer_count, 3);
	for (size_t i = 1; i < kept.layer_count; i++) {
		assert_ok(
			layer_verify(store, &kept.layers[i], false, &events, &outcome, &err), &err);
		if (outcome != VERIFY_SOUND) {
			fail_msg("%s: layer %lld is not what it was", fault,
				(long long)kept.layers[i].id);
		}
	}
}

/* Every list is whole; each layer on disk is in one; nothing else is there. */
static void assert_nothing_else(struct store *store, const char *fault)
{
	struct snapshot *snapshots = NULL;
	struct error err = ERROR_INIT;
	bool seen[256] = {false};
	size_t count = 0, layers = 1; /* the image's */

	seen[1] = true;
	assert_ok(snapshot_list(store, &SNAPSHOT_FILTER_ALL, &snapshots, &count, &err), &err);
	for (size_t i = 0; i < count; i++) {
		CLEANUP(free_p) char *name = xasprintf("%lld", (long long)snapshots[i].id);
		CLEANUP(snapshot_done) struct snapshot one = {0};

		assert_ok(snapshot_find(store, name, &one, &err), &err);
		for (size_t j = 0; j < one.layer_count; j++) {
			CLEANUP(free_p)
			char *path =
				xasprintf("layers/%lld/tree/file", (long long)one.layers[j].id);

			if (faccessat(store_fd(store), path, R_OK, 0) < 0) {
				fail_msg("%s: %s is lost", fault, path);
			}
			layers += !seen[one.layers[j].id];
			seen[one.layers[j].id] = true;
		}
	}
	snapshots_free(snapshots, count);
	if (store_kit_count(store, "layers") != layers || store_kit_count(store, "staging") != 0) {
		fail_msg("%s: %zu layers on disk for %zu listed, %zu in staging", fault,
			store_kit_count(store, "layers"), layers,
			store_kit_count(store, "staging"));
	}
}

static void mend(struct store *store)
{
	CLEANUP(gc_plan_done) struct gc_plan plan = {0};
	struct gc_result collected;
	struct store_sweep sweep;
	struct error err = ERROR_INIT;

	assert_ok(store_recover(store, &sweep, &err), &err);
	assert_int_equal(sweep.missing + sweep.stuck, 0);
	assert_ok(gc_plan_make(store, NULL, 0, &plan, &err), &err);
	assert_ok(gc_plan_run(store, &plan, &collected, &err), &err);
	assert_int_equal(collected.passed_over, 0);
}

static bool break_once(struct store *store, const char *fault, int passage)
{
	int status = fault_kit_run(store, fault);

	(void)passage;
	mend(store);
	assert_kept(store, fault);
	assert_nothing_else(store, fault);
	if (fault_kit_run(store, NULL) != 0) {
		fail_msg("%s: the work does not succeed afterwards", fault);
	}
	assert_kept(store, fault);
	mend(store);
	assert_nothing_else(store, fault);
	return WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
}

static const struct fault_kit kit = {work, prepare, break_once};

static void test_every_step_has_a_point(void **state)
{
	static const char *const wanted[] = {"snapshot.begun", "snapshot.before_commit",
		"snapshot.committed", "layer.renamed", "verify.recording", "import.begun",
		"import.checked", "flatten.written", "flatten.before_commit", "flatten.committed",
		"gc.before_commit", "remove.before_commit", "remove.committed", "trash.renamed"};

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

static void test_disk_failing_at_every_step(void **state)
{
	fault_kit_everywhere(&kit, *state, "EIO");
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown_folder)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		IN_FOLDER(test_every_step_has_a_point),
		IN_FOLDER(test_killed_at_every_step),
		IN_FOLDER(test_disk_full_at_every_step),
		IN_FOLDER(test_disk_failing_at_every_step),
	};
	int code = fault_kit_child(&kit, argc, argv);

	if (code >= 0) {
		return code;
	}
	if (geteuid() != 0) {
		puts("needs root: skipped");
		return 0;
	}
	temp_in_memory();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
