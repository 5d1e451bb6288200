/*
 * A step is a sandbox of its own, ended as a whole when its command has ended: what the command
 * left running goes with it. While it runs, its tree is measured again and again; the pause grows
 * with the time that takes. The sandbox is destroyed on every way out of here.
 */
#include "builder/step.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/memory.h"
#include "builder/credentials/mask.h"
#include "builder/credentials/step_secrets.h"
#include "builder/machine.h"
#include "builder/range.h"
#include "builder/report.h"
#include "builder/step_services.h"
#include "configs/environment.h"
#include "pool/sandbox/sandbox.h"

#include <stdio.h>

#define READY_MS 30000 /* for hob-init's first message; it takes a millisecond */
#define MEASURE_FIRST_MS 500
#define MEASURE_SHARE 10 /* at most a tenth of the time goes into measuring */
#define EXEC_ID 1

struct step {
	struct machine *machine;
	struct range *range;
	const struct step_spec *spec;
	char id[ID_SIZE];
	struct init_client *client;
	struct init_exec_handle *exec;
	struct step_services *services;
	bool ready, closed, ended, moved; /* `moved`: any of the others happened */
	bool failed, overflown;
	struct exec_result result;
	struct error error;
	struct mask *masks[2]; /* of its output and its errors */
	char tail[2 * STEP_TAIL_SIZE];
	size_t tail_length;
};

static void wake(struct step *step)
{
	step->moved = true;
	machine_wake(step->machine);
}

static void on_ready(void *context, const uint32_t *execs, size_t count)
{
	struct step *step = context;

	(void)execs;
	(void)count;
	step->ready = true;
	wake(step);
}

static void on_closed(void *context)
{
	struct step *step = context;

	step->closed = true;
	wake(step);
}

/* Keeps the last bytes; half of the room is given up at a time. */
static void keep_tail(struct step *step, const char *data, size_t length)
{
	const size_t half = STEP_TAIL_SIZE;

	if (length >= half) {
		data += length - half;
		length = half;
	}
	if (step->tail_length + length > sizeof(step->tail)) {
		size_t drop = step->tail_length - (half - 1);

		memmove(step->tail, step->tail + drop, step->tail_length - drop);
		step->tail_length -= drop;
	}
	memcpy(step->tail + step->tail_length, data, length);
	step->tail_length += length;
}

static void show(void *context, const char *data, size_t length)
{
	struct step *step = context;

	keep_tail(step, data, length);
	report_output(step->machine->report, step->spec->name, data, length);
}

static void on_output(void *context, enum exec_stream stream, const void *data, size_t length)
{
	struct step *step = context;

	if (stream == EXEC_STDOUT && step->spec->output != NULL) {
		step->overflown = !buffer_add(step->spec->output, data, length) || step->overflown;
		init_exec_consumed(step->exec, length);
		return;
	}
	mask_add(step->masks[stream == EXEC_STDOUT ? 0 : 1], data, length);
	init_exec_consumed(step->exec, length);
}

static void on_ended(void *context, const struct exec_result *result, const struct error *err)
{
	struct step *step = context;

	if (err != NULL) {
		step->failed = true;
		error_copy(&step->error, err);
	} else {
		step->result = *result;
	}
	step->ended = true;
	step->exec = NULL;
	wake(step);
}

static const struct exec_events exec_events = {.output = on_output, .ended = on_ended};

/* The last whole lines, without what a terminal would take as commands. */
static void take_tail(const struct step *step, char *ret_tail)
{
	size_t length = step->tail_length, from = 0, to = 0;

	if (length > STEP_TAIL_SIZE - 1) {
		from = length - (STEP_TAIL_SIZE - 1);
		while (from < length && step->tail[from - 1] != '\n') {
			from++;
		}
	}
	for (size_t i = from; i < length; i++) {
		unsigned char c = (unsigned char)step->tail[i];

		if (c == '\n' || c == '\t' || c >= 0x20) {
			ret_tail[to++] = (char)c;
		}
	}
	while (to > 0 && ret_tail[to - 1] == '\n') {
		to--;
	}
	ret_tail[to] = '\0';
}

