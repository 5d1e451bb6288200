/* What may be refreshed, and refreshing it, a few at a time. */
#include "pool/sync/refresh.h"

#include "base/log.h"
#include "base/memory.h"
#include "pool/claim.h"
#include "pool/entry.h"
#include "pool/image.h"
#include "pool/manager.h"
#include "pool/sync/sync.h"

/* A whole checkout, or what differs from one. */
static bool is_of_source(const struct layer *layer)
{
	return streq(layer->kind, "source") || streq(layer->kind, "delta");
}

static const struct layer *next_other(const struct layer *layers, size_t count, size_t *at)
{
	while (*at < count && is_of_source(&layers[*at])) {
		(*at)++;
	}
	return *at < count ? &layers[(*at)++] : NULL;
}

static bool same_layer(const struct layer *a, const struct layer *b)
{
	return a->id == b->id || (streq(a->kind, b->kind) && a->step_key[0] != '\0' &&
					 streq(a->step_key, b->step_key));
}

bool layers_differ_in_source_only(
	const struct layer *from, size_t from_count, const struct layer *to, size_t to_count)
{
	size_t i = 0, k = 0;

	for (;;) {
		const struct layer *a = next_other(from, from_count, &i);
		const struct layer *b = next_other(to, to_count, &k);

		if (a == NULL || b == NULL) {
			return a == NULL && b == NULL;
		}
		if (!same_layer(a, b)) {
			return false;
		}
	}
}

static bool same_list(char *const *a, char *const *b)
{
	size_t count = strv_count(a);

	for (size_t i = 0; i < count && i < strv_count(b); i++) {
		if (!streq(a[i], b[i])) {
			return false;
		}
	}
	return count == strv_count(b);
}

bool image_refreshes_to(const struct pool_image *from, const struct pool_image *to)
{
	if (from->snapshot_id != 0 || to->snapshot_id != 0 || to->source_count == 0 ||
		from->source_count != to->source_count || !same_list(from->env, to->env) ||
		!streq(from->user, to->user) || !streq(from->cwd, to->cwd)) {
		return false;
	}
	for (size_t i = 0; i < to->source_count; i++) {
		if (!streq(from->sources[i].path, to->sources[i].path) ||
			!streq(from->sources[i].ref, to->sources[i].ref)) {
			return false;
		}
	}
	return layers_differ_in_source_only(
		from->layers, from->layer_count, to->layers, to->layer_count);
}

bool entry_refreshes(const struct entry *entry)
{
	const struct pool *pool = entry->pool;
	const struct entry_record_sync *record = &entry->record.sync;

	return entry->record.state == ENTRY_READY && pool->conf != NULL &&
	       pool->conf->sync.refresh && pool->head != NULL && entry->image != pool->head &&
	       entry_base(entry) != NULL && entry->client != NULL && !entry->refresh_failed &&
	       !entry->outdated && !record->torn && record->refreshes < REFRESHES_MAX &&
	       record->bytes < REFRESH_BYTES_MAX &&
	       image_refreshes_to(entry_base(entry), pool->head);
}

static void refresh_one(struct entry *entry)
{
	struct pool_image *head = entry->pool->head;
	CLEANUP(strv_free_p) char **commits = NULL;
	struct error err = ERROR_INIT;

	for (size_t i = 0; i < head->source_count; i++) {
		strv_add(&commits, head->sources[i].commit);
	}
	if (sync_start(entry, commits, head, NULL, NULL, &err) < 0) {
		log_failure("sandbox.not_refreshed", &err, "sandbox", entry->record.id);
		entry->refresh_failed = true;
		manager_dirty(entry->manager);
	}
}

void pool_refresh(struct pool *pool)
{
	size_t running = 0;
	struct entry *entry;

	for (entry = pool->entries[ENTRY_READY].first; entry != NULL; entry = entry->next) {
		running += entry->sync != NULL ? 1 : 0;
	}
	entry = pool->entries[ENTRY_READY].first;
	while (entry != NULL && running < REFRESHES_AT_ONCE) {
		/* One that is at the commit already counts at once, which leaves the list alone, or
		 * is given to a claim that waits, which does not. */
		struct entry *next = entry->next;

		if (entry->sync == NULL && entry_refreshes(entry)) {
			refresh_one(entry);
			running += entry->sync != NULL ? 1 : 0;
		}
		entry = next;
	}
}
