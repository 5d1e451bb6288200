/*
 * Creations, destructions and freezes by the launcher, without the daemon: `create [rounds
 * [launchers]]` prints medians one at a time, and how many a second when as many as possible are
 * under way. Run as root on a quiet machine.
 */
#include "base/loop.h"
#include "tests/lib/bench_kit.h"
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"

#include <stdio.h>

#define ROUNDS_DEFAULT 200
#define ROUNDS_MAX 1800

static void show(const char *what, struct samples *samples)
{
	printf("%-34s p10 %6.0f us   median %6.0f   p90 %6.0f   p99 %6.0f\n", what,
		samples_at(samples, 0.1), samples_at(samples, 0.5), samples_at(samples, 0.9),
		samples_at(samples, 0.99));
	samples_done(samples);
}

static void one_at_a_time(struct sandbox_kit *kit, size_t rounds)
{
	struct samples created = {0}, inside = {0}, hello = {0}, command = {0}, frozen = {0},
		       thawed = {0}, destroyed = {0};

	for (size_t i = 0; i < rounds; i++) {
		struct sandbox_spec spec = kit_spec(kit, "sb-bench", (uint32_t)i);
		double start = now_us();
		struct kit_box box;

		assert_ok(box_create(kit, &box, &spec), &kit->err);
		samples_add(&created, now_us() - start);
		samples_add(&inside, (double)box.created.took_us);
		box_connect(&box);
		samples_add(&hello, now_us() - start);
		free(box_shell(&box, ":", NULL));
		samples_add(&command, now_us() - start);
		start = now_us();
		assert_ok(kit_freeze(kit, box.id), &kit->err);
		samples_add(&frozen, now_us() - start);
		start = now_us();
		assert_ok(kit_thaw(kit, box.id), &kit->err);
		samples_add(&thawed, now_us() - start);
		start = now_us();
		assert_int_equal(box_close(&box), 0);
		samples_add(&destroyed, now_us() - start);
	}
	show("create, in the launcher", &inside);
	show("create, request to reply", &created);
	show("create, request to hello", &hello);
	show("create, request to end of sh -c :", &command);
	show("freeze", &frozen);
	show("thaw", &thawed);
	show("destroy", &destroyed);
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
	double start = now_us(), middle;
	char id[32];

	many = (struct many){.loop = kit->loop, .wanted = rounds};
	for (size_t i = 0; i < rounds; i++) {
		struct sandbox_spec spec = kit_spec(kit, id, (uint32_t)i);

		(void)snprintf(id, sizeof(id), "sb-many%zu", i);
		sandbox_create(kit->launcher, &spec, on_created, &many);
	}
	assert_ok(loop_run(kit->loop, &err), &err);
	middle = now_us();
	many.ended = 0;
	for (size_t i = 0; i < rounds; i++) {
		close(many.fds[i][0]);
		close(many.fds[i][1]);
		(void)snprintf(id, sizeof(id), "sb-many%zu", i);
		sandbox_destroy(kit->launcher, id, on_destroyed, &many);
	}
	assert_ok(loop_run(kit->loop, &err), &err);
	printf("%zu at once: %.0f creations/s, %.0f destructions/s\n", rounds,
		(double)rounds * 1e6 / (middle - start),
		(double)rounds * 1e6 / (now_us() - middle));
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
