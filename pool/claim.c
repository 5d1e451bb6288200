/* Claims. pool_image.waiting counts the claims in some pool's list that want that image. */
#include "pool/claim.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "pool/freeze.h"
#include "pool/image.h"
#include "pool/lifecycle.h"

#include <inttypes.h>

struct claim {
	struct pool *pool;
	struct claim *next;
	struct pool_image *image; /* counted */
	struct claim_spec spec; /* env and metadata are owned; the names are not kept */
	enum cold_reason reason;
	int64_t started_us;
	claim_done_fn *fn;
	void *context;
};

static const char *const reason_names[] = {
	[COLD_NONE] = "none",
	[COLD_EMPTY] = "empty",
	[COLD_STALE] = "stale",
	[COLD_MISMATCH] = "mismatch",
	[COLD_DRAINING] = "draining",
	[COLD_OVER_LIMIT] = "over_limit",
	[COLD_FAILED] = "failed",
};
_Static_assert(ARRAY_SIZE(reason_names) == COLD_REASONS, "every reason has a name");

const char *cold_reason_name(enum cold_reason reason)
{
	return reason_names[reason];
}

/* ---- binding ---- */

static void bind(struct entry *entry, struct claim_spec *spec)
{
	struct entry_record *record = &entry->record;
	const struct environment *conf = entry->pool->conf;

	record->claimed_ms = clock_real_ms();
	record->last_active_ms = record->claimed_ms;
	record->expires_ms = spec->timeout_ms > 0 ? record->claimed_ms + spec->timeout_ms : 0;
	record->age_limit_ms =
		conf != NULL && conf->max_age_ms > 0 ? record->claimed_ms + conf->max_age_ms : 0;
	record->idle_ms = spec->idle_ms >= 0 ? spec->idle_ms : conf != NULL ? conf->idle_ms : 0;
	record->pause_ms = conf != NULL ? conf->pause_ms : 0;
	record->env = steal_ptr(spec->env);
	record->metadata = steal_ptr(spec->metadata);
}

/* On failure the sandbox is not handed out: after a restart it would look unclaimed. */
static int take(struct entry *entry, struct claim_spec *spec, struct error *err)
{
	int status;

	bind(entry, spec);
	status = fault_point("claim.record");
	if (status != 0) {
		status = error_sys(err, status, "record the claim of %s", entry->record.id);
	} else {
		status = entry_set_state(entry, ENTRY_CLAIMED, err);
	}
	if (status < 0) {
		entry_release(entry, "its claim could not be recorded");
		return status;
	}
	entry_thaw_soon(entry);
	entry_arm(entry);
	return 0;
}

static void finish(struct pool *pool, struct entry *entry, enum cold_reason reason,
	int64_t started_us, claim_done_fn *fn, void *context)
{
	struct claim_result result = {.entry = entry,
		.reason = reason,
		.restored = entry->image->snapshot_id != 0,
		.took_us = clock_mono_us() - started_us};

	if (reason == COLD_NONE && !result.restored) {
		pool->hits++;
		manager_claimed(pool->manager);
	}
	log_info("sandbox.claimed", "sandbox", entry->record.id, "environment", pool->name,
		"source",
		result.restored       ? "restored"
		: reason == COLD_NONE ? "warm"
				      : "cold",
		"reason", cold_reason_name(reason), "us", result.took_us);
	fn(context, &result, NULL);
}

/* ---- waiting ---- */

static void claim_free(struct claim *claim)
{
	struct pool *pool = claim->pool;
	struct claim *previous = NULL;

	for (struct claim *at = pool->claims_first; at != claim; at = at->next) {
		previous = at;
	}
	*(previous != NULL ? &previous->next : &pool->claims_first) = claim->next;
	if (pool->claims_last == claim) {
		pool->claims_last = previous;
	}
	claim->image->waiting--;
	pool_image_put(claim->image);
	strv_free(claim->spec.env);
	json_decref(claim->spec.metadata);
	free(claim);
	manager_dirty(pool->manager);
}

static struct claim *claim_wait(struct pool *pool, struct pool_image *image,
	struct claim_spec *spec, enum cold_reason reason, claim_done_fn *fn, void *context)
{
	struct claim *claim = xcalloc(1, sizeof(*claim));

