/* The status of an HTTP answer from its first bytes. Included by hob-init, so nothing but libc
 * here.
 */
#ifndef HOB_POOL_SANDBOX_INIT_HTTP_STATUS_H
#define HOB_POOL_SANDBOX_INIT_HTTP_STATUS_H

#include <stddef.h>
#include <string.h>

/* "HTTP/1.1 200" and what ends the number. */
#define HTTP_STATUS_BYTES 13

/* 100 to 599; 0: more bytes are needed to tell; -1: this is no HTTP/1. */
static inline int http_status_read(const char *text, size_t length)
{
	static const char pattern[] = "HTTP/1.# ###";
	int status = 0;

	for (size_t i = 0; i < length && i < sizeof(pattern) - 1; i++) {
		if (pattern[i] != '#' ? text[i] != pattern[i] : text[i] < '0' || text[i] > '9') {
			return -1;
		}
		status = i > 8 ? status * 10 + (text[i] - '0') : 0;
	}
	if (length < HTTP_STATUS_BYTES) {
		return 0;
	}
	if (memchr(" \r\n", text[HTTP_STATUS_BYTES - 1], 3) == NULL || status < 100 ||
		status > 599) {
		return -1;
	}
	return status;
}

#endif
