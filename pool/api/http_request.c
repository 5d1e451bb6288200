/*
 * A request's life: created with the headers, handled when its body is there (or before, when the
 * route streams it), asleep while its work goes on, answered once, freed when libmicrohttpd says
 * that it is over. While a connection sleeps libmicrohttpd does not watch it, so that we do.
 */
#include "pool/api/http_request.h"

#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/api/http_private.h"
#include "pool/api/object_json.h"
#include "pool/manager.h"

#include <assert.h>
#include <inttypes.h>
#include <strings.h>

/* Of a body that will be refused anyway: read so much more than the limit. Many clients do not
 * listen before they have sent everything. */
#define REFUSED_BODY_MAX (256u << 20)

/* ---- sleeping ---- */

static void on_hangup(void *context, uint32_t events)
{
	struct http_request *request = context;

	(void)events;
	http_request_abort(request);
}

void http_request_suspend(struct http_request *request)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct error err = ERROR_INIT;

	assert(!request->suspended);
	MHD_suspend_connection(request->connection);
	request->suspended = true;
	/* No event asked for: EPOLLHUP, which a unix socket has when its peer closed, always comes.
	 */
	if (loop_add_fd(request->server->loop, info->connect_fd, 0, on_hangup, request,
		    &request->hangup, &err) < 0) {
		log_failure("http.unwatched", &err);
	}
}

void http_request_wake(struct http_request *request)
{
	if (request->suspended) {
		loop_source_free(request->hangup);
		request->hangup = NULL;
		request->suspended = false;
		MHD_resume_connection(request->connection);
		http_server_kick(request->server);
	}
}

static void cancel_work(struct http_request *request)
{
	void (*cancel)(void *) = request->cancel;

	request->cancel = NULL;
	if (cancel != NULL) {
		cancel(request->work);
	}
}

void http_request_abort(struct http_request *request)
{
	request->gone = true;
	cancel_work(request);
	http_request_wake(request);
}

void http_request_work(struct http_request *request, void *work, void (*cancel)(void *work))
{
	request->work = work;
	request->cancel = cancel;
}

void http_request_work_done(struct http_request *request)
{
	request->cancel = NULL;
}

/* ---- answering ---- */

void http_reply(struct http_request *request, unsigned status, struct MHD_Response *response)
{
	assert(request->response == NULL);
	request->response = response;
	request->status = status;
	if (request->stream == NULL) {
		request->cancel = NULL;
	}
	http_request_wake(request);
}

void http_reply_json(struct http_request *request, unsigned status, json_t *json)
{
	char *text = json_text(json);
	size_t length = strlen(text);
	struct MHD_Response *response;

	json_decref(json);
	text = xrealloc(text, length + 2);
	text[length++] = '\n';
	response = MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE);
	if (response == NULL) {
		abort();
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	http_reply(request, status, response);
}

void http_reply_error_status(struct http_request *request, unsigned status, const struct error *err)
{
	if (status >= 500) {
		log_failure("http.error", err, "path", request->path);
	}
	http_reply_json(request, status, json_pack("{s:o}", "error", json_from_error(err)));
}

void http_reply_error(struct http_request *request, const struct error *err)
{
	http_reply_error_status(request, (unsigned)error_http_status(err->kind), err);
}

static enum MHD_Result queue(struct http_request *request)
{
	enum MHD_Result result =
		MHD_queue_response(request->connection, request->status, request->response);

	request->queued = true;
	MHD_destroy_response(request->response);
	return result;
}

/* ---- libmicrohttpd's calls ---- */

static struct http_request *request_new(struct http_server *server,
	struct MHD_Connection *connection, const char *url, const char *method)
{
	struct http_request *request = xcalloc(1, sizeof(*request));

	request->server = server;
	request->manager = server->manager;
	request->connection = connection;
	request->path = xstrdup(url);
	buffer_init(&request->body, (size_t)server->config->body_bytes_max);
	request->match = route_find(server->routes, method, request->path);
	request->next = server->requests;
	if (request->next != NULL) {
		request->next->previous = request;
	}
	server->requests = request;
	return request;
}

static void request_free(struct http_request *request)
{
	cancel_work(request);
	loop_source_free(request->hangup);
	*(request->previous != NULL ? &request->previous->next : &request->server->requests) =
		request->next;
	if (request->next != NULL) {
		request->next->previous = request->previous;
	}
	if (request->response != NULL && !request->queued) {
		MHD_destroy_response(request->response);
	}
	http_stream_free(request->stream);
	buffer_done(&request->body);
	free(request->path);
	free(request);
}

void http_on_completed(void *context, struct MHD_Connection *connection, void **slot,
	enum MHD_RequestTerminationCode code)
{
	(void)context;
	(void)connection;
	(void)code;
	if (*slot != NULL) {
		request_free(*slot);
		*slot = NULL;
	}
}

static uint64_t content_length(struct http_request *request)
{
	const char *text = http_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return text != NULL ? strtoull(text, NULL, 10) : 0;
}

static void refuse_body(struct http_request *request)
{
	struct error err = ERROR_INIT;

	error_set(&err, ERROR_LIMIT, "the request's body is over %" PRId64 " bytes",
		request->server->config->body_bytes_max);
	error_hint(&err, "raise body_bytes_max in hob.yaml, or put a file with PUT …/files/{path}");
	http_reply_error(request, &err);
}

static void refuse_route(struct http_request *request, const char *method)
{
	struct error err = ERROR_INIT;

	if (request->match.other_method) {
		error_set(&err, ERROR_INVALID, "%s is not for %s", method, request->path);
		http_reply_error_status(request, MHD_HTTP_METHOD_NOT_ALLOWED, &err);
		return;
	}
	error_set(&err, ERROR_NOT_FOUND, "no such thing: %s %s", method, request->path);
	http_reply_error(request, &err);
}

