/* Transfers. One is over when the command inside has ended and the process on this side is reaped,
 * in whichever order; what was abandoned only waits for the latter. */
#include "pool/sync/transfer.h"

#include "base/buffer.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/memory.h"
#include "base/process.h"
#include "configs/config.h"
#include "pool/entry.h"
#include "pool/manager.h"
#include "pool/sandbox/init_protocol.h"
#include "pool/sandbox/sandbox.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#define PROGRAM "hob-build"
#define PIECE 65536
/* Paths of a conflict, the words of a failure, the summary: the rest is dropped. */
#define HEARD_MAX 65536
#define PATHS_MAX 100

struct transfer {
	struct manager *manager;
	struct transfer *next;
	const struct transfer_events *events; /* NULL: abandoned */
	void *context;
	/* Here. */
	pid_t pid; /* 0: none, or reaped */
	int pidfd, out_fd, err_fd;
	struct loop_source *pidfd_source, *out_source, *err_source;
	struct buffer summary;
	/* Inside. */
	struct init_exec_handle *exec; /* NULL: ended */
	size_t room;
	bool out_ended, torn_off; /* torn_off: the connection went, so nobody knows how it ended */
	int code;
	struct error failure;
	struct buffer paths, words;
};

static void fd_drop(struct loop_source **source, int *fd)
{
	loop_source_free(*source);
	*source = NULL;
	fd_done(fd);
}

static void transfer_free(struct transfer *transfer)
{
	struct transfer **at = &transfer->manager->transfers;

	while (*at != transfer) {
		at = &(*at)->next;
	}
	*at = transfer->next;
	fd_drop(&transfer->pidfd_source, &transfer->pidfd);
	fd_drop(&transfer->out_source, &transfer->out_fd);
	fd_drop(&transfer->err_source, &transfer->err_fd);
	buffer_done(&transfer->summary);
	buffer_done(&transfer->paths);
	buffer_done(&transfer->words);
	free(transfer);
}

/* ---- the end ---- */

/* What hob-build says went wrong, if it does. */
static bool program_failed(const json_t *summary, struct error *err)
{
	const json_t *failure = json_object_get(summary, "error");

	if (summary == NULL) {
		error_set(err, ERROR_FAILED, "the program that reads the commits ended early");
		return true;
	}
	if (failure == NULL) {
		return false;
	}
	json_to_error(failure, ERROR_FAILED, "the commits cannot be read", err);
	return true;
}

static char **paths_list(const struct transfer *transfer)
{
	const char *at = buffer_text(&transfer->paths), *end = at + transfer->paths.length;
	char **list = NULL;

	for (size_t count = 0; at < end && count < PATHS_MAX; count++) {
		strv_add(&list, at);
		at += strlen(at) + 1;
	}
	return list;
}

static enum transfer_outcome outcome_of(struct transfer *transfer, struct error *err)
{
	const char *words = buffer_text(&transfer->words);

	if (transfer->torn_off) {
		error_copy(err, &transfer->failure);
		return TRANSFER_TORN;
	}
	switch (transfer->code) {
	case APPLY_DONE:
		return TRANSFER_DONE;
	case APPLY_CONFLICT:
		error_set(
			err, ERROR_CONFLICT, "files were worked on that the newer commit changes");
		error_hint(err, "commit or stash them inside, or sync with git itself");
		return TRANSFER_CONFLICT;
	case APPLY_CUT_OFF:
	case APPLY_UNTOUCHED:
		error_set(err, ERROR_CONFLICT, "%s", *words != '\0' ? words : "no reason given");
		return TRANSFER_UNTOUCHED;
	default:
		error_set(err, ERROR_FAILED, "half done (exit code %d): %s", transfer->code,
			*words != '\0' ? words : "no reason given");
		error_hint(err, "sync again: what is done already is left as it is");
		return TRANSFER_TORN;
	}
}

static void transfer_finish(struct transfer *transfer)
{
	CLEANUP(json_decref_p) json_t *summary = NULL;
	CLEANUP(strv_free_p) char **paths = NULL;
	struct transfer_result result = {.outcome = TRANSFER_DONE};
	struct error ignored = ERROR_INIT;
	const struct transfer_events *to_tell = transfer->events;
	void *context = transfer->context;
	bool adopted;

	if (transfer->exec != NULL || transfer->pid != 0) {
		return;
	}
	adopted = transfer->summary.max == 0;
	if (!adopted) {
		(void)!json_parse_object(buffer_text(&transfer->summary), transfer->summary.length,
			&summary, &ignored);
	}
	result.outcome = outcome_of(transfer, &result.error);
	/* Why nothing came is the better reason than that nothing came. */
	if (transfer->code == APPLY_CUT_OFF && !adopted) {
		struct error why = ERROR_INIT;

		if (program_failed(summary, &why)) {
			error_copy(&result.error, &why);
		}
	}
	result.paths = paths = result.outcome == TRANSFER_CONFLICT ? paths_list(transfer) : NULL;
	result.changes = json_integer_value(json_object_get(summary, "changes"));
	result.bytes = json_integer_value(json_object_get(summary, "bytes"));
	result.commit_s = json_integer_value(json_object_get(summary, "commit_s"));
	result.stale = json_object_get(summary, "stale");
	transfer_free(transfer);
	if (to_tell != NULL) {
		to_tell->done(context, &result);
	}
}

