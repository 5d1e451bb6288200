/* Cgroups as sandboxes use them: which hierarchies there are, which limits they can set, and
 * whether a process can be born into a group, frozen there and killed with it. Each probe makes a
 * group of its own name at the root and removes it. */
#include "pool/cli/doctor/doctor_probe.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/memory.h"
#include "configs/config.h"
#include "pool/sandbox/cgroup.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* A group that is still freezing after this long never will. */
#define FREEZE_WAIT_MS 2000

static void cgroups_close_p(struct cgroups *cgroups)
{
	cgroups_close(cgroups);
}

/* As hobd opens them, under a name that nobody else has. */
static int open_own(const struct doctor *doctor, struct cgroups *cgroups, struct error *err)
{
	struct config config = *doctor->config;
	char name[48];

	snprintf(name, sizeof(name), "hob-doctor-%d", getpid());
	config.cgroup = name;
	return cgroups_open(&config, cgroups, err);
}

void probe_cgroups_sweep(const struct doctor *doctor, pid_t pid)
{
	CLEANUP(cgroups_close_p) struct cgroups cgroups = {0};
	struct error err = ERROR_INIT;
	char name[48];

	snprintf(name, sizeof(name), "hob-doctor-%d", pid);
	if (open_own(doctor, &cgroups, &err) < 0) {
		return;
	}
	for (size_t i = 0; i < cgroups.count; i++) {
		(void)unlinkat(cgroups.hierarchies[i].fd, name, AT_REMOVEDIR);
	}
}

static void describe(const struct cgroups *cgroups, char *text, size_t size)
{
	static const struct {
		unsigned bit;
		const char *name;
	} names[] = {{CGROUP_CPU, "cpu"}, {CGROUP_MEMORY, "memory"}, {CGROUP_PIDS, "pids"},
		{CGROUP_FREEZER, "freezer"}};
	bool one = true;
	size_t used = 0;

	for (size_t i = 0; i < cgroups->count && used < size; i++) {
		const struct cgroup_hierarchy *h = &cgroups->hierarchies[i];

		one = true;
		used += (size_t)snprintf(
			text + used, size - used, "%s%s:", i > 0 ? "; " : "", h->v2 ? "v2" : "v1");
		for (size_t j = 0; j < ARRAY_SIZE(names) && used < size; j++) {
			if ((h->controllers & names[j].bit) != 0) {
				used += (size_t)snprintf(text + used, size - used, "%s %s",
					one ? "" : ",", names[j].name);
				one = false;
			}
		}
	}
}

void probe_cgroups(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(cgroups_close_p) struct cgroups cgroups = {0};
	struct error err = ERROR_INIT;
	char text[200] = "";

	if (open_own(doctor, &cgroups, &err) < 0) {
		finding_fail(finding, &err);
		return;
	}
	describe(&cgroups, text, sizeof(text));
	finding_set(finding, FINDING_OK, "%s (%s)",
		!cgroups.hierarchies[0].v2 ? "version 1"
		: cgroups.count > 1        ? "hybrid"
					   : "version 2",
		text);
}

/* v1: the limit's file must be in a new group. v2: the controller must be on offer at the root; the
 * file comes only once hobd hands it down. */
static void probe_controller(const struct doctor *doctor, struct finding *finding, unsigned bit,
	const char *v1_file, const char *v2_name)
{
	CLEANUP(cgroups_close_p) struct cgroups cgroups = {0};
	struct error err = ERROR_INIT;
	char path[CGROUP_PATH_SIZE * 2];
	bool usable;

	if (open_own(doctor, &cgroups, &err) < 0) {
		finding_fail(finding, &err);
		return;
	}
	for (size_t i = 0; i < cgroups.count; i++) {
		const struct cgroup_hierarchy *h = &cgroups.hierarchies[i];

		if ((h->controllers & bit) == 0) {
			continue;
		}
		if (h->v2) {
			finding_set(finding, FINDING_OK, "version 2, %s", v2_name);
			return;
		}
		if (mkdirat(h->fd, cgroups.parent, 0755) < 0) {
			finding_fail_sys(finding, h->mount);
			return;
		}
		snprintf(path, sizeof(path), "%s/%s", cgroups.parent, v1_file);
		usable = faccessat(h->fd, path, W_OK, 0) == 0;
		(void)unlinkat(h->fd, cgroups.parent, AT_REMOVEDIR);
		finding_set(finding, usable ? FINDING_OK : FINDING_LACKING, "version 1, %s%s",
			v1_file, usable ? "" : " is missing");
		return;
	}
	finding_set(finding, FINDING_LACKING, "no hierarchy has the controller");
}

void probe_cpu(const struct doctor *doctor, struct finding *finding)
{
	probe_controller(doctor, finding, CGROUP_CPU, "cpu.cfs_quota_us", "cpu.max");
}

void probe_memory(const struct doctor *doctor, struct finding *finding)
{
	probe_controller(doctor, finding, CGROUP_MEMORY, "memory.limit_in_bytes", "memory.max");
}

