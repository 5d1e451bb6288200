/*
 * One workspace of a running sandbox brought from one commit to another: `hob-build --sync` reads
 * the mirror and writes the changes to a pipe, hob-init inside applies them, and hobd carries the
 * bytes from one to the other without looking at them.
 */
#ifndef HOB_POOL_SYNC_TRANSFER_H
#define HOB_POOL_SYNC_TRANSFER_H

#include "base/error.h"
#include "base/json.h"

#include <stddef.h>
#include <stdint.h>

struct entry;
struct manager;
struct transfer;

struct transfer_order {
	uint32_t exec; /* number of the command inside */
	size_t source; /* of the environment's */
	const char *from, *to, *ref;
	const char *workspace;
};

enum transfer_outcome {
	TRANSFER_DONE,
	TRANSFER_CONFLICT, /* nothing changed; `paths` are not as the old commit has them */
	TRANSFER_UNTOUCHED, /* failed, nothing changed */
	TRANSFER_TORN, /* failed when some of it had changed */
	TRANSFER_OUTCOMES
};

struct transfer_result {
	enum transfer_outcome outcome;
	struct error error; /* unless it is done */
	char **paths; /* of a conflict; lent; NULL: none */
	int64_t changes, bytes, commit_s;
	const json_t *stale; /* array of steps; lent; NULL: none */
};

struct transfer_events {
	/* It is applied: before hob-init forgets that it was. */
	void (*applied)(void *context);
	void (*done)(void *context, const struct transfer_result *result);
};

/* `done` is called once, later, unless transfer_abandon comes first. */
MUSTCHECK int transfer_start(struct entry *entry, const struct transfer_order *order,
	const struct transfer_events *events, void *context, struct transfer **ret_transfer,
	struct error *err);
/* Takes up the inside of one that the last hobd had started: what came in time is applied. */
MUSTCHECK int transfer_adopt(struct entry *entry, uint32_t exec,
	const struct transfer_events *events, void *context, struct transfer **ret_transfer,
	struct error *err);
/* No call from here on; ends both sides. The sandbox's connection may be gone already. */
void transfer_abandon(struct transfer *transfer);
/* Ends the processes of all of them. For the manager's own end. */
void transfers_close(struct manager *manager);

#endif
