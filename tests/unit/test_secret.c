/* Secrets: what is read, and which mistakes of an operator are refused. */
#include "tests/lib/test.h"

#include "configs/secret.h"

#include <sys/stat.h>
#include <unistd.h>

static void put(const char *folder, const char *name, const char *text, mode_t mode)
{
	CLEANUP(free_p) char *path = xasprintf("%s/%s", folder, name);

	temp_write(folder, name, text);
	assert_int_equal(chmod(path, mode), 0);
}

static void assert_secret(const char *folder, const char *name, const char *text)
{
	CLEANUP(secret_done) struct secret secret = {0};
	struct error err = ERROR_INIT;

	assert_ok(secret_read(folder, name, &secret, &err), &err);
	assert_string_equal(secret.text, text);
	assert_int_equal(secret.length, strlen(text));
}

static void assert_no_secret(const char *folder, const char *name, enum error_kind kind)
{
	struct secret secret = {0};
	struct error err = ERROR_INIT;

	assert_kind(secret_read(folder, name, &secret, &err), &err, kind);
	assert_null(secret.text);
}

static void test_read(void **state)
{
	put(*state, "plain", "swordfish", 0640);
	put(*state, "lined", "swordfish\n", 0600);
	put(*state, "key.pem", "-----BEGIN\nabc\n-----END\n", 0440);
	assert_secret(*state, "plain", "swordfish");
	assert_secret(*state, "lined", "swordfish");
	assert_secret(*state, "key.pem", "-----BEGIN\nabc\n-----END");
}

static void test_refused(void **state)
{
	CLEANUP(free_p) char *link = xasprintf("%s/link", (char *)*state);
	CLEANUP(free_p) char *folder = xasprintf("%s/folder", (char *)*state);
	CLEANUP(free_p) char *large = xcalloc(SECRET_BYTES_MAX + 2, 1);

	put(*state, "open", "swordfish", 0644);
	put(*state, "empty", "\n", 0600);
	memset(large, 'x', SECRET_BYTES_MAX + 1);
	put(*state, "large", large, 0600);
	assert_int_equal(symlink("empty", link), 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	assert_no_secret(*state, "absent", ERROR_NOT_FOUND);
	assert_no_secret(*state, "open", ERROR_DENIED);
	assert_no_secret(*state, "empty", ERROR_INVALID);
	assert_no_secret(*state, "large", ERROR_LIMIT);
	assert_no_secret(*state, "folder", ERROR_INVALID);
	assert_no_secret(*state, "../passwd", ERROR_INVALID);
	assert_no_secret(*state, "", ERROR_INVALID);
	assert_no_secret("/nowhere", "plain", ERROR_NOT_FOUND);
	{
		struct secret secret = {0};
		struct error err = ERROR_INIT;

		assert_true(secret_read(*state, "link", &secret, &err) < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_read, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(test_refused, setup_folder, teardown_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
