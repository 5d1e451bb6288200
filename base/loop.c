/*
 * epoll with two binary heaps of timers: those that are punctual, and those that can wait.
 * Invariants: a freed source stays on the `dead` list until no event of the current batch can name
 * it; a timer's `place` is its index in its heap or NOWHERE.
 */
#include "base/loop.h"

#include "base/clock.h"
#include "base/memory.h"

#include <assert.h>
#include <limits.h>
#include <signal.h>
#include <sys/signalfd.h>

/* Events taken from the kernel at a time: enough for a burst, small enough for the stack. */
#define LOOP_BATCH 128
#define NOWHERE SIZE_MAX

struct loop_source {
	struct loop *loop;
	int fd;
	uint32_t events;
	loop_fd_fn *fn; /* NULL once freed */
	void *context;
	struct loop_source *next, *previous;
};

struct timer_heap {
	struct loop_timer **timers; /* the first is the next that is due */
	size_t count, room;
};

struct loop_timer {
	struct loop *loop;
	struct timer_heap *heap; /* that it is or was in */
	loop_timer_fn *fn;
	void *context;
	int64_t at_ms;
	size_t place;
};

struct signal_handler {
	loop_signal_fn *fn;
	void *context;
};

struct loop {
	int epoll_fd;
	int signal_fd;
	sigset_t signals;
	struct signal_handler handlers[NSIG];
	struct loop_source *signal_source;
	struct loop_source *sources;
	struct loop_source *dead;
	struct timer_heap punctual, patient;
	bool quiet; /* nothing has happened for LOOP_QUIET_MS but what can wait */
	bool stopped;
	void (*turn_over)(void *context, int64_t us);
	void *turn_context;
};

int loop_open(struct loop **ret_loop, struct error *err)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd < 0) {
		return error_sys(err, errno, "epoll_create1");
	}
	*ret_loop = xcalloc(1, sizeof(**ret_loop));
	(*ret_loop)->epoll_fd = fd;
	(*ret_loop)->signal_fd = -1;
	sigemptyset(&(*ret_loop)->signals);
	return 0;
}

static void bury_dead(struct loop *loop)
{
	while (loop->dead != NULL) {
		struct loop_source *source = loop->dead;

		loop->dead = source->next;
		free(source);
	}
}

void loop_close(struct loop *loop)
{
	if (loop == NULL) {
		return;
	}
	while (loop->sources != NULL) {
		loop_source_free(loop->sources);
	}
	bury_dead(loop);
	while (loop->punctual.count > 0) {
		loop_timer_free(loop->punctual.timers[0]);
	}
	while (loop->patient.count > 0) {
		loop_timer_free(loop->patient.timers[0]);
	}
	free(loop->punctual.timers);
	free(loop->patient.timers);
	fd_done(&loop->signal_fd);
	close(loop->epoll_fd);
	free(loop);
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *context,
	struct loop_source **ret_source, struct error *err)
{
	struct loop_source *source = xcalloc(1, sizeof(*source));
	struct epoll_event event = {.events = events, .data.ptr = source};

	*source = (struct loop_source){
		.loop = loop, .fd = fd, .events = events, .fn = fn, .context = context};
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		int saved = errno;

		free(source);
		return error_sys(err, saved, "epoll_ctl add %d", fd);
	}
	source->next = loop->sources;
	if (loop->sources != NULL) {
		loop->sources->previous = source;
	}
	loop->sources = source;
	*ret_source = source;
	return 0;
}

void loop_source_events(struct loop_source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};

	if (source->events != events) {
		source->events = events;
		(void)epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
	}
}

void loop_source_free(struct loop_source *source)
{
	struct loop *loop;

	if (source == NULL) {
		return;
	}
	loop = source->loop;
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	if (source->previous != NULL) {
		source->previous->next = source->next;
	} else {
		loop->sources = source->next;
	}
	if (source->next != NULL) {
		source->next->previous = source->previous;
	}
	source->fn = NULL;
	source->next = loop->dead;
	loop->dead = source;
}

static void heap_put(struct timer_heap *heap, struct loop_timer *timer, size_t place)
{
	heap->timers[place] = timer;
	timer->place = place;
}

static void heap_up(struct timer_heap *heap, struct loop_timer *timer, size_t place)
{
	while (place > 0 && heap->timers[(place - 1) / 2]->at_ms > timer->at_ms) {
		heap_put(heap, heap->timers[(place - 1) / 2], place);
		place = (place - 1) / 2;
	}
	heap_put(heap, timer, place);
}

static void heap_down(struct timer_heap *heap, struct loop_timer *timer, size_t place)
{
	for (;;) {
		size_t child = 2 * place + 1;

		if (child >= heap->count) {
			break;
		}
		if (child + 1 < heap->count &&
			heap->timers[child + 1]->at_ms < heap->timers[child]->at_ms) {
			child++;
		}
		if (heap->timers[child]->at_ms >= timer->at_ms) {
			break;
		}
		heap_put(heap, heap->timers[child], place);
		place = child;
	}
	heap_put(heap, timer, place);
}

struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn *fn, void *context)
{
	struct loop_timer *timer = xcalloc(1, sizeof(*timer));

	*timer = (struct loop_timer){.loop = loop, .fn = fn, .context = context, .place = NOWHERE};
	return timer;
}

static void timer_start(struct loop_timer *timer, struct timer_heap *heap, int64_t at_ms)
{
	loop_timer_stop(timer);
	timer->heap = heap;
	timer->at_ms = at_ms;
	(void)*array_add(&heap->timers, &heap->count, &heap->room);
	heap_up(heap, timer, heap->count - 1);
}

