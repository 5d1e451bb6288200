/*
 * Budgets shared out. What a sandbox takes is measured: one that runs, and one that has given its
 * memory back. A pool is squeezed before any of its sandboxes is given up, and it is worked out
 * anew from what they take unsqueezed, so that the answer does not depend on the last one.
 */
#include "pool/demand/demand_private.h"

#include "base/log.h"
#include "configs/config.h"
#include "pool/disk.h"
#include "pool/freeze.h"
#include "pool/page_out.h"
#include "pool/sandbox/sandbox.h"

#define BYTES_WEIGHT 0.2

/* ---- what they take ---- */

static void smooth(double *value, bool *known, double measured)
{
	*value += *known ? (measured - *value) * BYTES_WEIGHT : measured - *value;
	*known = true;
}

static void weigh(const struct entry *entry)
{
	struct demand *demand = entry->pool->demand;
	int64_t cpu_us, bytes;
	struct error err = ERROR_INIT;

	if (sandbox_sums_read(entry->manager->config, entry->record.id, &cpu_us, &bytes, &err) <
			0 ||
		bytes <= 0) {
		return;
	}
	if (entry->paged_out) {
		smooth(&demand->idle_bytes, &demand->idle_measured, (double)bytes);
	} else {
		smooth(&demand->bytes, &demand->measured, (double)bytes);
	}
}

void demand_measure(struct pool *pool)
{
	const struct entry *entry = pool->entries[ENTRY_READY].first;

	if (entry != NULL) {
		weigh(entry);
	}
}

void demand_weigh_first(const struct entry *entry)
{
	if (!demand_of(entry->pool)->measured) {
		demand_weigh(entry);
	}
}

void demand_weigh(const struct entry *entry)
{
	struct demand *demand = demand_of(entry->pool);
	bool known = entry->paged_out ? demand->idle_measured : demand->measured;

	if (entry->record.state != ENTRY_READY) {
		return;
	}
	weigh(entry);
	/* What was a guess so far made the target what it is. */
	if (!known) {
		demands_outdated(entry->manager);
		manager_dirty(entry->manager);
	}
}

void demand_weigh_disk(struct pool *pool, int64_t bytes)
{
	struct demand *demand = demand_of(pool);

	smooth(&demand->disk, &demand->disk_measured, (double)bytes);
}

int64_t demand_disk_each(const struct pool *pool)
{
	return pool->demand != NULL && pool->demand->disk_measured ? (int64_t)pool->demand->disk
								   : -1;
}

int64_t disk_count(const struct pool *pool)
{
	int64_t left = pool->conf->pool_disk - pool->disk_claimed;
	double each = pool->demand->disk > 1 ? pool->demand->disk : 1;

	if (pool->conf->pool_disk == 0) {
		return INT64_MAX;
	}
	return left > 0 ? (int64_t)((double)left / each) : 0;
}

static double bytes_each(const struct demand *demand)
{
	return demand->squeezed ? demand->idle_bytes : demand->bytes;
}

/* ---- squeezing ---- */

bool demand_is_squeezed(const struct pool *pool)
{
	return pool->demand != NULL && pool->demand->squeezed;
}

static bool may_squeeze(const struct pool *pool)
{
	const struct manager *manager = pool->manager;
	const struct demand *demand = pool->demand;

	return manager->pages_out && manager->config->freeze_after_ms > 0 && !demand->squeezed &&
	       demand->target > 0 && (!demand->idle_measured || demand->idle_bytes < demand->bytes);
}

/* Until it is known what that gives back, no more are made than there are: the first of them is
 * paged out a moment later, and then it is known. */
static void squeeze(struct pool *pool, const char *reason)
{
	struct demand *demand = pool->demand;
	int64_t there =
		(int64_t)(pool->entries[ENTRY_CREATING].count + pool->entries[ENTRY_WARMING].count +
			  pool->entries[ENTRY_READY].count);

	demand->squeezed = true;
	if (demand->idle_measured) {
		return;
	}
	demand->idle_bytes =
		demand->bytes < DEMAND_BYTES_FIRST ? demand->bytes : (double)DEMAND_BYTES_FIRST;
	there = there > 0 ? there : 1;
	if (demand->target > there) {
		demand->target = there;
		demand->limited_by = reason;
	}
}

int64_t budget_count(struct pool *pool, int64_t target, int64_t bytes)
{
	struct demand *demand = pool->demand;

	if (bytes <= 0) {
		return INT64_MAX;
	}
	demand->target = target;
	if ((double)target * demand->bytes > (double)bytes && may_squeeze(pool)) {
		squeeze(pool, "pool.memory");
		bytes = (int64_t)((double)bytes / demand->idle_bytes);
		return demand->target < bytes ? demand->target : bytes;
	}
	return (int64_t)((double)bytes / bytes_each(demand));
}

