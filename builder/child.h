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

/* The same in two steps, for several at once. What spec points to must stay until child_end, which
 * waits, or child_drop, which kills; one of them must be called. */
struct child_running;
MUSTCHECK int child_begin(struct machine *machine, const struct child_spec *spec,
	struct child_running **ret_running, struct error *err);
MUSTCHECK int child_end(struct child_running *running, void *ret_result, struct error *err);
void child_drop(struct child_running *running);

/* In the child. A sign of life with how far it is; few are really sent. */
void child_progress(
	struct child *child, const char *unit, uint64_t done, uint64_t total, uint64_t bytes);
/* A line for the build's log. */
void child_line(struct child *child, const char *format, ...) PRINTF_LIKE(2, 3);
/* Again after a change of ids, which makes the kernel forget: die with the parent. */
void child_bind(struct child *child);

#endif
