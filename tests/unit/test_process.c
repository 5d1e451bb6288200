/* Children: exit codes, what they inherit, output with its cap, and where siblings are. */
#include "tests/lib/test.h"

#include "base/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>

/* argv and environments are not const, literals are. */
#define WORD(text) ((char *)(uintptr_t)(text))

static int run(const char *script, char **ret_output)
{
	char *argv[] = {WORD("sh"), WORD("-c"), WORD(script), NULL};
	struct error err = ERROR_INIT;
	int code = -1;

	assert_ok(process_run(argv, ret_output, &code, &err), &err);
	return code;
}

static void test_output_and_code(void **state)
{
	CLEANUP(free_p) char *output = NULL;

	(void)state;
	assert_int_equal(run("echo hello; exit 7", &output), 7);
	assert_string_equal(output, "hello\n");
	assert_int_equal(run("kill -9 $$", NULL), 128 + SIGKILL);
	assert_int_equal(run("cat", NULL), 0);
}

static void test_missing_program(void **state)
{
	char *argv[] = {WORD("no-such-program-here"), NULL};
	struct error err = ERROR_INIT;
	int code;

	(void)state;
	assert_kind(process_run(argv, NULL, &code, &err), &err, ERROR_NOT_FOUND);
	assert_contains(err.message, "no-such-program-here");
	assert_false(process_exists("no-such-program-here"));
	assert_true(process_exists("sh"));
}

/* A program in a folder that its user may not enter is run by its descriptor. */
static void test_program_by_descriptor(void **state)
{
	int program = open("/bin/sh", O_RDONLY | O_CLOEXEC), pidfd = -1, code = -1;
	char *argv[] = {WORD("not-looked-up"), WORD("-c"),
		WORD("test \"$0\" = name && ! test -e /proc/self/fd/4 && exit 9"), WORD("name"),
		NULL};
	struct process_spec spec = {.argv = argv,
		.program_fd = program,
		.stdin_fd = -1,
		.stdout_fd = -1,
		.stderr_fd = -1};
	struct error err = ERROR_INIT;
	pid_t pid = 0;

	(void)state;
	assert_true(program > 2);
	assert_ok(process_spawn(&spec, &pid, &pidfd, &err), &err);
	close(program);
	close(pidfd);
	assert_ok(process_wait(pid, &code, &err), &err);
	assert_int_equal(code, 9);
}

static void test_output_cap(void **state)
{
	char *argv[] = {WORD("sh"), WORD("-c"), WORD("head -c 2000000 /dev/zero"), NULL};
	struct error err = ERROR_INIT;
	char *output = NULL;
	int code;

	(void)state;
	assert_kind(process_run(argv, &output, &code, &err), &err, ERROR_LIMIT);
	assert_null(output);
}

/* Neither open descriptors nor blocked or ignored signals reach the child. */
static void test_child_starts_clean(void **state)
{
	CLEANUP(free_p) char *output = NULL;
	int fd = open("/dev/null", O_RDONLY); /* deliberately without O_CLOEXEC */
	sigset_t set, old;

	(void)state;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, &old);
	assert_int_equal(
		run("ls /proc/self/fd | wc -l; grep SigBlk /proc/self/status", &output), 0);
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(fd);
	/* 0, 1, 2 and the one that ls reads the folder with. */
	assert_true(str_starts(output, "4\n"));
	assert_contains(output, "0000000000000000");
}

static void test_environment_and_pidfd(void **state)
{
	char *argv[] = {
		WORD("sh"), WORD("-c"), WORD("test \"$ONLY\" = this && test -z \"$HOME\""), NULL};
	char *env[] = {WORD("ONLY=this"), WORD("PATH=/usr/bin:/bin"), NULL};
	struct process_spec spec = {
		.argv = argv, .env = env, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int pidfd = -1;
	struct pollfd wait = {.events = POLLIN};
	pid_t pid;
	int code;

	(void)state;
	assert_ok(process_spawn(&spec, &pid, &pidfd, &err), &err);
	wait.fd = pidfd;
	assert_int_equal(poll(&wait, 1, 60000), 1);
	assert_ok(process_wait(pid, &code, &err), &err);
	assert_int_equal(code, 0);
	assert_true(process_wait(pid, &code, &err) < 0);
}

static void test_sibling_is_beside_this_program(void **state)
{
	CLEANUP(free_p) char *path = NULL;
	struct error err = ERROR_INIT;

	(void)state;
	assert_ok(process_sibling("test_process", &path, &err), &err);
	assert_int_equal(path[0], '/');
	assert_int_equal(access(path, X_OK), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output_and_code),
		cmocka_unit_test(test_missing_program),
		cmocka_unit_test(test_program_by_descriptor),
		cmocka_unit_test(test_output_cap),
		cmocka_unit_test(test_child_starts_clean),
		cmocka_unit_test(test_environment_and_pidfd),
		cmocka_unit_test(test_sibling_is_beside_this_program),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
