/*
 * What the parts of init_client share. A handle is on its client's list from its request to its
 * end; whatever is freed while a packet is being handled goes to a graveyard that is emptied
 * afterwards, so a callback may free, cancel or detach anything, its own client included. `from`
 * checks decide on every byte that a sandbox sends: what is not allowed by the state of its handle
 * ends the client.
 */
#ifndef HOB_POOL_SANDBOX_INIT_CLIENT_INTERNAL_H
#define HOB_POOL_SANDBOX_INIT_CLIENT_INTERNAL_H

#include "pool/sandbox/init_protocol.h"
#include "pool/sandbox/sandbox.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAYLOAD_MAX (INIT_PACKET_MAX - sizeof(struct init_header))

struct loop_source;
struct packet;

/* Bytes that init may still send (`credit`), and what was consumed but not yet granted anew. */
struct inflow {
	uint64_t credit;
	uint64_t held; /* given to the caller, not yet consumed */
	uint64_t consumed;
};

struct init_exec_handle {
	struct init_exec_handle *next;
	struct init_client *client;
	uint32_t id;
	bool started;
	bool stdin_open;
	bool adopted;
	bool ending; /* `ended` is being called: the id is not free yet */
	bool gone; /* off the list: no more calls */
	bool orphan; /* detached, the command goes on: nobody hears of it */
	bool keeps; /* its log stays after its end */
	enum init_step refused; /* `ended` with an error: what did not work inside */
	struct inflow in;
	uint32_t room; /* of stdin */
	const struct exec_events *events;
	void *context;
};

enum file_kind { FILE_READ, FILE_WRITE, FILE_LIST, FILE_REMOVE, FILE_LOG, FILE_PROBE };

struct init_file_handle {
	struct init_file_handle *next;
	struct init_client *client;
	uint32_t id;
	enum file_kind kind;
	bool info_seen;
	bool end_sent;
	struct inflow in;
	uint32_t room;
	uint64_t moved;
	const struct file_events *events;
	void *context;
};

struct init_client {
	struct loop_source *source;
	int fd;
	bool writable_wanted;
	bool greeted; /* HELLO was there */
	bool is_ready;
	bool broken;
	bool freed;
	unsigned depth; /* of handling */
	uint32_t states_left;
	uint32_t *states;
	size_t states_count;
	uint32_t next_file_id;
	struct init_exec_handle *execs, *dead_execs;
	struct init_file_handle *files, *dead_files;
	struct packet *first, **last; /* waiting for the socket */
	size_t queued_bytes;
	const struct init_client_events *events;
	void *context;
	struct error *why; /* while breaking: what every request ends with */
};

/* One part of a packet. */
struct part {
	const void *data;
	size_t length;
};

/* A request or its data: ERROR_LIMIT when too much waits already, ERROR_UNAVAILABLE after the end.
 */
MUSTCHECK int client_request(struct init_client *client, uint32_t type, uint32_t id,
	const struct part *parts, size_t count, struct error *err);
/* What must not be lost: waits however long the queue is, up to a limit that ends the client. */
void client_control(
	struct init_client *client, uint32_t type, uint32_t id, const void *body, size_t length);
/* Around everything that calls the caller. client_leave may free the client. */
void client_enter(struct init_client *client);
void client_leave(struct init_client *client);

/* The failure that init tells by INIT_REFUSED; false when the packet is malformed. */
bool refusal_read(
	const void *body, size_t length, bool is_file, enum init_step *ret_step, struct error *err);
bool u32_read(const void *body, size_t length, uint32_t lowest, uint32_t *ret_value);
/* Bytes came from init: false when it had no credit for them. */
bool inflow_take(struct inflow *in, size_t length);
/* The caller consumed bytes: what to grant now, or 0. */
uint32_t inflow_give(struct inflow *in, size_t bytes);

/* NULL, or what is wrong with the packet: that ends the client. */
const char *exec_packet(
	struct init_exec_handle *exec, uint32_t type, const void *body, size_t length);
const char *file_packet(
	struct init_file_handle *file, uint32_t type, const void *body, size_t length);
struct init_exec_handle *exec_find(const struct init_client *client, uint32_t id);
struct init_file_handle *file_find(const struct init_client *client, uint32_t id);
/* Ends the first of the list with an error, once. */
void exec_end_with(struct init_exec_handle *exec, const struct error *err);
void file_end_with(struct init_file_handle *file, const struct error *err);
/* Off the list; freed at once or after the present packet. */
void exec_unlink(struct init_exec_handle *exec);
void file_unlink(struct init_file_handle *file);

#endif
