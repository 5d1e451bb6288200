/* The folder of a store, its staging, layers and builds. */
#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/io.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void test_folders_are_private(void **state)
{
	static const char *const rooms[] = {
		".", "layers", "staging", "mirrors", "downloads", "sandboxes", "heads", "builds"};
	struct stat status;

	for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
		assert_int_equal(fstatat(store_fd(*state), rooms[i], &status, 0), 0);
		assert_int_equal(status.st_mode & 0777, 0700);
	}
	assert_int_equal(fstatat(store_fd(*state), "catalog.db", &status, 0), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
}

static void test_a_missing_store_is_not_made_by_readers(void **state)
{
	CLEANUP(free_p) char *path = xasprintf("%s/none", store_path(*state));
	struct store *store = NULL;
	struct error err = ERROR_INIT;

	assert_kind(store_open(path, STORE_READ, &store, &err), &err, ERROR_NOT_FOUND);
	assert_kind(store_open(path, STORE_WRITE, &store, &err), &err, ERROR_NOT_FOUND);
	assert_null(store);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_readers_cannot_write(void **state)
{
	CLEANUP(store_close_p) struct store *store = NULL;
	struct error err = ERROR_INIT;
	struct build build;
	int log = -1;

	assert_ok(store_open(store_path(*state), STORE_READ, &store, &err), &err);
	assert_true(build_begin(store, "webapp", &build, &log, &err) < 0);
	assert_int_equal(log, -1);
}

static void test_staging_goes_with_its_handle(void **state)
{
	struct staging *staging = NULL;
	struct error err = ERROR_INIT;

	assert_ok(staging_new(*state, &staging, &err), &err);
	store_kit_write_tree(staging, "file", "text");
	assert_int_equal(store_kit_count(*state, "staging"), 1);
	staging_free(staging);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
}

static void test_seal_describes_and_moves(void **state)
{
	struct layer layer = store_kit_seal(*state, "", 10000);
	struct layer found;
	struct error err = ERROR_INIT;
	char path[64];

	assert_true(layer.id > 0);
	assert_int_equal(layer.files, 2);
	assert_int_equal(layer.bytes, 10000);
	assert_true(layer.stored >= 10000);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
	snprintf(path, sizeof(path), "layers/%lld/tree/file", (long long)layer.id);
	assert_int_equal(faccessat(store_fd(*state), path, F_OK, 0), 0);
	assert_ok(layer_get(*state, layer.id, &found, &err), &err);
	assert_string_equal(found.title, "step kit");
	assert_string_equal(found.kind, "step");
	assert_int_equal(found.id_base, 1000);
	assert_int_equal(found.id_count, 1);
	assert_int_equal(found.bytes, 10000);
	assert_kind(layer_get(*state, 99, &found, &err), &err, ERROR_NOT_FOUND);
}

static void test_seal_takes_a_tree_and_nothing_else(void **state)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct layer layer = {.kind = "step", .title = "t"};
	struct error err = ERROR_INIT;

	assert_ok(staging_new(*state, &staging, &err), &err);
	assert_kind(layer_seal(*state, staging, &layer, &err), &err, ERROR_INVALID);
	assert_int_equal(symlinkat("/etc", staging_fd(staging), "tree"), 0);
	assert_kind(layer_seal(*state, staging, &layer, &err), &err, ERROR_INVALID);
	assert_int_equal(unlinkat(staging_fd(staging), "tree", 0), 0);
	store_kit_write_tree(staging, "file", "text");
	assert_int_equal(mkdirat(staging_fd(staging), "work", 0700), 0);
	assert_kind(layer_seal(*state, staging, &layer, &err), &err, ERROR_INVALID);
	assert_contains(err.message, "work");
	assert_int_equal(store_kit_count(*state, "layers"), 0);
	assert_int_equal(unlinkat(staging_fd(staging), "work", AT_REMOVEDIR), 0);
	assert_ok(layer_seal(*state, staging, &layer, &err), &err);
	assert_kind(layer_seal(*state, staging, &layer, &err), &err, ERROR_CONFLICT);
}

