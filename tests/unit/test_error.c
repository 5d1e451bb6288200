/* The error contract: negative kinds, contexts in front, hints, and one table of names and codes.
 */
#include "tests/lib/test.h"

static void test_set_returns_negative_kind(void **state)
{
	struct error err = ERROR_INIT;

	(void)state;
	assert_int_equal(error_set(&err, ERROR_NOT_FOUND, "no layer %d", 7), -ERROR_NOT_FOUND);
	assert_int_equal(err.kind, ERROR_NOT_FOUND);
	assert_string_equal(err.message, "no layer 7");
	assert_string_equal(err.hint, "");
	assert_int_equal(err.sys, 0);
}

static void test_sys_picks_kind(void **state)
{
	static const struct {
		int sys;
		enum error_kind kind;
	} cases[] = {{ENOENT, ERROR_NOT_FOUND}, {ENOTDIR, ERROR_NOT_FOUND}, {EEXIST, ERROR_EXISTS},
		{EACCES, ERROR_DENIED}, {EPERM, ERROR_DENIED}, {ENOSPC, ERROR_NO_SPACE},
		{EDQUOT, ERROR_NO_SPACE}, {ETIMEDOUT, ERROR_TIMEOUT}, {EBUSY, ERROR_BUSY},
		{ENOSYS, ERROR_UNSUPPORTED}, {ECONNREFUSED, ERROR_UNAVAILABLE}, {EIO, ERROR_IO}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_INIT;

		assert_int_equal(
			error_sys(&err, cases[i].sys, "open %s", "x"), -(int)cases[i].kind);
		assert_int_equal(err.sys, cases[i].sys);
		assert_contains(err.message, "open x: ");
		assert_contains(err.message, strerror(cases[i].sys));
	}
}

static void test_wrap_puts_context_first_and_keeps_the_rest(void **state)
{
	struct error err = ERROR_INIT;

	(void)state;
	error_sys(&err, ENOSPC, "write");
	error_hint(&err, "free some space");
	assert_int_equal(error_wrap(&err, "build %s", "webapp"), -ERROR_NO_SPACE);
	assert_true(str_starts(err.message, "build webapp: write: "));
	assert_string_equal(err.hint, "free some space");
	assert_int_equal(err.sys, ENOSPC);
}

static void test_set_again_drops_the_hint(void **state)
{
	struct error err = ERROR_INIT;

	(void)state;
	error_set(&err, ERROR_BUSY, "one");
	error_hint(&err, "wait");
	error_set(&err, ERROR_IO, "two");
	assert_string_equal(err.hint, "");
}

static void test_long_texts_are_cut_visibly(void **state)
{
	struct error err = ERROR_INIT;
	char text[2 * ERROR_MESSAGE_SIZE];

	(void)state;
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	error_set(&err, ERROR_IO, "%s", text);
	assert_int_equal(strlen(err.message), ERROR_MESSAGE_SIZE - 1);
	assert_string_equal(err.message + ERROR_MESSAGE_SIZE - 4, "...");
	error_wrap(&err, "%s", text);
	assert_string_equal(err.message + strlen(err.message) - 3, "...");
	error_hint(&err, "%s", text);
	assert_string_equal(err.hint + ERROR_HINT_SIZE - 4, "...");
}

static void test_names_are_unique_and_come_back(void **state)
{
	(void)state;
	for (int kind = 0; kind < ERROR_KINDS; kind++) {
		assert_int_equal(
			error_kind_from_name(error_kind_name((enum error_kind)kind)), kind);
	}
	assert_int_equal(error_kind_from_name("no such kind"), ERROR_INTERNAL);
}

static void test_every_failure_has_status_and_exit_code(void **state)
{
	(void)state;
	assert_int_equal(error_exit_code(ERROR_NONE), 0);
	for (int kind = 1; kind < ERROR_KINDS; kind++) {
		assert_in_range(error_http_status((enum error_kind)kind), 400, 599);
		assert_in_range(error_exit_code((enum error_kind)kind), 1, 125);
	}
	assert_int_equal(error_http_status(ERROR_NOT_FOUND), 404);
	assert_int_equal(error_http_status(ERROR_INVALID), 400);
}

static void test_copy(void **state)
{
	struct error from = ERROR_INIT, to = ERROR_INIT;

	(void)state;
	error_set(&from, ERROR_LIMIT, "too many");
	error_hint(&from, "fewer");
	error_copy(&to, &from);
	error_copy(&to, &to);
	assert_memory_equal(&to, &from, sizeof(to));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_returns_negative_kind),
		cmocka_unit_test(test_sys_picks_kind),
		cmocka_unit_test(test_wrap_puts_context_first_and_keeps_the_rest),
		cmocka_unit_test(test_set_again_drops_the_hint),
		cmocka_unit_test(test_long_texts_are_cut_visibly),
		cmocka_unit_test(test_names_are_unique_and_come_back),
		cmocka_unit_test(test_every_failure_has_status_and_exit_code),
		cmocka_unit_test(test_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
