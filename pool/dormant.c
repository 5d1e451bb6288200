/* Notes, sleep and return of sandboxes that outlive their processes. */
#include "pool/dormant.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/choose.h"
#include "pool/entry.h"
#include "pool/events.h"
#include "pool/freeze.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"
#include "pool/snapshot.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define FOLDER "sessions"
#define SUFFIX ".json"
#define NOTE_BYTES_MAX (16u << 20)
/* After a failed hibernation: a full disk does not become empty at once. */
#define RETRY_MS 60000

/* ---- notes ---- */

static void note_path(const char *id, char path[ID_SIZE + sizeof(FOLDER "/" SUFFIX)])
{
	snprintf(path, ID_SIZE + sizeof(FOLDER "/" SUFFIX), FOLDER "/%.*s" SUFFIX, ID_SIZE - 1, id);
}

static int note_write(const struct entry *entry, int64_t snapshot_id, struct error *err)
{
	int store = store_fd(entry->manager->store);
	struct entry_record record = entry->record;
	CLEANUP(buffer_done) struct buffer line;
	char path[ID_SIZE + sizeof(FOLDER "/" SUFFIX)];

	buffer_init(&line, NOTE_BYTES_MAX);
	record.state = ENTRY_DORMANT;
	record.snapshot_id = snapshot_id;
	record.pid = 0;
	record.pid_start = 0;
	record.paused_at_ms = 0;
	if (!entry_record_format(&record, &line)) {
		return error_set(err, ERROR_LIMIT, "the record of %s is too long", record.id);
	}
	if (mkdirat(store, FOLDER, 0700) < 0 && errno != EEXIST) {
		return error_sys(err, errno, "mkdir " FOLDER);
	}
	note_path(record.id, path);
	return io_write_file(store, path, line.data, line.length, 0600, err);
}

static void note_remove(const struct entry *entry)
{
	char path[ID_SIZE + sizeof(FOLDER "/" SUFFIX)];

	note_path(entry->record.id, path);
	if (unlinkat(store_fd(entry->manager->store), path, 0) < 0 && errno != ENOENT) {
		log_warn(
			"session.note_left", "sandbox", entry->record.id, "errno", strerror(errno));
	}
}

/* The lease of the new one before that of the old one goes. */
static int stand_on(struct entry *entry, int64_t snapshot_id, struct error *err)
{
	CLEANUP(free_p) char *name = xasprintf("snap-%" PRId64, snapshot_id);
	struct pool_image *image = NULL;
	int status = pool_snapshot_find(entry->manager, name, &image, err);

	if (status == 0 && (status = note_write(entry, snapshot_id, err)) < 0) {
		pool_image_put(image);
	}
	if (status < 0) {
		return status;
	}
	pool_image_put(entry->comes_back_from);
	entry->comes_back_from = image;
	return 0;
}

void dormant_forget(struct entry *entry)
{
	if (entry->record.lifecycle != LIFECYCLE_EPHEMERAL) {
		note_remove(entry);
	}
	pool_image_put(entry->comes_back_from);
	entry->comes_back_from = NULL;
}

/* ---- snapshots on the way ---- */

void dormant_arm(struct entry *entry)
{
	if (entry->record.snapshot_every_ms > 0 &&
		(entry->record.state == ENTRY_CLAIMED || entry->record.state == ENTRY_PAUSED)) {
		loop_timer_after(entry->session_timer, entry->record.snapshot_every_ms);
	}
}

static void on_taken(void *context, const struct snapshot_result *result, const struct error *err)
{
	struct entry *entry = context;
	struct error failure = ERROR_INIT;
	bool hibernates = entry->hibernates;

	entry->session_job = NULL;
	entry->hibernates = false;
	if (err == NULL && stand_on(entry, result->id, &failure) < 0) {
		log_failure("session.note_failed", &failure, "sandbox", entry->record.id);
		err = &failure;
	}
	(void)fault_point("session.noted");
	if (err == NULL) {
		entry->noted_ms = entry->record.last_active_ms;
	}
	if (!hibernates) {
		dormant_arm(entry);
	} else if (err != NULL) {
		loop_timer_after(entry->session_timer, RETRY_MS);
	} else if (entry->record.state == ENTRY_PAUSED) {
		entry->session_goes_on = true;
		entry->keep_asked = 0;
		entry_release(entry, "hibernated");
	}
}

