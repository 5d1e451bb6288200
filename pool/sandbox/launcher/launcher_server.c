/*
 * The loop of the launcher. Invariants: every request gets exactly one reply; a request that fails
 * the checks is answered, not acted on; what a failed creation has left is taken away before its
 * reply goes out; nothing here blocks on a sandbox or on a disk.
 */
#include "pool/sandbox/launcher/launcher_server.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

/* How long a dying sandbox is looked at before its destroyer is told to ask again. */
#define DESTROY_US 100000
#define FREEZE_US 100000
/* Quiet for this long, the launcher makes folders and network namespaces ahead. */
#define IDLE_US 2000

void server_reply(struct server *server, const struct launcher_request *request, pid_t pid,
	int64_t started_us, const int *fds, size_t fd_count, const struct error *err)
{
	struct launcher_reply reply = {
		.number = request->number, .pid = pid, .took_us = clock_mono_us() - started_us};
	size_t length = offsetof(struct launcher_reply, err);

	if (err != NULL && err->kind != ERROR_NONE) {
		error_copy(&reply.err, err);
		length = sizeof(reply);
		fd_count = 0;
	}
	/* A program that is gone shows at the next receive. */
	(void)!io_send_fds(server->socket, &reply, length, fds, fd_count, 0);
}

void server_reply_copied(
	struct server *server, const struct pending *pending, const struct sandbox_copied *copied)
{
	struct launcher_reply reply = {.number = pending->request.number,
		.pid = -1,
		.took_us = clock_mono_us() - pending->started_us,
		.copied = *copied};

	(void)!io_send_fds(
		server->socket, &reply, offsetof(struct launcher_reply, err), NULL, 0, 0);
}

static struct pending *pending_add(
	struct server *server, const struct launcher_request *request, int64_t started_us)
{
	struct pending *pending = server->pending;

	while (pending->request.op != 0) {
		pending++;
	}
	memcpy(&pending->request, request, offsetof(struct launcher_request, layers));
	pending->started_us = started_us;
	pending->next_us = 0;
	pending->deadline_us = 0;
	pending->native = NATIVE_INIT;
	pending->root_fd = -1;
	pending->freezing = pending->sealed = false;
	server->pending_count++;
	return pending;
}

static void pending_end(struct server *server, struct pending *pending)
{
	native_done(&pending->native);
	fd_done(&pending->root_fd);
	pending->request.op = 0;
	server->pending_count--;
}

/* What a failed creation has made goes before its reply, so that the id may be used again. */
static void create_failed(struct server *server, const struct launcher_request *request,
	int64_t started_us, const struct error *err)
{
	if (err->kind != ERROR_EXISTS) {
		sandbox_end(server, request->name);
	}
	server_reply(server, request, -1, started_us, NULL, 0, err);
}

static void build_remember(struct server *server, const struct launcher_request *request)
{
	if (request->kind != SANDBOX_BUILD) {
		return;
	}
	for (size_t i = 0; i < BUILD_SLOTS; i++) {
		if (server->builds[i][0] == '\0') {
			snprintf(server->builds[i], sizeof(server->builds[i]), "%s", request->name);
			return;
		}
	}
}

static void create_begin(
	struct server *server, const struct launcher_request *request, int64_t started_us)
{
	struct native native = NATIVE_INIT;
	struct error err = ERROR_INIT;

	server->ahead = 0;
	build_remember(server, request);
	if (native_begin(&server->means, request, &native, &err) < 0) {
		create_failed(server, request, started_us, &err);
		return;
	}
	pending_add(server, request, started_us)->native = native;
}

static void create_end(struct server *server, struct pending *pending)
{
	struct native *native = &pending->native;
	struct error err = ERROR_INIT;
	int fds[] = {native->pidfd, native->control_fd};

	if (native_result(native, &err) < 0) {
		create_failed(server, &pending->request, pending->started_us, &err);
	} else {
		server_reply(server, &pending->request, native->pid, pending->started_us, fds,
			ARRAY_SIZE(fds), NULL);
	}
	pending_end(server, pending);
}

