/*
 * Hints: each is on one sandbox and in one caller's list. What is written about the sandbox comes
 * first, what is in memory after it, as for states; a renewal only moves the state file's time, as
 * activity does.
 */
#include "pool/hints/hint.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/choose.h"
#include "pool/claim.h"
#include "pool/entry.h"
#include "pool/freeze.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/sync/sync.h"

#include <assert.h>
#include <inttypes.h>

/* What a start takes is known from the first one on; before that, this. */
#define START_GUESS_MS 10
/* Its caller's claim waits for it, or it is being adopted: look again later. */
#define EXPIRED_AGAIN_MS 1000

/* ---- callers ---- */

static struct hint_owner *owner_find(const struct manager *manager, const char *name)
{
	struct hint_owner *owner = manager->hint_owners;

	while (owner != NULL && !streq(owner->caller.name, name)) {
		owner = owner->next;
	}
	return owner;
}

static struct hint_owner *owner_add(struct manager *manager, const char *name)
{
	struct hint_owner *owner = owner_find(manager, name);

	if (owner == NULL) {
		owner = xcalloc(1, sizeof(*owner));
		memcpy(owner->caller.name, name, strnlen(name, CALLER_SIZE - 1));
		owner->next = manager->hint_owners;
		manager->hint_owners = owner;
	}
	return owner;
}

static void owner_put(struct manager *manager, struct hint_owner *owner)
{
	struct hint_owner **at = &manager->hint_owners;

	if (owner->count > 0) {
		return;
	}
	while (*at != owner) {
		at = &(*at)->next;
	}
	*at = owner->next;
	free(owner);
}

static const char *key_of(const struct hint *hint)
{
	return hint->entry->record.hint.key;
}

static struct hint *find_other(
	const struct manager *manager, const char *owner_name, const char *key, const void *than)
{
	const struct hint_owner *owner = owner_find(manager, owner_name);
	struct hint *hint = owner != NULL ? owner->hints : NULL;

	while (hint != NULL && (hint == than || !streq(key_of(hint), key))) {
		hint = hint->next;
	}
	return hint;
}

struct hint *hint_find(const struct manager *manager, const struct caller *caller, const char *key)
{
	return find_other(manager, caller->name, key, NULL);
}

const struct hint *hints_of(const struct manager *manager, const struct caller *caller)
{
	const struct hint_owner *owner = owner_find(manager, caller->name);

	return owner != NULL ? owner->hints : NULL;
}

/* ---- what it is ---- */

int64_t hint_expires_ms(const struct hint *hint)
{
	const struct entry_record *record = &hint->entry->record;

	return record->last_active_ms + record->hint.ttl_ms;
}

bool hint_is_ready(const struct hint *hint)
{
	return hint->entry->record.state == ENTRY_READY && hint->entry->client != NULL;
}

int64_t hint_eta_ms(const struct hint *hint)
{
	const struct entry *entry = hint->entry;
	int64_t start_ms =
		entry->pool->start_us > 0 ? (entry->pool->start_us + 999) / 1000 : START_GUESS_MS;
	int64_t passed_ms = (clock_mono_us() - entry->requested_us) / 1000;

	if (hint_is_ready(hint)) {
		return 0;
	}
	return passed_ms < start_ms ? start_ms - passed_ms : 1;
}

/* ---- on and off a sandbox ---- */

static void arm(struct hint *hint)
{
	int64_t left = hint_expires_ms(hint) - clock_real_ms();

	loop_timer_after(hint->timer, left > 0 ? left : 0);
}

static void on_expired(void *context)
{
	struct hint *hint = context;

	if (hint->entry->claim != NULL || hint->entry->adopt_as != ENTRY_GONE) {
		loop_timer_after(hint->timer, EXPIRED_AGAIN_MS);
	} else if (hint_expires_ms(hint) > clock_real_ms()) {
		arm(hint);
	} else {
		hint_end(hint, "its time to live is over");
	}
}

/* The record has the hint already. */
static struct hint *attach(struct entry *entry)
{
	struct manager *manager = entry->manager;
	struct hint *hint = xcalloc(1, sizeof(*hint));

	hint->entry = entry;
	hint->owner = owner_add(manager, entry->record.hint.owner);
	hint->next = hint->owner->hints;
	hint->owner->hints = hint;
	hint->owner->count++;
	hint->since_ms = clock_real_ms();
	hint->timer = loop_timer_new(manager->loop, on_expired, hint);
	entry_set_hint(entry, hint);
	if (entry->record.state == ENTRY_READY) {
		entry_thaw_soon(entry);
	}
	arm(hint);
	return hint;
}

void hint_forget(struct entry *entry)
{
	struct hint *hint = entry->hint;
	struct hint **at;

	if (hint == NULL) {
		return;
	}
	for (at = &hint->owner->hints; *at != hint; at = &(*at)->next) {
	}
	*at = hint->next;
	hint->owner->count--;
	owner_put(entry->manager, hint->owner);
	entry_set_hint(entry, NULL);
	entry->record.hint = (struct hint_record){0};
	loop_timer_free(hint->timer);
	free(hint);
}

