/* The watermark's setting, and a file system against it. */
#include "configs/free_space.h"

#include "tests/lib/test.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_setting),
		cmocka_unit_test(test_look),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
