/* `hob doctor` on this machine: whatever it has, the answer must be well-formed and true where the
 * test knows the truth, and nothing may be left behind. */
#include "tests/lib/test.h"

#include "base/io.h"
#include "base/json.h"
#include "pool/cli/doctor/doctor.h"

#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

/* Runs it with standard output in folder/out and returns its exit code. */
static int run(const char *folder, uid_t uid, const char *first, const char *second)
{
	CLEANUP(free_p) char *config = xasprintf("%s/hob.yaml", folder);
	CLEANUP(free_p) char *out = xasprintf("%s/out", folder);
	char *argv[] = {(char[]){"hob doctor"}, (char[]){"--config"}, config, NULL, NULL, NULL};
	CLEANUP(free_p) char *a = xstrdup(first), *b = xstrdup(second);
	int status = 0;
	pid_t pid;

	argv[3] = a;
	argv[4] = b;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		int code = 99;

		if (fd >= 0 && null >= 0 && dup2(fd, STDOUT_FILENO) >= 0 &&
			dup2(null, STDERR_FILENO) >= 0 && (uid == getuid() || setuid(uid) == 0)) {
			code = doctor_main(a == NULL ? 3 : b == NULL ? 4 : 5, argv);
			fflush(stdout);
		}
		_exit(code);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static json_t *run_json(const char *folder, uid_t uid, int *ret_code)
{
	CLEANUP(free_p) char *text = NULL;
	struct error err = ERROR_INIT;
	json_t *json = NULL;

	*ret_code = run(folder, uid, "--json", NULL);
	text = temp_read(folder, "out");
	assert_ok(json_parse_object(text, strlen(text), &json, &err), &err);
	return json;
}

static const char *member(const json_t *json, const char *name, const char *key)
{
	size_t i;
	json_t *line;

	json_array_foreach (json_object_get(json, "checks"), i, line) {
		if (streq(json_string_value(json_object_get(line, "name")), name)) {
			const char *text = json_string_value(json_object_get(line, key));

			return text != NULL ? text : "";
		}
	}
	fail_msg("no check \"%s\"", name);
	return "";
}

static void write_config(const char *folder, const char *more)
{
	CLEANUP(free_p)
	char *text = xasprintf("store: ./store\nrun: ./run\nid_base: 3221225472\n%s", more);

	temp_write(folder, "hob.yaml", text);
}

static size_t entries_of(const char *folder, const char *pattern)
{
	CLEANUP(free_p) char *path = xasprintf("%s%s", folder, pattern);
	glob_t found = {0};
	size_t count;

	(void)glob(path, GLOB_PERIOD, NULL, &found);
	count = found.gl_pathc;
	globfree(&found);
	return count;
}

static size_t mounts_now(void)
{
	CLEANUP(buffer_done) struct buffer text;
	struct error err = ERROR_INIT;
	size_t lines = 0;

	buffer_init(&text, 0);
	assert_ok(io_read_file(AT_FDCWD, "/proc/self/mountinfo", &text, &err), &err);
	for (const char *at = buffer_text(&text); *at != '\0'; at++) {
		lines += *at == '\n' ? 1 : 0;
	}
	return lines;
}

static void test_answer(void **state)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	size_t required = 0, i;
	json_t *line;
	int code;

	write_config(*state, "");
	json = run_json(*state, getuid(), &code);
	assert_true(json_array_size(json_object_get(json, "checks")) >= 30);
	json_array_foreach (json_object_get(json, "checks"), i, line) {
		const char *name = json_string_value(json_object_get(line, "name"));
		const char *found = json_string_value(json_object_get(line, "state"));
		bool good = streq(found, "ok");

		assert_non_null(name);
		assert_true(good || streq(found, "warn") || streq(found, "missing") ||
			    streq(found, "untried"));
		assert_true(json_string_length(json_object_get(line, "found")) > 0);
		assert_int_equal(json_is_null(json_object_get(line, "lost")), good);
		if (json_is_true(json_object_get(line, "required")) &&
			(streq(found, "missing") || streq(found, "untried"))) {
			required++;
		}
		if (streq(found, "missing")) {
			assert_true(json_is_true(json_object_get(line, "required")));
		}
	}
	assert_int_equal(json_is_true(json_object_get(json, "ok")), required == 0);
	assert_int_equal(code, required == 0 ? 0 : 9);
	/* hobd and its siblings are not beside this test, and no hobd has this socket. */
	assert_string_equal(member(json, "programs", "state"), "missing");
	assert_string_equal(member(json, "hobd", "state"), "warn");
	assert_contains(member(json, "hobd", "found"), "not running");
	assert_string_equal(member(json, "environments", "state"), "warn");
}

