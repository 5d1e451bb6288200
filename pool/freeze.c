/* Freezing and pausing. hobd writes the cgroup's freezer itself, which takes some 20 us; a cgroup
 * that a hobd without this has made is left to the launcher. */
#include "pool/freeze.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/loop.h"
#include "configs/config.h"
#include "pool/demand/demand.h"
#include "pool/disk.h"
#include "pool/entry.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/meter.h"
#include "pool/page_out.h"
#include "pool/run.h"
#include "pool/sandbox/sandbox.h"
#include "pool/services.h"

/* A paused sandbox stands still within a millisecond, unless the kernel holds a process of it: then
 * its pauser is told after some 2 s. */
#define LOOKS_MAX 12
#define LOOK_LAST_MS 256

/* ---- the cgroup ---- */

static void on_launcher_done(void *context, const struct error *err)
{
	(void)context;
	if (err != NULL) {
		log_failure("sandbox.freeze_failed", err);
	}
}

static void cgroup_write(struct entry *entry, bool frozen)
{
	struct manager *manager = entry->manager;
	const char *id = entry->record.id;
	struct error err = ERROR_INIT;

	entry->frozen = frozen;
	entry->paged_out = false;
	page_out_later(entry);
	entry_services_hold(entry, frozen);
	(void)fault_point(frozen ? "sandbox.freeze" : "sandbox.thaw");
	if (sandbox_freeze_now(manager->config, id, frozen, &err) == 0 ||
		err.kind == ERROR_NOT_FOUND) {
		return;
	}
	/* The handler gets no entry, which may be gone by then. */
	(frozen ? sandbox_freeze : sandbox_thaw)(manager->launcher, id, on_launcher_done, NULL);
}

static bool stands_still(const struct entry *entry)
{
	struct sandbox_usage state = {.frozen = false};
	struct error err = ERROR_INIT;

	return sandbox_state_read(entry->manager->config, entry->record.id, &state, &err) == 0 &&
	       state.frozen;
}

/* ---- ready ones ---- */

void entry_freeze(struct entry *entry)
{
	if (entry->record.state == ENTRY_READY && !entry->frozen && entry->client != NULL &&
		entry->sync == NULL) {
		if (!entry_services_up(entry)) {
			entry_freeze_later(entry); /* what has just died comes up first */
			return;
		}
		loop_timer_stop(entry->freeze_timer);
		entry->pool->freezes++;
		cgroup_write(entry, true);
		meter_frozen(entry);
	}
}

void entry_freeze_later(struct entry *entry)
{
	int64_t after_ms = entry->manager->config->freeze_after_ms;

	/* Whoever reserved it may be here any moment. */
	if (entry->record.state == ENTRY_READY && after_ms > 0 && entry->hint == NULL) {
		loop_timer_later(
			entry->freeze_timer, demand_is_squeezed(entry->pool) ? 0 : after_ms);
	} else {
		loop_timer_stop(entry->freeze_timer);
	}
}

void entry_thaw(struct entry *entry)
{
	loop_timer_stop(entry->freeze_timer);
	if (entry->frozen) {
		cgroup_write(entry, false);
	}
}

void entry_thaw_soon(struct entry *entry)
{
	loop_timer_later(entry->freeze_timer, 0);
}

void entry_thaw_due(struct entry *entry)
{
	entry_thaw(entry);
	if (entry->record.state == ENTRY_CLAIMED) {
		meter_begin(entry);
	}
}

/* ---- claimed ones ---- */

static void tell_pausers(struct entry *entry, bool stands)
{
	while (entry->pauses != NULL) {
		struct entry_pause *wait = entry->pauses;

		entry_pause_forget(wait);
		wait->done(wait, stands);
	}
}

void entry_pause_forget(struct entry_pause *wait)
{
	struct entry_pause **at;

	if (wait->entry == NULL) {
		return;
	}
	for (at = &wait->entry->pauses; *at != wait; at = &(*at)->next) {
	}
	*at = wait->next;
	wait->entry = NULL;
}

void entry_pauses_end(struct entry *entry)
{
	tell_pausers(entry, false);
}

static void look_again(struct entry *entry)
{
	int64_t delay_ms = INT64_C(1) << entry->freeze_looks;

	if (entry->pauses == NULL) {
		return;
	}
	if (stands_still(entry)) {
		tell_pausers(entry, true);
	} else if (++entry->freeze_looks > LOOKS_MAX) {
		log_warn("sandbox.freezes_slowly", "sandbox", entry->record.id, "message",
			"one of its processes is in the kernel");
		tell_pausers(entry, false);
	} else {
		loop_timer_after(
			entry->freeze_timer, delay_ms < LOOK_LAST_MS ? delay_ms : LOOK_LAST_MS);
	}
}

static int check_pausable(const struct entry *entry, struct error *err)
{
	int status = entry_check_usable(entry, err);

	if (status == 0 && entry->copying) {
		error_set(err, ERROR_CONFLICT, "a snapshot of %s is being taken", entry->record.id);
		return error_hint(err, "try again when it has ended");
	}
	return status;
}

