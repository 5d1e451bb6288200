/*
 * Bringing the workspaces of a sandbox that runs to other commits, one after the other. Nothing of
 * a workspace changes before all of the change is inside, so that a sandbox which is being synced
 * may be used; what somebody has worked on is never overwritten.
 */
#ifndef HOB_POOL_SYNC_SYNC_H
#define HOB_POOL_SYNC_SYNC_H

#include "base/error.h"
#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>

struct entry;
struct manager;
struct pool;
struct pool_image;
struct sync;

enum sync_outcome {
	SYNC_DONE,
	SYNC_CONFLICT, /* nothing changed */
	SYNC_FAILED, /* nothing changed */
	SYNC_TORN, /* neither the one commit nor the other */
	SYNC_OUTCOMES
};

/* How the last one ended. */
struct sync_about {
	enum sync_outcome outcome;
	int64_t ended_ms, took_ms;
	int64_t changes;
	char *to; /* of the first source */
	json_t *paths; /* of a conflict */
	json_t *stale; /* steps whose inputs changed since the image was made */
	struct error error; /* unless done */
	bool ran; /* sync.run did */
	int run_code;
};
void sync_about_free(struct sync_about *about);

typedef void sync_done_fn(void *context, struct entry *entry, const struct sync_about *about);

/*
 * To these commits, one a source, or the first alone. `counts_as`: the image that it becomes, NULL
 * for none. `fn` (NULL: nobody waits) is called later, once. ERROR_CONFLICT: one is under way, or
 * the sandbox has no such sources; ERROR_UNAVAILABLE.
 */
MUSTCHECK int sync_start(struct entry *entry, char *const *commits, struct pool_image *counts_as,
	sync_done_fn *fn, void *context, struct error *err);
/* The one who waits leaves; the sync goes on. */
void sync_forget(struct entry *entry, void *context);
/* Calls fn once when the sync under way has ended, or at once. */
void sync_wait(struct entry *entry, sync_done_fn *fn, void *context);
bool sync_is_running(const struct entry *entry);

/* Somebody is about to use the sandbox (a hint), or does (a claim): it is brought to the newest
 * commit if its environment says so, once that is fetched. */
void sync_wanted(struct entry *entry);
/* The same a moment later, so that the programs which it starts do not share the processors with
 * the answer. */
#define SYNC_PAUSE_MS 10
void sync_wanted_soon(struct entry *entry);
void sync_on_timer(void *context); /* of pool->sync_timer */
void sync_at_claim(struct entry *entry);
/* It was wanted while it was being made. */
void sync_when_ready(struct entry *entry);

/* Seconds from when its source was the newest known to when a newer one was first seen; 0: it is at
 * the newest known. */
int64_t sync_behind_s(const struct entry *entry);
/* {state, to, …}, or null when there never was one. */
json_t *sync_to_json(const struct entry *entry);

/* After an adoption's hello: true when `exec` is a sync's and taken care of. */
bool sync_adopts(struct entry *entry, uint32_t exec);
/* After all of the hello's execs: what of a sync was not among them never started. */
void sync_adopted(struct entry *entry);
/* For the manager's end. */
void sync_drop(struct entry *entry);

#endif
