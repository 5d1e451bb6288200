/* When an environment is due for its next build. Pure: hobd and `hob-build --due` ask the same. */
#ifndef HOB_CONFIGS_SCHEDULE_H
#define HOB_CONFIGS_SCHEDULE_H

#include <stdint.h>

/*
 * The real time (ms) at which `name` is next due, given when its last build started (0: never) and
 * its interval (0: never due; returns INT64_MAX). A first build is due at once. Later ones are due
 * on a grid of every_ms shifted by a hash of the name, so that many environments do not start
 * together; at least half an interval lies between two.
 */
int64_t schedule_next_ms(const char *name, int64_t last_started_ms, int64_t every_ms);

#endif
