/*
 * libmicrohttpd in our loop. Its descriptor being readable, or MHD_get_timeout being due, means
 * MHD_run. Its sockets are edge-triggered, so the timeout must be asked for after every run: 0 says
 * that input is still waiting in a buffer.
 */
#include "pool/api/http_server.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/api/http_private.h"
#include "pool/sandbox/cgroup.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

/* Clients at a time; each costs its buffers only while it is connected. */
#define CONNECTIONS_MAX 8192
/* Of one connection: the request line, the headers and the body in pieces must fit. The library
 * clears it between requests, so more of it is slower. */
#define CONNECTION_MEMORY 16384
/* Rounds of MHD_run in one turn, so that one busy client does not keep the loop. */
#define RUNS_PER_TURN 8

PRINTF_LIKE(2, 0)
static void on_error_log(void *context, const char *format, va_list args)
{
	char text[512];
	size_t length;

	(void)context;
	vsnprintf(text, sizeof(text), format, args);
	length = strlen(text);
	while (length > 0 && text[length - 1] == '\n') {
		text[--length] = '\0';
	}
	log_debug("http.library", "message", (const char *)text);
}

static void run(struct http_server *server)
{
	MHD_UNSIGNED_LONG_LONG timeout = 0;

	for (int i = 0; i < RUNS_PER_TURN; i++) {
		if (MHD_run(server->daemon) != MHD_YES) {
			log_error("http.run_failed");
			return;
		}
		if (MHD_get_timeout(server->daemon, &timeout) != MHD_YES) {
			loop_timer_stop(server->run_timer);
			return;
		}
		if (timeout > 0) {
			break;
		}
	}
	loop_timer_after(server->run_timer, timeout > INT_MAX ? INT_MAX : (int64_t)timeout);
}

static void on_readable(void *context, uint32_t events)
{
	(void)events;
	run(context);
}

static void on_run_timer(void *context)
{
	run(context);
}

void http_server_kick(struct http_server *server)
{
	loop_timer_at(server->run_timer, 0);
}

static int start(struct http_server *server, int listen_fd, struct error *err)
{
	const union MHD_DaemonInfo *info;

	server->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG, 0,
		NULL, NULL, http_on_access, server, MHD_OPTION_EXTERNAL_LOGGER, on_error_log, NULL,
		MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_NOTIFY_COMPLETED, http_on_completed,
		server, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_END);
	if (server->daemon == NULL) {
		return error_set(err, ERROR_INTERNAL, "libmicrohttpd did not start");
	}
	info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (info == NULL) {
		return error_set(err, ERROR_INTERNAL, "libmicrohttpd has no epoll descriptor");
	}
	return loop_add_fd(
		server->loop, info->epoll_fd, EPOLLIN, on_readable, server, &server->source, err);
}

/* A hybrid machine has its controllers, and so the limits, in version 1. */
static const char *cgroup_version(const struct config *config)
{
	CLEANUP(free_p) struct cgroups *cgroups = xcalloc(1, sizeof(*cgroups));
	struct error err = ERROR_INIT;
	bool unified;

	if (cgroups_open(config, cgroups, &err) < 0) {
		log_failure("http.cgroup_unknown", &err);
		return "v1";
	}
	unified = cgroups->count == 1 && cgroups->hierarchies[0].v2;
	cgroups_close(cgroups);
	return unified ? "v2" : "v1";
}

int http_server_open(const struct config *config, struct loop *loop, struct manager *manager,
	int listen_fd, enum http_audience audience, struct http_server **ret_server,
	struct error *err)
{
	struct http_server *server = xcalloc(1, sizeof(*server));
	int status;

	server->config = config;
	server->loop = loop;
	server->manager = manager;
	server->routes = audience == HTTP_STRANGERS ? http_hook_routes : http_routes;
	server->cgroup = cgroup_version(config);
	server->run_timer = loop_timer_new(loop, on_run_timer, server);
	status = start(server, listen_fd, err);
	if (status < 0) {
		http_server_close(server);
		return status;
	}
	*ret_server = server;
	return 0;
}

void http_server_close(struct http_server *server)
{
	if (server == NULL) {
		return;
	}
	server->closing = true;
	if (server->daemon != NULL) {
		websockets_close(server);
		/* The library refuses to stop while connections sleep. */
		for (struct http_request *request = server->requests, *next; request != NULL;
			request = next) {
			next = request->next;
			http_request_abort(request);
		}
		(void)MHD_run(server->daemon);
		loop_source_free(server->source);
		MHD_stop_daemon(server->daemon);
	}
	loop_timer_free(server->run_timer);
	free(server);
}
