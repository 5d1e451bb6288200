/* hob's end of the connection to hob-init against a scripted other end: what it sends and when, and
 * that callbacks may free whatever they like. */
#include "tests/lib/init_peer.h"
#include "tests/lib/test.h"

#include <sys/socket.h>

static void test_a_command_from_start_to_end(void **state)
{
	struct init_peer *f = *state;
	struct init_exec head;

	peer_hello(f);
	peer_exec(f, 5);
	peer_expect(f, INIT_EXEC, 5);
	memcpy(&head, f->packet, sizeof(head));
	assert_int_equal(head.flags, INIT_EXEC_STDIN);
	assert_int_equal(head.argc, 2);
	assert_int_equal(head.envc, 0);
	assert_memory_equal(f->packet + sizeof(head), "me\0/w\0cmd\0arg", 14);
	peer_start(f, 5);
	peer_send(f, INIT_STDOUT, 5, "abc", 3);
	peer_send(f, INIT_STDERR, 5, "de", 2);
	peer_exit(f, 5, 3);
	f->restart = false;
	peer_turn(f);
	assert_int_equal(f->started, 1);
	assert_int_equal(f->room, INIT_STDIN_WINDOW_DEFAULT);
	assert_int_equal(f->output, 5);
	assert_int_equal(f->ended, 1);
	assert_int_equal(f->result.code, 3);
	peer_expect(f, INIT_FORGET, 5);
	/* What comes late for it is nobody's. */
	peer_exit(f, 5, 3);
	peer_send(f, INIT_STDOUT, 5, "abc", 3);
	fd_done(&f->peer);
	peer_turn(f);
	assert_int_equal(f->ended, 1);
	assert_int_equal(f->closed, 1);
}

static void test_credit(void **state)
{
	struct init_peer *f = *state;
	static char data[INIT_PACKET_MAX - sizeof(struct init_header)];
	size_t sent = 0;
	uint32_t grant;

	peer_hello(f);
	peer_exec(f, 1);
	peer_expect(f, INIT_EXEC, 1);
	peer_start(f, 1);
	while (sent < INIT_WINDOW_DEFAULT) {
		size_t size = INIT_WINDOW_DEFAULT - sent < sizeof(data) ? INIT_WINDOW_DEFAULT - sent
									: sizeof(data);

		peer_send(f, INIT_STDOUT, 1, data, size);
		peer_turn(f);
		sent += size;
	}
	assert_int_equal(f->output, INIT_WINDOW_DEFAULT);
	assert_int_equal(f->closed, 0);
	peer_expect_nothing(f);
	init_exec_consumed(f->exec, 1000);
	peer_expect_nothing(f);
	init_exec_consumed(f->exec, 100000);
	peer_expect(f, INIT_WINDOW, 1);
	memcpy(&grant, f->packet, sizeof(grant));
	assert_int_equal(grant, 101000);
	peer_send(f, INIT_STDOUT, 1, data, sizeof(data));
	peer_turn(f);
	assert_int_equal(f->closed, 0);
	peer_send(f, INIT_STDOUT, 1, data, sizeof(data));
	peer_expect_broken(f, "output without credit");
	assert_int_equal(f->ended, 1);
}

static void test_refusals(void **state)
{
	struct init_peer *f = *state;

	peer_hello(f);
	peer_exec(f, 1);
	peer_send(f, INIT_REFUSED, 1, "\2\0\0\0npm:\n\xc3\xa4\xff not found", 20);
	peer_turn(f);
	assert_int_equal(f->ended, 1);
	assert_int_equal(f->error.kind, ERROR_INVALID);
	assert_int_equal(f->error.sys, ENOENT);
	assert_string_equal(f->error.message, "npm:?\xc3\xa4? not fou");
	assert_int_equal(f->closed, 0);
	peer_expect(f, INIT_EXEC, 1);
	peer_expect_nothing(f);
}

