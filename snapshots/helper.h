/*
 * Root on behalf of the store's owner, for programs that an operator starts as root: a store that
 * root has opened would have files of root's in it, which hobd could not use. So the program
 * becomes the owner of the store's folder, and a small child that keeps root deletes and measures
 * what the owner may not: files of the sandboxes' id ranges.
 */
#ifndef HOB_SNAPSHOTS_HELPER_H
#define HOB_SNAPSHOTS_HELPER_H

#include "snapshots/store.h"

struct store_helper;

/* Forks the child; only for root, and before the process has threads. The child serves the store at
 * `path` and ends with the last descriptor to it. */
MUSTCHECK int store_helper_start(
	const char *path, struct store_helper **ret_helper, struct error *err);
/* Waits for the child. NULL is fine. */
void store_helper_stop(struct store_helper *helper);
DEFINE_CLEANUP(store_helper_stop_p, struct store_helper, store_helper_stop)

/* For store_set_remover and store_set_usage; the context is the helper. One request at a time. */
store_remove_fn store_helper_remove;
store_usage_fn store_helper_usage;

/* When root: becomes the owner of `path` for good, groups and capabilities too, after starting a
 * helper (*ret_helper stays NULL when none is needed: not root, or root's own store). */
MUSTCHECK int store_become_owner(
	const char *path, struct store_helper **ret_helper, struct error *err);

#endif
