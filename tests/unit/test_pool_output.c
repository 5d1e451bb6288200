/* Kept output: all up to a cap and flagged, or the last bytes in their order; and environments. */
#include "tests/lib/test.h"

#include "pool/output.h"
#include "pool/run.h"

static struct output_budget plenty = {.most = SIZE_MAX};

/* Commands that print much at the same time share what there is, and give it back at their end. */
static void test_budget(void **state)
{
	struct output_budget budget = {.most = 100};
	CLEANUP(free_p) char *block = xcalloc(1, 80);
	struct output first, second, third;

	(void)state;
	output_init(&first, true, &budget);
	output_init(&second, true, &budget);
	output_add(&first, EXEC_STDOUT, block, 80);
	output_add(&second, EXEC_STDERR, block, 80);
	assert_int_equal(budget.used, 100);
	assert_false(first.truncated[0]);
	assert_true(second.truncated[1]);
	assert_int_equal(second.streams[1].length, 20);
	output_done(&first);
	assert_int_equal(budget.used, 20);
	output_init(&third, true, &budget);
	output_add(&third, EXEC_STDOUT, block, 80);
	assert_false(third.truncated[0]);
	output_done(&second);
	output_done(&third);
	assert_int_equal(budget.used, 0);
}

static void test_whole(void **state)
{
	CLEANUP(free_p) char *block = xcalloc(1, OUTPUT_STREAM_MAX);
	struct output output;
	struct buffer text;

	(void)state;
	output_init(&output, true, &plenty);
	output_add(&output, EXEC_STDOUT, "one ", 4);
	output_add(&output, EXEC_STDERR, "err", 3);
	output_add(&output, EXEC_STDOUT, "two", 3);
	buffer_init(&text, 0);
	output_collect(&output, EXEC_STDOUT, &text);
	assert_string_equal(text.data, "one two");
	assert_false(output.truncated[0]);
	output_add(&output, EXEC_STDOUT, block, OUTPUT_STREAM_MAX);
	assert_true(output.truncated[0]);
	assert_false(output.truncated[1]);
	assert_int_equal(output.streams[0].length, OUTPUT_STREAM_MAX);
	buffer_done(&text);
	output_done(&output);
}

static void append(void *context, enum exec_stream stream, const void *data, size_t length)
{
	char mark = stream == EXEC_STDERR ? '2' : '1';

	buffer_add(context, &mark, 1);
	buffer_add(context, data, length);
}

static void test_tail_order(void **state)
{
	struct output output;
	struct buffer text;

	(void)state;
	output_init(&output, false, &plenty);
	output_add(&output, EXEC_STDOUT, "a", 1);
	output_add(&output, EXEC_STDOUT, "b", 1);
	output_add(&output, EXEC_STDERR, "c", 1);
	output_add(&output, EXEC_STDOUT, "", 0);
	output_add(&output, EXEC_STDOUT, "d", 1);
	buffer_init(&text, 0);
	output_each(&output, append, &text);
	assert_string_equal(text.data, "1ab2c1d");
	buffer_done(&text);
	output_done(&output);
}

/* Whatever was added, the last OUTPUT_TAIL_MAX bytes are there, each under its stream. */
static void test_tail_length(void **state)
{
	struct output output;
	struct buffer all, kept;
	size_t total = 0;
	unsigned random = 1;

	(void)state;
	output_init(&output, false, &plenty);
	buffer_init(&all, 0);
	while (total < 5 * OUTPUT_TAIL_MAX) {
		enum exec_stream stream = random % 3 == 0 ? EXEC_STDERR : EXEC_STDOUT;
		char block[7000];
		size_t length = random % sizeof(block);

		for (size_t i = 0; i < length; i++) {
			block[i] =
				(char)((stream == EXEC_STDERR ? 128 : 0) + (int)(total + i) % 100);
		}
		output_add(&output, stream, block, length);
		buffer_add(&all, block, length);
		total += length;
		random = random * 1103515245 + 12345;
		random = random >> 3;
	}
	buffer_init(&kept, 0);
	for (size_t i = 0; i < 2; i++) {
		output_collect(&output, i == 0 ? EXEC_STDOUT : EXEC_STDERR, &kept);
		for (size_t j = 0; i == 0 && j < kept.length; j++) {
			assert_int_equal((unsigned char)kept.data[j] & 128, 0);
		}
	}
	assert_int_equal(kept.length, OUTPUT_TAIL_MAX);
	assert_true(output.tail.length < 2 * OUTPUT_TAIL_MAX);
	assert_memory_equal(output.tail.data + output.tail.length - OUTPUT_TAIL_MAX,
		all.data + all.length - OUTPUT_TAIL_MAX, OUTPUT_TAIL_MAX);
	buffer_done(&kept);
	buffer_done(&all);
	output_done(&output);
}

static bool holds(char *const *list, const char *pair)
{
	for (; *list != NULL; list++) {
		if (streq(*list, pair)) {
			return true;
		}
	}
	return false;
}

static void test_env(void **state)
{
	char *image[] = {(char *)(uintptr_t) "A=1", (char *)(uintptr_t) "AB=2", NULL};
	char *claim[] = {(char *)(uintptr_t) "A=3", NULL};
	char *request[] = {(char *)(uintptr_t) "C=", NULL};
	char *const *const lists[] = {image, claim, NULL, request};
	CLEANUP(strv_free_p) char **env = env_merge(lists, ARRAY_SIZE(lists));

	(void)state;
	assert_int_equal(strv_count(env), 3);
	assert_true(holds(env, "A=3"));
	assert_true(holds(env, "AB=2"));
	assert_true(holds(env, "C="));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_tail_order),
		cmocka_unit_test(test_tail_length),
		cmocka_unit_test(test_env),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
