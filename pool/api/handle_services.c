/* Services of a sandbox: how they are, what they said, and starting one again. */
#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/http_stream.h"
#include "pool/api/object_json.h"
#include "pool/entry.h"
#include "pool/freeze.h"
#include "pool/sandbox/services/services.h"

static json_t *service_to_json(const struct services *services, size_t index)
{
	struct service_view view;

	service_view(services, index, &view);
	return json_pack("{s:s, s:s, s:o, s:I, s:o, s:o}", "name", view.name, "state",
		service_state_name(view.state), "pid",
		view.pid != 0 ? json_integer((json_int_t)view.pid) : json_null(), "restarts",
		(json_int_t)view.restarts, "since", json_time(view.since_ms), "message",
		json_str_or_null(view.why));
}

json_t *services_to_json(const struct entry *entry)
{
	json_t *list = json_array();

	for (size_t i = 0; i < services_count(entry->services); i++) {
		json_array_append_new(list, service_to_json(entry->services, i));
	}
	return list;
}

void handle_service_list(struct http_request *request)
{
	const struct entry *entry = http_entry(request);

	if (entry != NULL) {
		http_reply_json(request, MHD_HTTP_OK,
			json_pack("{s:o}", "services", services_to_json(entry)));
	}
}

/* The service of the path's second argument; false: answered. */
static bool find_service(struct http_request *request, struct entry **ret_entry, size_t *ret_index)
{
	struct entry *entry = http_entry(request);
	struct error err = ERROR_INIT;

	if (entry == NULL) {
		return false;
	}
	if (services_find(entry->services, request->match.args[1], ret_index, &err) < 0) {
		http_reply_error(request, &err);
		return false;
	}
	*ret_entry = entry;
	return true;
}

void handle_service_restart(struct http_request *request)
{
	struct error err = ERROR_INIT;
	struct entry *entry;
	size_t index;

	if (!find_service(request, &entry, &index)) {
		return;
	}
	if (entry_wake(entry, false, &err) < 0 ||
		service_restart(entry->services, index, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	entry_touch(entry);
	entry_arm(entry);
	http_reply_json(request, MHD_HTTP_ACCEPTED, service_to_json(entry->services, index));
}

/* ---- the log ---- */

struct log_reader {
	struct entry_use use;
	struct http_request *request;
	struct http_stream *stream;
	struct init_file_handle *file; /* NULL once it is done */
};

static void reader_free(struct log_reader *reader)
{
	entry_use_end(&reader->use);
	if (reader->file != NULL) {
		init_file_cancel(reader->file);
	}
	free(reader);
}

static void on_client_gone(void *work)
{
	reader_free(work);
}

static void reader_end(struct log_reader *reader, bool whole)
{
	struct http_stream *stream = reader->stream;

	reader_free(reader);
	http_stream_end(stream, whole);
}

/* The sandbox goes, and with it whoever wrote: that is the end of a log that is followed. */
static void on_sandbox_lost(struct entry_use *use, const struct error *err)
{
	(void)err;
	reader_end(container_of(use, struct log_reader, use), true);
}

static void on_drained(void *context, size_t bytes)
{
	struct log_reader *reader = context;

	if (reader->file != NULL) {
		init_file_consumed(reader->file, bytes);
	}
}

static void on_data(void *context, const void *data, size_t length)
{
	struct log_reader *reader = context;

	http_stream_write(reader->stream, data, length);
}

static void on_done(void *context, uint64_t bytes, const struct error *err)
{
	struct log_reader *reader = context;

	(void)bytes;
	reader->file = NULL;
	reader_end(reader, err == NULL);
}

/* One that is being made, or waits and is not frozen, may be looked at as well. */
static int entry_look(struct entry *entry, struct error *err)
{
	enum entry_state state = entry->record.state;

	if (!entry->frozen && (state == ENTRY_WARMING || state == ENTRY_READY)) {
		return 0;
	}
	return state == ENTRY_READY ? entry_check_usable(entry, err) : entry_wake(entry, true, err);
}

void handle_service_log(struct http_request *request)
{
	static const struct file_events events = {.data = on_data, .done = on_done};
	const char *follow = http_query(request, "follow");
	struct error err = ERROR_INIT;
	struct log_reader *reader;
	struct entry *entry;
	size_t index;

	if (!find_service(request, &entry, &index)) {
		return;
	}
	if (entry_look(entry, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	reader = xcalloc(1, sizeof(*reader));
	reader->request = request;
	if (service_log(entry->services, index, follow != NULL && !streq(follow, "0"), &events,
		    reader, &reader->file, &err) < 0) {
		free(reader);
		http_reply_error(request, &err);
		return;
	}
	entry_use_begin(entry, &reader->use, true, on_sandbox_lost);
	http_request_work(request, reader, on_client_gone);
	reader->stream =
		http_stream_open(request, &(struct http_stream_spec){.status = MHD_HTTP_OK,
						  .content_type = "text/plain; charset=utf-8",
						  .size = MHD_SIZE_UNKNOWN,
						  .drained = on_drained,
						  .context = reader});
}
