/* A growing byte buffer with a cap: input can fill it only up to `max`, after which adding fails.
 */
#ifndef HOB_BASE_BUFFER_H
#define HOB_BASE_BUFFER_H

#include "base/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct buffer {
	char *data; /* data[length] is always '\0' once something was added */
	size_t length;
	size_t room;
	size_t max; /* bytes; 0 is no cap, for text that hob itself makes */
};

void buffer_init(struct buffer *buffer, size_t max);
void buffer_done(struct buffer *buffer);
void buffer_clear(struct buffer *buffer);
/* False, and nothing added, when it would pass the cap. */
bool buffer_add(struct buffer *buffer, const void *data, size_t length);
bool buffer_add_str(struct buffer *buffer, const char *text);
bool buffer_addf(struct buffer *buffer, const char *format, ...) PRINTF_LIKE(2, 3);
/* Drops the first `length` bytes. */
void buffer_consume(struct buffer *buffer, size_t length);
/* The text, never NULL; still owned by the buffer. */
const char *buffer_text(const struct buffer *buffer);
/* Hands over the heap text (never NULL; free it) and leaves the buffer empty. */
char *buffer_steal(struct buffer *buffer);

#endif
