/* What a line looks like, in both forms, whatever the values hold. */
#include "tests/lib/test.h"

#include "base/json.h"
#include "base/log.h"

#include <fcntl.h>

struct capture {
	char *folder;
	int saved;
};

static int setup(void **state)
{
	struct capture *capture = xcalloc(1, sizeof(*capture));
	CLEANUP(free_p) char *path = NULL;
	int fd;

	capture->folder = temp_folder();
	path = xasprintf("%s/log", capture->folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND, 0600);
	capture->saved = dup(STDERR_FILENO);
	assert_true(fd >= 0 && capture->saved >= 0);
	dup2(fd, STDERR_FILENO);
	close(fd);
	*state = capture;
	return 0;
}

static int teardown(void **state)
{
	struct capture *capture = *state;

	dup2(capture->saved, STDERR_FILENO);
	close(capture->saved);
	temp_remove(capture->folder);
	free(capture);
	log_setup("test", LOG_INFO, false);
	return 0;
}

static char *logged(void **state)
{
	return temp_read(((struct capture *)*state)->folder, "log");
}

static void test_plain_line(void **state)
{
	CLEANUP(free_p) char *text = NULL;
	size_t size = 12;
	bool ok = true;

	log_setup("hobd", LOG_INFO, false);
	log_info("sandbox.claimed", "sandbox", "sb-1", "us", (int64_t)-42, "ok", ok, "bytes", size);
	text = logged(state);
	assert_contains(text, " info hobd sandbox.claimed sandbox=sb-1 us=-42 ok=true bytes=12\n");
}

static void test_values_cannot_forge_lines(void **state)
{
	CLEANUP(free_p) char *text = NULL;

	log_setup("hobd", LOG_INFO, false);
	log_info("event", "a", "two words", "b", "line\nbreak", "c", "", "d", "q\"=\x1b");
	text = logged(state);
	assert_contains(text, " a=\"two words\" b=\"line\\nbreak\" c=\"\" d=\"q\\\"=\\u001b\"\n");
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void test_json_line_parses(void **state)
{
	CLEANUP(free_p) char *text = NULL;
	CLEANUP(json_decref_p) json_t *json = NULL;
	struct error err = ERROR_INIT;
	bool truth = false;

	log_setup("hobd", LOG_INFO, true);
	log_info("event", "text", "a\t\"b\"\\\n", "number", 7, "truth", truth, "part", 0.5);
	text = logged(state);
	assert_ok(json_parse_object(text, strlen(text), &json, &err), &err);
	assert_string_equal(json_string_value(json_object_get(json, "text")), "a\t\"b\"\\\n");
	assert_int_equal(json_integer_value(json_object_get(json, "number")), 7);
	assert_true(json_is_false(json_object_get(json, "truth")));
	assert_string_equal(json_string_value(json_object_get(json, "level")), "info");
}

static void test_levels(void **state)
{
	CLEANUP(free_p) char *text = NULL;
	enum log_level level = LOG_INFO;

	log_setup("hobd", LOG_WARN, false);
	log_info("not.shown", "a", 1);
	log_warn("shown", "a", 1);
	text = logged(state);
	assert_null(strstr(text, "not.shown"));
	assert_contains(text, "warn hobd shown a=1");
	assert_true(log_level_from_name("debug", &level));
	assert_int_equal(level, LOG_DEBUG);
	assert_false(log_level_from_name("loud", &level));
	assert_int_equal(level, LOG_DEBUG);
}

static void test_failure_shows_kind_message_and_hint(void **state)
{
	CLEANUP(free_p) char *text = NULL;
	struct error err = ERROR_INIT;

	log_setup("hobd", LOG_INFO, false);
	error_set(&err, ERROR_BUSY, "held by 7");
	error_hint(&err, "wait");
	log_failure("build.failed", &err, "environment", "webapp");
	text = logged(state);
	assert_contains(text, "error hobd build.failed environment=webapp kind=busy error=\"held "
			      "by 7\" hint=wait\n");
}

#define CAPTURED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CAPTURED(test_plain_line),
		CAPTURED(test_values_cannot_forge_lines),
		CAPTURED(test_json_line_parses),
		CAPTURED(test_levels),
		CAPTURED(test_failure_shows_kind_message_and_hint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
