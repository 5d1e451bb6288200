/* Paths to handlers, and text of any bytes to JSON. */
#include "tests/lib/test.h"

#include "pool/api/http_route.h"
#include "pool/api/object_json.h"

static const struct route routes[] = {
	{.method = "GET", .pattern = "/v1/things"},
	{.method = "POST", .pattern = "/v1/things"},
	{.method = "GET", .pattern = "/v1/things/*"},
	{.method = "GET", .pattern = "/v1/things/*/parts/*"},
	{.method = "PUT", .pattern = "/v1/things/*/files/**"},
	{0},
};

static void test_matches(void **state)
{
	struct route_match match;

	(void)state;
	assert_ptr_equal(route_find(routes, "GET", "/v1/things").route, &routes[0]);
	assert_ptr_equal(route_find(routes, "HEAD", "/v1/things").route, &routes[0]);
	assert_ptr_equal(route_find(routes, "POST", "/v1/things").route, &routes[1]);
	match = route_find(routes, "GET", "/v1/things/a-1");
	assert_ptr_equal(match.route, &routes[2]);
	assert_string_equal(match.args[0], "a-1");
	match = route_find(routes, "GET", "/v1/things/a/parts/7");
	assert_ptr_equal(match.route, &routes[3]);
	assert_string_equal(match.args[0], "a");
	assert_string_equal(match.args[1], "7");
	match = route_find(routes, "PUT", "/v1/things/a/files/etc//x/");
	assert_ptr_equal(match.route, &routes[4]);
	assert_string_equal(match.rest, "etc//x/");
	match = route_find(routes, "PUT", "/v1/things/a/files/");
	assert_ptr_equal(match.route, &routes[4]);
	assert_string_equal(match.rest, "");
}

static void test_refused(void **state)
{
	static const char *const paths[] = {"", "/", "/v1", "/v1/", "/v1/things/", "/v1/thing",
		"/v1/thingsx", "/v1/things/a/parts", "/v1/things/a/parts/", "/v1/things/a/files",
		"v1/things", "//v1/things", "/v1/things/a/parts/b/c"};
	char longest[600] = "/v1/things/";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		assert_null(route_find(routes, "GET", paths[i]).route);
		assert_false(route_find(routes, "GET", paths[i]).other_method);
	}
	memset(longest + strlen(longest), 'x', 500);
	assert_null(route_find(routes, "GET", longest).route);
	assert_null(route_find(routes, "DELETE", "/v1/things").route);
	assert_true(route_find(routes, "DELETE", "/v1/things").other_method);
}

static void check_safe(const char *text, const char *wanted)
{
	CLEANUP(json_decref_p) json_t *json = json_str_or_null(text);

	assert_string_equal(json_string_value(json), wanted);
}

static void test_text(void **state)
{
	(void)state;
	check_safe("", "");
	check_safe("caf\xc3\xa9", "caf\xc3\xa9");
	check_safe("a\xff"
		   "b",
		"a\xef\xbf\xbd"
		"b");
	/* Cut short, overlong, a surrogate, beyond the last character. */
	check_safe("\xc3", "\xef\xbf\xbd");
	check_safe("\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd");
	check_safe("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	check_safe("\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
}

static void test_bytes(void **state)
{
	CLEANUP(json_decref_p) json_t *text = json_object();
	CLEANUP(json_decref_p) json_t *binary = json_object();

	(void)state;
	json_set_bytes(text, "stdout", "stdout_encoding", "a\0b", 3);
	assert_int_equal(json_string_length(json_object_get(text, "stdout")), 3);
	assert_null(json_object_get(text, "stdout_encoding"));
	json_set_bytes(binary, "stdout", "stdout_encoding", "\xff\xfe", 2);
	assert_string_equal(json_string_value(json_object_get(binary, "stdout")), "//4=");
	assert_string_equal(
		json_string_value(json_object_get(binary, "stdout_encoding")), "base64");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_matches),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
