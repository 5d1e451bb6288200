/*
 * The daemon's life. SIGTERM leaves every sandbox to the next hobd; SIGINT (Ctrl-C) ends them all
 * first. A lost launcher ends hobd too: it could not start another without being root, and whoever
 * supervises it starts both again.
 */
#include "pool/daemon.h"

#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/api/http_server.h"
#include "pool/environments.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"
#include "pool/startup.h"
#include "gen/version.h"

#include <signal.h>

/* Ending many sandboxes takes milliseconds each; past this something is stuck and has been logged.
 */
#define STOP_TIMEOUT_MS 30000

struct daemon {
	const struct config *config;
	const struct daemon_options *options;
	struct loop *loop;
	struct launcher *launcher;
	struct store *store;
	struct manager *manager;
	struct http_server *server, *hooks;
	struct loop_timer *stop_timer;
	int lock_fd, listen_fd, hook_fd, snapshots_program, build_program;
	bool stopping, sandboxes_gone;
	size_t removals; /* asked of the launcher and not yet done */
	struct error failure; /* ends the process with its exit code */
};

static void give_up(struct daemon *daemon)
{
	loop_stop(daemon->loop);
}

/* Nothing of ours is left: neither sandboxes nor trees that are being deleted. */
static void stop_when_clean(struct daemon *daemon)
{
	if (daemon->stopping && daemon->sandboxes_gone && daemon->removals == 0) {
		give_up(daemon);
	}
}

static void on_stopped(void *context)
{
	struct daemon *daemon = context;

	log_info("hobd.sandboxes_gone");
	daemon->sandboxes_gone = true;
	stop_when_clean(daemon);
}

static void on_stop_timeout(void *context)
{
	struct daemon *daemon = context;

	log_error("hobd.stop_timeout", "sandboxes", daemon->manager->entry_count);
	give_up(daemon);
}

static void on_stop_signal(void *context, int number)
{
	struct daemon *daemon = context;
	bool end_sandboxes = number == SIGINT || daemon->options->stop_sandboxes;

	log_info("hobd.stop", "signal", number, "sandboxes", end_sandboxes ? "end" : "stay");
	startup_notify("STOPPING=1");
	if (daemon->stopping || !end_sandboxes || daemon->manager == NULL) {
		give_up(daemon);
		return;
	}
	daemon->stopping = true;
	http_server_close(daemon->server);
	http_server_close(daemon->hooks);
	daemon->server = daemon->hooks = NULL;
	loop_timer_after(daemon->stop_timer, STOP_TIMEOUT_MS);
	manager_stop_sandboxes(daemon->manager, on_stopped);
}

static void on_reload_signal(void *context, int number)
{
	struct daemon *daemon = context;

	(void)number;
	if (daemon->manager != NULL) {
		environments_reload(daemon->manager);
	}
}

static void on_launcher_lost(void *context)
{
	struct daemon *daemon = context;

	error_set(&daemon->failure, ERROR_UNAVAILABLE, "a launcher process died");
	error_hint(&daemon->failure, "start hobd again; it adopts the sandboxes");
	give_up(daemon);
}

/* Called from inside the manager's start, with everything adopted. */
static void on_started(void *context)
{
	struct daemon *daemon = context;
	struct manager *manager = daemon->manager;

	if (http_server_open(daemon->config, daemon->loop, manager, daemon->listen_fd, HTTP_MEMBERS,
		    &daemon->server, &daemon->failure) < 0) {
		give_up(daemon);
		return;
	}
	daemon->listen_fd = -1;
	if (daemon->hook_fd >= 0) {
		if (http_server_open(daemon->config, daemon->loop, manager, daemon->hook_fd,
			    HTTP_STRANGERS, &daemon->hooks, &daemon->failure) < 0) {
			give_up(daemon);
			return;
		}
		daemon->hook_fd = -1;
	}
	log_info("hobd.started", "version", HOB_VERSION, "socket", daemon->config->socket,
		"adopted", manager->entry_count, "ready", manager->ready_count, "claimed",
		manager->claimed_count);
	startup_notify("READY=1");
}

/* ---- the catalog ---- */

static void on_removed(void *context, const struct error *err)
{
	struct daemon *daemon = context;

	if (err != NULL) {
		log_failure("store.remove_failed", err);
	}
	daemon->removals--;
	stop_when_clean(daemon);
}

/* The launcher may delete what belongs to sandboxes' ids; it does so in its own time. */
static int remove_by_launcher(void *context, const char *room, const char *name, struct error *err)
{
	struct daemon *daemon = context;

	(void)err;
	daemon->removals++;
	launcher_remove(daemon->launcher, room, name, on_removed, daemon);
	return 0;
}

