/* Start-up. Everything here runs before privileges are dropped, but for startup_notify. */
#include "pool/startup.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/process.h"
#include "configs/config.h"
#include "snapshots/volume/volume.h"

#include <fcntl.h>
#include <netdb.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* Connections wait here while hobd starts or is restarted. */
#define LISTEN_BACKLOG 1024
#define LISTEN_FD_FIRST 3
/* Of a sandbox: pidfd, connection, state, execs. The rest: clients, the catalog, logs. */
#define DESCRIPTORS_PER_SANDBOX 4
#define DESCRIPTORS_BESIDE 16384
/* They end when what they are at is done: mostly in milliseconds. */
#define LAUNCHERS_WAIT_MS 30000
#define LAUNCHERS_LOOK_US 2000

static int find_user(const struct config *config, uid_t *ret_uid, gid_t *ret_gid, struct error *err)
{
	const struct passwd *user = getpwnam(config->user);

	if (user == NULL) {
		error_set(err, ERROR_NOT_FOUND, "no user \"%s\" on this machine", config->user);
		return error_hint(err,
			"useradd --system --user-group --no-create-home %s, or set `user` in "
			"hob.yaml",
			config->user);
	}
	*ret_uid = user->pw_uid;
	*ret_gid = user->pw_gid;
	return 0;
}

static int make_folder(const char *path, mode_t mode, uid_t uid, gid_t gid, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	struct stat stat;
	int status = io_mkdir_all(AT_FDCWD, path, 0755, err);

	if (status < 0) {
		return status;
	}
	if ((fd = io_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0, err)) < 0) {
		return fd;
	}
	if (fstat(fd, &stat) < 0) {
		return error_sys(err, errno, "stat %s", path);
	}
	if (stat.st_uid == uid && stat.st_gid == gid && (stat.st_mode & 07777) == mode) {
		return 0;
	}
	if (fchown(fd, uid, gid) < 0 || fchmod(fd, mode) < 0) {
		return error_sys(err, errno, "hand %s to its user", path);
	}
	return 0;
}

int startup_folders(const struct config *config, struct error *err)
{
	CLEANUP(free_p) char *sandboxes = xasprintf("%s/sandboxes", config->run);
	uid_t uid = 0;
	gid_t gid = 0;
	int status = find_user(config, &uid, &gid, err);

	if (status < 0 || (status = volume_mount(config->store, err)) < 0 ||
		(status = make_folder(config->store, 0711, uid, gid, err)) < 0 ||
		(status = make_folder(config->run, 0755, uid, gid, err)) < 0) {
		return status;
	}
	return make_folder(sandboxes, 0711, uid, gid, err);
}

static int lock_is_held(int fd, const char *path, struct error *err)
{
	char pid[32] = "";
	ssize_t got = pread(fd, pid, sizeof(pid) - 1, 0);

	if (got > 0) {
		pid[strcspn(pid, "\n")] = '\0';
	}
	error_set(err, ERROR_BUSY, "another hobd is running (pid %s)",
		*pid != '\0' ? pid : "unknown");
	return error_hint(err, "it holds %s; stop it, or give this one another `run` folder", path);
}

/* Is somebody the hobd of this run folder? */
static int check_alone(const struct config *config, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("%s/hobd.lock", config->run);
	CLEANUP(close_p) int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
		return lock_is_held(fd, path, err);
	}
	return 0;
}

int startup_launchers_lock(const struct config *config, int *ret_fd, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("%s/launchers.lock", config->run);
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600, err);
	int64_t end_ms = clock_mono_ms() + LAUNCHERS_WAIT_MS;
	int status = fd < 0 ? fd : 0;

	while (status == 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR) {
			return error_sys(err, errno, "lock %s", path);
		}
		if (clock_mono_ms() >= end_ms) {
			log_warn("launcher.lingers", "lock", path);
			*ret_fd = -1;
			return 0;
		}
		status = check_alone(config, err);
		(void)usleep(LAUNCHERS_LOOK_US);
	}
	if (status == 0) {
		*ret_fd = steal_fd(&fd);
	}
	return status;
}

int startup_lock(const struct config *config, int *ret_fd, struct error *err)
{
	CLEANUP(free_p) char *path = xasprintf("%s/hobd.lock", config->run);
	CLEANUP(close_p) int fd = io_open(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0644, err);
	char pid[32];
	int length;

	if (fd < 0) {
		return fd;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		return errno == EWOULDBLOCK ? lock_is_held(fd, path, err)
					    : error_sys(err, errno, "lock %s", path);
	}
	length = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)length, 0) != length) {
		return error_sys(err, errno, "write %s", path);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* systemd's convention: descriptors from 3 on, meant for the process LISTEN_PID. */
static int socket_of_systemd(void)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	int fd = LISTEN_FD_FIRST;
	bool ours = pid != NULL && count != NULL && strtol(pid, NULL, 10) == (long)getpid() &&
		    strtol(count, NULL, 10) >= 1;

	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	if (!ours || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
		return -1;
	}
	return fd;
}

