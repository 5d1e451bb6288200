/*
 * The account of sandboxes that have ended: one JSON line each, appended to <store>/usage.jsonl and
 * numbered from 1 on. When the file is full it becomes usage.1.jsonl in place of the one before, so
 * that the two hold some ten thousand sandboxes; who bills fetches more often than that.
 */
#ifndef HOB_POOL_USAGE_H
#define HOB_POOL_USAGE_H

#include "base/buffer.h"
#include "base/error.h"

#include <stdint.h>

struct entry;
struct usage_log;

#define USAGE_FILE_BYTES (4 << 20)
#define USAGE_LIMIT_MAX 10000

/* `folder_fd` is lent. A torn last line is passed over. */
MUSTCHECK int usage_open(int folder_fd, struct usage_log **ret_log, struct error *err);
void usage_close(struct usage_log *log); /* NULL is fine */

/* One that was claimed and is gone now. Once for each: what the last hobd wrote just before its end
 * is not written again. */
MUSTCHECK int usage_add(struct usage_log *log, const struct entry *entry, struct error *err);

struct usage_query {
	int64_t after; /* number: only later ones */
	int64_t since_ms; /* real: only those that ended at this time or later */
	int64_t limit;
};
/* Lines of JSON with ',' between them, the oldest first. */
MUSTCHECK int usage_list(struct usage_log *log, const struct usage_query *query, struct buffer *out,
	struct error *err);

#endif