static void test_callbacks_may_free_anything(void **state)
{
	static const enum peer_moment moments[] = {PEER_AT_READY, PEER_AT_STARTED, PEER_AT_ROOM,
		PEER_AT_OUTPUT, PEER_AT_ENDED, PEER_AT_CLOSED};
	struct init_peer *f = *state;

	for (size_t i = 0; i < 2 * ARRAY_SIZE(moments); i++) {
		bool kill = i >= ARRAY_SIZE(moments);
		enum peer_moment now = moments[i % ARRAY_SIZE(moments)];
		uint32_t id;
		size_t length;

		peer_exec(f, 1);
		f->free_at = kill ? PEER_NEVER : now;
		f->kill_at = kill ? now : PEER_NEVER;
		f->restart = !kill && now != PEER_AT_ENDED;
		peer_hello(f);
		peer_start(f, 1);
		peer_send(f, INIT_STDOUT, 1, "abc", 3);
		peer_exit(f, 1, 0);
		peer_turn(f);
		/* Closing with packets unread would cut off what was sent, too. */
		while (peer_receive(f, &id, &length) != 0) {
		}
		fd_done(&f->peer);
		for (int n = 0; n < 4; n++) {
			peer_turn(f);
		}
		if (kill && now < PEER_AT_ENDED) {
			assert_int_equal(f->ended, 0);
		}
		assert_int_equal(
			f->closed, f->free_at == PEER_NEVER || f->free_at == PEER_AT_CLOSED);
		f = peer_again(state);
	}
}

static void test_file_callbacks_may_free_anything(void **state)
{
	static const enum peer_moment moments[] = {PEER_AT_STARTED, PEER_AT_OUTPUT, PEER_AT_ENDED};
	static const uint8_t plain[32] = {0, 0x80};
	struct init_peer *f = *state;

	for (size_t i = 0; i < 2 * ARRAY_SIZE(moments); i++) {
		bool kill = i >= ARRAY_SIZE(moments);
		uint64_t moved = 3;
		uint32_t id = 0;
		size_t length;
		struct error err = ERROR_INIT;

		f->free_at = kill ? PEER_NEVER : moments[i % ARRAY_SIZE(moments)];
		f->kill_at = kill ? moments[i % ARRAY_SIZE(moments)] : PEER_NEVER;
		peer_hello(f);
		assert_ok(init_file_read(f->client, "/f", 9, &peer_file_events, f, &f->file, &err),
			&err);
		assert_int_equal(peer_receive(f, &id, &length), INIT_FILE_READ);
		peer_send(f, INIT_FILE_INFO, id, plain, sizeof(plain));
		peer_send(f, INIT_FILE_DATA, id, "abc", 3);
		peer_send(f, INIT_FILE_DONE, id, &moved, sizeof(moved));
		for (int n = 0; n < 4; n++) {
			peer_turn(f);
		}
		assert_int_equal(f->infos, 1);
		assert_int_equal(
			f->done, moments[i % ARRAY_SIZE(moments)] == PEER_AT_ENDED ? 1 : 0);
		f = peer_again(state);
	}
}

static void test_detached(void **state)
{
	struct init_peer *f = *state;
	static char data[60000];

	peer_hello(f);
	peer_exec(f, 1);
	peer_expect(f, INIT_EXEC, 1);
	peer_start(f, 1);
	peer_send(f, INIT_STDOUT, 1, data, sizeof(data));
	peer_turn(f);
	init_exec_detach(f->exec, false);
	peer_expect_nothing(f);
	/* Its output is let through and dropped. */
	for (int i = 0; i < 20; i++) {
		peer_send(f, INIT_STDOUT, 1, data, sizeof(data));
		peer_turn(f);
		assert_int_equal(f->closed, 0);
	}
	assert_int_equal(f->output, sizeof(data));
	peer_exit(f, 1, 0);
	peer_turn(f);
	assert_int_equal(f->ended, 0);
	for (int i = 0; i < 10; i++) {
		peer_expect(f, INIT_WINDOW, 1);
	}
	peer_expect(f, INIT_FORGET, 1);
	peer_exec(f, 2);
	peer_expect(f, INIT_EXEC, 2);
	init_exec_detach(f->exec, true);
	peer_expect(f, INIT_FORGET, 2);
}

