/* Unpacking: what a distribution's archive holds comes out right, and whatever an entry tries, it
 * stays inside the folder. Beside the folder stands a canary that must not change. */
#include "tests/lib/test.h"

#include "builder/archive.h"

#include "base/io.h"

#include <archive.h>
#include <archive_entry.h>

#include <dirent.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

struct bench {
	char *folder; /* holds archive.tar, tree/, canary/secret */
	char *archive;
	int tree_fd;
	struct archive *writer;
	struct archive_options options;
	struct archive_counts counts;
	struct error err;
};

static int setup(void **state)
{
	struct bench *bench = xcalloc(1, sizeof(*bench));
	CLEANUP(free_p) char *tree = NULL, *canary = NULL;

	bench->folder = temp_folder();
	bench->archive = xasprintf("%s/archive.tar", bench->folder);
	tree = xasprintf("%s/tree", bench->folder);
	canary = xasprintf("%s/canary", bench->folder);
	assert_int_equal(mkdir(tree, 0755), 0);
	assert_int_equal(mkdir(canary, 0755), 0);
	temp_write(bench->folder, "canary/secret", "secret\n");
	bench->tree_fd = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bench->writer = archive_write_new();
	archive_write_set_format_pax(bench->writer);
	archive_write_add_filter_gzip(bench->writer);
	assert_int_equal(archive_write_open_filename(bench->writer, bench->archive), ARCHIVE_OK);
	*state = bench;
	return 0;
}

static void assert_canary(const struct bench *bench)
{
	CLEANUP(free_p) char *path = xasprintf("%s/canary", bench->folder);
	CLEANUP(free_p) char *text = temp_read(bench->folder, "canary/secret");
	struct error err = ERROR_INIT;
	struct tree_usage usage;
	struct stat seen;

	assert_string_equal(text, "secret\n");
	assert_int_equal(stat(path, &seen), 0);
	assert_int_equal(seen.st_mode & 07777, 0755);
	assert_ok(io_tree_usage(AT_FDCWD, path, &usage, &err), &err);
	assert_int_equal(usage.files, 2);
	assert_ok(io_tree_usage(AT_FDCWD, bench->folder, &usage, &err), &err);
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	assert_int_equal(chdir("/"), 0);
	assert_canary(bench);
	archive_write_free(bench->writer);
	close(bench->tree_fd);
	temp_remove(bench->folder);
	free(bench->archive);
	free(bench);
	return 0;
}

static struct archive_entry *entry_new(const char *name, mode_t type, mode_t mode)
{
	struct archive_entry *entry = archive_entry_new();

	archive_entry_set_pathname(entry, name);
	archive_entry_set_filetype(entry, type);
	archive_entry_set_perm(entry, mode);
	archive_entry_set_mtime(entry, 1000000000, 0);
	archive_entry_set_uid(entry, 0);
	archive_entry_set_gid(entry, 0);
	return entry;
}

static void add_entry(struct bench *bench, struct archive_entry *entry, const char *content)
{
	size_t length = content != NULL ? strlen(content) : 0;

	if (content != NULL) {
		archive_entry_set_size(entry, (int64_t)length);
	}
	if (archive_write_header(bench->writer, entry) != ARCHIVE_OK) {
		fail_msg("header: %s", archive_error_string(bench->writer));
	}
	if (length > 0) {
		assert_int_equal(archive_write_data(bench->writer, content, length), length);
	}
	archive_entry_free(entry);
}

static void add_file(struct bench *bench, const char *name, mode_t mode, const char *content)
{
	add_entry(bench, entry_new(name, AE_IFREG, mode), content);
}

static void add_dir(struct bench *bench, const char *name, mode_t mode)
{
	add_entry(bench, entry_new(name, AE_IFDIR, mode), NULL);
}

static void add_symlink(struct bench *bench, const char *name, const char *target)
{
	struct archive_entry *entry = entry_new(name, AE_IFLNK, 0777);

	archive_entry_set_symlink(entry, target);
	add_entry(bench, entry, NULL);
}

static void add_hardlink(struct bench *bench, const char *name, const char *target)
{
	struct archive_entry *entry = entry_new(name, AE_IFREG, 0644);

	archive_entry_set_hardlink(entry, target);
	add_entry(bench, entry, NULL);
}

static int unpack(struct bench *bench)
{
	CLEANUP(close_p) int fd = -1;

	archive_write_close(bench->writer);
	fd = open(bench->archive, O_RDONLY | O_CLOEXEC);
	return archive_unpack(
		fd, bench->tree_fd, &bench->options, NULL, &bench->counts, &bench->err);
}

static void unpack_fails(struct bench *bench, enum error_kind kind, const char *part)
{
	assert_kind(unpack(bench), &bench->err, kind);
	assert_contains(bench->err.message, part);
}

static struct stat stat_of(const struct bench *bench, const char *name)
{
	struct stat seen;

	if (fstatat(bench->tree_fd, name, &seen, AT_SYMLINK_NOFOLLOW) < 0) {
		fail_msg("%s: %s", name, strerror(errno));
	}
	return seen;
}

