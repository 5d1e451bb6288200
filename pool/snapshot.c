/* Jobs. One is freed when its process has ended and the launcher has nothing to answer any more, in
 * whichever order; its outcome is settled by then. */
#include "pool/snapshot.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "base/process.h"
#include "configs/config.h"
#include "pool/entry.h"
#include "pool/events.h"
#include "pool/freeze.h"
#include "pool/image.h"
#include "pool/lifecycle.h"
#include "pool/manager.h"
#include "pool/sandbox/sandbox.h"
#include "pool/snapshot_commits.h"
#include "pool/upkeep.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* A line of the process; the longest has the metadata. */
#define LINE_MAX_BYTES (256u << 10)
/* A sandbox that is slow to end: 20 ms, doubled each time, some 40 s in all. */
#define KEEP_RETRY_MS 10
#define KEEP_ATTEMPTS_MAX 12
#define WORKER "hob-snapshots"

struct snapshot_job {
	struct manager *manager;
	struct snapshot_job *next;
	struct entry_use use; /* of a running sandbox, which is not idle meanwhile */
	struct entry *entry; /* NULL: released, and the launcher does not copy it any more */
	struct pool_image *image; /* counted: the layers below */
	struct pool_image *previous; /* counted: the snapshot taken of it before, or NULL */
	char id[ID_SIZE]; /* of the sandbox */
	uint32_t slot;
	struct snapshot_commits commits;
	int64_t started_us;
	pid_t pid;
	int pidfd, fd;
	struct loop_source *pidfd_source, *source;
	struct buffer heard;
	char staging[ID_SIZE];
	bool launching; /* the launcher's answer is still to come */
	bool exited; /* the process */
	bool keep; /* at its end; not a copy of a running one */
	int64_t max_pause_us;
	unsigned attempts;
	struct loop_timer *timer; /* keep: the next attempt */
	bool told; /* everything is made; it may commit */
	bool cleaned; /* what is left in staging was given to the launcher */
	json_t *about; /* it is committed */
	int64_t layer; /* that it has become */
	struct error failure;
	struct sandbox_copied copied;
	snapshot_done_fn *fn; /* NULL: nobody waits */
	void *context;
};

/* The sandbox is no longer the job's; a release that waited for this goes on. */
static void detach(struct snapshot_job *job)
{
	struct entry *entry = job->entry;

	entry_use_end(&job->use);
	if (entry != NULL) {
		job->entry = NULL;
		entry->snapshot_job = NULL;
		if (!job->keep && !job->manager->closing) {
			entry_end(entry);
		}
	}
}

static void on_renamed(void *context, const struct error *err);

static void job_free(struct snapshot_job *job)
{
	struct manager *manager = job->manager;
	struct snapshot_job **at = &manager->snapshot_jobs;

	while (*at != job) {
		at = &(*at)->next;
	}
	*at = job->next;
	detach(job);
	loop_timer_free(job->timer);
	loop_source_free(job->pidfd_source);
	loop_source_free(job->source);
	fd_done(&job->pidfd);
	fd_done(&job->fd);
	buffer_done(&job->heard);
	json_decref(job->about);
	snapshot_commits_done(&job->commits);
	pool_image_put(job->image);
	pool_image_put(job->previous);
	free(job);
	manager_check_stopped(manager);
}

static void on_removed(void *context, const struct error *err)
{
	struct manager *manager = context;

	if (err != NULL) {
		log_failure("snapshot.leftover", err);
	}
	manager->removals--;
	manager_check_stopped(manager);
}

static void remove_left(struct snapshot_job *job, const char *room, const char *name)
{
	if ((streq(room, "staging") || streq(room, "layers")) && name_is_valid(name)) {
		job->cleaned = true;
		job->manager->removals++;
		launcher_remove(job->manager->launcher, room, name, on_removed, job->manager);
	}
}

/* Its process was killed, by somebody or by a fault: what it left is swept as at a start. */
static void sweep_after(struct snapshot_job *job)
{
	struct store_sweep sweep;
	struct error err = ERROR_INIT;

	if (job->about == NULL && !job->cleaned && *job->staging != '\0' &&
		store_recover(job->manager->store, &sweep, &err) < 0) {
		log_failure("snapshot.sweep_failed", &err, "sandbox", job->id);
	}
}

