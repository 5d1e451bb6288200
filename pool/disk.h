/*
 * What sandboxes have written to disk, and the limits on it. The launcher's measurer walks their
 * writable layers in the background, one at a time and only where something has run since; this
 * file decides which is next and what follows. A claimed sandbox over its environment's limits.disk
 * is paused and its commands end with an error; a request does not wake it, `resume` does, and then
 * it may go on for as long as it grows no further. What a pool's sandboxes take counts against
 * pool.disk, what all take against disk_budget (demand/), and a claim that would need one more is
 * refused once the claimed ones alone have spent it.
 */
#ifndef HOB_POOL_DISK_H
#define HOB_POOL_DISK_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct entry;
struct manager;
struct pool;

/* Of an entry. */
struct entry_disk {
	int64_t bytes; /* when it was last looked at */
	bool known;
	bool settled; /* looked at since it was paused */
	int64_t due_ms; /* monotonic: when to look again */
	int64_t cpu_us; /* that it had used by then */
	unsigned failures; /* in a row */
};

void disks_open(struct manager *manager);
void disks_close(struct manager *manager);

/* It runs again, or has just been claimed: it is looked at soon. */
void disk_look_soon(struct entry *entry);
/* ERROR_NO_SPACE for one that is paused because of what it has written. */
MUSTCHECK int disk_check_wake(const struct entry *entry, struct error *err);
/* ERROR_UNAVAILABLE "over_limit: …" when claimed sandboxes alone have spent a budget. */
MUSTCHECK int disk_check_room(const struct pool *pool, struct error *err);
/* What claimed sandboxes of all pools take. */
int64_t disk_claimed(const struct manager *manager);

#endif
