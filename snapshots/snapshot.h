/*
 * Snapshots: what a sandbox changed, kept as layers above the image or snapshot it stood on. The
 * catalog records each with its whole flat list of layers (lowest first), so that a restore reads
 * one list however long the lineage is, and so that no snapshot needs its parent's row.
 *
 * A live snapshot is taken in this order, by one process and one handle:
 *
 *     staging_new; snapshot_begin(sandbox, staging)     one at a time for each sandbox
 *     … the tree is copied (or renamed) into staging/<name>/tree, and nothing writes to it now …
 *     layer_seal                                        syncfs, rename into layers/
 *     snapshot_commit                                   one transaction: the commit point
 *
 * Killed before the last step, nothing of it is reachable; store_recover sweeps it and forgets the
 * run. Rights: nothing here reads a layer's tree; that is snapshots/tree_walk.h's affair.
 */
#ifndef HOB_SNAPSHOTS_SNAPSHOT_H
#define HOB_SNAPSHOTS_SNAPSHOT_H

#include "snapshots/store.h"

#define SNAPSHOT_LABEL_SIZE 129
#define SNAPSHOT_METADATA_MAX 16384 /* bytes of JSON text */
/* Deeper than images may be, so that one of the deepest image has room, and that flattening has
 * time; what a sandbox takes (SANDBOX_LAYERS_MAX). */
#define SNAPSHOT_LAYERS_MAX 64
/* DESIGN: "Keep 16 or fewer, flatten by 32". A snapshot with more is one for snapshot_flatten. */
#define SNAPSHOT_LAYERS_GOOD 16

enum snapshot_reason {
	SNAPSHOT_BASE, /* of a sandbox as its environment starts it */
	SNAPSHOT_SESSION, /* of a harness, in the course of a session */
	SNAPSHOT_EXIT, /* at release, timeout or shutdown */
	SNAPSHOT_MANUAL, /* somebody asked */
	SNAPSHOT_REASONS
};

const char *snapshot_reason_name(enum snapshot_reason reason);
/* False if it is none of base, session, exit, manual. */
bool snapshot_reason_parse(const char *name, enum snapshot_reason *ret_reason);

struct snapshot {
	int64_t id; /* shown as "snap-<id>" */
	char environment[65];
	int64_t image_id; /* that its lineage starts from; 0: imported without one */
	int64_t parent_id; /* the snapshot that its sandbox stood on; 0: the image itself */
	enum snapshot_reason reason;
	char label[SNAPSHOT_LABEL_SIZE]; /* UTF-8 without control characters, or empty */
	char sandbox[65]; /* that it came from, or empty */
	char commit[COMMIT_TEXT_SIZE]; /* of the image's first source, or empty */
	int64_t created_ms;
	bool pinned;
	char *tags; /* names in order with blanks between, or NULL */
	char *metadata; /* JSON object of strings; in lists too */
	char *manifest; /* how a sandbox starts, as struct image has it; NULL in lists */
	struct layer *layers; /* lowest first; NULL in lists */
	size_t layer_count;
	size_t own_count; /* how many at the top are its own, the rest was there before */
	uint64_t bytes; /* apparent, of all its layers */
	uint64_t stored; /* in use on disk, of all its layers */
	uint64_t exclusive; /* of `stored`: what removing it frees */
	int64_t generation; /* of its list of layers: a flattening makes the next one */
};

void snapshot_done(struct snapshot *snapshot); /* frees what it holds */
/* snapshot_done of each, then the array. */
void snapshots_free(struct snapshot *snapshots, size_t count);

/* Records that a snapshot of `sandbox` is being taken in `staging`. ERROR_BUSY while another living
 * process takes one of it; what a killed one left is replaced. */
MUSTCHECK int snapshot_begin(
	struct store *store, const char *sandbox, const struct staging *staging, struct error *err);
/*
 * For what a sandbox leaves at its end: the staging folder of an earlier try of the same sandbox
 * whose process died, else a new one, with the run begun. It outlives its process and is found
 * again by the next call, until snapshot_commit or snapshot_abort.
 */
