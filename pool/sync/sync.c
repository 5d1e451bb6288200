/* Syncs. The record says that one is under way before anything is sent inside, and what came of it
 * before hob-init forgets the command that applied it. */
#include "pool/sync/sync.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "pool/claim.h"
#include "pool/entry.h"
#include "pool/events.h"
#include "pool/freeze.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"
#include "pool/services.h"
#include "pool/sync/fetch.h"
#include "pool/sync/sync_run.h"
#include "pool/sync/transfer.h"

struct sync_waiter {
	struct sync_waiter *next;
	sync_done_fn *fn;
	void *context;
};

struct sync {
	struct entry *entry;
	struct entry_use use;
	struct transfer *transfer;
	struct sync_run *run; /* sync.run */
	struct pool_image *counts_as; /* counted, or NULL */
	char **commits; /* wanted */
	size_t source; /* the one that is at it */
	int64_t started_ms;
	struct sync_about *about;
	struct sync_waiter *waiters;
};

static const char *const outcome_names[] = {
	[SYNC_DONE] = "done",
	[SYNC_CONFLICT] = "conflict",
	[SYNC_FAILED] = "failed",
	[SYNC_TORN] = "torn",
};
_Static_assert(ARRAY_SIZE(outcome_names) == SYNC_OUTCOMES, "every outcome has a name");

void sync_about_free(struct sync_about *about)
{
	if (about == NULL) {
		return;
	}
	free(about->to);
	json_decref(about->paths);
	json_decref(about->stale);
	free(about);
}

static void sync_free(struct sync *sync)
{
	entry_use_end(&sync->use);
	pool_image_put(sync->counts_as);
	strv_free(sync->commits);
	sync_about_free(sync->about);
	free(sync);
}

bool sync_is_running(const struct entry *entry)
{
	return entry->sync != NULL;
}

/* ---- the end ---- */

static void record_write(struct entry *entry)
{
	struct error err = ERROR_INIT;

	if (entry_write(entry, &err) < 0) {
		log_failure("sandbox.record_failed", &err, "sandbox", entry->record.id);
	}
}

/* Steps stay stale until the sandbox goes: what an earlier sync made so still is. */
static void stale_keep(struct sync_about *about, const struct sync_about *before)
{
	const json_t *item;
	size_t i;

	if (before == NULL || before->stale == NULL) {
		return;
	}
	if (about->stale == NULL) {
		about->stale = json_incref(before->stale);
		return;
	}
	json_array_foreach (before->stale, i, item) {
		bool there = false;
		size_t k;
		const json_t *known;

		json_array_foreach (about->stale, k, known) {
			there = there || json_equal(known, item);
		}
		if (!there) {
			json_array_append(about->stale, (json_t *)(uintptr_t)item);
		}
	}
}

static void tell_waiters(struct sync_waiter *waiter, struct entry *entry)
{
	while (waiter != NULL) {
		struct sync_waiter *next = waiter->next;

		if (waiter->fn != NULL) {
			waiter->fn(waiter->context, entry, entry->sync_about);
		}
		free(waiter);
		waiter = next;
	}
}

/* One that nobody has claimed is clean or gone. */
static void settle(struct entry *entry, enum sync_outcome outcome, const struct pool_image *as)
{
	if (entry->record.state != ENTRY_READY) {
		return;
	}
	if (outcome == SYNC_TORN || entry->sync_about->run_code != 0) {
		entry_release(entry, "its source could not be synced");
		return;
	}
	if (outcome != SYNC_DONE && as != NULL) {
		entry->refresh_failed = true;
		entry->pool->refresh_failures++;
	}
	entry_freeze_later(entry);
	manager_dirty(entry->manager);
}

