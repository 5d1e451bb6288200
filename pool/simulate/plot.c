/* Drawing by cairo. The axis of hits is stretched towards 100 %, where the choices are made: it
 * shows ln(1 - hits). The axis of ready sandboxes is logarithmic, because policies differ by
 * factors. */
#include "pool/simulate/plot.h"

#include <cairo/cairo-svg.h>
#include <cairo/cairo.h>
#include <math.h>
#include <stdio.h>

#define WIDTH 960.0
#define HEIGHT 600.0
#define LEFT 90.0
#define RIGHT 190.0
#define TOP 60.0
#define BOTTOM 70.0
#define HITS_LEAST 0.4
#define HITS_MOST 0.999

static const double colours[POLICIES][3] = {
	[POLICY_FIXED] = {0.80, 0.25, 0.20},
	[POLICY_REACTIVE] = {0.85, 0.55, 0.10},
	[POLICY_FORECAST] = {0.10, 0.35, 0.75},
	[POLICY_HINTS] = {0.45, 0.20, 0.65},
	[POLICY_LEASES] = {0.75, 0.40, 0.65},
	[POLICY_CLAIRVOYANT] = {0.20, 0.55, 0.30},
};

struct canvas {
	cairo_t *cairo;
	double least, most; /* of ready sandboxes */
};

static double clamp(double value, double least, double most)
{
	return value < least ? least : value > most ? most : value;
}

static double x_of(double hits)
{
	double from = -log(1 - HITS_LEAST), to = -log(1 - HITS_MOST);
	double at = -log(1 - clamp(hits, HITS_LEAST, HITS_MOST));

	return LEFT + (at - from) / (to - from) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const struct canvas *canvas, double ready)
{
	double from = log(canvas->least), to = log(canvas->most);
	double at = log(clamp(ready, canvas->least, canvas->most));

	return HEIGHT - BOTTOM - (at - from) / (to - from) * (HEIGHT - TOP - BOTTOM);
}

static void text_at(const struct canvas *canvas, double x, double y, double align, const char *text)
{
	cairo_text_extents_t extents;

	cairo_text_extents(canvas->cairo, text, &extents);
	cairo_move_to(canvas->cairo, x - extents.x_advance * align, y);
	cairo_show_text(canvas->cairo, text);
}

static void line(const struct canvas *canvas, double x1, double y1, double x2, double y2)
{
	cairo_move_to(canvas->cairo, x1, y1);
	cairo_line_to(canvas->cairo, x2, y2);
	cairo_stroke(canvas->cairo);
}

static void draw_axes(const struct canvas *canvas, const struct plot *plot)
{
	static const double ticks[] = {0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999};
	char label[32];

	cairo_set_line_width(canvas->cairo, 1);
	for (size_t i = 0; i < ARRAY_SIZE(ticks); i++) {
		double x = x_of(ticks[i]);

		cairo_set_source_rgb(canvas->cairo, 0.87, 0.87, 0.87);
		line(canvas, x, TOP, x, HEIGHT - BOTTOM);
		cairo_set_source_rgb(canvas->cairo, 0.2, 0.2, 0.2);
		snprintf(label, sizeof(label), "%g %%", ticks[i] * 100);
		text_at(canvas, x, HEIGHT - BOTTOM + 20, 0.5, label);
	}
	/* 1, 2 and 5 of each power of ten. */
	for (double power = pow(10, floor(log10(canvas->least))); power <= canvas->most;
		power *= 10) {
		static const double steps[] = {1, 2, 5};

		for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
			double ready = power * steps[i], y = y_of(canvas, ready);

			if (ready < canvas->least || ready > canvas->most) {
				continue;
			}
			cairo_set_source_rgb(canvas->cairo, 0.87, 0.87, 0.87);
			line(canvas, LEFT, y, WIDTH - RIGHT, y);
			cairo_set_source_rgb(canvas->cairo, 0.2, 0.2, 0.2);
			snprintf(label, sizeof(label), "%g", ready);
			text_at(canvas, LEFT - 8, y + 5, 1, label);
		}
	}
	text_at(canvas, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 20, 0.5,
		"claims that found a sandbox ready");
	cairo_save(canvas->cairo);
	cairo_translate(canvas->cairo, 26, (TOP + HEIGHT - BOTTOM) / 2);
	cairo_rotate(canvas->cairo, -M_PI / 2);
	text_at(canvas, 0, 0, 0.5, "ready sandboxes, on average");
	cairo_restore(canvas->cairo);
	cairo_set_font_size(canvas->cairo, 17);
	text_at(canvas, LEFT, 34, 0, plot->title);
	cairo_set_font_size(canvas->cairo, 14);
}

