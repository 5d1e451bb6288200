/* Sizes, spans, ages, and tables as a pipe gets them. */
#include "tests/lib/test.h"

#include "base/clock.h"
#include "pool/cli/human.h"
#include "pool/cli/table.h"

#include <stdio.h>
#include <unistd.h>

static void test_bytes(void **state)
{
	static const struct {
		int64_t bytes;
		const char *text;
	} cases[] = {{0, "0 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {1536, "1.5 KiB"},
		{20 << 20, "20 MiB"}, {INT64_C(3) << 40, "3.0 TiB"}, {INT64_MAX, "8.0 EiB"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[HUMAN_SIZE];

		human_bytes(text, cases[i].bytes);
		assert_string_equal(text, cases[i].text);
	}
}

static void test_spans(void **state)
{
	static const struct {
		int64_t us;
		const char *text;
	} cases[] = {{0, "0 µs"}, {84, "84 µs"}, {1500, "1.5 ms"}, {25000, "25 ms"},
		{3400000, "3.4 s"}, {90000000, "1.5 min"}, {INT64_C(7200000000), "2.0 h"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[HUMAN_SIZE];

		human_span(text, cases[i].us);
		assert_string_equal(text, cases[i].text);
	}
}

static void test_times(void **state)
{
	static const char *const bad[] = {"", "yesterday", "2026-01-31", "2026-01-31T12:00:00",
		"2026-01-31T12:00:00+01:00", "2026-01-31T12:00:00.5"};
	char at[CLOCK_TEXT_SIZE], text[HUMAN_SIZE];
	int64_t ms = 0;

	(void)state;
	assert_true(clock_parse("2026-01-31T12:00:00.123Z", &ms));
	assert_int_equal(ms, INT64_C(1769860800123));
	assert_true(clock_parse("1970-01-01T00:00:01Z", &ms));
	assert_int_equal(ms, 1000);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_false(clock_parse(bad[i], &ms));
	}
	clock_format(at, clock_real_ms() - 3 * 3600 * 1000);
	human_age(text, at);
	assert_string_equal(text, "3h");
	clock_format(at, clock_real_ms() + 600 * 1000);
	human_until(text, at);
	assert_string_equal(text, "10m");
	clock_format(at, clock_real_ms() - 1000);
	human_until(text, at);
	assert_string_equal(text, "0s");
	human_age(text, NULL);
	assert_string_equal(text, "-");
}

/* Runs `print` with standard output in a pipe. The caller frees the text. */
static char *output_of(void (*print)(void))
{
	char *text = xcalloc(1, 4096);
	int fds[2];
	int before = dup(STDOUT_FILENO);

	fflush(stdout);
	assert_int_equal(pipe(fds), 0);
	assert_true(dup2(fds[1], STDOUT_FILENO) >= 0);
	close(fds[1]);
	print();
	fflush(stdout);
	assert_true(dup2(before, STDOUT_FILENO) >= 0);
	close(before);
	assert_true(read(fds[0], text, 4095) >= 0);
	close(fds[0]);
	return text;
}

static void print_table(void)
{
	static const struct table_column columns[] = {
		{"NAME", false}, {"COUNT", true}, {"NOTE", false}};
	CLEANUP(table_free_p) struct table *table = table_new(columns, ARRAY_SIZE(columns));

	table_add_styled(table, "grüße", STYLE_GOOD);
	table_add(table, "7");
	table_add(table,
		"a long note that must come whole, however narrow some terminal may be, as "
		"nobody looks at a pipe's width: 0123456789012345678901234567890123456789");
	table_add(table, "b");
	table_add(table, "1234567");
	table_add(table, "");
	table_print(table, NULL);
}

static void test_table_in_a_pipe(void **state)
{
	CLEANUP(free_p) char *text = output_of(print_table);

	(void)state;
	assert_string_equal(text,
		"NAME     COUNT  NOTE\n"
		"grüße        7  a long note that must come whole, however narrow some terminal "
		"may be, as "
		"nobody looks at a pipe's width: 0123456789012345678901234567890123456789\n"
		"b      1234567  -\n");
}

static void print_nasty(void)
{
	style_print("a\033[2Jb\r\nc\tß\xc2\x9b"
		    "31m",
		STYLE_PLAIN);
}

static void test_control_characters_are_harmless(void **state)
{
	CLEANUP(free_p) char *text = output_of(print_nasty);

	(void)state;
	assert_string_equal(text, "a?[2Jb? c ß?31m");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_spans),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_table_in_a_pipe),
		cmocka_unit_test(test_control_characters_are_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