/* ---- the process here ---- */

static void on_exit_(void *context, uint32_t events)
{
	struct transfer *transfer = context;
	struct error ignored = ERROR_INIT;
	char piece[4096];
	ssize_t got;
	int code;

	(void)events;
	while (transfer->err_fd >= 0 && (got = read(transfer->err_fd, piece, sizeof(piece))) > 0) {
		buffer_add(&transfer->summary, piece, (size_t)got);
	}
	(void)!process_wait(transfer->pid, &code, &ignored);
	transfer->pid = 0;
	fd_drop(&transfer->pidfd_source, &transfer->pidfd);
	fd_drop(&transfer->err_source, &transfer->err_fd);
	transfer_finish(transfer);
}

static void on_words(void *context, uint32_t events)
{
	struct transfer *transfer = context;
	char piece[4096];
	ssize_t got = read(transfer->err_fd, piece, sizeof(piece));

	(void)events;
	if (got > 0) {
		buffer_add(&transfer->summary, piece, (size_t)got);
	} else if (got == 0) {
		fd_drop(&transfer->err_source, &transfer->err_fd);
	}
}

/* As many bytes as there is room for inside; without room the pipe is not watched. */
static void carry(struct transfer *transfer)
{
	static char piece[PIECE];
	struct error err = ERROR_INIT;
	size_t size = transfer->room < PIECE ? transfer->room : PIECE;
	ssize_t got;

	if (transfer->exec == NULL || transfer->out_fd < 0 || size == 0) {
		return;
	}
	got = read(transfer->out_fd, piece, size);
	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	(void)fault_point("sync.carry");
	if (got > 0 && init_exec_write(transfer->exec, piece, (size_t)got, &err) == 0) {
		transfer->room -= (size_t)got;
	} else {
		fd_drop(&transfer->out_source, &transfer->out_fd);
		init_exec_write_end(transfer->exec);
	}
	if (transfer->out_source != NULL) {
		loop_source_events(transfer->out_source, transfer->room > 0 ? EPOLLIN : 0);
	}
}

static void on_readable(void *context, uint32_t events)
{
	(void)events;
	carry(context);
}

/* ---- the command inside ---- */

static void on_room(void *context, size_t bytes)
{
	struct transfer *transfer = context;

	transfer->room += bytes;
	if (transfer->out_source != NULL) {
		loop_source_events(transfer->out_source, EPOLLIN);
	}
}

static void on_output(void *context, enum exec_stream stream, const void *data, size_t length)
{
	struct transfer *transfer = context;

	buffer_add(stream == EXEC_STDOUT ? &transfer->paths : &transfer->words, data, length);
	init_exec_consumed(transfer->exec, length);
}

static void on_ended(void *context, const struct exec_result *result, const struct error *err)
{
	struct transfer *transfer = context;

	transfer->exec = NULL;
	if (result != NULL) {
		transfer->code = result->code;
		if (result->code == APPLY_DONE && transfer->events != NULL) {
			transfer->events->applied(transfer->context);
		}
	} else if (err->kind == ERROR_UNAVAILABLE) {
		transfer->torn_off = true;
		error_copy(&transfer->failure, err);
	} else {
		/* Refused: it never started. */
		transfer->code = APPLY_UNTOUCHED;
		buffer_add_str(&transfer->words, err->message);
	}
	/* Nobody reads any more. */
	fd_drop(&transfer->out_source, &transfer->out_fd);
	transfer_finish(transfer);
}

static const struct exec_events exec_events = {
	.output = on_output, .stdin_room = on_room, .ended = on_ended};

/* ---- the start ---- */

static struct transfer *transfer_new(
	struct manager *manager, const struct transfer_events *events, void *context)
{
	struct transfer *transfer = xcalloc(1, sizeof(*transfer));

	*transfer = (struct transfer){.manager = manager,
		.next = manager->transfers,
		.events = events,
		.context = context,
		.pidfd = -1,
		.out_fd = -1,
		.err_fd = -1};
	manager->transfers = transfer;
	buffer_init(&transfer->paths, HEARD_MAX);
	buffer_init(&transfer->words, HEARD_MAX);
	return transfer;
}

