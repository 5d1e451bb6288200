/*
 * The floor that a creation is measured against: nothing but the system calls of the same
 * isolation, in one straight line, with everything prepared that can be (a tiny mount namespace, a
 * template of /dev, network namespaces, user namespaces for the layer). No checks, no protocol, no
 * hob-init: the command itself is what is executed. `bare [--json] [rounds]` prints the median from
 * the first call to the command's exit. Shares no code with what it is the floor of, but the
 * seccomp program.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gen/seccomp_program.h"

#define ROUNDS_MAX 2000
#define NETS 16
#define ID_FIRST 1879048192LL
#define IDS 65536

static int cgroup_fds[16]; /* of the mount points; the first is cgroup2's */
static int cgroup_count;
static int home_net, nets[NETS], net_count;
static int layer_userns;
static char folder[] = "/tmp/hob-bare-XXXXXX";
static char group[32];

static void must(bool good, const char *what)
{
	if (!good) {
		fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	must(fd >= 0 && write(fd, text, strlen(text)) > 0, path);
	close(fd);
}

static int fresh(const char *type, unsigned attributes)
{
	int fs = fsopen(type, FSOPEN_CLOEXEC), fd;

	must(fs >= 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0, type);
	fd = fsmount(fs, FSMOUNT_CLOEXEC, attributes);
	must(fd >= 0, type);
	close(fs);
	return fd;
}

static int clone_of(int dir_fd, const char *path, unsigned long attributes, int userns)
{
	struct mount_attr attr = {.attr_set = attributes};
	int fd = open_tree(dir_fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (userns >= 0) {
		attr.attr_set |= MOUNT_ATTR_IDMAP;
		attr.userns_fd = (unsigned)userns;
	}
	must(fd >= 0 && mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) == 0, path);
	return fd;
}

static void attach(int fd, const char *path)
{
	must(move_mount(fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) == 0, path);
	close(fd);
}

/* ---- what is prepared once ---- */

static void groups_find(void)
{
	static const char *const roots[] = {"/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu",
		"/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"};

	for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
		const char *root =
			i == 0 && access(roots[0], F_OK) < 0 ? "/sys/fs/cgroup" : roots[i];
		int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (fd >= 0) {
			cgroup_fds[cgroup_count++] = fd;
		}
	}
	must(cgroup_count > 0, "no cgroup2");
}

static void layer_make(void)
{
	static const char *const folders[] = {"layer", "layer/dev", "layer/proc", "layer/sys",
		"layer/run", "layer/usr", "layer/tmp", "layer/etc"};
	static const char *const links[] = {"bin", "lib", "lib64", "sbin"};
	char path[128], target[32];

	must(mkdtemp(folder) != NULL, "mkdtemp");
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, folders[i]);
		must(mkdir(path, 0755) == 0, path);
	}
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
		snprintf(path, sizeof(path), "%s/layer/%s", folder, links[i]);
		snprintf(target, sizeof(target), "usr/%s", links[i]);
		must(symlink(target, path) == 0, path);
	}
}

static void mounts_prepare(void)
{
	static const char *const folders[] = {"/dev", "/usr", "/root", "/store", "/empty"};
	int store, usr, root;

	must(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0,
		"unshare");
	store = clone_of(AT_FDCWD, folder, 0, -1);
	usr = clone_of(AT_FDCWD, "/usr", 0, -1);
	root = fresh("tmpfs", 0);
	mkdirat(root, "proc", 0755);
	attach(fcntl(root, F_DUPFD_CLOEXEC, 0), "/proc");
	must(fchdir(root) == 0 && syscall(SYS_pivot_root, ".", ".") == 0 &&
			umount2(".", MNT_DETACH) == 0 && chdir("/") == 0,
		"pivot_root");
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		must(mkdir(folders[i], 0755) == 0, folders[i]);
	}
	attach(fresh("proc", 0), "/proc");
	attach(fresh("tmpfs", 0), "/dev");
	must(mknod("/dev/null", S_IFCHR | 0666, makedev(1, 3)) == 0, "mknod");
	mkdir("/dev/pts", 0755);
	mkdir("/dev/shm", 0755);
	attach(store, "/store");
	attach(usr, "/usr");
}

