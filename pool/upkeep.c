/* Starting the upkeep and watching the space. What the process could not do it has logged, and it
 * remembers in the catalog when to try that again. */
#include "pool/upkeep.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/builds.h"
#include "pool/image.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"
#include "snapshots/snapshot.h"

#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>

/* What comes in a burst (a build, then its sandboxes) is one upkeep. */
#define UPKEEP_DELAY_MS 1000
/* Between two, but for space. */
#define UPKEEP_GAP_MS 5000
/* Without any event: policies go by age. */
#define UPKEEP_EVERY_MS (10 * 60 * 1000)
/* The first ones, as processes of the last hobd may die after this one has begun. */
#define UPKEEP_FIRST 3
/* While space stays short. */
#define UPKEEP_LOW_MS 30000
#define SPACE_LOOK_MS 2000
/* At the end: it stops between two steps. */
#define UPKEEP_STOP_MS 3000

struct upkeep {
	struct manager *manager;
	struct loop_timer *timer, *space_timer;
	struct loop_source *source;
	int pidfd;
	bool running, wanted;
	unsigned count; /* that have ended */
	int64_t started_ms; /* monotonic */
	struct free_space space;
	bool space_unknown;
	/* A flattening of one snapshot, beside the rest. */
	char *deep; /* the next; NULL: none */
	bool flattening;
	int flat_pidfd;
	struct loop_source *flat_source;
};

static void plan_next(struct upkeep *upkeep)
{
	int64_t now_ms = clock_mono_ms(), at_ms = upkeep->started_ms + UPKEEP_EVERY_MS;

	if (upkeep->running) {
		return;
	}
	if (upkeep->space.low && at_ms > upkeep->started_ms + UPKEEP_LOW_MS) {
		at_ms = upkeep->started_ms + UPKEEP_LOW_MS;
	}
	if (upkeep->wanted) {
		at_ms = now_ms + UPKEEP_DELAY_MS;
		if (upkeep->started_ms > 0 && at_ms < upkeep->started_ms + UPKEEP_GAP_MS) {
			at_ms = upkeep->started_ms + UPKEEP_GAP_MS;
		}
	}
	loop_timer_at(upkeep->timer, at_ms);
}

static void look_at_space(struct upkeep *upkeep)
{
	struct manager *manager = upkeep->manager;
	char text[FREE_SPACE_TEXT_SIZE];
	struct free_space space;
	struct error err = ERROR_INIT;
	bool was_low = upkeep->space.low;

	if (free_space_look(store_path(manager->store), manager->config->free_space, &space, &err) <
		0) {
		if (!upkeep->space_unknown) {
			log_failure("space.unknown", &err);
		}
		upkeep->space_unknown = true;
		return;
	}
	upkeep->space_unknown = false;
	upkeep->space = space;
	if (space.low == was_low) {
		return;
	}
	free_space_text(&space, text);
	if (space.low) {
		log_warn("space.low", "message", text, "then", "builds wait, pools shrink");
		upkeep->wanted = true;
		plan_next(upkeep);
	} else {
		log_info("space.enough", "message", text);
		builds_schedule(manager);
	}
	manager_dirty(manager);
}

static void on_space(void *context)
{
	struct upkeep *upkeep = context;

	look_at_space(upkeep);
	loop_timer_after(upkeep->space_timer, SPACE_LOOK_MS);
}

static void ended(struct upkeep *upkeep)
{
	loop_source_free(upkeep->source);
	upkeep->source = NULL;
	fd_done(&upkeep->pidfd);
	upkeep->running = false;
	upkeep->wanted = upkeep->wanted || ++upkeep->count < UPKEEP_FIRST;
	pool_snapshots_look(upkeep->manager);
	look_at_space(upkeep);
	plan_next(upkeep);
}

static void on_exit_of(void *context, uint32_t events)
{
	(void)events;
	ended(context);
}

static void on_upkeep_started(void *context, pid_t pid, int pidfd, const struct error *err)
{
	struct upkeep *upkeep = context;
	struct error failure = ERROR_INIT;

	if (err != NULL) {
		log_failure("upkeep.start_failed", err);
		ended(upkeep);
		return;
	}
	log_debug("upkeep.started", "pid", pid);
	upkeep->pidfd = pidfd;
	if (loop_add_fd(upkeep->manager->loop, pidfd, EPOLLIN, on_exit_of, upkeep, &upkeep->source,
		    &failure) < 0) {
		log_failure("upkeep.unwatched", &failure);
		ended(upkeep);
	}
}