static int measure(struct step *step, int64_t *ret_took_ms, struct error *err)
{
	int64_t limit = step->spec->environment->limits.disk_bytes, start_ms = clock_mono_ms();
	struct tree_usage usage = {0};
	int status = range_usage(step->range, step->spec->staging, &usage, err);

	*ret_took_ms = clock_mono_ms() - start_ms;
	if (status < 0) {
		return status;
	}
	if ((int64_t)usage.stored <= limit) {
		return 0;
	}
	error_set(err, ERROR_NO_SPACE, "it wrote %lld MiB, and limits.disk is %lld MiB",
		(long long)usage.stored / (1024 * 1024), (long long)limit / (1024 * 1024));
	return error_hint(err,
		"raise `limits: {disk: …}` of the environment, or delete what it needs no more");
}

static bool is_over(int64_t deadline_ms)
{
	return deadline_ms != 0 && clock_mono_ms() >= deadline_ms;
}

/* Until the command has ended; `deadline_ms` 0: never late. */
static int wait_end(struct step *step, int64_t deadline_ms, struct error *err)
{
	bool limited = step->spec->environment->limits.disk_bytes > 0;
	int64_t pause_ms = MEASURE_FIRST_MS, took_ms = 0;

	while (!step->ended) {
		int64_t next_ms = limited ? clock_mono_ms() + pause_ms : deadline_ms;
		int status;

		if (deadline_ms != 0 && next_ms > deadline_ms) {
			next_ms = deadline_ms;
		}
		status = machine_wait(step->machine, &step->ended, next_ms, "it", err);
		if (status == 0) {
			return 0;
		}
		if (status != -ERROR_TIMEOUT || is_over(step->machine->deadline_ms) ||
			is_over(deadline_ms)) {
			return status;
		}
		if (step->closed && !step->ended) {
			return error_set(err, ERROR_UNAVAILABLE, "its sandbox died");
		}
		if (limited) {
			status = measure(step, &took_ms, err);
			if (status < 0) {
				return status;
			}
			pause_ms = MEASURE_FIRST_MS + MEASURE_SHARE * took_ms;
		}
	}
	return 0;
}

/* Whose time was up: with a limit of its own, a step says how long that was. */
static int explain_timeout(const struct step *step, int64_t deadline_ms, struct error *err)
{
	char limit[CLOCK_TEXT_SIZE];

	if (!is_over(deadline_ms)) {
		return -(int)err->kind;
	}
	duration_format(limit, step->spec->timeout_ms);
	error_set(err, ERROR_TIMEOUT, "it took longer than its timeout of %s", limit);
	return error_hint(err, "raise `timeout` of the step, or make it faster");
}

static int run_command(struct step *step, struct error *err)
{
	const struct environment *environment = step->spec->environment;
	char *const argv[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
		(char *)(uintptr_t)step->spec->run, NULL};
	struct exec_spec exec = {.argv = argv,
		.env = environment->env,
		.cwd = environment->workdir,
		.user = environment->user};
	int64_t deadline_ms =
		step->spec->timeout_ms > 0 ? clock_mono_ms() + step->spec->timeout_ms : 0;
	int status = machine_wait(
		step->machine, &step->moved, clock_mono_ms() + READY_MS, "its sandbox", err);

	if (step->spec->env != NULL) {
		exec.env = step->spec->env;
		exec.cwd = "/";
		exec.user = "root";
	}
	if (status < 0) {
		return status;
	}
	if (!step->ready) {
		return error_set(err, ERROR_UNAVAILABLE, "its sandbox died at its start");
	}
	if (step->spec->secrets != NULL) {
		status = step_secrets_put(step->machine, step->spec->secrets,
			step->spec->secret_names, step->client, &step->closed, err);
		if (status < 0) {
			return status;
		}
	}
	if (step->spec->services) {
		status = step_services_start(step->machine, environment, step->client,
			&step->closed, &step->moved, &step->services, err);
		if (status < 0) {
			return status;
		}
		deadline_ms =
			step->spec->timeout_ms > 0 ? clock_mono_ms() + step->spec->timeout_ms : 0;
	}
	status = init_exec(step->client, EXEC_ID, &exec, &exec_events, step, &step->exec, err);
	if (status == 0) {
		status = wait_end(step, deadline_ms, err);
	}
	if (status == -ERROR_TIMEOUT) {
		status = explain_timeout(step, deadline_ms, err);
	}
	if (status == 0 && step->failed) {
		error_copy(err, &step->error);
		status = -(int)err->kind;
	}
	if (status == 0 && step->overflown) {
		status = error_set(
			err, ERROR_LIMIT, "it says more than %zu bytes", step->spec->output->max);
	}
	return status;
}

