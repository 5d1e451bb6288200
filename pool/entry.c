/* Entries, their lists and their files. */
#include "pool/entry.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/dormant.h"
#include "pool/events.h"
#include "pool/freeze.h"
#include "pool/hints/hint.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/meter.h"
#include "pool/page_out.h"
#include "pool/run.h"
#include "pool/sandbox/sandbox.h"
#include "pool/services.h"
#include "pool/sync/sync.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

/* A claim's env and metadata are bounded by the body's limit; this is above any such line. */
#define STATE_LINE_MAX (16u << 20)
/* The state file's time is what tells a restarted hobd of the last activity; a second is enough. */
#define TOUCH_EVERY_MS 1000
/* A late deadline timer is harmless, an early one only looks again. */
#define ARM_MAX_MS INT64_C(86400000)

struct entry *entry_new(struct pool *pool, struct pool_image *image)
{
	struct entry *entry = xcalloc(1, sizeof(*entry));

	entry->manager = pool->manager;
	entry->pool = pool;
	entry->image = image != NULL ? pool_image_ref(image) : NULL;
	entry->state_fd = -1;
	entry->execs_fd = -1;
	entry->pidfd = -1;
	entry->adopt_as = ENTRY_GONE;
	entry->next_exec = 1;
	entry->keep_asked = -1;
	entry->record.state = ENTRY_GONE;
	entry->record.image_id = image != NULL ? image->id : 0;
	entry->record.snapshot_id = image != NULL ? image->snapshot_id : 0;
	memcpy(entry->record.environment, pool->name, sizeof(entry->record.environment));
	entry->timer = loop_timer_new(pool->manager->loop, entry_on_timer, entry);
	entry->session_timer = loop_timer_new(pool->manager->loop, dormant_on_timer, entry);
	entry->page_timer = loop_timer_new(pool->manager->loop, page_out_on_timer, entry);
	entry->meter_timer = loop_timer_new(pool->manager->loop, meter_on_timer, entry);
	entry->freeze_timer = loop_timer_new(pool->manager->loop, entry_on_freeze_timer, entry);
	return entry;
}

void entry_free(struct entry *entry)
{
	if (entry == NULL) {
		return;
	}
	assert(entry->uses == NULL && entry->waits == NULL && entry->runs == NULL);
	hint_forget(entry);
	events_free(entry);
	loop_timer_free(entry->timer);
	loop_timer_free(entry->freeze_timer);
	loop_timer_free(entry->meter_timer);
	loop_timer_free(entry->page_timer);
	loop_timer_free(entry->session_timer);
	loop_source_free(entry->pidfd_source);
	entry_services_drop(entry);
	warm_set_put(entry->warm);
	init_client_free(entry->client);
	fd_done(&entry->pidfd);
	fd_done(&entry->state_fd);
	fd_done(&entry->execs_fd);
	entry_record_done(&entry->record);
	sync_about_free(entry->sync_about);
	pool_image_put(entry->stands_on);
	pool_image_put(entry->image);
	pool_image_put(entry->comes_back_from);
	free(entry);
}

static bool counts_as_creating(const struct entry *entry, enum entry_state state)
{
	return (state == ENTRY_CREATING || state == ENTRY_WARMING) && entry->adopt_as == ENTRY_GONE;
}

static void count(struct entry *entry, enum entry_state state, bool in)
{
	struct manager *manager = entry->manager;
	size_t one = in ? 1 : (size_t)-1;
	size_t hinted = entry->hint != NULL ? one : 0;

	/* Waiting for a slow service keeps no launcher busy; and what is out of date is for nobody.
	 */
	if (counts_as_creating(entry, state)) {
		manager->creating_count += entry->serving ? 0 : one;
		entry->image->creating += entry->outdated ? 0 : one;
		entry->image->creating_hinted += entry->outdated ? 0 : hinted;
		entry->pool->creating_hinted += hinted;
	}
	if (state == ENTRY_READY) {
		manager->ready_count += one;
		entry->image->ready += entry->outdated ? 0 : one;
		entry->image->ready_hinted += entry->outdated ? 0 : hinted;
		entry->pool->ready_hinted += hinted;
	}
	if (state == ENTRY_CLAIMED || state == ENTRY_PAUSED) {
		manager->claimed_count += one;
		entry->pool->disk_claimed += in ? entry->disk.bytes : -entry->disk.bytes;
	}
}

void entry_set_outdated(struct entry *entry)
{
	count(entry, entry->record.state, false);
	entry->outdated = true;
	count(entry, entry->record.state, true);
	manager_dirty(entry->manager);
}

void entry_set_serving(struct entry *entry)
{
	count(entry, entry->record.state, false);
	entry->serving = true;
	count(entry, entry->record.state, true);
	manager_dirty(entry->manager);
}

void entry_set_hint(struct entry *entry, struct hint *hint)
{
	count(entry, entry->record.state, false);
	entry->hint = hint;
	count(entry, entry->record.state, true);
}

