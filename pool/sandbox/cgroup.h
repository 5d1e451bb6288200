/*
 * The cgroups of sandboxes: <cgroup>/<id> in the cgroup2 hierarchy and in each v1 hierarchy that
 * has a controller hob limits by. One hierarchy is the main one (cgroup2 if the machine has it
 * mounted, whatever its controllers; else the v1 freezer): it freezes, kills and says when a
 * sandbox is empty.
 */
#ifndef HOB_POOL_SANDBOX_CGROUP_H
#define HOB_POOL_SANDBOX_CGROUP_H

#include "base/error.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct config;
struct sandbox_limits;

#define CGROUP_HIERARCHIES_MAX 8
/* Room for a mount point or a parent below it. */
#define CGROUP_PATH_SIZE 512

enum cgroup_controller {
	CGROUP_CPU = 1u,
	CGROUP_CPUACCT = 2u,
	CGROUP_MEMORY = 4u,
	CGROUP_PIDS = 8u,
	CGROUP_FREEZER = 16u,
};

struct cgroup_hierarchy {
	bool v2;
	unsigned controllers; /* of enum cgroup_controller, those used from this hierarchy */
	char mount[CGROUP_PATH_SIZE];
	int fd; /* of the mount point; -1 until cgroups_open */
};

struct cgroups {
	char parent[CGROUP_PATH_SIZE]; /* below each mount point, without slashes at its ends */
	size_t count;
	struct cgroup_hierarchy hierarchies[CGROUP_HIERARCHIES_MAX]; /* the main one first */
};

/*
 * From the texts of /proc/self/mountinfo, /proc/self/cgroup and cgroup2's cgroup.controllers.
 * `name` is config->cgroup; `delegated` says whether our own cgroup2 group is ours to divide.
 * ERROR_UNSUPPORTED when there is neither cgroup2 nor a v1 freezer.
 */
MUSTCHECK int cgroups_parse(const char *mountinfo, const char *own, const char *controllers,
	const char *name, bool delegated, struct cgroups *ret_cgroups, struct error *err);
/* Reads those texts on this machine and opens the mount points. */
MUSTCHECK int cgroups_open(
	const struct config *config, struct cgroups *ret_cgroups, struct error *err);
void cgroups_close(struct cgroups *cgroups);

/* Makes the parents; on cgroup2 hands the controllers down. */
MUSTCHECK int cgroups_prepare(const struct cgroups *cgroups, struct error *err);
/* Removes the parents if no sandbox is left below them. */
void cgroups_unprepare(const struct cgroups *cgroups);

/* Makes the main group. *ret_fd: of its folder, for CLONE_INTO_CGROUP; ERROR_EXISTS. */
MUSTCHECK int cgroup_make_main(
	const struct cgroups *cgroups, const char *id, int *ret_fd, struct error *err);
/* Makes the others and sets the limits in all. The descriptors are what the sandbox's first process
 * joins by writing "0" into them: that, unlike moving it from outside through cgroup.procs, does
 * not wait for a grace period (22 us against 16 ms). */
MUSTCHECK int cgroup_make_rest(const struct cgroups *cgroups, const char *id,
	const struct sandbox_limits *limits, int *ret_fds, size_t *ret_count, struct error *err);

/* Gives the file that freezes the group to hob's user, who may have it frozen by the launcher
 * anyhow, so that a thaw at a claim costs one write and no message. */
MUSTCHECK int cgroup_freezer_give(
	const struct cgroups *cgroups, const char *id, uid_t uid, gid_t gid, struct error *err);
MUSTCHECK int cgroup_freeze(
	const struct cgroups *cgroups, const char *id, bool frozen, struct error *err);
/* Writes out, or drops, what it can of the group's memory; waits for it. */
MUSTCHECK int cgroup_page_out(const struct cgroups *cgroups, const char *id, struct error *err);
/* SIGKILL to everything inside, frozen or not. A missing group is success. */
MUSTCHECK int cgroup_kill(const struct cgroups *cgroups, const char *id, struct error *err);

/* One of its processes, the oldest as a rule; 0: there is none. */
pid_t cgroup_process(const struct cgroups *cgroups, const char *id);

struct cgroup_state {
	bool exists, populated, frozen;
};
MUSTCHECK int cgroup_state_read(const struct cgroups *cgroups, const char *id,
	struct cgroup_state *ret_state, struct error *err);
/* ERROR_BUSY while a process is left in one. */
MUSTCHECK int cgroup_remove(const struct cgroups *cgroups, const char *id, struct error *err);

/* <parent>/<id>[/<file>] into text[CGROUP_PATH_SIZE]. */
void cgroup_path(const struct cgroups *cgroups, const char *id, const char *file, char *text);

#endif