static void on_time(void *context)
{
	struct upkeep *upkeep = context;

	if (upkeep->running || upkeep->manager->stopping) {
		return;
	}
	if (!upkeep->manager->started) {
		loop_timer_after(upkeep->timer, UPKEEP_DELAY_MS);
		return;
	}
	upkeep->running = true;
	upkeep->wanted = false;
	upkeep->started_ms = clock_mono_ms();
	launcher_upkeep(upkeep->manager->launcher, on_upkeep_started, upkeep);
}

/* ---- a deep snapshot ---- */

static void flatten_next(struct upkeep *upkeep);

static void flatten_ended(struct upkeep *upkeep)
{
	loop_source_free(upkeep->flat_source);
	upkeep->flat_source = NULL;
	fd_done(&upkeep->flat_pidfd);
	upkeep->flattening = false;
	pool_snapshots_look(upkeep->manager);
	flatten_next(upkeep);
}

static void on_flatten_exit(void *context, uint32_t events)
{
	(void)events;
	flatten_ended(context);
}

static void on_flatten_started(void *context, pid_t pid, int pidfd, const struct error *err)
{
	struct upkeep *upkeep = context;
	struct error failure = ERROR_INIT;

	(void)pid;
	if (err != NULL) {
		log_failure("upkeep.flatten_not_started", err);
		flatten_ended(upkeep);
		return;
	}
	upkeep->flat_pidfd = pidfd;
	if (loop_add_fd(upkeep->manager->loop, pidfd, EPOLLIN, on_flatten_exit, upkeep,
		    &upkeep->flat_source, &failure) < 0) {
		log_failure("upkeep.unwatched", &failure);
		flatten_ended(upkeep);
	}
}

/* What fails is upkeep's, which tries again later and says so. */
static void flatten_next(struct upkeep *upkeep)
{
	CLEANUP(free_p) char *name = NULL;

	if (upkeep->flattening || upkeep->deep == NULL || upkeep->manager->stopping ||
		upkeep->space.low) {
		return;
	}
	name = steal_ptr(upkeep->deep);
	upkeep->flattening = true;
	log_info("upkeep.flattens", "snapshot", name);
	launcher_flatten(upkeep->manager->launcher, name, on_flatten_started, upkeep);
}

void upkeep_taken(struct manager *manager, const json_t *about)
{
	struct upkeep *upkeep = manager->upkeep;
	const char *id = json_string_value(json_object_get(about, "id"));

	upkeep_want(manager);
	if (upkeep != NULL && id != NULL &&
		json_integer_value(json_object_get(about, "layer_count")) > SNAPSHOT_LAYERS_GOOD) {
		free(upkeep->deep);
		upkeep->deep = xstrdup(id);
		flatten_next(upkeep);
	}
}

void upkeep_want(struct manager *manager)
{
	struct upkeep *upkeep = manager->upkeep;

	if (upkeep != NULL && !upkeep->wanted) {
		upkeep->wanted = true;
		plan_next(upkeep);
	}
}

bool space_is_low(const struct manager *manager)
{
	return manager->upkeep != NULL && manager->upkeep->space.low;
}

const struct free_space *space_of(const struct manager *manager)
{
	static const struct free_space unknown;

	return manager->upkeep != NULL ? &manager->upkeep->space : &unknown;
}

void upkeep_open(struct manager *manager)
{
	struct upkeep *upkeep = xcalloc(1, sizeof(*upkeep));

	upkeep->manager = manager;
	upkeep->pidfd = -1;
	upkeep->flat_pidfd = -1;
	upkeep->timer = loop_timer_new(manager->loop, on_time, upkeep);
	upkeep->space_timer = loop_timer_new(manager->loop, on_space, upkeep);
	manager->upkeep = upkeep;
	on_space(upkeep);
	upkeep_want(manager);
}

/* The store is whole whenever the process ends, but who stops hobd wants it left alone then. */
static void stop_process(int pidfd)
{
	struct pollfd ended_fd = {.fd = pidfd, .events = POLLIN};

	if (pidfd >= 0 && pidfd_send_signal(pidfd, SIGTERM, NULL, 0) == 0) {
		(void)poll(&ended_fd, 1, UPKEEP_STOP_MS);
	}
}

void upkeep_close(struct manager *manager)
{
	struct upkeep *upkeep = manager->upkeep;

	if (upkeep == NULL) {
		return;
	}
	manager->upkeep = NULL;
	stop_process(upkeep->pidfd);
	stop_process(upkeep->flat_pidfd);
	loop_source_free(upkeep->source);
	loop_source_free(upkeep->flat_source);
	fd_done(&upkeep->flat_pidfd);
	free(upkeep->deep);
	loop_timer_free(upkeep->timer);
	loop_timer_free(upkeep->space_timer);
	fd_done(&upkeep->pidfd);
	free(upkeep);
}
