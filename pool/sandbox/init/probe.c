/*
 * Probes: is something listening, answering or there yet? Each is one try with a time limit;
 * nothing waits for it. What answers may be anything: of HTTP only the status in the first bytes is
 * looked at. After the verdict the rest of a short answer is still read, so that an honest server
 * does not find its connection reset.
 */
#include "pool/sandbox/init/init.h"
#include "pool/sandbox/init/http_status.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of an answer whose verdict is known: read no more than this, no longer than this. */
#define DRAIN_BYTES 65536
#define DRAIN_MS 1000
#define TIMEOUT_MS_MAX 60000

struct probe {
	struct probe *next;
	uint32_t id;
	struct watch watch;
	struct init_probe request;
	char *text;
	size_t length, sent;
	int fd;
	bool second; /* ::1 is being tried, after 127.0.0.1 */
	bool connected;
	bool answered; /* hob knows; what is left is politeness */
	bool dead;
	char line[HTTP_STATUS_BYTES];
	size_t line_length, drained;
	int64_t deadline_ms;
};

static struct probe *probes;

static void probe_end(struct probe *probe)
{
	watch_close(&probe->fd);
	probe->dead = true;
}

static void answer(struct probe *probe, uint64_t status)
{
	probe->answered = true;
	wire_send(INIT_FILE_DONE, probe->id, &status, sizeof(status), NULL, 0);
}

static void refuse(struct probe *probe, int sys, const char *why)
{
	probe->answered = true;
	if (probe->request.kind == INIT_PROBE_FILE) {
		wire_refuse(probe->id, sys, "%.300s: %s", probe->text, why);
	} else {
		wire_refuse(probe->id, sys, "port %u: %s", probe->request.port, why);
	}
	probe_end(probe);
}

/* 0 or an errno. The end of the connecting is an event. */
static int connect_start(struct probe *probe)
{
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in four = {.sin_family = AF_INET};
	const struct sockaddr *address = (const void *)&four;
	socklen_t length = sizeof(four);

	four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	four.sin_port = htons((uint16_t)probe->request.port);
	six.sin6_port = four.sin_port;
	if (probe->second) {
		address = (const void *)&six;
		length = sizeof(six);
	}
	probe->fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe->fd < 0) {
		return errno;
	}
	if (connect(probe->fd, address, length) < 0 && errno != EINPROGRESS) {
		return errno;
	}
	return watch_add(probe->fd, EPOLLOUT, &probe->watch) ? 0 : ENOMEM;
}

/* A server may listen on one of the two loopback addresses only. */
static void try_next(struct probe *probe, int sys)
{
	while (sys != 0) {
		watch_close(&probe->fd);
		if (probe->second) {
			/* What 127.0.0.1 said is what people expect to read. */
			refuse(probe, ECONNREFUSED, "nobody listens there");
			return;
		}
		probe->second = true;
		sys = connect_start(probe);
	}
}

static void send_request(struct probe *probe)
{
	ssize_t sent = send(probe->fd, probe->text + probe->sent, probe->length - probe->sent,
		MSG_DONTWAIT | MSG_NOSIGNAL);

	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		refuse(probe, errno, strerror(errno));
		return;
	}
	probe->sent += sent > 0 ? (size_t)sent : 0;
	if (probe->sent == probe->length) {
		watch_change(probe->fd, EPOLLIN, &probe->watch);
	}
}

static void look_at(struct probe *probe, const char *data, size_t length)
{
	size_t room = sizeof(probe->line) - probe->line_length;
	char why[64];
	int status;

	memcpy(probe->line + probe->line_length, data, length < room ? length : room);
	probe->line_length += length < room ? length : room;
	status = http_status_read(probe->line, probe->line_length);
	if (status < 0) {
		refuse(probe, EPROTO, "what listens there does not speak HTTP");
	} else if (status >= 400 || (status > 0 && status < 200)) {
		text_format(why, sizeof(why), "answered with status %d", status);
		refuse(probe, EPROTO, why);
	} else if (status > 0) {
		answer(probe, (uint64_t)status);
		probe->deadline_ms = now_ms() + DRAIN_MS;
	}
}