void budget_squeeze(struct manager *manager)
{
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		struct entry *entry = pool->entries[ENTRY_READY].first;

		if (!demand_is_squeezed(pool) || pool->demand->was_squeezed) {
			entry = NULL;
		} else {
			log_info("pool.squeezed", "environment", pool->name, "ready",
				pool->entries[ENTRY_READY].count);
		}
		for (; entry != NULL; entry = entry->next) {
			if (!entry->frozen) {
				entry_freeze_later(entry);
			} else if (!entry->paged_out) {
				page_out_later(entry);
			}
		}
		if (pool->demand != NULL) {
			pool->demand->was_squeezed = pool->demand->squeezed;
		}
	}
}

/* ---- the machine's ---- */

enum budget { BUDGET_MEMORY, BUDGET_DISK, BUDGET_COUNT, BUDGETS };

static const char *const budget_settings[] = {[BUDGET_MEMORY] = "memory_budget",
	[BUDGET_DISK] = "disk_budget",
	[BUDGET_COUNT] = "max_sandboxes"};
_Static_assert(ARRAY_SIZE(budget_settings) == BUDGETS, "every budget has its setting");

/* Seconds of waiting that its last ready one spares, each second, for its bytes. */
static double last_worth(const struct pool *pool, enum budget budget)
{
	const struct demand *demand = pool->demand;
	double worth = forecast_worth_mean(demand->forecast, demand->target);
	double bytes = budget == BUDGET_DISK ? demand->disk : bytes_each(demand);

	return worth * (double)forecast_making_ms(demand->forecast) / (bytes > 1 ? bytes : 1);
}

static bool is_wanted(const struct pool *pool)
{
	return pool->demand->target > 0;
}

static bool is_above_min(const struct pool *pool)
{
	return pool->demand->target > (pool->conf != NULL ? pool->conf->pool_min : 0);
}

static struct pool *least_worth(
	const struct manager *manager, enum budget budget, bool (*may)(const struct pool *pool))
{
	struct pool *found = NULL;

	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		if (pool->demand != NULL && may(pool) &&
			(found == NULL || last_worth(pool, budget) < last_worth(found, budget))) {
			found = pool;
		}
	}
	return found;
}

static int64_t spent_bytes(const struct manager *manager)
{
	double bytes = 0;

	for (const struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		bytes += pool->demand != NULL
				 ? bytes_each(pool->demand) * (double)pool->demand->target
				 : 0;
	}
	return (int64_t)bytes;
}

static int64_t spent_count(const struct manager *manager)
{
	int64_t count = 0;

	for (const struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		count += (int64_t)(pool->entries[ENTRY_CLAIMED].count +
				   pool->entries[ENTRY_PAUSED].count);
		count += pool->demand != NULL ? pool->demand->target : 0;
	}
	return count;
}

static bool over_memory(const struct manager *manager)
{
	int64_t budget = manager->config->memory_budget;

	return budget > 0 && spent_bytes(manager) > budget;
}

static bool over_disk(const struct manager *manager)
{
	int64_t budget = manager->config->disk_budget;
	double bytes = (double)disk_claimed(manager);

	for (const struct pool *pool = manager->pools; budget > 0 && pool != NULL;
		pool = pool->next) {
		bytes += pool->demand != NULL ? pool->demand->disk * (double)pool->demand->target
					      : 0;
	}
	return budget > 0 && bytes > (double)budget;
}

static bool over_count(const struct manager *manager)
{
	return spent_count(manager) > manager->config->max_sandboxes;
}

void budget_share(struct manager *manager)
{
	static bool (*const is_over[])(const struct manager *manager) = {
		[BUDGET_MEMORY] = over_memory,
		[BUDGET_DISK] = over_disk,
		[BUDGET_COUNT] = over_count};
	struct pool *pool;

	while (over_memory(manager) &&
		(pool = least_worth(manager, BUDGET_MEMORY, may_squeeze)) != NULL) {
		squeeze(pool, budget_settings[BUDGET_MEMORY]);
	}
	for (int i = 0; i < BUDGETS; i++) {
		enum budget budget = (enum budget)i;

		/* What is claimed alone may be over it. */
		while (is_over[budget](manager) &&
			((pool = least_worth(manager, budget, is_above_min)) != NULL ||
				(pool = least_worth(manager, budget, is_wanted)) != NULL)) {
			pool->demand->limited_by = budget_settings[budget];
			pool->demand->target--;
		}
	}
}
