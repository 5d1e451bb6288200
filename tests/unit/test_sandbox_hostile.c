/*
 * What a sandbox's root tries: every call that would lead out of it, with the errno it gets, and
 * images whose folders are links. The calls are made by number from Python, as a program that knows
 * what it wants would make them.
 */
#include "base/clock.h"
#include "base/io.h"
#include "pool/sandbox/sandbox.h"
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"

#include <stdio.h>
#include <sys/stat.h>

#if defined(__x86_64__)
#define NUMBERS                                                                                    \
	"N = dict(mount=165, umount2=166, unshare=272, setns=308, clone=56, keyctl=250, "          \
	"add_key=248,\n"                                                                           \
	"    ptrace=101, process_vm_readv=310, open_by_handle_at=304, name_to_handle_at=303,\n"    \
	"    pivot_root=155, init_module=175, clock_settime=227, reboot=169, swapon=167,\n"        \
	"    perf_event_open=298, bpf=321, userfaultfd=323, kexec_load=246, syslog=103,\n"         \
	"    socket=41, ioctl=16, personality=135, mknod=133, chroot=161, sethostname=170)\n"
#else
#define NUMBERS                                                                                    \
	"N = dict(mount=40, umount2=39, unshare=97, setns=268, clone=220, keyctl=219, "            \
	"add_key=217,\n"                                                                           \
	"    ptrace=117, process_vm_readv=270, open_by_handle_at=265, name_to_handle_at=264,\n"    \
	"    pivot_root=41, init_module=105, clock_settime=112, reboot=142, swapon=224,\n"         \
	"    perf_event_open=241, bpf=280, userfaultfd=282, kexec_load=104, syslog=116,\n"         \
	"    socket=198, ioctl=29, personality=92, chroot=51, sethostname=161)\n"
#endif

/* call(name, arguments…) gives "ok" or the errno's name. */
#define PRELUDE                                                                                    \
	"import ctypes, errno, os, sys, socket\n"                                                  \
	"libc = ctypes.CDLL(None, use_errno=True)\n" NUMBERS "def call(name, *args):\n"            \
	"    number = N[name] if isinstance(name, str) else name\n"                                \
	"    ctypes.set_errno(0)\n"                                                                \
	"    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]\n"               \
	"    r = libc.syscall(ctypes.c_long(number), *args)\n"                                     \
	"    return 'ok' if r >= 0 else errno.errorcode[ctypes.get_errno()]\n"                     \
	"def attempt(f, *args):\n"                                                                 \
	"    try:\n"                                                                               \
	"        f(*args)\n"                                                                       \
	"        return 'ok'\n"                                                                    \
	"    except OSError as e:\n"                                                               \
	"        return errno.errorcode[e.errno]\n"

static struct sandbox_kit *kit;
static struct kit_box box;

static int group_setup(void **state)
{
	(void)state;
	if (geteuid() == 0) {
		kit = sandbox_kit_new(1);
		box_open(kit, &box, "sb-hostile", 5);
	}
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	if (kit != NULL) {
		assert_int_equal(box_close(&box), 0);
		sandbox_kit_free(kit);
	}
	return 0;
}

/* Runs Python inside; what it prints must be `wanted`. */
static void python_says(const char *body, const char *wanted)
{
	CLEANUP(free_p)
	char *script =
		xasprintf("cat > /tmp/try.py <<'END_OF_SCRIPT'\n" PRELUDE "%s\nEND_OF_SCRIPT\n"
			  "python3 /tmp/try.py 2>&1",
			body);
	CLEANUP(free_p) char *said = NULL;
	int code = 0;

	if (kit == NULL) {
		skip();
	}
	said = box_shell(&box, script, &code);
	assert_string_equal(said, wanted);
}

static void shell_says(const char *script, const char *wanted)
{
	CLEANUP(free_p) char *said = NULL;
	int code = 0;

	if (kit == NULL) {
		skip();
	}
	said = box_shell(&box, script, &code);
	assert_string_equal(said, wanted);
}

