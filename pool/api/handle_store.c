/*
 * What takes long in the store (verify, flatten, gc, export, import) or reads what hobd may not
 * (diff): a process of hob-snapshots each, started by the launcher. Its progress goes to the client
 * as server-sent events, if it takes them, and its result ends them; else the result is the answer.
 * A client that goes away ends the process, which may be killed at any point.
 */
#include "base/buffer.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_stream.h"
#include "pool/api/object_json.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"
#include "snapshots/snapshot.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* A diff of many files is the largest. */
#define RESULT_BYTES_MAX (64u << 20)
#define EVENT_BYTES_MAX (64u << 10)
/* Of an archive, not yet read by the client. */
#define UNREAD_BYTES_MAX (1u << 20)

struct store_work {
	struct http_request *request; /* NULL: its client has gone */
	struct loop *loop;
	enum store_tool tool;
	struct http_stream *stream; /* of events, or of the archive */
	bool events; /* wanted by the client */
	bool launching;
	int pidfd, io_fd, events_fd;
	struct loop_source *io_source, *events_source;
	struct buffer result, heard;
	uint64_t next_id;
	bool done; /* it said so */
	struct error failure;
};

static void work_free(struct store_work *work)
{
	loop_source_free(work->io_source);
	loop_source_free(work->events_source);
	fd_done(&work->pidfd);
	fd_done(&work->io_fd);
	fd_done(&work->events_fd);
	buffer_done(&work->result);
	buffer_done(&work->heard);
	free(work);
}

static void send_event(struct store_work *work, const char *name, const json_t *data)
{
	CLEANUP(free_p) char *text = json_text(data);
	CLEANUP(free_p)
	char *event =
		xasprintf("id: %" PRIu64 "\nevent: %s\ndata: %s\n\n", ++work->next_id, name, text);

	http_stream_write(work->stream, event, strlen(event));
}

/* The end of its streams would end it too, but not before it writes something. */
static void on_client_gone(void *context)
{
	struct store_work *work = context;

	work->request = NULL;
	if (work->pidfd >= 0) {
		(void)syscall(SYS_pidfd_send_signal, work->pidfd, SIGTERM, NULL, 0);
	}
	if (!work->launching) {
		work_free(work);
	}
}

/* ---- the end ---- */

static void answer_error(struct store_work *work)
{
	struct http_request *request = work->request;
	const struct error *err = &work->failure;
	CLEANUP(json_decref_p) json_t *json = NULL;

	if (work->stream == NULL) {
		http_reply_error(request, err);
		return;
	}
	if (work->events) {
		json = json_pack("{s:s, s:o, s:o}", "kind", error_kind_name(err->kind), "message",
			json_string_safe(err->message), "hint",
			err->hint[0] != '\0' ? json_string_safe(err->hint) : json_null());
		send_event(work, "error", json);
	}
	http_stream_end(work->stream, work->events);
}

static void answer_result(struct store_work *work, json_t *result)
{
	CLEANUP(json_decref_p) json_t *json = result;

	if (work->stream == NULL) {
		http_reply_json(work->request,
			work->tool == STORE_IMPORT ? MHD_HTTP_CREATED : MHD_HTTP_OK,
			steal_ptr(json));
		return;
	}
	if (work->events) {
		send_event(work, "result", json);
	}
	http_stream_end(work->stream, true);
}

static void work_end(struct store_work *work)
{
	json_t *result = NULL;

	if (work->io_source != NULL || work->events_source != NULL) {
		return;
	}
	work->request->take_body = NULL;
	work->request->end_body = NULL;
	http_request_work_done(work->request);
	if (work->tool != STORE_EXPORT && work->result.length > 0) {
		result = json_loadb(
			work->result.data, work->result.length, JSON_DISABLE_EOF_CHECK, NULL);
	}
	/* That it found damage is what a verification is for. */
	if (work->failure.kind == ERROR_CORRUPT && work->tool == STORE_VERIFY && result != NULL) {
		work->failure = ERROR_INIT;
		work->done = true;
	}
	if (work->failure.kind == ERROR_NONE &&
		(!work->done || (result == NULL && work->tool != STORE_EXPORT))) {
		error_set(&work->failure, ERROR_FAILED, "hob-snapshots ended early");
	}
	if (work->failure.kind != ERROR_NONE) {
		json_decref(result);
		answer_error(work);
	} else {
		answer_result(work, result != NULL ? result : json_object());
	}
	work_free(work);
}

/* ---- what it says ---- */

static void read_failure(struct store_work *work, const json_t *json)
{
	const char *kind = json_string_value(json_object_get(json, "kind"));
	const char *message = json_string_value(json_object_get(json, "message"));
	const char *hint = json_string_value(json_object_get(json, "hint"));

	error_set(&work->failure, kind != NULL ? error_kind_from_name(kind) : ERROR_INTERNAL, "%s",
		message != NULL ? message : "hob-snapshots failed");
	if (hint != NULL) {
		error_hint(&work->failure, "%s", hint);
	}
}

