/* Files, descriptors over sockets, names, and walks that neither follow links nor cross mounts. */
#include "tests/lib/test.h"

#include "base/io.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int open_folder(const char *folder)
{
	struct error err = ERROR_INIT;
	int fd = io_open(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0, &err);

	assert_ok(fd, &err);
	return fd;
}

static void test_write_file_replaces_whole(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	CLEANUP(free_p) char *text = NULL;
	struct error err = ERROR_INIT;
	struct stat status;

	temp_write(*state, "file", "the old text, longer");
	assert_ok(io_write_file(dir, "file", "new", 3, 0600, &err), &err);
	text = temp_read(*state, "file");
	assert_string_equal(text, "new");
	assert_int_equal(fstatat(dir, "file", &status, 0), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_kind(io_write_file(dir, "missing/file", "x", 1, 0600, &err), &err, ERROR_NOT_FOUND);
}

static void test_write_file_leaves_no_temporary(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	CLEANUP(closedir_p) DIR *list = NULL;
	struct error err = ERROR_INIT;
	struct dirent *entry;

	assert_int_equal(mkdirat(dir, "name", 0755), 0);
	assert_true(io_write_file(dir, "name", "x", 1, 0600, &err) < 0);
	list = io_opendir(dir, ".", &err);
	assert_non_null(list);
	while ((entry = readdir(list)) != NULL) {
		if (!streq(entry->d_name, ".") && !streq(entry->d_name, "..")) {
			assert_string_equal(entry->d_name, "name");
		}
	}
}

static void test_read_file_respects_the_cap(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	CLEANUP(buffer_done) struct buffer text;
	struct error err = ERROR_INIT;

	temp_write(*state, "file", "0123456789");
	buffer_init(&text, 10);
	assert_ok(io_read_file(dir, "file", &text, &err), &err);
	assert_string_equal(buffer_text(&text), "0123456789");
	assert_kind(io_read_file(dir, "file", &text, &err), &err, ERROR_LIMIT);
	assert_kind(io_read_file(dir, "absent", &text, &err), &err, ERROR_NOT_FOUND);
}

static void test_read_full_reports_an_early_end(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int fd = -1;
	char data[8];

	temp_write(*state, "file", "12345");
	fd = io_open(dir, "file", O_RDONLY, 0, &err);
	assert_ok(io_read_full(fd, data, 5, &err), &err);
	assert_memory_equal(data, "12345", 5);
	assert_kind(io_read_full(fd, data, 1, &err), &err, ERROR_CORRUPT);
}

static void test_open_beneath_refuses_to_leave(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	static const char *const refused[] = {
		"../x", "/etc/passwd", "link", "linkdir/file", "sub/../../x"};
	struct error err = ERROR_INIT;
	int fd;

	temp_write(*state, "file", "x");
	assert_int_equal(mkdirat(dir, "sub", 0755), 0);
	temp_write(*state, "sub/file", "x");
	assert_int_equal(symlinkat("file", dir, "link"), 0);
	assert_int_equal(symlinkat("sub", dir, "linkdir"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		fd = io_open_beneath(dir, refused[i], O_RDONLY, 0, &err);
		if (fd >= 0) {
			fail_msg("%s was opened", refused[i]);
		}
	}
	fd = io_open_beneath(dir, "sub/file", O_RDONLY, 0, &err);
	assert_ok(fd, &err);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(fd);
}

static void test_mkdir_all(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	struct error err = ERROR_INIT;

	assert_ok(io_mkdir_all(dir, "a/b/c", 0755, &err), &err);
	assert_ok(io_mkdir_all(dir, "a/b/c", 0755, &err), &err);
	assert_int_equal(faccessat(dir, "a/b/c", F_OK, 0), 0);
	temp_write(*state, "a/file", "x");
	assert_true(io_mkdir_all(dir, "a/file/c", 0755, &err) < 0);
}

static void test_remove_tree_takes_everything_but_what_links_name(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	CLEANUP(free_p) char *kept = NULL;
	struct error err = ERROR_INIT;

	assert_ok(io_mkdir_all(dir, "tree/a/b", 0755, &err), &err);
	assert_ok(io_mkdir_all(dir, "outside", 0755, &err), &err);
	temp_write(*state, "outside/kept", "kept");
	temp_write(*state, "tree/a/file", "x");
	assert_int_equal(symlinkat("../../outside", dir, "tree/a/link"), 0);
	assert_int_equal(mkfifoat(dir, "tree/fifo", 0600), 0);
	assert_int_equal(fchmodat(dir, "tree/a", 0000, 0), 0);
	assert_ok(io_remove_tree(dir, "tree", &err), &err);
	assert_int_equal(faccessat(dir, "tree", F_OK, AT_SYMLINK_NOFOLLOW), -1);
	kept = temp_read(*state, "outside/kept");
	assert_string_equal(kept, "kept");
	assert_ok(io_remove_tree(dir, "tree", &err), &err);
	assert_ok(io_remove_tree(dir, "outside/kept", &err), &err);
}

/* Deeper than a path can name and than descriptors are allowed, as a hostile sandbox may leave it.
 */
static void test_remove_tree_of_any_depth(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	struct error err = ERROR_INIT;
	int at = dup(dir);

	for (int i = 0; i < 3000; i++) {
		int next;

		assert_int_equal(mkdirat(at, "d", 0755), 0);
		next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(at);
		at = next;
	}
	close(at);
	assert_ok(io_remove_tree(dir, "d", &err), &err);
	assert_int_equal(faccessat(dir, "d", F_OK, 0), -1);
}

/* The child's exit code: 0 when a bind mount of the same file system stopped both walks. */
static int walk_over_a_mount(const char *folder)
{
	CLEANUP(free_p) char *target = xasprintf("%s/tree/mnt", folder);
	CLEANUP(free_p) char *from = xasprintf("%s/other", folder);
	struct error err = ERROR_INIT;
	struct tree_usage usage;
	int dir;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount(from, target, NULL, MS_BIND, NULL) < 0) {
		return 2;
	}
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (io_tree_usage(dir, "tree", &usage, &err) != -ERROR_BUSY) {
		return 3;
	}
	if (io_remove_tree(dir, "tree", &err) != -ERROR_BUSY) {
		return 4;
	}
	err = ERROR_INIT;
	if (io_remove_tree(dir, "tree/mnt", &err) != -ERROR_BUSY) {
		return 5;
	}
	return faccessat(dir, "other/kept", F_OK, 0) == 0 ? 0 : 6;
}

static void test_walks_never_cross_a_mount(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	struct error err = ERROR_INIT;
	int status;
	pid_t pid;

	if (geteuid() != 0) {
		skip();
	}
	assert_ok(io_mkdir_all(dir, "tree/mnt", 0755, &err), &err);
	assert_ok(io_mkdir_all(dir, "other", 0755, &err), &err);
	temp_write(*state, "other/kept", "kept");
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		_exit(walk_over_a_mount(*state));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_tree_usage_counts_links_once(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	struct error err = ERROR_INIT;
	struct tree_usage usage = {0};

	assert_ok(io_mkdir_all(dir, "tree/a", 0755, &err), &err);
	temp_write(*state, "tree/one", "12345678");
	temp_write(*state, "tree/a/two", "1234");
	assert_int_equal(linkat(dir, "tree/one", dir, "tree/a/link", 0), 0);
	assert_int_equal(symlinkat("one", dir, "tree/symlink"), 0);
	assert_ok(io_tree_usage(dir, "tree", &usage, &err), &err);
	assert_int_equal(usage.files, 6);
	assert_int_equal(usage.bytes, 12);
	assert_kind(io_tree_usage(dir, "absent", &usage, &err), &err, ERROR_NOT_FOUND);
}

static void test_descriptors_travel(void **state)
{
	int pair[2], fds[IO_FDS_MAX], sent[2];
	size_t count = 0;
	char data[8];
	struct stat a, b;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	sent[0] = pair[0];
	sent[1] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(io_send_fds(pair[0], "hello", 5, sent, 2, 0), 5);
	assert_int_equal(io_recv_fds(pair[1], data, sizeof(data), fds, &count, 0), 5);
	assert_int_equal(count, 2);
	assert_int_equal(fstat(fds[1], &a), 0);
	assert_int_equal(fstat(sent[1], &b), 0);
	assert_int_equal(a.st_rdev, b.st_rdev);
	assert_int_equal(fcntl(fds[1], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(fds[0]);
	close(fds[1]);
	close(sent[1]);
	assert_int_equal(io_send_fds(pair[0], "x", 1, NULL, 0, 0), 1);
	assert_int_equal(io_recv_fds(pair[1], data, sizeof(data), fds, &count, 0), 1);
	assert_int_equal(count, 0);
	assert_int_equal(io_send_fds(pair[0], "x", 1, fds, IO_FDS_MAX + 1, 0), -1);
	close(pair[0]);
	assert_int_equal(io_recv_fds(pair[1], data, sizeof(data), fds, &count, 0), 0);
	close(pair[1]);
}

static void test_names(void **state)
{
	static const char *const good[] = {"a", "webapp", "a.b-c_d", "0", "a..b"};
	static const char *const bad[] = {
		"", ".", "..", ".a", "-a", "A", "a/b", "a b", "a\n", "\xc3\xa4"};
	char longest[NAME_MAX_LENGTH + 2];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_true(name_is_valid(good[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_false(name_is_valid(bad[i]));
	}
	memset(longest, 'a', sizeof(longest));
	longest[NAME_MAX_LENGTH] = '\0';
	assert_true(name_is_valid(longest));
	longest[NAME_MAX_LENGTH] = 'a';
	longest[NAME_MAX_LENGTH + 1] = '\0';
	assert_false(name_is_valid(longest));
}

static void test_ids_differ(void **state)
{
	char one[ID_SIZE], two[ID_SIZE];

	(void)state;
	id_random(one, "sb-");
	id_random(two, "sb-");
	assert_int_equal(strlen(one), 15);
	assert_true(str_starts(one, "sb-"));
	assert_true(name_is_valid(one));
	assert_string_not_equal(one, two);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_FOLDER(test_write_file_replaces_whole),
		IN_FOLDER(test_write_file_leaves_no_temporary),
		IN_FOLDER(test_read_file_respects_the_cap),
		IN_FOLDER(test_read_full_reports_an_early_end),
		IN_FOLDER(test_open_beneath_refuses_to_leave),
		IN_FOLDER(test_mkdir_all),
		IN_FOLDER(test_remove_tree_takes_everything_but_what_links_name),
		IN_FOLDER(test_remove_tree_of_any_depth),
		IN_FOLDER(test_walks_never_cross_a_mount),
		IN_FOLDER(test_tree_usage_counts_links_once),
		cmocka_unit_test(test_descriptors_travel),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_ids_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
