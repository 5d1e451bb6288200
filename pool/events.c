/* The ring of events and its file, which is written anew when it has grown to twice what is kept.
 */
#include "pool/events.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/entry.h"
#include "pool/manager.h"
#include "pool/run.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

/* More than any hobd adds in EVENTS_DELAY_MS. */
#define NUMBERS_LEFT_OUT 10000
#define FILE_BYTES_MAX (256 << 10)
#define ARGUMENTS_MAX 8
#define ARGUMENT_BYTES 128

struct entry_events {
	struct event *items; /* oldest first */
	size_t count, room;
	uint64_t next_id;
	uint64_t written; /* number of the last that is in the file */
	int64_t file_bytes;
	bool armed; /* the timer is set */
	bool failed; /* to write them: said once */
	struct loop_timer *timer;
	struct event_reader *readers;
};

static const char *const kind_names[] = {
	[EVENT_STATE] = "state",
	[EVENT_EXEC_STARTED] = "exec_started",
	[EVENT_EXEC_ENDED] = "exec_ended",
	[EVENT_SNAPSHOT] = "snapshot",
	[EVENT_SYNC] = "sync",
	[EVENT_SERVICE] = "service",
	[EVENT_ADOPTED] = "adopted",
	[EVENT_MISSED] = "missed",
};
_Static_assert(ARRAY_SIZE(kind_names) == EVENT_KINDS, "every kind has a name");

const char *event_kind_name(enum event_kind kind)
{
	return kind_names[kind];
}

/* ---- the file ---- */

static void event_format(const struct event *event, struct buffer *text)
{
	buffer_addf(text,
		"{\"id\":%" PRIu64 ",\"at_ms\":%" PRId64 ",\"kind\":\"%s\",\"data\":{%s}}\n",
		event->id, event->at_ms, kind_names[event->kind], event->data);
}

static int file_append(struct entry *entry, const struct buffer *text, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("%s/events", entry->record.id);
	CLEANUP(close_p)
	int fd = io_open(entry->manager->sandboxes_fd, path,
		O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600, err);

	return fd < 0 ? fd : io_write_full(fd, text->data, text->length, err);
}

static int file_rewrite(struct entry *entry, struct error *err)
{
	struct entry_events *events = entry->events;
	CLEANUP(free_p) char *path = xasprintf("%s/events", entry->record.id);
	CLEANUP(buffer_done) struct buffer text;

	buffer_init(&text, 0);
	for (size_t i = 0; i < events->count; i++) {
		event_format(&events->items[i], &text);
	}
	events->file_bytes = (int64_t)text.length;
	return io_write_file(
		entry->manager->sandboxes_fd, path, buffer_text(&text), text.length, 0600, err);
}

static void flush(void *context)
{
	struct entry *entry = context;
	struct entry_events *events = entry->events;
	struct error err = ERROR_INIT;
	struct buffer text;
	int status;

	events->armed = false;
	/* While there is no folder of it, there is nobody to adopt it either. */
	if (entry->state_fd < 0 || events->count == 0) {
		return;
	}
	(void)fault_point("events.write");
	buffer_init(&text, 0);
	for (size_t i = 0; i < events->count; i++) {
		if (events->items[i].id > events->written) {
			event_format(&events->items[i], &text);
		}
	}
	events->file_bytes += (int64_t)text.length;
	status = events->file_bytes > FILE_BYTES_MAX ? file_rewrite(entry, &err)
						     : file_append(entry, &text, &err);
	buffer_done(&text);
	events->written = events->next_id - 1;
	if (status < 0 && !events->failed) {
		events->failed = true;
		log_failure("sandbox.events_lost", &err, "sandbox", entry->record.id);
	}
}

/* ---- the ring ---- */

static struct entry_events *events_of(struct entry *entry)
{
	if (entry->events == NULL) {
		entry->events = xcalloc(1, sizeof(*entry->events));
		entry->events->next_id = 1;
		entry->events->timer = loop_timer_new(entry->manager->loop, flush, entry);
	}
	return entry->events;
}

