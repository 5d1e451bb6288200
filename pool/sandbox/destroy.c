/*
 * The end of a sandbox, step by step and without waiting: kill, look until nothing lives, take the
 * socket and the folder away, then the cgroups. The main cgroup goes last, so that a launcher that
 * dies in between leaves something to be found. Every step finds what an earlier try has left.
 */
#include "base/clock.h"
#include "base/fault.h"
#include "base/memory.h"
#include "pool/sandbox/launcher/launcher_server.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* The first looks are close together, as most sandboxes are gone within half a millisecond. */
#define LOOK_FIRST_US 100
#define LOOK_FROZEN_US 20
#define LOOK_LAST_US 2000
#define END_US 1000000

static void look_again(struct pending *pending, int64_t first_us)
{
	int64_t now = clock_mono_us(), delay = (now - pending->started_us) / 4;

	delay = delay < first_us ? first_us : delay > LOOK_LAST_US ? LOOK_LAST_US : delay;
	pending->next_us = now + delay;
}

/* The socket is ours, the rest of the folder is not; an empty one may go. */
static void run_folder_clear(const struct native_means *means, const char *id)
{
	struct error ignored = ERROR_INIT;
	CLEANUP(close_p)
	int dir = io_open_beneath(means->places.run_fd, id, O_PATH | O_DIRECTORY, 0, &ignored);

	if (dir >= 0) {
		(void)unlinkat(dir, NATIVE_SOCKET_NAME, 0);
		(void)unlinkat(means->places.run_fd, id, AT_REMOVEDIR);
	}
}

/*
 * When the last of an overlay goes, the kernel writes out all that its file system has not written
 * yet, of everybody, and the dying process waits for that. Held here, it goes with the worker,
 * after what was in it. A build's changes are sealed next, which needs the overlay gone.
 */
static int root_hold(const struct cgroups *cgroups, const char *id)
{
	pid_t pid = str_starts(id, SANDBOX_ID_PREFIX) ? cgroup_process(cgroups, id) : 0;
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	return pid > 0 ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
}

/* sandboxes/<id> becomes staging/trash-…, where even a machine that dies now will have it swept. */
static int folder_trash(struct server *server, const char *id, int root_fd, struct error *err)
{
	const struct places *places = &server->means.places;
	struct worker_job job = {.number = 0, .room = "staging"};
	struct error full = ERROR_INIT;
	int fault = fault_point("destroy.trash");

	if (fault != 0) {
		return error_sys(err, fault, "move sandboxes/%s away", id);
	}
	id_random(job.name, "trash-");
	if (renameat(places->sandboxes_fd, id, places->staging_fd, job.name) < 0) {
		return errno == ENOENT ? 0 : error_sys(err, errno, "move sandboxes/%s away", id);
	}
	/* When the worker's queue is full the folder waits for the next sweep of staging/. */
	(void)!worker_send(&server->workers[WORKER_REMOVE], &job, root_fd, &full);
	return 0;
}

static void build_forget(struct server *server, const char *id)
{
	for (size_t i = 0; i < BUILD_SLOTS; i++) {
		if (streq(server->builds[i], id)) {
			server->builds[i][0] = '\0';
		}
	}
}

/* 1: gone, 0: not yet. */
static int try_once(struct server *server, struct pending *pending, bool first, struct error *err)
{
	const struct cgroups *cgroups = &server->means.cgroups;
	struct cgroup_state state = {.exists = false};
	const char *id = pending->request.name;

	if (cgroup_state_read(cgroups, id, &state, err) < 0) {
		return -(int)err->kind;
	}
	if (first && state.exists) {
		pending->root_fd = root_hold(cgroups, id);
		if (cgroup_kill(cgroups, id, err) < 0) {
			return -(int)err->kind;
		}
	}
	if (first && state.populated && cgroup_state_read(cgroups, id, &state, err) < 0) {
		return -(int)err->kind;
	}
	if (state.populated) {
		return 0;
	}
	run_folder_clear(&server->means, id);
	if (folder_trash(server, id, pending->root_fd, err) < 0) {
		return -(int)err->kind;
	}
	if (cgroup_remove(cgroups, id, err) < 0) {
		return err->kind == ERROR_BUSY ? 0 : -(int)err->kind;
	}
	build_forget(server, id);
	return 1;
}

bool destroy_step(struct server *server, struct pending *pending, struct error *err)
{
	const char *id = pending->request.name;
	int status = try_once(server, pending, pending->next_us == 0, err);

	if (status != 0) {
		return true;
	}
	*err = ERROR_INIT;
	if (clock_mono_us() >= pending->deadline_us) {
		error_set(err, ERROR_BUSY, "%s is killed but not gone yet", id);
		return true;
	}
	look_again(pending, LOOK_FIRST_US);
	return false;
}

bool keep_step(struct server *server, struct pending *pending, struct error *err)
{
	const struct cgroups *cgroups = &server->means.cgroups;
	const char *id = pending->request.name;
	struct cgroup_state state = {.exists = false};

	if ((pending->next_us == 0 && cgroup_kill(cgroups, id, err) < 0) ||
		cgroup_state_read(cgroups, id, &state, err) < 0 || !state.populated) {
		return true;
	}
	if (clock_mono_us() >= pending->deadline_us) {
		error_set(err, ERROR_BUSY, "%s is killed but not gone yet", id);
		return true;
	}
	look_again(pending, LOOK_FIRST_US);
	return false;
}

bool freeze_step(struct server *server, struct pending *pending, struct error *err)
{
	const struct cgroups *cgroups = &server->means.cgroups;
	const char *id = pending->request.name;
	bool wanted = pending->request.op == LAUNCHER_FREEZE;
	struct cgroup_state state = {.exists = false};

	if (pending->next_us == 0 && cgroup_freeze(cgroups, id, wanted, err) < 0) {
		return true;
	}
	if (!wanted || cgroup_state_read(cgroups, id, &state, err) < 0 || state.frozen) {
		return true;
	}
	if (clock_mono_us() >= pending->deadline_us) {
		error_set(err, ERROR_BUSY,
			"%s does not freeze: one of its processes is in the kernel", id);
		return true;
	}
	look_again(pending, LOOK_FROZEN_US);
	return false;
}

void sandbox_end(struct server *server, const char *id)
{
	struct pending pending = {.started_us = clock_mono_us(), .root_fd = -1};
	struct error err = ERROR_INIT;

	snprintf(pending.request.name, sizeof(pending.request.name), "%s", id);
	pending.deadline_us = pending.started_us + END_US;
	while (!destroy_step(server, &pending, &err)) {
		usleep((useconds_t)(pending.next_us - clock_mono_us() > 0
					    ? pending.next_us - clock_mono_us()
					    : 1));
	}
	fd_done(&pending.root_fd);
}
