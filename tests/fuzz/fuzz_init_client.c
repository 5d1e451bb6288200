/*
 * A sandbox whose init was taken over: any packets at all go to hob's client while requests of
 * every kind wait for answers. The input is two bytes that choose what the callbacks do, then
 * packets, each after its length (two bytes, little-endian). No crash, and every request ends once.
 */
#include "base/loop.h"
#include "base/memory.h"
#include "pool/sandbox/init_protocol.h"
#include "pool/sandbox/sandbox.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define PACKETS_MAX 64

enum { RUN, SHELL, ADOPTED, EXECS };
enum { READ, WRITE, LIST, REMOVE, LOG, PROBE, FILES };

struct fuzz {
	struct loop *loop;
	struct init_client *client;
	struct init_exec_handle *execs[EXECS];
	struct init_file_handle *files[FILES];
	int exec_ends[EXECS], file_ends[FILES];
	unsigned calls;
	unsigned act_at; /* the call at which `act` happens */
	uint8_t act;
	bool consume;
	bool over;
};

/* What a context points to: which request of which fuzz. */
struct request {
	struct fuzz *fuzz;
	int index;
};

enum { ACT_NONE, ACT_FREE, ACT_KILL, ACT_LEAVE, ACT_WRITE, ACTS };

static void act(struct fuzz *fuzz)
{
	struct error err = ERROR_INIT;

	if (fuzz->client == NULL || fuzz->calls++ != fuzz->act_at) {
		return;
	}
	for (int i = 0; i < EXECS; i++) {
		if (fuzz->execs[i] == NULL) {
			continue;
		}
		if (fuzz->act == ACT_WRITE) {
			(void)!init_exec_write(fuzz->execs[i], "abc", 3, &err);
			init_exec_write_end(fuzz->execs[i]);
		} else if (fuzz->act == ACT_KILL || fuzz->act == ACT_LEAVE) {
			init_exec_detach(fuzz->execs[i], fuzz->act == ACT_KILL);
			fuzz->execs[i] = NULL;
		}
	}
	for (int i = 0; i < FILES; i++) {
		if (fuzz->files[i] != NULL && fuzz->act == ACT_KILL) {
			init_file_cancel(fuzz->files[i]);
			fuzz->files[i] = NULL;
		} else if (fuzz->files[i] != NULL && fuzz->act == ACT_WRITE) {
			(void)!init_file_send(fuzz->files[i], "abc", 3, &err);
			init_file_send_end(fuzz->files[i]);
		}
	}
	if (fuzz->act == ACT_FREE) {
		init_client_free(fuzz->client);
		fuzz->client = NULL;
		fuzz->over = true;
		loop_stop(fuzz->loop);
	}
}

static void on_ready(void *context, const uint32_t *execs, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		assert(execs[i] > 0 && execs[i] < INIT_FILE_ID_FIRST);
	}
	act(context);
}

static void on_closed(void *context)
{
	struct fuzz *fuzz = context;

	assert(!fuzz->over);
	fuzz->over = true;
	loop_stop(fuzz->loop);
	act(fuzz);
}

static void on_started(void *context, uint32_t pid)
{
	struct request *request = context;

	assert(pid > 0);
	act(request->fuzz);
}

static void on_output(void *context, enum exec_stream stream, const void *data, size_t length)
{
	struct request *request = context;
	volatile const char *bytes = data;

	assert(length > 0 && (stream == EXEC_STDOUT || stream == EXEC_STDERR));
	(void)bytes[length - 1];
	if (request->fuzz->consume) {
		init_exec_consumed(request->fuzz->execs[request->index], length);
	}
	act(request->fuzz);
}

static void on_stdin_room(void *context, size_t bytes)
{
	struct request *request = context;

	assert(bytes > 0 && bytes <= INIT_STDIN_WINDOW_DEFAULT);
	act(request->fuzz);
}

static void on_ended(void *context, const struct exec_result *result, const struct error *err)
{
	struct request *request = context;

	assert((result == NULL) != (err == NULL));
	assert(result == NULL || (result->code >= 0 && result->code <= 255));
	assert(err == NULL || err->kind != ERROR_NONE);
	request->fuzz->execs[request->index] = NULL;
	request->fuzz->exec_ends[request->index]++;
	act(request->fuzz);
}

static const struct exec_events exec_events = {
	.started = on_started, .output = on_output, .stdin_room = on_stdin_room, .ended = on_ended};

static void on_info(void *context, const struct file_info *info)
{
	struct request *request = context;

	assert(info->name == NULL && (request->index == READ || request->index == LIST));
	act(request->fuzz);
}

static void on_entry(void *context, const struct file_info *entry)
{
	struct request *request = context;

	assert(request->index == LIST && entry->name[0] != '\0' &&
		strchr(entry->name, '/') == NULL);
	assert(!streq(entry->name, ".") && !streq(entry->name, "..") && strlen(entry->name) <= 255);
	assert(entry->target == NULL || strlen(entry->target) < 4096);
	act(request->fuzz);
}

