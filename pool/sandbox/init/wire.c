/*
 * The connection to hob: packets in, packets out, and a queue for what the socket has no room for.
 * Data is only sent when the queue is empty and requests are only read while it is short, so it
 * stays small whatever the other end does. A packet that makes no sense ends the connection; what
 * runs goes on and the next connection finds it.
 */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Packets waiting at which requests are left in the socket. */
#define QUEUE_PAUSE 32

struct packet {
	struct packet *next;
	size_t length;
	char data[];
};

static struct {
	int fd;
	struct watch watch;
	struct packet *first, **last;
	size_t count;
	uint32_t events;
} wire = {.fd = -1, .watch = {.kind = WATCH_CONTROL}, .last = &wire.first};

bool wire_is_open(void)
{
	return wire.fd >= 0;
}

bool wire_is_clear(void)
{
	return wire.fd >= 0 && wire.first == NULL;
}

static void wire_close(void)
{
	while (wire.first != NULL) {
		struct packet *packet = wire.first;

		wire.first = packet->next;
		free(packet);
	}
	wire.last = &wire.first;
	wire.count = 0;
	watch_close(&wire.fd);
	exec_detach_all();
	file_cancel_all();
	probe_cancel_all();
}

void wire_use(int fd)
{
	struct init_hello hello = {.version = INIT_VERSION};

	wire_close();
	(void)fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
	wire.events = EPOLLIN;
	if (!watch_add(fd, wire.events, &wire.watch)) {
		fd_close(&fd);
		return;
	}
	wire.fd = fd;
	hello.execs = (uint32_t)exec_count();
	wire_send(INIT_HELLO, 0, &hello, sizeof(hello), NULL, 0);
	exec_send_states();
}

static void set_events(void)
{
	uint32_t events = (wire.count < QUEUE_PAUSE ? (uint32_t)EPOLLIN : 0) |
			  (wire.first != NULL ? (uint32_t)EPOLLOUT : 0);

	if (wire.fd >= 0 && events != wire.events) {
		wire.events = events;
		watch_change(wire.fd, events, &wire.watch);
	}
}

