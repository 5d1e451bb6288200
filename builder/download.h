/* Verified downloads: downloads/<sha256> exists only when its content has that digest. */
#ifndef HOB_BUILDER_DOWNLOAD_H
#define HOB_BUILDER_DOWNLOAD_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct child;
struct machine;

struct download {
	const char *location; /* http(s):// url, or a path, for messages */
	const char *sha256;
	int local_fd; /* of a local file, opened by somebody who may; -1: fetch the url */
	int folder_fd; /* downloads/ */
	uint64_t bytes_max; /* 0: no limit */
	int64_t stall_ms;
	/* Of a url, all optional. */
	bool https_only; /* redirects must not leave https */
	const char *authorization, *accept; /* headers; the first goes to the url's own host only */
	char *challenge; /* into challenge[challenge_size]: what a 401 asks for; else as it was */
	size_t challenge_size;
};

/*
 * Makes sure of downloads/<sha256> and opens it for reading. A url is retried with growing pauses
 * and resumed where it broke off. ERROR_CORRUPT when the digest is another, ERROR_REMOTE,
 * ERROR_TIMEOUT, ERROR_NO_SPACE, ERROR_LIMIT over bytes_max.
 */
MUSTCHECK int download_get(
	struct machine *machine, const struct download *download, int *ret_fd, struct error *err);
/* The same in a child that has libcurl started, and without opening it. ERROR_DENIED: a 401. */
MUSTCHECK int download_here(
	struct child *child, const struct download *download, struct error *err);

#endif
