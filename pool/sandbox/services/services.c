/*
 * The life of each service: waiting -> starting -> ready, and back through restarting when it ends.
 * A service runs exactly as long as `exec` is there. Whatever calls the owner last looks whether
 * the owner has freed everything meanwhile.
 */
#include "pool/sandbox/services/services.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/loop.h"
#include "pool/sandbox/services/services_private.h"

#include <signal.h>
#include <stdio.h>

/* For the log of one that was given up. */
#define LOG_MS 5000

static const char *const state_names[] = {
	[SERVICE_WAITING] = "waiting",
	[SERVICE_STARTING] = "starting",
	[SERVICE_READY] = "ready",
	[SERVICE_RESTARTING] = "restarting",
	[SERVICE_FAILED] = "failed",
	[SERVICE_SKIPPED] = "skipped",
};
_Static_assert(ARRAY_SIZE(state_names) == SERVICE_STATES, "every state has a name");

const char *service_state_name(enum service_state state)
{
	return state_names[state];
}

int64_t service_delay_ms(int64_t first_ms, int64_t max_ms, unsigned failures)
{
	int64_t delay = first_ms;

	for (unsigned i = 1; i < failures && delay < max_ms; i++) {
		delay *= 2;
	}
	return delay < max_ms ? delay : max_ms;
}

void service_set_state(struct service *service, enum service_state state)
{
	struct services *services = service->services;

	service->state = state;
	service->since_ms = clock_real_ms();
	if (services->events->changed != NULL) {
		services->events->changed(services->context, service->conf->name, state);
	}
}

/* ---- commands ---- */

uint32_t helper_id(struct services *services)
{
	uint32_t id = services->next_helper;

	services->next_helper = id + 1 < HELPER_EXEC_END ? id + 1 : HELPER_EXEC_FIRST;
	return id;
}

static char **merge_env(char *const *base, char *const *more)
{
	char **env = xcalloc(1, sizeof(*env));

	for (char *const *pair = more; pair != NULL && *pair != NULL; pair++) {
		strv_add(&env, *pair);
	}
	for (char *const *pair = base; pair != NULL && *pair != NULL; pair++) {
		size_t length = strcspn(*pair, "=") + 1;
		bool hidden = false;

		for (char *const *other = more; other != NULL && *other != NULL; other++) {
			hidden = hidden || strncmp(*other, *pair, length) == 0;
		}
		if (!hidden) {
			strv_add(&env, *pair);
		}
	}
	return env;
}

int services_exec(struct services *services, const struct environment_service *conf,
	const char *run, uint32_t id, uint32_t follows, const struct exec_events *events,
	void *context, struct init_exec_handle **ret_exec, struct error *err)
{
	const struct services_home *home = &services->home;
	CLEANUP(strv_free_p)
	char **env = merge_env(home->env, conf != NULL ? conf->env : NULL);
	char *const argv[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "-c",
		(char *)(uintptr_t)run, NULL};
	struct exec_spec spec = {.argv = argv,
		.env = env,
		.cwd = conf != NULL && conf->cwd != NULL ? conf->cwd : home->cwd,
		.user = conf != NULL && conf->user != NULL ? conf->user : home->user,
		.service = id < HELPER_EXEC_FIRST,
		.follows = follows};

	return init_exec(services->client, id, &spec, events, context, ret_exec, err);
}

/* ---- the end of hope ---- */

static void tell_failed(struct service *service)
{
	struct services *services = service->services;

	loop_timer_stop(service->deadline);
	services->events->failed(services->context, service->conf->name, &service->failure,
		buffer_text(&service->log_text), service->log_text.length);
}

static void on_log(void *context, const void *data, size_t length)
{
	struct service *service = context;

	(void)buffer_add(&service->log_text, data, length);
	init_file_consumed(service->log, length);
}

static void on_log_read(void *context, uint64_t bytes, const struct error *err)
{
	struct service *service = context;

	(void)bytes;
	service->log = NULL;
	/* The connection is lost: its owner hears that. */
	if (err == NULL || err->kind != ERROR_UNAVAILABLE) {
		tell_failed(service);
	}
}

void service_give_up(struct service *service, const struct error *err)
{
	static const struct file_events events = {.data = on_log, .done = on_log_read};
	struct error ignored = ERROR_INIT;

	readiness_end(service);
	free(service->why);
	service->why = xstrdup(err->message);
	error_copy(&service->failure, err);
	buffer_clear(&service->log_text);
	service_set_state(service, SERVICE_FAILED);
	if (service->log_id == 0 || init_log_read(service->services->client, service->log_id, false,
					    &events, service, &service->log, &ignored) < 0) {
		tell_failed(service);
		return;
	}
	loop_timer_after(service->deadline, LOG_MS);
}

