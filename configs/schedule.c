/* The grid of builds: an environment's name shifts it, the last start says where on it we are. */
#include "configs/schedule.h"

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

int64_t schedule_next_ms(const char *name, int64_t last_started_ms, int64_t every_ms)
{
	int64_t phase, earliest, slot;

	if (every_ms <= 0) {
		return INT64_MAX;
	}
	if (last_started_ms <= 0) {
		return 0;
	}
	phase = (int64_t)(name_hash(name) % (uint64_t)every_ms);
	if (last_started_ms > INT64_MAX - 2 * every_ms) {
		return INT64_MAX;
	}
	/* The first slot phase + k * every_ms that lies at least half an interval away. */
	earliest = last_started_ms + every_ms / 2 + every_ms % 2;
	slot = earliest <= phase ? 0 : (earliest - phase + every_ms - 1) / every_ms;
	return phase + slot * every_ms;
}