static void sync_end(struct sync *sync)
{
	struct entry *entry = sync->entry;
	struct sync_about *about = steal_ptr(sync->about);
	struct sync_waiter *waiters = sync->waiters;
	struct pool_image *as = sync->counts_as;
	enum sync_outcome outcome = about->outcome;

	about->ended_ms = clock_real_ms();
	about->took_ms = clock_mono_ms() - sync->started_ms;
	stale_keep(about, entry->sync_about);
	sync_about_free(entry->sync_about);
	entry->sync_about = about;
	entry->record.sync.running = false;
	entry->record.sync.exec = 0;
	entry->record.sync.torn = outcome == SYNC_TORN;
	if (outcome == SYNC_DONE && as != NULL) {
		entry->record.sync.refreshed_id = as->id;
		entry->record.sync.refreshes++;
		entry->pool->refreshes++;
	}
	record_write(entry);
	(void)fault_point("sync.recorded");
	entry->sync = NULL;
	entry->pool->syncs++;
	if (outcome == SYNC_DONE) {
		log_info("sandbox.synced", "sandbox", entry->record.id, "environment",
			entry->pool->name, "commit", entry_commit_of(entry, 0), "changes",
			about->changes, "image", as != NULL ? as->id : 0, "ms", about->took_ms);
	} else {
		log_failure("sandbox.not_synced", &about->error, "sandbox", entry->record.id,
			"outcome", outcome_names[outcome]);
	}
	event_add(entry, EVENT_SYNC,
		json_pack("{s:s, s:s}", "outcome", outcome_names[outcome], "commit",
			entry_commit_of(entry, 0)));
	if (outcome == SYNC_DONE && as != NULL) {
		entry_count_as(entry, as);
	}
	if (outcome == SYNC_DONE && about->changes > 0) {
		entry_services_refreshed(entry);
	}
	sync_free(sync);
	tell_waiters(waiters, entry);
	settle(entry, outcome, as);
	if (outcome == SYNC_DONE && as != NULL && entry->record.state == ENTRY_READY) {
		claims_serve(entry);
	}
}

static void sync_fail(struct sync *sync, enum sync_outcome outcome, const struct error *err)
{
	sync->about->outcome = outcome;
	error_copy(&sync->about->error, err);
	sync_end(sync);
}

/* The sandbox goes. */
static void on_lost(struct entry_use *use, const struct error *err)
{
	struct sync *sync = container_of(use, struct sync, use);
	struct entry *entry = sync->entry;
	struct sync_waiter *waiters = sync->waiters;
	struct sync_about *about = steal_ptr(sync->about);

	if (sync->transfer != NULL) {
		transfer_abandon(sync->transfer);
	}
	sync_run_abandon(sync->run);
	about->outcome = SYNC_FAILED;
	error_copy(&about->error, err);
	sync_about_free(entry->sync_about);
	entry->sync_about = about;
	entry->sync = NULL;
	sync_free(sync);
	tell_waiters(waiters, entry);
}

void sync_drop(struct entry *entry)
{
	struct sync *sync = entry->sync;

	if (sync == NULL) {
		return;
	}
	entry->sync = NULL;
	sync_run_abandon(sync->run);
	while (sync->waiters != NULL) {
		struct sync_waiter *waiter = sync->waiters;

		sync->waiters = waiter->next;
		free(waiter);
	}
	sync_free(sync);
}

/* ---- one workspace after the other ---- */

static void sync_next(struct sync *sync);

static void on_run_done(void *context, int code, const struct error *err)
{
	struct sync *sync = context;

	sync->run = NULL;
	sync->about->ran = true;
	sync->about->run_code = err != NULL ? -1 : code;
	if (err != NULL) {
		error_copy(&sync->about->error, err);
		log_failure("sync.run_failed", err, "sandbox", sync->entry->record.id);
	}
	sync_end(sync);
}

static void sync_finish(struct sync *sync)
{
	const struct environment *conf = sync->entry->pool->conf;
	struct error err = ERROR_INIT;

	if (sync->about->changes == 0 || conf == NULL || conf->sync.run == NULL) {
		sync_end(sync);
		return;
	}
	if (sync_run_start(sync->entry, conf->sync.run, on_run_done, sync, &sync->run, &err) < 0) {
		on_run_done(sync, -1, &err);
	}
}

static void commit_set(struct entry *entry, size_t source, const char *commit)
{
	const struct pool_image *base = entry_base(entry);
	char **commits = NULL;

	for (size_t i = 0; i < base->source_count; i++) {
		strv_add(&commits, i == source ? commit : entry_commit_of(entry, i));
	}
	strv_free(entry->record.sync.commits);
	entry->record.sync.commits = commits;
}

/* What came of one workspace, into the record and what is told. True: it is there. */
static bool take_result(struct sync *sync, const struct transfer_result *result)
{
	static const enum sync_outcome outcomes[] = {
		[TRANSFER_DONE] = SYNC_DONE,
		[TRANSFER_CONFLICT] = SYNC_CONFLICT,
		[TRANSFER_UNTOUCHED] = SYNC_FAILED,
		[TRANSFER_TORN] = SYNC_TORN,
	};
	struct sync_about *about = sync->about;

	about->outcome = outcomes[result->outcome];
	about->changes += result->changes;
	sync->entry->record.sync.bytes += result->bytes;
	if (result->stale != NULL && json_array_size(result->stale) > 0) {
		if (about->stale == NULL) {
			about->stale = json_array();
		}
		json_array_extend(about->stale, (json_t *)(uintptr_t)result->stale);
	}
	if (result->outcome == TRANSFER_DONE) {
		return true;
	}
	error_copy(&about->error, &result->error);
	if (result->paths != NULL) {
		about->paths = json_array();
		for (char **path = result->paths; *path != NULL; path++) {
			json_array_append_new(about->paths, json_str_or_null(*path));
		}
	}
	return false;
}

