/*
 * What hobd writes down about a sandbox so that the next hobd can adopt it: one JSON line appended
 * to <run>/sandboxes/<id>/state per change (the last complete line counts), and one line per
 * started command in `execs` beside it. Pure text in and out; files are lifecycle.c's and
 * adopt.c's.
 */
#ifndef HOB_POOL_RECORD_H
#define HOB_POOL_RECORD_H

#include "base/buffer.h"
#include "base/io.h"
#include "base/json.h"
#include "configs/environment.h"
#include "pool/hints/caller.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A sandbox's life. GONE is never written: its folder is removed instead. */
enum entry_state {
	ENTRY_CREATING, /* the launcher was asked */
	ENTRY_WARMING, /* it runs; hob-init has not said hello yet */
	ENTRY_READY, /* nobody's; may be claimed */
	ENTRY_CLAIMED, /* somebody's; never goes back to the pool */
	ENTRY_PAUSED, /* somebody's, and frozen until it is needed */
	ENTRY_DORMANT, /* somebody's, without a sandbox until it is needed: see dormant.h */
	ENTRY_RELEASING, /* the launcher was asked to destroy it, perhaps more than once */
	ENTRY_GONE, /* nothing of it is left */
	ENTRY_STATES
};

const char *entry_state_name(enum entry_state state);
bool entry_state_from_name(const char *name, enum entry_state *ret_state);
/* The table of allowed transitions. */
bool entry_state_may_follow(enum entry_state from, enum entry_state to);

/* A hint on a sandbox that is nobody's yet; last_active_ms is when it was last renewed. */
struct hint_record {
	char owner[CALLER_SIZE];
	char key[HINT_KEY_SIZE]; /* empty: no hint */
	int64_t ttl_ms;
};

/* See meter.h. Times are real, ms; 0: not yet. */
struct entry_meter {
	int64_t started_ms; /* the claim, or the return from sleep */
	int64_t active_ms; /* of the stretches that have ended */
	int64_t active_since_ms; /* of this one; 0: it is paused */
	int64_t cpu_base_us; /* of before the claim */
	int64_t cpu_us; /* since then */
	int64_t memory_kib_s; /* up to sampled_ms */
	int64_t memory_kib; /* then */
	int64_t sampled_ms;
	int64_t ended_ms;
};

/* What became of the source that a sandbox was made with. All zero: it is as its image has it. */
struct entry_record_sync {
	char **commits; /* of its workspaces now, one a source; NULL: the image's */
	/* Under way. */
	bool running;
	uint32_t exec; /* hob-init's command that applies it; 0: not started */
	int64_t source;
	char *to; /* the commit that this source goes to */
	bool torn; /* one ended in the middle: neither the one commit nor the other */
	int64_t refreshed_id; /* the image that it counts as, though it stands on another; 0: none
			       */
	int64_t refreshes;
	int64_t bytes; /* that were brought to it in all */
};

/* The part of a sandbox that outlives hobd. Times are real, ms; 0 is "not yet" or "never". */
struct entry_record {
	char id[ID_SIZE];
	enum entry_state state;
	char environment[NAME_MAX_LENGTH + 1];
	int64_t image_id; /* 0: of a snapshot that was imported without its image */
	int64_t snapshot_id; /* that it was restored from; 0: none */
	uint32_t slot;
	pid_t pid;
	uint64_t pid_start; /* of /proc/<pid>/stat: tells a reused pid */
	int64_t created_ms;
	int64_t claimed_ms;
	int64_t expires_ms; /* as the claim or POST …/timeout asked */
	int64_t age_limit_ms; /* the environment's max_age, from the claim on */
	int64_t idle_ms;
	int64_t last_active_ms;
	int64_t pause_ms; /* as the environment says: paused after this long idle */
	int64_t paused_at_ms; /* PAUSED: since when; the idle clock starts anew there */
	enum environment_lifecycle lifecycle; /* as the environment said at the claim */
	int64_t snapshot_every_ms;
	struct entry_meter meter;
	bool returns; /* RELEASING: what it was comes back, see dormant.h */
	bool keep; /* RELEASING: what it has become is to be a snapshot */
	int64_t disk_over; /* PAUSED: for having written so much; else what it may grow to; 0: it
			      is within its limit */
	struct hint_record hint; /* until CLAIMED */
	char **env; /* of the claim; NULL: none */
	json_t *metadata; /* of the claim; NULL: none */
	struct entry_record_sync sync;
};

void entry_record_done(struct entry_record *record);
/* Appends the line with its '\n'. False when it passes the buffer's cap. */
bool entry_record_format(const struct entry_record *record, struct buffer *line);
/* One line, without '\n'. ERROR_CORRUPT. *ret_record is the caller's on success. */
MUSTCHECK int entry_record_parse(
	const char *line, size_t length, struct entry_record *ret_record, struct error *err);
/* The last line of a state file that has its '\n'. ERROR_CORRUPT when there is none or it is bad.
 */
MUSTCHECK int entry_record_last(
	const char *text, size_t length, struct entry_record *ret_record, struct error *err);

/* The earliest of the clocks of a claimed sandbox, real ms; INT64_MAX: none. `busy`: a command or
 * request is under way, so that the idle clock stands still. */
int64_t entry_record_deadline(const struct entry_record *record, bool busy);
/* When a claimed sandbox is to be paused, in the same way. */
int64_t entry_record_pause_at(const struct entry_record *record, bool busy);
/* Which clock that is, for logs and messages: "timeout", "max_age", "idle". */
const char *entry_record_deadline_name(const struct entry_record *record, bool busy);

/* A started command. */
struct exec_record {
	uint32_t id;
	int64_t started_ms;
	char **argv;
};

void exec_record_format(const struct exec_record *record, struct buffer *line);
/* Calls `fn` for each well-formed line; a torn or foreign one is skipped. argv is lent. */
void exec_records_parse(const char *text, size_t length,
	void (*fn)(void *context, const struct exec_record *record), void *context);

#endif
