/*
 * Whether a commit has another one in its history, for claims with `min_commit`. hobd reads no git
 * data: `hob-build --ancestry`, without rights, asks the mirror of the environment's first source;
 * what it said holds for ever and is remembered. A commit that the mirror does not know is fetched
 * once before the claim hears that nobody knows it.
 */
#ifndef HOB_POOL_SYNC_ANCESTRY_H
#define HOB_POOL_SYNC_ANCESTRY_H

#include "base/error.h"
#include "base/loop.h"
#include "snapshots/store.h"

#include <stdbool.h>
#include <stddef.h>

struct ancestry;
struct ancestry_memory;
struct manager;
struct pool;

enum descent { DESCENT_UNKNOWN, DESCENT_YES, DESCENT_NO };

/* Somebody who waits for an answer. */
struct ancestry_wait {
	struct ancestry *job; /* NULL: not waiting */
	struct ancestry_wait *next;
	void (*done)(struct ancestry_wait *wait, const struct error *err);
};

/* What is remembered. `wanted` may be the first digits of a commit. */
enum descent ancestry_known(const struct pool *pool, const char *commit, const char *wanted);
/* Asks for whatever a claim of the pool with this min_commit may need to know. False: all of it is
 * known, or nobody can be asked. Else `done` is called once, later; its error says what is wrong
 * with `wanted` (ERROR_CONFLICT), or that the source could not be fetched to find it. */
bool ancestry_ask(struct pool *pool, const char *wanted, struct ancestry_wait *wait,
	void (*done)(struct ancestry_wait *wait, const struct error *err));
void ancestry_forget(struct ancestry_wait *wait); /* not waiting: nothing */

void ancestry_memory_free(struct ancestry_memory *memory);
bool ancestry_is_asked(const struct pool *pool);
/* Ends the programs that run. For the manager's own end. */
void ancestries_close(struct manager *manager);

#endif
