/*
 * Commands, hob's end: requests out, and what init says about them checked against what it may say
 * now. A handle stays on the list, its id taken, until `ended` returned and INIT_FORGET is sent.
 */
#include "pool/sandbox/client/init_client_internal.h"

#include <assert.h>

static char packed[INIT_PACKET_MAX];

/* Arguments, environment, user and cwd together. */
#define STRINGS_MAX 60000

struct init_exec_handle *exec_find(const struct init_client *client, uint32_t id)
{
	struct init_exec_handle *exec = client->execs;

	while (exec != NULL && exec->id != id) {
		exec = exec->next;
	}
	return exec;
}

void exec_unlink(struct init_exec_handle *exec)
{
	struct init_client *client = exec->client;
	struct init_exec_handle **at = &client->execs;

	while (*at != NULL && *at != exec) {
		at = &(*at)->next;
	}
	if (*at == NULL) {
		return;
	}
	*at = exec->next;
	exec->gone = true;
	if (client->depth > 0) {
		exec->next = client->dead_execs;
		client->dead_execs = exec;
	} else {
		free(exec);
	}
}

/* ---- requests ---- */

static bool pack(size_t *length, const char *string)
{
	size_t size = strlen(string) + 1;

	if (size > STRINGS_MAX - *length) {
		return false;
	}
	memcpy(packed + *length, string, size);
	*length += size;
	return true;
}

static bool pack_list(size_t *length, uint32_t *ret_count, char *const *list)
{
	uint32_t count = 0;

	for (; list != NULL && list[count] != NULL; count++) {
		if (!pack(length, list[count])) {
			return false;
		}
	}
	*ret_count = count;
	return true;
}

static int check_id(const struct init_client *client, uint32_t id, struct error *err)
{
	if (client->broken) {
		return error_set(err, ERROR_UNAVAILABLE, "the sandbox's init is gone");
	}
	if (id == 0 || id >= INIT_FILE_ID_FIRST) {
		return error_set(err, ERROR_INVALID, "%u is no number of a command", id);
	}
	if (exec_find(client, id) != NULL) {
		return error_set(err, ERROR_EXISTS, "there is a command %u in this sandbox", id);
	}
	return 0;
}

static struct init_exec_handle *exec_new(
	struct init_client *client, uint32_t id, const struct exec_events *events, void *context)
{
	struct init_exec_handle *exec = xcalloc(1, sizeof(*exec));

	exec->client = client;
	exec->id = id;
	exec->in.credit = INIT_WINDOW_DEFAULT;
	exec->events = events;
	exec->context = context;
	exec->next = client->execs;
	client->execs = exec;
	return exec;
}

int init_exec(struct init_client *client, uint32_t id, const struct exec_spec *spec,
	const struct exec_events *events, void *context, struct init_exec_handle **ret_exec,
	struct error *err)
{
	struct init_exec head = {
		.flags = (spec->pty ? INIT_EXEC_PTY : 0) |
			 (spec->stdin_open ? INIT_EXEC_STDIN : 0) |
			 (spec->apply ? INIT_EXEC_APPLY : 0) |
			 (spec->service ? INIT_EXEC_QUIET | INIT_EXEC_GROUP : 0),
		.follows = spec->follows,
		.rows = spec->rows,
		.cols = spec->cols,
		.window = INIT_WINDOW_DEFAULT,
	};
	struct part parts[2] = {{&head, sizeof(head)}, {packed, 0}};
	struct init_exec_handle *exec;
	int result = check_id(client, id, err);

	if (result < 0) {
		return result;
	}
	if (spec->argv == NULL || spec->argv[0] == NULL) {
		return error_set(err, ERROR_INVALID, "no command given");
	}
	if (!pack(&parts[1].length, spec->user != NULL ? spec->user : "") ||
		!pack(&parts[1].length, spec->cwd != NULL ? spec->cwd : "/") ||
		!pack_list(&parts[1].length, &head.argc, spec->argv) ||
		!pack_list(&parts[1].length, &head.envc, spec->env)) {
		error_set(err, ERROR_INVALID, "arguments and environment are over %d bytes",
			STRINGS_MAX);
		return error_hint(err, "put long input into a file or standard input");
	}
	result = client_request(client, INIT_EXEC, id, parts, 2, err);
	if (result < 0) {
		return result;
	}
	exec = exec_new(client, id, events, context);
	exec->stdin_open = spec->stdin_open || spec->pty;
	exec->keeps = spec->service;
	*ret_exec = exec;
	return 0;
}

