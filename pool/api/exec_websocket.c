/*
 * A command over a WebSocket: the first text frame says what to run; then bytes go both ways. The
 * command's output is granted again only when what came before was sent, and the client is read
 * only while the command takes its input. wslay does the frames, our loop the socket.
 */
#include "base/digest.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/api/body.h"
#include "pool/api/exec_start.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/object_json.h"
#include "pool/entry.h"
#include "pool/freeze.h"
#include "pool/manager.h"
#include "pool/run.h"

#include <sys/socket.h>
#include <wslay/wslay.h>

/* After our close frame the client may take this long for its own. */
#define CLOSE_TIMEOUT_MS 2000
/* One piece of output with its first byte: a packet of hob-init is the most that comes at once. */
#define PIECE_MAX 65537

struct websocket {
	struct http_server *server;
	struct websocket *next, *previous;
	struct MHD_UpgradeResponseHandle *upgrade;
	int fd;
	struct loop_source *source;
	struct loop_timer *close_timer;
	wslay_event_context_ptr frames;
	struct buffer early; /* what came together with the handshake */
	char id[ID_SIZE];
	struct run_sink sink;
	size_t unsent; /* bytes of output given to wslay and not yet to the socket */
	bool asked, failed, busy, again;
	bool ending, close_queued;
};

static void websocket_pump(struct websocket *ws);

/* ---- to the client ---- */

static void send_frame(struct websocket *ws, uint8_t opcode, const void *data, size_t length)
{
	struct wslay_event_msg message = {opcode, data, length};

	/* Fails once the close frame is queued: there is nothing more to say then. */
	(void)wslay_event_queue_msg(ws->frames, &message);
}

static void send_json(struct websocket *ws, json_t *json)
{
	CLEANUP(free_p) char *text = json_text(json);

	json_decref(json);
	send_frame(ws, WSLAY_TEXT_FRAME, text, strlen(text));
}

/* wslay sends control frames before what was queued earlier, and nothing after a close: it is
 * queued when all else was sent. */
static void send_close(struct websocket *ws)
{
	if (ws->ending && !ws->close_queued && wslay_event_get_queued_msg_count(ws->frames) == 0) {
		ws->close_queued = true;
		(void)wslay_event_queue_close(ws->frames, WSLAY_CODE_NORMAL_CLOSURE, NULL, 0);
		loop_timer_after(ws->close_timer, CLOSE_TIMEOUT_MS);
	}
}

static void send_error(struct websocket *ws, const struct error *err)
{
	send_json(ws, json_pack("{s:o}", "error", json_from_error(err)));
	ws->ending = true;
}

/* ---- from the command ---- */

static void on_started(struct run_sink *sink)
{
	struct websocket *ws = container_of(sink, struct websocket, sink);

	send_json(ws, json_pack("{s:{s:I, s:I}}", "started", "exec", (json_int_t)sink->run->id,
			      "pid", (json_int_t)sink->run->pid));
	websocket_pump(ws);
}

static void on_output(
	struct run_sink *sink, enum exec_stream stream, const void *data, size_t length)
{
	static char piece[PIECE_MAX];
	struct websocket *ws = container_of(sink, struct websocket, sink);

	ws->unsent += length;
	piece[0] = stream == EXEC_STDERR ? 2 : 1;
	while (length > 0) {
		size_t part = length < PIECE_MAX - 1 ? length : PIECE_MAX - 1;

		memcpy(piece + 1, data, part);
		send_frame(ws, WSLAY_BINARY_FRAME, piece, part + 1);
		data = (const char *)data + part;
		length -= part;
	}
	websocket_pump(ws);
}

static void on_stdin_drained(struct run_sink *sink)
{
	websocket_pump(container_of(sink, struct websocket, sink));
}

static void on_ended(struct run_sink *sink, const struct run *run)
{
	struct websocket *ws = container_of(sink, struct websocket, sink);

	if (run->error.kind != ERROR_NONE) {
		send_json(ws, json_pack("{s:o}", "error", run_error_to_json(run)));
		ws->ending = true;
	} else {
		send_json(ws, json_pack("{s:o}", "exit", run_result_to_json(run, false)));
		ws->ending = true;
	}
	websocket_pump(ws);
}

/* ---- from the client ---- */

static int start_command(struct websocket *ws, const char *text, size_t length, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct entry *entry = manager_entry(ws->server->manager, ws->id);
	struct exec_body body;
	struct run *run;
	int status;

	if (entry == NULL) {
		return error_set(err, ERROR_NOT_FOUND, "no sandbox \"%s\"", ws->id);
	}
	if ((status = json_parse_object(text, length, &json, err)) < 0 ||
		(status = exec_body_parse(json, &body, err)) < 0) {
		return status;
	}
	ws->sink.owner = true;
	ws->sink.paces = true;
	ws->sink.started = on_started;
	ws->sink.output = on_output;
	ws->sink.stdin_drained = on_stdin_drained;
	ws->sink.ended = on_ended;
	status = exec_start(entry, &body, false, true, &ws->sink, &run, err);
	exec_body_done(&body);
	return status;
}

