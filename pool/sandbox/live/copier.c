/*
 * A live snapshot in a process of its own, with the few rights that it needs, so that nothing else
 * waits for it. Three watch that the sandbox does not stay frozen: the copier itself, a guard that
 * it starts before (the end of their socket, or five seconds, make the guard thaw), and the
 * launcher, in the same way. So whichever is killed, one is left.
 */
#include "pool/sandbox/launcher/launcher_server.h"
#include "pool/sandbox/live/live_copy.h"
#include "pool/sandbox/privileges.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* The copy gives up by itself at SNAPSHOT_PAUSE_MS_MAX; if it does not, the guard is a little
 * behind.
 */
#define FROZEN_MS_MAX (SNAPSHOT_PAUSE_MS_MAX + 250)
/* While the sandbox waits for it, it goes before others. */
#define FROZEN_NICENESS (-10)
/* The launcher leaves the guard time to be first. */
#define GRACE_MS 500
#define FREEZE_US 200000
#define LOOK_US 20
#define COPIERS_MAX 4
#define LIST_NAME "copied" /* in sandboxes/<id>: see live_copy_spec */
#define NEW_LIST_NAME "copied.new"
#define PROCS_MAX (4 * 1024 * 1024)

static const int capabilities[] = {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_CHOWN,
	CAP_FSETID, CAP_SETFCAP, CAP_MKNOD, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYS_NICE};

enum copier_word { COPIER_FREEZES = 1, COPIER_THAWED, COPIER_ENDED };

struct copier_message {
	uint32_t word;
	struct sandbox_copied copied;
	struct error err;
};

struct copier {
	const struct native_means *means;
	const struct launcher_request *request;
	pid_t launcher_pid;
	int launcher_fd, guard_fd;
	int folder_fd; /* sandboxes/<id> */
	int staging_fd; /* staging/<staging> */
	int upper_fd, tree_fd, scratch_fd;
	int previous_fd, previous_list_fd, list_fd;
	bool freezes; /* by us */
	int niceness; /* before that */
};

/* ---- the guard ---- */

static void thaw_quietly(const struct native_means *means, const char *id)
{
	struct error ignored = ERROR_INIT;

	(void)!cgroup_freeze(&means->cgroups, id, false, &ignored);
}

static _Noreturn void guard_main(const struct copier *copier, int fd, pid_t copier_pid)
{
	struct pollfd word = {.fd = fd, .events = POLLIN};
	int64_t deadline_ms = 0; /* 0: not frozen */
	struct error ignored = ERROR_INIT;
	uint32_t said;

	(void)prctl(PR_SET_NAME, "hob-guard", 0, 0, 0);
	close(copier->folder_fd); /* and its lock: whoever takes the next one waits for no guard */
	/* The freezer's file may be hobd's, not root's. */
	(void)!capabilities_limit((const int[]){CAP_DAC_OVERRIDE}, 1, &ignored);
	for (;;) {
		int64_t left_ms = deadline_ms - clock_mono_ms();
		int ready = poll(&word, 1, deadline_ms == 0 ? -1 : left_ms > 0 ? (int)left_ms : 0);

		if (ready < 0) {
			continue;
		}
		if (ready == 0) {
			/* Our parent: nobody else can have its number while we live on. */
			if (getppid() == copier_pid) {
				(void)kill(copier_pid, SIGKILL);
			}
			break;
		}
		if (recv(fd, &said, sizeof(said), 0) != (ssize_t)sizeof(said)) {
			break;
		}
		deadline_ms = said == COPIER_FREEZES ? clock_mono_ms() + FROZEN_MS_MAX : 0;
	}
	if (deadline_ms != 0) {
		thaw_quietly(copier->means, copier->request->name);
	}
	_exit(0);
}

/* Early, while there is little memory to share with it. */
static int guard_start(struct copier *copier, struct error *err)
{
	pid_t pid, self = getpid();
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		return error_sys(err, errno, "socketpair");
	}
	pid = launcher_fork();
	if (pid == 0) {
		close(ends[0]);
		close(copier->launcher_fd);
		guard_main(copier, ends[1], self);
	}
	close(ends[1]);
	copier->guard_fd = ends[0];
	return pid < 0 ? error_sys(err, errno, "fork a guard") : 0;
}