struct pool_image *entry_base(const struct entry *entry)
{
	return entry->stands_on != NULL ? entry->stands_on : entry->image;
}

void entry_count_as(struct entry *entry, struct pool_image *image)
{
	struct pool_image *before = entry->image;

	count(entry, entry->record.state, false);
	entry->image = pool_image_ref(image);
	count(entry, entry->record.state, true);
	if (entry->stands_on == NULL) {
		entry->stands_on = before;
	} else {
		pool_image_put(before);
	}
	manager_dirty(entry->manager);
}

const char *entry_commit_of(const struct entry *entry, size_t source)
{
	const struct pool_image *base = entry_base(entry);

	if (base == NULL || source >= base->source_count) {
		return "";
	}
	return source < strv_count(entry->record.sync.commits) ? entry->record.sync.commits[source]
							       : base->sources[source].commit;
}

const char *entry_commit(const struct entry *entry)
{
	const char *commit = entry_commit_of(entry, 0);

	return *commit == '\0' && entry->image != NULL ? entry->image->commit : commit;
}

static void list_remove(struct entry *entry)
{
	struct entry_list *list = &entry->pool->entries[entry->record.state];

	*(entry->previous != NULL ? &entry->previous->next : &list->first) = entry->next;
	*(entry->next != NULL ? &entry->next->previous : &list->last) = entry->previous;
	list->count--;
	entry->next = NULL;
	entry->previous = NULL;
}

void entry_place(struct entry *entry, enum entry_state state)
{
	struct entry_list *list = &entry->pool->entries[state];

	count(entry, state, true);
	entry->record.state = state;
	entry->previous = list->last;
	entry->next = NULL;
	*(list->last != NULL ? &list->last->next : &list->first) = entry;
	list->last = entry;
	list->count++;
}

int entry_write(struct entry *entry, struct error *err)
{
	struct buffer line;
	ssize_t put;
	int fault = fault_point("sandbox.record");
	int status = 0;

	if (entry->state_fd < 0) {
		return 0;
	}
	buffer_init(&line, STATE_LINE_MAX);
	if (entry->state_torn) {
		buffer_add(&line, "\n", 1);
	}
	if (!entry_record_format(&entry->record, &line)) {
		status = error_set(
			err, ERROR_LIMIT, "the state of %s is too long", entry->record.id);
	} else {
		put = fault != 0 ? -1 : write(entry->state_fd, line.data, line.length);
		if (put < 0) {
			status = error_sys(err, fault != 0 ? fault : errno, "write state of %s",
				entry->record.id);
		} else if ((size_t)put < line.length) {
			entry->state_torn = true;
			status = error_set(err, ERROR_NO_SPACE, "write state of %s: cut short",
				entry->record.id);
		} else {
			entry->state_torn = false;
		}
	}
	if (status < 0) {
		error_hint(err, "the file system of %s may be full", entry->manager->config->run);
	}
	buffer_done(&line);
	return status;
}

void entry_move(struct entry *entry, enum entry_state state)
{
	enum entry_state from = entry->record.state;

	assert(entry_state_may_follow(from, state));
	count(entry, from, false);
	list_remove(entry);
	if (state != ENTRY_GONE) {
		entry_place(entry, state);
	}
	entry->record.state = state;
	log_debug("sandbox.state", "sandbox", entry->record.id, "environment", entry->pool->name,
		"from", entry_state_name(from), "to", entry_state_name(state));
	/* Adopted, it is what it was; and what is about to be dormant is not gone. */
	if (entry->adopt_as == ENTRY_GONE && (state != ENTRY_GONE || !dormant_is_due(entry))) {
		event_add_state(entry, entry_state_name(from), entry_state_name(state),
			state == ENTRY_RELEASING ? entry->release_reason : entry->why);
	}
	manager_dirty(entry->manager);
}

int entry_set_state(struct entry *entry, enum entry_state state, struct error *err)
{
	enum entry_state from = entry->record.state;
	int status;

	assert(entry_state_may_follow(from, state));
	entry->record.state = state;
	status = entry_write(entry, err);
	entry->record.state = from;
	if (status < 0) {
		return status;
	}
	entry_move(entry, state);
	return 0;
}

int entry_files_open(struct entry *entry, struct error *err)
{
	int dir_fd = entry->manager->sandboxes_fd;
	char path[ID_SIZE + sizeof("/state")];

	if (mkdirat(dir_fd, entry->record.id, 0700) < 0 && errno != EEXIST) {
		return error_sys(err, errno, "mkdir %s/sandboxes/%s", entry->manager->config->run,
			entry->record.id);
	}
	snprintf(path, sizeof(path), "%s/state", entry->record.id);
	entry->state_fd = io_open(dir_fd, path, O_WRONLY | O_CREAT | O_APPEND, 0600, err);
	return entry->state_fd < 0 ? -(int)err->kind : 0;
}

