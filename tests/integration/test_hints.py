"""Hints: reserved at the first keystroke, claimed by their key, renewed, moved, cancelled, ended, and
adopted by the next hobd as they were."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from hobtest import LONG, Failure, repeating, wait_for


def start(machine, least=2, most=20, names=("app",), **settings):
    machine.settings.update(settings)
    machine.write(machine.config, "".join(f"{k}: {json.dumps(v)}\n" for k, v in machine.settings.items()))
    repositories = {}
    for name in names:
        repositories[name] = machine.repository(name)
        machine.environment(name, source={"url": repositories[name].path}, pool={"min": least, "max": most})
        machine.build(name)
    machine.start()
    for name in names:
        machine.wait_ready(name, least)
    return repositories[names[0]]


def warm(machine, environment="app", key="ada", **more):
    """For long enough that it does not end by itself on a busy machine, unless told otherwise."""
    body = {"key": key, "ttl_s": 600, **more}
    if environment is not None:
        body["environment"] = environment
    return machine.client.post("/v1/warm", body)


def hints(machine):
    return machine.client.get("/v1/warm")["hints"]


def wait_hinted(machine, key="ada"):
    return wait_for("the hint to be ready", lambda: next(
        (hint for hint in hints(machine) if hint["key"] == key and hint["state"] == "ready"), None))


def as_user(machine, uid, method, path, body=None):
    """One request of another user of this machine: status and reply."""
    script = ("import http.client,json,os,socket,sys\n"
              "uid,path,method,where,body=sys.argv[1:]\n"
              "s=socket.socket(socket.AF_UNIX)\n"
              "os.setgroups([]);os.setresuid(int(uid),int(uid),int(uid))\n"
              "s.connect(path)\n"
              "c=http.client.HTTPConnection('hob');c.sock=s\n"
              "c.request(method,where,body or None)\n"
              "r=c.getresponse();print(r.status);print(r.read().decode())\n")
    os.chmod(machine.socket, 0o666)
    done = subprocess.run([sys.executable, "-c", script, str(uid), machine.socket, method, path,
                           json.dumps(body) if body is not None else ""],
                          stdout=subprocess.PIPE, check=True, text=True, timeout=180)
    status, _, text = done.stdout.partition("\n")
    return int(status), json.loads(text)


def test_a_hint_reserves_and_its_key_claims_exactly_that_one(machine):
    start(machine, 2)
    assert machine.client.post("/v1/warm", {"environment": "app", "key": "ada"})["ttl_s"] == 60
    hint = warm(machine)
    assert hint["state"] == "ready" and hint["eta_ms"] == 0 and hint["key"] == "ada"
    assert hint["environment"] == "app" and hint["snapshot"] is None and hint["ttl_s"] == 600
    again = warm(machine)
    assert again["sandbox"] == hint["sandbox"] and again["expires_at"] >= hint["expires_at"]
    machine.wait_ready("app", 2)
    made = machine.client.create("app", key="ada")
    assert (made["source"], made["id"], made["reason"]) == ("hinted", hint["sandbox"], None)
    assert machine.client.output(made["id"], "cat hello.txt") == "hello\n"
    assert hints(machine) == []
    pool = machine.pool("app")
    assert (pool["hits"], pool["hint_claims"], pool["hinted"]) == (1, 1, 0)
    wait_for("the pool not to grow by it", lambda: machine.pool("app")["ready"] == 2)


def test_claims_without_the_key_leave_it_alone(machine):
    start(machine, 1)
    hint = warm(machine)
    made = [machine.client.create("app") for _ in range(4)]
    assert hint["sandbox"] not in [one["id"] for one in made]
    assert machine.client.create("app", key="grace")["id"] != hint["sandbox"]
    assert machine.client.create("app", key="ada")["id"] == hint["sandbox"]


def test_the_only_ready_one_is_reserved_a_claim_is_cold(machine):
    start(machine, 0)
    hint = warm(machine)
    wait_hinted(machine)
    made = machine.client.create("app")
    assert (made["source"], made["reason"]) == ("cold", "empty") and made["id"] != hint["sandbox"]
    assert hints(machine)[0]["sandbox"] == hint["sandbox"]


def test_over_the_limit_a_claim_goes_before_a_hint(machine):
    start(machine, 0, 1)
    hint = warm(machine)
    wait_hinted(machine)
    made = machine.client.create("app")
    assert made["source"] == "warm" and made["id"] == hint["sandbox"]
    assert hints(machine) == []
    with pytest.raises(Failure) as full:
        warm(machine, key="grace")
    assert full.value.status == 503 and "pool.max" in full.value.message


def test_a_claim_waits_for_the_one_that_starts(machine):
    start(machine, 0)
    for number in range(5):
        hint = warm(machine, key=f"k{number}")
        assert hint["state"] == "starting" and hint["eta_ms"] >= 1
        made = machine.client.create("app", key=f"k{number}")
        assert (made["source"], made["id"]) == ("hinted", hint["sandbox"])
    assert machine.pool("app")["hint_claims"] == 5


def test_it_ends_with_its_time_to_live_and_goes_back_to_the_pool(machine):
    start(machine, 1)
    hint = warm(machine, ttl_s=1)
    machine.wait_ready("app", 1)
    machine.client.raw("GET", f"/v1/sandboxes/{hint['sandbox']}")
    wait_for("the hint to end", lambda: hints(machine) == [])
    machine.wait_ready("app", 1)
    assert machine.pool("app")["hints_ended"] == 1
    made = machine.client.create("app", key="ada")
    assert made["source"] == "warm"


def test_looking_does_not_renew_a_keystroke_does(machine):
    start(machine, 1)
    hint = warm(machine)
    for _ in range(3):
        time.sleep(0.05)
        again = warm(machine)
        assert again["sandbox"] == hint["sandbox"] and again["expires_at"] > hint["expires_at"]
        hint = again
    time.sleep(0.05)
    machine.client.get(f"/v1/sandboxes/{hint['sandbox']}")
    assert hints(machine)[0]["expires_at"] == hint["expires_at"]


def test_cancelled(machine):
    start(machine, 1)
    warm(machine)
    assert machine.client.call("DELETE", "/v1/warm/ada") == {"key": "ada", "state": "cancelled"}
    assert machine.client.raw("DELETE", "/v1/warm/ada").status == 404
    machine.wait_ready("app", 1)
    assert machine.client.create("app", key="ada")["source"] == "warm"


def test_another_environment_under_the_same_key_moves_the_hint(machine):
    start(machine, 1, names=("app", "other"))
    first = warm(machine, "app")
    second = warm(machine, "other")
    assert second["sandbox"] != first["sandbox"] and second["environment"] == "other"
    assert [hint["environment"] for hint in hints(machine)] == ["other"]
    machine.wait_ready("app", 1)
    made = machine.client.create("app", key="ada")
    assert made["environment"] == "app" and made["source"] == "warm"
    assert hints(machine) == [], "whoever claimed has made up his mind"
    with pytest.raises(Failure) as unknown:
        warm(machine, "nothing")
    assert unknown.value.status == 404
    kept = warm(machine, "app")
    with pytest.raises(Failure):
        warm(machine, "nothing")
    assert hints(machine)[0]["sandbox"] == kept["sandbox"], "a refused call changes nothing"


def test_a_key_belongs_to_its_caller(machine):
    start(machine, 2)
    mine = warm(machine)
    status, theirs = as_user(machine, 65534, "POST", "/v1/warm", {"environment": "app", "key": "ada"})
    assert status == 200 and theirs["sandbox"] != mine["sandbox"]
    status, listed = as_user(machine, 65534, "GET", "/v1/warm")
    assert [hint["sandbox"] for hint in listed["hints"]] == [theirs["sandbox"]]
    assert [hint["sandbox"] for hint in hints(machine)] == [mine["sandbox"]]
    status, made = as_user(machine, 65534, "POST", "/v1/sandboxes", {"environment": "app", "key": "ada"})
    assert status == 201 and (made["source"], made["id"]) == ("hinted", theirs["sandbox"])
    status, _ = as_user(machine, 65534, "DELETE", "/v1/warm/ada")
    assert status == 404 and hints(machine)[0]["sandbox"] == mine["sandbox"]
    status, made = as_user(machine, 65534, "POST", "/v1/sandboxes", {"environment": "app", "key": "ada"})
    assert made["id"] != mine["sandbox"]
    assert machine.client.create("app", key="ada")["id"] == mine["sandbox"]


def test_limits_and_refusals(machine):
    start(machine, 1)
    warm(machine, key="one")
    warm(machine, key="two")
    with pytest.raises(Failure) as over:
        warm(machine, key="three")
    assert (over.value.status, over.value.kind) == (429, "limit")
    assert "hints_per_caller" in over.value.message and over.value.hint
    assert warm(machine, key="two")["key"] == "two", "renewing is not one more"
    for body in ({"environment": "app"}, {"key": "a"}, {"environment": "app", "key": "a b"},
                 {"environment": "app", "key": ""}, {"environment": "app", "key": "x" * 101},
                 {"environment": "app", "key": "a", "ttl_s": 0},
                 {"environment": "app", "key": "a", "ttl_s": 86400},
                 {"environment": "app", "key": "a", "sanpshot": "x"},
                 {"environment": "app", "snapshot": "snap-1", "key": "a"}):
        assert machine.client.raw("POST", "/v1/warm", body).status == 400, body
    assert machine.client.raw("POST", "/v1/warm", {"snapshot": "snap-9", "key": "two"}).status == 404


def test_a_snapshot_is_restored_ahead(machine):
    start(machine, 1)
    parent = machine.client.create("app")["id"]
    machine.client.output(parent, "echo mine > kept.txt")
    taken = machine.client.post(f"/v1/sandboxes/{parent}/snapshots", {})
    hint = warm(machine, None, snapshot=taken["id"])
    assert hint["snapshot"] == taken["id"]
    wait_hinted(machine)
    made = machine.client.create(None, snapshot=taken["id"], key="ada")
    assert (made["source"], made["id"]) == ("hinted", hint["sandbox"])
    assert machine.client.output(made["id"], "cat kept.txt") == "mine\n"
    hint = warm(machine, None, snapshot=taken["id"], ttl_s=1)
    made = machine.client.create("app")
    assert made["snapshot"] is None, "a claim of the environment never gets somebody's snapshot"
    wait_for("the restored one to go", lambda: hint["sandbox"] not in
             [one["id"] for one in machine.client.get("/v1/sandboxes")["sandboxes"]], 10)
    hint = warm(machine, None, snapshot=taken["id"])
    moved = warm(machine, "app")
    assert moved["snapshot"] is None and moved["sandbox"] != hint["sandbox"]
    wait_for("the restored one to go", lambda: hint["sandbox"] not in
             [one["id"] for one in machine.client.get("/v1/sandboxes")["sandboxes"]], 10)


def test_a_hint_follows_a_new_head(machine):
    """To another sandbox, where sandboxes are not brought forward in place."""
    repository = start(machine, 2)
    machine.environment("app", source={"url": repository.path}, pool={"min": 2, "max": 20},
                        sync={"at": "never", "refresh": False})
    wait_for("the file to be read", lambda: machine.log().count("environments.loaded") > 1)
    hint = warm(machine)
    commit = repository.commit({"hello.txt": "new\n"})
    machine.build("app")
    moved = wait_for("the hint to follow", lambda: next(
        (one for one in hints(machine) if one["commit"] == commit), None))
    assert moved["key"] == "ada"
    made = machine.client.create("app", key="ada")
    assert made["source"] == "hinted" and made["commit"] == commit and made["behind_s"] == 0
    assert machine.client.output(made["id"], "cat hello.txt") == "new\n"
    wait_for("the old ones to go", lambda: machine.pool("app")["stale"] == 0 and
             hint["sandbox"] not in [one["id"] for one in machine.client.get("/v1/sandboxes")["sandboxes"]])


def test_a_hinted_sandbox_that_dies(machine):
    start(machine, 1)
    hint = warm(machine)
    os.kill(machine.client.get(f"/v1/sandboxes/{hint['sandbox']}")["pid"], signal.SIGKILL)
    wait_for("the hint to go with it", lambda: hints(machine) == [])
    machine.wait_ready("app", 1)
    assert machine.client.create("app", key="ada")["source"] == "warm"


def test_an_environment_that_fails_is_not_tried_at_every_keystroke(machine):
    start(machine, 0)
    tree = sorted(name for name in os.listdir(f"{machine.store}/layers"))
    for name in tree:
        os.rename(f"{machine.store}/layers/{name}/tree", f"{machine.store}/layers/{name}/away")
    begin, refused, strokes = time.monotonic(), [], 0

    def keystroke():
        """200 while an attempt is under way, which passes; 503 between attempts."""
        reply = machine.client.raw("POST", "/v1/warm", {"environment": "app", "key": "ada"})
        assert reply.status in (200, 503)
        if reply.status == 503 and "fail to start" in reply.error["message"]:
            refused.append(reply)
        return refused
    wait_for("a hint to be refused", keystroke, 120)
    while strokes < 40:
        keystroke()
        strokes += 1
        time.sleep(0.02)
    attempts = machine.pool("app")["failing"]["attempts"]
    pauses = [int(pause) for pause in re.findall(r"pool\.failing.*retry_in_ms=(\d+)", machine.log())]
    elapsed_ms = (time.monotonic() - begin) * 1000
    assert sum(pauses[:-1]) <= elapsed_ms, "retried in a storm"
    assert 1 <= attempts <= len(pauses) and all(pause >= 500 for pause in pauses), "retried in a storm"
    for name in tree:
        os.rename(f"{machine.store}/layers/{name}/away", f"{machine.store}/layers/{name}/tree")

    def recovered():
        reply = machine.client.raw("POST", "/v1/warm", {"environment": "app", "key": "ada"})
        return reply.status == 200 and reply.json["state"] == "ready"
    wait_for("hints to work again", recovered, 400)


def test_killed_and_adopted(machine):
    start(machine, 1, hints_per_caller=4)
    ready = warm(machine)
    machine.wait_ready("app", 1)
    machine.kill()
    machine.start()
    assert [hint["sandbox"] for hint in hints(machine)] == [ready["sandbox"]]
    assert hints(machine)[0]["expires_at"] <= ready["expires_at"], "a restart renews nothing"
    assert machine.client.create("app")["id"] != ready["sandbox"]
    made = machine.client.create("app", key="ada")
    assert (made["source"], made["id"]) == ("hinted", ready["sandbox"])
    machine.kill()
    machine.start()
    assert hints(machine) == []
    now = machine.client.get(f"/v1/sandboxes/{made['id']}")
    assert now["state"] == "claimed"
    machine.wait_ready("app", 1)
    wait_for("three to be there, neither lost nor doubled", lambda: len(machine.init_pids()) == 3)


def test_that_ran_out_while_hobd_was_away(machine):
    start(machine, 1)
    warm(machine, ttl_s=1)
    machine.wait_ready("app", 1)
    machine.kill()
    time.sleep(1.2)
    machine.start()
    wait_for("the hint to end", lambda: hints(machine) == [])
    machine.wait_ready("app", 1)


def try_call(machine, method, path, body=None):
    try:
        return machine.client.raw(method, path, body)
    except (OSError, http.client.HTTPException):
        return None


FAULTS = ["hint.record", "sandbox.created", "claim.record", "hint.moved"]
MORE_FAULTS = ["sandbox.record:2", "sandbox.create", "sandbox.warm", "hint.end"]


@pytest.mark.parametrize("fault", FAULTS + (MORE_FAULTS if LONG else []))
def test_killed_at_each_step(machine, fault):
    """warm, claim, cancel and move with hobd killed in the middle: afterwards each key has at most one
    sandbox, what was answered holds, and nothing is doubled."""
    least = 1 if fault == "hint.record" else 0
    start(machine, least, names=("app", "other"), hints_per_caller=10)
    machine.kill()
    machine.start(env={"HOB_FAULT": fault})
    answered = {}
    steps = [("POST", "/v1/warm", {"environment": "app", "key": "ada"}),
             ("POST", "/v1/warm", {"environment": "app", "key": "bob"}),
             ("POST", "/v1/warm", {"environment": "other", "key": "bob"}),
             ("POST", "/v1/warm", {"environment": "app", "key": "cyd"}),
             ("POST", "/v1/sandboxes", {"environment": "app", "key": "cyd"}),
             ("DELETE", "/v1/warm/bob", None)]
    for step, (method, path, body) in enumerate(steps):
        reply = try_call(machine, method, path, body)
        if reply is None:
            break
        answered[step] = reply.json
        time.sleep(0.1)
    assert machine.daemon.wait(120) != 0, f"{fault} was never passed"
    machine.daemon = None
    machine.start()
    now = {hint["key"]: hint for hint in hints(machine)}
    assert len(now) == len(hints(machine)), "a key stands for one sandbox"
    if 0 in answered:
        assert now["ada"]["environment"] == "app"
    if 2 in answered and 4 in answered and 5 not in answered and fault != "hint.end":
        assert now["bob"]["environment"] == "other"
    if 4 in answered:
        claimed = machine.client.get(f"/v1/sandboxes/{answered[4]['id']}")
        assert claimed["state"] == "claimed" and "cyd" not in now
    for key in ("ada", "bob"):
        made = machine.client.create("app", key=key)
        assert machine.client.output(made["id"], "cat hello.txt") == "hello\n"
    claimed = machine.client.get("/v1/sandboxes?state=claimed")["sandboxes"]
    for key in list(hint["key"] for hint in hints(machine)):
        machine.client.call("DELETE", f"/v1/warm/{key}")
    wait_for("exactly the claimed to be left", lambda: len(machine.init_pids()) == len(claimed) + 2 * least)


def test_many_people_type_at_once(machine):
    """Keystrokes, claims and cancellations of many keys at once, and hobd killed in between: every
    sandbox is handed out once."""
    start(machine, 4, 100, hints_per_caller=50)
    made, odd, turns = [], [], [0] * 8

    def person(number):
        key = f"person-{number}"
        turns[number] += 1
        try:
            for _ in range(3):
                hint = warm(machine, key=key)
            if turns[number] % 4 == 0:
                machine.client.call("DELETE", f"/v1/warm/{key}")
                return
            one = machine.client.create("app", key=key)
            made.append(one["id"])
            if one["id"] != hint["sandbox"] and one["source"] == "hinted":
                odd.append((hint, one))
            machine.client.delete(one["id"])
        except (Failure, OSError, http.client.HTTPException, ValueError):
            time.sleep(0.05)
    with repeating(person, 8):
        for pause in (0.5, 0.3, 0.7):
            time.sleep(pause)
            machine.kill()
            machine.start()
        before = len(made)
        wait_for("claims after that", lambda: len(made) > before + 4)
    assert not odd and len(made) == len(set(made)) and made
    for hint in hints(machine):
        machine.client.call("DELETE", f"/v1/warm/{hint['key']}")
    for one in machine.client.get("/v1/sandboxes?state=claimed")["sandboxes"]:
        machine.client.delete(one["id"])
    machine.wait_ready("app", 4)
    wait_for("exactly the pool to be left", lambda: len(machine.init_pids()) == 4)


def test_a_hint_thaws_and_keeps_awake(machine):
    start(machine, 1, freeze_after="100ms")

    def frozen(sandbox):
        return machine.client.get(f"/v1/sandboxes/{sandbox}")["frozen"]
    ready = machine.client.get("/v1/sandboxes?state=ready")["sandboxes"][0]["id"]
    wait_for("it to be frozen", lambda: frozen(ready))
    hint = warm(machine)
    assert hint["sandbox"] == ready and hint["state"] == "ready"
    time.sleep(0.4)
    assert frozen(ready) is False
    machine.kill()
    machine.start()
    time.sleep(0.2)
    assert [one["sandbox"] for one in hints(machine)] == [ready] and frozen(ready) is False
    machine.client.call("DELETE", "/v1/warm/ada")
    wait_for("the one that is left to be frozen", lambda: [
        one["frozen"] for one in machine.client.get("/v1/sandboxes?state=ready")["sandboxes"]] == [True])
