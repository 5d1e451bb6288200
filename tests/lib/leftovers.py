"""What a test run may have left on this machine, and how to take it away.

Everything that a run starts carries its token: in the environment variable HOB_TEST_RUN, in the
names of its cgroups (hob-test-<token>-…) and in its temporary folder. Processes inside sandboxes have
neither variable nor folder; they are found through their cgroup.
"""

import ctypes
import errno
import os
import shutil
import signal
import time

CGROUP_PREFIX = "hob-test-"


def read_text(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="surrogateescape")
    except OSError:
        return ""


def processes(token):
    """The processes that carry the token, this one and its parents apart."""
    mark = f"HOB_TEST_RUN={token}"
    ours, pid = set(), os.getpid()
    while pid > 1:
        ours.add(pid)
        pid = int(read_text(f"/proc/{pid}/stat").rsplit(")", 1)[-1].split()[1] or 0)
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in ours:
            variables = read_text(f"/proc/{name}/environ").split("\0")
            if mark in variables and not is_zombie(int(name)):
                found.append(int(name))
    return found


def is_zombie(pid):
    return ") Z" in read_text(f"/proc/{pid}/stat")


def cgroup_mounts():
    for line in read_text("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] in ("cgroup", "cgroup2"):
            yield before.split()[4]


def cgroups_named(prefix):
    """Cgroups whose name is the prefix, or goes on after it with a "-", with those below them, in every
    hierarchy, the innermost first."""
    found = []
    for root in cgroup_mounts():
        try:
            names = os.listdir(root)
        except OSError:
            continue
        for name in names:
            if (name + "-").startswith(prefix + "-"):
                for folder, _, _ in os.walk(os.path.join(root, name), topdown=False):
                    found.append(folder)
    return found


def cgroups(token):
    return cgroups_named(CGROUP_PREFIX + token)


def cgroup_processes(prefix):
    found = set()
    for folder in cgroups_named(prefix):
        found.update(int(pid) for pid in read_text(f"{folder}/cgroup.procs").split())
    return sorted(found)


def mounts(folder):
    """Mounts at or below the folder in this mount namespace, the innermost first."""
    found = []
    for line in read_text("/proc/self/mountinfo").splitlines():
        where = line.split()[4]
        if where == folder or where.startswith(folder + "/"):
            found.append(where)
    return sorted(found, key=len, reverse=True)


def ids_in_use(first, count):
    """Processes whose user lies in a range of ids that only sandboxes have."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        for line in read_text(f"/proc/{name}/status").splitlines():
            if line.startswith("Uid:") and first <= int(line.split()[1]) < first + count:
                found.append(int(name))
    return found


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def thaw(folder):
    for control, value in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
        path = f"{folder}/{control}"
        if os.path.exists(path):
            try:
                with open(path, "w", encoding="ascii") as file:
                    file.write(value)
            except OSError:
                pass


def remove_cgroups_named(prefix):
    """Kills what is in them and removes them."""
    for _ in range(100):
        folders = cgroups_named(prefix)
        for folder in folders:
            thaw(folder)
        signal_all(cgroup_processes(prefix), signal.SIGKILL)
        left = False
        for folder in folders:
            try:
                os.rmdir(folder)
            except OSError as error:
                left = left or error.errno != errno.ENOENT
        if not left:
            return
        time.sleep(0.02)


def describe(token, folder):
    """Lines that say what is there; empty when the run left nothing."""
    lines = [f"process {pid}: {read_text(f'/proc/{pid}/cmdline').replace(chr(0), ' ')}"
             for pid in processes(token)]
    lines += [f"cgroup {path} (processes {read_text(path + '/cgroup.procs').split()})"
              for path in cgroups(token)]
    lines += [f"mount {path}" for path in mounts(folder)]
    return lines


def sweep(token, folder):
    """Takes everything away that `describe` can find, and the folder."""
    for _ in range(100):
        pids = processes(token)
        if not pids:
            break
        signal_all(pids, signal.SIGKILL)
        time.sleep(0.02)
    remove_cgroups_named(CGROUP_PREFIX + token)
    for path in mounts(folder):
        unmount(path)
    shutil.rmtree(folder, ignore_errors=True)


def unmount_soon(path):
    """Whoever still looks at it, of other mount namespaces too, gets the time to go."""
    end = time.monotonic() + 120
    while os.path.ismount(path):
        unmount(path)
        assert time.monotonic() < end, f"{path} cannot be unmounted"
        time.sleep(0.02)


def unmount(path):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.umount2(os.fsencode(path), 0)
