/* Time: monotonic for intervals, real for people. Durations are text like "90s", "30m", "1h30m". */
#ifndef HOB_BASE_CLOCK_H
#define HOB_BASE_CLOCK_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

int64_t clock_mono_us(void);
int64_t clock_mono_ms(void);
int64_t clock_real_ms(void);

#define CLOCK_TEXT_SIZE 32
/* RFC 3339 in UTC with milliseconds, "2026-01-31T12:00:00.123Z", into text[CLOCK_TEXT_SIZE]. */
void clock_format(char *text, int64_t real_ms);
/* Such a text, with or without a fraction. False if it is none. */
bool clock_parse(const char *text, int64_t *ret_real_ms);

/* Units ms, s, m, h, d; a bare "0" is allowed, any other bare number is not. False if malformed,
 * negative or longer than ten years. */
bool duration_parse(const char *text, int64_t *ret_ms);
/* The shortest exact form, "1h30m"; into text[CLOCK_TEXT_SIZE]. */
void duration_format(char *text, int64_t ms);

#endif
