/* hob-simulate, as `hob simulate`: what the pool would have done with claims that came somewhere
 * once. A program of its own so that `hob` starts without the libraries that draw. */
#include "base/clock.h"
#include "base/json.h"
#include "configs/settings.h"
#include "pool/cli/human.h"
#include "pool/cli/options.h"
#include "pool/cli/table.h"
#include "pool/simulate/compare.h"
#include "pool/simulate/plot.h"

#include <math.h>
#include <stdio.h>

struct options {
	bool help, json, keystrokes;
	const char *hit_rate, *plot, *memory, *config;
	char **policies;
	int64_t making_ms;
};

static const struct option_row rows[] = {
	{"hit-rate", '\0', OPTION_TEXT, "SHARE", offsetof(struct options, hit_rate),
		"share of claims that are to find one ready, 0.5 to 0.999 (default 0.95)"},
	{"start-time", '\0', OPTION_DURATION, "DUR", offsetof(struct options, making_ms),
		"from the request for a sandbox until it is ready (default 30s)"},
	{"policy", '\0', OPTION_LIST, "NAME", offsetof(struct options, policies),
		"only this one (and again): fixed, reactive, forecast, forecast+hints, hints, "
		"clairvoyant"},
	{"keystrokes", '\0', OPTION_FLAG, NULL, offsetof(struct options, keystrokes),
		"add first keystrokes by a model of people who type prompts, where the file has "
		"none"},
	{"memory", '\0', OPTION_TEXT, "SIZE", offsetof(struct options, memory),
		"of a ready sandbox, for the cost (default 512MiB)"},
	{"plot", '\0', OPTION_TEXT, "FILE", offsetof(struct options, plot),
		"draw ready sandboxes against hits, as .svg or .png"},
	{"json", '\0', OPTION_FLAG, NULL, offsetof(struct options, json),
		"print JSON, for programs"},
	{"config", '\0', OPTION_TEXT, "FILE", offsetof(struct options, config),
		"not read; for `hob --config FILE simulate`"},
	{"help", 'h', OPTION_FLAG, NULL, offsetof(struct options, help), "print this help"},
};

struct simulation {
	struct options options;
	struct arrivals arrivals;
	double hit_rate, span_seconds;
	int64_t memory_bytes;
	struct curve curves[POLICIES];
	size_t count;
	double bound; /* idle seconds of the clairvoyant; negative: not run, or nowhere */
};

static void print_help(void)
{
	puts("Usage: hob simulate [options] FILE…\n\n"
	     "Replay arrivals against the pool's own plan and forecast\n\n"
	     "FILE is CSV, compressed or not: a line for each claim with the columns t (seconds\n"
	     "from a midnight), environment or image, and perhaps keystroke (when the first one\n"
	     "was) or chars (of the prompt); or the Azure Functions trace, calls a minute.\n"
	     "Idle is every second of a ready sandbox that nobody has claimed. Policies are\n"
	     "compared where they have the same share of hits: `fixed` knows the best constant\n"
	     "sizes in hindsight, `clairvoyant` the best size for each hour, `reactive` keeps\n"
	     "what was needed at a time lately.\n\nOptions");
	options_print(rows, ARRAY_SIZE(rows));
}

static int options_check(struct simulation *simulation, struct error *err)
{
	const struct options *options = &simulation->options;
	const char *text = options->hit_rate != NULL ? options->hit_rate : "0.95";
	char *end = NULL;

	simulation->hit_rate = strtod(text, &end);
	if (end == text || *end != '\0' ||
		!(simulation->hit_rate >= 0.5 && simulation->hit_rate <= 0.999)) {
		return error_set(err, ERROR_USAGE, "--hit-rate %s: expects 0.5 to 0.999", text);
	}
	simulation->memory_bytes = 512 << 20;
	if (options->memory != NULL && !size_parse(options->memory, &simulation->memory_bytes)) {
		return error_set(err, ERROR_USAGE, "--memory %s: expects a size such as 512MiB",
			options->memory);
	}
	if (options->making_ms < 1 || options->making_ms > 86400000) {
		return error_set(err, ERROR_USAGE, "--start-time: expects 1ms to 24h");
	}
	for (char **name = options->policies; name != NULL && *name != NULL; name++) {
		enum policy_kind kind;

		if (!policy_from_name(*name, &kind)) {
			error_set(err, ERROR_USAGE, "--policy %s: no such policy", *name);
			return error_hint(err, "`hob simulate --help` lists them");
		}
	}
	return 0;
}