static void pending_reply(struct server *server, struct pending *pending, const struct error *err)
{
	server_reply(server, &pending->request, -1, pending->started_us, NULL, 0, err);
	pending_end(server, pending);
}

/* Dead by now, what it has changed is sealed and moved by the worker. */
static bool keep_seal(struct server *server, const struct pending *pending, struct error *err)
{
	struct worker_job job = {.number = pending->request.number, .room = "sandboxes"};

	snprintf(job.name, sizeof(job.name), "%s", pending->request.name);
	snprintf(job.staging, sizeof(job.staging), "%s", pending->request.staging);
	return worker_send(&server->workers[WORKER_SEAL], &job, -1, err) < 0;
}

/* One look; what is not over stays pending. */
static void timed_step(struct server *server, struct pending *pending)
{
	struct error err = ERROR_INIT;
	bool over = true;

	switch ((enum launcher_op)pending->request.op) {
	case LAUNCHER_FREEZE:
	case LAUNCHER_THAW:
		over = freeze_step(server, pending, &err);
		break;
	case LAUNCHER_KEEP:
		if (!pending->sealed) {
			over = keep_step(server, pending, &err);
			if (over && err.kind == ERROR_NONE) {
				pending->next_us = 0;
				over = keep_seal(server, pending, &err);
			}
			break;
		}
		over = destroy_step(server, pending, &err);
		break;
	case LAUNCHER_SNAPSHOT:
		over = copier_step(server, pending);
		if (over) {
			pending_end(server, pending);
		}
		return;
	case LAUNCHER_DESTROY:
		over = destroy_step(server, pending, &err);
		break;
	case LAUNCHER_PAGE_OUT:
		page_out_end(pending, &err);
		break;
	case LAUNCHER_CREATE:
	case LAUNCHER_SEAL:
	case LAUNCHER_PREPARE:
	case LAUNCHER_REMOVE:
	case LAUNCHER_BUILD:
	case LAUNCHER_UPKEEP:
	case LAUNCHER_MEASURE:
	case LAUNCHER_STORE:
	case LAUNCHER_AHEAD:
	case LAUNCHER_OPS:
		break;
	}
	if (over) {
		pending_reply(server, pending, &err);
	}
}

static void timed_begin(
	struct server *server, const struct launcher_request *request, int64_t started_us)
{
	struct pending *pending = pending_add(server, request, started_us);

	pending->deadline_us =
		started_us + (request->op == LAUNCHER_DESTROY || request->op == LAUNCHER_KEEP
					     ? DESTROY_US
					     : FREEZE_US);
	timed_step(server, pending);
}

static void job_begin(
	struct server *server, const struct launcher_request *request, int64_t started_us)
{
	bool seal = request->op == LAUNCHER_SEAL, measure = request->op == LAUNCHER_MEASURE;
	struct worker *worker = &server->workers[seal      ? WORKER_SEAL
						 : measure ? WORKER_MEASURE
							   : WORKER_REMOVE];
	struct worker_job job = {.number = request->number};
	struct error err = ERROR_INIT;

	snprintf(job.room, sizeof(job.room), "%s", seal ? "staging" : request->room);
	snprintf(job.name, sizeof(job.name), "%s", measure ? request->name : request->staging);
	if (worker_send(worker, &job, -1, &err) < 0) {
		server_reply(server, request, -1, started_us, NULL, 0, &err);
		return;
	}
	(void)pending_add(server, request, started_us);
}

static bool awaits(const struct pending *pending, enum worker_kind kind)
{
	if (kind != WORKER_SEAL) {
		return pending->request.op ==
		       (kind == WORKER_REMOVE ? LAUNCHER_REMOVE : LAUNCHER_MEASURE);
	}
	return pending->request.op == LAUNCHER_SEAL ||
	       (pending->request.op == LAUNCHER_KEEP && !pending->sealed && pending->next_us == 0);
}

static void job_ended(
	struct server *server, struct pending *pending, const struct worker_answer *answer)
{
	const struct error *err = &answer->err;

