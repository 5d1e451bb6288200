/*
 * What is kept of a command's output. Either all of each stream up to a cap, the rest dropped and
 * flagged (a captured command), or the last bytes of both in their order (one that nobody waits
 * for).
 */
#ifndef HOB_POOL_OUTPUT_H
#define HOB_POOL_OUTPUT_H

#include "base/buffer.h"
#include "pool/sandbox/sandbox.h"

#include <stdbool.h>
#include <stddef.h>

#define OUTPUT_STREAM_MAX                                                                          \
	(8u << 20) /* of a captured stream: what fits a JSON answer with good sense */
#define OUTPUT_TAIL_MAX 65536 /* as hob-init itself keeps */

struct output_piece {
	enum exec_stream stream;
	size_t length;
};

/* What all captured commands together may keep. */
struct output_budget {
	size_t used, most;
};

struct output {
	struct output_budget *budget;
	bool whole;
	struct buffer streams[2]; /* whole: stdout, stderr */
	bool truncated[2]; /* over its own cap, or that of all */
	struct buffer tail; /* not whole: both, in `pieces` */
	struct output_piece *pieces;
	size_t piece_count, piece_room;
};

/* The budget outlives it. */
void output_init(struct output *output, bool whole, struct output_budget *budget);
void output_done(struct output *output);
void output_add(struct output *output, enum exec_stream stream, const void *data, size_t length);
/* Calls `fn` with what is kept, in order. */
void output_each(const struct output *output,
	void (*fn)(void *context, enum exec_stream stream, const void *data, size_t length),
	void *context);
/* One stream's kept bytes, appended. */
void output_collect(const struct output *output, enum exec_stream stream, struct buffer *buffer);

#endif
