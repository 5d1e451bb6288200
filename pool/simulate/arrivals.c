/* Reading arrivals. Nothing is drawn by chance but by a generator with a fixed start, so that a
 * file always gives the same claims. */
#include "pool/simulate/arrivals.h"

#include "base/buffer.h"

#include <archive.h>
#include <assert.h>
#include <ctype.h>
#include <math.h>

/* A whole file in memory; the largest day of Azure's functions has 200 MB. */
#define FILE_MAX (1u << 30)
#define CHUNK (256 * 1024)
#define MINUTE_MS INT64_C(60000)
#define DAY_MS (1440 * MINUTE_MS)

struct columns {
	int time, environment, keystroke, chars; /* -1: none */
	int first_minute; /* Azure; -1: it is not that */
	int minutes;
};

struct random {
	uint64_t state;
};

/* splitmix64 */
static uint64_t random_next(struct random *random)
{
	uint64_t z = random->state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* 0 up to, but not, 1. */
static double random_share(struct random *random)
{
	return (double)(random_next(random) >> 11) / 9007199254740992.0;
}

/* ---- files ---- */

static int file_read(const char *path, struct buffer *text, struct error *err)
{
	struct archive *reader = archive_read_new();
	struct archive_entry *entry;
	CLEANUP(free_p) char *chunk = xmalloc(CHUNK);
	ssize_t got = -1;

	archive_read_support_filter_all(reader);
	archive_read_support_format_raw(reader);
	archive_read_support_format_empty(reader);
	if (archive_read_open_filename(reader, path, CHUNK) == ARCHIVE_OK) {
		int status = archive_read_next_header(reader, &entry);

		got = status == ARCHIVE_OK || status == ARCHIVE_EOF ? 0 : -1;
		while (status == ARCHIVE_OK &&
			(got = archive_read_data(reader, chunk, CHUNK)) > 0) {
			if (!buffer_add(text, chunk, (size_t)got)) {
				archive_read_free(reader);
				return error_set(err, ERROR_LIMIT, "%s: larger than 1 GiB", path);
			}
		}
	}
	if (got < 0) {
		const char *why = archive_error_string(reader);
		int sys = archive_errno(reader);

		error_set(err, sys == ENOENT ? ERROR_NOT_FOUND : ERROR_IO, "read %s: %s", path,
			sys != 0 || why == NULL ? strerror(sys) : why);
		archive_read_free(reader);
		return -(int)err->kind;
	}
	archive_read_free(reader);
	return 0;
}

/* The next cell of a line, without quotes; NULL at its end. Cuts the line up. */
static char *cell_next(char **rest)
{
	char *cell = *rest, *end;

	if (cell == NULL) {
		return NULL;
	}
	end = cell + strcspn(cell, ",");
	*rest = *end == ',' ? end + 1 : NULL;
	*end = '\0';
	while (*cell == ' ' || *cell == '"') {
		cell++;
	}
	while (end > cell && (end[-1] == ' ' || end[-1] == '"' || end[-1] == '\r')) {
		*--end = '\0';
	}
	return cell;
}

static bool is_one_of(const char *word, const char *const *words)
{
	for (; *words != NULL; words++) {
		if (strcasecmp(word, *words) == 0) {
			return true;
		}
	}
	return false;
}

static void columns_find(char *line, struct columns *columns)
{
	static const char *const times[] = {"t", "time", "at", "timestamp", "seconds", NULL};
	static const char *const environments[] = {
		"environment", "image", "env", "hashfunction", NULL};
	static const char *const keystrokes[] = {
		"keystroke", "first_keystroke", "typing", "warm", NULL};
	static const char *const chars[] = {"chars", "characters", NULL};
	char *cell;

	*columns = (struct columns){-1, -1, -1, -1, -1, 0};
	for (int i = 0; (cell = cell_next(&line)) != NULL; i++) {
		if (is_one_of(cell, times)) {
			columns->time = i;
		} else if (is_one_of(cell, environments)) {
			columns->environment = i;
		} else if (is_one_of(cell, keystrokes)) {
			columns->keystroke = i;
		} else if (is_one_of(cell, chars)) {
			columns->chars = i;
		} else if (isdigit((unsigned char)cell[0]) && columns->first_minute < 0) {
			columns->first_minute = i;
		}
		columns->minutes += columns->first_minute >= 0 ? 1 : 0;
	}
}

static uint32_t environment_of(struct arrivals *arrivals, const char *name)
{
	/* Lines of one environment mostly follow each other. */
	for (size_t i = arrivals->name_count; i > 0; i--) {
		if (streq(arrivals->names[i - 1], name)) {
			return (uint32_t)(i - 1);
		}
	}
	*array_add(&arrivals->names, &arrivals->name_count, &arrivals->name_room) = xstrdup(name);
	return (uint32_t)(arrivals->name_count - 1);
}

static bool seconds_parse(const char *cell, int64_t *ret_ms)
{
	char *end = NULL;
	double seconds = strtod(cell, &end);

	if (end == cell || *end != '\0' || !isfinite(seconds) || fabs(seconds) > 1e12) {
		return false;
	}
	*ret_ms = llround(seconds * 1e3);
	return true;
}

static int line_add(
	struct arrivals *arrivals, const struct columns *columns, char *line, struct error *err)
{
	struct arrival arrival = {.typing_ms = -1, .chars = -1};
	const char *name = "default";
	int64_t keystroke_ms = 0;
	bool has_time = false, has_keystroke = false;
	char *cell;

	for (int i = 0; (cell = cell_next(&line)) != NULL; i++) {
		if (i == columns->time) {
			has_time = seconds_parse(cell, &arrival.at_ms);
		} else if (i == columns->environment && cell[0] != '\0') {
			name = cell;
		} else if (i == columns->keystroke && cell[0] != '\0') {
			has_keystroke = seconds_parse(cell, &keystroke_ms);
		} else if (i == columns->chars && cell[0] != '\0') {
			int64_t chars = 0;

			arrival.chars = seconds_parse(cell, &chars) ? chars / 1000 : -1;
		}
	}
	if (!has_time) {
		error_set(err, ERROR_INVALID, "no time in seconds");
		return error_hint(err, "times are numbers of seconds from a midnight");
	}
	if (has_keystroke && keystroke_ms <= arrival.at_ms) {
		arrival.typing_ms = arrival.at_ms - keystroke_ms;
		arrivals->keystrokes = true;
	}
	arrival.environment = environment_of(arrivals, name);
	*array_add(&arrivals->items, &arrivals->count, &arrivals->room) = arrival;
	return 0;
}

/* Within its minute a call may be anywhere. */
static int minutes_add(
	struct arrivals *arrivals, const struct columns *columns, char *line, struct error *err)
{
	uint32_t environment = (uint32_t)arrivals->name_count;
	struct random random = {.state = 7919 * ((uint64_t)environment + 1)};
	char name[32];
	char *cell;

	/* Each line is a function; some samples have one twice. */
	snprintf(name, sizeof(name), "function-%u", environment + 1);
	*array_add(&arrivals->names, &arrivals->name_count, &arrivals->name_room) = xstrdup(name);
	for (int i = 0; (cell = cell_next(&line)) != NULL; i++) {
		long calls = i >= columns->first_minute ? strtol(cell, NULL, 10) : 0;

		if (calls < 0 || calls > 10000000) {
			return error_set(err, ERROR_INVALID, "%ld calls in a minute", calls);
		}
		for (; calls > 0; calls--) {
			struct arrival *arrival =
				array_add(&arrivals->items, &arrivals->count, &arrivals->room);

			*arrival = (struct arrival){.environment = environment,
				.typing_ms = -1,
				.chars = -1,
				.at_ms = (i - columns->first_minute) * MINUTE_MS +
					 (int64_t)(random_share(&random) * (double)MINUTE_MS)};
		}
	}
	return 0;
}

int arrivals_read(struct arrivals *arrivals, const char *path, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text;
	struct columns columns;
	char *rest, *line;
	int number = 1;
	bool azure;

	buffer_init(&text, FILE_MAX);
	if (file_read(path, &text, err) < 0) {
		return -(int)err->kind;
	}
	if (text.length == 0) {
		return error_set(err, ERROR_INVALID, "%s: empty", path);
	}
	rest = text.data;
	line = strsep(&rest, "\n");
	columns_find(line, &columns);
	azure = columns.first_minute >= 0 && columns.time < 0;
	if (!azure && columns.time < 0) {
		error_set(err, ERROR_INVALID, "%s: no column of times in its first line", path);
		return error_hint(err, "expected columns such as t,environment,keystroke or those "
				       "of the Azure Functions trace");
	}
	while ((line = strsep(&rest, "\n")) != NULL) {
		number++;
		if (line[0] == '\0' || line[0] == '\r') {
			continue;
		}
		if ((azure ? minutes_add : line_add)(arrivals, &columns, line, err) < 0) {
			return error_wrap(err, "%s:%d", path, number);
		}
	}
	if (azure && arrivals->end_ms < columns.minutes * MINUTE_MS) {
		arrivals->end_ms = columns.minutes * MINUTE_MS;
	}
	return 0;
}

/* ---- keystrokes ---- */

/* Lengths of prompts: 12 % under 100 characters, and so on; half of the long ones are pasted. */
static int64_t prompt_chars(struct random *random)
{
	static const struct {
		double share, from, to;
	} lengths[] = {{0.12, 10, 100}, {0.23, 100, 300}, {0.21, 300, 700}, {0.19, 700, 1500},
		{1, 1500, 6000}};
	double share = random_share(random);
	size_t i = 0;

	while (i + 1 < ARRAY_SIZE(lengths) && share >= lengths[i].share) {
		share -= lengths[i].share;
		i++;
	}
	return (int64_t)(lengths[i].from +
			 random_share(random) * (lengths[i].to - lengths[i].from));
}

/* At 40 to 80 words of five letters a minute; three in four of the longest are pasted. */
static int64_t typing_time(struct random *random, int64_t chars)
{
	double words_a_minute = 40 + 40 * random_share(random);
	bool pasted = chars >= 1500 && random_share(random) < 0.75;
	double typed = pasted ? 20 : (double)chars;

	return (int64_t)(typed / 5 / words_a_minute * 60e3);
}

void arrivals_type(struct arrivals *arrivals)
{
	struct random random = {.state = 1};
	size_t count = arrivals->count;

	for (size_t i = 0; i < count; i++) {
		struct arrival *arrival = &arrivals->items[i];
		struct arrival draft = *arrival;

		if (arrival->typing_ms < 0) {
			int64_t chars =
				arrival->chars >= 0 ? arrival->chars : prompt_chars(&random);

			arrival->typing_ms = typing_time(&random, chars);
		}
		/* One draft in five: a quarter as many as are sent. */
		if (random_share(&random) < 0.25) {
			draft.abandoned = true;
			draft.typing_ms = typing_time(&random, prompt_chars(&random));
			draft.at_ms -= (int64_t)(random_share(&random) * 1800e3);
			*array_add(&arrivals->items, &arrivals->count, &arrivals->room) = draft;
		}
	}
	arrivals->keystrokes = true;
}

/* ---- order ---- */

static int by_environment_and_time(const void *a, const void *b)
{
	const struct arrival *first = a, *second = b;

	if (first->environment != second->environment) {
		return first->environment < second->environment ? -1 : 1;
	}
	return first->at_ms < second->at_ms ? -1 : first->at_ms > second->at_ms;
}

int arrivals_finish(struct arrivals *arrivals, struct error *err)
{
	size_t at = 0;

	arrivals->begin_ms = INT64_MAX;
	for (size_t i = 0; i < arrivals->count; i++) {
		const struct arrival *arrival = &arrivals->items[i];

		arrivals->claims += arrival->abandoned ? 0 : 1;
		if (!arrival->abandoned && arrival->at_ms < arrivals->begin_ms) {
			arrivals->begin_ms = arrival->at_ms / MINUTE_MS * MINUTE_MS;
		}
		if (!arrival->abandoned && arrival->at_ms > arrivals->end_ms) {
			arrivals->end_ms = arrival->at_ms;
		}
	}
	if (arrivals->claims == 0) {
		return error_set(err, ERROR_INVALID, "there are no claims in these files");
	}
	qsort(arrivals->items, arrivals->count, sizeof(*arrivals->items), by_environment_and_time);
	arrivals->first = xcalloc(arrivals->name_count + 1, sizeof(*arrivals->first));
	for (size_t i = 0; i < arrivals->name_count; i++) {
		while (at < arrivals->count && arrivals->items[at].environment < i) {
			at++;
		}
		arrivals->first[i] = at;
	}
	arrivals->first[arrivals->name_count] = arrivals->count;
	return 0;
}

void arrivals_done(struct arrivals *arrivals)
{
	for (size_t i = 0; i < arrivals->name_count; i++) {
		free(arrivals->names[i]);
	}
	free(arrivals->names);
	free(arrivals->items);
	free(arrivals->first);
	*arrivals = (struct arrivals){0};
}
