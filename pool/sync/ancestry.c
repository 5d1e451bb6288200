/* Asking about ancestry. A question is a job: a program, perhaps a fetch and the program again.
 * Claims that ask the same meanwhile share it; more than a few jobs take turns. */
#include "pool/sync/ancestry.h"

#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/process.h"
#include "configs/config.h"
#include "pool/entry.h"
#include "pool/image.h"
#include "pool/manager.h"
#include "pool/sync/fetch.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>

#define PROGRAM "hob-build"
/* Commits asked about at a time: the head's, and those of ready sandboxes. */
#define COMMITS_MAX 8
/* Answers kept for an environment; the oldest goes. */
#define REMEMBERED 128
#define RUNNING_MAX 2
#define WAITING_MAX 64
#define ANSWER_MAX 65536
/* A walk through a million commits takes some seconds. */
#define PROGRAM_MS 60000

struct answer {
	char commit[COMMIT_TEXT_SIZE], wanted[COMMIT_TEXT_SIZE];
	bool descends;
};

struct ancestry_memory {
	struct answer answers[REMEMBERED];
	size_t next;
};

struct ancestry {
	struct manager *manager;
	struct ancestry *next;
	struct pool *pool; /* stays: ancestry_is_asked */
	char wanted[COMMIT_TEXT_SIZE];
	char **commits;
	bool running, fetched;
	pid_t pid; /* 0: none */
	int pidfd, out_fd;
	struct loop_source *source;
	struct loop_timer *timer;
	struct fetch_wait fetch;
	struct ancestry_wait *waits;
};

static void start_next(struct manager *manager);

/* ---- what is remembered ---- */

void ancestry_memory_free(struct ancestry_memory *memory)
{
	free(memory);
}

enum descent ancestry_known(const struct pool *pool, const char *commit, const char *wanted)
{
	const struct ancestry_memory *memory = pool->ancestry;

	for (size_t i = 0; memory != NULL && i < REMEMBERED; i++) {
		const struct answer *answer = &memory->answers[i];

		if (answer->commit[0] != '\0' && streq(answer->commit, commit) &&
			strcasecmp(answer->wanted, wanted) == 0) {
			return answer->descends ? DESCENT_YES : DESCENT_NO;
		}
	}
	return DESCENT_UNKNOWN;
}

static void remember(struct pool *pool, const char *commit, const char *wanted, bool descends)
{
	struct answer *answer;

	if (strlen(commit) >= COMMIT_TEXT_SIZE ||
		ancestry_known(pool, commit, wanted) != DESCENT_UNKNOWN) {
		return;
	}
	if (pool->ancestry == NULL) {
		pool->ancestry = xcalloc(1, sizeof(*pool->ancestry));
	}
	answer = &pool->ancestry->answers[pool->ancestry->next++ % REMEMBERED];
	snprintf(answer->commit, sizeof(answer->commit), "%s", commit);
	snprintf(answer->wanted, sizeof(answer->wanted), "%s", wanted);
	answer->descends = descends;
}

/* ---- the end of a job ---- */

static void job_take_off(struct ancestry *job)
{
	struct ancestry **at = &job->manager->ancestries;

	while (*at != job) {
		at = &(*at)->next;
	}
	*at = job->next;
}

static void job_free(struct ancestry *job)
{
	fetch_forget(&job->fetch);
	loop_source_free(job->source);
	loop_timer_free(job->timer);
	fd_done(&job->pidfd);
	fd_done(&job->out_fd);
	strv_free(job->commits);
	free(job);
}

static void job_end(struct ancestry *job, const struct error *err)
{
	struct manager *manager = job->manager;

	if (err != NULL) {
		log_failure("ancestry.unknown", err, "environment", job->pool->name, "commit",
			job->wanted);
	}
	/* Whoever asks again from here on asks anew. */
	job_take_off(job);
	while (job->waits != NULL) {
		struct ancestry_wait *wait = job->waits;

		job->waits = wait->next;
		wait->job = NULL;
		wait->done(wait, err);
	}
	job_free(job);
	start_next(manager);
	manager_dirty(manager);
}

/* ---- the program ---- */

static int unknown(const struct ancestry *job, struct error *err)
{
	const struct environment *conf = job->pool->conf;
	const char *ref = newest_ref(job->pool, 0);

	error_set(
		err, ERROR_CONFLICT, "commit %s is not known, not even after a fetch", job->wanted);
	return error_hint(err, "push it to %s of the first source of \"%s\", or check its digits",
		ref != NULL && *ref != '\0'              ? ref
		: conf != NULL && conf->source_count > 0 ? conf->sources[0].ref
							 : "the branch",
		job->pool->name);
}