/* Nobody waits for one of these any more. */
static bool is_useless(const struct entry *entry)
{
	return entry->image == NULL || entry->image->snapshot_id != 0 || entry->pool->conf == NULL;
}

void hint_end(struct hint *hint, const char *reason)
{
	struct entry *entry = hint->entry;
	struct error err = ERROR_INIT;

	log_info("hint.ended", "sandbox", entry->record.id, "environment", entry->pool->name,
		"reason", reason);
	entry->pool->hints_ended++;
	claims_release(entry);
	hint_forget(entry);
	(void)fault_point("hint.end");
	if (is_useless(entry)) {
		entry_release(entry, reason);
		return;
	}
	/* Not written, the hint comes back with the next hobd and ends there. */
	if (entry->record.state != ENTRY_RELEASING && entry_write(entry, &err) < 0) {
		log_failure("sandbox.record_failed", &err, "sandbox", entry->record.id);
	}
	if (entry->record.state == ENTRY_READY) {
		entry_freeze_later(entry);
		claims_serve(entry);
	}
	manager_dirty(entry->manager);
}

void hint_adopt(struct entry *entry)
{
	const struct hint_record *record = &entry->record.hint;
	struct hint *hint = attach(entry);
	struct hint *other = find_other(entry->manager, record->owner, record->key, hint);

	if (other == NULL || entry->adopt_as == ENTRY_GONE) {
		return;
	}
	/* The last hobd was killed while the key went from one to the other. */
	if (other->entry->record.last_active_ms < entry->record.last_active_ms) {
		hint = other;
	}
	hint_forget(hint->entry);
}

/* ---- reserving ---- */

static void hint_record_fill(struct hint_record *record, const struct hint_spec *spec)
{
	memcpy(record->owner, spec->caller->name, sizeof(record->owner));
	snprintf(record->key, sizeof(record->key), "%s", spec->key);
	record->ttl_ms = spec->ttl_ms;
}

/* One under way on the image that neither a hint nor a waiting claim has. */
static struct entry *find_starting(const struct pool *pool, const struct pool_image *image)
{
	static const enum entry_state states[] = {ENTRY_WARMING, ENTRY_CREATING};

	if (image->creating - image->creating_hinted <= image->waiting) {
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		struct entry *entry = pool->entries[states[i]].first;

		for (; entry != NULL; entry = entry->next) {
			if (entry->image == image && entry->hint == NULL && !entry->outdated &&
				!entry->release_wanted && entry->adopt_as == ENTRY_GONE) {
				return entry;
			}
		}
	}
	return NULL;
}

/* Writes the hint down with a sandbox that is there, ready or starting. */
static int reserve(struct entry *entry, const struct hint_record *record, struct error *err)
{
	int64_t active_ms = entry->record.last_active_ms;
	int status = fault_point("hint.record");

	entry->record.hint = *record;
	entry->record.last_active_ms = clock_real_ms();
	status = status != 0 ? error_sys(err, status, "record a hint") : entry_write(entry, err);
	if (status < 0) {
		entry->record.hint = (struct hint_record){0};
		entry->record.last_active_ms = active_ms;
		return status;
	}
	(void)attach(entry);
	return 0;
}

static int check_may_start(struct pool *pool, const struct pool_image *image, struct error *err)
{
	int64_t now_ms = clock_mono_ms();

	if (image->snapshot_id == 0 && pool->attempts > 0 && now_ms < pool->retry_at_ms) {
		error_set(err, ERROR_UNAVAILABLE,
			"sandboxes of \"%s\" fail to start; the next attempt is in %" PRId64
			" ms: %s",
			pool->name, pool->retry_at_ms - now_ms, pool->failure.message);
		return error_hint(err, "`hob pool` shows it");
	}
	return room_check(pool, image, 0, ROOM_NOBODY, err);
}

/* Starts one for the hint; its first line has the hint already. */
static int start(struct pool *pool, struct pool_image *image, const struct hint_record *record,
	const struct hint *former, struct error *err)
{
	int status = check_may_start(pool, image, err);

	if (status < 0) {
		return status;
	}
	entry_create(pool, image, record);
	if (find_other(pool->manager, record->owner, record->key, former) == NULL) {
		error_set(err, ERROR_UNAVAILABLE, "a sandbox of \"%s\" could not be started: %s",
			pool->name, pool->failure.message);
		return error_hint(err, "`hob pool` shows it");
	}
	return 0;
}

static int bind(struct pool *pool, struct pool_image *image, const struct hint_record *record,
	const struct hint *former, struct error *err)
{
	struct entry *entry = ready_find(pool, image);
	int status;

	if (entry == NULL) {
		entry = find_starting(pool, image);
	}
	status = entry != NULL ? reserve(entry, record, err)
			       : start(pool, image, record, former, err);
	if (status == 0) {
		/* The pool is filled again, a moment later when it had been quiet. */
		manager_claimed(pool->manager);
		manager_dirty(pool->manager);
	}
	return status;
}

/* ---- calls ---- */