/* A guard or launcher that is gone has no say. */
static void tell(const struct copier *copier, uint32_t word)
{
	struct copier_message message = {.word = word};

	(void)!send(copier->guard_fd, &word, sizeof(word), MSG_NOSIGNAL);
	(void)!send(copier->launcher_fd, &message, sizeof(message), MSG_NOSIGNAL);
}

/* ---- what the copy asks for ---- */

static int freeze(void *context, struct error *err)
{
	struct copier *copier = context;
	const struct cgroups *cgroups = &copier->means->cgroups;
	const char *id = copier->request->name;
	int64_t deadline_us = clock_mono_us() + FREEZE_US;
	struct cgroup_state state;

	if (cgroup_state_read(cgroups, id, &state, err) < 0 || state.frozen) {
		return -(int)err->kind;
	}
	copier->freezes = true;
	copier->niceness = getpriority(PRIO_PROCESS, 0);
	(void)setpriority(PRIO_PROCESS, 0, FROZEN_NICENESS);
	tell(copier, COPIER_FREEZES);
	if (cgroup_freeze(cgroups, id, true, err) < 0) {
		return -(int)err->kind;
	}
	for (;;) {
		if (cgroup_state_read(cgroups, id, &state, err) < 0) {
			return -(int)err->kind;
		}
		if (state.frozen) {
			return 0;
		}
		if (clock_mono_us() >= deadline_us) {
			return error_set(err, ERROR_BUSY,
				"%s does not freeze: one of its processes is in the kernel", id);
		}
		usleep(LOOK_US);
	}
}

/* With a last look: what ran meanwhile, or is no more, was not copied as of one instant. */
static int thaw(void *context, struct error *err)
{
	struct copier *copier = context;
	const struct cgroups *cgroups = &copier->means->cgroups;
	const char *id = copier->request->name;
	struct cgroup_state state = {.exists = false};
	int status = cgroup_state_read(cgroups, id, &state, err);

	if (status == 0 && (!state.exists || !state.frozen)) {
		status = error_set(err, ERROR_CONFLICT, "%s %s while it was being copied", id,
			state.exists ? "was thawed" : "ended");
	}
	if (copier->freezes) {
		struct error thawing = ERROR_INIT;

		if (cgroup_freeze(cgroups, id, false, &thawing) < 0 && status == 0) {
			error_copy(err, &thawing);
			status = -(int)err->kind;
		}
		tell(copier, COPIER_THAWED);
		copier->freezes = false;
		(void)setpriority(PRIO_PROCESS, 0, copier->niceness);
	}
	return status;
}

static int processes(void *context, pid_t **ret_pids, size_t *ret_count, struct error *err)
{
	const struct copier *copier = context;
	const struct cgroups *cgroups = &copier->means->cgroups;
	CLEANUP(buffer_done) struct buffer text;
	CLEANUP(free_p) pid_t *pids = NULL;
	char path[CGROUP_PATH_SIZE];
	size_t count = 0, room = 0;

	buffer_init(&text, PROCS_MAX);
	cgroup_path(cgroups, copier->request->name, "cgroup.procs", path);
	if (io_read_file(cgroups->hierarchies[0].fd, path, &text, err) < 0) {
		return -(int)err->kind;
	}
	for (const char *at = buffer_text(&text); *at != '\0';) {
		char *end;
		long pid = strtol(at, &end, 10);

		if (pid > 0) {
			*array_add(&pids, &count, &room) = (pid_t)pid;
		}
		at = end + strspn(end, "\n");
		if (end == at && *at != '\0') {
			return error_set(err, ERROR_CORRUPT, "%s: not a list of processes", path);
		}
	}
	*ret_pids = steal_ptr(pids);
	*ret_count = count;
	return 0;
}

/* Whoever ordered the copy may put this folder beside it; and without a launcher nobody hears of
 * it, while a new one would find the sandbox busy. */
