/*
 * Levels that somebody would choose who knows what came: the number of sandboxes to keep ready in
 * each period of each environment, so that a given share of all claims finds one at the least idle
 * time. A period of an hour gives the bound that no forecast reaches; the whole time gives the best
 * fixed sizes.
 */
#ifndef HOB_POOL_SIMULATE_HINDSIGHT_H
#define HOB_POOL_SIMULATE_HINDSIGHT_H

#include "pool/simulate/arrivals.h"

struct hindsight;

/* period_ms 0: one for the whole time. Depths are counted within making_ms. */
struct hindsight *hindsight_new(
	const struct arrivals *arrivals, int64_t period_ms, int64_t making_ms);
void hindsight_free(struct hindsight *hindsight);
DEFINE_CLEANUP(hindsight_free_p, struct hindsight, hindsight_free)
/* Chooses the levels for this share of hits, which is then met as nearly as whole sandboxes allow,
 * from above. */
void hindsight_aim(struct hindsight *hindsight, double hit_rate);
int64_t hindsight_level(const struct hindsight *hindsight, size_t environment, int64_t now_ms);

#endif
