/*
 * Sandboxes that outlive their processes. The environment's lifecycle says which: a hybrid one that
 * has been paused for long is kept as a snapshot and ended, a long-running one has a snapshot taken
 * every now and then; what is written down of either (<store>/sessions/<id>.json: its record, with
 * the snapshot that it comes back from) is there after a restart of the machine too. Until somebody
 * needs it, it is an entry in the state DORMANT, without a sandbox; the request that needs it waits
 * until it runs again, under its old id. Its files come back as of that snapshot, its processes do
 * not.
 *
 * The snapshot is committed before the note is written, and the note before the sandbox ends.
 */
#ifndef HOB_POOL_DORMANT_H
#define HOB_POOL_DORMANT_H

#include "base/error.h"

#include <stdbool.h>

struct entry;
struct manager;

/* Somebody who waits until it runs again. */
struct dormant_wait {
	struct entry *entry; /* NULL: not waiting */
	struct dormant_wait *next;
	void (*awake)(struct dormant_wait *wait, const struct error *err); /* NULL: it is */
};

/* Hybrid, and idle for long: DORMANT some time later, unless somebody needs it first. */
void dormant_hibernate(struct entry *entry);
/* Arms the next snapshot of a claimed one whose lifecycle wants them. */
void dormant_arm(struct entry *entry);
void dormant_on_timer(void *context);

/* It is being released: what is under way for it does not matter any more. */
void dormant_detach(struct entry *entry);
/* What it has become at its end is what it comes back as, if it does. */
void dormant_note_kept(struct entry *entry);
bool dormant_is_due(const struct entry *entry);
/* Instead of being gone: its sandbox is. A new entry takes its place. */
void dormant_lay_down(struct entry *entry);
/* It ends for good; removes the note. */
void dormant_forget(struct entry *entry);
/* The same of a DORMANT one, which is freed. */
void dormant_end(struct entry *entry, const char *reason);

/* Starts it again, or joins those that wait already. */
void dormant_wake(struct entry *entry, struct dormant_wait *wait);
void dormant_wait_end(struct dormant_wait *wait); /* not waiting: nothing */
/* It runs, or (err) could not be started. */
void dormant_tell(struct entry *entry, const struct error *err);
/* Is it DORMANT, or on its way from there? */
bool dormant_is_asleep(const struct entry *entry);

/* At start, after the adoption: what has a note and no sandbox. */
MUSTCHECK int dormant_load(struct manager *manager, struct error *err);
/* Long-running ones come back by themselves. */
void dormant_start_all(struct manager *manager);

#endif
