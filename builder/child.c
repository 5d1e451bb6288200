/*
 * fork without exec, one seqpacket socket back. Every packet is one struct message; the parent
 * believes its sizes only after checking them. Invariant: when child_run or child_end
 * returns, the child is reaped.
 */
#include "builder/child.h"

#include "base/clock.h"
#include "base/loop.h"
#include "base/memory.h"
#include "base/process.h"
#include "builder/machine.h"
#include "builder/report.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define PROGRESS_EVERY_MS 100
#define LINE_SIZE 1024

enum message_type { MESSAGE_PROGRESS, MESSAGE_LINE, MESSAGE_RESULT, MESSAGE_ERROR };

struct message {
	uint32_t type;
	uint32_t size; /* of a result */
	union {
		struct {
			char unit[16];
			uint64_t done, total, bytes;
		} progress;
		char line[LINE_SIZE];
		unsigned char result[CHILD_RESULT_MAX];
		struct error error;
	};
};

struct child {
	int fd;
	pid_t parent;
	int64_t told_ms;
};

/* ---- in the child ---- */

static void send_message(struct child *child, const struct message *message)
{
	while (send(child->fd, message, sizeof(*message), MSG_NOSIGNAL) < 0 && errno == EINTR) {
		continue;
	}
}

void child_progress(
	struct child *child, const char *unit, uint64_t done, uint64_t total, uint64_t bytes)
{
	struct message message;
	int64_t now = clock_mono_ms();

	if (child == NULL || now - child->told_ms < PROGRESS_EVERY_MS) {
		return;
	}
	child->told_ms = now;
	message = (struct message){.type = MESSAGE_PROGRESS};
	snprintf(message.progress.unit, sizeof(message.progress.unit), "%s", unit);
	message.progress.done = done;
	message.progress.total = total;
	message.progress.bytes = bytes;
	send_message(child, &message);
}

void child_line(struct child *child, const char *format, ...)
{
	struct message message = {.type = MESSAGE_LINE};
	va_list args;

	if (child == NULL) {
		return;
	}
	va_start(args, format);
	vsnprintf(message.line, sizeof(message.line), format, args);
	va_end(args);
	send_message(child, &message);
}

void child_bind(struct child *child)
{
	if (child == NULL) {
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != child->parent) {
		_exit(1); /* it died before it was asked for */
	}
}

