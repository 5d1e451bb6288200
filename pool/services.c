/* Services of pool sandboxes. */
#include "pool/services.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "pool/entry.h"
#include "pool/events.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/sandbox/services/services.h"

#include <fcntl.h>
#include <stdio.h>

/* An environment's file is at most this, and what is written of it not much more. */
#define RECORD_MAX (4u << 20)
/* Of a service's log in the message of its failure. */
#define LOG_SHOWN 480

/* ---- sets ---- */

struct warm_set *warm_set_ref(struct warm_set *set)
{
	if (set != NULL) {
		set->users++;
	}
	return set;
}

void warm_set_put(struct warm_set *set)
{
	if (set != NULL && --set->users == 0) {
		environment_free(set->environment);
		free(set->text);
		free(set);
	}
}

/* Takes the text. NULL: it cannot be read. */
static struct warm_set *warm_set_new(char *text, struct error *err)
{
	struct warm_set *set = xcalloc(1, sizeof(*set));

	set->users = 1;
	set->text = text;
	if (environment_parse("services", text, strlen(text), &set->environment, err) < 0) {
		set->environment = NULL;
		warm_set_put(set);
		return NULL;
	}
	return set;
}

static const char *fingerprint_of(const struct warm_set *set)
{
	return set != NULL ? set->environment->warm_fingerprint : "";
}

static void entry_outdate(struct entry *entry)
{
	if (!entry->outdated) {
		entry_set_outdated(entry);
		log_info("sandbox.outdated", "sandbox", entry->record.id, "environment",
			entry->pool->name, "message", "its services are not those of the file");
	}
}

static void compare_entries(struct pool *pool)
{
	static const enum entry_state states[] = {ENTRY_CREATING, ENTRY_WARMING, ENTRY_READY};

	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		struct entry *entry = pool->entries[states[i]].first;

		for (; entry != NULL; entry = entry->next) {
			if (!streq(fingerprint_of(entry->warm), fingerprint_of(pool->warm))) {
				entry_outdate(entry);
			}
		}
	}
}

void pool_warm_refresh(struct pool *pool)
{
	struct warm_set *set = NULL;
	struct error err = ERROR_INIT;

	if (pool->conf == NULL) {
		return; /* it drains */
	}
	if (pool->conf->warm_fingerprint[0] != '\0') {
		CLEANUP(free_p) char *text = environment_explain(pool->conf);

		if (pool->warm != NULL && streq(text, pool->warm->text)) {
			return;
		}
		set = warm_set_new(steal_ptr(text), &err);
		if (set == NULL) {
			log_failure("environment.services_lost", &err, "environment", pool->name);
			return;
		}
	}
	warm_set_put(pool->warm);
	pool->warm = set;
	compare_entries(pool);
	manager_dirty(pool->manager);
}

/* ---- the record ---- */

int entry_warm_record(struct entry *entry, struct error *err)
{
	const struct warm_set *set = entry->warm;
	CLEANUP(close_p) int folder = -1;

	if (set == NULL) {
		return 0;
	}
	folder = io_open(
		entry->manager->sandboxes_fd, entry->record.id, O_RDONLY | O_DIRECTORY, 0, err);
	if (folder < 0) {
		return folder;
	}
	return io_write_file(folder, "services", set->text, strlen(set->text), 0600, err);
}

int entry_warm_load(struct entry *entry, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("%s/services", entry->record.id);
	struct error missing = ERROR_INIT;
	struct buffer text;

	buffer_init(&text, RECORD_MAX);
	if (io_read_file(entry->manager->sandboxes_fd, path, &text, &missing) < 0) {
		buffer_done(&text);
		if (missing.kind == ERROR_NOT_FOUND) {
			return 0;
		}
		error_copy(err, &missing);
		return -(int)err->kind;
	}
	entry->warm = warm_set_new(buffer_steal(&text), err);
	return entry->warm != NULL ? 0 : error_wrap(err, "services of %s", entry->record.id);
}

/* ---- from hello to warm ---- */

static bool is_claimed_or_lost(const struct entry *entry)
{
	return entry->record.state != ENTRY_WARMING || entry->adopt_as != ENTRY_GONE;
}

/* Somebody waits for exactly this one: their own command is as good as the prime. */
static bool prime_is_wanted(const struct entry *entry)
{
	return entry->warm->environment->prime.run != NULL && entry->image->snapshot_id == 0 &&
	       entry->image->waiting == 0 && entry->claim == NULL;
}

static void warmed(struct entry *entry)
{
	entry->services_us = clock_mono_us() - entry->hello_us;
	entry_warmed(entry);
}