/* A seal that fails half way leaves neither a record nor a folder, and the number is not reused. */
static void test_a_failed_seal_takes_everything_back(void **state)
{
	struct staging *staging = NULL;
	struct layer layer = {.kind = "step", .title = "t"}, found;
	struct store_sweep sweep;
	static const struct store_sweep nothing = {0};
	struct error err = ERROR_INIT;

	assert_int_equal(mkdirat(store_fd(*state), "layers/1", 0700), 0);
	assert_ok(staging_new(*state, &staging, &err), &err);
	store_kit_write_tree(staging, "file", "text");
	assert_kind(layer_seal(*state, staging, &layer, &err), &err, ERROR_CORRUPT);
	assert_contains(err.message, "layers/1");
	assert_int_equal(layer.id, 0);
	assert_kind(layer_get(*state, 1, &found, &err), &err, ERROR_NOT_FOUND);
	assert_int_equal(unlinkat(store_fd(*state), "layers/1", AT_REMOVEDIR), 0);
	assert_ok(layer_seal(*state, staging, &layer, &err), &err);
	assert_int_equal(layer.id, 2);
	staging_free(staging);
	assert_ok(layers_discard(*state, &err), &err);
	assert_ok(store_recover(*state, &sweep, &err), &err);
	assert_memory_equal(&sweep, &nothing, sizeof(sweep));
}

static void test_keys_find_what_was_kept(void **state)
{
	struct layer layer = store_kit_seal(*state, "key-1", 10), found;
	struct error err = ERROR_INIT;

	assert_kind(layer_find(*state, "key-1", &found, &err), &err, ERROR_NOT_FOUND);
	assert_ok(layer_keep(*state, layer.id, &err), &err);
	assert_ok(layer_find(*state, "key-1", &found, &err), &err);
	assert_int_equal(found.id, layer.id);
	assert_kind(layer_find(*state, "", &found, &err), &err, ERROR_NOT_FOUND);
	assert_kind(layer_keep(*state, layer.id, &err), &err, ERROR_CONFLICT);
	assert_ok(layers_discard(*state, &err), &err);
	assert_ok(layer_get(*state, layer.id, &found, &err), &err);
}

static void test_discard_takes_what_was_not_kept(void **state)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct layer kept = store_kit_seal(*state, "key-1", 10), found;
	struct layer held = {.kind = "step", .title = "its staging handle still lives"};
	struct error err = ERROR_INIT;

	assert_ok(layer_keep(*state, kept.id, &err), &err);
	(void)store_kit_seal(*state, "key-2", 10);
	assert_ok(staging_new(*state, &staging, &err), &err);
	store_kit_write_tree(staging, "file", "text");
	assert_ok(layer_seal(*state, staging, &held, &err), &err);
	assert_int_equal(store_kit_count(*state, "layers"), 3);
	assert_ok(layers_discard(*state, &err), &err);
	assert_int_equal(store_kit_count(*state, "layers"), 1);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
	assert_ok(layer_get(*state, kept.id, &found, &err), &err);
	assert_kind(layer_get(*state, held.id, &found, &err), &err, ERROR_NOT_FOUND);
}

struct hook_calls {
	int removed, measured;
	char room[16], name[ID_SIZE];
};

static int count_removal(void *context, const char *room, const char *name, struct error *err)
{
	struct hook_calls *calls = context;

	calls->removed++;
	snprintf(calls->room, sizeof(calls->room), "%s", room);
	snprintf(calls->name, sizeof(calls->name), "%s", name);
	return error_set(err, ERROR_DENIED, "the remover refuses");
}

static int count_usage(
	void *context, const char *name, struct tree_usage *ret_usage, struct error *err)
{
	struct hook_calls *calls = context;

	(void)err;
	calls->measured++;
	snprintf(calls->name, sizeof(calls->name), "%s", name);
	*ret_usage = (struct tree_usage){.files = 7, .bytes = 70, .stored = 700};
	return 0;
}

static void test_hooks_do_what_hob_may_not(void **state)
{
	struct staging *staging = NULL;
	struct hook_calls calls = {0};
	struct layer layer = {.kind = "step", .title = "t"};
	struct error err = ERROR_INIT;

	store_set_remover(*state, count_removal, &calls);
	store_set_usage(*state, count_usage, &calls);
	assert_ok(staging_new(*state, &staging, &err), &err);
	store_kit_write_tree(staging, "file", "text");
	assert_ok(layer_seal(*state, staging, &layer, &err), &err);
	assert_int_equal(calls.measured, 1);
	assert_string_equal(calls.name, staging_name(staging));
	assert_int_equal(layer.stored, 700);
	staging_free(staging);
	assert_int_equal(calls.removed, 0);
	assert_kind(layers_discard(*state, &err), &err, ERROR_DENIED);
	assert_int_equal(calls.removed, 1);
	assert_string_equal(calls.room, "staging");
	assert_true(str_starts(calls.name, "trash-"));
	store_set_remover(*state, NULL, NULL);
}