static uint64_t refused_body_max(const struct http_request *request)
{
	const struct config *config = request->server->config;
	const struct route *route = request->match.route;

	return route != NULL && (route->flags & ROUTE_STREAMS) != 0
		       ? (uint64_t)config->file_bytes_max
		       : (uint64_t)config->body_bytes_max + REFUSED_BODY_MAX;
}

/* ---- sandboxes that sleep ---- */

static void on_awake(struct dormant_wait *wait, const struct error *err)
{
	struct http_request *request = container_of(wait, struct http_request, waking);

	http_request_work_done(request);
	if (err != NULL) {
		http_reply_error(request, err);
		return;
	}
	request->match.route->handle(request);
	http_request_wake(request);
}

static void on_waker_gone(void *work)
{
	struct http_request *request = work;

	dormant_wait_end(&request->waking);
}

/* At once, or when the sandbox that it is for runs again. */
static void handle(struct http_request *request)
{
	const struct route *route = request->match.route;
	struct entry *entry = (route->flags & ROUTE_WAKES) != 0
				      ? manager_entry(request->manager, request->match.args[0])
				      : NULL;

	request->handled = true;
	if (entry == NULL || !dormant_is_asleep(entry)) {
		route->handle(request);
		return;
	}
	request->waking.awake = on_awake;
	http_request_work(request, request, on_waker_gone);
	dormant_wake(entry, &request->waking);
}

static enum MHD_Result on_headers(struct http_request *request, const char *method)
{
	uint64_t length = content_length(request);

	if (request->match.route == NULL) {
		refuse_route(request, method);
	} else if ((request->match.route->flags & ROUTE_STREAMS) != 0) {
		handle(request);
	} else if (length > (uint64_t)request->server->config->body_bytes_max) {
		refuse_body(request);
	}
	if (request->response != NULL && length > refused_body_max(request)) {
		return queue(request);
	}
	return MHD_YES;
}

static enum MHD_Result on_body(struct http_request *request, const char *data, size_t *length)
{
	size_t taken;

	if (request->waking.entry != NULL) {
		http_request_suspend(request); /* its body waits, too */
		return MHD_YES;
	}
	if (request->response == NULL && request->take_body != NULL) {
		taken = request->take_body(request, data, *length);
		*length -= taken;
		if (*length > 0 && request->response == NULL) {
			http_request_suspend(request);
		}
		return MHD_YES;
	}
	request->body_seen += *length;
	if (request->response == NULL && !buffer_add(&request->body, data, *length)) {
		refuse_body(request);
	}
	*length = 0;
	/* A refused body is read to its end, so that the client hears why; an endless one is cut
	 * off. */
	return request->response != NULL && request->body_seen > refused_body_max(request)
		       ? MHD_NO
		       : MHD_YES;
}

static enum MHD_Result on_complete(struct http_request *request)
{
	if (request->response == NULL && !request->handled) {
		handle(request);
	} else if (request->response == NULL && request->waking.entry != NULL) {
		http_request_suspend(request);
		return MHD_YES;
	} else if (request->response == NULL && request->end_body != NULL) {
		void (*end_body)(struct http_request *) = request->end_body;

		request->end_body = NULL;
		end_body(request);
	}
	if (request->response != NULL) {
		return queue(request);
	}
	http_request_suspend(request);
	return MHD_YES;
}

enum MHD_Result http_on_access(void *context, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *data, size_t *length, void **slot)
{
	struct http_server *server = context;
	struct http_request *request = *slot;

	(void)version;
	if (server->closing || (request != NULL && request->gone)) {
		return MHD_NO;
	}
	if (request == NULL) {
		request = request_new(server, connection, url, method);
		*slot = request;
		return on_headers(request, method);
	}
	return *length > 0 ? on_body(request, data, length) : on_complete(request);
}

/* ---- reading ---- */

const char *http_query(struct http_request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

const char *http_header(struct http_request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

bool http_header_has(struct http_request *request, const char *name, const char *word)
{
	const char *at = http_header(request, name);
	size_t length = strlen(word);

	while (at != NULL && *at != '\0') {
		size_t part;

		at += strspn(at, ", \t");
		part = strcspn(at, ",; \t");
		if (part == length && strncasecmp(at, word, length) == 0) {
			return true;
		}
		at += strcspn(at, ",");
	}
	return false;
}

int http_query_int(struct http_request *request, const char *name, int64_t lowest, int64_t highest,
	int64_t fallback, int64_t *ret, struct error *err)
{
	const char *text = http_query(request, name);
	char *end = NULL;
	long long value;

	if (text == NULL) {
		*ret = fallback;
		return 0;
	}
	errno = 0;
	value = strtoll(text, &end, 10);
	if (end == text || *end != '\0' || errno != 0 || value < lowest || value > highest) {
		return error_set(err, ERROR_INVALID,
			"?%s must be a whole number from %" PRId64 " to %" PRId64, name, lowest,
			highest);
	}
	*ret = value;
	return 0;
}

int http_body_json(struct http_request *request, json_t **ret_json, struct error *err)
{
	if (request->body.length == 0) {
		*ret_json = json_object();
		return 0;
	}
	return json_parse_object(request->body.data, request->body.length, ret_json, err);
}

struct entry *http_entry(struct http_request *request)
{
	struct entry *entry = manager_entry(request->manager, request->match.args[0]);
	struct error err = ERROR_INIT;

	if (entry == NULL) {
		error_set(&err, ERROR_NOT_FOUND, "no sandbox \"%s\"", request->match.args[0]);
		error_hint(&err, "`hob ls` lists them");
		http_reply_error(request, &err);
	}
	return entry;
}