static int spawn(struct transfer *transfer, const struct entry *entry,
	const struct transfer_order *order, int out_fd, int err_fd, struct error *err)
{
	const struct config *config = transfer->manager->config;
	char *name = (char *)(uintptr_t)entry->record.environment;
	char source[16];
	char *const argv[] = {(char *)(uintptr_t)PROGRAM, (char *)(uintptr_t) "--sync", name,
		(char *)(uintptr_t) "--source", source, (char *)(uintptr_t) "--from",
		(char *)(uintptr_t)order->from, (char *)(uintptr_t) "--to",
		(char *)(uintptr_t)order->to, (char *)(uintptr_t) "--ref",
		(char *)(uintptr_t)order->ref,
		config->file != NULL ? (char *)(uintptr_t) "--config" : NULL, config->file, NULL};
	struct process_spec spec = {.argv = argv,
		.program_fd = transfer->manager->build_program,
		.stdin_fd = -1,
		.stdout_fd = out_fd,
		.stderr_fd = err_fd};

	snprintf(source, sizeof(source), "%zu", order->source);
	return process_spawn(&spec, &transfer->pid, &transfer->pidfd, err);
}

static int start_program(struct transfer *transfer, const struct entry *entry,
	const struct transfer_order *order, struct error *err)
{
	struct loop *loop = transfer->manager->loop;
	int out[2] = {-1, -1}, words[2] = {-1, -1}, status;

	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(words, O_CLOEXEC) < 0) {
		status = error_sys(err, errno, "pipe");
	} else {
		status = spawn(transfer, entry, order, out[1], words[1], err);
	}
	fd_done(&out[1]);
	fd_done(&words[1]);
	transfer->out_fd = out[0];
	transfer->err_fd = words[0];
	buffer_init(&transfer->summary, HEARD_MAX);
	if (status < 0) {
		return status;
	}
	io_set_nonblock(out[0], true);
	io_set_nonblock(words[0], true);
	if ((status = loop_add_fd(loop, transfer->pidfd, EPOLLIN, on_exit_, transfer,
		     &transfer->pidfd_source, err)) < 0 ||
		(status = loop_add_fd(
			 loop, out[0], 0, on_readable, transfer, &transfer->out_source, err)) < 0) {
		return status;
	}
	return loop_add_fd(loop, words[0], EPOLLIN, on_words, transfer, &transfer->err_source, err);
}

static void end_program(struct transfer *transfer)
{
	struct error ignored = ERROR_INIT;
	int code;

	if (transfer->pid > 0) {
		(void)kill(transfer->pid, SIGKILL);
		(void)!process_wait(transfer->pid, &code, &ignored);
		transfer->pid = 0;
	}
}

int transfer_start(struct entry *entry, const struct transfer_order *order,
	const struct transfer_events *events, void *context, struct transfer **ret_transfer,
	struct error *err)
{
	struct transfer *transfer = transfer_new(entry->manager, events, context);
	char *const argv[] = {(char *)(uintptr_t)order->workspace, NULL};
	struct exec_spec spec = {.argv = argv, .stdin_open = true, .apply = true};
	int status = start_program(transfer, entry, order, err);

	if (status == 0) {
		status = init_exec(entry->client, order->exec, &spec, &exec_events, transfer,
			&transfer->exec, err);
	}
	if (status < 0) {
		end_program(transfer);
		transfer_free(transfer);
		return status;
	}
	*ret_transfer = transfer;
	return 0;
}

int transfer_adopt(struct entry *entry, uint32_t exec, const struct transfer_events *events,
	void *context, struct transfer **ret_transfer, struct error *err)
{
	struct transfer *transfer = transfer_new(entry->manager, events, context);
	int status =
		init_exec_adopt(entry->client, exec, &exec_events, transfer, &transfer->exec, err);

	if (status < 0) {
		transfer_free(transfer);
		return status;
	}
	*ret_transfer = transfer;
	return 0;
}

void transfer_abandon(struct transfer *transfer)
{
	transfer->events = NULL;
	if (transfer->exec != NULL) {
		init_exec_detach(transfer->exec, true);
		transfer->exec = NULL;
	}
	fd_drop(&transfer->out_source, &transfer->out_fd);
	if (transfer->pid > 0) {
		(void)kill(transfer->pid, SIGKILL);
		return; /* on_exit_ goes on */
	}
	transfer_free(transfer);
}

void transfers_close(struct manager *manager)
{
	while (manager->transfers != NULL) {
		struct transfer *transfer = manager->transfers;

		/* What is inside is not told: it goes on alone, or finds its stream cut off. */
		if (transfer->exec != NULL) {
			init_exec_detach(transfer->exec, false);
		}
		end_program(transfer);
		transfer_free(transfer);
	}
}
