/* What a sync has made of the workspaces, before and after the copy. */
#include "pool/snapshot_commits.h"

#include "base/memory.h"
#include "pool/entry.h"

static bool is_syncing(const struct entry *entry)
{
	return entry->sync != NULL || entry->record.sync.running || entry->record.sync.torn;
}

void snapshot_commits_note(struct snapshot_commits *commits, const struct entry *entry)
{
	strv_free(commits->list);
	commits->list = strv_copy(entry->record.sync.commits);
	commits->torn = is_syncing(entry);
}

static bool same_commits(char *const *a, char *const *b)
{
	size_t count = strv_count(a);
	bool same = count == strv_count(b);

	for (size_t i = 0; same && i < count; i++) {
		same = streq(a[i], b[i]);
	}
	return same;
}

void snapshot_commits_tell(
	struct snapshot_commits *commits, const struct entry *entry, json_t *made)
{
	json_t *list;

	if (entry != NULL) {
		commits->torn = commits->torn || is_syncing(entry) ||
				!same_commits(commits->list, entry->record.sync.commits);
	}
	if (commits->torn) {
		json_object_set_new(made, "torn", json_true());
	}
	if (commits->list == NULL) {
		return;
	}
	list = json_array();
	for (char **at = commits->list; *at != NULL; at++) {
		json_array_append_new(list, json_string(*at));
	}
	json_object_set_new(made, "commits", list);
}

void snapshot_commits_done(struct snapshot_commits *commits)
{
	strv_free(commits->list);
	commits->list = NULL;
}
