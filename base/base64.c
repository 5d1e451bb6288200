/* Base64. Decoding is strict: only whole groups, padding only at the end, unused bits zero. */
#include "base/base64.h"

#include "base/memory.h"

#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const void *data, size_t length)
{
	const uint8_t *in = data;
	char *text = xmalloc(BASE64_LENGTH(length) + 1);
	char *out = text;

	for (size_t i = 0; i < length; i += 3) {
		size_t left = length - i;
		uint32_t group = (uint32_t)in[i] << 16;

		if (left > 1) {
			group |= (uint32_t)in[i + 1] << 8;
		}
		if (left > 2) {
			group |= in[i + 2];
		}
		*out++ = alphabet[group >> 18];
		*out++ = alphabet[group >> 12 & 63];
		*out++ = left > 1 ? alphabet[group >> 6 & 63] : '=';
		*out++ = left > 2 ? alphabet[group & 63] : '=';
	}
	*out = '\0';
	return text;
}

static int value_of(char c)
{
	const char *found = c != '\0' ? strchr(alphabet, c) : NULL;

	return found != NULL ? (int)(found - alphabet) : -1;
}

/* One group of four letters into `out`; the number of bytes, or -1. */
static int group_decode(const char *text, bool last, uint8_t *out)
{
	uint32_t group = 0;
	int letters = 4;

	while (last && letters > 2 && text[letters - 1] == '=') {
		letters--;
	}
	for (int i = 0; i < 4; i++) {
		int value = i < letters ? value_of(text[i]) : 0;

		if (value < 0) {
			return -1;
		}
		group = group << 6 | (uint32_t)value;
	}
	if ((letters == 2 && (group & 0xffff) != 0) || (letters == 3 && (group & 0xff) != 0)) {
		return -1;
	}
	out[0] = (uint8_t)(group >> 16);
	out[1] = (uint8_t)(group >> 8);
	out[2] = (uint8_t)group;
	return letters - 1;
}

bool base64_decode(const char *text, size_t length, struct buffer *buffer)
{
	CLEANUP(free_p) uint8_t *bytes = NULL;
	size_t used = 0;

	if (length % 4 != 0 || (buffer->max != 0 && length / 4 * 3 > buffer->max + 2)) {
		return false;
	}
	bytes = xmalloc(length / 4 * 3 + 1);
	for (size_t i = 0; i < length; i += 4) {
		int got = group_decode(text + i, i + 4 == length, bytes + used);

		if (got < 0) {
			return false;
		}
		used += (size_t)got;
	}
	return buffer_add(buffer, bytes, used);
}