/* Lines that are no JSON are for the log of somebody else. */
static void on_line(struct store_work *work, const char *line, size_t length)
{
	CLEANUP(json_decref_p) json_t *json = json_loadb(line, length, 0, NULL);
	const json_t *progress = json_object_get(json, "progress");
	const json_t *failure = json_object_get(json, "error");

	work->done = work->done || json_object_get(json, "done") != NULL;
	if (failure != NULL) {
		read_failure(work, failure);
	} else if (progress != NULL && work->events) {
		send_event(work, "progress", progress);
	}
}

static void take_lines(struct store_work *work)
{
	char *end;

	while ((end = memchr(work->heard.data, '\n', work->heard.length)) != NULL) {
		size_t length = (size_t)(end - work->heard.data);

		on_line(work, work->heard.data, length);
		buffer_consume(&work->heard, length + 1);
	}
}

static void on_events(void *context, uint32_t ready)
{
	struct store_work *work = context;
	char chunk[4096];
	ssize_t got;

	(void)ready;
	while ((got = read(work->events_fd, chunk, sizeof(chunk))) > 0) {
		if (!buffer_add(&work->heard, chunk, (size_t)got)) {
			buffer_consume(&work->heard, work->heard.length);
		}
		take_lines(work);
	}
	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	loop_source_free(work->events_source);
	work->events_source = NULL;
	work_end(work);
}

/* ---- its output ---- */

static void on_drained(void *context, size_t bytes)
{
	struct store_work *work = context;

	(void)bytes;
	if (work->tool == STORE_EXPORT && work->io_source != NULL &&
		http_stream_pending(work->stream) < UNREAD_BYTES_MAX / 2) {
		loop_source_events(work->io_source, EPOLLIN);
	}
}

static void open_stream(struct store_work *work, const char *type)
{
	static const char *const headers[] = {"Cache-Control", "no-store", NULL};
	struct http_stream_spec spec = {.status = MHD_HTTP_OK,
		.content_type = type,
		.size = MHD_SIZE_UNKNOWN,
		.headers = headers,
		.drained = on_drained,
		.context = work};

	work->stream = http_stream_open(work->request, &spec);
}

static bool take_output(struct store_work *work, const char *data, size_t length)
{
	if (work->tool != STORE_EXPORT) {
		return buffer_add(&work->result, data, length);
	}
	if (work->stream == NULL) {
		open_stream(work, "application/zstd");
	}
	http_stream_write(work->stream, data, length);
	return true;
}

static void on_output(void *context, uint32_t ready)
{
	struct store_work *work = context;
	char chunk[65536];
	ssize_t got = -1;

	if ((ready & EPOLLOUT) != 0 && work->request->take_body != NULL) {
		loop_source_events(work->io_source, EPOLLIN);
		http_request_wake(work->request);
	}
	if ((ready & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) {
		return;
	}
	while (work->stream == NULL || work->tool != STORE_EXPORT ||
		http_stream_pending(work->stream) < UNREAD_BYTES_MAX) {
		got = recv(work->io_fd, chunk, sizeof(chunk), MSG_DONTWAIT);
		if (got <= 0) {
			break;
		}
		if (!take_output(work, chunk, (size_t)got)) {
			error_set(&work->failure, ERROR_LIMIT, "the answer is over %u MiB",
				RESULT_BYTES_MAX >> 20);
			got = 0;
			break;
		}
	}
	if (got > 0) {
		loop_source_events(work->io_source, 0); /* until the client has read some */
		return;
	}
	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	loop_source_free(work->io_source);
	work->io_source = NULL;
	work_end(work);
}

/* ---- its start ---- */

static void on_started(void *context, const struct store_started *started, const struct error *err)
{
	struct store_work *work = context;

	work->launching = false;
	if (started != NULL) {
		work->pidfd = started->pidfd;
		work->io_fd = started->io_fd;
		work->events_fd = started->events_fd;
	}
	if (work->request == NULL) {
		on_client_gone(work);
		return;
	}
	if (err != NULL) {
		error_copy(&work->failure, err);
		work_end(work);
		return;
	}
	(void)io_set_nonblock(work->events_fd, true);
	if (loop_add_fd(work->loop, work->events_fd, EPOLLIN, on_events, work, &work->events_source,
		    &work->failure) < 0 ||
		loop_add_fd(work->loop, work->io_fd, EPOLLIN, on_output, work, &work->io_source,
			&work->failure) < 0) {
		loop_source_free(work->events_source);
		work->events_source = NULL;
		work_end(work);
		return;
	}
	if (work->events) {
		open_stream(work, "text/event-stream");
	}
	if (work->request->take_body != NULL) {
		http_request_wake(work->request);
	} else {
		(void)shutdown(work->io_fd, SHUT_WR);
	}
}

static struct store_work *work_start(struct http_request *request, const struct store_order *order)
{
	struct store_work *work = xcalloc(1, sizeof(*work));

	work->request = request;
	work->loop = request->manager->loop;
	work->tool = order->tool;
	work->pidfd = work->io_fd = work->events_fd = -1;
	work->events = order->tool != STORE_EXPORT && order->tool != STORE_IMPORT &&
		       http_header_has(request, MHD_HTTP_HEADER_ACCEPT, "text/event-stream");
	buffer_init(&work->result, RESULT_BYTES_MAX);
	buffer_init(&work->heard, EVENT_BYTES_MAX);
	work->launching = true;
	http_request_work(request, work, on_client_gone);
	launcher_store(request->manager->launcher, order, on_started, work);
	return work;
}

/* ---- the requests ---- */

static bool query_flag(struct http_request *request, const char *name)
{
	const char *value = http_query(request, name);

	return value != NULL && !streq(value, "0") && !streq(value, "false");
}

/* The body's flag and name, both of which may be missing; false: it was answered. */
static bool read_body(struct http_request *request, const char *flag, bool *ret_flag,
	const char *text, char ret_text[NAME_MAX_LENGTH + 1])
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT;
	const char *key, *found;
	json_t *value;

	ret_text[0] = '\0';
	if (http_body_json(request, &json, &err) < 0) {
		http_reply_error(request, &err);
		return false;
	}
	json_object_foreach (json, key, value) {
		found = json_string_value(value);
		if (streq(key, flag) && json_is_boolean(value)) {
			*ret_flag = json_is_true(value);
		} else if (text != NULL && streq(key, text) && found != NULL &&
			   name_is_valid(found)) {
			memcpy(ret_text, found, strlen(found) + 1);
		} else {
			error_set(&err, ERROR_INVALID, "\"%s\" is unknown here, or no such value",
				key);
			http_reply_error(request, &err);
			return false;
		}
	}
	return true;
}

