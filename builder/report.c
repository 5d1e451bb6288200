/*
 * Three ways to show a build, and its log. The log gets every line and all output up to its cap;
 * progress is for the moment only. Nothing here fails: a full disk must not end a build twice.
 */
#include "builder/report.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define STAGE_SIZE 24
#define DETAIL_SIZE 160
#define LIVE_EVERY_MS                                                                              \
	80 /* a person reads no faster, and a slow terminal must not slow the fetch                \
	    */

struct report {
	enum report_mode mode;
	char environment[72];
	int64_t build_id;
	int log_fd;
	int64_t log_bytes;
	char stage[STAGE_SIZE]; /* empty: none is open */
	char detail[DETAIL_SIZE];
	int64_t stage_us;
	int64_t shown_ms; /* when the live line was last drawn */
	bool live; /* there is a live line to wipe */
	bool mid_line; /* a step's output ended without a newline */
};

struct report *report_new(enum report_mode mode)
{
	struct report *report = xcalloc(1, sizeof(*report));

	report->mode = mode;
	report->log_fd = -1;
	return report;
}

void report_free(struct report *report)
{
	free(report);
}

static void log_bytes(struct report *report, const void *data, size_t length)
{
	static const char note[] = "\n(the log is full; later output is not kept)\n";
	struct error err = ERROR_INIT;

	if (report->log_fd < 0 || report->log_bytes > REPORT_LOG_MAX) {
		return;
	}
	report->log_bytes += (int64_t)length;
	if (report->log_bytes > REPORT_LOG_MAX) {
		data = note;
		length = sizeof(note) - 1;
	}
	if (io_write_full(report->log_fd, data, length, &err) < 0) {
		report->log_fd = -1;
	}
}

static void log_text(struct report *report, const char *stage, const char *text)
{
	char now[CLOCK_TEXT_SIZE];
	CLEANUP(free_p) char *line = NULL;

	clock_format(now, clock_real_ms());
	line = xasprintf("%s%s %s: %s\n", report->mid_line ? "\n" : "", now, stage, text);
	log_bytes(report, line, strlen(line));
}

/* Leaves the cursor at the start of an empty line. */
static void wipe(struct report *report)
{
	if (report->mode == REPORT_TERMINAL && report->live) {
		fputs("\r\033[K", stdout);
	} else if (report->mid_line && report->mode != REPORT_JSON &&
		   report->mode != REPORT_QUIET) {
		fputc('\n', stdout);
	}
	report->live = false;
	report->mid_line = false;
}

/* An event object with what every event has; the caller adds the rest and gives it to emit. */
static json_t *event_new(const struct report *report, const char *event)
{
	json_t *json = json_object();

	json_object_set_new(json, "event", json_string(event));
	if (report->environment[0] != '\0') {
		json_object_set_new(json, "environment", json_string(report->environment));
	}
	if (report->build_id != 0) {
		json_object_set_new(
			json, "build", json_sprintf("bld-%lld", (long long)report->build_id));
	}
	if (report->stage[0] != '\0') {
		json_object_set_new(json, "stage", json_string(report->stage));
	}
	return json;
}

static void emit(json_t *json)
{
	json_print(json);
	fflush(stdout);
	json_decref(json);
}

void report_begin(struct report *report, const char *environment, int64_t build_id, int log_fd)
{
	wipe(report);
	snprintf(report->environment, sizeof(report->environment), "%s", environment);
	report->build_id = build_id;
	report->log_fd = log_fd;
	report->log_bytes = 0;
	report->stage[0] = '\0';
	if (report->mode == REPORT_JSON) {
		emit(event_new(report, "begin"));
	} else if (report->mode != REPORT_QUIET) {
		printf("%s: build bld-%lld\n", environment, (long long)build_id);
		fflush(stdout);
	}
}

static void show_stage_start(struct report *report)
{
	json_t *json;

	if (report->mode == REPORT_JSON) {
		json = event_new(report, "stage");
		json_object_set_new(json, "detail", json_str_or_null(report->detail));
		emit(json);
	} else if (report->mode == REPORT_TERMINAL) {
		printf("  %-8s %s ...", report->stage, report->detail);
		report->live = true;
		fflush(stdout);
	}
}

void report_stage(struct report *report, const char *stage, const char *format, ...)
{
	va_list args;

	if (report->stage[0] != '\0') {
		report_stage_end(report, "%s", "");
	}
	snprintf(report->stage, sizeof(report->stage), "%s", stage);
	va_start(args, format);
	vsnprintf(report->detail, sizeof(report->detail), format, args);
	va_end(args);
	report->stage_us = clock_mono_us();
	report->shown_ms = 0;
	log_text(report, stage, report->detail);
	show_stage_start(report);
}

static void show_live(
	struct report *report, const char *unit, uint64_t done, uint64_t total, uint64_t bytes)
{
	char count[64] = "", size[32] = "", line[512];
	struct winsize window = {.ws_col = 80};
	double elapsed = (double)(clock_mono_us() - report->stage_us) / 1e6;
	int length;

