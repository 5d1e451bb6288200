/*
 * A request as handlers see it. A handler answers at once, or registers its work and answers later;
 * the connection sleeps meanwhile. When the client goes away first, the work is cancelled and the
 * request is gone: nothing may touch it after that.
 */
#ifndef HOB_POOL_API_HTTP_REQUEST_H
#define HOB_POOL_API_HTTP_REQUEST_H

#include "base/buffer.h"
#include "base/error.h"
#include "base/json.h"
#include "pool/api/http_route.h"
#include "pool/dormant.h"

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

struct caller;
struct entry;
struct http_server;
struct http_stream;
struct loop_source;
struct manager;

struct http_request {
	struct http_server *server;
	struct manager *manager;
	struct MHD_Connection *connection;
	struct http_request *next, *previous;
	struct route_match match;
	char *path; /* match.rest points into it */
	struct buffer body;
	uint64_t body_seen; /* bytes, kept or not */
	struct dormant_wait waking; /* for its sandbox, before it is handled */
	bool handled, suspended, gone, queued;
	struct loop_source *hangup; /* while suspended: libmicrohttpd does not watch then */
	struct MHD_Response *response;
	unsigned status;
	struct http_stream *stream; /* owned */
	void *work;
	void (*cancel)(void *work);
	/* ROUTE_STREAMS: takes what it can, returns how much. Less than all suspends the connection
	 * until http_request_wake. */
	size_t (*take_body)(struct http_request *request, const char *data, size_t length);
	void (*end_body)(struct http_request *request);
};

/* Each answers, once. They take the json and the response. */
void http_reply(struct http_request *request, unsigned status, struct MHD_Response *response);
void http_reply_json(struct http_request *request, unsigned status, json_t *json);
void http_reply_error(struct http_request *request, const struct error *err);
void http_reply_error_status(
	struct http_request *request, unsigned status, const struct error *err);

/* Until the answer, or with a stream until its end: what to do when the client goes away. */
void http_request_work(struct http_request *request, void *work, void (*cancel)(void *work));
/* The work is done; nothing is left to cancel. */
void http_request_work_done(struct http_request *request);
void http_request_wake(struct http_request *request);

/* Who asks. ERROR_DENIED when there is no telling. */
MUSTCHECK int http_caller(
	struct http_request *request, struct caller *ret_caller, struct error *err);
/* NULL: not given. */
const char *http_query(struct http_request *request, const char *name);
const char *http_header(struct http_request *request, const char *name);
/* Is the value in the comma-separated header, by word? */
bool http_header_has(struct http_request *request, const char *name, const char *word);
/* ?name=N within the range; `fallback` when it is not given. */
MUSTCHECK int http_query_int(struct http_request *request, const char *name, int64_t lowest,
	int64_t highest, int64_t fallback, int64_t *ret, struct error *err);

/* The body as an object; an empty body is an empty one. ERROR_INVALID. */
MUSTCHECK int http_body_json(struct http_request *request, json_t **ret_json, struct error *err);
/* The sandbox of the path's first argument; when there is none, the request is answered: NULL. */
struct entry *http_entry(struct http_request *request);

#endif
