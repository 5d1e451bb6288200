/* Doubling growth, a terminator after the last byte, and a cap that input cannot pass. */
#include "base/buffer.h"

#include "base/memory.h"

#include <stdio.h>

/* The first allocation; most texts fit. */
#define BUFFER_FIRST 256
/* What is formatted is mostly a number or a name. */
#define FORMATTED_SMALL 256

void buffer_init(struct buffer *buffer, size_t max)
{
	*buffer = (struct buffer){.max = max};
}

void buffer_done(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){.max = buffer->max};
}

void buffer_clear(struct buffer *buffer)
{
	buffer->length = 0;
	if (buffer->data != NULL) {
		buffer->data[0] = '\0';
	}
}

static bool reserve(struct buffer *buffer, size_t more)
{
	size_t wanted = buffer->length + more;
	size_t room = buffer->room > 0 ? buffer->room : BUFFER_FIRST;

	if (buffer->max > 0 && (more > buffer->max || wanted > buffer->max)) {
		return false;
	}
	while (room < wanted + 1) {
		room *= 2;
	}
	if (room != buffer->room) {
		buffer->data = xrealloc(buffer->data, room);
		buffer->room = room;
	}
	return true;
}

bool buffer_add(struct buffer *buffer, const void *data, size_t length)
{
	if (!reserve(buffer, length)) {
		return false;
	}
	if (length > 0) {
		memcpy(buffer->data + buffer->length, data, length);
	}
	buffer->length += length;
	buffer->data[buffer->length] = '\0';
	return true;
}

bool buffer_add_str(struct buffer *buffer, const char *text)
{
	return buffer_add(buffer, text, strlen(text));
}

bool buffer_addf(struct buffer *buffer, const char *format, ...)
{
	CLEANUP(free_p) char *text = NULL;
	char small[FORMATTED_SMALL];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(small, sizeof(small), format, args);
	va_end(args);
	if (length >= 0 && (size_t)length < sizeof(small)) {
		return buffer_add(buffer, small, (size_t)length);
	}
	va_start(args, format);
	text = xvasprintf(format, args);
	va_end(args);
	return buffer_add_str(buffer, text);
}

void buffer_consume(struct buffer *buffer, size_t length)
{
	if (length == 0) {
		return;
	}
	memmove(buffer->data, buffer->data + length, buffer->length - length + 1);
	buffer->length -= length;
}

const char *buffer_text(const struct buffer *buffer)
{
	return buffer->data != NULL ? buffer->data : "";
}

char *buffer_steal(struct buffer *buffer)
{
	char *data = buffer->data != NULL ? buffer->data : xstrdup("");

	*buffer = (struct buffer){.max = buffer->max};
	return data;
}
