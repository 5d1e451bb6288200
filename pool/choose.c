/* Choosing for claims and hints. The catalog is read only where a name is not among the loaded
 * images, and where terms hold by what was built before and not by the head's own commit and age.
 */
#include "pool/choose.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "pool/builds.h"
#include "pool/disk.h"
#include "pool/entry.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/services.h"
#include "pool/sync/ancestry.h"

#include <inttypes.h>
#include <strings.h>

/* Builds looked through for a commit, newest first; the catalog keeps as many. */
#define BUILDS_LOOKED_AT BUILDS_KEEP

static int choose_by_environment(struct manager *manager, const char *name, struct pool **ret_pool,
	struct pool_image **ret_image, struct error *err)
{
	struct pool *pool = manager_pool(manager, name);

	if (pool == NULL || pool->conf == NULL) {
		error_set(err, ERROR_NOT_FOUND, "no environment \"%s\"", name);
		return error_hint(err, "`hob env` lists them; their files are in %s",
			manager->config->environments);
	}
	if (pool->head == NULL) {
		error_set(err, ERROR_CONFLICT, "environment \"%s\" has no image yet", name);
		return error_hint(err, "hob build %s", name);
	}
	*ret_pool = pool;
	*ret_image = pool_image_ref(pool->head);
	return 0;
}

int choose(struct manager *manager, const struct choice *choice, struct pool **ret_pool,
	struct pool_image **ret_image, struct error *err)
{
	int status;

	if (choice->image == NULL && choice->snapshot == NULL) {
		return choose_by_environment(
			manager, choice->environment, ret_pool, ret_image, err);
	}
	status = choice->snapshot != NULL
			 ? pool_snapshot_find(manager, choice->snapshot, ret_image, err)
			 : pool_image_find(manager, choice->image, ret_image, err);
	if (status < 0) {
		return status;
	}
	*ret_pool = manager_pool_add(manager, (*ret_image)->environment);
	return 0;
}

/* ---- terms ---- */

bool terms_are_any(const struct terms *terms)
{
	return terms->max_age_ms < 0 && terms->min_commit == NULL;
}

static bool commit_is(const char *commit, const char *wanted)
{
	return strncasecmp(commit, wanted, strlen(wanted)) == 0;
}

/*
 * Goes through what was built: when was the head last found to be still the newest, and was a build
 * at `commit` over before the image? Builds of one environment never overlap, so that their order
 * is that of what they published.
 */
static void look_at_builds(struct pool *pool, const struct pool_image *image, const char *commit,
	bool *ret_built_before)
{
	struct build *builds = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;
	bool newest = true;

	if (build_list(pool->manager->store, pool->name, BUILDS_LOOKED_AT, &builds, &count, &err) <
		0) {
		log_failure("pool.builds_unread", &err, "environment", pool->name);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		const struct build *build = &builds[i];
		bool good = build->state == BUILD_PUBLISHED || build->state == BUILD_UNCHANGED;

		if (good && newest) {
			/* Not when the head was moved back since. */
			if (pool->head != NULL && streq(build->commit, pool->head->commit)) {
				pool->head_current_ms = build->started_ms;
			}
			newest = false;
		}
		if (good && commit != NULL && build->started_ms <= image->created_ms &&
			commit_is(build->commit, commit)) {
			*ret_built_before = true;
		}
		build_done(&builds[i]);
	}
	free(builds);
}

bool terms_hold(struct pool *pool, const struct pool_image *image, const char *commit,
	const struct terms *terms)
{
	const char *wanted = terms->min_commit;
	bool young = terms->max_age_ms < 0, new_enough = wanted == NULL;
	int64_t now_ms = clock_real_ms(), current_ms = image->created_ms;
	enum descent descent = DESCENT_UNKNOWN;

	new_enough = new_enough || commit_is(commit, wanted);
	if (!new_enough) {
		descent = ancestry_known(pool, commit, wanted);
		new_enough = descent == DESCENT_YES;
	}
	young = young || now_ms - current_ms <= terms->max_age_ms;
	if (!young && image == pool->head) {
		young = now_ms - pool->head_current_ms <= terms->max_age_ms;
	}
	if (young && new_enough) {
		return true;
	}
	if ((!young && image != pool->head) || descent == DESCENT_NO) {
		return false;
	}
	look_at_builds(pool, image, wanted, &new_enough);
	return new_enough && (young || now_ms - pool->head_current_ms <= terms->max_age_ms);
}

int terms_refuse(struct pool *pool, const struct terms *terms, struct error *err)
{
	const struct pool_image *head = pool->head;
	int64_t current_ms =
		head->created_ms > pool->head_current_ms ? head->created_ms : pool->head_current_ms;
	char age[CLOCK_TEXT_SIZE], allowed[CLOCK_TEXT_SIZE];
	struct terms only_age = {.max_age_ms = terms->max_age_ms};
	int64_t now_ms = clock_real_ms();

	duration_format(age, (now_ms - current_ms) / 1000 * 1000);
	duration_format(allowed, terms->max_age_ms > 0 ? terms->max_age_ms : 0);
	if (!terms_hold(pool, head, head->commit, &only_age)) {
		error_set(err, ERROR_CONFLICT,
			"\"%s\" was last known to be up to date %s ago (img-%" PRId64
			"), which is over max_age %s",
			pool->name, age, head->id, allowed);
	} else {
		error_set(err, ERROR_CONFLICT,
			"no image of \"%s\" is known to be at commit %s or after it; the newest, "
			"img-%" PRId64 ", is at %.12s",
			pool->name, terms->min_commit, head->id,
			head->commit[0] != '\0' ? head->commit : "no commit");
	}
	if (pool->build_running) {
		return error_hint(
			err, "a build is running; claim again when it is over (`hob builds`)");
	}
	if (now_ms - pool->build_started_ms < BUILD_GAP_MS) {
		return error_hint(err,
			"a build that started %" PRId64 " s ago did not change that (`hob builds`)",
			(now_ms - pool->build_started_ms) / 1000);
	}
	return error_hint(err, "a build is %s; claim again when it is over (`hob builds`)",
		build_request(pool, NULL) ? "running now" : "queued");
}

