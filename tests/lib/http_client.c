/* Just enough HTTP to time a request: what is sent is ready before, what comes is found by its
 * Content-Length. */
#include "tests/lib/http_client.h"

#include "base/memory.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

static void give_up(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

void http_open(struct http_client *client, const char *socket_path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	memset(client, 0, sizeof(*client));
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd < 0) {
		give_up("socket");
	}
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	if (connect(client->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		give_up(socket_path);
	}
}

void http_close(struct http_client *client)
{
	fd_done(&client->fd);
	free(client->request);
	client->request = NULL;
}

void http_prepare(
	struct http_client *client, const char *method, const char *path, const char *body)
{
	free(client->request);
	client->request = xasprintf(
		"%s %s HTTP/1.1\r\nHost: hob\r\nContent-Length: %zu\r\n%s\r\n%s", method, path,
		body != NULL ? strlen(body) : 0,
		body != NULL ? "Content-Type: application/json\r\n" : "", body != NULL ? body : "");
	client->request_length = strlen(client->request);
}

void http_send(struct http_client *client)
{
	client->received = 0;
	if (send(client->fd, client->request, client->request_length, MSG_NOSIGNAL) !=
		(ssize_t)client->request_length) {
		give_up("send");
	}
}

static bool is_whole(const struct http_client *client)
{
	const char *end = strstr(client->answer, "\r\n\r\n");
	const char *length = strcasestr(client->answer, "\r\nContent-Length:");

	if (end == NULL || length == NULL || length > end) {
		return false;
	}
	return client->received >=
	       (size_t)(end + 4 - client->answer) +
		       strtoul(length + strlen("\r\nContent-Length:"), NULL, 10);
}

bool http_receive(struct http_client *client)
{
	ssize_t got = recv(client->fd, client->answer + client->received,
		HTTP_ANSWER_MAX - 1 - client->received, MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		return false;
	}
	if (got <= 0) {
		give_up(got == 0 ? "the server closed the connection" : "recv");
	}
	client->received += (size_t)got;
	client->answer[client->received] = '\0';
	return is_whole(client);
}

int http_call(struct http_client *client, const char *method, const char *path, const char *body)
{
	struct pollfd ready = {.fd = client->fd, .events = POLLIN};

	http_prepare(client, method, path, body);
	http_send(client);
	do {
		(void)poll(&ready, 1, -1);
	} while (!http_receive(client));
	return http_status(client);
}

int http_status(const struct http_client *client)
{
	return client->received > 12 ? (int)strtol(client->answer + 9, NULL, 10) : 0;
}

const char *http_body(const struct http_client *client)
{
	const char *end = strstr(client->answer, "\r\n\r\n");

	return end != NULL ? end + 4 : "";
}

bool http_member(const struct http_client *client, const char *key, char *text, size_t size)
{
	CLEANUP(free_p) char *mark = xasprintf("\"%s\":", key);
	const char *found = strstr(http_body(client), mark);
	size_t length;

	if (found == NULL) {
		return false;
	}
	found += strlen(mark);
	found += strspn(found, " ");
	if (*found++ != '"') {
		return false;
	}
	length = strcspn(found, "\"");
	if (length >= size) {
		return false;
	}
	memcpy(text, found, length);
	text[length] = '\0';
	return true;
}
