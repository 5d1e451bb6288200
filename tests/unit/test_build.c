/* The small parts of a build: the lock that says who holds it, the report in its forms with its
 * capped log, children that are ended when they stall, break or are cancelled. */
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "builder/child.h"
#include "builder/lock.h"
#include "builder/machine.h"
#include "builder/report.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

struct bench {
	char *folder;
	int folder_fd;
	struct report *report;
	struct machine machine;
	struct error err;
};

static int setup(void **state)
{
	struct bench *bench = xcalloc(1, sizeof(*bench));

	bench->folder = temp_folder();
	bench->folder_fd = open(bench->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(bench->folder_fd, "builds", 0700), 0);
	bench->report = report_new(REPORT_QUIET);
	assert_ok(machine_init(&bench->machine, NULL, bench->report, &bench->err), &bench->err);
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	machine_done(&bench->machine);
	report_free(bench->report);
	close(bench->folder_fd);
	temp_remove(bench->folder);
	free(bench);
	return 0;
}

/* ---- the lock ---- */

static void test_lock_says_who(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *pid = xasprintf("process %d", (int)getpid());
	int fd = -1, other = -1;

	assert_ok(build_lock(bench->folder_fd, "web", &fd, &bench->err), &bench->err);
	assert_kind(
		build_lock(bench->folder_fd, "web", &other, &bench->err), &bench->err, ERROR_BUSY);
	assert_contains(bench->err.message, pid);
	build_lock_note(fd, 12);
	assert_kind(
		build_lock(bench->folder_fd, "web", &other, &bench->err), &bench->err, ERROR_BUSY);
	assert_contains(bench->err.message, "bld-12");
	assert_contains(bench->err.hint, "bld-12");
	assert_ok(build_lock(bench->folder_fd, "api", &other, &bench->err), &bench->err);
	close(other);
	close(fd);
	assert_ok(build_lock(bench->folder_fd, "web", &fd, &bench->err), &bench->err);
	close(fd);
}

