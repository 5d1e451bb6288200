/* Where the workspaces of a sandbox are, for the manifest of its snapshot: one that was being
 * synced while it was copied is like one whose sync was cut off, which the next sync brings to its
 * end. */
#ifndef HOB_POOL_SNAPSHOT_COMMITS_H
#define HOB_POOL_SNAPSHOT_COMMITS_H

#include "base/json.h"

#include <stdbool.h>

struct entry;

struct snapshot_commits {
	char **list; /* when the copy began; NULL: as the image says */
	bool torn; /* they are perhaps at neither those nor others */
};

void snapshot_commits_note(struct snapshot_commits *commits, const struct entry *entry);
/* The copy is made: into what the store is told. `entry` NULL: the sandbox has gone. */
void snapshot_commits_tell(
	struct snapshot_commits *commits, const struct entry *entry, json_t *made);
void snapshot_commits_done(struct snapshot_commits *commits);

#endif
