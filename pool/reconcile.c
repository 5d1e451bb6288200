/* The reconciler: compares each pool with its plan and moves it one step. Every step changes a
 * state or ends a creation, which makes the manager dirty again, so that steps follow until nothing
 * is left to do; waiting out a back-off needs a timer. */
#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "pool/claim.h"
#include "pool/demand/demand.h"
#include "pool/hints/hint.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/sync/refresh.h"
#include "pool/upkeep.h"

/* Creations begun in one turn of the loop: claims that arrive meanwhile wait no longer. */
#define CREATES_PER_TURN 1
/* So long after a claim others may follow it. */
#define GENTLY_MS 20
/* And again without any event, in case one was missed. */
#define RECONCILE_EVERY_MS 30000

static int64_t unreserved(const struct pool_image *image)
{
	return (int64_t)(image->ready - image->ready_hinted);
}

/* Of its ready ones. The lists are long and nearly always this is so. */
static bool all_on_head(const struct pool *pool)
{
	return pool->head == NULL || pool->entries[ENTRY_READY].count == pool->head->ready;
}

static int64_t refreshing_count(const struct pool *pool)
{
	int64_t count = 0;

	if (all_on_head(pool)) {
		return 0;
	}
	for (const struct entry *entry = pool->entries[ENTRY_READY].first; entry != NULL;
		entry = entry->next) {
		count += entry->hint == NULL && entry_refreshes(entry) ? 1 : 0;
	}
	return count;
}

static struct pool_view view_of(const struct pool *pool, int64_t now_ms)
{
	const struct manager *manager = pool->manager;
	int64_t creating = 0, refreshing;
	struct pool_view view = {
		.draining = pool->conf == NULL,
		.has_head = pool->head != NULL,
		.ready_head = pool->head != NULL ? unreserved(pool->head) : 0,
		.hinted = (int64_t)pool->ready_hinted,
		.claimed = (int64_t)(pool->entries[ENTRY_CLAIMED].count +
				     pool->entries[ENTRY_PAUSED].count),
		.machine_total = (int64_t)manager->entry_count,
		.machine_max = manager->config->max_sandboxes,
		.machine_creating = (int64_t)manager->creating_count,
		.backing_off = pool->attempts > 0 && now_ms < pool->retry_at_ms,
	};

	if (pool->conf != NULL) {
		view.target = demand_target(pool);
		view.max = pool->conf->pool_max;
	}
	if (space_is_low(manager) && view.target > SPACE_LOW_READY_MAX) {
		view.target = SPACE_LOW_READY_MAX;
	}
	refreshing = refreshing_count(pool);
	view.ready_stale = (int64_t)pool->entries[ENTRY_READY].count - view.hinted -
			   view.ready_head - refreshing;
	if (pool->head != NULL) {
		/* What is brought forward comes as surely as what is made. */
		view.creating_head =
			refreshing + (int64_t)(pool->head->creating - pool->head->creating_hinted);
		view.waiting_head = (int64_t)pool->head->waiting;
	}
	creating =
		(int64_t)(pool->entries[ENTRY_CREATING].count + pool->entries[ENTRY_WARMING].count);
	creating += refreshing;
	view.creating_other = creating > view.creating_head ? creating - view.creating_head : 0;
	return view;
}

/* Oldest first. */
static void retire(struct pool *pool, bool stale, int64_t wanted, const char *reason)
{
	struct entry *entry = pool->entries[ENTRY_READY].first;

	while (entry != NULL && wanted > 0) {
		struct entry *next = entry->next;

		if (entry->hint == NULL &&
			(entry->image != pool->head || entry->outdated) == stale &&
			!entry_refreshes(entry)) {
			entry_release(entry, reason);
			wanted--;
		}
		entry = next;
	}
}

/* So that claims go on being warm while it is filled again. */
static bool has_plenty(const struct pool_view *view)
{
	return view->ready_head >= view->target - view->ready_head;
}

