/* The record of builds. A running build holds a lock on its log for as long as its process lives,
 * by a descriptor of its own that no child inherits; that, not its process id, says that it runs.
 */
#include "snapshots/store_private.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

static const char *const state_names[] = {
	[BUILD_QUEUED] = "queued",
	[BUILD_RUNNING] = "running",
	[BUILD_PUBLISHED] = "published",
	[BUILD_UNCHANGED] = "unchanged",
	[BUILD_FAILED] = "failed",
	[BUILD_SUPERSEDED] = "superseded",
};
_Static_assert(ARRAY_SIZE(state_names) == BUILD_STATES, "every state has a name");

const char *build_state_name(enum build_state state)
{
	return state_names[state];
}

static enum build_state state_from_name(const char *name)
{
	for (size_t i = 0; i < BUILD_STATES; i++) {
		if (streq(state_names[i], name)) {
			return (enum build_state)i;
		}
	}
	return BUILD_FAILED; /* a state of a newer hob would come with a newer schema */
}

void build_done(struct build *build)
{
	free(build->message);
	*build = (struct build){0};
}

static void log_name(char name[ID_TEXT_SIZE + 8], int64_t id)
{
	snprintf(name, ID_TEXT_SIZE + 8, "%lld.log", (long long)id);
}

static int insert_build(struct store *store, struct build *build, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int status;

	query_init(&query, store->db,
		"INSERT INTO builds (environment, state, commit_id, image_id, started_ms, "
		"ended_ms, pid)"
		" VALUES (?, 'running', '', 0, ?, 0, ?)");
	query_bind_text(&query, build->environment);
	query_bind_int(&query, build->started_ms);
	query_bind_int(&query, build->pid);
	status = query_run(&query, NULL, err);
	if (status == 0) {
		build->id = sqlite3_last_insert_rowid(store->db);
	}
	return status;
}

static int open_log(struct store *store, int64_t id, int *ret_log, int *ret_lock, struct error *err)
{
	CLEANUP(close_p) int log = -1;
	char name[ID_TEXT_SIZE + 8];
	int status;

	log_name(name, id);
	/* A log of that number can only be of a build that was never recorded: start it over. */
	log = io_open(store->builds_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW,
		0600, err);
	if (log < 0) {
		return log;
	}
	status = store_lock(store->builds_fd, name, LOCK_EX, ret_lock, err);
	if (status < 0) {
		return status;
	}
	*ret_log = steal_fd(&log);
	return 0;
}

/* The log is locked before the row can be seen, so that no sweep takes the build for a dead one. */
static int begin_locked(
	struct store *store, struct build *build, int *ret_log, int *ret_lock, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	CLEANUP(close_p) int log = -1;
	CLEANUP(close_p) int lock = -1;
	int status = transaction_begin(&transaction, store->db, TRANSACTION_WRITE, err);

	if (status == 0) {
		status = insert_build(store, build, err);
	}
	if (status == 0) {
		status = open_log(store, build->id, &log, &lock, err);
	}
	if (status == 0) {
		status = store_fault("build.logged", err);
	}
	if (status == 0) {
		status = transaction_commit(&transaction, err);
	}
	if (status < 0) {
		return status;
	}
	*ret_log = steal_fd(&log);
	*ret_lock = steal_fd(&lock);
	return 0;
}

int build_begin(struct store *store, const char *environment, struct build *ret_build,
	int *ret_log_fd, struct error *err)
{
	struct build build = {
		.state = BUILD_RUNNING, .started_ms = clock_real_ms(), .pid = getpid()};
	int log = -1, lock = -1;

	if (!name_is_valid(environment)) {
		return error_set(
			err, ERROR_INVALID, "\"%s\" is no name of an environment", environment);
	}
	snprintf(build.environment, sizeof(build.environment), "%s", environment);
	if (begin_locked(store, &build, &log, &lock, err) < 0) {
		return error_wrap(err, "record a build of %s", environment);
	}
	store_hold(store, HOLD_BUILD, build.id, lock);
	*ret_build = build;
	*ret_log_fd = log;
	return 0;
}

int build_end(struct store *store, struct build *build, enum build_state state, const char *message,
	struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	struct error discarded = ERROR_INIT;
	int64_t changed = 0, now = clock_real_ms();
	int status;

	query_init(&query, store->db,
		"UPDATE builds SET state = ?, commit_id = ?, ended_ms = ?, message = ?,"
		" fingerprint = ? WHERE id = ? AND state = 'running'");
	query_bind_text(&query, build_state_name(state));
	query_bind_text(&query, build->commit);
	query_bind_int(&query, now);
	query_bind_text(&query, message);
	query_bind_text(&query, build->fingerprint);
	query_bind_int(&query, build->id);
	status = store_fault("build.before_end", err);
	if (status == 0) {
		status = query_run(&query, &changed, err);
	}
	if (status < 0) {
		return error_wrap(err, "record the end of build bld-%lld", (long long)build->id);
	}
	if (changed != 1) {
		return error_set(
			err, ERROR_CONFLICT, "build bld-%lld is not running", (long long)build->id);
	}
	build->state = state;
	build->ended_ms = now;
	free(build->message);
	build->message = xstrdup(message);
	store_release(store, HOLD_BUILD, build->id);
	/* The outcome is recorded; what cannot be deleted now is swept at the next start. */
	if (layers_discard(store, &discarded) < 0) {
		log_failure("build.leftovers", &discarded, "build", build->id);
	}
	return store_fault("build.ended", err);
}