static void test_builds_are_recorded_with_their_log(void **state)
{
	struct build build, found, *list = NULL;
	struct error err = ERROR_INIT;
	int64_t started = 0;
	int log = -1, reader = -1;
	char name[32], text[8] = "";
	size_t count = 0;

	assert_ok(build_last_started(*state, "webapp", &started, &err), &err);
	assert_int_equal(started, 0);
	assert_ok(build_begin(*state, "webapp", &build, &log, &err), &err);
	assert_ok(io_write_full(log, "hello\n", 6, &err), &err);
	close(log);
	assert_ok(build_log_open(*state, build.id, &reader, &err), &err);
	assert_int_equal(read(reader, text, sizeof(text)), 6);
	close(reader);
	assert_string_equal(text, "hello\n");
	snprintf(name, sizeof(name), "bld-%lld", (long long)build.id);
	assert_ok(build_get(*state, name, &found, &err), &err);
	assert_int_equal(found.state, BUILD_RUNNING);
	assert_int_equal(found.pid, getpid());
	build_done(&found);
	snprintf(build.commit, sizeof(build.commit), "abc");
	assert_ok(build_end(*state, &build, BUILD_FAILED, "step deps failed", &err), &err);
	assert_kind(build_end(*state, &build, BUILD_FAILED, NULL, &err), &err, ERROR_CONFLICT);
	build_done(&build);
	assert_ok(build_list(*state, "webapp", 10, &list, &count, &err), &err);
	assert_int_equal(count, 1);
	assert_int_equal(list[0].state, BUILD_FAILED);
	assert_string_equal(list[0].message, "step deps failed");
	assert_string_equal(list[0].commit, "abc");
	assert_true(list[0].ended_ms >= list[0].started_ms);
	assert_ok(build_last_started(*state, "webapp", &started, &err), &err);
	assert_int_equal(started, list[0].started_ms);
	build_done(&list[0]);
	free(list);
	assert_kind(build_get(*state, "bld-77", &found, &err), &err, ERROR_NOT_FOUND);
	assert_kind(build_get(*state, "nonsense", &found, &err), &err, ERROR_NOT_FOUND);
	assert_kind(build_begin(*state, "../x", &build, &log, &err), &err, ERROR_INVALID);
}

static void test_a_failed_build_leaves_no_layers(void **state)
{
	struct build build;
	struct error err = ERROR_INIT;
	int log = -1;

	assert_ok(build_begin(*state, "webapp", &build, &log, &err), &err);
	close(log);
	(void)store_kit_seal(*state, "", 10);
	assert_int_equal(store_kit_count(*state, "layers"), 1);
	assert_ok(build_end(*state, &build, BUILD_FAILED, "no", &err), &err);
	build_done(&build);
	assert_int_equal(store_kit_count(*state, "layers"), 0);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
}

static void test_builds_prune_keeps_the_newest(void **state)
{
	struct build *list = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;

	for (int i = 0; i < 12; i++) {
		struct build build;
		int log = -1;

		assert_ok(
			build_begin(*state, i % 2 == 0 ? "even" : "odd", &build, &log, &err), &err);
		close(log);
		assert_ok(build_end(*state, &build, BUILD_UNCHANGED, NULL, &err), &err);
		build_done(&build);
	}
	assert_ok(builds_prune(*state, "even", 2, &err), &err);
	assert_ok(build_list(*state, NULL, 100, &list, &count, &err), &err);
	assert_int_equal(count, 8);
	assert_int_equal(list[1].id, 11);
	assert_int_equal(list[3].id, 9);
	assert_int_equal(store_kit_count(*state, "builds"), 8);
	for (size_t i = 0; i < count; i++) {
		build_done(&list[i]);
	}
	free(list);
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_folders_are_private),
		IN_STORE(test_a_missing_store_is_not_made_by_readers),
		IN_STORE(test_readers_cannot_write),
		IN_STORE(test_staging_goes_with_its_handle),
		IN_STORE(test_seal_describes_and_moves),
		IN_STORE(test_seal_takes_a_tree_and_nothing_else),
		IN_STORE(test_a_failed_seal_takes_everything_back),
		IN_STORE(test_keys_find_what_was_kept),
		IN_STORE(test_discard_takes_what_was_not_kept),
		IN_STORE(test_hooks_do_what_hob_may_not),
		IN_STORE(test_builds_are_recorded_with_their_log),
		IN_STORE(test_a_failed_build_leaves_no_layers),
		IN_STORE(test_builds_prune_keeps_the_newest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
