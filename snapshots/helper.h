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

/* For store_set_opaque: what a folder's trusted.overlay.opaque says, by its descriptor. Reading
 * trusted attributes takes CAP_SYS_ADMIN, which only the child has. */
store_opaque_fn store_helper_opaque;

/* For store_set_compare: all attributes of two open files, the trusted ones too. */
store_compare_fn store_helper_compare;

/* What the program may do beside being the store's owner, as it walks trees that belong to
 * sandboxes. Reading one is CAP_DAC_READ_SEARCH and nothing else. Making one (import, flatten) is
 * giving files away: CAP_CHOWN, FOWNER, FSETID, DAC_OVERRIDE, SETFCAP. */
enum store_rights { STORE_RIGHTS_NONE, STORE_RIGHTS_READ_TREES, STORE_RIGHTS_MAKE_TREES };

/* When root: becomes the owner of `path` for good, groups and capabilities too but for what the
 * rights say, after starting a helper (*ret_helper stays NULL when none is needed: not root, or
 * root's own store). */
MUSTCHECK int store_become_owner(const char *path, enum store_rights rights,
	struct store_helper **ret_helper, struct error *err);
/* In a child that parses what comes from outside: nobody, with no rights at all. */
MUSTCHECK int store_become_nobody(struct error *err);

#endif
