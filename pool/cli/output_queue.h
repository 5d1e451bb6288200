/* Output on its way to standard output and standard error, in the order in which it came, written
 * piece by piece so that a stuck reader never blocks the loop. */
#ifndef HOB_POOL_CLI_OUTPUT_QUEUE_H
#define HOB_POOL_CLI_OUTPUT_QUEUE_H

#include "base/error.h"

#include <stddef.h>

struct output_piece;

struct output_queue {
	struct output_piece *pieces; /* from `first` on are unwritten */
	size_t first, count, room;
	size_t bytes;
};

void output_queue_add(struct output_queue *queue, int fd, const void *data, size_t length);
/* The descriptor that the next bytes go to, to be polled for POLLOUT; -1 when empty. */
int output_queue_fd(const struct output_queue *queue);
/* One small write to it, which does not block once poll has said POLLOUT. */
MUSTCHECK int output_queue_write(struct output_queue *queue, struct error *err);
void output_queue_done(struct output_queue *queue);

#endif
