/* The replay. A case is an arrival on its way: a hint makes it wait for a sandbox or hold one, the
 * claim ends it. Every sandbox takes the same time to make, so they come in the order of asking. */
#include "pool/simulate/replay.h"

#include "pool/plan.h"

#include <assert.h>

#define TICK_MS INT64_C(60000)
/* A hint ends so long after the last keystroke. */
#define LEASE_MS INT64_C(60000)
/* The machine is no limit here: plans, not machines, are compared. */
#define NO_LIMIT (INT64_MAX / 4)

enum case_state { CASE_NEW, CASE_WAITS, CASE_HOLDS, CASE_OVER };

enum event_kind { EVENT_KEY, EVENT_CLAIM, EVENT_LAPSE };

struct event {
	int64_t at_ms;
	uint32_t index; /* of the case */
	enum event_kind kind;
};

struct queue {
	int64_t *items;
	size_t head, count, room;
};

struct replay {
	const struct replay_spec *spec;
	const struct policy *policy;
	struct replay_result *result;
	const struct arrival *arrivals;
	enum case_state *cases;
	bool *claimed; /* it waits as a claim, not as a hint */
	struct event *events;
	size_t event_count, event_room, next;
	int64_t tick_ms; /* the next minute */
	int64_t now_ms, target, ready, held, waiting;
	struct queue coming; /* when each is ready */
	struct queue waiters; /* cases, oldest first; those that wait no more are passed over */
};

/* ---- queues ---- */

static void queue_put(struct queue *queue, int64_t item)
{
	if (queue->head + queue->count == queue->room) {
		if (queue->count > 0) {
			memmove(queue->items, queue->items + queue->head,
				queue->count * sizeof(*queue->items));
		}
		queue->head = 0;
		if (queue->count * 2 > queue->room || queue->room == 0) {
			queue->room = queue->room > 0 ? queue->room * 2 : 64;
			queue->items =
				xreallocarray(queue->items, queue->room, sizeof(*queue->items));
		}
	}
	queue->items[queue->head + queue->count++] = item;
}

static int64_t queue_first(const struct queue *queue)
{
	return queue->count > 0 ? queue->items[queue->head] : INT64_MAX;
}

static int64_t queue_take(struct queue *queue)
{
	assert(queue->count > 0);
	queue->count--;
	return queue->items[queue->head++];
}

/* ---- sandboxes ---- */

static void make_one(struct replay *replay)
{
	queue_put(&replay->coming, replay->now_ms + replay->spec->making_ms);
	replay->result->made++;
}

/* As reconcile.c: what waits is provided for, then the plan is carried out. */
static void reconcile(struct replay *replay)
{
	struct pool_plan plan;

	while ((int64_t)replay->coming.count < replay->waiting) {
		make_one(replay);
	}
	do {
		struct pool_view view = {.has_head = true,
			.target = replay->target,
			.max = NO_LIMIT,
			.machine_max = NO_LIMIT,
			.creates_max = NO_LIMIT,
			.ready_head = replay->ready,
			.creating_head = (int64_t)replay->coming.count,
			.waiting_head = replay->waiting};

		plan = pool_plan_make(&view);
		replay->ready -= plan.retire_ready;
		for (int64_t i = 0; i < plan.create; i++) {
			make_one(replay);
		}
	} while (plan.create > 0);
}

static void aim(struct replay *replay)
{
	replay->target = replay->policy->target(replay->policy->context, replay->now_ms);
	reconcile(replay);
}

static void count_claim(struct replay *replay, size_t index, bool hit)
{
	int64_t wait_ms = replay->now_ms - replay->arrivals[index].at_ms;

	replay->result->claims++;
	replay->result->hits += hit ? 1 : 0;
	if (!hit) {
		replay->result->wait_seconds += (double)wait_ms / 1e3;
		*array_add(&replay->result->waits, &replay->result->wait_count,
			&replay->result->wait_room) = (int32_t)wait_ms;
	}
}

