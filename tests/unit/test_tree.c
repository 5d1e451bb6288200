/* Walks over trees that somebody has made to hurt: deep, forbidden, full of links, with odd names,
 * with something mounted inside. Depth and breadth with few descriptors to spare. */
#include "tests/lib/test.h"

#include "base/io.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define NOBODY 65534

static int open_folder(const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void make_file(int dir, const char *name)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "12345678", 8), 8);
	close(fd);
}

/* "deep" in `dir`: a chain of `depth` folders. At every `every`-th there are two files and a folder
 * with a file beside the chain, some of which come before it and some after. */
static void make_deep(int dir, int depth, int every)
{
	int at = dup(dir);

	for (int i = 0; i < depth; i++) {
		const char *name = i == 0 ? "deep" : "d";
		int next;

		assert_int_equal(mkdirat(at, name, 0755), 0);
		next = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(at);
		at = next;
		if (i % every == 0) {
			make_file(at, "a");
			make_file(at, "z");
			assert_int_equal(mkdirat(at, "side", 0755), 0);
			make_file(at, "side/file");
		}
	}
	close(at);
}

static void limit_descriptors(rlim_t count)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = count;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static bool exists(int dir, const char *name)
{
	return faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void check_deep(const char *folder, int depth, int every)
{
	CLEANUP(close_p) int dir = open_folder(folder);
	struct tree_usage usage = {0};
	struct error err = ERROR_INIT;
	uint64_t busy = (uint64_t)((depth + every - 1) / every);

	make_deep(dir, depth, every);
	assert_ok(io_tree_usage(dir, "deep", &usage, &err), &err);
	assert_int_equal(usage.files, (uint64_t)depth + busy * 4);
	assert_int_equal(usage.bytes, busy * 24);
	assert_int_equal(usage.unread, 0);
	assert_ok(io_remove_tree(dir, "deep", &err), &err);
	assert_false(exists(dir, "deep"));
}

static void test_a_very_deep_tree(void **state)
{
	limit_descriptors(128);
	check_deep(*state, 20000, 1000);
}

static void test_a_deep_and_busy_tree(void **state)
{
	limit_descriptors(128);
	check_deep(*state, 600, 1);
}

/* A folder on another file system, tmpfs; *state is NULL where there is none. */
static int setup_memory(void **state)
{
	char template[] = "/dev/shm/hob-unit-XXXXXX";

	*state = mkdtemp(template) != NULL ? xstrdup(template) : NULL;
	return 0;
}

static void test_a_deep_tree_in_memory(void **state)
{
	if (*state == NULL) {
		skip();
	}
	check_deep(*state, 600, 1);
}

static void test_links_are_links(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	CLEANUP(free_p) char *outside = xasprintf("%s/outside", (char *)*state);
	struct tree_usage usage = {0};
	struct error err = ERROR_INIT;

	assert_int_equal(mkdirat(dir, "outside", 0755), 0);
	make_file(dir, "outside/kept");
	assert_int_equal(mkdirat(dir, "tree", 0755), 0);
	assert_int_equal(symlinkat(outside, dir, "tree/absolute"), 0);
	assert_int_equal(symlinkat("../outside", dir, "tree/relative"), 0);
	assert_int_equal(symlinkat("..", dir, "tree/up"), 0);
	assert_int_equal(symlinkat("self", dir, "tree/self"), 0);
	assert_int_equal(linkat(dir, "outside/kept", dir, "tree/hard", 0), 0);
	assert_ok(io_tree_usage(dir, "tree", &usage, &err), &err);
	assert_int_equal(usage.files, 6);
	assert_int_equal(usage.bytes, 8);
	assert_ok(io_remove_tree(dir, "tree", &err), &err);
	assert_true(exists(dir, "outside/kept"));
	assert_int_equal(symlinkat("outside", dir, "tree"), 0);
	assert_kind(io_tree_usage(dir, "tree", &usage, &err), &err, ERROR_NOT_FOUND);
	assert_ok(io_remove_tree(dir, "tree", &err), &err);
	assert_false(exists(dir, "tree"));
	assert_true(exists(dir, "outside/kept"));
}

static void test_names_are_bytes(void **state)
{
	static const char *const names[] = {
		"\xff\xfe", "\n", "a b", "-rf", "*", "\x1b[2J", "\xc3\x28"};
	CLEANUP(close_p) int dir = open_folder(*state);
	struct tree_usage usage = {0};
	struct error err = ERROR_INIT;
	char longest[256];

	assert_int_equal(mkdirat(dir, "\xff tree", 0755), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP(free_p) char *folder = xasprintf("\xff tree/%s", names[i]);
		CLEANUP(free_p) char *file = xasprintf("\xff tree/%s/%s", names[i], names[i]);

		assert_int_equal(mkdirat(dir, folder, 0755), 0);
		make_file(dir, file);
	}
	memset(longest, 'x', 255);
	longest[255] = '\0';
	{
		CLEANUP(free_p) char *path = xasprintf("\xff tree/%s", longest);

		make_file(dir, path);
	}
	assert_ok(io_tree_usage(dir, "\xff tree", &usage, &err), &err);
	assert_int_equal(usage.files, 2 + 2 * ARRAY_SIZE(names));
	assert_ok(io_remove_tree(dir, "\xff tree", &err), &err);
	assert_false(exists(dir, "\xff tree"));
}

static void make_forbidden(int dir)
{
	static const mode_t modes[] = {0000, 0100, 0200, 0400, 0500, 0600};
	char name[32];

	assert_int_equal(mkdirat(dir, "tree", 0755), 0);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		snprintf(name, sizeof(name), "tree/%03o", modes[i]);
		assert_int_equal(mkdirat(dir, name, 0755), 0);
		snprintf(name, sizeof(name), "tree/%03o/file", modes[i]);
		make_file(dir, name);
		snprintf(name, sizeof(name), "tree/%03o/sub", modes[i]);
		assert_int_equal(mkdirat(dir, name, 0), 0);
		snprintf(name, sizeof(name), "tree/%03o", modes[i]);
		assert_int_equal(fchmodat(dir, name, modes[i], 0), 0);
	}
	make_deep(dir, 100, 30);
	assert_int_equal(renameat(dir, "deep", dir, "tree/deep"), 0);
	assert_int_equal(fchmodat(dir, "tree", 0, 0), 0);
}

