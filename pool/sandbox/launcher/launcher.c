/*
 * The program's side of the launchers: requests wait in two queues (creations, and all the rest,
 * which is quick), go to the launcher that has the fewest, and each gets its answer through the
 * loop exactly once. A handler may ask for anything, launcher_stop too: nothing is touched after it
 * is called.
 */
#include "pool/sandbox/launcher/launcher_private.h"

#include "base/clock.h"
#include "base/loop.h"
#include "base/memory.h"
#include "snapshots/store.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* A program that stops waits this long for its launchers to end what they made. */
#define STOP_WAIT_MS 3000

static void call_put(
	struct launcher *launcher, enum launcher_queue queue, struct launcher_call *call)
{
	struct launcher_calls *calls = &launcher->queues[queue];

	call->next = NULL;
	*calls->last = call;
	calls->last = &call->next;
}

/* Takes `*link`'s call out of its queue. */
static struct launcher_call *call_take(
	struct launcher *launcher, enum launcher_queue queue, struct launcher_call **link)
{
	struct launcher_call *call = *link;

	*link = call->next;
	if (call->next == NULL) {
		launcher->queues[queue].last = link;
	}
	return call;
}

static void call_free(struct launcher_call *call)
{
	free(call->failure);
	free(call);
}

/* Calls the handler; nothing of the launcher may be used afterwards. */
static void call_end(struct launcher_call *call, const struct launcher_reply *reply, int *fds,
	const struct error *err)
{
	switch ((enum launcher_op)call->request.op) {
	case LAUNCHER_CREATE: {
		struct sandbox_created created = {.pid = reply->pid,
			.pidfd = fds[0],
			.control_fd = fds[1],
			.took_us = reply->took_us};

		call->fn.created(call->context, err == NULL ? &created : NULL, err);
		break;
	}
	case LAUNCHER_PREPARE:
		call->fn.userns(call->context, fds[0], err);
		break;
	case LAUNCHER_BUILD:
	case LAUNCHER_UPKEEP:
		call->fn.built(call->context, reply->pid, fds[0], err);
		break;
	case LAUNCHER_STORE: {
		struct store_started started = {
			.pidfd = fds[0], .io_fd = fds[1], .events_fd = fds[2]};

		call->fn.store(call->context, err == NULL ? &started : NULL, err);
		break;
	}
	case LAUNCHER_MEASURE:
		call->fn.measured(call->context, err == NULL ? (int64_t)reply->copied.bytes : 0,
			err == NULL ? (int64_t)reply->copied.files : 0, err);
		break;
	case LAUNCHER_SNAPSHOT:
		call->fn.copied(call->context, err == NULL ? &reply->copied : NULL, err);
		break;
	case LAUNCHER_KEEP:
	case LAUNCHER_PAGE_OUT:
	case LAUNCHER_FREEZE:
	case LAUNCHER_THAW:
	case LAUNCHER_DESTROY:
	case LAUNCHER_SEAL:
	case LAUNCHER_REMOVE:
	case LAUNCHER_AHEAD:
	case LAUNCHER_OPS:
		call->fn.done(call->context, err);
		break;
	}
	call_free(call);
}

static void on_failing(void *context)
{
	struct launcher *launcher = context;
	struct launcher_calls *failed = &launcher->queues[QUEUE_FAILED];
	struct launcher_call *call;
	static const struct launcher_reply nothing = {.pid = -1};
	int none[] = {-1, -1, -1};

	if (failed->first == NULL) {
		return;
	}
	call = call_take(launcher, QUEUE_FAILED, &failed->first);
	if (failed->first != NULL) {
		loop_timer_after(launcher->failing, 0);
	}
	call_end(call, &nothing, none, call->failure);
}

static void call_fail(
	struct launcher *launcher, struct launcher_call *call, const struct error *err)
{
	call->failure = xcalloc(1, sizeof(*call->failure));
	error_copy(call->failure, err);
	call_put(launcher, QUEUE_FAILED, call);
	if (launcher->failing != NULL) {
		loop_timer_after(launcher->failing, 0);
	}
}

static struct launcher_process *process_choose(struct launcher *launcher, bool creates)
{
	struct launcher_process *best = NULL;

	for (size_t i = 0; i < launcher->process_count; i++) {
		/* Round robin among equals. */
		struct launcher_process *process =
			&launcher->processes[(launcher->number + i) % launcher->process_count];

		if (process->fd < 0 || process->outstanding >= LAUNCHER_OUTSTANDING_MAX ||
			(creates && process->creates >= LAUNCHER_CREATES_MAX)) {
			continue;
		}
		if (best == NULL || process->outstanding < best->outstanding) {
			best = process;
		}
	}
	return best;
}

