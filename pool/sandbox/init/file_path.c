/*
 * Paths inside the sandbox, resolved as its own processes would (symbolic links lead on), except
 * that magic links of procfs lead nowhere: they would reach what hob-init itself has open.
 */
#include "pool/sandbox/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINKS_MAX 40 /* as in the kernel */
#define PATH_ROOM 4096
#define DENTS_SIZE 4096 /* a piece of a folder */

int path_open(int dir_fd, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
		.resolve = RESOLVE_NO_MAGICLINKS | resolve,
	};
	long fd = syscall(SYS_openat2, dir_fd < 0 ? AT_FDCWD : dir_fd, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

int folder_read(int fd)
{
	long got = syscall(SYS_getdents64, fd, scratch, DENTS_SIZE);

	return got < 0 ? -1 : (int)got;
}

/* Opens the folder `path`, making what is missing on the way. */
static int folder_make(const char *path)
{
	int fd = path_open(-1, path[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY, 0);
	char name[PATH_ROOM];

	while (fd >= 0) {
		size_t length;
		int next;

		path += strspn(path, "/");
		length = strcspn(path, "/");
		if (length == 0) {
			break;
		}
		if (length >= sizeof(name)) {
			close(fd);
			return -ENAMETOOLONG;
		}
		memcpy(name, path, length);
		name[length] = '\0';
		path += length;
		next = path_open(fd, name, O_PATH | O_DIRECTORY, 0);
		if (next == -ENOENT && (mkdirat(fd, name, 0755) == 0 || errno == EEXIST)) {
			next = path_open(fd, name, O_PATH | O_DIRECTORY, 0);
		} else if (next == -ENOENT) {
			next = -errno;
		}
		close(fd);
		fd = next;
	}
	return fd;
}

/* "/a/b" + "../c" -> "/a/../c"; an absolute target stands alone. Heap, or NULL with errno. */
static char *path_follow(const char *path, const char *target)
{
	const char *slash = strrchr(path, '/');
	size_t folder = target[0] == '/' || slash == NULL ? 0 : (size_t)(slash - path) + 1;
	char *joined;

	if (folder + strlen(target) >= PATH_ROOM) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	joined = malloc(folder + strlen(target) + 1);
	if (joined != NULL) {
		memcpy(joined, path, folder);
		memcpy(joined + folder, target, strlen(target) + 1);
	}
	return joined;
}

/* Opens the folder of `path`, whose last name starts at `name`. */
static int folder_open(const char *path, const char *name, bool make)
{
	char folder[PATH_ROOM];
	size_t length = (size_t)(name - path);
	int fd;

	if (length >= sizeof(folder)) {
		return -ENAMETOOLONG;
	}
	memcpy(folder, path, length);
	folder[length] = '\0';
	if (length == 0) {
		memcpy(folder, ".", 2);
	}
	fd = path_open(-1, folder, O_PATH | O_DIRECTORY, 0);
	return fd == -ENOENT && make ? folder_make(folder) : fd;
}

static bool name_is_usable(const char *name)
{
	return name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* The text of the link `name`; -EINVAL when it is none. */
static int link_read(int dir_fd, const char *name, char target[PATH_ROOM])
{
	ssize_t length = readlinkat(dir_fd, name, target, PATH_ROOM - 1);

	if (length < 0) {
		return -errno;
	}
	target[length] = '\0';
	return 0;
}

int path_parent(const char *path, bool make, bool follow, int *ret_dir_fd, char **ret_name)
{
	char *current = strdup(path);
	char target[PATH_ROOM];

	for (int links = 0; current != NULL && links <= LINKS_MAX; links++) {
		size_t length = strlen(current);
		const char *name;
		char *next;
		int fd;

		if (follow && length > 0 && current[length - 1] == '/') {
			free(current);
			return -EISDIR;
		}
		while (length > 1 && current[length - 1] == '/') {
			current[--length] = '\0';
		}
		name = strrchr(current, '/');
		name = name != NULL ? name + 1 : current;
		fd = name_is_usable(name) ? folder_open(current, name, make && links == 0)
					  : -EISDIR;
		if (fd < 0) {
			free(current);
			return fd;
		}
		if (!follow || link_read(fd, name, target) < 0) {
			*ret_name = strdup(name);
			*ret_dir_fd = fd;
			free(current);
			return 0;
		}
		close(fd);
		next = path_follow(current, target);
		free(current);
		current = next;
	}
	free(current);
	return current == NULL ? -ENOMEM : -ELOOP;
}