/* `since_ms` 0: now. */
static int fall_asleep(struct entry *entry, int64_t since_ms, const char *reason, struct error *err)
{
	int status;

	meter_pause(entry);
	entry->record.paused_at_ms = since_ms > 0 ? since_ms : clock_real_ms();
	entry->why = reason;
	status = entry_set_state(entry, ENTRY_PAUSED, err);
	entry->why = NULL;
	if (status < 0) {
		entry->record.paused_at_ms = 0;
		meter_resume(entry);
		return status;
	}
	(void)fault_point("pause.recorded");
	entry->dozes = false;
	runs_halt(entry);
	loop_timer_stop(entry->freeze_timer);
	cgroup_write(entry, true);
	entry_arm(entry);
	log_info("sandbox.paused", "sandbox", entry->record.id, "environment", entry->pool->name,
		"reason", reason);
	return 0;
}

int entry_pause(
	struct entry *entry, const char *reason, struct entry_pause *wait, struct error *err)
{
	int status;

	if (entry->record.state != ENTRY_PAUSED) {
		if ((status = check_pausable(entry, err)) < 0 ||
			(status = fall_asleep(entry, 0, reason, err)) < 0) {
			return status;
		}
	}
	if (wait != NULL) {
		*wait = (struct entry_pause){
			.entry = entry, .next = entry->pauses, .done = wait->done};
		entry->pauses = wait;
		entry->freeze_looks = 0;
		loop_timer_at(entry->freeze_timer, 0);
	}
	return 0;
}

static int get_up(struct entry *entry, struct error *err)
{
	int64_t since_ms = entry->record.paused_at_ms;
	int status;

	entry->record.paused_at_ms = 0;
	meter_resume(entry);
	status = entry_set_state(entry, ENTRY_CLAIMED, err);
	if (status < 0) {
		entry->record.paused_at_ms = since_ms;
		meter_pause(entry);
		return error_wrap(err, "resume");
	}
	(void)fault_point("resume.recorded");
	entry->slept_at_ms = since_ms;
	entry_thaw(entry);
	disk_look_soon(entry);
	tell_pausers(entry, false);
	runs_go_on(entry);
	log_info("sandbox.resumed", "sandbox", entry->record.id, "environment", entry->pool->name,
		"paused_ms", clock_real_ms() - since_ms);
	return 0;
}

int entry_resume(struct entry *entry, struct error *err)
{
	int status = entry->record.state == ENTRY_PAUSED ? get_up(entry, err)
							 : entry_check_usable(entry, err);

	if (status == 0) {
		entry->dozes = false;
		entry_touch(entry);
		entry_arm(entry);
	}
	return status;
}

int entry_wake(struct entry *entry, bool only_looks, struct error *err)
{
	int status = 0;

	if (!only_looks) {
		entry->dozes = false;
	}
	if (entry->record.state == ENTRY_PAUSED) {
		status = disk_check_wake(entry, err);
		status = status == 0 ? get_up(entry, err) : status;
		entry->dozes = status == 0 && only_looks;
		if (status == 0 && !only_looks) {
			entry_touch(entry);
		}
	} else if (entry->frozen) {
		entry_thaw_due(entry);
	}
	return status == 0 ? entry_check_usable(entry, err) : status;
}

/* What ran before it was woken sleeps again with it; what is begun meanwhile keeps it awake. */
void entry_doze_off(struct entry *entry)
{
	struct error err = ERROR_INIT;

	if (entry->dozes && entry->record.state == ENTRY_CLAIMED && entry->uses == NULL &&
		(check_pausable(entry, &err) < 0 ||
			fall_asleep(entry, entry->slept_at_ms, "only looked at", &err) < 0)) {
		log_failure("sandbox.pause_failed", &err, "sandbox", entry->record.id);
	}
}

void entry_pause_if_idle(struct entry *entry)
{
	struct error err = ERROR_INIT;

	if (entry->record.state == ENTRY_CLAIMED &&
		entry_record_pause_at(&entry->record, entry_is_busy(entry)) <= clock_real_ms() &&
		entry_pause(entry, "idle", NULL, &err) < 0) {
		log_failure("sandbox.pause_failed", &err, "sandbox", entry->record.id);
		entry_touch(entry); /* tried again after another such time */
	}
	entry_arm(entry);
}

/* ---- both ---- */

void entry_freeze_again(struct entry *entry)
{
	if (entry->record.state == ENTRY_PAUSED) {
		cgroup_write(entry, true);
	} else if (entry->was_frozen && entry->hint == NULL) {
		entry_freeze(entry);
	} else {
		entry_freeze_later(entry);
	}
	entry->was_frozen = false;
}

void entry_on_freeze_timer(void *context)
{
	struct entry *entry = context;

	if (entry->record.state == ENTRY_READY && entry->hint == NULL) {
		entry_freeze(entry);
	} else if (entry->record.state == ENTRY_READY) {
		entry_thaw(entry);
	} else if (entry->record.state == ENTRY_CLAIMED) {
		entry_thaw_due(entry);
	} else if (entry->record.state == ENTRY_PAUSED) {
		look_again(entry);
	}
}
