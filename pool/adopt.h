/*
 * What the last hobd left: sandboxes with a readable record whose process still is the one recorded
 * are taken up again, ready and claimed ones with their deadlines and commands; everything else of
 * ours is destroyed. The manager creates nothing before all of it is decided (manager->pending).
 */
#ifndef HOB_POOL_ADOPT_H
#define HOB_POOL_ADOPT_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct entry;
struct manager;

MUSTCHECK int adopt_all(struct manager *manager, struct error *err);
/* hob-init of an adopted sandbox said hello; `execs` run in it. */
void entry_adopted(struct entry *entry, const uint32_t *execs, size_t count);

#endif
