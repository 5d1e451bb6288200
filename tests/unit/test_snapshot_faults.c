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

#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "base/io.h"

#include <fcntl.h>
#include <signal.h>
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

static int work_on(struct store *store, struct error *err)
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

static int work(const char *path)
{
	CLEANUP(store_close_p) struct store *store = NULL;
	struct store_sweep sweep;
	struct error err = ERROR_INIT;
	int status = store_open(path, STORE_WRITE, &store, &err);

	if (status == 0) {
		status = store_recover(store, &sweep, &err);
	}
	if (status == 0) {
		status = work_on(store, &err);
	}
	if (status < 0) {
		fprintf(stderr, "%s\n", err.message);
	}
	return -status;
}

/* ---- the driver ---- */

static int run_child(const struct store *store, const char *fault, const char *list)
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

		if (fault != NULL) {
			dup2(null, STDERR_FILENO);
			setenv("HOB_FAULT", fault, 1);
		}
		if (list != NULL) {
			setenv("HOB_FAULT_LIST", list, 1);
		}
		execl("/proc/self/exe", "test_snapshot_faults", "--work", store_path(store), NULL);
		_exit(126);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
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

static struct store *open_empty(const char *folder)
{
	CLEANUP(free_p) char *path = xasprintf("%s/store", folder);
	struct error err = ERROR_INIT;

	assert_ok(io_remove_tree(AT_FDCWD, path, &err), &err);
	return store_kit_open(folder);
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

/* One run with one fault. False: the point was not passed that often. */
static bool break_once(const char *folder, const char *point, int passage, const char *action)
{
	CLEANUP(free_p) char *fault = xasprintf("%s:%d:%s", point, passage, action);
	CLEANUP(store_close_p) struct store *store = open_empty(folder);
	int status;

	prepare(store);
	status = run_child(store, fault, NULL);
	mend(store);
	assert_kept(store, fault);
	assert_nothing_else(store, fault);
	if (run_child(store, NULL, NULL) != 0) {
		fail_msg("%s: the work does not succeed afterwards", fault);
	}
	assert_kept(store, fault);
	mend(store);
	assert_nothing_else(store, fault);
	return WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
}

static char **list_points(const char *folder)
{
	CLEANUP(store_close_p) struct store *store = open_empty(folder);
	CLEANUP(free_p) char *list = xasprintf("%s/points", folder);
	CLEANUP(free_p) char *text = NULL;
	char **points = xcalloc(1, sizeof(*points));
	char *rest, *line;

	prepare(store);
	assert_int_equal(run_child(store, NULL, list), 0);
	text = temp_read(folder, "points");
	for (rest = text; (line = strsep(&rest, "\n")) != NULL;) {
		bool known = *line == '\0';

		for (size_t i = 0; !known && points[i] != NULL; i++) {
			known = streq(points[i], line);
		}
		if (!known) {
			strv_add(&points, line);
		}
	}
	return points;
}

static void test_every_step_has_a_point(void **state)
{
	static const char *const wanted[] = {"snapshot.begun", "snapshot.before_commit",
		"snapshot.committed", "layer.renamed", "verify.recording", "import.begun",
		"import.checked", "flatten.written", "flatten.before_commit", "flatten.committed",
		"gc.before_commit", "remove.before_commit", "remove.committed", "trash.renamed"};
	CLEANUP(strv_free_p) char **points = list_points(*state);

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		bool found = false;

		for (size_t j = 0; points[j] != NULL; j++) {
			found = found || streq(points[j], wanted[i]);
		}
		if (!found) {
			fail_msg("%s is never passed", wanted[i]);
		}
	}
}

static void break_everywhere(const char *folder, const char *action)
{
	CLEANUP(strv_free_p) char **points = list_points(folder);

	for (size_t i = 0; points[i] != NULL; i++) {
		int passage = 1;

		while (break_once(folder, points[i], passage, action)) {
			passage++;
		}
		if (streq(action, "kill") && passage == 1) {
			fail_msg("%s: the fault did not happen", points[i]);
		}
	}
}

static void test_killed_at_every_step(void **state)
{
	break_everywhere(*state, "kill");
}

static void test_disk_full_at_every_step(void **state)
{
	break_everywhere(*state, "ENOSPC");
}

static void test_disk_failing_at_every_step(void **state)
{
	break_everywhere(*state, "EIO");
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

	if (argc == 3 && streq(argv[1], "--work")) {
		return work(argv[2]);
	}
	if (geteuid() != 0) {
		puts("needs root: skipped");
		return 0;
	}
	/* Hundreds of commits, each synced: on a disk they take minutes, and no power is cut here.
	 */
	if (access("/dev/shm", W_OK) == 0) {
		setenv("TMPDIR", "/dev/shm", 1);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