	if (pending->request.op == LAUNCHER_MEASURE && err->kind == ERROR_NONE) {
		struct sandbox_copied copied = {.files = answer->files, .bytes = answer->bytes};

		server_reply_copied(server, pending, &copied);
		pending_end(server, pending);
		return;
	}
	if (pending->request.op != LAUNCHER_KEEP || err->kind != ERROR_NONE) {
		pending_reply(server, pending, err);
		return;
	}
	pending->sealed = true;
	pending->deadline_us = clock_mono_us() + DESTROY_US;
	timed_step(server, pending);
}

static void job_end(struct server *server, struct worker *worker)
{
	struct worker_answer answer = {.number = 0};
	bool alive = worker_receive(worker, &answer);
	struct error err = ERROR_INIT;

	if (!alive) {
		error_set(&answer.err, ERROR_UNAVAILABLE, "the launcher's worker died");
	}
	for (size_t i = 0; i < SERVER_PENDING_MAX; i++) {
		struct pending *pending = &server->pending[i];

		if (awaits(pending, worker->kind) &&
			(!alive || pending->request.number == answer.number)) {
			job_ended(server, pending, &answer);
		}
	}
	if (!alive) {
		worker_stop(worker);
		if (worker_start(worker, worker->kind, &server->means.places, &err) < 0) {
			log_failure("launcher.no_worker", &err, "pid", getpid());
			_exit(1);
		}
	}
}

static void snapshot_begin(
	struct server *server, const struct launcher_request *request, int64_t started_us)
{
	struct pending *pending = pending_add(server, request, started_us);
	struct error err = ERROR_INIT;

	if (copier_start(server, pending, &err) < 0) {
		pending_reply(server, pending, &err);
	}
}

static void page_out_begin(
	struct server *server, const struct launcher_request *request, int64_t started_us)
{
	struct pending *pending = pending_add(server, request, started_us);
	struct error err = ERROR_INIT;

	if (page_out_start(server, pending, &err) < 0) {
		pending_reply(server, pending, &err);
	}
}

static int tree_prepare(struct server *server, const struct launcher_request *request, int *ret_fd,
	struct error *err)
{
	const struct native_means *means = &server->means;
	int64_t base = means->id_base + (int64_t)request->slot * ID_RANGE;
	CLEANUP(close_p)
	int folder = io_open_beneath(
		means->places.staging_fd, request->staging, O_RDONLY | O_DIRECTORY, 0, err);
	CLEANUP(close_p) int tree = -1;

	if (folder < 0) {
		return folder;
	}
	if (mkdirat(folder, "tree", 0755) < 0 && errno != EEXIST) {
		return error_sys(err, errno, "mkdir staging/%s/tree", request->staging);
	}
	tree = io_open_beneath(folder, "tree", O_RDONLY | O_DIRECTORY, 0, err);
	if (tree < 0) {
		return tree;
	}
	if (fchown(tree, (uid_t)base, (gid_t)base) < 0 || fchmod(tree, 0755) < 0) {
		return error_sys(err, errno, "chown staging/%s/tree", request->staging);
	}
	return idmap_owned(means->uid, means->gid, base, ID_RANGE, ret_fd, err);
}

static void prepare(
	struct server *server, const struct launcher_request *request, int64_t started_us)
{
	CLEANUP(close_p) int fd = -1;
	struct error err = ERROR_INIT;
	int status = tree_prepare(server, request, &fd, &err);

	server_reply(server, request, -1, started_us, &fd, status == 0 ? 1 : 0, &err);
}

static void build(struct server *server, const struct launcher_request *request, int64_t started_us)
{
	CLEANUP(close_p) int pidfd = -1;
	struct error err = ERROR_INIT;
	pid_t pid = -1;
	int status = request->op == LAUNCHER_UPKEEP
			     ? upkeep_spawn(server, request->name, &pid, &pidfd, &err)
			     : build_spawn(server, request->name, (enum build_mode)request->build,
				       &pid, &pidfd, &err);

	server_reply(server, request, pid, started_us, &pidfd, status == 0 ? 1 : 0, &err);
}

