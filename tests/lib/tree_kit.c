/* Walks by names, slowly and plainly: what it sees is what stat, listxattr and read say. */
#include "tests/lib/tree_kit.h"

#include "tests/lib/test.h"

#include "base/digest.h"
#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

/* setx PATH NAME VALUE: there need not be a setfattr. */
#define SETX                                                                                       \
	"setx() { /usr/bin/python3 -c 'import os,sys; a=[os.fsencode(x) for x in sys.argv]; "      \
	"os.setxattr(a[1],a[2],a[3],follow_symlinks=False)' \"$@\"; };"

void tree_kit_shell(int dir_fd, const char *script)
{
	CLEANUP(free_p) char *whole = xasprintf("%s%s", SETX, script);
	int code = -1;
	pid_t child = fork();

	if (child == 0) {
		if (fchdir(dir_fd) == 0) {
			execlp("sh", "sh", "-e", "-c", whole, NULL);
		}
		_exit(127);
	}
	assert_int_equal(waitpid(child, &code, 0), child);
	assert_int_equal(code, 0);
}

struct layer tree_kit_layer(struct store *store, int64_t id_base, const char *script)
{
	CLEANUP(staging_free_p) struct staging *staging = NULL;
	struct layer layer = {
		.kind = "step", .title = "tree kit", .id_base = id_base, .id_count = 65536};
	struct error err = ERROR_INIT;

	assert_ok(staging_new(store, &staging, &err), &err);
	assert_int_equal(mkdirat(staging_fd(staging), "tree", 0755), 0);
	assert_int_equal(
		fchownat(staging_fd(staging), "tree", (uid_t)id_base, (gid_t)id_base, 0), 0);
	CLEANUP(close_p)
	int tree = io_open(staging_fd(staging), "tree", O_RDONLY | O_DIRECTORY, 0, &err);

	tree_kit_shell(tree, script);
	assert_ok(layer_seal(store, staging, &layer, &err), &err);
	return layer;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_xattrs(const char *place, struct buffer *text)
{
	char names[4096], value[4096];
	ssize_t length = llistxattr(place, names, sizeof(names));
	CLEANUP(strv_free_p) char **list = xcalloc(1, sizeof(*list));

	for (ssize_t i = 0; i < length; i += (ssize_t)strlen(names + i) + 1) {
		strv_add(&list, names + i);
	}
	qsort(list, strv_count(list), sizeof(*list), compare_names);
	for (size_t i = 0; list[i] != NULL; i++) {
		ssize_t size = lgetxattr(place, list[i], value, sizeof(value));

		buffer_addf(text, " %s=", list[i]);
		for (ssize_t j = 0; j < size; j++) {
			buffer_addf(text, "%02x", (unsigned char)value[j]);
		}
	}
}

/* Where data is, by SEEK_DATA and SEEK_HOLE, and the digest of it all. */
static void add_content(int dir_fd, const char *name, struct buffer *text)
{
	char digest[SHA256_TEXT_SIZE];
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int fd = io_open(dir_fd, name, O_RDONLY | O_NOFOLLOW, 0, &err);
	off_t at = 0, hole;

	assert_ok(fd, &err);
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		hole = lseek(fd, at, SEEK_HOLE);
		buffer_addf(text, " [%lld-%lld]", (long long)at, (long long)hole);
		at = hole;
	}
	lseek(fd, 0, SEEK_SET);
	assert_ok(digest_of_fd(fd, digest, &err), &err);
	buffer_addf(text, " %.16s", digest);
}

static void describe(
	int dir_fd, const char *name, const char *path, int64_t id_base, struct buffer *text)
{
	CLEANUP(free_p) char *place = xasprintf("/proc/self/fd/%d/%s", dir_fd, name);
	struct error err = ERROR_INIT;
	char target[4096];
	struct stat status;

	if (fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
		assert_int_equal(errno, ENOENT);
		buffer_addf(text, "%s GHOST\n", path);
		return;
	}
	buffer_addf(text, "%s %o %lld:%lld %lld.%09ld", path, status.st_mode,
		(long long)status.st_uid - id_base, (long long)status.st_gid - id_base,
		(long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
	if (S_ISCHR(status.st_mode)) {
		/* Whiteouts may share an inode or not: it means nothing. */
		buffer_addf(text, " dev %u:%u", major(status.st_rdev), minor(status.st_rdev));
	} else if (!S_ISDIR(status.st_mode)) {
		buffer_addf(text, " links %lu size %lld", (unsigned long)status.st_nlink,
			(long long)status.st_size);
	}
	add_xattrs(place, text);
	if (S_ISLNK(status.st_mode)) {
		ssize_t length = readlinkat(dir_fd, name, target, sizeof(target) - 1);

		buffer_addf(text, " -> %.*s", (int)length, target);
	} else if (S_ISREG(status.st_mode)) {
		add_content(dir_fd, name, text);
	}
	buffer_add_str(text, "\n");
	if (!S_ISDIR(status.st_mode)) {
		return;
	}
	CLEANUP(close_p)
	int fd = io_open(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0, &err);
	CLEANUP(closedir_p) DIR *dir = io_opendir(fd, ".", &err);
	CLEANUP(strv_free_p) char **names = xcalloc(1, sizeof(*names));
	struct dirent *entry;

	while ((entry = readdir(dir)) != NULL) {
		if (!streq(entry->d_name, ".") && !streq(entry->d_name, "..")) {
			strv_add(&names, entry->d_name);
		}
	}
	qsort(names, strv_count(names), sizeof(*names), compare_names);
	for (size_t i = 0; names[i] != NULL; i++) {
		CLEANUP(free_p) char *below = xasprintf("%s/%s", path, names[i]);

		describe(fd, names[i], below, id_base, text);
	}
}

void tree_kit_describe(int dir_fd, const char *name, int64_t id_base, struct buffer *text)
{
	describe(dir_fd, name, "", id_base, text);
}
