/* Ownership helpers: cleanup keeps errno, steal leaves nothing behind, lists of strings. */
#include "tests/lib/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void test_cleanup_closes_and_keeps_errno(void **state)
{
	int number;

	(void)state;
	{
		CLEANUP(close_p) int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		CLEANUP(free_p) char *text = xstrdup("text");

		assert_true(fd >= 0);
		assert_string_equal(text, "text");
		number = fd;
		errno = EXDEV;
	}
	assert_int_equal(errno, EXDEV);
	assert_false(is_open(number));
}

static void test_steal(void **state)
{
	char *text = xstrdup("mine");
	CLEANUP(free_p) char *taken = steal_ptr(text);
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int taken_fd = steal_fd(&fd);

	(void)state;
	assert_null(text);
	assert_string_equal(taken, "mine");
	assert_int_equal(fd, -1);
	assert_true(is_open(taken_fd));
	fd_done(&taken_fd);
	assert_int_equal(taken_fd, -1);
	fd_done(&taken_fd);
}

static void test_array_add_zeroes_and_grows(void **state)
{
	struct item {
		int64_t number;
		void *pointer;
	} *items = NULL;
	size_t count = 0, room = 0;

	(void)state;
	for (int i = 0; i < 100; i++) {
		struct item *item = array_add(&items, &count, &room);

		assert_int_equal(item->number, 0);
		assert_null(item->pointer);
		item->number = i;
		item->pointer = item;
	}
	assert_int_equal(count, 100);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(items[i].number, i);
	}
	free(items);
}

static void test_strv(void **state)
{
	CLEANUP(strv_free_p) char **list = NULL;
	CLEANUP(strv_free_p) char **copy = NULL;
	CLEANUP(strv_free_p) char **nothing = strv_copy(NULL);

	(void)state;
	assert_null(nothing);
	assert_int_equal(strv_count(NULL), 0);
	strv_add(&list, "a");
	strv_add(&list, "");
	strv_add(&list, "c=d");
	assert_int_equal(strv_count(list), 3);
	copy = strv_copy(list);
	assert_ptr_not_equal(copy[2], list[2]);
	assert_string_equal(copy[0], "a");
	assert_string_equal(copy[1], "");
	assert_string_equal(copy[2], "c=d");
	assert_null(copy[3]);
}

static void test_strings(void **state)
{
	CLEANUP(free_p) char *part = xstrndup("abcdef", 3);
	CLEANUP(free_p) char *text = xasprintf("%s-%d", part, 7);

	(void)state;
	assert_null(xstrdup(NULL));
	assert_string_equal(text, "abc-7");
	assert_true(str_starts(text, "abc"));
	assert_false(str_starts("ab", "abc"));
	assert_true(str_starts("x", ""));
}

/* An impossible size ends the process rather than giving NULL; in a child, since it aborts. */
static void test_exhaustion_aborts(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		volatile size_t huge = SIZE_MAX / 2;

		dup2(null, STDERR_FILENO);
		sigaction(SIGABRT, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
		free(xreallocarray(NULL, huge, 4));
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

struct outer {
	int before;
	int member;
};

static void test_container_of(void **state)
{
	struct outer outer;

	(void)state;
	assert_ptr_equal(container_of(&outer.member, struct outer, member), &outer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cleanup_closes_and_keeps_errno),
		cmocka_unit_test(test_steal),
		cmocka_unit_test(test_array_add_zeroes_and_grows),
		cmocka_unit_test(test_strv),
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_exhaustion_aborts),
		cmocka_unit_test(test_container_of),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