static bool any_alive(const struct launcher *launcher)
{
	for (size_t i = 0; i < launcher->process_count; i++) {
		if (launcher->processes[i].fd >= 0) {
			return true;
		}
	}
	return false;
}

static void all_fail(struct launcher *launcher, enum launcher_queue queue)
{
	struct launcher_calls *waiting = &launcher->queues[queue];
	struct error err;

	error_set(&err, ERROR_UNAVAILABLE, "no launcher is left");
	error_hint(&err, "restart hobd; the sandboxes live on");
	while (waiting->first != NULL) {
		call_fail(launcher, call_take(launcher, queue, &waiting->first), &err);
	}
}

static void queue_send(struct launcher *launcher, enum launcher_queue queue)
{
	struct launcher_calls *waiting = &launcher->queues[queue];

	while (waiting->first != NULL) {
		struct launcher_process *process = process_choose(launcher, queue == QUEUE_CREATES);
		struct launcher_call *call = waiting->first;
		size_t length = launcher_request_size(&call->request);

		/* A full or dead launcher says so by a reply, or by the end of its socket. */
		if (process == NULL || send(process->fd, &call->request, length,
					       MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)length) {
			return;
		}
		call_take(launcher, queue, &waiting->first);
		call->process = process;
		process->outstanding++;
		process->creates += call->request.op == LAUNCHER_CREATE ? 1 : 0;
		call_put(launcher, QUEUE_SENT, call);
	}
}

static void dispatch(struct launcher *launcher)
{
	if (launcher->loop == NULL) {
		return;
	}
	if (!any_alive(launcher)) {
		all_fail(launcher, QUEUE_OTHERS);
		all_fail(launcher, QUEUE_CREATES);
		return;
	}
	queue_send(launcher, QUEUE_OTHERS);
	queue_send(launcher, QUEUE_CREATES);
}

static void process_lost(struct launcher *launcher, struct launcher_process *process)
{
	struct launcher_call **link = &launcher->queues[QUEUE_SENT].first;
	bool first = !launcher->lost_called;
	struct error err;

	error_set(&err, ERROR_UNAVAILABLE, "the launcher died before it answered");
	loop_source_free(process->source);
	process->source = NULL;
	fd_done(&process->fd);
	while (*link != NULL) {
		if ((*link)->process == process) {
			call_fail(launcher, call_take(launcher, QUEUE_SENT, link), &err);
		} else {
			link = &(*link)->next;
		}
	}
	dispatch(launcher);
	launcher->lost_called = true;
	if (first && launcher->lost != NULL) {
		launcher->lost(launcher->lost_context);
	}
}

static size_t fds_wanted(const struct launcher_call *call)
{
	switch ((enum launcher_op)call->request.op) {
	case LAUNCHER_STORE:
		return 3;
	case LAUNCHER_CREATE:
		return 2;
	case LAUNCHER_PREPARE:
	case LAUNCHER_BUILD:
	case LAUNCHER_UPKEEP:
		return 1;
	case LAUNCHER_FREEZE:
	case LAUNCHER_THAW:
	case LAUNCHER_DESTROY:
	case LAUNCHER_SEAL:
	case LAUNCHER_REMOVE:
	case LAUNCHER_SNAPSHOT:
	case LAUNCHER_KEEP:
	case LAUNCHER_PAGE_OUT:
	case LAUNCHER_MEASURE:
	case LAUNCHER_AHEAD:
	case LAUNCHER_OPS:
		break;
	}
	return 0;
}

static struct launcher_call *call_answered(struct launcher *launcher, uint32_t number)
{
	struct launcher_call **link = &launcher->queues[QUEUE_SENT].first;

	while (*link != NULL && (*link)->request.number != number) {
		link = &(*link)->next;
	}
	return *link != NULL ? call_take(launcher, QUEUE_SENT, link) : NULL;
}

/* One reply; the next one makes the loop call again. */
static void on_reply(void *context, uint32_t events)
{
	struct launcher_process *process = context;
	struct launcher *launcher = process->launcher;
	struct launcher_reply reply;
	struct launcher_call *call;
	int fds[IO_FDS_MAX] = {-1, -1, -1};
	size_t fd_count = 0;
	ssize_t got;

	(void)events;
	memset(&reply, 0, sizeof(reply));
	got = io_recv_fds(process->fd, &reply, sizeof(reply), fds, &fd_count, MSG_DONTWAIT);
	if (got < 0 && errno == EAGAIN) {
		return;
	}
	call = got > 0 ? call_answered(launcher, reply.number) : NULL;
	if (call == NULL || (reply.err.kind == ERROR_NONE && fd_count != fds_wanted(call))) {
		while (fd_count > 0) {
			close(fds[--fd_count]);
		}
		if (call != NULL) {
			call_put(launcher, QUEUE_SENT, call);
		}
		process_lost(launcher, process);
		return;
	}
	process->outstanding--;
	process->creates -= call->request.op == LAUNCHER_CREATE ? 1 : 0;
	dispatch(launcher);
	call_end(call, &reply, fds, reply.err.kind != ERROR_NONE ? &reply.err : NULL);
}

