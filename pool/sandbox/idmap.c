/*
 * A user namespace needs a process to be made and a descriptor to stay. The process shares the
 * launcher's memory (no page tables to copy), does nothing, and is killed once the maps are
 * written.
 */
#include "pool/sandbox/idmap.h"

#include "base/io.h"
#include "base/memory.h"
#include "pool/sandbox/launcher/launcher_server.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* A process that is being killed may still be on its stack while the next one starts on another. */
#define IDLE_STACKS 8
#define IDLE_STACK_SIZE 4096

static _Noreturn int idle_main(void *argument)
{
	(void)argument;
	for (;;) {
		pause();
	}
}

static int map_write(pid_t pid, const char *file, const char *line, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, line, strlen(line)) < 0) {
		return error_sys(err, errno, "write \"%s\" to %s", line, path);
	}
	return 0;
}

int idmap_write(
	pid_t pid, int64_t from, int64_t from_group, int64_t to, uint32_t count, struct error *err)
{
	char line[80];

	snprintf(line, sizeof(line), "%" PRId64 " %" PRId64 " %" PRIu32, from, to, count);
	if (map_write(pid, "uid_map", line, err) < 0) {
		return -(int)err->kind;
	}
	snprintf(line, sizeof(line), "%" PRId64 " %" PRId64 " %" PRIu32, from_group, to, count);
	return map_write(pid, "gid_map", line, err);
}

static int namespace_open(pid_t pid, struct error *err)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	return io_open(AT_FDCWD, path, O_RDONLY, 0, err);
}

/* A process that does nothing in a user namespace of its own. */
static pid_t idle_start(void)
{
	static _Alignas(16) char stacks[IDLE_STACKS][IDLE_STACK_SIZE];
	static unsigned turn;
	char *stack = stacks[turn++ % IDLE_STACKS];

	return clone(idle_main, stack + IDLE_STACK_SIZE,
		CLONE_VM | CLONE_FILES | CLONE_NEWUSER | SIGCHLD, NULL);
}

static int idmap_make(int64_t from, int64_t from_group, int64_t to, uint32_t count, int *ret_fd,
	struct error *err)
{
	pid_t pid = idle_start();
	int fd;

	if (pid < 0) {
		error_sys(err, errno, "make a user namespace");
		return errno == ENOSPC
			       ? error_hint(err, "raise the sysctl user.max_user_namespaces")
			       : -(int)err->kind;
	}
	fd = idmap_write(pid, from, from_group, to, count, err);
	if (fd == 0) {
		fd = namespace_open(pid, err);
	}
	kill(pid, SIGKILL);
	if (fd < 0) {
		return fd;
	}
	*ret_fd = fd;
	return 0;
}

static struct idmap *slot_for_new(struct idmaps *idmaps)
{
	struct idmap *oldest = &idmaps->entries[0];

	if (idmaps->entry_count < IDMAPS_MAX) {
		return &idmaps->entries[idmaps->entry_count++];
	}
	for (size_t i = 1; i < IDMAPS_MAX; i++) {
		if (idmaps->entries[i].used < oldest->used) {
			oldest = &idmaps->entries[i];
		}
	}
	close(oldest->fd);
	return oldest;
}

int idmap_get(struct idmaps *idmaps, int64_t from, int64_t from_group, int64_t to, uint32_t count,
	int *ret_fd, struct error *err)
{
	struct idmap made = {.from = from,
		.from_group = from_group,
		.to = to,
		.count = count,
		.used = ++idmaps->clock};

	for (size_t i = 0; i < idmaps->entry_count; i++) {
		struct idmap *entry = &idmaps->entries[i];

		if (entry->from == from && entry->from_group == from_group && entry->to == to &&
			entry->count == count) {
			entry->used = idmaps->clock;
			*ret_fd = entry->fd;
			return 0;
		}
	}
	if (idmap_make(from, from_group, to, count, &made.fd, err) < 0) {
		return -(int)err->kind;
	}
	*slot_for_new(idmaps) = made;
	*ret_fd = made.fd;
	return 0;
}

void idmaps_done(struct idmaps *idmaps)
{
	for (size_t i = 0; i < idmaps->entry_count; i++) {
		fd_done(&idmaps->entries[i].fd);
	}
	idmaps->entry_count = 0;
}

struct owned {
	pid_t pid; /* of the process in the namespace, or a negative errno */
};

/* The owner of a user namespace is the effective user of who makes it. Root's capabilities are
 * kept, as some systems let nobody else make one. */
static _Noreturn void owned_main(uid_t owner, gid_t group, int ready_fd)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	struct owned made = {.pid = -1};

	if (setresgid((gid_t)-1, group, (gid_t)-1) == 0 &&
		setresuid((uid_t)-1, owner, (uid_t)-1) == 0 &&
		syscall(SYS_capget, &header, data) == 0) {
		for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
			data[i].effective = data[i].permitted;
		}
		made.pid = syscall(SYS_capset, &header, data) == 0 ? idle_start() : -1;
	}
	if (made.pid < 0) {
		made.pid = -errno;
	}
	(void)!write(ready_fd, &made, sizeof(made));
	for (;;) {
		pause();
	}
}

static int owned_open(int ready_fd, uid_t owner, int64_t to, uint32_t count, struct error *err)
{
	struct owned made = {.pid = -EIO};
	int status;

	if (read(ready_fd, &made, sizeof(made)) != (ssize_t)sizeof(made) || made.pid < 0) {
		return error_sys(err, -made.pid, "make a user namespace for user %u", owner);
	}
	status = idmap_write(made.pid, 0, 0, to, count, err);
	if (status == 0) {
		status = namespace_open(made.pid, err);
	}
	kill(made.pid, SIGKILL);
	return status;
}

int idmap_owned(
	uid_t owner, gid_t group, int64_t to, uint32_t count, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int ready_fd = -1;
	int ends[2], status;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0) {
		return error_sys(err, errno, "pipe");
	}
	ready_fd = ends[0];
	pid = launcher_fork();
	if (pid == 0) {
		owned_main(owner, group, ends[1]);
	}
	close(ends[1]);
	if (pid < 0) {
		return error_sys(err, errno, "fork");
	}
	status = owned_open(ready_fd, owner, to, count, err);
	kill(pid, SIGKILL);
	if (status < 0) {
		return status;
	}
	*ret_fd = status;
	return 0;
}
