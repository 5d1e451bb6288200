/*
 * A sandbox as the manager keeps it. A state is a list of its pool; entry_set_state moves it
 * after the record is written, so that what a restarted hobd reads is never ahead of or behind what
 * somebody was told. Commands (run.h) and requests that use a sandbox hang on it and are told when
 * it goes.
 */
#ifndef HOB_POOL_ENTRY_H
#define HOB_POOL_ENTRY_H

#include "base/error.h"
#include "pool/disk.h"
#include "pool/record.h"

#include <stdbool.h>
#include <stdint.h>

struct manager;
struct pool;
struct pool_image;
struct loop_source;
struct loop_timer;
struct init_client;
struct run;
struct services;
struct snapshot_job;
struct hint;
struct claim;
struct warm_set;
struct sync;
struct sync_about;
struct entry_events;
struct entry;

struct entry_list {
	struct entry *first, *last;
	size_t count;
};

/* A request under way in a sandbox, which is not idle meanwhile. `lost` is called, after it was
 * taken off the list, when the sandbox is released. */
struct entry_use {
	struct entry *entry; /* NULL: not in use */
	struct entry_use *next, *previous;
	bool only_looks; /* when it is over, the sandbox has been idle all the time */
	void (*lost)(struct entry_use *use, const struct error *err);
};

/* Somebody who waits until a sandbox is really gone. */
struct entry_wait {
	struct entry *entry; /* NULL: not waiting */
	struct entry_wait *next;
	int64_t snapshot_id; /* that it was kept as; 0: none */
	void (*gone)(struct entry_wait *wait);
};

struct entry {
	struct manager *manager;
	struct pool *pool;
	struct pool_image *image; /* counted: what it counts as */
	struct pool_image
		*stands_on; /* counted: what it was made of, once it is another; or NULL */
	struct entry_record record;
	struct entry *next, *previous; /* of its state's list */
	struct entry *bucket_next;
	int state_fd;
	int execs_fd; /* opened by the first command */
	bool state_torn; /* the last append was cut short */
	int64_t execs_bytes;
	int pidfd;
	struct loop_source *pidfd_source;
	struct init_client *client;
	struct loop_timer *timer; /* warming: time limit; claimed: deadline; releasing: retry */
	struct loop_timer *freeze_timer; /* freeze.c's */
	struct loop_timer *meter_timer; /* meter.c's */
	struct loop_timer *page_timer; /* page_out.c's */
	int64_t frozen_cpu_us, frozen_bytes; /* what it had used when it was frozen, unclaimed */
	bool frozen; /* its cgroup was told so */
	bool paged_out; /* and its memory was given back */
	bool was_frozen; /* adopted: it is to be frozen again */
	bool dozes; /* a look woke it, which is to leave no trace */
	int64_t slept_at_ms; /* of `dozes`: paused since then */
	struct entry_disk disk;
	struct entry_events *events; /* events.h; NULL: none yet */
	const char *why; /* for the event of the state that follows; NULL: nothing to say */
	unsigned freeze_looks;
	struct entry_pause *pauses;
	int64_t requested_us; /* monotonic: when its creation was asked for */
	/* Adoption: what it was, and becomes again with hob-init's hello; ENTRY_GONE: not adopted.
	 */
	enum entry_state adopt_as;
	bool launching; /* the launcher's answer is still to come */
	bool release_wanted; /* meanwhile somebody wanted it gone */
	unsigned destroy_attempts;
	const char *release_reason;
	struct warm_set *warm; /* counted; NULL: it has neither services nor prime */
	struct services *services; /* NULL: none, or not started yet */
	bool serving; /* WARMING: hob-init answers, services are awaited */
	bool outdated; /* its services are no longer what the environment says */
	int64_t hello_us; /* monotonic */
	int64_t services_us; /* that it waited for services and prime */
	uint32_t next_exec;
	struct run *runs;
	size_t runs_running;
	struct snapshot_job *snapshot_job; /* one at a time; NULL: none */
	int keep_asked; /* by who releases it: 1 keep it, 0 do not; -1: as the environment says */
	bool ending; /* RELEASING: the launcher was asked to end it */
	unsigned keep_attempts;
	int64_t kept_snapshot; /* that it was kept as; 0: none */
	bool copying; /* the launcher copies it and must not be asked to destroy it */
	int64_t last_snapshot, last_layer; /* taken of it, for what has not changed since; 0: none
					    */
	struct hint *hint; /* reserved; NULL: not. entry_set_hint */
	struct claim *claim; /* of the hint's caller, which waits for this one; NULL: none */
	struct loop_timer *session_timer; /* dormant.c's, as all of these */
	struct snapshot_job *session_job;
	bool hibernates; /* session_job is for that */
	bool session_goes_on; /* it is released, but what it was comes back */
	bool revived; /* on its way from DORMANT to CLAIMED */
	int64_t noted_ms; /* last_active_ms of the last snapshot of session_job */
	struct pool_image *comes_back_from; /* counted; NULL: there is no note */
	struct dormant_wait *wakers;
	struct sync *sync; /* its source is being changed; NULL: not */
	struct sync_about *sync_about; /* how the last one ended; NULL: none was */
	bool sync_wanted; /* once the newest commit is known */
	bool refresh_failed; /* it is to be replaced */
	struct entry_use *uses;
	struct entry_wait *waits;
	int64_t touched_ms; /* when the state file's time was last moved on */
};

