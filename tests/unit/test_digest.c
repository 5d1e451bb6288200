/* SHA-256 against published vectors, in pieces, and of files. */
#include "tests/lib/test.h"

#include "base/digest.h"
#include "base/io.h"

#include <fcntl.h>

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static void test_vectors(void **state)
{
	char text[SHA256_TEXT_SIZE];

	(void)state;
	digest_of("", 0, text);
	assert_string_equal(text, EMPTY);
	digest_of("abc", 3, text);
	assert_string_equal(text, ABC);
}

static void test_pieces(void **state)
{
	struct digest *digest = digest_new();
	char text[SHA256_TEXT_SIZE];

	(void)state;
	digest_add(digest, "a", 1);
	digest_add(digest, "", 0);
	digest_add(digest, "bc", 2);
	digest_end(digest, text);
	digest_free(digest);
	digest_free(NULL);
	assert_string_equal(text, ABC);
}

static void test_strings_do_not_run_together(void **state)
{
	struct digest *one = digest_new(), *two = digest_new();
	char a[SHA256_TEXT_SIZE], b[SHA256_TEXT_SIZE];

	(void)state;
	digest_add_str(one, "ab");
	digest_add_str(one, "c");
	digest_add_str(two, "a");
	digest_add_str(two, "bc");
	digest_end(one, a);
	digest_end(two, b);
	assert_string_not_equal(a, b);
	digest_free(one);
	digest_free(two);
}

static void test_file_from_its_offset(void **state)
{
	CLEANUP(free_p) char *path = xasprintf("%s/file", (char *)*state);
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int fd = -1;
	char text[SHA256_TEXT_SIZE];

	temp_write(*state, "file", "xxabc");
	fd = io_open(AT_FDCWD, path, O_RDONLY, 0, &err);
	assert_int_equal(lseek(fd, 2, SEEK_SET), 2);
	assert_ok(digest_of_fd(fd, text, &err), &err);
	assert_string_equal(text, ABC);
	assert_ok(digest_of_fd(fd, text, &err), &err);
	assert_string_equal(text, EMPTY);
	assert_true(digest_of_fd(-1, text, &err) < 0);
}

static void test_validity(void **state)
{
	(void)state;
	assert_true(digest_is_valid(ABC));
	assert_false(digest_is_valid(""));
	assert_false(digest_is_valid(ABC "0"));
	assert_false(digest_is_valid(
		"BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"));
	assert_false(digest_is_valid(
		"ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_strings_do_not_run_together),
		cmocka_unit_test_setup_teardown(
			test_file_from_its_offset, setup_folder, teardown_folder),
		cmocka_unit_test(test_validity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
