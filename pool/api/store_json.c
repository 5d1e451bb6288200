/* Pools, environments, builds and images as JSON. */
#include "base/clock.h"
#include "base/memory.h"
#include "pool/api/object_json.h"
#include "pool/builds.h"
#include "pool/demand/demand.h"
#include "pool/image.h"
#include "pool/manager.h"
#include "pool/sync/fetch.h"
#include "pool/sync/sync.h"
#include "pool/upkeep.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- pools ---- */

static json_t *misses_to_json(const struct pool *pool)
{
	json_t *misses = json_object();

	for (int reason = COLD_NONE + 1; reason < COLD_REASONS; reason++) {
		if (pool->misses[reason] > 0) {
			json_object_set_new(misses, cold_reason_name((enum cold_reason)reason),
				json_integer((json_int_t)pool->misses[reason]));
		}
	}
	return misses;
}

static json_t *failing_to_json(const struct pool *pool)
{
	int64_t left = pool->retry_at_ms - clock_mono_ms();

	if (pool->attempts == 0) {
		return json_null();
	}
	return json_pack("{s:o, s:o, s:i, s:I}", "message", json_str_or_null(pool->failure.message),
		"since", json_time(pool->failing_since_ms), "attempts", (int)pool->attempts,
		"retry_in_ms", (json_int_t)(left > 0 ? left : 0));
}

json_t *pool_to_json(const struct pool *pool)
{
	int64_t fresh = 0, stale = 0, behind = 0, syncing = 0;
	json_t *json;

	for (const struct entry *entry = pool->entries[ENTRY_READY].first; entry != NULL;
		entry = entry->next) {
		if (entry->hint == NULL) {
			*(entry->image == pool->head ? &fresh : &stale) += 1;
		}
		behind += sync_behind_s(entry) > 0 ? 1 : 0;
		syncing += sync_is_running(entry) ? 1 : 0;
	}
	json = json_pack("{s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:o}",
		"environment", pool->name, "image",
		json_numbered("img-", pool->head != NULL ? pool->head->id : 0), "commit",
		pool->head != NULL ? pool->head->commit : "", "target",
		(json_int_t)demand_target(pool), "min",
		(json_int_t)(pool->conf != NULL ? pool->conf->pool_min : 0), "max",
		(json_int_t)(pool->conf != NULL ? pool->conf->pool_max : 0), "ready",
		(json_int_t)fresh, "warming",
		(json_int_t)(pool->entries[ENTRY_CREATING].count +
			     pool->entries[ENTRY_WARMING].count - pool->creating_hinted),
		"claimed",
		(json_int_t)(pool->entries[ENTRY_CLAIMED].count +
			     pool->entries[ENTRY_PAUSED].count),
		"stale", (json_int_t)stale, "hits", (json_int_t)pool->hits, "misses",
		misses_to_json(pool), "died", (json_int_t)pool->died, "failing",
		failing_to_json(pool));
	json_object_set_new(json, "forecast",
		demand_forecast(pool) >= 0 ? json_integer((json_int_t)demand_forecast(pool))
					   : json_null());
	json_object_set_new(json, "per_hour", json_real(demand_rate(pool) * 3600));
	/* Reserved by hints, ready or on their way: in none of the counts before. */
	json_object_set_new(json, "hinted",
		json_integer((json_int_t)(pool->ready_hinted + pool->creating_hinted)));
	json_object_set_new(json, "hint_claims", json_integer((json_int_t)pool->hinted));
	json_object_set_new(
		json, "hint_claims_waited", json_integer((json_int_t)pool->hinted_waited));
	json_object_set_new(json, "hints_ended", json_integer((json_int_t)pool->hints_ended));
	json_object_set_new(json, "newest", json_str_or_null(newest_commit(pool, 0)));
	json_object_set_new(json, "behind", json_integer((json_int_t)behind));
	json_object_set_new(json, "syncing", json_integer((json_int_t)syncing));
	json_object_set_new(json, "refreshes", json_integer((json_int_t)pool->refreshes));
	json_object_set_new(json, "syncs", json_integer((json_int_t)pool->syncs));
	json_object_set_new(json, "disk_bytes", json_integer((json_int_t)pool->disk_claimed));
	json_object_set_new(json, "disk_each",
		demand_disk_each(pool) >= 0 ? json_integer((json_int_t)demand_disk_each(pool))
					    : json_null());
	json_object_set_new(json, "freezes", json_integer((json_int_t)pool->freezes));
	json_object_set_new(
		json, "wasted_s", json_integer((json_int_t)(demand_wasted_ms(pool) / 1000)));
	json_object_set_new(
		json, "refresh_failures", json_integer((json_int_t)pool->refresh_failures));
	return json;
}

/* ---- environments ---- */

