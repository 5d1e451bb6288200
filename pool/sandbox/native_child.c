/*
 * The new process's half, from clone3 to the exec of hob-init: it is root in its own user namespace
 * and nothing outside. It touches the image only beneath the overlay's descriptor, follows no link
 * of it, and gives up what commands must not have before hob-init starts, so that nobody inside can
 * have more. A failure is reported with its step and ends the process.
 */
#include "pool/sandbox/native.h"

#include "base/memory.h"
#include "pool/sandbox/init_protocol.h"

#include <fcntl.h>
#include <inttypes.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* What root inside keeps, as container engines have it; the namespace bounds each of them. */
static const unsigned kept_capabilities[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH,
	CAP_FOWNER, CAP_FSETID, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SETFCAP,
	CAP_SYS_CHROOT, CAP_NET_BIND_SERVICE, CAP_NET_RAW};

/* A memory shortage of the machine takes a sandbox before it takes a daemon. */
#define OOM_SCORE "500"

/* The kernel's default; the launcher's own is less. */
#define TIMER_SLACK_NS 50000

struct child {
	const struct native_means *means;
	const struct launcher_request *request;
	int socket, control_fd;
	int run_fd; /* a file system of its own, detached */
	int received[IO_FDS_MAX];
	int usr_fd, listen_fd; /* of those received; -1: none */
	int root_fd;
};

static _Noreturn void fail(const struct child *child, int sys, const char *step)
{
	struct native_outcome failure = {.sys = sys};

	snprintf(failure.step, sizeof(failure.step), "%s", step);
	(void)!send(child->socket, &failure, sizeof(failure), MSG_NOSIGNAL);
	_exit(1);
}

/* Most steps are one call that returns a negative number. */
static void must(const struct child *child, long status, const char *step)
{
	if (status < 0) {
		fail(child, errno, step);
	}
}

/* Waits for this message; how many descriptors came with it. */
static size_t receive(struct child *child, enum native_message wanted)
{
	enum native_message message = NATIVE_MAPPED;
	size_t count = 0;
	ssize_t got =
		io_recv_fds(child->socket, &message, sizeof(message), child->received, &count, 0);

	/* The end of the socket means that the launcher gave up, or died. */
	if (got == 0) {
		_exit(1);
	}
	if (got != (ssize_t)sizeof(message) || message != wanted) {
		fail(child, EPROTO, "receive from the launcher");
	}
	return count;
}

static void become_root(struct child *child)
{
	(void)receive(child, NATIVE_MAPPED);
	must(child, setgroups(0, NULL), "setgroups");
	must(child, setresgid(0, 0, 0), "setresgid");
	must(child, setresuid(0, 0, 0), "setresuid");
	if (child->request->kind == SANDBOX_BUILD) {
		must(child, prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl PDEATHSIG");
	}
	must(child, setsid(), "setsid");
	must(child, prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0), "timer slack");
	must(child, syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL), "a keyring of its own");
	must(child, sethostname(child->request->hostname, strlen(child->request->hostname)),
		"sethostname");
}

static void oom_score_set(const struct child *child)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	must(child, fd < 0 ? -1 : write(fd, OOM_SCORE, strlen(OOM_SCORE)), "oom_score_adj");
	close(fd);
}

static int mount_fresh(const struct child *child, const char *type, const char *const options[][2],
	unsigned attributes)
{
	int fs = fsopen(type, FSOPEN_CLOEXEC), fd;

	must(child, fs, type);
	for (size_t i = 0; options[i][0] != NULL; i++) {
		must(child, fsconfig(fs, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0),
			options[i][0]);
	}
	must(child, fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), type);
	fd = fsmount(fs, FSMOUNT_CLOEXEC, attributes);
	must(child, fd, type);
	close(fs);
	return fd;
}

/* What is kept in memory counts as the sandbox's and cannot be reclaimed: full to the limit it
 * would leave no room for the command that deletes it. */
static void memory_share(const struct child *child, int64_t parts, char *text, size_t size)
{
	int64_t limit = child->request->limits.memory_bytes;

	if (limit > 0) {
		snprintf(text, size, "%" PRId64, limit / parts);
	} else {
		snprintf(text, size, "%" PRId64 "%%", 100 / parts);
	}
}

static void join_cgroups(struct child *child)
{
	size_t count = receive(child, NATIVE_JOIN);

	for (size_t i = 0; i < count; i++) {
		must(child, write(child->received[i], "0", 1), "join a cgroup");
		close(child->received[i]);
	}
	must(child, unshare(CLONE_NEWCGROUP), "make a cgroup namespace");
}

