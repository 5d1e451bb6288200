/* The gate's services, waited for. */
#include "builder/step_services.h"

#include "base/memory.h"
#include "builder/machine.h"
#include "builder/report.h"
#include "configs/environment.h"
#include "pool/sandbox/services/services.h"

struct step_services {
	struct machine *machine;
	const struct environment *environment;
	struct services *services;
	const bool *closed;
	bool *moved; /* ends the machine's waiting */
	bool done; /* what is waited for has come, or has failed */
	bool failed;
	struct error error;
};

static void on_ready(void *context)
{
	struct step_services *step = context;

	step->done = true;
	*step->moved = true;
	machine_wake(step->machine);
}

static void on_failed(
	void *context, const char *name, const struct error *err, const char *log, size_t length)
{
	struct step_services *step = context;

	if (step->failed) {
		return;
	}
	if (length > 0) {
		report_line(step->machine->report, "the log of service %s:", name);
		report_output(step->machine->report, name, log, length);
		report_output(step->machine->report, name, "\n", log[length - 1] == '\n' ? 0 : 1);
	}
	step->failed = true;
	error_copy(&step->error, err);
	on_ready(step);
}

static void on_primed(void *context, const struct error *err)
{
	struct step_services *step = context;

	if (err != NULL && step->environment->prime.may_fail) {
		report_line(step->machine->report, "%s, which it may", err->message);
	} else if (err != NULL) {
		step->failed = true;
		error_copy(&step->error, err);
	}
	on_ready(step);
}

static const struct services_events events = {
	.ready = on_ready, .failed = on_failed, .primed = on_primed};

static int wait_done(struct step_services *step, const char *what, struct error *err)
{
	int status = 0;

	while (status == 0 && !step->done && !*step->closed) {
		*step->moved = false;
		status = machine_wait(step->machine, step->moved, 0, what, err);
	}
	if (status == 0 && !step->done) {
		return error_set(err, ERROR_UNAVAILABLE, "its sandbox died");
	}
	if (status == 0 && step->failed) {
		error_copy(err, &step->error);
		status = -(int)err->kind;
	}
	step->done = false;
	return status;
}

int step_services_start(struct machine *machine, const struct environment *environment,
	struct init_client *client, const bool *closed, bool *moved,
	struct step_services **ret_services, struct error *err)
{
	struct step_services *step = xcalloc(1, sizeof(*step));
	int status = 0;

	step->machine = machine;
	step->environment = environment;
	step->closed = closed;
	step->moved = moved;
	step->services = services_new(machine->loop, environment, NULL, false, &events, step);
	*ret_services = step;
	services_start(step->services, client);
	status = wait_done(step, "its services", err);
	if (status == 0 && environment->prime.run != NULL) {
		services_prime(step->services);
		status = wait_done(step, "its prime", err);
	}
	return status;
}

void step_services_end(struct step_services *step)
{
	if (step != NULL) {
		services_free(step->services);
		free(step);
	}
}