static void test_lock_goes_with_its_process(void **state)
{
	struct bench *bench = *state;
	pid_t pid = fork();
	int fd = -1, status;

	if (pid == 0) {
		if (build_lock(bench->folder_fd, "web", &fd, &bench->err) == 0) {
			kill(getpid(), SIGKILL);
		}
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_ok(build_lock(bench->folder_fd, "web", &fd, &bench->err), &bench->err);
	close(fd);
}

/* ---- the report ---- */

/* Runs `tell` with standard output in a file, and returns what it wrote there. */
static char *output_of(
	struct bench *bench, enum report_mode mode, int log_fd, void (*tell)(struct report *report))
{
	struct report *report = report_new(mode);
	int saved, fd;

	fflush(stdout);
	saved = dup(STDOUT_FILENO);
	fd = openat(bench->folder_fd, "stdout", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	dup2(fd, STDOUT_FILENO);
	report_begin(report, "web", 3, log_fd);
	tell(report);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	close(fd);
	report_free(report);
	return temp_read(bench->folder, "stdout");
}

static void tell_all(struct report *report)
{
	struct error err;
	struct report_result result = {.environment = "web",
		.build_id = 3,
		.state = "failed",
		.commit = "",
		.took_us = 1500,
		.error = &err};

	report_stage(report, "fetch", "%s", "somewhere");
	report_progress(report, "objects", 1, 2, 3000);
	report_stage_end(report, "%s", "done");
	report_stage(report, "step", "%s", "deps");
	report_output(report, "deps",
		"gr\xfc\xdf"
		"e\n",
		6);
	report_line(report, "a line");
	error_set(&err, ERROR_FAILED, "step deps: exit code 1");
	error_hint(&err, "look there");
	report_result(report, &result);
}

static void test_json_lines(void **state)
{
	struct bench *bench = *state;
	static const char *const events[] = {
		"begin", "stage", "progress", "stage_end", "stage", "output", "log", "result"};
	CLEANUP(free_p) char *text = output_of(bench, REPORT_JSON, -1, tell_all);
	char *rest = text, *line;
	size_t count = 0;

	while ((line = strsep(&rest, "\n")) != NULL && *line != '\0') {
		CLEANUP(json_decref_p) json_t *json = NULL;
		const char *event = NULL;

		assert_ok(json_parse_object(line, strlen(line), &json, &bench->err), &bench->err);
		assert_ok(json_get_str(json, "event", &event, &bench->err), &bench->err);
		assert_true(count < ARRAY_SIZE(events));
		assert_string_equal(event, events[count++]);
		assert_string_equal(json_string_value(json_object_get(json, "build")), "bld-3");
		if (streq(event, "result")) {
			json_t *error = json_object_get(json, "error");

			assert_string_equal(
				json_string_value(json_object_get(error, "kind")), "failed");
			assert_string_equal(
				json_string_value(json_object_get(error, "hint")), "look there");
		}
	}
	assert_int_equal(count, ARRAY_SIZE(events));
}

static void test_plain_lines(void **state)
{
	CLEANUP(free_p) char *text = output_of(*state, REPORT_PLAIN, -1, tell_all);

	assert_contains(text, "web: build bld-3\n");
	assert_contains(text, "somewhere: done\n");
	assert_contains(text, "a line\n");
	assert_null(strchr(text, '\033'));
	assert_null(strchr(text, '\r'));
}

static void test_terminal_wipes_its_live_line(void **state)
{
	CLEANUP(free_p) char *text = output_of(*state, REPORT_TERMINAL, -1, tell_all);

	assert_contains(text, "1/2 objects");
	assert_contains(text, "\r\033[K");
}

static void tell_much(struct report *report)
{
	CLEANUP(free_p) char *chunk = xmalloc(1024 * 1024);

	memset(chunk, 'x', 1024 * 1024);
	for (int i = 0; i < 70; i++) {
		report_output(report, "loud", chunk, 1024 * 1024);
	}
}

static void test_log_is_capped(void **state)
{
	struct bench *bench = *state;
	CLEANUP(close_p)
	int log = openat(bench->folder_fd, "log", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CLEANUP(free_p) char *text = output_of(bench, REPORT_QUIET, log, tell_much);
	char end[64] = "";
	struct stat seen;

	assert_non_null(text);
	assert_int_equal(fstat(log, &seen), 0);
	assert_in_range(seen.st_size, REPORT_LOG_MAX / 2, REPORT_LOG_MAX + 1024);
	assert_true(pread(log, end, sizeof(end) - 1, seen.st_size - 40) > 0);
	assert_contains(end, "not kept");
}

/* A log on a full disk must not end the build. */
static void test_log_that_cannot_be_written(void **state)
{
	struct bench *bench = *state;
	CLEANUP(close_p) int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	CLEANUP(free_p) char *text = output_of(bench, REPORT_PLAIN, full, tell_all);

	assert_contains(text, "a line\n");
}

/* ---- children ---- */

static int run_child(struct bench *bench, int64_t stall_ms,
	int (*run)(struct child *, void *, void *, struct error *), void *context, int *ret_value)
{
	const struct child_spec spec = {.what = "the child",
		.run = run,
		.context = context,
		.result_size = sizeof(*ret_value),
		.stall_ms = stall_ms};

	return child_run(&bench->machine, &spec, ret_value, &bench->err);
}

static int answer_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	(void)child;
	(void)err;
	*(int *)ret_result = *(int *)context + 1;
	return 0;
}

static int refusing_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	(void)child;
	(void)context;
	(void)ret_result;
	error_set(err, ERROR_LIMIT, "too much");
	return error_hint(err, "less");
}

static int crashing_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	(void)child;
	(void)context;
	(void)ret_result;
	(void)err;
	raise(SIGKILL);
	return 0;
}

static int silent_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	pid_t *pid = context;

	(void)child;
	(void)ret_result;
	(void)err;
	if (pid != NULL) {
		*pid = getpid();
	}
	while (pause() < 0) {
		continue;
	}
	return 0;
}

