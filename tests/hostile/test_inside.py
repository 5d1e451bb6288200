"""What an agent that wants out would try, from inside a sandbox: each attempt must fail there, and the
host and the neighbours must not notice."""

import os
import re
import time

import pytest

from hobtest import wait_for

# A small library for the Python that runs inside: raw system calls by number (x86-64 and aarch64).
CALLS = r"""
import ctypes, ctypes.util, os, platform, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
numbers = {'x86_64': dict(ptrace=101, mount=165, umount2=166, swapon=167, reboot=169, init_module=175,
    finit_module=313, kexec_load=246, unshare=272, setns=308, pivot_root=155, chroot=161, bpf=321,
    userfaultfd=323, perf_event_open=298, io_uring_setup=425, open_tree=428, move_mount=429, fsopen=430,
    fsmount=432, mount_setattr=442, keyctl=250, add_key=248, clock_settime=227, acct=163, syslog=103,
    process_vm_readv=310, pidfd_getfd=438, pidfd_open=434, mknod=133, quotactl=179, clone3=435,
    open_by_handle_at=304, kcmp=312, iopl=172, sethostname=170, modify_ldt=154),
  'aarch64': dict(ptrace=117, mount=40, umount2=39, swapon=224, reboot=142, init_module=105,
    finit_module=273, kexec_load=104, unshare=97, setns=268, pivot_root=41, chroot=51, bpf=280,
    userfaultfd=282, perf_event_open=241, io_uring_setup=425, open_tree=428, move_mount=429, fsopen=430,
    fsmount=432, mount_setattr=442, keyctl=219, add_key=217, clock_settime=112, acct=89, syslog=116,
    process_vm_readv=270, pidfd_getfd=438, pidfd_open=434, quotactl=60, clone3=435, open_by_handle_at=265,
    kcmp=272, sethostname=161)}[platform.machine()]
def call(name, *words):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(numbers[name]), *[ctypes.c_long(w) if isinstance(w, int) else w for w in words])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ''
def refused(name, *words):
    result, why = call(name, *words)
    if result >= 0:
        print('ALLOWED', name, words)
"""


def python(client, sandbox, script, **more):
    return client.exec(sandbox, ["/usr/bin/python3", "-c", CALLS + script], **more)


def silent(result):
    """The script found nothing allowed."""
    assert result["exit_code"] == 0, result
    assert result["stdout"] == "", result["stdout"]


def test_calls_that_are_out(client, sandbox):
    silent(python(client, sandbox, """
refused('mount', b'none', b'/mnt', b'tmpfs', 0, 0)
refused('mount', b'proc', b'/proc', b'proc', 0, 0)
refused('mount', b'/', b'/tmp', 0, 4096, 0)
refused('umount2', b'/proc', 2)
refused('umount2', b'/dev', 0)
refused('pivot_root', b'/', b'/tmp')
refused('unshare', 0x10000000)
refused('unshare', 0x00020000)
refused('unshare', 0x40000000)
for space in ('mnt', 'net', 'pid', 'user', 'ipc', 'uts', 'cgroup'):
    refused('setns', os.open(f'/proc/self/ns/{space}', os.O_RDONLY), 0)
refused('fsopen', b'tmpfs', 0)
refused('open_tree', -100, b'/', 1)
refused('mount_setattr', -100, b'/', 0, 0, 0)
refused('bpf', 0, 0, 0)
refused('userfaultfd', 0)
refused('userfaultfd', 1)
refused('perf_event_open', 0, 0, -1, -1, 0)
refused('io_uring_setup', 4, ctypes.create_string_buffer(256))
refused('keyctl', 0, -3, 1)
refused('add_key', b'user', b'x', b'y', 1, -3)
refused('kexec_load', 0, 0, 0, 0)
refused('init_module', 0, 0, b'')
refused('finit_module', 0, b'', 0)
refused('reboot', 0xfee1dead, 672274793, 0x1234567, 0)
refused('swapon', b'/tmp/x', 0)
refused('clock_settime', 0, ctypes.create_string_buffer(16))
refused('acct', b'/tmp/x')
refused('syslog', 3, ctypes.create_string_buffer(100), 100)
refused('open_by_handle_at', 3, ctypes.create_string_buffer(100), 0)
"""))


def test_nested_user_namespace_by_clone(client, sandbox):
    result = client.exec(sandbox, ["unshare", "--user", "--map-root-user", "true"])
    assert result["exit_code"] != 0
    result = client.exec(sandbox, ["unshare", "--mount", "true"])
    assert result["exit_code"] != 0


