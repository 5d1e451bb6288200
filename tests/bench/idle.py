"""What frozen sandboxes cost while nothing happens: hob's own processes, the sandboxes, this program,
and the rest of the machine apart, beside the same machine before hob was started."""

import os
import time

MIB = 1024 * 1024
SECONDS = 10
NAMES_SHOWN = 3


def memory_available():
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def family(pid):
    """The process and all its descendants but those inside sandboxes (in another pid namespace)."""
    mine = os.readlink("/proc/self/ns/pid")
    found, queue = set(), [pid]
    while queue:
        pid = queue.pop()
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") != mine:
                continue
            found.add(pid)
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                    queue += [int(child) for child in file.read().split()]
        except OSError:
            continue
    return found


def sandboxes_cpu(cgroup):
    """CPU seconds of all sandboxes so far."""
    for path, scale in ((f"/sys/fs/cgroup/cpuacct/{cgroup}/cpuacct.usage", 1e9),
                        (f"/sys/fs/cgroup/{cgroup}/cpu.stat", 1e6)):
        try:
            with open(path, encoding="ascii") as file:
                return int(file.read().split()[-1 if scale == 1e9 else 1]) / scale
        except OSError:
            continue
    return 0


def processes_cpu():
    """CPU seconds of each process of this pid namespace, kernel threads too: exact, not in ticks."""
    found = {}
    for name in os.listdir("/proc"):
        try:
            pid = int(name)
            seconds = 0
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
                    seconds += int(file.read().split()[0]) / 1e9
            found[pid] = seconds
        except (ValueError, OSError):
            continue
    return found


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "ended"


def busy_ticks():
    """Of the whole machine, in ticks: not idle; and all."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(word) for word in file.readline().split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def watch(cgroup=None, daemon_pid=None):
    """Percent of one CPU of each part for SECONDS, and of all CPUs of the machine."""
    before, inside, (busy, ticks) = processes_cpu(), sandboxes_cpu(cgroup), busy_ticks()
    time.sleep(SECONDS)
    busy_after, ticks_after = busy_ticks()
    inside, after = sandboxes_cpu(cgroup) - inside, processes_cpu()
    spent = {pid: 100 * (seconds - before.get(pid, 0)) / SECONDS for pid, seconds in after.items()}
    ours = family(daemon_pid) if daemon_pid is not None else set()
    mine = os.readlink("/proc/self/ns/pid")
    others = {}
    for pid, percent in spent.items():
        try:
            inner = os.readlink(f"/proc/{pid}/ns/pid") != mine
        except OSError:
            inner = False
        if pid not in ours and pid != os.getpid() and not inner:
            name = name_of(pid).split("/")[0]
            others[name] = others.get(name, 0) + percent
    most = sorted(others.items(), key=lambda item: -item[1])[:NAMES_SHOWN]
    return {
        "cpu_percent": sum(spent.get(pid, 0) for pid in ours),
        "sandboxes_cpu_percent": 100 * inside / SECONDS,
        "bench_cpu_percent": spent.get(os.getpid(), 0),
        "others_cpu_percent": sum(others.values()),
        "others_most": [[name, percent] for name, percent in most],
        "machine_cpu_percent": 100 * (busy_after - busy) / max(1, ticks_after - ticks),
        "cpus": os.cpu_count(),
    }


def measure(daemon, count, empty, wait_until):
    """`empty`: what watch() and memory_available() said before the daemon was started."""
    wait_until("the ready ones to be frozen",
               lambda: all(s["frozen"] for s in daemon.get("/v1/sandboxes?state=ready")["sandboxes"]))
    time.sleep(2)  # what the last of them has begun in the kernel
    found = watch(daemon.cgroup, daemon.process.pid)
    found.update(sandboxes=count, hobd_rss_mib=resident_bytes(daemon.process.pid) / MIB,
                 per_sandbox_kib=(empty["memory"] - memory_available()) / count / 1024,
                 empty=empty["cpu"])
    return found


def before():
    return {"memory": memory_available(), "cpu": watch()}


def print_found(idle, row):
    """hob's share is of the whole machine, as the sum is."""
    cpus, empty = idle["cpus"], idle["empty"]
    hob = (idle["cpu_percent"] + idle["sandboxes_cpu_percent"]) / cpus
    row(f"{idle['sandboxes']} frozen sandboxes: CPU of hob and of them", f"{hob:.3f} %",
        f"hobd and launchers {idle['cpu_percent'] / cpus:.3f} %, "
        f"inside {idle['sandboxes_cpu_percent'] / cpus:.3f} %")
    row("  of the whole machine", f"{idle['machine_cpu_percent']:.2f} %",
        f"before hob was started {empty['machine_cpu_percent']:.2f} %")
    row("  the rest of it", f"{idle['others_cpu_percent'] / cpus:.2f} %",
        f"before {empty['others_cpu_percent'] / cpus:.2f} %: " + ", ".join(
            f"{name} {percent / cpus:.2f}" for name, percent in idle["others_most"]))
    row("  memory of hobd", f"{idle['hobd_rss_mib']:.1f} MiB")