static int renew(struct hint *hint, int64_t ttl_ms, struct error *err)
{
	struct entry *entry = hint->entry;
	int64_t before_ms = entry->record.hint.ttl_ms;
	int status = 0;

	if (ttl_ms != before_ms) {
		entry->record.hint.ttl_ms = ttl_ms;
		if ((status = entry_write(entry, err)) < 0) {
			entry->record.hint.ttl_ms = before_ms;
			return status;
		}
	}
	entry_touch(entry);
	arm(hint);
	return 0;
}

static int check_limit(
	const struct manager *manager, const struct hint_spec *spec, struct error *err)
{
	const struct hint_owner *owner = owner_find(manager, spec->caller->name);
	int64_t count = owner != NULL ? (int64_t)owner->count : 0;
	int64_t allowed = manager->config->hints_per_caller;

	if (count < allowed) {
		return 0;
	}
	error_set(err, ERROR_LIMIT,
		"%s has %" PRId64 " sandboxes reserved by hints; allowed is %" PRId64
		" (hints_per_caller)",
		spec->caller->name, count, allowed);
	return error_hint(err,
		"use one key for each person who types; `hob pool hints` lists them, "
		"`hob warm --cancel KEY` gives one back");
}

int hint_warm(struct manager *manager, const struct hint_spec *spec, const struct hint **ret_hint,
	struct error *err)
{
	const struct choice choice = {.environment = spec->environment, .snapshot = spec->snapshot};
	struct hint *hint = hint_find(manager, spec->caller, spec->key);
	struct pool_image *image = NULL;
	struct pool *pool = NULL;
	struct hint_record record;
	int status = choose(manager, &choice, &pool, &image, err);

	if (status < 0) {
		return status;
	}
	if (hint != NULL && reserved_fits(hint->entry, pool, image, &TERMS_ANY)) {
		status = renew(hint, spec->ttl_ms, err);
	} else if (hint != NULL || (status = check_limit(manager, spec, err)) == 0) {
		hint_record_fill(&record, spec);
		status = bind(pool, image, &record, hint, err);
		if (status == 0 && hint != NULL) {
			(void)fault_point("hint.moved");
			hint_end(hint, "its key stands for something else now");
		}
	}
	pool_image_put(image);
	if (status < 0) {
		return error_wrap(err, "hint \"%s\"", spec->key);
	}
	*ret_hint = hint_find(manager, spec->caller, spec->key);
	/* While they type, and anew with each keystroke. */
	sync_wanted_soon((*ret_hint)->entry);
	return 0;
}

/* ---- the reconciler's ---- */

static bool is_of_environment(const struct entry *entry)
{
	return entry->hint != NULL && entry->image->snapshot_id == 0;
}

void hints_follow(struct pool *pool)
{
	struct entry *entry = pool->entries[ENTRY_READY].first;
	struct error err = ERROR_INIT;

	while (entry != NULL && pool->head != NULL) {
		struct entry *next = entry->next;
		struct hint_record record = entry->record.hint;
		int64_t active_ms = entry->record.last_active_ms;
		struct hint *hint = entry->hint;

		if (is_of_environment(entry) && (entry->image != pool->head || entry->outdated) &&
			entry->claim == NULL && bind(pool, pool->head, &record, hint, &err) == 0) {
			/* Following is not renewing. */
			struct hint *moved =
				find_other(pool->manager, record.owner, record.key, hint);

			moved->entry->record.last_active_ms = active_ms;
			entry_keep_time(moved->entry);
			arm(moved);
			hint_end(hint, "a newer image is there");
		}
		entry = next;
	}
}

void hints_drain(struct pool *pool)
{
	struct entry *entry = pool->entries[ENTRY_READY].first;

	while (entry != NULL) {
		struct entry *next = entry->next;

		if (is_of_environment(entry) && entry->claim == NULL) {
			hint_end(entry->hint, "its environment is gone");
		}
		entry = next;
	}
}

/* ---- hobd's start ---- */

void hint_leftover(struct entry *entry)
{
	struct manager *manager = entry->manager;

	manager->pending--; /* the start does not wait for it */
	*array_add(&manager->hint_leftovers, &manager->hint_leftover_count,
		&manager->hint_leftover_room) = entry;
}

static void restore(struct entry *entry)
{
	struct hint_record record = entry->record.hint;
	struct error err = ERROR_INIT;

	if (find_other(entry->manager, record.owner, record.key, NULL) != NULL ||
		entry->record.last_active_ms + record.ttl_ms <= clock_real_ms()) {
		return;
	}
	if (entry->image->snapshot_id == 0 && entry->pool->head == NULL) {
		return;
	}
	if (bind(entry->pool, entry->image->snapshot_id == 0 ? entry->pool->head : entry->image,
		    &record, NULL, &err) < 0) {
		log_failure("hint.lost", &err, "environment", entry->pool->name);
	}
}

void hints_restore(struct manager *manager)
{
	for (size_t i = 0; i < manager->hint_leftover_count; i++) {
		struct entry *entry = manager->hint_leftovers[i];

		restore(entry);
		entry->record.hint = (struct hint_record){0};
		manager->pending++;
		entry_release(entry, "was being made when hobd ended");
	}
	manager->hint_leftover_count = 0;
}
