/*
 * A function in a process of its own: for what parses data from outside (git, archives, web
 * servers' replies) and for what may hang. The process has the caller's ids and no descriptor but
 * those named, tells how far it is, and is killed when it stalls or the build is cancelled.
 */
#ifndef HOB_BUILDER_CHILD_H
#define HOB_BUILDER_CHILD_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct machine;
struct child; /* the way back, in the child */

#define CHILD_RESULT_MAX 2048

struct child_spec {
	const char *what; /* for messages: "fetch https://…" */
	int (*run)(struct child *child, void *context, void *ret_result, struct error *err);
	void *context;
	size_t result_size; /* of the plain struct at ret_result; at most CHILD_RESULT_MAX */
	const int *fds; /* kept open, besides the standard three */
	size_t fd_count;
	int64_t stall_ms; /* no sign of life for so long ends it: ERROR_TIMEOUT; 0: never */
};

/* Waits for it. The result's bytes come from a process that has read hostile data: check them. */
MUSTCHECK int child_run(struct machine *machine, const struct child_spec *spec, void *ret_result,
	struct error *err);

/* In the child. A sign of life with how far it is; few are really sent. */
void child_progress(
	struct child *child, const char *unit, uint64_t done, uint64_t total, uint64_t bytes);
/* A line for the build's log. */
void child_line(struct child *child, const char *format, ...) PRINTF_LIKE(2, 3);
/* Again after a change of ids, which makes the kernel forget: die with the parent. */
void child_bind(struct child *child);

#endif
