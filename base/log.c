/* Formats one event into one buffer and writes it with one call. */
#include "base/log.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

/* Enough for an error's message and its hint; a longer line is cut. */
#define LOG_LINE_MAX 8192
#define LOG_FIELDS_MAX 16

static const char *const level_names[] = {
	[LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error"};
_Static_assert(ARRAY_SIZE(level_names) == LOG_LEVELS, "every level has a name");

static struct {
	const char *program;
	enum log_level lowest;
	bool json;
} state = {"hob", LOG_INFO, false};

void log_setup(const char *program, enum log_level lowest, bool json)
{
	state.program = program;
	state.lowest = lowest;
	state.json = json;
}

bool log_level_from_name(const char *name, enum log_level *ret_level)
{
	for (size_t i = 0; i < LOG_LEVELS; i++) {
		if (streq(level_names[i], name)) {
			*ret_level = (enum log_level)i;
			return true;
		}
	}
	return false;
}

bool log_enabled(enum log_level level)
{
	return level >= state.lowest;
}

static bool is_plain(const char *text)
{
	for (const char *c = text; *c != '\0'; c++) {
		if (*c <= ' ' || *c == '"' || *c == '=' || *c == '\\' || *c == 0x7f) {
			return false;
		}
	}
	return *text != '\0';
}

static void add_quoted(struct buffer *line, const char *text)
{
	buffer_add(line, "\"", 1);
	for (const char *c = text; *c != '\0'; c++) {
		unsigned char byte = (unsigned char)*c;

		if (byte == '"' || byte == '\\') {
			buffer_addf(line, "\\%c", byte);
		} else if (byte == '\n') {
			buffer_add(line, "\\n", 2);
		} else if (byte < ' ' || byte == 0x7f) {
			buffer_addf(line, "\\u%04x", byte);
		} else {
			buffer_add(line, c, 1);
		}
	}
	buffer_add(line, "\"", 1);
}

static void add_string(struct buffer *line, const char *text)
{
	if (text == NULL) {
		text = "";
	}
	if (!state.json && is_plain(text)) {
		buffer_add_str(line, text);
	} else {
		add_quoted(line, text);
	}
}

static void add_value(struct buffer *line, const struct log_value *value)
{
	switch (value->type) {
	case LOG_TYPE_STRING:
		add_string(line, value->s);
		break;
	case LOG_TYPE_SIGNED:
		buffer_addf(line, "%" PRId64, value->i);
		break;
	case LOG_TYPE_UNSIGNED:
		buffer_addf(line, "%" PRIu64, value->u);
		break;
	case LOG_TYPE_DOUBLE:
		buffer_addf(line, "%.6g", value->d);
		break;
	case LOG_TYPE_BOOL:
		buffer_add_str(line, value->b ? "true" : "false");
		break;
	}
}

static void add_field(struct buffer *line, const char *key, const struct log_value *value)
{
	if (state.json) {
		buffer_addf(line, ",\"%s\":", key);
	} else {
		buffer_addf(line, " %s=", key);
	}
	add_value(line, value);
}

void log_write(
	enum log_level level, const char *event, const struct log_field *fields, size_t count)
{
	struct buffer line;
	char when[CLOCK_TEXT_SIZE];

	if (!log_enabled(level)) {
		return;
	}
	clock_format(when, clock_real_ms());
	buffer_init(&line, LOG_LINE_MAX);
	if (state.json) {
		buffer_addf(&line,
			"{\"time\":\"%s\",\"level\":\"%s\",\"program\":\"%s\",\"event\":\"%s\"",
			when, level_names[level], state.program, event);
	} else {
		buffer_addf(&line, "%s %s %s %s", when, level_names[level], state.program, event);
	}
	for (size_t i = 0; i < count; i++) {
		add_field(&line, fields[i].key, &fields[i].value);
	}
	buffer_add_str(&line, state.json ? "}\n" : "\n");
	(void)!write(STDERR_FILENO, buffer_text(&line), line.length);
	buffer_done(&line);
}

void log_failure_(
	const char *event, const struct error *err, const struct log_field *fields, size_t count)
{
	struct log_field all[LOG_FIELDS_MAX + 3];
	size_t used = 0;

	for (size_t i = 0; i < count && i < LOG_FIELDS_MAX; i++) {
		all[used++] = fields[i];
	}
	all[used++] = (struct log_field){"kind", log_value_s(error_kind_name(err->kind))};
	all[used++] = (struct log_field){"error", log_value_s(err->message)};
	if (err->hint[0] != '\0') {
		all[used++] = (struct log_field){"hint", log_value_s(err->hint)};
	}
	log_write(LOG_ERROR, event, all, used);
}
