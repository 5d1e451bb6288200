/*
 * User namespaces that exist only to map ids: a layer's range on disk to a sandbox's range. Those
 * most lately used are kept, as making one costs 70 us; each is one descriptor.
 */
#ifndef HOB_POOL_SANDBOX_IDMAP_H
#define HOB_POOL_SANDBOX_IDMAP_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Each costs the launcher a descriptor that clone3 copies. */
#define IDMAPS_MAX 192

struct idmap {
	int64_t from, from_group, to;
	uint32_t count;
	int fd; /* of the user namespace */
	uint64_t used;
};

struct idmaps {
	struct idmap entries[IDMAPS_MAX];
	size_t entry_count;
	uint64_t clock;
};

void idmaps_done(struct idmaps *idmaps);
/* A namespace in which users from … from + count - 1, and as many groups from from_group on, stand
 * for to … to + count - 1. The descriptor is the cache's, good until the next call. */
MUSTCHECK int idmap_get(struct idmaps *idmaps, int64_t from, int64_t from_group, int64_t to,
	uint32_t count, int *ret_fd, struct error *err);
/* Writes the one-line maps of the process that pid names, below /proc. */
MUSTCHECK int idmap_write(
	pid_t pid, int64_t from, int64_t from_group, int64_t to, uint32_t count, struct error *err);
/* A new namespace owned by this user, who may setns() into it: 0 … count - 1 stand for `to`…. */
MUSTCHECK int idmap_owned(
	uid_t owner, gid_t group, int64_t to, uint32_t count, int *ret_fd, struct error *err);

#endif
