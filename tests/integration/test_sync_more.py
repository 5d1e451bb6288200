"""Syncs with what hangs on them: claims that wait, services that are kept, told or restarted, several
sources, and the command line; and sandboxes with services that sleep."""

import json

import pytest

from hobtest import Hob, wait_for


@pytest.fixture(name="hob")
def hob_fixture():
    hob = Hob()
    yield hob
    hob.close()


def app(hob, **keys):
    repo = hob.repository("app")
    hob.environment("app", source={"url": repo.path}, base="host", **keys)
    hob.build("app")
    hob.start()
    return repo


def ready_one(hob):
    hob.wait_ready("app", 1)
    return hob.client.get("/v1/sandboxes?state=ready")["sandboxes"][0]


@pytest.mark.parametrize("wait, state", [("5m", "done"), ("50ms", "running")])
def test_a_claim_waits_as_long_as_it_is_told(hob, wait, state):
    repo = app(hob, pool={"min": 1, "max": 4}, sync={
        "wait": wait, "run": f"sleep {4 if state == 'done' else 600}; touch /ran"})
    ready_one(hob)
    commit = repo.commit({"hello.txt": "newest\n"})
    hint = hob.client.post("/v1/warm", {"environment": "app", "key": "ada"})
    wait_for("the sync to begin", lambda: hob.client.get(
        f"/v1/sandboxes/{hint['sandbox']}")["commit"] == commit)
    made = hob.client.create("app", key="ada")
    assert made["id"] == hint["sandbox"] and made["source"] == "hinted"
    assert made["sync"]["state"] == state, made
    if state == "done":
        assert made["sync"]["run_code"] == 0 and hob.client.exec(made["id"], "test -e /ran")["exit_code"] == 0


def test_services_are_kept_told_or_restarted(hob):
    services = [
        {"name": "kept", "run": "echo up >> /tmp/kept; exec sleep 1000"},
        {"name": "anew", "run": "echo up $(cat hello.txt) >> /tmp/anew; exec sleep 1000", "on_refresh": "restart"},
        {"name": "told", "on_refresh": "signal", "signal": "USR1",
         "run": "trap 'echo told $(cat hello.txt) >> /tmp/told' USR1; echo up >> /tmp/told;"
                " while :; do sleep 0.1; done", "ready": {"file": "/tmp/told"}}]
    repo = app(hob, pool={"min": 1, "max": 4}, services=services)
    box = ready_one(hob)
    commit = repo.commit({"hello.txt": "refreshed\n"})
    hob.build("app")
    wait_for("the refresh", lambda: hob.pool("app")["refreshes"] == 1 and ready_one(hob)["commit"] == commit)
    made = hob.client.create("app")
    assert made["id"] == box["id"] and made["source"] == "warm"
    wait_for("all to have heard", lambda: hob.client.output(made["id"], "cat /tmp/kept; cat /tmp/anew; cat /tmp/told")
             == "up\nup hello\nup refreshed\nup\ntold refreshed\n")
    states = {service["name"]: service["state"]
              for service in hob.client.get(f"/v1/sandboxes/{made['id']}/services")["services"]}
    assert set(states.values()) == {"ready"}, states


def test_several_sources_by_the_command_line(hob):
    one, two = hob.repository("one"), hob.repository("two")
    two.commit({"hello.txt": "two\n"})
    hob.environment("app", source=[{"url": one.path}, {"url": two.path, "path": "/workspace/lib/two"}])
    hob.build("app")
    hob.start()
    box = hob.client.create("app")["id"]
    first = one.commit_id()
    assert hob.hob("sync", box).stdout.endswith(", as before\n")
    second = one.commit({"hello.txt": "one again\n", "more.txt": "more\n"})
    two.commit({"hello.txt": "two again\n"})
    done = hob.hob("sync", box)
    assert done.returncode == 0 and f"{first[:12]} -> {second[:12]}, 3 files" in done.stdout, done
    assert hob.client.output(box, "cat hello.txt lib/two/hello.txt") == "one again\ntwo again\n"
    for folder in ("/workspace", "/workspace/lib/two"):
        assert hob.client.output(box, f"cd {folder} && git fsck --no-dangling 2>&1 && git status --short -uno") == ""
    # In two steps, the second of which a file stands in the way of: the first stays.
    third = one.commit({"hello.txt": "third\n"})
    two.commit({"hello.txt": "theirs\n"})
    hob.client.output(box, "echo mine > lib/two/hello.txt")
    done = hob.hob("sync", box)
    assert done.returncode != 0 and "hello.txt" in done.stderr
    assert hob.client.get(f"/v1/sandboxes/{box}")["commit"] == third
    assert hob.client.output(box, "cat hello.txt lib/two/hello.txt") == "third\nmine\n"
    hob.client.output(box, "cd lib/two && git checkout -q hello.txt")
    reply = json.loads(hob.hob("--json", "sync", box).stdout)
    assert reply["sync"]["state"] == "done" and reply["commit"] == third
    assert hob.client.output(box, "cat lib/two/hello.txt") == "theirs\n"
    # Back by name: of the first source.
    assert f"-> {second[:12]}" in hob.hob("sync", box, "--to", second).stdout
    assert hob.client.output(box, "cat hello.txt") == "one again\n"
    assert "40 hex digits" in hob.hob("sync", box, "--to", "main").stderr
    assert hob.hob("sync", "sb-ffffffffffff").returncode == 3


def test_one_with_services_sleeps_and_comes_back_with_them(hob):
    app(hob, lifecycle={"type": "hybrid", "idle": "1s"}, services=[
        {"name": "count", "run": "echo up >> /srv/ups; exec sleep 1000"}])
    box = hob.client.create("app")["id"]
    hob.client.output(box, "echo kept > /srv/mine")
    wait_for("it to sleep", lambda: hob.client.get(f"/v1/sandboxes/{box}")["state"] == "dormant")
    assert hob.client.output(box, "cat /srv/mine") == "kept\n"

    def is_back():
        """As often as it was woken: on a slow machine it may sleep more than once."""
        ups = hob.client.output(box, "cat /srv/ups").split()
        services = hob.client.get(f"/v1/sandboxes/{box}/services")["services"]
        return len(ups) >= 2 and [(service["name"], service["state"]) for service in services] == [("count", "ready")]
    wait_for("its service", is_back)
