/* Settings, runs and the reading of curves. */
#include "pool/simulate/compare.h"

#include "pool/forecast/forecast.h"
#include "pool/simulate/hindsight.h"
#include "pool/simulate/replay.h"

#include <assert.h>

#define HOUR_MS INT64_C(3600000)
#define TARGET_MOST 100000

static const char *const names[] = {
	[POLICY_FIXED] = "fixed",
	[POLICY_REACTIVE] = "reactive",
	[POLICY_FORECAST] = "forecast",
	[POLICY_HINTS] = "forecast+hints",
	[POLICY_LEASES] = "hints",
	[POLICY_CLAIRVOYANT] = "clairvoyant",
};
_Static_assert(ARRAY_SIZE(names) == POLICIES, "every policy has a name");

const char *policy_name(enum policy_kind kind)
{
	assert(kind < POLICIES);
	return names[kind];
}

bool policy_from_name(const char *name, enum policy_kind *ret_kind)
{
	for (size_t i = 0; i < POLICIES; i++) {
		if (streq(names[i], name)) {
			*ret_kind = (enum policy_kind)i;
			return true;
		}
	}
	return false;
}

/* ---- hindsight ---- */

struct levels {
	const struct hindsight *hindsight;
	size_t environment;
};

static int64_t levels_target(void *context, int64_t now_ms)
{
	const struct levels *levels = context;

	return hindsight_level(levels->hindsight, levels->environment, now_ms);
}

/* ---- reactive ---- */

/* The most claims that came while one is made, of the last `memory_ms`: the front of the queue is
 * the deepest, and every later one is less deep. */
struct reactive {
	int64_t memory_ms, making_ms;
	struct depth {
		int64_t at_ms, depth;
	} * depths;
	size_t head, count, room;
	int64_t *recent;
	size_t recent_head, recent_count, recent_room;
};

static void reactive_claim(void *context, int64_t now_ms, bool hit)
{
	struct reactive *reactive = context;
	int64_t depth;

	(void)hit;
	*array_add(&reactive->recent, &reactive->recent_count, &reactive->recent_room) = now_ms;
	while (reactive->recent[reactive->recent_head] <= now_ms - reactive->making_ms) {
		reactive->recent_head++;
	}
	depth = (int64_t)(reactive->recent_count - reactive->recent_head);
	while (reactive->count > reactive->head &&
		reactive->depths[reactive->count - 1].depth <= depth) {
		reactive->count--;
	}
	*array_add(&reactive->depths, &reactive->count, &reactive->room) =
		(struct depth){now_ms, depth};
}

static int64_t reactive_target(void *context, int64_t now_ms)
{
	struct reactive *reactive = context;

	while (reactive->head < reactive->count &&
		reactive->depths[reactive->head].at_ms <= now_ms - reactive->memory_ms) {
		reactive->head++;
	}
	return reactive->head < reactive->count ? reactive->depths[reactive->head].depth : 0;
}

/* ---- the forecast ---- */

static int64_t forecast_policy_target(void *context, int64_t now_ms)
{
	return forecast_target(context, now_ms, TARGET_MOST);
}

static void forecast_policy_claim(void *context, int64_t now_ms, bool hit)
{
	forecast_claim(context, now_ms, hit);
}

static int64_t no_target(void *context, int64_t now_ms)
{
	(void)context;
	(void)now_ms;
	return 0;
}

/* ---- one run ---- */

/* What one environment's policy remembers. */
struct memory {
	struct levels levels;
	struct reactive reactive;
	struct forecast *forecast;
};

static struct policy policy_make(
	struct memory *memory, enum policy_kind kind, bool is_hindsight, int64_t making_ms)
{
	if (is_hindsight) {
		return (struct policy){.context = &memory->levels, .target = levels_target};
	}
	if (kind == POLICY_LEASES) {
		return (struct policy){.target = no_target};
	}
	if (kind == POLICY_REACTIVE) {
		return (struct policy){&memory->reactive, reactive_target, reactive_claim};
	}
	forecast_made(memory->forecast, making_ms);
	return (struct policy){memory->forecast, forecast_policy_target, forecast_policy_claim};
}

