/* A WebSocket to hobd over its unix socket, the client's side, for a poll(2) loop. */
#ifndef HOB_POOL_CLI_WEBSOCKET_H
#define HOB_POOL_CLI_WEBSOCKET_H

#include "base/error.h"
#include "base/memory.h"

#include <stdbool.h>
#include <stddef.h>

struct websocket;

typedef void websocket_message_fn(void *context, bool text, const void *data, size_t length);

/* Connects and shakes hands; blocks until hobd has agreed, refused or not answered for 30 s. A
 * refusal is the error that hobd gave. */
MUSTCHECK int websocket_open(const char *socket_path, const char *path, websocket_message_fn *fn,
	void *context, struct websocket **ret_socket, struct error *err);
void websocket_close(struct websocket *websocket); /* NULL is fine; at once, without a farewell */
DEFINE_CLEANUP(websocket_close_p, struct websocket, websocket_close)

int websocket_fd(const struct websocket *websocket);
/* POLLIN and POLLOUT as it wants them now. */
short websocket_events(const struct websocket *websocket);
/* Bytes given to websocket_send that have not left yet. */
size_t websocket_queued(const struct websocket *websocket);

/* Queues a message, which is copied. What the other end no longer takes is dropped: websocket_read
 * tells when it is gone, after all that it said before. */
void websocket_send(struct websocket *websocket, bool text, const void *data, size_t length);
/* After poll: reads a bounded piece and calls the message function. ERROR_CORRUPT. */
MUSTCHECK int websocket_read(struct websocket *websocket, struct error *err);
/* Writes what can be written now. */
void websocket_write(struct websocket *websocket);
/* The other end has said goodbye or is gone; nothing more will come. */
bool websocket_ended(const struct websocket *websocket);

#endif