static int take(struct entry *entry, struct error *err)
{
	struct snapshot_order order = {.reason = SNAPSHOT_SESSION, .only_looks = true};

	return snapshot_start(entry, &order, on_taken, entry, &entry->session_job, err);
}

void dormant_detach(struct entry *entry)
{
	loop_timer_stop(entry->session_timer);
	entry->hibernates = false;
	if (entry->session_job != NULL) {
		snapshot_forget(entry->session_job);
		entry->session_job = NULL;
	}
}

void dormant_hibernate(struct entry *entry)
{
	struct error err = ERROR_INIT;

	if (entry->hibernates) {
		return;
	}
	if (entry->record.state == ENTRY_CLAIMED && entry_pause(entry, "idle", NULL, &err) < 0) {
		log_failure("sandbox.pause_failed", &err, "sandbox", entry->record.id);
		loop_timer_after(entry->session_timer, RETRY_MS);
		return;
	}
	entry->hibernates = true;
	if (take(entry, &err) < 0) {
		entry->hibernates = false;
		log_failure("session.hibernate_failed", &err, "sandbox", entry->record.id);
		loop_timer_after(entry->session_timer, RETRY_MS);
	}
}

void dormant_on_timer(void *context)
{
	struct entry *entry = context;
	struct error err = ERROR_INIT;

	if (entry->record.lifecycle == LIFECYCLE_HYBRID && entry->record.state == ENTRY_PAUSED) {
		entry_arm(entry); /* whose clock hibernates it */
		dormant_arm(entry);
		return;
	}
	if (entry->record.state != ENTRY_CLAIMED && entry->record.state != ENTRY_PAUSED) {
		return;
	}
	/* Nobody has been there since the last one. */
	if (!entry_is_busy(entry) && entry->comes_back_from != NULL &&
		entry->noted_ms == entry->record.last_active_ms) {
		dormant_arm(entry);
		return;
	}
	if (take(entry, &err) < 0) {
		log_failure("session.snapshot_failed", &err, "sandbox", entry->record.id);
		dormant_arm(entry);
	}
}

/* ---- asleep ---- */

bool dormant_is_due(const struct entry *entry)
{
	return entry->record.returns && entry->comes_back_from != NULL;
}

void dormant_note_kept(struct entry *entry)
{
	struct error err = ERROR_INIT;

	if (entry->record.returns && stand_on(entry, entry->kept_snapshot, &err) < 0) {
		log_failure("session.note_failed", &err, "sandbox", entry->record.id);
	}
}

/* Takes over the record's env and metadata. */
static struct entry *place(
	struct manager *manager, struct entry_record *record, struct pool_image *image)
{
	struct entry *entry = entry_new(manager_pool_add(manager, record->environment), image);

	entry->record = *record;
	entry->record.state = ENTRY_DORMANT;
	entry->record.pid = 0;
	entry->record.pid_start = 0;
	entry->record.paused_at_ms = 0;
	entry->record.keep = false;
	entry->record.returns = false;
	entry->record.meter = (struct entry_meter){0};
	/* The old one's own, and it is the snapshot that says where its workspaces are. */
	entry->record.sync = (struct entry_record_sync){.torn = pool_image_is_torn(image)};
	entry->record.image_id = image->id;
	entry->record.snapshot_id = image->snapshot_id;
	entry->comes_back_from = pool_image_ref(image);
	entry_place(entry, ENTRY_DORMANT);
	manager_entry_add(manager, entry);
	manager->entry_count--; /* there is no sandbox */
	entry_arm(entry);
	return entry;
}

void dormant_lay_down(struct entry *entry)
{
	struct manager *manager = entry->manager;
	struct entry_record record = entry->record;
	struct entry *dormant;

	entry->record.env = NULL;
	entry->record.metadata = NULL;
	dormant = place(manager, &record, entry->comes_back_from);
	events_move(entry, dormant);
	event_add_state(dormant, entry_state_name(ENTRY_RELEASING), entry_state_name(ENTRY_DORMANT),
		entry->release_reason);
	log_info("sandbox.dormant", "sandbox", record.id, "environment", record.environment,
		"snapshot", entry->comes_back_from->snapshot_id);
}