static int run_in_sandbox(
	struct step *step, const struct sandbox_created *created, struct error *err)
{
	static const struct init_client_events events = {.ready = on_ready, .closed = on_closed};
	int status = init_client_new(
		step->machine->loop, created->control_fd, &events, step, &step->client, err);

	if (status == 0) {
		status = run_command(step, err);
	}
	if (step->exec != NULL) {
		init_exec_detach(step->exec, true);
		step->exec = NULL;
	}
	step_services_end(step->services);
	step->services = NULL;
	init_client_free(step->client);
	step->client = NULL;
	return status;
}

static int create(struct step *step, struct sandbox_created *created, struct error *err)
{
	const struct step_spec *spec = step->spec;
	const struct environment_limits *limits = &spec->environment->limits;
	struct sandbox_spec sandbox = {.kind = SANDBOX_BUILD,
		.id = step->id,
		.staging = spec->staging,
		.hostname = spec->environment->name,
		.layers = spec->layers,
		.layer_count = spec->layer_count,
		.network_host = spec->network,
		.limits = {
			limits->cpu_millis, limits->memory_bytes, limits->pids, .background = 1}};

	if (range_take(step->range, err) < 0) {
		return -(int)err->kind;
	}
	sandbox.slot = step->range->slot;
	machine_sandbox_id(step->id);
	return machine_create(step->machine, &sandbox, created, err);
}

/* What still waits may be shown: nothing more comes. */
static void step_unmask(struct step *step)
{
	for (size_t i = 0; i < ARRAY_SIZE(step->masks); i++) {
		mask_end(step->masks[i]);
		mask_free(step->masks[i]);
		step->masks[i] = NULL;
	}
}

int step_run(struct machine *machine, struct range *range, const struct step_spec *spec,
	struct step_outcome *ret_outcome, struct error *err)
{
	struct step *step = xcalloc(1, sizeof(*step));
	struct sandbox_created created = {.pidfd = -1, .control_fd = -1};
	struct error ending = ERROR_INIT;
	int status;

	step->machine = machine;
	step->range = range;
	step->spec = spec;
	status = create(step, &created, err);
	if (status < 0) {
		free(step);
		return status;
	}
	for (size_t i = 0; i < ARRAY_SIZE(step->masks); i++) {
		step->masks[i] = mask_new(spec->secrets, show, step);
	}
	fault_point("step.running");
	status = run_in_sandbox(step, &created, err);
	step_unmask(step);
	close(created.pidfd);
	if (!machine->launcher_lost && machine_destroy(machine, step->id, &ending) < 0 &&
		status == 0) {
		error_copy(err, &ending);
		status = -(int)err->kind;
	}
	take_tail(step, ret_outcome->tail);
	ret_outcome->code = step->result.code;
	ret_outcome->signal = step->result.signal;
	ret_outcome->took_us = step->result.took_us;
	free(step);
	return status;
}
