/*
 * Commands through a real hob-init. `test_init --measure` prints what an exec costs beside
 * posix_spawn in this process, and what an idle hob-init takes.
 */
#include "tests/lib/init_kit.h"
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/io.h"
#include "pool/sandbox/init_protocol.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define ARGV(...) ((char *[]){__VA_ARGS__, NULL})

static void run_argv(struct init_kit *kit, struct kit_run *run, char **argv)
{
	struct exec_spec spec = {.argv = argv};

	kit_run_start(kit, run, &spec);
	init_kit_until(kit, &run->ended);
}

static void check_shell(struct init_kit *kit, const char *script, const char *out, int code)
{
	struct kit_run run = {.hold = false};

	kit_run_shell(kit, &run, script);
	assert_string_equal(run.error.message, "");
	assert_string_equal(buffer_text(&run.out), out);
	assert_int_equal(run.result.code, code);
	kit_run_done(&run);
}

static void test_codes_and_streams(void **state)
{
	struct init_kit *kit = *state;
	struct kit_run run = {.hold = false};

	check_shell(kit, "exit 7", "", 7);
	check_shell(kit, "printf 'a b'", "a b", 0);
	kit_run_shell(kit, &run, "echo out; echo err >&2; kill -9 $$");
	assert_string_equal(buffer_text(&run.out), "out\n");
	assert_string_equal(buffer_text(&run.err), "err\n");
	assert_int_equal(run.result.code, 137);
	assert_int_equal(run.result.signal, SIGKILL);
	assert_true(run.result.took_us > 0 && run.result.max_rss_bytes > 0);
	kit_run_done(&run);
	/* Forgotten by init too: a new connection hears of none of them. */
	init_kit_reconnect(kit);
	assert_int_equal(kit->exec_count, 0);
}

static void check_refused(
	struct init_kit *kit, const struct exec_spec *spec, int sys, const char *text)
{
	struct kit_run run = {.hold = false};

	kit_run_start(kit, &run, spec);
	init_kit_until(kit, &run.ended);
	assert_false(run.started);
	assert_int_equal(run.error.kind, ERROR_INVALID);
	assert_int_equal(run.error.sys, sys);
	assert_contains(run.error.message, text);
	kit_run_done(&run);
}

static void test_refusals_say_why(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *plain = xasprintf("%s/plain", kit->folder);
	CLEANUP(free_p) char *orphan = xasprintf("%s/orphan", kit->folder);
	CLEANUP(free_p) char *text = xasprintf("%s/text", kit->folder);
	struct exec_spec spec = {.argv = ARGV((char[]){"hob-nonesuch"})};

	temp_write(kit->folder, "plain", "#!/bin/sh\n");
	temp_write(kit->folder, "orphan", "#!/no/such/interpreter\n");
	temp_write(kit->folder, "text", "no program\n");
	assert_int_equal(chmod(orphan, 0755), 0);
	assert_int_equal(chmod(text, 0755), 0);
	check_refused(kit, &spec, ENOENT, "hob-nonesuch: not found in PATH");
	spec.argv = ARGV((char[]){"/no/such"});
	check_refused(kit, &spec, ENOENT, "/no/such: No such file");
	spec.argv = ARGV(plain);
	check_refused(kit, &spec, EACCES, "Permission denied");
	spec.argv = ARGV(orphan);
	check_refused(kit, &spec, ENOENT, "interpreter");
	spec.argv = ARGV(text);
	check_refused(kit, &spec, ENOEXEC, "not a program");
	spec = (struct exec_spec){.argv = ARGV((char[]){"true"}), .cwd = "/no/such/cwd"};
	check_refused(kit, &spec, ENOENT, "cwd /no/such/cwd");
	spec = (struct exec_spec){.argv = ARGV((char[]){"true"}), .user = "hob-nobody"};
	check_refused(kit, &spec, ENOENT, "user hob-nobody: not in /etc/passwd");
	spec.user = "1000:hob-nogroup";
	check_refused(kit, &spec, ENOENT, "group hob-nogroup");
}

