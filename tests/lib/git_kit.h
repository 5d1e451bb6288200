/* Real git repositories for tests, made with the `git` program, and servers for them on loopback.
 */
#ifndef HOB_TESTS_LIB_GIT_KIT_H
#define HOB_TESTS_LIB_GIT_KIT_H

#include "base/memory.h"

#include <sys/types.h>

/* The environment of git: no configuration but ours, a fixed author. Call once. */
void git_kit_setup(void);
/* `git -C folder …`; fails the test unless it succeeds. Returns its output without the last
 * newline; free() it. The arguments end with NULL. */
char *git_kit_run(const char *folder, ...) __attribute__((sentinel));
/* A repository folder/name with branch main and one commit: README, bin/run (0755), link -> README.
 */
char *git_kit_repository(const char *folder, const char *name);
/* Writes a file and commits it; returns the commit. */
char *git_kit_commit(const char *repository, const char *file, const char *text);

/* A server that ends with the test: kill it by git_kit_stop. */
struct git_kit_server {
	pid_t pid;
	int stdin_fd;
	int port;
};
/* tests/lib/git_http.py on folder; mode "" | "hang" | "cut". */
struct git_kit_server git_kit_http(const char *folder, const char *mode);
/* `git daemon` on folder. */
struct git_kit_server git_kit_daemon(const char *folder);
void git_kit_stop(struct git_kit_server *server);

#endif
