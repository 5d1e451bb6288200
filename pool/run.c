/* Commands. A run with a handle is running and counts as activity; one without has ended. */
#include "pool/run.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/entry.h"
#include "pool/events.h"
#include "pool/freeze.h"
#include "pool/manager.h"
#include "pool/record.h"
#include "pool/sandbox/services/services.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

/* The file of started commands is written anew, with the running ones only, above this. */
#define EXECS_FILE_MAX 65536

static void run_free(struct run *run)
{
	for (struct run **at = &run->entry->runs; *at != NULL; at = &(*at)->next) {
		if (*at == run) {
			*at = run->next;
			break;
		}
	}
	assert(run->sinks == NULL && run->handle == NULL);
	loop_timer_free(run->timeout);
	buffer_done(&run->stdin_pending);
	output_done(&run->output);
	strv_free(run->argv);
	free(run);
}

/* ---- the file of started commands ---- */

static void format_run(const struct run *run, struct buffer *text)
{
	struct exec_record record = {
		.id = run->id, .started_ms = run->started_ms, .argv = run->argv};

	exec_record_format(&record, text);
}

static int rewrite_execs(struct entry *entry, struct error *err)
{
	CLEANUP(close_p)
	int folder = io_open(
		entry->manager->sandboxes_fd, entry->record.id, O_RDONLY | O_DIRECTORY, 0, err);
	struct buffer text;
	int fd, status;

	if (folder < 0) {
		return folder;
	}
	buffer_init(&text, 0);
	for (const struct run *run = entry->runs; run != NULL; run = run->next) {
		if (run->handle != NULL || run->detach) {
			format_run(run, &text);
		}
	}
	status = io_write_file(folder, "execs", buffer_text(&text), text.length, 0600, err);
	entry->execs_bytes = (int64_t)text.length;
	buffer_done(&text);
	if (status < 0) {
		return status;
	}
	if ((fd = io_open(folder, "execs", O_WRONLY | O_APPEND, 0, err)) < 0) {
		return fd;
	}
	fd_done(&entry->execs_fd);
	entry->execs_fd = fd;
	return 0;
}

static int open_execs(struct entry *entry, struct error *err)
{
	char path[ID_SIZE + sizeof("/execs")];
	struct stat stat;

	snprintf(path, sizeof(path), "%s/execs", entry->record.id);
	entry->execs_fd = io_open(
		entry->manager->sandboxes_fd, path, O_WRONLY | O_CREAT | O_APPEND, 0600, err);
	if (entry->execs_fd < 0) {
		return -(int)err->kind;
	}
	entry->execs_bytes = fstat(entry->execs_fd, &stat) == 0 ? stat.st_size : 0;
	return 0;
}

static int append_exec(const struct run *run, struct error *err)
{
	struct entry *entry = run->entry;
	struct buffer line;
	int status = 0;

	if (entry->execs_fd < 0) {
		status = open_execs(entry, err);
	} else if (entry->execs_bytes > EXECS_FILE_MAX) {
		return rewrite_execs(entry, err); /* with this one among the running */
	}
	if (status < 0) {
		return status;
	}
	buffer_init(&line, 0);
	format_run(run, &line);
	status = io_write_full(entry->execs_fd, line.data, line.length, err);
	entry->execs_bytes += (int64_t)line.length;
	buffer_done(&line);
	return status;
}

/* A lost line costs only what `hob info` shows of a command after a restart. */
static void record_started(const struct run *run)
{
	struct error err = ERROR_INIT;

	if (append_exec(run, &err) < 0) {
		log_failure("exec.record_failed", &err, "sandbox", run->entry->record.id);
	}
}

/* ---- events of hob-init ---- */

static void on_started(void *context, uint32_t pid)
{
	struct run *run = context;

	run->pid = pid;
	event_add_run(run->entry, EVENT_EXEC_STARTED, run);
	for (struct run_sink *sink = run->sinks, *next; sink != NULL; sink = next) {
		next = sink->next;
		if (sink->started != NULL) {
			sink->started(sink);
		}
	}
}

static void on_output(void *context, enum exec_stream stream, const void *data, size_t length)
{
	struct run *run = context;
	bool paced = false;

	output_add(&run->output, stream, data, length);
	for (struct run_sink *sink = run->sinks, *next; sink != NULL; sink = next) {
		next = sink->next;
		paced = paced || sink->paces;
		if (sink->output != NULL) {
			sink->output(sink, stream, data, length);
		}
	}
	/* A sink that paced and left took a command that is not detached with it. */
	if (!paced && run->handle != NULL) {
		init_exec_consumed(run->handle, length);
	}
}

