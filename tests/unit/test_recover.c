/* The sweep of a start: what dead processes leave, what living ones hold, and what must never be
 * deleted or papered over. Dead processes are real ones: children that are killed. */
#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"

#include "base/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* A child that has done something to the store and waits to be killed. */
struct victim {
	pid_t pid;
};

static struct victim start_victim(const struct store *store, void (*work)(struct store *store))
{
	CLEANUP(free_p) char *path = xstrdup(store_path(store));
	struct victim victim;
	int ready[2];
	char byte;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	victim.pid = fork();
	assert_true(victim.pid >= 0);
	if (victim.pid == 0) {
		struct error err = ERROR_INIT;
		struct store *own = NULL;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (store_open(path, STORE_WRITE, &own, &err) == 0) {
			work(own);
			(void)!write(ready[1], "x", 1);
		}
		pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return victim;
}

static void kill_victim(struct victim victim)
{
	int status = 0;

	assert_int_equal(kill(victim.pid, SIGKILL), 0);
	assert_int_equal(waitpid(victim.pid, &status, 0), victim.pid);
	assert_true(WIFSIGNALED(status));
}

static struct store_sweep recover(struct store *store)
{
	struct store_sweep sweep = {0};
	struct error err = ERROR_INIT;

	assert_ok(store_recover(store, &sweep, &err), &err);
	return sweep;
}

static void assert_nothing_to_do(struct store *store)
{
	struct store_sweep sweep = recover(store);
	static const struct store_sweep nothing = {0};

	assert_memory_equal(&sweep, &nothing, sizeof(sweep));
}

static void make_staging(struct store *store)
{
	struct staging *staging = NULL;
	struct error err = ERROR_INIT;

	assert_ok(staging_new(store, &staging, &err), &err);
	store_kit_write_tree(staging, "file", "text");
}

static void test_staging_lives_as_long_as_its_process(void **state)
{
	struct victim victim = start_victim(*state, make_staging);
	struct store_sweep sweep;

	assert_nothing_to_do(*state);
	assert_int_equal(store_kit_count(*state, "staging"), 1);
	kill_victim(victim);
	sweep = recover(*state);
	assert_int_equal(sweep.staging, 1);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
	assert_nothing_to_do(*state);
}

static void make_sealed(struct store *store)
{
	(void)store_kit_seal(store, "key-1", 10);
}

static void test_a_sealed_layer_lives_as_long_as_its_process(void **state)
{
	struct victim victim = start_victim(*state, make_sealed);
	struct store_sweep sweep;
	struct layer layer;
	struct error err = ERROR_INIT;

	assert_nothing_to_do(*state);
	assert_int_equal(store_kit_count(*state, "layers"), 1);
	kill_victim(victim);
	sweep = recover(*state);
	assert_int_equal(sweep.finished, 1);
	assert_int_equal(store_kit_count(*state, "layers"), 0);
	assert_int_equal(store_kit_count(*state, "staging"), 0);
	assert_kind(layer_get(*state, 1, &layer, &err), &err, ERROR_NOT_FOUND);
	assert_nothing_to_do(*state);
}

static void make_kept(struct store *store)
{
	struct layer layer = store_kit_seal(store, "key-1", 10);
	struct error err = ERROR_INIT;

	assert_ok(layer_keep(store, layer.id, &err), &err);
}

static void test_a_kept_layer_outlives_its_process(void **state)
{
	struct layer layer;
	struct error err = ERROR_INIT;

	kill_victim(start_victim(*state, make_kept));
	assert_nothing_to_do(*state);
	assert_ok(layer_find(*state, "key-1", &layer, &err), &err);
}

static void make_build(struct store *store)
{
	char name[] = "sleep", seconds[] = "1";
	char *argv[] = {name, seconds, NULL};
	struct process_spec spec = {.argv = argv, .stdin_fd = -1, .stderr_fd = -1};
	struct build build;
	struct error err = ERROR_INIT;
	int log = -1, pidfd = -1;
	pid_t pid;

	assert_ok(build_begin(store, "webapp", &build, &log, &err), &err);
	/* A program that writes to the log must not keep a dead build alive. */
	spec.stdout_fd = log;
	assert_ok(process_spawn(&spec, &pid, &pidfd, &err), &err);
}

static void test_a_build_runs_as_long_as_its_process(void **state)
{
	struct victim victim;
	struct store_sweep sweep;
	struct build build;
	struct error err = ERROR_INIT;

	/* What the victim starts comes back to this process, to be waited for. */
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	victim = start_victim(*state, make_build);
	assert_nothing_to_do(*state);
	assert_ok(build_get(*state, "1", &build, &err), &err);
	assert_int_equal(build.state, BUILD_RUNNING);
	assert_int_equal(build.pid, victim.pid);
	build_done(&build);
	kill_victim(victim);
	sweep = recover(*state);
	assert_int_equal(sweep.builds, 1);
	assert_ok(build_get(*state, "1", &build, &err), &err);
	assert_int_equal(build.state, BUILD_FAILED);
	assert_contains(build.message, "killed");
	assert_true(build.ended_ms > 0);
	build_done(&build);
	assert_nothing_to_do(*state);
	assert_true(wait(NULL) > 0);
}

static void test_orphans_and_links_are_put_right(void **state)
{
	struct store_sweep sweep;
	struct error err = ERROR_INIT;
	int64_t first = store_kit_image(*state, "webapp"),
		second = store_kit_image(*state, "webapp");
	uint64_t freed = 0;
	char head[32];

	assert_ok(image_remove(*state, first, &freed, &err), &err);
	assert_int_equal(mkdirat(store_fd(*state), "layers/1", 0700), 0);
	assert_int_equal(mkdirat(store_fd(*state), "layers/lost+found", 0700), 0);
	assert_int_equal(mkdirat(store_fd(*state), "staging/trash-1", 0700), 0);
	assert_int_equal(symlinkat("/etc", store_fd(*state), "staging/link"), 0);
	assert_int_equal(unlinkat(store_fd(*state), "heads/webapp", 0), 0);
	assert_int_equal(symlinkat("img-1", store_fd(*state), "heads/webapp"), 0);
	assert_int_equal(symlinkat("img-1", store_fd(*state), "heads/gone"), 0);
	sweep = recover(*state);
	assert_int_equal(sweep.orphans, 2);
	assert_int_equal(sweep.staging, 2);
	assert_int_equal(sweep.heads, 2);
	assert_int_equal(store_kit_count(*state, "layers"), 1);
	store_kit_head(*state, "webapp", head);
	assert_string_equal(head, second == 2 ? "img-2" : "?");
	store_kit_head(*state, "gone", head);
	assert_string_equal(head, "");
	assert_int_equal(access("/etc/passwd", F_OK), 0);
	assert_nothing_to_do(*state);
}

static void test_a_missing_layer_is_reported_and_kept(void **state)
{
	struct store_sweep sweep;
	struct image image;
	struct error err = ERROR_INIT;

	store_kit_image(*state, "webapp");
	assert_int_equal(
		renameat(store_fd(*state), "layers/1", store_fd(*state), "downloads/1"), 0);
	sweep = recover(*state);
	assert_int_equal(sweep.missing, 1);
	assert_ok(image_head(*state, "webapp", &image, &err), &err);
	image_done(&image);
	sweep = recover(*state);
	assert_int_equal(sweep.missing, 1);
}

static void test_layers_of_another_catalog_are_not_swept(void **state)
{
	struct store_sweep sweep;
	struct error err = ERROR_INIT;

	store_kit_image(*state, "webapp");
	assert_int_equal(mkdirat(store_fd(*state), "layers/7", 0700), 0);
	assert_int_equal(mkdirat(store_fd(*state), "staging/left", 0700), 0);
	assert_kind(store_recover(*state, &sweep, &err), &err, ERROR_CORRUPT);
	assert_contains(err.message, "layers/7");
	assert_true(err.hint[0] != '\0');
	assert_int_equal(store_kit_count(*state, "layers"), 2);
	assert_int_equal(store_kit_count(*state, "staging"), 1);
}

static int refuse(void *context, const char *room, const char *name, struct error *err)
{
	(void)context;
	return error_set(err, ERROR_DENIED, "not %s/%s", room, name);
}

static void test_a_stuck_leftover_does_not_stop_the_sweep(void **state)
{
	struct store_sweep sweep;

	assert_int_equal(mkdirat(store_fd(*state), "staging/one", 0700), 0);
	assert_int_equal(mkdirat(store_fd(*state), "staging/two", 0700), 0);
	store_set_remover(*state, refuse, NULL);
	sweep = recover(*state);
	assert_int_equal(sweep.stuck, 2);
	assert_int_equal(sweep.staging, 0);
	store_set_remover(*state, NULL, NULL);
	sweep = recover(*state);
	assert_int_equal(sweep.staging, 2);
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_staging_lives_as_long_as_its_process),
		IN_STORE(test_a_sealed_layer_lives_as_long_as_its_process),
		IN_STORE(test_a_kept_layer_outlives_its_process),
		IN_STORE(test_a_build_runs_as_long_as_its_process),
		IN_STORE(test_orphans_and_links_are_put_right),
		IN_STORE(test_a_missing_layer_is_reported_and_kept),
		IN_STORE(test_layers_of_another_catalog_are_not_swept),
		IN_STORE(test_a_stuck_leftover_does_not_stop_the_sweep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
