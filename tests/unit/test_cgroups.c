/* Where cgroups are, read from the texts of machines that are v2, v1, hybrid, and delegated. */
#include "pool/sandbox/cgroup.h"
#include "tests/lib/test.h"

#define V2 "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define HYBRID                                                                                     \
	"20 1 254:0 / / rw - ext4 /dev/vda rw\n"                                                   \
	"31 25 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n"                  \
	"32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"                 \
	"33 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"              \
	"34 25 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"                        \
	"35 25 0:33 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"                      \
	"36 25 0:34 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"                            \
	"37 25 0:34 /docker/x /elsewhere rw - cgroup cgroup rw,pids\n"
#define V1                                                                                         \
	"33 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"              \
	"34 25 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"                        \
	"35 25 0:33 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"                      \
	"36 25 0:34 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"

static void test_pure_v2_has_one_hierarchy(void **state)
{
	struct cgroups cgroups;
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(cgroups_parse(V2, "0::/user.slice\n", "cpuset cpu io memory pids\n", "hob", false,
			  &cgroups, &err),
		&err);
	assert_int_equal(cgroups.count, 1);
	assert_true(cgroups.hierarchies[0].v2);
	assert_string_equal(cgroups.hierarchies[0].mount, "/sys/fs/cgroup");
	assert_int_equal(cgroups.hierarchies[0].controllers,
		CGROUP_CPU | CGROUP_CPUACCT | CGROUP_MEMORY | CGROUP_PIDS | CGROUP_FREEZER);
	assert_string_equal(cgroups.parent, "hob");
}

static void test_hybrid_limits_by_v1_and_freezes_by_v2(void **state)
{
	struct cgroups cgroups;
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(cgroups_parse(HYBRID, "0::/\n", "hugetlb\n", "a/b", false, &cgroups, &err), &err);
	assert_int_equal(cgroups.count, 4);
	assert_true(cgroups.hierarchies[0].v2);
	assert_int_equal(cgroups.hierarchies[0].controllers, CGROUP_CPUACCT | CGROUP_FREEZER);
	assert_string_equal(cgroups.hierarchies[1].mount, "/sys/fs/cgroup/cpu,cpuacct");
	assert_int_equal(cgroups.hierarchies[1].controllers, CGROUP_CPU);
	assert_int_equal(cgroups.hierarchies[2].controllers, CGROUP_MEMORY);
	assert_int_equal(cgroups.hierarchies[3].controllers, CGROUP_PIDS);
	assert_string_equal(cgroups.parent, "a/b");
}

static void test_v1_freezer_is_the_main_one(void **state)
{
	struct cgroups cgroups;
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(cgroups_parse(V1, "4:memory:/\n", "", "hob", false, &cgroups, &err), &err);
	assert_int_equal(cgroups.count, 4);
	assert_false(cgroups.hierarchies[0].v2);
	assert_int_equal(cgroups.hierarchies[0].controllers, CGROUP_FREEZER);
}

static void test_none_says_what_to_mount(void **state)
{
	struct cgroups cgroups;
	struct error err = ERROR_INIT;

	(void)state;
	assert_kind(cgroups_parse("20 1 254:0 / / rw - ext4 /dev/vda rw\n", "", "", "hob", false,
			    &cgroups, &err),
		&err, ERROR_UNSUPPORTED);
	assert_contains(err.hint, "cgroup2");
}

static void parent_is(const char *own, const char *name, bool delegated, const char *wanted)
{
	struct cgroups cgroups;
	struct error err = ERROR_INIT;

	assert_ok(
		cgroups_parse(V2, own, "cpu memory pids\n", name, delegated, &cgroups, &err), &err);
	assert_string_equal(cgroups.parent, wanted);
}

static void test_auto_lives_below_a_delegated_unit(void **state)
{
	(void)state;
	parent_is("0::/system.slice/hob.service\n", "auto", true,
		"system.slice/hob.service/sandboxes");
	parent_is("0::/system.slice/hob.service/daemon\n", "auto", true,
		"system.slice/hob.service/sandboxes");
	parent_is("0::/user.slice\n", "auto", false, "hob");
	parent_is("0::/\n", "auto", true, "hob");
	parent_is("1:name=systemd:/x\n0::/a.slice\n", "auto", true, "a.slice/sandboxes");
}

static void test_names_stay_below_the_root(void **state)
{
	static const char *const bad[] = {"", "/hob", "../hob", "a/../.."};
	struct cgroups cgroups;
	struct error err = ERROR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_kind(cgroups_parse(V2, "", "", bad[i], false, &cgroups, &err), &err,
			ERROR_INVALID);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pure_v2_has_one_hierarchy),
		cmocka_unit_test(test_hybrid_limits_by_v1_and_freezes_by_v2),
		cmocka_unit_test(test_v1_freezer_is_the_main_one),
		cmocka_unit_test(test_none_says_what_to_mount),
		cmocka_unit_test(test_auto_lives_below_a_delegated_unit),
		cmocka_unit_test(test_names_stay_below_the_root),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
