/* HEAD and refs of a workspace, as files: what is expected of them, and their new values. */
#include "pool/sandbox/init/apply.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)
#define REF_FILE_MAX (16 * 1024 * 1024)

/* A file below .git as text on the heap; NULL when there is none. */
static char *text_read(struct apply *apply, const char *path)
{
	int fd = path_open(apply->git_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, BENEATH);
	struct stat st;
	size_t length = 0;
	char *text;

	if (fd < 0) {
		return NULL;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > REF_FILE_MAX) {
		close(fd);
		return NULL;
	}
	text = apply_alloc(apply, NULL, (size_t)st.st_size + 1, 1);
	while (length < (size_t)st.st_size) {
		ssize_t got = read(fd, text + length, (size_t)st.st_size - length);

		if (got <= 0) {
			break;
		}
		length += (size_t)got;
	}
	close(fd);
	text[length] = '\0';
	return text;
}

/* "<40 hex> <name>" at the start of a line of packed-refs. */
static bool packed_find(const char *packed, const char *name, char hex[APPLY_HEX_SIZE])
{
	size_t length = strlen(name);

	while (packed != NULL && *packed != '\0') {
		const char *end = packed + strcspn(packed, "\n");

		if ((size_t)(end - packed) == APPLY_HEX_SIZE + length &&
			packed[APPLY_HEX_SIZE - 1] == ' ' &&
			memcmp(packed + APPLY_HEX_SIZE, name, length) == 0) {
			memcpy(hex, packed, APPLY_HEX_SIZE - 1);
			hex[APPLY_HEX_SIZE - 1] = '\0';
			return true;
		}
		packed = *end == '\0' ? end : end + 1;
	}
	return false;
}

static bool ref_find(struct apply *apply, const char *name, char hex[APPLY_HEX_SIZE])
{
	char *loose = text_read(apply, name);

	if (loose != NULL && strlen(loose) >= APPLY_HEX_SIZE - 1) {
		memcpy(hex, loose, APPLY_HEX_SIZE - 1);
		hex[APPLY_HEX_SIZE - 1] = '\0';
		return true;
	}
	return packed_find(text_read(apply, "packed-refs"), name, hex);
}

/* HEAD's commit, if it is on the expected branch or, as expected, on none. */
static void head_read(struct apply *apply, char hex[APPLY_HEX_SIZE])
{
	char *text = text_read(apply, "HEAD");
	char *name;

	if (text == NULL) {
		apply_fail(apply, 0, "%s has no .git/HEAD", apply->workspace);
	}
	text[strcspn(text, "\n")] = '\0';
	name = strncmp(text, "ref: ", 5) == 0 ? text + 5 + strspn(text + 5, " ") : NULL;
	if (name == NULL && apply->branch[0] != '\0') {
		apply_fail(apply, 0, "%s is on no branch; it was on %s when it was made",
			apply->workspace, apply->branch);
	}
	if (name != NULL && strcmp(name, apply->branch) != 0) {
		apply_fail(apply, 0, "%s is on %s, not on %s any more", apply->workspace, name,
			apply->branch[0] != '\0' ? apply->branch : "a commit alone");
	}
	if (name == NULL) {
		text_format(hex, APPLY_HEX_SIZE, "%s", text);
	} else if (!ref_find(apply, name, hex)) {
		apply_fail(apply, 0, "%s: %s leads nowhere", apply->workspace, name);
	}
}

void apply_refs_check(struct apply *apply)
{
	static const char *const under_way[] = {"MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD",
		"BISECT_LOG", "rebase-merge", "rebase-apply"};
	char old[APPLY_HEX_SIZE], new[APPLY_HEX_SIZE], head[APPLY_HEX_SIZE];
	struct stat st;

	for (size_t i = 0; i < sizeof(under_way) / sizeof(under_way[0]); i++) {
		if (fstatat(apply->git_fd, under_way[i], &st, AT_SYMLINK_NOFOLLOW) == 0) {
			apply_fail(apply, 0, "%s: git is in the middle of something (.git/%s)",
				apply->workspace, under_way[i]);
		}
	}
	apply_hex(apply->begin.old_id, old);
	apply_hex(apply->begin.new_id, new);
	head_read(apply, head);
	if (strcmp(head, old) != 0 && strcmp(head, new) != 0) {
		apply_fail(apply, 0, "%s has commits of its own: HEAD is %.12s, not %.12s",
			apply->workspace, head, old);
	}
}

/* Opens the folder of a ref below .git, making what is missing. */
static int folder_open(struct apply *apply, const char *path, const char **ret_name)
{
	int fd = path_open(apply->git_fd, ".", O_RDONLY | O_DIRECTORY, BENEATH);
	char name[APPLY_PATH_MAX + 1];
	const char *slash;

	while (fd >= 0 && (slash = strchr(path, '/')) != NULL) {
		size_t length = (size_t)(slash - path);
		int next;

		memcpy(name, path, length);
		name[length] = '\0';
		if (mkdirat(fd, name, 0755) < 0 && errno != EEXIST) {
			apply_fail(apply, errno, "make a folder for a ref: %s", name);
		}
		next = path_open(fd, name, O_RDONLY | O_DIRECTORY, BENEATH);
		close(fd);
		fd = next;
		path = slash + 1;
	}
	if (fd < 0) {
		apply_fail(apply, -fd, "open the folder of a ref: %s", path);
	}
	*ret_name = path;
	return fd;
}

void apply_refs_write(struct apply *apply)
{
	for (size_t i = 0; i < apply->ref_count; i++) {
		const struct apply_ref *ref = &apply->refs[i];
		const char *name;
		char staged[16];
		int fd = folder_open(apply, ref->path, &name);

		apply_staged_name(ref->staged, staged);
		if (renameat(apply->staging_fd, staged, fd, name) < 0) {
			apply_fail(apply, errno, "set %s", ref->path);
		}
		close(fd);
	}
}
