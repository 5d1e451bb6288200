/*
 * A real hob-init under a storm: commands that end, fail, are killed and abandoned, files that come
 * and go, and connections that are replaced, in an order that a fixed seed chooses. Afterwards it
 * must answer, and hold no descriptor and no memory of what is over.
 */
#include "tests/lib/init_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/loop.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>

#define RUNS 24
#define STORM_MS 2500
#define MEMORY_MAX (150 * 1024)

struct storm {
	struct init_kit *kit;
	struct kit_run runs[RUNS];
	bool used[RUNS];
	uint32_t seed;
};

static uint32_t dice(struct storm *storm, uint32_t sides)
{
	storm->seed = storm->seed * 1664525 + 1013904223;
	return (storm->seed >> 8) % sides;
}

static size_t descriptors(pid_t pid)
{
	CLEANUP(free_p) char *path = xasprintf("/proc/%d/fd", pid);
	DIR *folder = opendir(path);
	size_t count = 0;

	assert_non_null(folder);
	while (readdir(folder) != NULL) {
		count++;
	}
	closedir(folder);
	return count;
}

static int64_t anonymous_bytes(pid_t pid)
{
	CLEANUP(free_p) char *folder = xasprintf("/proc/%d", pid);
	CLEANUP(free_p) char *text = temp_read(folder, "smaps_rollup");
	const char *at = strstr(text, "\nAnonymous:");

	assert_non_null(at);
	return strtoll(strchr(at, ':') + 1, NULL, 10) * 1024;
}

static void run_start(struct storm *storm, size_t index)
{
	static const char *const scripts[] = {"true", "echo out; echo err >&2", "seq 1 20000",
		"cat", "sleep 0.02; exit 3", "(sleep 0.05; echo late) & kill -9 $$",
		"sleep 10 & echo; wait", "exec cat /proc/self/fd/1"};
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"},
		(char *)(uintptr_t)scripts[dice(storm, ARRAY_SIZE(scripts))], NULL};
	char *missing[] = {(char[]){"hob-nonesuch"}, NULL};
	struct exec_spec spec = {
		.argv = dice(storm, 3) == 0 ? missing : argv,
		.stdin_open = dice(storm, 2) == 0,
		.pty = dice(storm, 5) == 0,
		.user = dice(storm, 8) == 0 ? "4321" : NULL,
	};

	kit_run_start(storm->kit, &storm->runs[index], &spec);
	storm->used[index] = true;
}

static void run_poke(struct storm *storm, struct kit_run *run)
{
	struct error err = ERROR_INIT;

	switch (dice(storm, 6)) {
	case 0:
		init_exec_signal(run->exec, SIGTERM);
		break;
	case 1:
		init_exec_write_end(run->exec);
		break;
	case 2:
		if (run->room >= 4 && init_exec_write(run->exec, "abc\n", 4, &err) == 0) {
			run->room -= 4;
		}
		break;
	case 3:
		init_exec_detach(run->exec, dice(storm, 3) > 0);
		run->ended = true;
		break;
	case 4:
		init_exec_resize(run->exec, 10, 20);
		break;
	default:
		break;
	}
}

static void on_file_done(void *context, uint64_t bytes, const struct error *err)
{
	(void)context;
	(void)bytes;
	(void)err;
}

static const struct file_events file_events = {.done = on_file_done};

static void file_poke(struct storm *storm)
{
	struct init_client *client = storm->kit->client;
	CLEANUP(free_p)
	char *path = xasprintf("%s/d%u/f%u", storm->kit->folder, dice(storm, 3), dice(storm, 3));
	struct init_file_handle *file = NULL;
	struct error err = ERROR_INIT;
	int result;

	switch (dice(storm, 4)) {
	case 0:
		result = init_file_read(client, path, 100000, &file_events, NULL, &file, &err);
		break;
	case 1:
		result = init_file_write(client, path, 0600, 100, &file_events, NULL, &file, &err);
		break;
	case 2:
		*strrchr(path, '/') = '\0';
		result = init_file_list(client, path, &file_events, NULL, &file, &err);
		break;
	default:
		result = init_file_remove(client, path, true, &file_events, NULL, &file, &err);
		break;
	}
	assert_ok(result, &err);
	if (dice(storm, 3) == 0) {
		init_file_cancel(file);
	} else {
		init_file_send_end(file);
	}
}

