/* The reconciler's rules. Ready sandboxes, stale ones too, never fall below the target by its
 * doing, unless a limit leaves no room to make the new one before the old one goes. */
#include "pool/plan.h"

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* How many more this pool and this machine may hold. */
static int64_t room_left(const struct pool_view *view)
{
	int64_t held = view->ready_head + view->ready_stale + view->creating_head +
		       view->creating_other + view->hinted + view->claimed;

	return most(0, least(view->max - held, view->machine_max - view->machine_total));
}

struct pool_plan pool_plan_make(const struct pool_view *view)
{
	struct pool_plan plan = {0};
	int64_t ready = view->ready_head + view->ready_stale;
	/* Those under way that no claim waits for. */
	int64_t coming = most(0, view->creating_head - view->waiting_head);
	int64_t wanted, allowed, room;

	if (view->draining) {
		plan.retire_stale = view->ready_stale;
		plan.retire_ready = view->ready_head;
		return plan;
	}
	if (!view->has_head) {
		plan.retire_stale = view->ready_stale;
		return plan;
	}
	plan.retire_stale = least(view->ready_stale, most(0, ready - view->target));
	plan.retire_ready = most(0, view->ready_head - view->target);
	wanted = most(0, view->target - view->ready_head - coming);
	if (wanted == 0) {
		return plan;
	}
	room = room_left(view);
	plan.capped = room < wanted;
	if (room == 0) {
		/* No room for both: the old one goes first. */
		if (view->ready_stale > 0 && coming == 0 && plan.retire_stale == 0) {
			plan.retire_stale = 1;
		}
		return plan;
	}
	if (view->backing_off) {
		return plan;
	}
	/* What is missing is made at once; what is only stale is replaced one after the other. */
	allowed = most(1, view->target - ready) - coming;
	if (view->creates_max > 0) {
		allowed = least(
			allowed, view->creates_max - view->creating_head - view->creating_other);
	} else {
		allowed = least(
			allowed, CREATES_PER_POOL - view->creating_head - view->creating_other);
		allowed = least(allowed, CREATES_OVERALL - view->machine_creating);
	}
	plan.create = most(0, least(least(wanted, room), allowed));
	return plan;
}

int64_t backoff_ms(unsigned attempts, uint32_t random)
{
	int64_t delay = BACKOFF_FIRST_MS;

	for (unsigned i = 1; i < attempts && delay < BACKOFF_MAX_MS; i++) {
		delay *= 2;
	}
	delay = least(delay, BACKOFF_MAX_MS);
	/* Between three quarters and the whole, so that environments that broke together part. */
	return delay - delay / 4 * (int64_t)(random % 1024) / 1024;
}
