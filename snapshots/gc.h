/*
 * Garbage collection: which snapshots an environment's policy lets go, which images are neither
 * head nor among the newest nor needed, which lists of layers a flattening has left and nobody
 * stands on, and which layers nothing lists. Each decision has its reason. Every removal is one
 * transaction of its own, so that it can be killed at any point and goes on the next time.
 */
#ifndef HOB_SNAPSHOTS_GC_H
#define HOB_SNAPSHOTS_GC_H

#include "snapshots/store.h"

struct gc_policy {
	const char *environment; /* NULL: of every environment without one of its own */
	int64_t keep_last;
	int64_t keep_for_ms; /* with keep_last also 0: everything is kept */
	bool keep_labelled;
};

struct gc_decision {
	char name[32]; /* "snap-3", "img-4", "layer 5" */
	char environment[65]; /* empty for layers */
	bool remove;
	char reason[96];
	uint64_t bytes; /* exclusive before anything was removed */
	int64_t id, created_ms;
	enum { GC_SNAPSHOT, GC_IMAGE, GC_LIST, GC_LAYER } kind;
};

struct gc_plan {
	struct gc_decision *decisions;
	size_t count;
	size_t removals; /* how many of them remove */
};

/* Reads, decides, changes nothing. 10,000 snapshots with nothing to do take about 20 ms. */
MUSTCHECK int gc_plan_make(struct store *store, const struct gc_policy *policies, size_t count,
	struct gc_plan *ret_plan, struct error *err);
/* The same when space is short: of images only what is needed stays, of layers kept for reuse
 * nothing, and the removals come in order of age. */
MUSTCHECK int gc_plan_pressed(struct store *store, const struct gc_policy *policies, size_t count,
	struct gc_plan *ret_plan, struct error *err);
void gc_plan_done(struct gc_plan *plan);

struct gc_result {
	uint64_t removed;
	uint64_t passed_over; /* somebody took it up since: its reason says who */
	uint64_t freed;
};
/* Carries it out; each removal looks again. What is in use meanwhile is passed over. */
MUSTCHECK int gc_plan_run(
	struct store *store, struct gc_plan *plan, struct gc_result *ret_result, struct error *err);
/* Until enough() is true, which is asked before each removal; what is left then is kept. */
typedef bool gc_enough_fn(void *context);
MUSTCHECK int gc_plan_run_until(struct store *store, struct gc_plan *plan, gc_enough_fn *enough,
	void *context, struct gc_result *ret_result, struct error *err);

#endif
