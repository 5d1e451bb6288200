/* HTTP to hobd over its unix socket, one connection kept alive, by libcurl. */
#ifndef HOB_POOL_CLI_HTTP_H
#define HOB_POOL_CLI_HTTP_H

#include "base/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http;

/* Bytes of a reply as they come; a negative return ends the request with that error. */
typedef int http_data_fn(void *context, const void *data, size_t length, struct error *err);
/* The next bytes of an upload: their number, 0 at the end, negative on failure. */
typedef ssize_t http_upload_fn(void *context, void *data, size_t room, struct error *err);

struct http_request {
	const char *method;
	const char *path; /* with its query, escaped */
	const json_t *body; /* NULL: none */
	const char *accept; /* NULL: whatever comes */
	http_data_fn *data; /* gets a successful reply that is not JSON */
	http_upload_fn *upload; /* instead of `body` */
	int64_t upload_bytes; /* -1: not known before its end */
	void *context;
};

struct http_reply {
	int status;
	json_t *json; /* of a JSON reply; the caller's */
	long mode; /* X-Hob-Mode, -1 without */
	int64_t bytes; /* Content-Length, -1 without */
};

MUSTCHECK int http_open(const char *socket_path, struct http **ret_http, struct error *err);
void http_close(struct http *http); /* NULL is fine */
/* An error reply of hobd comes back as that error. ERROR_UNAVAILABLE when hobd is not running,
 * ERROR_DENIED when its socket is not for this user. */
MUSTCHECK int http_run(struct http *http, const struct http_request *request,
	struct http_reply *ret_reply, struct error *err);

/* The error that a reply of this status and body stands for. Always negative. */
int http_error_from_reply(int status, const char *body, size_t length, struct error *err);

/* A blocking connection to the socket; the same errors as http_run. */
MUSTCHECK int socket_connect(const char *path, int *ret_fd, struct error *err);

#endif
