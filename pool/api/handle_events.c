/*
 * A sandbox's events as server-sent events. A client that comes back says by Last-Event-ID (or
 * ?after=N) what it has seen; what is no longer kept is told as one event "missed". A slow client
 * gets what is still kept when it has read what it was sent. Looking costs the sandbox nothing.
 */
#include "base/clock.h"
#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_stream.h"
#include "pool/entry.h"
#include "pool/events.h"

#include <inttypes.h>

/* Not read yet by the client; more is taken from the ring when it has. */
#define PENDING_MAX (64u << 10)

struct follower {
	struct event_reader reader;
	struct http_request *request;
	struct http_stream *stream;
	uint64_t seen;
	bool follows; /* goes on with what comes */
};

static void send_event(struct follower *follower, uint64_t id, int64_t at_ms, const char *name,
	const char *members)
{
	char at[CLOCK_TEXT_SIZE];
	struct buffer text;

	clock_format(at, at_ms);
	buffer_init(&text, 0);
	buffer_addf(&text, "id: %" PRIu64 "\nevent: %s\ndata: {\"at\":\"%s\"%s%s}\n\n", id, name,
		at, *members != '\0' ? "," : "", members);
	http_stream_write(follower->stream, text.data, text.length);
	buffer_done(&text);
	follower->seen = id;
}

static void send_all(struct follower *follower)
{
	const struct entry *entry = follower->reader.entry;
	const struct event *event;

	while (entry != NULL &&
		(!follower->follows || http_stream_pending(follower->stream) < PENDING_MAX) &&
		(event = event_next(entry, follower->seen)) != NULL) {
		uint64_t oldest = event_oldest(entry);

		if (event->id == oldest && oldest > follower->seen + 1) {
			CLEANUP(free_p) char *before = xasprintf("\"before\":%" PRIu64, oldest);

			send_event(follower, oldest - 1, event->at_ms,
				event_kind_name(EVENT_MISSED), before);
			continue;
		}
		send_event(follower, event->id, event->at_ms, event_kind_name(event->kind),
			event->data);
	}
}

static void on_more(struct event_reader *reader)
{
	send_all(container_of(reader, struct follower, reader));
}

static void finish(struct follower *follower)
{
	struct http_stream *stream = follower->stream;

	event_reader_end(&follower->reader);
	free(follower);
	http_stream_end(stream, true);
}

static void on_ended(struct event_reader *reader)
{
	finish(container_of(reader, struct follower, reader));
}

static void on_drained(void *context, size_t bytes)
{
	(void)bytes;
	send_all(context);
}

static void on_client_gone(void *work)
{
	struct follower *follower = work;

	event_reader_end(&follower->reader);
	free(follower);
}

static int seen_before(struct http_request *request, uint64_t *ret_seen, struct error *err)
{
	const char *header = http_header(request, "Last-Event-ID");
	int64_t after = 0;
	char *end = NULL;
	int status = http_query_int(request, "after", 0, INT64_MAX, 0, &after, err);

	if (status == 0 && header != NULL && *header != '\0') {
		errno = 0;
		after = strtoll(header, &end, 10);
		if (errno != 0 || *end != '\0' || after < 0) {
			return error_set(err, ERROR_INVALID,
				"Last-Event-ID is not the number of an event: \"%.40s\"", header);
		}
	}
	*ret_seen = (uint64_t)after;
	return status;
}

void handle_sandbox_events(struct http_request *request)
{
	static const char *const headers[] = {"Cache-Control", "no-store", NULL};
	struct error err = ERROR_INIT;
	struct follower *follower;
	struct entry *entry;
	uint64_t seen = 0;
	int64_t follow = 1;

	if (seen_before(request, &seen, &err) < 0 ||
		http_query_int(request, "follow", 0, 1, 1, &follow, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	entry = http_entry(request);
	if (entry == NULL) {
		return;
	}
	follower = xcalloc(1, sizeof(*follower));
	follower->reader = (struct event_reader){.more = on_more, .ended = on_ended};
	follower->request = request;
	follower->follows = follow != 0;
	/* One from the future is of another sandbox, or of nobody: all there is, then. */
	follower->seen = seen <= event_newest(entry) ? seen : 0;
	http_request_work(request, follower, on_client_gone);
	follower->stream =
		http_stream_open(request, &(struct http_stream_spec){.status = MHD_HTTP_OK,
						  .content_type = "text/event-stream",
						  .size = MHD_SIZE_UNKNOWN,
						  .headers = headers,
						  .drained = on_drained,
						  .context = follower});
	event_reader_begin(entry, &follower->reader);
	send_all(follower);
	if (follow == 0) {
		finish(follower);
	}
}