/* False: not now. A broken connection counts as sent; the read side notices it. */
static bool try_send(struct iovec *parts, size_t count)
{
	struct msghdr message = {.msg_iov = parts};
	ssize_t sent;

	/* An int here, a size_t there. */
	message.msg_iovlen = (__typeof__(message.msg_iovlen))count;
	do {
		sent = sendmsg(wire.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent >= 0 || (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM);
}

static void enqueue(const struct iovec *parts, size_t count, size_t length)
{
	struct packet *packet = malloc(sizeof(*packet) + length);
	char *at;

	if (packet == NULL) {
		wire_reject();
		return;
	}
	packet->next = NULL;
	packet->length = length;
	at = packet->data;
	for (size_t i = 0; i < count; i++) {
		if (parts[i].iov_len > 0) {
			memcpy(at, parts[i].iov_base, parts[i].iov_len);
			at += parts[i].iov_len;
		}
	}
	*wire.last = packet;
	wire.last = &packet->next;
	wire.count++;
	set_events();
}

void wire_send(uint32_t type, uint32_t id, const void *body, size_t body_length, const void *data,
	size_t length)
{
	struct init_header header = {.type = type, .id = id};
	struct iovec parts[3] = {
		{&header, sizeof(header)},
		{(void *)(uintptr_t)body, body_length},
		{(void *)(uintptr_t)data, length},
	};

	if (wire.fd < 0) {
		return;
	}
	if (wire.first != NULL || !try_send(parts, 3)) {
		enqueue(parts, 3, sizeof(header) + body_length + length);
	}
}

void wire_send_u32(uint32_t type, uint32_t id, uint32_t value)
{
	wire_send(type, id, &value, sizeof(value), NULL, 0);
}

void wire_refuse(uint32_t id, int sys, const char *format, ...)
{
	struct init_refused refused = {
		.sys = (uint16_t)REFUSAL_SYS(sys), .step = (uint16_t)REFUSAL_STEP(sys)};
	char text[512];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (length < 0) {
		length = 0;
	}
	if ((size_t)length >= sizeof(text)) {
		length = (int)sizeof(text) - 1;
	}
	wire_send(INIT_REFUSED, id, &refused, sizeof(refused), text, (size_t)length);
}

/* Only shut here: the caller may be deep in a request. The end is then read like any other. */
void wire_reject(void)
{
	if (wire.fd >= 0) {
		(void)shutdown(wire.fd, SHUT_RDWR);
	}
}

static void flush_queue(void)
{
	while (wire.first != NULL) {
		struct packet *packet = wire.first;
		struct iovec part = {packet->data, packet->length};

		if (!try_send(&part, 1)) {
			break;
		}
		wire.first = packet->next;
		if (wire.first == NULL) {
			wire.last = &wire.first;
		}
		wire.count--;
		free(packet);
	}
	set_events();
}

static bool read_u32(const char *body, size_t length, uint32_t *ret_value)
{
	if (length != sizeof(*ret_value)) {
		wire_reject();
		return false;
	}
	memcpy(ret_value, body, sizeof(*ret_value));
	return true;
}

/* For what may be gone already, such as a command that ended meanwhile, silence is the answer. */
static void exec_packet(uint32_t type, struct exec *exec, const char *body, size_t length)
{
	struct init_size size;
	uint32_t value;

	switch (type) {
	case INIT_STDIN:
		exec_stdin(exec, body, length);
		break;
	case INIT_STDIN_END:
		exec_stdin_end(exec);
		break;
	case INIT_SIGNAL:
		if (read_u32(body, length, &value)) {
			exec_signal(exec, value);
		}
		break;
	case INIT_RESIZE:
		if (length == sizeof(size) && exec->tty && exec->out[0].fd >= 0) {
			memcpy(&size, body, sizeof(size));
			terminal_resize(exec->out[0].fd, &size);
		}
		break;
	case INIT_REPLAY:
		exec_replay(exec);
		break;
	default:
		exec_forget(exec);
		break;
	}
}

static void window_packet(uint32_t id, const char *body, size_t length)
{
	struct exec *exec = exec_find(id);
	struct file_job *job = file_find(id);
	uint32_t value;

	if (!read_u32(body, length, &value)) {
		return;
	}
	if (exec != NULL) {
		exec_window(exec, value);
	} else if (job != NULL) {
		job->grant += value;
	}
}

static void file_packet(uint32_t type, uint32_t id, const char *body, size_t length)
{
	struct file_job *job = file_find(id);

	if (job == NULL) {
		if (type == INIT_FILE_CANCEL) {
			probe_cancel(id);
		}
		return;
	}
	if (type == INIT_FILE_DATA) {
		file_data(job, body, length);
	} else if (type == INIT_FILE_END) {
		file_end(job);
	} else {
		file_cancel(job);
	}
}

static void packet_received(const struct init_header *header, char *body, size_t length)
{
	struct exec *exec;

	switch (header->type) {
	case INIT_EXEC:
		exec_request(header->id, body, length);
		break;
	case INIT_WINDOW:
		window_packet(header->id, body, length);
		break;
	case INIT_FILE_READ:
	case INIT_FILE_WRITE:
	case INIT_FILE_LIST:
	case INIT_FILE_REMOVE:
		file_request(header->type, header->id, body, length);
		break;
	case INIT_LOG:
		log_request(header->id, body, length);
		break;
	case INIT_PROBE:
		probe_request(header->id, body, length);
		break;
	case INIT_FILE_DATA:
	case INIT_FILE_END:
	case INIT_FILE_CANCEL:
		file_packet(header->type, header->id, body, length);
		break;
	case INIT_STDIN:
	case INIT_STDIN_END:
	case INIT_SIGNAL:
	case INIT_RESIZE:
	case INIT_REPLAY:
	case INIT_FORGET:
		exec = exec_find(header->id);
		if (exec != NULL) {
			exec_packet(header->type, exec, body, length);
		} else if (header->type == INIT_REPLAY) {
			wire_refuse(header->id, ESRCH, "no command %u here", header->id);
		}
		break;
	default:
		wire_reject();
		break;
	}
}

void wire_on_ready(uint32_t events)
{
	struct init_header header;
	ssize_t length;

	if (wire.fd < 0) {
		return;
	}
	if ((events & EPOLLOUT) != 0) {
		flush_queue();
	}
	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) {
		return;
	}
	length = recv(wire.fd, scratch, sizeof(scratch), MSG_DONTWAIT | MSG_TRUNC);
	if (length < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	if (length < (ssize_t)sizeof(header) || (size_t)length > sizeof(scratch)) {
		wire_close();
		return;
	}
	scratch_used(length);
	memcpy(&header, scratch, sizeof(header));
	packet_received(&header, scratch + sizeof(header), (size_t)length - sizeof(header));
}