static void test_environment(void **state)
{
	struct init_kit *kit = *state;
	struct kit_run run = {.hold = false};
	struct exec_spec spec = {
		.argv = ARGV((char[]){"/usr/bin/env"}),
		.env = ARGV((char[]){"HOME=/elsewhere"}, (char[]){"A=1"}),
	};

	kit_run_start(kit, &run, &spec);
	init_kit_until(kit, &run.ended);
	assert_string_equal(buffer_text(&run.out), "HOME=/elsewhere\nA=1\nPATH=/usr/local/sbin:/"
						   "usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
						   "USER=root\n");
	kit_run_done(&run);
	spec = (struct exec_spec){.argv = ARGV((char[]){"env"}), .pty = true};
	kit_run_start(kit, &run, &spec);
	init_kit_until(kit, &run.ended);
	assert_contains(buffer_text(&run.out), "HOME=/root");
	assert_contains(buffer_text(&run.out), "TERM=xterm-256color");
	kit_run_done(&run);
	/* The search follows the PATH that the command gets. */
	spec = (struct exec_spec){
		.argv = ARGV((char[]){"true"}), .env = ARGV((char[]){"PATH=/no:/such"})};
	check_refused(kit, &spec, ENOENT, "true: not found in PATH");
}

/* What a command finds: three descriptors (the fourth is the shell's look at the folder), no
 * blocked or ignored signal, its own session. */
static void test_children_are_clean(void **state)
{
	struct init_kit *kit = *state;

	check_shell(kit, "cd /proc/$$/fd && echo *", "0 1 2 3\n", 0);
	check_shell(kit, "grep -E 'SigBlk|SigIgn' /proc/self/status",
		"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", 0);
	check_shell(kit, "umask; pwd", "0022\n/\n", 0);
	check_shell(kit, "test $(cut -d' ' -f6 /proc/$$/stat) = $$", "", 0);
	check_shell(kit, "readlink /proc/self/fd/0", "/dev/null\n", 0);
}

static void test_cwd_and_user(void **state)
{
	struct init_kit *kit = *state;
	struct kit_run run = {.hold = false};
	struct exec_spec spec = {.argv = ARGV((char[]){"sh"}, (char[]){"-c"},
					 (char[]){"pwd; id -u; id -g; id -G; echo $HOME $USER"}),
		.cwd = "/usr",
		.user = "4321:77"};

	if (geteuid() != 0) {
		skip();
	}
	kit_run_start(kit, &run, &spec);
	init_kit_until(kit, &run.ended);
	assert_string_equal(buffer_text(&run.out), "/usr\n4321\n77\n77\n/ 4321\n");
	kit_run_done(&run);
	spec.user = "daemon";
	kit_run_start(kit, &run, &spec);
	init_kit_until(kit, &run.ended);
	assert_contains(buffer_text(&run.out), "/usr\n1\n1\n1");
	assert_contains(buffer_text(&run.out), "/usr/sbin daemon");
	kit_run_done(&run);
}

static void write_all(struct kit_run *run, const char *data, size_t length)
{
	struct error err = ERROR_INIT;

	while (length > 0 && !run->ended) {
		size_t size = length < run->room ? length : run->room;

		if (size == 0) {
			init_kit_pause(run->kit, 1);
			continue;
		}
		assert_ok(init_exec_write(run->exec, data, size, &err), &err);
		run->room -= size;
		data += size;
		length -= size;
	}
}

