/* The manager's start and end, its table of sandboxes and its list of pools. */
#include "pool/manager.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/adopt.h"
#include "pool/builds.h"
#include "pool/claim.h"
#include "pool/demand/demand.h"
#include "pool/disk.h"
#include "pool/dormant.h"
#include "pool/environments.h"
#include "pool/hints/hint.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/page_out.h"
#include "pool/run.h"
#include "pool/sandbox/sandbox.h"
#include "pool/services.h"
#include "pool/snapshot.h"
#include "pool/sync/ancestry.h"
#include "pool/sync/fetch.h"
#include "pool/sync/sync.h"
#include "pool/sync/transfer.h"
#include "pool/upkeep.h"
#include "pool/usage.h"

#include <fcntl.h>
#include <sys/random.h>

/* ---- the table ---- */

static size_t bucket_of(const char *id)
{
	size_t hash = 5381;

	for (; *id != '\0'; id++) {
		hash = hash * 33 + (unsigned char)*id;
	}
	return hash % ENTRY_BUCKETS;
}

struct entry *manager_entry(const struct manager *manager, const char *id)
{
	struct entry *entry = manager->buckets[bucket_of(id)];

	while (entry != NULL && !streq(entry->record.id, id)) {
		entry = entry->bucket_next;
	}
	return entry;
}

void manager_entry_add(struct manager *manager, struct entry *entry)
{
	struct entry **bucket = &manager->buckets[bucket_of(entry->record.id)];

	entry->bucket_next = *bucket;
	*bucket = entry;
	manager->entry_count++;
}

void manager_entry_remove(struct manager *manager, struct entry *entry)
{
	struct entry **at = &manager->buckets[bucket_of(entry->record.id)];

	while (*at != entry) {
		at = &(*at)->bucket_next;
	}
	*at = entry->bucket_next;
	manager->entry_count--;
	manager_check_stopped(manager);
}

void manager_check_stopped(struct manager *manager)
{
	if (manager->stopping && !manager->closing && manager->entry_count == 0 &&
		manager->snapshot_jobs == NULL && manager->removals == 0) {
		manager->on_stopped(manager->context);
	}
}

/* ---- pools ---- */

struct pool *manager_pool(const struct manager *manager, const char *name)
{
	struct pool *pool = manager->pools;

	while (pool != NULL && !streq(pool->name, name)) {
		pool = pool->next;
	}
	return pool;
}

struct pool *manager_pool_add(struct manager *manager, const char *name)
{
	struct pool *pool = manager_pool(manager, name);
	struct pool **at = &manager->pools;

	if (pool != NULL) {
		return pool;
	}
	pool = xcalloc(1, sizeof(*pool));
	pool->manager = manager;
	pool->build_pidfd = -1;
	pool->sync_timer = loop_timer_new(manager->loop, sync_on_timer, pool);
	memcpy(pool->name, name, strnlen(name, NAME_MAX_LENGTH));
	while (*at != NULL && strcmp((*at)->name, name) < 0) {
		at = &(*at)->next;
	}
	pool->next = *at;
	*at = pool;
	return pool;
}

static bool pool_is_used(const struct pool *pool)
{
	for (size_t i = 0; i < ENTRY_STATES; i++) {
		if (pool->entries[i].count > 0) {
			return true;
		}
	}
	return pool->conf != NULL || pool->claims_first != NULL || pool->build_running ||
	       fetch_is_running(pool) || ancestry_is_asked(pool);
}

static void pool_free(struct pool *pool)
{
	loop_source_free(pool->build_source);
	loop_timer_free(pool->sync_timer);
	fd_done(&pool->build_pidfd);
	warm_set_put(pool->warm);
	demand_free(pool->demand);
	source_state_free(pool->source);
	ancestry_memory_free(pool->ancestry);
	pool_image_put(pool->head);
	free(pool);
}

void manager_pools_sweep(struct manager *manager)
{
	struct pool **at = &manager->pools;

	while (*at != NULL) {
		struct pool *pool = *at;

		if (pool_is_used(pool)) {
			at = &pool->next;
		} else {
			*at = pool->next;
			pool_free(pool);
		}
	}
}

void pool_head_refresh(struct pool *pool)
{
	struct error err = ERROR_INIT;
	struct pool_image *head = NULL;

	if (pool_image_find(pool->manager, pool->name, &head, &err) < 0) {
		if (err.kind != ERROR_NOT_FOUND) {
			log_failure("pool.head_failed", &err, "environment", pool->name);
			return;
		}
		head = NULL;
	}
	if (head == pool->head) {
		pool_image_put(head);
		return;
	}
	pool_image_put(pool->head);
	pool->head = head;
	newest_note_head(pool, head);
	log_info("pool.head", "environment", pool->name, "image", head != NULL ? head->id : 0,
		"commit", head != NULL ? head->commit : "");
	pool_recovered(pool);
	manager_dirty(pool->manager);
}

void pool_failed(struct pool *pool, const struct error *err)
{
	uint32_t random = 0;
	int64_t delay;

	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	if (pool->attempts == 0) {
		pool->failing_since_ms = clock_real_ms();
	}
	pool->attempts++;
	error_copy(&pool->failure, err);
	delay = backoff_ms(pool->attempts, random);
	pool->retry_at_ms = clock_mono_ms() + delay;
	log_warn("pool.failing", "environment", pool->name, "attempts", pool->attempts,
		"retry_in_ms", delay);
	manager_dirty(pool->manager);
}

void pool_recovered(struct pool *pool)
{
	if (pool->attempts > 0) {
		log_info("pool.recovered", "environment", pool->name, "attempts", pool->attempts);
		pool->attempts = 0;
		pool->trouble_until_ms = 0;
		manager_dirty(pool->manager);
	}
}

