/*
 * Starts a command by vfork: the child borrows init's memory until it has executed, so it makes
 * system calls only and reports by a field of the caller's. A watchdog timer, which exec takes
 * away, ends a child that something inside keeps from executing (a file lease, a stop signal), for
 * init stands still that long.
 */
#include "pool/sandbox/init/init.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXEC_PATIENCE_S 5
#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define PROGRAM_PATH_MAX 4096

enum step { STEP_WATCHDOG, STEP_TERMINAL, STEP_DESCRIPTORS, STEP_USER, STEP_CWD, STEP_EXEC };

struct launch {
	const struct spawn *spawn;
	const char *path; /* of the environment */
	char *program; /* room for a candidate of the search: PROGRAM_PATH_MAX */
	volatile enum step step;
	volatile int sys; /* 0: it runs */
};

/* False when the sandbox has used its signal queue up, which would take the watchdog away. */
static bool watchdog_start(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
	struct itimerspec when = {.it_value = {.tv_sec = EXEC_PATIENCE_S}};
	timer_t timer;

	if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0) {
		return errno != EAGAIN;
	}
	(void)timer_settime(timer, 0, &when, NULL);
	return true;
}

/* The calls themselves: libc's wrappers would synchronise threads that are not there. */
static int become(const struct user *user)
{
	if (user->is_root) {
		return 0;
	}
	if (syscall(SYS_setgroups, user->group_count, user->groups) < 0 ||
		syscall(SYS_setresgid, user->gid, user->gid, user->gid) < 0 ||
		syscall(SYS_setresuid, user->uid, user->uid, user->uid) < 0) {
		return errno;
	}
	return 0;
}

/* The next folder of a PATH with `name` behind it; an empty one is the current. False at the end.
 */
static bool next_candidate(const char **path, const char *name, char *program)
{
	size_t name_length = strlen(name);

	while (*path != NULL) {
		const char *folder = *path;
		size_t length = strcspn(folder, ":");

		*path = folder[length] == ':' ? folder + length + 1 : NULL;
		if (length + name_length + 2 <= PROGRAM_PATH_MAX) {
			memcpy(program, folder, length);
			if (length > 0) {
				program[length++] = '/';
			}
			memcpy(program + length, name, name_length + 1);
			return true;
		}
	}
	return false;
}

/* Returns the errno that says most: a file that may not be executed rather than one not there. */
static int execute(const struct launch *launch)
{
	const struct spawn *spawn = launch->spawn;
	const char *name = spawn->argv[0];
	const char *path = launch->path;
	int sys = ENOENT;

	if (strchr(name, '/') != NULL) {
		execve(name, spawn->argv, spawn->env);
		return errno;
	}
	while (name[0] != '\0' && next_candidate(&path, name, launch->program)) {
		execve(launch->program, spawn->argv, spawn->env);
		if (errno != ENOENT && errno != ENOTDIR) {
			sys = errno;
			if (sys != EACCES) {
				break;
			}
		}
	}
	return sys;
}

static void __attribute__((noreturn)) child_fail(struct launch *launch, enum step step, int sys)
{
	launch->step = step;
	launch->sys = sys;
	_exit(127);
}

static void __attribute__((noreturn)) child_run(struct launch *launch)
{
	const struct spawn *spawn = launch->spawn;
	sigset_t none;
	int sys;

	if (!watchdog_start()) {
		child_fail(launch, STEP_WATCHDOG, EAGAIN);
	}
	(void)setsid();
	if (spawn->tty && ioctl(spawn->fds[0], TIOCSCTTY, 0) < 0) {
		child_fail(launch, STEP_TERMINAL, errno);
	}
	for (int i = 0; i < 3; i++) {
		if (dup2(spawn->fds[i], i) < 0) {
			child_fail(launch, STEP_DESCRIPTORS, errno);
		}
	}
	sys = become(spawn->user);
	if (sys != 0) {
		child_fail(launch, STEP_USER, sys);
	}
	if (strcmp(spawn->cwd, "/") != 0 && chdir(spawn->cwd) < 0) {
		child_fail(launch, STEP_CWD, errno);
	}
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	child_fail(launch, STEP_EXEC, execute(launch));
}

static const char *find_path(char *const *env)
{
	for (; *env != NULL; env++) {
		if (strncmp(*env, "PATH=", 5) == 0) {
			return *env + 5;
		}
	}
	return PATH_DEFAULT;
}