#define BUILD_COLUMNS                                                                              \
	"b.id, b.environment, b.state, b.commit_id, b.image_id, b.started_ms, b.ended_ms, b.pid,"  \
	" b.message"

static void build_from_row(const struct query *query, struct build *build)
{
	*build = (struct build){.id = query_int(query, 0),
		.state = state_from_name(query_text(query, 2)),
		.image_id = query_int(query, 4),
		.started_ms = query_int(query, 5),
		.ended_ms = query_int(query, 6),
		.pid = query_int(query, 7),
		.message = query_text(query, 8)[0] != '\0' ? xstrdup(query_text(query, 8)) : NULL};
	query_copy(query, 1, build->environment, sizeof(build->environment));
	query_copy(query, 3, build->commit, sizeof(build->commit));
}

int build_get(struct store *store, const char *name, struct build *ret_build, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int64_t id = 0;
	int row;

	(void)id_parse(name, "bld-", &id); /* no build has number 0 */
	query_init(&query, store->db, "SELECT " BUILD_COLUMNS " FROM builds AS b WHERE b.id = ?");
	query_bind_int(&query, id);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	if (row == 0) {
		error_set(err, ERROR_NOT_FOUND, "no build \"%s\"", name);
		return error_hint(err, "hob builds lists what there is");
	}
	build_from_row(&query, ret_build);
	return 0;
}

int build_list(struct store *store, const char *environment, size_t limit,
	struct build **ret_builds, size_t *ret_count, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	struct build *builds = NULL;
	size_t count = 0, room = 0;
	int row;

	query_init(&query, store->db,
		"SELECT " BUILD_COLUMNS " FROM builds AS b"
		" WHERE ?1 IS NULL OR b.environment = ?1 ORDER BY b.id DESC LIMIT ?2");
	query_bind_text(&query, environment);
	query_bind_int(&query, limit > INT64_MAX ? INT64_MAX : (int64_t)limit);
	while ((row = query_row(&query, err)) > 0) {
		build_from_row(&query, array_add(&builds, &count, &room));
	}
	if (row < 0) {
		for (size_t i = 0; i < count; i++) {
			build_done(&builds[i]);
		}
		free(builds);
		return row;
	}
	*ret_builds = builds;
	*ret_count = count;
	return 0;
}

int build_last_started(
	struct store *store, const char *environment, int64_t *ret_ms, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db,
		"SELECT started_ms FROM builds WHERE environment = ? ORDER BY id DESC LIMIT 1");
	query_bind_text(&query, environment);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	*ret_ms = row > 0 ? query_int(&query, 0) : 0;
	return 0;
}

int build_failures(struct store *store, const char *environment, const char *fingerprint,
	struct build_failures *ret_failures, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, store->db,
		"SELECT count(*), max(id), max(ended_ms) FROM builds"
		" WHERE environment = ? AND fingerprint = ? AND state = 'failed'");
	query_bind_text(&query, environment);
	query_bind_text(&query, fingerprint);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	*ret_failures = (struct build_failures){.count = query_int(&query, 0),
		.last_id = query_int(&query, 1),
		.last_ms = query_int(&query, 2)};
	return 0;
}

int builds_prune(struct store *store, const char *environment, size_t keep, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	/* The row goes first: a log without its build is truncated if ever its number came again.
	 */
	query_init(&query, store->db,
		"DELETE FROM builds WHERE environment = ?1 AND state <> 'running' AND id <"
		" (SELECT min(id) FROM (SELECT id FROM builds WHERE environment = ?1"
		"  ORDER BY id DESC LIMIT ?2)) RETURNING id");
	query_bind_text(&query, environment);
	query_bind_int(&query, keep < 1 ? 1 : (int64_t)keep);
	while ((row = query_row(&query, err)) > 0) {
		char name[ID_TEXT_SIZE + 8];

		log_name(name, query_int(&query, 0));
		if (unlinkat(store->builds_fd, name, 0) < 0 && errno != ENOENT) {
			log_warn("build.log_stuck", "name", name);
		}
	}
	return row;
}

int build_log_open(struct store *store, int64_t id, int *ret_fd, struct error *err)
{
	char name[ID_TEXT_SIZE + 8];
	int fd;

	log_name(name, id);
	fd = io_open(store->builds_fd, name, O_RDONLY | O_NOFOLLOW, 0, err);
	if (fd < 0) {
		return error_wrap(err, "log of build bld-%lld", (long long)id);
	}
	*ret_fd = fd;
	return 0;
}