static void test_nothing_left(void **state)
{
	CLEANUP(free_p) char *store = xasprintf("%s/store", (char *)*state);
	size_t mounts = mounts_now();

	write_config(*state, "");
	assert_int_equal(mkdir(store, 0700), 0);
	(void)!run(*state, getuid(), NULL, NULL);
	assert_int_equal(entries_of(store, "/.hob-doctor-*"), 0);
	assert_int_equal(entries_of("/sys/fs/cgroup", "/hob-doctor-*"), 0);
	assert_int_equal(entries_of("/sys/fs/cgroup", "/*/hob-doctor-*"), 0);
	assert_int_equal(mounts_now(), mounts);
	/* No child is left either. */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void test_not_root(void **state)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	int code;

	if (getuid() != 0) {
		skip();
	}
	write_config(*state, "");
	assert_int_equal(chmod(*state, 0777), 0);
	json = run_json(*state, NOBODY, &code);
	assert_int_equal(code, 9);
	assert_true(json_is_false(json_object_get(json, "ok")));
	assert_string_equal(member(json, "root", "state"), "missing");
	assert_string_equal(member(json, "overlay", "state"), "untried");
	assert_string_equal(member(json, "freeze", "state"), "untried");
	assert_string_equal(member(json, "openat2", "state"), "ok");
}

static void test_setup_mistakes(void **state)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	CLEANUP(free_p) char *folder = xasprintf("%s/environments", (char *)*state);
	int code;

	assert_int_equal(mkdir(folder, 0755), 0);
	temp_write(folder, "good.yaml", "name: good\n");
	temp_write(folder, "bad.yaml", "nmae: bad\n");
	write_config(*state,
		"user: no-such-user\ngroup: no-such-group\nmax_sandboxes: 2000\nid_slots: 100\n");
	json = run_json(*state, getuid(), &code);
	assert_int_equal(code, 9);
	assert_string_equal(member(json, "user", "state"), "missing");
	assert_contains(member(json, "user", "advice"), "useradd");
	assert_string_equal(member(json, "group", "state"), "missing");
	assert_string_equal(member(json, "ids", "state"), "warn");
	assert_contains(member(json, "ids", "found"), "for 68 sandboxes");
	assert_contains(member(json, "environments", "found"), "1 good, 1 with errors");
	assert_contains(member(json, "environments", "advice"), "did you mean \"name\"");
}

static void test_store_unusable(void **state)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	int code;

	temp_write(*state, "hob.yaml", "store: /proc\nrun: ./run\n");
	json = run_json(*state, getuid(), &code);
	assert_int_equal(code, 9);
	assert_string_equal(member(json, "overlay", "state"), "untried");
	assert_string_equal(member(json, "reflink", "state"), "untried");
}

static void test_usage(void **state)
{
	CLEANUP(free_p) char *help = NULL;

	write_config(*state, "");
	assert_int_equal(run(*state, getuid(), "--jsno", NULL), 2);
	assert_int_equal(run(*state, getuid(), "extra", NULL), 2);
	assert_int_equal(run(*state, getuid(), "--help", NULL), 0);
	help = temp_read(*state, "out");
	assert_contains(help, "--json");
	temp_write(*state, "hob.yaml", "stroe: /x\n");
	assert_int_equal(run(*state, getuid(), "--json", NULL), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_answer, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_nothing_left, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_not_root, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_setup_mistakes, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_store_unusable, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_usage, setup_folder, teardown_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