	if (total > 0) {
		snprintf(count, sizeof(count), "%llu/%llu %s  ", (unsigned long long)done,
			(unsigned long long)total, unit);
	} else if (done > 0) {
		snprintf(count, sizeof(count), "%llu %s  ", (unsigned long long)done, unit);
	}
	if (bytes > 0) {
		text_bytes(size, bytes);
		strncat(size, "  ", sizeof(size) - strlen(size) - 1);
	}
	length = snprintf(line, sizeof(line), "  %-8s %s%s%.1f s  %s", report->stage, count, size,
		elapsed, report->detail);
	ioctl(STDOUT_FILENO, TIOCGWINSZ, &window);
	if (window.ws_col > 1 && length > window.ws_col - 1 && window.ws_col < (int)sizeof(line)) {
		line[window.ws_col - 1] = '\0'; /* a wrapped live line could not be wiped */
	}
	printf("\r\033[K%s", line);
	fflush(stdout);
	report->live = true;
}

void report_progress(
	struct report *report, const char *unit, uint64_t done, uint64_t total, uint64_t bytes)
{
	int64_t now = clock_mono_ms();
	json_t *json;

	if (now - report->shown_ms < LIVE_EVERY_MS || report->stage[0] == '\0') {
		return;
	}
	report->shown_ms = now;
	if (report->mode == REPORT_TERMINAL) {
		show_live(report, unit, done, total, bytes);
	} else if (report->mode == REPORT_JSON) {
		json = event_new(report, "progress");
		json_object_set_new(json, "unit", json_string(unit));
		json_object_set_new(json, "done", json_integer((json_int_t)done));
		json_object_set_new(
			json, "total", total > 0 ? json_integer((json_int_t)total) : json_null());
		json_object_set_new(json, "bytes", json_integer((json_int_t)bytes));
		emit(json);
	}
}

void report_line(struct report *report, const char *format, ...)
{
	CLEANUP(free_p) char *text = NULL;
	va_list args;
	json_t *json;

	va_start(args, format);
	text = xvasprintf(format, args);
	va_end(args);
	log_text(report, report->stage[0] != '\0' ? report->stage : "build", text);
	wipe(report);
	if (report->mode == REPORT_JSON) {
		json = event_new(report, "log");
		json_object_set_new(json, "line", json_str_or_null(text));
		emit(json);
	} else if (report->mode != REPORT_QUIET) {
		printf("  %-8s %s\n", report->stage, text);
		fflush(stdout);
	}
}

void report_output(struct report *report, const char *step, const void *data, size_t length)
{
	json_t *json;

	if (length == 0) {
		return;
	}
	log_bytes(report, data, length);
	if (report->mode == REPORT_JSON) {
		json = event_new(report, "output");
		json_object_set_new(json, "step", json_string(step));
		json_object_set_new(json, "data", json_str_lossy(data, length));
		emit(json);
	} else if (report->mode != REPORT_QUIET) {
		if (report->live) {
			wipe(report);
		}
		fwrite(data, 1, length, stdout);
		fflush(stdout);
	}
	report->mid_line = ((const char *)data)[length - 1] != '\n';
}

void report_stage_end(struct report *report, const char *format, ...)
{
	char text[DETAIL_SIZE];
	int64_t took_us = clock_mono_us() - report->stage_us;
	va_list args;
	json_t *json;

	if (report->stage[0] == '\0') {
		return;
	}
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (text[0] != '\0') {
		log_text(report, report->stage, text);
	}
	wipe(report);
	if (report->mode == REPORT_JSON) {
		json = event_new(report, "stage_end");
		json_object_set_new(json, "result", json_str_or_null(text));
		json_object_set_new(json, "took_ms", json_real((double)took_us / 1e3));
		emit(json);
	} else if (report->mode != REPORT_QUIET) {
		printf("  %-8s %8.3f s  %s%s%s\n", report->stage, (double)took_us / 1e6,
			report->detail, text[0] != '\0' ? ": " : "", text);
		fflush(stdout);
	}
	report->stage[0] = '\0';
}

static void result_json(struct report *report, const struct report_result *result)
{
	json_t *json = event_new(report, "result");

	json_object_set_new(json, "environment", json_string(result->environment));
	json_object_set_new(json, "state", json_string(result->state));
	json_object_set_new(json, "commit",
		json_str_or_null(result->commit[0] != '\0' ? result->commit : NULL));
	json_object_set_new(json, "image",
		result->image_id == 0 ? json_null()
				      : json_sprintf("img-%lld", (long long)result->image_id));
	json_object_set_new(json, "took_ms", json_real((double)result->took_us / 1e3));
	if (result->error != NULL) {
		json_object_set_new(json, "error", json_from_error(result->error));
	}
	emit(json);
}

void report_result(struct report *report, const struct report_result *result)
{
	CLEANUP(free_p) char *text = NULL;

	if (result->error != NULL) {
		/* The stage that failed says so by the message below. */
		text = xasprintf("failed: %s", result->error->message);
	} else {
		text = xasprintf("%s%s%s", result->state, result->commit[0] != '\0' ? " at " : "",
			result->commit);
	}
	wipe(report);
	report->stage[0] = '\0';
	if (result->build_id != 0) {
		log_text(report, "build", text);
	}
	report->log_fd = -1;
	if (report->mode == REPORT_JSON) {
		result_json(report, result);
	} else if (report->mode != REPORT_QUIET && result->error == NULL) {
		if (result->image_id != 0) {
			printf("%s: %s img-%lld", result->environment, result->state,
				(long long)result->image_id);
		} else {
			printf("%s: %s", result->environment, result->state);
		}
		printf("%s%.12s in %.3f s\n", result->commit[0] != '\0' ? " at " : "",
			result->commit, (double)result->took_us / 1e6);
		fflush(stdout);
	}
	report->environment[0] = '\0';
	report->build_id = 0;
}
