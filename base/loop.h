/*
 * The event loop: one thread, epoll, timers and signals. A handler must not block. Any source may
 * be freed from any handler, its own included.
 */
#ifndef HOB_BASE_LOOP_H
#define HOB_BASE_LOOP_H

#include "base/error.h"

#include <stdint.h>
#include <sys/epoll.h>

struct loop;
struct loop_source; /* a watched descriptor */
struct loop_timer; /* fires once at a time; arm it again for the next */

MUSTCHECK int loop_open(struct loop **ret_loop, struct error *err);
/* Frees the sources and timers that are left; closes no descriptor of theirs. */
void loop_close(struct loop *loop);
/* Runs until loop_stop. */
MUSTCHECK int loop_run(struct loop *loop, struct error *err);
void loop_stop(struct loop *loop);
/* After each turn that did something: how long it kept everybody else waiting. `fn` NULL: no more.
 */
void loop_watch_turns(struct loop *loop, void (*fn)(void *context, int64_t us), void *context);

typedef void loop_fd_fn(void *context, uint32_t events);
typedef void loop_timer_fn(void *context);
typedef void loop_signal_fn(void *context, int signal);

/* The descriptor stays the caller's, who removes the source before closing it. `events`: EPOLL*. */
MUSTCHECK int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *context,
	struct loop_source **ret_source, struct error *err);
void loop_source_events(struct loop_source *source, uint32_t events);
void loop_source_free(struct loop_source *source); /* NULL is fine */

struct loop_timer *loop_timer_new(struct loop *loop, loop_timer_fn *fn, void *context);
/* At clock_mono_ms() >= at_ms; arming again moves it. O(log n). */
void loop_timer_at(struct loop_timer *timer, int64_t at_ms);
void loop_timer_after(struct loop_timer *timer, int64_t delay_ms);
/* The same for work that can wait: it is done when nothing else has happened for LOOP_QUIET_MS, one
 * piece in a turn, and without regard to others only once it is LOOP_LATE_MS late. */
#define LOOP_QUIET_MS 1
#define LOOP_LATE_MS 25
void loop_timer_later(struct loop_timer *timer, int64_t delay_ms);
void loop_timer_stop(struct loop_timer *timer);
void loop_timer_free(struct loop_timer *timer); /* NULL is fine */

/* Blocks the signal for the process and delivers it to `fn` from the loop. */
MUSTCHECK int loop_add_signal(
	struct loop *loop, int signal, loop_signal_fn *fn, void *context, struct error *err);

#endif
