/*
 * epoll with a binary heap of timers. Invariants: a freed source stays on the `dead` list until no
 * event of the current batch can name it; a timer's `place` is its index in the heap or NOWHERE.
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

struct loop_timer {
	struct loop *loop;
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
	struct loop_timer **heap;
	size_t heap_count, heap_room;
	bool stopped;
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
	while (loop->heap_count > 0) {
		loop_timer_free(loop->heap[0]);
	}
	free(loop->heap);
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

static void heap_put(struct loop *loop, struct loop_timer *timer, size_t place)
{
	loop->heap[place] = timer;
	timer->place = place;
}

static void heap_up(struct loop *loop, struct loop_timer *timer, size_t place)
{
	while (place > 0 && loop->heap[(place - 1) / 2]->at_ms > timer->at_ms) {
		heap_put(loop, loop->heap[(place - 1) / 2], place);
		place = (place - 1) / 2;
	}
	heap_put(loop, timer, place);
}

static void heap_down(struct loop *loop, struct loop_timer *timer, size_t place)
{
	for (;;) {
		size_t child = 2 * place + 1;

		if (child >= loop->heap_count) {
			break;
		}
		if (child + 1 < loop->heap_count &&
			loop->heap[child + 1]->at_ms < loop->heap[child]->at_ms) {
			child++;
		}
		if (loop->heap[child]->at_ms >= timer->at_ms) {
			break;
		}
		heap_put(loop, loop->heap[child], place);
		place = child;
	}
	heap_put(loop, timer, place);
}

struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn *fn, void *context)
{
	struct loop_timer *timer = xcalloc(1, sizeof(*timer));

	*timer = (struct loop_timer){.loop = loop, .fn = fn, .context = context, .place = NOWHERE};
	return timer;
}

void loop_timer_at(struct loop_timer *timer, int64_t at_ms)
{
	struct loop *loop = timer->loop;

	loop_timer_stop(timer);
	timer->at_ms = at_ms;
	(void)*array_add(&loop->heap, &loop->heap_count, &loop->heap_room);
	heap_up(loop, timer, loop->heap_count - 1);
}

void loop_timer_after(struct loop_timer *timer, int64_t delay_ms)
{
	loop_timer_at(timer, clock_mono_ms() + delay_ms);
}

void loop_timer_stop(struct loop_timer *timer)
{
	struct loop *loop = timer->loop;
	size_t place = timer->place;
	struct loop_timer *last;

	if (place == NOWHERE) {
		return;
	}
	timer->place = NOWHERE;
	last = loop->heap[--loop->heap_count];
	if (last == timer) {
		return;
	}
	heap_up(loop, last, place);
	heap_down(loop, last, last->place);
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

static int next_timeout_ms(const struct loop *loop)
{
	int64_t left;

	if (loop->heap_count == 0) {
		return -1;
	}
	left = loop->heap[0]->at_ms - clock_mono_ms();
	return left <= 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static void fire_timers(struct loop *loop)
{
	int64_t now = clock_mono_ms();

	while (!loop->stopped && loop->heap_count > 0 && loop->heap[0]->at_ms <= now) {
		struct loop_timer *timer = loop->heap[0];

		loop_timer_stop(timer);
		timer->fn(timer->context);
	}
}

int loop_run(struct loop *loop, struct error *err)
{
	struct epoll_event batch[LOOP_BATCH];

	loop->stopped = false;
	while (!loop->stopped) {
		int count = epoll_wait(loop->epoll_fd, batch, LOOP_BATCH, next_timeout_ms(loop));

		if (count < 0 && errno != EINTR) {
			return error_sys(err, errno, "epoll_wait");
		}
		for (int i = 0; i < count && !loop->stopped; i++) {
			struct loop_source *source = batch[i].data.ptr;

			if (source->fn != NULL) {
				source->fn(source->context, batch[i].events);
			}
		}
		bury_dead(loop);
		fire_timers(loop);
	}
	return 0;
}

void loop_stop(struct loop *loop)
{
	loop->stopped = true;
}
