/* Streams. libmicrohttpd asks for bytes when the client has room; with none to give, the connection
 * sleeps until there are some. */
#include "pool/api/http_stream.h"

#include "base/memory.h"
#include "pool/api/http_private.h"

/* What libmicrohttpd takes at a time. */
#define STREAM_BLOCK 32768

struct http_stream {
	struct http_request *request;
	struct buffer buffer;
	size_t start; /* of what is still to be read */
	bool ended, whole;
	void (*drained)(void *context, size_t bytes);
	void *context;
};

size_t http_stream_pending(const struct http_stream *stream)
{
	return stream->buffer.length - stream->start;
}

static ssize_t take(struct http_stream *stream, char *data, size_t room)
{
	size_t length = http_stream_pending(stream);

	length = length < room ? length : room;
	memcpy(data, stream->buffer.data + stream->start, length);
	stream->start += length;
	/* Moving the rest down only when it is the lesser half keeps this linear. */
	if (stream->start == stream->buffer.length) {
		buffer_clear(&stream->buffer);
		stream->start = 0;
	} else if (stream->start > stream->buffer.length / 2) {
		buffer_consume(&stream->buffer, stream->start);
		stream->start = 0;
	}
	if (stream->drained != NULL && !stream->ended) {
		stream->drained(stream->context, length);
	}
	return (ssize_t)length;
}

static ssize_t on_read(void *context, uint64_t position, char *data, size_t room)
{
	struct http_stream *stream = context;

	(void)position;
	if (stream->request->gone || stream->request->server->closing) {
		return MHD_CONTENT_READER_END_WITH_ERROR;
	}
	if (http_stream_pending(stream) > 0) {
		return take(stream, data, room);
	}
	if (stream->ended) {
		return stream->whole ? MHD_CONTENT_READER_END_OF_STREAM
				     : MHD_CONTENT_READER_END_WITH_ERROR;
	}
	http_request_suspend(stream->request);
	return 0;
}

struct http_stream *http_stream_open(
	struct http_request *request, const struct http_stream_spec *spec)
{
	struct http_stream *stream = xcalloc(1, sizeof(*stream));
	struct MHD_Response *response =
		MHD_create_response_from_callback(spec->size, STREAM_BLOCK, on_read, stream, NULL);

	if (response == NULL) {
		abort();
	}
	stream->request = request;
	stream->drained = spec->drained;
	stream->context = spec->context;
	buffer_init(&stream->buffer, 0);
	request->stream = stream;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, spec->content_type);
	for (const char *const *pair = spec->headers; pair != NULL && *pair != NULL; pair += 2) {
		MHD_add_response_header(response, pair[0], pair[1]);
	}
	http_reply(request, spec->status, response);
	return stream;
}

void http_stream_write(struct http_stream *stream, const void *data, size_t length)
{
	if (!stream->ended && length > 0) {
		buffer_add(&stream->buffer, data, length);
		http_request_wake(stream->request);
	}
}

void http_stream_end(struct http_stream *stream, bool whole)
{
	stream->ended = true;
	stream->whole = whole;
	http_request_work_done(stream->request);
	http_request_wake(stream->request);
}

void http_stream_free(struct http_stream *stream)
{
	if (stream != NULL) {
		buffer_done(&stream->buffer);
		free(stream);
	}
}
