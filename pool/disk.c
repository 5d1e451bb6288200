/* Looking at what sandboxes have written. Between two walks there is a pause of many times what the
 * last one took, so that they never have more than a small share of one processor. */
#include "pool/disk.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "configs/config.h"
#include "configs/settings.h"
#include "pool/demand/demand.h"
#include "pool/entry.h"
#include "pool/freeze.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/run.h"
#include "pool/sandbox/sandbox.h"

#include <stdio.h>

/* One that works is looked at this often. */
#define LOOK_MS 1000
/* The first ready one of each pool. */
#define LOOK_READY_MS 60000
/* Pause after a walk, as a multiple of what it took: 5 % of a processor. */
#define PAUSE_TIMES 20
#define PAUSE_MIN_MS 10
/* Sandboxes whose processor time is asked for in a second, each in a turn of the loop of its own.
 */
#define ASKED_PER_SECOND 16
/* What has used less since the last look has written nothing to speak of; hob-init's heartbeat. */
#define CPU_IDLE_US 200
/* One that goes on over its limit may grow by this: folders and logs of what deletes files. */
#define GROWTH_ALLOWED (INT64_C(1) << 20)
/* Whoever moves folders about while they are counted has this many tries. */
#define FAILURES_MAX 8

struct disks {
	struct manager *manager;
	struct loop_timer *timer;
	bool asking;
	char asked[ID_SIZE];
	bool asked_paused; /* it was, when its files were asked for */
	int64_t asked_cpu_us, asked_at_us;
};

static int64_t limit_of(const struct entry *entry)
{
	return entry->pool->conf != NULL ? entry->pool->conf->limits.disk_bytes : 0;
}

/* ---- what follows ---- */

static int over_limit(const struct entry *entry, int64_t bytes, struct error *err)
{
	char limit[32];

	size_format(limit, limit_of(entry));
	error_set(err, ERROR_NO_SPACE,
		"sandbox %s stands still: it has written %lld MiB, and limits.disk is %s",
		entry->record.id, (long long)(bytes >> 20), limit);
	return error_hint(err,
		"`hob resume %s` lets it go on while it grows no further, so that files can be "
		"deleted; or end it with `hob rm`, or raise `limits: {disk: …}`",
		entry->record.id);
}

static void halt(struct entry *entry, int64_t bytes)
{
	struct error why = ERROR_INIT, err = ERROR_INIT;

	(void)over_limit(entry, bytes, &why);
	entry->record.disk_over = bytes;
	if (entry_pause(entry, "over limits.disk", NULL, &err) < 0) {
		entry->record.disk_over = 0;
		if (err.kind != ERROR_CONFLICT) {
			log_failure("sandbox.pause_failed", &err, "sandbox", entry->record.id);
		}
		entry->disk.cpu_us = 0; /* the next look tries again, whatever runs until then */
		return;
	}
	entry->pool->disk_halts++;
	log_warn("sandbox.over_disk", "sandbox", entry->record.id, "environment", entry->pool->name,
		"bytes", bytes, "limit", limit_of(entry));
	entry_uses_lose(entry, &why);
	runs_fail(entry, &why);
}

static void enforce(struct entry *entry)
{
	int64_t limit = limit_of(entry), bytes = entry->disk.bytes;
	int64_t allowed = entry->record.disk_over;

	if (limit == 0 || bytes <= limit) {
		entry->record.disk_over = 0; /* written down with its next state */
	} else if (entry->record.state == ENTRY_READY) {
		entry_release(entry, "it wrote more than limits.disk while it was ready");
	} else if (entry->record.state == ENTRY_CLAIMED &&
		   (allowed == 0 || bytes > allowed + GROWTH_ALLOWED)) {
		halt(entry, bytes);
	}
}

static void set_bytes(struct entry *entry, int64_t bytes)
{
	bool claimed = entry->record.state == ENTRY_CLAIMED || entry->record.state == ENTRY_PAUSED;
	int64_t before = entry->disk.known ? entry->disk.bytes : 0;

	if (claimed) {
		entry->pool->disk_claimed += bytes - before;
	}
	entry->disk.bytes = bytes;
	entry->disk.known = true;
	entry->disk.failures = 0;
	if (entry->record.state == ENTRY_READY) {
		demand_weigh_disk(entry->pool, bytes);
	} else if (bytes != before &&
		   (entry->manager->config->disk_budget > 0 ||
			   (entry->pool->conf != NULL && entry->pool->conf->pool_disk > 0))) {
		demands_outdated(entry->manager);
		manager_dirty(entry->manager);
	}
}

static void failed(struct entry *entry, const struct error *err)
{
	if (err->kind == ERROR_NOT_FOUND) {
		return; /* it ends */
	}
	entry->disk.failures++;
	if (entry->disk.failures == 1 || entry->disk.failures == FAILURES_MAX) {
		log_failure("sandbox.not_measured", err, "sandbox", entry->record.id, "attempts",
			entry->disk.failures);
	}
	if (entry->disk.failures >= FAILURES_MAX && entry->record.state == ENTRY_CLAIMED &&
		limit_of(entry) > 0) {
		entry->disk.failures = 0;
		halt(entry,
			entry->disk.bytes > limit_of(entry) ? entry->disk.bytes : limit_of(entry));
	}
}

