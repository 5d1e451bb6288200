/* When an environment is due for its next build. Pure: hobd and `hob-build --due` ask the same. */
#ifndef HOB_CONFIGS_SCHEDULE_H
#define HOB_CONFIGS_SCHEDULE_H

#include "configs/cron.h"

#include <stdbool.h>
#include <stdint.h>

struct environment;

/* What an environment says of its builds' times. */
struct schedule {
	int64_t every_ms; /* 0: by no interval; -1: not said, see schedule_of */
	char *cron_text; /* NULL: by no expression; `cron` is what it means */
	struct cron cron;
	char *zone; /* of the expression; NULL: this machine's */
	int64_t jitter_ms; /* an expression's times are this much later at the most */
};

/* With the interval that holds where neither it nor an expression is said (hob.yaml's build_every).
 * Texts stay the environment's. */
struct schedule schedule_of(const struct environment *environment, int64_t build_every_ms);

/*
 * The real time (ms) at which `name` is next due, given when its last build started (0: never);
 * INT64_MAX: only when told. A first build is due at once. An interval's builds are on a grid of
 * every_ms shifted by a hash of the name, so that many environments do not start together, with at
 * least half an interval between two; an expression's are shifted by up to jitter_ms in the same
 * way. With both, whichever comes first.
 */
int64_t schedule_next_ms(
	const char *name, const struct schedule *schedule, int64_t last_started_ms);

#endif