static struct event *push(struct entry_events *events)
{
	if (events->count == EVENTS_KEPT) {
		free(events->items[0].data);
		memmove(events->items, events->items + 1,
			(EVENTS_KEPT - 1) * sizeof(*events->items));
		events->count--;
	}
	return array_add(&events->items, &events->count, &events->room);
}

/* The members without the braces. */
static char *members(json_t *object)
{
	char *text = json_text(object);
	size_t length = strlen(text);

	json_decref(object);
	memmove(text, text + 1, length - 1);
	text[length - 2] = '\0';
	return text;
}

void event_add(struct entry *entry, enum event_kind kind, json_t *data)
{
	struct entry_events *events;
	struct event_reader *reader, *next;
	struct event *event;

	if (entry->record.claimed_ms == 0) {
		json_decref(data);
		return;
	}
	events = events_of(entry);
	event = push(events);
	*event = (struct event){.id = events->next_id++,
		.at_ms = clock_real_ms(),
		.kind = kind,
		.data = members(data)};
	if (!events->armed && entry->state_fd >= 0) {
		events->armed = true;
		loop_timer_after(events->timer, EVENTS_DELAY_MS);
	}
	for (reader = events->readers; reader != NULL; reader = next) {
		next = reader->next;
		reader->more(reader);
	}
}

void event_add_state(struct entry *entry, const char *from, const char *to, const char *reason)
{
	if (entry->record.claimed_ms != 0) {
		event_add(entry, EVENT_STATE,
			json_pack("{s:s, s:s, s:o}", "state", to, "from", from, "reason",
				json_str_or_null(reason)));
	}
}

static void set_error(json_t *json, const struct error *err)
{
	json_object_set_new(json, "error",
		json_pack("{s:s, s:o}", "kind", error_kind_name(err->kind), "message",
			json_str_or_null(err->message)));
}

void event_add_error(struct entry *entry, enum event_kind kind, const struct error *err)
{
	json_t *json = json_object();

	set_error(json, err);
	event_add(entry, kind, json);
}

static json_t *arguments(char *const *argv)
{
	json_t *list = json_array();
	char text[ARGUMENT_BYTES];

	for (size_t i = 0; argv != NULL && argv[i] != NULL && i < ARGUMENTS_MAX; i++) {
		snprintf(text, sizeof(text), "%s", argv[i]);
		json_array_append_new(list, json_str_or_null(text));
	}
	return list;
}

void event_add_run(struct entry *entry, enum event_kind kind, const struct run *run)
{
	const struct exec_result *result = &run->result;
	json_t *json = json_pack("{s:I}", "exec", (json_int_t)run->id);

	if (kind == EVENT_EXEC_STARTED) {
		json_object_set_new(json, "pid", json_integer((json_int_t)run->pid));
		json_object_set_new(json, "argv", arguments(run->argv));
	} else if (run->error.kind != ERROR_NONE) {
		set_error(json, &run->error);
	} else {
		json_object_set_new(json, "exit_code", json_integer(result->code));
		json_object_set_new(json, "signal",
			result->signal != 0 ? json_integer(result->signal) : json_null());
		json_object_set_new(json, "took_ms", json_real((double)result->took_us / 1000));
	}
	if (run->timed_out) {
		json_object_set_new(json, "timed_out", json_true());
	}
	event_add(entry, kind, json);
}

/* ---- reading ---- */

const struct event *event_next(const struct entry *entry, uint64_t after)
{
	const struct entry_events *events = entry->events;
	size_t low = 0, high = events != NULL ? events->count : 0, all = high;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (events->items[middle].id > after) {
			high = middle;
		} else {
			low = middle + 1;
		}
	}
	return low < all ? &events->items[low] : NULL;
}

uint64_t event_oldest(const struct entry *entry)
{
	return entry->events != NULL && entry->events->count > 0 ? entry->events->items[0].id : 0;
}

uint64_t event_newest(const struct entry *entry)
{
	return entry->events != NULL ? entry->events->next_id - 1 : 0;
}

void event_reader_begin(struct entry *entry, struct event_reader *reader)
{
	struct entry_events *events = events_of(entry);

	reader->entry = entry;
	reader->next = events->readers;
	events->readers = reader;
}

