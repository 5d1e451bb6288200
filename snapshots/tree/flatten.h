/*
 * Several layers into one. What a snapshot has above its image becomes one new layer that shows the
 * same: files are hard links to the old layers' where the owners are of one range, else copies that
 * share blocks where the file system can. A whiteout stays only where the stack below has that
 * name, since one in a folder that is not merged would show.
 *
 * The new list is published as the snapshot's next generation in one transaction. The old list goes
 * at once when nobody has a lease from before, else gc takes it when the last one is given back.
 * Snapshots that were taken above it, and whose lists begin with the old one, get lists that begin
 * with the new one in the same transaction: else a history that grows faster than it is flattened
 * would never become short. Killed at any point: the old list, or the new one.
 *
 * Rights: STORE_RIGHTS_MAKE_TREES, to link files of others and to give new ones their owners.
 */
#ifndef HOB_SNAPSHOTS_FLATTEN_H
#define HOB_SNAPSHOTS_FLATTEN_H

#include "snapshots/snapshot.h"

struct flatten_result {
	size_t before, after; /* layers in its list; equal: there was nothing to do */
	uint64_t linked, copied; /* files */
	uint64_t linked_bytes; /* on disk, of the linked ones */
	uint64_t freed; /* of layers that nobody lists any more, but for what is linked */
};

MUSTCHECK int snapshot_flatten(
	struct store *store, int64_t id, struct flatten_result *ret_result, struct error *err);

/* The deepest snapshot with more than SNAPSHOT_LAYERS_GOOD layers of which two or more are not its
 * image's, and that has not failed lately; 0: none. */
MUSTCHECK int flatten_due(struct store *store, int64_t *ret_id, struct error *err);
/* Remembers a failure, so that it is tried again later: after a minute, doubled each time, an hour
 * at most; or that there is none any more (`failure` NULL). */
MUSTCHECK int flatten_note(
	struct store *store, int64_t id, const struct error *failure, struct error *err);
struct flatten_failure {
	int64_t attempts; /* 0: none */
	int64_t failed_ms, retry_ms;
	char message[256];
};
MUSTCHECK int flatten_failure_get(
	struct store *store, int64_t id, struct flatten_failure *ret_failure, struct error *err);

/* Writes what `count` layers show together, the lowest first, over the `below_count` beneath them,
 * into an open empty folder, with the owners of `about`. For snapshot_flatten and tests. */
MUSTCHECK int flatten_trees(struct store *store, const struct layer *below, size_t below_count,
	const struct layer *layers, size_t count, const struct layer *about, int tree_fd,
	struct flatten_result *result, struct error *err);

#endif
