/*
 * What each environment's pool should keep ready: its forecast (pool/forecast/), between pool.min
 * and pool.max, and within the memory, disk and number of sandboxes that the machine may spend on
 * it. Over a budget, the sandbox goes without which the fewest seconds are waited for its bytes;
 * those of pool.min last, claimed ones never. Where frozen ones can give their memory back, a
 * budget of memory that is short has them do so at once, in the same order, before any is given up.
 *
 * A forecast outlives hobd in <store>/forecasts/<environment>, written every few minutes and at the
 * end. Losing one loses some hours of learning, so they are not synced; a torn one is reported and
 * forgotten.
 */
#ifndef HOB_POOL_DEMAND_DEMAND_H
#define HOB_POOL_DEMAND_DEMAND_H

#include "base/json.h"
#include "pool/manager.h"

#include <stdint.h>

struct demand;
struct demands;

void demands_open(struct manager *manager);
/* Saves all of them. The pools' own go with the pools. */
void demands_close(struct manager *manager);
void demand_free(struct demand *demand);

/* A claim of the head image came, and found a sandbox ready or not. */
void demand_claim(struct pool *pool, bool hit);
/* One has become ready, this long after it was asked for. */
void demand_made(struct pool *pool, int64_t took_us);
/* Once a turn of the reconciler, before any target is asked for. */
void demands_look(struct manager *manager);
/* Environments' files have changed. */
void demands_outdated(struct manager *manager);
/* Ready ones wanted. */
int64_t demand_target(const struct pool *pool);
/* What the forecast alone says, before limits; -1: there is none. */
int64_t demand_forecast(const struct pool *pool);
double demand_rate(const struct pool *pool); /* claims a second */
/* One goes that stood idle so long and was never claimed; and all of that so far. */
void demand_wasted(struct pool *pool, int64_t idle_ms);
int64_t demand_wasted_ms(const struct pool *pool);

/* A ready one is about to give its memory back, or has: what it takes now. */
void demand_weigh(const struct entry *entry);
void demand_weigh_first(const struct entry *entry); /* the first that is warm */
/* A ready one has written so much. */
void demand_weigh_disk(struct pool *pool, int64_t bytes);
/* Of a ready one, smoothed; -1: not known. */
int64_t demand_disk_each(const struct pool *pool);
/* Memory is short, and its ready ones give theirs back as soon as they are warm. */
bool demand_is_squeezed(const struct pool *pool);

json_t *demand_explain(const struct pool *pool);

#endif
