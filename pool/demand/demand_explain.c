/* Why a target is what it is, as JSON with one sentence for people. */
#include "pool/demand/demand_private.h"

#include <inttypes.h>
#include <stdio.h>

/* Lines of the table of worth: those kept, and a few that are not worth it. */
#define WORTH_BEYOND 3
#define WORTH_MOST 40

static json_t *bases_to_json(const struct forecast_view *view)
{
	json_t *list = json_array();

	for (size_t i = 0; i < FORECAST_BASES; i++) {
		json_array_append_new(
			list, json_pack("{s:s, s:f, s:f}", "name",
				      forecast_base_name((enum forecast_base)i), "per_hour",
				      view->rates[i] * 3600, "weight", view->weights[i]));
	}
	return list;
}

static json_t *worth_to_json(const struct demand *demand, double idle_seconds)
{
	json_t *list = json_array();
	int64_t last = demand->target + WORTH_BEYOND;

	for (int64_t k = 1; k <= last && k <= WORTH_MOST; k++) {
		double worth = forecast_worth_mean(demand->forecast, k);

		json_array_append_new(
			list, json_pack("{s:I, s:f, s:b, s:b}", "k", (json_int_t)k, "hits_per_day",
				      worth * 86400, "worth_it", worth * idle_seconds >= 1, "kept",
				      k <= demand->target));
	}
	return list;
}

static char *reason_of(const struct pool *pool, const struct forecast_view *view)
{
	const struct demand *demand = pool->demand;
	CLEANUP(free_p) char *limits = NULL;

	if (demand->wanted < 0) {
		limits = demand->limited_by != NULL ? xasprintf(", but %s allows only %" PRId64,
							      demand->limited_by, demand->target)
						    : xstrdup("");
		return xasprintf("pool.min asks for %" PRId64
				 " ready%s, and there is no forecast because hit_rate is 0.",
			pool->conf != NULL ? pool->conf->pool_min : 0, limits);
	}
	if (demand->limited_by != NULL) {
		limits = xasprintf(
			", but %s allows only %" PRId64, demand->limited_by, demand->target);
	} else if (demand->target > demand->wanted) {
		limits = xasprintf(", and pool.min asks for %" PRId64, demand->target);
	}
	return xasprintf(
		"%.*f claims an hour are expected and one takes %.3g s to make, so %" PRId64
		" ready are worth up to %.0f idle seconds for each cold start that they "
		"spare, which is the price of %.4g %% hits%s.",
		view->rate * 3600 < 10 ? 2 : 0, view->rate * 3600, (double)view->making_ms / 1e3,
		demand->wanted, view->idle_seconds, view->hit_rate * 100,
		limits != NULL ? limits : "");
}

static char *sentence_of(const struct pool *pool, const struct forecast_view *view)
{
	CLEANUP(free_p) char *reason = reason_of(pool, view);

	return xasprintf("%s%s", reason,
		pool->demand->squeezed ? " Memory is short: they are frozen and paged out as soon "
					 "as they are warm."
				       : "");
}

json_t *demand_explain(const struct pool *pool)
{
	const struct demand *demand = pool->demand;
	struct forecast_view view;
	CLEANUP(free_p) char *sentence = NULL;
	json_t *json;

	if (demand == NULL) {
		return json_pack("{s:s, s:i, s:s}", "environment", pool->name, "target", 0, "why",
			"It has only just come.");
	}
	forecast_look(demand->forecast, &view);
	sentence = sentence_of(pool, &view);
	json = json_pack("{s:s, s:s, s:I, s:o, s:o, s:I, s:I, s:f, s:I, s:f, s:f, s:o, s:I}",
		"environment", pool->name, "why", sentence, "target", (json_int_t)demand->target,
		"forecast",
		demand->wanted >= 0 ? json_integer((json_int_t)demand->wanted) : json_null(),
		"limited_by", json_str_or_null(demand->limited_by), "min",
		(json_int_t)(pool->conf != NULL ? pool->conf->pool_min : 0), "max",
		(json_int_t)(pool->conf != NULL ? pool->conf->pool_max : 0), "per_hour",
		view.rate * 3600, "making_ms", (json_int_t)view.making_ms, "idle_s",
		view.idle_seconds, "hit_rate", demand->wanted >= 0 ? view.hit_rate : 0.0,
		"recent_hit_rate",
		view.recent_hit_rate >= 0 ? json_real(view.recent_hit_rate) : json_null(), "claims",
		(json_int_t)view.claims);
	json_object_set_new(json, "bytes_each",
		demand->measured ? json_integer((json_int_t)demand->bytes) : json_null());
	json_object_set_new(json, "squeezed", json_boolean(demand->squeezed));
	json_object_set_new(json, "bytes_each_squeezed",
		demand->idle_measured ? json_integer((json_int_t)demand->idle_bytes) : json_null());
	json_object_set_new(json, "disk_each",
		demand->disk_measured ? json_integer((json_int_t)demand->disk) : json_null());
	json_object_set_new(json, "disk_claimed", json_integer((json_int_t)pool->disk_claimed));
	json_object_set_new(json, "hinted",
		json_integer((json_int_t)(pool->ready_hinted + pool->creating_hinted)));
	json_object_set_new(json, "bases", bases_to_json(&view));
	json_object_set_new(json, "worth", worth_to_json(demand, view.idle_seconds));
	return json;
}
