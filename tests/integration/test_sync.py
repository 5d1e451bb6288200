"""A running sandbox brought to a newer commit: the same files, modes, links, index and history as a
fresh checkout of that commit, whatever kind of change; and what somebody worked on stays."""

import os
import subprocess

import pytest

from hobtest import LONG, Failure, Hob, git, wait_for

COMPARE = r"""
cd /workspace && find . -path ./.git -prune -o -printf '%P\t%y\t%m\t%l\n' | LC_ALL=C sort | base64 -w0; echo
find . -path ./.git -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum -z | base64 -w0; echo
"""
CLEAN = "cd /workspace && git status --porcelain --ignored && git fsck --no-dangling 2>&1"


@pytest.fixture(name="hob")
def hob_fixture():
    hob = Hob()
    yield hob
    hob.close()


def run(hob, box, script, check=True):
    result = hob.client.post(f"/v1/sandboxes/{box}/exec", {"shell": script})
    assert not check or result["exit_code"] == 0, result
    return result


def looks(hob, box):
    return run(hob, box, COMPARE)["stdout"]


def app(hob, source=None, **keys):
    repo = hob.repository("app")
    hob.environment("app", source={"url": repo.path, **(source or {})}, base="host", **keys)
    return repo


def assert_at(hob, box, commit):
    """Clean, whole, and like a sandbox that was made of this commit."""
    status = run(hob, box, CLEAN)
    assert status["stdout"] == "", status
    assert run(hob, box, "cd /workspace && git rev-parse HEAD origin/main main")["stdout"].split() == [commit] * 3
    assert "hob-sync" not in run(hob, box, "ls /workspace/.git")["stdout"]
    hob.build("app")
    other = wait_for("a sandbox of the new image", lambda: fresh(hob, commit))
    assert looks(hob, box) == looks(hob, other)
    hob.client.delete(other)


def fresh(hob, commit):
    box = hob.client.create("app")
    if box["commit"] == commit:
        return box["id"]
    hob.client.delete(box['id'])
    return None


def sync(hob, box, **body):
    return hob.client.post(f"/v1/sandboxes/{box}/sync", body)


def test_one_file(hob):
    repo = app(hob)
    hob.build("app")
    hob.start()
    box = hob.client.create("app")["id"]
    before = run(hob, box, "stat -c %Y /workspace/src/main.c")["stdout"]
    commit = repo.commit({"hello.txt": "hello again\n"})
    reply = sync(hob, box)
    assert reply["commit"] == commit and reply["behind_s"] == 0
    assert reply["sync"]["state"] == "done" and reply["sync"]["changes"] == 1
    assert run(hob, box, "stat -c %Y /workspace/src/main.c")["stdout"] == before
    assert_at(hob, box, commit)


def write(repo, name, data, mode=0o644):
    full = os.path.join(repo.path, name) if isinstance(name, str) else os.path.join(os.fsencode(repo.path), name)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(data)
    os.chmod(full, mode)


def commit_all(repo, message="Change much"):
    git(repo.path, "add", "-A")
    git(repo.path, "commit", "-q", "-m", message)
    return repo.commit_id()


def delete(repo, *names):
    subprocess.run(["rm", "-rf", "--", *names], cwd=repo.path, check=True)


def before_all_kinds(repo):
    for number in range(40):
        write(repo, f"deep/a{number}/b/file{number}.txt", b"%d\n" % number)
    write(repo, "tool.sh", b"#!/bin/sh\n")
    write(repo, "gone/one.txt", b"1\n")
    write(repo, "gone/two.txt", b"2\n")
    write(repo, "file-to-folder", b"a file\n")
    write(repo, "folder-to-file/inner/x", b"x\n")
    write(repo, "folder-to-link/y", b"y\n")
    write(repo, "link-target/z", b"z\n")
    os.symlink("link-target", os.path.join(repo.path, "link-to-folder"))
    os.symlink("hello.txt", os.path.join(repo.path, "link"))
    os.symlink("hello.txt", os.path.join(repo.path, "link-to-file"))
    write(repo, "empty", b"")
    write(repo, "same-size.txt", b"aaaa\n")
    write(repo, "windows/crlf.txt", b"one\ntwo\n")
    write(repo, "windows/later.txt", b"one\ntwo\n")
    write(repo, "binary", bytes(range(256)) * 300)
    return commit_all(repo, "Lay out")


