/* Request bodies: what is accepted, what is refused and with which words. */
#include "tests/lib/test.h"

#include "pool/api/body.h"

#include <signal.h>

static json_t *parse(const char *text)
{
	struct error err = ERROR_INIT;
	json_t *json = NULL;

	assert_int_equal(json_parse_object(text, strlen(text), &json, &err), 0);
	return json;
}

static void test_claim(void **state)
{
	CLEANUP(json_decref_p)
	json_t *json = parse("{\"environment\":\"webapp\",\"env\":{\"A\":\"1\"},\"timeout_s\":60,"
			     "\"idle_s\":0,\"metadata\":{\"who\":\"ada\"}}");
	struct error err = ERROR_INIT;
	struct claim_body body;

	(void)state;
	assert_int_equal(claim_body_parse(json, &body, &err), 0);
	assert_string_equal(body.environment, "webapp");
	assert_null(body.image);
	assert_string_equal(body.env[0], "A=1");
	assert_int_equal(body.timeout_s, 60);
	assert_int_equal(body.idle_s, 0);
	assert_int_equal(json_object_size(body.metadata), 1);
	claim_body_done(&body);
}

static void test_claim_defaults(void **state)
{
	CLEANUP(json_decref_p) json_t *json = parse("{\"image\":\"img-3\",\"env\":null}");
	struct error err = ERROR_INIT;
	struct claim_body body;

	(void)state;
	assert_int_equal(claim_body_parse(json, &body, &err), 0);
	assert_string_equal(body.image, "img-3");
	assert_null(body.env);
	assert_int_equal(body.timeout_s, 0);
	assert_int_equal(body.idle_s, -1);
	claim_body_done(&body);
}

static void test_claim_refused(void **state)
{
	static const struct {
		const char *text, *says;
	} rows[] = {
		{"{}", "either"},
		{"{\"environment\":\"a\",\"image\":\"img-1\"}", "either"},
		{"{\"snapshot\":\"snap-1\",\"image\":\"img-1\"}", "either"},
		{"{\"snapshot\":\"../a\"}", "snap-4"},
		{"{\"environment\":\"../a\"}", "not a name"},
		{"{\"environment\":1}", "string"},
		{"{\"image\":\"3\"}", "img-3"},
		{"{\"environment\":\"a\",\"imagee\":\"x\"}", "imagee"},
		{"{\"environment\":\"a\",\"env\":{\"A=B\":\"1\"}}", "A=B"},
		{"{\"environment\":\"a\",\"env\":{\"\":\"1\"}}", "impossible"},
		{"{\"environment\":\"a\",\"env\":{\"A\":1}}", "env.A"},
		{"{\"environment\":\"a\",\"env\":[]}", "env"},
		{"{\"environment\":\"a\",\"timeout_s\":-1}", "timeout_s"},
		{"{\"environment\":\"a\",\"timeout_s\":1.5}", "timeout_s"},
		{"{\"environment\":\"a\",\"metadata\":{\"a\":{}}}", "metadata.a"},
	};
	struct claim_body body;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP(json_decref_p) json_t *json = parse(rows[i].text);
		struct error err = ERROR_INIT;

		assert_int_equal(claim_body_parse(json, &body, &err), -ERROR_INVALID);
		assert_non_null(strstr(err.message, rows[i].says));
	}
}

static void test_exec(void **state)
{
	CLEANUP(json_decref_p)
	json_t *json = parse("{\"argv\":[\"ls\",\"\",\"-l\"],\"cwd\":\"/x\",\"stdin\":\"in\","
			     "\"timeout_ms\":5,\"user\":\"dev\",\"tty\":true,\"rows\":10}");
	struct error err = ERROR_INIT;
	struct exec_body body;

	(void)state;
	assert_int_equal(exec_body_parse(json, &body, &err), 0);
	assert_int_equal(strv_count(body.argv), 3);
	assert_string_equal(body.argv[1], "");
	assert_string_equal(body.cwd, "/x");
	assert_string_equal(body.stdin_text, "in");
	assert_int_equal(body.timeout_ms, 5);
	assert_true(body.tty);
	assert_false(body.detach);
	assert_int_equal(body.rows, 10);
	assert_int_equal(body.cols, 80);
	exec_body_done(&body);
}

static void test_exec_shell(void **state)
{
	CLEANUP(json_decref_p) json_t *json = parse("{\"shell\":\"echo $HOME\"}");
	struct error err = ERROR_INIT;
	struct exec_body body;

	(void)state;
	assert_int_equal(exec_body_parse(json, &body, &err), 0);
	assert_string_equal(body.argv[0], "/bin/sh");
	assert_string_equal(body.argv[1], "-c");
	assert_string_equal(body.argv[2], "echo $HOME");
	exec_body_done(&body);
}

