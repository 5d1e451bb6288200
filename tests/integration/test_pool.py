"""The reconciler: it keeps what was asked for, follows a new head without running dry, hands every
sandbox to one claim, and says why it cannot."""

import glob
import json
import os
import signal
import threading
import time

import pytest

from hobtest import Failure, repeating, wait_for


def start(machine, least=3, most=20, **keys):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": least, "max": most}, **keys)
    machine.build("app")
    machine.start()
    machine.wait_ready("app", least)
    return repository


def test_the_pool_is_filled_again_after_claims(machine):
    start(machine, 3)
    claimed = [machine.client.create("app") for _ in range(3)]
    assert [made["source"] for made in claimed] == ["warm"] * 3
    machine.wait_ready("app", 3)
    pool = machine.pool("app")
    assert (pool["claimed"], pool["hits"], pool["target"], pool["failing"]) == (3, 3, 3, None)
    assert pool["min"] == 3 and pool["max"] == 20 and pool["image"] and pool["commit"]
    info = machine.client.get("/v1/info")
    assert (info["ready"], info["claimed"], info["sandboxes"]) == (3, 3, 6)


def test_a_hundred_claims_at_once_get_a_hundred_sandboxes(machine):
    start(machine, 20, 120)
    answers, errors = [], []

    def claim():
        try:
            answers.append(machine.client.create("app"))
        except Failure as failure:
            errors.append(failure)
    threads = [threading.Thread(target=claim) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len({answer["id"] for answer in answers}) == 100
    assert sum(answer["source"] == "warm" for answer in answers) >= 20
    assert all(answer["reason"] == "empty" for answer in answers if answer["source"] == "cold")
    pids = {machine.client.get(f"/v1/sandboxes/{answer['id']}")["pid"] for answer in answers}
    assert len(pids) == 100
    threads = [threading.Thread(target=machine.client.delete, args=(answer["id"],)) for answer in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    machine.wait_ready("app", 20)
    assert machine.client.get("/v1/info")["claimed"] == 0


@pytest.mark.parametrize("refresh", [False, True])
def test_a_new_head_replaces_or_refreshes_the_pool_one_by_one(machine, refresh):
    repository = start(machine, 4, sync={"refresh": refresh})
    low = []

    def watch(_):
        pool = machine.pool("app")
        low.append(pool["ready"] + pool["stale"])
        time.sleep(0.005)
    with repeating(watch):
        old = machine.pool("app")["image"]
        commit = repository.commit({"hello.txt": "new\n"})
        machine.build("app")
        wait_for("the pool to move", lambda: machine.pool("app")["image"] != old and
                 machine.pool("app")["ready"] == 4 and machine.pool("app")["stale"] == 0)
    assert min(low) >= 4, "the pool went below its target while it moved"
    assert machine.pool("app")["commit"] == commit
    made = machine.client.create("app")
    assert made["source"] == "warm" and made["commit"] == commit
    assert machine.client.output(made["id"], "cat hello.txt") == "new\n"


def test_a_claimed_sandbox_keeps_its_image(machine):
    repository = start(machine, 1, sync={"refresh": False})
    made = machine.client.create("app")
    repository.commit({"hello.txt": "new\n"})
    machine.build("app")
    machine.wait_ready("app", 1)
    assert machine.client.output(made["id"], "cat hello.txt") == "hello\n"
    assert machine.client.get(f"/v1/sandboxes/{made['id']}")["image"] == made["image"]
    reply = machine.client.raw("DELETE", f"/v1/images/{made['image']}")
    assert reply.status == 409 and "hobd" in reply.error["message"]
    machine.client.delete(made["id"])
    wait_for("the image to be free",
             lambda: machine.client.raw("DELETE", f"/v1/images/{made['image']}").status == 200)


def test_environment_over_its_limit(machine):
    start(machine, 1, 2)
    for _ in range(2):
        machine.client.create("app")
    with pytest.raises(Failure) as over:
        machine.client.create("app")
    assert (over.value.kind, over.value.status) == ("unavailable", 503)
    assert "over_limit" in over.value.message and "pool.max" in over.value.message + over.value.hint
    assert machine.pool("app")["misses"]["over_limit"] == 1


def test_machine_over_its_limit(machine):
    machine.settings["max_sandboxes"] = 3
    machine.write(machine.config, "".join(f"{k}: {json.dumps(v)}\n" for k, v in machine.settings.items()))
    start(machine, 1, 20)
    made = [machine.client.create("app")["id"] for _ in range(3)]
    with pytest.raises(Failure) as over:
        machine.client.create("app")
    assert over.value.kind == "unavailable" and "max_sandboxes" in over.value.message
    machine.client.delete(made[0])
    assert machine.client.create("app")["id"]


def test_a_sandbox_that_dies_in_the_pool_is_replaced(machine):
    start(machine, 2)
    victim = machine.client.get("/v1/sandboxes?state=ready")["sandboxes"][0]
    os.kill(victim["pid"], 9)
    wait_for("its replacement", lambda: victim["id"] not in
             [s["id"] for s in machine.client.get("/v1/sandboxes")["sandboxes"]])
    machine.wait_ready("app", 2)
    assert machine.client.create("app")["source"] == "warm"


def test_a_claimed_sandbox_that_dies_says_so(machine):
    start(machine, 0)
    made = machine.client.create("app")
    os.kill(machine.client.get(f"/v1/sandboxes/{made['id']}")["pid"], 9)
    wait_for("it to be gone", lambda: machine.client.raw("GET", f"/v1/sandboxes/{made['id']}").status == 404)
    assert machine.client.raw("POST", f"/v1/sandboxes/{made['id']}/exec", {"shell": "true"}).status == 404


def test_an_environment_that_cannot_start_backs_off_and_recovers(machine):
    """A layer that vanished from the disk: every start fails, the daemon says so and stays quiet."""
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": 2, "max": 4})
    machine.build("app")
    machine.start()
    machine.wait_ready("app", 2)
    tree = sorted(glob.glob(f"{machine.store}/layers/*/tree"))[-1]
    os.rename(tree, tree + ".away")
    for sandbox in machine.client.get("/v1/sandboxes")["sandboxes"]:
        machine.client.delete(sandbox["id"])
    failing = wait_for("the failure to show", lambda: machine.pool("app")["failing"])
    assert failing["message"] and failing["attempts"] >= 1 and failing["since"]
    time.sleep(2)
    assert machine.pool("app")["failing"]["attempts"] < 30, "retried in a tight loop"
    with pytest.raises(Failure) as refused:
        machine.client.create("app")
    assert refused.value.message
    os.rename(tree + ".away", tree)
    wait_for("the pool to recover", lambda: machine.pool("app")["ready"] == 2, 400)
    wait_for("the failure to be over", lambda: machine.pool("app")["failing"] is None)


def test_environment_files_are_read_again(machine):
    repository = start(machine, 1)
    machine.environment("app", source={"url": repository.path}, pool={"min": 3, "max": 5})
    machine.environment("broken", source={"uri": "x"})
    machine.daemon.send_signal(signal.SIGHUP)
    machine.wait_ready("app", 3)
    failures = wait_for("the failure", lambda: machine.client.get("/v1/environments")["failures"])
    assert len(failures) == 1 and failures[0]["file"].endswith("broken.yaml")
    assert "uri" in failures[0]["message"]
    machine.environment("app", source={"url": repository.path}, pool={"min": 1, "max": 5})
    machine.daemon.send_signal(signal.SIGHUP)
    wait_for("the pool to shrink", lambda: machine.pool("app")["ready"] == 1)
    for least in (0, 2):  # a target of 0 is not for ever
        machine.environment("app", source={"url": repository.path}, pool={"min": least, "max": 5})
        machine.daemon.send_signal(signal.SIGHUP)
        machine.wait_ready("app", least)


def test_max_age_ends_a_claimed_sandbox(machine):
    start(machine, 0, 4, lifecycle={"idle": "0", "max_age": "2s"})
    made = machine.client.create("app")
    assert made["expires_at"]
    wait_for("it to end", lambda: machine.client.raw("GET", f"/v1/sandboxes/{made['id']}").status == 404)


def test_idle_of_the_environment(machine):
    start(machine, 0, 4, lifecycle={"idle": "1s"})
    made = machine.client.create("app")
    assert made["idle_s"] == 1
    wait_for("it to end", lambda: machine.client.raw("GET", f"/v1/sandboxes/{made['id']}").status == 404)


def test_limits_hold_inside(machine):
    start(machine, 1, 4, limits={"memory": "128MiB", "pids": 64, "cpus": 0.5})
    made = machine.client.create("app")["id"]
    result = machine.client.exec(made, ["/usr/bin/python3", "-c", "x = bytearray(400 << 20)"])
    assert result["exit_code"] != 0
    result = machine.client.exec(made, "for i in $(seq 200); do sleep 5 & done 2>/dev/null; jobs | wc -l; "
                                       "kill $(jobs -p) 2>/dev/null; true")
    assert machine.client.output(made, "echo still usable") == "still usable\n", result
    start_time = time.monotonic()
    machine.client.exec(made, "timeout 2 sh -c 'while :; do :; done'; true")
    used = machine.client.get(f"/v1/sandboxes/{made}")["usage"]["cpu_us"] / 1e6
    assert used < 0.75 * (time.monotonic() - start_time) + 0.5
