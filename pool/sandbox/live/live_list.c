/*
 * The list that one live copy leaves to the next: which inode, unchanged since when, the file at
 * each path was copied from. A file with the same inode and ctime has the same content and
 * attributes, if its ctime was not young when it was copied; only such files are in the list.
 */
#include "pool/sandbox/live/live_copy_private.h"

#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <xxhash.h>

#define LIST_MAGIC 0x31747369766c6268ULL

struct list_head {
	uint64_t magic, count, digest; /* XXH3 of the lines */
	uint64_t inode; /* of the copy's own folder, with the time of its birth: whatever it is */
	int64_t born_ns; /* called by now, it is that one */
};

static bool head_identify(struct list_head *head, int tree_fd)
{
	struct statx status;

	if (statx(tree_fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &status) < 0 ||
		(status.stx_mask & STATX_BTIME) == 0) {
		return false;
	}
	head->inode = status.stx_ino;
	head->born_ns = (int64_t)status.stx_btime.tv_sec * 1000000000 + status.stx_btime.tv_nsec;
	return true;
}

static bool head_is_good(const struct list_head *head, uint64_t bytes, int tree_fd)
{
	struct list_head tree;

	return head->magic == LIST_MAGIC && head_identify(&tree, tree_fd) &&
	       head->inode == tree.inode && head->born_ns == tree.born_ns &&
	       head->count == (bytes - sizeof(*head)) / sizeof(struct live_line) &&
	       head->digest == XXH3_64bits(head + 1, head->count * sizeof(struct live_line));
}

uint64_t live_path_hash(uint64_t folder, const char *name)
{
	return XXH3_64bits_withSeed(name, strlen(name), folder);
}

static int by_path(const void *a, const void *b)
{
	const struct live_line *left = a, *right = b;

	return left->path < right->path ? -1 : left->path > right->path;
}

void live_list_read(int fd, int tree_fd, struct live_list *ret_list)
{
	const struct list_head *head;
	struct stat status;
	void *mapped;

	*ret_list = (struct live_list){.lines = NULL};
	if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
		status.st_size < (off_t)sizeof(*head) ||
		(uint64_t)status.st_size >
			sizeof(*head) + (uint64_t)LIVE_ENTRIES_MAX * sizeof(struct live_line)) {
		return;
	}
	mapped = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (mapped == MAP_FAILED) {
		return;
	}
	head = mapped;
	if (!head_is_good(head, (uint64_t)status.st_size, tree_fd)) {
		munmap(mapped, (size_t)status.st_size);
		return;
	}
	ret_list->mapped = mapped;
	ret_list->mapped_bytes = (size_t)status.st_size;
	ret_list->lines = (struct live_line *)(void *)((char *)mapped + sizeof(*head));
	ret_list->count = head->count;
}

bool live_list_has(const struct live_list *list, const struct live_line *line)
{
	const struct live_line *found =
		list->count > 0 ? bsearch(line, list->lines, list->count, sizeof(*line), by_path)
				: NULL;

	return found != NULL && found->inode == line->inode && found->ctime_ns == line->ctime_ns;
}

int live_list_write(struct live_list *list, int fd, int tree_fd, struct error *err)
{
	struct list_head head = {.magic = LIST_MAGIC, .count = list->count};
	size_t bytes = list->count * sizeof(*list->lines);

	if (list->count > 0) {
		qsort(list->lines, list->count, sizeof(*list->lines), by_path);
	}
	head.digest = XXH3_64bits(list->lines, bytes);
	if (!head_identify(&head, tree_fd)) {
		return 0; /* without a list, the next copy shares nothing */
	}
	if (io_write_full(fd, &head, sizeof(head), err) < 0 ||
		io_write_full(fd, list->lines, bytes, err) < 0) {
		return error_wrap(err, "write the list of copied files");
	}
	return 0;
}

void live_list_done(struct live_list *list)
{
	if (list->mapped != NULL) {
		munmap(list->mapped, list->mapped_bytes);
	} else {
		free(list->lines);
	}
}
