/*
 * Policies beside each other on the same claims: each is run with several settings, which gives a
 * curve of idle time against hits, and is compared where the curves have the same share of hits.
 */
#ifndef HOB_POOL_SIMULATE_COMPARE_H
#define HOB_POOL_SIMULATE_COMPARE_H

#include "pool/simulate/arrivals.h"

enum policy_kind {
	POLICY_FIXED, /* the best sizes in hindsight, one an environment */
	POLICY_REACTIVE, /* as many as were needed at a time lately */
	POLICY_FORECAST,
	POLICY_HINTS, /* the forecast, and a sandbox reserved at the first keystroke */
	POLICY_LEASES, /* only the latter */
	POLICY_CLAIRVOYANT, /* the best size for each hour in hindsight */
	POLICIES
};
const char *policy_name(enum policy_kind kind);
bool policy_from_name(const char *name, enum policy_kind *ret_kind);

/* One run. */
struct outcome {
	double setting; /* hit rate aimed at; of reactive: seconds it remembers */
	double hit_rate;
	double wait_mean_ms; /* over all claims */
	double wait_p99_ms;
	double idle_seconds;
	uint64_t made;
};

#define OUTCOMES_MAX 12
struct curve {
	enum policy_kind kind;
	struct outcome outcomes[OUTCOMES_MAX]; /* by setting */
	size_t count;
	struct outcome aimed; /* run with the hit rate that was asked for */
	double idle_at; /* idle seconds where the curve has that hit rate; negative: nowhere */
};

/* Runs a policy. `whole`: with all settings; otherwise only the one aimed at. */
void curve_make(const struct arrivals *arrivals, enum policy_kind kind, int64_t making_ms,
	double hit_rate, bool whole, struct curve *ret_curve);

#endif