def all_kinds(repo):
    delete(repo, "gone", "file-to-folder", "folder-to-file", "folder-to-link", "link-to-folder", "link",
           "link-to-file", "deep/a3", "empty")
    os.rename(os.path.join(repo.path, "deep/a4"), os.path.join(repo.path, "renamed"))
    os.chmod(os.path.join(repo.path, "tool.sh"), 0o755)
    write(repo, "file-to-folder/now/here.txt", b"in a folder\n")
    write(repo, "folder-to-file", b"a file now\n")
    os.symlink("hello.txt", os.path.join(repo.path, "folder-to-link"))
    write(repo, "link-to-folder/real.txt", b"a folder now\n")
    os.symlink("src/main.c", os.path.join(repo.path, "link"))
    write(repo, "link-to-file", b"a file now\n")
    write(repo, "same-size.txt", b"bbbb\n")
    write(repo, "binary", bytes(range(255, -1, -1)) * 400)
    write(repo, b"caf\xe9 \xff\n.txt", b"not UTF-8\n")
    write(repo, " leading and trailing ", b"spaces\n")
    write(repo, "-dash", b"dash\n")
    write(repo, "long/" + "n" * 200 + "/" + "m" * 250, b"long\n")
    write(repo, "large", os.urandom(3 << 20))
    write(repo, ".gitattributes", b"windows/*.txt text eol=crlf\n")
    write(repo, "windows/crlf.txt", b"one\ntwo\nthree\n")
    write(repo, "windows/new.txt", b"new\n")
    # A pointer of a submodule, without its repository.
    git(repo.path, "add", "-A")
    git(repo.path, "update-index", "--add", "--cacheinfo", f"160000,{repo.commit_id()},vendor/module")
    git(repo.path, "commit", "-q", "-m", "Change every kind of thing")
    return repo.commit_id()


def test_every_kind_of_change_and_back(hob):
    """Back is a forced push: the older commit does not descend from the newer one. Submodules are not
    fetched, so that one that changes is a folder that comes and goes."""
    repo = app(hob, {"submodules": False})
    first = before_all_kinds(repo)
    hob.build("app")
    hob.start()
    box = hob.client.create("app")["id"]
    look = looks(hob, box)
    second = all_kinds(repo)
    reply = sync(hob, box)
    assert reply["commit"] == second, reply
    assert_at(hob, box, second)
    git(repo.path, "reset", "-q", "--hard", first)
    reply = sync(hob, box)
    assert reply["commit"] == first, reply
    assert looks(hob, box) == look
    assert run(hob, box, CLEAN)["stdout"] == ""


def test_merge_and_a_thousand_files(hob):
    repo = app(hob)
    hob.build("app")
    hob.start()
    box = hob.client.create("app")["id"]
    git(repo.path, "checkout", "-q", "-b", "side")
    for number in range(1000):
        write(repo, f"many/{number % 37}/f{number}", b"%d\n" % number)
    commit_all(repo)
    git(repo.path, "checkout", "-q", "main")
    repo.commit({"hello.txt": "on main\n"})
    git(repo.path, "merge", "-q", "--no-edit", "side")
    reply = sync(hob, box)
    assert reply["sync"]["changes"] == 1001, reply
    assert_at(hob, box, repo.commit_id())


