/*
 * What the reconciler should do next for one environment: a pure function of counts, so that its
 * rules can be tested without a sandbox. reconcile.c fills in the view and carries out the plan.
 */
#ifndef HOB_POOL_PLAN_H
#define HOB_POOL_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool_view {
	bool draining; /* the environment's file is gone */
	bool has_head;
	int64_t target; /* ready ones wanted: demand_target */
	int64_t max; /* of ready and claimed ones: pool.max */
	/* Sandboxes of this environment. */
	int64_t ready_head; /* ready, on the head image */
	int64_t ready_stale; /* ready, on an older one */
	int64_t creating_head; /* under way on the head image, whoever will get them */
	int64_t creating_other; /* under way on another image for a claim, or for a hint */
	int64_t hinted; /* ready, but reserved by a hint: none of the above */
	int64_t claimed;
	int64_t waiting_head; /* claims that wait for one on the head image */
	/* The machine. */
	int64_t machine_total; /* every sandbox that is not gone */
	int64_t machine_max;
	int64_t machine_creating;
	int64_t creates_max; /* under way at a time; 0: as below */
	bool backing_off; /* creations failed; wait */
};

struct pool_plan {
	int64_t create; /* on the head image, for the pool */
	int64_t retire_stale;
	int64_t retire_ready; /* ready on the head but more than wanted */
	bool capped; /* a limit keeps the pool below its target */
};

/* Creations under way at a time: enough to keep every launcher busy, few enough that a claim which
 * needs one now does not queue behind a refill. */
#define CREATES_PER_POOL 8
#define CREATES_OVERALL 16

struct pool_plan pool_plan_make(const struct pool_view *view);

/* Exponential back-off with jitter: 1 s, 2 s, 4 s … 5 min; `random` is any 32 bits. */
#define BACKOFF_FIRST_MS 1000
#define BACKOFF_MAX_MS (5 * 60 * 1000)
int64_t backoff_ms(unsigned attempts, uint32_t random);

#endif
