/*
 * Claims that came somewhere once, from CSV files (compressed or not) of two kinds: a line for each
 * claim with a column of times, or the Azure Functions format with a column for each minute of a
 * day. Sorted by environment, then by time.
 */
#ifndef HOB_POOL_SIMULATE_ARRIVALS_H
#define HOB_POOL_SIMULATE_ARRIVALS_H

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arrival {
	int64_t at_ms; /* local time; of an abandoned draft: its last keystroke */
	int64_t typing_ms; /* since its first keystroke; -1: no keystrokes are known */
	int64_t chars; /* length of the prompt; -1: not known */
	uint32_t environment;
	bool abandoned; /* was typed and never sent: no claim */
};

struct arrivals {
	struct arrival *items;
	size_t count, room;
	char **names; /* of environments */
	size_t name_count, name_room;
	size_t *first; /* of each environment, and one more: the end */
	size_t claims; /* those not abandoned */
	int64_t begin_ms, end_ms; /* watched */
	bool keystrokes; /* some are known */
};

/* Adds the claims of a file. */
MUSTCHECK int arrivals_read(struct arrivals *arrivals, const char *path, struct error *err);
/* Keystrokes as people who write to coding agents make them, where the file has none; and one draft
 * in five that is never sent. The same every time. */
void arrivals_type(struct arrivals *arrivals);
/* Sorts and counts: after the last file, before anything else. ERROR_INVALID when there is none. */
MUSTCHECK int arrivals_finish(struct arrivals *arrivals, struct error *err);
void arrivals_done(struct arrivals *arrivals);

#endif