static bool is_building(const struct pool *pool)
{
	struct error err = ERROR_INIT;
	struct build *builds = NULL;
	size_t count = 0;
	bool running = pool->build_running;

	/* Builds that somebody else started show as well. */
	if (!running &&
		build_list(pool->manager->store, pool->name, 1, &builds, &count, &err) == 0) {
		running = count > 0 && builds[0].state == BUILD_RUNNING;
		for (size_t i = 0; i < count; i++) {
			build_done(&builds[i]);
		}
		free(builds);
	}
	return running;
}

json_t *space_to_json(const struct manager *manager)
{
	const struct free_space *space = space_of(manager);

	return json_pack("{s:I, s:I, s:I, s:b}", "free_bytes", (json_int_t)space->free,
		"total_bytes", (json_int_t)space->total, "mark_bytes", (json_int_t)space->mark,
		"low", space->low);
}

/* Why a build that was asked for does not begin; null when none is, or its turn will come. */
static json_t *waits_for(const struct pool *pool)
{
	char space[FREE_SPACE_TEXT_SIZE];

	if (!pool->build_queued || pool->build_running || !space_is_low(pool->manager)) {
		return json_null();
	}
	free_space_text(space_of(pool->manager), space);
	return json_sprintf("space: %s", space);
}

json_t *environment_to_json(const struct pool *pool)
{
	const struct environment *conf = pool->conf;
	struct schedule schedule = build_schedule(pool);
	int64_t due = build_next_due_ms(pool);
	bool sourced = conf->source_count > 0;

	return json_pack("{s:s, s:o, s:o, s:o, s:s, s:I, s:s?, s:o, s:o, s:o, s:o, s:b, s:o}",
		"name", conf->name, "file", json_str_or_null(conf->file), "source_url",
		sourced ? json_str_or_null(conf->sources[0].url) : json_null(), "ref",
		sourced && conf->sources[0].ref != NULL ? json_str_or_null(conf->sources[0].ref)
							: json_null(),
		"base", base_kind_name(conf->base), "every_ms", (json_int_t)schedule.every_ms,
		"cron", schedule.cron_text, "head",
		json_numbered("img-", pool->head != NULL ? pool->head->id : 0), "commit",
		pool->head != NULL ? json_string(pool->head->commit) : json_null(), "built_at",
		json_time(pool->head != NULL ? pool->head->created_ms : 0), "next_due_at",
		json_time(due == INT64_MAX ? 0 : due), "building", is_building(pool), "waits_for",
		waits_for(pool));
}

/* ---- builds and images ---- */

json_t *build_to_json(const struct build *build)
{
	int64_t end_ms = build->ended_ms > 0 ? build->ended_ms : clock_real_ms();

	return json_pack("{s:o, s:s, s:s, s:s, s:o, s:o, s:o, s:I, s:o}", "id",
		json_numbered("bld-", build->id), "environment", build->environment, "state",
		build_state_name(build->state), "commit", build->commit, "image",
		json_numbered("img-", build->image_id), "started_at", json_time(build->started_ms),
		"ended_at", json_time(build->ended_ms), "took_ms",
		(json_int_t)(build->started_ms > 0 ? end_ms - build->started_ms : 0), "message",
		json_str_or_null(build->message));
}

json_t *layers_to_json(const struct layer *list, size_t count)
{
	json_t *layers = json_array();

	for (size_t i = 0; i < count; i++) {
		const struct layer *layer = &list[i];

		json_array_append_new(layers,
			json_pack("{s:I, s:s, s:o, s:I, s:I, s:I}", "id", (json_int_t)layer->id,
				"kind", layer->kind, "title", json_str_or_null(layer->title),
				"files", (json_int_t)layer->files, "bytes",
				(json_int_t)layer->bytes, "stored", (json_int_t)layer->stored));
	}
	return layers;
}

json_t *image_to_json(struct store *store, const struct image *image, struct error *err)
{
	CLEANUP(strv_free_p) char **users = NULL;
	uint64_t exclusive = 0, shared = 0;
	json_t *list = NULL;

	if (image_users(store, image->id, &users, err) < 0 ||
		image_bytes(store, image->id, &exclusive, &shared, err) < 0) {
		return NULL;
	}
	list = json_array();
	for (char **user = users; user != NULL && *user != NULL; user++) {
		json_array_append_new(list, json_str_or_null(*user));
	}
	return json_pack("{s:o, s:s, s:s, s:o, s:b, s:o, s:I, s:I, s:I, s:o}", "id",
		json_numbered("img-", image->id), "environment", image->environment, "commit",
		image->commit, "created_at", json_time(image->created_ms), "head", image->is_head,
		"layers", layers_to_json(image->layers, image->layer_count), "bytes",
		(json_int_t)(exclusive + shared), "exclusive_bytes", (json_int_t)exclusive,
		"shared_bytes", (json_int_t)shared, "users", list);
}
