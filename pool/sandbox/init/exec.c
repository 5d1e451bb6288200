/*
 * The commands: a table of a few, and what moves their output. An exec goes running -> exited ->
 * finished (its output is over) -> forgotten. Output is read only while this connection is
 * attached, has credit and is clear; otherwise the pipe fills and the command waits. What a
 * grandchild writes after the end is drained, so that a server left in the background is not killed
 * by SIGPIPE.
 */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* How long the output of an ended command may stay open in the hands of its children. */
#define LINGER_MS 100
/* A quiet exec that writes more than this at once is read again only a moment later, so that a
 * flood waits in its pipe instead of taking a processor. */
#define FLOOD_BYTES 16384
#define FLOOD_PAUSE_MS 5
/* Forgotten execs that are drained; the oldest pipe is closed beyond. */
#define DRAINS_MAX 256
#define SIGNAL_LAST 64

static struct exec *execs;

struct exec *exec_find(uint32_t id)
{
	for (struct exec *exec = execs; exec != NULL; exec = exec->next) {
		if (exec->id == id && id != 0 && !exec->dead) {
			return exec;
		}
	}
	return NULL;
}

size_t exec_count(void)
{
	size_t count = 0;

	for (const struct exec *exec = execs; exec != NULL; exec = exec->next) {
		count += exec->id != 0 && !exec->dead ? 1 : 0;
	}
	return count;
}

void exec_add(struct exec *exec)
{
	exec->next = execs;
	execs = exec;
}

static void stream_end(struct exec *exec, struct stream *stream)
{
	if (exec->tty) {
		input_close(exec);
	}
	watch_close(&stream->fd);
	stream->ready = false;
	stream->left = 0;
}

/* Closes everything of it; exec_bury frees it. */
static void exec_end(struct exec *exec)
{
	input_close(exec);
	stream_end(exec, &exec->out[0]);
	stream_end(exec, &exec->out[1]);
	kept_done(&exec->kept);
	exec->id = 0;
	exec->dead = true;
}

void exec_bury(void)
{
	struct exec **at = &execs;

	while (*at != NULL) {
		struct exec *exec = *at;

		if (exec->dead) {
			*at = exec->next;
			free(exec);
		} else {
			at = &exec->next;
		}
	}
}

/* ---- requests ---- */

void exec_stdin(struct exec *exec, const char *data, size_t length)
{
	if (!input_add(exec, data, length)) {
		wire_reject();
	}
}

void exec_stdin_end(struct exec *exec)
{
	exec->in.end = true;
	input_pump(exec);
}

void exec_window(struct exec *exec, uint32_t bytes)
{
	exec->grant += bytes;
}

void exec_signal(struct exec *exec, uint32_t signal)
{
	if (!exec->exited && signal >= 1 && signal <= SIGNAL_LAST) {
		(void)kill(-exec->pid, (int)signal);
	}
}

void exec_replay(struct exec *exec)
{
	exec->attached = true;
	exec->reported = false;
	exec->grant = INIT_WINDOW_DEFAULT;
	exec->replaying = !exec->quiet;
	exec->replay = (struct kept_cursor){0, 0};
	wire_send_u32(INIT_STARTED, exec->id, (uint32_t)exec->pid);
	exec->in.unreported = 0;
	if (exec->in.fd >= 0 && !exec->in.end) {
		wire_send_u32(INIT_STDIN_WINDOW, exec->id,
			(uint32_t)(INIT_STDIN_WINDOW_DEFAULT - exec->in.length));
	}
}

static void limit_drains(void)
{
	struct exec *oldest = NULL;
	size_t count = 0;

	for (struct exec *exec = execs; exec != NULL; exec = exec->next) {
		if (exec->id == 0 && !exec->dead) {
			oldest = exec;
			count++;
		}
	}
	if (count > DRAINS_MAX) {
		exec_end(oldest);
	}
}

void exec_forget(struct exec *exec)
{
	if (!exec->exited) {
		spawn_kill(exec->pid);
		exec_end(exec);
	} else if (exec->out[0].fd < 0 && exec->out[1].fd < 0) {
		exec_end(exec);
	} else {
		input_close(exec);
		kept_done(&exec->kept);
		exec->id = 0;
		exec->finished = true;
		limit_drains();
	}
}

