"""kill -9 of each part at awkward moments: what was there goes on, what was half done is gone."""

import os
import signal
import threading
import time

import pytest

from hobtest import only_long, repeating, wait_for
import leftovers


def start(machine, least=3):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": least, "max": 20})
    machine.build("app")
    machine.start()
    machine.wait_ready("app", least)
    return machine.client


def identities(client):
    return {s["id"]: s["pid"] for s in client.get("/v1/sandboxes")["sandboxes"]}


def test_hobd_killed_adopts_ready_and_claimed(machine):
    client = start(machine)
    claimed = client.create("app", metadata={"ticket": "T-1"}, env={"WHO": "me"}, timeout_s=3600)
    client.output(claimed["id"], "echo mine > /root/file")
    machine.wait_ready("app", 3)
    before, seen = identities(client), client.get(f"/v1/sandboxes/{claimed['id']}")
    machine.kill()
    assert set(machine.init_pids()) >= set(before.values())
    machine.start()
    machine.wait_ready("app", 3)
    assert identities(client) == before, "adopted, neither lost nor doubled"
    now = client.get(f"/v1/sandboxes/{claimed['id']}")
    for key in ("state", "metadata", "expires_at", "claimed_at", "image", "commit", "idle_s", "pid"):
        assert now[key] == seen[key], key
    assert client.output(claimed["id"], "cat /root/file; echo $WHO") == "mine\nme\n"
    made = client.create("app")
    assert made["source"] == "warm" and made["id"] in before
    client.delete(claimed["id"])
    machine.wait_ready("app", 3)


def test_hobd_killed_while_commands_run(machine):
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    number = client.post(f"/v1/sandboxes/{sandbox}/exec", {
        "shell": "echo before; for i in 1 2 3 4 5 6; do sleep 0.5; echo $i; done; exit 6",
        "detach": True})["exec"]
    time.sleep(0.7)
    machine.kill()
    machine.start()
    listed = client.get(f"/v1/sandboxes/{sandbox}/execs")["execs"]
    assert [entry["exec"] for entry in listed] == [number]
    result = client.get(f"/v1/sandboxes/{sandbox}/execs/{number}?wait=1")
    assert result["exit_code"] == 6 and result["stdout"] == "before\n1\n2\n3\n4\n5\n6\n"
    another = client.exec(sandbox, "echo next")
    assert another["stdout"] == "next\n" and another["exec"] != number


def test_command_that_ends_while_hobd_is_away(machine):
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    number = client.post(f"/v1/sandboxes/{sandbox}/exec", {"shell": "sleep 0.5; echo ended; exit 3",
                                                           "detach": True})["exec"]
    machine.kill()
    time.sleep(1)
    machine.start()
    result = client.get(f"/v1/sandboxes/{sandbox}/execs/{number}?wait=1")
    assert (result["exit_code"], result["stdout"]) == (3, "ended\n")


def test_a_captured_client_sees_the_end_of_hobd(machine):
    """The command of a client that is gone is ended by the next hobd, not left to run for ever."""
    client = start(machine, 1)
    sandbox = client.create("app")["id"]
    link = client.connect()
    link.request("POST", f"/v1/sandboxes/{sandbox}/exec", body=b'{"argv": ["sleep", "7775"]}')
    wait_for("the command", lambda: client.exec(sandbox, ["pgrep", "-f", "7775"])["exit_code"] == 0)
    machine.kill()
    with pytest.raises(Exception):
        assert link.getresponse().status == 200
    machine.start()
    assert client.output(sandbox, "echo usable") == "usable\n"


def test_hobd_killed_again_and_again_under_load(machine):
    client = start(machine, 4)
    made, odd = [], []

    def claim(_):
        try:
            sandbox = client.create("app")["id"]
            if client.output(sandbox, "cat hello.txt") != "hello\n":
                odd.append(sandbox)
            made.append(sandbox)
            if len(made) % 3:
                client.delete(sandbox)
        except Exception:
            time.sleep(0.05)
    with repeating(claim, 3):
        wait_for("a claim", lambda: made)
        for pause in (0.3, 0.05, 0.8, 0.2, 0.5):
            time.sleep(pause)
            machine.kill()
            machine.start()
        time.sleep(0.5)
    assert not odd
    for sandbox in client.get("/v1/sandboxes?state=claimed")["sandboxes"]:
        client.delete(sandbox["id"])
    machine.wait_ready("app", 4)
    wait_for("exactly the pool to be left", lambda: len(machine.init_pids()) == 4)
    assert set(machine.init_pids()) == set(identities(client).values())


def test_sandbox_that_died_while_hobd_was_away(machine):
    client = start(machine, 2)
    claimed = client.create("app")["id"]
    machine.wait_ready("app", 2)
    before = identities(client)
    machine.kill()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    machine.start()
    machine.wait_ready("app", 2)
    wait_for("the dead to go", lambda: not set(identities(client)) & set(before))
    assert client.raw("GET", f"/v1/sandboxes/{claimed}").status == 404
    assert not [name for name in os.listdir(f"{machine.run}/sandboxes") if name in before]


