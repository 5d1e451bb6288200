"""Builds that are cancelled, overtaken, held back after a failure, and taken back."""

import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import time

import pytest

from git_servers import free_port
from hobtest import Hob, wait_for

SLOW = [{"name": "slow", "run": "echo begun; sleep 600 || true"}]


@pytest.fixture
def machine_of_one_build():
    hob = Hob(max_builds=1)
    yield hob
    hob.close()


def newest(machine, name="app"):
    builds = machine.client.get(f"/v1/builds?environment={name}&limit=1")["builds"]
    return builds[0] if builds else None


def running(machine, before=None):
    """The id of the newest build, another than `before`, once its step has said "begun"."""
    def look():
        build = newest(machine)
        if build and build["state"] == "running" and build["id"] != before:
            log = machine.client.raw("GET", f"/v1/builds/{build['id']}/log").body.decode()
            return build["id"] if "begun\n" in log else None
        return None
    return wait_for("the step to run", look)


def build_by_api(machine):
    assert machine.client.raw("POST", "/v1/environments/app/build", {}).status == 202
    return running(machine)


def staging(machine):
    return os.listdir(f"{machine.store}/staging")


def test_cancel_leaves_nothing_behind(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path})
    machine.build("app")
    head = os.readlink(f"{machine.store}/heads/app")
    machine.environment("app", source={"url": repository.path}, steps=SLOW)
    machine.start()
    build = build_by_api(machine)
    done = machine.hob("builds", "cancel", build)
    assert done.returncode == 0, done.stderr
    assert "has ended: failed" in done.stdout
    shown = machine.client.get(f"/v1/builds/{build}")
    assert "cancelled" in shown["message"]
    assert os.readlink(f"{machine.store}/heads/app") == head
    assert staging(machine) == []
    again = machine.hob("builds", "cancel", build)
    assert again.returncode == 4 and "does not run" in again.stderr
    assert machine.hob("builds", "cancel", "bld-99").returncode == 3


def test_cancel_by_environment_running_and_queued(machine_of_one_build):
    machine = machine_of_one_build
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, steps=SLOW)
    machine.environment("other", source={"url": repository.path})
    machine.start()
    build_by_api(machine)
    assert machine.client.raw("POST", "/v1/environments/other/build", {}).json["state"] == "queued"
    done = machine.hob("builds", "cancel", "other")
    assert done.returncode == 0 and "off the queue" in done.stdout, done.stderr
    assert machine.hob("builds", "cancel", "other").returncode == 4
    done = machine.hob("builds", "cancel", "app")
    assert done.returncode == 0, done.stderr
    assert newest(machine)["state"] == "failed" and newest(machine, "other") is None


def tell(machine, commit):
    """What hobd does when a push arrives."""
    with open(f"{machine.store}/builds/app.news", "w", encoding="ascii") as file:
        file.write(commit)
    os.chmod(f"{machine.store}/builds/app.news", 0o644)
    with open(f"{machine.store}/builds/app.lock", encoding="ascii") as lock:
        pid = int(lock.read().split()[1])
    os.kill(pid, signal.SIGUSR1)


def test_a_newer_commit_supersedes_a_build(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, steps=SLOW)
    machine.start()
    build = build_by_api(machine)
    tell(machine, repository.commit_id())
    time.sleep(0.5)
    assert newest(machine)["state"] == "running", "it builds that very commit"
    commit = repository.commit({"hello.txt": "newer\n"})
    tell(machine, commit)
    wait_for("it to give up", lambda: newest(machine)["state"] != "running")
    assert newest(machine)["state"] == "superseded" and newest(machine)["id"] == build
    assert "newer commit" in newest(machine)["message"]


def test_a_request_during_a_build_is_not_forgotten(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, steps=SLOW)
    machine.start()
    first = build_by_api(machine)
    commit = repository.commit({"hello.txt": "pushed after the fetch\n"})
    assert machine.client.raw("POST", "/v1/environments/app/build", {}).json["state"] == "queued"
    machine.let_go()
    assert running(machine, first) != first
    machine.let_go()
    wait_for("the second build", lambda: (newest(machine)["state"], newest(machine)["commit"])
             == ("published", commit))


def test_what_failed_is_not_tried_again_at_once(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, steps=[{"name": "no", "run": "exit 7"}])
    assert machine.hob_build("app", "--scheduled").returncode == 1
    held = machine.hob_build("app", "--scheduled")
    assert held.returncode == 0, held.stderr
    machine.start()
    build = newest(machine)
    assert build["state"] == "unchanged" and "since bld-1 failed" in build["message"]
    assert machine.hob_build("app").returncode == 1, "who asks gets an answer"
    repository.commit({"hello.txt": "something changed\n"})
    assert machine.hob_build("app", "--scheduled").returncode == 1
    machine.environment("app", source={"url": repository.path})
    assert machine.hob_build("app", "--scheduled").returncode == 0
    assert newest(machine)["state"] == "published"


