/* Repositories made by git itself, so that the tests do not believe what libgit2 wrote. */
#include "tests/lib/git_kit.h"

#include "tests/lib/test.h"

#include "base/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

void git_kit_setup(void)
{
	setenv("GIT_CONFIG_GLOBAL", "/dev/null", 1);
	setenv("GIT_CONFIG_NOSYSTEM", "1", 1);
	setenv("GIT_CONFIG_COUNT", "3", 1);
	setenv("GIT_CONFIG_KEY_0", "safe.directory", 1);
	setenv("GIT_CONFIG_VALUE_0", "*", 1);
	setenv("GIT_CONFIG_KEY_1", "protocol.file.allow", 1);
	setenv("GIT_CONFIG_VALUE_1", "always", 1);
	setenv("GIT_CONFIG_KEY_2", "gc.auto", 1);
	setenv("GIT_CONFIG_VALUE_2", "0", 1);
	setenv("GIT_AUTHOR_NAME", "Test", 1);
	setenv("GIT_AUTHOR_EMAIL", "test@example.com", 1);
	setenv("GIT_COMMITTER_NAME", "Test", 1);
	setenv("GIT_COMMITTER_EMAIL", "test@example.com", 1);
}

char *git_kit_run(const char *folder, ...)
{
	CLEANUP(strv_free_p) char **argv = NULL;
	struct error err = ERROR_INIT;
	const char *argument;
	char *output = NULL;
	int code = 0;
	va_list args;

	strv_add(&argv, "git");
	strv_add(&argv, "-C");
	strv_add(&argv, folder);
	va_start(args, folder);
	while ((argument = va_arg(args, const char *)) != NULL) {
		strv_add(&argv, argument);
	}
	va_end(args);
	assert_ok(process_run(argv, &output, &code, &err), &err);
	if (code != 0) {
		fail_msg("git %s in %s: exit code %d: %s", argv[3], folder, code, output);
	}
	if (output[0] != '\0' && output[strlen(output) - 1] == '\n') {
		output[strlen(output) - 1] = '\0';
	}
	return output;
}

char *git_kit_commit(const char *repository, const char *file, const char *text)
{
	temp_write(repository, file, text);
	free(git_kit_run(repository, "add", "-A", NULL));
	free(git_kit_run(repository, "commit", "-q", "-m", file, NULL));
	return git_kit_run(repository, "rev-parse", "HEAD", NULL);
}

char *git_kit_repository(const char *folder, const char *name)
{
	char *path = xasprintf("%s/%s", folder, name);
	CLEANUP(free_p) char *bin = xasprintf("%s/bin", path);
	CLEANUP(free_p) char *run = xasprintf("%s/bin/run", path);
	CLEANUP(free_p) char *link = xasprintf("%s/link", path);

	free(git_kit_run(folder, "init", "-q", "-b", "main", name, NULL));
	assert_int_equal(mkdir(bin, 0755), 0);
	temp_write(path, "bin/run", "#!/bin/sh\necho ran\n");
	assert_int_equal(chmod(run, 0755), 0);
	assert_int_equal(symlink("README", link), 0);
	free(git_kit_commit(path, "README", "hello\n"));
	return path;
}

struct git_kit_server git_kit_http(const char *folder, const char *mode)
{
	char *const argv[] = {(char *)"python3", (char *)"tests/lib/git_http.py",
		(char *)(uintptr_t)folder, (char *)(uintptr_t)mode, NULL};
	struct git_kit_server server = {.pid = -1};
	struct process_spec spec = {.argv = argv, .stderr_fd = -1};
	struct error err = ERROR_INIT;
	int in[2], out[2], pidfd;
	FILE *reply;

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	spec.stdin_fd = in[0];
	spec.stdout_fd = out[1];
	assert_ok(process_spawn(&spec, &server.pid, &pidfd, &err), &err);
	close(pidfd);
	close(in[0]);
	close(out[1]);
	server.stdin_fd = in[1];
	reply = fdopen(out[0], "r");
	assert_int_equal(fscanf(reply, "%d", &server.port), 1);
	fclose(reply);
	return server;
}

/* A port that was free a moment ago, below those that the kernel gives to connections. */
static int free_port(void)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	CLEANUP(close_p) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint16_t random = 0;
	int status = -1;

	for (int tries = 0; tries < 1000 && status < 0; tries++) {
		assert_int_equal(getrandom(&random, sizeof(random), 0), sizeof(random));
		address.sin_port = htons((uint16_t)(12000 + random % 18000));
		status = bind(fd, (struct sockaddr *)&address, sizeof(address));
	}
	assert_int_equal(status, 0);
	return ntohs(address.sin_port);
}

static bool can_connect(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons((uint16_t)port)};
	CLEANUP(close_p) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

struct git_kit_server git_kit_daemon(const char *folder)
{
	struct git_kit_server server = {.pid = -1, .stdin_fd = -1, .port = free_port()};
	CLEANUP(free_p) char *port = xasprintf("--port=%d", server.port);
	CLEANUP(free_p) char *base = xasprintf("--base-path=%s", folder);
	char *const argv[] = {(char *)"git", (char *)"daemon", (char *)"--reuseaddr",
		(char *)"--export-all", (char *)"--listen=127.0.0.1", port, base, NULL};
	const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
	struct process_spec spec = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
	struct error err = ERROR_INIT;
	int pidfd;

	assert_ok(process_spawn(&spec, &server.pid, &pidfd, &err), &err);
	close(pidfd);
	for (int tries = 0; tries < 6000 && !can_connect(server.port); tries++) {
		nanosleep(&pause, NULL);
	}
	return server;
}

void git_kit_stop(struct git_kit_server *server)
{
	struct error err = ERROR_INIT;
	int code;

	if (server->pid <= 0) {
		return;
	}
	kill(server->pid, SIGTERM);
	(void)!process_wait(server->pid, &code, &err);
	if (server->stdin_fd >= 0) {
		close(server->stdin_fd);
	}
	server->pid = -1;
}
