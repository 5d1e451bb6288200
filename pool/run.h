/*
 * A command in a sandbox, from its start to its end and, when it was detached, until it is
 * forgotten. Whoever watches it is a sink. The sink that paces (its starter's) decides how fast
 * output comes: what it has not consumed is not granted again to hob-init, so that the command
 * waits.
 */
#ifndef HOB_POOL_RUN_H
#define HOB_POOL_RUN_H

#include "base/buffer.h"
#include "base/error.h"
#include "pool/output.h"
#include "pool/sandbox/sandbox.h"

#include <stdbool.h>
#include <stdint.h>

struct entry;
struct exec_record;
struct loop_timer;
struct run;

struct run_sink {
	struct run *run; /* NULL: not on one */
	struct run_sink *next;
	bool owner; /* its leaving kills a command that is not detached */
	bool paces;
	void (*started)(struct run_sink *sink);
	/* A pacing sink calls run_consumed for these bytes later. */
	void (*output)(
		struct run_sink *sink, enum exec_stream stream, const void *data, size_t length);
	void (*stdin_drained)(struct run_sink *sink);
	/* The last call; the sink is off the run, which is valid until it returns. */
	void (*ended)(struct run_sink *sink, const struct run *run);
};

struct run_spec {
	char *const *argv;
	char *const *env; /* whole */
	const char *cwd;
	const char *user;
	bool tty;
	uint16_t rows, cols;
	int64_t timeout_ms; /* 0: none */
	bool capture; /* keep all output up to a cap; else the tail */
	bool detach; /* goes on without its starter, and is kept when it has ended */
	bool stdin_open; /* else only `stdin_data` is given, or nothing */
	const char *stdin_data;
	size_t stdin_length;
};

struct run {
	struct entry *entry;
	struct run *next;
	uint32_t id;
	char **argv;
	uint32_t pid; /* inside; 0: not started */
	int64_t started_ms;
	int64_t ended_ms; /* 0: running */
	bool detach, timed_out;
	struct output output;
	struct exec_result result; /* once ended, when error.kind is ERROR_NONE */
	struct error error;
	enum exec_step refused; /* with an error: what did not work inside */
	struct init_exec_handle *handle; /* NULL once ended */
	struct run_sink *sinks;
	struct buffer stdin_pending;
	size_t stdin_room;
	bool stdin_end, stdin_ended;
	struct loop_timer *timeout;
	int64_t timeout_at_ms; /* monotonic; 0: none */
	int64_t timeout_left_ms; /* while the sandbox is paused */
};

/* Of one sandbox, ended and not forgotten: the newest. */
#define RUNS_KEPT_MAX 64
/* stdin that hob-init had no room for yet; a WebSocket stops reading above it. */
#define RUN_STDIN_PENDING_MAX (1u << 20)

/* Starts a command; `sink` may be NULL. ERROR_INVALID, ERROR_LIMIT, ERROR_UNAVAILABLE. */
MUSTCHECK int run_start(struct entry *entry, const struct run_spec *spec, struct run_sink *sink,
	struct run **ret_run, struct error *err);
/* Takes up a command that the last hobd had started; it goes on detached. */
void run_adopt(struct entry *entry, const struct exec_record *record);
struct run *run_find(const struct entry *entry, uint32_t id); /* NULL: unknown */

void run_watch(struct run *run, struct run_sink *sink);
/* The watcher leaves; not on a run: nothing. An owner takes a command that is not detached along.
 */
void run_unwatch(struct run_sink *sink);
void run_consumed(struct run *run, size_t bytes);
void run_write(struct run *run, const void *data, size_t length);
void run_write_end(struct run *run);
/* Kills it if it runs, and forgets it; sinks end with ERROR_CANCELLED. */
void run_forget(struct run *run);
/* The sandbox is paused, and resumed: time limits stand still meanwhile. */
void runs_halt(struct entry *entry);
void runs_go_on(struct entry *entry);
/* Each that runs is killed and ends with `err`; those that were detached are kept. */
void runs_fail(struct entry *entry, const struct error *err);
/* The connection to hob-init was freed, and the handles with it: every command ends with `err`. */
void runs_drop(struct entry *entry, const struct error *err);

/* The lists of KEY=value put together; a later list overrides an earlier one. hob-init adds PATH,
 * HOME, USER and TERM where they are missing. strv_free. */
char **env_merge(char *const *const *lists, size_t count);

#endif
