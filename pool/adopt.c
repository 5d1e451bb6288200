/* Adoption. Each sandbox is judged alone: a broken one never keeps the others from being adopted.
 */
#include "pool/adopt.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/process.h"
#include "pool/dormant.h"
#include "pool/events.h"
#include "pool/freeze.h"
#include "pool/hints/hint.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/meter.h"
#include "pool/run.h"
#include "pool/sandbox/sandbox.h"
#include "pool/sandbox/services/services.h"
#include "pool/services.h"
#include "pool/sync/sync.h"
#include "snapshots/snapshot.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* A state file has a few lines; execs is rewritten at 64 KiB. */
#define ADOPT_FILE_MAX (64u << 20)

/* ---- one sandbox ---- */

static int read_record(
	struct manager *manager, const char *id, struct entry_record *ret_record, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("%s/state", id);
	struct buffer text;
	struct stat stat;
	int status;

	buffer_init(&text, ADOPT_FILE_MAX);
	status = io_read_file(manager->sandboxes_fd, path, &text, err);
	if (status == 0) {
		status = entry_record_last(buffer_text(&text), text.length, ret_record, err);
	}
	buffer_done(&text);
	if (status < 0) {
		return error_wrap(err, "state of %s", id);
	}
	if (strcmp(ret_record->id, id) != 0) {
		entry_record_done(ret_record);
		return error_set(err, ERROR_CORRUPT, "state of %s names another sandbox", id);
	}
	/* The file's time moves with the activity, its lines do not. */
	if (fstatat(manager->sandboxes_fd, path, &stat, AT_SYMLINK_NOFOLLOW) == 0) {
		int64_t ms = (int64_t)stat.st_mtim.tv_sec * 1000 + stat.st_mtim.tv_nsec / 1000000;

		if (ms > ret_record->last_active_ms) {
			ret_record->last_active_ms = ms;
		}
	}
	return 0;
}

static int check_alive(struct entry *entry, int *ret_pidfd, struct error *err)
{
	CLEANUP(close_p) int pidfd = -1;
	struct sandbox_usage usage;
	uint64_t start;
	int status;

	if (entry->record.pid <= 0) {
		return error_set(err, ERROR_NOT_FOUND, "it never started");
	}
	pidfd = (int)syscall(SYS_pidfd_open, entry->record.pid, 0);
	if (pidfd < 0) {
		return error_sys(err, errno, "its init (pid %d)", (int)entry->record.pid);
	}
	if ((status = process_start_time(entry->record.pid, &start, err)) < 0) {
		return status;
	}
	if (start != entry->record.pid_start) {
		return error_set(err, ERROR_NOT_FOUND, "pid %d is another process now",
			(int)entry->record.pid);
	}
	status = sandbox_usage_read(entry->manager->config, entry->record.id, &usage, err);
	if (status < 0) {
		return status;
	}
	if (!usage.populated) {
		return error_set(err, ERROR_NOT_FOUND, "its cgroup is empty");
	}
	if (usage.frozen) {
		/* By the last hobd, or by a snapshot that died with it. Its init could not say
		 * hello: whether it is frozen again is decided after that. */
		entry->was_frozen = true;
		entry->frozen = true;
		entry_thaw(entry);
	}
	*ret_pidfd = steal_fd(&pidfd);
	return 0;
}

static int take_up(struct entry *entry, struct error *err)
{
	int pidfd = -1, fd = -1, status;

	if ((status = check_alive(entry, &pidfd, err)) < 0 ||
		(status = entry_watch(entry, pidfd, err)) < 0 ||
		(status = init_client_connect(
			 entry->manager->config->run, entry->record.id, &fd, err)) < 0) {
		return status;
	}
	return entry_connect(entry, fd, err);
}

/* Takes over the record's env and metadata. */
static struct entry *entry_from_record(
	struct manager *manager, struct entry_record *record, struct pool_image *image)
{
	struct pool *pool = manager_pool_add(manager, record->environment);
	struct entry *entry = entry_new(pool, image);

	entry->adopt_as = record->state;
	entry->record = *record;
	entry->requested_us = clock_mono_us();
	entry_place(entry, ENTRY_WARMING);
	manager_entry_add(manager, entry);
	manager->pending++;
	return entry;
}

