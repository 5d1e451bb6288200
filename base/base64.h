/* Base64 of RFC 4648 with padding: how bytes that are not UTF-8 travel in JSON. */
#ifndef HOB_BASE_BASE64_H
#define HOB_BASE_BASE64_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>

/* Bytes of text, without an end mark, that `length` bytes become. */
#define BASE64_LENGTH(length) (((length) + 2) / 3 * 4)

/* Owned by the caller. */
char *base64_encode(const void *data, size_t length);
/* Appends the bytes. False, and nothing added, when it is malformed or passes the buffer's cap. */
bool base64_decode(const char *text, size_t length, struct buffer *buffer);

#endif
