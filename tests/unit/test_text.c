/* Nearest words, Base64 and the WebSocket answer: vectors of their RFCs, and what must be refused.
 */
#include "base/base64.h"
#include "base/digest.h"
#include "base/memory.h"
#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void test_distance(void **state)
{
	(void)state;
	assert_int_equal(text_distance("", "", 9), 0);
	assert_int_equal(text_distance("exec", "exec", 9), 0);
	assert_int_equal(text_distance("exce", "exec", 9), 1);
	assert_int_equal(text_distance("kitten", "sitting", 9), 3);
	assert_int_equal(text_distance("abc", "", 9), 3);
	assert_int_equal(text_distance("abcdef", "uvwxyz", 2), 3);
}

static void test_nearest(void **state)
{
	static const char *const words[] = {"create", "exec", "shell", "ls", "rm"};
	char longest[200];

	(void)state;
	assert_string_equal(text_nearest("craete", words, ARRAY_SIZE(words)), "create");
	assert_string_equal(text_nearest("lst", words, ARRAY_SIZE(words)), "ls");
	assert_string_equal(text_nearest("shel", words, ARRAY_SIZE(words)), "shell");
	assert_null(text_nearest("frobnicate", words, ARRAY_SIZE(words)));
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_null(text_nearest(longest, words, ARRAY_SIZE(words)));
}

static void test_base64_vectors(void **state)
{
	static const char *const pairs[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="},
		{"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="},
		{"foobar", "Zm9vYmFy"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		CLEANUP(free_p) char *text = base64_encode(pairs[i][0], strlen(pairs[i][0]));
		struct buffer back;

		buffer_init(&back, 0);
		assert_string_equal(text, pairs[i][1]);
		assert_true(base64_decode(text, strlen(text), &back));
		assert_string_equal(buffer_text(&back), pairs[i][0]);
		buffer_done(&back);
	}
}

static void test_base64_refuses(void **state)
{
	static const char *const bad[] = {
		"Z", "Zg=", "Zg", "Z===", "====", "Zm=v", "Zm9v!mFy", "Zg==Zg==", "Zh==", "Zm9="};
	struct buffer out;

	(void)state;
	buffer_init(&out, 4);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_false(base64_decode(bad[i], strlen(bad[i]), &out));
		assert_int_equal(out.length, 0);
	}
	assert_false(base64_decode("Zm9vYmFy", 8, &out)); /* six bytes into a cap of four */
	buffer_done(&out);
}

static void test_websocket_accept(void **state)
{
	char text[WEBSOCKET_ACCEPT_SIZE];

	(void)state;
	digest_websocket_accept("dGhlIHNhbXBsZSBub25jZQ==", text);
	assert_string_equal(text, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_distance),
		cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_base64_vectors),
		cmocka_unit_test(test_base64_refuses),
		cmocka_unit_test(test_websocket_accept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
