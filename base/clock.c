/* Reading the two clocks, and the two texts of time that people see. */
#include "base/clock.h"

#include "base/memory.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define MS_PER_S INT64_C(1000)
#define DURATION_MAX_MS (INT64_C(3660) * 24 * 3600 * MS_PER_S)

/* Longest first, so that formatting takes the largest unit that fits. */
static const struct {
	const char *name;
	int64_t ms;
} units[] = {{"d", 86400 * MS_PER_S}, {"h", 3600 * MS_PER_S}, {"m", 60 * MS_PER_S}, {"s", MS_PER_S},
	{"ms", 1}};

static int64_t read_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_mono_us(void)
{
	return read_us(CLOCK_MONOTONIC);
}

int64_t clock_mono_ms(void)
{
	return clock_mono_us() / 1000;
}

int64_t clock_real_ms(void)
{
	return read_us(CLOCK_REALTIME) / 1000;
}

void clock_format(char *text, int64_t real_ms)
{
	time_t seconds = (time_t)(real_ms / MS_PER_S);
	struct tm parts;
	char day[24];

	gmtime_r(&seconds, &parts);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &parts);
	snprintf(text, CLOCK_TEXT_SIZE, "%s.%03dZ", day, (int)(real_ms % MS_PER_S));
}

bool clock_parse(const char *at, int64_t *ret_real_ms)
{
	struct tm tm = {0};
	int ms = 0, used = 0;
	time_t seconds;

	if (sscanf(at, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		    &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &used) != 6) {
		return false;
	}
	at += used;
	if (*at == '.') {
		int scale = 100;

		for (at++; *at >= '0' && *at <= '9'; at++) {
			ms += (*at - '0') * scale;
			scale /= 10;
		}
	}
	if (!streq(at, "Z")) {
		return false;
	}
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	seconds = timegm(&tm);
	*ret_real_ms = (int64_t)seconds * 1000 + ms;
	return true;
}

static bool unit_parse(const char **text, int64_t *ret_ms)
{
	size_t length = strspn(*text, "abcdefghijklmnopqrstuvwxyz");

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (length == strlen(units[i].name) && str_starts(*text, units[i].name)) {
			*text += length;
			*ret_ms = units[i].ms;
			return true;
		}
	}
	return false;
}

bool duration_parse(const char *text, int64_t *ret_ms)
{
	int64_t total = 0;

	if (streq(text, "0")) {
		*ret_ms = 0;
		return true;
	}
	if (*text == '\0') {
		return false;
	}
	while (*text != '\0') {
		int64_t number = 0, unit;

		if (!isdigit((unsigned char)*text)) {
			return false;
		}
		while (isdigit((unsigned char)*text)) {
			number = number * 10 + (*text++ - '0');
			if (number > DURATION_MAX_MS) {
				return false;
			}
		}
		if (!unit_parse(&text, &unit) || number > DURATION_MAX_MS / unit) {
			return false;
		}
		total += number * unit;
		if (total > DURATION_MAX_MS) {
			return false;
		}
	}
	*ret_ms = total;
	return true;
}

void duration_format(char *text, int64_t ms)
{
	size_t used = 0;

	if (ms <= 0) {
		snprintf(text, CLOCK_TEXT_SIZE, "0");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(units) && used < CLOCK_TEXT_SIZE; i++) {
		if (ms >= units[i].ms) {
			used += (size_t)snprintf(text + used, CLOCK_TEXT_SIZE - used,
				"%" PRId64 "%s", ms / units[i].ms, units[i].name);
			ms %= units[i].ms;
		}
	}
}
