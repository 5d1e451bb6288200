/*
 * What a build tells the one who watches and its log: stages with progress, lines, the output of
 * steps. A terminal gets one live line, a pipe plain lines, --json one JSON object a line.
 */
#ifndef HOB_BUILDER_REPORT_H
#define HOB_BUILDER_REPORT_H

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

/* Of builds/<id>.log: a step in a loop must not fill the disk with its complaints. */
#define REPORT_LOG_MAX (64LL * 1024 * 1024)

enum report_mode { REPORT_TERMINAL, REPORT_PLAIN, REPORT_JSON, REPORT_QUIET };

struct report;

struct report *report_new(enum report_mode mode);
void report_free(struct report *report);
DEFINE_CLEANUP(report_free_p, struct report, report_free)

/* From now on it is about this build; log_fd (-1: none) stays the caller's. */
void report_begin(struct report *report, const char *environment, int64_t build_id, int log_fd);
/* A stage ("fetch") with what it works on; ends the one before. */
void report_stage(struct report *report, const char *stage, const char *format, ...)
	PRINTF_LIKE(3, 4);
/* How far the stage is; total 0: unknown; bytes 0: not worth showing. */
void report_progress(
	struct report *report, const char *unit, uint64_t done, uint64_t total, uint64_t bytes);
/* One line about the stage, shown and kept in the log. */
void report_line(struct report *report, const char *format, ...) PRINTF_LIKE(2, 3);
/* A step's output as it comes. */
void report_output(struct report *report, const char *step, const void *data, size_t length);
/* What the stage came to, shown with the time it took. */
void report_stage_end(struct report *report, const char *format, ...) PRINTF_LIKE(2, 3);

struct report_result {
	const char *environment;
	int64_t build_id; /* 0: it did not get that far */
	const char *state;
	const char *commit; /* "" if unknown */
	int64_t image_id; /* 0: none */
	int64_t took_us;
	const struct error *error; /* NULL: none */
};
void report_result(struct report *report, const struct report_result *result);

#endif
