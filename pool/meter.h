/*
 * What a claimed sandbox has used: active time (claimed and not paused), CPU time and memory times
 * time, the latter two as its cgroup counts them. Memory is sampled every now and then and taken to
 * have changed evenly in between; while it is paused it keeps what it had. The sums are part of the
 * sandbox's record, so that they go on under the next hobd.
 */
#ifndef HOB_POOL_METER_H
#define HOB_POOL_METER_H

#include <stdint.h>

struct entry;
struct sandbox_usage;

struct meter_sums {
	int64_t active_ms, paused_ms;
	int64_t cpu_us; /* since the claim */
	int64_t memory_kib_s;
};

/* Claimed, or back from sleep: `begin` a moment after, so that the claim does not wait for it. */
/* What a sandbox that nobody has claimed has used until it was frozen: not its next owner's. */
void meter_frozen(struct entry *entry);
void meter_begin(struct entry *entry);
void meter_pause(struct entry *entry); /* before it is recorded */
void meter_resume(struct entry *entry);
/* Adopted: goes on. */
void meter_go_on(struct entry *entry);
/* The last look, while its cgroup is there; before the release is recorded. */
void meter_end(struct entry *entry);

/* What it comes to now. `usage` NULL: as of the last sample. */
struct meter_sums meter_read(const struct entry *entry, const struct sandbox_usage *usage);

void meter_on_timer(void *context);

#endif