/* A program whose file is there but whose interpreter is not also gives ENOENT. */
static bool program_is_there(const struct launch *launch)
{
	const char *name = launch->spawn->argv[0];
	const char *path = launch->path;

	if (strchr(name, '/') != NULL) {
		return name[0] == '/' && access(name, F_OK) == 0;
	}
	while (name[0] != '\0' && next_candidate(&path, name, launch->program)) {
		if (launch->program[0] == '/' && access(launch->program, F_OK) == 0) {
			return true;
		}
	}
	return false;
}

static void explain(const struct launch *launch, char *why, size_t size)
{
	const char *name = launch->spawn->argv[0];
	int sys = launch->sys;

	switch (launch->step) {
	case STEP_WATCHDOG:
		text_format(why, size, "%s: too many signals are queued in the sandbox", name);
		break;
	case STEP_DESCRIPTORS:
		text_format(why, size, "%s: standard input and output: %s", name, strerror(sys));
		break;
	case STEP_TERMINAL:
		text_format(why, size, "%s: terminal: %s", name, strerror(sys));
		break;
	case STEP_USER:
		text_format(why, size, "user %s (%u:%u): %s", launch->spawn->user->name,
			launch->spawn->user->uid, launch->spawn->user->gid,
			sys == EINVAL ? "no such id in a sandbox (0 to 65535)" : strerror(sys));
		break;
	case STEP_CWD:
		text_format(why, size, "cwd %s: %s", launch->spawn->cwd, strerror(sys));
		break;
	case STEP_EXEC:
		if (sys == ENOENT && program_is_there(launch)) {
			text_format(why, size,
				"%s: the interpreter or loader that it names is not there", name);
		} else if (sys == ENOENT && strchr(name, '/') == NULL) {
			text_format(why, size, "%s: not found in PATH", name);
		} else if (sys == ENOEXEC) {
			text_format(why, size, "%s: not a program of this machine, and no #! line",
				name);
		} else if (sys == E2BIG) {
			text_format(why, size, "%s: arguments and environment are too long", name);
		} else {
			text_format(why, size, "%s: %s", name, strerror(sys));
		}
		break;
	}
}

/* A copy of init, since there may be no program inside that could do it. It keeps nothing of init's
 * but its memory, and init waits for nothing. */
static pid_t apply_start(const struct spawn *spawn, int *ret_sys, char *why, size_t why_size)
{
	pid_t pid = fork();
	sigset_t none;

	if (pid < 0) {
		*ret_sys = errno;
		text_format(why, why_size, "sync: cannot start a process: %s", strerror(errno));
	}
	if (pid != 0) {
		return pid;
	}
	(void)setsid();
	for (int i = 0; i < 3; i++) {
		if (dup2(spawn->fds[i], i) < 0) {
			_exit(APPLY_UNTOUCHED);
		}
	}
	(void)syscall(SYS_close_range, STDERR_FILENO + 1, UINT32_MAX, 0);
	(void)prctl(PR_SET_NAME, "hob-sync", 0, 0, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	apply_run(spawn->argv[0]);
}

pid_t spawn_start(const struct spawn *spawn, int *ret_sys, char *why, size_t why_size)
{
	char program[PROGRAM_PATH_MAX];
	struct launch launch = {.spawn = spawn,
		.path = find_path(spawn->env),
		.program = program,
		.step = STEP_EXEC};
	pid_t pid;

	if (spawn->apply) {
		return apply_start(spawn, ret_sys, why, why_size);
	}
	pid = vfork();
	if (pid == 0) {
		child_run(&launch);
	}
	if (!spawn->user->is_root) {
		/* The change of user went through to the memory that the child had borrowed. */
		(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	}
	if (pid < 0) {
		*ret_sys = errno;
		text_format(why, why_size, "%s: cannot start a process: %s", spawn->argv[0],
			errno == EAGAIN ? "the sandbox's limit of processes is reached"
					: strerror(errno));
		return -1;
	}
	if (launch.sys != 0) {
		/* The dead child is reaped like any orphan. */
		explain(&launch, why, why_size);
		*ret_sys = REFUSAL(launch.sys, launch.step == STEP_EXEC   ? INIT_STEP_EXEC
					       : launch.step == STEP_CWD  ? INIT_STEP_CWD
					       : launch.step == STEP_USER ? INIT_STEP_USER
									  : INIT_STEP_OTHER);
		return -1;
	}
	return pid;
}