static void on_fetched(struct fetch_wait *wait, const struct error *err)
{
	struct ancestry *job = container_of(wait, struct ancestry, fetch);
	struct error failure = ERROR_INIT;

	if (err != NULL) {
		error_copy(&failure, err);
		error_wrap(&failure, "commit %s is not known here", job->wanted);
		job_end(job, &failure);
		return;
	}
	job->fetched = true;
	job->running = false;
	start_next(job->manager);
}

/* True: that was the answer. */
static bool take_answer(struct ancestry *job, const json_t *json, struct error *err)
{
	const json_t *failure = json_object_get(json, "error"), *value;
	const char *kind = json_string_value(json_object_get(failure, "kind"));
	const char *message = json_string_value(json_object_get(failure, "message"));
	const char *hint = json_string_value(json_object_get(failure, "hint"));
	json_t *of = json_object_get(json, "of");
	const char *commit;

	if (failure != NULL) {
		error_set(err, kind != NULL ? error_kind_from_name(kind) : ERROR_FAILED, "%s",
			message != NULL ? message : "the commits cannot be read");
		error_hint(err, "%s", hint != NULL ? hint : "");
		return err->kind != ERROR_NOT_FOUND; /* no mirror yet: a fetch makes it */
	}
	if (!json_is_true(json_object_get(json, "known"))) {
		(void)unknown(job, err);
		return false;
	}
	json_object_foreach (of, commit, value) {
		if (json_is_boolean(value)) {
			remember(job->pool, commit, job->wanted, json_is_true(value));
		}
	}
	return true;
}

static int read_answer(const struct ancestry *job, json_t **ret_json, struct error *err)
{
	struct buffer text;
	char piece[4096];
	ssize_t got;
	int status = 0;

	buffer_init(&text, ANSWER_MAX);
	while ((got = read(job->out_fd, piece, sizeof(piece))) > 0) {
		(void)buffer_add(&text, piece, (size_t)got);
	}
	status = json_parse_object(buffer_text(&text), text.length, ret_json, err);
	buffer_done(&text);
	return status < 0 ? error_set(err, ERROR_FAILED,
				    "the program that reads the commits ended early")
			  : 0;
}

static void on_exit_(void *context, uint32_t events)
{
	struct ancestry *job = context;
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT, ignored = ERROR_INIT;
	int code;

	(void)events;
	loop_timer_stop(job->timer);
	(void)!process_wait(job->pid, &code, &ignored);
	job->pid = 0;
	loop_source_free(job->source);
	job->source = NULL;
	fd_done(&job->pidfd);
	if (read_answer(job, &json, &err) < 0 || take_answer(job, json, &err)) {
		job_end(job, err.kind != ERROR_NONE ? &err : NULL);
	} else if (job->fetched) {
		job_end(job, &err);
	} else {
		fd_done(&job->out_fd);
		fetch_newest(job->pool, 0, &job->fetch, on_fetched);
	}
}

static void on_overdue(void *context)
{
	struct ancestry *job = context;

	if (job->pid > 0) {
		(void)kill(job->pid, SIGKILL);
	}
}

static int spawn(struct ancestry *job, struct error *err)
{
	struct manager *manager = job->manager;
	CLEANUP(strv_free_p) char **argv = NULL;
	struct process_spec spec = {
		.program_fd = manager->build_program, .stdin_fd = -1, .stderr_fd = -1};
	int out[2] = {-1, -1}, status;

	strv_add(&argv, PROGRAM);
	strv_add(&argv, "--ancestry");
	strv_add(&argv, job->pool->name);
	strv_add(&argv, "--commit");
	strv_add(&argv, job->wanted);
	if (manager->config->file != NULL) {
		strv_add(&argv, "--config");
		strv_add(&argv, manager->config->file);
	}
	for (size_t i = 0; job->commits != NULL && job->commits[i] != NULL; i++) {
		strv_add(&argv, job->commits[i]);
	}
	if (pipe2(out, O_CLOEXEC | O_NONBLOCK) < 0) {
		return error_sys(err, errno, "pipe");
	}
	spec.argv = argv;
	spec.stdout_fd = out[1];
	status = process_spawn(&spec, &job->pid, &job->pidfd, err);
	close(out[1]);
	fd_done(&job->out_fd);
	job->out_fd = out[0];
	loop_timer_after(job->timer, PROGRAM_MS);
	return status < 0 ? status
			  : loop_add_fd(manager->loop, job->pidfd, EPOLLIN, on_exit_, job,
				    &job->source, err);
}

