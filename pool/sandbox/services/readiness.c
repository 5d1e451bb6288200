/* Looking at a service until it is ready. The looks follow one another slower and slower, up to the
 * interval that was asked for: a server that is up in a moment costs no more than that moment. */
#include "base/clock.h"
#include "base/loop.h"
#include "pool/sandbox/services/services_private.h"

#include <stdio.h>

#define PAUSE_FIRST_MS 5
/* One look: a server that compiles its first page needs a while, one that hangs must not use up all
 * of its time. */
#define LOOK_MS 15000
/* The last look says what is missing; a hob-init that keeps silent is waited for no longer. */
#define LAST_WORD_MS 500
/* One that ran into the end of the service's time after less than this has seen nothing: what was
 * missing before is still what is missing. */
#define LOOK_SHORT_MS 100

/* `missing` NULL: nothing is known that is better than what an earlier look saw. */
static void look_later(struct service *service, const char *missing)
{
	if (missing != NULL) {
		free(service->missing);
		service->missing = xstrdup(missing);
	}
	if (clock_mono_ms() >= service->ready_by_ms) {
		service_too_late(service);
		return;
	}
	loop_timer_after(service->timer, service->pause_ms);
	service->pause_ms = 2 * service->pause_ms < service->conf->ready_interval_ms
				    ? 2 * service->pause_ms
				    : service->conf->ready_interval_ms;
}

static void on_probed(void *context, uint64_t status, const struct error *err)
{
	struct service *service = context;

	(void)status;
	service->probe = NULL;
	if (err == NULL) {
		service_is_ready(service);
	} else if (err->kind != ERROR_UNAVAILABLE) {
		bool blind = err->kind == ERROR_TIMEOUT && service->look_ms < LOOK_SHORT_MS &&
			     service->missing != NULL;

		look_later(service, blind ? NULL : err->message);
	}
}

static void on_asked(void *context, const struct exec_result *result, const struct error *err)
{
	struct service *service = context;
	char text[96];

	service->asking = NULL;
	if (err != NULL && err->kind == ERROR_UNAVAILABLE) {
		return;
	}
	if (err == NULL && result->code == 0) {
		service_is_ready(service);
		return;
	}
	if (err == NULL) {
		snprintf(text, sizeof(text), "ready.command ended with code %d", result->code);
	}
	look_later(service, err != NULL ? err->message : text);
}

void readiness_look(struct service *service)
{
	static const struct file_events probe_events = {.done = on_probed};
	static const struct exec_events ask_events = {.ended = on_asked};
	const struct environment_service *conf = service->conf;
	struct services *services = service->services;
	int64_t left_ms = service->ready_by_ms - clock_mono_ms();
	struct probe_spec spec = {.path = conf->ready_file,
		.port = service->port,
		.http = service->request,
		.timeout_ms = left_ms < 1         ? 1
			      : left_ms < LOOK_MS ? left_ms
						  : LOOK_MS};
	struct error err = ERROR_INIT;
	int status;

	if (service->probe != NULL || service->asking != NULL) {
		return;
	}
	service->look_ms = spec.timeout_ms;
	if (conf->ready_command != NULL) {
		status = services_exec(services, conf, conf->ready_command, helper_id(services), 0,
			&ask_events, service, &service->asking, &err);
	} else {
		status = init_probe(
			services->client, &spec, &probe_events, service, &service->probe, &err);
	}
	if (status < 0) {
		look_later(service, err.message);
	}
}

void readiness_arm(struct service *service)
{
	/* The first time counts from the first start, however often it ended meanwhile. */
	if (service->was_ready || service->ready_by_ms == 0) {
		service->ready_by_ms = clock_mono_ms() + service->conf->ready_timeout_ms;
	}
	loop_timer_at(service->deadline, service->ready_by_ms + LAST_WORD_MS);
}

void readiness_begin(struct service *service)
{
	const struct environment_service *conf = service->conf;

	service->pause_ms =
		PAUSE_FIRST_MS < conf->ready_interval_ms ? PAUSE_FIRST_MS : conf->ready_interval_ms;
	if (conf->ready_tcp == NULL && conf->ready_http == NULL && conf->ready_command == NULL &&
		conf->ready_file == NULL) {
		service_is_ready(service);
	} else {
		readiness_look(service);
	}
}

void readiness_end(struct service *service)
{
	loop_timer_stop(service->timer);
	loop_timer_stop(service->deadline);
	if (service->probe != NULL) {
		init_file_cancel(service->probe);
		service->probe = NULL;
	}
	if (service->asking != NULL) {
		init_exec_detach(service->asking, true);
		service->asking = NULL;
	}
}
