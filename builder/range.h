/*
 * The range of ids that a build owns while it runs: the files of its steps and of unpacked archives
 * belong to it. hob itself may not even read some of them; a child that enters the range's user
 * namespace is their root, and nobody else's.
 */
#ifndef HOB_BUILDER_RANGE_H
#define HOB_BUILDER_RANGE_H

#include "base/error.h"
#include "base/io.h"

#include <stdint.h>

struct child;
struct machine;

struct range {
	struct machine *machine;
	int lock_fd; /* -1: not taken */
	uint32_t preference; /* for a slot */
	uint32_t slot;
	int64_t first; /* id on the host that is 0 inside */
	int userns_fd; /* -1: not made */
};

#define RANGE_INIT(m) ((struct range){.machine = (m), .lock_fd = -1, .userns_fd = -1})

/* Takes a build slot unless it has one. ERROR_BUSY: all are in use. */
MUSTCHECK int range_take(struct range *range, struct error *err);
/* The same, and makes staging/<staging>/tree owned by the range's first id. */
MUSTCHECK int range_prepare(struct range *range, const char *staging, struct error *err);
/* Has its user namespace at hand, in userns_fd. */
MUSTCHECK int range_open(struct range *range, struct error *err);
void range_done(struct range *range);

/* In a child that kept userns_fd: becomes root of the range, without rights outside it. */
MUSTCHECK int range_enter(const struct range *range, struct child *child, struct error *err);

/* For store_set_usage, context is the range: adds up staging/<name>/tree, seeing all of it. */
int range_usage(void *context, const char *name, struct tree_usage *ret_usage, struct error *err);

#endif
