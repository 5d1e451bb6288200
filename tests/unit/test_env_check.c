/* `hob env check`: all files are looked at, the exit code is that of the worst. */
#include "tests/lib/test.h"

#include "base/json.h"
#include "pool/cli/env_check.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGS_MAX 6

/* Runs it in the folder, with its outputs in folder/out and folder/err; its exit code. */
static int run(const char *folder, const char *const *args)
{
	char *argv[ARGS_MAX + 2] = {(char[]){"hob env check"}, NULL};
	int argc = 1, status = 0;
	pid_t pid;

	for (; args[argc - 1] != NULL; argc++) {
		assert_true(argc <= ARGS_MAX);
		argv[argc] = xstrdup(args[argc - 1]);
	}
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int code = 99;

		if (chdir(folder) == 0 && freopen("out", "w", stdout) != NULL &&
			freopen("err", "w", stderr) != NULL) {
			code = env_check_main(argc, argv);
			fflush(NULL);
		}
		_exit(code);
	}
	for (int i = 1; i < argc; i++) {
		free(argv[i]);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

#define RUN(folder, ...) run((folder), (const char *const[]){__VA_ARGS__, NULL})

static int setup_files(void **state)
{
	int code = setup_folder(state);

	if (code == 0) {
		temp_write(*state, "good.yaml", "name: webapp\nsource: {url: ./git}\n");
		temp_write(*state, "bad.yaml", "name: webapp\nstpes: []\n");
		temp_write(*state, "hob.yaml", "build_every: 42m\n");
	}
	return code;
}

static void test_good(void **state)
{
	CLEANUP(free_p) char *out = NULL;

	assert_int_equal(RUN(*state, "good.yaml"), 0);
	out = temp_read(*state, "out");
	assert_string_equal(out, "good.yaml: ok (environment webapp)\n");
}

static void test_all_are_looked_at(void **state)
{
	CLEANUP(free_p) char *out = NULL, *err = NULL;

	assert_int_equal(RUN(*state, "none.yaml", "bad.yaml", "good.yaml"), 2);
	out = temp_read(*state, "out");
	err = temp_read(*state, "err");
	assert_contains(err, "none.yaml: No such file");
	assert_contains(err, "bad.yaml:2:1: unknown key \"stpes\"; did you mean \"steps\"?");
	assert_contains(out, "good.yaml: ok");
}

static void test_json(void **state)
{
	CLEANUP(free_p) char *out = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT;
	const json_t *files;

	assert_int_equal(RUN(*state, "--json", "bad.yaml", "good.yaml"), 2);
	out = temp_read(*state, "out");
	assert_ok(json_parse_object(out, strlen(out), &json, &err), &err);
	files = json_object_get(json, "files");
	assert_true(json_is_false(json_object_get(json, "ok")));
	assert_int_equal(json_array_size(files), 2);
	assert_contains(json_string_value(json_object_get(json_array_get(files, 0), "message")),
		"bad.yaml:2:1");
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(files, 1), "environment")),
		"webapp");
}

static void test_explain(void **state)
{
	CLEANUP(free_p) char *out = NULL, *again = NULL;

	assert_int_equal(RUN(*state, "--explain", "--config", "hob.yaml", "good.yaml"), 0);
	out = temp_read(*state, "out");
	assert_contains(out, "/git\n");
	assert_contains(out, "every: 42m\n");
	assert_contains(out, "max_age: 8h\n");
	temp_write(*state, "explained.yaml", out);
	assert_int_equal(RUN(*state, "--explain", "explained.yaml"), 0);
	again = temp_read(*state, "out");
	assert_string_equal(strchr(out, '\n'), strchr(again, '\n'));
}

static void test_usage(void **state)
{
	CLEANUP(free_p) char *out = NULL;

	assert_int_equal(run(*state, (const char *const[]){NULL}), 2);
	assert_int_equal(RUN(*state, "--exlpain", "good.yaml"), 2);
	assert_int_equal(RUN(*state, "--explain", "--config", "bad.yaml", "good.yaml"), 2);
	assert_int_equal(RUN(*state, "--help"), 0);
	out = temp_read(*state, "out");
	assert_contains(out, "steps[].allow_failure");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_good, setup_files, teardown_folder),
		cmocka_unit_test_setup_teardown(
			test_all_are_looked_at, setup_files, teardown_folder),
		cmocka_unit_test_setup_teardown(test_json, setup_files, teardown_folder),
		cmocka_unit_test_setup_teardown(test_explain, setup_files, teardown_folder),
		cmocka_unit_test_setup_teardown(test_usage, setup_files, teardown_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
