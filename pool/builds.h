/* hobd's scheduler of builds: starts hob-build, through the launcher, for environments that are due
 * or asked for, max_builds at a time. Builds do not depend on hobd's life; the catalog has their
 * outcome, and a failed one is simply due again next time. */
#ifndef HOB_POOL_BUILDS_H
#define HOB_POOL_BUILDS_H

#include "base/error.h"
#include "configs/schedule.h"

#include <stdbool.h>
#include <stdint.h>

struct manager;
struct pool;

/* Not sooner than this after the last attempt that hobd made itself. */
#define BUILD_GAP_MS 10000

void builds_open(struct manager *manager);
void builds_close(struct manager *manager);
/* Starts what is queued or due, and sets the timer for the next. */
void builds_schedule(struct manager *manager);
/* Asks for one now; true when it could start at once, else it follows the others. commit: what has
 * been pushed, so that a running build of an older one may give up; NULL: not known. */
bool build_request(struct pool *pool, const char *commit);
/* Ends the running build "bld-4" as Ctrl-C would; its record follows. ERROR_NOT_FOUND,
 * ERROR_CONFLICT: it does not run. */
MUSTCHECK int build_cancel(struct manager *manager, const char *id, struct error *err);
/* Forgets a build that was asked for and has not started; was there one? */
bool build_unqueue(struct pool *pool);
/* Real time; INT64_MAX: only when told. */
int64_t build_next_due_ms(const struct pool *pool);
/* What holds for it; texts are the environment's. */
struct schedule build_schedule(const struct pool *pool);

#endif