static void test_stdin(void **state)
{
	struct init_kit *kit = *state;
	struct exec_spec spec = {.argv = ARGV((char[]){"cat"}), .stdin_open = true};
	const size_t size = 1000000;
	CLEANUP(free_p) char *data = xmalloc(size);
	struct kit_run run = {.hold = false};
	struct error err = ERROR_INIT;

	for (size_t i = 0; i < size; i++) {
		data[i] = (char)('a' + i % 23);
	}
	kit_run_start(kit, &run, &spec);
	assert_kind(init_exec_write(run.exec, data, 1, &err), &err, ERROR_LIMIT);
	write_all(&run, data, size);
	init_exec_write_end(run.exec);
	init_kit_until(kit, &run.ended);
	assert_int_equal(run.out.length, size);
	assert_memory_equal(run.out.data, data, size);
	kit_run_done(&run);
	/* A command that stops reading must not hold the writer up. */
	spec.argv = ARGV((char[]){"sh"}, (char[]){"-c"}, (char[]){"exec <&-; sleep 0.3; exit 4"});
	kit_run_start(kit, &run, &spec);
	write_all(&run, data, size);
	init_kit_until(kit, &run.ended);
	assert_int_equal(run.result.code, 4);
	kit_run_done(&run);
}

static void test_output_waits_for_credit(void **state)
{
	struct init_kit *kit = *state;
	struct exec_spec spec = {.argv = ARGV((char[]){"sh"}, (char[]){"-c"},
					 (char[]){"head -c 3000000 /dev/zero; echo e >&2"})};
	struct kit_run run = {.hold = true};

	kit_run_start(kit, &run, &spec);
	init_kit_pause(kit, 300);
	assert_false(run.ended);
	assert_int_equal(run.out.length, INIT_WINDOW_DEFAULT);
	run.hold = false;
	init_exec_consumed(run.exec, run.out.length);
	init_kit_until(kit, &run.ended);
	assert_int_equal(run.out.length, 3000000);
	assert_string_equal(buffer_text(&run.err), "e\n");
	kit_run_done(&run);
}

static void test_terminal(void **state)
{
	struct init_kit *kit = *state;
	struct exec_spec spec = {.argv = ARGV((char[]){"sh"}, (char[]){"-c"},
					 (char[]){"stty -echo; stty size; tty; read x; stty size; "
						  "echo got $x; cat; exit 5"}),
		.pty = true,
		.rows = 24,
		.cols = 80};
	struct kit_run run = {.hold = false};
	struct error err = ERROR_INIT;

	kit_run_start(kit, &run, &spec);
	while (strstr(buffer_text(&run.out), "/dev/pts/") == NULL && !run.ended) {
		init_kit_pause(kit, 5);
	}
	init_exec_resize(run.exec, 50, 132);
	assert_ok(init_exec_write(run.exec, "hello\nend\n", 10, &err), &err);
	init_exec_write_end(run.exec);
	init_kit_until(kit, &run.ended);
	assert_contains(buffer_text(&run.out), "24 80\r\n");
	assert_contains(buffer_text(&run.out), "50 132\r\n");
	assert_contains(buffer_text(&run.out), "got hello\r\nend\r\n");
	assert_int_equal(run.result.code, 5);
	kit_run_done(&run);
}

static void test_signals_reach_the_group(void **state)
{
	struct init_kit *kit = *state;
	struct exec_spec spec = {
		.argv = ARGV((char[]){"sh"}, (char[]){"-c"}, (char[]){"sleep 1000 | sleep 1000"})};
	struct kit_run run = {.hold = false};

	kit_run_start(kit, &run, &spec);
	init_kit_until(kit, &run.started);
	init_kit_pause(kit, 100);
	init_exec_signal(run.exec, SIGTERM);
	init_kit_until(kit, &run.ended);
	assert_int_equal(run.result.code, 128 + SIGTERM);
	assert_int_equal(run.result.signal, SIGTERM);
	kit_run_done(&run);
}

