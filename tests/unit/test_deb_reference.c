/* Debians by suite and date: what is taken, what is refused, and how a mirror is named. */
#include "tests/lib/test.h"

#include "builder/bases/deb.h"
#include "configs/deb_reference.h"

#include "base/memory.h"

static void test_references(void **state)
{
	static const struct {
		const char *text, *suite, *date;
	} good[] = {{"bookworm@20240601T000000Z", "bookworm", "20240601T000000Z"},
		{"bookworm", "bookworm", ""},
		{"stable-backports@20240229T235959Z", "stable-backports", "20240229T235959Z"},
		{"3.0_x@20000101T000000Z", "3.0_x", "20000101T000000Z"}};
	static const char *const bad[] = {"", "@20240601T000000Z", "book worm", "a/b", "../a", "-a",
		"Bookworm", "a@", "a@20240601", "a@20240601T000000", "a@20240601T000000Zx",
		"a@20240631T000000Z", "a@20230229T000000Z", "a@20240601T240000Z",
		"a@20240601T006000Z", "a@20241301T000000Z", "a@ 0240601T000000Z",
		"a@+0240601T000000Z", "a]@20240601T000000Z", "a@20240601T000000Z@"};
	const char *problem;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct deb_reference reference;

		assert_true(deb_reference_parse(good[i].text, &reference, &problem));
		assert_string_equal(reference.suite, good[i].suite);
		assert_string_equal(reference.date, good[i].date);
		deb_reference_done(&reference);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct deb_reference reference;

		problem = NULL;
		if (deb_reference_parse(bad[i], &reference, &problem)) {
			fail_msg("\"%s\" was taken", bad[i]);
		}
		assert_non_null(problem);
	}
}

static void test_mirrors(void **state)
{
	static const char *const good[] = {DEB_MIRROR_DEFAULT, "https://deb.debian.org/debian",
		"http://127.0.0.1:8080/{date}/debian", "http://a/~b/%20"};
	static const char *const bad[] = {"", "ftp://a", "http://", "http:///x", "http://a b",
		"http://a/{date}/{date}", "http://a/{suite}", "http://u:p@a/", "http://a/\n",
		"http://a/]", "http://a/\"", "file:///x"};
	CLEANUP(free_p)
	char *url = deb_mirror_url("http://a/{date}/b", "20240601T000000Z");
	CLEANUP(free_p) char *plain = deb_mirror_url("http://a/b", "20240601T000000Z");

	(void)state;
	assert_string_equal(url, "http://a/20240601T000000Z/b");
	assert_string_equal(plain, "http://a/b");
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_null(deb_mirror_problem(good[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_non_null(deb_mirror_problem(bad[i]));
	}
	assert_null(deb_components_problem("main contrib non-free-firmware"));
	assert_non_null(deb_components_problem(""));
	assert_non_null(deb_components_problem("main  contrib"));
	assert_non_null(deb_components_problem("main\ndeb"));
}

/* A snapshot is not whole at once; a mirror that keeps none is taken as it is. */
static void test_date_of_now(void **state)
{
	char date[DEB_DATE_SIZE];
	int64_t noon_ms = 0;

	(void)state;
	assert_true(deb_date_parse("20240601T123456Z", &noon_ms));
	assert_true(noon_ms == INT64_C(1717245296000));
	deb_date_now(DEB_MIRROR_DEFAULT, noon_ms, date);
	assert_string_equal(date, "20240601T000000Z");
	deb_date_now(DEB_MIRROR_DEFAULT, noon_ms - INT64_C(12) * 3600 * 1000, date);
	assert_string_equal(date, "20240531T000000Z");
	deb_date_now("http://a/debian", noon_ms, date);
	assert_string_equal(date, "20240601T123456Z");
}

static void test_releases(void **state)
{
	static const char *const nonsense[] = {"", "yesterday", "Sat, 01 Jun 2024 12:00:00",
		"Sat, 01 Jun 2024 12:00:00 +0200", "2024-06-01T12:00:00Z"};
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(deb_check_release("Sat, 01 Jun 2024 12:00:00 UTC\n", "20240601T120000Z", &err),
		&err);
	assert_int_equal(
		deb_check_release("Sat, 01 Jun 2024 12:00:01 UTC\n", "20240601T120000Z", &err),
		-ERROR_CONFLICT);
	assert_contains(err.message, "20240601T120001Z");
	for (size_t i = 0; i < ARRAY_SIZE(nonsense); i++) {
		assert_int_equal(
			deb_check_release(nonsense[i], "20240601T120000Z", &err), -ERROR_CORRUPT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_references),
		cmocka_unit_test(test_mirrors),
		cmocka_unit_test(test_date_of_now),
		cmocka_unit_test(test_releases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