static void on_applied(void *context)
{
	struct sync *sync = context;

	(void)fault_point("sync.applied");
	commit_set(sync->entry, sync->source, sync->commits[sync->source]);
	sync->entry->record.sync.exec = 0;
	sync->entry->record.sync.torn = false;
	record_write(sync->entry);
}

static void on_transferred(void *context, const struct transfer_result *result)
{
	struct sync *sync = context;

	sync->transfer = NULL;
	if (!take_result(sync, result)) {
		sync_end(sync);
		return;
	}
	sync->source++;
	sync_next(sync);
}

static const struct transfer_events events = {.applied = on_applied, .done = on_transferred};

static int transfer_begin(struct sync *sync, struct error *err)
{
	struct entry *entry = sync->entry;
	struct entry_record_sync *record = &entry->record.sync;
	const struct image_source *source = &entry_base(entry)->sources[sync->source];
	struct transfer_order order = {.exec = entry->next_exec++,
		.source = sync->source,
		.from = entry_commit_of(entry, sync->source),
		.to = sync->commits[sync->source],
		.ref = source->ref,
		.workspace = source->path};
	int status;

	record->running = true;
	record->exec = order.exec;
	record->source = (int64_t)sync->source;
	free(record->to);
	record->to = xstrdup(order.to);
	status = entry_write(entry, err);
	if (status < 0) {
		return status;
	}
	(void)fault_point("sync.start");
	return transfer_start(entry, &order, &events, sync, &sync->transfer, err);
}

static void sync_next(struct sync *sync)
{
	struct error err = ERROR_INIT;

	while (sync->commits[sync->source] != NULL &&
		streq(sync->commits[sync->source], entry_commit_of(sync->entry, sync->source)) &&
		!sync->entry->record.sync.torn) {
		sync->source++;
	}
	if (sync->commits[sync->source] == NULL) {
		sync_finish(sync);
	} else if (transfer_begin(sync, &err) < 0) {
		sync_fail(sync, SYNC_FAILED, &err);
	}
}

static int check_start(struct entry *entry, char *const *commits, struct error *err)
{
	const struct pool_image *base = entry_base(entry);

	if (entry->client == NULL) {
		return error_set(
			err, ERROR_UNAVAILABLE, "sandbox %s has lost its init", entry->record.id);
	}
	if (entry->sync != NULL) {
		error_set(err, ERROR_CONFLICT, "sandbox %s is being synced already",
			entry->record.id);
		return error_hint(err, "it is done in a moment");
	}
	if (base == NULL || base->source_count == 0 || strv_count(commits) > base->source_count) {
		return error_set(
			err, ERROR_CONFLICT, "sandbox %s has no source to sync", entry->record.id);
	}
	return 0;
}

static struct sync *sync_new(struct entry *entry, char *const *commits)
{
	struct sync *sync = xcalloc(1, sizeof(*sync));

	sync->entry = entry;
	sync->commits = strv_copy(commits);
	sync->started_ms = clock_mono_ms();
	sync->about = xcalloc(1, sizeof(*sync->about));
	sync->about->to = xstrdup(commits[0]);
	entry->sync = sync;
	entry_use_begin(entry, &sync->use, true, on_lost);
	return sync;
}

int sync_start(struct entry *entry, char *const *commits, struct pool_image *counts_as,
	sync_done_fn *fn, void *context, struct error *err)
{
	struct sync *sync;
	int status = check_start(entry, commits, err);

	if (status < 0) {
		return status;
	}
	if (entry->record.state != ENTRY_PAUSED) {
		entry_thaw_due(entry);
	}
	sync = sync_new(entry, commits);
	sync->counts_as = counts_as != NULL ? pool_image_ref(counts_as) : NULL;
	sync_wait(entry, fn, context);
	sync_next(sync);
	return 0;
}

void sync_wait(struct entry *entry, sync_done_fn *fn, void *context)
{
	struct sync_waiter *waiter;

	if (entry->sync == NULL) {
		fn(context, entry, entry->sync_about);
		return;
	}
	if (fn == NULL) {
		return;
	}
	waiter = xcalloc(1, sizeof(*waiter));
	*waiter = (struct sync_waiter){entry->sync->waiters, fn, context};
	entry->sync->waiters = waiter;
}

