/*
 * Making, limiting, freezing, killing and removing the cgroups of one sandbox. Everything is
 * relative to the mount points' descriptors, so it works from the launcher's own mount namespace. A
 * group that is missing is never an error of a removal: another launcher may have been there
 * before.
 */
#include "pool/sandbox/cgroup.h"

#include "base/fault.h"
#include "base/io.h"
#include "base/memory.h"
#include "pool/sandbox/sandbox.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

/* The period of the CPU limit, the kernel's default and what container engines use. */
#define CPU_PERIOD_US 100000
#define CPU_QUOTA_LEAST_US 1000
/* Of cgroup.events and alike. */
#define SMALL_FILE_SIZE 512
/* Of cgroup.procs in one pass of the v1 kill. */
#define PROCS_SIZE 65536

void cgroup_path(const struct cgroups *cgroups, const char *id, const char *file, char *text)
{
	snprintf(text, CGROUP_PATH_SIZE, "%.256s/%.64s%s%.64s", cgroups->parent, id,
		file != NULL ? "/" : "", file != NULL ? file : "");
}

static int write_text(int dir_fd, const char *path, const char *text)
{
	CLEANUP(close_p) int fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0) {
		return -errno;
	}
	return 0;
}

static int read_small(int dir_fd, const char *path, char *text)
{
	CLEANUP(close_p) int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0) {
		return -errno;
	}
	got = read(fd, text, SMALL_FILE_SIZE - 1);
	if (got < 0) {
		return -errno;
	}
	text[got] = '\0';
	return 0;
}

/* On cgroup2 a group's controllers reach its children only when the group says so. */
static int controllers_hand_down(
	const struct cgroup_hierarchy *h, const char *group, struct error *err)
{
	static const struct {
		unsigned bit;
		const char *text;
	} wanted[] = {{CGROUP_CPU, "+cpu"}, {CGROUP_MEMORY, "+memory"}, {CGROUP_PIDS, "+pids"}};
	char path[CGROUP_PATH_SIZE + 32];

	snprintf(path, sizeof(path), "%s%scgroup.subtree_control", group,
		group[0] != '\0' ? "/" : "");
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		int status;

		if ((h->controllers & wanted[i].bit) == 0) {
			continue;
		}
		status = write_text(h->fd, path, wanted[i].text);
		if (status < 0) {
			error_sys(
				err, -status, "write %s to %s/%s", wanted[i].text, h->mount, path);
			return error_hint(err, status == -EBUSY
						       ? "processes live in that group; set "
							 "cgroup: to another name, or "
							 "start hobd in a delegated unit"
						       : "is the cgroup delegated to hob?");
		}
	}
	return 0;
}

/* Processes of a delegated unit (we are one) must leave it before it can have children. */
static void leave_for_daemon_group(const struct cgroup_hierarchy *h, const char *unit)
{
	char path[CGROUP_PATH_SIZE + 32], pid[16];

	snprintf(path, sizeof(path), "%s/daemon", unit);
	if (mkdirat(h->fd, path, 0755) < 0 && errno != EEXIST) {
		return;
	}
	snprintf(path, sizeof(path), "%s/daemon/cgroup.procs", unit);
	snprintf(pid, sizeof(pid), "%d", getpid());
	(void)write_text(h->fd, path, pid);
}

static int parent_make(
	const struct cgroups *cgroups, const struct cgroup_hierarchy *h, struct error *err)
{
	char path[CGROUP_PATH_SIZE];
	const char *first = cgroups->parent; /* the groups above it hand down already */
	const char *end = strstr(cgroups->parent, "/sandboxes");

	if (h->v2 && end != NULL && end[strlen("/sandboxes")] == '\0') {
		first = end;
		snprintf(path, sizeof(path), "%.*s", (int)(end - cgroups->parent), cgroups->parent);
		leave_for_daemon_group(h, path);
	}
	for (const char *slash = cgroups->parent;; slash++) {
		if (*slash != '/' && *slash != '\0') {
			continue;
		}
		snprintf(path, sizeof(path), "%.*s", (int)(slash - cgroups->parent),
			cgroups->parent);
		if (mkdirat(h->fd, path, 0755) < 0 && errno != EEXIST) {
			return error_sys(err, errno, "make cgroup %s/%s", h->mount, path);
		}
		if (*slash == '\0') {
			break;
		}
	}
	if (!h->v2) {
		return 0;
	}
	for (const char *slash = first; slash != NULL; slash = strchr(slash + 1, '/')) {
		snprintf(path, sizeof(path), "%.*s", (int)(slash - cgroups->parent),
			cgroups->parent);
		if (controllers_hand_down(h, path, err) < 0) {
			return -(int)err->kind;
		}
	}
	return controllers_hand_down(h, cgroups->parent, err);
}

