/* The process's streams, its end, and those who watch it. */
#include "pool/api/store_work.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_stream.h"
#include "pool/api/object_json.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"

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

/* Another request that wants its events. */
struct work_watch {
	struct store_work *work;
	struct work_watch *next;
	struct http_request *request;
	struct http_stream *stream;
};

struct store_work {
	struct manager *manager;
	struct store_work *next; /* of manager->store_works */
	char key[NAME_MAX_LENGTH + 1];
	char subject[NAME_MAX_LENGTH + 1]; /* a snapshot; empty: the store */
	int64_t started_ms;
	json_t *progress; /* the last that was heard; NULL: none yet */
	struct work_watch *watches;
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

static const char *const verbs[] = {
	[STORE_VERIFY] = "verify",
	[STORE_FLATTEN] = "flatten",
	[STORE_GC] = "gc",
	[STORE_EXPORT] = "export",
	[STORE_IMPORT] = "import",
	[STORE_DIFF] = "diff",
	[STORE_TREE] = "tree",
	[STORE_DU] = "du",
	[STORE_DEDUPE] = "dedupe",
	[STORE_IMAGES_DIFF] = "images diff",
};
_Static_assert(ARRAY_SIZE(verbs) == STORE_TOOLS, "a word for each tool");

static void work_unlist(struct store_work *work)
{
	struct store_work **link = &work->manager->store_works;

	while (*link != NULL && *link != work) {
		link = &(*link)->next;
	}
	if (*link != NULL) {
		*link = work->next;
	}
}

static void watches_end(struct store_work *work, bool whole);

static void work_free(struct store_work *work)
{
	work_unlist(work);
	watches_end(work, false);
	json_decref(work->progress);
	loop_source_free(work->io_source);
	loop_source_free(work->events_source);
	fd_done(&work->pidfd);
	fd_done(&work->io_fd);
	fd_done(&work->events_fd);
	buffer_done(&work->result);
	buffer_done(&work->heard);
	free(work);
}

static char *event_text(uint64_t id, const char *name, const json_t *data)
{
	CLEANUP(free_p) char *text = json_text(data);

	return xasprintf("id: %" PRIu64 "\nevent: %s\ndata: %s\n\n", id, name, text);
}

/* To its client, if it takes events and can have them already, and to those who watch. */
static void send_event(struct store_work *work, const char *name, const json_t *data)
{
	CLEANUP(free_p) char *event = event_text(++work->next_id, name, data);

	if (work->events && work->stream != NULL) {
		http_stream_write(work->stream, event, strlen(event));
	}
	for (struct work_watch *watch = work->watches; watch != NULL; watch = watch->next) {
		http_stream_write(watch->stream, event, strlen(event));
	}
}

static void watches_end(struct store_work *work, bool whole)
{
	while (work->watches != NULL) {
		struct work_watch *watch = work->watches;

		work->watches = watch->next;
		http_request_work_done(watch->request);
		http_stream_end(watch->stream, whole);
		free(watch);
	}
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
	CLEANUP(json_decref_p)
	json_t *json = json_from_error(err);

	send_event(work, "error", json);
	watches_end(work, true);
	if (work->stream == NULL) {
		http_reply_error(request, err);
	} else {
		http_stream_end(work->stream, work->events);
	}
}

static void answer_result(struct store_work *work, json_t *result)
{
	CLEANUP(json_decref_p) json_t *json = result;

	send_event(work, "result", json);
	watches_end(work, true);
	if (work->stream == NULL) {
		http_reply_json(work->request,
			work->tool == STORE_IMPORT ? MHD_HTTP_CREATED : MHD_HTTP_OK,
			steal_ptr(json));
		return;
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

/* Lines that are no JSON are for the log of somebody else. */
static void on_line(struct store_work *work, const char *line, size_t length)
{
	CLEANUP(json_decref_p) json_t *json = json_loadb(line, length, 0, NULL);
	const json_t *progress = json_object_get(json, "progress");
	const json_t *failure = json_object_get(json, "error");

	work->done = work->done || json_object_get(json, "done") != NULL;
	if (failure != NULL) {
		json_to_error(failure, ERROR_INTERNAL, "hob-snapshots failed", &work->failure);
	} else if (progress != NULL) {
		json_decref(work->progress);
		work->progress = json_incref((json_t *)(uintptr_t)progress);
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
	/* Closed, so that a process whose answer is too long does not wait to say the rest. */
	loop_source_free(work->io_source);
	work->io_source = NULL;
	fd_done(&work->io_fd);
	work_end(work);
}

/* ---- its start ---- */

/* An answer cannot begin before what comes in has ended. */
static void input_end(struct store_work *work)
{
	(void)shutdown(work->io_fd, SHUT_WR);
	if (work->events) {
		open_stream(work, "text/event-stream");
	}
}

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
	if (work->request->take_body != NULL) {
		http_request_wake(work->request);
	} else {
		input_end(work);
	}
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
		input_end(work);
	}
}

/* ---- keys ---- */

static struct store_work *work_find(const struct manager *manager, const char *key)
{
	struct store_work *work = manager->store_works;

	while (work != NULL && !streq(work->key, key)) {
		work = work->next;
	}
	return work;
}

/* False: it was answered. */
static bool choose_key(struct http_request *request, char key[NAME_MAX_LENGTH + 1])
{
	static uint64_t number;
	const char *wanted = http_query(request, "task");
	struct error err = ERROR_INIT;

	if (wanted == NULL) {
		snprintf(key, NAME_MAX_LENGTH + 1, "work-%" PRIu64, ++number);
		return true;
	}
	if (!name_is_valid(wanted)) {
		error_set(&err, ERROR_INVALID, "work: \"%.64s\" is no name", wanted);
	} else if (work_find(request->manager, wanted) != NULL) {
		error_set(&err, ERROR_CONFLICT, "there is work under way with the key %s", wanted);
		error_hint(&err, "GET /v1/tasks/%s watches it", wanted);
	} else {
		snprintf(key, NAME_MAX_LENGTH + 1, "%s", wanted);
		return true;
	}
	http_reply_error(request, &err);
	return false;
}

void store_work_start(struct http_request *request, const struct store_order *order)
{
	struct manager *manager = request->manager;
	char key[NAME_MAX_LENGTH + 1];
	struct store_work *work;

	if (!choose_key(request, key)) {
		return;
	}
	work = xcalloc(1, sizeof(*work));
	work->manager = manager;
	work->next = manager->store_works;
	manager->store_works = work;
	memcpy(work->key, key, sizeof(key));
	snprintf(work->subject, sizeof(work->subject), "%.64s",
		order->name != NULL ? order->name : "");
	work->started_ms = clock_real_ms();
	work->request = request;
	work->loop = manager->loop;
	work->tool = order->tool;
	work->pidfd = work->io_fd = work->events_fd = -1;
	work->events = order->tool != STORE_EXPORT &&
		       http_header_has(request, MHD_HTTP_HEADER_ACCEPT, "text/event-stream");
	buffer_init(&work->result, RESULT_BYTES_MAX);
	buffer_init(&work->heard, EVENT_BYTES_MAX);
	work->launching = true;
	if (order->tool == STORE_IMPORT) {
		request->take_body = take_body;
		request->end_body = end_body;
	}
	http_request_work(request, work, on_client_gone);
	launcher_store(manager->launcher, order, on_started, work);
}

/* ---- watching ---- */

static json_t *work_json(const struct store_work *work)
{
	return json_pack("{s:s, s:s, s:o, s:o, s:o}", "key", work->key, "verb", verbs[work->tool],
		"subject", json_str_or_null(work->subject[0] != '\0' ? work->subject : NULL),
		"started_at", json_time(work->started_ms), "progress",
		work->progress != NULL ? json_incref(work->progress) : json_null());
}

void handle_work_list(struct http_request *request)
{
	json_t *list = json_array();

	for (const struct store_work *work = request->manager->store_works; work != NULL;
		work = work->next) {
		json_array_append_new(list, work_json(work));
	}
	http_reply_json(request, MHD_HTTP_OK, json_pack("{s:o}", "tasks", list));
}

static void on_watcher_gone(void *context)
{
	struct work_watch *watch = context, **link = &watch->work->watches;

	while (*link != watch) {
		link = &(*link)->next;
	}
	*link = watch->next;
	free(watch);
}

/* From the last event on. */
static void watch_start(struct http_request *request, struct store_work *work)
{
	static const char *const headers[] = {"Cache-Control", "no-store", NULL};
	struct work_watch *watch = xcalloc(1, sizeof(*watch));
	struct http_stream_spec spec = {.status = MHD_HTTP_OK,
		.content_type = "text/event-stream",
		.size = MHD_SIZE_UNKNOWN,
		.headers = headers,
		.context = watch};
	CLEANUP(free_p) char *event = NULL;

	watch->work = work;
	watch->request = request;
	watch->next = work->watches;
	work->watches = watch;
	http_request_work(request, watch, on_watcher_gone);
	watch->stream = http_stream_open(request, &spec);
	if (work->progress != NULL) {
		event = event_text(work->next_id, "progress", work->progress);
		http_stream_write(watch->stream, event, strlen(event));
	}
}

void handle_work_get(struct http_request *request)
{
	struct store_work *work = work_find(request->manager, request->match.args[0]);
	struct error err = ERROR_INIT;

	if (work == NULL) {
		error_set(&err, ERROR_NOT_FOUND, "no work under way with the key %.64s",
			request->match.args[0]);
		error_hint(&err, "give the request that starts it ?task=KEY");
		http_reply_error(request, &err);
	} else if (http_header_has(request, MHD_HTTP_HEADER_ACCEPT, "text/event-stream")) {
		watch_start(request, work);
	} else {
		http_reply_json(request, MHD_HTTP_OK, work_json(work));
	}
}
