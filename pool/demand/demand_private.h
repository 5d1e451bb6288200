/* What the files of this folder share: the state of forecasts at work, and how they are kept. */
#ifndef HOB_POOL_DEMAND_DEMAND_PRIVATE_H
#define HOB_POOL_DEMAND_DEMAND_PRIVATE_H

#include "pool/demand/demand.h"
#include "pool/forecast/forecast.h"

/* A claim that the forecast has not heard of yet. */
struct demand_event {
	int64_t real_ms;
	bool hit;
};

/* Of one environment. */
struct demand {
	struct forecast *forecast;
	struct forecast_price own; /* in use when pool.hit_rate is not the machine's */
	int64_t wanted; /* by the forecast alone; -1: there is none */
	int64_t target;
	const char *limited_by; /* the setting that keeps the target below what is wanted */
	double bytes; /* of a ready sandbox, smoothed */
	bool measured;
	double idle_bytes; /* of one that gave its memory back, smoothed */
	bool idle_measured;
	double disk; /* bytes on disk of a ready one, smoothed */
	bool disk_measured;
	bool was_squeezed; /* at the last look */
	bool squeezed; /* see demand_is_squeezed; its ready ones count with idle_bytes */
	bool changed; /* since it was saved */
	bool outdated; /* a claim came since the target was worked out */
	struct demand_event *events; /* claims of this turn of the loop */
	size_t event_count, event_room;
	int64_t wasted_ms;
};

struct demands {
	struct forecast_price price; /* of all environments without a share of their own */
	bool some_outdated, all_outdated;
	int64_t minute_at_ms, save_at_ms;
};

/* Made and loaded when there is none. */
struct demand *demand_of(struct pool *pool);

/* demand_budget.c */
/* Of a ready sandbox, until one was measured: what an idle native one has. */
#define DEMAND_BYTES_FIRST (1 << 20)
/* The same on disk: folders of an empty layer, and what services write as they start. */
#define DEMAND_DISK_FIRST (256 << 10)
/* How many ready ones pool.disk is enough for, beside its claimed ones. */
int64_t disk_count(const struct pool *pool);
/* Once a minute: what a ready one takes. */
void demand_measure(struct pool *pool);
/* How many of its ready ones `bytes` are enough for; squeezes them when that is not all. */
int64_t budget_count(struct pool *pool, int64_t target, int64_t bytes);
/* Lowers targets until the machine's budgets are kept. */
void budget_share(struct manager *manager);
/* After that: those of pools which were squeezed only now freeze. */
void budget_squeeze(struct manager *manager);

/* demand_save.c */
void demand_load(struct pool *pool);
void demands_load_price(struct manager *manager);
void demands_save(struct manager *manager);

#endif