static void test_no_new_mounts(void **state)
{
	(void)state;
	python_says("print(call('mount', b'x', b'/tmp', b'tmpfs', 0, 0))\n"
		    "print(call('umount2', b'/proc', 2))\n"
		    "print(call('pivot_root', b'/', b'/tmp'))\n"
		    "print(*[call(n, 0, 0, 0, 0, 0) for n in (428, 429, 430, 431, 432, 433, 442)])",
		"EPERM\nEPERM\nEPERM\nEPERM EPERM EPERM EPERM EPERM EPERM EPERM");
}

static void test_no_new_namespaces(void **state)
{
	(void)state;
	python_says("flags = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000,\n"
		    "    0x40000000)\n"
		    "print(*[call('unshare', f) for f in flags + (0x80,)])\n"
		    "print(*[call('clone', f | 17, 0, 0, 0, 0) for f in flags])\n"
		    "print(call('unshare', 0x400))\n"
		    "print(call(435, 0, 0))\n"
		    "print(call('setns', 0, 0))",
		"EPERM EPERM EPERM EPERM EPERM EPERM EPERM EPERM\n"
		"EPERM EPERM EPERM EPERM EPERM EPERM EPERM\nok\nENOSYS\nEPERM");
}

static void test_dangerous_calls_are_refused(void **state)
{
	(void)state;
	python_says("names = ['keyctl', 'add_key', 'open_by_handle_at', 'name_to_handle_at',\n"
		    "    'init_module', 'clock_settime', 'reboot', 'swapon', 'perf_event_open', "
		    "'bpf',\n"
		    "    'userfaultfd', 'kexec_load', 'syslog', 'sethostname']\n"
		    "for n in names:\n"
		    "    r = call(n, 0, 0, 0, 0, 0)\n"
		    "    if r != 'EPERM': print(n, r)\n"
		    "print(call(425, 8, 0), call(438, 0, 0, 0))\n"
		    "print(call('personality', 0xffffffff), call('personality', 0x400000))",
		"ENOSYS EPERM\nok EPERM");
}

static void test_sockets_are_local_or_internet(void **state)
{
	(void)state;
	python_says("print(*[call('socket', f, 1, 0) for f in (1, 2, 10)])\n"
		    "print(*[call('socket', f, 3, 0) for f in (17, 40, 38, 3, 31, 44)])\n"
		    "print(call('socket', 0x100000028, 1, 0), call('socket', 16, 3, 0))\n"
		    "print(*[call('socket', 16, 3, p) for p in (9, 12, 15, 16)])",
		"ok ok ok\n"
		"EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT\n"
		"EAFNOSUPPORT ok\nEAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT");
}

static void test_no_typing_into_terminals(void **state)
{
	(void)state;
	python_says("import pty\n"
		    "master, slave = pty.openpty()\n"
		    "c = ctypes.create_string_buffer(b'x')\n"
		    "print(call('ioctl', slave, 0x5412, c), call('ioctl', slave, 0x100005412, c),\n"
		    "    call('ioctl', slave, 0xffffffff00005412 - (1 << 64), c),\n"
		    "    call('ioctl', slave, 0x541c, c))",
		"EPERM EPERM EPERM EPERM");
}

/* The program runs 32-bit code's way into the kernel; the sandbox kills it (128 + SIGSYS). */
static void test_foreign_architectures_are_killed(void **state)
{
	(void)state;
#if defined(__x86_64__)
	shell_says(
		"python3 -c 'import ctypes, mmap\n"
		"m = mmap.mmap(-1, 4096, prot=7)\n"
		"m.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))\n"
		"f = "
		"ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
		"print(f())' 2>/dev/null; echo $?",
		"159");
#else
	skip();
#endif
}

static void test_init_is_out_of_reach(void **state)
{
	(void)state;
	shell_says("for f in environ mem maps auxv stack syscall; do cat /proc/1/$f 2>/dev/null && "
		   "echo read $f; done; ls /proc/1/fd 2>/dev/null; ls /proc/1/root 2>/dev/null; "
		   "ls /proc/1/cwd/ 2>/dev/null; kill -9 1; kill -STOP 1; sleep 0.05; "
		   "ps -o stat= -p 1 | cut -c1",
		"S");
	python_says("b = ctypes.create_string_buffer(64)\n"
		    "print(call('ptrace', 16, 1, 0, 0), call('ptrace', 0x4206, 1, 0, 0))\n"
		    "iov = (ctypes.c_ulong * 2)(ctypes.addressof(b), 64)\n"
		    "print(call('process_vm_readv', 1, iov, 1, iov, 1, 0))\n"
		    "p = os.pidfd_open(1)\n"
		    "print(call(438, p, 3, 0))",
		"EPERM EPERM\nEPERM\nEPERM");
}