int init_exec_adopt(struct init_client *client, uint32_t id, const struct exec_events *events,
	void *context, struct init_exec_handle **ret_exec, struct error *err)
{
	struct init_exec_handle *exec;
	int result = check_id(client, id, err);

	if (result == 0) {
		result = client_request(client, INIT_REPLAY, id, NULL, 0, err);
	}
	if (result < 0) {
		return result;
	}
	exec = exec_new(client, id, events, context);
	exec->adopted = true;
	exec->stdin_open = true;
	*ret_exec = exec;
	return 0;
}

void init_exec_keep(struct init_exec_handle *exec)
{
	exec->keeps = true;
}

void init_exec_forget(struct init_client *client, uint32_t id)
{
	client_control(client, INIT_FORGET, id, NULL, 0);
}

void init_exec_consumed(struct init_exec_handle *exec, size_t bytes)
{
	uint32_t grant = inflow_give(&exec->in, bytes);

	if (grant > 0 && !exec->ending) {
		client_control(exec->client, INIT_WINDOW, exec->id, &grant, sizeof(grant));
	}
}

int init_exec_write(
	struct init_exec_handle *exec, const void *data, size_t length, struct error *err)
{
	if (!exec->stdin_open) {
		return error_set(err, ERROR_CONFLICT, "standard input of this command is closed");
	}
	if (length > exec->room) {
		return error_set(err, ERROR_LIMIT, "%zu bytes for standard input, room for %u",
			length, exec->room);
	}
	while (length > 0) {
		size_t size = length < PAYLOAD_MAX ? length : PAYLOAD_MAX;
		struct part part = {data, size};
		int result = client_request(exec->client, INIT_STDIN, exec->id, &part, 1, err);

		if (result < 0) {
			return result;
		}
		exec->room -= (uint32_t)size;
		data = (const char *)data + size;
		length -= size;
	}
	return 0;
}

void init_exec_write_end(struct init_exec_handle *exec)
{
	if (exec->stdin_open) {
		exec->stdin_open = false;
		client_control(exec->client, INIT_STDIN_END, exec->id, NULL, 0);
	}
}

void init_exec_signal(struct init_exec_handle *exec, int signal)
{
	uint32_t value = (uint32_t)signal;

	client_control(exec->client, INIT_SIGNAL, exec->id, &value, sizeof(value));
}

void init_exec_resize(struct init_exec_handle *exec, uint16_t rows, uint16_t cols)
{
	struct init_size size = {.rows = rows, .cols = cols};

	client_control(exec->client, INIT_RESIZE, exec->id, &size, sizeof(size));
}

void init_exec_detach(struct init_exec_handle *exec, bool kill)
{
	if (exec->ending) {
		return;
	}
	if (kill) {
		client_control(exec->client, INIT_FORGET, exec->id, NULL, 0);
		exec_unlink(exec);
		return;
	}
	exec->orphan = true;
	exec->events = NULL;
	/* What the caller has not consumed is now consumed. */
	init_exec_consumed(exec, (size_t)exec->in.held);
}

/* ---- what comes back ---- */

/* Calls the caller for the last time; the handle and, after it, maybe the client are gone then. */
static void exec_end(struct init_exec_handle *exec, const struct exec_result *result,
	const struct error *err, bool known_inside)
{
	struct init_client *client = exec->client;

	if (exec->ending) {
		return;
	}
	exec->ending = true;
	if (!exec->orphan && exec->events->ended != NULL) {
		exec->events->ended(exec->context, result, err);
	}
	if (known_inside && !exec->keeps) {
		client_control(client, INIT_FORGET, exec->id, NULL, 0);
	}
	exec_unlink(exec);
}

