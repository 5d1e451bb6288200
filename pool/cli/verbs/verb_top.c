/* hob top: pools and claimed sandboxes on one screen, again and again. The terminal is put back as
 * it was on every way out that a program can take: a key, a signal, an error. */
#include "base/buffer.h"
#include "base/clock.h"
#include "base/memory.h"
#include "pool/cli/cli.h"
#include "pool/cli/table.h"
#include "pool/cli/terminal.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <termios.h>
#include <time.h>

/* Between the two looks that --once needs to see who uses the processor. */
#define ONCE_MS 200
#define ROWS_WITHOUT_TERMINAL 1000

struct top_values {
	bool once;
	const char *sort;
	int64_t every_ms;
};

static const struct option_row top_rows[] = {
	{"once", '\0', OPTION_FLAG, NULL, offsetof(struct top_values, once),
		"show it once and end"},
	{"sort", '\0', OPTION_TEXT, "KEY", offsetof(struct top_values, sort),
		"sandboxes by cpu or memory (default cpu)"},
	{"every", '\0', OPTION_DURATION, "DUR", offsetof(struct top_values, every_ms),
		"how often (default 1s)"},
};

static const struct top_values top_defaults = {.every_ms = 1000};

struct top {
	struct cli *cli;
	bool by_memory;
	bool live; /* on a terminal */
	int64_t every_ms, looked_us;
	json_t *before; /* {id: cpu_us} of the last look; NULL: none */
};

/* ---- the terminal ---- */

static struct {
	struct termios before;
	volatile sig_atomic_t changed, ended, resized;
} screen;

static void screen_restore(void)
{
	static const char back[] = "\033[?25h\033[?1049l";

	if (screen.changed) {
		screen.changed = 0;
		(void)!write(STDOUT_FILENO, back, sizeof(back) - 1);
		tcsetattr(STDIN_FILENO, TCSANOW, &screen.before);
	}
}

static void on_signal(int number)
{
	if (number == SIGWINCH) {
		screen.resized = 1;
	} else {
		screen.ended = 1;
	}
}

static int screen_take(struct error *err)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH};
	/* Without SA_RESTART: they end the wait. */
	struct sigaction action = {.sa_handler = on_signal};
	struct termios quiet;

	if (tcgetattr(STDIN_FILENO, &screen.before) < 0) {
		return error_sys(err, errno, "read the terminal's settings");
	}
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		sigaction(signals[i], &action, NULL);
	}
	atexit(screen_restore);
	quiet = screen.before;
	quiet.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	if (tcsetattr(STDIN_FILENO, TCSANOW, &quiet) < 0) {
		return error_sys(err, errno, "change the terminal's settings");
	}
	screen.changed = 1;
	fputs("\033[?1049h\033[?25l", stdout);
	return 0;
}

/* Until it is time to look again, or something is to be shown anew. False: the end. */
static bool screen_wait(struct top *top)
{
	int64_t until_ms = clock_mono_ms() + top->every_ms;
	struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};

	while (!screen.ended) {
		int64_t left = until_ms - clock_mono_ms();
		char key = 0;
		int got;

		if (left <= 0 || screen.resized) {
			screen.resized = 0;
			return true;
		}
		got = poll(&keys, 1, (int)left);
		if (got > 0 && (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q')) {
			return false;
		}
		if (key == 'm' || key == 'c') {
			top->by_memory = key == 'm';
			return true;
		}
	}
	return false;
}

/* ---- what is shown ---- */

