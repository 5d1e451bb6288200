/*
 * A build tool: prints the seccomp program of every sandbox as a C header. Calls are allowed by
 * name; what is refused on purpose says EPERM, and all else, calls of later kernels too, ENOSYS, so
 * that programs fall back. The program is a binary search over ranges of numbers, a few comparisons
 * a call, and arguments are compared on the 32 bits that the kernel looks at.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/socket.h>

#define NUMBERS_MAX 1024 /* above every call of today */
#define PROGRAM_MAX 4096
#define RANGES_MAX 512

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "hob knows x86_64 and aarch64"
#endif

enum action {
	ACTION_UNKNOWN, /* ENOSYS */
	ACTION_ALLOW,
	ACTION_DENY, /* EPERM */
	ACTION_CLONE,
	ACTION_UNSHARE,
	ACTION_SOCKET,
	ACTION_IOCTL,
	ACTION_PERSONALITY,
	ACTIONS
};

static const char *const allowed[] = {"accept", "accept4", "access", "alarm", "arch_prctl", "bind",
	"brk", "cachestat", "capget", "capset", "chdir", "chmod", "chown", "chroot", "clock_getres",
	"clock_gettime", "clock_nanosleep", "close", "close_range", "connect", "copy_file_range",
	"creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait",
	"epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "execve", "execveat", "exit",
	"exit_group", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod",
	"fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync", "fgetxattr",
	"flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync",
	"ftruncate", "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake",
	"futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd", "getdents",
	"getdents64", "getegid", "geteuid", "getgid", "getgroups", "getitimer", "getpeername",
	"getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid",
	"getresuid", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid",
	"gettimeofday", "getuid", "getxattr", "inotify_add_watch", "inotify_init", "inotify_init1",
	"inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup",
	"io_submit", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule",
	"landlock_create_ruleset", "landlock_restrict_self", "lchown", "lgetxattr", "link",
	"linkat", "listen", "listxattr", "llistxattr", "lremovexattr", "lseek", "lsetxattr",
	"lstat", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "mincore", "mkdir",
	"mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mprotect",
	"mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink",
	"mremap", "mseal", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall",
	"munmap", "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_open",
	"pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll",
	"ppoll", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_madvise",
	"process_mrelease", "process_vm_readv", "process_vm_writev", "pselect6", "ptrace",
	"pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv",
	"recvfrom", "recvmmsg", "recvmsg", "remap_file_pages", "removexattr", "rename", "renameat",
	"renameat2", "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending",
	"rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
	"rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min",
	"sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
	"sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
	"sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop",
	"semtimedop", "sendfile", "sendmmsg", "sendmsg", "sendto", "set_robust_list",
	"set_thread_area", "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups",
	"setitimer", "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid",
	"setrlimit", "setsid", "setsockopt", "setuid", "setxattr", "shmat", "shmctl", "shmdt",
	"shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "socketpair", "splice",
	"stat", "statfs", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs",
	"sysinfo", "tee", "tgkill", "time", "timer_create", "timer_delete", "timer_getoverrun",
	"timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime",
	"times", "tkill", "truncate", "umask", "uname", "unlink", "unlinkat", "utime", "utimensat",
	"utimes", "vfork", "vmsplice", "wait4", "waitid", "write", "writev"};

static const char *const denied[] = {"_sysctl", "acct", "add_key", "adjtimex", "bpf",
	"clock_adjtime", "clock_settime", "create_module", "delete_module", "fanotify_init",
	"fanotify_mark", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module",
	"ioperm", "iopl", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mount",
	"mount_setattr", "move_mount", "name_to_handle_at", "open_by_handle_at", "open_tree",
	"perf_event_open", "pidfd_getfd", "pivot_root", "quotactl", "quotactl_fd", "reboot",
	"request_key", "setdomainname", "sethostname", "setns", "settimeofday", "swapoff", "swapon",
	"syslog", "umount2", "userfaultfd", "vhangup"};

