/* Joining and tidying paths, and what lies below what. */
#include "tests/lib/test.h"

#include "base/path.h"

static void test_resolve(void **state)
{
	static const struct {
		const char *folder, *path, *result;
	} cases[] = {
		{"/a/b", "c", "/a/b/c"},
		{"/a/b", "./c/", "/a/b/c"},
		{"/a/b", "../c", "/a/c"},
		{"/a/b", "../../../c", "/c"},
		{"/a/b", "..", "/a"},
		{"/a/b", "../..", "/"},
		{"/a/b", ".", "/a/b"},
		{"/a/b", "", "/a/b"},
		{"/a/b", "/c//d/.//e/", "/c/d/e"},
		{"/a/b", "/", "/"},
		{"/a/b", "//", "/"},
		{"/a/b", "/..", "/"},
		{"/", "x", "/x"},
		{"/a", "...", "/a/..."},
		{"/a", "..b/.c", "/a/..b/.c"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP(free_p) char *found = path_resolve(cases[i].folder, cases[i].path);

		assert_string_equal(found, cases[i].result);
	}
}

static void test_dotdot(void **state)
{
	(void)state;
	assert_true(path_has_dotdot(".."));
	assert_true(path_has_dotdot("/a/.."));
	assert_true(path_has_dotdot("/../a"));
	assert_true(path_has_dotdot("a/../b"));
	assert_false(path_has_dotdot("/a/..b/c.."));
	assert_false(path_has_dotdot("..."));
	assert_false(path_has_dotdot(""));
}

static void test_below(void **state)
{
	(void)state;
	assert_true(path_is_below("/usr", "/usr"));
	assert_true(path_is_below("/usr/lib", "/usr"));
	assert_true(path_is_below("/usr", "/"));
	assert_false(path_is_below("/usrlocal", "/usr"));
	assert_false(path_is_below("/us", "/usr"));
	assert_false(path_is_below("/", "/usr"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resolve),
		cmocka_unit_test(test_dotdot),
		cmocka_unit_test(test_below),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
