/*
 * The loop between the terminal and the WebSocket of an exec. Nothing in it blocks but ppoll, which
 * is also the only place where signals are let in. Reading from hobd pauses while output waits to
 * be written, and reading standard input pauses while hobd is slow, so neither side fills the
 * memory.
 */
#include "pool/cli/session.h"

#include "base/memory.h"
#include "pool/cli/http.h"
#include "pool/cli/output_queue.h"
#include "pool/cli/session_signals.h"
#include "pool/cli/terminal.h"
#include "pool/cli/websocket.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>

#define OUTPUT_WAITING_MAX (256 * 1024)
#define STDIN_QUEUED_MAX (256 * 1024)
#define STDIN_PIECE (32 * 1024)
/* As much as hobd keeps of a captured stream. */
#define COLLECT_MAX (8 * 1024 * 1024)
/* So many of INT, TERM, … and this side gives up. */
#define PATIENCE 3

struct session {
	const struct session_spec *spec;
	struct websocket *websocket;
	struct output_queue output;
	struct session_result result;
	bool stdin_open;
	bool raw;
	int interrupts;
	int gave_up; /* the signal, once patience is over */
	struct error failed; /* what hobd said went wrong */
	struct error *err;
};

static void take_output(struct session *session, const unsigned char *data, size_t length)
{
	bool is_stderr = data[0] == 2;

	if (!session->spec->collect) {
		output_queue_add(&session->output, is_stderr ? STDERR_FILENO : STDOUT_FILENO,
			data + 1, length - 1);
		return;
	}
	struct buffer *buffer = is_stderr ? &session->result.err : &session->result.out;
	size_t room = COLLECT_MAX - buffer->length;
	size_t taken = length - 1 < room ? length - 1 : room;

	buffer_add(buffer, data + 1, taken);
	if (taken < length - 1) {
		*(is_stderr ? &session->result.err_cut : &session->result.out_cut) = true;
	}
}

static int exit_code_of(const json_t *end)
{
	const json_t *code = json_object_get(end, "exit_code");
	const json_t *signal_number = json_object_get(end, "signal");

	if (json_is_integer(code) && json_integer_value(code) >= 0) {
		return (int)(json_integer_value(code) & 255);
	}
	return json_is_integer(signal_number) ? 128 + (int)(json_integer_value(signal_number) & 127)
					      : 1;
}

static void take_text(struct session *session, const char *text, size_t length)
{
	struct error ignored = ERROR_INIT;
	CLEANUP(json_decref_p) json_t *message = NULL;
	const json_t *part;

	if (json_parse_object(text, length, &message, &ignored) < 0) {
		return;
	}
	part = json_object_get(message, "exit");
	if (json_is_object(part) && session->result.exit == NULL) {
		session->result.exit = json_incref((json_t *)(uintptr_t)part);
		session->result.exit_code = exit_code_of(part);
	}
	if (json_is_object(json_object_get(message, "error"))) {
		const json_t *code =
			json_object_get(json_object_get(message, "error"), "exit_code");

		(void)http_error_from_reply(0, text, length, &session->failed);
		if (json_is_integer(code)) {
			*session->spec->ret_refused = (int)(json_integer_value(code) & 255);
		}
	}
}

static void on_message(void *context, bool text, const void *data, size_t length)
{
	struct session *session = context;

	if (text) {
		take_text(session, data, length);
	} else if (length > 1) {
		take_output(session, data, length);
	}
}

static void send_json(struct session *session, json_t *message)
{
	CLEANUP(free_p) char *text = json_text(message);

	json_decref(message);
	websocket_send(session->websocket, true, text, strlen(text));
}

static void send_size(struct session *session)
{
	uint16_t rows = 0, cols = 0;

	if (session->spec->tty && terminal_size(&rows, &cols)) {
		send_json(session, json_pack("{s:{s:i, s:i}}", "resize", "rows", (int)rows, "cols",
					   (int)cols));
	}
}

static void stdin_end(struct session *session)
{
	session->stdin_open = false;
	send_json(session, json_pack("{s:b}", "stdin_end", 1));
}

static void read_stdin(struct session *session)
{
	char data[STDIN_PIECE];
	ssize_t got = read(STDIN_FILENO, data, sizeof(data));

	if (got > 0) {
		websocket_send(session->websocket, false, data, (size_t)got);
	} else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
		stdin_end(session);
	}
}

/* INT, TERM and the like: on to the command, until patience is over. */
static void pass_on(struct session *session, int number, const char *name)
{
	bool terminal_gone = session->spec->tty && (number == SIGHUP || number == SIGTERM);

	if (number != SIGUSR1 && number != SIGUSR2) {
		session->interrupts++;
	}
	if (terminal_gone || session->interrupts >= PATIENCE) {
		session->gave_up = number;
		return;
	}
	if (session->interrupts == PATIENCE - 1 && isatty(STDERR_FILENO)) {
		fputs("hob: passed on to the command; once more kills it\n", stderr);
	}
	send_json(session, json_pack("{s:s}", "signal", name));
}