static void on_measured(void *context, int64_t bytes, int64_t files, const struct error *err)
{
	struct disks *disks = context;
	struct entry *entry = manager_entry(disks->manager, disks->asked);
	int64_t took_ms = (clock_mono_us() - disks->asked_at_us) / 1000;

	(void)files;
	disks->asking = false;
	loop_timer_later(disks->timer, PAUSE_MIN_MS + took_ms * PAUSE_TIMES);
	if (entry == NULL) {
		return;
	}
	entry->disk.due_ms =
		clock_mono_ms() + (entry->record.state == ENTRY_READY ? LOOK_READY_MS : LOOK_MS);
	entry->disk.cpu_us = disks->asked_cpu_us;
	if (err != NULL) {
		failed(entry, err);
		return;
	}
	entry->disk.settled = disks->asked_paused && entry->record.state == ENTRY_PAUSED;
	set_bytes(entry, bytes);
	enforce(entry);
}

/* ---- which is next ---- */

static bool is_due(const struct entry *entry, int64_t now_ms)
{
	return entry->client != NULL && !entry->disk.settled && entry->disk.due_ms <= now_ms;
}

static struct entry *most_overdue(const struct manager *manager, int64_t now_ms)
{
	struct entry *found = NULL;

	for (const struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		struct entry *lists[] = {pool->entries[ENTRY_READY].first,
			pool->entries[ENTRY_CLAIMED].first, pool->entries[ENTRY_PAUSED].first};

		for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
			for (struct entry *entry = lists[i]; entry != NULL; entry = entry->next) {
				if (is_due(entry, now_ms) &&
					(found == NULL ||
						entry->disk.due_ms < found->disk.due_ms)) {
					found = entry;
				}
				if (i == 0) {
					break; /* of ready ones one is like the other */
				}
			}
		}
	}
	return found;
}

static void ask(struct disks *disks, struct entry *entry, int64_t cpu_us)
{
	disks->asking = true;
	disks->asked_at_us = clock_mono_us();
	disks->asked_cpu_us = cpu_us;
	disks->asked_paused = entry->record.state == ENTRY_PAUSED;
	memcpy(disks->asked, entry->record.id, sizeof(disks->asked));
	sandbox_measure(disks->manager->launcher, entry->record.id, on_measured, disks);
}

static void on_time(void *context)
{
	struct disks *disks = context;
	struct manager *manager = disks->manager;
	int64_t now_ms = clock_mono_ms(), cpu_us = 0, memory_bytes = 0;
	struct error err = ERROR_INIT;
	struct entry *entry;

	loop_timer_later(disks->timer, LOOK_MS);
	if (disks->asking || !manager->started || manager->stopping ||
		(entry = most_overdue(manager, now_ms)) == NULL) {
		return;
	}
	/* Where no controller counts processor time, every look is one at the files. */
	(void)!sandbox_sums_read(manager->config, entry->record.id, &cpu_us, &memory_bytes, &err);
	if (!entry->disk.known || cpu_us == 0 || cpu_us > entry->disk.cpu_us + CPU_IDLE_US) {
		ask(disks, entry, cpu_us);
		return;
	}
	entry->disk.settled = entry->record.state == ENTRY_PAUSED;
	entry->disk.due_ms =
		now_ms + (entry->record.state == ENTRY_READY ? LOOK_READY_MS : LOOK_MS);
	loop_timer_later(disks->timer, LOOK_MS / ASKED_PER_SECOND);
}

/* ---- for others ---- */

void disk_look_soon(struct entry *entry)
{
	entry->disk.settled = false;
	entry->disk.due_ms = clock_mono_ms() + LOOK_MS / 4;
}

int disk_check_wake(const struct entry *entry, struct error *err)
{
	if (entry->record.state != ENTRY_PAUSED || entry->record.disk_over == 0 ||
		limit_of(entry) == 0 || entry->record.disk_over < limit_of(entry)) {
		return 0;
	}
	return over_limit(entry, entry->record.disk_over, err);
}

int64_t disk_claimed(const struct manager *manager)
{
	int64_t bytes = 0;

	for (const struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		bytes += pool->disk_claimed;
	}
	return bytes;
}

static int spent(
	int64_t taken, int64_t budget, const char *whose, const char *setting, struct error *err)
{
	char size[32];

	if (budget == 0 || taken < budget) {
		return 0;
	}
	size_format(size, budget);
	error_set(err, ERROR_UNAVAILABLE,
		"over_limit: claimed sandboxes of %s have written %lld MiB (%s: %s)", whose,
		(long long)(taken >> 20), setting, size);
	return error_hint(err, "release some with `hob rm`, or raise %s", setting);
}

int disk_check_room(const struct pool *pool, struct error *err)
{
	const struct manager *manager = pool->manager;
	int status = 0;

	if (pool->conf != NULL) {
		status = spent(
			pool->disk_claimed, pool->conf->pool_disk, pool->name, "pool.disk", err);
	}
	return status < 0 ? status
			  : spent(disk_claimed(manager), manager->config->disk_budget,
				    "this machine", "disk_budget", err);
}

void disks_open(struct manager *manager)
{
	struct disks *disks = xcalloc(1, sizeof(*disks));

	disks->manager = manager;
	disks->timer = loop_timer_new(manager->loop, on_time, disks);
	loop_timer_later(disks->timer, LOOK_MS);
	manager->disks = disks;
}

void disks_close(struct manager *manager)
{
	if (manager->disks != NULL) {
		loop_timer_free(manager->disks->timer);
		free(manager->disks);
		manager->disks = NULL;
	}
}
