"""Lifecycles: what outlives its processes, its hobd and its machine, and what does not."""

import glob
import json
import os
import shutil
import signal
import threading
import time

import pytest

import leftovers
from hobtest import Failure, only_long, wait_for


def start(machine, least=1, **lifecycle):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": least, "max": 6},
                        lifecycle=lifecycle)
    machine.build("app")
    machine.start()
    machine.wait_ready("app", least)
    return machine.client


def state(client, sandbox):
    reply = client.raw("GET", f"/v1/sandboxes/{sandbox}")
    return reply.json["state"] if reply.status == 200 else reply.status


def wait_state(client, sandbox, wanted, seconds=120):
    wait_for(f"{sandbox} to be {wanted}", lambda: state(client, sandbox) == wanted, seconds)


def notes(machine):
    return sorted(os.path.basename(path) for path in glob.glob(f"{machine.store}/sessions/*.json"))


def reboot(machine):
    """What a restart of the machine leaves: nothing that runs, and no run folder."""
    machine.kill()
    leftovers.signal_all(machine.init_pids(), signal.SIGKILL)
    wait_for("every sandbox to be dead", lambda: not machine.inside_pids())
    shutil.rmtree(machine.run)
    machine.start()


def test_hybrid_sleeps_and_comes_back_under_its_id(machine):
    client = start(machine, type="hybrid", pause="1s", idle="2s")
    made = client.create("app", env={"WHO": "me"}, metadata={"ticket": "T-1"})
    sandbox = made["id"]
    client.output(sandbox, "echo kept > /workspace/kept; rm hello.txt")
    wait_state(client, sandbox, "dormant")
    assert f"sandbox.paused sandbox={sandbox}" in machine.log()
    seen = client.get(f"/v1/sandboxes/{sandbox}")
    assert seen["metadata"] == {"ticket": "T-1"} and seen["claimed_at"] == made["claimed_at"]
    assert seen["snapshot"].startswith("snap-") and seen["pid"] == 0
    assert notes(machine) == [f"{sandbox}.json"]
    assert client.get("/v1/usage")["usage"][0]["sandbox"] == sandbox
    # Looking leaves it asleep.
    client.get(f"/v1/sandboxes/{sandbox}/execs")
    assert sandbox in [s["id"] for s in client.get("/v1/sandboxes")["sandboxes"]]
    assert state(client, sandbox) == "dormant"
    # Any request that works brings it back.
    assert client.output(sandbox, "cat kept; ls; echo $WHO") == "kept\nkept\nsrc\nme\n"
    assert f"sandbox.revived sandbox={sandbox}" in machine.log()
    wait_state(client, sandbox, "dormant")
    client.raw("PUT", client.file_path(sandbox, "/workspace/new"), b"x" * 300000)
    assert client.output(sandbox, "cat kept; stat -c %s new") == "kept\n300000\n"
    wait_state(client, sandbox, "dormant")
    assert client.post(f"/v1/sandboxes/{sandbox}/resume")["state"] == "claimed"
    client.delete(sandbox)
    assert state(client, sandbox) == 404 and notes(machine) == []