/* The root, and what else comes with it. */
static void receive_root(struct child *child)
{
	size_t count = receive(child, NATIVE_ROOT), next = 1;

	child->usr_fd = child->request->host_usr ? child->received[next++] : -1;
	child->listen_fd = child->request->kind == SANDBOX_SESSION ? child->received[next++] : -1;
	if (count != next) {
		fail(child, EPROTO, "receive the root");
	}
}

/* A copy of a mount of the launcher's namespace (ours is a copy of that). */
static int clone_place(
	const struct child *child, int dir_fd, const char *path, unsigned long attributes)
{
	struct mount_attr attr = {.attr_set = attributes};
	int fd = open_tree(dir_fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	must(child, fd, path);
	must(child, mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)), path);
	return fd;
}

/* A folder of the image to mount on, made if missing. A link in its place fails closed. */
static int image_folder(const struct child *child, int dir_fd, const char *name)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	char step[60];
	long fd;

	snprintf(step, sizeof(step), "the image's /%s must be a folder", name);
	fd = syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
	if (fd < 0 && errno == ENOENT) {
		must(child, mkdirat(dir_fd, name, 0755), step);
		fd = syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
	}
	must(child, fd, step);
	return (int)fd;
}

static void attach(const struct child *child, int mount_fd, const char *name)
{
	int place = image_folder(child, child->root_fd, name);

	must(child,
		move_mount(
			mount_fd, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
		name);
	close(place);
	close(mount_fd);
}

/* Onto a name in a mount that we made ourselves, where there is nothing to be led astray by. */
static void attach_in(const struct child *child, int mount_fd, int dir_fd, const char *name)
{
	must(child, move_mount(mount_fd, "", dir_fd, name, MOVE_MOUNT_F_EMPTY_PATH), name);
	close(mount_fd);
}

static void make_proc(const struct child *child)
{
	static const char *const none[][2] = {{NULL, NULL}};
	static const char *const files[] = {
		"kcore", "keys", "timer_list", "sched_debug", "sysrq-trigger", "latency_stats"};
	static const char *const folders[] = {"acpi", "scsi"};
	static const char *const read_only[] = {"sys", "bus", "fs", "irq"};
	int proc = mount_fresh(
		child, "proc", none, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);

	attach_in(child, proc, AT_FDCWD, PLACE_OWN_PROC);
	proc = open(PLACE_OWN_PROC, O_PATH | O_DIRECTORY | O_CLOEXEC);
	must(child, proc, PLACE_OWN_PROC);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (faccessat(proc, files[i], F_OK, 0) == 0) {
			attach_in(child,
				clone_place(child, AT_FDCWD, PLACE_DEV "/null", MOUNT_ATTR_RDONLY),
				proc, files[i]);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		if (faccessat(proc, folders[i], F_OK, 0) == 0) {
			attach_in(child,
				clone_place(child, AT_FDCWD, PLACE_EMPTY, MOUNT_ATTR_RDONLY), proc,
				folders[i]);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(read_only); i++) {
		if (faccessat(proc, read_only[i], F_OK, 0) == 0) {
			attach_in(child, clone_place(child, proc, read_only[i], MOUNT_ATTR_RDONLY),
				proc, read_only[i]);
		}
	}
	close(proc);
}

static void make_dev(const struct child *child, const char *shm_size)
{
	const char *const shm[][2] = {{"mode", "1777"}, {"size", shm_size}, {NULL, NULL}};
	static const char *const pts[][2] = {
		{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}, {NULL, NULL}};

	attach_in(child,
		clone_place(child, AT_FDCWD, PLACE_DEV,
			MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC),
		AT_FDCWD, PLACE_OWN_DEV);
	attach_in(child, mount_fresh(child, "devpts", pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC),
		AT_FDCWD, PLACE_OWN_DEV "/pts");
	attach_in(child, mount_fresh(child, "tmpfs", shm, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV),
		AT_FDCWD, PLACE_OWN_DEV "/shm");
}

/* All that needs no root yet, while the launcher makes that. */
static void make_own(struct child *child)
{
	char half[24], eighth[24];
	const char *const run[][2] = {{"mode", "0755"}, {"size", eighth}, {NULL, NULL}};

	memory_share(child, 2, half, sizeof(half));
	memory_share(child, 8, eighth, sizeof(eighth));
	make_proc(child);
	make_dev(child, half);
	child->run_fd = mount_fresh(child, "tmpfs", run, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
}

/* The host's resolver settings over the image's. A link there cannot be followed safely, and
 * usually leads to where the host's own resolver would be: it gives way to a plain file. */
static void mount_resolv(const struct child *child)
{
	int etc = image_folder(child, child->root_fd, "etc");
	struct stat status;
	int fd;

	if (fstatat(etc, "resolv.conf", &status, AT_SYMLINK_NOFOLLOW) == 0 &&
		!S_ISREG(status.st_mode)) {
		must(child, unlinkat(etc, "resolv.conf", 0), "replace etc/resolv.conf");
	}
	fd = openat(etc, "resolv.conf", O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
	must(child, fd, "etc/resolv.conf");
	close(fd);
	attach_in(child,
		clone_place(child, AT_FDCWD, PLACE_RESOLV,
			MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
				MOUNT_ATTR_NOEXEC),
		etc, "resolv.conf");
	close(etc);
}

/* A mount with those in it, from where it was put together. */
static void move_own(const struct child *child, const char *from, const char *name)
{
	int place = image_folder(child, child->root_fd, name);

	must(child, move_mount(AT_FDCWD, from, place, "", MOVE_MOUNT_T_EMPTY_PATH), name);
	close(place);
}

static void assemble(struct child *child)
{
	must(child,
		move_mount(child->received[0], "", AT_FDCWD, PLACE_ROOT, MOVE_MOUNT_F_EMPTY_PATH),
		"attach the root");
	child->root_fd = open(PLACE_ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
	must(child, child->root_fd, "open the root");
	move_own(child, PLACE_OWN_PROC, "proc");
	move_own(child, PLACE_OWN_DEV, "dev");
	attach(child,
		clone_place(child, AT_FDCWD, PLACE_EMPTY,
			MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC),
		"sys");
	attach(child, child->run_fd, "run");
	if (child->usr_fd >= 0) {
		attach(child, child->usr_fd, "usr");
	}
	if (child->request->network_host) {
		mount_resolv(child);
	}
	must(child, fchdir(child->root_fd), "fchdir");
	must(child, syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(child, umount2(".", MNT_DETACH), "leave the launcher's root");
	must(child, chdir("/"), "chdir");
}

static void drop_capabilities(const struct child *child)
{
	uint64_t kept = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kept_capabilities); i++) {
		kept |= 1ULL << kept_capabilities[i];
	}
	for (unsigned i = 0; i < 64; i++) {
		if ((kept & (1ULL << i)) == 0 && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0) {
			if (errno == EINVAL) {
				break;
			}
			fail(child, errno, "drop capabilities");
		}
	}
	must(child, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

/* 0, 1, 2: /dev/null; 3: the connection; 4: the listening socket. The launcher keeps 3 and 4 taken,
 * so none of what is moved there is in the way. */
static void place_descriptors(const struct child *child)
{
	for (int fd = 0; fd <= 2; fd++) {
		must(child, dup2(child->means->places.null_fd, fd), "standard streams");
	}
	must(child, dup2(child->control_fd, INIT_CONTROL_FD), "the control socket");
	if (child->listen_fd >= 0) {
		must(child, dup2(child->listen_fd, INIT_LISTEN_FD), "the listening socket");
	}
}

_Noreturn void native_child(const struct native_means *means,
	const struct launcher_request *request, struct native *native, int socket, int control_fd)
{
	static char name[] = "hob-init";
	static char *const arguments[] = {name, NULL};
	static char *const environment[] = {NULL};
	struct child child = {
		.means = means, .request = request, .socket = socket, .control_fd = control_fd};
	struct native_outcome started = {.sys = 0};
	int sys;

	/* Held here they would hide that the launcher has died. */
	native_done(native);
	/* While the file is still ours: a change of ids takes it away. */
	oom_score_set(&child);
	become_root(&child);
	make_own(&child);
	join_cgroups(&child);
	receive_root(&child);
	assemble(&child);
	place_descriptors(&child);
	drop_capabilities(&child);
	sys = seccomp_load();
	if (sys != 0) {
		fail(&child, sys, "load the seccomp filter");
	}
	/* So that the launcher answers while the exec is under way. */
	must(&child, send(child.socket, &started, sizeof(started), MSG_NOSIGNAL), "answer");
	syscall(SYS_execveat, means->init_fd, "", arguments, environment, AT_EMPTY_PATH);
	fail(&child, errno, "exec hob-init");
}
