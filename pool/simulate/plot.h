/* The curves of policies as a picture: mean ready sandboxes against the share of hits. */
#ifndef HOB_POOL_SIMULATE_PLOT_H
#define HOB_POOL_SIMULATE_PLOT_H

#include "pool/simulate/compare.h"

struct plot {
	const struct curve *curves;
	size_t count;
	double span_seconds; /* that was watched */
	double hit_rate; /* where policies are compared */
	const char *title;
};

/* Writes a .svg or .png, by the end of the name; ERROR_INVALID for another, ERROR_IO. */
MUSTCHECK int plot_write(const struct plot *plot, const char *path, struct error *err);

#endif