static void net_make(void)
{
	struct ifreq request = {.ifr_flags = IFF_UP};
	int fd;

	must(unshare(CLONE_NEWNET) == 0, "unshare net");
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(request.ifr_name, sizeof(request.ifr_name), "lo");
	must(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "lo");
	close(fd);
	nets[net_count++] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	must(setns(home_net, CLONE_NEWNET) == 0, "setns");
}

static void maps_put(pid_t pid)
{
	char path[64], line[64];

	snprintf(line, sizeof(line), "0 %lld %d", ID_FIRST, IDS);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	put(path, line);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	put(path, line);
}

static int userns_of(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0, path);
	return fd;
}

static void layer_userns_make(void)
{
	struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

	if (pid == 0) {
		pause();
		_exit(0);
	}
	maps_put(pid);
	layer_userns = userns_of(pid);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* ---- one round ---- */

struct round {
	int pipe[2]; /* written when the maps are there */
	int overlay, usr;
	int joins[16];
};

static void child_mounts(const struct round *round)
{
	static const char *const masks[] = {"keys", "timer_list"};
	static const char *const read_only[] = {"sys", "bus", "fs", "irq"};
	char path[64];

	attach(round->overlay, "/root");
	attach(fresh("proc", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC),
		"/root/proc");
	for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
		snprintf(path, sizeof(path), "/root/proc/%s", masks[i]);
		attach(clone_of(AT_FDCWD, "/dev/null", MOUNT_ATTR_RDONLY, -1), path);
	}
	for (size_t i = 0; i < sizeof(read_only) / sizeof(read_only[0]); i++) {
		snprintf(path, sizeof(path), "/root/proc/%s", read_only[i]);
		attach(clone_of(AT_FDCWD, path, MOUNT_ATTR_RDONLY, -1), path);
	}
	attach(clone_of(AT_FDCWD, "/dev", MOUNT_ATTR_RDONLY, -1), "/root/dev");
	attach(fresh("devpts", MOUNT_ATTR_NOSUID), "/root/dev/pts");
	attach(fresh("tmpfs", MOUNT_ATTR_NODEV), "/root/dev/shm");
	attach(clone_of(AT_FDCWD, "/empty", MOUNT_ATTR_RDONLY, -1), "/root/sys");
	attach(fresh("tmpfs", MOUNT_ATTR_NODEV), "/root/run");
	attach(round->usr, "/root/usr");
	must(chdir("/root") == 0 && syscall(SYS_pivot_root, ".", ".") == 0 &&
			umount2(".", MNT_DETACH) == 0 && chdir("/") == 0,
		"pivot_root");
}

static _Noreturn void child_main(const struct round *round)
{
	char *arguments[] = {(char[]){"true"}, NULL}, *none[] = {NULL};
	struct sock_fprog program = {.len = sizeof(seccomp_program) / sizeof(seccomp_program[0]),
		.filter = (struct sock_filter *)(uintptr_t)seccomp_program};
	char ready;

	must(read(round->pipe[0], &ready, 1) == 1, "wait for the maps");
	must(setgroups(0, NULL) == 0 && setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0, "ids");
	for (int i = 1; i < cgroup_count; i++) {
		must(write(round->joins[i], "0", 1) == 1, "join");
	}
	must(unshare(CLONE_NEWCGROUP) == 0 && sethostname("box", 3) == 0, "unshare");
	child_mounts(round);
	for (int i = 0; i < 41; i++) {
		(void)prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
	}
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
	must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0, "seccomp");
	execve("/usr/bin/true", arguments, none);
	must(false, "exec");
	_exit(1);
}

static int overlay_make(void)
{
	int fs = fsopen("overlay", FSOPEN_CLOEXEC), fd;
	int lower = clone_of(AT_FDCWD, "/store/layer", 0, layer_userns);
	int upper, work;

	must(mkdir("/store/upper", 0755) == 0 && mkdir("/store/scratch", 0700) == 0 &&
			chown("/store/upper", (uid_t)ID_FIRST, (gid_t)ID_FIRST) == 0,
		"upper");
	upper = open("/store/upper", O_PATH | O_CLOEXEC);
	work = open("/store/scratch", O_PATH | O_CLOEXEC);
	must(fsconfig(fs, FSCONFIG_SET_FD, "lowerdir+", NULL, lower) == 0 &&
			fsconfig(fs, FSCONFIG_SET_FD, "upperdir", NULL, upper) == 0 &&
			fsconfig(fs, FSCONFIG_SET_FD, "workdir", NULL, work) == 0 &&
			fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0,
		"overlay");
	fd = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV);
	must(fd >= 0, "fsmount");
	close(fs);
	close(lower);
	close(upper);
	close(work);
	return fd;
}

