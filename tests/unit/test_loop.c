/* Descriptors, timers in order, signals, and that a source may be freed from any handler. */
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/loop.h"

#include <fcntl.h>
#include <signal.h>

struct fixture {
	struct loop *loop;
	int pipes[2][2];
	struct loop_source *sources[2];
	struct loop_timer *timers[64];
	int calls;
	int order[64];
	struct error err;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	assert_ok(loop_open(&f->loop, &f->err), &f->err);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pipe2(f->pipes[i], O_CLOEXEC | O_NONBLOCK), 0);
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(f->timers); i++) {
		loop_timer_free(f->timers[i]);
	}
	loop_close(f->loop);
	for (int i = 0; i < 2; i++) {
		close(f->pipes[i][0]);
		close(f->pipes[i][1]);
	}
	free(f);
	return 0;
}

static void watch(struct fixture *f, int which, loop_fd_fn *fn)
{
	assert_ok(loop_add_fd(
			  f->loop, f->pipes[which][0], EPOLLIN, fn, f, &f->sources[which], &f->err),
		&f->err);
	assert_int_equal(write(f->pipes[which][1], "x", 1), 1);
}

static void read_and_stop(void *context, uint32_t events)
{
	struct fixture *f = context;
	char byte;

	assert_true((events & EPOLLIN) != 0);
	assert_int_equal(read(f->pipes[0][0], &byte, 1), 1);
	f->calls++;
	loop_stop(f->loop);
}

static void test_descriptor(void **state)
{
	struct fixture *f = *state;

	watch(f, 0, read_and_stop);
	assert_ok(loop_run(f->loop, &f->err), &f->err);
	assert_int_equal(f->calls, 1);
	loop_source_free(f->sources[0]);
}

static void free_both(void *context, uint32_t events)
{
	struct fixture *f = context;

	(void)events;
	f->calls++;
	loop_source_free(f->sources[0]);
	loop_source_free(f->sources[1]);
	loop_stop(f->loop);
}

/* Both are ready in one batch; whichever comes first frees the other, which must not be called. */
static void test_freed_source_is_not_called(void **state)
{
	struct fixture *f = *state;

	watch(f, 0, free_both);
	watch(f, 1, free_both);
	assert_ok(loop_run(f->loop, &f->err), &f->err);
	assert_int_equal(f->calls, 1);
}

static void stop_on_timer(void *context)
{
	struct fixture *f = context;

	loop_stop(f->loop);
}

static void count(void *context, uint32_t events)
{
	struct fixture *f = context;

	(void)events;
	f->calls++;
}

static void test_masked_source_is_silent(void **state)
{
	struct fixture *f = *state;

	watch(f, 0, count);
	loop_source_events(f->sources[0], 0);
	f->timers[0] = loop_timer_new(f->loop, stop_on_timer, f);
	loop_timer_after(f->timers[0], 20);
	assert_ok(loop_run(f->loop, &f->err), &f->err);
	assert_int_equal(f->calls, 0);
	loop_source_free(f->sources[0]);
}

struct numbered {
	struct fixture *fixture;
	int number;
};
static struct numbered numbers[64];

static void note_order(void *context)
{
	struct numbered *n = context;

	n->fixture->order[n->fixture->calls++] = n->number;
	if (n->number == 63) {
		loop_stop(n->fixture->loop);
	}
}

static void test_timers_fire_in_order(void **state)
{
	struct fixture *f = *state;
	int64_t now = clock_mono_ms();

	for (int i = 0; i < 64; i++) {
		int shuffled = (i * 37) % 64;

		numbers[i] = (struct numbered){f, shuffled};
		f->timers[i] = loop_timer_new(f->loop, note_order, &numbers[i]);
		loop_timer_at(f->timers[i], now + 500);
		loop_timer_at(f->timers[i], now + shuffled / 4);
	}
	for (int i = 0; i < 64; i++) {
		if (numbers[i].number % 5 == 0) {
			loop_timer_stop(f->timers[i]);
		}
	}
	assert_ok(loop_run(f->loop, &f->err), &f->err);
	for (int i = 1; i < f->calls; i++) {
		assert_true(f->order[i] / 4 >= f->order[i - 1] / 4);
		assert_int_not_equal(f->order[i] % 5, 0);
	}
	assert_true(f->calls >= 48);
}

static void again(void *context)
{
	struct fixture *f = context;

	if (++f->calls == 3) {
		loop_timer_free(f->timers[0]);
		f->timers[0] = NULL;
		loop_stop(f->loop);
	} else {
		loop_timer_after(f->timers[0], 1);
	}
}

