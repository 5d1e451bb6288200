/*
 * An entry's way from the launcher's answer to hob-init's hello to its end. The launcher's callback
 * holds the entry, so that one under creation is only marked (release_wanted) and goes once the
 * answer is there; a slot is given back when the launcher says that nothing of the sandbox is left.
 */
#include "pool/lifecycle.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "base/process.h"
#include "pool/adopt.h"
#include "pool/claim.h"
#include "pool/demand/demand.h"
#include "pool/dormant.h"
#include "pool/freeze.h"
#include "pool/hints/hint.h"
#include "pool/image.h"
#include "pool/manager.h"
#include "pool/meter.h"
#include "pool/run.h"
#include "pool/sandbox/sandbox.h"
#include "pool/services.h"
#include "pool/snapshot.h"
#include "pool/sync/sync.h"
#include "pool/usage.h"

#include <stdio.h>

/* From the launcher's answer to hob-init's hello: it has only to start. */
#define WARM_TIMEOUT_MS 30000
/* Destroying again after BUSY: quickly at first, then once a minute for as long as it takes. */
#define DESTROY_RETRY_FIRST_MS 50
#define DESTROY_RETRY_MAX_MS 60000
#define DESTROY_ATTEMPTS_QUIET 6
/* What is to be kept is tried again when its process is killed: 12 s in all. */
#define KEEP_RETRY_MS 50
#define KEEP_ATTEMPTS_MAX 8

static void start_destroy(struct entry *entry);

/* ---- the end ---- */

/* Before its record goes: killed in between, the next hobd finds that it is written already. */
static void account(struct entry *entry)
{
	struct meter_sums sums = meter_read(entry, NULL);
	struct error err = ERROR_INIT;

	if (entry->record.meter.started_ms == 0) {
		return;
	}
	log_info("sandbox.used", "sandbox", entry->record.id, "environment", entry->pool->name,
		"active_ms", sums.active_ms, "paused_ms", sums.paused_ms, "cpu_us", sums.cpu_us,
		"memory_kib_s", sums.memory_kib_s);
	if (usage_add(entry->manager->usage, entry, &err) < 0) {
		log_failure("sandbox.usage_lost", &err, "sandbox", entry->record.id);
	}
}

static void entry_gone(struct entry *entry)
{
	struct manager *manager = entry->manager;
	bool adopted = entry->adopt_as != ENTRY_GONE;

	account(entry);
	entry_move(entry, ENTRY_GONE);
	entry_files_remove(entry);
	slot_give_back(manager->slots, entry->record.slot);
	snapshot_detach(entry);
	manager_entry_remove(manager, entry);
	log_info("sandbox.gone", "sandbox", entry->record.id, "environment", entry->pool->name,
		"reason", entry->release_reason);
	while (entry->waits != NULL) {
		struct entry_wait *wait = entry->waits;

		entry_wait_end(wait);
		wait->snapshot_id = entry->kept_snapshot;
		wait->gone(wait);
	}
	if (dormant_is_due(entry)) {
		dormant_lay_down(entry);
	}
	entry_free(entry);
	if (adopted) {
		manager_pending_done(manager);
	}
	manager_dirty(manager);
}

static void on_destroyed(void *context, const struct error *err)
{
	struct entry *entry = context;
	int64_t delay = DESTROY_RETRY_FIRST_MS;

	entry->launching = false;
	if (err == NULL) {
		entry_gone(entry);
		return;
	}
	entry->destroy_attempts++;
	if (entry->destroy_attempts >= DESTROY_ATTEMPTS_QUIET) {
		log_failure("sandbox.not_gone", err, "sandbox", entry->record.id, "attempts",
			entry->destroy_attempts);
	}
	for (unsigned i = 1; i < entry->destroy_attempts && delay < DESTROY_RETRY_MAX_MS; i++) {
		delay *= 2;
	}
	loop_timer_after(entry->timer, delay < DESTROY_RETRY_MAX_MS ? delay : DESTROY_RETRY_MAX_MS);
}

