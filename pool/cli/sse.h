/* Server-sent events (text/event-stream), piece by piece as they come from the network. */
#ifndef HOB_POOL_CLI_SSE_H
#define HOB_POOL_CLI_SSE_H

#include "base/error.h"

#include <stddef.h>

struct sse;

/* One event: its name ("message" when the stream gave none), its lines joined by '\n', and the last
 * id seen. A negative return stops the parser and comes out of sse_feed. */
typedef int sse_event_fn(void *context, const char *name, const char *data, size_t length,
	const char *last_id, struct error *err);

/* An event of more than `event_bytes_max` is ERROR_LIMIT. */
struct sse *sse_new(size_t event_bytes_max, sse_event_fn *fn, void *context);
void sse_free(struct sse *sse); /* NULL is fine; an event without its blank line is dropped */
MUSTCHECK int sse_feed(struct sse *sse, const void *data, size_t length, struct error *err);

#endif
