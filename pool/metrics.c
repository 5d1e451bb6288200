/* What is counted, by whom it is read. A row is a family: its name, type and help, and how to read
 * it from the manager (one value) or from each pool (one for each environment). */
#include "pool/metrics.h"

#include "base/memory.h"
#include "configs/config.h"
#include "pool/demand/demand.h"
#include "pool/manager.h"
#include "pool/upkeep.h"

#include <inttypes.h>

static const int64_t bounds_us[METRIC_BOUNDS] = {10, 25, 50, 100, 250, 500, 1000, 5000, 25000,
	100000, 500000, 2000000, 10000000, 30000000, 120000000};

struct metric {
	const char *name;
	const char *type;
	const char *help;
	double (*of_manager)(const struct manager *manager);
	double (*of_pool)(const struct pool *pool);
	const struct metric_times *(*times)(const struct pool *pool);
};

/* ---- readers ---- */

static double ready(const struct pool *pool)
{
	return (double)(pool->entries[ENTRY_READY].count);
}

static double warming(const struct pool *pool)
{
	return (double)(pool->entries[ENTRY_CREATING].count + pool->entries[ENTRY_WARMING].count);
}

static double frozen(const struct pool *pool)
{
	double count = 0;

	for (const struct entry *entry = pool->entries[ENTRY_READY].first; entry != NULL;
		entry = entry->next) {
		count += entry->frozen ? 1 : 0;
	}
	return count;
}

static double claimed(const struct pool *pool)
{
	return (double)pool->entries[ENTRY_CLAIMED].count;
}

static double paused(const struct pool *pool)
{
	return (double)pool->entries[ENTRY_PAUSED].count;
}

static double target(const struct pool *pool)
{
	return (double)demand_target(pool);
}

static double forecast(const struct pool *pool)
{
	return (double)(demand_forecast(pool) >= 0 ? demand_forecast(pool) : 0);
}

static double hits(const struct pool *pool)
{
	return (double)pool->hits;
}

static double hint_claims(const struct pool *pool)
{
	return (double)pool->hinted;
}

static double hint_waits(const struct pool *pool)
{
	return (double)pool->hinted_waited;
}

static double hints_ended(const struct pool *pool)
{
	return (double)pool->hints_ended;
}

static double hinted(const struct pool *pool)
{
	return (double)(pool->ready_hinted + pool->creating_hinted);
}

static double died(const struct pool *pool)
{
	return (double)pool->died;
}

static double wasted(const struct pool *pool)
{
	return (double)demand_wasted_ms(pool) / 1e3;
}

static double failing(const struct pool *pool)
{
	return pool->attempts > 0 ? 1 : 0;
}

static double building(const struct pool *pool)
{
	return pool->build_running ? 1 : 0;
}

static double freezes(const struct pool *pool)
{
	return (double)pool->freezes;
}

static double syncs(const struct pool *pool)
{
	return (double)pool->syncs;
}

static double refreshes(const struct pool *pool)
{
	return (double)pool->refreshes;
}

static double refresh_failures(const struct pool *pool)
{
	return (double)pool->refresh_failures;
}

static double page_outs(const struct pool *pool)
{
	return (double)pool->page_outs;
}

static double disk_halts(const struct pool *pool)
{
	return (double)pool->disk_halts;
}

static double disk_of_claimed(const struct pool *pool)
{
	return (double)pool->disk_claimed;
}

static double disk_each(const struct pool *pool)
{
	return demand_disk_each(pool) > 0 ? (double)demand_disk_each(pool) : 0;
}

static double disk_budget(const struct manager *manager)
{
	return (double)manager->config->disk_budget;
}

static double snapshots(const struct manager *manager)
{
	return (double)manager->snapshots_taken;
}

static const struct metric_times *hint_times(const struct pool *pool)
{
	return &pool->hint_times;
}

static const struct metric_times *claim_times(const struct pool *pool)
{
	return &pool->claim_times;
}