static void test_kill_takes_descendants(void **state)
{
	struct init_kit *kit = *state;
	struct exec_spec spec = {
		.argv = ARGV((char[]){"sh"}, (char[]){"-c"},
			(char[]){"sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait"})};
	struct kit_run run = {.hold = false};
	int first = 0, second = 0;
	CLEANUP(free_p) char *script = NULL;

	if (geteuid() != 0) {
		skip();
	}
	kit_run_start(kit, &run, &spec);
	while (sscanf(buffer_text(&run.out), "%d\n%d\n", &first, &second) != 2 && !run.ended) {
		init_kit_pause(kit, 5);
	}
	init_kit_pause(kit, 100);
	init_exec_detach(run.exec, true);
	kit_run_done(&run);
	/* The killed may take a moment to die. */
	script = xasprintf("for i in $(seq 100); do kill -0 %d || kill -0 %d || kill -0 %u || "
			   "{ echo gone; exit; }; sleep 0.02; done; echo alive",
		first, second, run.pid);
	kit_run_shell(kit, &run, script);
	assert_string_equal(buffer_text(&run.out), "gone\n");
	kit_run_done(&run);
}

static void test_grandchild_keeps_the_pipe(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *go = xasprintf("%s/go", kit->folder);
	CLEANUP(free_p)
	char *script = xasprintf("(until test -e %s; do sleep 0.05; done; echo late; echo late; "
				 "rm %s) & echo hi",
		go, go);
	int64_t start_ms = clock_mono_ms();

	check_shell(kit, script, "hi\n", 0);
	assert_true(clock_mono_ms() - start_ms >= 90);
	temp_write(kit->folder, "go", "");
	for (int look = 0; look < 1200 && access(go, F_OK) == 0; look++) {
		init_kit_pause(kit, 50);
	}
	/* Its late output went nowhere, but did not kill it. */
	assert_int_equal(access(go, F_OK), -1);
}

/* A command that takes its own output away must not stop init. */
static void test_stolen_output(void **state)
{
	struct init_kit *kit = *state;
	struct kit_run run = {.hold = false};

	kit_run_shell(kit, &run,
		"for i in 1 2 3 4; do timeout 1 cat /proc/self/fd/1 > /dev/null & done; "
		"for i in 1 2 3 4 5 6 7 8 9; do echo $i; done; wait; exit 3");
	assert_int_equal(run.result.code, 3);
	kit_run_done(&run);
	check_shell(kit, "echo on", "on\n", 0);
}

/* A file whose opening waits, at somebody's pleasure: init must come back from it. */
static void test_program_that_cannot_be_opened(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p) char *path = xasprintf("%s/leased", kit->folder);
	struct exec_spec spec = {.argv = ARGV(path)};
	struct kit_run run = {.hold = false};
	int64_t start_ms;
	int fd;

	temp_write(kit->folder, "leased", "#!/bin/sh\n");
	assert_int_equal(chmod(path, 0755), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	(void)signal(SIGIO, SIG_IGN);
	if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0) {
		close(fd);
		skip();
	}
	start_ms = clock_mono_ms();
	kit_run_start(kit, &run, &spec);
	init_kit_until(kit, &run.ended);
	assert_int_equal(run.result.signal, SIGKILL);
	assert_true(clock_mono_ms() - start_ms >= 1000);
	kit_run_done(&run);
	close(fd);
	check_shell(kit, "echo on", "on\n", 0);
}

static void test_commands_outlive_the_connection(void **state)
{
	struct init_kit *kit = *state;
	struct exec_spec spec = {
		.argv = ARGV((char[]){"sh"}, (char[]){"-c"},
			(char[]){"echo one; echo err >&2; read x; echo two $x; exit 3"}),
		.stdin_open = true};
	struct kit_run run = {.hold = false};
	struct error err = ERROR_INIT;
	uint32_t id;

	kit_run_start(kit, &run, &spec);
	while (run.out.length < 4 || run.err.length < 4) {
		init_kit_pause(kit, 5);
	}
	id = run.id;
	kit_run_done(&run);
	init_kit_reconnect(kit);
	assert_int_equal(kit->exec_count, 1);
	assert_int_equal(kit->execs[0], id);
	kit_run_adopt(kit, &run, id);
	init_kit_until(kit, &run.started);
	while (run.room == 0 || run.out.length < 4) {
		init_kit_pause(kit, 5);
	}
	assert_string_equal(buffer_text(&run.out), "one\n");
	assert_ok(init_exec_write(run.exec, "go\n", 3, &err), &err);
	init_kit_until(kit, &run.ended);
	assert_string_equal(buffer_text(&run.out), "one\ntwo go\n");
	assert_string_equal(buffer_text(&run.err), "err\n");
	assert_int_equal(run.result.code, 3);
	kit_run_done(&run);
}