static void receive(struct probe *probe)
{
	ssize_t got = recv(probe->fd, scratch, 4096, MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	if (got <= 0) {
		if (!probe->answered) {
			refuse(probe, EPROTO, "closed the connection without an answer");
		} else {
			probe_end(probe);
		}
		return;
	}
	if (!probe->answered) {
		look_at(probe, scratch, (size_t)got);
	}
	probe->drained += (size_t)got;
	if (probe->answered && !probe->dead && probe->drained >= DRAIN_BYTES) {
		probe_end(probe);
	}
}

static void connected(struct probe *probe)
{
	int sys = 0;
	socklen_t length = sizeof(sys);

	if (getsockopt(probe->fd, SOL_SOCKET, SO_ERROR, &sys, &length) < 0) {
		sys = errno;
	}
	if (sys != 0) {
		try_next(probe, sys);
		return;
	}
	probe->connected = true;
	if (probe->request.kind == INIT_PROBE_TCP) {
		answer(probe, 0);
		probe_end(probe);
	} else {
		send_request(probe);
	}
}

void probe_on_ready(struct probe *probe, uint32_t events)
{
	if (probe->dead || probe->fd < 0) {
		return;
	}
	if (!probe->connected) {
		connected(probe);
	} else if (probe->sent < probe->length) {
		send_request(probe);
	} else if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
		receive(probe);
	}
}

static struct probe *probe_find(uint32_t id)
{
	for (struct probe *probe = probes; probe != NULL; probe = probe->next) {
		if (probe->id == id && !probe->dead && !probe->answered) {
			return probe;
		}
	}
	return NULL;
}

void probe_cancel(uint32_t id)
{
	struct probe *probe = probe_find(id);

	if (probe != NULL) {
		probe_end(probe);
	}
}

void probe_cancel_all(void)
{
	for (struct probe *probe = probes; probe != NULL; probe = probe->next) {
		probe_end(probe);
	}
}

int probe_timeout_ms(void)
{
	int64_t first_ms = INT64_MAX;

	for (const struct probe *probe = probes; probe != NULL; probe = probe->next) {
		if (!probe->dead && probe->deadline_ms < first_ms) {
			first_ms = probe->deadline_ms;
		}
	}
	if (first_ms == INT64_MAX) {
		return -1;
	}
	first_ms -= now_ms();
	return first_ms < 0 ? 0 : (int)first_ms;
}

void probe_bury(void)
{
	struct probe **at = &probes;

	while (*at != NULL) {
		struct probe *probe = *at;

		if (!probe->dead && now_ms() >= probe->deadline_ms) {
			if (probe->answered) {
				probe_end(probe);
			} else {
				refuse(probe, ETIMEDOUT,
					probe->connected ? "accepts, but does not answer"
							 : "does not accept");
			}
		}
		if (probe->dead) {
			*at = probe->next;
			free(probe->text);
			free(probe);
		} else {
			at = &probe->next;
		}
	}
}

static void file_probe(struct probe *probe)
{
	int fd = path_open(-1, probe->text, O_PATH, 0);

	if (fd < 0) {
		refuse(probe, -fd, strerror(-fd));
		return;
	}
	close(fd);
	answer(probe, 0);
	probe_end(probe);
}

static struct probe *probe_new(uint32_t id, const char *body, size_t length)
{
	size_t text_length = length - sizeof(struct init_probe), count = 0;
	struct probe *probe;

	for (probe = probes; probe != NULL; probe = probe->next) {
		count += probe->dead ? 0 : 1;
	}
	if (count >= INIT_PROBES_MAX) {
		return NULL;
	}
	probe = calloc(1, sizeof(*probe));
	if (probe == NULL ||
		(probe->text = strndup(body + sizeof(struct init_probe), text_length)) == NULL) {
		free(probe);
		return NULL;
	}
	memcpy(&probe->request, body, sizeof(probe->request));
	probe->id = id;
	probe->fd = -1;
	probe->length = strlen(probe->text);
	probe->watch = (struct watch){.kind = WATCH_PROBE, .probe = probe};
	probe->deadline_ms =
		now_ms() + (probe->request.timeout_ms < TIMEOUT_MS_MAX ? probe->request.timeout_ms
								       : TIMEOUT_MS_MAX);
	probe->next = probes;
	probes = probe;
	return probe;
}

void probe_request(uint32_t id, const char *body, size_t length)
{
	struct probe *probe;

	if (length < sizeof(struct init_probe) ||
		length - sizeof(struct init_probe) > INIT_PROBE_TEXT_MAX ||
		id < INIT_FILE_ID_FIRST || probe_find(id) != NULL) {
		wire_refuse(id, EINVAL, "malformed request");
		return;
	}
	probe = probe_new(id, body, length);
	if (probe == NULL) {
		wire_refuse(id, EBUSY, "more than %d probes at a time", INIT_PROBES_MAX);
	} else if (probe->request.kind == INIT_PROBE_FILE) {
		file_probe(probe);
	} else {
		try_next(probe, connect_start(probe));
	}
}