static bool wanted(const struct simulation *simulation, enum policy_kind kind)
{
	bool hints = kind == POLICY_HINTS || kind == POLICY_LEASES;

	if (simulation->options.policies == NULL) {
		return !hints || simulation->arrivals.keystrokes;
	}
	for (char **name = simulation->options.policies; *name != NULL; name++) {
		if (streq(*name, policy_name(kind))) {
			return true;
		}
	}
	return false;
}

static void run_all(struct simulation *simulation)
{
	simulation->bound = -1;
	for (size_t i = 0; i < POLICIES; i++) {
		struct curve *curve = &simulation->curves[simulation->count];

		if (!wanted(simulation, (enum policy_kind)i)) {
			continue;
		}
		curve_make(&simulation->arrivals, (enum policy_kind)i,
			simulation->options.making_ms, simulation->hit_rate, true, curve);
		if (i == POLICY_CLAIRVOYANT) {
			simulation->bound = curve->idle_at;
		}
		simulation->count++;
	}
}

/* ---- what is shown ---- */

static double gib_hours(const struct simulation *simulation, double idle_seconds)
{
	return idle_seconds / 3600 * (double)simulation->memory_bytes / (double)(1 << 30);
}

static void add_number(struct table *table, int digits, double value)
{
	char text[HUMAN_SIZE];

	snprintf(text, sizeof(text), "%.*f", digits, value);
	table_add(table, value < 0 ? "" : text);
}

static void print_table(const struct simulation *simulation)
{
	char at[HUMAN_SIZE];
	const struct table_column columns[] = {{"POLICY", false}, {"HITS", true},
		{"MEAN WAIT", true}, {"P99 WAIT", true}, {"READY", true}, {"IDLE S/CLAIM", true},
		{"GIB-HOURS", true}, {"MADE", true}, {at, true}, {"x BOUND", true}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));

	snprintf(at, sizeof(at), "READY AT %g %%", simulation->hit_rate * 100);
	for (size_t i = 0; i < simulation->count; i++) {
		const struct curve *curve = &simulation->curves[i];
		const struct outcome *run = &curve->aimed;
		char text[HUMAN_SIZE];

		table_add(table, policy_name(curve->kind));
		snprintf(text, sizeof(text), "%.2f %%", run->hit_rate * 100);
		table_add(table, text);
		human_span(text, llround(run->wait_mean_ms * 1e3));
		table_add(table, text);
		human_span(text, llround(run->wait_p99_ms * 1e3));
		table_add(table, text);
		add_number(table, 3, run->idle_seconds / simulation->span_seconds);
		add_number(table, 0, run->idle_seconds / (double)simulation->arrivals.claims);
		add_number(table, 1, gib_hours(simulation, run->idle_seconds));
		snprintf(text, sizeof(text), "%llu", (unsigned long long)run->made);
		table_add(table, text);
		add_number(table, 3,
			curve->idle_at < 0 ? -1 : curve->idle_at / simulation->span_seconds);
		add_number(table, 2,
			simulation->bound <= 0 || curve->idle_at < 0
				? -1
				: curve->idle_at / simulation->bound);
	}
	table_print(table, NULL);
}

static json_t *outcome_to_json(const struct simulation *simulation, const struct outcome *outcome)
{
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "setting", outcome->setting,
		"hit_rate", outcome->hit_rate, "wait_mean_ms", outcome->wait_mean_ms, "wait_p99_ms",
		outcome->wait_p99_ms, "idle_seconds", outcome->idle_seconds, "ready_mean",
		outcome->idle_seconds / simulation->span_seconds, "gib_hours",
		gib_hours(simulation, outcome->idle_seconds), "made", (json_int_t)outcome->made);
}