static void store(struct server *server, const struct launcher_request *request, int64_t started_us)
{
	int fds[] = {-1, -1, -1};
	struct error err = ERROR_INIT;
	pid_t pid = -1;
	int status = store_spawn(server, request, &pid, fds, &err);

	server_reply(
		server, request, pid, started_us, fds, status == 0 ? ARRAY_SIZE(fds) : 0, &err);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fd_done(&fds[i]);
	}
}

static void serve(struct server *server, const struct launcher_request *request, size_t length)
{
	int64_t started_us = clock_mono_us();
	struct error err = ERROR_INIT;

	if (launcher_request_check(request, length, server->means.slots, &err) < 0) {
		server_reply(server, request, -1, started_us, NULL, 0, &err);
		return;
	}
	switch ((enum launcher_op)request->op) {
	case LAUNCHER_CREATE:
		create_begin(server, request, started_us);
		break;
	case LAUNCHER_FREEZE:
	case LAUNCHER_THAW:
	case LAUNCHER_DESTROY:
	case LAUNCHER_KEEP:
		timed_begin(server, request, started_us);
		break;
	case LAUNCHER_SNAPSHOT:
		snapshot_begin(server, request, started_us);
		break;
	case LAUNCHER_PAGE_OUT:
		page_out_begin(server, request, started_us);
		break;
	case LAUNCHER_SEAL:
	case LAUNCHER_REMOVE:
	case LAUNCHER_MEASURE:
		job_begin(server, request, started_us);
		break;
	case LAUNCHER_PREPARE:
		prepare(server, request, started_us);
		break;
	case LAUNCHER_BUILD:
	case LAUNCHER_UPKEEP:
		build(server, request, started_us);
		break;
	case LAUNCHER_STORE:
		store(server, request, started_us);
		break;
	case LAUNCHER_AHEAD:
		server->ahead = request->kind < NETNS_POOL_MAX ? request->kind : NETNS_POOL_MAX;
		server_reply(server, request, -1, started_us, NULL, 0, &err);
		break;
	case LAUNCHER_OPS:
		break;
	}
}

/* False at the end of the socket. Descriptors that somebody sends along are closed unseen. */
static bool receive(struct server *server)
{
	struct launcher_request request;
	int fds[IO_FDS_MAX];
	size_t fd_count = 0;
	ssize_t got;

	memset(&request, 0, offsetof(struct launcher_request, layers));
	got = io_recv_fds(server->socket, &request, sizeof(request), fds, &fd_count, MSG_DONTWAIT);
	while (fd_count > 0) {
		close(fds[--fd_count]);
	}
	if (got < 0 && errno == EAGAIN) {
		return true;
	}
	if (got <= 0) {
		return false;
	}
	serve(server, &request, (size_t)got);
	return true;
}

static _Noreturn void server_end(struct server *server)
{
	for (size_t i = 0; i < BUILD_SLOTS; i++) {
		if (server->builds[i][0] != '\0') {
			char id[LAUNCHER_NAME_SIZE];

			snprintf(id, sizeof(id), "%s", server->builds[i]);
			sandbox_end(server, id);
		}
	}
	spares_done(&server->means.spares, &server->means.places);
	cgroups_unprepare(&server->means.cgroups);
	_exit(0);
}

/* Fills in what to wait for; pollfds[i + 1 + WORKERS] belongs to pending[i]. */
static int64_t watch(const struct server *server, struct pollfd *pollfds)
{
	int64_t next_us = INT64_MAX;

	pollfds[0].fd = server->pending_count < SERVER_PENDING_MAX ? server->socket : -1;
	for (size_t i = 0; i < WORKERS; i++) {
		pollfds[1 + i].fd = server->workers[i].fd;
	}
	for (size_t i = 0; i < SERVER_PENDING_MAX; i++) {
		const struct pending *pending = &server->pending[i];
		bool has_child = pending->request.op == LAUNCHER_CREATE ||
				 pending->request.op == LAUNCHER_SNAPSHOT ||
				 pending->request.op == LAUNCHER_PAGE_OUT;

		pollfds[1 + WORKERS + i].fd = has_child ? pending->native.status_fd : -1;
		if (pending->request.op != 0 && pending->next_us != 0 &&
			pending->next_us < next_us) {
			next_us = pending->next_us;
		}
	}
	return next_us;
}