/* As somebody without root's rights; the exit code says which step went wrong. */
static int walk_forbidden(const char *folder, bool become)
{
	struct tree_usage usage = {0};
	struct error err = ERROR_INIT;
	int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (become && (setgid(NOBODY) < 0 || setuid(NOBODY) < 0)) {
		return 1;
	}
	make_forbidden(dir);
	if (io_tree_usage(dir, "tree", &usage, &err) != -ERROR_DENIED) {
		return 2;
	}
	/* Counting changes nothing: only removal may give itself permissions. */
	if (fchmodat(dir, "tree", 0755, 0) < 0 || io_tree_usage(dir, "tree", &usage, &err) < 0) {
		return 3;
	}
	/* Five cannot be listed or not be entered; the sixth can, but not the folder in it. */
	if (usage.unread != 6) {
		return 4;
	}
	if (io_remove_tree(dir, "tree", &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		return 5;
	}
	return exists(dir, "tree") ? 6 : 0;
}

static void test_forbidden_folders_of_ones_own(void **state)
{
	int status = 0;
	pid_t pid;

	assert_int_equal(chmod(*state, 0777), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		_exit(walk_forbidden(*state, geteuid() == 0));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int try_mounted(int dir, const char *name)
{
	struct tree_usage usage;
	struct error err = ERROR_INIT;

	if (io_tree_usage(dir, name, &usage, &err) != -ERROR_BUSY) {
		return 1;
	}
	return io_remove_tree(dir, name, &err) == -ERROR_BUSY ? 0 : 2;
}

/* A file system, a folder and a file mounted inside, in a mount namespace of the child's own. */
static int walk_mounted(const char *folder)
{
	CLEANUP(free_p) char *tmpfs = xasprintf("%s/one/a/mnt", folder);
	CLEANUP(free_p) char *bound = xasprintf("%s/two/a/mnt", folder);
	CLEANUP(free_p) char *file = xasprintf("%s/three/file", folder);
	CLEANUP(free_p) char *other = xasprintf("%s/other", folder);
	CLEANUP(free_p) char *kept = xasprintf("%s/other/kept", folder);
	struct error err = ERROR_INIT;
	int dir;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("tmpfs", tmpfs, "tmpfs", 0, NULL) < 0 ||
		mount(other, bound, NULL, MS_BIND, NULL) < 0 ||
		mount(kept, file, NULL, MS_BIND, NULL) < 0) {
		return 100;
	}
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (try_mounted(dir, "one") != 0) {
		return 10 + try_mounted(dir, "one");
	}
	if (try_mounted(dir, "two") != 0) {
		return 20 + try_mounted(dir, "two");
	}
	if (io_remove_tree(dir, "three", &err) != -ERROR_BUSY) {
		return 30;
	}
	if (io_remove_tree(AT_FDCWD, bound, &err) != -ERROR_BUSY) {
		return 40;
	}
	return exists(dir, "other/kept") ? 0 : 50;
}

static void test_nothing_mounted_is_touched(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	struct error err = ERROR_INIT;
	int status = 0;
	pid_t pid;

	if (geteuid() != 0) {
		skip();
	}
	assert_ok(io_mkdir_all(dir, "one/a/mnt", 0755, &err), &err);
	assert_ok(io_mkdir_all(dir, "two/a/mnt", 0755, &err), &err);
	assert_ok(io_mkdir_all(dir, "three", 0755, &err), &err);
	assert_ok(io_mkdir_all(dir, "other", 0755, &err), &err);
	make_file(dir, "three/file");
	make_file(dir, "other/kept");
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		_exit(walk_mounted(*state));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A path of another mount than the working folder's is no reason to refuse. */
static void test_an_absolute_path_on_another_mount(void **state)
{
	struct tree_usage usage = {0};
	struct error err = ERROR_INIT;

	if (*state == NULL) {
		skip();
	}
	assert_int_equal(chdir("/"), 0);
	assert_ok(io_tree_usage(AT_FDCWD, *state, &usage, &err), &err);
	assert_ok(io_remove_tree(AT_FDCWD, *state, &err), &err);
	assert_int_equal(access(*state, F_OK), -1);
}

/* Two removals of one tree at once, as two sweeps may do them. */
static void test_two_removals_at_once(void **state)
{
	CLEANUP(close_p) int dir = open_folder(*state);
	struct error err = ERROR_INIT;
	int status = 0;
	pid_t pid;

	for (int round = 0; round < 5; round++) {
		make_deep(dir, 40, 1);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			_exit(io_remove_tree(dir, "deep", &err) == 0 ? 0 : 1);
		}
		assert_ok(io_remove_tree(dir, "deep", &err), &err);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		assert_false(exists(dir, "deep"));
	}
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, setup_folder, teardown_folder)
#define IN_MEMORY(test) cmocka_unit_test_setup_teardown(test, setup_memory, teardown_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_FOLDER(test_a_very_deep_tree),
		IN_FOLDER(test_a_deep_and_busy_tree),
		IN_MEMORY(test_a_deep_tree_in_memory),
		IN_FOLDER(test_links_are_links),
		IN_FOLDER(test_names_are_bytes),
		IN_FOLDER(test_forbidden_folders_of_ones_own),
		IN_FOLDER(test_nothing_mounted_is_touched),
		IN_MEMORY(test_an_absolute_path_on_another_mount),
		IN_FOLDER(test_two_removals_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