static void pump_stdin(struct run *run)
{
	struct error err = ERROR_INIT;
	size_t length = run->stdin_pending.length;

	if (run->handle == NULL) {
		return;
	}
	if (length > run->stdin_room) {
		length = run->stdin_room;
	}
	if (length > 0 && init_exec_write(run->handle, run->stdin_pending.data, length, &err) < 0) {
		log_failure("exec.stdin_failed", &err, "sandbox", run->entry->record.id, "exec",
			run->id);
		return;
	}
	run->stdin_room -= length;
	buffer_consume(&run->stdin_pending, length);
	if (run->stdin_end && !run->stdin_ended && run->stdin_pending.length == 0) {
		run->stdin_ended = true;
		init_exec_write_end(run->handle);
	}
}

static void on_stdin_room(void *context, size_t bytes)
{
	struct run *run = context;

	run->stdin_room += bytes;
	pump_stdin(run);
	for (struct run_sink *sink = run->sinks, *next; sink != NULL; sink = next) {
		next = sink->next;
		if (sink->stdin_drained != NULL) {
			sink->stdin_drained(sink);
		}
	}
}

static void end_sinks(struct run *run)
{
	while (run->sinks != NULL) {
		struct run_sink *sink = run->sinks;

		run->sinks = sink->next;
		sink->run = NULL;
		sink->ended(sink, run);
	}
}

/* The command is over, one way or the other; its handle is gone or about to be. */
static void run_end(struct run *run)
{
	struct entry *entry = run->entry;

	run->handle = NULL;
	run->ended_ms = clock_real_ms();
	loop_timer_stop(run->timeout);
	buffer_done(&run->stdin_pending);
	entry->runs_running--;
	event_add_run(entry, EVENT_EXEC_ENDED, run);
	entry_touch(entry);
	entry_arm(entry);
	end_sinks(run);
}

/* Ended commands that nobody asked about make room for later ones. */
static void forget_oldest(struct entry *entry)
{
	struct run *oldest = NULL;
	size_t count = 0;

	for (struct run *run = entry->runs; run != NULL; run = run->next) {
		if (run->handle == NULL) {
			oldest = run;
			count++;
		}
	}
	if (count > RUNS_KEPT_MAX) {
		run_free(oldest);
	}
}

static void on_ended(void *context, const struct exec_result *result, const struct error *err)
{
	struct run *run = context;

	if (result != NULL) {
		run->result = *result;
	} else {
		error_copy(&run->error, err);
		run->refused = init_exec_refused(run->handle);
	}
	run_end(run);
	/* What never started leaves nothing to look at. */
	if (!run->detach || run->pid == 0) {
		run_free(run);
	} else {
		forget_oldest(run->entry);
	}
}

static const struct exec_events events = {
	.started = on_started,
	.output = on_output,
	.stdin_room = on_stdin_room,
	.ended = on_ended,
};

static void on_timeout(void *context)
{
	struct run *run = context;

	run->timed_out = true;
	if (run->handle != NULL) {
		init_exec_signal(run->handle, SIGKILL);
	}
}

/* ---- what others ask for ---- */

static struct run *run_new(struct entry *entry, uint32_t id, char *const *argv, bool capture)
{
	struct run *run = xcalloc(1, sizeof(*run));

	run->entry = entry;
	run->id = id;
	run->argv = strv_copy(argv);
	run->started_ms = clock_real_ms();
	run->timeout = loop_timer_new(entry->manager->loop, on_timeout, run);
	buffer_init(&run->stdin_pending, 0);
	output_init(&run->output, capture, &entry->manager->output);
	run->next = entry->runs;
	entry->runs = run;
	return run;
}

int run_start(struct entry *entry, const struct run_spec *spec, struct run_sink *sink,
	struct run **ret_run, struct error *err)
{
	bool has_stdin = spec->stdin_open || spec->stdin_length > 0;
	struct exec_spec exec = {.argv = spec->argv,
		.env = spec->env,
		.cwd = spec->cwd,
		.user = spec->user,
		.pty = spec->tty,
		.stdin_open = has_stdin,
		.rows = spec->rows,
		.cols = spec->cols};
	int status = entry_wake(entry, false, err);
	struct run *run;

	if (status < 0) {
		return status;
	}
	run = run_new(entry, entry->next_exec, spec->argv, spec->capture);
	run->detach = spec->detach;
	if ((status = init_exec(entry->client, run->id, &exec, &events, run, &run->handle, err)) <
		0) {
		run->handle = NULL;
		run_free(run);
		return status;
	}
	entry->next_exec = entry->next_exec + 1 < SERVICE_EXEC_FIRST ? entry->next_exec + 1 : 1;
	entry->runs_running++;
	entry_touch(entry);
	record_started(run);
	if (spec->stdin_length > 0) {
		buffer_add(&run->stdin_pending, spec->stdin_data, spec->stdin_length);
	}
	run->stdin_end = !spec->stdin_open && has_stdin;
	if (spec->timeout_ms > 0) {
		run->timeout_at_ms = clock_mono_ms() + spec->timeout_ms;
		loop_timer_at(run->timeout, run->timeout_at_ms);
	}
	if (sink != NULL) {
		run_watch(run, sink);
	}
	*ret_run = run;
	return 0;
}

