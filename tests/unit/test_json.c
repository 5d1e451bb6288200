/* Strictness: what is not an object, unknown members, wrong types, ranges. */
#include "tests/lib/test.h"

#include "base/json.h"

static json_t *parse(const char *text)
{
	struct error err = ERROR_INIT;
	json_t *json = NULL;

	assert_ok(json_parse_object(text, strlen(text), &json, &err), &err);
	return json;
}

static void test_parse_refuses(void **state)
{
	static const char *const cases[] = {"", "[]", "1", "{", "{} {}", "{\"a\":1,\"a\":2}",
		"{a:1}", "nul", "{\"a\":\"\xff\"}", "{\"a\":\"b\\u0000\"}"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_INIT;
		json_t *json = NULL;

		assert_kind(json_parse_object(cases[i], strlen(cases[i]), &json, &err), &err,
			ERROR_INVALID);
		assert_null(json);
	}
}

static void test_parse_says_where(void **state)
{
	struct error err = ERROR_INIT;
	json_t *json = NULL;
	const char text[] = "{\n  \"a\": }";

	(void)state;
	assert_kind(json_parse_object(text, strlen(text), &json, &err), &err, ERROR_INVALID);
	assert_contains(err.message, "line 2");
}

static void test_unknown_member_is_named(void **state)
{
	CLEANUP(json_decref_p) json_t *json = parse("{\"argv\":[],\"cdw\":\"/\"}");
	static const char *const known[] = {"argv", "cwd", NULL};
	static const char *const all[] = {"argv", "cdw", NULL};
	struct error err = ERROR_INIT;

	(void)state;
	assert_kind(json_check_keys(json, known, &err), &err, ERROR_INVALID);
	assert_contains(err.message, "cdw");
	assert_ok(json_check_keys(json, all, &err), &err);
}

static void test_members_and_their_defaults(void **state)
{
	CLEANUP(json_decref_p)
	json_t *json = parse("{\"s\":\"text\",\"i\":5,\"b\":true,\"n\":null}");
	struct error err = ERROR_INIT;
	const char *text = "default";
	int64_t number = 1;
	bool truth = false;

	(void)state;
	assert_ok(json_get_str(json, "absent", &text, &err), &err);
	assert_ok(json_get_str(json, "n", &text, &err), &err);
	assert_string_equal(text, "default");
	assert_ok(json_get_str(json, "s", &text, &err), &err);
	assert_string_equal(text, "text");
	assert_ok(json_get_int(json, "n", 0, 9, &number, &err), &err);
	assert_int_equal(number, 1);
	assert_ok(json_get_int(json, "i", 5, 5, &number, &err), &err);
	assert_int_equal(number, 5);
	assert_ok(json_get_bool(json, "b", &truth, &err), &err);
	assert_true(truth);
}

static void test_wrong_types_and_ranges(void **state)
{
	CLEANUP(json_decref_p)
	json_t *json = parse("{\"t\":\"7\",\"i\":5,\"d\":5.0,\"b\":1}");
	struct error err = ERROR_INIT;
	const char *text = NULL;
	int64_t number = 1;
	bool truth = false;

	(void)state;
	assert_kind(json_get_str(json, "i", &text, &err), &err, ERROR_INVALID);
	assert_kind(json_get_int(json, "t", 0, 9, &number, &err), &err, ERROR_INVALID);
	assert_kind(json_get_int(json, "d", 0, 9, &number, &err), &err, ERROR_INVALID);
	assert_kind(json_get_int(json, "i", 0, 4, &number, &err), &err, ERROR_INVALID);
	assert_contains(err.message, "from 0 to 4");
	assert_kind(json_get_int(json, "i", 6, 9, &number, &err), &err, ERROR_INVALID);
	assert_kind(json_get_bool(json, "b", &truth, &err), &err, ERROR_INVALID);
	assert_int_equal(number, 1);
	assert_null(text);
}

static void test_writing(void **state)
{
	CLEANUP(json_decref_p) json_t *json = json_object();
	CLEANUP(free_p) char *text = NULL;

	(void)state;
	json_object_set_new(json, "a", json_str_or_null(NULL));
	json_object_set_new(json, "b", json_str_or_null("x\n\"y"));
	text = json_text(json);
	assert_string_equal(text, "{\"a\":null,\"b\":\"x\\n\\\"y\"}");
	json_object_clear(json);
	json_object_set_new(json, "cut", json_str_or_null("caf\xc3"));
	assert_string_equal(json_string_value(json_object_get(json, "cut")), "caf\xef\xbf\xbd");
}

/* What one program says of a failure is what the other one reads. */
static void test_errors(void **state)
{
	CLEANUP(json_decref_p) json_t *json = NULL;
	CLEANUP(json_decref_p) json_t *bare = NULL;
	CLEANUP(json_decref_p) json_t *strange = NULL;
	struct error err = ERROR_INIT, read = ERROR_INIT;

	(void)state;
	error_set(&err, ERROR_CONFLICT, "it is in use");
	bare = json_from_error(&err);
	assert_null(json_object_get(bare, "hint"));
	error_hint(&err, "wait");
	json = json_from_error(&err);
	assert_int_equal(json_to_error(json, ERROR_FAILED, "?", &read), -ERROR_CONFLICT);
	assert_string_equal(read.message, "it is in use");
	assert_string_equal(read.hint, "wait");
	strange = json_pack("{s:s}", "kind", "nonsense");
	assert_int_equal(json_to_error(strange, ERROR_FAILED, "it failed", &read), -ERROR_INTERNAL);
	assert_string_equal(read.message, "it failed");
	assert_string_equal(read.hint, "");
	assert_int_equal(json_to_error(NULL, ERROR_IO, "no reply", &read), -ERROR_IO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_refuses),
		cmocka_unit_test(test_parse_says_where),
		cmocka_unit_test(test_unknown_member_is_named),
		cmocka_unit_test(test_members_and_their_defaults),
		cmocka_unit_test(test_wrong_types_and_ranges),
		cmocka_unit_test(test_writing),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
