/* The scripted other end: sends what a test tells it to, at the pace of the client's loop. */
#include "tests/lib/init_peer.h"

#include "base/loop.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <sys/socket.h>

static void moment(struct init_peer *f, enum peer_moment now)
{
	if (f->kill_at == now && f->exec != NULL) {
		init_exec_detach(f->exec, true);
		f->exec = NULL;
	}
	if (f->kill_at == now && f->file != NULL) {
		init_file_cancel(f->file);
		f->file = NULL;
	}
	if (f->free_at == now) {
		init_client_free(f->client);
		f->client = NULL;
	}
}

static void on_ready(void *context, const uint32_t *execs, size_t count)
{
	struct init_peer *f = context;

	f->ready++;
	f->exec_count = count;
	assert_true(count == 0 || execs[0] == 7);
	moment(f, PEER_AT_READY);
}

static void on_closed(void *context)
{
	struct init_peer *f = context;

	f->closed++;
	moment(f, PEER_AT_CLOSED);
}

static void on_started(void *context, uint32_t pid)
{
	struct init_peer *f = context;

	assert_int_equal(pid, 42);
	f->started++;
	moment(f, PEER_AT_STARTED);
}

static void on_output(void *context, enum exec_stream stream, const void *data, size_t length)
{
	struct init_peer *f = context;

	(void)stream;
	(void)data;
	f->output += length;
	moment(f, PEER_AT_OUTPUT);
}

static void on_room(void *context, size_t bytes)
{
	struct init_peer *f = context;

	f->room += bytes;
	moment(f, PEER_AT_ROOM);
}

static void on_ended(void *context, const struct exec_result *result, const struct error *err)
{
	char *argv[] = {(char[]){"again"}, NULL};
	struct init_peer *f = context;
	struct exec_spec spec = {.argv = argv};
	struct error again = ERROR_INIT;

	f->ended++;
	assert_true((result == NULL) != (err == NULL));
	if (result != NULL) {
		f->result = *result;
	} else {
		f->error = *err;
	}
	/* At its end a handle may be detached, to no effect. */
	init_exec_detach(f->exec, true);
	f->exec = NULL;
	if (f->restart) {
		f->restart = false;
		assert_kind(init_exec(f->client, 1, &spec, &peer_exec_events, f, &f->exec, &again),
			&again, result != NULL ? ERROR_EXISTS : ERROR_UNAVAILABLE);
	}
	moment(f, PEER_AT_ENDED);
}

const struct exec_events peer_exec_events = {
	.started = on_started, .output = on_output, .stdin_room = on_room, .ended = on_ended};

static void on_info(void *context, const struct file_info *info)
{
	struct init_peer *f = context;

	assert_non_null(info);
	f->infos++;
	moment(f, PEER_AT_STARTED);
}

static void on_entry(void *context, const struct file_info *entry)
{
	struct init_peer *f = context;

	assert_non_null(entry->name);
	f->entries++;
}

static void on_data(void *context, const void *data, size_t length)
{
	on_output(context, EXEC_STDOUT, data, length);
}

static void on_done(void *context, uint64_t bytes, const struct error *err)
{
	struct init_peer *f = context;

	(void)bytes;
	f->done++;
	f->file = NULL;
	if (err != NULL) {
		f->error = *err;
	}
	moment(f, PEER_AT_ENDED);
}

const struct file_events peer_file_events = {
	.info = on_info, .entry = on_entry, .data = on_data, .room = on_room, .done = on_done};

static const struct init_client_events client_events = {.ready = on_ready, .closed = on_closed};

static void on_time(void *context)
{
	struct init_peer *f = context;

	loop_stop(f->loop);
}

void peer_turn(struct init_peer *f)
{
	struct loop_timer *timer = loop_timer_new(f->loop, on_time, f);
	struct error err = ERROR_INIT;

	loop_timer_after(timer, 2);
	assert_ok(loop_run(f->loop, &err), &err);
	loop_timer_free(timer);
}

void peer_send(struct init_peer *f, uint32_t type, uint32_t id, const void *body, size_t length)
{
	struct init_header header = {type, id};
	struct iovec parts[2] = {{&header, sizeof(header)}, {(void *)(uintptr_t)body, length}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

	/* A client that was freed is none that could be told. */
	assert_true(sendmsg(f->peer, &message, MSG_NOSIGNAL) >= 0 || errno == EPIPE);
}

void peer_hello(struct init_peer *f)
{
	struct init_hello hello = {.version = INIT_VERSION};

	peer_send(f, INIT_HELLO, 0, &hello, sizeof(hello));
	peer_turn(f);
}

void peer_start(struct init_peer *f, uint32_t id)
{
	uint32_t pid = 42;

	peer_send(f, INIT_STARTED, id, &pid, sizeof(pid));
}

void peer_exit(struct init_peer *f, uint32_t id, int32_t code)
{
	struct init_exited exited = {.code = code, .took_us = 5};

	peer_send(f, INIT_EXITED, id, &exited, sizeof(exited));
}

uint32_t peer_receive(struct init_peer *f, uint32_t *ret_id, size_t *ret_length)
{
	struct init_header header;
	struct iovec parts[2] = {{&header, sizeof(header)}, {f->packet, sizeof(f->packet)}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	ssize_t length = recvmsg(f->peer, &message, MSG_DONTWAIT);

	if (length < (ssize_t)sizeof(header)) {
		return 0;
	}
	*ret_id = header.id;
	*ret_length = (size_t)length - sizeof(header);
	return header.type;
}

void peer_expect(struct init_peer *f, uint32_t type, uint32_t id)
{
	uint32_t got_id = 0;
	size_t length = 0;

	assert_int_equal(peer_receive(f, &got_id, &length), type);
	assert_int_equal(got_id, id);
}

void peer_expect_nothing(struct init_peer *f)
{
	uint32_t id;
	size_t length;

	assert_int_equal(peer_receive(f, &id, &length), 0);
}

int peer_setup(void **state)
{
	struct init_peer *f = xcalloc(1, sizeof(*f));
	struct error err = ERROR_INIT;
	int ends[2];

	assert_ok(loop_open(&f->loop, &err), &err);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
	f->peer = ends[1];
	assert_ok(init_client_new(f->loop, ends[0], &client_events, f, &f->client, &err), &err);
	*state = f;
	return 0;
}

int peer_teardown(void **state)
{
	struct init_peer *f = *state;

	init_client_free(f->client);
	loop_close(f->loop);
	fd_done(&f->peer);
	free(f);
	return 0;
}

struct init_peer *peer_again(void **state)
{
	(void)peer_teardown(state);
	*state = NULL;
	(void)peer_setup(state);
	return *state;
}

void peer_exec(struct init_peer *f, uint32_t id)
{
	char *argv[] = {(char[]){"cmd"}, (char[]){"arg"}, NULL};
	struct exec_spec spec = {.argv = argv, .cwd = "/w", .user = "me", .stdin_open = true};
	struct error err = ERROR_INIT;

	assert_ok(init_exec(f->client, id, &spec, &peer_exec_events, f, &f->exec, &err), &err);
}

void peer_expect_broken(struct init_peer *f, const char *what)
{
	peer_turn(f);
	if (f->closed != 1) {
		fail_msg("%s: closed %d times", what, f->closed);
	}
}