void run_adopt(struct entry *entry, const struct exec_record *record)
{
	struct run *run = run_new(entry, record->id, record->argv, false);
	struct error err = ERROR_INIT;

	run->started_ms = record->started_ms;
	run->detach = true;
	entry->runs_running++;
	if (record->id >= entry->next_exec) {
		entry->next_exec = record->id + 1;
	}
	if (init_exec_adopt(entry->client, run->id, &events, run, &run->handle, &err) < 0) {
		log_failure(
			"exec.adopt_failed", &err, "sandbox", entry->record.id, "exec", record->id);
		run->handle = NULL;
		entry->runs_running--;
		run_free(run);
	}
}

struct run *run_find(const struct entry *entry, uint32_t id)
{
	struct run *run = entry->runs;

	while (run != NULL && run->id != id) {
		run = run->next;
	}
	return run;
}

void run_watch(struct run *run, struct run_sink *sink)
{
	sink->run = run;
	sink->next = run->sinks;
	run->sinks = sink;
}

void run_unwatch(struct run_sink *sink)
{
	struct run *run = sink->run;
	struct run_sink **at;

	if (run == NULL) {
		return;
	}
	for (at = &run->sinks; *at != sink; at = &(*at)->next) {
	}
	*at = sink->next;
	sink->run = NULL;
	if (sink->owner && !run->detach && !run->entry->manager->leaving) {
		log_info("exec.abandoned", "sandbox", run->entry->record.id, "exec", run->id);
		run_forget(run);
	}
}

void run_consumed(struct run *run, size_t bytes)
{
	if (run->handle != NULL && bytes > 0) {
		init_exec_consumed(run->handle, bytes);
	}
}

void run_write(struct run *run, const void *data, size_t length)
{
	struct error err = ERROR_INIT;

	if (run->handle != NULL && !run->stdin_end) {
		/* Somebody types. */
		if (entry_wake(run->entry, false, &err) < 0) {
			log_failure("exec.asleep", &err, "sandbox", run->entry->record.id);
		}
		buffer_add(&run->stdin_pending, data, length);
		pump_stdin(run);
	}
}

void run_write_end(struct run *run)
{
	run->stdin_end = true;
	pump_stdin(run);
}

void run_forget(struct run *run)
{
	if (run->handle != NULL) {
		init_exec_detach(run->handle, true);
		error_set(&run->error, ERROR_CANCELLED, "command %" PRIu32 " was ended on request",
			run->id);
		run_end(run);
	}
	run_free(run);
}

void runs_halt(struct entry *entry)
{
	for (struct run *run = entry->runs; run != NULL; run = run->next) {
		if (run->handle != NULL && run->timeout_at_ms > 0) {
			int64_t left_ms = run->timeout_at_ms - clock_mono_ms();

			run->timeout_left_ms = left_ms > 0 ? left_ms : 0;
			loop_timer_stop(run->timeout);
		}
	}
}

void runs_go_on(struct entry *entry)
{
	for (struct run *run = entry->runs; run != NULL; run = run->next) {
		if (run->handle != NULL && run->timeout_at_ms > 0) {
			run->timeout_at_ms = clock_mono_ms() + run->timeout_left_ms;
			loop_timer_at(run->timeout, run->timeout_at_ms);
		}
	}
}

static struct run *first_running(const struct entry *entry)
{
	struct run *run = entry->runs;

	while (run != NULL && run->handle == NULL) {
		run = run->next;
	}
	return run;
}

void runs_fail(struct entry *entry, const struct error *err)
{
	struct run *run;

	while ((run = first_running(entry)) != NULL) {
		init_exec_detach(run->handle, true);
		error_copy(&run->error, err);
		run_end(run);
		if (!run->detach) {
			run_free(run);
		}
	}
}

void runs_drop(struct entry *entry, const struct error *err)
{
	while (entry->runs != NULL) {
		struct run *run = entry->runs;

		if (run->handle != NULL) {
			error_copy(&run->error, err);
			run_end(run);
		}
		run_free(run);
	}
}

/* ---- environment ---- */

static bool has_key(char *const *list, const char *pair)
{
	size_t length = strcspn(pair, "=") + 1;

	for (; list != NULL && *list != NULL; list++) {
		if (strncmp(*list, pair, length) == 0) {
			return true;
		}
	}
	return false;
}

char **env_merge(char *const *const *lists, size_t count)
{
	char **env = xcalloc(1, sizeof(*env));

	while (count-- > 0) {
		for (char *const *pair = lists[count]; pair != NULL && *pair != NULL; pair++) {
			if (!has_key(env, *pair)) {
				strv_add(&env, *pair);
			}
		}
	}
	return env;
}