static void start_destroy(struct entry *entry)
{
	entry->launching = true;
	(void)fault_point("sandbox.destroy");
	sandbox_destroy(entry->manager->launcher, entry->record.id, on_destroyed, entry);
}

/* Everything in it hears why it ends. */
static void tell_lost(struct entry *entry)
{
	struct error err = ERROR_INIT;

	error_set(&err, ERROR_UNAVAILABLE, "sandbox %s was released: %s", entry->record.id,
		entry->release_reason);
	entry_uses_lose(entry, &err);
	entry_services_drop(entry);
	init_client_free(entry->client);
	entry->client = NULL;
	runs_drop(entry, &err);
	dormant_tell(entry, &err);
}

/* Only what was somebody's; and what the last hobd had begun to keep. */
static bool is_kept(const struct entry *entry)
{
	const struct environment *conf = entry->pool->conf;

	if (entry->image == NULL) {
		return false;
	}
	/* What outlives its processes outlives their end by accident, too. */
	if (entry->record.returns && entry->keep_asked < 0 && !entry->revived &&
		entry->adopt_as != ENTRY_RELEASING) {
		return true;
	}
	if (entry->record.state != ENTRY_CLAIMED && entry->record.state != ENTRY_PAUSED) {
		return entry->adopt_as == ENTRY_RELEASING && entry->record.keep;
	}
	return entry->keep_asked >= 0 ? entry->keep_asked == 1
				      : conf != NULL && conf->exit_snapshot;
}

void entry_release(struct entry *entry, const char *reason)
{
	struct error err = ERROR_INIT;

	if (entry->record.state == ENTRY_RELEASING || entry->release_wanted) {
		return;
	}
	if (entry->record.state == ENTRY_DORMANT) {
		dormant_end(entry, reason);
		return;
	}
	entry->release_reason = reason;
	if (entry->record.state == ENTRY_READY) {
		demand_wasted(entry->pool, clock_real_ms() - entry->record.created_ms);
	}
	claims_release(entry);
	hint_forget(entry);
	log_info("sandbox.release", "sandbox", entry->record.id, "environment", entry->pool->name,
		"state", entry_state_name(entry->record.state), "reason", reason);
	if (entry->record.state == ENTRY_CREATING && entry->launching) {
		entry->release_wanted = true;
		return;
	}
	loop_timer_stop(entry->timer);
	loop_timer_stop(entry->freeze_timer);
	loop_timer_stop(entry->page_timer);
	entry->record.returns = entry->session_goes_on && entry->record.claimed_ms > 0 &&
				entry->record.lifecycle != LIFECYCLE_EPHEMERAL;
	entry->record.keep = is_kept(entry);
	meter_end(entry);
	if (entry_set_state(entry, ENTRY_RELEASING, &err) < 0) {
		/* It goes all the same: a restarted hobd would find it dead and finish this. */
		log_failure("sandbox.record_failed", &err, "sandbox", entry->record.id);
		entry_move(entry, ENTRY_RELEASING);
	}
	dormant_detach(entry);
	if (!entry->record.returns) {
		dormant_forget(entry);
	}
	entry_pauses_end(entry);
	tell_lost(entry);
	loop_source_free(entry->pidfd_source);
	entry->pidfd_source = NULL;
	fd_done(&entry->pidfd);
	entry_end(entry);
}

static void on_kept(void *context, const struct snapshot_result *result, const struct error *err)
{
	struct entry *entry = context;

	/* Its process was killed. What it was to commit is where another finds it. */
	if (err != NULL && err->kind == ERROR_FAILED && entry->keep_attempts < KEEP_ATTEMPTS_MAX) {
		entry->ending = false;
		loop_timer_after(entry->timer, KEEP_RETRY_MS << entry->keep_attempts++);
		return;
	}
	entry->kept_snapshot = err == NULL ? result->id : 0;
	if (err == NULL) {
		dormant_note_kept(entry);
	}
	start_destroy(entry); /* whatever is left of it */
}

