/*
 * Fields are sets of bits. The search goes by days of the zone's calendar, then by minutes of the
 * first day that fits, so that it ends soon however rare the date is. The C library knows the
 * zones: TZ is set for the moment of the question, which is why this is for one thread.
 */
#include "configs/cron.h"

#include "base/memory.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

#define ZONE_FOLDER "/usr/share/zoneinfo/"
/* 29 February may be eight years away. */
#define DAYS_AHEAD_MAX (8 * 366 + 1)

static const char *const month_names[] = {
	"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"};
static const char *const weekday_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

struct field {
	const char *name;
	int lowest, highest;
	const char *const *words; /* the first stands for `lowest` */
	size_t word_count;
};

static const struct field fields[] = {
	{"minute", 0, 59, NULL, 0},
	{"hour", 0, 23, NULL, 0},
	{"day of month", 1, 31, NULL, 0},
	{"month", 1, 12, month_names, ARRAY_SIZE(month_names)},
	{"weekday", 0, 7, weekday_names, ARRAY_SIZE(weekday_names)},
};

static bool refuse(char *problem, const struct field *field, const char *text)
{
	snprintf(problem, CRON_PROBLEM_SIZE, "\"%.40s\" is no %s: %d to %d%s", text, field->name,
		field->lowest, field->highest,
		field->words != NULL ? " or its three letters, with - , and /"
				     : ", with - , and /");
	return false;
}

/* A number or name at *at, which moves behind it. */
static bool parse_value(const char **at, const struct field *field, int *ret_value)
{
	int value = 0, digits = 0;

	for (size_t i = 0; i < field->word_count; i++) {
		if (strncasecmp(*at, field->words[i], 3) == 0) {
			*at += 3;
			*ret_value = field->lowest + (int)i;
			return true;
		}
	}
	for (; isdigit((unsigned char)**at) && digits < 3; (*at)++, digits++) {
		value = value * 10 + (**at - '0');
	}
	*ret_value = value;
	return digits > 0;
}

/* One part of a list: *, N, N-M, each with /STEP. */
static bool parse_part(const char *text, const struct field *field, uint64_t *bits)
{
	int from = field->lowest, to = field->highest, step = 1;
	const char *at = text;

	if (*at == '*') {
		at++;
	} else {
		if (!parse_value(&at, field, &from)) {
			return false;
		}
		to = from;
		if (*at == '-') {
			at++;
			if (!parse_value(&at, field, &to)) {
				return false;
			}
		} else if (*at == '/') {
			to = field->highest;
		}
	}
	if (*at == '/') {
		const struct field steps = {"step", 1, 99, NULL, 0};

		at++;
		if (!parse_value(&at, &steps, &step)) {
			return false;
		}
	}
	if (*at != '\0' || from < field->lowest || to > field->highest || from > to || step < 1) {
		return false;
	}
	for (int value = from; value <= to; value += step) {
		*bits |= UINT64_C(1) << value;
	}
	return true;
}

static bool parse_field(char *text, const struct field *field, uint64_t *ret_bits, char *problem)
{
	uint64_t bits = 0;
	char *state = NULL;

	if (text[0] == ',' || text[strlen(text) - 1] == ',') {
		return refuse(problem, field, text);
	}
	for (char *part = strtok_r(text, ",", &state); part != NULL;
		part = strtok_r(NULL, ",", &state)) {
		if (!parse_part(part, field, &bits)) {
			return refuse(problem, field, part);
		}
	}
	*ret_bits = bits;
	return true;
}