static double member(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

/* Adds cpu_percent to each sandbox, by what it used since the last look. */
static void add_shares(struct top *top, const json_t *sandboxes)
{
	int64_t now_us = clock_mono_us();
	json_t *now = json_object();
	size_t i;
	json_t *sandbox;

	json_array_foreach (sandboxes, i, sandbox) {
		const char *id = json_string_value(json_object_get(sandbox, "id"));
		const json_t *usage = json_object_get(sandbox, "usage");
		const json_t *before = id != NULL ? json_object_get(top->before, id) : NULL;
		double cpu_us = member(usage, "cpu_us");

		if (id == NULL || usage == NULL) {
			continue;
		}
		json_object_set_new(now, id, json_real(cpu_us));
		if (before != NULL && now_us > top->looked_us) {
			double used = (cpu_us - json_real_value(before)) /
				      (double)(now_us - top->looked_us) * 100;

			json_object_set_new(sandbox, "cpu_percent", json_real(used > 0 ? used : 0));
		}
	}
	json_decref(top->before);
	top->before = now;
	top->looked_us = now_us;
}

static int by_cpu(const void *a, const void *b)
{
	double first = member(*(json_t *const *)a, "cpu_percent");
	double second = member(*(json_t *const *)b, "cpu_percent");

	return first > second ? -1 : first < second;
}

static int by_memory(const void *a, const void *b)
{
	double first = member(json_object_get(*(json_t *const *)a, "usage"), "memory_bytes");
	double second = member(json_object_get(*(json_t *const *)b, "usage"), "memory_bytes");

	return first > second ? -1 : first < second;
}

static double misses_of(const json_t *pool)
{
	const char *reason;
	json_t *count;
	double all = 0;

	json_object_foreach (json_object_get(pool, "misses"), reason, count) {
		all += json_number_value(count);
	}
	return all;
}

static void add_real(struct table *table, const char *format, double value)
{
	char text[HUMAN_SIZE];

	/* The formats are this file's own. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(text, sizeof(text), format, value);
#pragma GCC diagnostic pop
	table_add(table, text);
}

static size_t print_pools(const json_t *pools, size_t rows)
{
	static const struct table_column columns[] = {{"ENVIRONMENT", false}, {"READY", true},
		{"TARGET", true}, {"FORECAST", true}, {"WARMING", true}, {"HINTED", true},
		{"CLAIMED", true}, {"CLAIMS/H", true}, {"HITS", true}, {"MISSES", true}};
	static const char *const counts[] = {
		"environment", "ready", "target", "forecast", "warming", "hinted", "claimed"};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	size_t count = json_array_size(pools);

	for (size_t i = 0; i < count && i < rows; i++) {
		const json_t *pool = json_array_get(pools, i);

		for (size_t k = 0; k < ARRAY_SIZE(counts); k++) {
			table_add_member(table, pool, counts[k]);
		}
		add_real(table, "%.2f", member(pool, "per_hour"));
		table_add_member(table, pool, "hits");
		add_real(table, "%.0f", misses_of(pool));
	}
	table_print(table, "no environments");
	return count < rows ? count : rows;
}

static void print_sandboxes(const struct top *top, const json_t *sandboxes, size_t rows)
{
	static const struct table_column columns[] = {{"SANDBOX", false}, {"ENVIRONMENT", false},
		{"STATE", false}, {"CPU %", true}, {"MEMORY", true}, {"PROCESSES", true},
		{"AGE", true}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));
	size_t count = json_array_size(sandboxes);
	CLEANUP(free_p) json_t **sorted = xcalloc(count + 1, sizeof(*sorted));

	for (size_t i = 0; i < count; i++) {
		sorted[i] = json_array_get(sandboxes, i);
	}
	qsort(sorted, count, sizeof(*sorted), top->by_memory ? by_memory : by_cpu);
	for (size_t i = 0; i < count && i < rows; i++) {
		const json_t *usage = json_object_get(sorted[i], "usage");
		char text[HUMAN_SIZE];

		table_add_member(table, sorted[i], "id");
		table_add_member(table, sorted[i], "environment");
		table_add_member(table, sorted[i], "state");
		add_real(table, "%.1f", member(sorted[i], "cpu_percent"));
		human_bytes(text, (int64_t)member(usage, "memory_bytes"));
		table_add(table, text);
		table_add_member(table, usage, "pids");
		human_age(text, json_string_value(json_object_get(sorted[i], "claimed_at")));
		table_add(table, text);
	}
	table_print(table, NULL);
}

static int look(struct top *top, json_t **ret_pools, json_t **ret_sandboxes, struct error *err)
{
	CLEANUP(json_decref_p) json_t *pool = NULL;
	CLEANUP(json_decref_p) json_t *list = NULL;
	int status;

	if ((status = cli_call(top->cli, "GET", NULL, &pool, err, "/v1/pool")) < 0 ||
		(status = cli_call(top->cli, "GET", NULL, &list, err,
			 "/v1/sandboxes?state=claimed&usage=1")) < 0) {
		return status;
	}
	*ret_pools = json_incref(json_object_get(pool, "environments"));
	*ret_sandboxes = json_incref(json_object_get(list, "sandboxes"));
	add_shares(top, *ret_sandboxes);
	return 0;
}

static int show(struct top *top, struct error *err)
{
	CLEANUP(json_decref_p) json_t *pools = NULL;
	CLEANUP(json_decref_p) json_t *sandboxes = NULL;
	uint16_t rows = 0, columns = 0;
	size_t room = ROWS_WITHOUT_TERMINAL, used;
	int status = look(top, &pools, &sandboxes, err);

	if (status < 0) {
		return status;
	}
	if (top->cli->json) {
		CLEANUP(json_decref_p)
		json_t *both =
			json_pack("{s:O, s:O}", "environments", pools, "sandboxes", sandboxes);

		json_print(both);
		return 0;
	}
	if (top->live && terminal_size(&rows, &columns)) {
		/* Two heads, an empty line and the line of keys. */
		room = rows > 6 ? rows - 5u : 1;
		fputs("\033[H\033[J", stdout);
	}
	used = print_pools(pools, room > 2 ? room / 2 : 1);
	putchar('\n');
	print_sandboxes(top, sandboxes, room > used ? room - used : 1);
	if (top->live) {
		printf("q ends, c sorts by CPU, m by memory (now by %s)",
			top->by_memory ? "memory" : "CPU");
	}
	return fflush(stdout) != 0 ? error_sys(err, errno, "write to standard output") : 0;
}