static double started_at(const struct manager *manager)
{
	return (double)manager->started_ms / 1e3;
}

static double sandboxes(const struct manager *manager)
{
	return (double)manager->entry_count;
}

static double free_bytes(const struct manager *manager)
{
	return (double)space_of(manager)->free;
}

static double space_low(const struct manager *manager)
{
	return space_is_low(manager) ? 1 : 0;
}

static const struct metric metrics[] = {
	{"hob_start_time_seconds", "gauge", "When hobd started, seconds since 1970.", started_at,
		NULL, NULL},
	{"hob_sandboxes", "gauge", "Sandboxes that are not gone.", sandboxes, NULL, NULL},
	{"hob_store_free_bytes", "gauge", "Free for the store.", free_bytes, NULL, NULL},
	{"hob_store_space_low", "gauge", "1 while less is free than hob.yaml wants.", space_low,
		NULL, NULL},
	{"hob_snapshots_total", "counter", "Snapshots taken of sandboxes.", snapshots, NULL, NULL},
	{"hob_ready", "gauge", "Sandboxes that stand ready.", NULL, ready, NULL},
	{"hob_warming", "gauge", "Sandboxes on their way to ready.", NULL, warming, NULL},
	{"hob_frozen", "gauge", "Ready sandboxes that are frozen.", NULL, frozen, NULL},
	{"hob_claimed", "gauge", "Claimed sandboxes that run.", NULL, claimed, NULL},
	{"hob_paused", "gauge", "Claimed sandboxes that are paused.", NULL, paused, NULL},
	{"hob_target", "gauge", "Ready sandboxes wanted.", NULL, target, NULL},
	{"hob_forecast", "gauge", "Ready sandboxes that the forecast asks for, before limits.",
		NULL, forecast, NULL},
	{"hob_claim_rate", "gauge", "Claims expected, per second.", NULL, demand_rate, NULL},
	{"hob_hits_total", "counter", "Claims that found a sandbox ready.", NULL, hits, NULL},
	{"hob_hinted", "gauge", "Sandboxes that hints reserve.", NULL, hinted, NULL},
	{"hob_hint_claims_total", "counter", "Claims by a hint's key.", NULL, hint_claims, NULL},
	{"hob_hint_claims_waited_total", "counter",
		"Claims by a hint's key that waited for its sandbox to start.", NULL, hint_waits,
		NULL},
	{"hob_hints_ended_total", "counter", "Hints that ended without a claim.", NULL, hints_ended,
		NULL},
	{"hob_died_total", "counter", "Ready sandboxes that died.", NULL, died, NULL},
	{"hob_wasted_seconds_total", "counter",
		"Life of ready sandboxes that ended without a claim.", NULL, wasted, NULL},
	{"hob_freezes_total", "counter", "Ready sandboxes that were frozen.", NULL, freezes, NULL},
	{"hob_page_outs_total", "counter", "Frozen sandboxes whose memory was given back.", NULL,
		page_outs, NULL},
	{"hob_disk_budget_bytes", "gauge", "What sandboxes may have written; 0: no limit.",
		disk_budget, NULL, NULL},
	{"hob_claimed_disk_bytes", "gauge", "Written by claimed and paused sandboxes.", NULL,
		disk_of_claimed, NULL},
	{"hob_ready_disk_bytes", "gauge", "Written by a ready sandbox, on average.", NULL,
		disk_each, NULL},
	{"hob_disk_halts_total", "counter", "Sandboxes paused for being over limits.disk.", NULL,
		disk_halts, NULL},
	{"hob_syncs_total", "counter", "Attempts to bring a sandbox to another commit.", NULL,
		syncs, NULL},
	{"hob_refreshes_total", "counter", "Ready sandboxes brought to a new head in place.", NULL,
		refreshes, NULL},
	{"hob_refresh_failures_total", "counter", "Ready sandboxes replaced as that failed.", NULL,
		refresh_failures, NULL},
	{"hob_failing", "gauge", "1 while the environment's sandboxes cannot be made.", NULL,
		failing, NULL},
	{"hob_building", "gauge", "1 while a build runs.", NULL, building, NULL},
	{"hob_claim_seconds", "histogram", "From a claim to its sandbox.", NULL, NULL, claim_times},
	{"hob_hint_to_claim_seconds", "histogram", "From a hint to its claim.", NULL, NULL,
		hint_times},
};