static bool has_all_ahead(const struct server *server)
{
	return server->means.nets.count >= NETNS_POOL_READY &&
	       spares_count(&server->means.spares) >= SPARES_READY;
}

static void wait_for_something(const struct server *server, struct pollfd *pollfds)
{
	int64_t next_us = watch(server, pollfds), now_us = clock_mono_us();
	struct timespec timeout = {0, 0};
	bool forever = next_us == INT64_MAX;

	if (server->ahead > 0) {
		next_us = now_us;
		forever = false;
	} else if (forever && server->pending_count == 0 && !has_all_ahead(server)) {
		next_us = now_us + IDLE_US;
		forever = false;
	}
	if (!forever && next_us > now_us) {
		timeout.tv_sec = (next_us - now_us) / 1000000;
		timeout.tv_nsec = (next_us - now_us) % 1000000 * 1000;
	}
	for (size_t i = 0; i < 1 + WORKERS + SERVER_PENDING_MAX; i++) {
		pollfds[i].revents = 0;
	}
	(void)ppoll(pollfds, 1 + WORKERS + SERVER_PENDING_MAX, forever ? NULL : &timeout, NULL);
}

static void attend_pending(struct server *server, const struct pollfd *pollfds)
{
	int64_t now_us = clock_mono_us();

	for (size_t i = 0; i < SERVER_PENDING_MAX; i++) {
		struct pending *pending = &server->pending[i];

		if (pending->request.op == LAUNCHER_CREATE &&
			pollfds[1 + WORKERS + i].revents != 0) {
			create_end(server, pending);
		} else if ((pending->request.op == LAUNCHER_SNAPSHOT ||
				   pending->request.op == LAUNCHER_PAGE_OUT) &&
			   pollfds[1 + WORKERS + i].revents != 0) {
			timed_step(server, pending);
		} else if (pending->request.op != 0 && pending->next_us != 0 &&
			   pending->next_us <= now_us) {
			timed_step(server, pending);
		}
	}
}

static void make_ahead(struct server *server)
{
	struct native_means *means = &server->means;
	unsigned spares_most = SPARES_READY;
	size_t nets_most = NETNS_POOL_READY;
	struct error err = ERROR_INIT;
	int status = 0;

	if (server->ahead > 0) {
		server->ahead--;
		spares_most = SPARES_MAX;
		nets_most = NETNS_POOL_MAX;
	} else if (server->pending_count > 0 || has_all_ahead(server)) {
		return;
	}
	if (spares_count(&means->spares) < spares_most) {
		status = spares_add(&means->spares, &means->places, &err);
	}
	if (status == 0 && means->nets.count < nets_most) {
		status = netns_pool_add(&means->nets, &err);
	}
	if (status < 0) {
		server->ahead = 0;
		log_failure("launcher.make_ahead_failed", &err, "pid", getpid());
		sleep(1);
	}
}

_Noreturn void server_run(struct server *server)
{
	struct pollfd pollfds[1 + WORKERS + SERVER_PENDING_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(pollfds); i++) {
		pollfds[i].events = POLLIN;
	}
	for (;;) {
		bool idle = true;

		wait_for_something(server, pollfds);
		for (size_t i = 0; i < ARRAY_SIZE(pollfds); i++) {
			idle = idle && pollfds[i].revents == 0;
		}
		attend_pending(server, pollfds);
		for (size_t i = 0; i < WORKERS; i++) {
			if (pollfds[1 + i].revents != 0) {
				job_end(server, &server->workers[i]);
			}
		}
		if (pollfds[0].fd >= 0 && pollfds[0].revents != 0 && !receive(server)) {
			server_end(server);
		}
		if (idle || server->ahead > 0) {
			make_ahead(server);
		}
	}
}