static int control_command(struct websocket *ws, const char *text, size_t length, struct error *err)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct terminal_message message;
	struct run *run = ws->sink.run;
	int status;

	if ((status = json_parse_object(text, length, &json, err)) < 0 ||
		(status = terminal_message_parse(json, &message, err)) < 0) {
		return status;
	}
	if (run == NULL || run->handle == NULL) {
		return 0; /* it has just ended */
	}
	if (message.resize) {
		init_exec_resize(run->handle, (uint16_t)message.rows, (uint16_t)message.cols);
	}
	if (message.signal != 0) {
		init_exec_signal(run->handle, message.signal);
	}
	if (message.stdin_end) {
		run_write_end(run);
	}
	return 0;
}

static void on_message(wslay_event_context_ptr frames,
	const struct wslay_event_on_msg_recv_arg *message, void *context)
{
	struct websocket *ws = context;
	const char *data = (const char *)message->msg;
	struct error err = ERROR_INIT;
	int status = 0;

	(void)frames;
	if (message->opcode == WSLAY_TEXT_FRAME && !ws->asked) {
		ws->asked = true;
		status = start_command(ws, data, message->msg_length, &err);
	} else if (message->opcode == WSLAY_TEXT_FRAME) {
		status = control_command(ws, data, message->msg_length, &err);
	} else if (message->opcode == WSLAY_BINARY_FRAME && ws->asked) {
		if (ws->sink.run != NULL) {
			run_write(ws->sink.run, data, message->msg_length);
		}
	} else if (message->opcode == WSLAY_BINARY_FRAME) {
		status =
			error_set(&err, ERROR_INVALID, "the first frame must be text: what to run");
	}
	if (status < 0) {
		run_unwatch(&ws->sink);
		send_error(ws, &err);
	}
}

static bool stdin_is_full(const struct websocket *ws)
{
	return ws->sink.run != NULL && ws->sink.run->stdin_pending.length > RUN_STDIN_PENDING_MAX;
}