/* The hit rate that policies are compared at. */
static void draw_mark(const struct canvas *canvas, double hit_rate)
{
	static const double dashes[] = {5, 4};

	cairo_set_source_rgb(canvas->cairo, 0.4, 0.4, 0.4);
	cairo_set_dash(canvas->cairo, dashes, 2, 0);
	line(canvas, x_of(hit_rate), TOP, x_of(hit_rate), HEIGHT - BOTTOM);
	cairo_set_dash(canvas->cairo, NULL, 0, 0);
}

static int by_hits(const void *a, const void *b)
{
	double first = ((const struct outcome *)a)->hit_rate;
	double second = ((const struct outcome *)b)->hit_rate;

	return first < second ? -1 : first > second;
}

static void draw_curve(const struct canvas *canvas, const struct plot *plot, size_t index)
{
	struct curve curve = plot->curves[index];
	const double *colour = colours[curve.kind];
	double legend = TOP + 20 + 24 * (double)index;

	qsort(curve.outcomes, curve.count, sizeof(*curve.outcomes), by_hits);
	while (curve.count > 0 && curve.outcomes[0].hit_rate < HITS_LEAST) {
		curve.count--;
		memmove(curve.outcomes, curve.outcomes + 1, curve.count * sizeof(*curve.outcomes));
	}
	cairo_set_source_rgb(canvas->cairo, colour[0], colour[1], colour[2]);
	cairo_set_line_width(canvas->cairo, 2.2);
	cairo_new_path(canvas->cairo); /* what the last text left is no part of it */
	for (size_t i = 0; i < curve.count; i++) {
		cairo_line_to(canvas->cairo, x_of(curve.outcomes[i].hit_rate),
			y_of(canvas, curve.outcomes[i].idle_seconds / plot->span_seconds));
	}
	cairo_stroke(canvas->cairo);
	for (size_t i = 0; i < curve.count; i++) {
		cairo_arc(canvas->cairo, x_of(curve.outcomes[i].hit_rate),
			y_of(canvas, curve.outcomes[i].idle_seconds / plot->span_seconds), 3.2, 0,
			2 * M_PI);
		cairo_fill(canvas->cairo);
	}
	line(canvas, WIDTH - RIGHT + 16, legend, WIDTH - RIGHT + 40, legend);
	cairo_set_source_rgb(canvas->cairo, 0.2, 0.2, 0.2);
	text_at(canvas, WIDTH - RIGHT + 48, legend + 5, 0, policy_name(curve.kind));
}

static void range_of(const struct plot *plot, struct canvas *canvas)
{
	canvas->least = INFINITY;
	canvas->most = 0;
	for (size_t i = 0; i < plot->count; i++) {
		for (size_t k = 0; k < plot->curves[i].count; k++) {
			const struct outcome *outcome = &plot->curves[i].outcomes[k];
			double ready = outcome->idle_seconds / plot->span_seconds;

			if (outcome->hit_rate >= HITS_LEAST && ready > 0) {
				canvas->least = fmin(canvas->least, ready);
				canvas->most = fmax(canvas->most, ready);
			}
		}
	}
	if (canvas->most <= 0) {
		canvas->least = 0.1;
		canvas->most = 1;
	}
	canvas->least /= 1.3;
	canvas->most *= 1.3;
}

int plot_write(const struct plot *plot, const char *path, struct error *err)
{
	const char *dot = strrchr(path, '.');
	bool png = dot != NULL && streq(dot, ".png");
	struct canvas canvas = {0};
	cairo_surface_t *surface;
	cairo_status_t status;

	if (!png && (dot == NULL || !streq(dot, ".svg"))) {
		return error_set(err, ERROR_INVALID, "%s: a plot is a .svg or a .png", path);
	}
	surface = png ? cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)WIDTH, (int)HEIGHT)
		      : cairo_svg_surface_create(path, WIDTH, HEIGHT);
	canvas.cairo = cairo_create(surface);
	cairo_set_source_rgb(canvas.cairo, 1, 1, 1);
	cairo_paint(canvas.cairo);
	cairo_select_font_face(
		canvas.cairo, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
	cairo_set_font_size(canvas.cairo, 14);
	range_of(plot, &canvas);
	draw_axes(&canvas, plot);
	draw_mark(&canvas, plot->hit_rate);
	for (size_t i = 0; i < plot->count; i++) {
		draw_curve(&canvas, plot, i);
	}
	cairo_destroy(canvas.cairo);
	if (png) {
		status = cairo_surface_write_to_png(surface, path);
	} else {
		cairo_surface_finish(surface);
		status = cairo_surface_status(surface);
	}
	cairo_surface_destroy(surface);
	if (status != CAIRO_STATUS_SUCCESS) {
		return error_set(
			err, ERROR_IO, "write %s: %s", path, cairo_status_to_string(status));
	}
	return 0;
}
