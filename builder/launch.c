/*
 * The launcher's asynchronous requests made into calls. A request's reply is always waited for,
 * also when the build is cancelled: only a dead launcher ends that wait early, and it calls nobody
 * back.
 */
#include "builder/machine.h"

#include "base/io.h"
#include "base/loop.h"
#include "pool/sandbox/sandbox.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

static void on_lost(void *context)
{
	struct machine *machine = context;

	machine->launcher_lost = true;
	loop_stop(machine->loop);
}

int machine_use_launcher(struct machine *machine, struct launcher *launcher, struct error *err)
{
	machine->launcher = launcher;
	return launcher_attach(launcher, machine->loop, on_lost, machine, err);
}

/* One request to the launcher and its reply. On the heap: it outlives a wait that the loop fails.
 */
struct request {
	struct machine *machine;
	bool done;
	bool failed;
	struct error error;
	struct sandbox_created created;
	int fd;
};

static struct request *request_new(struct machine *machine)
{
	struct request *request = xcalloc(1, sizeof(*request));

	request->machine = machine;
	request->fd = -1;
	return request;
}

static void request_end(struct request *request, const struct error *err)
{
	request->done = true;
	if (err != NULL) {
		request->failed = true;
		error_copy(&request->error, err);
	}
	loop_stop(request->machine->loop);
}

/* Waits whatever the signals say: a reply always comes, from a dead launcher as its failure. */
static int request_wait(struct request *request, struct request *ret_reply, struct error *err)
{
	int status;

	while (!request->done) {
		status = loop_run(request->machine->loop, err);
		if (status < 0) {
			return status;
		}
	}
	if (ret_reply != NULL) {
		*ret_reply = *request;
	}
	status = 0;
	if (request->failed) {
		error_copy(err, &request->error);
		status = -(int)err->kind;
	}
	free(request);
	return status;
}

static void on_created(
	void *context, const struct sandbox_created *created, const struct error *err)
{
	struct request *request = context;

	if (err == NULL) {
		request->created = *created;
	}
	request_end(request, err);
}

static void on_done(void *context, const struct error *err)
{
	request_end(context, err);
}

static void on_userns(void *context, int userns_fd, const struct error *err)
{
	struct request *request = context;

	request->fd = userns_fd;
	request_end(request, err);
}

int machine_create(struct machine *machine, const struct sandbox_spec *spec,
	struct sandbox_created *ret_created, struct error *err)
{
	struct request *request = request_new(machine), reply;
	int status;

	sandbox_create(machine->launcher, spec, on_created, request);
	status = request_wait(request, &reply, err);
	if (status < 0) {
		return error_wrap(err, "start a sandbox");
	}
	*ret_created = reply.created;
	return 0;
}

int machine_destroy(struct machine *machine, const char *id, struct error *err)
{
	const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
	int status;

	/* BUSY: processes inside are on their way out; the launcher has waited a while already. */
	for (int tries = 0; tries < 50; tries++) {
		struct request *request = request_new(machine);

		sandbox_destroy(machine->launcher, id, on_done, request);
		status = request_wait(request, NULL, err);
		if (status != -ERROR_BUSY) {
			return status;
		}
		nanosleep(&pause, NULL);
	}
	return error_wrap(err, "end the build's sandbox %s", id);
}

int machine_seal(struct machine *machine, const char *staging, struct error *err)
{
	struct request *request = request_new(machine);

	sandbox_seal(machine->launcher, staging, on_done, request);
	return request_wait(request, NULL, err);
}

int machine_prepare_tree(struct machine *machine, const char *staging, uint32_t slot,
	int *ret_userns_fd, struct error *err)
{
	struct request *request = request_new(machine), reply;
	int status;

	launcher_prepare_tree(machine->launcher, staging, slot, on_userns, request);
	status = request_wait(request, &reply, err);
	if (status < 0) {
		return error_wrap(err, "prepare a tree for a range of ids");
	}
	*ret_userns_fd = reply.fd;
	return 0;
}

int machine_remove(void *context, const char *room, const char *name, struct error *err)
{
	struct machine *machine = context;
	struct request *request = request_new(machine);

	launcher_remove(machine->launcher, room, name, on_done, request);
	return request_wait(request, NULL, err);
}

/* "bs-", six hex digits of the pid (below 2^22), six of chance. */
void machine_sandbox_id(char *text)
{
	char chance[ID_SIZE];

	id_random(chance, "");
	snprintf(text, ID_SIZE, BUILD_SANDBOX_ID_PREFIX "%06x%.6s", (unsigned)getpid() & 0xffffff,
		chance + 6);
}

static bool maker_is_dead(const char *id)
{
	unsigned pid = 0;

	return str_starts(id, BUILD_SANDBOX_ID_PREFIX) &&
	       sscanf(id + strlen(BUILD_SANDBOX_ID_PREFIX), "%6x", &pid) == 1 && pid > 0 &&
	       (pid_t)pid != getpid() && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

int machine_sweep(struct machine *machine, struct error *err)
{
	CLEANUP(strv_free_p) char **ids = NULL;
	int status = sandbox_cgroups_list(machine->config, &ids, err);

	for (size_t i = 0; status == 0 && ids != NULL && ids[i] != NULL; i++) {
		if (maker_is_dead(ids[i])) {
			status = machine_destroy(machine, ids[i], err);
		}
	}
	return status;
}
