/*
 * The launcher's helpers for what takes long: one deletes trees and one adds up what sandboxes have
 * written, both at low priority, and one seals layers. Each is a process of its own so that a
 * creation never waits for a disk.
 */
#ifndef HOB_POOL_SANDBOX_WORKER_H
#define HOB_POOL_SANDBOX_WORKER_H

#include "base/error.h"
#include "base/io.h"
#include "pool/sandbox/places.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum worker_kind { WORKER_REMOVE, WORKER_SEAL, WORKER_MEASURE, WORKERS };

struct worker {
	enum worker_kind kind;
	pid_t pid;
	int fd; /* -1: not running */
};

struct worker_job {
	uint32_t number; /* comes back; 0: nobody waits for the end */
	char room[16]; /* of the store, for a removal; "sandboxes" for a seal_upper */
	char name[NAME_MAX_LENGTH + 24];
	char staging[NAME_MAX_LENGTH + 24]; /* for a seal_upper */
};

struct worker_answer {
	uint32_t number;
	uint64_t files, bytes; /* of a measurement */
	struct error err;
};

MUSTCHECK int worker_start(struct worker *worker, enum worker_kind kind,
	const struct places *places, struct error *err);
void worker_stop(struct worker *worker);
/* ERROR_BUSY when its queue is full. hold_fd: it closes that, or a copy, when it is done; -1: none.
 */
MUSTCHECK int worker_send(
	struct worker *worker, const struct worker_job *job, int hold_fd, struct error *err);
/* False when it has died. */
MUSTCHECK bool worker_receive(struct worker *worker, struct worker_answer *ret_answer);

/* What the sealing one does; see sandbox_seal. */
MUSTCHECK int seal_layer(const struct places *places, const char *staging, struct error *err);
/* And what it does of a sandbox_keep: the sandbox is dead. */
MUSTCHECK int seal_upper(
	const struct places *places, const char *id, const char *staging, struct error *err);

#endif