void entry_end(struct entry *entry)
{
	struct error err = ERROR_INIT;

	/* The launcher is not to be asked while it copies; and what is kept at the end comes after
	 * what is being taken. */
	if (entry->record.state != ENTRY_RELEASING || entry->ending || entry->copying ||
		(entry->record.keep && entry->snapshot_job != NULL)) {
		return;
	}
	entry->ending = true;
	if (!entry->record.keep) {
		start_destroy(entry);
	} else if (snapshot_keep(entry, on_kept, entry, &err) < 0) {
		log_failure("snapshot.failed", &err, "sandbox", entry->record.id);
		start_destroy(entry);
	}
}

/* ---- failures on the way ---- */

/* What a snapshot does wrong is not the pool's fault, which goes on with its head. */
static void creation_counts(
	const struct pool_image *image, struct pool *pool, const struct error *err)
{
	if (image == NULL || image->snapshot_id == 0) {
		pool_failed(pool, err);
	}
}

void entry_creation_failed(struct entry *entry, const struct error *err)
{
	struct pool *pool = entry->pool;

	log_failure("sandbox.create_failed", err, "sandbox", entry->record.id, "environment",
		pool->name);
	if (entry->revived) {
		entry->session_goes_on = true;
		dormant_tell(entry, err);
	} else if (entry->adopt_as == ENTRY_GONE) {
		creation_counts(entry->image, pool, err);
		claims_creation_failed(pool, entry->image, entry, err);
	}
	entry_release(entry, "creation failed");
}

static void on_pidfd(void *context, uint32_t events)
{
	struct entry *entry = context;
	struct error err = ERROR_INIT;

	(void)events;
	switch (entry->record.state) {
	case ENTRY_CREATING:
	case ENTRY_WARMING:
		error_set(&err, ERROR_FAILED, "sandbox %s died before it was ready",
			entry->record.id);
		entry_creation_failed(entry, &err);
		return;
	case ENTRY_READY:
		entry->pool->died++;
		entry_release(entry, "died while ready");
		return;
	case ENTRY_CLAIMED:
	case ENTRY_PAUSED:
		entry->session_goes_on = true;
		entry_release(entry, "its init died");
		return;
	case ENTRY_DORMANT:
	case ENTRY_RELEASING:
	case ENTRY_GONE:
	case ENTRY_STATES:
		break;
	}
	loop_source_free(entry->pidfd_source);
	entry->pidfd_source = NULL;
}

int entry_watch(struct entry *entry, int pidfd, struct error *err)
{
	entry->pidfd = pidfd;
	return loop_add_fd(
		entry->manager->loop, pidfd, EPOLLIN, on_pidfd, entry, &entry->pidfd_source, err);
}

/* ---- from hello to ready ---- */

/* Back under its old id, and claimed as before. */
static void entry_back(struct entry *entry)
{
	struct entry_record *record = &entry->record;
	struct error err = ERROR_INIT;

	loop_timer_stop(entry->timer);
	record->last_active_ms = clock_real_ms();
	record->meter = (struct entry_meter){
		.started_ms = record->last_active_ms, .active_since_ms = record->last_active_ms};
	if (entry_set_state(entry, ENTRY_CLAIMED, &err) < 0) {
		record->meter = (struct entry_meter){0};
		entry_creation_failed(entry, &err);
		return;
	}
	entry->revived = false;
	entry_thaw_soon(entry);
	entry_arm(entry);
	dormant_arm(entry);
	log_info("sandbox.revived", "sandbox", record->id, "environment", entry->pool->name,
		"snapshot", record->snapshot_id, "us", clock_mono_us() - entry->requested_us);
	dormant_tell(entry, NULL);
}

