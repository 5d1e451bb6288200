/* Waiting on the loop: every wait ends when it is cancelled, late, or the launcher is dead. */
#include "builder/machine.h"

#include "base/clock.h"
#include "base/loop.h"

#include <signal.h>

static void on_signal(void *context, int signal)
{
	struct machine *machine = context;

	machine->cancelled = signal;
	loop_stop(machine->loop);
}

static void on_news(void *context, int signal)
{
	struct machine *machine = context;

	(void)signal;
	machine->news = true;
	loop_stop(machine->loop);
}

static void on_wake(void *context)
{
	loop_stop(context);
}

int machine_init(struct machine *machine, const struct config *config, struct report *report,
	struct error *err)
{
	*machine = (struct machine){.config = config, .report = report};
	if (loop_open(&machine->loop, err) < 0 ||
		loop_add_signal(machine->loop, SIGINT, on_signal, machine, err) < 0 ||
		loop_add_signal(machine->loop, SIGTERM, on_signal, machine, err) < 0 ||
		loop_add_signal(machine->loop, SIGUSR1, on_news, machine, err) < 0) {
		machine_done(machine);
		return -(int)err->kind;
	}
	return 0;
}

void machine_done(struct machine *machine)
{
	if (machine->loop != NULL) {
		loop_close(machine->loop);
		machine->loop = NULL;
	}
}

void machine_wake(struct machine *machine)
{
	loop_stop(machine->loop);
}

int machine_lost(struct error *err)
{
	error_set(err, ERROR_UNAVAILABLE, "the launcher process of this build has died");
	return error_hint(err, "build again; `dmesg` says whether the kernel killed it for memory");
}

static int check_wait(
	struct machine *machine, int64_t deadline_ms, const char *what, struct error *err)
{
	int64_t now = clock_mono_ms();

	if (machine->news && machine->cancelled == 0) {
		machine->news = false;
		if (machine->superseded != NULL &&
			machine->superseded(machine->superseded_context)) {
			machine->cancelled = SIGUSR1;
		}
	}

	if (machine->launcher_lost) {
		return machine_lost(err);
	}
	if (machine->cancelled == SIGUSR1) {
		return error_set(err, ERROR_CANCELLED, "a newer commit has been pushed");
	}
	if (machine->cancelled != 0) {
		return error_set(err, ERROR_CANCELLED, "cancelled by %s",
			machine->cancelled == SIGINT ? "SIGINT" : "SIGTERM");
	}
	if (machine->deadline_ms != 0 && now >= machine->deadline_ms) {
		return error_set(err, ERROR_TIMEOUT, "%s: the build's time is up", what);
	}
	if (deadline_ms != 0 && now >= deadline_ms) {
		return error_set(err, ERROR_TIMEOUT, "%s took too long", what);
	}
	return 0;
}

int machine_wait(struct machine *machine, const bool *done, int64_t deadline_ms, const char *what,
	struct error *err)
{
	struct loop_timer *timer = loop_timer_new(machine->loop, on_wake, machine->loop);
	int64_t first = deadline_ms;
	int status = 0;

	if (machine->deadline_ms != 0 && (first == 0 || machine->deadline_ms < first)) {
		first = machine->deadline_ms;
	}
	while (!*done) {
		status = check_wait(machine, deadline_ms, what, err);
		if (status < 0) {
			break;
		}
		if (first != 0) {
			loop_timer_at(timer, first);
		}
		status = loop_run(machine->loop, err);
		if (status < 0) {
			break;
		}
	}
	loop_timer_free(timer);
	return status;
}