static int groups_make(struct round *round)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/tasks", group);
	for (int i = 0; i < cgroup_count; i++) {
		must(mkdirat(cgroup_fds[i], group, 0755) == 0, "make a cgroup");
		if (i > 0) {
			round->joins[i] = openat(cgroup_fds[i], path, O_WRONLY | O_CLOEXEC);
		}
	}
	fd = openat(cgroup_fds[0], group, O_PATH | O_CLOEXEC);
	must(fd >= 0, "open a cgroup");
	return fd;
}

static void clean(const struct round *round, int cgroup)
{
	close(cgroup);
	close(round->pipe[0]);
	close(round->pipe[1]);
	for (int i = 0; i < cgroup_count; i++) {
		if (i > 0) {
			close(round->joins[i]);
		}
		while (unlinkat(cgroup_fds[i], group, AT_REMOVEDIR) < 0 && errno == EBUSY) {
			usleep(100);
		}
	}
	(void)rmdir("/store/scratch/work"); /* overlayfs made it */
	must(rmdir("/store/scratch") == 0 && rmdir("/store/upper") == 0, "remove the upper");
}

static double one_round(void)
{
	struct clone_args args = {.flags = (uint64_t)CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID |
					   CLONE_NEWUTS | CLONE_NEWIPC | CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD};
	struct round round;
	double start = now_us();
	int cgroup, status;
	pid_t pid;

	must(pipe2(round.pipe, O_CLOEXEC) == 0, "pipe");
	cgroup = groups_make(&round);
	round.overlay = overlay_make();
	round.usr = clone_of(AT_FDCWD, "/usr", MOUNT_ATTR_RDONLY, layer_userns);
	args.cgroup = (uint64_t)(unsigned)cgroup;
	must(setns(nets[--net_count], CLONE_NEWNET) == 0, "setns");
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0) {
		child_main(&round);
	}
	must(pid > 0 && setns(home_net, CLONE_NEWNET) == 0, "clone3");
	maps_put(pid);
	must(write(round.pipe[1], "m", 1) == 1 && waitpid(pid, &status, 0) == pid && status == 0,
		"run");
	start = now_us() - start;
	close(nets[net_count]);
	close(round.overlay);
	close(round.usr);
	clean(&round, cgroup);
	return start;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return left < right ? -1 : left > right;
}

/* Outside of the mount namespace that hides it: the layer was made on the host. */
static void folder_remove(void)
{
	char *arguments[] = {(char[]){"rm"}, (char[]){"-rf"}, folder, NULL};

	execvp("rm", arguments);
}

static int measure(bool json, int rounds)
{
	static double times[ROUNDS_MAX];

	mounts_prepare();
	home_net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	layer_userns_make();
	for (int i = 0; i < rounds; i++) {
		if (net_count == 0) {
			while (net_count < NETS) {
				net_make();
			}
			usleep(20000);
		}
		times[i] = one_round();
	}
	qsort(times, (size_t)rounds, sizeof(times[0]), compare);
	if (json) {
		printf("{\"count\": %d, \"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f}\n",
			rounds, times[rounds / 2], times[rounds * 9 / 10],
			times[rounds * 99 / 100]);
	} else {
		printf("bare calls, create to exit of true: p10 %.0f us, median %.0f us, p99 %.0f "
		       "us\n",
			times[rounds / 10], times[rounds / 2], times[rounds * 99 / 100]);
	}
	return 0;
}

int main(int argc, char **argv)
{
	bool json = argc > 1 && strcmp(argv[1], "--json") == 0;
	int rounds = argc > 1 + json ? (int)strtol(argv[1 + json], NULL, 10) : 200, status;
	pid_t pid;

	if (rounds < 1 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "bare: 1 to %d rounds\n", ROUNDS_MAX);
		return 2;
	}
	groups_find();
	layer_make();
	snprintf(group, sizeof(group), "hob-bare-%d", getpid());
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		exit(measure(json, rounds));
	}
	must(waitpid(pid, &status, 0) == pid, "wait");
	pid = fork();
	if (pid == 0) {
		folder_remove();
		_exit(1);
	}
	waitpid(pid, NULL, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
