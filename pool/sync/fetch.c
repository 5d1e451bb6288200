/* What a fetch found comes as a small file of hob-build's, mirrors/<environment>.json: it cannot be
 * this process's child, since only root may read some sources. */
#include "pool/sync/fetch.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "pool/image.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"
#include "snapshots/store.h"

#include <fcntl.h>

#define FOUND_MAX 65536
#define REF_SIZE 256

struct newest {
	char commit[COMMIT_TEXT_SIZE];
	char ref[REF_SIZE];
};

struct source_state {
	struct newest *items;
	size_t count;
	int64_t seen_ms; /* real */
	int64_t fetched_ms; /* monotonic: the last one that succeeded was started; 0: none */
	int64_t started_ms, started_real_ms; /* of the one that runs */
	bool running;
	int pidfd;
	struct loop_source *pidfd_source;
	struct fetch_wait *waits;
};

static struct source_state *state_of(struct pool *pool)
{
	if (pool->source == NULL) {
		pool->source = xcalloc(1, sizeof(*pool->source));
		pool->source->pidfd = -1;
	}
	return pool->source;
}

void source_state_free(struct source_state *state)
{
	if (state == NULL) {
		return;
	}
	loop_source_free(state->pidfd_source);
	fd_done(&state->pidfd);
	free(state->items);
	free(state);
}

bool fetch_is_running(const struct pool *pool)
{
	return pool->source != NULL && pool->source->running;
}

size_t newest_count(const struct pool *pool)
{
	return pool->source != NULL ? pool->source->count : 0;
}

const char *newest_commit(const struct pool *pool, size_t source)
{
	return source < newest_count(pool) ? pool->source->items[source].commit : NULL;
}

const char *newest_ref(const struct pool *pool, size_t source)
{
	return source < newest_count(pool) ? pool->source->items[source].ref : NULL;
}

int64_t newest_seen_ms(const struct pool *pool)
{
	return pool->source != NULL ? pool->source->seen_ms : 0;
}

/* ---- what was found ---- */

static void newest_set(struct source_state *state, struct newest *items, size_t count, int64_t ms)
{
	bool same = count == state->count;

	for (size_t i = 0; same && i < count; i++) {
		same = streq(items[i].commit, state->items[i].commit);
	}
	if (!same) {
		state->seen_ms = ms;
	}
	free(state->items);
	state->items = items;
	state->count = count;
}

void newest_note_head(struct pool *pool, const struct pool_image *head)
{
	struct source_state *state = state_of(pool);
	struct newest *items;

	if (head == NULL || head->source_count == 0 || state->seen_ms > head->created_ms) {
		return;
	}
	items = xcalloc(head->source_count, sizeof(*items));
	for (size_t i = 0; i < head->source_count; i++) {
		memcpy(items[i].commit, head->sources[i].commit, sizeof(items[i].commit));
		memccpy(items[i].ref, head->sources[i].ref, '\0', REF_SIZE - 1);
	}
	newest_set(state, items, head->source_count, head->created_ms);
}

static bool text_take(const json_t *json, const char *key, char *to, size_t size)
{
	const char *text = json_string_value(json_object_get(json, key));

	if (text == NULL || strlen(text) >= size) {
		return false;
	}
	memcpy(to, text, strlen(text) + 1);
	return true;
}

static int take_sources(struct source_state *state, const json_t *list, struct error *err)
{
	size_t count = json_array_size(list);
	CLEANUP(free_p) struct newest *items = xcalloc(count + 1, sizeof(*items));

	for (size_t i = 0; i < count; i++) {
		const json_t *item = json_array_get(list, i);

		if (!text_take(item, "commit", items[i].commit, sizeof(items[i].commit)) ||
			!text_take(item, "ref", items[i].ref, sizeof(items[i].ref)) ||
			!sha1_is_valid(items[i].commit)) {
			return error_set(err, ERROR_CORRUPT, "what a fetch found makes no sense");
		}
	}
	newest_set(state, steal_ptr(items), count, clock_real_ms());
	return 0;
}