void sync_forget(struct entry *entry, void *context)
{
	struct sync_waiter *waiter = entry->sync != NULL ? entry->sync->waiters : NULL;

	for (; waiter != NULL; waiter = waiter->next) {
		if (waiter->context == context) {
			waiter->fn = NULL;
		}
	}
}

/* ---- adoption ---- */

static void on_adopted_end(void *context, const struct transfer_result *result)
{
	struct sync *sync = context;

	sync->transfer = NULL;
	(void)take_result(sync, result);
	sync_end(sync);
}

static const struct transfer_events adopted_events = {
	.applied = on_applied, .done = on_adopted_end};

bool sync_adopts(struct entry *entry, uint32_t exec)
{
	struct entry_record_sync *record = &entry->record.sync;
	struct error err = ERROR_INIT;
	char **commits = NULL;
	struct sync *sync;

	if (!record->running || record->exec != exec || entry->sync != NULL ||
		record->source >= (int64_t)entry_base(entry)->source_count) {
		return false;
	}
	for (int64_t i = 0; i < record->source; i++) {
		strv_add(&commits, entry_commit_of(entry, (size_t)i));
	}
	strv_add(&commits, record->to != NULL ? record->to : "");
	sync = sync_new(entry, commits);
	strv_free(commits);
	sync->source = (size_t)record->source;
	if (transfer_adopt(entry, exec, &adopted_events, sync, &sync->transfer, &err) < 0) {
		sync_fail(sync, SYNC_TORN, &err);
	}
	return true;
}

void sync_adopted(struct entry *entry)
{
	struct entry_record_sync *record = &entry->record.sync;

	if (record->exec >= entry->next_exec) {
		entry->next_exec = record->exec + 1;
	}
	if (record->running && entry->sync == NULL) {
		record->running = false;
		record->exec = 0;
		record_write(entry);
		log_info("sandbox.sync_not_begun", "sandbox", entry->record.id);
	}
}

/* ---- showing ---- */

int64_t sync_behind_s(const struct entry *entry)
{
	const struct pool_image *image = entry->image, *head = entry->pool->head;
	const struct pool_image *base = entry_base(entry);
	int64_t seen_ms = newest_seen_ms(entry->pool), own_ms;
	bool behind = false;

	if (image == NULL) {
		return 0;
	}
	if (newest_count(entry->pool) != base->source_count || base->source_count == 0) {
		seen_ms = head != NULL && head != image ? head->created_ms : 0;
		behind = seen_ms > image->created_ms;
	}
	for (size_t i = 0;
		newest_count(entry->pool) == base->source_count && i < base->source_count; i++) {
		behind = behind || !streq(newest_commit(entry->pool, i), entry_commit_of(entry, i));
	}
	if (!behind) {
		return 0;
	}
	own_ms = entry->sync_about != NULL && entry->sync_about->outcome == SYNC_DONE
			 ? entry->sync_about->ended_ms
			 : image->created_ms;
	return seen_ms > own_ms + 1000 ? (seen_ms - own_ms) / 1000 : 1;
}

static const char *state_name(const struct entry *entry)
{
	if (entry->sync != NULL) {
		return "running";
	}
	if (entry->sync_wanted) {
		return "fetching";
	}
	if (entry->record.sync.torn) {
		return outcome_names[SYNC_TORN];
	}
	return entry->sync_about != NULL ? outcome_names[entry->sync_about->outcome] : NULL;
}

json_t *sync_to_json(const struct entry *entry)
{
	const struct sync_about *about = entry->sync_about;
	const char *state = state_name(entry);
	json_t *json;

	if (state == NULL) {
		return json_null();
	}
	json = json_pack("{s:s}", "state", state);
	if (entry->sync != NULL) {
		json_object_set_new(json, "to", json_string(entry->sync->about->to));
	}
	if (about == NULL) {
		return json;
	}
	if (entry->sync == NULL) {
		json_object_set_new(json, "to", json_string(about->to));
		json_object_set_new(json, "took_ms", json_integer((json_int_t)about->took_ms));
		json_object_set_new(json, "changes", json_integer((json_int_t)about->changes));
	}
	if (about->error.kind != ERROR_NONE) {
		json_object_set_new(json, "message", json_str_or_null(about->error.message));
	}
	if (about->paths != NULL) {
		json_object_set(json, "paths", about->paths);
	}
	if (about->stale != NULL) {
		json_object_set(json, "steps_stale", about->stale);
	}
	if (about->ran) {
		json_object_set_new(json, "run_code", json_integer(about->run_code));
	}
	return json;
}
