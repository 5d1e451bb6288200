/*
 * The pool's one state: environments with their sandboxes, shared by the files of this folder. The
 * loop's thread alone touches it. A handler changes it and calls manager_dirty; the reconciler then
 * runs once at the end of the loop's turn.
 *
 * The catalog (sqlite) is read here when hobd starts, when a head or an environment's file changes,
 * when a claim names an image that no sandbox stands on, when a build starts or ends, and for the
 * requests that show images and builds. It is written (a lease) only when the first sandbox of an
 * image is about to be made or the last one is gone; never per claim, command or sandbox.
 */
#ifndef HOB_POOL_MANAGER_H
#define HOB_POOL_MANAGER_H

#include "base/error.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "pool/entry.h"
#include "pool/metrics.h"
#include "pool/output.h"
#include "pool/plan.h"
#include "pool/sandbox/slots.h"
#include "pool/sync/fetch.h"
#include "snapshots/store.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_timer;
struct loop_source;
struct ancestry;
struct ancestry_memory;
struct launcher;
struct claim;
struct claim_note;
struct hint_owner;
struct snapshot_job;
struct store_work;
struct demand;
struct demands;
struct disks;
struct upkeep;
struct source_state;
struct transfer;
struct usage_log;
struct warm_set;

#define LEASE_HOLDER "hobd"
#define ENTRY_BUCKETS 1024

/* Why a claim was cold. */
enum cold_reason {
	COLD_NONE,
	COLD_EMPTY, /* nobody was ready */
	COLD_STALE, /* only sandboxes of an older image were */
	COLD_MISMATCH, /* it asked for an image that the pool does not hold */
	COLD_DRAINING, /* the environment's file is gone */
	COLD_OVER_LIMIT, /* a limit keeps the pool below its target */
	COLD_FAILED, /* the pool cannot make any at the moment */
	COLD_REASONS
};
const char *cold_reason_name(enum cold_reason reason);

/* An environment: its file, its head, its sandboxes by state. Outlives its file while it has some.
 */
struct pool {
	struct manager *manager;
	struct pool *next; /* by name */
	char name[NAME_MAX_LENGTH + 1];
	struct environment *conf; /* the list's; NULL: draining */
	struct pool_image *head; /* counted; NULL: never built */
	struct warm_set *warm; /* counted; NULL: neither services nor prime */
	struct entry_list entries[ENTRY_STATES];
	struct claim *claims_first, *claims_last; /* waiting, oldest first */
	size_t creating_hinted, ready_hinted; /* of its entries, those that a hint reserves */
	uint64_t hits, misses[COLD_REASONS], died;
	uint64_t hinted, hinted_waited; /* claims by a hint's key; the second while it started */
	uint64_t hints_ended; /* without a claim */
	int64_t start_us; /* how long one takes from its order to ready, smoothed; 0: not known */
	bool capped;
	int64_t short_since_ms; /* monotonic: fewer are ready than wanted; 0: not so */
	struct metric_times claim_times;
	struct metric_times hint_times; /* from a hint to its claim */
	uint64_t freezes; /* of ready ones */
	int64_t disk_claimed; /* bytes that its claimed and paused ones have written */
	uint64_t disk_halts; /* paused because of that */
	uint64_t page_outs; /* of frozen ones, paused ones too */
	uint64_t builds_ended[BUILD_STATES]; /* of those that hobd started, by outcome */
	struct demand *demand; /* demand/demand.h; NULL: not looked at yet */
	/* Failing creations. */
	unsigned attempts; /* in a row; 0: fine */
	int64_t failing_since_ms;
	int64_t retry_at_ms; /* monotonic */
	int64_t trouble_until_ms; /* monotonic: services died in ready ones; not over before this */
	struct error failure;
	struct ancestry_memory *ancestry; /* sync/ancestry.c's */
	struct source_state *source; /* fetch.c's: the newest commits that are known */
	struct fetch_wait sync_wait; /* wanted.c's, for all of its sandboxes that ask */
	struct loop_timer *sync_timer; /* sync_wanted_soon's */
	bool sync_soon; /* it is set */
	uint64_t syncs, refreshes, refresh_failures; /* sandboxes brought forward */
	/* Builds. */
	bool build_queued, build_running;
	bool build_asked; /* the queued one: by somebody, not by the schedule */
	bool build_told; /* the running one: that a newer commit has been pushed */
	bool build_spared; /* the running one follows one that was told: it runs to its end */
	int64_t build_started_ms; /* the last one that hobd started */
	int64_t head_current_ms; /* real: when a build last found the head to be the newest */
	int build_pidfd;
	struct loop_source *build_source;
};