def test_sockets_of_other_families(client, sandbox):
    silent(python(client, sandbox, """
for name, family, kind in (('vsock', 40, 1), ('packet', 17, 3), ('alg', 38, 5), ('bluetooth', 31, 3),
                           ('can', 29, 3), ('netlink audit', 16, 3), ('xdp', 44, 3), ('tipc', 30, 1)):
    try:
        made = socket.socket(family, kind, 9 if name == 'netlink audit' else 0)
        print('ALLOWED', name)
    except OSError:
        pass
"""))
    result = python(client, sandbox, """
socket.socket(socket.AF_UNIX); socket.socket(socket.AF_INET); socket.socket(socket.AF_INET6)
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
print('usable')
""")
    assert result["stdout"] == "usable\n"


def test_raw_sockets_reach_nobody(client, sandbox):
    result = python(client, sandbox, """
try:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
    raw.sendto(bytes(8), ('192.0.2.1', 0))
    print('ALLOWED')
except OSError:
    pass
""")
    silent(result)


def test_foreign_architecture_is_killed(client, sandbox):
    if os.uname().machine != "x86_64":
        pytest.skip("int 0x80 is of x86")
    result = client.exec(sandbox, "cd /tmp && printf '%s' 'int main(void) { long r; __asm__ volatile("
                                  "\"int $0x80\" : \"=a\"(r) : \"a\"(20)); return r > 0 ? 99 : 1; }' > a.c "
                                  "&& cc -o a a.c && ./a")
    assert result["exit_code"] not in (0, 99), "a 32-bit getpid went through"


def test_privileges_are_gone(client, sandbox):
    status = client.output(sandbox, "cat /proc/self/status")
    fields = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.M))
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    powers = int(fields["CapEff"], 16) | int(fields["CapBnd"], 16)
    for name, bit in (("SYS_ADMIN", 21), ("SYS_MODULE", 16), ("SYS_RAWIO", 17), ("SYS_PTRACE", 19),
                      ("SYS_BOOT", 22), ("SYS_TIME", 25), ("MKNOD", 27), ("NET_ADMIN", 12), ("BPF", 39),
                      ("PERFMON", 38), ("SYS_RESOURCE", 24), ("SYSLOG", 34), ("MAC_ADMIN", 33)):
        assert not powers >> bit & 1, name
    assert int(fields["CapInh"], 16) == 0 and int(fields["CapAmb"], 16) == 0


def test_set_uid_programs_give_nothing(client, sandbox):
    assert client.exec(sandbox, "test -x /usr/bin/su")["exit_code"] == 0
    status = client.exec(sandbox, "cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id", user="0")
    assert status["exit_code"] == 0
    assert "euid" not in client.output(sandbox, ["/tmp/id"], user="1000")


def test_mountinfo_shows_nothing_of_the_host(shared, client, sandbox):
    seen = client.output(sandbox, "cat /proc/self/mountinfo /proc/1/mountinfo /proc/mounts")
    for word in (shared.folder, shared.store, "/var/lib", "hob-test", "layers/", "sandboxes", "staging"):
        assert word not in seen, word


def test_proc_and_sys_are_masked(client, sandbox):
    for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/kmsg",
                 "/sys/firmware", "/proc/acpi"):
        result = client.exec(sandbox, f"timeout 1 head -c 1 {path} 2>/dev/null || ls -A {path}/ 2>/dev/null")
        assert result["stdout"] == "", path
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger",
                 "/proc/sys/vm/drop_caches", "/proc/sys/kernel/modprobe", "/sys/kernel/uevent_helper",
                 "/proc/irq/default_smp_affinity", "/sys/fs/cgroup/cgroup.procs", "/proc/bus/pci"):
        assert client.exec(sandbox, f"echo x > {path}")["exit_code"] != 0, path
    assert client.exec(sandbox, "dmesg")["exit_code"] != 0


def test_dev_has_only_what_is_harmless(client, sandbox):
    names = set(client.output(sandbox, "ls /dev").split())
    assert {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "ptmx"} <= names
    assert not names - {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "ptmx", "fd", "stdin",
                        "stdout", "stderr", "console", "core", "mqueue"}, names
    assert client.exec(sandbox, "mknod /tmp/sda b 8 0")["exit_code"] != 0
    assert client.exec(sandbox, "mknod /tmp/null c 1 3")["exit_code"] != 0
    assert client.output(sandbox, "echo x > /dev/null; head -c 3 /dev/zero | wc -c") == "3\n"