void loop_timer_at(struct loop_timer *timer, int64_t at_ms)
{
	timer_start(timer, &timer->loop->punctual, at_ms);
}

void loop_timer_after(struct loop_timer *timer, int64_t delay_ms)
{
	loop_timer_at(timer, clock_mono_ms() + delay_ms);
}

void loop_timer_later(struct loop_timer *timer, int64_t delay_ms)
{
	timer_start(timer, &timer->loop->patient, clock_mono_ms() + delay_ms);
}

void loop_timer_stop(struct loop_timer *timer)
{
	struct timer_heap *heap = timer->heap;
	size_t place = timer->place;
	struct loop_timer *last;

	if (place == NOWHERE) {
		return;
	}
	timer->place = NOWHERE;
	last = heap->timers[--heap->count];
	if (last == timer) {
		return;
	}
	heap_up(heap, last, place);
	heap_down(heap, last, last->place);
}

void loop_timer_free(struct loop_timer *timer)
{
	if (timer != NULL) {
		loop_timer_stop(timer);
		free(timer);
	}
}

static void on_signal(void *context, uint32_t events)
{
	struct loop *loop = context;
	struct signalfd_siginfo info;

	(void)events;
	while (read(loop->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		struct signal_handler *handler = &loop->handlers[info.ssi_signo];

		if (handler->fn != NULL) {
			handler->fn(handler->context, (int)info.ssi_signo);
		}
	}
}

int loop_add_signal(
	struct loop *loop, int signal, loop_signal_fn *fn, void *context, struct error *err)
{
	bool first = loop->signal_fd < 0;

	assert(signal > 0 && signal < NSIG);
	sigaddset(&loop->signals, signal);
	/* A signal that is ignored, as a shell leaves SIGINT for what it starts in the background,
	 * is dropped even while it is blocked. */
	if (sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL) < 0 ||
		sigprocmask(SIG_BLOCK, &loop->signals, NULL) < 0) {
		return error_sys(err, errno, "take signal %d", signal);
	}
	loop->signal_fd = signalfd(loop->signal_fd, &loop->signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (loop->signal_fd < 0) {
		return error_sys(err, errno, "signalfd");
	}
	loop->handlers[signal] = (struct signal_handler){fn, context};
	if (!first) {
		return 0;
	}
	return loop_add_fd(
		loop, loop->signal_fd, EPOLLIN, on_signal, loop, &loop->signal_source, err);
}

static int64_t heap_next_ms(const struct timer_heap *heap)
{
	return heap->count > 0 ? heap->timers[0]->at_ms : INT64_MAX;
}

static int next_timeout_ms(const struct loop *loop)
{
	int64_t next = heap_next_ms(&loop->punctual), patient = heap_next_ms(&loop->patient);
	int64_t now, left;

	if (next == INT64_MAX && patient == INT64_MAX) {
		return -1;
	}
	now = clock_mono_ms();
	if (patient > now) {
		next = patient < next ? patient : next;
	} else if (loop->quiet || patient + LOOP_LATE_MS <= now) {
		next = now;
	} else if (next > now + LOOP_QUIET_MS) {
		next = now + LOOP_QUIET_MS;
	}
	left = next - now;
	return left <= 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static void timer_fire(struct loop_timer *timer)
{
	loop_timer_stop(timer);
	timer->fn(timer->context);
}

static size_t fire_punctual(struct loop *loop)
{
	int64_t now = clock_mono_ms();
	size_t fired = 0;

	while (!loop->stopped && heap_next_ms(&loop->punctual) <= now) {
		timer_fire(loop->punctual.timers[0]);
		fired++;
	}
	return fired;
}

static bool fire_patient(struct loop *loop)
{
	int64_t next = heap_next_ms(&loop->patient);

	if (loop->stopped || next == INT64_MAX ||
		next + (loop->quiet ? 0 : LOOP_LATE_MS) > clock_mono_ms()) {
		return false;
	}
	timer_fire(loop->patient.timers[0]);
	return true;
}

/* What `count` descriptors say, then the timers. */
static void turn(struct loop *loop, const struct epoll_event *batch, int count, bool waited)
{
	int64_t started_us = clock_mono_us();
	size_t fired;
	bool busy;

	for (int i = 0; i < count && !loop->stopped; i++) {
		struct loop_source *source = batch[i].data.ptr;

		if (source->fn != NULL) {
			source->fn(source->context, batch[i].events);
		}
	}
	bury_dead(loop);
	fired = fire_punctual(loop);
	loop->quiet = fired == 0 && count <= 0 && (loop->quiet || waited);
	busy = fire_patient(loop) || fired > 0 || count > 0;
	if (busy && loop->turn_over != NULL) {
		loop->turn_over(loop->turn_context, clock_mono_us() - started_us);
	}
}

void loop_watch_turns(struct loop *loop, void (*fn)(void *context, int64_t us), void *context)
{
	loop->turn_over = fn;
	loop->turn_context = context;
}

int loop_run(struct loop *loop, struct error *err)
{
	struct epoll_event batch[LOOP_BATCH];

	loop->stopped = false;
	while (!loop->stopped) {
		int timeout_ms = next_timeout_ms(loop);
		int count = epoll_wait(loop->epoll_fd, batch, LOOP_BATCH, timeout_ms);

		if (count < 0 && errno != EINTR) {
			return error_sys(err, errno, "epoll_wait");
		}
		turn(loop, batch, count, timeout_ms > 0);
	}
	return 0;
}

void loop_stop(struct loop *loop)
{
	loop->stopped = true;
}
