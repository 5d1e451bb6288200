/* The numbers of hobd in the text format of Prometheus: GET /metrics. One table names them. */
#ifndef HOB_POOL_METRICS_H
#define HOB_POOL_METRICS_H

#include "base/buffer.h"

#include <stdint.h>

struct manager;

void metrics_write(const struct manager *manager, struct buffer *text);

/* Histograms of times, with bounds that suit all of hob's: 10 µs to 2 min. */
#define METRIC_BOUNDS 15
struct metric_times {
	uint64_t counts[METRIC_BOUNDS + 1]; /* up to each bound; the last: above all */
	double sum_seconds;
};
void metric_times_add(struct metric_times *times, int64_t us);

#endif
