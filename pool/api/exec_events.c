/*
 * A command's events as server-sent events. Its starter paces it: output is granted again to the
 * command only as the client reads. A watcher of a command that belongs to nobody must keep up
 * itself: past a bound it is told so and let go, and the command does not notice.
 */
#include "base/base64.h"
#include "base/memory.h"
#include "pool/api/exec_start.h"
#include "pool/api/handlers.h"
#include "pool/api/http_stream.h"
#include "pool/api/object_json.h"
#include "pool/entry.h"
#include "pool/run.h"

#include <inttypes.h>

/* Kept output twice over, in JSON and Base64, fits with room to spare. */
#define WATCHER_PENDING_MAX (1u << 20)

struct exec_events_client {
	struct run_sink sink;
	struct http_request *request;
	struct http_stream *stream; /* NULL until the command has started */
	uint64_t next_id;
	/* Bytes of output whose events are written and not yet read. As events are longer than what
	 * they carry, all of them count as read when the stream is empty. */
	size_t unread;
};

static void send_event(struct exec_events_client *client, const char *name, json_t *data)
{
	CLEANUP(free_p) char *text = json_text(data);
	CLEANUP(free_p)
	char *event = xasprintf(
		"id: %" PRIu64 "\nevent: %s\ndata: %s\n\n", ++client->next_id, name, text);

	json_decref(data);
	http_stream_write(client->stream, event, strlen(event));
}

static void send_error(struct exec_events_client *client, const struct error *err)
{
	send_event(client, "error", json_from_error(err));
}

static void send_output(void *context, enum exec_stream stream, const void *data, size_t length)
{
	json_t *json = json_object();

	json_set_bytes(json, "data", "encoding", data, length);
	send_event(context, stream == EXEC_STDERR ? "stderr" : "stdout", json);
}

static void on_drained(void *context, size_t bytes)
{
	struct exec_events_client *client = context;
	size_t unread = client->unread;

	(void)bytes;
	if (http_stream_pending(client->stream) == 0 && unread > 0) {
		client->unread = 0;
		if (client->sink.run != NULL) {
			run_consumed(client->sink.run, unread);
		}
	}
}

static void on_client_gone(void *work)
{
	struct exec_events_client *client = work;

	run_unwatch(&client->sink);
	free(client);
}

static void finish(struct exec_events_client *client)
{
	struct http_stream *stream = client->stream;

	run_unwatch(&client->sink);
	http_stream_end(stream, true);
	free(client);
}

static void open_stream(struct exec_events_client *client)
{
	static const char *const headers[] = {"Cache-Control", "no-store", NULL};
	struct http_stream_spec spec = {.status = MHD_HTTP_OK,
		.content_type = "text/event-stream",
		.size = MHD_SIZE_UNKNOWN,
		.headers = headers,
		.drained = on_drained,
		.context = client};

	client->stream = http_stream_open(client->request, &spec);
}

static void send_started(struct exec_events_client *client, const struct run *run)
{
	send_event(client, "started",
		json_pack("{s:I, s:I}", "exec", (json_int_t)run->id, "pid", (json_int_t)run->pid));
}

static void on_started(struct run_sink *sink)
{
	struct exec_events_client *client = container_of(sink, struct exec_events_client, sink);

	if (client->stream == NULL) {
		open_stream(client);
	}
	send_started(client, sink->run);
}

static void on_output(
	struct run_sink *sink, enum exec_stream stream, const void *data, size_t length)
{
	struct exec_events_client *client = container_of(sink, struct exec_events_client, sink);
	struct error err = ERROR_INIT;

	if (!sink->paces && http_stream_pending(client->stream) > WATCHER_PENDING_MAX) {
		error_set(&err, ERROR_LIMIT, "reading was too slow for this command's output");
		send_error(client, &err);
		finish(client);
		return;
	}
	client->unread += sink->paces ? length : 0;
	send_output(client, stream, data, length);
}

static void send_end(struct exec_events_client *client, const struct run *run)
{
	if (run->error.kind != ERROR_NONE) {
		send_event(client, "error", run_error_to_json(run));
	} else {
		send_event(client, "exit", run_result_to_json(run, false));
	}
}

static void on_ended(struct run_sink *sink, const struct run *run)
{
	struct exec_events_client *client = container_of(sink, struct exec_events_client, sink);
	struct http_request *request = client->request;

	/* Before the start an error is an ordinary answer, with its status. */
	if (client->stream == NULL) {
		http_request_work_done(request);
		free(client);
		http_reply_json(request, (unsigned)error_http_status(run->error.kind),
			json_pack("{s:o}", "error", run_error_to_json(run)));
		return;
	}
	send_end(client, run);
	finish(client);
}

static struct exec_events_client *client_new(struct http_request *request)
{
	struct exec_events_client *client = xcalloc(1, sizeof(*client));

	client->request = request;
	client->sink.started = on_started;
	client->sink.output = on_output;
	client->sink.ended = on_ended;
	http_request_work(request, client, on_client_gone);
	return client;
}

void exec_events_start(
	struct http_request *request, struct entry *entry, const struct exec_body *body)
{
	struct exec_events_client *client = client_new(request);
	struct error err = ERROR_INIT;
	struct run *run;

	client->sink.owner = true;
	client->sink.paces = true;
	if (exec_start(entry, body, false, false, &client->sink, &run, &err) < 0) {
		http_request_work_done(request);
		free(client);
		http_reply_error(request, &err);
	}
}

void exec_events_watch(struct http_request *request, struct run *run)
{
	struct exec_events_client *client = client_new(request);

	open_stream(client);
	if (run->pid != 0) {
		send_started(client, run);
	}
	output_each(&run->output, send_output, client);
	if (run->ended_ms > 0) {
		send_end(client, run);
		finish(client);
	} else {
		run_watch(run, &client->sink);
	}
}
