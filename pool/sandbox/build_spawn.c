/* Starts hob-build, and hob-snapshots for the upkeep, the way an operator would: the host's mounts,
 * root, nothing of the launcher's.
 */
#include "pool/sandbox/launcher/launcher_server.h"

#include "base/fault.h"
#include "base/memory.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define ARGUMENTS_MAX 12

static _Noreturn void program_main(
	const struct server *server, char *arguments[ARGUMENTS_MAX], const int *io, int report_fd)
{
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char locale[] = "LC_ALL=C.UTF-8", home[] = "HOME=/root";
	char *const variables[] = {path, locale, home, NULL};
	sigset_t none;
	int null_fd, sys;

	for (int number = 1; number < NSIG; number++) {
		(void)signal(number, SIG_DFL);
	}
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	for (unsigned i = 0; i < RLIM_NLIMITS; i++) {
		(void)setrlimit((__rlimit_resource_t)i, &server->limits[i]);
	}
	umask(022);
	if (setsid() >= 0 && setns(server->means.places.host_mounts_fd, CLONE_NEWNS) == 0) {
		null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null_fd >= 0 && dup2(io != NULL ? io[0] : null_fd, 0) == 0 &&
			dup2(io != NULL ? io[0] : null_fd, 1) == 1 &&
			(io == NULL || dup2(io[1], 2) == 2)) {
			execve(arguments[0], arguments, variables);
		}
	}
	sys = errno;
	(void)!write(report_fd, &sys, sizeof(sys));
	_exit(127);
}

/* io: for both standard input and output, and for errors; NULL: nothing, and the launcher's. */
static int program_spawn(const struct server *server, char *arguments[ARGUMENTS_MAX], const int *io,
	pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
	CLEANUP(close_p) int report = -1;
	CLEANUP(close_p) int pidfd = -1;
	struct clone_args args = {
		.flags = CLONE_PIDFD, .exit_signal = SIGCHLD, .pidfd = (uint64_t)(uintptr_t)&pidfd};
	int ends[2], sys = 0;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0) {
		return error_sys(err, errno, "pipe");
	}
	report = ends[0];
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0) {
		program_main(server, arguments, io, ends[1]);
	}
	sys = errno;
	close(ends[1]);
	if (pid < 0) {
		return error_sys(err, sys, "clone3");
	}
	if (read(report, &sys, sizeof(sys)) == (ssize_t)sizeof(sys)) {
		return error_sys(err, sys, "start %s", arguments[0]);
	}
	*ret_pid = pid;
	*ret_pidfd = steal_fd(&pidfd);
	return 0;
}

static void add_config(const struct server *server, char *arguments[ARGUMENTS_MAX], size_t count)
{
	static char config[] = "--config";

	if (server->config_file != NULL) {
		arguments[count] = config;
		arguments[count + 1] = server->config_file;
	}
}

int build_spawn(const struct server *server, const char *environment, enum build_mode mode,
	pid_t *ret_pid, int *ret_pidfd, struct error *err)
{
	static char json[] = "--json", unasked[] = "--scheduled", fetch[] = "--fetch";
	char *name = (char *)(uintptr_t)environment;
	char *arguments[ARGUMENTS_MAX] = {server->build_program};
	size_t count = 1;

	if (mode == BUILD_FETCH) {
		arguments[count++] = fetch;
		arguments[count++] = name;
	} else {
		arguments[count++] = name;
		arguments[count++] = json;
	}
	if (mode == BUILD_SCHEDULED) {
		arguments[count++] = unasked;
	}
	add_config(server, arguments, count);
	return program_spawn(server, arguments, NULL, ret_pid, ret_pidfd, err);
}

int upkeep_spawn(const struct server *server, const char *snapshot, pid_t *ret_pid, int *ret_pidfd,
	struct error *err)
{
	static char all[] = "upkeep", one[] = "flatten", json[] = "--json";
	bool is_one = snapshot[0] != '\0';
	char *arguments[ARGUMENTS_MAX] = {server->snapshots_program, is_one ? one : all, json,
		is_one ? (char *)(uintptr_t)snapshot : NULL};

	add_config(server, arguments, is_one ? 4 : 3);
	return program_spawn(server, arguments, NULL, ret_pid, ret_pidfd, err);
}

/* Verb, its part and the option of each tool. */
static const struct {
	const char *verb, *part, *option;
} tools[] = {
	[STORE_VERIFY] = {"verify", NULL, "--quick"},
	[STORE_FLATTEN] = {"flatten", NULL, NULL},
	[STORE_GC] = {"gc", NULL, "--dry-run"},
	[STORE_EXPORT] = {"export", NULL, "--with-parents"},
	[STORE_IMPORT] = {"import", NULL, NULL},
	[STORE_DIFF] = {"diff", NULL, NULL},
	[STORE_TREE] = {"tree", NULL, NULL},
	[STORE_DU] = {"du", NULL, NULL},
	[STORE_DEDUPE] = {"dedupe", NULL, NULL},
	[STORE_IMAGES_DIFF] = {"images", "diff", "--stat"},
};
_Static_assert(ARRAY_SIZE(tools) == STORE_TOOLS, "a verb for each tool");

int store_spawn(const struct server *server, const struct launcher_request *request, pid_t *ret_pid,
	int fds[3], struct error *err)
{
	static char json[] = "--json", events[] = "--events";
	char *arguments[ARGUMENTS_MAX] = {
		server->snapshots_program, (char *)(uintptr_t)tools[request->kind].verb};
	size_t count = 2;
	int pair[2], ends[2], io[2], status;

	if (tools[request->kind].part != NULL) {
		arguments[count++] = (char *)(uintptr_t)tools[request->kind].part;
	}
	arguments[count++] = json;
	arguments[count++] = events;

	if (request->host_usr != 0 && tools[request->kind].option != NULL) {
		arguments[count++] = (char *)(uintptr_t)tools[request->kind].option;
	}
	if (request->name[0] != '\0') {
		arguments[count++] = (char *)(uintptr_t)request->name;
	}
	if (request->hostname[0] != '\0') {
		arguments[count++] = (char *)(uintptr_t)request->hostname;
	}
	add_config(server, arguments, count);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		return error_sys(err, errno, "socketpair");
	}
	if (pipe2(ends, O_CLOEXEC) < 0) {
		close(pair[0]);
		close(pair[1]);
		return error_sys(err, errno, "pipe");
	}
	io[0] = pair[1];
	io[1] = ends[1];
	fds[1] = pair[0];
	fds[2] = ends[0];
	status = program_spawn(server, arguments, io, ret_pid, &fds[0], err);
	close(pair[1]);
	close(ends[1]);
	return status;
}
