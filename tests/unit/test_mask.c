/* Secrets in what a step says: masked in each form, wherever the text is cut. */
#include "tests/lib/test.h"

#include "base/base64.h"
#include "base/buffer.h"
#include "builder/credentials/mask.h"
#include "builder/credentials/step_secrets.h"

static void take(void *context, const char *data, size_t length)
{
	buffer_add(context, data, length);
}

/* In pieces of `piece` bytes. */
static char *masked(const char *value, const char *text, size_t piece)
{
	char *copy = xstrdup(value);
	const char *name = "token";
	struct secret secret = {copy, strlen(copy)};
	const struct step_secrets secrets = {&name, &secret, 1};
	struct buffer out = {0};
	struct mask *mask = mask_new(&secrets, take, &out);

	for (size_t at = 0; at < strlen(text); at += piece) {
		size_t left = strlen(text) - at;

		mask_add(mask, text + at, left < piece ? left : piece);
	}
	mask_end(mask);
	mask_free(mask);
	free(copy);
	return buffer_steal(&out);
}

static void check(const char *value, const char *text, const char *wanted)
{
	for (size_t piece = 1; piece <= strlen(text); piece++) {
		CLEANUP(free_p) char *shown = masked(value, text, piece);

		if (!streq(shown, wanted)) {
			fail_msg("%s in pieces of %zu: %s", text, piece, shown);
		}
	}
}

static void test_as_it_is(void **state)
{
	(void)state;
	check("s3cr3t-token", "a s3cr3t-token b\n", "a *** b\n");
	check("s3cr3t-token", "s3cr3t-tokens3cr3t-token", "******");
	check("s3cr3t-token", "s3cr3t-toke s3cr3t-", "s3cr3t-toke s3cr3t-");
	check("aaaaaaab", "aaaaaaaaab", "aa***");
	check("s3cr3t-token", "", "");
	check("p@ss w/rd+1", "x=p%40ss%20w%2Frd%2B1&", "x=***&");
	check("p@ss w/rd+1", "x=p%40ss%20w%2frd%2b1&", "x=***&");
}

static void test_base64(void **state)
{
	static const char value[] =
		"a secret that is long enough for base64 to break its line: 0123456789";

	(void)state;
	for (size_t shift = 0; shift < 4; shift++) {
		CLEANUP(free_p) char *plain = xasprintf("%.*s%s--", (int)shift, "user", value);
		CLEANUP(free_p) char *text = base64_encode(plain, strlen(plain));
		CLEANUP(free_p) char *wrapped = xasprintf("%.*s\n%s\n", 60, text, text + 60);
		CLEANUP(free_p) char *shown = masked(value, wrapped, 7);

		assert_contains(shown, "***");
		assert_true(strlen(shown) < 20);
	}
}

static void test_lines(void **state)
{
	(void)state;
	check("-----BEGIN KEY-----\nabcdefghijkl\nmn\n-----END KEY-----",
		"> -----BEGIN KEY-----\n> abcdefghijkl\n> mn\n> -----END KEY-----\n",
		"> ***\n> ***\n> mn\n> ***\n");
}

/* Its lines are secrets too, but what is left of the whole behind one of them is not shown. */
static void test_a_part_that_is_a_secret_too(void **state)
{
	static const char value[] = "-----BEGIN KEY-----\nabcdefghijkl\nmn\n-----END KEY-----";

	(void)state;
	check(value, value, "***");
	check("password\nof-two", "password\nof-tw", "***\nof-tw");
}

static void test_line_ends_are_not_waited_over(void **state)
{
	const char *name = "token";
	char value[] = "s3cr3t-token";
	struct secret secret = {value, strlen(value)};
	const struct step_secrets secrets = {&name, &secret, 1};
	struct buffer out = {0};
	struct mask *mask = mask_new(&secrets, take, &out);
	size_t length;
	char *text = step_secret_base64(&secret, 0, &length);

	(void)state;
	mask_add(mask, text, 1);
	assert_int_equal(out.length, 0);
	for (size_t i = 0; i < 100; i++) {
		mask_add(mask, "\n", 1);
	}
	assert_int_equal(out.length, 101);
	mask_free(mask);
	buffer_done(&out);
	free(text);
}

static void test_without_secrets(void **state)
{
	struct buffer out = {0};
	struct mask *mask = mask_new(NULL, take, &out);

	(void)state;
	mask_add(mask, "any\0thing", 9);
	assert_int_equal(out.length, 9);
	mask_end(mask);
	mask_free(mask);
	buffer_done(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_it_is),
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_a_part_that_is_a_secret_too),
		cmocka_unit_test(test_line_ends_are_not_waited_over),
		cmocka_unit_test(test_without_secrets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
