/* Making and ending sandboxes: what happens between the states of an entry. */
#ifndef HOB_POOL_LIFECYCLE_H
#define HOB_POOL_LIFECYCLE_H

#include "base/error.h"
#include "pool/entry.h"

struct manager;
struct pool;
struct pool_image;
struct hint_record;

/* Asks the launcher for one; it becomes ready, or a waiting claim's, later. A failure that comes at
 * once is dealt with like one that comes later. `hint` NULL, or the one that it is made for. */
void entry_create(struct pool *pool, struct pool_image *image, const struct hint_record *hint);
/* The same for one that is DORMANT, under its id; see dormant.h. */
MUSTCHECK int entry_revive(struct entry *entry, struct error *err);
/* Ends it: commands and requests in it fail with a message that names `reason` (a literal), the
 * launcher destroys it, its files go. May be called again. */
void entry_release(struct entry *entry, const char *reason);
/* A snapshot of it has come to an end, or at least to that of its copying: a release that waited
 * for this goes on. */
void entry_end(struct entry *entry);
/* Connects to hob-init; the entry waits for its hello. Takes control_fd. */
MUSTCHECK int entry_connect(struct entry *entry, int control_fd, struct error *err);
/* Watches the process; takes pidfd. */
MUSTCHECK int entry_watch(struct entry *entry, int pidfd, struct error *err);
/* It has all that it should have: ready, or a waiting claim's. */
void entry_warmed(struct entry *entry);
/* It will never be ready. */
void entry_creation_failed(struct entry *entry, const struct error *err);
/* The timer of entry.h. */
void entry_on_timer(void *context);

/* Destroys what no record tells of, only by id, and counts it in manager->pending meanwhile. */
void orphan_destroy(struct manager *manager, const char *id);
/* One thing less to wait for at start. */
void manager_pending_done(struct manager *manager);

#endif