static void test_timer_arms_itself_again_and_frees_itself(void **state)
{
	struct fixture *f = *state;

	f->timers[0] = loop_timer_new(f->loop, again, f);
	loop_timer_after(f->timers[0], 0);
	assert_ok(loop_run(f->loop, &f->err), &f->err);
	assert_int_equal(f->calls, 3);
}

static void note_patient(void *context)
{
	struct numbered *numbered = context;
	struct fixture *f = numbered->fixture;

	f->order[f->calls++] = numbered->number;
	if (f->calls == 6) {
		loop_stop(f->loop);
	}
}

/* Reads one byte in a turn, so that three turns have something to do. */
static void read_one(void *context, uint32_t events)
{
	struct fixture *f = context;
	char byte;

	(void)events;
	assert_int_equal(read(f->pipes[0][0], &byte, 1), 1);
	f->order[f->calls++] = 100;
}

/* One piece of what can wait in a turn, and what is there to be read before it, though it was due
 * later. */
static void test_patient_timers_come_last(void **state)
{
	struct fixture *f = *state;
	struct numbered waiting[] = {{f, 1}, {f, 2}, {f, 3}};
	int reads = 0, others = 0;

	for (int i = 0; i < 3; i++) {
		f->timers[i] = loop_timer_new(f->loop, note_patient, &waiting[i]);
		loop_timer_later(f->timers[i], 0);
	}
	watch(f, 0, read_one);
	assert_int_equal(write(f->pipes[0][1], "yz", 2), 2);
	assert_ok(loop_run(f->loop, &f->err), &f->err);
	for (int i = 0; i < 6; i++) {
		reads += f->order[i] == 100 ? 1 : 0;
		others += f->order[i] != 100 ? 1 : 0;
		assert_true(reads >= others);
	}
	assert_int_equal(reads, 3);
	loop_source_free(f->sources[0]);
}

static void stay_busy(void *context, uint32_t events)
{
	struct fixture *f = context;

	(void)events;
	f->order[0]++; /* and leaves the byte where it is */
}

static void stop(void *context)
{
	struct fixture *f = context;

	f->calls++;
	loop_stop(f->loop);
}

/* A descriptor that is always ready keeps nothing waiting for good, and what was armed for later
 * may be armed as punctual and the other way round. */
static void test_patient_timers_come_in_the_end(void **state)
{
	struct fixture *f = *state;

	f->timers[0] = loop_timer_new(f->loop, stop, f);
	loop_timer_after(f->timers[0], 0);
	loop_timer_later(f->timers[0], 0);
	watch(f, 0, stay_busy);
	assert_ok(loop_run(f->loop, &f->err), &f->err);
	assert_int_equal(f->calls, 1);
	assert_true(f->order[0] > 0);
	loop_source_free(f->sources[0]);
	loop_timer_later(f->timers[0], 1000000);
	loop_timer_after(f->timers[0], 0);
	assert_ok(loop_run(f->loop, &f->err), &f->err);
	assert_int_equal(f->calls, 2);
}

static void on_signal(void *context, int number)
{
	struct fixture *f = context;

	f->order[f->calls++] = number;
	if (f->calls == 2) {
		loop_stop(f->loop);
	}
}

/* One of them was ignored before, as shells do with SIGINT of background jobs. */
static void test_signals(void **state)
{
	struct fixture *f = *state;

	sigaction(SIGUSR2, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
	assert_ok(loop_add_signal(f->loop, SIGUSR1, on_signal, f, &f->err), &f->err);
	assert_ok(loop_add_signal(f->loop, SIGUSR2, on_signal, f, &f->err), &f->err);
	kill(getpid(), SIGUSR1);
	kill(getpid(), SIGUSR2);
	assert_ok(loop_run(f->loop, &f->err), &f->err);
	assert_int_equal(f->order[0] + f->order[1], SIGUSR1 + SIGUSR2);
}

static void test_adding_a_bad_descriptor_fails(void **state)
{
	struct fixture *f = *state;

	assert_true(loop_add_fd(f->loop, -1, EPOLLIN, count, f, &f->sources[0], &f->err) < 0);
	assert_null(f->sources[0]);
	loop_source_free(NULL);
	loop_timer_free(NULL);
	loop_close(NULL);
}

#define WITH_LOOP(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_LOOP(test_descriptor),
		WITH_LOOP(test_freed_source_is_not_called),
		WITH_LOOP(test_masked_source_is_silent),
		WITH_LOOP(test_timers_fire_in_order),
		WITH_LOOP(test_timer_arms_itself_again_and_frees_itself),
		WITH_LOOP(test_patient_timers_come_last),
		WITH_LOOP(test_patient_timers_come_in_the_end),
		WITH_LOOP(test_signals),
		WITH_LOOP(test_adding_a_bad_descriptor_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