/* It ended, or could not be started. */
static void service_failed(struct service *service, const struct error *err)
{
	const struct environment_service *conf = service->conf;
	struct error last;

	readiness_end(service);
	free(service->why);
	service->why = xstrdup(err->message);
	if (clock_mono_ms() - service->started_ms >= SERVICE_STABLE_MS) {
		service->failures = 0;
	}
	service->failures++;
	if ((int64_t)service->failures > conf->restart_attempts) {
		error_copy(&last, err);
		if (conf->restart_attempts > 0) {
			error_set(&last, ERROR_FAILED, "%s, after %d restarts", err->message,
				(int)conf->restart_attempts);
		}
		service_give_up(service, &last);
		return;
	}
	loop_timer_after(service->timer, service_delay_ms(conf->restart_delay_ms,
						 conf->restart_max_delay_ms, service->failures));
	service_set_state(service, SERVICE_RESTARTING);
}

void service_too_late(struct service *service)
{
	struct error err = ERROR_INIT;
	char limit[CLOCK_TEXT_SIZE];

	duration_format(limit, service->conf->ready_timeout_ms);
	error_set(&err, ERROR_TIMEOUT, "service %s was not ready within %s%s%s",
		service->conf->name, limit, service->missing != NULL ? ": " : "",
		service->missing != NULL ? service->missing : "");
	error_hint(&err, "raise `ready: {timeout: …}` of the service, or see what it waits for");
	if (!service->was_ready || service->exec == NULL) {
		service_give_up(service, &err);
		return;
	}
	/* It was fine once: ended and started again, like one that died. */
	readiness_end(service);
	free(service->why);
	service->why = xstrdup(err.message);
	init_exec_signal(service->exec, SIGKILL);
}

/* ---- running ---- */

static void on_started(void *context, uint32_t pid)
{
	struct service *service = context;

	service->pid = pid;
	service->log_id = SERVICE_EXEC_FIRST + ((uint32_t)service->index << INDEX_SHIFT) +
			  (service->generation & GENERATION_MASK);
	if (!service->stopping) {
		readiness_begin(service);
	}
}

static void on_ended(void *context, const struct exec_result *result, const struct error *err)
{
	struct service *service = context;
	struct error why = ERROR_INIT;

	service->exec = NULL;
	service->pid = 0;
	if (err != NULL && err->kind == ERROR_UNAVAILABLE) {
		return; /* the connection is lost: its owner hears that */
	}
	if (service->stopping) {
		service->stopping = false;
		readiness_end(service);
		service->failures = 0;
		service_start(service);
		return;
	}
	if (err != NULL) {
		error_copy(&why, err);
		error_wrap(&why, "service %s", service->conf->name);
	} else if (result->signal != 0) {
		error_set(&why, ERROR_FAILED, "service %s was killed by signal %d",
			service->conf->name, result->signal);
	} else {
		error_set(&why, ERROR_FAILED, "service %s ended with code %d", service->conf->name,
			result->code);
	}
	service_failed(service, &why);
}

static const struct exec_events service_events = {.started = on_started, .ended = on_ended};

void service_start(struct service *service)
{
	struct error err = ERROR_INIT;
	uint32_t id;

	(void)fault_point("service.start");
	if (service->generation > 0) {
		service->restarts++;
	}
	service->generation++;
	id = SERVICE_EXEC_FIRST + ((uint32_t)service->index << INDEX_SHIFT) +
	     (service->generation & GENERATION_MASK);
	service->started_ms = clock_mono_ms();
	readiness_arm(service);
	service_set_state(service, SERVICE_STARTING);
	if (services_exec(service->services, service->conf, service->conf->run, id, service->log_id,
		    &service_events, service, &service->exec, &err) < 0) {
		error_wrap(&err, "service %s", service->conf->name);
		service_failed(service, &err);
	}
}

static void start_next(struct services *services)
{
	for (size_t i = 0; i < services->count; i++) {
		struct service *service = &services->services[i];

		if (service->state == SERVICE_WAITING) {
			service_start(service);
			return;
		}
		if (!service->was_ready && service->state != SERVICE_SKIPPED) {
			return;
		}
	}
	if (!services->told_ready) {
		services->told_ready = true;
		services->events->ready(services->context);
	}
}

void service_is_ready(struct service *service)
{
	readiness_end(service);
	service->was_ready = true;
	service_set_state(service, SERVICE_READY);
	start_next(service->services);
}

/* ---- timers ---- */

