/* Kept output. The tail is cut back to its cap only when it is twice that, so that adding costs the
 * same however much went through; readers see at most the cap. */
#include "pool/output.h"

#include "base/memory.h"

void output_init(struct output *output, bool whole, struct output_budget *budget)
{
	*output = (struct output){.whole = whole, .budget = budget};
	buffer_init(&output->streams[0], OUTPUT_STREAM_MAX);
	buffer_init(&output->streams[1], OUTPUT_STREAM_MAX);
	buffer_init(&output->tail, 0);
}

void output_done(struct output *output)
{
	output->budget->used -= output->streams[0].length + output->streams[1].length;
	buffer_done(&output->streams[0]);
	buffer_done(&output->streams[1]);
	buffer_done(&output->tail);
	free(output->pieces);
	output->pieces = NULL;
}

static void cut_tail(struct output *output)
{
	size_t drop = output->tail.length - OUTPUT_TAIL_MAX;
	size_t gone = 0;

	buffer_consume(&output->tail, drop);
	while (drop > 0) {
		struct output_piece *piece = &output->pieces[gone];

		if (piece->length > drop) {
			piece->length -= drop;
			break;
		}
		drop -= piece->length;
		gone++;
	}
	output->piece_count -= gone;
	memmove(output->pieces, output->pieces + gone,
		output->piece_count * sizeof(*output->pieces));
}

static void add_tail(
	struct output *output, enum exec_stream stream, const char *data, size_t length)
{
	struct output_piece *last =
		output->piece_count > 0 ? &output->pieces[output->piece_count - 1] : NULL;

	if (last == NULL || last->stream != stream) {
		last = array_add(&output->pieces, &output->piece_count, &output->piece_room);
		last->stream = stream;
	}
	last->length += length;
	buffer_add(&output->tail, data, length);
	if (output->tail.length >= 2 * OUTPUT_TAIL_MAX) {
		cut_tail(output);
	}
}

void output_add(struct output *output, enum exec_stream stream, const void *data, size_t length)
{
	size_t index = stream == EXEC_STDERR ? 1 : 0;
	struct buffer *kept = &output->streams[index];
	struct output_budget *budget = output->budget;
	size_t left = budget->most > budget->used ? budget->most - budget->used : 0;
	size_t room = OUTPUT_STREAM_MAX - kept->length;

	if (length == 0) {
		return;
	}
	if (!output->whole) {
		add_tail(output, stream, data, length);
		return;
	}
	room = room < left ? room : left;
	if (length > room) {
		output->truncated[index] = true;
		length = room;
	}
	if (buffer_add(kept, data, length)) {
		budget->used += length;
	}
}

void output_each(const struct output *output,
	void (*fn)(void *context, enum exec_stream stream, const void *data, size_t length),
	void *context)
{
	size_t skip =
		output->tail.length > OUTPUT_TAIL_MAX ? output->tail.length - OUTPUT_TAIL_MAX : 0;
	const char *at = output->tail.data;

	for (int i = 0; output->whole && i < 2; i++) {
		if (output->streams[i].length > 0) {
			fn(context, i == 0 ? EXEC_STDOUT : EXEC_STDERR, output->streams[i].data,
				output->streams[i].length);
		}
	}
	for (size_t i = 0; i < output->piece_count; i++) {
		const struct output_piece *piece = &output->pieces[i];
		size_t drop = skip < piece->length ? skip : piece->length;

		skip -= drop;
		if (piece->length > drop) {
			fn(context, piece->stream, at + drop, piece->length - drop);
		}
		at += piece->length;
	}
}

struct collector {
	enum exec_stream stream;
	struct buffer *buffer;
};

static void collect(void *context, enum exec_stream stream, const void *data, size_t length)
{
	struct collector *collector = context;

	if (stream == collector->stream) {
		buffer_add(collector->buffer, data, length);
	}
}

void output_collect(const struct output *output, enum exec_stream stream, struct buffer *buffer)
{
	struct collector collector = {stream, buffer};

	output_each(output, collect, &collector);
}