static void test_debuggers_work_on_own_processes(void **state)
{
	(void)state;
	python_says("pid = os.fork()\n"
		    "if pid == 0:\n"
		    "    import time; time.sleep(600)\n"
		    "r = call('ptrace', 16, pid, 0, 0)\n"
		    "os.kill(pid, 9)\n"
		    "print(r)",
		"ok");
}

static void test_no_devices(void **state)
{
	(void)state;
	python_says(
		"import stat\n"
		"print(attempt(os.mknod, '/tmp/disk', 0o666 | stat.S_IFBLK, os.makedev(254, 0)))\n"
		"print(attempt(os.mknod, '/tmp/mem', 0o666 | stat.S_IFCHR, os.makedev(1, 1)))\n"
		"print(attempt(os.mknod, '/tmp/white', 0o666 | stat.S_IFCHR, 0))\n"
		"print(attempt(os.mknod, '/dev/shm/mem', 0o666 | stat.S_IFCHR, os.makedev(1, 1)))\n"
		"print(attempt(os.mkfifo, '/tmp/fifo'))\n"
		"print(attempt(os.chmod, '/dev/null', 0), attempt(os.unlink, '/dev/null'))",
		"EPERM\nEPERM\nEPERM\nEPERM\nok\nEROFS EROFS");
	shell_says(
		"head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; "
		"echo x > /dev/full 2>/dev/null || echo full; ls /dev | tr '\\n' ' '",
		"4\n4\nfull\nfd full null ptmx pts random shm stderr stdin stdout tty urandom "
		"zero ");
}

static void test_host_parts_are_read_only(void **state)
{
	(void)state;
	python_says(
		"for p in ('/usr/bin/x', '/usr/x', '/sys/x', '/dev/x', "
		"'/proc/sys/kernel/core_pattern',\n"
		"        '/proc/sys/kernel/hostname', '/proc/sys/vm/drop_caches',\n"
		"        '/proc/sys/net/ipv4/ip_forward', '/proc/sysrq-trigger',\n"
		"        '/proc/1/oom_score_adj', '/proc/irq/default_smp_affinity'):\n"
		"    r = attempt(lambda: open(p, 'w').write('1'))\n"
		"    if r not in ('EROFS', 'EACCES', 'ENOENT'): print(p, r)\n"
		"print(attempt(os.chmod, '/usr/bin/env', 0o777), attempt(os.chown, '/usr', 0, 0))\n"
		"print(open('/proc/keys').read() + open('/proc/timer_list').read() + 'masked')",
		"EROFS EROFS\nmasked");
}

/* The old way out of a chroot ends at the sandbox's own root. */
static void test_chroot_leads_nowhere(void **state)
{
	(void)state;
	python_says("before = os.stat('/').st_dev, sorted(os.listdir('/'))\n"
		    "os.mkdir('/tmp/jail')\n"
		    "fd = os.open('/', os.O_RDONLY)\n"
		    "os.chroot('/tmp/jail')\n"
		    "os.fchdir(fd)\n"
		    "for _ in range(64): os.chdir('..')\n"
		    "os.chroot('.')\n"
		    "print((os.stat('/').st_dev, sorted(os.listdir('/'))) == before)\n"
		    "os.rmdir('/tmp/jail')",
		"True");
}

static void test_no_capability_comes_back(void **state)
{
	(void)state;
	shell_says("grep -E '^(CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'",
		"CapBnd:00000000800425ff\nCapAmb:0000000000000000\nNoNewPrivs:1\nSeccomp:2");
	/* A file with set-user-id or capabilities gives nothing. */
	shell_says("cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id && chown 1000 /tmp/id && "
		   "setpriv --reuid 1000 --regid 1000 --clear-groups /tmp/id -u; rm /tmp/id",
		"1000");
}

