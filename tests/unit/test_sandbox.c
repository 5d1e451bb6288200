/* Sandboxes through a real launcher: what is in one, and that nothing of one stays. */
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"

#include <stdio.h>

static void test_create_runs_a_command(void **state)
{
	struct kit_box box;
	CLEANUP(free_p) char *text = NULL;

	box_open(*state, &box, "sb-one", 3);
	text = box_shell(
		&box, "id -u; hostname; pwd; cat /proc/self/mountinfo; ls -la / /dev; ps ax", NULL);
	printf("%s\n", text);
	assert_int_equal(box_close(&box), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_create_runs_a_command, sandbox_kit_setup, sandbox_kit_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
