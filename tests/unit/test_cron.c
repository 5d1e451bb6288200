/* Cron expressions: what they mean, in zones that change their clocks, and what is refused. */
#include "tests/lib/test.h"

#include "configs/cron.h"

#include <stdio.h>
#include <time.h>

/* "2026-03-29 02:30" of a zone as it shows there. */
static void assert_next(const char *text, const char *zone, int64_t after_s, const char *expected)
{
	char problem[CRON_PROBLEM_SIZE] = "", shown[64] = "never";
	struct cron cron;
	int64_t next;

	if (!cron_parse(text, &cron, problem)) {
		fail_msg("%s: %s", text, problem);
	}
	next = cron_next_ms(&cron, zone, after_s * 1000);
	if (next != INT64_MAX) {
		time_t at = next / 1000;
		struct tm utc;

		gmtime_r(&at, &utc);
		strftime(shown, sizeof(shown), "%Y-%m-%d %H:%M", &utc);
	}
	assert_string_equal(shown, expected);
}

#define T_2026_11_21_15_04 INT64_C(1795273451) /* a Saturday, 15:04:11 UTC */

static void test_fields(void **state)
{
	(void)state;
	assert_next("*/30 * * * *", "UTC", T_2026_11_21_15_04, "2026-11-21 15:30");
	assert_next("4 15 * * *", "UTC", T_2026_11_21_15_04, "2026-11-22 15:04");
	assert_next("5 15 * * *", "UTC", T_2026_11_21_15_04, "2026-11-21 15:05");
	assert_next("0 8-18/5 * * mon-fri", "UTC", T_2026_11_21_15_04, "2026-11-23 08:00");
	assert_next("0 0 1 JAN *", "UTC", T_2026_11_21_15_04, "2027-01-01 00:00");
	assert_next("15,45 3 * * 7", "UTC", T_2026_11_21_15_04, "2026-11-22 03:15");
	assert_next("0 0 29 2 *", "UTC", T_2026_11_21_15_04, "2028-02-29 00:00");
	assert_next("@hourly", "UTC", T_2026_11_21_15_04, "2026-11-21 16:00");
	assert_next("@weekly", "UTC", T_2026_11_21_15_04, "2026-11-22 00:00");
	assert_next("10/20 * * * *", "UTC", T_2026_11_21_15_04, "2026-11-21 15:10");
}

/* With both restricted, either is enough. */
static void test_day_or_weekday(void **state)
{
	(void)state;
	assert_next("0 0 25 * tue", "UTC", T_2026_11_21_15_04, "2026-11-24 00:00");
	assert_next("0 0 22 * tue", "UTC", T_2026_11_21_15_04, "2026-11-22 00:00");
	assert_next("0 0 * * tue", "UTC", T_2026_11_21_15_04, "2026-11-24 00:00");
	assert_next("0 0 30 2 tue", "UTC", T_2026_11_21_15_04, "2027-02-02 00:00");
}

static void test_zones(void **state)
{
	(void)state;
	assert_next("0 9 * * *", "Europe/Berlin", T_2026_11_21_15_04, "2026-11-22 08:00");
	assert_next("0 9 * * *", "Asia/Kolkata", T_2026_11_21_15_04, "2026-11-22 03:30");
	/* The process's own zone is as it was. */
	assert_next("0 9 * * *", "UTC", T_2026_11_21_15_04, "2026-11-22 09:00");
}

/* Berlin: 2027-03-28 02:00 becomes 03:00; 2026-10-25 03:00 becomes 02:00. */
static void test_changes_of_clocks(void **state)
{
	const int64_t before_spring = 1806193200; /* 2027-03-28 00:20 UTC, 01:20 there */
	const int64_t before_autumn = 1792884000; /* 2026-10-24 23:20 UTC, 01:20 there */

	(void)state;
	assert_next("30 2 * * *", "Europe/Berlin", before_spring, "2027-03-28 01:30");
	assert_next("30 2 * * *", "Europe/Berlin", before_autumn, "2026-10-25 00:30");
	/* Once: 01:30 UTC is 02:30 there again, and not taken. */
	assert_next("30 2 * * *", "Europe/Berlin", before_autumn + 5400, "2026-10-26 01:30");
	/* Every half hour goes on through both. */
	assert_next("*/30 * * * *", "Europe/Berlin", before_autumn + 4300, "2026-10-25 01:00");
	assert_next("*/30 * * * *", "Europe/Berlin", before_spring + 2400, "2027-03-28 01:30");
}

static void test_refused(void **state)
{
	static const char *const bad[] = {"", "*", "* * * *", "* * * * * *", "60 * * * *",
		"* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *",
		"5-1 * * * *", "a * * * *", ", * * * *", "1, * * * *", "1-2-3 * * * *",
		"* * * foo *", "-1 * * * *", "1/ * * * *", "@never", "0 0 30 2 *", "0 0 31 4,6 *",
		"99999999999 * * * *"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char problem[CRON_PROBLEM_SIZE] = "";
		struct cron cron;

		if (cron_parse(bad[i], &cron, problem)) {
			fail_msg("\"%s\" was taken", bad[i]);
		}
		assert_true(strlen(problem) > 10);
	}
	assert_true(time_zone_is_known("Europe/Berlin"));
	assert_false(time_zone_is_known("Europe/Berlinn"));
	assert_false(time_zone_is_known("../../etc/passwd"));
	assert_false(time_zone_is_known("/etc/passwd"));
	assert_false(time_zone_is_known("Europe"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_day_or_weekday),
		cmocka_unit_test(test_zones),
		cmocka_unit_test(test_changes_of_clocks),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