/* ---- turns of the loop ---- */

static void on_turn(void *context)
{
	manager_reconcile(context);
}

static void on_turn_over(void *context, int64_t us)
{
	struct manager *manager = context;

	metric_times_add(&manager->turn_times, us);
}

void manager_dirty(struct manager *manager)
{
	if (manager->started && !manager->stopping) {
		loop_timer_at(manager->turn_timer, 0);
	}
}

void manager_pending_done(struct manager *manager)
{
	struct error err = ERROR_INIT;

	if (--manager->pending > 0 || manager->started || manager->stopping) {
		return;
	}
	manager->started = true;
	/* Only now is it known on which images the adopted ones stand. */
	if (pool_images_lease(manager, &err) < 0) {
		log_failure("image.lease_failed", &err);
	}
	hints_restore(manager);
	manager_dirty(manager);
	builds_schedule(manager);
	dormant_start_all(manager);
	manager->on_started(manager->context);
}

static int open_parts(struct manager *manager, struct error *err)
{
	CLEANUP(free_p) char *folder = xasprintf("%s/sandboxes", manager->config->run);
	int status;

	manager->sandboxes_fd = io_open(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0, err);
	if (manager->sandboxes_fd < 0) {
		return -(int)err->kind;
	}
	/* One hold of our own, given up by the first turn of the loop: start is never reported from
	 * inside manager_open. */
	manager->pending = 1;
	if ((status = usage_open(store_fd(manager->store), &manager->usage, err)) < 0 ||
		(status = adopt_all(manager, err)) < 0 ||
		(status = dormant_load(manager, err)) < 0 ||
		(status = environments_open(manager, err)) < 0) {
		return status;
	}
	loop_timer_at(manager->retry_timer, 0);
	return 0;
}

static void on_retry(void *context)
{
	struct manager *manager = context;

	if (!manager->started) {
		manager_pending_done(manager);
	} else {
		manager_reconcile(manager);
	}
}

int manager_open(const struct config *config, struct loop *loop, struct launcher *launcher,
	struct store *store, int snapshots_program, int build_program,
	void (*on_started)(void *context), void *context, struct manager **ret_manager,
	struct error *err)
{
	struct manager *manager = xcalloc(1, sizeof(*manager));
	int status;

	manager->config = config;
	manager->loop = loop;
	manager->launcher = launcher;
	manager->store = store;
	manager->snapshots_program = snapshots_program;
	manager->build_program = build_program;
	manager->slots = slot_set_new((uint32_t)(config->id_slots - BUILD_SLOTS));
	manager->started_ms = clock_real_ms();
	manager->output.most = (size_t)config->output_bytes_max;
	manager->sandboxes_fd = -1;
	manager->watch_fd = -1;
	manager->on_started = on_started;
	manager->context = context;
	manager->turn_timer = loop_timer_new(loop, on_turn, manager);
	loop_watch_turns(loop, on_turn_over, manager);
	manager->retry_timer = loop_timer_new(loop, on_retry, manager);
	manager->pages_out = page_out_is_worth(config);
	builds_open(manager);
	demands_open(manager);
	upkeep_open(manager);
	disks_open(manager);
	status = open_parts(manager, err);
	if (status < 0) {
		manager_close(manager);
		return status;
	}
	*ret_manager = manager;
	return 0;
}

void manager_stop_sandboxes(struct manager *manager, void (*on_stopped)(void *context))
{
	manager->stopping = true;
	manager->on_stopped = on_stopped;
	manager_check_stopped(manager);
	for (size_t i = 0; i < ENTRY_BUCKETS; i++) {
		struct entry *entry = manager->buckets[i];

		while (entry != NULL) {
			struct entry *next = entry->bucket_next;

			entry->session_goes_on = true;
			if (entry->record.state != ENTRY_DORMANT) {
				entry_release(entry, "hobd stops");
			}
			entry = next;
		}
	}
}

/* Files and sandboxes stay; only this process's memory of them goes. */
static void forget_entries(struct manager *manager)
{
	struct error err = ERROR_INIT;

	error_set(&err, ERROR_UNAVAILABLE, "hobd stops");
	for (size_t i = 0; i < ENTRY_BUCKETS; i++) {
		while (manager->buckets[i] != NULL) {
			struct entry *entry = manager->buckets[i];

			manager->buckets[i] = entry->bucket_next;
			/* Not detached one by one: hob-init is to see a lost connection, and keep
			 * what its commands write for the next hobd. */
			entry_services_drop(entry);
			sync_drop(entry);
			init_client_free(entry->client);
			entry->client = NULL;
			runs_drop(entry, &err);
			entry_free(entry);
		}
	}
}

void manager_close(struct manager *manager)
{
	if (manager == NULL) {
		return;
	}
	manager->closing = true;
	upkeep_close(manager);
	disks_close(manager);
	snapshots_close(manager);
	transfers_close(manager);
	ancestries_close(manager);
	forget_entries(manager);
	demands_close(manager);
	environments_close(manager);
	builds_close(manager);
	while (manager->pools != NULL) {
		struct pool *pool = manager->pools;

		manager->pools = pool->next;
		pool_free(pool);
	}
	claims_log(manager);
	free(manager->claim_notes);
	loop_watch_turns(manager->loop, NULL, NULL);
	loop_timer_free(manager->turn_timer);
	loop_timer_free(manager->retry_timer);
	slot_set_free(manager->slots);
	free(manager->hint_leftovers);
	usage_close(manager->usage);
	fd_done(&manager->sandboxes_fd);
	free(manager);
}