static bool cancelled(void *context)
{
	const struct copier *copier = context;

	return getppid() != copier->launcher_pid ||
	       faccessat(copier->staging_fd, SNAPSHOT_CANCEL_NAME, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- the copier ---- */

static int folder_open(int dir_fd, const char *path, struct error *err)
{
	return io_open_beneath(dir_fd, path, O_RDONLY | O_DIRECTORY, 0, err);
}

static int folder_make(int dir_fd, const char *name, struct error *err)
{
	if (mkdirat(dir_fd, name, 0700) < 0) {
		return error_sys(err, errno, "make %s", name);
	}
	return folder_open(dir_fd, name, err);
}

/* What is missing of the copy before is only missed. */
static void previous_open(struct copier *copier)
{
	struct error ignored = ERROR_INIT;
	char path[32];

	if (copier->request->previous == 0) {
		return;
	}
	snprintf(path, sizeof(path), "%" PRId64 "/tree", copier->request->previous);
	copier->previous_fd = folder_open(copier->means->places.layers_fd, path, &ignored);
	copier->previous_list_fd =
		io_open_beneath(copier->folder_fd, LIST_NAME, O_RDONLY, 0, &ignored);
}

static int places_find(struct copier *copier, struct error *err)
{
	const struct launcher_request *request = copier->request;
	const struct places *places = &copier->means->places;

	copier->folder_fd = folder_open(places->sandboxes_fd, request->name, err);
	if (copier->folder_fd < 0) {
		return err->kind == ERROR_NOT_FOUND
			       ? error_set(err, ERROR_NOT_FOUND, "no sandbox %s", request->name)
			       : -(int)err->kind;
	}
	if (flock(copier->folder_fd, LOCK_EX | LOCK_NB) < 0) {
		return error_set(
			err, ERROR_BUSY, "a snapshot of %s is being taken already", request->name);
	}
	copier->staging_fd = folder_open(places->staging_fd, request->staging, err);
	copier->upper_fd =
		copier->staging_fd < 0 ? -1 : folder_open(copier->folder_fd, "upper", err);
	copier->tree_fd = copier->upper_fd < 0 ? -1 : folder_make(copier->staging_fd, "tree", err);
	copier->scratch_fd =
		copier->tree_fd < 0 ? -1 : folder_make(copier->staging_fd, "scratch", err);
	copier->list_fd = copier->scratch_fd < 0 ? -1
						 : io_open_beneath(copier->folder_fd, NEW_LIST_NAME,
							   O_WRONLY | O_CREAT | O_TRUNC, 0600, err);
	if (copier->list_fd < 0) {
		return -(int)err->kind;
	}
	previous_open(copier);
	return 0;
}

/* The folder that was copied must still be that of the sandbox: a destroy moves it away. */
static int still_there(const struct copier *copier, struct error *err)
{
	const struct launcher_request *request = copier->request;
	struct stat now, then;

	if (fstat(copier->folder_fd, &then) == 0 &&
		fstatat(copier->means->places.sandboxes_fd, request->name, &now,
			AT_SYMLINK_NOFOLLOW) == 0 &&
		now.st_ino == then.st_ino && now.st_dev == then.st_dev) {
		return 0;
	}
	return error_set(err, ERROR_CONFLICT, "%s ended while it was being copied", request->name);
}

static int snapshot(struct copier *copier, struct sandbox_copied *ret_copied, struct error *err)
{
	struct live_copy_spec spec = {.freeze = freeze,
		.thaw = thaw,
		.processes = processes,
		.cancelled = cancelled,
		.context = copier};

	if (places_find(copier, err) < 0 || guard_start(copier, err) < 0 ||
		capabilities_limit(capabilities, ARRAY_SIZE(capabilities), err) < 0) {
		return -(int)err->kind;
	}
	spec.max_pause_us = copier->request->max_pause_us;
	if (spec.max_pause_us == 0) {
		spec.max_pause_us = SNAPSHOT_PAUSE_MS_MAX * 1000;
	}
	spec.upper_fd = copier->upper_fd;
	spec.tree_fd = copier->tree_fd;
	spec.scratch_fd = copier->scratch_fd;
	spec.previous_fd = copier->previous_fd;
	spec.previous_list_fd = copier->previous_list_fd;
	spec.list_fd = copier->list_fd;
	if (live_copy(&spec, ret_copied, err) < 0 || still_there(copier, err) < 0) {
		return -(int)err->kind;
	}
	if (unlinkat(copier->staging_fd, "scratch", AT_REMOVEDIR) < 0 ||
		renameat(copier->folder_fd, NEW_LIST_NAME, copier->folder_fd, LIST_NAME) < 0) {
		return error_sys(err, errno, "put the copy of %s in order", copier->request->name);
	}
	return syncfs(copier->tree_fd) == 0 ? 0 : error_sys(err, errno, "sync the copy");
}

static _Noreturn void copier_main(const struct server *server, struct copier *copier)
{
	const struct native_means *means = &server->means;
	int keep[4 + CGROUP_HIERARCHIES_MAX];
	struct copier_message message = {.word = COPIER_ENDED, .err = ERROR_INIT};
	size_t count = 0;

	keep[count++] = copier->launcher_fd;
	keep[count++] = means->places.layers_fd;
	keep[count++] = means->places.sandboxes_fd;
	keep[count++] = means->places.staging_fd;
	for (size_t i = 0; i < means->cgroups.count; i++) {
		keep[count++] = means->cgroups.hierarchies[i].fd;
	}
	descriptors_keep(keep, count);
	(void)prctl(PR_SET_NAME, "hob-copier", 0, 0, 0);
	if (snapshot(copier, &message.copied, &message.err) < 0) {
		(void)error_wrap(&message.err, "snapshot of %s", copier->request->name);
	}
	/* Whoever hears of the end may ask for the next one, though the guard, which shares the
	 * lock, is a little behind. */
	(void)flock(copier->folder_fd, LOCK_UN);
	(void)!send(copier->launcher_fd, &message, sizeof(message), MSG_NOSIGNAL);
	_exit(0);
}

/* ---- the launcher's side ---- */

static size_t copiers_count(const struct server *server)
{
	size_t count = 0;

	for (size_t i = 0; i < SERVER_PENDING_MAX; i++) {
		count += server->pending[i].request.op == LAUNCHER_SNAPSHOT ? 1 : 0;
	}
	return count;
}

int copier_start(struct server *server, struct pending *pending, struct error *err)
{
	struct copier copier = {.means = &server->means,
		.request = &pending->request,
		.launcher_pid = getpid(),
		.folder_fd = -1,
		.guard_fd = -1,
		.previous_fd = -1,
		.previous_list_fd = -1};
	pid_t pid;
	int ends[2];

	if (copiers_count(server) > COPIERS_MAX) {
		return error_set(
			err, ERROR_BUSY, "%d snapshots are being taken already", COPIERS_MAX);
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		return error_sys(err, errno, "socketpair");
	}
	copier.launcher_fd = ends[1];
	pid = launcher_fork();
	if (pid == 0) {
		copier_main(server, &copier);
	}
	close(ends[1]);
	pending->native.status_fd = ends[0];
	if (pid < 0) {
		return error_sys(err, errno, "fork");
	}
	pending->native.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	return 0;
}

/* It was killed, by its guard perhaps. */
static void copier_lost(struct server *server, struct pending *pending)
{
	struct error err = ERROR_INIT;

	if (!pending->freezing) {
		error_set(&err, ERROR_UNAVAILABLE, "snapshot of %s: its process died",
			pending->request.name);
	} else {
		thaw_quietly(&server->means, pending->request.name);
		error_set(&err, ERROR_TIMEOUT,
			"snapshot of %s: given up, as the sandbox stood still for too long",
			pending->request.name);
		error_hint(&err, "it changes too much at a time; try again when it is quieter");
	}
	server_reply(server, &pending->request, -1, pending->started_us, NULL, 0, &err);
}

bool copier_step(struct server *server, struct pending *pending)
{
	struct copier_message message;
	ssize_t got = recv(pending->native.status_fd, &message, sizeof(message), MSG_DONTWAIT);

	if (got < 0 && errno == EAGAIN && pending->next_us != 0 &&
		clock_mono_us() >= pending->next_us) {
		/* Dead or alive, its end of the socket closes. */
		(void)syscall(SYS_pidfd_send_signal, pending->native.pidfd, SIGKILL, NULL, 0);
		copier_lost(server, pending);
		return true;
	}
	if (got < 0 && errno == EAGAIN) {
		return false;
	}
	if (got != (ssize_t)sizeof(message)) {
		copier_lost(server, pending);
		return true;
	}
	if (message.word != COPIER_ENDED) {
		pending->freezing = message.word == COPIER_FREEZES;
		pending->next_us = !pending->freezing
					   ? 0
					   : clock_mono_us() + (FROZEN_MS_MAX + GRACE_MS) * 1000;
		return false;
	}
	if (message.err.kind != ERROR_NONE) {
		server_reply(
			server, &pending->request, -1, pending->started_us, NULL, 0, &message.err);
	} else {
		server_reply_copied(server, pending, &message.copied);
	}
	return true;
}
