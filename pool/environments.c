/* Reading and watching environments. A change of many files at once is read once, a moment later.
 */
#include "pool/environments.h"

#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/builds.h"
#include "pool/demand/demand.h"
#include "pool/manager.h"
#include "pool/services.h"

#include <stdio.h>
#include <sys/inotify.h>

/* Editors write, rename and touch: wait for the last of it. */
#define RELOAD_DELAY_MS 100
#define FOLDER_EVENTS (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE)
#define HEAD_EVENTS (IN_MOVED_TO | IN_DELETE | IN_CREATE)

static bool failed_now(const struct environment_list *list, const char *file)
{
	for (size_t i = 0; i < list->failure_count; i++) {
		if (streq(list->failures[i].file, file)) {
			return true;
		}
	}
	return false;
}

static int by_name(const void *a, const void *b)
{
	const struct environment *const *first = a;
	const struct environment *const *second = b;

	return strcmp((*first)->name, (*second)->name);
}

/* Moves what `from` knows and `to` could not read any more into `to`. */
static void keep_former(struct environment_list *from, struct environment_list *to)
{
	for (size_t i = 0; i < from->count; i++) {
		struct environment *former = from->items[i];

		if (former->file == NULL || !failed_now(to, former->file) ||
			environment_list_find(to, former->name) != NULL) {
			continue;
		}
		to->items = xreallocarray(to->items, to->count + 1, sizeof(struct environment *));
		to->items[to->count++] = former;
		memmove(from->items + i, from->items + i + 1,
			(from->count - i - 1) * sizeof(struct environment *));
		from->count--;
		i--;
	}
	if (to->count > 0) {
		qsort(to->items, to->count, sizeof(struct environment *), by_name);
	}
}

static void apply(struct manager *manager)
{
	demands_outdated(manager);
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		bool had = pool->conf != NULL;

		pool->conf = environment_list_find(&manager->environments, pool->name);
		if (had && pool->conf == NULL) {
			log_info("environment.removed", "environment", pool->name);
		}
	}
	for (size_t i = 0; i < manager->environments.count; i++) {
		struct environment *conf = manager->environments.items[i];
		struct pool *pool = manager_pool(manager, conf->name);

		if (pool == NULL || pool->conf == NULL) {
			pool = manager_pool_add(manager, conf->name);
			pool->conf = conf;
		}
		if (pool->head == NULL) {
			pool_head_refresh(pool);
		}
	}
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		pool_warm_refresh(pool);
	}
	for (size_t i = 0; i < manager->environments.failure_count; i++) {
		log_failure("environment.unusable", &manager->environments.failures[i].error,
			"file", manager->environments.failures[i].file);
	}
}

void environments_reload(struct manager *manager)
{
	struct environment_list now = {0};
	struct error err = ERROR_INIT;

	if (environment_list_load(manager->config->environments, &now, &err) < 0) {
		/* An unreadable folder is an accident; draining every pool would make it worse. */
		log_failure(
			"environments.unreadable", &err, "folder", manager->config->environments);
		if (manager->started) {
			return;
		}
	}
	keep_former(&manager->environments, &now);
	environment_list_done(&manager->environments);
	manager->environments = now;
	apply(manager);
	log_info("environments.loaded", "folder", manager->config->environments, "count", now.count,
		"failures", now.failure_count);
	manager_dirty(manager);
	builds_schedule(manager);
}

static void on_reload(void *context)
{
	environments_reload(context);
}

static void on_head(struct manager *manager, const struct inotify_event *event)
{
	struct pool *pool = event->len > 0 ? manager_pool(manager, event->name) : NULL;

	if (pool != NULL) {
		pool_head_refresh(pool);
	}
}

static void refresh_heads(struct manager *manager)
{
	for (struct pool *pool = manager->pools; pool != NULL; pool = pool->next) {
		pool_head_refresh(pool);
	}
}

static void on_watch(void *context, uint32_t events)
{
	struct manager *manager = context;
	_Alignas(struct inotify_event) char batch[4096];
	ssize_t got;

	(void)events;
	while ((got = read(manager->watch_fd, batch, sizeof(batch))) > 0) {
		for (char *at = batch; at < batch + got;) {
			const struct inotify_event *event = (const void *)at;

			if ((event->mask & IN_Q_OVERFLOW) != 0) {
				refresh_heads(manager);
				loop_timer_after(manager->reload_timer, RELOAD_DELAY_MS);
			} else if (event->wd == manager->watch_heads) {
				on_head(manager, event);
			} else {
				loop_timer_after(manager->reload_timer, RELOAD_DELAY_MS);
			}
			at += sizeof(*event) + event->len;
		}
	}
}

int environments_open(struct manager *manager, struct error *err)
{
	CLEANUP(free_p) char *heads = xasprintf("%s/heads", store_path(manager->store));

	manager->reload_timer = loop_timer_new(manager->loop, on_reload, manager);
	manager->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (manager->watch_fd < 0) {
		error_sys(err, errno, "inotify_init1");
		return error_hint(err, "raise fs.inotify.max_user_instances");
	}
	manager->watch_heads = inotify_add_watch(manager->watch_fd, heads, HEAD_EVENTS);
	if (manager->watch_heads < 0) {
		return error_sys(err, errno, "watch %s", heads);
	}
	manager->watch_environments = inotify_add_watch(
		manager->watch_fd, manager->config->environments, FOLDER_EVENTS | IN_ONLYDIR);
	if (manager->watch_environments < 0) {
		log_warn("environments.unwatched", "folder", manager->config->environments,
			"message", "it cannot be watched; send SIGHUP after a change", "errno",
			strerror(errno));
	}
	/* Watched before it is read: no change falls between. */
	environments_reload(manager);
	return loop_add_fd(manager->loop, manager->watch_fd, EPOLLIN, on_watch, manager,
		&manager->watch_source, err);
}

void environments_close(struct manager *manager)
{
	loop_source_free(manager->watch_source);
	loop_timer_free(manager->reload_timer);
	fd_done(&manager->watch_fd);
	environment_list_done(&manager->environments);
}
