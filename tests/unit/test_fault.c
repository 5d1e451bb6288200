/* Fault points read their variables once a process, so each case is a child of its own. */
#include "tests/lib/test.h"

#include "base/fault.h"

#include <signal.h>
#include <sys/wait.h>

/* Passes the points "a", "b", "a" and exits with 10 * (passes that failed) + (errno is ENOSPC). */
static int passes(const char *variable, const char *list)
{
	static const char *const points[] = {"a", "b", "a"};
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		int failed = 0, sys = 0;

		unsetenv("HOB_FAULT");
		unsetenv("HOB_FAULT_LIST");
		if (variable != NULL) {
			setenv("HOB_FAULT", variable, 1);
		}
		if (list != NULL) {
			setenv("HOB_FAULT_LIST", list, 1);
		}
		for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
			int result = fault_point(points[i]);

			failed += result != 0;
			sys |= result;
		}
		_exit(10 * failed + (sys == ENOSPC));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_quiet_without_variable(void **state)
{
	(void)state;
	assert_int_equal(passes(NULL, NULL), 0);
	assert_int_equal(passes("other", NULL), 0);
}

static void test_kills_by_default(void **state)
{
	(void)state;
	assert_int_equal(passes("a", NULL), -SIGKILL);
	assert_int_equal(passes("a:2", NULL), -SIGKILL);
	assert_int_equal(passes("a:2:kill", NULL), -SIGKILL);
	assert_int_equal(passes("a:3", NULL), 0);
}

static void test_fails_once_at_the_nth_passage(void **state)
{
	(void)state;
	assert_int_equal(passes("a:1:ENOSPC", NULL), 11);
	assert_int_equal(passes("a:2:EIO", NULL), 10);
	assert_int_equal(passes("a:3:EIO", NULL), 0);
}

static void test_list(void **state)
{
	CLEANUP(free_p) char *list = xasprintf("%s/list", (char *)*state);
	CLEANUP(free_p) char *text = NULL;

	assert_int_equal(passes(NULL, list), 0);
	text = temp_read(*state, "list");
	assert_string_equal(text, "a\nb\na\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quiet_without_variable),
		cmocka_unit_test(test_kills_by_default),
		cmocka_unit_test(test_fails_once_at_the_nth_passage),
		cmocka_unit_test_setup_teardown(test_list, setup_folder, teardown_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