static void on_data(void *context, const void *data, size_t length)
{
	struct request *request = context;

	assert((request->index == READ || request->index == LOG) && data != NULL && length > 0);
	if (request->fuzz->consume) {
		init_file_consumed(request->fuzz->files[request->index], length);
	}
	act(request->fuzz);
}

static void on_room(void *context, size_t bytes)
{
	struct request *request = context;

	assert(request->index == WRITE && bytes > 0 && bytes <= INIT_WINDOW_DEFAULT);
	act(request->fuzz);
}

static void on_done(void *context, uint64_t bytes, const struct error *err)
{
	struct request *request = context;

	(void)bytes;
	assert(err == NULL || err->kind != ERROR_NONE);
	request->fuzz->files[request->index] = NULL;
	request->fuzz->file_ends[request->index]++;
	act(request->fuzz);
}

static const struct file_events file_events = {
	.info = on_info, .entry = on_entry, .data = on_data, .room = on_room, .done = on_done};

/* Commands 1, 2 and 7 (as if it had run before); files 0x80000001 and on. */
static void requests_make(
	struct fuzz *fuzz, struct request execs[EXECS], struct request files[FILES])
{
	char command[] = "cmd";
	char *argv[] = {command, NULL};
	struct exec_spec run = {.argv = argv, .stdin_open = true};
	struct exec_spec shell = {.argv = argv, .pty = true, .rows = 24, .cols = 80};
	struct probe_spec probe = {.port = 80, .http = "GET /", .timeout_ms = 100};
	struct error err = ERROR_INIT;
	int failed = 0;

	for (int i = 0; i < EXECS; i++) {
		execs[i] = (struct request){fuzz, i};
	}
	for (int i = 0; i < FILES; i++) {
		files[i] = (struct request){fuzz, i};
	}
	failed |= init_exec(
		fuzz->client, 1, &run, &exec_events, &execs[RUN], &fuzz->execs[RUN], &err);
	failed |= init_exec(
		fuzz->client, 2, &shell, &exec_events, &execs[SHELL], &fuzz->execs[SHELL], &err);
	failed |= init_exec_adopt(
		fuzz->client, 7, &exec_events, &execs[ADOPTED], &fuzz->execs[ADOPTED], &err);
	failed |= init_file_read(
		fuzz->client, "/r", 1000, &file_events, &files[READ], &fuzz->files[READ], &err);
	failed |= init_file_write(fuzz->client, "/w", 0644, 1000, &file_events, &files[WRITE],
		&fuzz->files[WRITE], &err);
	failed |= init_file_list(
		fuzz->client, "/l", &file_events, &files[LIST], &fuzz->files[LIST], &err);
	failed |= init_file_remove(
		fuzz->client, "/x", true, &file_events, &files[REMOVE], &fuzz->files[REMOVE], &err);
	failed |= init_log_read(
		fuzz->client, 2, true, &file_events, &files[LOG], &fuzz->files[LOG], &err);
	failed |= init_probe(
		fuzz->client, &probe, &file_events, &files[PROBE], &fuzz->files[PROBE], &err);
	assert(failed == 0);
}

static void packets_send(int peer, const uint8_t *data, size_t size)
{
	for (int i = 0; i < PACKETS_MAX && size >= 2; i++) {
		size_t length = (size_t)data[0] | (size_t)data[1] << 8;

		data += 2;
		size -= 2;
		length = length < size ? length : size;
		if (send(peer, data, length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
			break;
		}
		data += length;
		size -= length;
	}
	/* Not closed: the client's unread requests would make the kernel drop what was sent. */
	(void)shutdown(peer, SHUT_WR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct init_client_events events = {.ready = on_ready, .closed = on_closed};
	struct fuzz fuzz = {.act = ACT_NONE};
	struct request execs[EXECS], files[FILES];
	struct error err = ERROR_INIT;
	int ends[2];
	bool all;

	if (size < 2) {
		return 0;
	}
	fuzz.act = data[0] % ACTS;
	fuzz.consume = (data[0] & 0x80) == 0;
	fuzz.act_at = data[1];
	if (loop_open(&fuzz.loop, &err) < 0 ||
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0 ||
		init_client_new(fuzz.loop, ends[0], &events, &fuzz, &fuzz.client, &err) < 0) {
		abort();
	}
	requests_make(&fuzz, execs, files);
	packets_send(ends[1], data + 2, size - 2);
	if (loop_run(fuzz.loop, &err) < 0) {
		abort();
	}
	assert(fuzz.over);
	/* Only what was freed or detached may have no end. */
	all = fuzz.act == ACT_NONE || fuzz.act == ACT_WRITE || fuzz.calls <= fuzz.act_at;
	for (int i = 0; i < EXECS; i++) {
		assert(fuzz.exec_ends[i] == 1 || (!all && fuzz.exec_ends[i] == 0));
	}
	for (int i = 0; i < FILES; i++) {
		assert(fuzz.file_ends[i] == 1 || (!all && fuzz.file_ends[i] == 0));
	}
	init_client_free(fuzz.client);
	loop_close(fuzz.loop);
	close(ends[1]);
	return 0;
}
