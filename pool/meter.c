/* Metering. The clock of the sums is the real one, as everything in the record. */
#include "pool/meter.h"

#include "base/clock.h"
#include "base/loop.h"
#include "pool/entry.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"

/* A look takes some 50 us: 1,000 claimed ones cost a third of a percent of a processor. */
#define SAMPLE_EVERY_MS 15000

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t since(int64_t then_ms, int64_t now_ms)
{
	return then_ms > 0 && now_ms > then_ms ? now_ms - then_ms : 0;
}

static bool look(const struct entry *entry, struct sandbox_usage *ret_usage)
{
	struct error err = ERROR_INIT;

	return sandbox_sums_read(entry->manager->config, entry->record.id, &ret_usage->cpu_us,
		       &ret_usage->memory_bytes, &err) == 0;
}

/* Up to now, with the memory of now, or with that of the last sample (usage NULL). */
static struct entry_meter sampled(
	const struct entry_meter *meter, const struct sandbox_usage *usage, int64_t now_ms)
{
	struct entry_meter next = *meter;
	int64_t now_kib = usage != NULL ? usage->memory_bytes / 1024 : meter->memory_kib;

	next.memory_kib_s +=
		(meter->memory_kib + now_kib) / 2 * since(meter->sampled_ms, now_ms) / 1000;
	next.memory_kib = now_kib;
	next.sampled_ms = now_ms;
	if (usage != NULL && usage->cpu_us > meter->cpu_base_us + meter->cpu_us) {
		next.cpu_us = usage->cpu_us - meter->cpu_base_us;
	}
	return next;
}

static void sample(struct entry *entry, int64_t now_ms)
{
	struct sandbox_usage usage;
	bool there = look(entry, &usage);

	entry->record.meter = sampled(&entry->record.meter, there ? &usage : NULL, now_ms);
}

static void stretch_end(struct entry_meter *meter, int64_t now_ms)
{
	meter->active_ms += since(meter->active_since_ms, now_ms);
	meter->active_since_ms = 0;
}

void meter_begin(struct entry *entry)
{
	struct entry_meter *meter = &entry->record.meter;
	struct sandbox_usage usage = {.memory_bytes = 0};

	if (meter->sampled_ms > 0) {
		return;
	}
	/* What was frozen has used nothing since; what is claimed sooner pays for its start. A look
	 * would be in the way of the next claim. */
	if (entry->frozen_cpu_us > 0) {
		usage.cpu_us = entry->frozen_cpu_us;
		usage.memory_bytes = entry->frozen_bytes;
	} else if (entry->manager->config->freeze_after_ms == 0) {
		(void)look(entry, &usage);
	}
	meter->cpu_base_us = usage.cpu_us;
	meter->memory_kib = usage.memory_bytes / 1024;
	meter->sampled_ms = meter->started_ms;
	loop_timer_later(entry->meter_timer, SAMPLE_EVERY_MS);
}

void meter_frozen(struct entry *entry)
{
	struct sandbox_usage usage;

	if (entry->record.meter.started_ms == 0 && look(entry, &usage)) {
		entry->frozen_cpu_us = usage.cpu_us;
		entry->frozen_bytes = usage.memory_bytes;
	}
}

void meter_pause(struct entry *entry)
{
	int64_t now_ms = clock_real_ms();

	loop_timer_stop(entry->meter_timer);
	meter_begin(entry);
	loop_timer_stop(entry->meter_timer);
	sample(entry, now_ms);
	stretch_end(&entry->record.meter, now_ms);
}

void meter_resume(struct entry *entry)
{
	int64_t now_ms = clock_real_ms();

	entry->record.meter = sampled(&entry->record.meter, NULL, now_ms);
	entry->record.meter.active_since_ms = now_ms;
	loop_timer_later(entry->meter_timer, SAMPLE_EVERY_MS);
}

void meter_go_on(struct entry *entry)
{
	if (entry->record.state == ENTRY_CLAIMED) {
		loop_timer_later(entry->meter_timer, SAMPLE_EVERY_MS);
	}
}

void meter_end(struct entry *entry)
{
	const struct entry_record *record = &entry->record;
	int64_t now_ms = clock_real_ms();

	if (record->meter.started_ms == 0) {
		return;
	}
	if (entry->adopt_as != ENTRY_GONE && record->meter.sampled_ms > 0) {
		/* It ended while nobody looked: nobody pays for that time. */
		now_ms = least(now_ms, record->last_active_ms > record->meter.sampled_ms
					       ? record->last_active_ms
					       : record->meter.sampled_ms);
	}
	loop_timer_stop(entry->meter_timer);
	meter_begin(entry);
	loop_timer_stop(entry->meter_timer);
	sample(entry, now_ms);
	stretch_end(&entry->record.meter, now_ms);
	entry->record.meter.ended_ms = now_ms;
}

struct meter_sums meter_read(const struct entry *entry, const struct sandbox_usage *usage)
{
	const struct entry_record *record = &entry->record;
	int64_t now_ms = record->meter.ended_ms > 0 ? record->meter.ended_ms : clock_real_ms();
	struct entry_meter meter = sampled(&record->meter, usage, now_ms);
	struct meter_sums sums = {.cpu_us = meter.cpu_us, .memory_kib_s = meter.memory_kib_s};

	stretch_end(&meter, now_ms);
	sums.active_ms = meter.active_ms;
	sums.paused_ms = since(meter.started_ms, now_ms) - meter.active_ms;
	sums.paused_ms = sums.paused_ms > 0 ? sums.paused_ms : 0;
	return sums;
}

void meter_on_timer(void *context)
{
	struct entry *entry = context;

	if (entry->record.state == ENTRY_CLAIMED) {
		sample(entry, clock_real_ms());
		loop_timer_later(entry->meter_timer, SAMPLE_EVERY_MS);
	}
}
