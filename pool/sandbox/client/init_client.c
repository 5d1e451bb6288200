/*
 * hob's end of the connection to a sandbox's hob-init: packets out, with a bounded queue for what
 * the socket has no room for; packets in, each checked before anything is done with it, because a
 * sandbox might have taken its init over. The first one that cannot be right ends the connection.
 */
#include "pool/sandbox/client/init_client_internal.h"

#include "base/io.h"
#include "base/loop.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Waiting requests and data at which further ones are refused, and the end of patience for all. */
#define QUEUE_BYTES_MAX (1024 * 1024)
#define QUEUE_BYTES_LAST (4 * 1024 * 1024)
/* Packets taken in one turn of the loop, so that other work goes on. */
#define PACKETS_A_TURN 16

struct packet {
	struct packet *next;
	size_t length;
	char data[];
};

/* hob has one event loop: what is received lives until its callbacks are done. */
static char received[INIT_PACKET_MAX] __attribute__((aligned(8)));

/* ---- life ---- */

static void queue_clear(struct init_client *client)
{
	while (client->first != NULL) {
		struct packet *packet = client->first;

		client->first = packet->next;
		free(packet);
	}
	client->last = &client->first;
	client->queued_bytes = 0;
}

static void bury(struct init_client *client)
{
	while (client->dead_execs != NULL) {
		struct init_exec_handle *exec = client->dead_execs;

		client->dead_execs = exec->next;
		free(exec);
	}
	while (client->dead_files != NULL) {
		struct init_file_handle *file = client->dead_files;

		client->dead_files = file->next;
		free(file);
	}
}

void client_enter(struct init_client *client)
{
	client->depth++;
}

void client_leave(struct init_client *client)
{
	if (--client->depth > 0) {
		return;
	}
	bury(client);
	if (client->freed) {
		free(client->states);
		free(client);
	}
}

void init_client_free(struct init_client *client)
{
	if (client == NULL || client->freed) {
		return;
	}
	client_enter(client);
	client->freed = true;
	while (client->execs != NULL) {
		exec_unlink(client->execs);
	}
	while (client->files != NULL) {
		file_unlink(client->files);
	}
	queue_clear(client);
	loop_source_free(client->source);
	client->source = NULL;
	fd_done(&client->fd);
	client_leave(client);
}

/* The connection is over: every request ends, then the client is told. */
static void client_break(struct init_client *client, struct error *err)
{
	if (client->broken || client->freed) {
		return;
	}
	client->broken = true;
	queue_clear(client);
	loop_source_free(client->source);
	client->source = NULL;
	fd_done(&client->fd);
	while (!client->freed && client->execs != NULL) {
		exec_end_with(client->execs, err);
	}
	while (!client->freed && client->files != NULL) {
		file_end_with(client->files, err);
	}
	if (!client->freed && client->events->closed != NULL) {
		client->events->closed(client->context);
	}
}

static void break_for_nonsense(struct init_client *client, const char *what)
{
	struct error err = ERROR_INIT;

	error_set(&err, ERROR_UNAVAILABLE, "the sandbox's init broke its protocol: %s", what);
	client_break(client, &err);
}

static void break_for_end(struct init_client *client, int sys)
{
	struct error err = ERROR_INIT;

	if (sys != 0) {
		error_sys(&err, sys, "the connection to the sandbox's init");
		err.kind = ERROR_UNAVAILABLE;
	} else {
		error_set(&err, ERROR_UNAVAILABLE, "the sandbox's init closed the connection");
	}
	client_break(client, &err);
}

/* ---- out ---- */

static void want_writable(struct init_client *client, bool wanted)
{
	if (client->writable_wanted != wanted && client->source != NULL) {
		client->writable_wanted = wanted;
		loop_source_events(client->source, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN);
	}
}

