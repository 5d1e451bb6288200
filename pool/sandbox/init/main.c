/*
 * hob-init: PID 1 of every sandbox. It starts commands, reaps, streams, and moves files, for the
 * hob that holds the other end of INIT_CONTROL_FD or connected to INIT_LISTEN_FD. It must survive
 * anything that runs beside it: not dumpable, no descriptor passed on, no call that can block.
 */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCH 16
#define SIGNAL_LAST 64
#define SCRATCH_STAYS 4096
#define TRIM_AFTER_MS 1000

char scratch[INIT_PACKET_MAX] __attribute__((aligned(4096)));
int null_fd = -1;

static int epoll_fd = -1;
static int signal_fd = -1;
static bool scratch_is_large;

void scratch_used(ssize_t length)
{
	scratch_is_large = scratch_is_large || length > SCRATCH_STAYS;
}

bool watch_add(int fd, uint32_t events, struct watch *watch)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

void watch_change(int fd, uint32_t events, struct watch *watch)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	(void)epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event);
}

void watch_close(int *fd)
{
	if (*fd >= 0) {
		(void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, *fd, NULL);
		fd_close(fd);
	}
}

int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t now_ms(void)
{
	return now_us() / 1000;
}

void fd_close(int *fd)
{
	if (*fd >= 0) {
		close(*fd);
		*fd = -1;
	}
}

void text_format(char *text, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (vsnprintf(text, size, format, args) < 0) {
		text[0] = '\0';
	}
	va_end(args);
}

/* Commands inherit the dispositions, so they must be the default ones; init itself keeps every
 * signal blocked and reads SIGCHLD from a descriptor. */
static void signals_setup(void)
{
	sigset_t all, child;

	/* By the bare call: the C library keeps 32 to 34 to itself, and posix_spawn of another one
	 * hands 32 down ignored. All zero is SIG_DFL without flags. */
	for (int i = 1; i <= SIGNAL_LAST; i++) {
		static const unsigned long standard[4];

		(void)syscall(SYS_rt_sigaction, i, standard, NULL, sizeof(uint64_t));
	}
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	signal_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* 0, 1 and 2 must be taken, or a pipe of a command would land there and be lost to dup2. */
static void descriptors_setup(void)
{
	int fd;

	/* Whatever else came along is not for commands. */
	(void)syscall(SYS_close_range, INIT_LISTEN_FD + 1, UINT32_MAX, 0);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	while (fd >= 0 && fd <= STDERR_FILENO) {
		fd = fcntl(fd, F_DUPFD, 0);
	}
	if (fd >= 0) {
		null_fd = fcntl(fd, F_DUPFD_CLOEXEC, INIT_LISTEN_FD + 1);
		close(fd);
	}
	(void)fcntl(INIT_CONTROL_FD, F_SETFD, FD_CLOEXEC);
	(void)fcntl(INIT_LISTEN_FD, F_SETFD, FD_CLOEXEC);
}

/* Is there a socket that listens? Build sandboxes have none. */
static bool listen_is_there(void)
{
	int listening = 0;
	socklen_t length = sizeof(listening);

	return getsockopt(INIT_LISTEN_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0 &&
	       listening == 1;
}

static void on_listen(void)
{
	int fd = accept4(INIT_LISTEN_FD, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0) {
		wire_use(fd);
	}
}

static void reap(void)
{
	struct signalfd_siginfo info;
	struct rusage usage;
	int status;
	pid_t pid;

	(void)!read(signal_fd, &info, sizeof(info));
	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
		exec_reaped(pid, status, &usage);
	}
}

static void dispatch(const struct epoll_event *event)
{
	const struct watch *watch = event->data.ptr;

	switch (watch->kind) {
	case WATCH_CONTROL:
		wire_on_ready(event->events);
		break;
	case WATCH_LISTEN:
		on_listen();
		break;
	case WATCH_SIGNAL:
		reap();
		break;
	case WATCH_STDOUT:
	case WATCH_STDERR:
	case WATCH_STDIN:
		exec_on_ready(watch, event->events);
		break;
	case WATCH_PROBE:
		probe_on_ready(watch->probe, event->events);
		break;
	}
}

/* Idle sandboxes are many: pages that a large packet touched go back. */
static void memory_trim(void)
{
	(void)madvise(scratch + SCRATCH_STAYS, sizeof(scratch) - SCRATCH_STAYS, MADV_DONTNEED);
	scratch_is_large = false;
}

static int earlier_ms(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

static int wait_ms(bool more)
{
	int timeout_ms = more ? 0 : earlier_ms(exec_timeout_ms(), probe_timeout_ms());

	if (scratch_is_large && (timeout_ms < 0 || timeout_ms > TRIM_AFTER_MS)) {
		timeout_ms = TRIM_AFTER_MS;
	}
	return timeout_ms;
}

static void run(void)
{
	struct epoll_event batch[BATCH];

	for (;;) {
		bool more = exec_run();
		int timeout_ms;
		int count;

		more = file_run() || more;
		exec_bury();
		file_bury();
		probe_bury();
		timeout_ms = wait_ms(more);
		count = epoll_wait(epoll_fd, batch, BATCH, timeout_ms);
		for (int i = 0; i < count; i++) {
			dispatch(&batch[i]);
		}
		if (count == 0 && timeout_ms == TRIM_AFTER_MS) {
			memory_trim();
		}
	}
}

int main(void)
{
	static struct watch signal_watch = {.kind = WATCH_SIGNAL};
	static struct watch listen_watch = {.kind = WATCH_LISTEN};

	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	umask(022);
	(void)!chdir("/");
	(void)setgroups(0, NULL);
	descriptors_setup();
	signals_setup();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0 || signal_fd < 0 || !watch_add(signal_fd, EPOLLIN, &signal_watch)) {
		return 1;
	}
	if (listen_is_there()) {
		(void)fcntl(INIT_LISTEN_FD, F_SETFL, O_RDWR | O_NONBLOCK);
		(void)watch_add(INIT_LISTEN_FD, EPOLLIN, &listen_watch);
	}
	wire_use(INIT_CONTROL_FD);
	run();
	return 0;
}