/* Works for longer than its patience, with signs of life. */
static int busy_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	(void)err;
	for (int i = 0; i < 20; i++) {
		usleep(*(useconds_t *)context * 1000 / 8);
		child_progress(child, "rounds", (uint64_t)i, 20, 0);
	}
	*(int *)ret_result = 20;
	return 0;
}

static int looking_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	int seen = 0;

	(void)child;
	(void)context;
	(void)err;
	for (int fd = 3; fd < 1024; fd++) {
		seen += fcntl(fd, F_GETFD) >= 0;
	}
	*(int *)ret_result = seen;
	return 0;
}

static void test_child_answers(void **state)
{
	struct bench *bench = *state;
	int given = 41, value = 0;

	assert_ok(run_child(bench, 0, answer_child, &given, &value), &bench->err);
	assert_int_equal(value, 42);
	assert_kind(run_child(bench, 0, refusing_child, NULL, &value), &bench->err, ERROR_LIMIT);
	assert_string_equal(bench->err.message, "too much");
	assert_string_equal(bench->err.hint, "less");
}

static void test_child_has_nothing_else_open(void **state)
{
	struct bench *bench = *state;
	int value = 0;

	assert_ok(run_child(bench, 0, looking_child, NULL, &value), &bench->err);
	assert_int_equal(value, 1); /* its way back */
}

static void test_child_crashes(void **state)
{
	struct bench *bench = *state;
	int value = 0;

	assert_kind(run_child(bench, 0, crashing_child, NULL, &value), &bench->err, ERROR_FAILED);
	assert_contains(bench->err.message, "signal 9");
}

static void test_child_stalls(void **state)
{
	struct bench *bench = *state;
	pid_t *pid =
		mmap(NULL, sizeof(*pid), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int64_t start_ms = clock_mono_ms();
	int value = 0, status = -ERROR_TIMEOUT;

	assert_kind(run_child(bench, 300, silent_child, pid, &value), &bench->err, ERROR_TIMEOUT);
	assert_true(clock_mono_ms() - start_ms >= 290);
	assert_int_equal(kill(*pid, 0), -1); /* reaped */
	assert_int_equal(errno, ESRCH);
	munmap(pid, sizeof(*pid));
	/* On a busy machine a sign of life may come too late. */
	for (useconds_t patience = 400; status == -ERROR_TIMEOUT && patience < 60000;
		patience *= 2) {
		bench->err = ERROR_INIT;
		status = run_child(bench, patience, busy_child, &patience, &value);
	}
	assert_ok(status, &bench->err);
	assert_int_equal(value, 20);
}

static void test_child_is_cancelled(void **state)
{
	struct bench *bench = *state;
	pid_t parent = getpid(), pid = fork();
	int value = 0, status;

	if (pid == 0) {
		usleep(200 * 1000);
		kill(parent, SIGTERM);
		_exit(0);
	}
	assert_kind(
		run_child(bench, 20000, silent_child, NULL, &value), &bench->err, ERROR_CANCELLED);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void test_build_has_a_deadline(void **state)
{
	struct bench *bench = *state;
	int value = 0;

	bench->machine.deadline_ms = clock_mono_ms() + 200;
	assert_kind(
		run_child(bench, 20000, silent_child, NULL, &value), &bench->err, ERROR_TIMEOUT);
	assert_contains(bench->err.message, "time is up");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		CASE(test_lock_says_who),
		CASE(test_lock_goes_with_its_process),
		CASE(test_json_lines),
		CASE(test_plain_lines),
		CASE(test_terminal_wipes_its_live_line),
		CASE(test_log_is_capped),
		CASE(test_log_that_cannot_be_written),
		CASE(test_child_answers),
		CASE(test_child_has_nothing_else_open),
		CASE(test_child_crashes),
		CASE(test_child_stalls),
		CASE(test_child_is_cancelled),
		CASE(test_build_has_a_deadline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
