/* Formatting for people. Text that a sandbox or a repository chose never reaches the terminal with
 * control characters in it. */
#include "pool/cli/human.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>

#define FIELD_WIDTH 12

void human_bytes(char *text, int64_t bytes)
{
	_Static_assert(HUMAN_SIZE >= TEXT_BYTES_SIZE, "it has room");
	text_bytes(text, bytes > 0 ? (uint64_t)bytes : 0);
}

void human_span(char *text, int64_t us)
{
	static const struct {
		double us;
		const char *unit;
	} units[] = {
		{86400e6, "d"}, {3600e6, "h"}, {60e6, "min"}, {1e6, "s"}, {1e3, "ms"}, {1, "µs"}};
	size_t i = 0;
	double value;

	while (i + 1 < ARRAY_SIZE(units) && (double)us < units[i].us) {
		i++;
	}
	value = (double)us / units[i].us;
	snprintf(text, HUMAN_SIZE, value >= 10 || units[i].us <= 1 ? "%.0f %s" : "%.1f %s", value,
		units[i].unit);
}

static void format_age(char *text, int64_t seconds)
{
	if (seconds < 120) {
		snprintf(text, HUMAN_SIZE, "%" PRId64 "s", seconds < 0 ? 0 : seconds);
	} else if (seconds < 120 * 60) {
		snprintf(text, HUMAN_SIZE, "%" PRId64 "m", seconds / 60);
	} else if (seconds < 48 * 3600) {
		snprintf(text, HUMAN_SIZE, "%" PRId64 "h", seconds / 3600);
	} else {
		snprintf(text, HUMAN_SIZE, "%" PRId64 "d", seconds / 86400);
	}
}

void human_age(char *text, const char *at)
{
	int64_t ms = 0;

	if (at == NULL || !clock_parse(at, &ms)) {
		snprintf(text, HUMAN_SIZE, "-");
		return;
	}
	format_age(text, (clock_real_ms() - ms) / 1000);
}

void human_until(char *text, const char *at)
{
	int64_t ms = 0;

	if (at == NULL || !clock_parse(at, &ms)) {
		snprintf(text, HUMAN_SIZE, "-");
		return;
	}
	/* Rounded to the nearest second: "30s" right after asking for thirty. */
	format_age(text, (ms - clock_real_ms() + 500) / 1000);
}

char *human_member(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	switch (value != NULL ? json_typeof(value) : JSON_NULL) {
	case JSON_STRING:
		return xstrdup(
			json_string_value(value)[0] != '\0' ? json_string_value(value) : "-");
	case JSON_INTEGER:
		return xasprintf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	case JSON_REAL:
		return xasprintf("%g", json_real_value(value));
	case JSON_TRUE:
		return xstrdup("yes");
	case JSON_FALSE:
		return xstrdup("no");
	case JSON_OBJECT:
	case JSON_ARRAY:
		return json_text(value);
	case JSON_NULL:
		break;
	}
	return xstrdup("-");
}

char *human_commit(const json_t *object)
{
	const char *commit = json_string_value(json_object_get(object, "commit"));

	return commit != NULL && commit[0] != '\0' ? xstrndup(commit, 12) : xstrdup("-");
}

bool style_wanted(void)
{
	static int wanted = -1;

	if (wanted < 0) {
		const char *no_color = getenv("NO_COLOR");
		const char *term = getenv("TERM");

		wanted = isatty(STDOUT_FILENO) && (no_color == NULL || no_color[0] == '\0') &&
			 term != NULL && !streq(term, "dumb");
	}
	return wanted != 0;
}

enum style style_of_state(const char *state)
{
	static const struct {
		const char *state;
		enum style style;
	} styles[] = {
		{"ready", STYLE_GOOD},
		{"claimed", STYLE_GOOD},
		{"published", STYLE_GOOD},
		{"running", STYLE_WARN},
		{"queued", STYLE_WARN},
		{"warming", STYLE_WARN},
		{"creating", STYLE_WARN},
		{"releasing", STYLE_DIM},
		{"unchanged", STYLE_DIM},
		{"superseded", STYLE_DIM},
		{"failed", STYLE_BAD},
	};

	for (size_t i = 0; i < ARRAY_SIZE(styles); i++) {
		if (streq(styles[i].state, state)) {
			return styles[i].style;
		}
	}
	return STYLE_PLAIN;
}

/* C0, DEL, and C1 as UTF-8 writes it (C2 80 to C2 9F): all that steers a terminal. */
static void print_harmless(const char *text)
{
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)text[0], next = (unsigned char)text[1];

		if (c < 32 || c == 127) {
			putchar(c == '\n' || c == '\t' ? ' ' : '?');
		} else if (c == 0xc2 && next >= 0x80 && next <= 0x9f) {
			putchar('?');
			text++;
		} else {
			putchar(c);
		}
	}
}

void style_print(const char *text, enum style style)
{
	static const char *const codes[] = {
		[STYLE_PLAIN] = "",
		[STYLE_GOOD] = "\033[32m",
		[STYLE_WARN] = "\033[33m",
		[STYLE_BAD] = "\033[31m",
		[STYLE_DIM] = "\033[2m",
		[STYLE_HEAD] = "\033[1m",
	};
	bool wanted = style != STYLE_PLAIN && style_wanted();

	if (wanted) {
		fputs(codes[style], stdout);
	}
	print_harmless(text);
	if (wanted) {
		fputs("\033[0m", stdout);
	}
}

void human_print_json(const json_t *json)
{
	/* 12 digits: 3.156, not 3.1560000000000001. */
	size_t flags = JSON_ENCODE_ANY | JSON_REAL_PRECISION(12) |
		       (isatty(STDOUT_FILENO) ? JSON_INDENT(2) : JSON_COMPACT);

	json_dumpf(json, stdout, flags);
	putchar('\n');
	fflush(stdout);
}

void human_print_field(const char *name, const char *value)
{
	style_print(name, STYLE_DIM);
	printf(":%*s", FIELD_WIDTH - (int)strlen(name), "");
	print_harmless(value);
	putchar('\n');
}

void human_print_members(const json_t *object, const char *const (*members)[2], size_t count)
{
	for (size_t i = 0; i < count; i++) {
		CLEANUP(free_p) char *value = human_member(object, members[i][1]);

		human_print_field(members[i][0], value);
	}
}