static void take_signals(struct session *session)
{
	const char *name = NULL;
	int number;

	while ((number = session_signals_next(&name)) != 0) {
		switch (number) {
		case SIGWINCH:
			send_size(session);
			break;
		case SIGTSTP:
			terminal_restore();
			raise(SIGSTOP);
			break;
		case SIGCONT:
			if (session->raw) {
				terminal_resume();
				send_size(session);
			}
			break;
		default:
			pass_on(session, number, name);
		}
	}
}

enum { POLL_SOCKET, POLL_STDIN, POLL_OUTPUT, POLL_COUNT };

static void poll_prepare(const struct session *session, struct pollfd *fds)
{
	short wanted = websocket_events(session->websocket);
	bool ended = websocket_ended(session->websocket);

	if (session->output.bytes > OUTPUT_WAITING_MAX) {
		wanted = (short)(wanted & ~POLLIN);
	}
	fds[POLL_SOCKET] =
		(struct pollfd){.fd = wanted == 0 || ended ? -1 : websocket_fd(session->websocket),
			.events = wanted};
	fds[POLL_STDIN] = (struct pollfd){.fd = -1, .events = POLLIN};
	if (session->stdin_open && websocket_queued(session->websocket) < STDIN_QUEUED_MAX &&
		!ended) {
		fds[POLL_STDIN].fd = STDIN_FILENO;
	}
	fds[POLL_OUTPUT] =
		(struct pollfd){.fd = output_queue_fd(&session->output), .events = POLLOUT};
}

static int step(struct session *session)
{
	struct pollfd fds[POLL_COUNT];
	int status = 0;

	poll_prepare(session, fds);
	if (ppoll(fds, POLL_COUNT, NULL, session_signals_mask()) < 0 && errno != EINTR) {
		return error_sys(session->err, errno, "poll");
	}
	take_signals(session);
	if (fds[POLL_STDIN].revents != 0) {
		read_stdin(session);
	}
	if (!websocket_ended(session->websocket)) {
		websocket_write(session->websocket);
	}
	if (fds[POLL_OUTPUT].revents != 0) {
		status = output_queue_write(&session->output, session->err);
	}
	if (status >= 0 && (fds[POLL_SOCKET].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
		status = websocket_read(session->websocket, session->err);
	}
	return status;
}

static bool finished(const struct session *session)
{
	bool over = session->result.exit != NULL || session->failed.kind != ERROR_NONE ||
		    websocket_ended(session->websocket);

	return session->gave_up != 0 || (over && output_queue_fd(&session->output) < 0);
}

static int session_start(struct session *session)
{
	const struct session_spec *spec = session->spec;
	CLEANUP(free_p) char *path = xasprintf("/v1/sandboxes/%s/exec", spec->sandbox);
	uint16_t rows = 24, cols = 80;
	int status = websocket_open(
		spec->socket, path, on_message, session, &session->websocket, session->err);

	if (status < 0) {
		return status;
	}
	if (spec->tty) {
		(void)terminal_size(&rows, &cols);
		json_object_set_new(spec->request, "tty", json_true());
		json_object_set_new(spec->request, "rows", json_integer(rows));
		json_object_set_new(spec->request, "cols", json_integer(cols));
	}
	send_json(session, json_incref(spec->request));
	session->stdin_open = spec->forward_stdin;
	if (!spec->forward_stdin) {
		stdin_end(session);
	}
	if (spec->tty && spec->forward_stdin && isatty(STDIN_FILENO)) {
		status = terminal_raw(STDIN_FILENO, session->err);
		session->raw = status >= 0;
	}
	return status;
}

/* What the end was, once the loop is left without a failure of this side's own. */
static int session_verdict(struct session *session)
{
	if (session->gave_up != 0) {
		session->result.exit_code = 128 + session->gave_up;
		return 0;
	}
	if (session->result.exit != NULL) {
		return 0;
	}
	if (session->failed.kind != ERROR_NONE) {
		error_copy(session->err, &session->failed);
		return -(int)session->err->kind;
	}
	error_set(session->err, ERROR_UNAVAILABLE, "the connection ended before the command did");
	return error_hint(session->err, "hobd was stopped, or the sandbox has gone: `hob info %s`",
		session->spec->sandbox);
}

int session_run(
	const struct session_spec *spec, struct session_result *ret_result, struct error *err)
{
	struct session session = {.spec = spec, .err = err};
	int status;

	buffer_init(&session.result.out, COLLECT_MAX);
	buffer_init(&session.result.err, COLLECT_MAX);
	fflush(stdout);
	session_signals_catch(spec->tty);
	status = session_start(&session);
	while (status >= 0 && !finished(&session)) {
		status = step(&session);
	}
	terminal_restore();
	session_signals_release();
	if (status < 0 && err->sys == EPIPE && output_queue_fd(&session.output) >= 0) {
		/* Whoever read our output has seen enough, as with any other program. */
		session.gave_up = SIGPIPE;
		status = 0;
	}
	status = status < 0 ? status : session_verdict(&session);
	websocket_close(session.websocket);
	output_queue_done(&session.output);
	if (status < 0) {
		session_result_done(&session.result);
		return status;
	}
	*ret_result = session.result;
	return 0;
}

void session_result_done(struct session_result *result)
{
	json_decref(result->exit);
	buffer_done(&result->out);
	buffer_done(&result->err);
	*result = (struct session_result){0};
}
