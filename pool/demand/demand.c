/* Forecasts put to work: events in, targets out. */
#include "pool/demand/demand_private.h"

#include "base/clock.h"
#include "base/log.h"
#include "configs/config.h"

#include <math.h>
#include <time.h>

#define LOOK_EVERY_MS 60000
#define SAVE_EVERY_MS (10 * 60000)

static int64_t local_time(int64_t real_ms)
{
	time_t at = (time_t)(real_ms / 1000);
	struct tm local;

	return localtime_r(&at, &local) != NULL ? real_ms + local.tm_gmtoff * 1000 : real_ms;
}

/* 0: no forecast, pool.min alone. */
static double hit_rate_of(const struct pool *pool)
{
	int64_t own = pool->conf != NULL ? pool->conf->pool_hit_rate : -1;

	return (double)(own >= 0 ? own : pool->manager->config->hit_rate) / 1000;
}

/* A share of its own pays a price of its own. */
static void price_choose(struct demand *demand, const struct pool *pool)
{
	double hit_rate = hit_rate_of(pool);
	bool own = pool->conf != NULL && pool->conf->pool_hit_rate > 0 &&
		   pool->conf->pool_hit_rate != pool->manager->config->hit_rate;

	if (own && demand->own.hit_rate != hit_rate) {
		demand->own = forecast_price_first(hit_rate);
	}
	forecast_set_price(demand->forecast, own ? &demand->own : &pool->manager->demands->price);
}

struct demand *demand_of(struct pool *pool)
{
	if (pool->demand == NULL) {
		struct demand *demand = xcalloc(1, sizeof(*demand));

		demand->bytes = DEMAND_BYTES_FIRST;
		demand->idle_bytes = DEMAND_BYTES_FIRST;
		demand->disk = DEMAND_DISK_FIRST;
		demand->wanted = -1;
		demand->forecast = forecast_new(&pool->manager->demands->price, local_time);
		pool->demand = demand;
		demand_load(pool);
	}
	return pool->demand;
}

void demand_free(struct demand *demand)
{
	if (demand != NULL) {
		forecast_free(demand->forecast);
		free(demand->events);
		free(demand);
	}
}

/* ---- events ---- */

void demand_claim(struct pool *pool, bool hit)
{
	struct demand *demand = demand_of(pool);

	*array_add(&demand->events, &demand->event_count, &demand->event_room) =
		(struct demand_event){clock_real_ms(), hit};
	demand->outdated = true;
	pool->manager->demands->some_outdated = true;
	manager_dirty(pool->manager);
}

/* Not while the claim waits for its answer. */
static void settle(struct pool *pool)
{
	struct demand *demand = pool->demand;

	if (demand == NULL || demand->event_count == 0) {
		return;
	}
	price_choose(demand, pool);
	for (size_t i = 0; i < demand->event_count; i++) {
		forecast_claim(demand->forecast, demand->events[i].real_ms, demand->events[i].hit);
	}
	demand->event_count = 0;
	demand->changed = true;
}

static void settle_all(struct manager *manager)
{
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		settle(pool);
	}
}

void demand_made(struct pool *pool, int64_t took_us)
{
	struct demand *demand = demand_of(pool);

	forecast_made(demand->forecast, (took_us + 999) / 1000);
	demand->changed = true;
}

void demands_outdated(struct manager *manager)
{
	manager->demands->all_outdated = true;
}

int64_t demand_wasted_ms(const struct pool *pool)
{
	return pool->demand != NULL ? pool->demand->wasted_ms : 0;
}

void demand_wasted(struct pool *pool, int64_t idle_ms)
{
	demand_of(pool)->wasted_ms += idle_ms > 0 ? idle_ms : 0;
}

/* ---- targets ---- */

static void aim(struct pool *pool, int64_t now_ms)
{
	struct demand *demand = demand_of(pool);
	int64_t wanted = 0, target, most;

	price_choose(demand, pool);
	demand->limited_by = NULL;
	demand->wanted = -1;
	if (hit_rate_of(pool) > 0) {
		wanted = forecast_target(demand->forecast, now_ms, INT32_MAX);
		demand->wanted = wanted;
	}
	target = wanted > pool->conf->pool_min ? wanted : pool->conf->pool_min;
	if (target > pool->conf->pool_max) {
		target = pool->conf->pool_max;
		demand->limited_by = "pool.max";
	}
	demand->squeezed = false;
	most = budget_count(pool, target, pool->conf->pool_memory);
	if (target > most) {
		target = most;
		demand->limited_by = "pool.memory";
	}
	most = disk_count(pool);
	if (target > most) {
		target = most;
		demand->limited_by = "pool.disk";
	}
	demand->target = target;
	demand->outdated = false;
}

void demands_look(struct manager *manager)
{
	struct demands *demands = manager->demands;
	int64_t now_ms = clock_mono_ms(), real_ms = clock_real_ms();
	bool minute = now_ms >= demands->minute_at_ms;
	bool all = minute || demands->all_outdated;

	if (!all && !demands->some_outdated) {
		return;
	}
	settle_all(manager);
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		if (pool->conf == NULL ||
			(!all && (pool->demand == NULL || !pool->demand->outdated))) {
			continue;
		}
		aim(pool, real_ms);
		if (minute) {
			demand_measure(pool);
		}
	}
	budget_share(manager);
	budget_squeeze(manager);
	demands->some_outdated = false;
	demands->all_outdated = false;
	if (minute) {
		demands->minute_at_ms = now_ms + LOOK_EVERY_MS;
	}
	if (now_ms >= demands->save_at_ms) {
		demands->save_at_ms = now_ms + SAVE_EVERY_MS;
		demands_save(manager);
	}
}

int64_t demand_target(const struct pool *pool)
{
	/* Not looked at yet: its file has only just come. */
	if (pool->demand == NULL) {
		return pool->conf != NULL ? pool->conf->pool_min : 0;
	}
	return pool->conf != NULL ? pool->demand->target : 0;
}

int64_t demand_forecast(const struct pool *pool)
{
	return pool->demand != NULL ? pool->demand->wanted : -1;
}

double demand_rate(const struct pool *pool)
{
	struct forecast_view view;

	if (pool->demand == NULL) {
		return 0;
	}
	forecast_look(pool->demand->forecast, &view);
	return view.rate;
}

void demands_open(struct manager *manager)
{
	int64_t hit_rate = manager->config->hit_rate;

	manager->demands = xcalloc(1, sizeof(*manager->demands));
	manager->demands->price =
		forecast_price_first(hit_rate > 0 ? (double)hit_rate / 1000 : 0.95);
	manager->demands->save_at_ms = clock_mono_ms() + SAVE_EVERY_MS;
	demands_load_price(manager);
}

void demands_close(struct manager *manager)
{
	if (manager->demands != NULL) {
		settle_all(manager);
		demands_save(manager);
		free(manager->demands);
		manager->demands = NULL;
	}
}
