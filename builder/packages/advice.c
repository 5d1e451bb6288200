/* Started as root, hob-build asks no registry with root's rights: a child gives them up first and
 * sends the message back. */
#include "builder/packages/advice.h"

#include "base/io.h"
#include "base/memory.h"
#include "configs/config.h"
#include "configs/packages/pin.h"
#include "pool/sandbox/sandbox.h"

#include <fcntl.h>
#include <sys/wait.h>

static void explain_in_child(
	const struct config *config, const char *file, struct error *err, int fd)
{
	struct error failed = ERROR_INIT;

	if (privileges_drop(config, &failed) == 0 && setenv("HOME", "/nonexistent", 1) == 0 &&
		setenv("npm_config_cache", "/nonexistent", 1) == 0 &&
		setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1) == 0) { /* root's may be shut */
		pin_explain(file, err);
		_exit(io_write_full(fd, err->hint, sizeof(err->hint), &failed) < 0);
	}
	_exit(1);
}

void advice_add(const struct config *config, const char *file, struct error *err)
{
	struct error ignored = ERROR_INIT;
	char hint[ERROR_HINT_SIZE];
	int fds[2], code;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		return;
	}
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		explain_in_child(config, file, err, fds[1]);
	}
	close(fds[1]);
	if (pid > 0) {
		if (io_read_full(fds[0], hint, sizeof(hint), &ignored) == 0 &&
			memchr(hint, '\0', sizeof(hint)) != NULL) {
			error_hint(err, "%s", hint);
		}
		waitpid(pid, &code, 0);
	}
	close(fds[0]);
}
