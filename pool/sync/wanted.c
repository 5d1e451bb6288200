/* Early: at a hint or a claim the newest commit is fetched, and the sandbox brought to it while its
 * person types or works. One fetch serves all sandboxes of an environment that ask meanwhile. */
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/entry.h"
#include "pool/image.h"
#include "pool/manager.h"
#include "pool/sync/fetch.h"
#include "pool/sync/sync.h"

static bool is_at_newest(const struct entry *entry)
{
	for (size_t i = 0; i < newest_count(entry->pool); i++) {
		if (!streq(newest_commit(entry->pool, i), entry_commit_of(entry, i))) {
			return false;
		}
	}
	return true;
}

/* Only where the sources are still what the image was made of. */
static bool sources_match(const struct entry *entry)
{
	const struct pool_image *base = entry_base(entry);

	if (base == NULL || base->source_count != newest_count(entry->pool)) {
		return false;
	}
	for (size_t i = 0; i < base->source_count; i++) {
		if (!streq(base->sources[i].ref, newest_ref(entry->pool, i))) {
			return false;
		}
	}
	return base->source_count > 0;
}

static void start_wanted(struct entry *entry)
{
	CLEANUP(strv_free_p) char **commits = NULL;
	struct error err = ERROR_INIT;

	entry->sync_wanted = false;
	if (entry->sync != NULL || !sources_match(entry) || is_at_newest(entry)) {
		return;
	}
	for (size_t i = 0; i < newest_count(entry->pool); i++) {
		strv_add(&commits, newest_commit(entry->pool, i));
	}
	if (sync_start(entry, commits, NULL, NULL, NULL, &err) < 0) {
		log_failure("sandbox.not_synced", &err, "sandbox", entry->record.id);
	}
}

static void start_all(struct pool *pool, bool known)
{
	static const enum entry_state states[] = {ENTRY_READY, ENTRY_CLAIMED};

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		struct entry *entry = pool->entries[states[i]].first;

		while (entry != NULL) {
			struct entry *next = entry->next;

			if (entry->sync_wanted && known) {
				start_wanted(entry);
			}
			entry->sync_wanted = false;
			entry = next;
		}
	}
}

static void on_fetched(struct fetch_wait *wait, const struct error *err)
{
	start_all(container_of(wait, struct pool, sync_wait), err == NULL);
}

static void begin(struct pool *pool)
{
	loop_timer_stop(pool->sync_timer);
	pool->sync_soon = false;
	if (pool->sync_wait.pool == NULL) {
		fetch_newest(pool, FETCH_SHARED_MS, &pool->sync_wait, on_fetched);
	} /* else it is told of the fetch that runs, and looks at all of them */
}

void sync_on_timer(void *context)
{
	begin(context);
}

/* False: nothing is to be begun for it. */
static bool mark(struct entry *entry)
{
	const struct environment *conf = entry->pool->conf;
	const struct pool_image *base = entry_base(entry);

	if (conf == NULL || streq(conf->sync.at, "never") || entry->sync_wanted ||
		entry->sync != NULL || base == NULL || base->snapshot_id != 0 ||
		base->source_count == 0) {
		return false;
	}
	entry->sync_wanted = true;
	return true;
}

void sync_wanted(struct entry *entry)
{
	/* Wanted already by the hint that the claim follows: now it is in a hurry. */
	if (mark(entry) || (entry->sync_wanted && entry->pool->sync_soon)) {
		begin(entry->pool);
	}
}

void sync_wanted_soon(struct entry *entry)
{
	struct pool *pool = entry->pool;

	if (mark(entry) && !pool->sync_soon) {
		pool->sync_soon = true;
		loop_timer_after(pool->sync_timer, SYNC_PAUSE_MS);
	}
}

void sync_when_ready(struct entry *entry)
{
	if (entry->sync_wanted && !entry->pool->sync_soon && !fetch_is_running(entry->pool)) {
		start_wanted(entry);
	}
}

void sync_at_claim(struct entry *entry)
{
	const struct environment *conf = entry->pool->conf;

	if (conf != NULL && streq(conf->sync.at, "claim")) {
		sync_wanted(entry);
	}
}