void dormant_end(struct entry *entry, const char *reason)
{
	struct manager *manager = entry->manager;

	dormant_forget(entry);
	entry_move(entry, ENTRY_GONE);
	manager->entry_count++;
	manager_entry_remove(manager, entry);
	log_info("sandbox.gone", "sandbox", entry->record.id, "environment", entry->pool->name,
		"reason", reason);
	while (entry->waits != NULL) {
		struct entry_wait *wait = entry->waits;

		entry_wait_end(wait);
		wait->gone(wait);
	}
	entry_free(entry);
	manager_dirty(manager);
}

/* ---- awake ---- */

bool dormant_is_asleep(const struct entry *entry)
{
	return entry->record.state == ENTRY_DORMANT || entry->revived;
}

void dormant_tell(struct entry *entry, const struct error *err)
{
	while (entry->wakers != NULL) {
		struct dormant_wait *wait = entry->wakers;

		dormant_wait_end(wait);
		wait->awake(wait, err);
	}
}

void dormant_wait_end(struct dormant_wait *wait)
{
	struct dormant_wait **at;

	if (wait->entry == NULL) {
		return;
	}
	for (at = &wait->entry->wakers; *at != wait; at = &(*at)->next) {
	}
	*at = wait->next;
	wait->entry = NULL;
}

void dormant_wake(struct entry *entry, struct dormant_wait *wait)
{
	struct error err = ERROR_INIT;

	if (wait != NULL) {
		wait->entry = entry;
		wait->next = entry->wakers;
		entry->wakers = wait;
	}
	if (entry->record.state != ENTRY_DORMANT) {
		return;
	}
	if (room_check(entry->pool, entry->image, 0, ROOM_UNRESERVED, &err) < 0 ||
		entry_revive(entry, &err) < 0) {
		log_failure("session.not_revived", &err, "sandbox", entry->record.id);
		dormant_tell(entry, &err);
	}
}

/* ---- start ---- */

static void load_one(struct manager *manager, int folder_fd, const char *name)
{
	CLEANUP(buffer_done) struct buffer text;
	CLEANUP(free_p) char *snapshot = NULL;
	struct entry_record record;
	struct pool_image *image = NULL;
	struct error err = ERROR_INIT;
	struct entry *living;

	buffer_init(&text, NOTE_BYTES_MAX);
	if (io_read_file(folder_fd, name, &text, &err) < 0 ||
		entry_record_last(buffer_text(&text), text.length, &record, &err) < 0) {
		log_failure("session.unreadable", &err, "note", name);
		return;
	}
	snapshot = xasprintf("snap-%" PRId64, record.snapshot_id);
	living = manager_entry(manager, record.id);
	if (strncmp(name, record.id, strlen(record.id)) != 0 ||
		pool_snapshot_find(manager, snapshot, &image, &err) < 0) {
		log_failure("session.lost", &err, "note", name, "snapshot", snapshot);
	} else if (living == NULL) {
		place(manager, &record, image);
		record.env = NULL;
		record.metadata = NULL;
	} else if (living->comes_back_from == NULL) {
		living->comes_back_from = pool_image_ref(image);
	}
	pool_image_put(image);
	entry_record_done(&record);
}

int dormant_load(struct manager *manager, struct error *err)
{
	CLEANUP(closedir_p)
	DIR *folder = io_opendir(store_fd(manager->store), FOLDER, err);
	struct dirent *item;

	if (folder == NULL) {
		if (err->kind != ERROR_NOT_FOUND) {
			return -(int)err->kind;
		}
		*err = ERROR_INIT;
		return 0;
	}
	while ((item = readdir(folder)) != NULL) {
		size_t length = strlen(item->d_name);

		if (str_starts(item->d_name, SANDBOX_ID_PREFIX) && length > strlen(SUFFIX) &&
			streq(item->d_name + length - strlen(SUFFIX), SUFFIX)) {
			load_one(manager, dirfd(folder), item->d_name);
		}
	}
	return 0;
}

void dormant_start_all(struct manager *manager)
{
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		struct entry *entry = pool->entries[ENTRY_DORMANT].first;

		while (entry != NULL) {
			struct entry *next = entry->next;

			if (entry->record.lifecycle == LIFECYCLE_LONG_RUNNING) {
				dormant_wake(entry, NULL);
			}
			entry = next;
		}
	}
}