static int bind_socket(int fd, const char *path, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path)) {
		error_set(err, ERROR_INVALID, "the socket's path is too long: %s", path);
		return error_hint(
			err, "at most %zu bytes; set `socket`", sizeof(address.sun_path) - 1);
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	/* The lock is ours, so what is there is a dead hobd's. */
	if (unlink(path) < 0 && errno != ENOENT) {
		return error_sys(err, errno, "remove the old %s", path);
	}
	if (bind(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) < 0) {
		return error_sys(err, errno, "bind %s", path);
	}
	if (listen(fd, LISTEN_BACKLOG) < 0) {
		return error_sys(err, errno, "listen on %s", path);
	}
	return 0;
}

int startup_socket(const struct config *config, int *ret_fd, struct error *err)
{
	const struct group *group = getgrnam(config->group);
	CLEANUP(close_p) int fd = socket_of_systemd();
	mode_t mask;
	uid_t uid = 0;
	gid_t gid = 0;
	int status;

	if (fd >= 0) {
		(void)io_set_nonblock(fd, true);
		*ret_fd = steal_fd(&fd);
		return 0;
	}
	if ((status = find_user(config, &uid, &gid, err)) < 0) {
		return status;
	}
	if (group == NULL) {
		error_set(err, ERROR_NOT_FOUND, "no group \"%s\" on this machine", config->group);
		return error_hint(
			err, "groupadd --system %s, or set `group` in hob.yaml", config->group);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return error_sys(err, errno, "make a socket");
	}
	mask = umask(0177);
	status = bind_socket(fd, config->socket, err);
	umask(mask);
	if (status < 0) {
		return status;
	}
	if (chown(config->socket, uid, group->gr_gid) < 0 || chmod(config->socket, 0660) < 0) {
		return error_sys(err, errno, "give %s to group %s", config->socket, config->group);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

int startup_program(const char *name, int *ret_fd, struct error *err)
{
	CLEANUP(free_p) char *path = NULL;
	int fd, status = process_sibling(name, &path, err);

	if (status < 0) {
		return status;
	}
	fd = io_open(AT_FDCWD, path, O_RDONLY, 0, err);
	if (fd < 0) {
		return error_wrap(err, "open %s", path);
	}
	*ret_fd = fd;
	return 0;
}

void startup_descriptors(const struct config *config)
{
	rlim_t wanted =
		(rlim_t)config->max_sandboxes * DESCRIPTORS_PER_SANDBOX + DESCRIPTORS_BESIDE;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted) {
		return;
	}
	limit.rlim_cur = wanted;
	limit.rlim_max = limit.rlim_max < wanted ? wanted : limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
		(void)getrlimit(RLIMIT_NOFILE, &limit);
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
		log_warn("start.descriptors", "wanted", (uint64_t)wanted, "got",
			(uint64_t)limit.rlim_max, "message",
			"fewer sandboxes than max_sandboxes may fit");
	}
}

void startup_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = path != NULL ? strlen(path) : 0;
	CLEANUP(close_p) int fd = -1;

	if (length == 0 || length >= sizeof(address.sun_path) || (*path != '/' && *path != '@')) {
		return;
	}
	memcpy(address.sun_path, path, length);
	if (*path == '@') {
		address.sun_path[0] = '\0';
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL,
			      (const struct sockaddr *)(const void *)&address,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0) {
		log_warn("start.notify_failed", "socket", path, "errno", strerror(errno));
	}
}

/* ---- the socket for webhooks ---- */

/* "127.0.0.1:80", "[::1]:80", "host:80" */
static int resolve(const char *text, struct addrinfo **ret_list, struct error *err)
{
	const struct addrinfo wanted = {
		.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	const char *colon = strrchr(text, ':');
	bool brackets = text[0] == '[' && colon > text && colon[-1] == ']';
	CLEANUP(free_p)
	char *host = xstrndup(text + brackets, (size_t)(colon - text) - 2 * (size_t)brackets);
	int code = getaddrinfo(host, colon + 1, &wanted, ret_list);

	if (code != 0) {
		error_set(err, ERROR_INVALID, "hook_listen: %s: %s", text, gai_strerror(code));
		return error_hint(err, "such as 127.0.0.1:8090");
	}
	return 0;
}

int startup_hook_socket(const struct config *config, int *ret_fd, struct error *err)
{
	CLEANUP(close_p) int fd = -1;
	struct addrinfo *list = NULL;
	int yes = 1, status;

	*ret_fd = -1;
	if (streq(config->hook_listen, "none")) {
		return 0;
	}
	status = resolve(config->hook_listen, &list, err);
	if (status < 0) {
		return status;
	}
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) < 0 ||
		bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
		error_sys(err, errno, "listen for webhooks on %s", config->hook_listen);
		status = error_hint(err, "set `hook_listen` in hob.yaml to a free address");
	}
	freeaddrinfo(list);
	if (status == 0) {
		*ret_fd = steal_fd(&fd);
	}
	return status;
}
