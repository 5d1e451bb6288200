/* What the kernel can do: each ability is used once, on the probing process itself. */
#include "pool/cli/doctor/doctor_probe.h"

#include "base/io.h"
#include "base/memory.h"
#include "configs/config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

bool probe_read_line(const char *path, char *text, size_t size)
{
	FILE *file = fopen(path, "re");
	bool good = file != NULL && fgets(text, (int)size, file) != NULL;

	if (file != NULL) {
		fclose(file);
	}
	if (good) {
		text[strcspn(text, "\n")] = '\0';
	}
	return good;
}

/* 5.15 has id-mapped mounts of ext4, xfs and btrfs; overlayfs takes mapped layers from 5.19 on. */
void probe_kernel(const struct doctor *doctor, struct finding *finding)
{
	struct utsname name;
	int major = 0, minor = 0;

	(void)doctor;
	if (uname(&name) < 0 || sscanf(name.release, "%d.%d", &major, &minor) != 2) {
		finding_fail_sys(finding, "uname");
		return;
	}
	if (major * 1000 + minor < 5019) {
		finding_set(finding, FINDING_LACKING, "%s %s, older than 5.19", name.release,
			name.machine);
		return;
	}
	finding_set(finding, FINDING_OK, "%s %s", name.release, name.machine);
}

void probe_root(const struct doctor *doctor, struct finding *finding)
{
	(void)doctor;
	if (geteuid() == 0) {
		finding_set(finding, FINDING_OK, "yes");
	} else {
		finding_set(finding, FINDING_LACKING, "no, uid %u: what needs root was not tried",
			(unsigned)geteuid());
	}
}

void probe_namespaces(const struct doctor *doctor, struct finding *finding)
{
	static const struct {
		const char *name;
		int flag;
	} kinds[] = {{"user", CLONE_NEWUSER}, {"mount", CLONE_NEWNS}, {"pid", CLONE_NEWPID},
		{"network", CLONE_NEWNET}, {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS},
		{"cgroup", CLONE_NEWCGROUP}};

	(void)doctor;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (unshare(kinds[i].flag) < 0) {
			CLEANUP(free_p) char *what = xasprintf("a %s namespace", kinds[i].name);

			finding_fail_sys(finding, what);
			if (errno == ENOSPC) {
				finding_advise(finding, "raise the sysctl user.max_%s_namespaces",
					kinds[i].name);
			}
			return;
		}
	}
	finding_set(finding, FINDING_OK, "user, mount, pid, network, ipc, uts, cgroup");
}

void probe_namespace_counts(const struct doctor *doctor, struct finding *finding)
{
	static const char *const kinds[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
	int64_t wanted = doctor->config->max_sandboxes + 64;
	int64_t least = INT64_MAX;
	const char *which = "";

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		char path[80], text[32];

		snprintf(path, sizeof(path), "/proc/sys/user/max_%s_namespaces", kinds[i]);
		if (probe_read_line(path, text, sizeof(text)) && strtoll(text, NULL, 10) < least) {
			least = strtoll(text, NULL, 10);
			which = kinds[i];
		}
	}
	if (least == INT64_MAX) {
		finding_set(finding, FINDING_UNTRIED, "/proc/sys/user cannot be read");
	} else if (least < wanted) {
		finding_set(finding, FINDING_LACKING,
			"%" PRId64 " %s namespaces, %" PRId64 " wanted", least, which, wanted);
		finding_advise(finding,
			"sysctl -w user.max_%s_namespaces=%" PRId64 ", or lower max_sandboxes",
			which, wanted);
	} else {
		finding_set(finding, FINDING_OK, "%" PRId64 " of each at least", least);
	}
}

void probe_pidfd(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(close_p) int fd = -1;
	siginfo_t info;
	pid_t pid = fork();

	(void)doctor;
	if (pid < 0) {
		finding_fail_sys(finding, "fork");
		return;
	}
	if (pid == 0) {
		for (;;) {
			pause();
		}
	}
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0) {
		finding_fail_sys(finding, "pidfd_open");
		kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		return;
	}
	if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0) {
		finding_fail_sys(finding, "pidfd_send_signal");
		kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		return;
	}
	if (waitid(P_PIDFD, (id_t)fd, &info, WEXITED) < 0) {
		finding_fail_sys(finding, "waitid on a pidfd");
		(void)waitpid(pid, NULL, 0);
		return;
	}
	finding_set(finding, FINDING_OK, "opened, signalled, waited for");
}

/* It must open what lies beneath, and refuse what leads out. */
void probe_openat2(const struct doctor *doctor, struct finding *finding)
{
	CLEANUP(close_p) int folder = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	CLEANUP(close_p) int inside = -1;
	CLEANUP(close_p) int outside = -1;
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};

	(void)doctor;
	inside = (int)syscall(SYS_openat2, folder, "ns", &how, sizeof(how));
	if (inside < 0) {
		finding_fail_sys(finding, "openat2");
		return;
	}
	outside = (int)syscall(SYS_openat2, folder, "../self/ns", &how, sizeof(how));
	if (outside >= 0 || errno != EXDEV) {
		finding_set(finding, FINDING_LACKING, "RESOLVE_BENEATH let \"..\" out");
		return;
	}
	finding_set(finding, FINDING_OK, "keeps paths beneath their folder");
}

/* A filter that refuses one harmless call, and the call. */
void probe_seccomp(const struct doctor *doctor, struct finding *finding)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	(void)doctor;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		finding_fail_sys(finding, "no_new_privs");
	} else if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0) {
		finding_fail_sys(finding, "loading a filter");
	} else if (syscall(SYS_getppid) >= 0 || errno != EXDEV) {
		finding_set(finding, FINDING_LACKING, "the filter was loaded and did nothing");
	} else {
		finding_set(finding, FINDING_OK, "filters calls");
	}
}