/* When the pool is refilled after claims. 0: nobody has claimed. */
static int64_t refill_at_ms(struct pool *pool, const struct pool_view *view, int64_t now_ms)
{
	int64_t claimed_ms = pool->manager->claimed_at_ms;
	int64_t most_ms = has_plenty(view) ? REFILL_PAUSE_MAX_MS : REFILL_PAUSE_MS;

	if (view->ready_head + view->ready_stale >= view->target) {
		pool->short_since_ms = 0;
	} else if (pool->short_since_ms == 0) {
		pool->short_since_ms = now_ms;
	}
	most_ms += pool->short_since_ms;
	claimed_ms += claimed_ms > 0 ? REFILL_PAUSE_MS : 0;
	return claimed_ms < most_ms ? claimed_ms : most_ms;
}

static void look_again_at(struct manager *manager, int64_t at_ms)
{
	manager->refill_at_ms = at_ms < manager->refill_at_ms ? at_ms : manager->refill_at_ms;
}

/* Makes what the plan says, or says when. */
static void refill(struct pool *pool, const struct pool_view *view, int64_t wanted, int64_t now_ms,
	int64_t *left)
{
	struct manager *manager = pool->manager;
	int64_t at_ms = refill_at_ms(pool, view, now_ms);
	int64_t gently_until_ms =
		has_plenty(view) && at_ms > 0 ? manager->claimed_at_ms + GENTLY_MS : 0;

	if (wanted > 0 && now_ms < at_ms) {
		look_again_at(manager, at_ms);
		return;
	}
	for (; wanted > 0 && *left > 0; wanted--, *left -= 1) {
		unsigned attempts = pool->attempts;

		if (now_ms < gently_until_ms && manager->creating_count > 0) {
			look_again_at(manager, gently_until_ms);
			return;
		}
		entry_create(pool, pool->head, NULL);
		if (pool->attempts > attempts) {
			return;
		}
	}
	if (wanted > 0) {
		manager_dirty(manager);
	}
}

static void pool_reconcile(struct pool *pool, int64_t now_ms, int64_t *left)
{
	bool failing = pool->attempts > 0 && now_ms < pool->retry_at_ms;
	struct pool_view view;
	struct pool_plan plan;

	if (!all_on_head(pool)) {
		pool_refresh(pool);
	}
	if (pool->attempts > 0 && pool->trouble_until_ms > 0 && now_ms >= pool->trouble_until_ms &&
		pool->entries[ENTRY_READY].count > 0) {
		pool_recovered(pool);
	}
	if (pool->conf == NULL) {
		hints_drain(pool);
	} else if (pool->ready_hinted > 0 && !failing && !all_on_head(pool)) {
		hints_follow(pool);
	}
	claims_provide(pool);
	view = view_of(pool, now_ms);
	plan = pool_plan_make(&view);
	pool->capped = plan.capped;
	retire(pool, true, plan.retire_stale,
		view.draining ? "its environment is gone" : "a newer image is there");
	retire(pool, false, plan.retire_ready,
		view.draining ? "its environment is gone" : "more than the target were ready");
	refill(pool, &view, plan.create, now_ms, left);
}

static int64_t next_look_ms(const struct manager *manager, int64_t now_ms)
{
	int64_t at = now_ms + RECONCILE_EVERY_MS;

	at = manager->refill_at_ms < at ? manager->refill_at_ms : at;
	for (const struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		if (pool->attempts > 0 && pool->conf != NULL && pool->retry_at_ms > now_ms &&
			pool->retry_at_ms < at) {
			at = pool->retry_at_ms;
		}
	}
	return at;
}

void manager_claimed(struct manager *manager)
{
	manager->claimed_at_ms = clock_mono_ms();
}

void manager_reconcile(struct manager *manager)
{
	int64_t now_ms = clock_mono_ms();
	int64_t left = CREATES_PER_TURN;

	claims_log(manager);
	if (!manager->started || manager->stopping) {
		return;
	}
	manager->refill_at_ms = INT64_MAX;
	demands_look(manager);
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		pool_reconcile(pool, now_ms, &left);
	}
	manager_pools_sweep(manager);
	loop_timer_at(manager->retry_timer, next_look_ms(manager, now_ms));
}