void event_reader_end(struct event_reader *reader)
{
	struct event_reader **at;

	if (reader->entry == NULL) {
		return;
	}
	for (at = &reader->entry->events->readers; *at != reader; at = &(*at)->next) {
	}
	*at = reader->next;
	reader->entry = NULL;
}

/* ---- longer than one hobd, or one entry ---- */

static enum event_kind kind_from_name(const char *name)
{
	size_t i = 0;

	while (i < EVENT_KINDS && !streq(kind_names[i], name)) {
		i++;
	}
	return (enum event_kind)i;
}

/* A line that was cut short, or is none of ours, is passed over. */
static void line_load(struct entry_events *events, const char *line, size_t length)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error ignored = ERROR_INIT;
	const char *name = NULL;
	int64_t id = 0, at_ms = 0;
	json_t *data;
	struct event *event;
	enum event_kind kind;

	if (json_parse_object(line, length, &json, &ignored) < 0 ||
		json_get_int(json, "id", 1, INT64_MAX, &id, &ignored) < 0 ||
		json_get_int(json, "at_ms", 0, INT64_MAX, &at_ms, &ignored) < 0 ||
		json_get_str(json, "kind", &name, &ignored) < 0 || name == NULL ||
		(uint64_t)id < events->next_id || !json_is_object(json_object_get(json, "data"))) {
		return;
	}
	kind = kind_from_name(name);
	if (kind >= EVENT_MISSED) {
		return;
	}
	data = json_incref(json_object_get(json, "data"));
	event = push(events);
	*event = (struct event){
		.id = (uint64_t)id, .at_ms = at_ms, .kind = kind, .data = members(data)};
	events->next_id = (uint64_t)id + 1;
}

void events_load(struct entry *entry)
{
	CLEANUP(free_p) char *path = xasprintf("%s/events", entry->record.id);
	CLEANUP(buffer_done) struct buffer text;
	struct entry_events *events;
	struct error err = ERROR_INIT;
	const char *at, *end, *stop;

	buffer_init(&text, FILE_BYTES_MAX * 4);
	if (entry->record.claimed_ms == 0) {
		return;
	}
	events = events_of(entry);
	if (io_read_file(entry->manager->sandboxes_fd, path, &text, &err) < 0 &&
		err.kind != ERROR_NOT_FOUND) {
		log_failure("sandbox.events_lost", &err, "sandbox", entry->record.id);
	}
	at = buffer_text(&text);
	end = at + text.length;
	for (; at < end && (stop = memchr(at, '\n', (size_t)(end - at))) != NULL; at = stop + 1) {
		line_load(events, at, (size_t)(stop - at));
	}
	/* A torn line is not gone on with. */
	events->file_bytes = FILE_BYTES_MAX;
	events->next_id += NUMBERS_LEFT_OUT;
	events->written = events->next_id - 1;
	event_add(entry, EVENT_ADOPTED, json_pack("{s:i}", "lost_ms", EVENTS_DELAY_MS));
}

void events_move(struct entry *from, struct entry *to)
{
	events_free(to);
	to->events = from->events;
	from->events = NULL;
	if (to->events == NULL) {
		return;
	}
	loop_timer_free(to->events->timer);
	to->events->timer = loop_timer_new(to->manager->loop, flush, to);
	to->events->written = 0; /* its file has gone */
	to->events->file_bytes = 0;
	to->events->armed = false;
	for (struct event_reader *reader = to->events->readers; reader != NULL;
		reader = reader->next) {
		reader->entry = to;
	}
}

void events_free(struct entry *entry)
{
	struct entry_events *events = entry->events;

	if (events == NULL) {
		return;
	}
	if (events->armed) {
		flush(entry); /* an orderly end loses nothing */
	}
	while (events->readers != NULL) {
		struct event_reader *reader = events->readers;

		event_reader_end(reader);
		reader->ended(reader);
	}
	loop_timer_free(events->timer);
	for (size_t i = 0; i < events->count; i++) {
		free(events->items[i].data);
	}
	free(events->items);
	free(events);
	entry->events = NULL;
}
