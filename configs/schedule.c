/* The grid of builds: an environment's name shifts it, the last start says where on it we are. */
#include "configs/schedule.h"

#include "configs/environment.h"

#include <stddef.h>

/* FNV-1a: spreads similar names, and is the same on every machine and in every version. */
static uint64_t name_hash(const char *name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (; *name != '\0'; name++) {
		hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
	}
	/* FNV's low bits know little of the last letters' high bits; fold the high half in. */
	return hash ^ (hash >> 32);
}

struct schedule schedule_of(const struct environment *environment, int64_t build_every_ms)
{
	struct schedule schedule = environment->schedule;

	if (schedule.every_ms < 0) {
		schedule.every_ms = schedule.cron_text != NULL ? 0 : build_every_ms;
	}
	return schedule;
}

static int64_t next_on_grid(const char *name, int64_t every_ms, int64_t last_started_ms)
{
	int64_t phase, earliest, slot;

	if (every_ms <= 0 || last_started_ms > INT64_MAX - 2 * every_ms) {
		return INT64_MAX;
	}
	phase = (int64_t)(name_hash(name) % (uint64_t)every_ms);
	/* The first slot phase + k * every_ms that lies at least half an interval away. */
	earliest = last_started_ms + every_ms / 2 + every_ms % 2;
	slot = earliest <= phase ? 0 : (earliest - phase + every_ms - 1) / every_ms;
	return phase + slot * every_ms;
}

static int64_t next_by_cron(
	const char *name, const struct schedule *schedule, int64_t last_started_ms)
{
	int64_t shift = 0, next;

	if (schedule->cron_text == NULL) {
		return INT64_MAX;
	}
	if (schedule->jitter_ms > 0) {
		shift = (int64_t)(name_hash(name) % (uint64_t)schedule->jitter_ms);
	}
	/* A start before the shifted time belongs to the time before. */
	next = cron_next_ms(&schedule->cron, schedule->zone, last_started_ms - shift);
	return next == INT64_MAX ? next : next + shift;
}

int64_t schedule_next_ms(const char *name, const struct schedule *schedule, int64_t last_started_ms)
{
	int64_t by_interval, by_cron;

	if (schedule->every_ms <= 0 && schedule->cron_text == NULL) {
		return INT64_MAX;
	}
	if (last_started_ms <= 0) {
		return 0;
	}
	by_interval = next_on_grid(name, schedule->every_ms, last_started_ms);
	by_cron = next_by_cron(name, schedule, last_started_ms);
	return by_interval < by_cron ? by_interval : by_cron;
}
