/* A claim is a hit with k ready ones when fewer than k claims came while one is made before it. So
 * the k-th one of a period gains the claims of depth k-1 and stands idle for the period, less what
 * it is away. Steps along the upper hull of gain against cost are taken in the order of gain for
 * cost, over all periods and environments, until the hits are enough. */
#include "pool/simulate/hindsight.h"

#include <assert.h>

/* From one level of a cell to the next that is worth it. */
struct step {
	size_t cell;
	int64_t level; /* after it */
	double gain, cost;
};

struct hindsight {
	const struct arrivals *arrivals;
	int64_t period_ms, making_ms;
	size_t periods;
	int64_t *levels; /* of environment * periods + period */
	struct step *steps; /* best first, in order of level within a cell */
	size_t step_count, step_room;
};

static size_t cell_of(const struct hindsight *hindsight, size_t environment, int64_t now_ms)
{
	int64_t since = now_ms - hindsight->arrivals->begin_ms;
	int64_t period = since < 0 ? 0 : since / hindsight->period_ms;

	if (period >= (int64_t)hindsight->periods) {
		period = (int64_t)hindsight->periods - 1;
	}
	return environment * hindsight->periods + (size_t)period;
}

/* Keeps the hull concave: a step that is better than the one before it joins it. */
static void step_add(struct hindsight *hindsight, size_t first, struct step step)
{
	while (hindsight->step_count > first) {
		const struct step *last = &hindsight->steps[hindsight->step_count - 1];

		if (last->gain * step.cost >= step.gain * last->cost) {
			break;
		}
		step.gain += last->gain;
		step.cost += last->cost;
		hindsight->step_count--;
	}
	*array_add(&hindsight->steps, &hindsight->step_count, &hindsight->step_room) = step;
}

/* `counts[d]`: claims of depth d in this cell. */
static void cell_steps(
	struct hindsight *hindsight, size_t cell, const uint32_t *counts, size_t deepest)
{
	size_t first = hindsight->step_count;

	for (size_t depth = 0; depth <= deepest; depth++) {
		double gain = counts[depth];
		double away_ms = gain * (double)hindsight->making_ms;
		double idle_ms = (double)hindsight->period_ms - away_ms;

		step_add(hindsight, first,
			(struct step){.cell = cell,
				.level = (int64_t)depth + 1,
				.gain = gain,
				.cost = idle_ms > 1 ? idle_ms : 1});
	}
	/* What gains nothing is at the end. */
	while (hindsight->step_count > first &&
		hindsight->steps[hindsight->step_count - 1].gain <= 0) {
		hindsight->step_count--;
	}
}

static void environment_steps(struct hindsight *hindsight, size_t environment)
{
	const struct arrivals *all = hindsight->arrivals;
	size_t begin = all->first[environment], end = all->first[environment + 1];
	size_t room = end - begin + 1, deepest = 0, oldest = begin;
	CLEANUP(free_p) uint32_t *counts = xcalloc(room, sizeof(*counts));
	size_t cell = SIZE_MAX, depth = 0;

	for (size_t i = begin; i < end; i++) {
		const struct arrival *arrival = &all->items[i];
		size_t now;

		if (arrival->abandoned) {
			continue;
		}
		now = cell_of(hindsight, environment, arrival->at_ms);
		if (now != cell && cell != SIZE_MAX) {
			cell_steps(hindsight, cell, counts, deepest);
			memset(counts, 0, (deepest + 1) * sizeof(*counts));
			deepest = 0;
		}
		cell = now;
		for (; all->items[oldest].at_ms <= arrival->at_ms - hindsight->making_ms ||
			all->items[oldest].abandoned;
			oldest++) {
			depth -= all->items[oldest].abandoned ? 0 : 1;
		}
		counts[depth]++;
		deepest = depth > deepest ? depth : deepest;
		depth++;
	}
	if (cell != SIZE_MAX) {
		cell_steps(hindsight, cell, counts, deepest);
	}
}

static int by_worth(const void *a, const void *b)
{
	const struct step *first = a, *second = b;
	double left = first->gain * second->cost, right = second->gain * first->cost;

	if (left < right || left > right) {
		return left > right ? -1 : 1;
	}
	return first->level < second->level ? -1 : first->level > second->level;
}

struct hindsight *hindsight_new(
	const struct arrivals *arrivals, int64_t period_ms, int64_t making_ms)
{
	struct hindsight *hindsight = xcalloc(1, sizeof(*hindsight));
	int64_t whole = arrivals->end_ms - arrivals->begin_ms + 1;

	hindsight->arrivals = arrivals;
	hindsight->period_ms = period_ms > 0 ? period_ms : whole;
	hindsight->making_ms = making_ms;
	hindsight->periods = (size_t)((whole + hindsight->period_ms - 1) / hindsight->period_ms);
	hindsight->levels =
		xcalloc(arrivals->name_count * hindsight->periods, sizeof(*hindsight->levels));
	for (size_t i = 0; i < arrivals->name_count; i++) {
		environment_steps(hindsight, i);
	}
	if (hindsight->step_count > 0) {
		qsort(hindsight->steps, hindsight->step_count, sizeof(*hindsight->steps), by_worth);
	}
	return hindsight;
}

void hindsight_free(struct hindsight *hindsight)
{
	if (hindsight != NULL) {
		free(hindsight->levels);
		free(hindsight->steps);
		free(hindsight);
	}
}

void hindsight_aim(struct hindsight *hindsight, double hit_rate)
{
	const struct arrivals *all = hindsight->arrivals;
	double wanted = hit_rate * (double)all->claims, hits = 0;

	memset(hindsight->levels, 0,
		all->name_count * hindsight->periods * sizeof(*hindsight->levels));
	for (size_t i = 0; i < hindsight->step_count && hits < wanted; i++) {
		hindsight->levels[hindsight->steps[i].cell] = hindsight->steps[i].level;
		hits += hindsight->steps[i].gain;
	}
}

int64_t hindsight_level(const struct hindsight *hindsight, size_t environment, int64_t now_ms)
{
	return hindsight->levels[cell_of(hindsight, environment, now_ms)];
}
