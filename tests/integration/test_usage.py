"""Metering: what a sandbox is said to have used, while it lives and after its end."""

import time

from hobtest import wait_for


def start(machine, **keys):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": 1, "max": 8}, **keys)
    machine.build("app")
    machine.start()
    machine.wait_ready("app", 1)
    return machine.client


def metered(client, sandbox):
    return client.get(f"/v1/sandboxes/{sandbox}")["metered"]


def account(client, query=""):
    return client.get(f"/v1/usage{query}")["usage"]


def test_active_time_stands_still_while_paused(machine):
    client = start(machine)
    sandbox = client.create("app", metadata={"team": "blue"})["id"]
    client.output(sandbox, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
    time.sleep(0.5)
    client.post(f"/v1/sandboxes/{sandbox}/pause")
    before = metered(client, sandbox)
    assert before["cpu_us"] > 10000 and before["active_ms"] >= 500
    time.sleep(1.2)
    after = metered(client, sandbox)
    assert after["active_ms"] == before["active_ms"] and after["cpu_us"] == before["cpu_us"]
    assert after["paused_ms"] >= before["paused_ms"] + 1000
    assert after["memory_kib_s"] > before["memory_kib_s"], "what it holds is held while it is paused"
    client.post(f"/v1/sandboxes/{sandbox}/resume")
    time.sleep(0.2)
    assert metered(client, sandbox)["active_ms"] > after["active_ms"]
    client.delete(sandbox)
    line, = account(client)
    assert (line["n"], line["sandbox"], line["environment"]) == (1, sandbox, "app")
    assert line["metadata"] == {"team": "blue"} and line["reason"] == "released by its user"
    assert line["active_ms"] >= 700 and line["paused_ms"] >= 1000
    assert line["cpu_us"] >= after["cpu_us"] and line["ended_ms"] > line["claimed_ms"]
    assert "sandbox.used" in machine.log()


def test_what_happens_before_the_claim_is_nobodys(machine):
    client = start(machine)
    free = client.get("/v1/sandboxes?state=ready")["sandboxes"][0]["id"]
    assert metered(client, free) is None
    time.sleep(1.5)
    begin = time.monotonic()
    sandbox = client.create("app")["id"]
    assert sandbox == free
    seen = metered(client, sandbox)
    assert seen["active_ms"] <= (time.monotonic() - begin) * 1000 + 1 and seen["cpu_us"] < 100000
    client.delete(sandbox)
    machine.wait_ready("app", 1)
    assert len(account(client)) == 1, "a ready one that goes is not in it"


def test_sums_go_on_over_a_kill_and_nobody_is_billed_twice(machine):
    client = start(machine)
    sandbox = client.create("app")["id"]
    client.output(sandbox, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
    client.post(f"/v1/sandboxes/{sandbox}/pause")
    client.post(f"/v1/sandboxes/{sandbox}/resume")
    before = metered(client, sandbox)
    machine.kill()
    machine.start()
    after = metered(client, sandbox)
    for key in ("active_ms", "cpu_us", "memory_kib_s"):
        assert after[key] >= before[key], key
    # A line that cannot be written keeps nothing from going.
    machine.kill()
    machine.start(env={"HOB_FAULT": "usage.add:1:EIO"})
    client.delete(sandbox)
    assert "sandbox.usage_lost" in machine.log() and account(client) == []
    other = client.create("app")["id"]
    client.delete(other)
    assert [line["sandbox"] for line in account(client)] == [other]
    machine.kill()
    machine.start()
    third = client.create("app")["id"]
    client.delete(third)
    assert [line["n"] for line in account(client)] == [1, 2]
    assert [line["sandbox"] for line in account(client, "?after=1")] == [third]
    assert client.raw("GET", "/v1/usage?after=x").status == 400


def test_usage_by_hob(machine):
    client = start(machine)
    assert "no sandbox" in machine.hob("usage").stderr
    sandbox = client.create("app")["id"]
    assert "Since claim" in machine.hob("info", sandbox).stdout
    client.delete(sandbox)
    wait_for("it to be listed", lambda: sandbox in machine.hob("usage", "--since", "1h").stdout)
    assert sandbox in machine.hob("usage", "--env", "app").stdout
    assert sandbox not in machine.hob("usage", "--env", "other").stdout
    assert f'"{sandbox}"' in machine.hob("--json", "usage").stdout
    assert machine.hob("usage", "--since", "soon").returncode == 2