void entry_files_remove(struct entry *entry)
{
	static const char *const files[] = {"state", "execs"};
	int dir_fd = entry->manager->sandboxes_fd;
	char path[ID_SIZE + sizeof("/state")];
	struct error err = ERROR_INIT;

	fd_done(&entry->state_fd);
	fd_done(&entry->execs_fd);
	/* There is nothing else in it as a rule, and looking takes longer than this. */
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", entry->record.id, files[i]);
		(void)unlinkat(dir_fd, path, 0);
	}
	if (unlinkat(dir_fd, entry->record.id, AT_REMOVEDIR) == 0 || errno == ENOENT) {
		return;
	}
	if (io_remove_tree(entry->manager->sandboxes_fd, entry->record.id, &err) < 0) {
		log_failure("sandbox.state_left", &err, "sandbox", entry->record.id);
	}
}

bool entry_is_busy(const struct entry *entry)
{
	/* What stands still does nothing. */
	return entry->record.state != ENTRY_PAUSED &&
	       (entry->runs_running > 0 || entry->uses != NULL);
}

void entry_touch(struct entry *entry)
{
	int64_t now = clock_real_ms();

	entry->record.last_active_ms = now;
	if (entry->state_fd >= 0 && now - entry->touched_ms >= TOUCH_EVERY_MS) {
		entry->touched_ms = now;
		(void)futimens(entry->state_fd, NULL);
	}
}

void entry_keep_time(struct entry *entry)
{
	int64_t ms = entry->record.last_active_ms;
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
		{.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000}};

	if (entry->state_fd >= 0 && ms > 0) {
		(void)futimens(entry->state_fd, times);
	}
}

void entry_arm(struct entry *entry)
{
	bool dormant = entry->record.state == ENTRY_DORMANT;
	bool busy = entry_is_busy(entry), paused = entry->record.state == ENTRY_PAUSED;
	int64_t at, left, pause_at;

	if (entry->record.state != ENTRY_CLAIMED && !paused && !dormant) {
		return;
	}
	at = entry_record_deadline(&entry->record, busy || dormant);
	pause_at = paused || dormant ? INT64_MAX : entry_record_pause_at(&entry->record, busy);
	at = pause_at < at ? pause_at : at;
	if (at == INT64_MAX) {
		loop_timer_stop(entry->timer);
		return;
	}
	left = at - clock_real_ms();
	loop_timer_after(entry->timer, left < 0 ? 0 : left > ARM_MAX_MS ? ARM_MAX_MS : left);
}

int64_t entry_expires_ms(const struct entry *entry)
{
	int64_t at = entry_record_deadline(&entry->record, true);

	return at == INT64_MAX ? 0 : at;
}

int entry_check_usable(const struct entry *entry, struct error *err)
{
	if (entry->record.state != ENTRY_CLAIMED) {
		error_set(err, ERROR_CONFLICT, "sandbox %s is %s, not claimed", entry->record.id,
			entry_state_name(entry->record.state));
		if (entry->record.state == ENTRY_PAUSED || entry->record.state == ENTRY_DORMANT) {
			return error_hint(err, "hob resume %s", entry->record.id);
		}
		return error_hint(err, "claim one with POST /v1/sandboxes or `hob create`");
	}
	if (entry->client == NULL) {
		return error_set(
			err, ERROR_UNAVAILABLE, "sandbox %s has lost its init", entry->record.id);
	}
	return 0;
}

void entry_use_begin(struct entry *entry, struct entry_use *use, bool only_looks,
	void (*lost)(struct entry_use *use, const struct error *err))
{
	*use = (struct entry_use){
		.entry = entry, .next = entry->uses, .only_looks = only_looks, .lost = lost};
	if (use->next != NULL) {
		use->next->previous = use;
	}
	entry->uses = use;
	if (!only_looks) {
		entry_touch(entry);
	}
}

void entry_use_end(struct entry_use *use)
{
	struct entry *entry = use->entry;

	if (entry == NULL) {
		return;
	}
	*(use->previous != NULL ? &use->previous->next : &entry->uses) = use->next;
	if (use->next != NULL) {
		use->next->previous = use->previous;
	}
	use->entry = NULL;
	if (!use->only_looks) {
		entry_touch(entry);
	}
	entry_arm(entry);
	entry_doze_off(entry);
}

void entry_uses_lose(struct entry *entry, const struct error *err)
{
	while (entry->uses != NULL) {
		struct entry_use *use = entry->uses;

		entry_use_end(use);
		use->lost(use, err);
	}
}

void entry_wait_begin(
	struct entry *entry, struct entry_wait *wait, void (*gone)(struct entry_wait *))
{
	*wait = (struct entry_wait){.entry = entry, .next = entry->waits, .gone = gone};
	entry->waits = wait;
}

void entry_wait_end(struct entry_wait *wait)
{
	struct entry_wait **at;

	if (wait->entry == NULL) {
		return;
	}
	for (at = &wait->entry->waits; *at != wait; at = &(*at)->next) {
	}
	*at = wait->next;
	wait->entry = NULL;
}