static const struct {
	const char *name;
	enum action action;
} checked[] = {{"clone", ACTION_CLONE}, {"unshare", ACTION_UNSHARE}, {"socket", ACTION_SOCKET},
	{"ioctl", ACTION_IOCTL}, {"personality", ACTION_PERSONALITY}};

/* Newer than the libseccomp of stable distributions; the same number on every architecture. */
static const struct {
	const char *name;
	int number;
} recent[] = {{"quotactl_fd", 443}, {"futex_waitv", 449}, {"cachestat", 451}, {"fchmodat2", 452},
	{"map_shadow_stack", 453}, {"futex_wake", 454}, {"futex_wait", 455}, {"futex_requeue", 456},
	{"mseal", 462}};

struct range {
	unsigned first;
	enum action action;
};

static enum action actions[NUMBERS_MAX];
static struct range ranges[RANGES_MAX];
static size_t range_count;
static struct sock_filter program[PROGRAM_MAX];
static size_t length;
/* Where each check begins is known last; these jumps wait for it. */
static struct {
	size_t at;
	enum action action;
} waiting[RANGES_MAX];
static size_t waiting_count;

static void die(const char *what, const char *name)
{
	fprintf(stderr, "seccomp_generate: %s %s\n", what, name);
	exit(1);
}

static int number_of(const char *name)
{
	int number = seccomp_syscall_resolve_name(name);

	for (size_t i = 0; number < 0 && i < sizeof(recent) / sizeof(recent[0]); i++) {
		if (strcmp(recent[i].name, name) == 0) {
			return recent[i].number;
		}
	}
	return number;
}

/* A name that this architecture does not have is skipped; a misspelt one is an error. */
static void set(const char *name, enum action action)
{
	int number = number_of(name);

	if (number == __NR_SCMP_ERROR) {
		die("no system call", name);
	}
	if (number < 0) {
		return;
	}
	if (number >= NUMBERS_MAX || actions[number] != ACTION_UNKNOWN) {
		die("twice or out of range:", name);
	}
	actions[number] = action;
}

static void add(uint16_t code, uint8_t if_true, uint8_t if_false, uint32_t k)
{
	if (length == PROGRAM_MAX) {
		die("too long a program", "");
	}
	program[length++] = (struct sock_filter){code, if_true, if_false, k};
}

static void add_return(uint32_t value)
{
	add(BPF_RET | BPF_K, 0, 0, value);
}

static void add_load(size_t offset)
{
	add(BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

/* The low 32 bits of an argument. */
static void add_load_argument(unsigned index)
{
	size_t low = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : sizeof(uint32_t);

	add_load(offsetof(struct seccomp_data, args) + index * sizeof(uint64_t) + low);
}

static void add_leaf(enum action action)
{
	switch (action) {
	case ACTION_UNKNOWN:
		add_return(SECCOMP_RET_ERRNO | ENOSYS);
		return;
	case ACTION_ALLOW:
		add_return(SECCOMP_RET_ALLOW);
		return;
	case ACTION_DENY:
		add_return(SECCOMP_RET_ERRNO | EPERM);
		return;
	case ACTION_CLONE:
	case ACTION_UNSHARE:
	case ACTION_SOCKET:
	case ACTION_IOCTL:
	case ACTION_PERSONALITY:
	case ACTIONS:
		waiting[waiting_count].at = length;
		waiting[waiting_count++].action = action;
		add(BPF_JMP | BPF_JA, 0, 0, 0);
	}
}

/* Instructions that add_search makes. A conditional jump reaches 255 of them; further takes a jump
 * of its own. */
static size_t search_size(size_t first, size_t count)
{
	size_t left;

	if (count == 1) {
		return 1;
	}
	left = search_size(first, count / 2);
	return 1 + (left > 255 ? 1U : 0U) + left +
	       search_size(first + count / 2, count - count / 2);
}

static void add_search(size_t first, size_t count)
{
	size_t half = count / 2, left;

	if (count == 1) {
		add_leaf(ranges[first].action);
		return;
	}
	left = search_size(first, half);
	if (left > 255) {
		add(BPF_JMP | BPF_JGE | BPF_K, 0, 1, ranges[first + half].first);
		add(BPF_JMP | BPF_JA, 0, 0, (uint32_t)left);
	} else {
		add(BPF_JMP | BPF_JGE | BPF_K, (uint8_t)left, 0, ranges[first + half].first);
	}
	add_search(first, half);
	add_search(first + half, count - half);
}

/* Allowed when none of the bits is set. */
static void add_bits_check(unsigned argument, uint32_t bits)
{
	add_load_argument(argument);
	add(BPF_JMP | BPF_JSET | BPF_K, 0, 1, bits);
	add_return(SECCOMP_RET_ERRNO | EPERM);
	add_return(SECCOMP_RET_ALLOW);
}

static void add_socket_check(void)
{
	static const uint32_t families[] = {AF_UNIX, AF_INET, AF_INET6};

	add_load_argument(0);
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, families[i]);
		add_return(SECCOMP_RET_ALLOW);
	}
	add(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, AF_NETLINK);
	add_load_argument(2);
	add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, NETLINK_ROUTE);
	add_return(SECCOMP_RET_ALLOW);
	add_return(SECCOMP_RET_ERRNO | EAFNOSUPPORT);
}