int cgroups_prepare(const struct cgroups *cgroups, struct error *err)
{
	for (size_t i = 0; i < cgroups->count; i++) {
		if (parent_make(cgroups, &cgroups->hierarchies[i], err) < 0) {
			return -(int)err->kind;
		}
	}
	return 0;
}

void cgroups_unprepare(const struct cgroups *cgroups)
{
	for (size_t i = 0; i < cgroups->count; i++) {
		(void)unlinkat(cgroups->hierarchies[i].fd, cgroups->parent, AT_REMOVEDIR);
	}
}

/* The parent may be gone: another launcher that ended took it away when it was empty. */
static int group_make(const struct cgroups *cgroups, const struct cgroup_hierarchy *h,
	const char *id, struct error *err)
{
	char path[CGROUP_PATH_SIZE];

	cgroup_path(cgroups, id, NULL, path);
	if (mkdirat(h->fd, path, 0755) == 0) {
		return 0;
	}
	if (errno == ENOENT) {
		if (parent_make(cgroups, h, err) < 0) {
			return -(int)err->kind;
		}
		if (mkdirat(h->fd, path, 0755) == 0) {
			return 0;
		}
	}
	return error_sys(err, errno, "make cgroup %s/%s", h->mount, path);
}

int cgroup_make_main(const struct cgroups *cgroups, const char *id, int *ret_fd, struct error *err)
{
	const struct cgroup_hierarchy *h = &cgroups->hierarchies[0];
	char path[CGROUP_PATH_SIZE];
	int fd;

	if (group_make(cgroups, h, id, err) < 0) {
		return -(int)err->kind;
	}
	cgroup_path(cgroups, id, NULL, path);
	fd = io_open(h->fd, path, O_PATH | O_DIRECTORY, 0, err);
	if (fd < 0) {
		return fd;
	}
	*ret_fd = fd;
	return 0;
}

static int limit_write(const struct cgroups *cgroups, const struct cgroup_hierarchy *h,
	const char *id, const char *file, const char *text, struct error *err)
{
	char path[CGROUP_PATH_SIZE];
	int status;

	cgroup_path(cgroups, id, file, path);
	status = write_text(h->fd, path, text);
	if (status < 0) {
		return error_sys(err, -status, "write %s to %s/%s", text, h->mount, path);
	}
	return 0;
}

static int cpu_limit(const struct cgroups *cgroups, const struct cgroup_hierarchy *h,
	const char *id, int64_t millis, struct error *err)
{
	int64_t quota = millis * (CPU_PERIOD_US / 1000);
	char text[64];

	if (quota < CPU_QUOTA_LEAST_US) {
		quota = CPU_QUOTA_LEAST_US;
	}
	if (h->v2) {
		snprintf(text, sizeof(text), "%" PRId64 " %d", quota, CPU_PERIOD_US);
		return limit_write(cgroups, h, id, "cpu.max", text, err);
	}
	snprintf(text, sizeof(text), "%" PRId64, quota);
	return limit_write(cgroups, h, id, "cpu.cfs_quota_us", text, err);
}

/* A tenth of an ordinary sandbox's share where there is too little for all. A kernel without these
 * files has no shares to set. */
static int yield_set(const struct cgroups *cgroups, const struct cgroup_hierarchy *h,
	const char *id, struct error *err)
{
	static const struct {
		unsigned controller;
		bool v2;
		const char *file, *text;
	} shares[] = {
		{CGROUP_CPU, true, "cpu.weight", "10"}, {CGROUP_CPU, false, "cpu.shares", "102"}};

	for (size_t i = 0; i < ARRAY_SIZE(shares); i++) {
		if ((h->controllers & shares[i].controller) != 0 && h->v2 == shares[i].v2 &&
			limit_write(cgroups, h, id, shares[i].file, shares[i].text, err) < 0 &&
			err->sys != ENOENT) {
			return -(int)err->kind;
		}
	}
	*err = (struct error)ERROR_INIT;
	return 0;
}

