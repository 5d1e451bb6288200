/* Durations as people write them, and times as they read them. */
#include "tests/lib/test.h"

#include "base/clock.h"

static void test_parse_accepts(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} cases[] = {{"0", 0}, {"1ms", 1}, {"90s", 90000}, {"30m", 1800000}, {"1h30m", 5400000},
		{"1d", 86400000}, {"2d1h1m1s1ms", 176461001}, {"0s", 0}, {"1m1m", 120000},
		{"3650d", INT64_C(315360000000)}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t ms = -1;

		if (!duration_parse(cases[i].text, &ms)) {
			fail_msg("\"%s\" was refused", cases[i].text);
		}
		assert_int_equal(ms, cases[i].ms);
	}
}

static void test_parse_refuses_and_leaves_the_result(void **state)
{
	static const char *const cases[] = {"", "1", "00", "s", "-1s", "+1s", " 1s", "1s ", "1.5h",
		"1 s", "1x", "1S", "1hm", "1h30", "4000d", "99999999999999999999s",
		"18446744073709551617ms", "1sec", "3660d1ms"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t ms = 77;

		if (duration_parse(cases[i], &ms)) {
			fail_msg("\"%s\" was taken", cases[i]);
		}
		assert_int_equal(ms, 77);
	}
}

static void test_format_is_shortest_and_comes_back(void **state)
{
	static const struct {
		int64_t ms;
		const char *text;
	} cases[] = {{0, "0"}, {1, "1ms"}, {1000, "1s"}, {5400000, "1h30m"}, {86400000, "1d"},
		{90061001, "1d1h1m1s1ms"}, {-5, "0"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[CLOCK_TEXT_SIZE];
		int64_t back;

		duration_format(text, cases[i].ms);
		assert_string_equal(text, cases[i].text);
		assert_true(duration_parse(text, &back));
		assert_int_equal(back, cases[i].ms > 0 ? cases[i].ms : 0);
	}
}

static void test_longest_duration_fits(void **state)
{
	char text[CLOCK_TEXT_SIZE];
	int64_t back, longest = INT64_C(3659) * 86400000 + 86399999;

	(void)state;
	duration_format(text, longest);
	assert_true(duration_parse(text, &back));
	assert_int_equal(back, longest);
}

static void test_format_of_times(void **state)
{
	char text[CLOCK_TEXT_SIZE];

	(void)state;
	clock_format(text, 0);
	assert_string_equal(text, "1970-01-01T00:00:00.000Z");
	clock_format(text, INT64_C(1709210096789));
	assert_string_equal(text, "2024-02-29T12:34:56.789Z");
}

static void test_monotonic_moves_forward(void **state)
{
	int64_t before = clock_mono_us(), ms = clock_mono_ms();

	(void)state;
	usleep(2000);
	assert_true(clock_mono_us() >= before + 2000);
	assert_true(clock_mono_ms() >= ms + 1);
	assert_true(clock_real_ms() > INT64_C(1700000000000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_accepts),
		cmocka_unit_test(test_parse_refuses_and_leaves_the_result),
		cmocka_unit_test(test_format_is_shortest_and_comes_back),
		cmocka_unit_test(test_longest_duration_fits),
		cmocka_unit_test(test_format_of_times),
		cmocka_unit_test(test_monotonic_moves_forward),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
