/* posix_spawn with everything that must not leak into a child taken care of. */
#include "base/process.h"

#include "base/buffer.h"
#include "base/memory.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

#define OUTPUT_MAX (1024 * 1024)
#define PROGRAM_FD 3
#define PROGRAM_PATH "/proc/self/fd/3"

static void attributes_init(posix_spawnattr_t *attributes)
{
	sigset_t all, none;

	sigfillset(&all);
	sigemptyset(&none);
	posix_spawnattr_init(attributes);
	posix_spawnattr_setsigdefault(attributes, &all);
	posix_spawnattr_setsigmask(attributes, &none);
	posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
}

static void actions_add(posix_spawn_file_actions_t *actions, int from, int to)
{
	if (from >= 0) {
		posix_spawn_file_actions_adddup2(actions, from, to);
	} else if (to != STDERR_FILENO) {
		posix_spawn_file_actions_addopen(
			actions, to, "/dev/null", to == STDIN_FILENO ? O_RDONLY : O_WRONLY, 0);
	}
}

int process_spawn(
	const struct process_spec *spec, pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	bool by_fd = spec->program_fd >= PROGRAM_FD;
	pid_t pid;
	int status, pidfd;

	attributes_init(&attributes);
	posix_spawn_file_actions_init(&actions);
	actions_add(&actions, spec->stdin_fd, STDIN_FILENO);
	actions_add(&actions, spec->stdout_fd, STDOUT_FILENO);
	actions_add(&actions, spec->stderr_fd, STDERR_FILENO);
	if (by_fd) {
		posix_spawn_file_actions_adddup2(&actions, spec->program_fd, PROGRAM_FD);
	}
	posix_spawn_file_actions_addclosefrom_np(
		&actions, by_fd ? PROGRAM_FD + 1 : STDERR_FILENO + 1);
	status = posix_spawnp(&pid, by_fd ? PROGRAM_PATH : spec->argv[0], &actions, &attributes,
		spec->argv, spec->env != NULL ? spec->env : environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	if (status != 0) {
		return error_sys(err, status, "start %s", spec->argv[0]);
	}
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		return error_sys(err, errno, "pidfd_open %d", pid);
	}
	*ret_pid = pid;
	*ret_pidfd = pidfd;
	return 0;
}

int process_wait(pid_t pid, int *ret_code, struct error *err)
{
	int status;

	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR) {
			return error_sys(err, errno, "waitpid %d", pid);
		}
	}
	*ret_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return 0;
}

static int collect(int fd, struct buffer *output, struct error *err)
{
	char chunk[4096];
	ssize_t got;

	while ((got = read(fd, chunk, sizeof(chunk))) != 0) {
		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return error_sys(err, errno, "read");
		}
		if (!buffer_add(output, chunk, (size_t)got)) {
			return error_set(
				err, ERROR_LIMIT, "more than %d bytes of output", OUTPUT_MAX);
		}
	}
	return 0;
}

int process_run(char *const *argv, char **ret_output, int *ret_code, struct error *err)
{
	CLEANUP(buffer_done) struct buffer output;
	struct process_spec spec = {.argv = argv, .stdin_fd = -1, .stderr_fd = -1};
	CLEANUP(close_p) int pidfd = -1;
	CLEANUP(close_p) int from = -1;
	int pipe_fds[2], collected, status;
	pid_t pid;

	buffer_init(&output, OUTPUT_MAX);
	if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
		return error_sys(err, errno, "pipe");
	}
	from = pipe_fds[0];
	spec.stdout_fd = pipe_fds[1];
	status = process_spawn(&spec, &pid, &pidfd, err);
	close(pipe_fds[1]);
	if (status < 0) {
		return status;
	}
	collected = collect(from, &output, err);
	fd_done(&from);
	status = process_wait(pid, ret_code, err);
	if (collected < 0 || status < 0) {
		return -(int)err->kind;
	}
	if (ret_output != NULL) {
		*ret_output = buffer_steal(&output);
	}
	return 0;
}

bool process_exists(const char *name)
{
	const char *path = getenv("PATH");
	CLEANUP(free_p) char *copy = xstrdup(path != NULL ? path : "/usr/bin:/bin");
	char *rest = NULL;

	for (char *dir = strtok_r(copy, ":", &rest); dir != NULL;
		dir = strtok_r(NULL, ":", &rest)) {
		CLEANUP(free_p) char *file = xasprintf("%s/%s", dir, name);

		if (access(file, X_OK) == 0) {
			return true;
		}
	}
	return false;
}

int process_start_time(pid_t pid, uint64_t *ret_ticks, struct error *err)
{
	char path[32], text[1024];
	const char *field;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
		return error_sys(err, errno, "open %s", path);
	}
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (length <= 0) {
		return error_set(err, ERROR_NOT_FOUND, "process %d is gone", (int)pid);
	}
	text[length] = '\0';
	/* The name in parentheses may hold anything; after its last ')' comes field 3. */
	field = strrchr(text, ')');
	for (int number = 2; field != NULL && number < 22; number++) {
		field = strchr(field + 1, ' ');
	}
	if (field == NULL) {
		return error_set(err, ERROR_CORRUPT, "%s has too few fields", path);
	}
	*ret_ticks = strtoull(field + 1, NULL, 10);
	return 0;
}

int process_sibling(const char *name, char **ret_path, struct error *err)
{
	char self[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (length < 0) {
		return error_sys(err, errno, "read /proc/self/exe");
	}
	self[length] = '\0';
	*ret_path = xasprintf("%s/%s", dirname(self), name);
	return 0;
}
