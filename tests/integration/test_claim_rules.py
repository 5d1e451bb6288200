"""What a claim may and may not get: the defects of other pools, each as a test; and claims that say how
new it has to be. Hints have their own file, restarts and limits theirs."""

import json
import os
import time

import pytest

from hobtest import ROOT, Failure, git, repeating, wait_for


def start(machine, least=2, most=20, env=None, **keys):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": least, "max": most}, **keys)
    machine.build("app")
    machine.start(env)
    machine.wait_ready("app", least)
    return repository


def test_claims_during_rollouts_get_the_newest_or_wait_but_never_fail(machine):
    """Heads change under a stream of claims: nobody gets an image that was replaced before he asked, and
    nobody an error."""
    repository = start(machine, 3, 60)
    wrong, sources = [], []
    heads = [machine.pool("app")["commit"]]

    def claim(_):
        known = len(heads) - 1
        try:
            made = machine.client.create("app")
            sources.append((made["source"], made["reason"]))
            if made["commit"] not in heads[known:]:
                # Published, and not yet told to us.
                wait_for("its commit to be a head", lambda: made["commit"] in heads)
                if heads.index(made["commit"]) < known:
                    wrong.append((known, made))
            machine.client.delete(made["id"])
        except (Failure, AssertionError) as failure:
            wrong.append(failure)
    with repeating(claim, 4):
        for turn in range(3):
            commit = repository.commit({"hello.txt": f"turn {turn}\n"})
            machine.build("app")
            wait_for("the new head", lambda wanted=commit: machine.pool("app")["commit"] == wanted)
            heads.append(commit)
            before = len(sources)
            wait_for("claims of it", lambda least=before: len(sources) > least + 4)
        wait_for("a warm one", lambda: ("warm", None) in sources)
    assert not wrong, wrong[:3]


def test_stale_ones_are_not_handed_out(machine):
    """The pool has only sandboxes of the old image, and cannot make new ones just now."""
    repository = start(machine, 2)
    machine.kill()
    commit = repository.commit({"hello.txt": "new\n"})
    machine.build("app")
    machine.start(env={"HOB_FAULT": "sandbox.record:3:EIO"})  # adopting two, then the first new one
    made = [machine.client.create("app") for _ in range(3)]
    assert {one["commit"] for one in made} == {commit}
    assert all(machine.client.output(one["id"], "cat hello.txt") == "new\n" for one in made)


