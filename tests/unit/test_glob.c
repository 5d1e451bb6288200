/* Patterns of paths: each form, what a list decides, and what is refused. */
#include "tests/lib/test.h"

#include "base/glob.h"

struct row {
	const char *pattern, *path;
	bool match;
};

static void test_forms(void **state)
{
	static const struct row rows[] = {
		{"package.json", "package.json", true},
		{"package.json", "a/b/package.json", true},
		{"package.json", "package.json/below", true},
		{"package.json", "xpackage.json", false},
		{"/package.json", "package.json", true},
		{"/package.json", "a/package.json", false},
		{"src/main.c", "src/main.c", true},
		{"src/main.c", "a/src/main.c", false},
		{"*.toml", "deep/er/Cargo.toml", true},
		{"*.toml", ".toml", true},
		{"*.toml", "toml", false},
		{"src/*", "src/a", true},
		{"src/*", "src/a/b", true}, /* the folder src/a matches */
		{"src/*.c", "src/a/b.c", false},
		{"src/**", "src/a/b.c", true},
		{"src/**", "src", false},
		{"src/**/x.c", "src/x.c", true},
		{"src/**/x.c", "src/a/b/x.c", true},
		{"src/**/x.c", "src/a/b/xx.c", false},
		{"**/lib", "lib/a", true},
		{"**/lib", "a/b/lib", true},
		{"**", "a", true},
		{"a*b*c", "aXbYbZc", true},
		{"a*b*c", "aXbYbZ", false},
		{"a*", "a/b", true},
		{"a*/c", "ab/c", true},
		{"a*/c", "a/b/c", false},
		{"?.c", "x.c", true},
		{"?.c", "xy.c", false},
		{"a?c", "a/c", false},
		{"[a-c].c", "b.c", true},
		{"[a-c].c", "d.c", false},
		{"[!a-c].c", "d.c", true},
		{"[]x].c", "].c", true},
		{"[\\]].c", "].c", true},
		{"\\*.c", "*.c", true},
		{"\\*.c", "a.c", false},
		{"docs/", "docs/a", true},
		{"docs/", "a/docs/b", true},
		{"docs/", "docs", false},
		{"/docs/", "a/docs/b", false},
		{"a/docs/", "a/docs/b/c", true},
		{"caf\xc3\xa9", "caf\xc3\xa9", true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (glob_match(rows[i].pattern, rows[i].path) != rows[i].match) {
			fail_msg("%s and %s: not %d", rows[i].pattern, rows[i].path, rows[i].match);
		}
	}
}

static void test_lists(void **state)
{
	char src[] = "src/**", not_docs[] = "!*.md", readme[] = "src/README.md";
	char *list[] = {src, not_docs, readme, NULL}, *none[] = {NULL};

	(void)state;
	assert_true(glob_list_match(NULL, "anything"));
	assert_false(glob_list_match(none, "anything"));
	assert_true(glob_list_match(list, "src/a.c"));
	assert_false(glob_list_match(list, "src/a.md"));
	assert_true(glob_list_match(list, "src/README.md"));
	assert_false(glob_list_match(list, "README.md"));
}

static void test_reaches(void **state)
{
	static const struct row rows[] = {
		{"*.c", "lib", true},
		{"lib/", "a/b", true},
		{"lib/**", "lib", true},
		{"lib/**", "other", false},
		{"lib/src/*.c", "lib", true},
		{"lib/src/*.c", "lib/src", true},
		{"lib/src/*.c", "lib/test", false},
		{"lib/src", "lib/src/deep", true},
		{"/l?b/x", "lib", true},
		{"/l?b/x", "lab/y", false},
		{"**/x", "lib", true},
		{"!lib/**", "lib", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP(free_p) char *pattern = xstrdup(rows[i].pattern);
		char *list[] = {pattern, NULL};

		if (glob_list_reaches(list, rows[i].path) != rows[i].match) {
			fail_msg("%s and %s: not %d", pattern, rows[i].path, rows[i].match);
		}
	}
	assert_true(glob_list_reaches(NULL, "anything"));
}

static void test_problems(void **state)
{
	static const char *const bad[] = {
		"", "!", "/", "../x", "a/../b", "./a", "[a", "x[]", "**/a/**/b/**/c/**/d/**"};
	static const char *const good[] = {"*", "!a", "a..b", "..a", "[]]", "**/x", "a/"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_non_null(glob_problem(bad[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_null(glob_problem(good[i]));
	}
}

/* A pattern made to be slow: it ends soon, which is the test. */
static void test_hostile(void **state)
{
	char path[2001], pattern[1001];

	(void)state;
	memset(path, 'a', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	for (size_t i = 0; i + 1 < sizeof(pattern); i++) {
		pattern[i] = i % 2 == 0 ? '*' : 'a';
	}
	pattern[sizeof(pattern) - 1] = '\0';
	assert_true(glob_match(pattern, path));
	pattern[sizeof(pattern) - 2] = 'b';
	assert_false(glob_match(pattern, path));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_reaches),
		cmocka_unit_test(test_problems),
		cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
