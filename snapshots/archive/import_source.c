/* The child of an import, which parses: started before anything is opened, with nothing but the
 * archive and a socket, and without rights. */
#include "snapshots/archive/archive.h"
#include "snapshots/archive/import_wire.h"
#include "snapshots/helper.h"

#include "base/memory.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

static _Noreturn void run_child(int fd, int out)
{
	struct error err = ERROR_INIT;

	/* First above, so that neither lands on the other. */
	if ((fd = fcntl(fd, F_DUPFD, 10)) < 0 || (out = fcntl(out, F_DUPFD, 10)) < 0 ||
		dup2(fd, 3) < 0 || dup2(out, 4) < 0 || close_range(5, ~0U, 0) < 0 ||
		store_become_nobody(&err) < 0) {
		_exit(1);
	}
	signal(SIGPIPE, SIG_DFL);
	import_parse(3, 4);
	_exit(0);
}

int import_source_open(int fd, struct import_source *ret_source, struct error *err)
{
	int pair[2];
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		return error_sys(err, errno, "make a socket pair");
	}
	child = fork();
	if (child == 0) {
		run_child(fd, pair[1]);
	}
	close(pair[1]);
	if (child < 0) {
		close(pair[0]);
		return error_sys(err, errno, "fork");
	}
	*ret_source = (struct import_source){pair[0], child};
	return 0;
}

void import_source_close(struct import_source *source)
{
	fd_done(&source->wire); /* writing to it ends the child, which may be another user's */
	while (source->child > 0 && waitpid(source->child, NULL, 0) < 0 && errno == EINTR) {
		continue;
	}
	*source = IMPORT_SOURCE_INIT;
}