/* One that stands on an older image than it counts as. */
static void count_as_refreshed(struct entry *entry)
{
	int64_t id = entry->record.sync.refreshed_id;
	CLEANUP(free_p) char *name = xasprintf("img-%" PRId64, id);
	struct pool_image *image = NULL;
	struct error ignored = ERROR_INIT;

	if (id != 0 && entry->image != NULL &&
		pool_image_find(entry->manager, name, &image, &ignored) == 0) {
		entry_count_as(entry, image);
		pool_image_put(image);
	}
}

static void adopt_record(struct manager *manager, struct entry_record *record)
{
	bool restored = record->snapshot_id != 0;
	CLEANUP(free_p)
	char *name = restored ? xasprintf("snap-%" PRId64, record->snapshot_id)
			      : xasprintf("img-%" PRId64, record->image_id);
	enum entry_state was = record->state;
	struct error err = ERROR_INIT;
	struct pool_image *image = NULL;
	struct entry *entry;
	int status = restored ? pool_snapshot_find(manager, name, &image, &err)
			      : pool_image_find(manager, name, &image, &err);

	entry = entry_from_record(manager, record, image);
	pool_image_put(image);
	count_as_refreshed(entry);
	if (status == 0) {
		status = entry_files_open(entry, &err);
	}
	if (status == 0) {
		status = entry_warm_load(entry, &err);
	}
	if (status == 0 && entry->record.hint.key[0] != '\0') {
		if (was == ENTRY_CREATING || was == ENTRY_WARMING) {
			hint_leftover(entry); /* ended once there is another in its place */
			return;
		}
		if (was == ENTRY_READY) {
			hint_adopt(entry);
		}
	}
	if (status == 0 && was != ENTRY_READY && was != ENTRY_CLAIMED && was != ENTRY_PAUSED) {
		status = error_set(&err, ERROR_CONFLICT, "it was %s", entry_state_name(was));
	}
	if (status == 0) {
		status = take_up(entry, &err);
	}
	if (status < 0) {
		log_failure("sandbox.not_adopted", &err, "sandbox", entry->record.id, "environment",
			entry->pool->name, "was", entry_state_name(was));
		entry->session_goes_on = was != ENTRY_RELEASING || entry->record.returns;
		entry_release(entry, "could not be adopted");
	}
}

static void adopt_one(struct manager *manager, const char *id)
{
	struct entry_record record;
	struct error err = ERROR_INIT;

	if (read_record(manager, id, &record, &err) < 0) {
		log_failure("sandbox.not_adopted", &err, "sandbox", id);
		orphan_destroy(manager, id);
		return;
	}
	if (!slot_take_this(manager->slots, record.slot)) {
		log_warn("sandbox.not_adopted", "sandbox", id, "message", "its slot is taken");
		entry_record_done(&record);
		orphan_destroy(manager, id);
		return;
	}
	adopt_record(manager, &record);
}

/* ---- after the hello ---- */

struct adopted_execs {
	struct entry *entry;
	const uint32_t *ids;
	size_t count;
	bool *seen;
};

static void adopt_exec(void *context, const struct exec_record *record)
{
	struct adopted_execs *execs = context;

	if (record->id >= execs->entry->next_exec) {
		execs->entry->next_exec = record->id + 1;
	}
	for (size_t i = 0; i < execs->count; i++) {
		if (execs->ids[i] == record->id && !execs->seen[i]) {
			execs->seen[i] = true;
			run_adopt(execs->entry, record);
		}
	}
}

