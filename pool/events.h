/*
 * What happened to a claimed sandbox, in order and numbered from 1 on: its states, commands,
 * snapshots, syncs and services. The newest EVENTS_KEPT are held, here and, written a moment later,
 * in <run>/sandboxes/<id>/events for the next hobd. One that ends in order writes all of them; one
 * that is killed takes those of its last EVENTS_DELAY_MS along; the next goes on with a number that
 * none of them can have had and says so by an event of its own. They go with the sandbox, and stay
 * with one that is dormant, though not beyond the hobd that laid it down.
 */
#ifndef HOB_POOL_EVENTS_H
#define HOB_POOL_EVENTS_H

#include "base/error.h"
#include "base/json.h"

#include <stddef.h>
#include <stdint.h>

struct entry;
struct entry_events;
struct run;

#define EVENTS_KEPT 256
#define EVENTS_DELAY_MS 200

enum event_kind {
	EVENT_STATE, /* state, from, reason */
	EVENT_EXEC_STARTED, /* exec, pid, argv */
	EVENT_EXEC_ENDED, /* exec, exit_code, signal, took_ms; or exec, error */
	EVENT_SNAPSHOT, /* snapshot; or error */
	EVENT_SYNC, /* outcome, commit */
	EVENT_SERVICE, /* service, state */
	EVENT_ADOPTED, /* by a new hobd: lost_ms */
	EVENT_MISSED, /* never kept: in place of those that somebody has not seen: before */
	EVENT_KINDS
};
const char *event_kind_name(enum event_kind kind);

struct event {
	uint64_t id;
	int64_t at_ms; /* real */
	enum event_kind kind;
	char *data; /* members of a JSON object, "\"k\":1,…" */
};

/* Takes `data`, an object. Before its claim nothing is kept of a sandbox. */
void event_add(struct entry *entry, enum event_kind kind, json_t *data);
/* The usual ones. */
void event_add_state(struct entry *entry, const char *from, const char *to, const char *reason);
void event_add_run(struct entry *entry, enum event_kind kind, const struct run *run);
void event_add_error(struct entry *entry, enum event_kind kind, const struct error *err);

/* The first after this number; NULL: none yet. Valid until the next one is added. */
const struct event *event_next(const struct entry *entry, uint64_t after);
uint64_t event_oldest(const struct entry *entry); /* 0: there are none */
uint64_t event_newest(const struct entry *entry);

/* Somebody who follows. `ended`: the sandbox is gone; the reader is off by then. */
struct event_reader {
	struct entry *entry; /* NULL: not reading */
	struct event_reader *next;
	void (*more)(struct event_reader *reader);
	void (*ended)(struct event_reader *reader);
};
void event_reader_begin(struct entry *entry, struct event_reader *reader);
void event_reader_end(struct event_reader *reader); /* not reading: nothing */

/* Adopted: what the last hobd has left of them. */
void events_load(struct entry *entry);
/* Its successor under the same id has them from now on, readers too. */
void events_move(struct entry *from, struct entry *to);
void events_free(struct entry *entry);

#endif
