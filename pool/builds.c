/* Starting builds. build_started_ms keeps an environment whose hob-build never gets as far as a
 * record in the catalog from being started in a tight loop. */
#include "pool/builds.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "configs/schedule.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"
#include "pool/upkeep.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/pidfd.h>

/* Look again at least this often: clocks are set, and other programs build too. */
#define SCHEDULE_MAX_MS (10 * 60 * 1000)

struct schedule build_schedule(const struct pool *pool)
{
	return pool->conf != NULL ? schedule_of(pool->conf, pool->manager->config->build_every_ms)
				  : (struct schedule){0};
}

int64_t build_next_due_ms(const struct pool *pool)
{
	struct error err = ERROR_INIT;
	struct schedule schedule = build_schedule(pool);
	int64_t last_ms = 0, at;

	if (build_last_started(pool->manager->store, pool->name, &last_ms, &err) < 0) {
		log_failure("build.schedule_failed", &err, "environment", pool->name);
	}
	if (pool->build_started_ms > last_ms) {
		last_ms = pool->build_started_ms;
	}
	at = schedule_next_ms(pool->name, &schedule, last_ms);
	if (pool->build_started_ms > 0 && at < pool->build_started_ms + BUILD_GAP_MS) {
		at = pool->build_started_ms + BUILD_GAP_MS;
	}
	return at;
}

static void build_over(struct pool *pool)
{
	loop_source_free(pool->build_source);
	pool->build_source = NULL;
	fd_done(&pool->build_pidfd);
	pool->build_running = false;
	pool->manager->builds_running--;
	pool_head_refresh(pool);
	builds_schedule(pool->manager);
	upkeep_want(pool->manager);
	manager_dirty(pool->manager);
}

/* The outcome is in the catalog: how the process ended does not tell. */
static void build_count(struct pool *pool)
{
	struct build *builds = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;

	if (build_list(pool->manager->store, pool->name, 1, &builds, &count, &err) < 0) {
		log_failure("build.not_counted", &err, "environment", pool->name);
	} else if (count > 0) {
		pool->builds_ended[builds[0].state]++;
	}
	for (size_t i = 0; i < count; i++) {
		build_done(&builds[i]);
	}
	free(builds);
}

static void on_build_exit(void *context, uint32_t events)
{
	struct pool *pool = context;

	(void)events;
	log_info("build.ended", "environment", pool->name, "ms",
		clock_real_ms() - pool->build_started_ms);
	build_count(pool);
	build_over(pool);
}

static void on_build_started(void *context, pid_t pid, int pidfd, const struct error *err)
{
	struct pool *pool = context;
	struct error failure = ERROR_INIT;

	if (err != NULL) {
		log_failure("build.start_failed", err, "environment", pool->name);
		build_over(pool);
		return;
	}
	log_info("build.started", "environment", pool->name, "pid", pid);
	pool->build_pidfd = pidfd;
	if (loop_add_fd(pool->manager->loop, pidfd, EPOLLIN, on_build_exit, pool,
		    &pool->build_source, &failure) < 0) {
		log_failure("build.unwatched", &failure, "environment", pool->name);
		build_over(pool);
	}
}

static void build_start(struct pool *pool)
{
	bool scheduled = !pool->build_queued || !pool->build_asked;

	pool->build_queued = false;
	pool->build_asked = false;
	pool->build_spared = pool->build_told;
	pool->build_told = false;
	pool->build_running = true;
	pool->build_started_ms = clock_real_ms();
	pool->manager->builds_running++;
	(void)fault_point("build.start");
	launcher_build(pool->manager->launcher, pool->name,
		scheduled ? BUILD_SCHEDULED : BUILD_ASKED, on_build_started, pool);
}

static bool may_start(const struct pool *pool)
{
	return pool->conf != NULL && !pool->build_running && !pool->manager->stopping &&
	       !space_is_low(pool->manager) &&
	       pool->manager->builds_running < pool->manager->config->max_builds;
}

void builds_schedule(struct manager *manager)
{
	int64_t now = clock_real_ms();
	int64_t wait = SCHEDULE_MAX_MS;

	if (!manager->started) {
		return;
	}
	/* Those asked for go before those that are only due. */
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		if (pool->build_queued && may_start(pool)) {
			build_start(pool);
		}
	}
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		int64_t due = pool->build_running ? INT64_MAX : build_next_due_ms(pool);

		if (due <= now && may_start(pool)) {
			build_start(pool);
		} else if (due > now && due - now < wait) {
			wait = due - now;
		}
	}
	loop_timer_after(manager->build_timer, wait);
}

/*
 * Leaves the commit for the running build, which reads it at the signal and gives up if it builds
 * another one. The build after one that was told is spared: where pushes come faster than builds
 * end, every second one still ends.
 */
static void build_tell(struct pool *pool, const char *commit)
{
	CLEANUP(free_p) char *path = xasprintf("builds/%s.news", pool->name);
	CLEANUP(close_p) int fd = -1;
	struct error err = ERROR_INIT;

	if (pool->build_pidfd < 0 || pool->build_spared) {
		return;
	}
	fd = io_open(store_fd(pool->manager->store), path,
		O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600, &err);
	if (fd < 0 || io_write_full(fd, commit, strlen(commit), &err) < 0) {
		log_failure("build.untold", &err, "environment", pool->name);
		return;
	}
	if (pidfd_send_signal(pool->build_pidfd, SIGUSR1, NULL, 0) == 0) {
		pool->build_told = true;
		log_info("build.told", "environment", pool->name, "commit", commit);
	}
}

bool build_request(struct pool *pool, const char *commit)
{
	pool->build_queued = true;
	pool->build_asked = true;
	if (may_start(pool)) {
		build_start(pool);
		return true;
	}
	if (pool->build_running && commit != NULL) {
		build_tell(pool, commit);
	}
	return false;
}

int build_cancel(struct manager *manager, const char *id, struct error *err)
{
	CLEANUP(close_p) int pidfd = -1;
	struct build build = {0};
	int status = build_get(manager->store, id, &build, err);

	if (status == 0 && build.state == BUILD_RUNNING) {
		pidfd = pidfd_open((pid_t)build.pid, 0);
		build_done(&build);
		/* It runs still: the descriptor is of its process, not of a later one. */
		status = build_get(manager->store, id, &build, err);
	}
	if (status < 0) {
		return status;
	}
	if (build.state != BUILD_RUNNING || pidfd < 0) {
		error_set(err, ERROR_CONFLICT, "%s does not run: it is %s", id,
			build.state == BUILD_RUNNING ? "dead, which the next build records"
						     : build_state_name(build.state));
		status = -(int)err->kind;
	} else if (pidfd_send_signal(pidfd, SIGTERM, NULL, 0) < 0) {
		status = error_sys(err, errno, "signal the process of %s", id);
	}
	build_done(&build);
	return status;
}

bool build_unqueue(struct pool *pool)
{
	bool was = pool->build_queued;

	pool->build_queued = false;
	pool->build_asked = false;
	return was;
}

static void on_due(void *context)
{
	builds_schedule(context);
}

void builds_open(struct manager *manager)
{
	manager->build_timer = loop_timer_new(manager->loop, on_due, manager);
}

void builds_close(struct manager *manager)
{
	loop_timer_free(manager->build_timer);
}