static void test_only_own_namespaces_are_seen(void **state)
{
	CLEANUP(free_p) char *wanted = NULL;

	(void)state;
	if (kit == NULL) {
		skip();
	}
	wanted = xasprintf(
		"/\n 0 %lld 65536\n1", (long long)launcher_slot_base(kit->launcher, box.slot));
	shell_says("cut -d: -f3 /proc/self/cgroup | sort -u; tr -s ' ' < /proc/self/uid_map; "
		   "grep -c : /proc/net/dev",
		wanted);
}

static void test_no_host_path_or_descriptor(void **state)
{
	CLEANUP(free_p) char *said = NULL;

	(void)state;
	if (kit == NULL) {
		skip();
	}
	said = box_shell(
		&box, "cat /proc/self/mountinfo /proc/self/environ; ls -l /proc/self/fd", NULL);
	assert_null(strstr(said, kit->folder));
	assert_null(strstr(said, "sb-hostile"));
	assert_null(strstr(said, "socket:"));
	assert_null(strstr(said, "memfd"));
}

static void test_a_low_port_and_loopback(void **state)
{
	(void)state;
	python_says("s = socket.socket(); s.bind(('127.0.0.1', 80)); s.listen()\n"
		    "c = socket.create_connection(('127.0.0.1', 80)); print('local')\n"
		    "s6 = socket.socket(socket.AF_INET6); s6.bind(('::1', 81)); print('v6')\n"
		    "print(attempt(socket.create_connection, ('192.0.2.1', 80), 1))\n"
		    "import fcntl, struct\n"
		    "r = struct.pack('16sH14x', b'lo', 0)\n"
		    "print(attempt(fcntl.ioctl, s, 0x8914, r))",
		"local\nv6\nENETUNREACH\nEPERM");
}

/* ---- images that lead astray ---- */

/* `name` of the image is a link to `target`, or a file (target NULL). */
static void image_fails_closed(const char *name, const char *target)
{
	struct sandbox_spec spec;
	CLEANUP(free_p) char *tree = NULL;
	CLEANUP(free_p) char *path = NULL;
	struct kit_box bad;

	if (kit == NULL) {
		skip();
	}
	tree = sandbox_kit_layer(kit, 0, ID_RANGE);
	path = xasprintf("%s/%s", tree, name);
	if (target != NULL) {
		assert_int_equal(symlink(target, path), 0);
	} else {
		temp_write(tree, name, "");
	}
	spec = kit_spec(kit, "sb-astray", 9);
	assert_int_not_equal(box_create(kit, &bad, &spec), 0);
	assert_contains(kit->err.message, name);
	/* Nothing of it is left. */
	assert_kind(sandbox_usage_read(
			    &kit->config, "sb-astray", &(struct sandbox_usage){0}, &kit->err),
		&kit->err, ERROR_NOT_FOUND);
	kit->layer_count--;
	temp_remove(xstrdup(tree));
}

static void test_linked_folders_fail_closed(void **state)
{
	static const char *const folders[] = {"dev", "proc", "sys", "run", "usr"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		image_fails_closed(folders[i], "/tmp");
		image_fails_closed(folders[i], "../../../../../etc");
		image_fails_closed(folders[i], "nowhere");
		image_fails_closed(folders[i], NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_new_mounts),
		cmocka_unit_test(test_no_new_namespaces),
		cmocka_unit_test(test_dangerous_calls_are_refused),
		cmocka_unit_test(test_sockets_are_local_or_internet),
		cmocka_unit_test(test_no_typing_into_terminals),
		cmocka_unit_test(test_foreign_architectures_are_killed),
		cmocka_unit_test(test_init_is_out_of_reach),
		cmocka_unit_test(test_debuggers_work_on_own_processes),
		cmocka_unit_test(test_no_devices),
		cmocka_unit_test(test_host_parts_are_read_only),
		cmocka_unit_test(test_chroot_leads_nowhere),
		cmocka_unit_test(test_no_capability_comes_back),
		cmocka_unit_test(test_only_own_namespaces_are_seen),
		cmocka_unit_test(test_no_host_path_or_descriptor),
		cmocka_unit_test(test_a_low_port_and_loopback),
		cmocka_unit_test(test_linked_folders_fail_closed),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
