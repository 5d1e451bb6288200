/* The child that keeps root: what it does, what it refuses whatever it is told, and its end. */
#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "snapshots/helper.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define OWNER 54321 /* no account of this machine */

static bool exists(const struct store *store, const char *path)
{
	return faccessat(store_fd(store), path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void test_it_removes_in_three_rooms(void **state)
{
	CLEANUP(store_helper_stop_p) struct store_helper *helper = NULL;
	struct error err = ERROR_INIT;

	assert_int_equal(mkdirat(store_fd(*state), "staging/a", 0700), 0);
	assert_int_equal(mkdirat(store_fd(*state), "layers/b", 0700), 0);
	assert_int_equal(mkdirat(store_fd(*state), "sandboxes/c", 0700), 0);
	assert_ok(store_helper_start(store_path(*state), &helper, &err), &err);
	assert_ok(store_helper_remove(helper, "staging", "a", &err), &err);
	assert_ok(store_helper_remove(helper, "layers", "b", &err), &err);
	assert_ok(store_helper_remove(helper, "sandboxes", "c", &err), &err);
	assert_false(exists(*state, "staging/a") || exists(*state, "layers/b") ||
		     exists(*state, "sandboxes/c"));
	assert_ok(store_helper_remove(helper, "staging", "absent", &err), &err);
}

static void test_it_refuses_everything_else(void **state)
{
	static const char *const names[][2] = {{"heads", "x"}, {"", "catalog.db"}, {".", "layers"},
		{"staging", ".."}, {"staging", "."}, {"staging", ""}, {"staging", "../catalog.db"},
		{"staging", "a/b"}, {"staging/..", "layers"}, {"a room of too long a name", "x"}};
	CLEANUP(store_helper_stop_p) struct store_helper *helper = NULL;
	struct tree_usage usage;
	struct error err = ERROR_INIT;

	assert_ok(store_helper_start(store_path(*state), &helper, &err), &err);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_kind(store_helper_remove(helper, names[i][0], names[i][1], &err), &err,
			ERROR_INVALID);
	}
	assert_kind(store_helper_usage(helper, "../layers", &usage, &err), &err, ERROR_INVALID);
	assert_true(exists(*state, "catalog.db") && exists(*state, "layers"));
}

static void test_a_room_that_is_a_link_is_not_followed(void **state)
{
	CLEANUP(store_helper_stop_p) struct store_helper *helper = NULL;
	struct error err = ERROR_INIT;

	assert_int_equal(mkdirat(store_fd(*state), "downloads/kept", 0700), 0);
	assert_int_equal(unlinkat(store_fd(*state), "sandboxes", AT_REMOVEDIR), 0);
	assert_int_equal(symlinkat("downloads", store_fd(*state), "sandboxes"), 0);
	assert_ok(store_helper_start(store_path(*state), &helper, &err), &err);
	assert_true(store_helper_remove(helper, "sandboxes", "kept", &err) < 0);
	assert_true(exists(*state, "downloads/kept"));
}

static void test_it_measures(void **state)
{
	CLEANUP(store_helper_stop_p) struct store_helper *helper = NULL;
	struct staging *staging = NULL;
	struct tree_usage usage = {0};
	struct error err = ERROR_INIT;

	assert_ok(store_helper_start(store_path(*state), &helper, &err), &err);
	assert_ok(staging_new(*state, &staging, &err), &err);
	store_kit_write_tree(staging, "file", "12345");
	assert_ok(store_helper_usage(helper, staging_name(staging), &usage, &err), &err);
	assert_int_equal(usage.files, 2);
	assert_int_equal(usage.bytes, 5);
	assert_kind(store_helper_usage(helper, "absent", &usage, &err), &err, ERROR_NOT_FOUND);
	staging_free(staging);
}

/* The helper must not keep alive what its parent had locked when it was forked. */
static void test_it_holds_no_locks_of_its_parents(void **state)
{
	CLEANUP(store_helper_stop_p) struct store_helper *helper = NULL;
	struct staging *staging = NULL;
	struct store_sweep sweep;
	struct error err = ERROR_INIT;
	char name[64];

	assert_ok(staging_new(*state, &staging, &err), &err);
	snprintf(name, sizeof(name), "staging/%s", staging_name(staging));
	assert_ok(store_helper_start(store_path(*state), &helper, &err), &err);
	/* An answer means that it has closed what it does not need. */
	assert_ok(store_helper_remove(helper, "staging", "absent", &err), &err);
	close(staging_fd(staging));
	assert_ok(store_recover(*state, &sweep, &err), &err);
	assert_int_equal(sweep.staging, 1);
	assert_false(exists(*state, name));
	/* The handle's own descriptor is closed already; a new one takes its number. */
	assert_true(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
	staging_free(staging);
}

/* In a child: becomes the owner and uses the store, then says what went wrong by number. */
static int use_as_owner(const char *path)
{
	struct store_helper *helper = NULL;
	struct store *store = NULL;
	struct error err = ERROR_INIT;
	int64_t image;
	uint64_t freed = 0;

	if (store_become_owner(path, STORE_RIGHTS_NONE, &helper, &err) < 0 || helper == NULL) {
		return 1;
	}
	if (geteuid() != OWNER || getuid() != OWNER || getegid() != OWNER || setuid(0) == 0) {
		return 2;
	}
	if (store_open(path, STORE_WRITE, &store, &err) < 0) {
		return 3;
	}
	store_set_remover(store, store_helper_remove, helper);
	image = store_kit_image(store, "webapp");
	(void)store_kit_image(store, "webapp");
	if (image_remove(store, image, &freed, &err) < 0 || freed == 0) {
		return 4;
	}
	store_close(store);
	store_helper_stop(helper);
	return 0;
}

static void test_root_becomes_the_owner_for_good(void **state)
{
	int status = 0;
	pid_t pid;

	if (geteuid() != 0) {
		skip();
	}
	static const char *const rooms[] = {".", "layers", "staging", "heads", "builds",
		"sandboxes", "catalog.db", "catalog.db-wal", "catalog.db-shm", "ballast"};
	for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
		if (exists(*state, rooms[i])) {
			assert_int_equal(fchownat(store_fd(*state), rooms[i], OWNER, OWNER, 0), 0);
		}
	}
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		_exit(use_as_owner(store_path(*state)));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_it_removes_in_three_rooms),
		IN_STORE(test_it_refuses_everything_else),
		IN_STORE(test_a_room_that_is_a_link_is_not_followed),
		IN_STORE(test_it_measures),
		IN_STORE(test_it_holds_no_locks_of_its_parents),
		IN_STORE(test_root_becomes_the_owner_for_good),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
