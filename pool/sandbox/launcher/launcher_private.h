/* The program's side of the launcher, shared by the files that start it and that talk to it. */
#ifndef HOB_POOL_SANDBOX_LAUNCHER_PRIVATE_H
#define HOB_POOL_SANDBOX_LAUNCHER_PRIVATE_H

#include "pool/sandbox/launcher/launcher_wire.h"

#include <stdint.h>
#include <sys/types.h>

struct loop;
struct loop_source;
struct loop_timer;

#define LAUNCHERS_MAX 4
/* Requests that one launcher has at a time; more wait here, where any launcher may take them. */
#define LAUNCHER_OUTSTANDING_MAX 16
/* Of them, creations: the rest are quick and must not queue behind many of these. */
#define LAUNCHER_CREATES_MAX 2

struct launcher_process {
	pid_t pid;
	int fd; /* -1: it died */
	size_t outstanding, creates;
	struct loop_source *source;
	struct launcher *launcher;
};

struct launcher_call {
	struct launcher_call *next;
	struct launcher_request request;
	struct launcher_process *process; /* NULL: not sent */
	struct error *failure; /* of QUEUE_FAILED; owned */
	union {
		sandbox_created_fn *created;
		sandbox_done_fn *done;
		userns_fn *userns;
		build_started_fn *built;
		sandbox_copied_fn *copied;
		store_started_fn *store;
		sandbox_measured_fn *measured;
	} fn;
	void *context;
};

struct launcher_calls {
	struct launcher_call *first, **last;
};

enum launcher_queue {
	QUEUE_CREATES,
	QUEUE_OTHERS,
	QUEUE_SENT,
	QUEUE_FAILED, /* ended before a launcher saw them; delivered by the loop */
	QUEUES
};

struct launcher {
	struct launcher_process processes[LAUNCHERS_MAX];
	size_t process_count;
	int64_t id_base;
	uint32_t slots;
	uint32_t number; /* of the last request */
	struct loop *loop;
	struct loop_timer *failing; /* delivers QUEUE_FAILED */
	void (*lost)(void *context);
	void *lost_context;
	bool lost_called;
	struct launcher_calls queues[QUEUES];
};

#endif