struct entry *entry_new(struct pool *pool, struct pool_image *image);
/* It must be GONE or never have been anything. */
void entry_free(struct entry *entry);

/* Writes the record with the new state, then moves lists and logs. On failure nothing has changed.
 */
MUSTCHECK int entry_set_state(struct entry *entry, enum entry_state state, struct error *err);
/* The same without the record: for what no restarted hobd needs to know. */
void entry_move(struct entry *entry, enum entry_state state);
/* Puts a new or adopted entry on its first list, without a transition. */
void entry_place(struct entry *entry, enum entry_state state);
/* Counts it as reserved or not; the record is the caller's affair. */
void entry_set_hint(struct entry *entry, struct hint *hint);
/* The commit that its workspace is at; empty: none. */
const char *entry_commit(const struct entry *entry);
/* Appends the record as it is now. */
MUSTCHECK int entry_write(struct entry *entry, struct error *err);
/* Opens (and makes) the state file in <run>/sandboxes/<id>. */
MUSTCHECK int entry_files_open(struct entry *entry, struct error *err);
void entry_files_remove(struct entry *entry);

/* Two facts that the counts of its image and of the manager depend on. */
void entry_set_outdated(struct entry *entry);
void entry_set_serving(struct entry *entry);
/* The image whose layers are below it, whatever it counts as. */
struct pool_image *entry_base(const struct entry *entry);
/* It counts as `image` from now on. */
void entry_count_as(struct entry *entry, struct pool_image *image);
/* The commit that one of its workspaces is at; "": there is no such source. */
const char *entry_commit_of(const struct entry *entry, size_t source);

bool entry_is_busy(const struct entry *entry);
/* Somebody worked in it just now. */
void entry_touch(struct entry *entry);
/* Makes the state file's time that of the last activity again, after something else was written. */
void entry_keep_time(struct entry *entry);
/* Sets the timer of a claimed sandbox by its clocks. */
void entry_arm(struct entry *entry);
/* The clock that ends it first, real ms as `expires_at` shows it: idle apart. 0: never. */
int64_t entry_expires_ms(const struct entry *entry);

/* ERROR_CONFLICT unless it is claimed and answers. entry_wake (freeze.h) is for whoever uses it. */
MUSTCHECK int entry_check_usable(const struct entry *entry, struct error *err);
void entry_use_begin(struct entry *entry, struct entry_use *use, bool only_looks,
	void (*lost)(struct entry_use *use, const struct error *err));
void entry_use_end(struct entry_use *use); /* not in use: nothing */
/* Every request under way in it ends with `err`. */
void entry_uses_lose(struct entry *entry, const struct error *err);
void entry_wait_begin(
	struct entry *entry, struct entry_wait *wait, void (*gone)(struct entry_wait *));
void entry_wait_end(struct entry_wait *wait);

#endif
