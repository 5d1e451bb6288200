/*
 * From a root program to root launchers and an unprivileged program: forks each launcher, which
 * then sets itself up (descriptors, limits, mount namespace, helpers) and says so before the
 * program goes on. What cannot be made is told to the caller of launcher_start in the launcher's
 * own words.
 */
#include "pool/sandbox/launcher/launcher_private.h"
#include "pool/sandbox/launcher/launcher_server.h"
#include "pool/sandbox/privileges.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/process.h"
#include "configs/config.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define INIT_BYTES_MAX (16 * 1024 * 1024)
/* Soft and hard limit of open files inside sandboxes. */
#define FILES_SOFT 65536
#define FILES_HARD 524288

void descriptors_keep(const int *fds, size_t count)
{
	unsigned from = STDERR_FILENO + 1;

	/* The lowest of those kept from here on, then all between. */
	for (;;) {
		unsigned next = UINT32_MAX;

		for (size_t i = 0; i < count; i++) {
			if (fds[i] >= (int)from && (unsigned)fds[i] < next) {
				next = (unsigned)fds[i];
			}
		}
		if (next > from) {
			(void)syscall(
				SYS_close_range, from, next == UINT32_MAX ? next : next - 1, 0);
		}
		if (next == UINT32_MAX) {
			return;
		}
		from = next + 1;
	}
}

static void ignore(int signal)
{
	(void)signal;
}

/*
 * A terminal's Ctrl-C reaches every process of the group; hobd decides what it means. Handlers, not
 * SIG_IGN, as that would be inherited by hob-init. Children are reaped by the kernel.
 */
