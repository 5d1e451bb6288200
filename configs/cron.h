/*
 * Cron expressions: "minute hour day month weekday" as crontab(5) has them, with names, lists,
 * ranges, steps and @hourly, @daily, @weekly, @monthly, @yearly; a weekday of 0 or 7 is Sunday, and
 * day and weekday are alternatives when both are restricted. Times are those of a time zone.
 */
#ifndef HOB_CONFIGS_CRON_H
#define HOB_CONFIGS_CRON_H

#include <stdbool.h>
#include <stdint.h>

#define CRON_PROBLEM_SIZE 160

struct cron {
	uint64_t minutes; /* bit n: it may be n */
	uint32_t hours, days, months, weekdays;
	bool every_hour, every_day, every_weekday; /* written as * */
};

/* False: `problem` says what is wrong with which field. A date that never comes is refused. */
bool cron_parse(const char *text, struct cron *ret_cron, char problem[CRON_PROBLEM_SIZE]);

/*
 * The first time after `after_ms` (real ms) that fits, in `zone` (a name such as Europe/Berlin;
 * NULL: this machine's). With a fixed hour, a time that a change of clocks skips comes that much
 * later, and one that it repeats comes once; with "*" as hour the clock's minutes are taken as
 * they come. INT64_MAX: never.
 */
int64_t cron_next_ms(const struct cron *cron, const char *zone, int64_t after_ms);

/* Does this machine know the zone? */
bool time_zone_is_known(const char *zone);

#endif