static void test_end_while_nobody_listens(void **state)
{
	struct init_kit *kit = *state;
	struct exec_spec spec = {
		.argv = ARGV((char[]){"sh"}, (char[]){"-c"},
			(char[]){"seq 1 40000; echo pause; sleep 0.2; echo last; exit 9"})};
	struct kit_run run = {.hold = false};
	uint32_t id;

	kit_run_start(kit, &run, &spec);
	while (strstr(buffer_text(&run.out), "pause") == NULL) {
		init_kit_pause(kit, 2);
	}
	id = run.id;
	kit_run_done(&run);
	init_client_free(kit->client);
	kit->client = NULL;
	init_kit_pause(kit, 400);
	init_kit_reconnect(kit);
	assert_int_equal(kit->exec_count, 1);
	kit_run_adopt(kit, &run, id);
	init_kit_until(kit, &run.ended);
	assert_int_equal(run.result.code, 9);
	assert_contains(buffer_text(&run.out), "39999\n40000\npause\nlast\n");
	assert_in_range(run.out.length, INIT_REPLAY_MAX, 2 * INIT_REPLAY_MAX);
	kit_run_done(&run);
	/* Unknown ones are said to be so. */
	kit_run_adopt(kit, &run, 999);
	init_kit_until(kit, &run.ended);
	assert_int_equal(run.error.kind, ERROR_NOT_FOUND);
	kit_run_done(&run);
}

static void test_detached_runs_on(void **state)
{
	struct init_kit *kit = *state;
	CLEANUP(free_p)
	char *script = xasprintf("head -c 2000000 /dev/zero; echo done > %s/done", kit->folder);
	struct exec_spec spec = {.argv = ARGV((char[]){"sh"}, (char[]){"-c"}, script)};
	struct kit_run run = {.hold = true};
	CLEANUP(free_p) char *text = NULL;

	kit_run_start(kit, &run, &spec);
	init_kit_until(kit, &run.started);
	init_kit_pause(kit, 50);
	init_exec_detach(run.exec, false);
	kit_run_done(&run);
	init_kit_pause(kit, 500);
	text = temp_read(kit->folder, "done");
	assert_string_equal(text, "done\n");
	init_kit_reconnect(kit);
	assert_int_equal(kit->exec_count, 0);
}

static void test_many_at_once(void **state)
{
	struct init_kit *kit = *state;
	struct exec_spec spec = {
		.argv = ARGV((char[]){"sh"}, (char[]){"-c"}, (char[]){"seq 1 20000; sleep 0.1"})};
	struct kit_run runs[40];

	for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
		runs[i].hold = false;
		kit_run_start(kit, &runs[i], &spec);
	}
	for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
		init_kit_until(kit, &runs[i].ended);
		assert_int_equal(runs[i].out.length, 108894);
		assert_int_equal(runs[i].result.code, 0);
		kit_run_done(&runs[i]);
	}
}