static void signals_set(void)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
	struct sigaction action = {.sa_handler = ignore, .sa_flags = SA_RESTART};
	struct sigaction reap = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
	sigset_t none;

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		(void)sigaction(numbers[i], &action, NULL);
	}
	(void)signal(SIGPIPE, SIG_DFL);
	(void)sigaction(SIGCHLD, &reap, NULL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Sandboxes inherit them. A core limit of 0 would be ignored where cores go to a pipe. */
static int limits_set(struct server *server, struct error *err)
{
	static const struct {
		__rlimit_resource_t resource;
		struct rlimit limit;
	} wanted[] = {{RLIMIT_CORE, {1, 1}}, {RLIMIT_NOFILE, {FILES_SOFT, FILES_HARD}},
		{RLIMIT_NPROC, {RLIM_INFINITY, RLIM_INFINITY}},
		{RLIMIT_STACK, {8 * 1024 * 1024, RLIM_INFINITY}},
		{RLIMIT_MEMLOCK, {8 * 1024 * 1024, 8 * 1024 * 1024}}, {RLIMIT_RTPRIO, {0, 0}},
		{RLIMIT_NICE, {0, 0}}};

	for (unsigned i = 0; i < RLIM_NLIMITS; i++) {
		(void)getrlimit((__rlimit_resource_t)i, &server->limits[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		struct rlimit limit = wanted[i].limit;
		const struct rlimit *now = &server->limits[wanted[i].resource];

		if (setrlimit(wanted[i].resource, &limit) == 0) {
			continue;
		}
		/* Over what this machine allows: as high as it is already. */
		limit.rlim_max = now->rlim_max;
		limit.rlim_cur = limit.rlim_cur < now->rlim_max ? limit.rlim_cur : now->rlim_max;
		if (errno != EPERM || setrlimit(wanted[i].resource, &limit) < 0) {
			return error_sys(err, errno, "setrlimit %d", (int)wanted[i].resource);
		}
	}
	return 0;
}

/*
 * hob-init in a sealed memory file, so that nothing can change it under way. Its mode has no read
 * permission: for the kernel that makes a process running it one that its own user may not inspect,
 * from its first instruction on.
 */
static int init_load(int *ret_fd, struct error *err)
{
	CLEANUP(buffer_done) struct buffer program;
	CLEANUP(free_p) char *path = NULL;
	CLEANUP(close_p) int fd = -1;

	buffer_init(&program, INIT_BYTES_MAX);
	if (process_sibling("hob-init", &path, err) < 0 ||
		io_read_file(AT_FDCWD, path, &program, err) < 0) {
		return error_hint(err, "hob-init must lie beside the programs that use it");
	}
	fd = memfd_create("hob-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	if (fd < 0 && errno == EINVAL) {
		fd = memfd_create("hob-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	}
	if (fd < 0 || fchmod(fd, 0711) < 0) {
		return error_sys(err, errno, "memfd_create");
	}
	if (io_write_full(fd, program.data, program.length, err) < 0) {
		return -(int)err->kind;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) {
		return error_sys(err, errno, "seal hob-init");
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* Descriptors 3 and 4 are where hob-init's go; nothing else may land there. */
static int low_descriptors_take(struct error *err)
{
	for (;;) {
		int fd = io_open(AT_FDCWD, "/dev/null", O_RDONLY, 0, err);

		if (fd < 0) {
			return fd;
		}
		if (fd > 4) {
			close(fd);
			return 0;
		}
	}
}

static int server_init(struct server *server, const struct config *config, struct error *err)
{
	struct native_means *means = &server->means;

	means->places = PLACES_INIT;
	if (low_descriptors_take(err) < 0 || user_find(config, &means->uid, &means->gid, err) < 0 ||
		id_range_find(config, &means->id_base, &means->slots, err) < 0 ||
		init_load(&means->init_fd, err) < 0 ||
		process_sibling("hob-build", &server->build_program, err) < 0 ||
		process_sibling("hob-snapshots", &server->snapshots_program, err) < 0 ||
		cgroups_open(config, &means->cgroups, err) < 0 || limits_set(server, err) < 0 ||
		places_enter(config, &means->places, err) < 0 ||
		netns_pool_init(&means->nets, err) < 0) {
		return -(int)err->kind;
	}
	spares_sweep(&means->places);
	for (size_t i = 0; i < WORKERS; i++) {
		if (worker_start(&server->workers[i], (enum worker_kind)i, &means->places, err) <
			0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

static _Noreturn void launcher_main(const struct config *config, int fd, int keep_fd)
{
	const int kept[] = {fd, keep_fd};
	struct server *server = xcalloc(1, sizeof(*server));
	struct error err = ERROR_INIT;

	descriptors_keep(kept, keep_fd >= 0 ? 2 : 1);
	if (keep_fd >= 0) {
		(void)fcntl(keep_fd, F_DUPFD_CLOEXEC, 8);
		close(keep_fd);
	}
	(void)setsid();
	(void)prctl(PR_SET_NAME, "hob-launcher", 0, 0, 0);
	/* Waits of 0.1 ms are to be that. */
	(void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	umask(022);
	signals_set();
	/* Away from 3 and 4. */
	server->socket = fcntl(fd, F_DUPFD_CLOEXEC, 8);
	close(fd);
	launcher_lighten();
	server->config_file = config->file != NULL ? realpath(config->file, NULL) : NULL;
	if (server_init(server, config, &err) < 0) {
		(void)send(server->socket, &err, sizeof(err), MSG_NOSIGNAL);
		_exit(1);
	}
	if (send(server->socket, &err, sizeof(err), MSG_NOSIGNAL) < 0) {
		_exit(1);
	}
	server_run(server);
}

static int process_start(
	struct launcher *launcher, const struct config *config, int keep_fd, struct error *err)
{
	struct launcher_process *process = &launcher->processes[launcher->process_count];
	struct error answer = ERROR_INIT;
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		return error_sys(err, errno, "socketpair");
	}
	pid = fork();
	if (pid == 0) {
		launcher_main(config, ends[1], keep_fd);
	}
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return error_sys(err, errno, "fork a launcher");
	}
	*process = (struct launcher_process){.pid = pid, .fd = ends[0], .launcher = launcher};
	launcher->process_count++;
	if (recv(process->fd, &answer, sizeof(answer), 0) != (ssize_t)sizeof(answer)) {
		return error_set(err, ERROR_UNAVAILABLE, "the launcher died at its start");
	}
	if (answer.kind != ERROR_NONE) {
		error_copy(err, &answer);
		return error_wrap(err, "launcher");
	}
	return 0;
}

static size_t processes_wanted(const struct config *config)
{
	long wanted =
		config->launchers > 0 ? (long)config->launchers : sysconf(_SC_NPROCESSORS_ONLN);

	return wanted < 1 ? 1 : wanted > LAUNCHERS_MAX ? LAUNCHERS_MAX : (size_t)wanted;
}

/* With the parents of all cgroups, which are there once for all launchers. */
static int processes_start(
	struct launcher *launcher, const struct config *config, int keep_fd, struct error *err)
{
	size_t wanted = processes_wanted(config);
	struct cgroups cgroups;
	int status;

	if (cgroups_open(config, &cgroups, err) < 0) {
		return -(int)err->kind;
	}
	status = cgroups_prepare(&cgroups, err);
	while (status == 0 && launcher->process_count < wanted) {
		status = process_start(launcher, config, keep_fd, err);
	}
	if (status < 0) {
		cgroups_unprepare(&cgroups);
	}
	cgroups_close(&cgroups);
	return status;
}

int launcher_start(
	const struct config *config, int keep_fd, struct launcher **ret_launcher, struct error *err)
{
	CLEANUP(launcher_stop_p) struct launcher *launcher = NULL;

	if (geteuid() != 0) {
		error_set(err, ERROR_DENIED, "sandboxes can only be made by root");
		return error_hint(
			err, "start it as root; everything but a small launcher gives root up");
	}
	launcher = xcalloc(1, sizeof(*launcher));
	for (size_t i = 0; i < QUEUES; i++) {
		launcher->queues[i].last = &launcher->queues[i].first;
	}
	if (id_range_find(config, &launcher->id_base, &launcher->slots, err) < 0 ||
		places_make(config, err) < 0 ||
		processes_start(launcher, config, keep_fd, err) < 0) {
		return -(int)err->kind;
	}
	*ret_launcher = steal_ptr(launcher);
	return 0;
}