/* ---- ready ones ---- */

struct entry *ready_find(const struct pool *pool, const struct pool_image *image)
{
	struct entry *second = NULL;

	for (struct entry *entry = pool->entries[ENTRY_READY].first; entry != NULL;
		entry = entry->next) {
		if (entry->image != image || entry->outdated || entry->client == NULL ||
			entry->hint != NULL) {
			continue;
		}
		if (entry_services_up(entry)) {
			return entry;
		}
		second = second != NULL ? second : entry;
	}
	return second;
}

struct entry *ready_find_newer(
	struct pool *pool, const struct pool_image *image, const struct terms *terms)
{
	struct entry *entry = pool->entries[ENTRY_READY].first;

	while (entry != NULL && (entry->image != image || entry->outdated ||
					entry->client == NULL || entry->hint != NULL ||
					!terms_hold(pool, image, entry_commit(entry), terms))) {
		entry = entry->next;
	}
	return entry;
}

struct entry *ready_find_older(struct pool *pool, const struct terms *terms)
{
	struct entry *found = NULL;

	if (terms->max_age_ms < 0) {
		return NULL;
	}
	for (struct entry *entry = pool->entries[ENTRY_READY].first; entry != NULL;
		entry = entry->next) {
		if (entry->client != NULL && entry->hint == NULL && !entry->outdated &&
			entry->image->snapshot_id == 0 &&
			(found == NULL || entry->image->id > found->image->id) &&
			terms_hold(pool, entry->image, entry_commit(entry), terms)) {
			found = entry;
		}
	}
	return found;
}

struct entry *reserved_find(const struct pool *pool, const struct pool_image *image)
{
	struct entry *found = NULL;

	for (struct entry *entry = pool->entries[ENTRY_READY].first; entry != NULL;
		entry = entry->next) {
		if (entry->image == image && !entry->outdated && entry->client != NULL &&
			entry->hint != NULL &&
			(found == NULL ||
				entry->record.last_active_ms < found->record.last_active_ms)) {
			found = entry;
		}
	}
	return found;
}

bool reserved_fits(const struct entry *entry, const struct pool *pool,
	const struct pool_image *image, const struct terms *terms)
{
	struct pool *own = entry->pool;

	if (own != pool || entry->release_wanted || entry->outdated) {
		return false;
	}
	if (pool_image_is_same(entry->image, image)) {
		return terms_are_any(terms) || terms_hold(own, image, entry_commit(entry), terms);
	}
	/* Replaced meanwhile; the claim says that it may be. */
	return image == pool->head && terms->max_age_ms >= 0 && entry->image->snapshot_id == 0 &&
	       terms_hold(own, entry->image, entry_commit(entry), terms);
}

/* ---- room ---- */

static bool make_room(const struct pool *pool, const struct pool_image *image, bool reserved)
{
	for (struct entry *entry = pool->entries[ENTRY_READY].first; entry != NULL;
		entry = entry->next) {
		if ((entry->image != image || entry->outdated) &&
			(entry->hint != NULL) == reserved) {
			entry_release(entry, "made room for a claim");
			return true;
		}
	}
	return false;
}

/* `only` NULL: in any pool. */
static bool evict(const struct manager *manager, const struct pool *only,
	const struct pool_image *image, enum room_cost cost)
{
	for (int level = ROOM_UNRESERVED; level <= (int)cost; level++) {
		for (const struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
			if ((only == NULL || only == pool) &&
				make_room(pool, image, level == ROOM_RESERVED)) {
				return true;
			}
		}
	}
	return false;
}

static int64_t pool_held(const struct pool *pool)
{
	return (int64_t)(pool->entries[ENTRY_CREATING].count + pool->entries[ENTRY_WARMING].count +
			 pool->entries[ENTRY_READY].count + pool->entries[ENTRY_CLAIMED].count +
			 pool->entries[ENTRY_PAUSED].count);
}

int room_check(struct pool *pool, const struct pool_image *image, int64_t owed, enum room_cost cost,
	struct error *err)
{
	struct manager *manager = pool->manager;

	if (pool->conf != NULL && pool_held(pool) + owed >= pool->conf->pool_max &&
		!evict(manager, pool, image, cost)) {
		error_set(err, ERROR_UNAVAILABLE,
			"over_limit: \"%s\" has its %" PRId64 " sandboxes (pool.max)", pool->name,
			pool->conf->pool_max);
		return error_hint(err, "release some with `hob rm`, or raise pool.max in %s",
			pool->conf->file);
	}
	if ((int64_t)manager->entry_count + owed >= manager->config->max_sandboxes &&
		!evict(manager, NULL, image, cost)) {
		error_set(err, ERROR_UNAVAILABLE,
			"over_limit: this machine has its %" PRId64 " sandboxes (max_sandboxes)",
			manager->config->max_sandboxes);
		return error_hint(err, "release some with `hob rm`, or raise max_sandboxes");
	}
	return disk_check_room(pool, err);
}
