/* The end of sandboxes that have only a name: no record tells what they were, so that nothing of
 * them is kept. They are counted in manager->pending, as hobd serves nobody before they are gone.
 */
#include "pool/lifecycle.h"

#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"

#include <stdio.h>

#define RETRY_FIRST_MS 50
#define ATTEMPTS_MAX 6

struct orphan {
	struct manager *manager;
	char id[ID_SIZE];
	struct loop_timer *timer;
	unsigned attempts;
};

static void on_orphan_destroyed(void *context, const struct error *err);

static void orphan_try(void *context)
{
	struct orphan *orphan = context;

	sandbox_destroy(orphan->manager->launcher, orphan->id, on_orphan_destroyed, orphan);
}

static void on_orphan_destroyed(void *context, const struct error *err)
{
	struct orphan *orphan = context;
	struct error failure = ERROR_INIT;

	if (err != NULL && ++orphan->attempts < ATTEMPTS_MAX) {
		loop_timer_after(orphan->timer, RETRY_FIRST_MS << orphan->attempts);
		return;
	}
	if (err != NULL) {
		log_failure("sandbox.orphan_left", err, "sandbox", orphan->id);
	} else if (io_remove_tree(orphan->manager->sandboxes_fd, orphan->id, &failure) < 0) {
		log_failure("sandbox.state_left", &failure, "sandbox", orphan->id);
	} else {
		log_info("sandbox.orphan_gone", "sandbox", orphan->id);
	}
	manager_pending_done(orphan->manager);
	loop_timer_free(orphan->timer);
	free(orphan);
}

void orphan_destroy(struct manager *manager, const char *id)
{
	struct orphan *orphan = xcalloc(1, sizeof(*orphan));

	orphan->manager = manager;
	snprintf(orphan->id, sizeof(orphan->id), "%s", id);
	orphan->timer = loop_timer_new(manager->loop, orphan_try, orphan);
	manager->pending++;
	orphan_try(orphan);
}