void entry_warmed(struct entry *entry)
{
	struct pool *pool = entry->pool;
	struct error err = ERROR_INIT;
	int64_t us = clock_mono_us() - entry->requested_us;

	(void)fault_point("sandbox.warm");
	if (entry->revived) {
		entry_back(entry);
		return;
	}
	if (entry_set_state(entry, ENTRY_READY, &err) < 0) {
		entry_creation_failed(entry, &err);
		return;
	}
	demand_made(pool, us);
	demand_weigh_first(entry);
	pool->start_us = pool->start_us == 0 ? us : pool->start_us + (us - pool->start_us) / 8;
	log_info("sandbox.ready", "sandbox", entry->record.id, "environment", pool->name, "image",
		entry->record.image_id, "us", us);
	entry_freeze_later(entry);
	if (clock_mono_ms() >= pool->trouble_until_ms) {
		pool_recovered(pool);
	}
	sync_when_ready(entry);
	claims_serve(entry);
}

static void on_hello(void *context, const uint32_t *execs, size_t count)
{
	struct entry *entry = context;

	if (entry->adopt_as != ENTRY_GONE) {
		entry_adopted(entry, execs, count);
	} else {
		loop_timer_stop(entry->timer);
		entry_warm_begin(entry);
	}
}

static void on_closed(void *context)
{
	struct entry *entry = context;
	struct error err = ERROR_INIT;

	entry_services_drop(entry);
	init_client_free(entry->client);
	entry->client = NULL;
	if (entry->record.state == ENTRY_WARMING) {
		error_set(&err, ERROR_UNAVAILABLE, "hob-init of %s closed its connection",
			entry->record.id);
		entry_creation_failed(entry, &err);
	} else {
		if (entry->record.state == ENTRY_READY) {
			entry->pool->died++;
		}
		entry->session_goes_on = true;
		entry_release(entry, "its init closed the connection");
	}
}

int entry_connect(struct entry *entry, int control_fd, struct error *err)
{
	static const struct init_client_events events = {.ready = on_hello, .closed = on_closed};

	loop_timer_after(entry->timer, WARM_TIMEOUT_MS);
	return init_client_new(
		entry->manager->loop, control_fd, &events, entry, &entry->client, err);
}

static void on_created(
	void *context, const struct sandbox_created *created, const struct error *err)
{
	struct entry *entry = context;
	struct error failure = ERROR_INIT;
	int fd;

	entry->launching = false;
	if (err != NULL) {
		entry_creation_failed(entry, err);
		return;
	}
	if (entry->release_wanted) {
		close(created->pidfd);
		close(created->control_fd);
		entry->release_wanted = false;
		entry_release(entry, entry->release_reason);
		return;
	}
	(void)fault_point("sandbox.created");
	entry->record.pid = created->pid;
	fd = created->control_fd;
	if (entry_watch(entry, created->pidfd, &failure) < 0 ||
		process_start_time(entry->record.pid, &entry->record.pid_start, &failure) < 0) {
		close(fd);
		entry_creation_failed(entry, &failure);
		return;
	}
	/* For a restarted hobd it is as good as not made until it is ready. */
	entry_move(entry, ENTRY_WARMING);
	if (entry_connect(entry, fd, &failure) < 0) {
		entry_creation_failed(entry, &failure);
	}
}

static int prepare(struct entry *entry, struct error *err)
{
	struct entry_record *record = &entry->record;
	int status;

	if ((status = slot_take(entry->manager->slots, &record->slot, err)) < 0) {
		return status;
	}
	do {
		id_random(record->id, SANDBOX_ID_PREFIX);
	} while (manager_entry(entry->manager, record->id) != NULL);
	record->created_ms = clock_real_ms();
	record->state = ENTRY_CREATING;
	record->sync.torn = pool_image_is_torn(entry->image);
	if ((status = entry_files_open(entry, err)) < 0 ||
		(status = entry_warm_record(entry, err)) < 0 ||
		(status = entry_write(entry, err)) < 0) {
		entry_files_remove(entry);
		slot_give_back(entry->manager->slots, record->slot);
		return status;
	}
	return 0;
}