enum exec_step init_exec_refused(const struct init_exec_handle *exec)
{
	static const enum exec_step steps[INIT_STEPS] = {
		[INIT_STEP_OTHER] = EXEC_STEP_OTHER,
		[INIT_STEP_USER] = EXEC_STEP_USER,
		[INIT_STEP_CWD] = EXEC_STEP_CWD,
		[INIT_STEP_EXEC] = EXEC_STEP_EXEC,
	};

	return steps[exec->refused];
}

void exec_end_with(struct init_exec_handle *exec, const struct error *err)
{
	exec_end(exec, NULL, err, false);
}

static const char *started_packet(struct init_exec_handle *exec, const void *body, size_t length)
{
	uint32_t pid;

	if (exec->started || !u32_read(body, length, 1, &pid)) {
		return "a start that cannot be";
	}
	exec->started = true;
	if (!exec->orphan && exec->events->started != NULL) {
		exec->events->started(exec->context, pid);
	}
	if (exec->gone || exec->adopted || !exec->stdin_open) {
		return NULL;
	}
	exec->room = INIT_STDIN_WINDOW_DEFAULT;
	if (!exec->orphan && exec->events->stdin_room != NULL) {
		exec->events->stdin_room(exec->context, exec->room);
	}
	return NULL;
}

static const char *output_packet(
	struct init_exec_handle *exec, uint32_t type, const void *body, size_t length)
{
	enum exec_stream stream = type == INIT_STDOUT ? EXEC_STDOUT : EXEC_STDERR;

	if (!exec->started || !inflow_take(&exec->in, length)) {
		return "output that was not asked for";
	}
	if (exec->orphan || exec->events->output == NULL) {
		init_exec_consumed(exec, length);
	} else {
		exec->events->output(exec->context, stream, body, length);
	}
	return NULL;
}

static const char *room_packet(struct init_exec_handle *exec, const void *body, size_t length)
{
	uint32_t bytes;

	if (!exec->started || !u32_read(body, length, 1, &bytes) ||
		bytes > INIT_STDIN_WINDOW_DEFAULT - exec->room) {
		return "more room for input than there can be";
	}
	exec->room += bytes;
	if (exec->stdin_open && !exec->orphan && exec->events->stdin_room != NULL) {
		exec->events->stdin_room(exec->context, bytes);
	}
	return NULL;
}

static const char *exited_packet(struct init_exec_handle *exec, const void *body, size_t length)
{
	struct init_exited exited;
	struct exec_result result;

	if (!exec->started || length != sizeof(exited)) {
		return "an end that cannot be";
	}
	memcpy(&exited, body, sizeof(exited));
	if (exited.code < 0 || exited.code > 255 || exited.signal < 0 || exited.signal > 64 ||
		(exited.signal != 0 && exited.code != 128 + exited.signal) ||
		exited.user_us > INT64_MAX || exited.system_us > INT64_MAX ||
		exited.took_us > INT64_MAX || exited.max_rss_bytes > INT64_MAX) {
		return "an end with numbers that cannot be";
	}
	result = (struct exec_result){
		.code = exited.code,
		.signal = exited.signal,
		.user_us = (int64_t)exited.user_us,
		.system_us = (int64_t)exited.system_us,
		.took_us = (int64_t)exited.took_us,
		.max_rss_bytes = (int64_t)exited.max_rss_bytes,
	};
	exec_end(exec, &result, NULL, true);
	return NULL;
}

const char *exec_packet(
	struct init_exec_handle *exec, uint32_t type, const void *body, size_t length)
{
	struct error err = ERROR_INIT;

	switch (type) {
	case INIT_STARTED:
		return started_packet(exec, body, length);
	case INIT_STDOUT:
	case INIT_STDERR:
		return output_packet(exec, type, body, length);
	case INIT_STDIN_WINDOW:
		return room_packet(exec, body, length);
	case INIT_EXITED:
		return exited_packet(exec, body, length);
	case INIT_REFUSED:
		if (exec->started || !refusal_read(body, length, false, &exec->refused, &err)) {
			return "a refusal that cannot be";
		}
		exec_end(exec, NULL, &err, false);
		return NULL;
	default:
		return "a message about files for a command";
	}
}