def test_claimed_work_is_kept(hob):
    repo = app(hob)
    write(repo, "other.txt", b"other\n")
    write(repo, "third.txt", b"third\n")
    first = commit_all(repo)
    hob.build("app")
    hob.start()
    box = hob.client.create("app")["id"]
    run(hob, box, "cd /workspace && echo mine > hello.txt && echo new > new.txt && rm third.txt && touch other.txt"
                  " && mkdir -p elsewhere && ln -s /tmp planted && echo note > notes")
    write(repo, "hello.txt", b"theirs\n")
    write(repo, "new.txt", b"theirs\n")
    write(repo, "third.txt", b"theirs\n")
    write(repo, "other.txt", b"theirs\n")
    write(repo, "planted/through", b"theirs\n")
    second = commit_all(repo)
    look = looks(hob, box)
    with pytest.raises(Failure) as caught:
        sync(hob, box)
    assert caught.value.status == 409 and "hello.txt" in caught.value.message
    reply = hob.client.raw("POST", f"/v1/sandboxes/{box}/sync", {})
    assert sorted(reply.error["paths"]) == ["hello.txt", "new.txt", "planted/through", "third.txt"]
    info = hob.client.get(f"/v1/sandboxes/{box}")
    assert info["commit"] == first and info["sync"]["state"] == "conflict" and info["behind_s"] > 0
    assert looks(hob, box) == look
    assert run(hob, box, "ls /tmp")["stdout"].split() == []
    assert "index.lock" not in run(hob, box, "ls /workspace/.git")["stdout"]
    # Given up by its owner, the same sync goes through; what the commit does not touch stays.
    run(hob, box, "cd /workspace && git checkout -q hello.txt third.txt && rm new.txt planted")
    assert sync(hob, box)["commit"] == second
    assert run(hob, box, "cd /workspace && git status --porcelain")["stdout"] == "?? notes\n"
    # Commits of its own, a staged change, another branch, a lock: all said, nothing changed.
    third = repo.commit({"hello.txt": "third\n"})
    for script, back, words in (
            ("git commit -q --allow-empty -m own", "git reset -q --hard HEAD~", "commits of its own"),
            ("git checkout -q -b own", "git checkout -q main", "refs/heads/own"),
            ("touch .git/index.lock", "rm .git/index.lock", "git is at work"),
            ("touch .git/MERGE_HEAD", "rm .git/MERGE_HEAD", "in the middle"),
            ("mv .git /real && ln -s /real .git", "rm .git && mv /real .git", ".git"),
            ("cp .git/index /index && head -c 40 /index > .git/index", "cp /index .git/index", "index")):
        run(hob, box, f"cd /workspace && export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a"
                      f" GIT_COMMITTER_EMAIL=a && {script}")
        with pytest.raises(Failure) as caught:
            sync(hob, box, to=third)
        assert words in caught.value.message, (script, caught.value.message)
        run(hob, box, f"cd /workspace && {back}")
    assert sync(hob, box, to=third)["commit"] == third
    assert run(hob, box, "cat /workspace/hello.txt /workspace/notes")["stdout"] == "third\nnote\n"


def test_refresh_in_place(hob):
    """A new head that differs in its source only keeps the sandboxes; another one replaces them."""
    repo = app(hob, pool={"min": 2, "max": 8})
    hob.build("app")
    hob.start()
    hob.wait_ready("app", 2)
    boxes = {box["id"] for box in hob.client.get("/v1/sandboxes?state=ready")["sandboxes"]}
    commit = repo.commit({"hello.txt": "refreshed\n", "more/new.txt": "new\n"})
    hob.build("app")
    wait_for("both to be at the new commit", lambda: [
        (box["commit"], box["behind_s"]) for box in hob.client.get("/v1/sandboxes?state=ready")["sandboxes"]
    ] == [(commit, 0)] * 2)
    assert {box["id"] for box in hob.client.get("/v1/sandboxes?state=ready")["sandboxes"]} == boxes
    wait_for("both to count as refreshed", lambda: hob.pool("app")["refreshes"] == 2)
    pool = hob.pool("app")
    assert pool["ready"] == 2 and pool["stale"] == 0
    box = hob.client.create("app")
    assert box["source"] == "warm" and box["id"] in boxes and box["image"] == pool["image"] != box["stands_on"]
    assert_at(hob, box["id"], commit)
    # kill -9: what it counts as is remembered, and its layers stay leased.
    hob.kill()
    hob.start()
    info = hob.client.get(f"/v1/sandboxes/{box['id']}")
    assert (info["commit"], info["image"], info["stands_on"]) == (commit, box["image"], box["stands_on"])
    snapshot = hob.client.post(f"/v1/sandboxes/{box['id']}/snapshots", {})
    other = hob.client.create(snapshot=snapshot["id"])
    assert looks(hob, other["id"]) == looks(hob, box["id"])
    # Another base of things: replaced.
    hob.environment("app", source={"url": repo.path}, pool={"min": 2, "max": 8}, env={"NEW": "yes"})
    repo.commit({"hello.txt": "replaced\n"})
    hob.build("app")
    wait_for("new ones in their place", lambda: hob.pool("app")["ready"] == 2 and hob.pool("app")["stale"] == 0 and
             not boxes & {box["id"] for box in hob.client.get("/v1/sandboxes?state=ready")["sandboxes"]})