static void test_nonsense_ends_only_the_connection(void **state)
{
	struct init_kit *kit = *state;
	static const struct {
		uint32_t header[2];
		char body[12];
		size_t length;
	} packets[] = {
		{{77, 1}, "", 8},
		{{INIT_EXEC, 1}, "", 8},
		{{INIT_EXEC, 1}, "\xff\xff\xff\xff\xff\xff\xff\xff", 20},
		{{INIT_WINDOW, 1}, "x", 9},
		{{INIT_FILE_READ, INIT_FILE_ID_FIRST}, "", 8},
		{{INIT_REPLAY, 5}, "", 8},
		{{1, 0}, "", 3},
	};

	init_client_free(kit->client);
	kit->client = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++) {
		struct error err = ERROR_INIT;
		struct pollfd wait = {.events = POLLIN};
		int fd = -1;

		assert_ok(init_client_connect(kit->folder, "sb-kit", &fd, &err), &err);
		wait.fd = fd;
		assert_int_equal(poll(&wait, 1, 60000), 1);
		assert_int_equal(send(fd, &packets[i], packets[i].length, 0), packets[i].length);
		close(fd);
	}
	init_kit_reconnect(kit);
	check_shell(kit, "echo still here", "still here\n", 0);
}

static int64_t private_bytes(pid_t pid)
{
	CLEANUP(free_p) char *folder = xasprintf("/proc/%d", pid);
	CLEANUP(free_p) char *text = temp_read(folder, "smaps_rollup");
	int64_t total = 0;

	for (const char *at = text; (at = strstr(at, "\nPrivate_")) != NULL; at++) {
		total += strtoll(strchr(at, ':') + 1, NULL, 10) * 1024;
	}
	return total;
}

static int compare(const void *a, const void *b)
{
	int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

	return left < right ? -1 : left > right ? 1 : 0;
}

static void measure(void)
{
	enum { ROUNDS = 1000 };
	static int64_t spawned[ROUNDS], through[ROUNDS];
	char *argv[] = {(char[]){"/usr/bin/true"}, NULL};
	void *state = NULL;
	struct init_kit *kit;

	(void)init_kit_setup(&state);
	kit = state;
	printf("idle hob-init: %lld bytes private\n", (long long)private_bytes(kit->pid));
	for (int i = 0; i < ROUNDS; i++) {
		struct kit_run run = {.hold = false};
		int64_t start_us = clock_mono_us();
		pid_t pid;

		assert_int_equal(posix_spawn(&pid, argv[0], NULL, NULL, argv, argv + 1), 0);
		waitpid(pid, NULL, 0);
		spawned[i] = clock_mono_us() - start_us;
		start_us = clock_mono_us();
		run_argv(kit, &run, argv);
		through[i] = clock_mono_us() - start_us;
		kit_run_done(&run);
	}
	qsort(spawned, ROUNDS, sizeof(spawned[0]), compare);
	qsort(through, ROUNDS, sizeof(through[0]), compare);
	printf("posix_spawn+wait: p50 %lld us, p99 %lld us\n", (long long)spawned[ROUNDS / 2],
		(long long)spawned[ROUNDS * 99 / 100]);
	printf("exec by hob-init: p50 %lld us, p99 %lld us\n", (long long)through[ROUNDS / 2],
		(long long)through[ROUNDS * 99 / 100]);
	init_kit_pause(kit, 1500);
	printf("hob-init after that: %lld bytes private\n", (long long)private_bytes(kit->pid));
	(void)init_kit_teardown(&state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, init_kit_setup, init_kit_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_codes_and_streams),
		TEST(test_refusals_say_why),
		TEST(test_environment),
		TEST(test_children_are_clean),
		TEST(test_cwd_and_user),
		TEST(test_stdin),
		TEST(test_output_waits_for_credit),
		TEST(test_terminal),
		TEST(test_signals_reach_the_group),
		TEST(test_kill_takes_descendants),
		TEST(test_grandchild_keeps_the_pipe),
		TEST(test_stolen_output),
		TEST(test_program_that_cannot_be_opened),
		TEST(test_commands_outlive_the_connection),
		TEST(test_end_while_nobody_listens),
		TEST(test_detached_runs_on),
		TEST(test_many_at_once),
		TEST(test_nonsense_ends_only_the_connection),
	};

	if (argc > 1 && streq(argv[1], "--measure")) {
		measure();
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