/* Frees what is over; what runs goes on without us when the connection is replaced. */
static void runs_clear(struct storm *storm, bool all)
{
	for (size_t i = 0; i < RUNS; i++) {
		if (storm->used[i] && (all || storm->runs[i].ended)) {
			kit_run_done(&storm->runs[i]);
			storm->used[i] = false;
		}
	}
}

/* Takes up what the connection before left, so that it is forgotten at its end. */
static void adopt_all(struct storm *storm)
{
	for (size_t i = 0; i < storm->kit->exec_count; i++) {
		struct kit_run spare = {.hold = false};
		struct kit_run *run = i < RUNS ? &storm->runs[i] : &spare;

		kit_run_adopt(storm->kit, run, storm->kit->execs[i]);
		if (i < RUNS) {
			storm->used[i] = true;
		} else {
			init_exec_detach(run->exec, true);
		}
	}
}

static void storm_turn(struct storm *storm)
{
	size_t index = dice(storm, RUNS);

	if (!storm->used[index]) {
		run_start(storm, index);
	} else if (!storm->runs[index].ended) {
		run_poke(storm, &storm->runs[index]);
	}
	if (dice(storm, 4) == 0) {
		file_poke(storm);
	}
	if (dice(storm, 200) == 0) {
		init_kit_reconnect(storm->kit);
		runs_clear(storm, true);
		adopt_all(storm);
	}
	if (dice(storm, 8) == 0) {
		init_kit_pause(storm->kit, 1);
		runs_clear(storm, false);
	}
}

static void end_all(struct storm *storm)
{
	for (size_t i = 0; i < RUNS; i++) {
		if (storm->used[i] && !storm->runs[i].ended) {
			init_exec_detach(storm->runs[i].exec, true);
		}
	}
	runs_clear(storm, true);
}

/* Apart from the connection, which may come and go. */
static bool is_idle(const struct init_kit *kit, size_t before)
{
	return descriptors(kit->pid) == before && anonymous_bytes(kit->pid) <= MEMORY_MAX;
}

static void test_storm(void **state)
{
	struct storm *storm = xcalloc(1, sizeof(*storm));
	struct kit_run run = {.hold = false};
	int64_t end_ms = clock_mono_ms() + STORM_MS;
	struct init_kit *kit = *state;
	size_t before;

	if (geteuid() != 0) {
		free(storm);
		skip();
	}
	storm->kit = kit;
	storm->seed = 20261121;
	before = descriptors(kit->pid);
	while (clock_mono_ms() < end_ms) {
		storm_turn(storm);
	}
	init_kit_reconnect(kit);
	runs_clear(storm, true);
	adopt_all(storm);
	end_all(storm);
	/* Orphans of a few seconds keep their pipes; then the memory of the scratch page goes back.
	 */
	kit_run_shell(kit, &run, "kill -9 -1");
	kit_run_done(&run);
	for (int look = 0; look < 400 && (look == 0 || !is_idle(kit, before)); look++) {
		init_kit_pause(kit, 1500 / (look > 0 ? 10 : 1));
	}
	kit_run_shell(kit, &run, "echo still here");
	assert_string_equal(buffer_text(&run.out), "still here\n");
	kit_run_done(&run);
	init_kit_reconnect(kit);
	assert_int_equal(kit->exec_count, 0);
	for (int look = 0; look < 400 && !is_idle(kit, before); look++) {
		init_kit_pause(kit, 150);
	}
	assert_int_equal(descriptors(kit->pid), before);
	assert_in_range(anonymous_bytes(kit->pid), 4096, MEMORY_MAX);
	print_message("idle again: %lld bytes\n", (long long)anonymous_bytes(kit->pid));
	free(storm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_storm, init_kit_setup, init_kit_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