void exec_detach_all(void)
{
	for (struct exec *exec = execs; exec != NULL; exec = exec->next) {
		exec->attached = false;
		exec->reported = false;
		exec->replaying = false;
		if (exec->ends_with_wire) {
			exec_stdin_end(exec);
		}
	}
}

void exec_send_states(void)
{
	for (const struct exec *exec = execs; exec != NULL; exec = exec->next) {
		struct init_state state = {
			.pid = (uint32_t)exec->pid, .ended = exec->exited ? 1 : 0};

		if (exec->id != 0 && !exec->dead) {
			wire_send(INIT_STATE, exec->id, &state, sizeof(state), NULL, 0);
		}
	}
}

/* ---- events ---- */

void exec_on_ready(const struct watch *watch, uint32_t events)
{
	struct exec *exec = watch->exec;
	struct stream *stream = &exec->out[watch->kind == WATCH_STDERR ? 1 : 0];

	if (exec->dead) {
		return;
	}
	if (watch->kind == WATCH_STDIN || (exec->tty && (events & EPOLLOUT) != 0)) {
		exec->in.ready = true;
		input_pump(exec);
	}
	if (watch->kind == WATCH_STDIN || (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) {
		return;
	}
	stream->ready = stream->fd >= 0;
	if ((events & EPOLLHUP) != 0 && !exec->tty) {
		stream->hung_up = true;
		if ((events & EPOLLIN) == 0) {
			stream_end(exec, stream);
		}
	}
}

static uint64_t timeval_us(const struct timeval *time)
{
	return (uint64_t)time->tv_sec * 1000000 + (uint64_t)time->tv_usec;
}

void exec_reaped(pid_t pid, int status, const struct rusage *usage)
{
	struct exec *exec = execs;

	while (exec != NULL && (exec->pid != pid || exec->exited)) {
		exec = exec->next;
	}
	if (exec == NULL) {
		return;
	}
	exec->exited = true;
	exec->deadline_ms = now_ms() + LINGER_MS;
	exec->result = (struct init_exited){
		.code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
		.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
		.user_us = timeval_us(&usage->ru_utime),
		.system_us = timeval_us(&usage->ru_stime),
		.took_us = (uint64_t)(now_us() - exec->started_us),
		.max_rss_bytes = (uint64_t)usage->ru_maxrss * 1024,
	};
	input_close(exec);
	if (exec->group) {
		/* Its number was free only a moment ago: nobody else has it yet. */
		(void)kill(-pid, SIGKILL);
	}
}

/* ---- output ---- */

/* What read() gave, for output and for draining alike; true if bytes came. */
static bool stream_read(struct exec *exec, struct stream *stream, size_t max, size_t *ret_length)
{
	ssize_t got = read(stream->fd, scratch, max);

	scratch_used(got);
	if (got < 0 && errno == EINTR) {
		return false;
	}
	if (got < 0 && errno == EAGAIN) {
		stream->ready = false;
		stream->left = 0;
		return false;
	}
	if (got <= 0) {
		stream_end(exec, stream);
		return false;
	}
	if ((size_t)got < max && !exec->tty) {
		/* The pipe is empty; epoll tells of more, but not again of the end. */
		stream->ready = false;
		if (stream->hung_up) {
			stream_end(exec, stream);
		}
	}
	stream->left -= stream->left < (uint64_t)got ? stream->left : (uint64_t)got;
	*ret_length = (size_t)got;
	return true;
}

static void stream_pump(struct exec *exec, struct stream *stream)
{
	size_t max = exec->grant < PAYLOAD_MAX ? (size_t)exec->grant : PAYLOAD_MAX;
	size_t length;

	if (stream->fd >= 0 && stream->ready && max > 0 && wire_is_clear() &&
		stream_read(exec, stream, max, &length)) {
		exec->grant -= length;
		kept_add(&exec->kept, stream->type, scratch, length);
		wire_send(stream->type, exec->id, NULL, 0, scratch, length);
	}
}

static void keep_pump(struct exec *exec)
{
	size_t length, all = 0;

	if (exec->pause_ms > now_ms()) {
		return;
	}
	for (int i = 0; i < 2; i++) {
		struct stream *stream = &exec->out[i];

		if (stream->fd >= 0 && stream->ready &&
			stream_read(exec, stream, PAYLOAD_MAX, &length)) {
			kept_add(&exec->kept, stream->type, scratch, length);
			all += length;
		}
	}
	exec->pause_ms = all > FLOOD_BYTES ? now_ms() + FLOOD_PAUSE_MS : 0;
}

static void drain(struct exec *exec)
{
	size_t length;

	for (int i = 0; i < 2; i++) {
		if (exec->out[i].fd >= 0 && exec->out[i].ready) {
			(void)stream_read(exec, &exec->out[i], sizeof(scratch), &length);
		}
	}
	if (exec->id == 0 && exec->out[0].fd < 0 && exec->out[1].fd < 0) {
		exec_end(exec);
	}
}

static void replay_pump(struct exec *exec)
{
	size_t max = exec->grant < PAYLOAD_MAX ? (size_t)exec->grant : PAYLOAD_MAX;
	const char *data;
	uint32_t type;
	size_t length;

	if (max == 0 || !wire_is_clear()) {
		return;
	}
	length = kept_next(&exec->kept, &exec->replay, max, &type, &data);
	if (length == 0) {
		exec->replaying = false;
		return;
	}
	exec->grant -= length;
	wire_send(type, exec->id, NULL, 0, data, length);
}

/* From here on only what is in the pipes now belongs to the command. */
static void streams_count(struct exec *exec)
{
	for (int i = 0; i < 2; i++) {
		struct stream *stream = &exec->out[i];
		int bytes = 0;

		if (stream->fd >= 0 && ioctl(stream->fd, FIONREAD, &bytes) == 0 && bytes > 0) {
			stream->left = (uint64_t)bytes;
		}
	}
	exec->counted = true;
}

static bool stream_is_over(const struct exec *exec, const struct stream *stream)
{
	return stream->fd < 0 || (exec->counted && stream->left == 0);
}

static void check_end(struct exec *exec)
{
	if (!exec->exited || !exec->attached || exec->replaying || exec->reported) {
		return;
	}
	if (!exec->counted && !exec->finished && (exec->out[0].fd >= 0 || exec->out[1].fd >= 0) &&
		now_ms() >= exec->deadline_ms) {
		streams_count(exec);
	}
	if (exec->finished ||
		(stream_is_over(exec, &exec->out[0]) && stream_is_over(exec, &exec->out[1]))) {
		exec->finished = true;
		exec->reported = true;
		wire_send(INIT_EXITED, exec->id, &exec->result, sizeof(exec->result), NULL, 0);
	}
}

static bool can_go_on(const struct exec *exec)
{
	bool ready = exec->out[0].ready || exec->out[1].ready;

	if (exec->dead) {
		return false;
	}
	if (exec->finished && (!exec->attached || exec->reported)) {
		return ready;
	}
	if (exec->quiet) {
		return ready && exec->pause_ms == 0;
	}
	return exec->attached && wire_is_clear() && exec->grant > 0 && (ready || exec->replaying);
}

bool exec_run(void)
{
	bool more = false;

	for (struct exec *exec = execs; exec != NULL; exec = exec->next) {
		if (exec->dead) {
			continue;
		}
		if (exec->replaying) {
			replay_pump(exec);
		} else if (exec->finished) {
			drain(exec);
		} else if (exec->quiet) {
			keep_pump(exec);
		} else if (exec->attached) {
			stream_pump(exec, &exec->out[0]);
			stream_pump(exec, &exec->out[1]);
		}
		check_end(exec);
		more = can_go_on(exec) || more;
	}
	return more;
}

int exec_timeout_ms(void)
{
	int64_t first_ms = INT64_MAX;
	int64_t left_ms;

	for (const struct exec *exec = execs; exec != NULL; exec = exec->next) {
		if (exec->exited && exec->attached && !exec->counted && !exec->finished &&
			!exec->dead && exec->deadline_ms < first_ms) {
			first_ms = exec->deadline_ms;
		}
		if (exec->pause_ms > 0 && !exec->dead && !exec->finished &&
			exec->pause_ms < first_ms) {
			first_ms = exec->pause_ms;
		}
	}
	if (first_ms == INT64_MAX) {
		return -1;
	}
	left_ms = first_ms - now_ms();
	return left_ms < 0 ? 0 : (int)left_ms;
}
