/* Starting programs and waiting for them. */
#ifndef HOB_BASE_PROCESS_H
#define HOB_BASE_PROCESS_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct process_spec {
	char *const *argv; /* argv[0] is looked up in PATH when it has no slash */
	int program_fd; /* 3 or more: the program itself, whatever its folder allows; argv[0] is its
			   name */
	char *const *env; /* NULL: this process's own */
	int stdin_fd; /* -1: /dev/null */
	int stdout_fd; /* -1: /dev/null */
	int stderr_fd; /* -1: this process's own */
};

/* The child has default signals and no descriptor but the three (and program_fd, as 3). The pidfd
 * is the caller's. */
MUSTCHECK int process_spawn(
	const struct process_spec *spec, pid_t *ret_pid, int *ret_pidfd, struct error *err);
/* Blocks; 0 to 255, or 128 + the signal. */
MUSTCHECK int process_wait(pid_t pid, int *ret_code, struct error *err);
/* Spawns, waits, and collects at most 1 MiB of standard output (NULL: not wanted). */
MUSTCHECK int process_run(char *const *argv, char **ret_output, int *ret_code, struct error *err);
/* Is there a program of this name in PATH? */
bool process_exists(const char *name);
/* Field 22 of /proc/<pid>/stat, in ticks since the boot: with the pid it names a process for good.
 * ERROR_NOT_FOUND when there is no such process. */
MUSTCHECK int process_start_time(pid_t pid, uint64_t *ret_ticks, struct error *err);
/* Folder of the running program, to find its siblings in a build tree or an installation. */
MUSTCHECK int process_sibling(const char *name, char **ret_path, struct error *err);

#endif
