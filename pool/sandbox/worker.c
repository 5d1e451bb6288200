/* One job after the other from a socket; the end of the socket is the end of the worker. */
#include "pool/sandbox/worker.h"

#include "base/log.h"
#include "base/memory.h"
#include "pool/sandbox/launcher/launcher_server.h"
#include "pool/sandbox/privileges.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* Between the daemons and what may take all the time it wants. */
#define REMOVER_NICENESS 15

static int room_fd(const struct places *places, const char *room)
{
	if (streq(room, "layers")) {
		return places->layers_fd;
	}
	return streq(room, "sandboxes") ? places->sandboxes_fd : places->staging_fd;
}

/* A sandbox writes while it is looked at, and goes when it likes. */
static int measure(const struct places *places, const char *id, struct worker_answer *answer)
{
	CLEANUP(close_p)
	int folder =
		io_open_beneath(places->sandboxes_fd, id, O_RDONLY | O_DIRECTORY, 0, &answer->err);
	struct tree_usage usage = {.files = 0};

	if (folder < 0 || io_tree_usage(folder, "upper", &usage, &answer->err) < 0) {
		return -(int)answer->err.kind;
	}
	answer->files = usage.files;
	answer->bytes = usage.stored;
	return 0;
}

static void job_do(enum worker_kind kind, const struct places *places, const struct worker_job *job,
	struct worker_answer *answer)
{
	int status;

	if (kind == WORKER_MEASURE) {
		status = measure(places, job->name, answer);
	} else if (kind == WORKER_REMOVE) {
		status = io_remove_tree(room_fd(places, job->room), job->name, &answer->err);
	} else if (streq(job->room, "sandboxes")) {
		status = seal_upper(places, job->name, job->staging, &answer->err);
	} else {
		status = seal_layer(places, job->name, &answer->err);
	}
	if (status < 0 && job->number == 0) {
		log_failure("launcher.remove_failed", &answer->err, "room", job->room, "name",
			job->name);
	}
}

static _Noreturn void worker_main(enum worker_kind kind, const struct places *places, int fd)
{
	static const char *const names[WORKERS] = {[WORKER_REMOVE] = "hob-remover",
		[WORKER_SEAL] = "hob-sealer",
		[WORKER_MEASURE] = "hob-measurer"};
	static const int reads = CAP_DAC_READ_SEARCH;
	int keep[] = {fd, places->layers_fd, places->sandboxes_fd, places->staging_fd};
	struct worker_job job;
	int held[IO_FDS_MAX];
	size_t held_count = 0;
	struct error err = ERROR_INIT;

	descriptors_keep(keep, ARRAY_SIZE(keep));
	(void)prctl(PR_SET_NAME, names[kind], 0, 0, 0);
	if (kind != WORKER_SEAL) {
		(void)setpriority(PRIO_PROCESS, 0, REMOVER_NICENESS);
		(void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
			IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
	}
	if (kind == WORKER_MEASURE && capabilities_limit(&reads, 1, &err) < 0) {
		log_failure("launcher.no_worker", &err, "pid", getpid());
		_exit(1);
	}
	while (io_recv_fds(fd, &job, sizeof(job), held, &held_count, 0) == (ssize_t)sizeof(job)) {
		struct worker_answer answer = {.number = job.number, .err = ERROR_INIT};

		job_do(kind, places, &job, &answer);
		while (held_count > 0) {
			close(held[--held_count]);
		}
		if (job.number != 0 && send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) < 0) {
			break;
		}
	}
	_exit(0);
}

int worker_start(struct worker *worker, enum worker_kind kind, const struct places *places,
	struct error *err)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		return error_sys(err, errno, "socketpair");
	}
	pid = launcher_fork();
	if (pid == 0) {
		worker_main(kind, places, ends[1]);
	}
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return error_sys(err, errno, "fork");
	}
	*worker = (struct worker){.kind = kind, .pid = pid, .fd = ends[0]};
	return 0;
}

void worker_stop(struct worker *worker)
{
	fd_done(&worker->fd);
}

int worker_send(struct worker *worker, const struct worker_job *job, int hold_fd, struct error *err)
{
	if (io_send_fds(worker->fd, job, sizeof(*job), &hold_fd, hold_fd >= 0 ? 1 : 0,
		    MSG_DONTWAIT) < 0) {
		return errno == EAGAIN
			       ? error_set(err, ERROR_BUSY, "too many deletions are waiting")
			       : error_sys(err, errno, "the launcher's worker is gone");
	}
	return 0;
}

bool worker_receive(struct worker *worker, struct worker_answer *ret_answer)
{
	return recv(worker->fd, ret_answer, sizeof(*ret_answer), MSG_DONTWAIT) ==
	       (ssize_t)sizeof(*ret_answer);
}
