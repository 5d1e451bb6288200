/* Server-sent events: the same bytes whole and cut in pieces must give the same events, or fail
 * both times, and no event may pass the cap. The first byte says how long the pieces are. */
#include "base/buffer.h"
#include "base/memory.h"
#include "pool/cli/sse.h"

#include <stdint.h>

#define EVENT_MAX 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_event(void *context, const char *name, const char *data, size_t length,
	const char *last_id, struct error *err)
{
	struct buffer *seen = context;

	if (length > EVENT_MAX || strlen(name) >= EVENT_MAX || strlen(last_id) >= EVENT_MAX) {
		abort();
	}
	buffer_addf(seen, "%s|%s|%zu|", name, last_id, length);
	buffer_add(seen, data, length);
	/* A stop by the reader has to come out of sse_feed as it is. */
	return strcmp(name, "stop") == 0 ? error_set(err, ERROR_CANCELLED, "stop") : 0;
}

static int run(const uint8_t *data, size_t size, size_t piece, struct buffer *seen)
{
	struct error err = ERROR_INIT;
	struct sse *sse = sse_new(EVENT_MAX, on_event, seen);
	int status = 0;

	while (size > 0 && status >= 0) {
		size_t length = size < piece ? size : piece;

		status = sse_feed(sse, data, length, &err);
		data += length;
		size -= length;
	}
	if (status < 0 && status != -(int)err.kind) {
		abort();
	}
	sse_free(sse);
	return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buffer whole, pieces;
	int status;

	if (size == 0) {
		return 0;
	}
	buffer_init(&whole, 0);
	buffer_init(&pieces, 0);
	status = run(data + 1, size - 1, SIZE_MAX, &whole);
	if (run(data + 1, size - 1, (size_t)data[0] % 16 + 1, &pieces) != status ||
		whole.length != pieces.length ||
		memcmp(buffer_text(&whole), buffer_text(&pieces), whole.length) != 0) {
		abort();
	}
	buffer_done(&whole);
	buffer_done(&pieces);
	return 0;
}
