/* The handshake by hand, the frames by wslay. Reading has a budget for each call, so that a fast
 * sender cannot keep the loop from writing out what has already come. */
#include "pool/cli/websocket.h"

#include "base/base64.h"
#include "base/digest.h"
#include "base/io.h"
#include "pool/cli/http.h"

#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <wslay/wslay.h>

#define HANDSHAKE_SECONDS 30
/* Of the reply's head, and of the body of a refusal. */
#define HANDSHAKE_MAX 65536
/* hobd sends output in pieces of at most 64 KiB. */
#define MESSAGE_MAX (8 * 1024 * 1024)
#define READ_BUDGET (256 * 1024)

struct websocket {
	int fd;
	websocket_message_fn *fn;
	void *context;
	wslay_event_context_ptr events;
	struct buffer early; /* came with the handshake, belongs to the frames */
	size_t budget; /* bytes that this call may still read */
	bool deaf; /* it takes no more from us; what it said before may still be read */
	bool ended;
};

static ssize_t on_recv(
	wslay_event_context_ptr events, uint8_t *data, size_t room, int flags, void *context)
{
	struct websocket *websocket = context;
	ssize_t got;

	(void)flags;
	if (websocket->early.length > 0) {
		size_t length = websocket->early.length < room ? websocket->early.length : room;

		memcpy(data, websocket->early.data, length);
		buffer_consume(&websocket->early, length);
		return (ssize_t)length;
	}
	if (websocket->budget == 0) {
		wslay_event_set_error(events, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	do {
		got = recv(websocket->fd, data, room, 0);
	} while (got < 0 && errno == EINTR);
	if (got > 0) {
		size_t length = (size_t)got;

		websocket->budget -= length < websocket->budget ? length : websocket->budget;
		return got;
	}
	if (got < 0 && errno == EAGAIN) {
		wslay_event_set_error(events, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	websocket->ended = true;
	wslay_event_set_error(events, WSLAY_ERR_CALLBACK_FAILURE);
	return -1;
}

static ssize_t on_send(wslay_event_context_ptr events, const uint8_t *data, size_t length,
	int flags, void *context)
{
	const struct websocket *websocket = context;
	ssize_t sent;

	do {
		sent = send(websocket->fd, data, length,
			MSG_NOSIGNAL | ((flags & WSLAY_MSG_MORE) != 0 ? MSG_MORE : 0));
	} while (sent < 0 && errno == EINTR);
	if (sent < 0) {
		wslay_event_set_error(events,
			errno == EAGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
	}
	return sent;
}

static int on_mask(wslay_event_context_ptr events, uint8_t *data, size_t length, void *context)
{
	(void)context;
	if (getrandom(data, length, 0) != (ssize_t)length) {
		wslay_event_set_error(events, WSLAY_ERR_CALLBACK_FAILURE);
		return -1;
	}
	return 0;
}

static void on_message(wslay_event_context_ptr events,
	const struct wslay_event_on_msg_recv_arg *message, void *context)
{
	struct websocket *websocket = context;

	(void)events;
	if (message->opcode == WSLAY_CONNECTION_CLOSE) {
		websocket->ended = true;
	} else if (message->opcode == WSLAY_TEXT_FRAME || message->opcode == WSLAY_BINARY_FRAME) {
		websocket->fn(websocket->context, message->opcode == WSLAY_TEXT_FRAME, message->msg,
			message->msg_length);
	}
}

static int send_request(
	struct websocket *websocket, const char *path, char *ret_accept, struct error *err)
{
	unsigned char raw[16];
	CLEANUP(free_p) char *key = NULL;
	CLEANUP(free_p) char *request = NULL;

	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw)) {
		return error_sys(err, errno, "get random bytes");
	}
	key = base64_encode(raw, sizeof(raw));
	digest_websocket_accept(key, ret_accept);
	request = xasprintf(
		"GET %s HTTP/1.1\r\nHost: hob\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
		path, key);
	return io_write_full(websocket->fd, request, strlen(request), err);
}

/* More of the reply into `reply`; 0 at its end. */
static ssize_t receive_more(struct websocket *websocket, struct buffer *reply, struct error *err)
{
	char chunk[4096];
	ssize_t got;

	do {
		got = recv(websocket->fd, chunk, sizeof(chunk), 0);
	} while (got < 0 && errno == EINTR);
	if (got < 0) {
		return errno == EAGAIN
			       ? error_set(err, ERROR_TIMEOUT, "hobd has not answered for %d s",
					 HANDSHAKE_SECONDS)
			       : error_sys(err, errno, "read from hobd");
	}
	if (!buffer_add(reply, chunk, (size_t)got)) {
		return error_set(err, ERROR_LIMIT, "hobd's answer is over %d bytes", HANDSHAKE_MAX);
	}
	return got;
}

/* The value of a header in a head that ends with a blank line; NULL without. The caller frees it.
 */
static char *header_value(const char *head, const char *name)
{
	size_t length = strlen(name);

	for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
			line += length + 1;
			line += strspn(line, " \t");
			return xstrndup(line, strcspn(line, "\r\n \t"));
		}
	}
	return NULL;
}

/* A reply other than 101: its body, as far as its length says, is an error of hobd's. */
static int refused(struct websocket *websocket, struct buffer *reply, size_t head_bytes, int status,
	struct error *err)
{
	CLEANUP(free_p) char *length_text = header_value(buffer_text(reply), "Content-Length");
	size_t length = length_text != NULL ? (size_t)strtoul(length_text, NULL, 10) : SIZE_MAX;

	while (reply->length - head_bytes < length) {
		ssize_t got = receive_more(websocket, reply, err);

		if (got < 0) {
			return (int)got;
		}
		if (got == 0) {
			break;
		}
	}
	return http_error_from_reply(
		status, buffer_text(reply) + head_bytes, reply->length - head_bytes, err);
}

static int read_reply(struct websocket *websocket, const char *accept, struct error *err)
{
	struct buffer *reply = &websocket->early;
	CLEANUP(free_p) char *answer = NULL;
	const char *end;
	size_t head_bytes;
	int status = 0;

	while ((end = strstr(buffer_text(reply), "\r\n\r\n")) == NULL) {
		ssize_t got = receive_more(websocket, reply, err);

		if (got < 0) {
			return (int)got;
		}
		if (got == 0) {
			return error_set(err, ERROR_UNAVAILABLE, "hobd ended the connection");
		}
	}
	head_bytes = (size_t)(end - buffer_text(reply)) + 4;
	if (sscanf(buffer_text(reply), "HTTP/1.%*1d %3d", &status) != 1) {
		return error_set(err, ERROR_CORRUPT, "hobd's answer is not HTTP");
	}
	if (status != 101) {
		return refused(websocket, reply, head_bytes, status, err);
	}
	answer = header_value(buffer_text(reply), "Sec-WebSocket-Accept");
	if (answer == NULL || !streq(answer, accept)) {
		return error_set(
			err, ERROR_CORRUPT, "hobd's WebSocket answer does not match the key");
	}
	buffer_consume(reply, head_bytes);
	return 0;
}

static int shake_hands(struct websocket *websocket, const char *path, struct error *err)
{
	const struct timeval patience = {.tv_sec = HANDSHAKE_SECONDS};
	char accept[WEBSOCKET_ACCEPT_SIZE];
	int status;

	if (setsockopt(websocket->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0) {
		return error_sys(err, errno, "set the socket's timeout");
	}
	status = send_request(websocket, path, accept, err);
	if (status >= 0) {
		status = read_reply(websocket, accept, err);
	}
	return status < 0 ? status : io_set_nonblock(websocket->fd, true);
}

int websocket_open(const char *socket_path, const char *path, websocket_message_fn *fn,
	void *context, struct websocket **ret_socket, struct error *err)
{
	static const struct wslay_event_callbacks callbacks = {
		.recv_callback = on_recv,
		.send_callback = on_send,
		.genmask_callback = on_mask,
		.on_msg_recv_callback = on_message,
	};
	CLEANUP(websocket_close_p) struct websocket *websocket = xcalloc(1, sizeof(*websocket));
	int status;

	websocket->fn = fn;
	websocket->context = context;
	buffer_init(&websocket->early, HANDSHAKE_MAX);
	websocket->fd = -1;
	status = socket_connect(socket_path, &websocket->fd, err);
	if (status >= 0) {
		status = shake_hands(websocket, path, err);
	}
	if (status < 0) {
		return status;
	}
	if (wslay_event_context_client_init(&websocket->events, &callbacks, websocket) != 0) {
		return error_set(err, ERROR_INTERNAL, "wslay did not start");
	}
	wslay_event_config_set_max_recv_msg_length(websocket->events, MESSAGE_MAX);
	*ret_socket = steal_ptr(websocket);
	return 0;
}

void websocket_close(struct websocket *websocket)
{
	if (websocket != NULL) {
		if (websocket->events != NULL) {
			wslay_event_context_free(websocket->events);
		}
		fd_done(&websocket->fd);
		buffer_done(&websocket->early);
		free(websocket);
	}
}

int websocket_fd(const struct websocket *websocket)
{
	return websocket->fd;
}

short websocket_events(const struct websocket *websocket)
{
	bool writes = !websocket->deaf && wslay_event_want_write(websocket->events);

	return (short)((wslay_event_want_read(websocket->events) ? POLLIN : 0) |
		       (writes ? POLLOUT : 0));
}

size_t websocket_queued(const struct websocket *websocket)
{
	return wslay_event_get_queued_msg_length(websocket->events);
}

void websocket_send(struct websocket *websocket, bool text, const void *data, size_t length)
{
	const struct wslay_event_msg message = {
		.opcode = text ? WSLAY_TEXT_FRAME : WSLAY_BINARY_FRAME,
		.msg = data,
		.msg_length = length};

	if (!websocket->deaf && wslay_event_queue_msg(websocket->events, &message) != 0) {
		/* It has said goodbye: that it will not read this is no failure of ours. */
		websocket->deaf = true;
	}
}

int websocket_read(struct websocket *websocket, struct error *err)
{
	int status;

	websocket->budget = READ_BUDGET;
	status = wslay_event_recv(websocket->events);
	if (status == 0) {
		/* wslay closes by itself on a frame that breaks the protocol. */
		websocket->ended = websocket->ended || !wslay_event_want_read(websocket->events);
		return 0;
	}
	if (status == WSLAY_ERR_CALLBACK_FAILURE) {
		websocket->ended = true;
		return 0;
	}
	return error_set(err, ERROR_CORRUPT, "hobd's frames make no sense (%d)", status);
}

void websocket_write(struct websocket *websocket)
{
	if (!websocket->deaf && wslay_event_send(websocket->events) != 0) {
		websocket->deaf = true;
	}
}

bool websocket_ended(const struct websocket *websocket)
{
	return websocket->ended;
}
