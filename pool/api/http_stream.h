/* An answer that comes bit by bit: events, a file, a log. What the client has not read yet is kept
 * up to what its producer lets pile up; `drained` tells the producer that some of it went on. */
#ifndef HOB_POOL_API_HTTP_STREAM_H
#define HOB_POOL_API_HTTP_STREAM_H

#include "pool/api/http_request.h"

struct http_stream;

struct http_stream_spec {
	unsigned status;
	const char *content_type;
	uint64_t size; /* MHD_SIZE_UNKNOWN: chunked */
	const char *const *headers; /* pairs, NULL at the end; NULL: none */
	/* `bytes` of what was written went to the client. The same context as the request's work.
	 */
	void (*drained)(void *context, size_t bytes);
	void *context;
};

/* Answers the request. The stream lives as long as the request: its work's cancel is called when
 * the client goes away, and not after http_stream_end. */
struct http_stream *http_stream_open(
	struct http_request *request, const struct http_stream_spec *spec);
void http_stream_write(struct http_stream *stream, const void *data, size_t length);
/* Nothing more comes. `whole` false: the client is to see that it broke off. */
void http_stream_end(struct http_stream *stream, bool whole);
/* Bytes written and not yet read. */
size_t http_stream_pending(const struct http_stream *stream);

#endif