def test_rollback_holds_until_something_changes(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": 1, "max": 3})
    machine.build("app")
    first = repository.commit_id()
    second = repository.commit({"hello.txt": "bad\n"})
    machine.build("app")
    machine.start()
    wait_for("the second", lambda: machine.pool("app")["commit"] == second)
    done = machine.hob("images", "rollback", "app")
    assert done.returncode == 0, done.stderr
    assert "img-1 is the head of app again" in done.stdout
    wait_for("the first again", lambda: machine.pool("app")["commit"] == first)
    machine.wait_ready("app", 1)
    made = machine.client.create("app")
    assert machine.client.output(made["id"], "cat hello.txt") == "hello\n"
    machine.build("app")
    assert machine.pool("app")["commit"] == first and "rolled back" in newest(machine)["message"]
    third = repository.commit({"hello.txt": "good\n"})
    machine.build("app")
    wait_for("the third", lambda: machine.pool("app")["commit"] == third)
    reply = machine.client.raw("POST", "/v1/environments/app/rollback", {"image": "img-2"})
    assert reply.status == 200 and reply.json["commit"] == second
    assert machine.client.raw("POST", "/v1/environments/app/rollback", {"image": "img-9"}).status == 404
    assert machine.client.raw("POST", "/v1/environments/app/rollback", {"img": "img-1"}).status == 400
    assert machine.hob_build("app", "--force").returncode == 0
    wait_for("the third once more", lambda: machine.pool("app")["commit"] == third)


def test_a_build_yields_to_others(machine):
    machine.environment("app", workdir="/tmp", steps=[{"name": "nice", "run": "nice > /tmp/nice"}])
    machine.build("app")
    machine.start()
    made = machine.client.create("app")
    ours = os.nice(0)  # what all that the test starts begins with
    assert machine.client.output(made["id"], "cat nice; nice") == f"{max(10, ours)}\n{ours}\n"


def sign(body, secret=b"swordfish"):
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def post(port, path, body, headers):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
    try:
        link.request("POST", path, body, headers)
        reply = link.getresponse()
        return reply.status, json.loads(reply.read())
    finally:
        link.close()


def push(url, ref, commit):
    return json.dumps({"ref": ref, "after": commit, "before": "0" * 40,
                       "repository": {"full_name": "acme/app", "clone_url": url,
                                      "default_branch": "main"}}).encode()


@pytest.fixture
def hooked():
    """A hob that takes webhooks by TCP."""
    port = free_port()
    hob = Hob(hook_listen=f"127.0.0.1:{port}", hook_secret="hook")
    hob.port = port
    os.mkdir(f"{hob.folder}/secrets")
    hob.write(f"{hob.folder}/secrets/hook", "swordfish\n")
    shutil.chown(f"{hob.folder}/secrets/hook", group="hob")
    os.chmod(f"{hob.folder}/secrets/hook", 0o640)
    yield hob
    hob.close()


def test_a_push_builds_at_once(hooked):
    repository = hooked.repository("app")
    url = f"file://{repository.path}"
    hooked.environment("app", source={"url": url})
    hooked.environment("side", source={"url": url, "ref": "side"})
    hooked.start()
    body = push(url, "refs/heads/main", repository.commit_id())
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": sign(body)}
    assert post(hooked.port, "/v1/hooks/github", body, {"X-GitHub-Event": "push"})[0] == 403
    assert post(hooked.port, "/v1/hooks/github", body + b" ", headers)[0] == 403
    status, reply = post(hooked.port, "/v1/hooks/github", body, headers)
    assert status == 202 and [e["environment"] for e in reply["environments"]] == ["app"]
    wait_for("the build", lambda: newest(hooked) and newest(hooked)["state"] == "published")
    ping = b'{"zen": "Keep it logically awesome."}'
    status, reply = post(hooked.port, "/v1/hooks/github", ping,
                         {"X-GitHub-Event": "ping", "X-Hub-Signature-256": sign(ping)})
    assert status == 202 and reply["environments"] == []
    assert post(hooked.port, "/v1/pool", b"", {})[0] == 404, "strangers get webhooks only"
    generic, now = b'{"environment": "app"}', str(int(time.time()))
    status, reply = post(hooked.port, "/v1/hooks/generic", generic,
                         {"X-Hob-Timestamp": now, "X-Hob-Signature": sign(now.encode() + b"." + generic)})
    assert status == 202 and len(reply["environments"]) == 1
    assert "swordfish" not in hooked.log()


def test_a_push_overtakes_a_build_once(hooked):
    repository = hooked.repository("app")
    url = f"file://{repository.path}"
    hooked.environment("app", source={"url": url}, steps=SLOW)
    hooked.start()

    def send():
        body = push(url, "refs/heads/main", repository.commit({"hello.txt": f"{time.monotonic()}\n"}))
        headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": sign(body)}
        assert post(hooked.port, "/v1/hooks/github", body, headers)[0] == 202
    send()
    first = running(hooked)
    send()
    wait_for("the first to give up", lambda: hooked.client.get(f"/v1/builds/{first}")["state"] == "superseded")
    second = running(hooked, first)
    send()
    hooked.let_go()
    wait_for("the second to end", lambda: hooked.client.get(f"/v1/builds/{second}")["state"] != "running")
    assert hooked.client.get(f"/v1/builds/{second}")["state"] == "published", "not twice in a row"
    last = repository.commit_id()
    running(hooked, second)
    hooked.let_go()
    wait_for("the last push", lambda: (newest(hooked)["state"], newest(hooked)["commit"]) == ("published", last))
