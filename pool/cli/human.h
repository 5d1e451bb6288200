/* Numbers and times as people read them, and what of it a terminal may be shown. */
#ifndef HOB_POOL_CLI_HUMAN_H
#define HOB_POOL_CLI_HUMAN_H

#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>

#define HUMAN_SIZE 32

/* "812 B", "1.4 KiB", "20 MiB" into text[HUMAN_SIZE]. */
void human_bytes(char *text, int64_t bytes);
/* A span in one unit that fits, "84 µs", "1.2 ms", "3.4 s", "12 min", "2.1 h", "5 d". */
void human_span(char *text, int64_t us);
/* Time since an RFC 3339 time, "12s", "3m", "5h", "2d"; "-" for null or nonsense. */
void human_age(char *text, const char *at);
/* Time until, the same way; "-" for null. Past is "0s". */
void human_until(char *text, const char *at);

/* A member as text: "-" for null and absent, numbers and booleans written out. The caller frees it.
 */
char *human_member(const json_t *object, const char *key);
/* The first 12 digits of a commit, "-" without. The caller frees it. */
char *human_commit(const json_t *object);

enum style { STYLE_PLAIN, STYLE_GOOD, STYLE_WARN, STYLE_BAD, STYLE_DIM, STYLE_HEAD };
/* Is standard output a terminal that may show colour ($NO_COLOR, TERM=dumb)? */
bool style_wanted(void);
/* How the state of a sandbox or build looks. */
enum style style_of_state(const char *state);
/* Prints text with control characters made harmless, in its style when wanted. */
void style_print(const char *text, enum style style);

/* JSON for --json: indented on a terminal, one line otherwise. */
void human_print_json(const json_t *json);
/* "Name:  value" lines of `hob info` and its like. */
void human_print_field(const char *name, const char *value);
/* The same for {name, key of the object} pairs. */
void human_print_members(const json_t *object, const char *const (*members)[2], size_t count);

#endif
