/* A live copy fails at each step: what stood still runs again, and another try succeeds. */
#include "tests/lib/live_kit.h"
#include "tests/lib/test.h"
#include "tests/lib/tree_compare.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define FIRST_FROZEN 2
#define MANY 20100 /* so many that it is found out beforehand */

static const char *const points[] = {
	"live.synced", "live.pass", "live.frozen", "live.copied", "live.thawed"};

static void files_make(const char *upper)
{
	for (int i = 0; i < 50; i++) {
		CLEANUP(free_p) char *name = xasprintf("file-%d", i);

		temp_write(upper, name, "text");
	}
}

static void test_a_failure_at_each_step_thaws(void **state)
{
	struct live_kit *kit = *state;
	CLEANUP(free_p) char *upper = NULL;
	CLEANUP(free_p) char *tree = NULL;

	if (kit == NULL) {
		skip();
	}
	upper = live_kit_path(kit, "upper");
	tree = live_kit_path(kit, "tree");
	files_make(upper);
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		CLEANUP(free_p) char *fault = xasprintf("%s:1:EIO", points[i]);
		int status = 0;
		pid_t pid = fork();

		/* The variable is read once in a process. */
		if (pid == 0) {
			(void)setenv("HOB_FAULT", fault, 1);
			status = live_kit_copy(kit);
			_exit(status == -ERROR_IO && kit->thaws == (i >= FIRST_FROZEN) ? 0 : 1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	assert_ok(live_kit_copy(kit), &kit->err);
	assert_same_trees(upper, tree);
}

static void test_one_that_is_not_wanted_ends(void **state)
{
	struct live_kit *kit = *state;
	CLEANUP(free_p) char *upper = NULL;

	if (kit == NULL) {
		skip();
	}
	upper = live_kit_path(kit, "upper");
	files_make(upper);
	kit->cancel_after = 1;
	assert_kind(live_kit_copy(kit), &kit->err, ERROR_CANCELLED);
	assert_int_equal(kit->thaws, 0);
}

/* A microsecond is less than either takes. */
static void test_one_that_takes_too_long_thaws(void **state)
{
	struct live_kit *kit = *state;
	CLEANUP(free_p) char *upper = NULL;
	CLEANUP(free_p) char *tree = NULL;

	if (kit == NULL) {
		skip();
	}
	upper = live_kit_path(kit, "upper");
	tree = live_kit_path(kit, "tree");
	files_make(upper);
	kit->max_pause_us = 1;
	assert_kind(live_kit_copy(kit), &kit->err, ERROR_LIMIT);
	assert_int_equal(kit->thaws, 1);
	kit->max_pause_us = 0;
	assert_ok(live_kit_copy(kit), &kit->err);
	assert_same_trees(upper, tree);
}

static void test_one_that_would_take_too_long_is_refused(void **state)
{
	struct live_kit *kit = *state;
	CLEANUP(free_p) char *upper = NULL;
	CLEANUP(close_p) int folder = -1;

	if (kit == NULL) {
		skip();
	}
	upper = live_kit_path(kit, "upper");
	folder = open(upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < MANY; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		assert_int_equal(symlinkat("x", folder, name), 0);
	}
	kit->max_pause_us = 1;
	assert_kind(live_kit_copy(kit), &kit->err, ERROR_LIMIT);
	assert_int_equal(kit->thaws, 0);
	kit->max_pause_us = 0;
	assert_ok(live_kit_copy(kit), &kit->err);
	assert_true(kit->report.expected_us > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_a_failure_at_each_step_thaws, live_kit_setup_ext4, live_kit_teardown),
		cmocka_unit_test_setup_teardown(
			test_one_that_is_not_wanted_ends, live_kit_setup_ext4, live_kit_teardown),
		cmocka_unit_test_setup_teardown(
			test_one_that_takes_too_long_thaws, live_kit_setup_ext4, live_kit_teardown),
		{"test_one_that_would_take_too_long_is_refused",
			test_one_that_would_take_too_long_is_refused, live_kit_setup_xfs,
			live_kit_teardown, NULL},
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