static void job_finish(struct snapshot_job *job)
{
	struct snapshot_result result = {.about = job->about,
		.pause_us = job->copied.pause_us,
		.copy_us = job->copied.total_us,
		.took_us = clock_mono_us() - job->started_us};
	snapshot_done_fn *fn = job->fn;

	if (job->launching || !job->exited) {
		return;
	}
	sweep_after(job);
	if (job->about == NULL && job->failure.kind == ERROR_NONE) {
		error_set(&job->failure, ERROR_FAILED,
			"the process that took the snapshot of %s ended early", job->id);
	}
	if (job->about != NULL) {
		const char *name = json_string_value(json_object_get(job->about, "id"));

		result.id = name != NULL ? strtoll(name + strlen("snap-"), NULL, 10) : 0;
		if (job->entry != NULL) {
			job->entry->last_snapshot = result.id;
			job->entry->last_layer = job->layer;
			event_add(job->entry, EVENT_SNAPSHOT,
				json_pack("{s:o}", "snapshot", json_str_or_null(name)));
		}
		detach(job);
		job->manager->snapshots_taken++;
		log_info("snapshot.taken", "sandbox", job->id, "snapshot", name, "pause_us",
			result.pause_us, "copy_us", result.copy_us, "us", result.took_us);
		upkeep_taken(job->manager, job->about);
		if (fn != NULL) {
			fn(job->context, &result, NULL);
		}
	} else {
		if (job->entry != NULL) {
			event_add_error(job->entry, EVENT_SNAPSHOT, &job->failure);
		}
		detach(job);
		log_failure("snapshot.failed", &job->failure, "sandbox", job->id);
		if (fn != NULL) {
			fn(job->context, NULL, &job->failure);
		}
	}
	job_free(job);
}

static int tell(struct snapshot_job *job, json_t *json, struct error *err)
{
	CLEANUP(json_decref_p) json_t *line = json;
	CLEANUP(free_p) char *text = json_text(line);
	size_t length = strlen(text), put = 0;

	text[length++] = '\n'; /* in place of its end */
	while (put < length) {
		/* The socket's buffer holds the two lines that are ever written. */
		ssize_t sent = send(job->fd, text + put, length - put, MSG_NOSIGNAL);

		if (sent < 0) {
			return error_sys(err, errno, "tell " WORKER);
		}
		put += (size_t)sent;
	}
	return 0;
}

/* The first failure counts. The process undoes what it did when its input ends, but not before the
 * launcher has stopped writing there. */
static void job_fail(struct snapshot_job *job, const struct error *err)
{
	if (job->failure.kind == ERROR_NONE && !job->told) {
		error_copy(&job->failure, err);
	}
	if (!job->launching && !job->told) {
		struct error ignored = ERROR_INIT;

		/* The end alone is what our own death would be, after which the next hobd goes on.
		 */
		(void)!tell(job, json_pack("{s:b}", "give_up", 1), &ignored);
		(void)shutdown(job->fd, SHUT_WR);
	}
}

/* ---- the sandbox ---- */

static json_t *layer_ids(const struct pool_image *image)
{
	json_t *ids = json_array();

	for (size_t i = 0; i < image->layer_count; i++) {
		json_array_append_new(ids, json_integer((json_int_t)image->layers[i].id));
	}
	return ids;
}

/* The tree is complete. */
static void commit(struct snapshot_job *job)
{
	struct error err = ERROR_INIT;
	json_t *made = json_pack("{s:o, s:I, s:I, s:I, s:I}", "layers", layer_ids(job->image),
		"id_base", (json_int_t)launcher_slot_base(job->manager->launcher, job->slot),
		"id_count", (json_int_t)ID_RANGE, "files", (json_int_t)job->copied.files, "bytes",
		(json_int_t)job->copied.bytes);

	snapshot_commits_tell(&job->commits, job->entry, made);
	if (tell(job, made, &err) < 0) {
		job_fail(job, &err);
	} else {
		job->told = true;
	}
}

static void on_made(void *context, const struct sandbox_copied *copied, const struct error *err)
{
	struct snapshot_job *job = context;

	job->launching = false;
	(void)fault_point("snapshot.made");
	job->entry->copying = false;
	entry_end(job->entry);
	if (err != NULL) {
		job_fail(job, err);
	} else if (job->failure.kind != ERROR_NONE) {
		job_fail(job, &job->failure);
	} else if (!job->exited) {
		job->copied = *copied;
		commit(job);
	}
	job_finish(job);
}

static void on_lost(struct entry_use *use, const struct error *err)
{
	struct snapshot_job *job = container_of(use, struct snapshot_job, use);

	job_fail(job, err);
	if (job->launching) {
		/* The release waits for the launcher's answer. */
		CLEANUP(free_p)
		char *path = xasprintf("staging/%s/" SNAPSHOT_CANCEL_NAME, job->staging);

		(void)!mkdirat(store_fd(job->manager->store), path, 0700);
	}
}

/* ---- what is kept at the end ---- */

static void keep(void *context)
{
	struct snapshot_job *job = context;

	(void)fault_point("snapshot.keep");
	job->launching = true;
	sandbox_keep(job->manager->launcher, job->id, job->staging, on_renamed, job);
}

