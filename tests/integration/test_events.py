"""What happened to a sandbox, as events: in order, from where a client left off, over the death of hobd, and
while it is dormant."""

import contextlib
import itertools
import json

import pytest

from hobtest import Failure, wait_for


def start(machine, **keys):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": 1, "max": 20}, **keys)
    machine.build("app")
    machine.start()
    machine.wait_ready("app", 1)
    return machine.client


def events(client, sandbox, after=0):
    with client.stream("GET", f"/v1/sandboxes/{sandbox}/events?follow=0&after={after}") as stream:
        return [(int(number), name, data) for number, name, data in stream]


def shown(listed):
    """Without what differs from run to run."""
    return [(name, data.get("state") or data.get("exec") or data.get("snapshot")) for _, name, data in listed]


def follow(client, sandbox, count, after=None):
    path = f"/v1/sandboxes/{sandbox}/events"
    with client.stream("GET", path if after is None else f"{path}?after={after}") as stream:
        return [(int(number), name, data) for number, name, data in itertools.islice(stream, count)]


def test_states_commands_and_snapshots_in_order(machine):
    client = start(machine)
    sandbox = client.create("app")["id"]
    assert client.exec(sandbox, "exit 3")["exit_code"] == 3
    client.post(f"/v1/sandboxes/{sandbox}/pause")
    client.post(f"/v1/sandboxes/{sandbox}/resume")
    snapshot = client.post(f"/v1/sandboxes/{sandbox}/snapshots")["id"]
    with pytest.raises(Failure):
        client.exec(sandbox, ["/no/such/program"])
    listed = wait_for("its last event", lambda: len(events(client, sandbox)) >= 7 and events(client, sandbox))
    assert shown(listed) == [("state", "claimed"), ("exec_started", 1), ("exec_ended", 1), ("state", "paused"),
                             ("state", "claimed"), ("snapshot", snapshot), ("exec_ended", 2)]
    assert [number for number, _, _ in listed] == list(range(1, 8))
    assert listed[1][2]["argv"][-1] == "exit 3" and listed[2][2]["exit_code"] == 3
    assert listed[6][2]["error"]["kind"] == "invalid"
    assert client.get(f"/v1/sandboxes/{sandbox}")["last_active_at"] is not None
    # From where one left off, by either way to say so.
    assert events(client, sandbox, 4) == listed[4:]
    reply = client.raw("GET", f"/v1/sandboxes/{sandbox}/events?follow=0", headers={"Last-Event-ID": "6"})
    assert reply.body.decode().startswith("id: 7\nevent: exec_ended\n") and b"id: 6" not in reply.body
    assert client.raw("GET", f"/v1/sandboxes/{sandbox}/events", headers={"Last-Event-ID": "x"}).status == 400
    assert client.raw("GET", "/v1/sandboxes/sb-none/events").status == 404


def test_followed_to_the_end(machine):
    client = start(machine)
    sandbox = client.create("app")["id"]
    with client.stream("GET", f"/v1/sandboxes/{sandbox}/events") as stream:
        follower = iter(stream)
        assert next(follower)[2]["state"] == "claimed"
        client.exec(sandbox, "true")
        assert [next(follower)[1] for _ in range(2)] == ["exec_started", "exec_ended"]
        client.delete(sandbox)
        rest = list(follower)
    assert [data["state"] for _, _, data in rest] == ["releasing", "gone"]
    assert "released" in rest[0][2]["reason"]


def test_only_the_newest_are_kept_and_it_is_said(machine):
    client = start(machine)
    sandbox = client.create("app")["id"]
    for _ in range(140):
        client.exec(sandbox, "true")
    listed = events(client, sandbox)
    assert listed[0][1] == "missed" and listed[0][2]["before"] == listed[1][0] > 1
    assert len(listed) == 257 and listed[-1][0] == 281
    assert follow(client, sandbox, 1, after=280)[0][0] == 281


def test_they_outlive_hobd(machine):
    client = start(machine)
    sandbox = client.create("app")["id"]
    client.exec(sandbox, "true")
    before = events(client, sandbox)
    path = f"{machine.run}/sandboxes/{sandbox}/events"

    def written():
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            return len(file.read().splitlines()) == 3
        return False
    wait_for("them to be written", lambda: before[-1][1] == "exec_ended" and written())
    machine.kill()
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"id":4,"at_ms":1,"ki')  # cut short by the kill
    machine.start()
    client.exec(sandbox, "true")
    after = events(client, sandbox)
    assert after[:3] == before
    # The numbers in between may have been somebody's.
    assert after[3][1] == "missed" or after[3][0] > before[-1][0] + 1
    assert [name for _, name, _ in after[-3:]] == ["adopted", "exec_started", "exec_ended"]
    assert after[-3][2]["lost_ms"] == 200
    machine.kill(15)
    machine.start()
    assert events(client, sandbox)[:len(after)] == after, "and those after a torn line"


def test_a_dormant_one_has_its_own(machine):
    client = start(machine, lifecycle={"type": "hybrid", "pause": "1s", "idle": "2s"})
    sandbox = client.create("app")["id"]
    with client.stream("GET", f"/v1/sandboxes/{sandbox}/events") as stream:
        seen = []
        for _, _, data in stream:
            seen.append(data.get("state"))
            if seen[-1] == "dormant":
                break
        assert seen[:2] == ["claimed", "paused"] and "gone" not in seen
        client.exec(sandbox, "true")
        for _, name, data in stream:
            seen.append(data.get("state") or name)
            if name == "exec_ended":
                break
    assert "claimed" in seen[3:]
    client.delete(sandbox)


def test_by_hob(machine):
    client = start(machine)
    sandbox = client.create("app")["id"]
    client.exec(sandbox, ["sh", "-c", "exit 4"])
    wait_for("the end", lambda: events(client, sandbox)[-1][1] == "exec_ended")
    lines = machine.hob("events", sandbox).stdout.splitlines()
    assert len(lines) == 3 and "exec_ended" in lines[2] and "exit_code=4" in lines[2]
    listed = [json.loads(line) for line in machine.hob("--json", "events", sandbox, "--after", "1").stdout.splitlines()]
    assert [(event["id"], event["event"]) for event in listed] == [(2, "exec_started"), (3, "exec_ended")]
    assert machine.hob("events", "sb-none").returncode != 0