struct manager {
	const struct config *config;
	struct loop *loop;
	struct launcher *launcher;
	struct store *store;
	struct slot_set *slots;
	struct output_budget output;
	int sandboxes_fd; /* <run>/sandboxes */
	struct usage_log *usage;
	bool pages_out; /* see page_out.h */
	bool paging; /* the launcher was asked to */
	char paged[ID_SIZE]; /* the sandbox that it was asked for */
	int snapshots_program, build_program; /* hob-snapshots and hob-build, opened */
	int64_t started_ms;
	struct pool *pools;
	struct pool_image *images;
	struct entry *buckets[ENTRY_BUCKETS];
	struct hint_owner *hint_owners; /* of hints/hint.c */
	struct entry **hint_leftovers;
	size_t hint_leftover_count, hint_leftover_room;
	size_t entry_count; /* every one that is not gone */
	size_t ready_count, claimed_count, creating_count;
	int64_t claimed_at_ms; /* monotonic: the last warm claim; see manager_claimed */
	int64_t refill_at_ms; /* the first pool that waits for that; INT64_MAX: none */
	struct claim_note *claim_notes; /* claim.c's */
	size_t claim_note_count, claim_note_room;
	struct metric_times turn_times; /* of the loop */
	struct environment_list environments;
	/* Start: nothing is created before what the last hobd left is adopted or destroyed. */
	size_t pending;
	bool started, stopping;
	bool leaving; /* clients are let go, but their commands go on for the next hobd */
	bool closing; /* leases outlive this process */
	void (*on_started)(void *context);
	void (*on_stopped)(void *context);
	void *context;
	struct loop_timer *turn_timer, *retry_timer, *build_timer, *reload_timer;
	int watch_fd;
	struct loop_source *watch_source;
	int watch_environments, watch_heads;
	int64_t builds_running;
	struct snapshot_job *snapshot_jobs;
	struct store_work *store_works; /* of api/store_work.c */
	struct transfer *transfers;
	struct ancestry *ancestries; /* questions under way, newest first */
	size_t removals; /* of what snapshots left, asked of the launcher */
	struct upkeep *upkeep;
	struct demands *demands;
	struct disks *disks; /* disk.h */
	uint64_t snapshots_taken;
};

/* Loads environments, adopts what is there, then calls on_started from the loop. Everything passed
 * in stays the caller's and outlives the manager. */
MUSTCHECK int manager_open(const struct config *config, struct loop *loop,
	struct launcher *launcher, struct store *store, int snapshots_program, int build_program,
	void (*on_started)(void *context), void *context, struct manager **ret_manager,
	struct error *err);
/* Destroys every sandbox, then calls on_stopped. */
void manager_stop_sandboxes(struct manager *manager, void (*on_stopped)(void *context));
/* Calls on_stopped when nothing is left to be ended. */
void manager_check_stopped(struct manager *manager);
/* Forgets everything; sandboxes go on. */
void manager_close(struct manager *manager);

/* The reconciler runs at the end of this turn of the loop. */
void manager_dirty(struct manager *manager);
void manager_reconcile(struct manager *manager); /* reconcile.c */

/*
 * A warm sandbox was handed out. Others may follow at once, and are not to share the processors
 * with clones: a pool is refilled when no claim has come for REFILL_PAUSE_MS, but after
 * REFILL_PAUSE_MAX_MS in any case, and where less than half of the target is left after
 * REFILL_PAUSE_MS. While claims go on coming, one is made at a time as long as half is left.
 */
#define REFILL_PAUSE_MS 10
#define REFILL_PAUSE_MAX_MS 100
void manager_claimed(struct manager *manager);

/* NULL: no such sandbox. */
struct entry *manager_entry(const struct manager *manager, const char *id);
void manager_entry_add(struct manager *manager, struct entry *entry);
void manager_entry_remove(struct manager *manager, struct entry *entry);

/* NULL: unknown. */
struct pool *manager_pool(const struct manager *manager, const char *name);
/* Makes one when there is none. */
struct pool *manager_pool_add(struct manager *manager, const char *name);
/* Frees those that have neither a file nor sandboxes nor claims. */
void manager_pools_sweep(struct manager *manager);
/* Looks the head up in the catalog; a new one resets the back-off. */
void pool_head_refresh(struct pool *pool);
void pool_failed(struct pool *pool, const struct error *err);
void pool_recovered(struct pool *pool);

#endif