static int limits_set(const struct cgroups *cgroups, const struct cgroup_hierarchy *h,
	const char *id, const struct sandbox_limits *limits, struct error *err)
{
	char text[32];
	int status = 0;

	if ((h->controllers & CGROUP_CPU) != 0 && limits->cpu_millis > 0) {
		status = cpu_limit(cgroups, h, id, limits->cpu_millis, err);
	}
	if (status == 0 && (h->controllers & CGROUP_MEMORY) != 0 && limits->memory_bytes > 0) {
		snprintf(text, sizeof(text), "%" PRId64, limits->memory_bytes);
		status = limit_write(
			cgroups, h, id, h->v2 ? "memory.max" : "memory.limit_in_bytes", text, err);
	}
	if (status == 0 && (h->controllers & CGROUP_PIDS) != 0 && limits->pids > 0) {
		snprintf(text, sizeof(text), "%" PRId64, limits->pids);
		status = limit_write(cgroups, h, id, "pids.max", text, err);
	}
	if (status == 0 && limits->background != 0) {
		status = yield_set(cgroups, h, id, err);
	}
	return status;
}

int cgroup_make_rest(const struct cgroups *cgroups, const char *id,
	const struct sandbox_limits *limits, int *ret_fds, size_t *ret_count, struct error *err)
{
	size_t count = 0;
	int status = 0;

	for (size_t i = 0; i < cgroups->count && status == 0; i++) {
		const struct cgroup_hierarchy *h = &cgroups->hierarchies[i];
		char path[CGROUP_PATH_SIZE];

		status = i > 0 ? group_make(cgroups, h, id, err) : 0;
		if (status == 0) {
			status = limits_set(cgroups, h, id, limits, err);
		}
		if (status == 0 && !h->v2) {
			cgroup_path(cgroups, id, "tasks", path);
			ret_fds[count] = io_open(h->fd, path, O_WRONLY, 0, err);
			status = ret_fds[count] < 0 ? ret_fds[count] : 0;
			count += status == 0 ? 1 : 0;
		}
	}
	while (status < 0 && count > 0) {
		fd_done(&ret_fds[--count]);
	}
	*ret_count = count;
	return status;
}

static const char *freezer_file(const struct cgroup_hierarchy *h)
{
	return h->v2 ? "cgroup.freeze" : "freezer.state";
}

int cgroup_freezer_give(
	const struct cgroups *cgroups, const char *id, uid_t uid, gid_t gid, struct error *err)
{
	const struct cgroup_hierarchy *h = &cgroups->hierarchies[0];
	char path[CGROUP_PATH_SIZE];

	cgroup_path(cgroups, id, freezer_file(h), path);
	return fchownat(h->fd, path, uid, gid, AT_SYMLINK_NOFOLLOW) == 0
		       ? 0
		       : error_sys(err, errno, "chown %s/%s", h->mount, path);
}

int cgroup_freeze(const struct cgroups *cgroups, const char *id, bool frozen, struct error *err)
{
	const struct cgroup_hierarchy *h = &cgroups->hierarchies[0];
	char path[CGROUP_PATH_SIZE];
	const char *text = frozen ? "1" : "0";
	int status;

	if (!h->v2) {
		text = frozen ? "FROZEN" : "THAWED";
	}
	cgroup_path(cgroups, id, freezer_file(h), path);
	status = write_text(h->fd, path, text);
	if (status == -ENOENT || status == -ENODEV) {
		return error_set(err, ERROR_NOT_FOUND, "no sandbox %s", id);
	}
	return status < 0 ? error_sys(err, -status, "%s %s", frozen ? "freeze" : "thaw", id) : 0;
}

int cgroup_page_out(const struct cgroups *cgroups, const char *id, struct error *err)
{
	char path[CGROUP_PATH_SIZE], text[SMALL_FILE_SIZE] = "0";
	int status = -EOPNOTSUPP;

	for (size_t i = 0; i < cgroups->count && status == -EOPNOTSUPP; i++) {
		const struct cgroup_hierarchy *h = &cgroups->hierarchies[i];

		if ((h->controllers & CGROUP_MEMORY) == 0) {
			continue;
		}
		if (h->v2) {
			cgroup_path(cgroups, id, "memory.current", path);
			(void)read_small(h->fd, path, text);
			text[strcspn(text, "\n")] = '\0';
		}
		cgroup_path(cgroups, id, h->v2 ? "memory.reclaim" : "memory.force_empty", path);
		status = write_text(h->fd, path, text);
	}
	/* Not all of it could be had. */
	if (status == -EAGAIN || status == -EBUSY) {
		return 0;
	}
	return status < 0 ? error_sys(err, -status, "page out %s", id) : 0;
}