def test_hints_bring_their_sandbox_to_the_newest(hob):
    """While somebody types, so that the claim finds nothing left to do."""
    repo = app(hob, pool={"min": 2, "max": 8})
    first = repo.commit_id()
    hob.build("app")
    hob.start()
    hob.wait_ready("app", 2)
    second = repo.commit({"hello.txt": "typed\n"})
    hint = hob.client.post("/v1/warm", {"environment": "app", "key": "ada"})
    wait_for("the sync", lambda: (hob.client.get(f"/v1/sandboxes/{hint['sandbox']}")["sync"] or {})
             .get("state") == "done")
    other = hob.client.create("app")
    assert other["commit"] == first and other["behind_s"] > 0 and other["sync"] is None
    made = hob.client.create("app", key="ada")
    assert (made["id"], made["commit"], made["behind_s"]) == (hint["sandbox"], second, 0)
    assert made["sync"]["state"] == "done"
    assert run(hob, made["id"], CLEAN)["stdout"] == ""


def test_restored_ones_know_their_commit(hob):
    """A snapshot of a synced sandbox says where its workspace is: what is made of it is synced on."""
    repo = app(hob)
    hob.build("app")
    hob.start()
    box = hob.client.create("app")["id"]
    second = repo.commit({"hello.txt": "second\n"})
    assert sync(hob, box)["commit"] == second
    snapshot = hob.client.post(f"/v1/sandboxes/{box}/snapshots", {})
    assert snapshot["commit"] == second
    restored = hob.client.create(snapshot=snapshot["id"])
    assert restored["commit"] == second and restored["sync"] is None
    third = repo.commit({"hello.txt": "third\n"})
    reply = sync(hob, restored["id"])
    assert reply["from"] == second and reply["sync"]["changes"] == 1
    assert_at(hob, restored["id"], third)
    # And what stands on that one, once more; a fork as well.
    snapshot = hob.client.post(f"/v1/sandboxes/{restored['id']}/snapshots", {})
    again = hob.client.create(snapshot=snapshot["id"])
    assert again["commit"] == snapshot["commit"] == third
    fourth = repo.commit({"hello.txt": "fourth\n"})
    assert sync(hob, again["id"])["commit"] == fourth
    assert run(hob, again["id"], CLEAN)["stdout"] == ""
    # hobd's end in between changes nothing of that.
    hob.kill()
    hob.start()
    assert hob.client.create(snapshot=snapshot["id"])["commit"] == third


def test_a_snapshot_in_the_middle_of_a_sync_is_brought_to_its_end(hob):
    """hobd is killed between what was applied and its record: the snapshot's workspace is further than it says."""
    repo = app(hob)
    hob.build("app")
    hob.start(env={"HOB_FAULT": "sync.applied:1"})
    box = hob.client.create("app")["id"]
    second = repo.commit({"hello.txt": "second\n", "more/new.txt": "new\n"})
    with pytest.raises(Exception):  # noqa: B017 (hobd is killed before it answers)
        sync(hob, box)
    hob.daemon.wait(120)
    hob.daemon = None
    hob.start()
    wait_for("it to settle", lambda: "running" not in str(hob.client.get(f"/v1/sandboxes/{box}")["sync"]))
    snapshot = hob.client.post(f"/v1/sandboxes/{box}/snapshots", {})
    restored = hob.client.create(snapshot=snapshot["id"])["id"]
    assert sync(hob, restored)["commit"] == second
    assert run(hob, restored, CLEAN)["stdout"] == ""


def test_a_sandbox_that_slept_knows_its_commit(hob):
    repo = app(hob, lifecycle={"type": "hybrid", "idle": "1s"})
    hob.build("app")
    hob.start()
    box = hob.client.create("app")["id"]
    second = repo.commit({"hello.txt": "second\n"})
    assert sync(hob, box)["commit"] == second
    wait_for("it to sleep", lambda: hob.client.get(f"/v1/sandboxes/{box}")["state"] == "dormant")
    hob.kill()
    hob.start()
    assert run(hob, box, "cat /workspace/hello.txt")["stdout"] == "second\n"
    third = repo.commit({"hello.txt": "third\n"})
    reply = sync(hob, box)
    assert (reply["from"], reply["commit"]) == (second, third)
    assert run(hob, box, CLEAN)["stdout"] == ""


