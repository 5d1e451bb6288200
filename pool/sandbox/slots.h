/*
 * Ranges of 65,536 user ids, one a sandbox. hobd alone gives out the slots below
 * config->id_slots - BUILD_SLOTS, by a set that it rebuilds at adoption; the last BUILD_SLOTS are
 * taken by hob-build processes through locks on <run>/slots, which the kernel drops with the
 * process.
 */
#ifndef HOB_POOL_SANDBOX_SLOTS_H
#define HOB_POOL_SANDBOX_SLOTS_H

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>

struct config;
struct slot_set;

struct slot_set *slot_set_new(uint32_t count);
void slot_set_free(struct slot_set *set);
DEFINE_CLEANUP(slot_set_free_p, struct slot_set, slot_set_free)
/* The slot that was free for longest, so that an id range rests before it is used again.
 * ERROR_LIMIT. */
MUSTCHECK int slot_take(struct slot_set *set, uint32_t *ret_slot, struct error *err);
/* At adoption. False if it is taken already or out of range. */
bool slot_take_this(struct slot_set *set, uint32_t slot);
void slot_give_back(struct slot_set *set, uint32_t slot);

/* A build slot: held until the descriptor closes. ERROR_BUSY when all are taken. The one that
 * `preference`, any number, leads to is tried first: layers of successive builds with the same
 * preference have, as a rule, the same owners on disk, and can share files by links. */
MUSTCHECK int build_slot_take(const struct config *config, uint32_t preference, uint32_t *ret_slot,
	int *ret_lock_fd, struct error *err);

#endif