def test_many_requests_wake_one(machine):
    client = start(machine, type="hybrid", pause="500ms", idle="1s")
    sandbox = client.create("app")["id"]
    wait_state(client, sandbox, "dormant")
    results = []
    workers = [threading.Thread(target=lambda: results.append(client.output(sandbox, "cat hello.txt")))
               for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == ["hello\n"] * 8
    # On a slow machine it may fall asleep again before the last of them asks.
    assert 1 <= machine.log().count("sandbox.revived") <= machine.log().count("sandbox.dormant")


def test_dormant_over_kill_and_reboot_and_released_asleep(machine):
    client = start(machine, type="hybrid", pause="500ms", idle="1s")
    one, two = client.create("app")["id"], client.create("app", timeout_s=3600)["id"]
    client.output(one, "echo one > /root/kept")
    wait_state(client, one, "dormant")
    wait_state(client, two, "dormant")
    machine.kill()
    machine.start()
    assert [state(client, s) for s in (one, two)] == ["dormant", "dormant"]
    reboot(machine)
    assert [state(client, s) for s in (one, two)] == ["dormant", "dormant"]
    assert client.output(one, "cat /root/kept") == "one\n"
    assert client.delete(two)["state"] == "gone"
    assert notes(machine) == [f"{one}.json"]
    machine.wait_ready("app", 1)


@only_long
def test_the_time_of_a_dormant_one_ends(machine):
    client = start(machine, type="hybrid", pause="500ms", idle="1s")
    sandbox = client.create("app", timeout_s=20)["id"]
    wait_state(client, sandbox, "dormant")
    wait_for("it to end", lambda: state(client, sandbox) == 404)
    assert notes(machine) == []


@only_long
def test_woken_while_it_is_being_put_to_sleep(machine):
    client = start(machine, type="hybrid", pause="200ms", idle="1s")
    sandbox = client.create("app")["id"]
    client.output(sandbox, "head -c 20000000 /dev/urandom > /workspace/big; sha256sum big > sum")
    end = time.monotonic() + 8
    count = 0
    while time.monotonic() < end:
        time.sleep(1.02)
        count += 1
        text = client.output(sandbox, f"sha256sum -c sum >/dev/null && echo {count} >> log; wc -l < log")
        assert text == f"{count}\n", "no line is lost, asleep or awake"


@pytest.mark.parametrize("point", ["session.noted", pytest.param("sandbox.destroy", marks=only_long),
                                   pytest.param("snapshot.made", marks=only_long)])
def test_killed_while_going_to_sleep(machine, point):
    client = start(machine, type="hybrid", pause="500ms", idle="1s")
    sandbox = client.create("app")["id"]
    client.output(sandbox, "echo kept > /root/kept")
    machine.wait_ready("app", 1)  # nothing half made, which the next hobd would destroy
    machine.kill()
    machine.start(env={"HOB_FAULT": f"{point}:1:kill"})
    machine.daemon.wait(120)
    machine.start()
    assert client.output(sandbox, "cat /root/kept") == "kept\n"
    wait_state(client, sandbox, "dormant")
    assert client.output(sandbox, "cat /root/kept") == "kept\n"


def test_long_running_comes_back_after_a_reboot(machine):
    client = start(machine, type="long-running", snapshot_every="1s")
    made = client.create("app", env={"WHO": "me"})
    sandbox = made["id"]
    assert (made["idle_s"], made["expires_at"]) == (0, None)
    client.output(sandbox, "echo first > /workspace/kept")
    wait_for("a snapshot of it", lambda: notes(machine))

    def taken():
        return [one["id"] for one in client.get("/v1/snapshots")["snapshots"]]

    def at_rest():
        before = taken()
        time.sleep(2.5)
        return before and before == taken()
    wait_for("no more snapshots, as nobody works in it", at_rest)
    before = taken()
    reboot(machine)
    wait_state(client, sandbox, "claimed")
    assert client.output(sandbox, "cat kept; echo $WHO") == "first\nme\n"
    # And again: its own snapshots go on.
    client.output(sandbox, "echo second > /workspace/kept")
    wait_for("a newer snapshot", lambda: len(taken()) > len(before))
    wait_for("no more snapshots", at_rest)
    assert client.get("/v1/snapshots")["snapshots"][0]["reason"] == "session"

    def noted():
        with open(f"{machine.store}/sessions/{sandbox}.json", encoding="utf-8") as file:
            return taken()[0] == f"snap-{json.load(file)['snapshot']}"
    wait_for("its note", noted)
    reboot(machine)
    wait_state(client, sandbox, "claimed")
    assert client.output(sandbox, "cat kept") == "second\n"
    client.delete(sandbox)
    reboot(machine)
    assert state(client, sandbox) == 404


def test_long_running_outlives_the_death_of_its_init(machine):
    client = start(machine, type="long-running")
    made = client.create("app")
    sandbox = made["id"]
    client.output(sandbox, "echo kept > /root/kept")
    os.kill(made["pid"], signal.SIGKILL)
    wait_state(client, sandbox, "dormant")
    assert client.output(sandbox, "cat /root/kept") == "kept\n", "what it had written at its end"
    # All of them killed while hobd is away: the same.
    client.output(sandbox, "echo more >> /root/kept")
    machine.kill()
    leftovers.signal_all(machine.init_pids(), signal.SIGKILL)
    machine.start()
    wait_for("it to be back", lambda: state(client, sandbox) in ("dormant", "claimed"))
    assert client.output(sandbox, "cat /root/kept") == "kept\nmore\n"


def test_ephemeral_ends_with_its_machine(machine):
    client = start(machine)
    sandbox = client.create("app")["id"]
    reboot(machine)
    assert state(client, sandbox) == 404 and notes(machine) == []
    machine.wait_ready("app", 1)


@only_long
def test_stopping_hobd_for_good_keeps_sessions(machine):
    client = start(machine, type="long-running")
    sandbox = client.create("app")["id"]
    client.output(sandbox, "echo kept > /root/kept")
    assert machine.kill(signal.SIGINT) == 0
    assert not machine.init_pids()
    machine.start()
    wait_state(client, sandbox, "claimed")
    assert client.output(sandbox, "cat /root/kept") == "kept\n"


@only_long
def test_over_the_limit_it_stays_asleep(machine):
    client = start(machine, 0, type="hybrid", pause="500ms", idle="1s")
    sandbox = client.create("app")["id"]
    wait_state(client, sandbox, "dormant")
    others = [client.create("app", idle_s=0)["id"] for _ in range(6)]
    with pytest.raises(Failure) as full:
        client.output(sandbox, "true")
    assert full.value.status == 503 and "over_limit" in full.value.message
    assert state(client, sandbox) == "dormant"
    client.delete(others[0])
    assert client.output(sandbox, "echo back") == "back\n"
