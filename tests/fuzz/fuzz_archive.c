/*
 * Any bytes as an archive: unpacking must neither crash nor touch anything beside its folder. A
 * canary beside the folder is looked at after every input.
 */
#include "builder/archive.h"

#include "base/io.h"
#include "base/memory.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define UNPACKED_MAX (1024 * 1024)

static void must(bool holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "fuzz_archive: %s\n", what);
		abort();
	}
}

/* Two entries, the canary and the tree, and the canary as it was made. */
static void check_beside(int folder_fd)
{
	struct error err = ERROR_INIT;
	CLEANUP(closedir_p) DIR *dir = io_opendir(folder_fd, ".", &err);
	struct dirent *entry;
	struct stat seen;
	size_t count = 0;

	while ((entry = readdir(dir)) != NULL) {
		count += entry->d_name[0] != '.';
	}
	must(count == 2, "something appeared beside the folder");
	must(fstatat(folder_fd, "canary", &seen, AT_SYMLINK_NOFOLLOW) == 0 &&
			S_ISREG(seen.st_mode) && seen.st_size == 6 &&
			(seen.st_mode & 07777) == 0600 && seen.st_nlink == 1,
		"the canary changed");
}

static int make_canary(int folder_fd)
{
	int fd = openat(folder_fd, "canary", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	must(fd >= 0 && write(fd, "canary", 6) == 6, "cannot make the canary");
	close(fd);
	must(mkdirat(folder_fd, "tree", 0755) == 0, "cannot make the tree");
	return openat(folder_fd, "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char folder[] = "/tmp/hob-fuzz-XXXXXX";
	struct archive_options options = {.bytes_max = UNPACKED_MAX};
	struct archive_counts counts;
	struct error err = ERROR_INIT;
	CLEANUP(close_p) int folder_fd = -1;
	CLEANUP(close_p) int tree_fd = -1;
	CLEANUP(close_p) int archive_fd = memfd_create("archive", MFD_CLOEXEC);

	must(archive_fd >= 0 && write(archive_fd, data, size) == (ssize_t)size, "no memory file");
	lseek(archive_fd, 0, SEEK_SET);
	must(mkdtemp(folder) != NULL, "cannot make a folder");
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	tree_fd = make_canary(folder_fd);
	(void)!archive_unpack(archive_fd, tree_fd, &options, NULL, &counts, &err);
	check_beside(folder_fd);
	must(chdir("/") == 0, "cannot leave");
	must(io_remove_tree(AT_FDCWD, folder, &err) == 0, "cannot clean up");
	return 0;
}
