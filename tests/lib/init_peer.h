/* hob's client of hob-init against a scripted other end: a fixture whose callbacks count, and can
 * free or detach what they are called for. */
#ifndef HOB_TESTS_LIB_INIT_PEER_H
#define HOB_TESTS_LIB_INIT_PEER_H

#include "pool/sandbox/init_protocol.h"
#include "pool/sandbox/sandbox.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum peer_moment {
	PEER_NEVER,
	PEER_AT_READY,
	PEER_AT_STARTED,
	PEER_AT_OUTPUT,
	PEER_AT_ENDED,
	PEER_AT_CLOSED,
	PEER_AT_ROOM
};

struct init_peer {
	struct loop *loop;
	struct init_client *client;
	int peer;
	struct init_exec_handle *exec;
	struct init_file_handle *file;
	enum peer_moment free_at;
	enum peer_moment kill_at; /* detaches the command, or cancels the file, there */
	bool restart; /* `ended` starts another command */
	int ready, closed, started, ended, done, infos, entries;
	size_t exec_count;
	size_t output, room;
	struct exec_result result;
	struct error error;
	char packet[INIT_PACKET_MAX]; /* the last that the peer got, without its header */
};

extern const struct exec_events peer_exec_events;
extern const struct file_events peer_file_events;

/* cmocka fixtures; peer_again puts a new one in its place. */
int peer_setup(void **state);
int peer_teardown(void **state);
struct init_peer *peer_again(void **state);

/* The loop handles all that waits. */
void peer_turn(struct init_peer *peer);
void peer_send(struct init_peer *peer, uint32_t type, uint32_t id, const void *body, size_t length);
void peer_hello(struct init_peer *peer);
void peer_start(struct init_peer *peer, uint32_t id);
void peer_exit(struct init_peer *peer, uint32_t id, int32_t code);
/* The next packet that the client sent: its type (0: none), its body in peer->packet. */
uint32_t peer_receive(struct init_peer *peer, uint32_t *ret_id, size_t *ret_length);
void peer_expect(struct init_peer *peer, uint32_t type, uint32_t id);
void peer_expect_nothing(struct init_peer *peer);
/* The client found that its other end talks nonsense. */
void peer_expect_broken(struct init_peer *peer, const char *what);
/* Starts `cmd arg` as number `id`. */
void peer_exec(struct init_peer *peer, uint32_t id);

#endif