/* One has become ready: whoever has waited longest gets it. */
static void on_ready(struct replay *replay)
{
	(void)queue_take(&replay->coming);
	while (replay->waiters.count > 0) {
		size_t index = (size_t)queue_take(&replay->waiters);

		if (replay->cases[index] != CASE_WAITS) {
			continue;
		}
		replay->waiting--;
		if (replay->claimed[index]) {
			replay->cases[index] = CASE_OVER;
			count_claim(replay, index, false);
		} else {
			replay->cases[index] = CASE_HOLDS;
			replay->held++;
		}
		return;
	}
	replay->ready++;
	reconcile(replay);
}

static void case_wait(struct replay *replay, size_t index)
{
	replay->cases[index] = CASE_WAITS;
	replay->waiting++;
	queue_put(&replay->waiters, (int64_t)index);
}

/* ---- events ---- */

static void on_key(struct replay *replay, size_t index)
{
	if (replay->ready > 0) {
		replay->ready--;
		replay->held++;
		replay->cases[index] = CASE_HOLDS;
	} else {
		case_wait(replay, index);
	}
	reconcile(replay);
}

static void on_claim(struct replay *replay, size_t index)
{
	bool hit = replay->cases[index] == CASE_HOLDS ||
		   (replay->cases[index] == CASE_NEW && replay->ready > 0);

	replay->claimed[index] = true;
	if (replay->policy->claim != NULL) {
		replay->policy->claim(replay->policy->context, replay->now_ms, hit);
	}
	if (replay->cases[index] == CASE_HOLDS) {
		replay->held--;
	} else if (hit) {
		replay->ready--;
	} else if (replay->cases[index] == CASE_NEW) {
		case_wait(replay, index);
	}
	if (hit) {
		replay->cases[index] = CASE_OVER;
		count_claim(replay, index, true);
	}
	aim(replay);
}

/* An abandoned draft gives back what it holds. */
static void on_lapse(struct replay *replay, size_t index)
{
	if (replay->cases[index] == CASE_HOLDS) {
		replay->held--;
		replay->ready++;
	} else if (replay->cases[index] == CASE_WAITS) {
		replay->waiting--;
	}
	replay->cases[index] = CASE_OVER;
	reconcile(replay);
}

static int by_time(const void *a, const void *b)
{
	const struct event *first = a, *second = b;

	if (first->at_ms != second->at_ms) {
		return first->at_ms < second->at_ms ? -1 : 1;
	}
	return first->index < second->index ? -1 : first->index > second->index;
}

static void event_add(struct replay *replay, int64_t at_ms, size_t index, enum event_kind kind)
{
	*array_add(&replay->events, &replay->event_count, &replay->event_room) =
		(struct event){.at_ms = at_ms, .index = (uint32_t)index, .kind = kind};
}

static void events_make(struct replay *replay, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct arrival *arrival = &replay->arrivals[i];
		bool hinted = replay->spec->hints && arrival->typing_ms >= 0;

		if (hinted) {
			event_add(replay, arrival->at_ms - arrival->typing_ms, i, EVENT_KEY);
		}
		if (!arrival->abandoned) {
			event_add(replay, arrival->at_ms, i, EVENT_CLAIM);
		} else if (hinted) {
			event_add(replay, arrival->at_ms + LEASE_MS, i, EVENT_LAPSE);
		}
	}
	if (replay->spec->hints && replay->event_count > 0) {
		qsort(replay->events, replay->event_count, sizeof(*replay->events), by_time);
	}
}

static void go_to(struct replay *replay, int64_t at_ms)
{
	const struct arrivals *all = replay->spec->arrivals;
	int64_t from = replay->now_ms < all->begin_ms ? all->begin_ms : replay->now_ms;
	int64_t to = at_ms > all->end_ms ? all->end_ms : at_ms;

	if (to > from) {
		replay->result->idle_seconds +=
			(double)(replay->ready + replay->held) * (double)(to - from) / 1e3;
	}
	replay->now_ms = at_ms;
}

