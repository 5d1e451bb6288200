/* The parser of the HTML standard's event streams: lines end in LF, CR or CRLF, a blank line ends
 * an event. A line and an event's data share one cap, so that a stream cannot fill the memory. */
#include "pool/cli/sse.h"

#include "base/buffer.h"
#include "base/memory.h"

/* Of an event's name and of an id: longer ones are not hob's. */
#define WORD_MAX 128

struct sse {
	sse_event_fn *fn;
	void *context;
	struct buffer line;
	struct buffer data;
	bool has_data;
	bool after_cr; /* an LF now belongs to the CR before it */
	bool first_line; /* where a byte order mark may stand */
	char name[WORD_MAX];
	char id[WORD_MAX];
};

struct sse *sse_new(size_t event_bytes_max, sse_event_fn *fn, void *context)
{
	struct sse *sse = xcalloc(1, sizeof(*sse));

	sse->fn = fn;
	sse->context = context;
	sse->first_line = true;
	buffer_init(&sse->line, event_bytes_max);
	buffer_init(&sse->data, event_bytes_max);
	return sse;
}

void sse_free(struct sse *sse)
{
	if (sse != NULL) {
		buffer_done(&sse->line);
		buffer_done(&sse->data);
		free(sse);
	}
}

static int too_long(const struct sse *sse, struct error *err)
{
	return error_set(
		err, ERROR_LIMIT, "an event of the stream is over %zu bytes", sse->data.max);
}

static int dispatch(struct sse *sse, struct error *err)
{
	int status = 0;

	if (sse->has_data) {
		status = sse->fn(sse->context, sse->name[0] != '\0' ? sse->name : "message",
			buffer_text(&sse->data), sse->data.length, sse->id, err);
	}
	buffer_clear(&sse->data);
	sse->has_data = false;
	sse->name[0] = '\0';
	return status;
}

static void keep_word(char *word, const char *value, size_t length)
{
	if (length < WORD_MAX && memchr(value, '\0', length) == NULL) {
		memcpy(word, value, length);
		word[length] = '\0';
	}
}

static int take_line(struct sse *sse, const char *line, size_t length, struct error *err)
{
	const char *colon, *value = "";
	size_t name_length = length, value_length = 0;

	if (sse->first_line && length >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
		line += 3;
		length -= 3;
		name_length = length;
	}
	sse->first_line = false;
	if (length == 0) {
		return dispatch(sse, err);
	}
	colon = memchr(line, ':', length);
	if (colon != NULL) {
		name_length = (size_t)(colon - line);
		value = colon + 1;
		value_length = length - name_length - 1;
		if (value_length > 0 && value[0] == ' ') {
			value++;
			value_length--;
		}
	}
	if (name_length == 4 && memcmp(line, "data", 4) == 0) {
		if ((sse->has_data && !buffer_add(&sse->data, "\n", 1)) ||
			!buffer_add(&sse->data, value, value_length)) {
			return too_long(sse, err);
		}
		sse->has_data = true;
	} else if (name_length == 5 && memcmp(line, "event", 5) == 0) {
		keep_word(sse->name, value, value_length);
	} else if (name_length == 2 && memcmp(line, "id", 2) == 0) {
		keep_word(sse->id, value, value_length);
	}
	return 0;
}

int sse_feed(struct sse *sse, const void *data, size_t length, struct error *err)
{
	const char *at = data;
	const char *end = at + length;

	while (at < end) {
		const char *stop = at;
		int status;

		if (sse->after_cr && *at == '\n') {
			sse->after_cr = false;
			at++;
			continue;
		}
		sse->after_cr = false;
		while (stop < end && *stop != '\n' && *stop != '\r') {
			stop++;
		}
		if (!buffer_add(&sse->line, at, (size_t)(stop - at))) {
			return too_long(sse, err);
		}
		if (stop == end) {
			return 0;
		}
		sse->after_cr = *stop == '\r';
		at = stop + 1;
		status = take_line(sse, buffer_text(&sse->line), sse->line.length, err);
		buffer_clear(&sse->line);
		if (status < 0) {
			return status;
		}
	}
	return 0;
}