int launcher_attach(struct launcher *launcher, struct loop *loop, void (*lost)(void *context),
	void *context, struct error *err)
{
	launcher->loop = loop;
	launcher->lost = lost;
	launcher->lost_context = context;
	launcher->failing = loop_timer_new(loop, on_failing, launcher);
	for (size_t i = 0; i < launcher->process_count; i++) {
		struct launcher_process *process = &launcher->processes[i];

		if (loop_add_fd(loop, process->fd, EPOLLIN, on_reply, process, &process->source,
			    err) < 0) {
			return -(int)err->kind;
		}
	}
	if (launcher->queues[QUEUE_FAILED].first != NULL) {
		loop_timer_after(launcher->failing, 0);
	}
	dispatch(launcher);
	return 0;
}

/* They end by themselves when their sockets close; one that hangs is left behind. */
static void processes_wait(struct launcher *launcher)
{
	int64_t deadline_ms = clock_mono_ms() + STOP_WAIT_MS;

	for (size_t i = 0; i < launcher->process_count; i++) {
		CLEANUP(close_p)
		int pidfd = (int)syscall(SYS_pidfd_open, launcher->processes[i].pid, 0);
		struct pollfd ended = {.fd = pidfd, .events = POLLIN};
		int64_t left_ms = deadline_ms - clock_mono_ms();

		if (pidfd >= 0) {
			(void)poll(&ended, 1, left_ms > 0 ? (int)left_ms : 0);
		}
		(void)waitpid(launcher->processes[i].pid, NULL, WNOHANG);
	}
}

void launcher_stop(struct launcher *launcher)
{
	if (launcher == NULL) {
		return;
	}
	for (size_t i = 0; i < launcher->process_count; i++) {
		loop_source_free(launcher->processes[i].source);
		fd_done(&launcher->processes[i].fd);
	}
	loop_timer_free(launcher->failing);
	for (size_t i = 0; i < QUEUES; i++) {
		while (launcher->queues[i].first != NULL) {
			call_free(call_take(
				launcher, (enum launcher_queue)i, &launcher->queues[i].first));
		}
	}
	processes_wait(launcher);
	free(launcher);
}

int64_t launcher_slot_base(const struct launcher *launcher, uint32_t slot)
{
	return launcher->id_base + (int64_t)slot * ID_RANGE;
}

static struct launcher_call *call_new(struct launcher *launcher, enum launcher_op op, void *context)
{
	struct launcher_call *call = xcalloc(1, sizeof(*call));

	call->request.op = op;
	call->request.number = ++launcher->number;
	call->context = context;
	return call;
}

static void call_start(struct launcher *launcher, struct launcher_call *call)
{
	struct error err = ERROR_INIT;

	if (launcher_request_check(&call->request, launcher_request_size(&call->request),
		    launcher->slots, &err) < 0) {
		call_fail(launcher, call, &err);
		return;
	}
	call_put(
		launcher, call->request.op == LAUNCHER_CREATE ? QUEUE_CREATES : QUEUE_OTHERS, call);
	dispatch(launcher);
}

/* A name that does not fit becomes one that no check lets pass. */
static void name_put(char *to, size_t size, const char *name)
{
	if ((size_t)snprintf(to, size, "%s", name != NULL ? name : "") >= size) {
		snprintf(to, size, "(too long)");
	}
}

void sandbox_create(struct launcher *launcher, const struct sandbox_spec *spec,
	sandbox_created_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_CREATE, context);
	struct launcher_request *request = &call->request;
	struct error err = ERROR_INIT;

	call->fn.created = fn;
	request->kind = spec->kind;
	request->slot = spec->slot;
	request->network_host = spec->network_host;
	request->limits = spec->limits;
	name_put(request->name, sizeof(request->name), spec->id);
	name_put(request->staging, sizeof(request->staging), spec->staging);
	name_put(request->hostname, sizeof(request->hostname), spec->hostname);
	if (spec->layer_count > SANDBOX_LAYERS_MAX) {
		error_set(&err, ERROR_LIMIT, "%zu layers: at most %d", spec->layer_count,
			SANDBOX_LAYERS_MAX);
		call_fail(launcher, call, &err);
		return;
	}
	for (size_t i = 0; i < spec->layer_count; i++) {
		const struct layer *layer = &spec->layers[i];

		request->layers[i] =
			(struct launcher_layer){layer->id, layer->id_base, layer->id_count};
		request->host_usr = request->host_usr || layer->host_usr;
	}
	request->layer_count = (uint32_t)spec->layer_count;
	call_start(launcher, call);
}

