/* Claims. pool_image.waiting counts the claims in some pool's list that want that image. */
#include "pool/claim.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "pool/demand/demand.h"
#include "pool/dormant.h"
#include "pool/freeze.h"
#include "pool/hints/hint.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/services.h"
#include "pool/sync/sync.h"

#include <inttypes.h>

struct claim {
	struct pool *pool;
	struct claim *next;
	struct pool_image *image; /* counted */
	struct entry *entry; /* waits for this very one, which its key reserves; NULL: for any */
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
	record->meter = (struct entry_meter){
		.started_ms = record->claimed_ms, .active_since_ms = record->claimed_ms};
	record->lifecycle = conf != NULL ? conf->lifecycle : LIFECYCLE_EPHEMERAL;
	record->snapshot_every_ms = conf != NULL ? conf->snapshot_every_ms : 0;
	record->pause_ms = conf != NULL ? conf->pause_ms : 0;
	record->env = steal_ptr(spec->env);
	record->metadata = steal_ptr(spec->metadata);
}

/* On failure the sandbox is not handed out: after a restart it would look unclaimed. */
static int take(struct entry *entry, struct claim_spec *spec, struct error *err)
{
	int status;

	if (entry->hint != NULL) {
		metric_times_add(
			&entry->pool->hint_times, (clock_real_ms() - entry->hint->since_ms) * 1000);
	}
	hint_forget(entry);
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
	dormant_arm(entry);
	entry_arm(entry);
	return 0;
}

/* What is logged of a claim, once it is answered. */
struct claim_note {
	char id[ID_SIZE];
	char environment[NAME_MAX_LENGTH + 1];
	const char *source, *reason;
	int64_t us;
};

void claims_log(struct manager *manager)
{
	for (size_t i = 0; i < manager->claim_note_count; i++) {
		const struct claim_note *note = &manager->claim_notes[i];

		log_info("sandbox.claimed", "sandbox", (const char *)note->id, "environment",
			(const char *)note->environment, "source", note->source, "reason",
			note->reason, "us", note->us);
	}
	manager->claim_note_count = 0;
}

static const char *source_of(const struct claim_result *result)
{
	return result->hinted                ? "hinted"
	       : result->restored            ? "restored"
	       : result->reason == COLD_NONE ? "warm"
					     : "cold";
}

static void note_claim(const struct entry *entry, const struct claim_result *result)
{
	struct manager *manager = entry->manager;
	struct claim_note *note = array_add(
		&manager->claim_notes, &manager->claim_note_count, &manager->claim_note_room);

	*note = (struct claim_note){.source = source_of(result),
		.reason = cold_reason_name(result->reason),
		.us = result->took_us};
	memcpy(note->id, entry->record.id, sizeof(note->id));
	memcpy(note->environment, entry->pool->name, sizeof(note->environment));
	manager_dirty(manager);
}

/* `waited`: it was not ready when it was asked for. */
static void finish(struct entry *entry, enum cold_reason reason, bool hinted, bool waited,
	int64_t started_us, claim_done_fn *fn, void *context)
{
	struct pool *pool = entry->pool;
	struct claim_result result = {.entry = entry,
		.reason = reason,
		.restored = entry->image->snapshot_id != 0,
		.hinted = hinted,
		.took_us = clock_mono_us() - started_us};

	if (hinted) {
		pool->hinted++;
		pool->hinted_waited += waited ? 1 : 0;
	}
	if (!waited && (hinted || !result.restored)) {
		pool->hits++;
		manager_claimed(pool->manager);
	}
	/* The other misses were counted when they began to wait. */
	if (!result.restored && (hinted || !waited)) {
		demand_claim(pool, !waited);
	}
	metric_times_add(&pool->claim_times, result.took_us);
	note_claim(entry, &result);
	sync_at_claim(entry);
	fn(context, &result, NULL);
}

