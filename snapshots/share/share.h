/*
 * Storing equal files of different layers once. A layer is compared, once, with its predecessor:
 * the layer of the same step (or the same kind of source) in the environment's image before, or the
 * layer of the snapshot that was taken of the same sandbox before. Files of one path and one size:
 *
 *  - where the file system can share blocks, the kernel compares and shares (FIDEDUPERANGE): names,
 *    inodes and times stay, so that a layer may be in use meanwhile;
 *  - elsewhere one becomes a hard link to the other where content, mode, owner on disk, time and
 *    every extended attribute are equal. That replaces a name, which overlayfs allows only while
 *    the layer is in no mount: a layer of an image or snapshot that somebody has leased, or that a
 *    build holds, is left as it is; of two layers the one that is free is changed, and when neither
 *    is, the pair waits for the next time.
 *
 * A live upper is no layer and never touched. Killed at any point: every name has one of two equal
 * files. The times of folders, which replacing a name changes, are written down before and put back
 * by whoever looks at the layer next.
 *
 * Rights: STORE_RIGHTS_MAKE_TREES.
 */
#ifndef HOB_SNAPSHOTS_SHARE_H
#define HOB_SNAPSHOTS_SHARE_H

#include "snapshots/store.h"

enum share_method { SHARE_LINKS, SHARE_BLOCKS };

const char *share_method_name(enum share_method method);
/* By trying, in staging. */
MUSTCHECK int share_method_find(
	struct store *store, enum share_method *ret_method, struct error *err);

struct share_result {
	enum share_method method;
	uint64_t layers; /* that were compared with their predecessor */
	uint64_t files; /* that are stored once now */
	uint64_t bytes; /* of them, on disk */
	uint64_t waiting; /* layers whose pair is in use */
	uint64_t owners; /* layers that belong to another range of ids than their predecessor */
};

struct share_events {
	bool (*stop)(void *context); /* asked before each file; true ends it in good order */
	void (*progress)(void *context, const struct layer *layer, uint64_t files, uint64_t bytes);
	void *context;
};

/* Everything that has not been compared. ERROR_CANCELLED when it was stopped, with the result;
 * ERROR_BUSY when another process is at it. */
MUSTCHECK int store_share(struct store *store, const struct share_events *events,
	struct share_result *ret_result, struct error *err);

/*
 * Puts the times of a layer's folders back if a sharing was cut off; waits while one is at work on
 * the layer. `layer_fd` is of layers/<id>. Nothing to do is the rule, and costs one open.
 * ERROR_DENIED without the right to set times.
 */
MUSTCHECK int share_settle(int layer_fd, struct error *err);
/* Of all layers. */
MUSTCHECK int share_settle_all(struct store *store, struct error *err);

/* What the ready layers hold more than once, by links or shared blocks: what the sum of their
 * stored bytes counts too much. Walks those that have a pair or links; needs to read trees. */
MUSTCHECK int shared_bytes(struct store *store, uint64_t *ret_bytes, struct error *err);

#endif