static void test_everything_comes_out(void **state)
{
	struct bench *bench = *state;
	struct archive_entry *entry;
	char value[16] = "", target[32] = "";
	int fd;

	add_dir(bench, "./", 0700);
	add_dir(bench, "./usr/", 0755);
	add_dir(bench, "./usr/locked", 0500);
	add_file(bench, "./usr/locked/tool", 04755, "tool");
	add_hardlink(bench, "./usr/tool2", "./usr/locked/tool");
	add_symlink(bench, "./bin", "usr/bin");
	add_file(bench, "./grüße/naïve.txt", 0600, "x");
	add_file(bench, "./var/.wh.gone", 0644, "");
	add_entry(bench, entry_new("./fifo", AE_IFIFO, 0640), NULL);
	entry = entry_new("./attr", AE_IFREG, 0644);
	archive_entry_xattr_add_entry(entry, "user.colour", "blue", 4);
	archive_entry_xattr_add_entry(entry, "trusted.overlay.opaque", "y", 1);
	archive_entry_xattr_add_entry(entry, "user.overlay.opaque", "y", 1);
	add_entry(bench, entry, "");
	assert_ok(unpack(bench), &bench->err);
	assert_int_equal(stat_of(bench, "usr/locked").st_mode, S_IFDIR | 0500);
	assert_int_equal(stat_of(bench, "usr/locked/tool").st_mode & 0777, 0755);
	assert_int_equal(stat_of(bench, "usr/locked/tool").st_nlink, 2);
	assert_int_equal(stat_of(bench, "usr/locked/tool").st_mtime, 1000000000);
	assert_int_equal(
		stat_of(bench, "usr/tool2").st_ino, stat_of(bench, "usr/locked/tool").st_ino);
	assert_int_equal(stat_of(bench, "grüße/naïve.txt").st_mode, S_IFREG | 0600);
	assert_int_equal(stat_of(bench, "var/.wh.gone").st_size, 0);
	assert_int_equal(stat_of(bench, "fifo").st_mode, S_IFIFO | 0640);
	assert_int_equal(stat_of(bench, ".").st_mode, S_IFDIR | 0755);
	assert_int_equal(readlinkat(bench->tree_fd, "bin", target, sizeof(target) - 1), 7);
	fd = openat(bench->tree_fd, "attr", O_RDONLY | O_CLOEXEC);
	assert_int_equal(fgetxattr(fd, "user.colour", value, sizeof(value)), 4);
	assert_int_equal(fgetxattr(fd, "trusted.overlay.opaque", value, sizeof(value)), -1);
	assert_int_equal(fgetxattr(fd, "user.overlay.opaque", value, sizeof(value)), -1);
	close(fd);
}

static void test_dotdot(void **state)
{
	add_file(*state, "../canary/evil", 0644, "evil");
	unpack_fails(*state, ERROR_INVALID, "../canary/evil");
}

static void test_dotdot_inside(void **state)
{
	add_dir(*state, "a", 0755);
	add_file(*state, "a/../../canary/evil", 0644, "evil");
	unpack_fails(*state, ERROR_INVALID, "\"..\"");
}

static void test_absolute(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *name = xasprintf("%s/canary/evil", bench->folder);

	add_file(bench, name, 0644, "evil");
	unpack_fails(bench, ERROR_INVALID, "absolute");
}

static void test_through_link(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *canary = xasprintf("%s/canary", bench->folder);

	add_symlink(bench, "way", canary);
	add_file(bench, "way/evil", 0644, "evil");
	unpack_fails(bench, ERROR_INVALID, "symbolic link");
}

static void test_through_relative_link(void **state)
{
	add_symlink(*state, "way", "../canary");
	add_file(*state, "way/deeper/evil", 0644, "evil");
	unpack_fails(*state, ERROR_INVALID, "symbolic link");
}

static void test_through_link_inside(void **state)
{
	add_dir(*state, "real", 0755);
	add_symlink(*state, "way", "real");
	add_file(*state, "way/file", 0644, "x");
	unpack_fails(*state, ERROR_INVALID, "symbolic link");
}

/* The folder entry must not give its mode to what the link leads to. */
static void test_folder_over_link(void **state)
{
	struct bench *bench = *state;

	add_symlink(bench, "way", "../canary");
	add_dir(bench, "way", 0777);
	add_file(bench, "way/file", 0644, "x");
	assert_ok(unpack(bench), &bench->err);
	assert_int_equal(stat_of(bench, "way").st_mode, S_IFDIR | 0777);
}

static void test_file_over_link(void **state)
{
	struct bench *bench = *state;

	add_symlink(bench, "way", "../canary/secret");
	add_file(bench, "way", 0644, "overwritten");
	assert_ok(unpack(bench), &bench->err);
	assert_int_equal(stat_of(bench, "way").st_mode, S_IFREG | 0644);
}