/* ---- writing ---- */

void metric_times_add(struct metric_times *times, int64_t us)
{
	size_t at = 0;

	while (at < METRIC_BOUNDS && us > bounds_us[at]) {
		at++;
	}
	times->counts[at]++;
	times->sum_seconds += (double)us / 1e6;
}

/* `label`: as it stands in the braces; empty: of the manager. */
static void times_write(
	const char *name, const char *label, const struct metric_times *times, struct buffer *text)
{
	const char *comma = *label != '\0' ? "," : "";
	const char *open = *label != '\0' ? "{" : "", *close = *label != '\0' ? "}" : "";
	uint64_t count = 0;

	for (size_t i = 0; i < METRIC_BOUNDS; i++) {
		count += times->counts[i];
		buffer_addf(text, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, label, comma,
			(double)bounds_us[i] / 1e6, count);
	}
	count += times->counts[METRIC_BOUNDS];
	buffer_addf(text, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, label, comma, count);
	buffer_addf(text, "%s_sum%s%s%s %.9g\n", name, open, label, close, times->sum_seconds);
	buffer_addf(text, "%s_count%s%s%s %" PRIu64 "\n", name, open, label, close, count);
}

/* Names of environments need no escaping: name_is_valid. */
static void pool_times_write(const char *name, const struct pool *pool,
	const struct metric_times *times, struct buffer *text)
{
	CLEANUP(free_p) char *label = xasprintf("environment=\"%s\"", pool->name);

	times_write(name, label, times, text);
}

static void head_write(const char *name, const char *type, const char *help, struct buffer *text)
{
	buffer_addf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void misses_write(const struct manager *manager, struct buffer *text)
{
	head_write("hob_misses_total", "counter", "Claims that found none ready, by reason.", text);
	for (const struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		for (size_t i = COLD_NONE + 1; i < COLD_REASONS; i++) {
			buffer_addf(text,
				"hob_misses_total{environment=\"%s\",reason=\"%s\"} %" PRIu64 "\n",
				pool->name, cold_reason_name((enum cold_reason)i), pool->misses[i]);
		}
	}
}

static void builds_write(const struct manager *manager, struct buffer *text)
{
	head_write("hob_builds_total", "counter", "Builds that hobd started, by outcome.", text);
	for (const struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		for (size_t i = 0; i < BUILD_STATES; i++) {
			if ((enum build_state)i != BUILD_RUNNING) {
				buffer_addf(text,
					"hob_builds_total{environment=\"%s\",outcome=\"%s\"} "
					"%" PRIu64 "\n",
					pool->name, build_state_name((enum build_state)i),
					pool->builds_ended[i]);
			}
		}
	}
}

void metrics_write(const struct manager *manager, struct buffer *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(metrics); i++) {
		const struct metric *metric = &metrics[i];

		head_write(metric->name, metric->type, metric->help, text);
		if (metric->of_manager != NULL) {
			buffer_addf(text, "%s %.15g\n", metric->name, metric->of_manager(manager));
			continue;
		}
		for (const struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
			if (metric->times != NULL) {
				pool_times_write(metric->name, pool, metric->times(pool), text);
			} else {
				buffer_addf(text, "%s{environment=\"%s\"} %.15g\n", metric->name,
					pool->name, metric->of_pool(pool));
			}
		}
	}
	head_write("hob_loop_turn_seconds", "histogram",
		"Turns of hobd's loop: so long others waited for an answer.", text);
	times_write("hob_loop_turn_seconds", "", &manager->turn_times, text);
	misses_write(manager, text);
	builds_write(manager, text);
}