	claim->pool = pool;
	claim->image = pool_image_ref(image);
	claim->image->waiting++;
	claim->spec = *spec;
	spec->env = NULL;
	spec->metadata = NULL;
	claim->reason = reason;
	claim->started_us = clock_mono_us();
	claim->fn = fn;
	claim->context = context;
	*(pool->claims_last != NULL ? &pool->claims_last->next : &pool->claims_first) = claim;
	pool->claims_last = claim;
	if (reason != COLD_NONE) {
		pool->misses[reason]++;
	}
	return claim;
}

static void claim_fail(struct claim *claim, const struct error *err)
{
	claim_done_fn *fn = claim->fn;
	void *context = claim->context;
	struct error copy;

	error_copy(&copy, err);
	error_wrap(&copy, "no sandbox for \"%s\"", claim->pool->name);
	claim_free(claim);
	fn(context, NULL, &copy);
}

/* The claim is freed before its answer, which may start another. */
static void claim_give(struct claim *claim, struct entry *entry)
{
	enum cold_reason reason = claim->reason;
	int64_t started_us = claim->started_us;
	claim_done_fn *fn = claim->fn;
	void *context = claim->context;

	claim_free(claim);
	finish(entry->pool, entry, reason, started_us, fn, context);
}

void claims_serve(struct entry *entry)
{
	struct claim *claim = entry->pool->claims_first;
	struct error err = ERROR_INIT;

	while (claim != NULL && claim->image != entry->image) {
		claim = claim->next;
	}
	if (claim == NULL) {
		return;
	}
	if (take(entry, &claim->spec, &err) < 0) {
		claim_fail(claim, &err);
	} else {
		claim_give(claim, entry);
	}
}

void claims_creation_failed(struct pool *pool, struct pool_image *image, const struct error *err)
{
	for (struct claim *claim = pool->claims_first; claim != NULL; claim = claim->next) {
		if (claim->image == image) {
			claim_fail(claim, err);
			return;
		}
	}
}

/* ---- limits ---- */

/* A ready sandbox that this claim cannot use makes room for the one that it can. */
static bool make_room(struct pool *pool, const struct pool_image *image)
{
	for (struct entry *entry = pool->entries[ENTRY_READY].first; entry != NULL;
		entry = entry->next) {
		if (entry->image != image) {
			entry_release(entry, "made room for a claim");
			return true;
		}
	}
	return false;
}

static bool make_room_anywhere(const struct manager *manager, const struct pool_image *image)
{
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		if (make_room(pool, image)) {
			return true;
		}
	}
	return false;
}

static int64_t pool_held(const struct pool *pool)
{
	return (int64_t)(pool->entries[ENTRY_CREATING].count + pool->entries[ENTRY_WARMING].count +
			 pool->entries[ENTRY_READY].count + pool->entries[ENTRY_CLAIMED].count +
			 pool->entries[ENTRY_PAUSED].count);
}

/* Claims that wait for a sandbox whose creation has not begun. */
static int64_t pool_owed(const struct pool *pool)
{
	int64_t owed = -(
		int64_t)(pool->entries[ENTRY_CREATING].count + pool->entries[ENTRY_WARMING].count);

	for (const struct claim *claim = pool->claims_first; claim != NULL; claim = claim->next) {
		owed++;
	}
	return owed > 0 ? owed : 0;
}

static int check_room(struct pool *pool, const struct pool_image *image, struct error *err)
{
	struct manager *manager = pool->manager;
	int64_t owed = pool_owed(pool);

	if (image->creating > image->waiting) {
		return 0; /* one is under way that nobody waits for */
	}
	if (pool->conf != NULL && pool_held(pool) + owed >= pool->conf->pool_max &&
		!make_room(pool, image)) {
		error_set(err, ERROR_UNAVAILABLE,
			"over_limit: \"%s\" has its %" PRId64 " sandboxes (pool.max)", pool->name,
			pool->conf->pool_max);
		return error_hint(err, "release some with `hob rm`, or raise pool.max in %s",
			pool->conf->file);
	}
	if ((int64_t)manager->entry_count + owed >= manager->config->max_sandboxes &&
		!make_room_anywhere(manager, image)) {
		error_set(err, ERROR_UNAVAILABLE,
			"over_limit: this machine has its %" PRId64 " sandboxes (max_sandboxes)",
			manager->config->max_sandboxes);
		return error_hint(err, "release some with `hob rm`, or raise max_sandboxes");
	}
	return 0;
}

