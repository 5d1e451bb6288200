/*
 * The newest commits of an environment's sources, as far as hob knows: fetched into the mirrors by
 * a hob-build that the launcher starts, one at a time for each environment, its result shared for a
 * few seconds by all who ask.
 */
#ifndef HOB_POOL_SYNC_FETCH_H
#define HOB_POOL_SYNC_FETCH_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool;
struct pool_image;
struct source_state;

/* What one fetch found serves whoever asks so much later. */
#define FETCH_SHARED_MS 5000

/* Somebody who waits for a fetch. */
struct fetch_wait {
	struct pool *pool; /* NULL: not waiting */
	struct fetch_wait *next;
	void (*done)(struct fetch_wait *wait, const struct error *err);
};

/* Calls `done` once, at once when what is known was fetched within max_age_ms. */
void fetch_newest(struct pool *pool, int64_t max_age_ms, struct fetch_wait *wait,
	void (*done)(struct fetch_wait *wait, const struct error *err));
void fetch_forget(struct fetch_wait *wait); /* not waiting: nothing */
bool fetch_is_running(const struct pool *pool);

/* Commit and ref of a source, NULL: nothing is known. */
const char *newest_commit(const struct pool *pool, size_t source);
const char *newest_ref(const struct pool *pool, size_t source);
size_t newest_count(const struct pool *pool);
/* When these commits were first seen, real ms; 0: nothing is known. */
int64_t newest_seen_ms(const struct pool *pool);
/* A new head: what it was built from is known too, unless something newer is. */
void newest_note_head(struct pool *pool, const struct pool_image *head);

void source_state_free(struct source_state *state);

#endif
