"""Standing still: ready sandboxes frozen and thawed by their claim, claimed ones paused by call and by
idle time, woken by a request and not by a look; and what is left of it when hobd is killed."""

import os
import signal
import threading
import time

import pytest

from hobtest import Failure, Hob, only_long, wait_for
import leftovers

TICKS = "i=0; while :; do i=$((i+1)); echo $i > /tmp/ticks; sleep 0.05; done"


def start(machine, least=2, **keys):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": least, "max": 20}, **keys)
    machine.build("app")
    machine.start()
    machine.wait_ready("app", least)
    return machine.client


@pytest.fixture
def quick():
    """A hob that freezes its ready sandboxes almost at once."""
    hob = Hob(freeze_after="50ms")
    yield hob
    print("hobd's log ends:\n" + hob.tail())
    hob.close()


def group(machine, sandbox):
    """The sandbox's main cgroup: the one that freezes."""
    return next(path for path in leftovers.cgroups_named(machine.cgroup) if path.endswith(f"/{sandbox}") and
                (os.path.exists(f"{path}/cgroup.freeze") or os.path.exists(f"{path}/freezer.state")))


def is_frozen(machine, sandbox):
    path = group(machine, sandbox)
    if os.path.exists(f"{path}/cgroup.events"):
        return "frozen 1" in leftovers.read_text(f"{path}/cgroup.events")
    return "FROZEN" in leftovers.read_text(f"{path}/freezer.state")


def ready(client):
    return [s["id"] for s in client.get("/v1/sandboxes?state=ready")["sandboxes"]]


def wait_frozen(machine, sandboxes):
    wait_for("them to be frozen", lambda: all(is_frozen(machine, s) for s in sandboxes))


def ticks(client, sandbox):
    """Read as a look: the sandbox is as it was afterwards."""
    return int(client.raw("GET", client.file_path(sandbox, "/tmp/ticks")).body or b"0")


def state(client, sandbox):
    return client.get(f"/v1/sandboxes/{sandbox}")["state"]


def ticking(client, sandbox):
    number = client.post(f"/v1/sandboxes/{sandbox}/exec", {"shell": TICKS, "detach": True})["exec"]
    wait_for("the first tick", lambda: client.exec(sandbox, "test -s /tmp/ticks")["exit_code"] == 0)
    return number


def test_ready_ones_are_frozen_and_thawed_by_their_claim(quick):
    client = start(quick, 2)
    before = ready(client)
    wait_frozen(quick, before)
    assert all(client.get(f"/v1/sandboxes/{s}")["frozen"] for s in before)
    time.sleep(0.2)
    made = client.create("app")
    assert made["source"] == "warm" and made["id"] in before
    assert client.output(made["id"], "cat hello.txt") == "hello\n"
    assert not is_frozen(quick, made["id"])
    assert not client.get(f"/v1/sandboxes/{made['id']}")["frozen"]
    quick.wait_ready("app", 2)
    wait_frozen(quick, ready(client))
    client.delete(made["id"])


def test_frozen_ones_survive_hobd_and_are_frozen_again(quick):
    client = start(quick, 3)
    before = ready(client)
    wait_frozen(quick, before)
    quick.kill()
    assert all(is_frozen(quick, s) for s in before)
    quick.start()
    quick.wait_ready("app", 3)
    assert sorted(ready(client)) == sorted(before), "neither lost nor doubled"
    wait_frozen(quick, before)
    assert client.output(client.create("app")["id"], "cat hello.txt") == "hello\n"


