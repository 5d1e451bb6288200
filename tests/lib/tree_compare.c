/* Recursion by path: for trees that a test has made, not for what somebody else may change. */
#include "tests/lib/tree_compare.h"

#include "tests/lib/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define CHUNK 65536
#define INODES_MAX 65536

struct pair {
	ino_t first, second;
};

struct walk {
	struct tree_compare *result;
	struct pair *pairs; /* inodes with several names */
	size_t pair_count;
};

static void differ(struct walk *walk, const char *where, const char *what)
{
	if (walk->result->differences++ == 0) {
		(void)snprintf(walk->result->first[0], sizeof(walk->result->first[0]), "%s", what);
		(void)snprintf(walk->result->first[1], sizeof(walk->result->first[1]), "%s", where);
	}
}

static int open_to_read(const char *path)
{
	return open(path, O_RDONLY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
}

static void compare_content(struct walk *walk, const char *first, const char *second)
{
	static char a[CHUNK], b[CHUNK];
	CLEANUP(close_p) int from = open_to_read(first);
	CLEANUP(close_p) int to = open_to_read(second);
	ssize_t got;

	do {
		got = read(from, a, sizeof(a));
		if (got < 0 || read(to, b, sizeof(b)) != got || memcmp(a, b, (size_t)got) != 0) {
			differ(walk, first, "content");
			return;
		}
	} while (got > 0);
}

static bool is_counted(const char *key)
{
	return !str_starts(key, "trusted.overlay.") || streq(key, "trusted.overlay.opaque");
}

/* Every attribute of `first` is on `second`. */
static void compare_xattrs(struct walk *walk, const char *first, const char *second)
{
	static char keys[CHUNK], a[CHUNK], b[CHUNK];
	ssize_t length = llistxattr(first, keys, sizeof(keys));

	for (const char *key = keys; length > 0 && key < keys + length; key += strlen(key) + 1) {
		ssize_t size = lgetxattr(first, key, a, sizeof(a));

		if (is_counted(key) && (size < 0 || lgetxattr(second, key, b, sizeof(b)) != size ||
					       memcmp(a, b, (size_t)size) != 0)) {
			differ(walk, first, key);
		}
	}
}

static void compare_links(
	struct walk *walk, const char *where, const struct stat *a, const struct stat *b)
{
	if (a->st_nlink == 1 || (S_ISCHR(a->st_mode) && a->st_rdev == 0)) {
		return;
	}
	for (size_t i = 0; i < walk->pair_count; i++) {
		if ((walk->pairs[i].first == a->st_ino) != (walk->pairs[i].second == b->st_ino)) {
			differ(walk, where, "hard links");
			return;
		}
		if (walk->pairs[i].first == a->st_ino) {
			return;
		}
	}
	if (walk->pair_count < INODES_MAX) {
		walk->pairs[walk->pair_count++] = (struct pair){a->st_ino, b->st_ino};
	}
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void compare_status(
	struct walk *walk, const char *where, const struct stat *a, const struct stat *b)
{
	if (a->st_mode != b->st_mode) {
		differ(walk, where, "mode");
	}
	if (a->st_uid != b->st_uid || a->st_gid != b->st_gid) {
		differ(walk, where, "owner");
	}
	if (!same_time(a->st_mtim, b->st_mtim)) {
		differ(walk, where, "mtime");
	}
	if (!S_ISDIR(a->st_mode) && a->st_size != b->st_size) {
		differ(walk, where, "size");
	}
	if (a->st_rdev != b->st_rdev) {
		differ(walk, where, "device");
	}
	/* What is a hole by half a megabyte and more stays one. */
	if (S_ISREG(a->st_mode) && b->st_blocks > a->st_blocks + 1024) {
		differ(walk, where, "holes");
	}
	if (!S_ISDIR(a->st_mode)) {
		compare_links(walk, where, a, b);
	}
}

static void compare_one(struct walk *walk, const char *first, const char *second);

static void compare_entries(struct walk *walk, const char *first, const char *second, bool back)
{
	DIR *dir = opendir(first);
	const struct dirent *found;
	struct stat status;

	while (dir != NULL && (found = readdir(dir)) != NULL) {
		CLEANUP(free_p) char *a = xasprintf("%s/%s", first, found->d_name);
		CLEANUP(free_p) char *b = xasprintf("%s/%s", second, found->d_name);

		if (streq(found->d_name, ".") || streq(found->d_name, "..")) {
			continue;
		}
		if (!back) {
			compare_one(walk, a, b);
		} else if (lstat(b, &status) < 0) {
			differ(walk, a, "is not in the other");
		}
	}
	if (dir == NULL) {
		differ(walk, first, "does not open");
		return;
	}
	closedir(dir);
}

static void compare_targets(struct walk *walk, const char *first, const char *second)
{
	char a[4096], b[4096];
	ssize_t length = readlink(first, a, sizeof(a));

	if (length < 0 || readlink(second, b, sizeof(b)) != length ||
		memcmp(a, b, (size_t)length) != 0) {
		differ(walk, first, "target");
	}
}

static void compare_one(struct walk *walk, const char *first, const char *second)
{
	struct stat a, b;

	if (lstat(first, &a) < 0 || S_ISSOCK(a.st_mode)) {
		return;
	}
	walk->result->entries++;
	if (lstat(second, &b) < 0) {
		differ(walk, first, "is missing");
		return;
	}
	compare_status(walk, first, &a, &b);
	if ((a.st_mode & S_IFMT) != (b.st_mode & S_IFMT)) {
		return;
	}
	compare_xattrs(walk, first, second);
	compare_xattrs(walk, second, first);
	if (S_ISREG(a.st_mode)) {
		compare_content(walk, first, second);
	} else if (S_ISLNK(a.st_mode)) {
		compare_targets(walk, first, second);
	} else if (S_ISDIR(a.st_mode)) {
		compare_entries(walk, first, second, false);
		compare_entries(walk, second, first, true);
	}
}

void tree_compare(const char *first, const char *second, struct tree_compare *ret_result)
{
	struct walk walk = {.result = ret_result};

	*ret_result = (struct tree_compare){.entries = 0};
	walk.pairs = xcalloc(INODES_MAX, sizeof(*walk.pairs));
	compare_one(&walk, first, second);
	free(walk.pairs);
}

size_t assert_same_trees(const char *first, const char *second)
{
	struct tree_compare result;

	tree_compare(first, second, &result);
	if (result.differences > 0) {
		fail_msg("%zu differences; the first: %s of %s", result.differences,
			result.first[0], result.first[1]);
	}
	return result.entries;
}
