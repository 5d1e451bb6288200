/* What owners ask of services: how they are, and to restart or tell them. */
#include "base/loop.h"
#include "pool/sandbox/services/services_private.h"

#include <signal.h>
#include <stdio.h>

/* From SIGTERM to SIGKILL. */
#define STOP_MS 5000

bool services_are_up(const struct services *services)
{
	for (size_t i = 0; services != NULL && i < services->count; i++) {
		enum service_state state = services->services[i].state;

		if (state != SERVICE_READY && state != SERVICE_SKIPPED) {
			return false;
		}
	}
	return true;
}

size_t services_count(const struct services *services)
{
	return services != NULL ? services->count : 0;
}

void service_view(const struct services *services, size_t index, struct service_view *ret_view)
{
	const struct service *service = &services->services[index];

	*ret_view = (struct service_view){.name = service->conf->name,
		.state = service->state,
		.pid = service->pid,
		.restarts = service->restarts,
		.since_ms = service->since_ms,
		.why = service->why};
}

int services_find(
	const struct services *services, const char *name, size_t *ret_index, struct error *err)
{
	char list[ERROR_HINT_SIZE - 32] = "";
	size_t used = 0;

	for (size_t i = 0; i < services_count(services); i++) {
		const char *known = services->services[i].conf->name;

		if (streq(known, name)) {
			*ret_index = i;
			return 0;
		}
		if (used + strlen(known) + 3 < sizeof(list)) {
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
				used > 0 ? ", " : "", known);
		}
	}
	error_set(err, ERROR_NOT_FOUND, "no service \"%.100s\" here", name);
	return used > 0 ? error_hint(err, "there are: %s", list)
			: error_hint(err, "its environment has no `services`");
}

int service_restart(struct services *services, size_t index, struct error *err)
{
	struct service *service = &services->services[index];

	if (services->client == NULL) {
		return error_set(err, ERROR_UNAVAILABLE, "the sandbox's init is gone");
	}
	if (service->stopping || service->log != NULL) {
		return error_set(
			err, ERROR_BUSY, "service %s is being ended already", service->conf->name);
	}
	readiness_end(service);
	service->failures = 0;
	if (service->exec == NULL) {
		service_start(service);
		return 0;
	}
	service->stopping = true;
	service_set_state(service, SERVICE_RESTARTING);
	init_exec_signal(service->exec, SIGTERM);
	loop_timer_after(service->timer, STOP_MS);
	return 0;
}

void services_refresh(struct services *services)
{
	static const struct {
		const char *name;
		int number;
	} signals[] = {{"HUP", SIGHUP}, {"INT", SIGINT}, {"TERM", SIGTERM}, {"USR1", SIGUSR1},
		{"USR2", SIGUSR2}};
	struct error ignored = ERROR_INIT;

	for (size_t i = 0; i < services_count(services); i++) {
		struct service *service = &services->services[i];

		if (service->state == SERVICE_SKIPPED || service->state == SERVICE_WAITING) {
			continue;
		}
		if (streq(service->conf->on_refresh, "restart")) {
			(void)!service_restart(services, i, &ignored);
		}
		for (size_t k = 0; k < ARRAY_SIZE(signals) && service->exec != NULL &&
				   streq(service->conf->on_refresh, "signal");
			k++) {
			if (streq(signals[k].name, service->conf->signal)) {
				init_exec_signal(service->exec, signals[k].number);
			}
		}
	}
}

int service_log(struct services *services, size_t index, bool follow,
	const struct file_events *events, void *context, struct init_file_handle **ret_file,
	struct error *err)
{
	const struct service *service = &services->services[index];

	if (services->client == NULL) {
		return error_set(err, ERROR_UNAVAILABLE, "the sandbox's init is gone");
	}
	if (service->log_id == 0) {
		return error_set(err, ERROR_CONFLICT, "service %s has not been started yet",
			service->conf->name);
	}
	return init_log_read(
		services->client, service->log_id, follow, events, context, ret_file, err);
}