static int compare_fds(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Closes everything above the standard three but the ones to keep. */
static void close_others(const struct child_spec *spec, int fd)
{
	int keep[8], from = STDERR_FILENO + 1;
	size_t count = 0;

	for (size_t i = 0; i < spec->fd_count && count + 1 < ARRAY_SIZE(keep); i++) {
		keep[count++] = spec->fds[i];
	}
	keep[count++] = fd;
	qsort(keep, count, sizeof(keep[0]), compare_fds);
	for (size_t i = 0; i < count; i++) {
		if (keep[i] > from) {
			close_range((unsigned)from, (unsigned)keep[i] - 1, 0);
		}
		from = keep[i] >= from ? keep[i] + 1 : from;
	}
	close_range((unsigned)from, ~0U, 0);
}

static void child_main(const struct child_spec *spec, int fd, pid_t parent)
{
	struct child child = {.fd = fd, .parent = parent};
	struct message message = {.type = MESSAGE_RESULT};
	struct error err = ERROR_INIT;
	sigset_t none;

	child_bind(&child);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	/* Ctrl-C reaches the whole group: the parent decides what ends, and how it is recorded. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	close_others(spec, fd);
	umask(022);
	if (spec->run(&child, spec->context, message.result, &err) < 0) {
		message.type = MESSAGE_ERROR;
		error_copy(&message.error, &err);
	}
	message.size = (uint32_t)spec->result_size;
	send_message(&child, &message);
	_exit(0);
}

/* ---- in the parent ---- */

struct child_running {
	struct machine *machine;
	const struct child_spec *spec;
	pid_t pid;
	int fd;
	struct loop_source *source;
	int64_t alive_ms;
	bool done; /* the socket's end, or an answer */
	bool answered;
	struct message answer;
};

static void take_message(struct child_running *running, struct message *message)
{
	switch ((enum message_type)message->type) {
	case MESSAGE_PROGRESS:
		message->progress.unit[sizeof(message->progress.unit) - 1] = '\0';
		report_progress(running->machine->report, message->progress.unit,
			message->progress.done, message->progress.total, message->progress.bytes);
		break;
	case MESSAGE_LINE:
		message->line[LINE_SIZE - 1] = '\0';
		report_line(running->machine->report, "%s", message->line);
		break;
	case MESSAGE_RESULT:
	case MESSAGE_ERROR:
		running->answer = *message;
		running->answered = true;
		running->done = true;
		break;
	default:
		running->done = true;
		break;
	}
}

static void on_readable(void *context, uint32_t events)
{
	struct child_running *running = context;
	struct message message;
	ssize_t got;

	(void)events;
	while (!running->done) {
		got = recv(running->fd, &message, sizeof(message), MSG_DONTWAIT);
		if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
			return;
		}
		running->alive_ms = clock_mono_ms();
		if (got != (ssize_t)sizeof(message)) {
			running->done = true;
			break;
		}
		take_message(running, &message);
	}
	/* An end that stays readable would keep the loop from the other children. */
	loop_source_free(running->source);
	running->source = NULL;
	machine_wake(running->machine);
}

/* Waits in slices, so that a sign of life moves the end of the patience. */
static int wait_answer(struct child_running *running, struct error *err)
{
	const struct child_spec *spec = running->spec;

	for (;;) {
		int64_t limit = spec->stall_ms != 0 ? running->alive_ms + spec->stall_ms : 0;
		int status = machine_wait(running->machine, &running->done, limit, spec->what, err);
		int64_t silent_ms = clock_mono_ms() - running->alive_ms;

		if (status == 0) {
			return 0;
		}
		if (status != -ERROR_TIMEOUT || spec->stall_ms == 0 ||
			(running->machine->deadline_ms != 0 &&
				clock_mono_ms() >= running->machine->deadline_ms)) {
			return status;
		}
		if (silent_ms >= spec->stall_ms) {
			return error_set(err, ERROR_TIMEOUT,
				"%s: nothing came for %.1f s, given up", spec->what,
				(double)spec->stall_ms / 1e3);
		}
	}
}

static bool error_is_sound(struct error *err)
{
	err->message[ERROR_MESSAGE_SIZE - 1] = '\0';
	err->hint[ERROR_HINT_SIZE - 1] = '\0';
	return err->kind > ERROR_NONE && err->kind < ERROR_KINDS;
}

static int take_answer(struct child_running *running, int code, void *ret_result, struct error *err)
{
	struct message *answer = &running->answer;

	if (!running->answered) {
		return error_set(err, ERROR_FAILED, "%s: its process ended early (%s %d)",
			running->spec->what, code > 128 ? "signal" : "exit code",
			code > 128 ? code - 128 : code);
	}
	if (answer->type == MESSAGE_ERROR && error_is_sound(&answer->error)) {
		error_copy(err, &answer->error);
		return -(int)err->kind;
	}
	if (answer->type != MESSAGE_RESULT || answer->size != running->spec->result_size) {
		return error_set(err, ERROR_INTERNAL, "%s: its process answered nonsense",
			running->spec->what);
	}
	if (running->spec->result_size > 0) {
		memcpy(ret_result, answer->result, running->spec->result_size);
	}
	return 0;
}

int child_begin(struct machine *machine, const struct child_spec *spec,
	struct child_running **ret_running, struct error *err)
{
	struct child_running *running;
	pid_t parent = getpid(), pid;
	int pair[2], status;

	if (spec->result_size > CHILD_RESULT_MAX) {
		abort();
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return error_sys(err, errno, "%s: socketpair", spec->what);
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		child_main(spec, pair[1], parent);
	}
	close(pair[1]);
	if (pid < 0) {
		error_sys(err, errno, "%s: fork", spec->what);
		close(pair[0]);
		return -(int)err->kind;
	}
	running = xcalloc(1, sizeof(*running));
	*running = (struct child_running){.machine = machine,
		.spec = spec,
		.pid = pid,
		.fd = pair[0],
		.alive_ms = clock_mono_ms()};
	status = loop_add_fd(
		machine->loop, pair[0], EPOLLIN, on_readable, running, &running->source, err);
	if (status < 0) {
		child_drop(running);
		return status;
	}
	*ret_running = running;
	return 0;
}

/* Reaps it; what is still at work is killed. Its exit code, or 128 + the signal. */
static int reap(struct child_running *running, int *ret_code, struct error *err)
{
	loop_source_free(running->source);
	if (!running->answered) {
		kill(running->pid, SIGKILL); /* if it has ended by itself this changes nothing */
	}
	close(running->fd);
	return process_wait(running->pid, ret_code, err);
}

int child_end(struct child_running *running, void *ret_result, struct error *err)
{
	struct error wait_error = ERROR_INIT;
	int code = 0, status = wait_answer(running, err);

	if (reap(running, &code, &wait_error) < 0 && status == 0) {
		status = -(int)wait_error.kind;
		error_copy(err, &wait_error);
	}
	if (status == 0) {
		status = take_answer(running, code, ret_result, err);
	}
	free(running);
	return status;
}

void child_drop(struct child_running *running)
{
	struct error ignored = ERROR_INIT;
	int code;

	if (running != NULL) {
		(void)reap(running, &code, &ignored);
		free(running);
	}
}

int child_run(
	struct machine *machine, const struct child_spec *spec, void *ret_result, struct error *err)
{
	struct child_running *running = NULL;
	int status = child_begin(machine, spec, &running, err);

	return status < 0 ? status : child_end(running, ret_result, err);
}