void probe_pids(const struct doctor *doctor, struct finding *finding)
{
	probe_controller(doctor, finding, CGROUP_PIDS, "pids.max", "pids.max");
}

/* A group of the version 2 hierarchy with one process in it that sleeps. */
struct inhabited {
	struct cgroups cgroups;
	int group_fd; /* -1: none */
	pid_t pid; /* 0: none */
};

static void inhabited_done(struct inhabited *group)
{
	if (group->pid > 0) {
		kill(group->pid, SIGKILL);
	}
	if (group->group_fd >= 0) {
		int freeze = openat(group->group_fd, "cgroup.freeze", O_WRONLY | O_CLOEXEC);

		if (freeze >= 0) {
			(void)!write(freeze, "0", 1);
			close(freeze);
		}
	}
	if (group->pid > 0) {
		(void)waitpid(group->pid, NULL, 0);
	}
	if (group->group_fd >= 0) {
		close(group->group_fd);
		/* The process is reaped, but its group may still count it for a moment. */
		for (int tries = 0; tries < 100; tries++) {
			if (unlinkat(group->cgroups.hierarchies[0].fd, group->cgroups.parent,
				    AT_REMOVEDIR) == 0 ||
				errno != EBUSY) {
				break;
			}
			usleep(2000);
		}
	}
	cgroups_close(&group->cgroups);
}

static bool inhabit(const struct doctor *doctor, struct inhabited *group, struct finding *finding)
{
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD};
	struct error err = ERROR_INIT;
	const struct cgroup_hierarchy *main;

	group->group_fd = -1;
	if (open_own(doctor, &group->cgroups, &err) < 0) {
		finding_fail(finding, &err);
		return false;
	}
	main = &group->cgroups.hierarchies[0];
	if (!main->v2) {
		finding_set(finding, FINDING_LACKING, "cgroup2 is not mounted");
		return false;
	}
	if (mkdirat(main->fd, group->cgroups.parent, 0755) < 0) {
		finding_fail_sys(finding, main->mount);
		return false;
	}
	group->group_fd = io_open(main->fd, group->cgroups.parent, O_RDONLY | O_DIRECTORY, 0, &err);
	if (group->group_fd < 0) {
		finding_fail(finding, &err);
		return false;
	}
	args.cgroup = (unsigned)group->group_fd;
	group->pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (group->pid < 0) {
		finding_fail_sys(finding, "clone3 into a cgroup");
		return false;
	}
	if (group->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			pause();
		}
	}
	return true;
}

static bool group_write(const struct inhabited *group, const char *file, struct finding *finding)
{
	CLEANUP(close_p) int fd = openat(group->group_fd, file, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "1", 1) < 0) {
		finding_fail_sys(finding, file);
		return false;
	}
	return true;
}

static bool events_say(const struct inhabited *group, const char *line)
{
	CLEANUP(buffer_done) struct buffer text;
	struct error err = ERROR_INIT;
	int64_t end_ms = clock_mono_ms() + FREEZE_WAIT_MS;

	buffer_init(&text, 4096);
	for (;;) {
		buffer_clear(&text);
		if (io_read_file(group->group_fd, "cgroup.events", &text, &err) < 0) {
			return false;
		}
		if (strstr(buffer_text(&text), line) != NULL) {
			return true;
		}
		if (clock_mono_ms() > end_ms) {
			return false;
		}
		usleep(500);
	}
}

void probe_clone_into(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(inhabited_done) struct inhabited group = {.group_fd = -1};

	if (inhabit(doctor, &group, finding)) {
		if (events_say(&group, "populated 1")) {
			finding_set(finding, FINDING_OK, "yes");
		} else {
			finding_set(finding, FINDING_LACKING, "the process was born elsewhere");
		}
	}
}

void probe_freeze(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(inhabited_done) struct inhabited group = {.group_fd = -1};
	int64_t start_us;

	if (!inhabit(doctor, &group, finding)) {
		return;
	}
	start_us = clock_mono_us();
	if (!group_write(&group, "cgroup.freeze", finding)) {
		return;
	}
	if (events_say(&group, "frozen 1")) {
		finding_set(finding, FINDING_OK, "frozen after %d us",
			(int)(clock_mono_us() - start_us));
	} else {
		finding_set(finding, FINDING_LACKING, "not frozen after %d ms", FREEZE_WAIT_MS);
	}
}

void probe_kill(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(inhabited_done) struct inhabited group = {.group_fd = -1};

	if (!inhabit(doctor, &group, finding) || !group_write(&group, "cgroup.freeze", finding) ||
		!group_write(&group, "cgroup.kill", finding)) {
		return;
	}
	if (events_say(&group, "populated 0")) {
		finding_set(finding, FINDING_OK, "ends frozen processes too");
	} else {
		finding_set(finding, FINDING_LACKING, "a process lived on");
	}
}