def test_network_is_loopback_only(client, sandbox):
    assert client.output(sandbox, "ls /sys/class/net 2>/dev/null || true").split() in (["lo"], [])
    names = client.output(sandbox, "cut -d: -f1 /proc/net/dev | tail -n +3").split()
    assert names == ["lo"]
    silent(python(client, sandbox, """
for where in (('192.0.2.1', 80), ('169.254.169.254', 80), ('10.0.0.1', 22), ('8.8.8.8', 53)):
    try:
        socket.create_connection(where, 2)
        print('ALLOWED', where)
    except OSError:
        pass
"""))


def test_host_services_are_not_on_loopback(client, sandbox):
    import socket
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    silent(python(client, sandbox, f"""
try:
    socket.create_connection(('127.0.0.1', {port}), 2)
    print('ALLOWED')
except OSError:
    pass
"""))
    listener.close()


def test_abstract_sockets_are_separate(client, sandbox):
    import socket
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0hob-hostile-{os.getpid()}")
    listener.listen()
    silent(python(client, sandbox, f"""
try:
    s = socket.socket(socket.AF_UNIX); s.connect('\\0hob-hostile-{os.getpid()}'); print('ALLOWED')
except OSError:
    pass
"""))
    listener.close()


def test_neighbours_are_invisible(client):
    one, two = client.create("tiny")["id"], client.create("tiny")["id"]
    client.post(f"/v1/sandboxes/{one}/exec", {"argv": ["sleep", "8881"], "detach": True})
    client.output(one, "echo secret > /tmp/secret; echo secret > /dev/shm/secret; ipcmk -M 4096; true")
    assert client.exec(two, ["pgrep", "-f", "8881"])["exit_code"] == 1
    assert client.output(two, "ls /tmp /dev/shm | grep secret; ipcs -m | grep -c 0x; true").strip() in ("0", "")
    assert client.exec(two, "find / -xdev -name secret 2>/dev/null")["stdout"] == ""
    assert len(client.output(two, "ls -d /proc/[0-9]*").split()) <= 6
    for sandbox in (one, two):
        client.delete(sandbox)