MUSTCHECK int snapshot_keep_begin(
	struct store *store, const char *sandbox, struct staging **ret_staging, struct error *err);
/* Lets go of it as if this process had died. */
void snapshot_keep_leave(struct staging *staging);
/* Gives up those of sandboxes that nobody knows any more. */
MUSTCHECK int snapshot_keeps_sweep(struct store *store,
	bool (*is_known)(void *context, const char *sandbox), void *context, struct error *err);
/* Ends it without a snapshot, and discards what this handle sealed. None running is fine. */
MUSTCHECK int snapshot_abort(struct store *store, const char *sandbox, struct error *err);

/*
 * The commit point. Needs environment, image_id or parent_id (both or one; 0 and 0 for an import),
 * reason, and layers[].id of the whole list, the top own_count of them sealed by this handle (none
 * is allowed: a sandbox that changed nothing). Layers below that are a list which the parent had
 * before it was flattened give way to the list that it has now. label, sandbox, metadata may be
 * empty. manifest and commit are the parent's unless given, and image_id is the parent's when
 * parent_id is given. Ends the sandbox's run. The rest of *snapshot is filled in. ERROR_INVALID,
 * ERROR_NOT_FOUND (parent), ERROR_CONFLICT (a layer has gone), ERROR_LIMIT (layers, label,
 * metadata).
 */
MUSTCHECK int snapshot_commit(struct store *store, struct snapshot *snapshot, struct error *err);

/* By "snap-12", "12" or a tag; everything of it. ERROR_NOT_FOUND. */
MUSTCHECK int snapshot_find(
	struct store *store, const char *name, struct snapshot *ret_snapshot, struct error *err);

struct snapshot_filter {
	const char *environment; /* NULL: any */
	const char *label; /* NULL: any; a pattern of fnmatch(3) */
	const char *sandbox; /* NULL: any */
	int reason; /* -1: any */
	int64_t older_than_ms; /* made before this time; 0: any */
};
#define SNAPSHOT_FILTER_ALL ((struct snapshot_filter){.reason = -1})
/* Newest first, without manifests and layers. 10,000 take about 30 ms. */
MUSTCHECK int snapshot_list(struct store *store, const struct snapshot_filter *filter,
	struct snapshot **ret_snapshots, size_t *ret_count, struct error *err);

/* Who needs it: "pinned", "leased by hobd". Children do not: their lists are whole. */
MUSTCHECK int snapshot_users(struct store *store, int64_t id, char ***ret_users, struct error *err);
/* Removes it with its tags and the layers that nobody else reaches; its children become those of
 * its parent. ERROR_CONFLICT naming the users, ERROR_BUSY while a layer is being read or used. */
MUSTCHECK int snapshot_remove(
	struct store *store, int64_t id, uint64_t *ret_freed, struct error *err);

MUSTCHECK int snapshot_pin(struct store *store, int64_t id, bool pinned, struct error *err);
/* A tag is a name as name_is_valid has it, but no "snap-…", "img-…" or number; it is one snapshot's
 * at a time. ERROR_EXISTS naming the other unless `move`. */
MUSTCHECK int snapshot_tag(
	struct store *store, int64_t id, const char *tag, bool move, struct error *err);
MUSTCHECK int snapshot_untag(struct store *store, const char *tag, struct error *err);

/*
 * Leases, as for images: hobd holds one on every snapshot that its sandboxes stand on. A lease
 * protects the list of layers that was current when it was taken, too: a flattening leaves the old
 * list in place until every lease from before it is given back. Lease first, then read the list.
 */
MUSTCHECK int snapshot_lease(
	struct store *store, int64_t id, const char *holder, struct error *err);
MUSTCHECK int snapshot_unlease(
	struct store *store, int64_t id, const char *holder, struct error *err);
MUSTCHECK int snapshot_leases_keep(struct store *store, const char *holder, const int64_t *ids,
	size_t count, struct error *err);

#endif