static ssize_t on_recv(
	wslay_event_context_ptr frames, uint8_t *data, size_t room, int flags, void *context)
{
	struct websocket *ws = context;
	ssize_t got;

	(void)flags;
	if (ws->early.length > 0) {
		got = (ssize_t)(ws->early.length < room ? ws->early.length : room);
		memcpy(data, ws->early.data, (size_t)got);
		buffer_consume(&ws->early, (size_t)got);
		return got;
	}
	if (stdin_is_full(ws)) {
		wslay_event_set_error(frames, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	got = recv(ws->fd, data, room, MSG_DONTWAIT);
	if (got > 0) {
		return got;
	}
	wslay_event_set_error(frames, got < 0 && (errno == EAGAIN || errno == EINTR)
					      ? WSLAY_ERR_WOULDBLOCK
					      : WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

static ssize_t on_send(wslay_event_context_ptr frames, const uint8_t *data, size_t length,
	int flags, void *context)
{
	const struct websocket *ws = context;
	ssize_t put = send(ws->fd, data, length,
		MSG_DONTWAIT | MSG_NOSIGNAL | ((flags & WSLAY_MSG_MORE) != 0 ? MSG_MORE : 0));

	if (put < 0) {
		wslay_event_set_error(frames, errno == EAGAIN || errno == EINTR
						      ? WSLAY_ERR_WOULDBLOCK
						      : WSLAY_ERR_CALLBACK_FAILURE);
	}
	return put;
}

/* ---- the socket ---- */

static void websocket_free(struct websocket *ws)
{
	run_unwatch(&ws->sink);
	loop_source_free(ws->source);
	loop_timer_free(ws->close_timer);
	wslay_event_context_free(ws->frames);
	buffer_done(&ws->early);
	*(ws->previous != NULL ? &ws->previous->next : &ws->server->websockets) = ws->next;
	if (ws->next != NULL) {
		ws->next->previous = ws->previous;
	}
	/* The library closes the socket, and tells the end of the request. */
	MHD_upgrade_action(ws->upgrade, MHD_UPGRADE_ACTION_CLOSE);
	http_server_kick(ws->server);
	free(ws);
}

static void pump_once(struct websocket *ws)
{
	if (wslay_event_want_read(ws->frames) && !stdin_is_full(ws) &&
		wslay_event_recv(ws->frames) < 0) {
		ws->failed = true;
	}
	for (int i = 0; i < 2 && !ws->failed; i++) {
		if (wslay_event_want_write(ws->frames) && wslay_event_send(ws->frames) < 0) {
			ws->failed = true;
		}
		send_close(ws);
	}
	if (!ws->failed && ws->unsent > 0 && wslay_event_get_queued_msg_count(ws->frames) == 0) {
		size_t sent = ws->unsent;

		ws->unsent = 0;
		if (ws->sink.run != NULL) {
			run_consumed(ws->sink.run, sent);
		}
	}
}

/* Frees a socket that is done; called from a command's events it only asks for that, by the timer.
 */
static void websocket_pump(struct websocket *ws)
{
	bool reads, writes;

	if (ws->busy) {
		ws->again = true;
		return;
	}
	ws->busy = true;
	do {
		ws->again = false;
		pump_once(ws);
	} while (ws->again && !ws->failed);
	ws->busy = false;
	reads = wslay_event_want_read(ws->frames) != 0;
	writes = wslay_event_want_write(ws->frames) != 0;
	if (ws->failed || (!reads && !writes)) {
		ws->failed = true;
		loop_source_events(ws->source, 0);
		loop_timer_at(ws->close_timer, 0);
		return;
	}
	loop_source_events(ws->source,
		(reads && !stdin_is_full(ws) ? EPOLLIN : 0u) | (writes ? EPOLLOUT : 0u));
}

static void on_socket(void *context, uint32_t events)
{
	struct websocket *ws = context;

	if ((events & (EPOLLHUP | EPOLLERR)) != 0 && (events & EPOLLIN) == 0) {
		websocket_free(ws);
		return;
	}
	websocket_pump(ws);
}

static void on_close_timer(void *context)
{
	websocket_free(context);
}

void websockets_close(struct http_server *server)
{
	while (server->websockets != NULL) {
		websocket_free(server->websockets);
	}
}

static void on_upgraded(void *context, struct MHD_Connection *connection, void *slot,
	const char *early, size_t early_length, MHD_socket fd,
	struct MHD_UpgradeResponseHandle *upgrade)
{
	static const struct wslay_event_callbacks callbacks = {.recv_callback = on_recv,
		.send_callback = on_send,
		.on_msg_recv_callback = on_message};
	struct http_server *server = context;
	const struct http_request *request = slot;
	struct websocket *ws = xcalloc(1, sizeof(*ws));
	struct error err = ERROR_INIT;

	(void)connection;
	ws->server = server;
	ws->upgrade = upgrade;
	ws->fd = fd;
	snprintf(ws->id, sizeof(ws->id), "%.*s", ID_SIZE - 1, request->match.args[0]);
	buffer_init(&ws->early, 0);
	buffer_add(&ws->early, early, early_length);
	ws->close_timer = loop_timer_new(server->loop, on_close_timer, ws);
	ws->next = server->websockets;
	if (ws->next != NULL) {
		ws->next->previous = ws;
	}
	server->websockets = ws;
	if (wslay_event_context_server_init(&ws->frames, &callbacks, ws) != 0) {
		abort();
	}
	wslay_event_config_set_max_recv_msg_length(
		ws->frames, (uint64_t)server->config->body_bytes_max);
	if (loop_add_fd(server->loop, fd, EPOLLIN, on_socket, ws, &ws->source, &err) < 0) {
		log_failure("websocket.unwatched", &err);
		loop_timer_at(ws->close_timer, 0);
		return;
	}
	if (early_length > 0) {
		websocket_pump(ws);
	}
}

void handle_exec_websocket(struct http_request *request)
{
	const char *key = http_header(request, "Sec-WebSocket-Key");
	struct entry *entry = http_entry(request);
	struct error err = ERROR_INIT;
	char accept[WEBSOCKET_ACCEPT_SIZE];
	struct MHD_Response *response;

	if (entry == NULL) {
		return;
	}
	if (!http_header_has(request, MHD_HTTP_HEADER_UPGRADE, "websocket") || key == NULL) {
		error_set(&err, ERROR_INVALID, "GET …/exec is for WebSocket clients");
		error_hint(&err, "POST …/exec runs a command");
		http_reply_error_status(request, MHD_HTTP_UPGRADE_REQUIRED, &err);
		return;
	}
	if (entry_wake(entry, false, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	digest_websocket_accept(key, accept);
	response = MHD_create_response_for_upgrade(on_upgraded, request->server);
	if (response == NULL) {
		abort();
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, "websocket");
	MHD_add_response_header(response, "Sec-WebSocket-Accept", accept);
	http_reply(request, MHD_HTTP_SWITCHING_PROTOCOLS, response);
}
