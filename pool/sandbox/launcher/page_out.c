/*
 * Giving the memory of a sandbox that stands still back to the system. The kernel lets whoever asks
 * wait until it has looked through all of it, so that a process of its own asks, with low priority
 * and without capabilities; the launcher hears of its end through a pipe.
 */
#include "pool/sandbox/launcher/launcher_server.h"
#include "pool/sandbox/privileges.h"

#include "base/memory.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static _Noreturn void pager_main(const struct server *server, const char *id, int fd)
{
	const struct cgroups *cgroups = &server->means.cgroups;
	int keep[1 + CGROUP_HIERARCHIES_MAX];
	size_t count = 0;
	struct error err = ERROR_INIT;

	keep[count++] = fd;
	for (size_t i = 0; i < cgroups->count; i++) {
		keep[count++] = cgroups->hierarchies[i].fd;
	}
	descriptors_keep(keep, count);
	(void)prctl(PR_SET_NAME, "hob-pager", 0, 0, 0);
	(void)setpriority(PRIO_PROCESS, 0, 19);
	if (capabilities_limit(NULL, 0, &err) == 0) {
		(void)!cgroup_page_out(cgroups, id, &err);
	}
	(void)!write(fd, &err.sys, sizeof(err.sys));
	_exit(0);
}

int page_out_start(struct server *server, struct pending *pending, struct error *err)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0) {
		return error_sys(err, errno, "make a pipe");
	}
	pid = launcher_fork();
	if (pid == 0) {
		pager_main(server, pending->request.name, ends[1]);
	}
	close(ends[1]);
	pending->native.status_fd = ends[0];
	return pid < 0 ? error_sys(err, errno, "fork") : 0;
}

void page_out_end(const struct pending *pending, struct error *err)
{
	int sys = 0;

	if (read(pending->native.status_fd, &sys, sizeof(sys)) != (ssize_t)sizeof(sys)) {
		error_set(err, ERROR_UNAVAILABLE, "page out %s: its process died",
			pending->request.name);
	} else if (sys != 0) {
		error_sys(err, sys, "page out %s", pending->request.name);
	}
}
