/*
 * The namespaces belong to the machine's user namespace, so root inside a sandbox has no power over
 * its network; ports below 1024 are opened to it by a sysctl of the namespace instead.
 */
#include "pool/sandbox/netns.h"

#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int namespace_open(struct error *err)
{
	return io_open(AT_FDCWD, "/proc/self/ns/net", O_RDONLY, 0, err);
}

int netns_pool_init(struct netns_pool *pool, struct error *err)
{
	*pool = (struct netns_pool){.host_fd = namespace_open(err)};
	return pool->host_fd < 0 ? pool->host_fd : 0;
}

void netns_pool_done(struct netns_pool *pool)
{
	while (pool->count > 0) {
		fd_done(&pool->fds[--pool->count]);
	}
	fd_done(&pool->host_fd);
}

static int loopback_up(struct error *err)
{
	struct ifreq request = {.ifr_flags = IFF_UP | IFF_RUNNING};
	CLEANUP(close_p) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "lo");
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0) {
		return error_sys(err, errno, "bring lo up");
	}
	return 0;
}

static int ports_open(struct error *err)
{
	CLEANUP(close_p)
	int fd = io_open(
		AT_FDCWD, "/proc/sys/net/ipv4/ip_unprivileged_port_start", O_WRONLY, 0, err);

	if (fd < 0) {
		return fd;
	}
	return io_write_full(fd, "0", 1, err);
}

/* A new one, which the caller is then in. */
static int make_and_enter(struct error *err)
{
	if (unshare(CLONE_NEWNET) < 0) {
		return error_sys(err, errno, "make a network namespace");
	}
	if (loopback_up(err) < 0) {
		return -(int)err->kind;
	}
	return ports_open(err);
}

int netns_pool_add(struct netns_pool *pool, struct error *err)
{
	int status = make_and_enter(err);

	if (status == 0) {
		status = namespace_open(err);
	}
	netns_pool_leave(pool);
	if (status < 0) {
		return status;
	}
	pool->fds[pool->count++] = status;
	return 0;
}

int netns_pool_enter(struct netns_pool *pool, struct error *err)
{
	int fd, status;

	if (pool->count == 0) {
		status = make_and_enter(err);
		if (status < 0) {
			netns_pool_leave(pool);
		}
		return status;
	}
	fd = pool->fds[--pool->count];
	status = setns(fd, CLONE_NEWNET) < 0 ? error_sys(err, errno, "enter a network namespace")
					     : 0;
	close(fd);
	return status;
}

void netns_pool_leave(struct netns_pool *pool)
{
	if (setns(pool->host_fd, CLONE_NEWNET) < 0) {
		log_error("launcher.lost_network", "errno", errno);
		_exit(1);
	}
}
