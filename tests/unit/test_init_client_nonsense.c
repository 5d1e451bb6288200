/* What hob makes of nonsense from a sandbox whose init was taken over: the connection ends, and
 * every request with it, once. */
#include "tests/lib/init_peer.h"
#include "tests/lib/test.h"

#include <sys/socket.h>

struct nonsense {
	const char *what;
	bool started;
	uint32_t type;
	size_t length;
	uint8_t body[56];
};

static void test_greeting(void **state)
{
	struct init_peer *f = *state;
	struct init_hello hello = {.version = INIT_VERSION + 1};
	struct init_state running = {.pid = 3};

	peer_send(f, INIT_HELLO, 0, &hello, sizeof(hello));
	peer_expect_broken(f, "another version");
	assert_int_equal(f->ready, 0);
	f = peer_again(state);
	hello = (struct init_hello){INIT_VERSION, INIT_EXECS_MAX + 1};
	peer_send(f, INIT_HELLO, 0, &hello, sizeof(hello));
	peer_expect_broken(f, "too many execs");
	f = peer_again(state);
	peer_start(f, 1);
	peer_expect_broken(f, "no greeting");
	f = peer_again(state);
	hello.execs = 2;
	peer_send(f, INIT_HELLO, 0, &hello, sizeof(hello));
	peer_send(f, INIT_STATE, 7, &running, sizeof(running));
	peer_turn(f);
	assert_int_equal(f->ready, 0);
	peer_send(f, INIT_STATE, 8, &running, sizeof(running));
	peer_turn(f);
	assert_int_equal(f->ready, 1);
	assert_int_equal(f->exec_count, 2);
	peer_send(f, INIT_STATE, 9, &running, sizeof(running));
	peer_expect_broken(f, "a state too many");
	f = peer_again(state);
	peer_send(f, INIT_HELLO, 0, &hello, sizeof(hello));
	peer_send(f, INIT_STATE, 7, &running, sizeof(running));
	peer_send(f, INIT_STATE, 7, &running, sizeof(running));
	peer_expect_broken(f, "a state twice");
}

static void test_nonsense_about_commands(void **state)
{
	static const struct nonsense cases[] = {
		{"unknown type", true, 99, 0, {0}},
		{"a request", true, INIT_EXEC, 0, {0}},
		{"started twice", true, INIT_STARTED, 4, {1}},
		{"started short", false, INIT_STARTED, 3, {1}},
		{"started as nothing", false, INIT_STARTED, 4, {0}},
		{"output before the start", false, INIT_STDOUT, 3, {0}},
		{"empty output", true, INIT_STDERR, 0, {0}},
		{"exit before the start", false, INIT_EXITED, sizeof(struct init_exited), {0}},
		{"exit short", true, INIT_EXITED, sizeof(struct init_exited) - 1, {0}},
		{"exit long", true, INIT_EXITED, sizeof(struct init_exited) + 1, {0}},
		{"exit code 256", true, INIT_EXITED, sizeof(struct init_exited), {0, 1}},
		{"exit signal without code", true, INIT_EXITED, sizeof(struct init_exited),
			{0, 0, 0, 0, 9}},
		{"negative exit", true, INIT_EXITED, sizeof(struct init_exited),
			{255, 255, 255, 255}},
		{"refused after the start", true, INIT_REFUSED, 5, {2, 0, 0, 0, 'x'}},
		{"refused short", false, INIT_REFUSED, 3, {2}},
		{"refused without reason", false, INIT_REFUSED, 5, {0, 0, 0, 0, 'x'}},
		{"refused by a strange errno", false, INIT_REFUSED, 5, {0, 0, 1, 0, 'x'}},
		{"room before the start", false, INIT_STDIN_WINDOW, 4, {1}},
		{"more room than there is", true, INIT_STDIN_WINDOW, 4, {1}},
		{"file data", true, INIT_FILE_DATA, 4, {1}},
		{"hello again", true, INIT_HELLO, sizeof(struct init_hello), {INIT_VERSION}},
	};
	struct init_peer *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		peer_hello(f);
		peer_exec(f, 1);
		if (cases[i].started) {
			peer_start(f, 1);
		}
		peer_send(f, cases[i].type, 1, cases[i].body, cases[i].length);
		peer_expect_broken(f, cases[i].what);
		assert_int_equal(f->ended, 1);
		assert_int_equal(f->error.kind, ERROR_UNAVAILABLE);
		f = peer_again(state);
	}
}