static int top_loop(struct top *top, const struct top_values *values, struct error *err)
{
	const struct timespec pause = {top->every_ms / 1000, top->every_ms % 1000 * 1000000};
	int status;

	if (values->once) {
		const struct timespec between = {0, ONCE_MS * 1000000};
		CLEANUP(json_decref_p) json_t *pools = NULL;
		CLEANUP(json_decref_p) json_t *sandboxes = NULL;

		status = look(top, &pools, &sandboxes, err);
		nanosleep(&between, NULL);
		return status < 0 ? status : show(top, err);
	}
	if (top->live && (status = screen_take(err)) < 0) {
		return status;
	}
	while ((status = show(top, err)) == 0) {
		if (top->live && !screen_wait(top)) {
			break;
		}
		if (!top->live) {
			nanosleep(&pause, NULL);
		}
	}
	return status;
}

static int top_run(struct call *call, struct error *err)
{
	const struct top_values *values = call->values;
	struct top top = {.cli = call->cli,
		.every_ms = values->every_ms > 0 ? values->every_ms : 1,
		.by_memory = values->sort != NULL && streq(values->sort, "memory"),
		.live = !values->once && !call->cli->json && isatty(STDOUT_FILENO) &&
			isatty(STDIN_FILENO)};
	int status;

	if (values->sort != NULL && !top.by_memory && !streq(values->sort, "cpu")) {
		return error_set(
			err, ERROR_USAGE, "--sort %s: expects cpu or memory", values->sort);
	}
	status = top_loop(&top, values, err);
	screen_restore();
	json_decref(top.before);
	return status;
}

const struct verb verb_top = {
	.name = "top",
	.group = "Environments and images",
	.operands = "",
	.summary = "Watch pools, and claimed sandboxes by CPU and memory",
	VERB_OPTIONS(top_rows, struct top_values),
	.defaults = &top_defaults,
	.run = top_run,
};