static void on_ready(void *context)
{
	struct entry *entry = context;

	if (is_claimed_or_lost(entry)) {
		return;
	}
	(void)fault_point("services.ready");
	if (prime_is_wanted(entry)) {
		services_prime(entry->services);
	} else {
		warmed(entry);
	}
}

static void on_primed(void *context, const struct error *err)
{
	struct entry *entry = context;
	struct error failure;

	if (is_claimed_or_lost(entry)) {
		return;
	}
	if (err != NULL) {
		log_failure("sandbox.prime_failed", err, "sandbox", entry->record.id, "environment",
			entry->pool->name);
	}
	if (err != NULL && !entry->warm->environment->prime.may_fail) {
		error_copy(&failure, err);
		entry_creation_failed(entry, &failure);
		return;
	}
	warmed(entry);
}

/* The end of the log, from the start of a line on and without what a terminal would obey. */
static void add_log(struct error *err, const char *log, size_t length)
{
	char tail[LOG_SHOWN + 1];
	size_t from = length > LOG_SHOWN ? length - LOG_SHOWN : 0, to = 0;
	const char *line = from > 0 ? memchr(log + from, '\n', length - from) : NULL;
	struct error inner;

	from = line != NULL && line + 1 < log + length ? (size_t)(line + 1 - log) : from;
	for (; from < length; from++) {
		unsigned char c = (unsigned char)log[from];

		tail[to++] = c == '\n' || c == '\t' || (c >= 0x20 && c < 0x7f) ? (char)c : '?';
	}
	while (to > 0 && tail[to - 1] == '\n') {
		to--;
	}
	tail[to] = '\0';
	if (to > 0) {
		error_copy(&inner, err);
		error_set(err, inner.kind, "%s; it said last:\n%s", inner.message, tail);
		error_hint(err, "%s", inner.hint);
	}
}

static void on_failed(
	void *context, const char *name, const struct error *err, const char *log, size_t length)
{
	struct entry *entry = context;
	struct error failure;

	error_copy(&failure, err);
	add_log(&failure, log, length);
	switch (entry->record.state) {
	case ENTRY_WARMING:
		if (entry->adopt_as == ENTRY_GONE) {
			entry_creation_failed(entry, &failure);
		}
		return;
	case ENTRY_READY:
		entry->pool->trouble_until_ms = clock_mono_ms() + SERVICE_TROUBLE_MS;
		pool_failed(entry->pool, &failure);
		entry_release(entry, "a service of it keeps failing");
		return;
	case ENTRY_CLAIMED:
	case ENTRY_PAUSED:
		log_failure("service.failed", err, "sandbox", entry->record.id, "service", name);
		return;
	case ENTRY_CREATING:
	case ENTRY_DORMANT:
	case ENTRY_RELEASING:
	case ENTRY_GONE:
	case ENTRY_STATES:
	default:
		return;
	}
}

static void on_changed(void *context, const char *name, enum service_state state)
{
	struct entry *entry = context;

	event_add(entry, EVENT_SERVICE,
		json_pack("{s:s, s:s}", "service", name, "state", service_state_name(state)));
	log_debug("service.state", "sandbox", entry->record.id, "service", name, "state",
		service_state_name(state));
}

static const struct services_events events = {
	.ready = on_ready,
	.failed = on_failed,
	.primed = on_primed,
	.changed = on_changed,
};

static void services_open(struct entry *entry)
{
	const struct pool_image *image = entry->image;
	const struct services_home home = {image->env, image->user, image->cwd};

	entry->services = services_new(entry->manager->loop, entry->warm->environment, &home,
		entry->record.snapshot_id != 0, &events, entry);
}

void entry_warm_begin(struct entry *entry)
{
	if (entry->warm == NULL) {
		entry_warmed(entry);
		return;
	}
	entry->hello_us = clock_mono_us();
	entry_set_serving(entry);
	(void)fault_point("services.start");
	services_open(entry);
	services_start(entry->services, entry->client);
}

void entry_services_adopt(struct entry *entry, const uint32_t *execs, size_t count)
{
	if (entry->warm != NULL) {
		services_open(entry);
		services_adopt(entry->services, entry->client, execs, count);
	}
}

void entry_services_drop(struct entry *entry)
{
	services_free(entry->services);
	entry->services = NULL;
}

bool entry_services_up(const struct entry *entry)
{
	return services_are_up(entry->services);
}

void entry_services_hold(struct entry *entry, bool held)
{
	if (entry->services != NULL) {
		services_hold(entry->services, held);
	}
}

void entry_services_refreshed(struct entry *entry)
{
	if (entry->services != NULL) {
		services_refresh(entry->services);
	}
}
