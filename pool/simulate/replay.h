/*
 * All claims again, against the pool's own plan and a policy that says each environment's target,
 * with a clock that jumps from event to event. What counts as idle is every second of a sandbox
 * that is ready and nobody's, those that a hint holds too.
 */
#ifndef HOB_POOL_SIMULATE_REPLAY_H
#define HOB_POOL_SIMULATE_REPLAY_H

#include "pool/simulate/arrivals.h"

/* Who says how many of an environment should stand ready. */
struct policy {
	void *context;
	/* After each claim and once a minute. */
	int64_t (*target)(void *context, int64_t now_ms);
	/* A claim came; NULL: it does not care. */
	void (*claim)(void *context, int64_t now_ms, bool hit);
};

struct replay_result {
	uint64_t claims, hits;
	double idle_seconds, wait_seconds;
	uint64_t made; /* sandboxes */
	/* Of claims that waited, in ms. */
	int32_t *waits;
	size_t wait_count, wait_room;
};

struct replay_spec {
	const struct arrivals *arrivals;
	int64_t making_ms; /* from the request for a sandbox until it is ready */
	bool hints; /* sandboxes are reserved at the first keystroke */
};

/* A policy for each environment. The result is the caller's to end. */
void replay_run(const struct replay_spec *spec, const struct policy *policies,
	struct replay_result *ret_result);
void replay_result_done(struct replay_result *result);

#endif
