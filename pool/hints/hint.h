/*
 * Hints: "somebody is about to need a sandbox", said at the first keystroke. A hint binds one
 * sandbox, ready or on its way, to its caller's key for as long as it is renewed; the pool is
 * filled again as if the sandbox had been claimed. It lives in the sandbox's record, in the same
 * line as the state, so that a restarted hobd finds it as it was. It ends with the claim, when its
 * caller cancels it, at the end of its time to live, and with its sandbox; a sandbox that loses its
 * hint has never been touched and goes back to the pool, one of a snapshot is released.
 *
 * A hint is a soft reservation: a claim without its key takes the sandbox only when there is no
 * other and no room to make one. Hints do not count as demand.
 */
#ifndef HOB_POOL_HINTS_HINT_H
#define HOB_POOL_HINTS_HINT_H

#include "base/error.h"
#include "pool/hints/caller.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct entry;
struct hint_owner;
struct loop_timer;
struct manager;
struct pool;
struct pool_image;

#define HINT_TTL_MS 60000 /* unless the caller says */
#define HINT_TTL_LEAST_MS 1000

struct hint {
	struct hint_owner *owner;
	struct hint *next; /* of the owner's */
	struct entry *entry; /* never NULL; its record has the key and the time to live */
	struct loop_timer *timer;
	int64_t since_ms; /* real: when this hobd bound it */
};

/* A caller as long as it has hints. */
struct hint_owner {
	struct hint_owner *next;
	struct caller caller;
	struct hint *hints;
	size_t count;
};

struct hint_spec {
	const struct caller *caller;
	const char *key; /* valid */
	const char *environment; /* or */
	const char *snapshot; /* "snap-4" or a tag */
	int64_t ttl_ms;
};

/*
 * Makes, renews or, when the key stood for something else, moves the hint. The catalog is read only
 * for a snapshot that nothing stands on yet. ERROR_LIMIT over hints_per_caller, ERROR_UNAVAILABLE
 * when there is no room or sandboxes of it fail to start, else as a claim: nothing has changed
 * then.
 */
MUSTCHECK int hint_warm(struct manager *manager, const struct hint_spec *spec,
	const struct hint **ret_hint, struct error *err);
/* NULL: the caller has none of this key. */
struct hint *hint_find(const struct manager *manager, const struct caller *caller, const char *key);
/* The caller's newest, then ->next. NULL: none. */
const struct hint *hints_of(const struct manager *manager, const struct caller *caller);

/* The sandbox goes back to the pool, to a claim that waits, or is released. `reason` (a literal) is
 * logged. Frees the hint. */
void hint_end(struct hint *hint, const char *reason);
/* Forgets the hint of a sandbox that is claimed or ends, in memory; what is written next about the
 * sandbox has none. No hint is fine. */
void hint_forget(struct entry *entry);
/* The sandbox's record has a hint: takes it up. Of two with one key the later renewed one stays. */
void hint_adopt(struct entry *entry);

/* Hinted and ready: real ms, as `expires_at` shows it. */
int64_t hint_expires_ms(const struct hint *hint);
bool hint_is_ready(const struct hint *hint);
/* How long until it is ready, by what the last ones took; 0: it is. */
int64_t hint_eta_ms(const struct hint *hint);

/* ---- for the reconciler ---- */
/* Moves hints of an environment from sandboxes of an older image to those of the head. */
void hints_follow(struct pool *pool);
/* Ends those of an environment whose file is gone. */
void hints_drain(struct pool *pool);

/* ---- for hobd's start and end ---- */
/* A sandbox under creation, with a hint, that a dead hobd left: kept until hints_restore. */
void hint_leftover(struct entry *entry);
/* Starts others for what hint_leftover got, then releases that. */
void hints_restore(struct manager *manager);

#endif