/* False: no room now. A broken connection counts as sent: reading tells of it. */
static bool try_send(const struct init_client *client, struct iovec *parts, size_t count)
{
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
	ssize_t sent;

	do {
		sent = sendmsg(client->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent >= 0 || (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM);
}

static void enqueue(struct init_client *client, const struct iovec *parts, size_t count)
{
	struct packet *packet;
	size_t length = 0;

	for (size_t i = 0; i < count; i++) {
		length += parts[i].iov_len;
	}
	packet = xmalloc(sizeof(*packet) + length);
	packet->next = NULL;
	packet->length = 0;
	for (size_t i = 0; i < count; i++) {
		if (parts[i].iov_len > 0) {
			memcpy(packet->data + packet->length, parts[i].iov_base, parts[i].iov_len);
			packet->length += parts[i].iov_len;
		}
	}
	*client->last = packet;
	client->last = &packet->next;
	client->queued_bytes += sizeof(*packet) + length;
	want_writable(client, true);
}

static void send_packet(struct init_client *client, uint32_t type, uint32_t id,
	const struct part *parts, size_t count)
{
	struct init_header header = {.type = type, .id = id};
	struct iovec vector[4] = {{&header, sizeof(header)}};

	for (size_t i = 0; i < count; i++) {
		vector[i + 1] = (struct iovec){(void *)(uintptr_t)parts[i].data, parts[i].length};
	}
	if (client->first != NULL || !try_send(client, vector, count + 1)) {
		enqueue(client, vector, count + 1);
	}
}

int client_request(struct init_client *client, uint32_t type, uint32_t id, const struct part *parts,
	size_t count, struct error *err)
{
	if (client->broken) {
		return error_set(err, ERROR_UNAVAILABLE, "the sandbox's init is gone");
	}
	if (client->queued_bytes > QUEUE_BYTES_MAX) {
		return error_set(err, ERROR_LIMIT,
			"the sandbox does not take requests: %zu bytes wait for it",
			client->queued_bytes);
	}
	send_packet(client, type, id, parts, count);
	return 0;
}

void client_control(
	struct init_client *client, uint32_t type, uint32_t id, const void *body, size_t length)
{
	struct part part = {body, length};

	if (client->broken || client->freed) {
		return;
	}
	if (client->queued_bytes > QUEUE_BYTES_LAST) {
		/* The loop then reads the end of the connection. */
		(void)shutdown(client->fd, SHUT_RDWR);
		return;
	}
	send_packet(client, type, id, &part, 1);
}

static void flush_queue(struct init_client *client)
{
	while (client->first != NULL) {
		struct packet *packet = client->first;
		struct iovec part = {packet->data, packet->length};

		if (!try_send(client, &part, 1)) {
			return;
		}
		client->first = packet->next;
		if (client->first == NULL) {
			client->last = &client->first;
		}
		client->queued_bytes -= sizeof(*packet) + packet->length;
		free(packet);
	}
	want_writable(client, false);
}

/* ---- in ---- */

static void call_ready(struct init_client *client)
{
	client->is_ready = true;
	if (client->events->ready != NULL) {
		client->events->ready(client->context, client->states, client->states_count);
	}
	if (!client->freed) {
		free(client->states);
		client->states = NULL;
		client->states_count = 0;
	}
}

static const char *hello_packet(struct init_client *client, const void *body, size_t length)
{
	struct init_hello hello;

	if (length != sizeof(hello)) {
		return "a greeting of the wrong length";
	}
	memcpy(&hello, body, sizeof(hello));
	if (hello.version != INIT_VERSION) {
		return "another version: the sandbox was made by another hob";
	}
	if (hello.execs > INIT_EXECS_MAX) {
		return "too many commands announced";
	}
	client->greeted = true;
	client->states_left = hello.execs;
	client->states = hello.execs > 0 ? xcalloc(hello.execs, sizeof(*client->states)) : NULL;
	if (hello.execs == 0) {
		call_ready(client);
	}
	return NULL;
}

static const char *state_packet(struct init_client *client, uint32_t id, size_t length)
{
	if (length != sizeof(struct init_state) || id == 0 || id >= INIT_FILE_ID_FIRST) {
		return "a malformed state";
	}
	for (size_t i = 0; i < client->states_count; i++) {
		if (client->states[i] == id) {
			return "a command announced twice";
		}
	}
	client->states[client->states_count++] = id;
	if (--client->states_left == 0) {
		call_ready(client);
	}
	return NULL;
}

/* What a handle that is gone may still get is dropped: init had sent it before it heard. */
static const char *handle_packet(struct init_client *client, const struct init_header *header,
	const void *body, size_t length)
{
	struct init_exec_handle *exec;
	struct init_file_handle *file;

	if (header->id >= INIT_FILE_ID_FIRST) {
		file = file_find(client, header->id);
		return file != NULL ? file_packet(file, header->type, body, length) : NULL;
	}
	exec = exec_find(client, header->id);
	return exec != NULL ? exec_packet(exec, header->type, body, length) : NULL;
}

static const char *packet_received(struct init_client *client, const struct init_header *header,
	const void *body, size_t length)
{
	if (!client->greeted) {
		return header->type == INIT_HELLO && header->id == 0
			       ? hello_packet(client, body, length)
			       : "no greeting";
	}
	if (!client->is_ready) {
		return header->type == INIT_STATE ? state_packet(client, header->id, length)
						  : "something between the states";
	}
	switch (header->type) {
	case INIT_STARTED:
	case INIT_REFUSED:
	case INIT_STDOUT:
	case INIT_STDERR:
	case INIT_STDIN_WINDOW:
	case INIT_EXITED:
	case INIT_FILE_INFO:
	case INIT_FILE_ENTRY:
	case INIT_FILE_DATA:
	case INIT_FILE_DONE:
		return handle_packet(client, header, body, length);
	default:
		return "an unknown type of message";
	}
}

/* True: another packet may be waiting that belongs to the same stream of data. */
static bool receive(struct init_client *client)
{
	struct init_header header;
	const char *wrong;
	ssize_t length = recv(client->fd, received, sizeof(received), MSG_DONTWAIT | MSG_TRUNC);

	if (length < 0 && (errno == EAGAIN || errno == EINTR)) {
		return false;
	}
	if (length <= 0) {
		break_for_end(client, length < 0 ? errno : 0);
		return false;
	}
	if ((size_t)length < sizeof(header) || (size_t)length > sizeof(received)) {
		break_for_nonsense(client, "a packet of the wrong length");
		return false;
	}
	memcpy(&header, received, sizeof(header));
	wrong = packet_received(
		client, &header, received + sizeof(header), (size_t)length - sizeof(header));
	if (wrong != NULL) {
		break_for_nonsense(client, wrong);
	}
	/* After anything else the next packet is usually far off, and a look costs a system call.
	 */
	return header.type == INIT_STDOUT || header.type == INIT_STDERR ||
	       header.type == INIT_FILE_DATA || header.type == INIT_FILE_ENTRY ||
	       header.type == INIT_STATE;
}

static void on_ready(void *context, uint32_t events)
{
	struct init_client *client = context;

	client_enter(client);
	if ((events & EPOLLOUT) != 0) {
		flush_queue(client);
	}
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
		for (int i = 0; i < PACKETS_A_TURN && !client->broken && !client->freed; i++) {
			if (!receive(client)) {
				break;
			}
		}
	}
	client_leave(client);
}

int init_client_new(struct loop *loop, int fd, const struct init_client_events *events,
	void *context, struct init_client **ret_client, struct error *err)
{
	struct init_client *client = xcalloc(1, sizeof(*client));
	int result;

	client->fd = fd;
	client->last = &client->first;
	client->events = events;
	client->context = context;
	client->next_file_id = INIT_FILE_ID_FIRST;
	result = loop_add_fd(loop, fd, EPOLLIN, on_ready, client, &client->source, err);
	if (result < 0) {
		free(client);
		return error_wrap(err, "connection to a sandbox's init");
	}
	*ret_client = client;
	return 0;
}

int init_client_connect(const char *run, const char *id, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int dir = -1;
	CLEANUP(close_p) int fd = -1;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	CLEANUP(free_p) char *folder = xasprintf("%s/sandboxes/%s", run, id);

	if (!name_is_valid(id)) {
		return error_set(err, ERROR_INVALID, "\"%s\" is no id of a sandbox", id);
	}
	dir = io_open(AT_FDCWD, folder, O_PATH | O_DIRECTORY, 0, err);
	if (dir < 0) {
		return dir;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return error_sys(err, errno, "socket");
	}
	/* By the folder's descriptor: <run> may be longer than what an address holds. */
	(void)snprintf(
		address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/init.sock", dir);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		return error_sys(err, errno, "connect to %s/init.sock", folder);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}