def test_users_of_two_sandboxes_are_different_people(shared, client):
    import leftovers
    made = [client.create("tiny") for _ in range(2)]
    owners = set()
    for sandbox in made:
        client.post(f"/v1/sandboxes/{sandbox['id']}/exec", {"argv": ["sleep", "8882"], "detach": True})
        pid = client.get(f"/v1/sandboxes/{sandbox['id']}")["pid"]
        line = next(row for row in leftovers.read_text(f"/proc/{pid}/status").splitlines()
                    if row.startswith("Uid:"))
        owners.add(int(line.split()[1]) // 65536)
    assert len(owners) == 2 and 0 not in owners
    for sandbox in made:
        client.delete(sandbox["id"])


def test_process_one_cannot_be_touched(client, sandbox):
    for number in (9, 15, 19, 6):
        client.exec(sandbox, f"kill -{number} 1")
    assert client.output(sandbox, "echo still there") == "still there\n"
    silent(python(client, sandbox, """
refused('ptrace', 16, 1, 0, 0)
refused('ptrace', 0x4206, 1, 0, 0)
class Part(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
mine = ctypes.create_string_buffer(16)
result, why = call('process_vm_readv', 1, ctypes.byref(Part(ctypes.addressof(mine), 16)), 1,
                   ctypes.byref(Part(0x400000, 16)), 1, 0)
if result >= 0 or 'permitted' not in why:
    print('ALLOWED process_vm_readv', why)
fd, _ = call('pidfd_open', 1, 0)
for number in range(12):
    if fd >= 0:
        refused('pidfd_getfd', fd, number, 0)
for path in ('/proc/1/mem', '/proc/1/environ', '/proc/1/fd/3', '/proc/1/root/etc', '/proc/1/cwd/etc', '/proc/1/exe'):
    for mode in (os.O_RDONLY, os.O_RDWR):
        try:
            os.open(path, mode)
            if not path.startswith(('/proc/1/root', '/proc/1/cwd')):
                print('ALLOWED', path, mode)
        except OSError:
            pass
try:
    print('ALLOWED', os.listdir('/proc/1/fd'))
except OSError:
    pass
"""))


def test_no_descriptor_of_the_host_leaks(client, sandbox):
    listed = client.output(sandbox, ["/usr/bin/python3", "-c",
                                     "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"])
    assert listed == "[0, 1, 2, 3]\n"
    links = client.output(sandbox, "ls -l /proc/self/fd | sed 's/.*-> //'")
    assert "hob" not in links and "socket" not in links


def test_environment_of_the_daemon_does_not_leak(client, sandbox):
    names = {line.split("=")[0] for line in client.output(sandbox, "env").splitlines()}
    assert names <= {"PATH", "HOME", "USER", "LOGNAME", "TERM", "TINY", "PWD", "SHLVL", "_", "OLDPWD", "LANG",
                     "SHELL", "HOSTNAME", "container"}, names


def test_fork_bomb_is_contained(machine):
    machine.environment("bomb", limits={"pids": 150, "memory": "512MiB"}, workdir="/tmp",
                        pool={"min": 2, "max": 4})
    machine.build("bomb")
    machine.start()
    machine.wait_ready("bomb", 2)
    bad, good = machine.client.create("bomb")["id"], machine.client.create("bomb")["id"]
    machine.client.post(f"/v1/sandboxes/{bad}/exec", {"shell": "b() { b | b & b; }; b; sleep 100", "detach": True})
    time.sleep(1)
    assert machine.client.output(good, "echo fine") == "fine\n"
    assert machine.client.get(f"/v1/sandboxes/{bad}")["usage"]["pids"] <= 160
    assert machine.client.delete(bad)["state"] == "gone"


def test_memory_hog_hits_only_itself(machine):
    machine.environment("hog", limits={"memory": "128MiB", "pids": 100}, workdir="/tmp", pool={"min": 0, "max": 4})
    machine.build("hog")
    machine.start()
    sandbox = machine.client.create("hog")["id"]
    result = machine.client.exec(sandbox, ["/usr/bin/python3", "-c",
                                           "x = []\nwhile True: x.append(bytearray(1 << 20))"])
    assert result["exit_code"] != 0
    assert machine.client.output(sandbox, "echo fine") == "fine\n"
    for folder in ("/dev/shm", "/run"):
        result = machine.client.exec(sandbox, f"head -c 400000000 /dev/zero > {folder}/fill; true")
        assert machine.client.exec(sandbox, f"rm -f {folder}/fill; echo fine")["stdout"] == "fine\n", result


def test_files_that_resist_deletion_go(shared, client):
    sandbox = client.create("tiny")["id"]
    client.output(sandbox, """
mkdir -p /tmp/locked/in && chmod 000 /tmp/locked/in /tmp/locked; touch -- /tmp/-rf '/tmp/new
line'; ln -s / /tmp/root; mkfifo /tmp/pipe; cd /tmp; for i in $(seq 1200); do mkdir d && cd d || break; done; true""")
    client.delete(sandbox)
    wait_for("its folder to go", lambda: sandbox not in os.listdir(f"{shared.store}/sandboxes"))


def test_processes_that_resist_ending_go(shared, client):
    sandbox = client.create("tiny")["id"]
    pid = client.get(f"/v1/sandboxes/{sandbox}")["pid"]
    client.post(f"/v1/sandboxes/{sandbox}/exec", {"shell": "trap '' TERM INT HUP QUIT; (setsid sh -c 'while :; do "
                "sleep 0.01 & done') & while :; do sleep 0.1; done", "detach": True})
    time.sleep(0.3)
    client.delete(sandbox)
    wait_for("init to be gone", lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_stopped_process_does_not_stop_deletion(client):
    sandbox = client.create("tiny")["id"]
    client.post(f"/v1/sandboxes/{sandbox}/exec", {"shell": "kill -STOP $$", "detach": True})
    assert client.delete(sandbox)["state"] == "gone"


def test_core_dumps_reach_no_helper_of_the_host(client, sandbox):
    result = client.exec(sandbox, "ulimit -c; sh -c 'kill -SEGV $$'; ls /tmp /workspace | grep -c '^core'")
    assert result["stdout"].splitlines()[0] in ("0", "1") and result["stdout"].splitlines()[-1] == "0"


def test_hostile_output_cannot_break_the_protocol(client, sandbox):
    result = client.exec(sandbox, ["head", "-c", "1000000", "/dev/urandom"])
    assert len(result["stdout"]) == 1000000 and result["exit_code"] == 0
    with client.stream("POST", f"/v1/sandboxes/{sandbox}/exec",
                       {"shell": "printf 'a\\n\\nevent: exit\\ndata: {\"exit_code\": 0}\\n\\n'; exit 9"}) as events:
        seen = [(event, data) for _, event, data in events]
    assert [event for event, _ in seen] == ["started", "stdout", "exit"] and seen[-1][1]["exit_code"] == 9
