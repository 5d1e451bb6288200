/* Live copies: everything a tree may hold, on ext4 and on XFS with shared blocks; what changes
 * just before the sandbox stands still; links to the copy before. */
#include "tests/lib/live_kit.h"
#include "tests/lib/test.h"
#include "tests/lib/tree_compare.h"

#include "base/io.h"
#include "pool/sandbox/live/live_copy_private.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#define ROOT_NEEDED(kit)                                                                           \
	do {                                                                                       \
		if ((kit) == NULL) {                                                               \
			skip();                                                                    \
		}                                                                                  \
	} while (0)

/* user::rw- user:1000:r-x group::r-- mask::r-x other::--- */
static const unsigned char acl[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 5, 0, 0xe8, 3,
	0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255,
	255, 255, 255};

static void in_upper(const struct live_kit *kit)
{
	CLEANUP(free_p) char *upper = live_kit_path(kit, "upper");

	assert_int_equal(chdir(upper), 0);
}

static void file_put(const char *path, const char *text, mode_t mode)
{
	CLEANUP(close_p) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
}

static void socket_make(const char *path)
{
	CLEANUP(close_p) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

/* 64 MiB that hold two blocks of data. */
static void sparse_make(const char *path)
{
	CLEANUP(close_p) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	assert_int_equal(ftruncate(fd, (off_t)1 << 26), 0);
	assert_int_equal(pwrite(fd, "middle", 6, (off_t)1 << 25), 6);
	assert_int_equal(pwrite(fd, "near the end", 12, ((off_t)1 << 26) - 100000), 12);
}

static void attributes_make(void)
{
	static const struct timespec old[] = {{1000000000, 123456789}, {1000000001, 987654321}};
	char huge[3000];

	memset(huge, 'x', sizeof(huge));
	file_put("owned", "text", 06751);
	assert_int_equal(chown("owned", 100001, 100002), 0);
	assert_int_equal(chmod("owned", 06751), 0);
	assert_int_equal(setxattr("owned", "user.small", "v", 1, 0), 0);
	assert_int_equal(setxattr("owned", "user.huge", huge, sizeof(huge), 0), 0);
	assert_int_equal(setxattr("owned", "user.empty", "", 0, 0), 0);
	assert_int_equal(setxattr("owned", "trusted.overlay.origin", "o", 1, 0), 0);
	assert_int_equal(setxattr("owned", "system.posix_acl_access", acl, sizeof(acl), 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, "owned", old, 0), 0);
	assert_int_equal(mkdir("acl", 0755), 0);
	assert_int_equal(setxattr("acl", "system.posix_acl_default", acl, sizeof(acl), 0), 0);
	file_put("acl/inherits", "text", 0640);
	file_put("acl/not", "text", 0640);
	assert_int_equal(removexattr("acl/not", "system.posix_acl_access"), 0);
	assert_int_equal(mkdir("opaque", 01777), 0);
	assert_int_equal(setxattr("opaque", "trusted.overlay.opaque", "y", 1, 0), 0);
	assert_int_equal(setxattr("opaque", "trusted.overlay.impure", "y", 1, 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, "opaque", old, 0), 0);
	assert_int_equal(symlink("/nowhere/\xff\xfe", "link"), 0);
	assert_int_equal(lchown("link", 100003, 100004), 0);
	assert_int_equal(utimensat(AT_FDCWD, "link", old, AT_SYMLINK_NOFOLLOW), 0);
}

static void tree_make(void)
{
	char longest[256];

	memset(longest, 'n', 255);
	longest[255] = '\0';
	attributes_make();
	file_put("empty", "", 0);
	file_put(longest, "text", 0444);
	file_put("\xff not UTF-8 \x80\n", "text", 0644);
	sparse_make("sparse");
	assert_int_equal(mkfifo("fifo", 0620), 0);
	assert_int_equal(mknod("whiteout", S_IFCHR, 0), 0);
	assert_int_equal(link("whiteout", "whiteout-2"), 0);
	assert_int_equal(mknod("null", S_IFCHR | 0666, makedev(1, 3)), 0);
	assert_int_equal(mknod("block", S_IFBLK | 0600, makedev(7, 200)), 0);
	socket_make("socket");
	assert_int_equal(mkdir("a", 0700), 0);
	assert_int_equal(mkdir("a/b", 0111), 0);
	file_put("a/b/one", "linked", 0600);
	assert_int_equal(link("a/b/one", "two"), 0);
	assert_int_equal(link("a/b/one", "a/three"), 0);
	assert_int_equal(link("link", "a/link"), 0);
	assert_int_equal(link("fifo", "a/fifo"), 0);
}

static void copied_same(struct live_kit *kit)
{
	CLEANUP(free_p) char *upper = live_kit_path(kit, "upper");
	CLEANUP(free_p) char *tree = live_kit_path(kit, "tree");
	CLEANUP(free_p) char *scratch = live_kit_path(kit, "scratch");

	assert_ok(live_kit_copy(kit), &kit->err);
	assert_int_equal(kit->thaws, 1);
	assert_int_equal(rmdir(scratch), 0);
	assert_int_equal(mkdir(scratch, 0755), 0);
	assert_int_equal(assert_same_trees(upper, tree), kit->report.files);
}

static void assert_no_mark(const char *path, const char *key)
{
	char value[8];

	assert_int_equal(lgetxattr(path, key, value, sizeof(value)), -1);
	assert_int_equal(errno, ENODATA);
}

static void test_everything_is_kept(void **state)
{
	struct live_kit *kit = *state;
	CLEANUP(free_p) char *tree = NULL;

	ROOT_NEEDED(kit);
	in_upper(kit);
	tree_make();
	copied_same(kit);
	assert_int_equal(kit->report.skipped, 1);
	assert_int_equal(kit->report.linked, 0);
	assert_true(kit->report.copied + kit->report.cloned >= 8);
	assert_true(!kit->xfs || kit->report.cloned > 0);
	tree = live_kit_path(kit, "tree");
	assert_int_equal(chdir(tree), 0);
	assert_no_mark("owned", "trusted.overlay.origin");
	assert_no_mark("opaque", "trusted.overlay.impure");
}

/* After the first pass, when the sandbox is about to stand still. */
static void storm(struct live_kit *kit)
{
	static const struct timespec old[] = {{1000000000, 0}, {1000000000, 0}};

	in_upper(kit);
	/* The same size and mtime as before. */
	file_put("two", "LINKED", 0600);
	assert_int_equal(utimensat(AT_FDCWD, "two", old, 0), 0);
	assert_int_equal(rename("a/b", "moved"), 0);
	assert_int_equal(mkdir("a/b", 0755), 0);
	file_put("a/b/new", "new", 0600);
	assert_int_equal(link("two", "a/b/four"), 0);
	assert_int_equal(unlink("whiteout"), 0);
	assert_int_equal(mkdir("whiteout", 0755), 0);
	file_put("whiteout/inside", "text", 0600);
	assert_int_equal(unlink("acl/inherits"), 0);
	assert_int_equal(unlink("acl/not"), 0);
	assert_int_equal(rmdir("acl"), 0);
	file_put("acl", "a file by now", 0600);
	assert_int_equal(unlink("empty"), 0);
	assert_int_equal(symlink("/etc/passwd", "empty"), 0);
	assert_int_equal(removexattr("owned", "user.small"), 0);
	assert_int_equal(removexattr("opaque", "trusted.overlay.opaque"), 0);
	assert_int_equal(chmod("opaque", 0700), 0);
	assert_int_equal(truncate("sparse", 100000), 0);
	assert_int_equal(renameat2(AT_FDCWD, "fifo", AT_FDCWD, "null", RENAME_EXCHANGE), 0);
}

static void test_what_changes_at_the_last_moment_is_in_it(void **state)
{
	struct live_kit *kit = *state;

	ROOT_NEEDED(kit);
	in_upper(kit);
	tree_make();
	kit->before_freeze = storm;
	copied_same(kit);
	assert_int_equal(kit->report.passes, 2);
}

#define MANY_FOLDERS 12
#define MANY_FILES 100

static char *many_path(int folder, int file)
{
	return file < 0 ? xasprintf("many/%d", folder) : xasprintf("many/%d/%d", folder, file);
}

static void many_make(void)
{
	assert_int_equal(mkdir("many", 0755), 0);
	for (int i = 0; i < MANY_FOLDERS; i++) {
		CLEANUP(free_p) char *folder = many_path(i, -1);

		assert_int_equal(mkdir(folder, 0755), 0);
		for (int j = 0; j < MANY_FILES; j++) {
			CLEANUP(free_p) char *path = many_path(i, j);

			file_put(path, path, 0644);
		}
	}
	socket_make("many/3/socket");
}

/* In the folders that nothing but this has touched for long. */
static void storm_among_many(struct live_kit *kit)
{
	struct stat status;

	storm(kit);
	/* Only its content, and in a way that shows in nothing but its ctime. */
	assert_int_equal(stat("many/1/50", &status), 0);
	file_put("many/1/50", "MANY/1/50", 0644);
	assert_int_equal(utimensat(AT_FDCWD, "many/1/50",
				 (struct timespec[]){status.st_atim, status.st_mtim}, 0),
		0);
	assert_int_equal(unlink("many/2/7"), 0);
	file_put("many/3/7", "beside a socket", 0644);
	assert_int_equal(renameat2(AT_FDCWD, "many/4", AT_FDCWD, "many/5", RENAME_EXCHANGE), 0);
	assert_int_equal(renameat2(AT_FDCWD, "many/6/1", AT_FDCWD, "many/6/2", RENAME_EXCHANGE), 0);
	assert_int_equal(chmod("many/7", 0700), 0);
	assert_int_equal(mkdir("many/8/new", 0755), 0);
	file_put("many/8/new/file", "new", 0644);
	assert_int_equal(rename("many/9", "many/8/moved"), 0);
	assert_int_equal(link("many/10/1", "many/11/linked"), 0);
}

/* Old enough that the frozen look relies on times, and enough for several threads. */
static void test_what_changes_among_many_old_files_is_in_it(void **state)
{
	struct live_kit *kit = *state;

	ROOT_NEEDED(kit);
	in_upper(kit);
	tree_make();
	many_make();
	usleep(2100000);
	kit->before_freeze = storm_among_many;
	copied_same(kit);
	assert_int_equal(kit->report.skipped, 2);
}

/* Deeper than it may hold descriptors, and paths longer than PATH_MAX. */
static void test_a_deep_tree(void **state)
{
	struct live_kit *kit = *state;
	struct rlimit before, few = {256, 256};
	CLEANUP(free_p) char *tree = NULL;
	struct tree_usage first = {0}, second = {0};
	int at;

	ROOT_NEEDED(kit);
	in_upper(kit);
	at = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 3000; i++) {
		int next, file = openat(at, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

		assert_int_equal(write(file, &i, sizeof(i)), sizeof(i));
		close(file);
		assert_int_equal(mkdirat(at, "d", 0755), 0);
		next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(at);
		at = next;
	}
	close(at);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few.rlim_max = before.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	assert_ok(live_kit_copy(kit), &kit->err);
	assert_int_equal(kit->report.files, 6001);
	tree = live_kit_path(kit, "tree");
	assert_ok(io_tree_usage(AT_FDCWD, ".", &first, &kit->err), &kit->err);
	assert_ok(io_tree_usage(AT_FDCWD, tree, &second, &kit->err), &kit->err);
	assert_int_equal(first.files, second.files);
	assert_int_equal(first.bytes, second.bytes);
	live_kit_keep(kit);
	usleep(2100000);
	assert_ok(live_kit_copy(kit), &kit->err);
	live_kit_keep(kit);
	assert_ok(live_kit_copy(kit), &kit->err);
	assert_int_equal(kit->report.linked, 3000);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* The second copy of what nobody has touched for a while shares all of it with the first. */
static void test_unchanged_files_are_shared_with_the_copy_before(void **state)
{
	struct live_kit *kit = *state;
	CLEANUP(free_p) char *previous = NULL;
	CLEANUP(free_p) char *list = NULL;
	uint64_t regular;

	ROOT_NEEDED(kit);
	in_upper(kit);
	tree_make();
	usleep(2100000);
	copied_same(kit);
	regular = kit->report.copied + kit->report.cloned;
	live_kit_keep(kit);
	file_put("owned", "TEXT", 0644);
	copied_same(kit);
	assert_int_equal(kit->report.linked, kit->xfs ? 0 : regular - 1);
	assert_int_equal(kit->report.copied, kit->xfs ? kit->report.copied : 1);
	/* What the sandbox writes now changes neither copy. */
	live_kit_keep(kit);
	file_put("two", "changed", 0600);
	previous = live_kit_path(kit, "previous");
	{
		CLEANUP(free_p) char *text = temp_read(previous, "two");

		assert_string_equal(text, "linked");
	}
	copied_same(kit);
	/* A damaged list is none. */
	live_kit_keep(kit);
	list = live_kit_path(kit, "previous-list");
	assert_int_equal(truncate(list, 100), 0);
	copied_same(kit);
	assert_int_equal(kit->report.linked, 0);
}

static bool is_found(const char *upper, const char *name)
{
	CLEANUP(free_p) char *path = xasprintf("%s/%s", upper, name);
	struct live_mapped mapped = {.files = NULL};
	struct error err = ERROR_INIT;
	pid_t self = getpid();
	struct stat status;
	bool found;

	assert_ok(live_mapped_read(&mapped, &self, 1, &err), &err);
	assert_int_equal(lstat(path, &status), 0);
	found = live_mapped_has(&mapped, &status);
	free(mapped.files);
	return found;
}

/* Sizes differ, as what has the same size and times counts as the same file. */
static void *map(const char *name, size_t size, int protection, int flags)
{
	int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	void *mapped;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	mapped = mmap(NULL, size, protection, flags, fd, 0);
	assert_ptr_not_equal(mapped, MAP_FAILED);
	close(fd);
	return mapped;
}

/* Through an overlay the file has the inode number of the lower one that it was copied from. */
static void test_mapped_files_are_found(void **state)
{
	struct live_kit *kit = *state;
	CLEANUP(free_p) char *merged = NULL;
	CLEANUP(free_p) char *lower = NULL;
	CLEANUP(free_p) char *upper = NULL;
	char *shared, *renamed, *private, *read_only;

	ROOT_NEEDED(kit);
	lower = live_kit_path(kit, "lower");
	upper = live_kit_path(kit, "upper");
	merged = live_kit_path(kit, "merged");
	temp_write(lower, "shared", "from the lower layer");
	live_kit_mount(kit);
	assert_int_equal(chdir(merged), 0);
	shared = map("shared", 10000, PROT_READ | PROT_WRITE, MAP_SHARED);
	renamed = map("renamed", 10001, PROT_READ | PROT_WRITE, MAP_SHARED);
	assert_int_equal(rename("renamed", "by another name"), 0);
	private = map("private", 10002, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	read_only = map("read", 10003, PROT_READ, MAP_SHARED);
	shared[0] = renamed[0] = 'x';
	assert_true(is_found(upper, "shared"));
	assert_true(is_found(upper, "by another name"));
	assert_false(is_found(upper, "private"));
	assert_false(is_found(upper, "read"));
	assert_int_equal(munmap(shared, 10000), 0);
	assert_false(is_found(upper, "shared"));
	assert_int_equal(munmap(renamed, 10001), 0);
	assert_int_equal(munmap(private, 10002), 0);
	assert_int_equal(munmap(read_only, 10003), 0);
}

#define ON_BOTH(test)                                                                              \
	cmocka_unit_test_setup_teardown(test, live_kit_setup_ext4, live_kit_teardown),             \
	{                                                                                          \
#test "_on_xfs", test, live_kit_setup_xfs, live_kit_teardown, NULL                 \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_BOTH(test_everything_is_kept),
		ON_BOTH(test_what_changes_at_the_last_moment_is_in_it),
		ON_BOTH(test_what_changes_among_many_old_files_is_in_it),
		ON_BOTH(test_unchanged_files_are_shared_with_the_copy_before),
		ON_BOTH(test_mapped_files_are_found),
		cmocka_unit_test_setup_teardown(
			test_a_deep_tree, live_kit_setup_ext4, live_kit_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