/* A ready one. */
static void hand_out(struct entry *entry, struct claim_spec *spec, bool hinted, int64_t started_us,
	claim_done_fn *fn, void *context)
{
	struct error err = ERROR_INIT;

	if (take(entry, spec, &err) < 0) {
		fn(context, NULL, &err);
	} else {
		finish(entry, COLD_NONE, hinted, false, started_us, fn, context);
	}
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
	if (claim->entry != NULL) {
		claim->entry->claim = NULL;
	} else {
		claim->image->waiting--;
	}
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
	/* Another image than the head is not what the pool is for. */
	if (reason != COLD_NONE && reason != COLD_MISMATCH && reason != COLD_DRAINING) {
		demand_claim(pool, false);
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
static void claim_give(struct claim *claim, struct entry *entry, bool hinted)
{
	enum cold_reason reason = claim->reason;
	int64_t started_us = claim->started_us;
	claim_done_fn *fn = claim->fn;
	void *context = claim->context;

	claim_free(claim);
	finish(entry, reason, hinted, true, started_us, fn, context);
}

void claims_serve(struct entry *entry)
{
	struct claim *claim = entry->claim;
	bool hinted = claim != NULL;
	struct error err = ERROR_INIT;

	if (entry->hint == NULL && !entry->outdated) {
		claim = entry->pool->claims_first;
		while (claim != NULL && (claim->image != entry->image || claim->entry != NULL)) {
			claim = claim->next;
		}
	}
	if (claim == NULL) {
		return;
	}
	if (take(entry, &claim->spec, &err) < 0) {
		claim_fail(claim, &err);
	} else {
		claim_give(claim, entry, hinted);
	}
}

void claims_creation_failed(struct pool *pool, struct pool_image *image, const struct entry *entry,
	const struct error *err)
{
	if (entry != NULL && entry->hint != NULL) {
		if (entry->claim != NULL) {
			claim_fail(entry->claim, err);
		}
		return;
	}
	for (struct claim *claim = pool->claims_first; claim != NULL; claim = claim->next) {
		if (claim->image == image && claim->entry == NULL) {
			claim_fail(claim, err);
			return;
		}
	}
}

void claims_release(struct entry *entry)
{
	struct claim *claim = entry->claim;

	if (claim != NULL) {
		entry->claim = NULL;
		claim->entry = NULL;
		claim->image->waiting++;
		manager_dirty(entry->manager);
	}
}

/* ---- limits ---- */

/* Claims that wait for a sandbox whose creation has not begun. */
static int64_t pool_owed(const struct pool *pool)
{
	int64_t owed =
		(int64_t)pool->creating_hinted -
		(int64_t)(pool->entries[ENTRY_CREATING].count + pool->entries[ENTRY_WARMING].count);

	for (const struct claim *claim = pool->claims_first; claim != NULL; claim = claim->next) {
		owed += claim->entry == NULL ? 1 : 0;
	}
	return owed > 0 ? owed : 0;
}

/* One is under way that nobody waits for, or there is room to make one. */
static int check_room(
	struct pool *pool, const struct pool_image *image, enum room_cost cost, struct error *err)
{
	if (image->creating - image->creating_hinted > image->waiting) {
		return 0;
	}
	return room_check(pool, image, pool_owed(pool), cost, err);
}

static struct claim *find_unprovided(const struct pool *pool)
{
	struct claim *claim = pool->claims_first;

	while (claim != NULL &&
		(claim->entry != NULL || claim->image->creating - claim->image->creating_hinted >=
						 claim->image->waiting)) {
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
		entry_create(pool, claim->image, NULL);
	}
}

/* ---- starting ---- */

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
	if (pool->entries[ENTRY_READY].count > pool->ready_hinted) {
		return COLD_STALE;
	}
	if (pool->attempts > 0) {
		return COLD_FAILED;
	}
	return pool->capped ? COLD_OVER_LIMIT : COLD_EMPTY;
}

/* The one that the key reserves, if that is what is asked for now. Another one goes back: whoever
 * had the key has made up his mind. */
static struct entry *find_hinted(struct manager *manager, const struct claim_spec *spec,
	const struct pool *pool, const struct pool_image *image)
{
	struct hint *hint = spec->key != NULL ? hint_find(manager, spec->caller, spec->key) : NULL;
	struct entry *entry = hint != NULL ? hint->entry : NULL;

	if (entry == NULL || entry->claim != NULL) {
		return NULL;
	}
	if (!reserved_fits(entry, pool, image, &spec->terms)) {
		hint_end(hint, "claimed as something else");
		return NULL;
	}
	return entry;
}

static struct entry *find_ready(struct pool *pool, const struct pool_image *image,
	const struct terms *terms, bool image_fits)
{
	struct entry *entry = ready_find(pool, image);

	if (entry != NULL && image_fits) {
		return entry;
	}
	entry = entry != NULL ? ready_find_newer(pool, image, terms) : NULL;
	return entry != NULL ? entry : ready_find_older(pool, terms);
}

/* None is ready: waits for one. NULL when it was answered. */
static struct claim *start_cold(struct pool *pool, struct pool_image *image,
	struct claim_spec *spec, claim_done_fn *fn, void *context)
{
	int64_t started_us = clock_mono_us();
	struct error err = ERROR_INIT, ignored = ERROR_INIT;
	struct entry *entry = NULL;
	struct claim *claim;

	if (check_room(pool, image, ROOM_UNRESERVED, &err) < 0) {
		/* Somebody who waits now comes before somebody who may come. */
		entry = reserved_find(pool, image);
		if (entry == NULL && check_room(pool, image, ROOM_RESERVED, &ignored) < 0) {
			pool->misses[COLD_OVER_LIMIT]++;
			fn(context, NULL, &err);
			return NULL;
		}
	}
	if (entry != NULL) {
		log_info("hint.yielded", "sandbox", entry->record.id, "environment", pool->name);
		pool->hints_ended++;
		hand_out(entry, spec, false, started_us, fn, context);
		return NULL;
	}
	claim = claim_wait(pool, image, spec, cold_reason_of(pool, image), fn, context);
	manager_dirty(pool->manager);
	return claim;
}

static struct claim *wait_for_hinted(
	struct entry *entry, struct claim_spec *spec, claim_done_fn *fn, void *context)
{
	struct claim *claim = claim_wait(entry->pool, entry->image, spec, COLD_NONE, fn, context);

	claim->image->waiting--;
	claim->entry = entry;
	entry->claim = claim;
	return claim;
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
	bool fits;

	if (choose(manager, &spec->choice, &pool, &image, &err) < 0) {
		fn(context, NULL, &err);
		return NULL;
	}
	fits = terms_are_any(&spec->terms) || terms_hold(pool, image, image->commit, &spec->terms);
	if ((entry = find_hinted(manager, spec, pool, image)) != NULL) {
		if (entry->record.state == ENTRY_READY && entry->client != NULL) {
			hand_out(entry, spec, true, started_us, fn, context);
		} else {
			claim = wait_for_hinted(entry, spec, fn, context);
		}
	} else if ((entry = find_ready(pool, image, &spec->terms, fits)) != NULL) {
		hand_out(entry, spec, false, started_us, fn, context);
	} else if (!fits) {
		pool->misses[COLD_STALE]++;
		terms_refuse(pool, &spec->terms, &err);
		fn(context, NULL, &err);
	} else {
		claim = start_cold(pool, image, spec, fn, context);
	}
	pool_image_put(image);
	return claim;
}

void claim_cancel(struct claim *claim)
{
	log_info("claim.abandoned", "environment", claim->pool->name);
	claim_free(claim);
}