static struct claim *find_unprovided(const struct pool *pool)
{
	struct claim *claim = pool->claims_first;

	while (claim != NULL && claim->image->creating >= claim->image->waiting) {
		claim = claim->next;
	}
	return claim;
}

void claims_provide(struct pool *pool)
{
	const struct manager *manager = pool->manager;
	struct claim *claim;

	/* Each turn brings one more under creation or, when that fails at once, takes a claim away.
	 */
	while (manager->creating_count < CREATES_OVERALL &&
		(int64_t)manager->entry_count < manager->config->max_sandboxes &&
		(claim = find_unprovided(pool)) != NULL) {
		entry_create(pool, claim->image);
	}
}

/* ---- starting ---- */

static struct entry *find_ready(const struct pool *pool, const struct pool_image *image)
{
	for (struct entry *entry = pool->entries[ENTRY_READY].first; entry != NULL;
		entry = entry->next) {
		if (entry->image == image && entry->client != NULL) {
			return entry;
		}
	}
	return NULL;
}

static enum cold_reason cold_reason_of(const struct pool *pool, const struct pool_image *image)
{
	if (image->snapshot_id != 0) {
		return COLD_NONE; /* there is no warm restore to have missed */
	}
	if (pool->conf == NULL) {
		return COLD_DRAINING;
	}
	if (image != pool->head) {
		return COLD_MISMATCH;
	}
	if (pool->entries[ENTRY_READY].count > 0) {
		return COLD_STALE;
	}
	if (pool->attempts > 0) {
		return COLD_FAILED;
	}
	return pool->capped ? COLD_OVER_LIMIT : COLD_EMPTY;
}

static int choose_by_environment(struct manager *manager, const char *name, struct pool **ret_pool,
	struct pool_image **ret_image, struct error *err)
{
	struct pool *pool = manager_pool(manager, name);

	if (pool == NULL || pool->conf == NULL) {
		error_set(err, ERROR_NOT_FOUND, "no environment \"%s\"", name);
		return error_hint(err, "`hob env` lists them; their files are in %s",
			manager->config->environments);
	}
	if (pool->head == NULL) {
		error_set(err, ERROR_CONFLICT, "environment \"%s\" has no image yet", name);
		return error_hint(err, "hob build %s", name);
	}
	*ret_pool = pool;
	*ret_image = pool_image_ref(pool->head);
	return 0;
}

static int choose(struct manager *manager, const struct claim_spec *spec, struct pool **ret_pool,
	struct pool_image **ret_image, struct error *err)
{
	int status;

	if (spec->image == NULL && spec->snapshot == NULL) {
		return choose_by_environment(manager, spec->environment, ret_pool, ret_image, err);
	}
	status = spec->snapshot != NULL
			 ? pool_snapshot_find(manager, spec->snapshot, ret_image, err)
			 : pool_image_find(manager, spec->image, ret_image, err);
	if (status < 0) {
		return status;
	}
	*ret_pool = manager_pool_add(manager, (*ret_image)->environment);
	return 0;
}

struct claim *claim_start(
	struct manager *manager, struct claim_spec *spec, claim_done_fn *fn, void *context)
{
	int64_t started_us = clock_mono_us();
	struct error err = ERROR_INIT;
	struct pool_image *image = NULL;
	struct pool *pool = NULL;
	struct entry *entry;
	struct claim *claim = NULL;

	if (choose(manager, spec, &pool, &image, &err) < 0) {
		fn(context, NULL, &err);
		return NULL;
	}
	entry = find_ready(pool, image);
	if (entry != NULL) {
		if (take(entry, spec, &err) < 0) {
			fn(context, NULL, &err);
		} else {
			finish(pool, entry, COLD_NONE, started_us, fn, context);
		}
	} else if (check_room(pool, image, &err) < 0) {
		pool->misses[COLD_OVER_LIMIT]++;
		fn(context, NULL, &err);
	} else {
		claim = claim_wait(pool, image, spec, cold_reason_of(pool, image), fn, context);
		manager_dirty(manager);
	}
	pool_image_put(image);
	return claim;
}

void claim_cancel(struct claim *claim)
{
	log_info("claim.abandoned", "environment", claim->pool->name);
	claim_free(claim);
}
