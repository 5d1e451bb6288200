/*
 * Files and descriptors. Paths travel as (directory fd, relative path); what untrusted code could
 * influence is opened with io_open_beneath, which follows no symbolic link and leaves no folder.
 */
#ifndef HOB_BASE_IO_H
#define HOB_BASE_IO_H

#include "base/buffer.h"
#include "base/error.h"

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* All of `length`, whatever the kernel hands out at a time. read: ERROR_CORRUPT at an early end. */
MUSTCHECK int io_read_full(int fd, void *data, size_t length, struct error *err);
MUSTCHECK int io_write_full(int fd, const void *data, size_t length, struct error *err);

/* Appends a whole file to `buffer`; ERROR_LIMIT past the buffer's cap. Path relative to dir_fd. */
MUSTCHECK int io_read_file(int dir_fd, const char *path, struct buffer *buffer, struct error *err);
/* Temporary file, write, fsync, rename: a reader sees the old text or the new, also after a crash.
 */
MUSTCHECK int io_write_file(int dir_fd, const char *path, const void *data, size_t length,
	mode_t mode, struct error *err);

/* open with O_CLOEXEC; the fd, or a negative kind. */
MUSTCHECK int io_open(int dir_fd, const char *path, int flags, mode_t mode, struct error *err);
/* The same by openat2 with RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS: refuses to leave dir_fd.
 */
MUSTCHECK int io_open_beneath(
	int dir_fd, const char *path, int flags, mode_t mode, struct error *err);

/* Makes every missing folder of `path`. */
MUSTCHECK int io_mkdir_all(int dir_fd, const char *path, mode_t mode, struct error *err);
/*
 * What is made in this folder has nothing to do with its neighbours: ext4 then puts each into a
 * group of its own, where it need not look past all that was deleted lately (without a journal it
 * leaves that alone for minutes, and finding a free inode among it takes longer than all the rest
 * of a mkdir). File systems that know no such hint are left as they are.
 */
void io_spread_below(int dir_fd, const char *path);
MUSTCHECK int io_fsync_dir(int dir_fd, const char *path, struct error *err);

/* A stream over an own copy of dir_fd, rewound; NULL on failure. closedir() it. */
MUSTCHECK DIR *io_opendir(int dir_fd, const char *path, struct error *err);
static inline void closedir_p(DIR **dir)
{
	if (*dir != NULL) {
		closedir(*dir);
	}
}

/* Deletes `name` in dir_fd and everything below it, links as links; never crosses a mount
 * (ERROR_BUSY) and gives folders that forbid it the permission first. A missing name is success. */
MUSTCHECK int io_remove_tree(int dir_fd, const char *name, struct error *err);

struct tree_usage {
	uint64_t files; /* all entries, folders too */
	uint64_t bytes; /* apparent sizes of regular files, hard links once */
	uint64_t stored; /* blocks in use, in bytes */
	uint64_t unread; /* folders that may not be opened: counted, but not what they hold */
};
/* Walks `name` as io_remove_tree does, changing nothing, and adds it up. */
MUSTCHECK int io_tree_usage(
	int dir_fd, const char *name, struct tree_usage *ret_usage, struct error *err);

/* SCM_RIGHTS over a unix socket: one message with its descriptors. Returns bytes, 0 at the end. */
#define IO_FDS_MAX 16
MUSTCHECK ssize_t io_send_fds(
	int fd, const void *data, size_t length, const int *fds, size_t fd_count, int flags);
MUSTCHECK ssize_t io_recv_fds(
	int fd, void *data, size_t length, int *ret_fds, size_t *ret_fd_count, int flags);

int io_set_nonblock(int fd, bool on);

/* A name that hob puts into a path: 1 to 64 of [a-z0-9._-], not starting with '.' or '-'. */
#define NAME_MAX_LENGTH 64
bool name_is_valid(const char *name);

/* prefix + 12 random hex digits, "sb-0123456789ab", into text[ID_SIZE]. */
#define ID_SIZE 24
void id_random(char *text, const char *prefix);

#endif
