/*
 * Sandboxes that stand still and cost no processor time. A ready one is frozen a while after it is
 * warm and thawed by its claim: `frozen` is a flag of it, which only its cgroup remembers. A
 * claimed one is paused, a state of its own: frozen until it is resumed, or until a request needs
 * it.
 *
 * What the record says holds: it is written before the cgroup is, and an adoption brings the cgroup
 * after it. Looking never wakes one for good, nor lengthens its life.
 */
#ifndef HOB_POOL_FREEZE_H
#define HOB_POOL_FREEZE_H

#include "base/error.h"

#include <stdbool.h>

struct entry;

/* Somebody who waits until a paused sandbox stands still. `stands`: it does; else one of its
 * processes is in the kernel and follows as soon as it comes out, or the sandbox has ended. */
struct entry_pause {
	struct entry *entry; /* NULL: not waiting */
	struct entry_pause *next;
	void (*done)(struct entry_pause *wait, bool stands);
};

/* Of a ready one: now, and once freeze_after has passed. Reserved ones may be thawed ahead. */
void entry_freeze(struct entry *entry);
void entry_freeze_later(struct entry *entry);
void entry_thaw(struct entry *entry); /* not frozen: nothing */
/* Claimed, or reserved by a hint: what is left to do for it, as soon as the loop has time, so that
 * neither its answer nor the next claims wait for it. Whoever uses it first thaws it himself. */
void entry_thaw_soon(struct entry *entry);
void entry_thaw_due(struct entry *entry); /* that, now: before anything else is done with it */

/* `wait` may be NULL. Commands' time limits stand still too. ERROR_CONFLICT when it is not claimed
 * or being copied; a paused one stays so. */
MUSTCHECK int entry_pause(
	struct entry *entry, const char *reason, struct entry_pause *wait, struct error *err);
void entry_pause_forget(struct entry_pause *wait); /* not waiting: nothing */
/* Of one that goes: nobody waits any more. */
void entry_pauses_end(struct entry *entry);
/* Claimed again. ERROR_CONFLICT when it is neither; a claimed one stays so. */
MUSTCHECK int entry_resume(struct entry *entry, struct error *err);

/* Makes a claimed or paused sandbox ready for a request. only_looks: it falls asleep again when the
 * request is over, as if it had slept all along. Errors as entry_check_usable. */
MUSTCHECK int entry_wake(struct entry *entry, bool only_looks, struct error *err);
void entry_doze_off(struct entry *entry);
/* Its clock says so: see lifecycle.pause. */
void entry_pause_if_idle(struct entry *entry);
/* Adopted: as it was before. */
void entry_freeze_again(struct entry *entry);

void entry_on_freeze_timer(void *context);

#endif
