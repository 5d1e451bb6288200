/* The launcher fails, and is killed, at each step: the caller hears of it, and what is left is
 * found and taken away by the next start. */
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

static const char *const create_points[] = {
	"create.cgroup", "create.cloned", "create.folder", "create.overlay", "create.supplied"};
static const char *const destroy_points[] = {"destroy.trash", "destroy.cgroup"};

static void assert_list(struct sandbox_kit *kit, size_t wanted)
{
	CLEANUP(strv_free_p) char **ids = NULL;
	struct error err = ERROR_INIT;

	assert_ok(sandbox_cgroups_list(&kit->config, &ids, &err), &err);
	assert_int_equal(strv_count(ids), wanted);
}

static void works_again(struct sandbox_kit *kit)
{
	struct kit_box box;

	box_open(kit, &box, "sb-fault", 3);
	free(box_shell(&box, "true", NULL));
	assert_int_equal(box_close(&box), 0);
	assert_list(kit, 0);
}

static void test_a_failed_creation_leaves_nothing(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(create_points); i++) {
		struct sandbox_kit *kit = sandbox_kit_broken(create_points[i], "EIO");
		struct sandbox_spec spec = kit_spec(kit, "sb-fault", 3);
		struct kit_box box;

		assert_int_equal(box_create(kit, &box, &spec), -ERROR_IO);
		assert_false(kit->lost);
		assert_list(kit, 0);
		works_again(kit);
		sandbox_kit_free(kit);
	}
}

static void test_a_killed_creation_is_found_and_removed(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(create_points); i++) {
		struct sandbox_kit *kit = sandbox_kit_broken(create_points[i], "kill");
		struct sandbox_spec spec = kit_spec(kit, "sb-fault", 3);
		struct kit_box box;

		assert_int_equal(box_create(kit, &box, &spec), -ERROR_UNAVAILABLE);
		assert_true(kit->lost);
		sandbox_kit_restart(kit);
		assert_list(kit, 1);
		while (kit_destroy(kit, "sb-fault") == -ERROR_BUSY) {
			continue;
		}
		assert_list(kit, 0);
		works_again(kit);
		sandbox_kit_free(kit);
	}
}

static void test_a_killed_destruction_is_taken_up(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(destroy_points); i++) {
		struct sandbox_kit *kit = sandbox_kit_broken(destroy_points[i], "kill");
		struct kit_box box;

		box_open(kit, &box, "sb-fault", 3);
		box_disconnect(&box);
		assert_int_equal(kit_destroy(kit, "sb-fault"), -ERROR_UNAVAILABLE);
		sandbox_kit_restart(kit);
		assert_list(kit, 1);
		assert_int_equal(box_close(&box), 0);
		works_again(kit);
		sandbox_kit_free(kit);
	}
}

static void test_a_killed_seal_is_done_again(void **state)
{
	struct sandbox_kit *kit = sandbox_kit_broken("seal.probed", "kill");
	CLEANUP(free_p) char *staging = xasprintf("%s/staging/step", kit->config.store);
	struct sandbox_spec spec = kit_spec(kit, "bs-fault", 3);
	struct kit_box box;

	(void)state;
	assert_int_equal(mkdir(staging, 0700), 0);
	spec.kind = SANDBOX_BUILD;
	spec.staging = "step";
	assert_ok(box_create(kit, &box, &spec), &kit->err);
	box_connect(&box);
	free(box_shell(&box, "echo x > /root/f", NULL));
	assert_int_equal(box_close(&box), 0);
	assert_int_equal(kit_seal(kit, "step"), -ERROR_UNAVAILABLE);
	/* Its worker is replaced; the launcher lives. */
	assert_false(kit->lost);
	sandbox_kit_restart(kit);
	assert_ok(kit_seal(kit, "step"), &kit->err);
	sandbox_kit_free(kit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_failed_creation_leaves_nothing),
		cmocka_unit_test(test_a_killed_creation_is_found_and_removed),
		cmocka_unit_test(test_a_killed_destruction_is_taken_up),
		cmocka_unit_test(test_a_killed_seal_is_done_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