static void on_renamed(void *context, const struct error *err)
{
	struct snapshot_job *job = context;

	job->launching = false;
	(void)fault_point("snapshot.made");
	if (err != NULL && (err->kind == ERROR_BUSY || err->kind == ERROR_UNAVAILABLE) &&
		++job->attempts < KEEP_ATTEMPTS_MAX && !job->exited) {
		loop_timer_after(job->timer, KEEP_RETRY_MS << job->attempts);
		return;
	}
	if (err != NULL) {
		job_fail(job, err);
	} else if (!job->exited) {
		commit(job);
	}
	job_finish(job);
}

/* The layer of the copy before this one, as long as it is there: leased until the job's end. */
static int64_t previous_layer(struct snapshot_job *job)
{
	CLEANUP(free_p) char *name = xasprintf("snap-%" PRId64, job->entry->last_snapshot);
	const struct pool_image *previous;
	struct error err = ERROR_INIT;

	if (job->entry->last_snapshot == 0 ||
		pool_snapshot_find(job->manager, name, &job->previous, &err) < 0) {
		return 0;
	}
	previous = job->previous;
	return previous->layer_count > 0 && previous->layers[previous->layer_count - 1].id ==
						    job->entry->last_layer
		       ? job->entry->last_layer
		       : 0;
}

static void make(struct snapshot_job *job, const char *staging)
{
	if (job->failure.kind != ERROR_NONE || job->entry == NULL ||
		strlen(staging) >= sizeof(job->staging)) {
		return;
	}
	memcpy(job->staging, staging, strlen(staging) + 1);
	snapshot_commits_note(&job->commits, job->entry);
	if (job->keep) {
		keep(job);
		return;
	}
	(void)fault_point("snapshot.make");
	if (job->entry->record.state == ENTRY_CLAIMED) {
		entry_thaw_due(job->entry); /* not in the middle of the copying */
	}
	job->launching = true;
	job->entry->copying = true;
	sandbox_snapshot(job->manager->launcher, job->id, job->staging, previous_layer(job),
		job->max_pause_us, on_made, job);
}

/* ---- the process ---- */

static void on_line(struct snapshot_job *job, const char *line, size_t length)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT;
	const char *staging, *name, *room;

	if (json_parse_object(line, length, &json, &err) < 0) {
		log_failure("snapshot.nonsense", &err, "sandbox", job->id);
		return;
	}
	staging = json_string_value(json_object_get(json, "staging"));
	name = json_string_value(json_object_get(json, "remove"));
	room = json_string_value(json_object_get(json, "room"));
	if (staging != NULL) {
		make(job, staging);
	} else if (name != NULL && room != NULL) {
		remove_left(job, room, name);
	} else if (json_object_get(json, "snapshot") != NULL) {
		job->about = json_incref(json_object_get(json, "snapshot"));
		job->layer = json_integer_value(json_object_get(json, "layer"));
	} else if (json_object_get(json, "error") != NULL && job->failure.kind == ERROR_NONE) {
		json_to_error(json_object_get(json, "error"), ERROR_INTERNAL, WORKER " failed",
			&job->failure);
	}
}

static void take_lines(struct snapshot_job *job)
{
	char *end;

	while ((end = memchr(job->heard.data, '\n', job->heard.length)) != NULL) {
		size_t length = (size_t)(end - job->heard.data);
		CLEANUP(free_p) char *line = xstrndup(job->heard.data, length);

		buffer_consume(&job->heard, length + 1);
		on_line(job, line, length);
	}
}

/* False at its end. */
static bool hear(struct snapshot_job *job)
{
	char chunk[4096];
	ssize_t got;

	while ((got = recv(job->fd, chunk, sizeof(chunk), MSG_DONTWAIT)) > 0) {
		if (!buffer_add(&job->heard, chunk, (size_t)got)) {
			return false;
		}
		take_lines(job);
	}
	return got < 0 && (errno == EAGAIN || errno == EINTR);
}

static void on_heard(void *context, uint32_t events)
{
	struct snapshot_job *job = context;

	(void)events;
	if (!hear(job)) {
		loop_source_free(job->source);
		job->source = NULL;
	}
}

static void on_exit_of(void *context, uint32_t events)
{
	struct snapshot_job *job = context;
	struct error err = ERROR_INIT;
	int code = 0;

	(void)events;
	(void)hear(job);
	loop_source_free(job->source);
	job->source = NULL;
	loop_source_free(job->pidfd_source);
	job->pidfd_source = NULL;
	if (process_wait(job->pid, &code, &err) < 0) {
		log_failure("snapshot.unreaped", &err, "sandbox", job->id);
	}
	job->exited = true;
	job_finish(job);
}