static int take_found(struct pool *pool, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("mirrors/%s.json", pool->name);
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct source_state *state = pool->source;
	struct buffer text;
	const json_t *failure;
	int64_t started_ms = 0;
	int status;

	buffer_init(&text, FOUND_MAX);
	status = io_read_file(store_fd(pool->manager->store), path, &text, err);
	if (status == 0) {
		status = json_parse_object(buffer_text(&text), text.length, &json, err);
	}
	buffer_done(&text);
	if (status == 0) {
		status = json_get_int(json, "started_ms", 0, INT64_MAX, &started_ms, err);
	}
	if (status < 0 || started_ms < state->started_real_ms) {
		/* One of an earlier fetch, or none: this one ended before it could say why. */
		error_set(err, ERROR_FAILED, "the sources of \"%s\" could not be fetched",
			pool->name);
		return error_hint(err, "hob-build --fetch %s says why", pool->name);
	}
	failure = json_object_get(json, "error");
	return failure != NULL ? json_to_error(failure, ERROR_FAILED, "the fetch failed", err)
			       : take_sources(state, json_object_get(json, "sources"), err);
}

/* ---- the fetch ---- */

static void tell_all(struct pool *pool, const struct error *err)
{
	while (pool->source->waits != NULL) {
		struct fetch_wait *wait = pool->source->waits;

		pool->source->waits = wait->next;
		wait->pool = NULL;
		wait->done(wait, err);
	}
}

static void fetch_over(struct pool *pool, const struct error *err)
{
	struct source_state *state = pool->source;

	loop_source_free(state->pidfd_source);
	state->pidfd_source = NULL;
	fd_done(&state->pidfd);
	state->running = false;
	if (err == NULL) {
		state->fetched_ms = state->started_ms;
		log_info("source.fetched", "environment", pool->name, "commit",
			state->count > 0 ? state->items[0].commit : "", "ms",
			clock_mono_ms() - state->started_ms);
	} else {
		log_failure("source.fetch_failed", err, "environment", pool->name);
	}
	tell_all(pool, err);
	manager_dirty(pool->manager);
}

static void on_exit_(void *context, uint32_t events)
{
	struct pool *pool = context;
	struct error err = ERROR_INIT;

	(void)events;
	fetch_over(pool, take_found(pool, &err) < 0 ? &err : NULL);
}

static void on_started(void *context, pid_t pid, int pidfd, const struct error *err)
{
	struct pool *pool = context;
	struct error failure = ERROR_INIT;

	(void)pid;
	if (err != NULL) {
		fetch_over(pool, err);
		return;
	}
	pool->source->pidfd = pidfd;
	if (loop_add_fd(pool->manager->loop, pidfd, EPOLLIN, on_exit_, pool,
		    &pool->source->pidfd_source, &failure) < 0) {
		fetch_over(pool, &failure);
	}
}

void fetch_newest(struct pool *pool, int64_t max_age_ms, struct fetch_wait *wait,
	void (*done)(struct fetch_wait *wait, const struct error *err))
{
	struct source_state *state = state_of(pool);
	int64_t now = clock_mono_ms();

	if (!state->running && state->fetched_ms > 0 && now - state->fetched_ms < max_age_ms) {
		done(wait, NULL);
		return;
	}
	*wait = (struct fetch_wait){.pool = pool, .next = state->waits, .done = done};
	state->waits = wait;
	if (!state->running) {
		state->running = true;
		state->started_ms = now;
		state->started_real_ms = clock_real_ms();
		(void)fault_point("sync.fetch");
		launcher_build(pool->manager->launcher, pool->name, BUILD_FETCH, on_started, pool);
	}
}

void fetch_forget(struct fetch_wait *wait)
{
	struct fetch_wait **at;

	if (wait->pool == NULL) {
		return;
	}
	for (at = &wait->pool->source->waits; *at != wait; at = &(*at)->next) {
	}
	*at = wait->next;
	wait->pool = NULL;
}
