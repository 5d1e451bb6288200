/* Verified downloads: downloads/<sha256> exists only when its content has that digest. */
#ifndef HOB_BUILDER_DOWNLOAD_H
#define HOB_BUILDER_DOWNLOAD_H

#include "base/error.h"

#include <stdint.h>

struct machine;

struct download {
	const char *location; /* http(s):// url, or a path, for messages */
	const char *sha256;
	int local_fd; /* of a local file, opened by somebody who may; -1: fetch the url */
	int folder_fd; /* downloads/ */
	uint64_t bytes_max; /* 0: no limit */
	int64_t stall_ms;
};

/*
 * Makes sure of downloads/<sha256> and opens it for reading. A url is retried with growing pauses
 * and resumed where it broke off. ERROR_CORRUPT when the digest is another, ERROR_REMOTE,
 * ERROR_TIMEOUT, ERROR_NO_SPACE, ERROR_LIMIT over bytes_max.
 */
MUSTCHECK int download_get(
	struct machine *machine, const struct download *download, int *ret_fd, struct error *err);

#endif