static void event_run(struct replay *replay, const struct event *event)
{
	switch (event->kind) {
	case EVENT_KEY:
		on_key(replay, event->index);
		break;
	case EVENT_CLAIM:
		on_claim(replay, event->index);
		break;
	case EVENT_LAPSE:
		on_lapse(replay, event->index);
		break;
	}
}

/* ---- the environments in turn ---- */

static int64_t next_ms(const struct replay *replay)
{
	int64_t event_ms =
		replay->next < replay->event_count ? replay->events[replay->next].at_ms : INT64_MAX;
	int64_t ready_ms = queue_first(&replay->coming);
	int64_t at_ms = ready_ms < event_ms ? ready_ms : event_ms;

	return replay->tick_ms < at_ms ? replay->tick_ms : at_ms;
}

/* One event; what becomes ready comes first of those that happen at once. */
static void step(struct replay *replay)
{
	int64_t at_ms = next_ms(replay);

	go_to(replay, at_ms);
	if (queue_first(&replay->coming) == at_ms) {
		on_ready(replay);
	} else if (replay->tick_ms == at_ms) {
		replay->tick_ms += TICK_MS;
		aim(replay);
	} else {
		event_run(replay, &replay->events[replay->next++]);
	}
}

static bool is_over(const struct replay *replay)
{
	return replay->next >= replay->event_count &&
	       replay->tick_ms > replay->spec->arrivals->end_ms && replay->waiting == 0;
}

/* The first of the heap has moved on in time. */
static void heap_sift(struct replay **heap, size_t count)
{
	size_t at = 0;

	for (;;) {
		size_t least = at;

		for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++) {
			least = next_ms(heap[child]) < next_ms(heap[least]) ? child : least;
		}
		if (least == at) {
			return;
		}
		struct replay *moved = heap[at];
		heap[at] = heap[least];
		heap[least] = moved;
		at = least;
	}
}

static int by_next(const void *a, const void *b)
{
	struct replay *const *first = a;
	struct replay *const *second = b;
	int64_t left = next_ms(*first), right = next_ms(*second);

	return left < right ? -1 : left > right;
}

static void replay_start(struct replay *replay, size_t environment)
{
	const struct arrivals *all = replay->spec->arrivals;
	size_t first = all->first[environment];
	size_t count = all->first[environment + 1] - first;

	replay->arrivals = all->items + first;
	replay->cases = xcalloc(count + 1, sizeof(*replay->cases));
	replay->claimed = xcalloc(count + 1, sizeof(*replay->claimed));
	events_make(replay, count);
	replay->tick_ms = all->begin_ms;
	replay->now_ms = next_ms(replay);
}

static void replay_end(struct replay *replay)
{
	free(replay->cases);
	free(replay->claimed);
	free(replay->events);
	free(replay->coming.items);
	free(replay->waiters.items);
}

void replay_run(const struct replay_spec *spec, const struct policy *policies,
	struct replay_result *ret_result)
{
	size_t count = spec->arrivals->name_count;
	CLEANUP(free_p) struct replay *replays = xcalloc(count, sizeof(*replays));
	CLEANUP(free_p) struct replay **heap = xcalloc(count, sizeof(*heap));

	*ret_result = (struct replay_result){0};
	for (size_t i = 0; i < count; i++) {
		replays[i] =
			(struct replay){.spec = spec, .policy = &policies[i], .result = ret_result};
		replay_start(&replays[i], i);
		heap[i] = &replays[i];
	}
	qsort(heap, count, sizeof(struct replay *), by_next);
	for (size_t left = count; left > 0;) {
		step(heap[0]);
		if (is_over(heap[0])) {
			go_to(heap[0], spec->arrivals->end_ms);
			heap[0] = heap[--left];
		}
		heap_sift(heap, left);
	}
	for (size_t i = 0; i < count; i++) {
		replay_end(&replays[i]);
	}
}

void replay_result_done(struct replay_result *result)
{
	free(result->waits);
	*result = (struct replay_result){0};
}