/* v1: one pass of SIGKILL over what is frozen, so that nothing can fork away, then a thaw. */
static int kill_v1(const struct cgroups *cgroups, const char *id, struct error *err)
{
	const struct cgroup_hierarchy *h = &cgroups->hierarchies[0];
	CLEANUP(close_p) int fd = -1;
	char path[CGROUP_PATH_SIZE], text[PROCS_SIZE];
	struct error ignored = ERROR_INIT;
	ssize_t got;

	if (cgroup_freeze(cgroups, id, true, err) < 0) {
		return err->kind == ERROR_NOT_FOUND ? 0 : -(int)err->kind;
	}
	cgroup_path(cgroups, id, "cgroup.procs", path);
	fd = openat(h->fd, path, O_RDONLY | O_CLOEXEC);
	got = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	text[got < 0 ? 0 : got] = '\0';
	for (char *at = text; *at != '\0';) {
		long pid = strtol(at, &at, 10);

		if (pid > 1) {
			kill((pid_t)pid, SIGKILL);
		}
		at += strspn(at, "\n");
	}
	if (cgroup_freeze(cgroups, id, false, &ignored) < 0 && ignored.kind != ERROR_NOT_FOUND) {
		error_copy(err, &ignored);
		return -(int)err->kind;
	}
	return 0;
}

pid_t cgroup_process(const struct cgroups *cgroups, const char *id)
{
	char path[CGROUP_PATH_SIZE], text[SMALL_FILE_SIZE];

	cgroup_path(cgroups, id, "cgroup.procs", path);
	if (read_small(cgroups->hierarchies[0].fd, path, text) < 0) {
		return 0;
	}
	return (pid_t)strtol(text, NULL, 10);
}

int cgroup_kill(const struct cgroups *cgroups, const char *id, struct error *err)
{
	const struct cgroup_hierarchy *h = &cgroups->hierarchies[0];
	char path[CGROUP_PATH_SIZE];
	int status;

	if (!h->v2) {
		return kill_v1(cgroups, id, err);
	}
	cgroup_path(cgroups, id, "cgroup.kill", path);
	status = write_text(h->fd, path, "1");
	if (status == 0 || status == -ENOENT || status == -ENODEV) {
		return 0;
	}
	return error_sys(err, -status, "kill %s", id);
}

int cgroup_state_read(const struct cgroups *cgroups, const char *id, struct cgroup_state *ret_state,
	struct error *err)
{
	const struct cgroup_hierarchy *h = &cgroups->hierarchies[0];
	char path[CGROUP_PATH_SIZE], text[SMALL_FILE_SIZE];
	int status;

	cgroup_path(cgroups, id, h->v2 ? "cgroup.events" : "cgroup.procs", path);
	status = read_small(h->fd, path, text);
	if (status == -ENOENT || status == -ENODEV) {
		*ret_state = (struct cgroup_state){.exists = false};
		return 0;
	}
	if (status < 0) {
		return error_sys(err, -status, "read %s/%s", h->mount, path);
	}
	*ret_state = (struct cgroup_state){.exists = true,
		.populated = h->v2 ? strstr(text, "populated 1") != NULL : text[0] != '\0'};
	if (h->v2) {
		ret_state->frozen = strstr(text, "frozen 1") != NULL;
		return 0;
	}
	cgroup_path(cgroups, id, "freezer.state", path);
	ret_state->frozen = read_small(h->fd, path, text) == 0 && str_starts(text, "FROZEN");
	return 0;
}

/* The main group goes last: it is what a later start finds. */
int cgroup_remove(const struct cgroups *cgroups, const char *id, struct error *err)
{
	char path[CGROUP_PATH_SIZE];
	int fault = fault_point("destroy.cgroup");

	if (fault != 0) {
		return error_sys(err, fault, "remove the cgroups of %s", id);
	}
	cgroup_path(cgroups, id, NULL, path);
	for (size_t i = cgroups->count; i-- > 0;) {
		if (unlinkat(cgroups->hierarchies[i].fd, path, AT_REMOVEDIR) == 0 ||
			errno == ENOENT) {
			continue;
		}
		if (errno == EBUSY || errno == ENOTEMPTY) {
			return error_set(err, ERROR_BUSY, "processes of %s are not gone yet", id);
		}
		return error_sys(
			err, errno, "remove cgroup %s/%s", cgroups->hierarchies[i].mount, path);
	}
	return 0;
}