static void launch(struct entry *entry)
{
	const struct environment *conf = entry->pool->conf;
	struct sandbox_spec spec = {.kind = SANDBOX_SESSION,
		.id = entry->record.id,
		.hostname = entry->pool->name,
		.layers = entry->image->layers,
		.layer_count = entry->image->layer_count,
		.slot = entry->record.slot};

	if (conf != NULL) {
		spec.limits = (struct sandbox_limits){.cpu_millis = conf->limits.cpu_millis,
			.memory_bytes = conf->limits.memory_bytes,
			.pids = conf->limits.pids};
	}
	entry->requested_us = clock_mono_us();
	entry->launching = true;
	(void)fault_point("sandbox.create");
	sandbox_create(entry->manager->launcher, &spec, on_created, entry);
}

void entry_create(struct pool *pool, struct pool_image *image, const struct hint_record *hint)
{
	struct manager *manager = pool->manager;
	struct entry *entry = entry_new(pool, image);
	struct error err = ERROR_INIT;

	if (hint != NULL) {
		entry->record.hint = *hint;
		entry->record.last_active_ms = clock_real_ms();
	}
	entry->warm = warm_set_ref(pool->warm);
	if (prepare(entry, &err) < 0) {
		log_failure("sandbox.create_failed", &err, "environment", pool->name);
		entry->record.state = ENTRY_GONE;
		entry_free(entry);
		creation_counts(image, pool, &err);
		if (hint == NULL) {
			claims_creation_failed(pool, image, NULL, &err);
		}
		return;
	}
	entry_place(entry, ENTRY_CREATING);
	manager_entry_add(manager, entry);
	if (hint != NULL) {
		hint_adopt(entry);
	}
	launch(entry);
}

int entry_revive(struct entry *entry, struct error *err)
{
	int status = slot_take(entry->manager->slots, &entry->record.slot, err);

	if (status < 0) {
		return status;
	}
	entry->serving = false;
	if (entry->warm == NULL) {
		entry->warm = warm_set_ref(entry->pool->warm);
	}
	if ((status = entry_files_open(entry, err)) < 0 ||
		(status = entry_warm_record(entry, err)) < 0 ||
		(status = entry_set_state(entry, ENTRY_CREATING, err)) < 0) {
		entry_files_remove(entry);
		slot_give_back(entry->manager->slots, entry->record.slot);
		return status;
	}
	entry->revived = true;
	entry->manager->entry_count++;
	loop_timer_stop(entry->timer);
	launch(entry);
	return 0;
}

/* ---- clocks ---- */

static void check_deadline(struct entry *entry)
{
	bool busy = entry_is_busy(entry) || entry->record.state == ENTRY_DORMANT;
	int64_t at = entry_record_deadline(&entry->record, busy);
	const char *name;

	if (at > clock_real_ms()) {
		entry_pause_if_idle(entry);
		return;
	}
	name = entry_record_deadline_name(&entry->record, busy);
	if (entry->record.lifecycle == LIFECYCLE_HYBRID && streq(name, "idle")) {
		dormant_hibernate(entry);
	} else {
		entry_release(entry, name);
	}
}

void entry_on_timer(void *context)
{
	struct entry *entry = context;
	struct error err = ERROR_INIT;

	switch (entry->record.state) {
	case ENTRY_WARMING:
		error_set(&err, ERROR_TIMEOUT, "sandbox %s: no hello of its init within %d s",
			entry->record.id, WARM_TIMEOUT_MS / 1000);
		entry_creation_failed(entry, &err);
		break;
	case ENTRY_CLAIMED:
	case ENTRY_PAUSED:
	case ENTRY_DORMANT:
		check_deadline(entry);
		break;
	case ENTRY_RELEASING:
		if (entry->ending) {
			start_destroy(entry);
		} else {
			entry_end(entry);
		}
		break;
	case ENTRY_CREATING:
	case ENTRY_READY:
	case ENTRY_GONE:
	case ENTRY_STATES:
		break;
	}
}