static void adopt_execs(struct entry *entry, const uint32_t *ids, size_t count)
{
	CLEANUP(free_p) char *path = xasprintf("%s/execs", entry->record.id);
	CLEANUP(free_p) bool *seen = xcalloc(count, sizeof(*seen));
	struct adopted_execs execs = {.entry = entry, .ids = ids, .count = count, .seen = seen};
	char *const unknown[] = {(char *)(uintptr_t) "(unknown)", NULL};
	struct error err = ERROR_INIT;
	struct buffer text;

	buffer_init(&text, ADOPT_FILE_MAX);
	if (io_read_file(entry->manager->sandboxes_fd, path, &text, &err) < 0 &&
		err.kind != ERROR_NOT_FOUND) {
		log_failure("exec.record_lost", &err, "sandbox", entry->record.id);
	}
	exec_records_parse(buffer_text(&text), text.length, adopt_exec, &execs);
	buffer_done(&text);
	for (size_t i = 0; i < count; i++) {
		if (!seen[i] && ids[i] < SERVICE_EXEC_FIRST && !sync_adopts(entry, ids[i])) {
			run_adopt(entry, &(struct exec_record){.id = ids[i],
						 .started_ms = entry->record.last_active_ms,
						 .argv = (char **)(uintptr_t)unknown});
		}
	}
}

void entry_adopted(struct entry *entry, const uint32_t *execs, size_t count)
{
	enum entry_state state = entry->adopt_as;
	int64_t active_ms = entry->record.last_active_ms;
	struct error err = ERROR_INIT;

	(void)fault_point("adopt.hello");
	events_load(entry);
	if (entry_set_state(entry, state, &err) < 0) {
		log_failure("sandbox.not_adopted", &err, "sandbox", entry->record.id);
		entry_release(entry, "could not be adopted");
		return;
	}
	entry->adopt_as = ENTRY_GONE;
	adopt_execs(entry, execs, count);
	entry_services_adopt(entry, execs, count);
	sync_adopted(entry);
	/* Writing this down and taking its commands up was our doing, not its owner's. */
	entry->record.last_active_ms = active_ms;
	entry_keep_time(entry);
	entry_freeze_again(entry);
	meter_go_on(entry);
	dormant_arm(entry);
	entry_arm(entry);
	log_info("sandbox.adopted", "sandbox", entry->record.id, "environment", entry->pool->name,
		"state", entry_state_name(state), "execs", count);
	manager_pending_done(entry->manager);
}

/* ---- all of them ---- */

static void destroy_unknown(struct manager *manager, const char *id)
{
	if (str_starts(id, SANDBOX_ID_PREFIX) && manager_entry(manager, id) == NULL &&
		faccessat(manager->sandboxes_fd, id, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
		log_warn("sandbox.orphan", "sandbox", id);
		orphan_destroy(manager, id);
	}
}

/* Ids that have an entry or are about to be destroyed have their folder below <run>/sandboxes. */
static int destroy_leftovers(struct manager *manager, struct error *err)
{
	CLEANUP(strv_free_p) char **cgroups = NULL;
	CLEANUP(closedir_p) DIR *folders = NULL;
	struct error ignored = ERROR_INIT;
	struct dirent *item;
	int status = sandbox_cgroups_list(manager->config, &cgroups, err);

	if (status < 0) {
		return status;
	}
	folders = io_opendir(store_fd(manager->store), "sandboxes", &ignored);
	while (folders != NULL && (item = readdir(folders)) != NULL) {
		bool listed = false;

		for (char **id = cgroups; id != NULL && *id != NULL; id++) {
			listed = listed || streq(*id, item->d_name);
		}
		if (!listed) {
			destroy_unknown(manager, item->d_name);
		}
	}
	for (char **id = cgroups; id != NULL && *id != NULL; id++) {
		destroy_unknown(manager, *id);
	}
	return 0;
}

static bool has_entry(void *context, const char *sandbox)
{
	return manager_entry(context, sandbox) != NULL;
}

int adopt_all(struct manager *manager, struct error *err)
{
	CLEANUP(closedir_p) DIR *folder = io_opendir(manager->sandboxes_fd, ".", err);
	struct dirent *item;

	if (folder == NULL) {
		return -(int)err->kind;
	}
	while ((item = readdir(folder)) != NULL) {
		if (str_starts(item->d_name, SANDBOX_ID_PREFIX) && strlen(item->d_name) < ID_SIZE) {
			adopt_one(manager, item->d_name);
		}
	}
	if (snapshot_keeps_sweep(manager->store, has_entry, manager, err) < 0) {
		return error_wrap(err, "sweep what ended sandboxes left");
	}
	return destroy_leftovers(manager, err);
}