@only_long
def test_a_burst_on_frozen_ones(quick):
    client = start(quick, 10)
    before = ready(client)
    wait_frozen(quick, before)
    made = []

    def claim():
        sandbox = client.create("app")["id"]
        made.append((sandbox, client.output(sandbox, "cat hello.txt")))
    workers = [threading.Thread(target=claim) for _ in range(10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [text for _, text in made] == ["hello\n"] * 10
    assert len({sandbox for sandbox, _ in made}) == 10


def test_pause_stops_and_resume_goes_on(machine):
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    number = ticking(client, sandbox)
    client.output(sandbox, "echo kept > /root/file")
    paused = client.post(f"/v1/sandboxes/{sandbox}/pause")
    assert paused["state"] == "paused" and paused["frozen"] and paused["paused_at"]
    assert is_frozen(machine, sandbox)
    assert client.post(f"/v1/sandboxes/{sandbox}/pause")["state"] == "paused", "again is no error"
    assert client.get("/v1/sandboxes?state=paused")["sandboxes"][0]["id"] == sandbox
    time.sleep(0.3)
    resumed = client.post(f"/v1/sandboxes/{sandbox}/resume")
    assert resumed["state"] == "claimed" and not resumed["frozen"] and resumed["paused_at"] is None
    was = ticks(client, sandbox)
    wait_for("it to tick on", lambda: ticks(client, sandbox) > was)
    assert client.output(sandbox, "cat /root/file") == "kept\n"
    assert client.get(f"/v1/sandboxes/{sandbox}/execs")["execs"][0]["exec"] == number
    client.delete(sandbox)


def test_looks_do_not_wake_and_requests_do(machine):
    client = start(machine, 1)
    sandbox = client.create("app", idle_s=3600)["id"]
    ticking(client, sandbox)
    paused = client.post(f"/v1/sandboxes/{sandbox}/pause")
    for _ in range(3):
        seen = client.get(f"/v1/sandboxes/{sandbox}")
        assert seen["state"] == "paused"
        for key in ("paused_at", "last_active_at", "expires_at"):
            assert seen[key] == paused[key], key
        client.get("/v1/sandboxes")
        client.get(f"/v1/sandboxes/{sandbox}/execs")
        client.get("/v1/pool")
        assert is_frozen(machine, sandbox)
    # A file has to be read by somebody inside, who then goes back to sleep.
    assert client.raw("GET", client.file_path(sandbox, "/workspace/hello.txt")).body == b"hello\n"
    wait_for("it to sleep again", lambda: is_frozen(machine, sandbox))
    seen = client.get(f"/v1/sandboxes/{sandbox}")
    assert (seen["state"], seen["paused_at"]) == ("paused", paused["paused_at"])
    assert seen["last_active_at"] == paused["last_active_at"]
    # A command and an upload wake it for good.
    assert client.output(sandbox, "echo awake") == "awake\n"
    assert state(client, sandbox) == "claimed"
    client.post(f"/v1/sandboxes/{sandbox}/pause")
    client.raw("PUT", client.file_path(sandbox, "/workspace/new"), b"new")
    assert state(client, sandbox) == "claimed"
    assert client.output(sandbox, "cat new") == "new"
    client.delete(sandbox)


def test_typing_wakes(machine):
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    terminal = client.terminal(sandbox, {"argv": ["cat"], "tty": True})
    terminal.binary(b"first\n")
    terminal.read_until(b"first\r\nfirst")
    client.post(f"/v1/sandboxes/{sandbox}/pause")
    assert state(client, sandbox) == "paused"
    terminal.binary(b"again\n")
    terminal.read_until(b"again\r\nagain")
    assert state(client, sandbox) == "claimed"
    client.delete(sandbox)


def test_time_limits_of_commands_stand_still(machine):
    """A command of three seconds of time stands still for longer than that, and goes on in what is left."""
    client = start(machine, 1)

    def attempt():
        sandbox, results = client.create("app")["id"], []
        worker = threading.Thread(target=lambda: results.append(client.exec(
            sandbox, "until test -e /tmp/go; do sleep 0.05; done; echo ended", timeout_ms=3000)), daemon=True)
        begin = time.monotonic()
        worker.start()
        wait_for("it to run", lambda: client.get(f"/v1/sandboxes/{sandbox}/execs")["execs"] or results)
        client.post(f"/v1/sandboxes/{sandbox}/pause")
        awake = time.monotonic() - begin
        time.sleep(3.2)
        stood_still = state(client, sandbox) == "paused" and not results
        begin = time.monotonic()
        client.post(f"/v1/sandboxes/{sandbox}/resume")
        client.output(sandbox, "touch /tmp/go")
        worker.join()
        awake += time.monotonic() - begin
        client.delete(sandbox)
        if "timed_out" in results[0]:
            assert awake >= 3, "the time that it stood still was counted"
            return None
        assert stood_still
        return results[0]
    assert wait_for("one that is in time", attempt)["stdout"] == "ended\n"


def test_paused_by_idle_time_and_released_by_its_own_limit(machine):
    client = start(machine, 1, lifecycle={"pause": "1s", "idle": "2s"})
    sandbox = client.create("app", idle_s=3600)["id"]
    wait_for("the idle one to be paused", lambda: state(client, sandbox) == "paused")
    assert client.output(sandbox, "echo back") == "back\n"
    assert f"sandbox.resumed sandbox={sandbox}" in machine.log()
    wait_for("it to be paused again", lambda: state(client, sandbox) == "paused")
    sandbox = client.create("app")["id"]
    wait_for("it to go", lambda: client.raw("GET", f"/v1/sandboxes/{sandbox}").status == 404)
    assert "reason=idle" in machine.log() and f"sandbox.paused sandbox={sandbox}" in machine.log()


@only_long
def test_a_running_command_is_not_paused_by_idle_time(machine):
    client = start(machine, 1, lifecycle={"pause": "1s", "idle": "1h"})
    sandbox = client.create("app")["id"]
    number = client.post(f"/v1/sandboxes/{sandbox}/exec", {
        "shell": "until test -e /tmp/go; do sleep 0.1; done; echo done", "detach": True})["exec"]
    time.sleep(2.5)
    running = client.get(f"/v1/sandboxes/{sandbox}/execs/{number}")
    assert running["exit_code"] is None and f"sandbox.paused sandbox={sandbox}" not in machine.log()
    client.output(sandbox, "touch /tmp/go")
    wait_for("it to be paused then", lambda: state(client, sandbox) == "paused")


@only_long
def test_max_age_and_timeout_go_on(machine):
    client = start(machine, 1)
    sandbox = client.create("app", timeout_s=10)["id"]
    client.post(f"/v1/sandboxes/{sandbox}/pause")
    wait_for("its time to end", lambda: client.raw("GET", f"/v1/sandboxes/{sandbox}").status == 404)
    sandbox = client.create("app", timeout_s=10)["id"]
    client.post(f"/v1/sandboxes/{sandbox}/pause")
    longer = client.post(f"/v1/sandboxes/{sandbox}/timeout", {"seconds": 3600})
    assert longer["state"] == "paused", "a longer life does not wake it"
    client.delete(sandbox)


def test_a_paused_one_is_snapshotted_forked_and_released(machine):
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    client.output(sandbox, "echo kept > /workspace/kept")
    client.post(f"/v1/sandboxes/{sandbox}/pause")
    taken = client.post(f"/v1/sandboxes/{sandbox}/snapshots", {"label": "asleep"})
    assert state(client, sandbox) == "paused" and is_frozen(machine, sandbox)
    other = client.create(snapshot=taken["id"])["id"]
    assert client.output(other, "cat kept") == "kept\n"
    client.delete(other)
    assert client.call("DELETE", f"/v1/sandboxes/{sandbox}?snapshot=1")["snapshot"].startswith("snap-")


def test_only_claimed_ones_are_paused(machine):
    client = start(machine, 1)
    free = ready(client)[0]
    for word in ("pause", "resume"):
        with pytest.raises(Failure) as refused:
            client.post(f"/v1/sandboxes/{free}/{word}")
        assert (refused.value.status, refused.value.kind) == (409, "conflict")
        with pytest.raises(Failure) as unknown:
            client.post(f"/v1/sandboxes/sb-000000000000/{word}")
        assert unknown.value.status == 404


def test_paused_stays_paused_over_a_kill(machine):
    client = start(machine, 1)
    sandbox, awake = client.create("app")["id"], client.create("app")["id"]
    number = ticking(client, sandbox)
    paused = client.post(f"/v1/sandboxes/{sandbox}/pause")
    machine.kill()
    assert is_frozen(machine, sandbox)
    machine.start()
    seen = client.get(f"/v1/sandboxes/{sandbox}")
    assert seen["state"] == "paused" and seen["paused_at"] == paused["paused_at"]
    wait_frozen(machine, [sandbox])
    assert state(client, awake) == "claimed" and not is_frozen(machine, awake)
    was = ticks(client, sandbox)
    client.post(f"/v1/sandboxes/{sandbox}/resume")
    wait_for("it to tick on", lambda: ticks(client, sandbox) > was)
    assert client.get(f"/v1/sandboxes/{sandbox}/execs")["execs"][0]["exec"] == number


@pytest.mark.parametrize("point", ["pause.recorded", pytest.param("sandbox.freeze", marks=only_long)])
def test_killed_while_pausing(machine, point):
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    ticking(client, sandbox)
    machine.kill()
    machine.start(env={"HOB_FAULT": f"{point}:1:kill"})
    with pytest.raises(OSError):
        client.post(f"/v1/sandboxes/{sandbox}/pause")
    machine.daemon.wait(120)
    machine.start()
    assert state(client, sandbox) == "paused", "it was written down"
    wait_frozen(machine, [sandbox])
    assert client.output(sandbox, "echo back") == "back\n"


def test_killed_while_resuming(machine):
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    client.post(f"/v1/sandboxes/{sandbox}/pause")
    machine.kill()
    machine.start(env={"HOB_FAULT": "resume.recorded:1:kill"})
    with pytest.raises(OSError):
        client.post(f"/v1/sandboxes/{sandbox}/resume")
    machine.daemon.wait(120)
    machine.start()
    assert state(client, sandbox) == "claimed"
    wait_for("it to be thawed", lambda: not is_frozen(machine, sandbox))
    assert client.output(sandbox, "echo back") == "back\n"


def test_killed_between_claim_and_thaw(quick):
    client = start(quick, 1)
    wait_frozen(quick, ready(client))
    quick.kill()
    quick.start(env={"HOB_FAULT": "sandbox.thaw:2:kill"})
    quick.wait_ready("app", 1)
    sandbox = ready(client)[0]
    wait_frozen(quick, [sandbox])
    with pytest.raises(OSError):
        client.create("app")
        client.output(sandbox, "true")
    quick.daemon.wait(120)
    quick.start()
    assert state(client, sandbox) == "claimed"
    wait_for("it to be thawed", lambda: not is_frozen(quick, sandbox))
    assert client.output(sandbox, "cat hello.txt") == "hello\n"


@only_long
def test_a_full_disk_leaves_it_as_it_was(machine):
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    machine.kill()
    machine.start(env={"HOB_FAULT": "sandbox.record:3:ENOSPC"})
    states = set()
    for word in ("pause", "resume", "pause", "resume"):
        try:
            client.post(f"/v1/sandboxes/{sandbox}/{word}")
        except Failure as failure:
            states.add(failure.status)
        seen = client.get(f"/v1/sandboxes/{sandbox}")
        assert seen["frozen"] == (seen["state"] == "paused")
    assert client.output(sandbox, "echo usable") == "usable\n"


def test_init_that_dies_while_paused(machine):
    client = start(machine, 1)
    made = client.create("app")
    client.post(f"/v1/sandboxes/{made['id']}/pause")
    os.kill(made["pid"], signal.SIGKILL)
    wait_for("it to go", lambda: client.raw("GET", f"/v1/sandboxes/{made['id']}").status == 404)


def test_a_fork_bomb_paused_and_released(machine):
    client = start(machine, 1, limits={"pids": 200})
    sandbox = client.create("app")["id"]
    client.post(f"/v1/sandboxes/{sandbox}/exec",
                {"shell": "f() { while :; do ( f ) & done; }; f", "detach": True})
    wait_for("it to grow", lambda: client.get(f"/v1/sandboxes/{sandbox}")["usage"]["pids"] > 150)
    client.post(f"/v1/sandboxes/{sandbox}/pause")
    wait_frozen(machine, [sandbox])
    used = client.get(f"/v1/sandboxes/{sandbox}")["usage"]
    time.sleep(0.5)
    assert client.get(f"/v1/sandboxes/{sandbox}")["usage"]["cpu_us"] == used["cpu_us"]
    assert client.delete(sandbox)["state"] == "gone"


@only_long
def test_paused_in_the_middle_of_writing_to_disk(machine):
    """A process in the kernel, waiting for the disk, is frozen when it comes out, and nothing is lost."""
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    number = client.post(f"/v1/sandboxes/{sandbox}/exec", {
        "shell": "for i in $(seq 60); do printf %4096s $i | dd of=/workspace/log bs=4096 oflag=append,sync "
                 "conv=notrunc status=none || exit 9; done; sync", "detach": True})["exec"]
    for _ in range(10):
        assert client.post(f"/v1/sandboxes/{sandbox}/pause")["state"] == "paused"
        client.post(f"/v1/sandboxes/{sandbox}/resume")
    ended = client.get(f"/v1/sandboxes/{sandbox}/execs/{number}?wait=1")
    assert ended["exit_code"] == 0, ended
    assert client.output(sandbox, "stat -c %s log") == f"{60 * 4096}\n"


def test_pause_and_resume_by_hob(machine):
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    done = machine.hob("pause", sandbox)
    assert (done.returncode, done.stdout) == (0, f"{sandbox}\n"), done.stderr
    assert f"{sandbox}" in machine.hob("ls", "--state", "paused", "-q").stdout
    assert "paused" in machine.hob("info", sandbox).stdout
    done = machine.hob("resume", sandbox, "sb-nosuch")
    assert done.returncode != 0 and sandbox in done.stdout
    assert state(client, sandbox) == "claimed"


def test_nobody_inside_thaws_anything(machine):
    """The freezer is neither in reach of the sandbox nor writable for the ids in it."""
    client = start(machine, 1)
    sandbox, other = client.create("app")["id"], client.create("app")["id"]
    client.post(f"/v1/sandboxes/{other}/pause")
    found = client.output(sandbox, "find / -name 'cgroup.freeze' -o -name 'freezer.state' 2>/dev/null || true")
    assert found == ""
    path = group(machine, other)
    name = "cgroup.freeze" if os.path.exists(f"{path}/cgroup.freeze") else "freezer.state"
    about = os.stat(f"{path}/{name}")
    assert not machine.id_base <= about.st_uid < machine.id_base + 288 * 65536
    assert about.st_mode & 0o022 == 0
    # Nothing else of the group is hob's: it may freeze, but not move processes about.
    assert os.stat(f"{path}/cgroup.procs").st_uid == 0
    refused = client.exec(sandbox, "kill -CONT -1; kill -CONT 1; mount -t cgroup2 none /mnt")
    assert refused["exit_code"] != 0
    assert is_frozen(machine, other) and state(client, other) == "paused"


def test_memory_of_paused_ones_is_given_back():
    """Always, as there may be no swap here: then what it has cached of files is what goes."""
    machine = Hob(page_out="always", page_out_after="100ms")
    try:
        client = start(machine, 1)
        sandbox = client.create("app")["id"]
        client.output(sandbox, "head -c 30000000 /dev/urandom > /workspace/big; sync; sha256sum big > sum")
        before = client.get(f"/v1/sandboxes/{sandbox}")["usage"]["memory_bytes"]
        assert before > 25_000_000
        client.post(f"/v1/sandboxes/{sandbox}/pause")
        wait_for("its memory to shrink", lambda: client.get(
            f"/v1/sandboxes/{sandbox}")["usage"]["memory_bytes"] < before // 3)
        assert state(client, sandbox) == "paused"
        assert client.output(sandbox, "sha256sum -c sum") == "big: OK\n"
    finally:
        machine.close()


def test_without_swap_nothing_is_asked():
    with open("/proc/swaps", encoding="ascii") as file:
        if len(file.readlines()) > 1:
            pytest.skip("this machine has swap")
    machine = Hob(page_out_after="20ms")
    try:
        client = start(machine, 1)
        client.post(f"/v1/sandboxes/{client.create('app')['id']}/pause")
        time.sleep(0.5)
        assert "sandbox.paused" in machine.log() and "sandbox.page_out" not in machine.log()
    finally:
        machine.close()
