/*
 * What a program and its launcher say to each other: one SOCK_SEQPACKET packet a message, fixed
 * format, native byte order (the launcher is a fork of the program). The launcher trusts none of
 * it: the program runs as another user and may have been taken over.
 */
#ifndef HOB_POOL_SANDBOX_LAUNCHER_WIRE_H
#define HOB_POOL_SANDBOX_LAUNCHER_WIRE_H

#include "base/error.h"
#include "base/io.h"
#include "pool/sandbox/sandbox.h"

#include <stdint.h>

enum launcher_op {
	LAUNCHER_CREATE = 1, /* reply: pid, pidfd, control socket */
	LAUNCHER_FREEZE,
	LAUNCHER_THAW,
	LAUNCHER_DESTROY,
	LAUNCHER_SEAL, /* staging */
	LAUNCHER_PREPARE, /* staging, slot; reply: user namespace */
	LAUNCHER_REMOVE, /* room, staging is the name */
	LAUNCHER_BUILD, /* name is the environment; reply: pid, pidfd */
	LAUNCHER_SNAPSHOT, /* name, staging, previous, max_pause_us; reply: copied */
	LAUNCHER_KEEP, /* name, staging */
	LAUNCHER_PAGE_OUT,
	LAUNCHER_UPKEEP, /* name: a snapshot to flatten, or all upkeep; reply: pid, pidfd */
	LAUNCHER_MEASURE, /* name; reply: copied, of which files and bytes */
	LAUNCHER_STORE, /* kind, name, hostname (a second name), host_usr (an option); reply: pid,
			   pidfd, socket, pipe */
	LAUNCHER_AHEAD, /* kind is how many */
	LAUNCHER_OPS
};

#define LAUNCHER_NAME_SIZE (NAME_MAX_LENGTH + 8) /* with its '\0', and aligned */

struct launcher_layer {
	int64_t id, id_base, id_count;
};

struct launcher_request {
	uint32_t op;
	uint32_t number; /* comes back in the reply */
	uint32_t kind; /* enum sandbox_kind; LAUNCHER_STORE: enum store_tool; or a number */
	uint32_t slot;
	uint32_t network_host, host_usr; /* 0 or 1 */
	uint32_t layer_count;
	uint32_t build; /* enum build_mode */
	int64_t previous; /* layer; 0: none */
	int64_t max_pause_us; /* LAUNCHER_SNAPSHOT; 0: the longest */
	struct sandbox_limits limits;
	char name[LAUNCHER_NAME_SIZE];
	char staging[LAUNCHER_NAME_SIZE];
	char hostname[LAUNCHER_NAME_SIZE];
	char room[16];
	struct launcher_layer layers[SANDBOX_LAYERS_MAX]; /* only layer_count of them are sent */
};

struct launcher_reply {
	uint32_t number;
	int32_t pid;
	int64_t took_us;
	struct sandbox_copied copied;
	struct error err; /* kind ERROR_NONE: done; then only what comes before `err` is sent */
};

/* Is the packet whole and every field in range? Says what is not. */
MUSTCHECK int launcher_request_check(
	const struct launcher_request *request, size_t length, uint32_t slots, struct error *err);
size_t launcher_request_size(const struct launcher_request *request);

#endif