static void print_json(const struct simulation *simulation)
{
	CLEANUP(json_decref_p)
	json_t *json = json_pack("{s:I, s:I, s:f, s:f, s:f}", "claims",
		(json_int_t)simulation->arrivals.claims, "environments",
		(json_int_t)simulation->arrivals.name_count, "seconds", simulation->span_seconds,
		"start_s", (double)simulation->options.making_ms / 1e3, "hit_rate",
		simulation->hit_rate);
	json_t *policies = json_object();

	for (size_t i = 0; i < simulation->count; i++) {
		const struct curve *curve = &simulation->curves[i];
		json_t *one = outcome_to_json(simulation, &curve->aimed);
		json_t *points = json_array();

		json_object_set_new(one, "ready_at_hit_rate",
			curve->idle_at < 0 ? json_null()
					   : json_real(curve->idle_at / simulation->span_seconds));
		json_object_set_new(one, "times_bound",
			curve->idle_at < 0 || simulation->bound <= 0
				? json_null()
				: json_real(curve->idle_at / simulation->bound));
		for (size_t k = 0; k < curve->count; k++) {
			json_array_append_new(
				points, outcome_to_json(simulation, &curve->outcomes[k]));
		}
		json_object_set_new(one, "curve", points);
		json_object_set_new(policies, policy_name(curve->kind), one);
	}
	json_object_set_new(json, "policies", policies);
	human_print_json(json);
}

static char *title_of(const struct simulation *simulation)
{
	char span[HUMAN_SIZE], start[CLOCK_TEXT_SIZE];

	human_span(span, llround(simulation->span_seconds * 1e6));
	duration_format(start, simulation->options.making_ms);
	return xasprintf("%zu claims of %zu environment%s in %s; one takes %s to make",
		simulation->arrivals.claims, simulation->arrivals.name_count,
		simulation->arrivals.name_count == 1 ? "" : "s", span, start);
}

static int simulate(struct simulation *simulation, char **files, struct error *err)
{
	CLEANUP(free_p) char *title = NULL;
	int status;

	if ((status = options_check(simulation, err)) < 0) {
		return status;
	}
	for (; *files != NULL; files++) {
		if ((status = arrivals_read(&simulation->arrivals, *files, err)) < 0) {
			return status;
		}
	}
	if (simulation->options.keystrokes) {
		arrivals_type(&simulation->arrivals);
	}
	if ((status = arrivals_finish(&simulation->arrivals, err)) < 0) {
		return status;
	}
	simulation->span_seconds =
		(double)(simulation->arrivals.end_ms - simulation->arrivals.begin_ms + 1) / 1e3;
	run_all(simulation);
	title = title_of(simulation);
	if (simulation->options.json) {
		print_json(simulation);
	} else {
		puts(title);
		print_table(simulation);
	}
	if (simulation->options.plot != NULL) {
		struct plot plot = {simulation->curves, simulation->count, simulation->span_seconds,
			simulation->hit_rate, title};

		return plot_write(&plot, simulation->options.plot, err);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct simulation simulation = {.options = {.making_ms = 30000}};
	struct option_set set = {rows, ARRAY_SIZE(rows), &simulation.options};
	struct error err = ERROR_INIT;
	size_t count = 0;
	int status;

	(void)argc;
	status = options_parse(&set, 1, OPTIONS_NO_COMMAND, argv + 1, &count, &err);
	if (status >= 0 && simulation.options.help) {
		print_help();
	} else if (status >= 0 && count == 0) {
		status = error_set(&err, ERROR_USAGE, "simulate needs a FILE");
		error_hint(&err, "`hob simulate --help` shows how it goes");
	} else if (status >= 0) {
		status = simulate(&simulation, argv + 1, &err);
	}
	if (status >= 0 && (fflush(stdout) != 0 || ferror(stdout))) {
		status = error_sys(&err, errno, "write to standard output");
	}
	arrivals_done(&simulation.arrivals);
	options_done(&set);
	if (status < 0) {
		error_print("hob simulate", &err);
		return error_exit_code(err.kind);
	}
	return 0;
}