static void test_requests_are_checked(void **state)
{
	struct init_peer *f = *state;
	CLEANUP(free_p) char *large = xcalloc(1, 60001);
	char *argv[] = {large, NULL};
	char *none[] = {NULL};
	struct exec_spec spec = {.argv = argv};
	struct error err = ERROR_INIT;

	peer_hello(f);
	memset(large, 'x', 60000);
	assert_kind(init_exec(f->client, 1, &spec, &peer_exec_events, f, &f->exec, &err), &err,
		ERROR_INVALID);
	assert_contains(err.hint, "standard input");
	spec.argv = none;
	assert_kind(init_exec(f->client, 1, &spec, &peer_exec_events, f, &f->exec, &err), &err,
		ERROR_INVALID);
	large[1] = '\0';
	spec.argv = argv;
	assert_kind(init_exec(f->client, 0, &spec, &peer_exec_events, f, &f->exec, &err), &err,
		ERROR_INVALID);
	assert_kind(init_exec(f->client, INIT_FILE_ID_FIRST, &spec, &peer_exec_events, f, &f->exec,
			    &err),
		&err, ERROR_INVALID);
	peer_exec(f, 1);
	assert_kind(init_exec(f->client, 1, &spec, &peer_exec_events, f, &f->exec, &err), &err,
		ERROR_EXISTS);
	assert_kind(init_exec_write(f->exec, "x", 1, &err), &err, ERROR_LIMIT);
	assert_kind(init_file_read(f->client, "x", 1, &peer_file_events, f, &f->file, &err), &err,
		ERROR_INVALID);
	fd_done(&f->peer);
	peer_turn(f);
	assert_int_equal(f->closed, 1);
	assert_kind(init_exec(f->client, 3, &spec, &peer_exec_events, f, &f->exec, &err), &err,
		ERROR_UNAVAILABLE);
}

static void test_queue_has_a_limit_and_an_order(void **state)
{
	struct init_peer *f = *state;
	CLEANUP(free_p) char *large = xcalloc(1, 50001);
	char *argv[] = {large, NULL};
	struct exec_spec spec = {.argv = argv};
	struct error err = ERROR_INIT;
	uint32_t count = 0, got = 0, id;
	size_t length;

	memset(large, 'x', 50000);
	peer_hello(f);
	while (init_exec(f->client, count + 1, &spec, &peer_exec_events, f, &f->exec, &err) == 0) {
		count++;
		assert_in_range(count, 1, 100);
	}
	assert_int_equal(err.kind, ERROR_LIMIT);
	/* What must not be lost still waits its turn. */
	init_exec_signal(f->exec, 15);
	while (got < count) {
		uint32_t type = peer_receive(f, &id, &length);

		if (type == 0) {
			peer_turn(f);
			continue;
		}
		assert_int_equal(type, INIT_EXEC);
		assert_int_equal(id, ++got);
	}
	peer_turn(f);
	peer_expect(f, INIT_SIGNAL, count);
	peer_exec(f, count + 1);
	peer_expect(f, INIT_EXEC, count + 1);
}

static void test_writing(void **state)
{
	struct init_peer *f = *state;
	static char data[INIT_WINDOW_DEFAULT];
	uint32_t room = INIT_WINDOW_DEFAULT;
	uint64_t moved = INIT_WINDOW_DEFAULT;
	uint32_t id = 0;
	size_t length = 0, total = 0;
	struct error err = ERROR_INIT;

	peer_hello(f);
	assert_ok(init_file_write(
			  f->client, "/f", 0644, 1 << 20, &peer_file_events, f, &f->file, &err),
		&err);
	assert_int_equal(peer_receive(f, &id, &length), INIT_FILE_WRITE);
	assert_kind(init_file_send(f->file, "x", 1, &err), &err, ERROR_LIMIT);
	peer_send(f, INIT_STDIN_WINDOW, id, &room, sizeof(room));
	peer_turn(f);
	assert_int_equal(f->room, room);
	assert_ok(init_file_send(f->file, data, sizeof(data), &err), &err);
	init_file_send_end(f->file);
	assert_kind(init_file_send(f->file, "x", 1, &err), &err, ERROR_CONFLICT);
	for (int tries = 0; total < sizeof(data) && tries < 100; tries++) {
		if (peer_receive(f, &id, &length) == INIT_FILE_DATA) {
			total += length;
		} else {
			peer_turn(f);
		}
	}
	assert_int_equal(total, sizeof(data));
	peer_turn(f);
	peer_expect(f, INIT_FILE_END, id);
	peer_send(f, INIT_FILE_DONE, id, &moved, sizeof(moved));
	peer_turn(f);
	assert_int_equal(f->done, 1);
	assert_int_equal(f->error.kind, ERROR_NONE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, peer_setup, peer_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_command_from_start_to_end),
		TEST(test_credit),
		TEST(test_refusals),
		TEST(test_callbacks_may_free_anything),
		TEST(test_file_callbacks_may_free_anything),
		TEST(test_detached),
		TEST(test_requests_are_checked),
		TEST(test_queue_has_a_limit_and_an_order),
		TEST(test_writing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