/* Typing into a terminal that somebody else reads, and the console's selection, which can do it
 * too. */
static void add_ioctl_check(void)
{
	add_load_argument(1);
	add(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, TIOCSTI);
	add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, TIOCLINUX);
	add_return(SECCOMP_RET_ERRNO | EPERM);
	add_return(SECCOMP_RET_ALLOW);
}

/* Asking (all ones), Linux, 32-bit uname, and no randomisation for debuggers. */
static void add_personality_check(void)
{
	add_load_argument(0);
	add(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0xffffffff);
	add_return(SECCOMP_RET_ALLOW);
	add_bits_check(0, ~(uint32_t)(PER_LINUX32 | UNAME26 | ADDR_NO_RANDOMIZE));
}

static void add_check(enum action action)
{
	const uint32_t namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
				    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

	for (size_t i = 0; i < waiting_count; i++) {
		if (waiting[i].action == action) {
			program[waiting[i].at].k = (uint32_t)(length - waiting[i].at - 1);
		}
	}
	if (action == ACTION_CLONE) {
		add_bits_check(0, namespaces);
	} else if (action == ACTION_UNSHARE) {
		add_bits_check(0, namespaces | CLONE_NEWTIME);
	} else if (action == ACTION_SOCKET) {
		add_socket_check();
	} else if (action == ACTION_IOCTL) {
		add_ioctl_check();
	} else {
		add_personality_check();
	}
}

static void make_ranges(void)
{
	for (unsigned i = 0; i < NUMBERS_MAX; i++) {
		if (i == 0 || actions[i] != actions[i - 1]) {
			ranges[range_count++] = (struct range){i, actions[i]};
		}
	}
}

int main(void)
{
	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
		set(allowed[i], ACTION_ALLOW);
	}
	for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++) {
		set(denied[i], ACTION_DENY);
	}
	for (size_t i = 0; i < sizeof(checked) / sizeof(checked[0]); i++) {
		set(checked[i].name, checked[i].action);
	}
	make_ranges();
	add_load(offsetof(struct seccomp_data, arch));
	add(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, ARCH);
	add_return(SECCOMP_RET_KILL_PROCESS);
	add_load(offsetof(struct seccomp_data, nr));
	add_search(0, range_count);
	for (enum action action = ACTION_CLONE; action < ACTIONS; action++) {
		add_check(action);
	}
	printf("/* Made by pool/sandbox/seccomp_generate.c: %zu ranges of numbers. */\n",
		range_count);
	printf("static const struct sock_filter seccomp_program[] = {\n");
	for (size_t i = 0; i < length; i++) {
		printf("\t{0x%02x, %u, %u, 0x%08x},\n", program[i].code, program[i].jt,
			program[i].jf, program[i].k);
	}
	printf("};\n");
	return 0;
}