static void test_exec_refused(void **state)
{
	static const struct {
		const char *text, *says;
	} rows[] = {
		{"{}", "either"},
		{"{\"argv\":[\"a\"],\"shell\":\"a\"}", "either"},
		{"{\"argv\":[]}", "argv"},
		{"{\"argv\":\"ls\"}", "argv"},
		{"{\"argv\":[\"a\",1]}", "argv[1]"},
		{"{\"argv\":[\"\"]}", "argv[0]"},
		{"{\"shell\":\"a\",\"cwd\":\"x\"}", "absolute"},
		{"{\"shell\":\"a\",\"rows\":0}", "rows"},
		{"{\"shell\":\"a\",\"cols\":5000}", "cols"},
		{"{\"shell\":\"a\",\"tty\":\"yes\"}", "tty"},
		{"{\"shell\":\"a\",\"timeout\":5}", "timeout"},
	};
	struct exec_body body;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP(json_decref_p) json_t *json = parse(rows[i].text);
		struct error err = ERROR_INIT;

		assert_int_equal(exec_body_parse(json, &body, &err), -ERROR_INVALID);
		assert_non_null(strstr(err.message, rows[i].says));
	}
}

static void test_timeout(void **state)
{
	CLEANUP(json_decref_p) json_t *zero = parse("{\"seconds\":0}");
	CLEANUP(json_decref_p) json_t *none = parse("{}");
	struct error err = ERROR_INIT;
	int64_t seconds = -5;

	(void)state;
	assert_int_equal(timeout_body_parse(zero, &seconds, &err), 0);
	assert_int_equal(seconds, 0);
	assert_int_equal(timeout_body_parse(none, &seconds, &err), -ERROR_INVALID);
}

static void test_terminal(void **state)
{
	CLEANUP(json_decref_p) json_t *resize = parse("{\"resize\":{\"rows\":5,\"cols\":6}}");
	CLEANUP(json_decref_p) json_t *interrupt = parse("{\"signal\":\"SIGINT\"}");
	CLEANUP(json_decref_p) json_t *unknown = parse("{\"signal\":\"NOPE\"}");
	CLEANUP(json_decref_p) json_t *half = parse("{\"resize\":{\"rows\":5}}");
	struct error err = ERROR_INIT;
	struct terminal_message message;

	(void)state;
	assert_int_equal(terminal_message_parse(resize, &message, &err), 0);
	assert_true(message.resize);
	assert_int_equal(message.rows, 5);
	assert_int_equal(message.cols, 6);
	assert_int_equal(terminal_message_parse(interrupt, &message, &err), 0);
	assert_int_equal(message.signal, SIGINT);
	assert_false(message.resize);
	assert_int_equal(terminal_message_parse(unknown, &message, &err), -ERROR_INVALID);
	assert_int_equal(terminal_message_parse(half, &message, &err), -ERROR_INVALID);
}

static void test_snapshot(void **state)
{
	CLEANUP(json_decref_p) json_t *empty = parse("{}");
	CLEANUP(json_decref_p)
	json_t *full = parse("{\"label\":\"x\",\"reason\":\"session\",\"metadata\":{\"a\":\"b\"},"
			     "\"max_pause_ms\":200}");
	CLEANUP(json_decref_p) json_t *long_pause = parse("{\"max_pause_ms\":5001}");
	struct error err = ERROR_INIT;
	struct snapshot_body body;

	(void)state;
	assert_ok(snapshot_body_parse(empty, &body, &err), &err);
	assert_null(body.label);
	assert_null(body.metadata);
	assert_int_equal(body.reason, SNAPSHOT_MANUAL);
	assert_ok(snapshot_body_parse(full, &body, &err), &err);
	assert_string_equal(body.label, "x");
	assert_int_equal(body.reason, SNAPSHOT_SESSION);
	assert_int_equal(json_object_size(body.metadata), 1);
	assert_int_equal(body.max_pause_ms, 200);
	assert_kind(snapshot_body_parse(long_pause, &body, &err), &err, ERROR_INVALID);
}

static void test_fork(void **state)
{
	static const struct {
		const char *text;
		int64_t count; /* 0: refused */
	} rows[] = {{"{}", 1}, {"{\"count\":100,\"label\":\"x\"}", 100}, {"{\"count\":101}", 0},
		{"{\"count\":0}", 0}, {"{\"max_pause_ms\":0}", 0}, {"{\"count\":\"2\"}", 0},
		{"{\"reason\":\"manual\"}", 0}};
	struct fork_body body;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		CLEANUP(json_decref_p) json_t *json = parse(rows[i].text);
		struct error err = ERROR_INIT;
		int status = fork_body_parse(json, &body, &err);

		assert_int_equal(status, rows[i].count == 0 ? -ERROR_INVALID : 0);
		assert_true(rows[i].count == 0 || body.count == rows[i].count);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_claim),
		cmocka_unit_test(test_claim_defaults),
		cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_claim_refused),
		cmocka_unit_test(test_exec),
		cmocka_unit_test(test_exec_shell),
		cmocka_unit_test(test_exec_refused),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