static const char *expand(const char *text)
{
	static const char *const short_forms[][2] = {{"@hourly", "0 * * * *"},
		{"@daily", "0 0 * * *"}, {"@midnight", "0 0 * * *"}, {"@weekly", "0 0 * * 0"},
		{"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}};

	for (size_t i = 0; i < ARRAY_SIZE(short_forms); i++) {
		if (strcasecmp(text, short_forms[i][0]) == 0) {
			return short_forms[i][1];
		}
	}
	return text;
}

/* 30 February and its like: no day of the set is in any month of the set. */
static bool comes_ever(const struct cron *cron)
{
	static const int lengths[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	if (!cron->every_weekday) {
		return true; /* as an alternative, or alone */
	}
	for (int month = 1; month <= 12; month++) {
		uint32_t days = (uint32_t)((UINT64_C(1) << (lengths[month - 1] + 1)) - 1);

		if ((cron->months >> month & 1) != 0 && (cron->days & days) != 0) {
			return true;
		}
	}
	return false;
}

bool cron_parse(const char *text, struct cron *ret_cron, char problem[CRON_PROBLEM_SIZE])
{
	CLEANUP(free_p) char *copy = xstrdup(expand(text));
	char *state = NULL, *part = strtok_r(copy, " \t", &state);
	uint64_t bits[ARRAY_SIZE(fields)] = {0};
	bool open[ARRAY_SIZE(fields)];
	struct cron cron;

	for (size_t i = 0; i < ARRAY_SIZE(fields); i++, part = strtok_r(NULL, " \t", &state)) {
		if (part == NULL) {
			snprintf(problem, CRON_PROBLEM_SIZE,
				"has no %s: it is minute, hour, day, month and weekday",
				fields[i].name);
			return false;
		}
		open[i] = part[0] == '*';
		if (!parse_field(part, &fields[i], &bits[i], problem)) {
			return false;
		}
	}
	if (part != NULL) {
		snprintf(problem, CRON_PROBLEM_SIZE, "has \"%.40s\" behind its five fields", part);
		return false;
	}
	cron = (struct cron){.minutes = bits[0],
		.hours = (uint32_t)bits[1],
		.days = (uint32_t)bits[2],
		.months = (uint32_t)bits[3],
		.weekdays = (uint32_t)(bits[4] | bits[4] >> 7) & 0x7f,
		.every_hour = open[1],
		.every_day = open[2],
		.every_weekday = open[4]};
	if (!comes_ever(&cron)) {
		snprintf(problem, CRON_PROBLEM_SIZE, "never comes: no such day in those months");
		return false;
	}
	*ret_cron = cron;
	return true;
}

bool time_zone_is_known(const char *zone)
{
	CLEANUP(free_p) char *path = NULL;
	struct stat about;

	if (streq(zone, "UTC")) {
		return true;
	}
	if (zone[0] == '/' || zone[0] == '\0' || strstr(zone, "..") != NULL) {
		return false;
	}
	path = xasprintf(ZONE_FOLDER "%s", zone);
	return stat(path, &about) == 0 && S_ISREG(about.st_mode);
}

/* ---- the zone for a moment ---- */

static char *zone_enter(const char *zone)
{
	const char *former = getenv("TZ");
	char *kept = former != NULL ? xstrdup(former) : NULL;

	if (zone != NULL) {
		(void)setenv("TZ", zone, 1);
		tzset();
	}
	return kept;
}

static void zone_leave(const char *zone, char *former)
{
	if (zone != NULL) {
		if (former != NULL) {
			(void)setenv("TZ", former, 1);
		} else {
			(void)unsetenv("TZ");
		}
		tzset();
	}
	free(former);
}

/* ---- the search ---- */

static bool day_fits(const struct cron *cron, const struct tm *day)
{
	bool by_day = (cron->days >> day->tm_mday & 1) != 0;
	bool by_weekday = (cron->weekdays >> day->tm_wday & 1) != 0;

	if ((cron->months >> (day->tm_mon + 1) & 1) == 0) {
		return false;
	}
	return cron->every_day || cron->every_weekday ? by_day && by_weekday : by_day || by_weekday;
}

static bool minute_fits(const struct cron *cron, const struct tm *local)
{
	return (cron->hours >> local->tm_hour & 1) != 0 &&
	       (cron->minutes >> local->tm_min & 1) != 0;
}

/* As the clock shows them: an hour that comes twice is taken twice. */
static time_t first_by_clock(const struct cron *cron, time_t from, time_t to, time_t after)
{
	time_t start = after >= from ? after - after % 60 + 60 : from;

	for (time_t at = start; at < to; at += 60) {
		struct tm local;

		if (localtime_r(&at, &local) != NULL && minute_fits(cron, &local)) {
			return at;
		}
	}
	return -1;
}

/* By the calendar: each wanted time of the day is one moment, whatever the clocks do. */
static time_t first_by_calendar(const struct cron *cron, const struct tm *day, time_t after)
{
	time_t first = -1;

	for (int minute = 0; minute < 24 * 60; minute++) {
		struct tm wanted = {.tm_year = day->tm_year,
			.tm_mon = day->tm_mon,
			.tm_mday = day->tm_mday,
			.tm_hour = minute / 60,
			.tm_min = minute % 60,
			.tm_isdst = -1};
		time_t at;

		if (!minute_fits(cron, &wanted)) {
			continue;
		}
		at = mktime(&wanted);
		if (at > after && (first < 0 || at < first)) {
			first = at;
		}
	}
	return first;
}

static time_t midnight(const struct tm *day, int days_later)
{
	struct tm at = {.tm_year = day->tm_year,
		.tm_mon = day->tm_mon,
		.tm_mday = day->tm_mday + days_later,
		.tm_isdst = -1};

	return mktime(&at);
}

static time_t next_in_zone(const struct cron *cron, time_t after)
{
	struct tm today;

	if (localtime_r(&after, &today) == NULL) {
		return -1;
	}
	for (int ahead = 0; ahead < DAYS_AHEAD_MAX; ahead++) {
		time_t from = midnight(&today, ahead), found;
		struct tm day;

		/* Where midnight itself is skipped, it is still that day. */
		if (localtime_r(&from, &day) == NULL || !day_fits(cron, &day)) {
			continue;
		}
		found = cron->every_hour
				? first_by_clock(cron, from, midnight(&today, ahead + 1), after)
				: first_by_calendar(cron, &day, after);
		if (found >= 0) {
			return found;
		}
	}
	return -1;
}

int64_t cron_next_ms(const struct cron *cron, const char *zone, int64_t after_ms)
{
	char *former = zone_enter(zone);
	time_t found = next_in_zone(cron, (time_t)(after_ms / 1000));

	zone_leave(zone, former);
	return found < 0 ? INT64_MAX : (int64_t)found * 1000;
}