def test_one_failure_does_not_end_the_refilling(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": 2, "max": 9})
    machine.build("app")
    machine.start(env={"HOB_FAULT": "sandbox.record:1:EIO"})
    machine.wait_ready("app", 2)
    assert "sandbox.create_failed" in machine.log()
    wait_for("the failure to be over", lambda: machine.pool("app")["failing"] is None)


def test_waiting_in_the_pool_is_not_idling_of_the_claimer(machine):
    start(machine, 1, lifecycle={"idle": "2s", "max_age": "4s"})
    machine.client.post("/v1/warm", {"environment": "app", "key": "me", "ttl_s": 600})
    machine.wait_ready("app", 1)
    time.sleep(2.5)
    for more in ({}, {"key": "me"}):
        begin = time.monotonic()
        made = machine.client.create("app", timeout_s=60, **more)
        assert made["last_active_at"] == made["claimed_at"] != made["created_at"]
        wait_for("it to end by its own idle time", lambda one=made: machine.client.raw(
            "GET", f"/v1/sandboxes/{one['id']}").status == 404)
        assert time.monotonic() - begin >= 2, "it had all of its own idle time"


def test_nothing_of_the_hint_shortens_what_was_claimed_at_its_end(machine):
    start(machine, 1)

    def in_time():
        machine.client.post("/v1/warm", {"environment": "app", "key": "me", "ttl_s": 2})
        made = machine.client.create("app", key="me", timeout_s=600)
        if made["source"] == "hinted":
            return made
        machine.client.delete(made["id"])
        return None
    made = wait_for("a claim before the hint has ended", in_time)
    time.sleep(2.2)
    now = machine.client.get(f"/v1/sandboxes/{made['id']}")
    assert now["state"] == "claimed" and now["expires_at"] == made["expires_at"]


def test_claimed_once_never_back_in_the_pool(machine):
    start(machine, 3)
    claimed, kept = set(), machine.client.create("app")["id"]
    for turn in range(6):
        made = machine.client.create("app", **({"key": "me"} if turn % 2 else {}))
        assert made["id"] not in claimed
        claimed.add(made["id"])
        machine.client.output(made["id"], "echo used > used.txt")
        if turn == 3:
            machine.kill()
            machine.start()
        machine.client.delete(made["id"])
        machine.client.post("/v1/warm", {"environment": "app", "key": "me"})
        ready = {one["id"] for one in machine.client.get("/v1/sandboxes?state=ready")["sandboxes"]}
        assert not ready & (claimed | {kept})
    for made in (machine.client.create("app") for _ in range(4)):
        assert machine.client.output(made["id"], "ls used.txt 2>/dev/null || echo clean") == "clean\n"


def test_the_service_leaves_sandboxes_alone():
    """What SIGTERM does is tested in test_restart; systemd must not end more than hobd itself."""
    with open(os.path.join(ROOT, "contrib/systemd/hobd.service"), encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    assert {"KillMode=process", "Delegate=yes", "RuntimeDirectoryPreserve=yes"} <= set(lines)


# ---- how new it has to be ----

def test_max_age(machine):
    repository = start(machine, 1)
    assert machine.client.create("app", max_age_s=3600)["source"] == "warm"
    machine.wait_ready("app", 1)
    time.sleep(2.1)
    with pytest.raises(Failure) as old:
        machine.client.create("app", max_age_s=1)
    assert (old.value.status, old.value.kind) == (409, "conflict")
    assert "max_age 1s" in old.value.message and "build" in old.value.hint
    # That asked for a build, which finds nothing new: the head is known to be the newest again.
    wait_for("the build", lambda: machine.client.get("/v1/builds?environment=app")["builds"][0]["state"] ==
             "unchanged")
    made = machine.client.create("app", max_age_s=600)
    assert made["source"] == "warm" and made["behind_s"] == 0
    machine.wait_ready("app", 1)
    commit = repository.commit({"hello.txt": "new\n"})
    machine.build("app")
    made = machine.client.create("app", max_age_s=3600)
    assert made["source"] == "warm", "a claim that says how old it may be is not cold during a rollout"
    if made["commit"] != commit:
        assert made["behind_s"] >= 1
        wait_for("the pool to move", lambda: machine.pool("app")["stale"] == 0)
    assert machine.client.create("app", max_age_s=3600)["commit"] == commit


def test_min_commit(machine):
    repository = start(machine, 1)
    first = repository.commit_id()
    assert machine.client.create("app", min_commit=first)["commit"] == first
    second = repository.commit({"hello.txt": "second\n"})
    with pytest.raises(Failure) as unknown:
        machine.client.create("app", min_commit=second)
    assert (unknown.value.status, unknown.value.kind) == (409, "conflict")
    assert second in unknown.value.message and "build" in unknown.value.hint
    made = wait_for("the build that this asked for", lambda: attempt(machine, second))
    assert made["commit"] == second and made["behind_s"] == 0
    assert machine.client.output(made["id"], "cat hello.txt") == "second\n"
    for commit in (first, first[:9], second[:7].upper(), second):
        assert machine.client.create("app", min_commit=commit)["commit"] == second
    hint = machine.client.post("/v1/warm", {"environment": "app", "key": "me"})
    made = machine.client.create("app", key="me", min_commit=first)
    assert (made["source"], made["id"]) == ("hinted", hint["sandbox"])
    started, begin = len(machine.client.get("/v1/builds?environment=app")["builds"]), time.monotonic()
    for _ in range(5):
        with pytest.raises(Failure) as never:
            machine.client.create("app", min_commit="0123456789abcdef")
    assert never.value.status == 409
    assert "0123456789abcdef is not known" in never.value.message and "push it" in never.value.hint
    time.sleep(0.5)
    count = len(machine.client.get("/v1/builds?environment=app")["builds"])
    # One in ten seconds (BUILD_GAP_MS).
    assert count <= started + 1 + (time.monotonic() - begin) // 10, "builds in a storm"


def test_min_commit_by_history(machine):
    """What counts is git's history: commits that were never built, and not what a later build left out."""
    repository = start(machine, 1)
    never_built = repository.commit({"hello.txt": "second\n"})
    third = repository.commit({"hello.txt": "third\n"})
    machine.build("app")
    wait_for("the pool to move", lambda: (machine.pool("app")["commit"], machine.pool("app")["stale"]) == (third, 0))
    for commit in (never_built, never_built[:10].upper(), third):
        made = machine.client.create("app", min_commit=commit)
        assert made["commit"] == third and made["behind_s"] == 0
    machine.kill()
    machine.start()
    assert machine.client.create("app", min_commit=never_built)["commit"] == third
    # Written anew without them: what was built before is not in what is built now.
    git(repository.path, "reset", "--hard", "HEAD~2")
    fourth = repository.commit({"hello.txt": "fourth\n"})
    machine.build("app")
    wait_for("the pool to move", lambda: machine.pool("app")["commit"] == fourth)
    with pytest.raises(Failure) as gone:
        machine.client.create("app", min_commit=third)
    assert (gone.value.status, gone.value.kind) == (409, "conflict") and third in gone.value.message
    assert machine.client.create("app", min_commit=fourth)["commit"] == fourth


def test_min_commit_of_a_source_that_is_gone(machine):
    repository = start(machine, 1)
    first = repository.commit_id()
    os.rename(repository.path, repository.path + ".away")
    assert machine.client.create("app", min_commit=first)["commit"] == first
    with pytest.raises(Failure) as unknown:
        machine.client.create("app", min_commit="0123456789abcdef")
    assert "0123456789abcdef is not known here" in unknown.value.message


def attempt(machine, commit):
    try:
        return machine.client.create("app", min_commit=commit)
    except Failure as failure:
        assert failure.status == 409
        return None


@pytest.mark.parametrize("body", [
    {"environment": "app", "min_commit": "abc"}, {"environment": "app", "min_commit": "z" * 40},
    {"environment": "app", "min_commit": ""}, {"environment": "app", "max_age_s": -1},
    {"image": "img-1", "max_age_s": 5}, {"image": "img-1", "min_commit": "0123456789"},
    {"environment": "app", "key": "a/b"}, {"environment": "app", "key": 5}])
def test_refused(client, body):
    reply = client.raw("POST", "/v1/sandboxes", body)
    assert reply.status == 400 and reply.error["kind"] == "invalid", json.dumps(reply.json)


def test_on_the_command_line(shared):
    def hob(*words, code=0):
        done = shared.hob(*words)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done
    assert " is ready, kept for " in hob("warm", "tiny", "--key", "ann", "--ttl", "30s").stdout
    reply = json.loads(hob("warm", "tiny", "-k", "ann", "--json").stdout)
    assert reply["state"] == "ready" and reply["ttl_s"] == 60
    listed = hob("pool", "hints").stdout
    assert "ann" in listed and reply["sandbox"] in listed
    assert json.loads(hob("pool", "hints", "--json").stdout)["hints"][0]["key"] == "ann"
    assert "HINTED" in hob("pool").stdout.splitlines()[0]
    made = hob("create", "tiny", "--key", "ann", "--max-age", "1d", "--min-commit", reply["commit"])
    assert made.stdout.strip() == reply["sandbox"] and made.stderr.startswith("hinted in ")
    assert "no hints of yours" in hob("pool", "hints").stderr
    hob("rm", reply["sandbox"])
    hob("warm", "tiny", "--key", "bob")
    hob("warm", "--cancel", "bob")
    assert "no hint" in hob("warm", "--cancel", "bob", code=3).stderr
    assert "--key" in hob("warm", "tiny", code=2).stderr
    assert "environment" in hob("warm", "--key", "x", code=2).stderr
    assert "alone" in hob("warm", "tiny", "--cancel", "x", code=2).stderr
    assert "max_age" in hob("create", "tiny", "--max-age", "0", code=4).stderr