static void sandbox_ask(struct launcher *launcher, enum launcher_op op, const char *id,
	sandbox_done_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, op, context);

	call->fn.done = fn;
	name_put(call->request.name, sizeof(call->request.name), id);
	call_start(launcher, call);
}

void sandbox_freeze(struct launcher *launcher, const char *id, sandbox_done_fn *fn, void *context)
{
	sandbox_ask(launcher, LAUNCHER_FREEZE, id, fn, context);
}

void sandbox_thaw(struct launcher *launcher, const char *id, sandbox_done_fn *fn, void *context)
{
	sandbox_ask(launcher, LAUNCHER_THAW, id, fn, context);
}

void sandbox_destroy(struct launcher *launcher, const char *id, sandbox_done_fn *fn, void *context)
{
	sandbox_ask(launcher, LAUNCHER_DESTROY, id, fn, context);
}

void sandbox_page_out(struct launcher *launcher, const char *id, sandbox_done_fn *fn, void *context)
{
	sandbox_ask(launcher, LAUNCHER_PAGE_OUT, id, fn, context);
}

void sandbox_measure(
	struct launcher *launcher, const char *id, sandbox_measured_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_MEASURE, context);

	call->fn.measured = fn;
	name_put(call->request.name, sizeof(call->request.name), id);
	call_start(launcher, call);
}

void sandbox_seal(
	struct launcher *launcher, const char *staging, sandbox_done_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_SEAL, context);

	call->fn.done = fn;
	name_put(call->request.staging, sizeof(call->request.staging), staging);
	call_start(launcher, call);
}

void sandbox_snapshot(struct launcher *launcher, const char *id, const char *staging,
	int64_t previous_layer, int64_t max_pause_us, sandbox_copied_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_SNAPSHOT, context);

	call->fn.copied = fn;
	call->request.previous = previous_layer;
	call->request.max_pause_us = max_pause_us;
	name_put(call->request.name, sizeof(call->request.name), id);
	name_put(call->request.staging, sizeof(call->request.staging), staging);
	call_start(launcher, call);
}

void sandbox_keep(struct launcher *launcher, const char *id, const char *staging,
	sandbox_done_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_KEEP, context);

	call->fn.done = fn;
	name_put(call->request.name, sizeof(call->request.name), id);
	name_put(call->request.staging, sizeof(call->request.staging), staging);
	call_start(launcher, call);
}

void launcher_prepare_tree(
	struct launcher *launcher, const char *staging, uint32_t slot, userns_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_PREPARE, context);

	call->fn.userns = fn;
	call->request.slot = slot;
	name_put(call->request.staging, sizeof(call->request.staging), staging);
	call_start(launcher, call);
}

void launcher_remove(struct launcher *launcher, const char *room, const char *name,
	sandbox_done_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_REMOVE, context);

	call->fn.done = fn;
	name_put(call->request.room, sizeof(call->request.room), room);
	name_put(call->request.staging, sizeof(call->request.staging), name);
	call_start(launcher, call);
}

/* Whatever came of it: what is not there is made when it is needed. */
static void on_ahead(void *context, const struct error *err)
{
	(void)context;
	(void)err;
}

void launcher_make_ahead(struct launcher *launcher, size_t count)
{
	size_t share = (count + launcher->process_count - 1) / launcher->process_count;

	/* Each goes to the one that has the least to do, so no two to the same. */
	for (size_t i = 0; i < launcher->process_count; i++) {
		struct launcher_call *call = call_new(launcher, LAUNCHER_AHEAD, NULL);

		call->fn.done = on_ahead;
		call->request.kind = (uint32_t)share;
		call_start(launcher, call);
	}
}

void launcher_build(struct launcher *launcher, const char *environment, enum build_mode mode,
	build_started_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_BUILD, context);

	call->fn.built = fn;
	call->request.build = mode;
	name_put(call->request.name, sizeof(call->request.name), environment);
	call_start(launcher, call);
}

void launcher_store(struct launcher *launcher, const struct store_order *order,
	store_started_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_STORE, context);

	call->fn.store = fn;
	call->request.kind = order->tool;
	call->request.host_usr = order->option;
	name_put(call->request.name, sizeof(call->request.name), order->name);
	name_put(call->request.hostname, sizeof(call->request.hostname), order->second);
	call_start(launcher, call);
}

void launcher_flatten(
	struct launcher *launcher, const char *snapshot, build_started_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_UPKEEP, context);

	call->fn.built = fn;
	name_put(call->request.name, sizeof(call->request.name), snapshot);
	call_start(launcher, call);
}

void launcher_upkeep(struct launcher *launcher, build_started_fn *fn, void *context)
{
	struct launcher_call *call = call_new(launcher, LAUNCHER_UPKEEP, context);

	call->fn.built = fn;
	call_start(launcher, call);
}
