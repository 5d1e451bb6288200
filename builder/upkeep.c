/* The store's upkeep after builds where no hobd does it, and before them when space is short. Its
 * words go to the log; a build does not fail because of it. */
#include "builder/machine.h"

#include "base/io.h"
#include "base/loop.h"
#include "pool/sandbox/sandbox.h"

#include <signal.h>
#include <sys/pidfd.h>

struct upkeep {
	struct machine *machine;
	int pidfd;
	bool started, ended;
	struct error error;
};

static void on_started(void *context, pid_t pid, int pidfd, const struct error *err)
{
	struct upkeep *upkeep = context;

	(void)pid;
	upkeep->pidfd = pidfd;
	if (err != NULL) {
		error_copy(&upkeep->error, err);
	}
	upkeep->started = true;
	machine_wake(upkeep->machine);
}

static void on_ended(void *context, uint32_t events)
{
	struct upkeep *upkeep = context;

	(void)events;
	upkeep->ended = true;
	machine_wake(upkeep->machine);
}

static int wait_for_end(struct upkeep *upkeep, struct error *err)
{
	struct loop_source *source = NULL;
	int status = loop_add_fd(
		upkeep->machine->loop, upkeep->pidfd, EPOLLIN, on_ended, upkeep, &source, err);

	if (status == 0) {
		status = machine_wait(
			upkeep->machine, &upkeep->ended, 0, "the upkeep of the store", err);
	}
	loop_source_free(source);
	if (status < 0) {
		(void)pidfd_send_signal(upkeep->pidfd, SIGTERM, NULL, 0);
	}
	return status;
}

int machine_upkeep(struct machine *machine, struct error *err)
{
	struct upkeep *upkeep = xcalloc(1, sizeof(*upkeep));
	int status;

	*upkeep = (struct upkeep){.machine = machine, .pidfd = -1};
	launcher_upkeep(machine->launcher, on_started, upkeep);
	status = machine_wait(machine, &upkeep->started, 0, "the upkeep of the store", err);
	if (status < 0) {
		return status; /* the launcher still owes the answer: what it is for stays */
	}
	if (upkeep->error.kind != ERROR_NONE) {
		error_copy(err, &upkeep->error);
		status = -(int)err->kind;
	} else {
		status = wait_for_end(upkeep, err);
	}
	fd_done(&upkeep->pidfd);
	free(upkeep);
	return status;
}