static void end_program(struct ancestry *job)
{
	struct error ignored = ERROR_INIT;
	int code;

	if (job->pid > 0) {
		(void)kill(job->pid, SIGKILL);
		(void)!process_wait(job->pid, &code, &ignored);
		job->pid = 0;
	}
}

static void start_next(struct manager *manager)
{
	struct ancestry *first = NULL;
	struct error err = ERROR_INIT;
	size_t running = 0;

	for (struct ancestry *job = manager->ancestries; job != NULL; job = job->next) {
		running += job->running ? 1 : 0;
		first = job->running ? first : job; /* the list has the newest first */
	}
	if (first == NULL || running >= RUNNING_MAX) {
		return;
	}
	first->running = true;
	if (spawn(first, &err) < 0) {
		end_program(first);
		job_end(first, &err);
	}
}

/* ---- for claims ---- */

static void add_commit(
	char ***commits, const struct pool *pool, const char *commit, const char *wanted)
{
	if (strlen(commit) < strlen(wanted) || strv_count(*commits) >= COMMITS_MAX ||
		strncasecmp(commit, wanted, strlen(wanted)) == 0 ||
		ancestry_known(pool, commit, wanted) != DESCENT_UNKNOWN) {
		return;
	}
	for (size_t i = 0; *commits != NULL && (*commits)[i] != NULL; i++) {
		if (streq((*commits)[i], commit)) {
			return;
		}
	}
	strv_add(commits, commit);
}

static struct ancestry *job_new(struct pool *pool, const char *wanted, char **commits)
{
	struct ancestry *job = xcalloc(1, sizeof(*job));

	job->manager = pool->manager;
	job->next = pool->manager->ancestries;
	pool->manager->ancestries = job;
	job->pool = pool;
	job->commits = commits;
	job->pidfd = job->out_fd = -1;
	job->timer = loop_timer_new(pool->manager->loop, on_overdue, job);
	snprintf(job->wanted, sizeof(job->wanted), "%s", wanted);
	return job;
}

/* A job that has not begun, or what it asks for is all that this claim wants to know. */
static struct ancestry *job_share(const struct pool *pool, const char *wanted, char *const *commits)
{
	for (struct ancestry *job = pool->manager->ancestries; job != NULL; job = job->next) {
		bool all = job->pool == pool && strcasecmp(job->wanted, wanted) == 0 &&
			   strv_count(job->commits) == strv_count((char **)(uintptr_t)commits);

		for (size_t i = 0; all && commits[i] != NULL; i++) {
			all = streq(commits[i], job->commits[i]);
		}
		if (all) {
			return job;
		}
	}
	return NULL;
}

bool ancestry_ask(struct pool *pool, const char *wanted, struct ancestry_wait *wait,
	void (*done)(struct ancestry_wait *wait, const struct error *err))
{
	char **commits = NULL;
	struct ancestry *job;
	size_t jobs = 0;

	if (pool->conf == NULL || pool->conf->source_count == 0 || pool->head == NULL) {
		return false;
	}
	add_commit(&commits, pool, pool->head->commit, wanted);
	for (const struct entry *entry = pool->entries[ENTRY_READY].first; entry != NULL;
		entry = entry->next) {
		add_commit(&commits, pool, entry_commit(entry), wanted);
	}
	if (commits == NULL) {
		return false;
	}
	job = job_share(pool, wanted, commits);
	for (const struct ancestry *at = pool->manager->ancestries; at != NULL; at = at->next) {
		jobs++;
	}
	if (job == NULL && jobs >= WAITING_MAX) {
		strv_free(commits);
		return false; /* what was built has to do */
	}
	if (job == NULL) {
		job = job_new(pool, wanted, commits);
	} else {
		strv_free(commits);
	}
	*wait = (struct ancestry_wait){.job = job, .next = job->waits, .done = done};
	job->waits = wait;
	start_next(pool->manager);
	return true;
}

void ancestry_forget(struct ancestry_wait *wait)
{
	struct ancestry_wait **at;

	if (wait->job == NULL) {
		return;
	}
	for (at = &wait->job->waits; *at != wait; at = &(*at)->next) {
	}
	*at = wait->next;
	wait->job = NULL;
}

bool ancestry_is_asked(const struct pool *pool)
{
	for (const struct ancestry *job = pool->manager->ancestries; job != NULL; job = job->next) {
		if (job->pool == pool) {
			return true;
		}
	}
	return false;
}

void ancestries_close(struct manager *manager)
{
	while (manager->ancestries != NULL) {
		struct ancestry *job = manager->ancestries;

		end_program(job);
		job_take_off(job);
		job_free(job);
	}
}