def test_launcher_killed(machine):
    client = start(machine, 2)
    claimed = client.create("app")["id"]
    client.output(claimed, "echo kept > /root/file")
    machine.wait_ready("app", 2)
    before = identities(client)
    launchers = machine.launchers()
    assert launchers
    for pid in launchers:
        os.kill(pid, signal.SIGKILL)

    def back():
        """hobd ends, since only root can fork a launcher, and its service starts it again; or it goes
        on with another launcher. Both are a recovery."""
        if machine.daemon.poll() is not None:
            assert machine.daemon.returncode != 0
            machine.start()
        return machine.is_up()
    wait_for("hobd to notice", lambda: machine.daemon.poll() is not None or
             (machine.launchers() and not set(launchers) & set(machine.launchers())))
    wait_for("hobd to be there", back)
    assert client.output(claimed, "cat /root/file") == "kept\n"
    assert set(before) <= set(identities(client))
    client.delete(claimed)
    made = client.create("app")
    assert client.output(made["id"], "cat hello.txt") == "hello\n"
    machine.wait_ready("app", 2)


def test_hobd_killed_while_its_launcher_makes_a_sandbox(machine):
    """A launcher finishes what it is at when its hobd is gone. The next hobd waits for that, as nobody
    would know of the sandbox otherwise."""
    client = start(machine, 0)
    launchers = machine.launchers()
    leftovers.signal_all(launchers, signal.SIGSTOP)
    link = client.connect()
    link.request("POST", "/v1/sandboxes", body=b'{"environment": "app"}')
    wait_for("it to be asked for", lambda: os.listdir(f"{machine.run}/sandboxes"))
    machine.kill()
    link.close()
    go_on = threading.Timer(0.5, leftovers.signal_all, (launchers, signal.SIGCONT))
    go_on.start()
    machine.start()
    go_on.join()
    wait_for("nothing of it to be left", lambda: not machine.init_pids() and not identities(client) and
             not os.listdir(f"{machine.store}/sandboxes"))


def test_orderly_end_keeps_sandboxes_for_the_next_start(machine):
    client = start(machine, 2)
    claimed = client.create("app")["id"]
    machine.wait_ready("app", 2)
    before = identities(client)
    assert machine.kill(signal.SIGTERM) == 0
    assert set(machine.init_pids()) >= set(before.values())
    machine.start()
    machine.wait_ready("app", 2)
    assert identities(client) == before and client.output(claimed, "echo here") == "here\n"


def test_hob_build_killed_in_a_step(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": 1, "max": 4})
    machine.build("app")
    machine.start()
    machine.wait_ready("app", 1)
    repository.commit({"hello.txt": "next\n"})
    slow = {"source": {"url": repository.path}, "pool": {"min": 1, "max": 4}}
    machine.environment("app", **slow, steps=[{"name": "slow", "run": "echo started; sleep 600"}])
    child = machine.hob_build_start("app")
    wait_for("the step to run", lambda: any(
        "sleep\x00600" in leftovers.read_text(f"/proc/{pid}/cmdline") for pid in machine.inside_pids()))
    child.kill()
    child.wait()
    wait_for("the step to die with it", lambda: not any(
        "sleep\x00600" in leftovers.read_text(f"/proc/{pid}/cmdline") for pid in machine.inside_pids()))
    assert machine.client.create("app")["source"] == "warm", "the last good image stays usable"
    machine.environment("app", **slow, steps=[{"name": "quick", "run": "echo done > quick.txt"}])
    machine.build("app")
    states = [build["state"] for build in machine.client.get("/v1/builds?environment=app")["builds"]]
    assert states == ["published", "failed", "published"]
    wait_for("staging to be empty", lambda: os.listdir(f"{machine.store}/staging") == [])
    wait_for("the new head", lambda: machine.pool("app")["stale"] == 0 and machine.pool("app")["ready"] == 1)
    assert machine.client.output(machine.client.create("app")["id"], "cat quick.txt hello.txt") == \
        "done\nnext\n"


def fault_points(machine, name):
    """The points that a whole build passes, in order."""
    listed = f"{machine.folder}/points"
    open(listed, "w", encoding="ascii").close()
    os.chmod(listed, 0o666)
    done = machine.hob_build(name, env={"HOB_FAULT_LIST": listed})
    assert done.returncode == 0, done.stderr
    points = leftovers.read_text(listed).split()
    return list(dict.fromkeys(points))


@pytest.mark.parametrize("action", ["kill", pytest.param("ENOSPC", marks=only_long)])
def test_every_fault_point_of_a_rebuild(machine, action):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path},
                        steps=[{"name": "one", "run": "cat hello.txt > copy.txt"}])
    machine.build("app")
    repository.commit({"hello.txt": "second\n"})
    points = fault_points(machine, "app")
    assert len(points) >= 4, points
    machine.start()
    for number, point in enumerate(points):
        text = f"version {number}\n"
        commit = repository.commit({"hello.txt": text})
        broken = machine.hob_build("app", env={"HOB_FAULT": f"{point}:1:{action}"})
        assert action != "kill" or broken.returncode != 0, point
        good = machine.client.create("app")
        assert machine.client.output(good["id"], "cmp hello.txt copy.txt && echo whole") == "whole\n"
        machine.client.delete(good["id"])
        machine.build("app")
        wait_for(f"the image after {point}",
                 lambda commit=commit: machine.client.get("/v1/environments/app")["commit"] == commit)
        made = wait_for(f"the pool after {point}", lambda commit=commit: claim_of(machine, commit))
        assert machine.client.output(made, "cat copy.txt") == text, point
        machine.client.delete(made)
    wait_for("staging to be empty", lambda: os.listdir(f"{machine.store}/staging") == [])


def claim_of(machine, commit):
    """A claim, if the pool has heard of the commit."""
    made = machine.client.create("app")
    if made["commit"] == commit:
        return made["id"]
    machine.client.delete(made["id"])
    return None