static int open_store(struct daemon *daemon, struct error *err)
{
	struct store_sweep sweep = {0};
	int status = store_open(daemon->config->store, STORE_CREATE, &daemon->store, err);

	if (status < 0) {
		return status;
	}
	store_set_remover(daemon->store, remove_by_launcher, daemon);
	if ((status = store_recover(daemon->store, &sweep, err)) < 0) {
		return error_wrap(err, "recover the store %s", daemon->config->store);
	}
	if (sweep.staging + sweep.orphans + sweep.finished + sweep.missing + sweep.builds +
			sweep.heads >
		0) {
		log_info("store.recovered", "staging", sweep.staging, "orphans", sweep.orphans,
			"finished", sweep.finished, "missing", sweep.missing, "builds",
			sweep.builds, "heads", sweep.heads);
	}
	return 0;
}

/* ---- start and end ---- */

static int start_as_root(struct daemon *daemon, struct error *err)
{
	const struct config *config = daemon->config;
	CLEANUP(close_p) int launchers_fd = -1;
	int status;

	if ((status = startup_folders(config, err)) < 0 ||
		(status = startup_launchers_lock(config, &launchers_fd, err)) < 0 ||
		(status = launcher_start(config, launchers_fd, &daemon->launcher, err)) < 0 ||
		/* After the fork: the launcher must not hold the lock of a hobd that died. */
		(status = startup_lock(config, &daemon->lock_fd, err)) < 0 ||
		(status = startup_socket(config, &daemon->listen_fd, err)) < 0 ||
		(status = startup_hook_socket(config, &daemon->hook_fd, err)) < 0 ||
		(status = startup_program("hob-snapshots", &daemon->snapshots_program, err)) < 0 ||
		(status = startup_program("hob-build", &daemon->build_program, err)) < 0) {
		return status;
	}
	startup_descriptors(config);
	return privileges_drop(config, err);
}

static int start_as_user(struct daemon *daemon, struct error *err)
{
	int status;

	if ((status = loop_open(&daemon->loop, err)) < 0 ||
		(status = launcher_attach(
			 daemon->launcher, daemon->loop, on_launcher_lost, daemon, err)) < 0 ||
		(status = loop_add_signal(daemon->loop, SIGTERM, on_stop_signal, daemon, err)) <
			0 ||
		(status = loop_add_signal(daemon->loop, SIGINT, on_stop_signal, daemon, err)) < 0 ||
		(status = loop_add_signal(daemon->loop, SIGHUP, on_reload_signal, daemon, err)) <
			0 ||
		(status = open_store(daemon, err)) < 0) {
		return status;
	}
	daemon->stop_timer = loop_timer_new(daemon->loop, on_stop_timeout, daemon);
	return manager_open(daemon->config, daemon->loop, daemon->launcher, daemon->store,
		daemon->snapshots_program, daemon->build_program, on_started, daemon,
		&daemon->manager, err);
}

static void daemon_done(struct daemon *daemon)
{
	if (daemon->manager != NULL) {
		daemon->manager->leaving = true;
	}
	http_server_close(daemon->server);
	http_server_close(daemon->hooks);
	manager_close(daemon->manager);
	launcher_stop(daemon->launcher);
	store_close(daemon->store);
	if (daemon->loop != NULL) {
		loop_timer_free(daemon->stop_timer);
		loop_close(daemon->loop);
	}
	fd_done(&daemon->listen_fd);
	fd_done(&daemon->hook_fd);
	fd_done(&daemon->lock_fd);
	fd_done(&daemon->snapshots_program);
	fd_done(&daemon->build_program);
}

int daemon_run(const struct config *config, const struct daemon_options *options, struct error *err)
{
	struct daemon daemon = {.config = config,
		.options = options,
		.lock_fd = -1,
		.listen_fd = -1,
		.hook_fd = -1,
		.snapshots_program = -1,
		.build_program = -1};
	int status;

	/* A client that hangs up is an errno, not the end. */
	signal(SIGPIPE, SIG_IGN);
	if ((status = start_as_root(&daemon, err)) == 0 &&
		(status = start_as_user(&daemon, err)) == 0 &&
		(status = loop_run(daemon.loop, err)) == 0 && daemon.failure.kind != ERROR_NONE) {
		error_copy(err, &daemon.failure);
		status = -(int)err->kind;
	}
	daemon_done(&daemon);
	if (status == 0) {
		log_info("hobd.stopped");
	}
	return status;
}
