/* The watermark's setting, and a file system against it. */
#include "configs/free_space.h"

#include "tests/lib/test.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_setting(void **state)
{
	static const struct {
		const char *text;
		int64_t bytes, percent;
	} good[] = {{"5%", 0, 5}, {"0%", 0, 0}, {"50%", 0, 50}, {"0", 0, 0},
		{"20GiB", 20LL << 30, 0}, {"4KiB", 4096, 0}};
	static const char *const bad[] = {
		"", "%", "51%", "100%", "-1%", "5 %", "5%%", "many", "1.5%"};
	int64_t bytes = -1, percent = -1;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		if (!free_space_parse(good[i].text, &bytes, &percent)) {
			fail_msg("\"%s\" was refused", good[i].text);
		}
		assert_int_equal(bytes, good[i].bytes);
		assert_int_equal(percent, good[i].percent);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (free_space_parse(bad[i], &bytes, &percent)) {
			fail_msg("\"%s\" was taken", bad[i]);
		}
	}
}

static void test_look(void **state)
{
	struct free_space space = {0};
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(free_space_look("/", "0", &space, &err), &err);
	assert_false(space.low);
	assert_true(space.total > 0 && space.free <= space.total && space.mark == 0);
	assert_ok(free_space_check(&space, &err), &err);
	assert_ok(free_space_look("/", "8000000TiB", &space, &err), &err);
	assert_true(space.low);
	assert_kind(free_space_check(&space, &err), &err, ERROR_NO_SPACE);
	assert_contains(err.message, "less than free_space");
	assert_true(err.hint[0] != '\0');
	assert_ok(free_space_look("/", "50%", &space, &err), &err);
	assert_int_equal(space.mark, space.total / 100 * 50);
	assert_int_equal(space.low, space.free < space.mark);
	assert_kind(free_space_look("/nowhere", "5%", &space, &err), &err, ERROR_NOT_FOUND);
}

/* A gigabyte inside, four megabytes below: four can be written. */
static void test_a_sparse_volume(void **state)
{
	CLEANUP(free_p) char *store = xasprintf("%s/store", (char *)*state);
	CLEANUP(free_p) char *file = xasprintf("%s.xfs", store);
	struct free_space space = {0};
	struct error err = ERROR_INIT;
	int fd, status;

	if (geteuid() != 0) {
		skip();
	}
	assert_int_equal(mount("none", *state, "tmpfs", 0, "size=4m"), 0);
	assert_int_equal(mkdir(store, 0755), 0);
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1 << 30), 0);
	close(fd);
	assert_int_equal(mount("none", store, "tmpfs", 0, "size=1g"), 0);
	status = free_space_look(store, "100MiB", &space, &err);
	assert_int_equal(umount(store), 0);
	assert_int_equal(umount(*state), 0);
	assert_ok(status, &err);
	assert_true(space.low);
	assert_in_range(space.free, 3 << 20, 4 << 20);
	assert_int_equal(space.total, 1 << 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_setting),
		cmocka_unit_test(test_look),
		cmocka_unit_test_setup_teardown(
			test_a_sparse_volume, setup_folder, teardown_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