static void test_hardlink_outside(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *secret = xasprintf("%s/canary/secret", bench->folder);

	add_hardlink(bench, "mine", secret);
	unpack_fails(bench, ERROR_INVALID, "mine");
}

static void test_hardlink_dotdot(void **state)
{
	add_hardlink(*state, "mine", "../canary/secret");
	unpack_fails(*state, ERROR_INVALID, "mine");
}

static void test_hardlink_through_link(void **state)
{
	add_symlink(*state, "way", "../canary");
	add_hardlink(*state, "mine", "way/secret");
	unpack_fails(*state, ERROR_INVALID, "mine");
}

/* A hard link to a symbolic link is that link; writing its data must not follow it. */
static void test_hardlink_to_link(void **state)
{
	struct bench *bench = *state;

	add_symlink(bench, "way", "../canary/secret");
	add_hardlink(bench, "mine", "way");
	add_file(bench, "mine", 0666, "overwritten");
	if (unpack(bench) < 0) {
		assert_int_equal(bench->err.kind, ERROR_INVALID);
	}
}

static void test_hardlink_to_nothing(void **state)
{
	add_hardlink(*state, "mine", "later");
	add_file(*state, "later", 0644, "x");
	unpack_fails(*state, ERROR_INVALID, "mine");
}

static void test_devices_are_left_out(void **state)
{
	struct bench *bench = *state;
	struct archive_entry *entry = entry_new("dev/sda", AE_IFBLK, 0666);

	archive_entry_set_rdev(entry, makedev(8, 0));
	add_entry(bench, entry, NULL);
	add_entry(bench, entry_new("dev/null", AE_IFCHR, 0666), NULL);
	add_file(bench, "file", 0644, "x");
	assert_ok(unpack(bench), &bench->err);
	assert_int_equal(bench->counts.devices, 2);
	assert_int_equal(faccessat(bench->tree_fd, "dev", F_OK, 0), -1);
	assert_int_equal(stat_of(bench, "file").st_size, 1);
}

static void test_size_cap(void **state)
{
	struct bench *bench = *state;

	bench->options.bytes_max = 10;
	add_file(bench, "a", 0644, "12345");
	add_file(bench, "b", 0644, "1234567890");
	unpack_fails(bench, ERROR_LIMIT, "more than 10 bytes");
}

static void test_foreign_owners(void **state)
{
	struct bench *bench = *state;
	struct archive_entry *entry = entry_new("far", AE_IFREG, 0644);

	if (geteuid() != 0) {
		skip();
	}
	bench->options.owners = true;
	bench->options.ids = 65536;
	archive_entry_set_uid(entry, 1000000);
	add_entry(bench, entry, "");
	entry = entry_new("near", AE_IFREG, 04644);
	archive_entry_set_uid(entry, 1000);
	archive_entry_set_gid(entry, 50);
	add_entry(bench, entry, "");
	assert_ok(unpack(bench), &bench->err);
	assert_int_equal(stat_of(bench, "far").st_uid, ARCHIVE_NOBODY);
	assert_int_equal(stat_of(bench, "near").st_uid, 1000);
	assert_int_equal(stat_of(bench, "near").st_gid, 50);
	assert_int_equal(stat_of(bench, "near").st_mode & 07777, 04644);
	assert_int_equal(bench->counts.foreign, 1);
}

static void test_cut(void **state)
{
	struct bench *bench = *state;
	CLEANUP(free_p) char *content = xmalloc(100001);
	struct stat seen;

	for (size_t i = 0; i < 100000; i++) {
		content[i] = (char)('a' + (i * i >> 7) % 26);
	}
	content[100000] = '\0';
	add_file(bench, "file", 0644, content);
	archive_write_close(bench->writer);
	assert_int_equal(stat(bench->archive, &seen), 0);
	assert_int_equal(truncate(bench->archive, seen.st_size / 2), 0);
	unpack_fails(bench, ERROR_CORRUPT, "truncated");
}

static void test_no_archive(void **state)
{
	struct bench *bench = *state;

	archive_write_close(bench->writer);
	temp_write(bench->folder, "archive.tar", "this is a web page, not an archive\n");
	unpack_fails(bench, ERROR_CORRUPT, "archive");
	temp_write(bench->folder, "archive.tar", "");
	assert_true(unpack(bench) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		CASE(test_everything_comes_out),
		CASE(test_dotdot),
		CASE(test_dotdot_inside),
		CASE(test_absolute),
		CASE(test_through_link),
		CASE(test_through_relative_link),
		CASE(test_through_link_inside),
		CASE(test_folder_over_link),
		CASE(test_file_over_link),
		CASE(test_hardlink_outside),
		CASE(test_hardlink_dotdot),
		CASE(test_hardlink_through_link),
		CASE(test_hardlink_to_link),
		CASE(test_hardlink_to_nothing),
		CASE(test_devices_are_left_out),
		CASE(test_size_cap),
		CASE(test_foreign_owners),
		CASE(test_cut),
		CASE(test_no_archive),
	};

	setlocale(LC_CTYPE, "C.UTF-8");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
