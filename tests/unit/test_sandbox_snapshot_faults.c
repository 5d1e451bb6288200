/* Those who take a snapshot are killed, or stop, or fail, at each step: the sandbox is not left
 * frozen, the staging folder can be thrown away, and the next try succeeds. */
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#define GUARD_MS 5000

static const char *const points[] = {
	"live.synced", "live.pass", "live.frozen", "live.copied", "live.thawed"};

static void staging_make(const struct sandbox_kit *kit, const char *name)
{
	CLEANUP(free_p) char *path = xasprintf("%s/staging/%s", kit->config.store, name);

	assert_int_equal(mkdir(path, 0700), 0);
}

static void staging_is_gone(struct sandbox_kit *kit, const char *name)
{
	CLEANUP(free_p) char *path = xasprintf("%s/staging/%s", kit->config.store, name);

	assert_ok(kit_remove(kit, "staging", name), &kit->err);
	assert_int_equal(access(path, F_OK), -1);
}

static bool is_frozen(struct sandbox_kit *kit, const char *id)
{
	struct sandbox_usage usage;

	assert_ok(sandbox_usage_read(&kit->config, id, &usage, &kit->err), &kit->err);
	return usage.frozen;
}

static void thaws(struct sandbox_kit *kit, const char *id)
{
	int64_t end_ms = clock_mono_ms() + 60000;

	while (is_frozen(kit, id)) {
		assert_true(clock_mono_ms() < end_ms);
		usleep(10000);
	}
}

static void box_start(struct sandbox_kit *kit, struct kit_box *box)
{
	box_open(kit, box, "sb-fault", 3);
	free(box_shell(box, "echo x > /workspace/f; rm -r /home", NULL));
	staging_make(kit, "live");
}

static void succeeds_now(struct sandbox_kit *kit, struct kit_box *box)
{
	free(box_shell(box, "cat /workspace/f", NULL));
	staging_is_gone(kit, "live");
	box_disconnect(box);
	sandbox_kit_restart(kit);
	staging_make(kit, "again");
	assert_ok(kit_snapshot(kit, box->id, "again", 0), &kit->err);
	assert_false(is_frozen(kit, box->id));
	assert_int_equal(box_close(box), 0);
	sandbox_kit_free(kit);
}

static void test_it_fails_at_each_step(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		struct sandbox_kit *kit = sandbox_kit_broken(points[i], "EIO");
		struct kit_box box;

		box_start(kit, &box);
		assert_int_equal(kit_snapshot(kit, box.id, "live", 0), -ERROR_IO);
		assert_false(is_frozen(kit, box.id));
		succeeds_now(kit, &box);
	}
}

static void test_it_is_killed_at_each_step(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		struct sandbox_kit *kit = sandbox_kit_broken(points[i], "kill");
		struct kit_box box;
		int status;

		box_start(kit, &box);
		status = kit_snapshot(kit, box.id, "live", 0);
		assert_true(status == -ERROR_UNAVAILABLE || status == -ERROR_TIMEOUT);
		assert_false(kit->lost);
		thaws(kit, box.id);
		succeeds_now(kit, &box);
	}
}

/* It stands still while the sandbox does: after five seconds it is over. */
static void test_it_hangs(void **state)
{
	struct sandbox_kit *kit = sandbox_kit_broken("live.frozen", "stop");
	struct kit_box box;
	int64_t start_ms;

	(void)state;
	box_start(kit, &box);
	start_ms = clock_mono_ms();
	assert_int_equal(kit_snapshot(kit, box.id, "live", 0), -ERROR_TIMEOUT);
	assert_true(clock_mono_ms() - start_ms >= GUARD_MS);
	thaws(kit, box.id);
	succeeds_now(kit, &box);
}

static void ignore(void *context, const struct sandbox_copied *copied, const struct error *err)
{
	(void)context;
	(void)copied;
	(void)err;
}

static pid_t child_named(const char *name)
{
	DIR *dir = opendir("/proc");
	const struct dirent *found;
	pid_t last = 0;

	assert_non_null(dir);
	while ((found = readdir(dir)) != NULL) {
		CLEANUP(free_p) char *path = xasprintf("/proc/%s/stat", found->d_name);
		FILE *file = strtol(found->d_name, NULL, 10) > 0 ? fopen(path, "re") : NULL;
		char comm[64] = "";
		int pid = 0, session = 0;

		if (file == NULL) {
			continue;
		}
		/* The launcher leads a session of its own, below the test. */
		if (fscanf(file, "%d (%63[^)]) %*c %*d %*d %d", &pid, comm, &session) == 3 &&
			streq(comm, name)) {
			CLEANUP(free_p) char *leader = xasprintf("/proc/%d/stat", session);
			FILE *above = fopen(leader, "re");
			int parent = 0;

			if (above != NULL && fscanf(above, "%*d (%*[^)]) %*c %d", &parent) == 1 &&
				parent == getpid()) {
				last = pid;
			}
			if (above != NULL) {
				fclose(above);
			}
		}
		fclose(file);
	}
	closedir(dir);
	return last;
}

/* Two of the three are killed at once, each way round; the third thaws. */
static void test_only_one_is_left(void **state)
{
	static const char *const pairs[][2] = {{"hob-launcher", "hob-copier"},
		{"hob-copier", "hob-guard"}, {"hob-launcher", "hob-guard"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct sandbox_kit *kit = sandbox_kit_broken("live.frozen", "stop");
		int64_t end_ms = clock_mono_ms() + 60000;
		struct kit_box box;
		pid_t copier, doomed[2];

		box_start(kit, &box);
		box_disconnect(&box);
		sandbox_snapshot(kit->launcher, box.id, "live", 0, 0, ignore, NULL);
		while (!is_frozen(kit, box.id)) {
			assert_true(clock_mono_ms() < end_ms);
			usleep(10000);
		}
		copier = child_named("hob-copier");
		for (size_t j = 0; j < 2; j++) {
			doomed[j] = child_named(pairs[i][j]);
			assert_true(doomed[j] > 1);
		}
		assert_int_equal(kill(doomed[0], SIGKILL), 0);
		(void)kill(doomed[1], SIGKILL); /* it may have ended in answer to that */
		/* The copier itself, when nobody stops it any more, goes on. */
		if (i == 2) {
			assert_int_equal(kill(copier, SIGCONT), 0);
		}
		thaws(kit, box.id);
		sandbox_kit_restart(kit);
		assert_int_equal(box_close(&box), 0);
		sandbox_kit_free(kit);
	}
}

static void test_a_killed_keep_is_taken_up(void **state)
{
	static const char *const steps[] = {"keep.sealed", "keep.renamed", "destroy.cgroup"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		struct sandbox_kit *kit = sandbox_kit_broken(steps[i], "kill");
		CLEANUP(free_p)
		char *file = xasprintf("%s/staging/live/tree/workspace/f", kit->config.store);
		struct kit_box box;
		int status;

		box_start(kit, &box);
		box_disconnect(&box);
		status = kit_keep(kit, box.id, "live");
		assert_int_equal(status, -ERROR_UNAVAILABLE);
		sandbox_kit_restart(kit);
		do {
			status = kit_keep(kit, box.id, "live");
		} while (status == -ERROR_BUSY);
		assert_ok(status, &kit->err);
		assert_int_equal(access(file, F_OK), 0);
		sandbox_kit_free(kit);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_it_fails_at_each_step),
		cmocka_unit_test(test_it_is_killed_at_each_step),
		cmocka_unit_test(test_it_hangs),
		cmocka_unit_test(test_only_one_is_left),
		cmocka_unit_test(test_a_killed_keep_is_taken_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