void handle_store_verify(struct http_request *request)
{
	char name[NAME_MAX_LENGTH + 1];
	bool quick = false;

	if (read_body(request, "quick", &quick, "snapshot", name)) {
		(void)work_start(request,
			&(struct store_order){.tool = STORE_VERIFY, .name = name, .option = quick});
	}
}

void handle_store_gc(struct http_request *request)
{
	char none[NAME_MAX_LENGTH + 1];
	bool dry_run = false;

	if (read_body(request, "dry_run", &dry_run, NULL, none)) {
		(void)work_start(
			request, &(struct store_order){.tool = STORE_GC, .option = dry_run});
	}
}

void handle_snapshot_flatten(struct http_request *request)
{
	(void)work_start(request,
		&(struct store_order){.tool = STORE_FLATTEN, .name = request->match.args[0]});
}

void handle_snapshot_tree(struct http_request *request)
{
	(void)work_start(
		request, &(struct store_order){.tool = STORE_TREE, .name = request->match.args[0]});
}

void handle_store_du(struct http_request *request)
{
	(void)work_start(request, &(struct store_order){.tool = STORE_DU});
}

/* Against ?from=, else the image or snapshot that it was taken above. */
void handle_snapshot_diff(struct http_request *request)
{
	const char *from = http_query(request, "from");
	struct snapshot snapshot = {0};
	struct error err = ERROR_INIT;
	char below[32];

	if (snapshot_find(request->manager->store, request->match.args[0], &snapshot, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	snprintf(below, sizeof(below), "%s-%" PRId64, snapshot.parent_id != 0 ? "snap" : "img",
		snapshot.parent_id != 0 ? snapshot.parent_id : snapshot.image_id);
	(void)work_start(request, &(struct store_order){.tool = STORE_DIFF,
					  .name = from != NULL ? from : below,
					  .second = request->match.args[0]});
	snapshot_done(&snapshot);
}

void handle_snapshot_export(struct http_request *request)
{
	(void)work_start(request, &(struct store_order){.tool = STORE_EXPORT,
					  .name = request->match.args[0],
					  .option = query_flag(request, "with_parents")});
}

/* ---- an archive that comes in ---- */

static size_t take_body(struct http_request *request, const char *data, size_t length)
{
	struct store_work *work = request->work;
	ssize_t sent;

	if (work->launching) {
		return 0;
	}
	sent = send(work->io_fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent >= 0) {
		return (size_t)sent;
	}
	if (errno == EAGAIN) {
		loop_source_events(work->io_source, EPOLLIN | EPOLLOUT);
		return 0;
	}
	return length; /* it wants no more, and will say why */
}

static void end_body(struct http_request *request)
{
	struct store_work *work = request->work;

	request->take_body = NULL;
	request->end_body = NULL;
	if (!work->launching) {
		(void)shutdown(work->io_fd, SHUT_WR);
	}
}

void handle_snapshot_import(struct http_request *request)
{
	request->take_body = take_body;
	request->end_body = end_body;
	(void)work_start(request, &(struct store_order){.tool = STORE_IMPORT});
}