def test_refresh_gives_up_on_what_does_not_apply(hob):
    """A step changed a tracked file: the sandbox is replaced, never handed out at neither commit."""
    repo = app(hob, pool={"min": 1, "max": 8}, steps=[{"name": "edit", "run": "echo edited >> hello.txt",
                                                       "inputs": ["src/**"]}])
    hob.build("app")
    hob.start()
    hob.wait_ready("app", 1)
    old = hob.client.get("/v1/sandboxes?state=ready")["sandboxes"][0]["id"]
    commit = repo.commit({"hello.txt": "other\n"})
    hob.build("app")
    wait_for("one at the new commit", lambda: [box["commit"] for box in hob.client.get(
        "/v1/sandboxes?state=ready")["sandboxes"]] == [commit])
    assert hob.client.get("/v1/sandboxes?state=ready")["sandboxes"][0]["id"] != old


def test_claims_follow_the_newest_and_wait(hob):
    repo = app(hob, pool={"min": 1, "max": 8}, sync={"at": "claim", "wait": "20s", "run": "cat hello.txt > /seen"},
               steps=[{"name": "deps", "run": "wc -c package.json > /deps || true", "inputs": ["package.json"]}])
    hob.build("app")
    hob.start()
    hob.wait_ready("app", 1)
    commit = repo.commit({"hello.txt": "newest\n", "package.json": "{}\n"})
    box = hob.client.create("app")
    # The claim began the fetch; only what is under way when it is answered is waited for.
    wait_for("the sync", lambda: (hob.client.get(f"/v1/sandboxes/{box['id']}")["sync"] or {}).get("state") == "done")
    info = hob.client.get(f"/v1/sandboxes/{box['id']}")
    assert info["commit"] == commit and info["sync"]["steps_stale"] == ["deps"] and info["sync"]["run_code"] == 0
    assert run(hob, box["id"], "cat /seen")["stdout"] == "newest\n"


@pytest.mark.parametrize("point, claimed", [
    (point, claimed)
    for point, claimed, quick in (("sync.start", True, False), ("sync.carry:2", True, True),
                                  ("sync.applied", True, True), ("sync.recorded", True, False),
                                  ("sync.start", False, False), ("sync.carry:2", False, True),
                                  ("sync.applied", False, False), ("sync.recorded", False, False))
    if quick or LONG])
def test_killed_in_the_middle(hob, point, claimed):
    repo = app(hob, pool={"min": 0 if claimed else 1, "max": 8})
    for number in range(300):
        write(repo, f"many/f{number}", os.urandom(2000))
    first = commit_all(repo)
    hob.build("app")
    name, _, count = point.partition(":")
    hob.start(env={"HOB_FAULT": f"{name}:{count or 1}"})
    if claimed:
        box = hob.client.create("app")["id"]
    else:
        hob.wait_ready("app", 1)
        box = hob.client.get("/v1/sandboxes?state=ready")["sandboxes"][0]["id"]
    for number in range(300):
        write(repo, f"many/f{number}", os.urandom(2000))
    second = commit_all(repo)
    with pytest.raises(Exception):  # noqa: B017 (hobd is killed before it answers)
        sync(hob, box)
    hob.daemon.wait(120)
    hob.daemon = None
    hob.start()
    wait_for("it to settle", lambda: "running" not in str(hob.client.get(f"/v1/sandboxes/{box}")["sync"]))
    info = hob.client.get(f"/v1/sandboxes/{box}")
    assert info["commit"] in (first, second)
    if point == "sync.recorded" or point == "sync.applied":
        assert info["commit"] == second or name == "sync.applied"
    if not claimed:
        claimed_box = hob.client.create("app")
        assert claimed_box["id"] == box and claimed_box["source"] == "warm"
        info = claimed_box
    assert run(hob, box, "cd /workspace && git rev-parse HEAD")["stdout"].strip() == info["commit"]
    assert run(hob, box, "cd /workspace && git status --porcelain")["stdout"] == ""
    assert sync(hob, box)["commit"] == second
    assert run(hob, box, "cd /workspace && git status --porcelain && git fsck --no-dangling 2>&1")["stdout"] == ""
