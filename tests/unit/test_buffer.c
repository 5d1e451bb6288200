/* Growing, the cap, and that a refused addition changes nothing. */
#include "tests/lib/test.h"

#include "base/buffer.h"

static void test_empty_is_readable(void **state)
{
	CLEANUP(buffer_done) struct buffer buffer;

	(void)state;
	buffer_init(&buffer, 10);
	assert_string_equal(buffer_text(&buffer), "");
	assert_int_equal(buffer.length, 0);
	assert_true(buffer_add(&buffer, NULL, 0));
	assert_string_equal(buffer_text(&buffer), "");
}

static void test_adds_grow(void **state)
{
	CLEANUP(buffer_done) struct buffer buffer;
	CLEANUP(free_p) char *text = NULL;

	(void)state;
	buffer_init(&buffer, 0);
	for (int i = 0; i < 1000; i++) {
		assert_true(buffer_addf(&buffer, "%03d,", i));
	}
	assert_int_equal(buffer.length, 4000);
	assert_memory_equal(buffer.data, "000,001,", 8);
	assert_string_equal(buffer.data + 3996, "999,");
	text = buffer_steal(&buffer);
	assert_int_equal(strlen(text), 4000);
	assert_int_equal(buffer.length, 0);
	assert_null(buffer.data);
}

static void test_cap_is_exact_and_refuses_whole_additions(void **state)
{
	CLEANUP(buffer_done) struct buffer buffer;

	(void)state;
	buffer_init(&buffer, 5);
	assert_true(buffer_add_str(&buffer, "123"));
	assert_false(buffer_add_str(&buffer, "456"));
	assert_string_equal(buffer_text(&buffer), "123");
	assert_true(buffer_add_str(&buffer, "45"));
	assert_false(buffer_add(&buffer, "6", 1));
	assert_string_equal(buffer_text(&buffer), "12345");
	assert_false(buffer_add(&buffer, "", SIZE_MAX));
}

static void test_consume_moves_the_rest(void **state)
{
	CLEANUP(buffer_done) struct buffer buffer;

	(void)state;
	buffer_init(&buffer, 8);
	buffer_consume(&buffer, 0);
	assert_true(buffer_add(&buffer, "abcdef", 6));
	buffer_consume(&buffer, 2);
	assert_string_equal(buffer_text(&buffer), "cdef");
	buffer_consume(&buffer, 4);
	assert_string_equal(buffer_text(&buffer), "");
	assert_true(buffer_add_str(&buffer, "12345678"));
}

static void test_bytes_may_be_zero(void **state)
{
	CLEANUP(buffer_done) struct buffer buffer;

	(void)state;
	buffer_init(&buffer, 0);
	assert_true(buffer_add(&buffer, "a\0b", 3));
	assert_int_equal(buffer.length, 3);
	assert_memory_equal(buffer.data, "a\0b", 4);
	buffer_clear(&buffer);
	assert_int_equal(buffer.length, 0);
	assert_string_equal(buffer_text(&buffer), "");
}

static void test_steal_of_empty_is_a_text(void **state)
{
	struct buffer buffer;
	CLEANUP(free_p) char *text = NULL;

	(void)state;
	buffer_init(&buffer, 3);
	text = buffer_steal(&buffer);
	assert_string_equal(text, "");
	assert_int_equal(buffer.max, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty_is_readable),
		cmocka_unit_test(test_adds_grow),
		cmocka_unit_test(test_cap_is_exact_and_refuses_whole_additions),
		cmocka_unit_test(test_consume_moves_the_rest),
		cmocka_unit_test(test_bytes_may_be_zero),
		cmocka_unit_test(test_steal_of_empty_is_a_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