static void run_policies(const struct replay_spec *spec, enum policy_kind kind, double setting,
	const struct hindsight *hindsight, struct replay_result *ret_result)
{
	size_t count = spec->arrivals->name_count;
	CLEANUP(free_p) struct memory *memories = xcalloc(count, sizeof(*memories));
	CLEANUP(free_p) struct policy *policies = xcalloc(count, sizeof(*policies));
	bool forecasts = kind == POLICY_FORECAST || kind == POLICY_HINTS;
	struct forecast_price price = forecast_price_first(forecasts ? setting : 0.5);

	for (size_t i = 0; i < count; i++) {
		memories[i] = (struct memory){
			.levels = {hindsight, i},
			.reactive = {.memory_ms = (int64_t)(setting * 1e3),
				.making_ms = spec->making_ms},
			.forecast = forecasts ? forecast_new(&price, NULL) : NULL,
		};
		policies[i] = policy_make(&memories[i], kind, hindsight != NULL, spec->making_ms);
	}
	replay_run(spec, policies, ret_result);
	for (size_t i = 0; i < count; i++) {
		forecast_free(memories[i].forecast);
		free(memories[i].reactive.depths);
		free(memories[i].reactive.recent);
	}
}

static int by_size(const void *a, const void *b)
{
	int32_t first = *(const int32_t *)a, second = *(const int32_t *)b;

	return first < second ? -1 : first > second;
}

static void outcome_of(const struct replay_result *result, double setting, struct outcome *outcome)
{
	uint64_t over = result->claims / 100; /* claims that may wait longer than the p99 */

	*outcome = (struct outcome){.setting = setting,
		.hit_rate = (double)result->hits / (double)result->claims,
		.wait_mean_ms = result->wait_seconds * 1e3 / (double)result->claims,
		.idle_seconds = result->idle_seconds,
		.made = result->made};
	if (result->wait_count > over) {
		qsort(result->waits, result->wait_count, sizeof(*result->waits), by_size);
		outcome->wait_p99_ms = result->waits[result->wait_count - 1 - over];
	}
}

static void run_all(const struct arrivals *arrivals, enum policy_kind kind, int64_t making_ms,
	double setting, struct hindsight *hindsight, struct outcome *ret_outcome)
{
	struct replay_result result = {0};
	struct replay_spec spec = {.arrivals = arrivals,
		.making_ms = making_ms,
		.hints = kind == POLICY_HINTS || kind == POLICY_LEASES};

	if (hindsight != NULL) {
		hindsight_aim(hindsight, setting);
	}
	run_policies(&spec, kind, setting, hindsight, &result);
	outcome_of(&result, setting, ret_outcome);
	replay_result_done(&result);
}

/* ---- curves ---- */

/* Where the curve has this hit rate: the least idle time of two neighbours' straight line. */
static double idle_at(const struct curve *curve, double hit_rate)
{
	static const struct outcome nothing = {0}; /* ready costs nothing and gives no hits */
	double least = -1;

	for (size_t i = 0; i <= curve->count; i++) {
		for (size_t k = 0; k < curve->count; k++) {
			const struct outcome *low =
				i < curve->count ? &curve->outcomes[i] : &nothing;
			const struct outcome *high = &curve->outcomes[k];
			double share, idle;

			if (low->hit_rate > hit_rate || high->hit_rate < hit_rate) {
				continue;
			}
			share = high->hit_rate > low->hit_rate
					? (hit_rate - low->hit_rate) /
						  (high->hit_rate - low->hit_rate)
					: 0;
			idle = low->idle_seconds + share * (high->idle_seconds - low->idle_seconds);
			least = least < 0 || idle < least ? idle : least;
		}
	}
	return least;
}

void curve_make(const struct arrivals *arrivals, enum policy_kind kind, int64_t making_ms,
	double hit_rate, bool whole, struct curve *ret_curve)
{
	static const double rates[] = {0.5, 0.7, 0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995};
	static const double memories[] = {
		10, 60, 300, 900, 1800, 3600, 7200, 14400, 43200, 86400, 259200, 604800};
	bool is_hindsight = kind == POLICY_FIXED || kind == POLICY_CLAIRVOYANT;
	const double *settings = kind == POLICY_REACTIVE ? memories : rates;
	size_t count = kind == POLICY_REACTIVE ? ARRAY_SIZE(memories) : ARRAY_SIZE(rates);
	CLEANUP(hindsight_free_p)
	struct hindsight *hindsight =
		is_hindsight
			? hindsight_new(arrivals, kind == POLICY_FIXED ? 0 : HOUR_MS, making_ms)
			: NULL;

	*ret_curve = (struct curve){.kind = kind};
	run_all(arrivals, kind, making_ms, kind == POLICY_REACTIVE ? 600 : hit_rate, hindsight,
		&ret_curve->aimed);
	if (!whole || kind == POLICY_LEASES) {
		ret_curve->outcomes[ret_curve->count++] = ret_curve->aimed;
	} else {
		for (size_t i = 0; i < count; i++) {
			run_all(arrivals, kind, making_ms, settings[i], hindsight,
				&ret_curve->outcomes[ret_curve->count++]);
		}
	}
	ret_curve->idle_at = idle_at(ret_curve, hit_rate);
}