static void test_nonsense_about_files(void **state)
{
	static const uint8_t folder[32] = {0, 0x40}, plain[32] = {0, 0x80}, link[32] = {0, 0xa0};
	static const struct {
		const char *what;
		bool list;
		const uint8_t *info; /* sent before; NULL: none */
		uint32_t type;
		const uint8_t *head; /* of the packet */
		const char *tail;
		size_t tail_length;
	} cases[] = {
		{"data without information", false, NULL, INIT_FILE_DATA, NULL, "x", 1},
		{"a folder as a file", false, NULL, INIT_FILE_INFO, folder, "", 0},
		{"a file as a folder", true, NULL, INIT_FILE_INFO, plain, "", 0},
		{"long information", false, NULL, INIT_FILE_INFO, plain, "x", 1},
		{"information twice", false, plain, INIT_FILE_INFO, plain, "", 0},
		{"an entry of a file", false, plain, INIT_FILE_ENTRY, plain, "x", 1},
		{"an entry without a name", true, folder, INIT_FILE_ENTRY, plain, "", 0},
		{"an entry that leads up", true, folder, INIT_FILE_ENTRY, folder, "..", 2},
		{"an entry that leads down", true, folder, INIT_FILE_ENTRY, plain, "a/b", 3},
		{"a link without a target", true, folder, INIT_FILE_ENTRY, link, "a", 1},
		{"a file with a target", true, folder, INIT_FILE_ENTRY, plain, "a\0b", 3},
		{"a target with an end", true, folder, INIT_FILE_ENTRY, link, "a\0b\0c", 5},
		{"data of a folder", true, folder, INIT_FILE_DATA, NULL, "x", 1},
		{"the end at the start", true, NULL, INIT_FILE_DONE, NULL, "\0\0\0\0\0\0\0", 8},
		{"more than came", false, plain, INIT_FILE_DONE, NULL, "\1\0\0\0\0\0\0", 8},
		{"room to read", false, plain, INIT_STDIN_WINDOW, NULL, "\1\0\0", 4},
		{"output of a command", false, plain, INIT_STDOUT, NULL, "x", 1},
	};
	struct init_peer *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_INIT;
		uint32_t id = 0;
		size_t length = 0;
		char body[64];
		size_t head = cases[i].head != NULL ? sizeof(plain) : 0;

		peer_hello(f);
		assert_ok(cases[i].list ? init_file_list(f->client, "/d", &peer_file_events, f,
						  &f->file, &err)
					: init_file_read(f->client, "/d", 99, &peer_file_events, f,
						  &f->file, &err),
			&err);
		assert_int_equal(peer_receive(f, &id, &length),
			cases[i].list ? INIT_FILE_LIST : INIT_FILE_READ);
		if (cases[i].info != NULL) {
			peer_send(f, INIT_FILE_INFO, id, cases[i].info, sizeof(plain));
		}
		if (head > 0) {
			memcpy(body, cases[i].head, head);
		}
		memcpy(body + head, cases[i].tail, cases[i].tail_length);
		peer_send(f, cases[i].type, id, body, head + cases[i].tail_length);
		peer_expect_broken(f, cases[i].what);
		assert_int_equal(f->done, 1);
		assert_int_equal(f->error.kind, ERROR_UNAVAILABLE);
		f = peer_again(state);
	}
}

static void test_packets_of_wrong_length(void **state)
{
	struct init_peer *f = *state;
	static char large[INIT_PACKET_MAX + 1];

	assert_int_equal(send(f->peer, "abc", 3, 0), 3);
	peer_expect_broken(f, "a short packet");
	f = peer_again(state);
	peer_hello(f);
	peer_exec(f, 1);
	peer_start(f, 1);
	((struct init_header *)(void *)large)->type = INIT_STDOUT;
	((struct init_header *)(void *)large)->id = 1;
	assert_int_equal(send(f->peer, large, sizeof(large), 0), sizeof(large));
	peer_expect_broken(f, "a packet over the limit");
	assert_int_equal(f->output, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, peer_setup, peer_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_greeting),
		TEST(test_nonsense_about_commands),
		TEST(test_nonsense_about_files),
		TEST(test_packets_of_wrong_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