static void on_timer(void *context)
{
	struct service *service = context;

	if (service->services->held) {
		service->timer_due = true;
	} else if (service->stopping && service->exec != NULL) {
		init_exec_signal(service->exec, SIGKILL);
	} else if (service->state == SERVICE_STARTING) {
		readiness_look(service);
	} else if (service->state == SERVICE_RESTARTING) {
		service_start(service);
	}
}

static void on_deadline(void *context)
{
	struct service *service = context;

	if (service->services->held) {
		service->deadline_due = true;
	} else if (service->log != NULL) {
		init_file_cancel(service->log);
		service->log = NULL;
		tell_failed(service);
	} else if (service->state == SERVICE_STARTING) {
		service_too_late(service);
	}
}

void services_hold(struct services *services, bool held)
{
	services->held = held;
	for (size_t i = 0; !held && i < services->count; i++) {
		struct service *service = &services->services[i];

		if (service->timer_due) {
			loop_timer_at(service->timer, 0);
		}
		/* How much was left of it nobody knows: it has all of its time again. */
		if (service->deadline_due && service->state == SERVICE_STARTING) {
			service->ready_by_ms = 0;
			readiness_arm(service);
		} else if (service->deadline_due) {
			loop_timer_at(service->deadline, 0);
		}
		service->timer_due = false;
		service->deadline_due = false;
	}
}

/* ---- owners ---- */

struct services *services_new(struct loop *loop, const struct environment *environment,
	const struct services_home *home, bool restored, const struct services_events *events,
	void *context)
{
	size_t count = environment->service_count;
	struct services *services =
		xcalloc(1, sizeof(*services) + count * sizeof(services->services[0]));

	services->loop = loop;
	services->environment = environment;
	services->home = home != NULL ? *home
				      : (struct services_home){environment->env, environment->user,
						environment->workdir};
	services->events = events;
	services->context = context;
	services->next_helper = HELPER_EXEC_FIRST;
	services->count = count;
	buffer_init(&services->prime_tail, 0);
	for (size_t i = 0; i < count; i++) {
		struct service *service = &services->services[i];

		service->services = services;
		service->conf = &environment->services[i];
		service->index = i;
		service->state =
			restored && !service->conf->on_restore ? SERVICE_SKIPPED : SERVICE_WAITING;
		service->since_ms = clock_real_ms();
		service->request = service_request(service->conf, &service->port);
		service->timer = loop_timer_new(loop, on_timer, service);
		service->deadline = loop_timer_new(loop, on_deadline, service);
		buffer_init(&service->log_text, 2 * SERVICE_LOG_MAX);
	}
	return services;
}

static void service_done(struct service *service)
{
	readiness_end(service);
	if (service->log != NULL) {
		init_file_cancel(service->log);
	}
	if (service->exec != NULL) {
		init_exec_detach(service->exec, false);
	}
	loop_timer_free(service->timer);
	loop_timer_free(service->deadline);
	buffer_done(&service->log_text);
	free(service->request);
	free(service->missing);
	free(service->why);
}

void services_free(struct services *services)
{
	if (services == NULL) {
		return;
	}
	for (size_t i = 0; i < services->count; i++) {
		service_done(&services->services[i]);
	}
	if (services->prime != NULL) {
		init_exec_detach(services->prime, true);
	}
	loop_timer_free(services->prime_timer);
	buffer_done(&services->prime_tail);
	free(services);
}

void services_start(struct services *services, struct init_client *client)
{
	services->client = client;
	start_next(services);
}

static void adopt_exec(struct services *services, uint32_t id)
{
	struct service *service;
	struct error err = ERROR_INIT;
	size_t index = (id - SERVICE_EXEC_FIRST) >> INDEX_SHIFT;
	uint32_t generation = id & GENERATION_MASK;

	if (id >= HELPER_EXEC_FIRST || index >= services->count ||
		services->services[index].generation > generation) {
		init_exec_forget(services->client, id);
		return;
	}
	service = &services->services[index];
	if (service->exec != NULL) {
		init_exec_detach(service->exec, true); /* an older start of it */
		service->exec = NULL;
	}
	service->generation = generation;
	service->restarts = generation > 0 ? generation - 1 : 0;
	service->was_ready = true;
	if (init_exec_adopt(services->client, id, &service_events, service, &service->exec, &err) <
		0) {
		service->exec = NULL;
		return;
	}
	init_exec_keep(service->exec);
	readiness_arm(service);
	service_set_state(service, SERVICE_STARTING);
}

void services_adopt(
	struct services *services, struct init_client *client, const uint32_t *execs, size_t count)
{
	services->client = client;
	services->told_ready = true;
	for (size_t i = 0; i < count; i++) {
		if (execs[i] >= SERVICE_EXEC_FIRST) {
			adopt_exec(services, execs[i]);
		}
	}
	start_next(services);
}