static int start_process(struct snapshot_job *job, struct error *err)
{
	CLEANUP(close_p) int theirs = -1;
	struct process_spec spec = {.program_fd = job->manager->snapshots_program, .stderr_fd = -1};
	int pair[2];
	char *argv[] = {(char *)(uintptr_t)WORKER, (char *)(uintptr_t) "take",
		(char *)(uintptr_t) "--store", (char *)(uintptr_t)job->manager->config->store,
		NULL};

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		return error_sys(err, errno, "make a socket pair");
	}
	job->fd = pair[0];
	theirs = pair[1];
	spec.argv = argv;
	spec.stdin_fd = theirs;
	spec.stdout_fd = theirs;
	return process_spawn(&spec, &job->pid, &job->pidfd, err);
}

static int start_worker(
	struct snapshot_job *job, const struct snapshot_order *order, struct error *err)
{
	struct loop *loop = job->manager->loop;
	json_t *what;
	int status = start_process(job, err);

	if (status < 0) {
		return status;
	}
	if ((status = loop_add_fd(loop, job->fd, EPOLLIN, on_heard, job, &job->source, err)) < 0 ||
		(status = loop_add_fd(loop, job->pidfd, EPOLLIN, on_exit_of, job,
			 &job->pidfd_source, err)) < 0) {
		return status;
	}
	what = json_pack("{s:s, s:s, s:I, s:I, s:s, s:s}", "sandbox", job->id, "environment",
		job->image->environment, "image", (json_int_t)job->image->id, "parent",
		(json_int_t)job->image->snapshot_id, "reason", snapshot_reason_name(order->reason),
		"label", order->label != NULL ? order->label : "");
	if (job->keep) {
		json_object_set_new(what, "keep", json_true());
	}
	if (order->metadata != NULL) {
		json_object_set_new(what, "metadata", json_deep_copy(order->metadata));
	}
	return tell(job, what, err);
}

static int job_start(struct entry *entry, const struct snapshot_order *order, bool keep_it,
	struct snapshot_job **ret_job, struct error *err)
{
	struct manager *manager = entry->manager;
	struct snapshot_job *job = xcalloc(1, sizeof(*job));
	int status;

	job->manager = manager;
	job->next = manager->snapshot_jobs;
	manager->snapshot_jobs = job;
	job->image = pool_image_ref(entry_base(entry));
	memcpy(job->id, entry->record.id, sizeof(job->id));
	job->slot = entry->record.slot;
	job->started_us = clock_mono_us();
	job->keep = keep_it;
	job->max_pause_us = order->max_pause_ms * 1000;
	job->pidfd = -1;
	job->fd = -1;
	buffer_init(&job->heard, LINE_MAX_BYTES);
	status = start_worker(job, order, err);
	if (status < 0) {
		if (job->pid > 0) {
			struct error ignored = ERROR_INIT;
			int code;

			(void)kill(job->pid, SIGKILL);
			(void)!process_wait(job->pid, &code, &ignored);
		}
		job_free(job);
		return status;
	}
	job->entry = entry;
	entry->snapshot_job = job;
	*ret_job = job;
	return 0;
}

int snapshot_start(struct entry *entry, const struct snapshot_order *order, snapshot_done_fn *fn,
	void *context, struct snapshot_job **ret_job, struct error *err)
{
	struct snapshot_job *job = NULL;
	bool paused = entry->record.state == ENTRY_PAUSED; /* and stays so: its files are there */
	int status = paused ? 0 : entry_check_usable(entry, err);

	if (status < 0) {
		return status;
	}
	if (entry->snapshot_job != NULL) {
		error_set(err, ERROR_CONFLICT, "a snapshot of %s is being taken already",
			entry->record.id);
		return error_hint(err, "try again when it has ended");
	}
	status = free_space_check(space_of(entry->manager), err);
	if (status == 0) {
		status = job_start(entry, order, false, &job, err);
	}
	if (status < 0) {
		return status;
	}
	entry_use_begin(entry, &job->use, paused || order->only_looks, on_lost);
	job->fn = fn;
	job->context = context;
	*ret_job = job;
	return 0;
}

int snapshot_keep(struct entry *entry, snapshot_done_fn *fn, void *context, struct error *err)
{
	struct snapshot_job *job = NULL;
	int status = job_start(
		entry, &(struct snapshot_order){.reason = SNAPSHOT_EXIT}, true, &job, err);

	if (status < 0) {
		return status;
	}
	job->timer = loop_timer_new(entry->manager->loop, keep, job);
	job->fn = fn;
	job->context = context;
	return 0;
}

void snapshot_detach(struct entry *entry)
{
	if (entry->snapshot_job != NULL) {
		entry->snapshot_job->entry = NULL;
		entry->snapshot_job = NULL;
	}
}

void snapshot_forget(struct snapshot_job *job)
{
	job->fn = NULL;
	job->context = NULL;
}

void snapshots_close(struct manager *manager)
{
	while (manager->snapshot_jobs != NULL) {
		job_free(manager->snapshot_jobs);
	}
}
