/*
 * Creations, destructions and freezes by the launcher, without the daemon: `create [rounds
 * [launchers]]` prints medians one at a time, and how many a second when as many as possible are
 * under way. Run as root on a quiet machine.
 */
#include "base/clock.h"
#include "base/loop.h"
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"

#include <stdio.h>

#define ROUNDS_DEFAULT 200
#define ROUNDS_MAX 1800

static int compare(const void *a, const void *b)
{
	int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

	return left < right ? -1 : left > right;
}

static void show(const char *what, int64_t *times, size_t count)
{
	qsort(times, count, sizeof(*times), compare);
	printf("%-34s p10 %6lld us   median %6lld   p90 %6lld   p99 %6lld\n", what,
		(long long)times[count / 10], (long long)times[count / 2],
		(long long)times[count * 9 / 10], (long long)times[count * 99 / 100]);
}

static void one_at_a_time(struct sandbox_kit *kit, size_t rounds)
{
	static int64_t created[ROUNDS_MAX], hello[ROUNDS_MAX], inside[ROUNDS_MAX],
		command[ROUNDS_MAX], frozen[ROUNDS_MAX], thawed[ROUNDS_MAX], destroyed[ROUNDS_MAX];

	for (size_t i = 0; i < rounds; i++) {
		struct sandbox_spec spec = kit_spec(kit, "sb-bench", (uint32_t)i);
		int64_t start = clock_mono_us();
		struct kit_box box;

		assert_ok(box_create(kit, &box, &spec), &kit->err);
		created[i] = clock_mono_us() - start;
		inside[i] = box.created.took_us;
		box_connect(&box);
		hello[i] = clock_mono_us() - start;
		free(box_shell(&box, ":", NULL));
		command[i] = clock_mono_us() - start;
		start = clock_mono_us();
		assert_ok(kit_freeze(kit, box.id), &kit->err);
		frozen[i] = clock_mono_us() - start;
		start = clock_mono_us();
		assert_ok(kit_thaw(kit, box.id), &kit->err);
		thawed[i] = clock_mono_us() - start;
		start = clock_mono_us();
		assert_int_equal(box_close(&box), 0);
		destroyed[i] = clock_mono_us() - start;
	}
	show("create, in the launcher", inside, rounds);
	show("create, request to reply", created, rounds);
	show("create, request to hello", hello, rounds);
	show("create, request to end of sh -c :", command, rounds);
	show("freeze", frozen, rounds);
	show("thaw", thawed, rounds);
	show("destroy", destroyed, rounds);
}

struct many {
	struct loop *loop;
	size_t wanted, ended;
	int fds[ROUNDS_MAX][2];
};

static void on_created(
	void *context, const struct sandbox_created *created, const struct error *err)
{
	struct many *many = context;

	if (err != NULL) {
		fail_msg("%s", err->message);
	}
	many->fds[many->ended][0] = created->pidfd;
	many->fds[many->ended][1] = created->control_fd;
	if (++many->ended == many->wanted) {
		loop_stop(many->loop);
	}
}

static void on_destroyed(void *context, const struct error *err)
{
	struct many *many = context;

	if (err != NULL) {
		fail_msg("%s", err->message);
	}
	if (++many->ended == many->wanted) {
		loop_stop(many->loop);
	}
}

static void many_at_a_time(struct sandbox_kit *kit, size_t rounds)
{
	static struct many many;
	struct error err = ERROR_INIT;
	int64_t start = clock_mono_us(), middle;
	char id[32];

	many = (struct many){.loop = kit->loop, .wanted = rounds};
	for (size_t i = 0; i < rounds; i++) {
		struct sandbox_spec spec = kit_spec(kit, id, (uint32_t)i);

		(void)snprintf(id, sizeof(id), "sb-many%zu", i);
		sandbox_create(kit->launcher, &spec, on_created, &many);
	}
	assert_ok(loop_run(kit->loop, &err), &err);
	middle = clock_mono_us();
	many.ended = 0;
	for (size_t i = 0; i < rounds; i++) {
		close(many.fds[i][0]);
		close(many.fds[i][1]);
		(void)snprintf(id, sizeof(id), "sb-many%zu", i);
		sandbox_destroy(kit->launcher, id, on_destroyed, &many);
	}
	assert_ok(loop_run(kit->loop, &err), &err);
	printf("%zu at once: %.0f creations/s, %.0f destructions/s\n", rounds,
		(double)rounds * 1e6 / (double)(middle - start),
		(double)rounds * 1e6 / (double)(clock_mono_us() - middle));
}

int main(int argc, char **argv)
{
	size_t rounds = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : ROUNDS_DEFAULT;
	struct sandbox_kit *kit;

	if (rounds < 1 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "create: 1 to %d rounds\n", ROUNDS_MAX);
		return 2;
	}
	kit = sandbox_kit_new(argc > 2 ? strtol(argv[2], NULL, 10) : 2);
	one_at_a_time(kit, rounds);
	many_at_a_time(kit, rounds);
	sandbox_kit_free(kit);
	return 0;
}
