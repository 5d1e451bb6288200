/*
 * The store's upkeep: hob-snapshots flattens, collects and shares in the background, started by the
 * launcher whenever something may have become possible: a build or a snapshot has ended, an image
 * or a snapshot is no longer stood on, space is short, or much time has passed. One at a time, and
 * not in a tight loop. And the watermark: how much is free for the store, looked at now and then.
 */
#ifndef HOB_POOL_UPKEEP_H
#define HOB_POOL_UPKEEP_H

#include "base/json.h"
#include "configs/free_space.h"

struct manager;

/* Looks at once, and from then on every few seconds. */
void upkeep_open(struct manager *manager);
void upkeep_close(struct manager *manager);
/* Something may be possible that was not before. */
void upkeep_want(struct manager *manager);
/* A snapshot was taken, as the store shows it: a deep one is flattened at once, so that a quick
 * history does not become deeper than that takes. */
void upkeep_taken(struct manager *manager, const json_t *about);
/* Less is free than hob.yaml wants: builds wait, pools shrink. */
bool space_is_low(const struct manager *manager);
const struct free_space *space_of(const struct manager *manager);
/* Ready sandboxes that a pool keeps while space is short. */
#define SPACE_LOW_READY_MAX 1

#endif
