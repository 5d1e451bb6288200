"""The main road: a repository becomes an image, the image a warm sandbox, the sandbox a claim; and what
the API says about each."""

import re
import time

import pytest

from hobtest import Failure, wait_for

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


def test_build_warm_claim_exec_files_delete(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path},
                        steps=[{"name": "build", "run": "cc -o prog src/main.c && echo built"}],
                        check={"run": "test -x prog"}, pool={"min": 1, "max": 4})
    machine.build("app")
    machine.start()
    machine.wait_ready("app", 1)
    client = machine.client

    made = client.create("app")
    assert (made["source"], made["reason"]) == ("warm", None)
    assert made["environment"] == "app" and made["state"] == "claimed"
    assert made["id"].startswith("sb-") and made["image"].startswith("img-")
    assert made["behind_s"] == 0 and 0 < made["took_us"] < 600_000_000
    assert TIME.match(made["claimed_at"]) and TIME.match(made["created_at"])

    sandbox = made["id"]
    assert client.output(sandbox, "pwd; cat hello.txt; ./prog && echo ran") == "/workspace\nhello\nran\n"
    assert client.output(sandbox, ["git", "log", "--format=%s", "-1"]) == "Change something\n"
    assert client.output(sandbox, "git status --porcelain --untracked-files=no") == ""
    client.raw("PUT", client.file_path(sandbox, "/workspace/new.txt"), b"from outside")
    assert client.output(sandbox, "cat new.txt") == "from outside"
    client.output(sandbox, "echo from inside >> new.txt; rm hello.txt")
    assert client.raw("GET", client.file_path(sandbox, "/workspace/new.txt")).body == \
        b"from outsidefrom inside\n"

    assert client.delete(sandbox) == {"id": sandbox, "state": "gone", "snapshot": None}
    with pytest.raises(Failure) as gone:
        client.get(f"/v1/sandboxes/{sandbox}")
    assert gone.value.status == 404
    machine.wait_ready("app", 1)
    other = client.create("app")["id"]
    assert client.output(other, "cat hello.txt; ls") == "hello\nhello.txt\nprog\nsrc\n"


def test_every_claim_is_a_fresh_copy(shared, client):
    one, two = client.create("tiny")["id"], client.create("tiny")["id"]
    client.output(one, "echo changed > /workspace/hello.txt; echo x > /root/secret")
    assert client.output(two, "cat /workspace/hello.txt; ls /root") == "hello\n"
    client.delete(one)
    client.delete(two)


def test_claim_says_cold_and_why(machine):
    repository = machine.repository("cold")
    machine.environment("cold", source={"url": repository.path}, pool={"min": 0, "max": 3})
    machine.build("cold")
    machine.start()
    made = machine.client.create("cold")
    assert (made["source"], made["reason"]) == ("cold", "empty")
    assert machine.client.output(made["id"], "cat hello.txt") == "hello\n"
    assert machine.pool("cold")["misses"]["empty"] == 1


def test_unknown_environment_and_unbuilt_environment(machine):
    repository = machine.repository("later")
    machine.environment("later", source={"url": repository.path})
    machine.start()
    with pytest.raises(Failure) as unknown:
        machine.client.create("nosuch")
    assert (unknown.value.status, unknown.value.kind) == (404, "not_found")
    assert "nosuch" in unknown.value.message
    with pytest.raises(Failure) as unbuilt:
        machine.client.create("later")
    assert unbuilt.value.status == 409
    assert "hob build later" in unbuilt.value.hint


def test_identity_is_bound_at_claim(client):
    made = client.create("tiny", env={"WHO": "me, \"quoted\" and\nmore"}, metadata={"ticket": "T-1"})
    sandbox = made["id"]
    assert made["metadata"] == {"ticket": "T-1"}
    assert client.output(sandbox, 'printf %s "$WHO"') == 'me, "quoted" and\nmore'
    assert client.output(sandbox, "echo $TINY") == "yes\n"
    assert client.output(sandbox, "echo $WHO", env={"WHO": "other"}) == "other\n"
    client.delete(sandbox)


def test_looking_at_a_sandbox(client, sandbox):
    seen = client.get(f"/v1/sandboxes/{sandbox}")
    assert seen["state"] == "claimed" and seen["cwd"] == "/workspace" and seen["user"] == "root"
    assert seen["usage"]["memory_bytes"] > 0 and seen["usage"]["pids"] >= 1
    assert seen["usage"]["cpu_us"] >= 0 and seen["execs"] == []
    listed = client.get("/v1/sandboxes?environment=tiny&state=claimed")["sandboxes"]
    assert sandbox in [entry["id"] for entry in listed]
    assert all(entry["state"] == "claimed" for entry in listed)
    ready = client.get("/v1/sandboxes?state=ready")["sandboxes"]
    assert sandbox not in [entry["id"] for entry in ready]


def kept_awake(client):
    """A sandbox with two seconds of idle time, which outlived them by a command each second; None when
    this machine was too slow for that, and two seconds lay between two commands."""
    sandbox = client.create("tiny", idle_s=2)["id"]
    before = time.monotonic()
    for _ in range(4):
        time.sleep(1)
        asked = time.monotonic()
        status = client.raw("POST", f"/v1/sandboxes/{sandbox}/exec", {"shell": "true"}).status
        if status != 200:
            assert status == 404 and time.monotonic() - before >= 2
            return None
        before = asked
    return sandbox


def test_looking_does_not_extend_a_life_but_a_command_does(client):
    sandbox = wait_for("a sandbox that is kept awake", lambda: kept_awake(client))

    def gone():
        return sandbox not in [s["id"] for s in client.get("/v1/sandboxes?state=claimed")["sandboxes"]]
    wait_for("the idle sandbox to be released", gone)
    sandbox = client.create("tiny")["id"]
    seen = [client.get(f"/v1/sandboxes/{sandbox}")["last_active_at"]]
    client.output(sandbox, "true")
    for _ in range(2):
        time.sleep(0.1)
        seen.append(client.get(f"/v1/sandboxes/{sandbox}")["last_active_at"])
    assert seen[0] < seen[1] == seen[2]
    client.delete(sandbox)


def test_a_running_command_is_not_idle(client):
    def attempt():
        begin = time.monotonic()
        sandbox = client.create("tiny", idle_s=1)["id"]
        reply = client.raw("POST", f"/v1/sandboxes/{sandbox}/exec", {"shell": "sleep 3; echo still here"})
        if reply.status == 404:  # it came too late to keep it awake
            assert 1 <= time.monotonic() - begin
            return None
        return reply
    assert wait_for("a command in time", attempt).json["stdout"] == "still here\n"


def test_timeout_ends_a_life_and_can_be_moved(client):
    def attempt():
        made = client.create("tiny", timeout_s=2)["id"]
        reply = client.raw("POST", f"/v1/sandboxes/{made}/timeout", {"seconds": 3600})
        return (made, reply.json) if reply.status == 200 else None
    sandbox, moved = wait_for("a sandbox that lives until it is moved", attempt)
    assert TIME.match(moved["expires_at"])
    time.sleep(2.5)
    assert client.output(sandbox, "echo alive") == "alive\n"
    never = client.post(f"/v1/sandboxes/{sandbox}/timeout", {"seconds": 0})["expires_at"]
    assert never > moved["expires_at"], "what is left is the environment's max_age, 8 hours by default"
    client.post(f"/v1/sandboxes/{sandbox}/timeout", {"seconds": 1})

    def gone():
        return client.raw("GET", f"/v1/sandboxes/{sandbox}").status == 404
    wait_for("the sandbox to expire", gone)


def test_claim_of_an_image_by_id(machine):
    repository = machine.repository("two")
    machine.environment("two", source={"url": repository.path}, pool={"min": 1, "max": 4})
    machine.build("two")
    first = machine.hob_build("--json", "two")
    repository.commit({"hello.txt": "second\n"})
    machine.build("two")
    machine.start()
    machine.wait_ready("two", 1)
    images = machine.client.get("/v1/images?environment=two")["images"]
    assert [image["head"] for image in images] == [True, False], first.stdout
    old = machine.client.create(image=images[1]["id"])
    assert (old["source"], old["reason"]) == ("cold", "mismatch")
    assert machine.client.output(old["id"], "cat hello.txt") == "hello\n"
    head = machine.client.create(image=images[0]["id"])
    assert head["source"] == "warm"
    assert machine.client.output(head["id"], "cat hello.txt") == "second\n"
    with pytest.raises(Failure) as unknown:
        machine.client.create(image="img-999")
    assert unknown.value.status == 404


def test_info_health_and_environments(shared, client):
    assert client.get("/healthz") == {"status": "ok"}
    info = client.get("/v1/info")
    assert info["pid"] == shared.daemon.pid and info["store"] == shared.store
    assert info["run"] == shared.run and info["cgroup"] in ("v1", "v2") and info["version"]
    assert info["max_sandboxes"] == 250 and info["ready"] >= 1
    listed = client.get("/v1/environments")
    tiny = listed["environments"][0]
    assert tiny["name"] == "tiny" and tiny["head"].startswith("img-") and tiny["base"] == "host"
    assert tiny["source_url"] == shared.tiny.path and listed["failures"] == []
    assert client.get("/v1/environments/tiny")["commit"] == tiny["commit"]
    assert client.raw("GET", "/v1/environments/none").status == 404


def test_images_and_their_users(shared, client):
    image = client.get("/v1/images")["images"][0]
    seen = client.get(f"/v1/images/{image['id']}")
    assert [layer["kind"] for layer in seen["layers"]] == ["base", "source"]
    assert seen["layers"][1]["files"] >= 3 and seen["bytes"] > 0
    assert any("head of tiny" in user for user in seen["users"])
    with pytest.raises(Failure) as used:
        client.call("DELETE", f"/v1/images/{image['id']}")
    assert used.value.status == 409 and "tiny" in used.value.message
    assert client.raw("GET", "/v1/images/img-999").status == 404


@pytest.mark.parametrize("body", [
    {"environment": "tiny", "enviroment": "x"}, {"environment": 7}, {}, {"environment": ""},
    {"environment": "tiny", "env": {"A": 1}}, {"environment": "tiny", "env": {"A=B": "x"}},
    {"environment": "tiny", "timeout_s": -1}, {"environment": "tiny", "timeout_s": "5"},
    {"environment": "tiny", "metadata": {"a": {}}}, {"environment": "tiny", "image": "img-1"},
    {"environment": "a/b"}, {"environment": "../tiny"}, [], "text",
])
def test_malformed_claims_are_refused(client, body):
    before = client.get("/v1/info")["claimed"]
    reply = client.raw("POST", "/v1/sandboxes", body if isinstance(body, (dict, list)) else b"text")
    assert reply.status in (400, 404), reply.body
    assert reply.error["kind"] in ("invalid", "not_found") and reply.error["message"]
    assert client.get("/v1/info")["claimed"] == before


@pytest.mark.parametrize("method,path,status", [
    ("GET", "/", 404), ("GET", "/v1/nothing", 404), ("POST", "/v1/info", 405), ("PATCH", "/v1/sandboxes", 405),
    ("GET", "/v1/sandboxes/sb-000000000000", 404), ("DELETE", "/v1/sandboxes/sb-000000000000", 404),
    ("GET", "/v1/sandboxes/..%2f..%2fetc", 404), ("POST", "/v1/sandboxes/sb-000000000000/exec", 404),
    ("GET", "/v1/builds/bld-999", 404), ("GET", "/v1/builds/x", 404),
])
def test_wrong_paths_and_methods(client, method, path, status):
    reply = client.raw(method, path, {"shell": "true"} if method == "POST" else None)
    assert reply.status == status, reply.body
    assert reply.error["message"]


def test_a_body_over_its_limit(client):
    reply = client.raw("POST", "/v1/sandboxes", b'{"environment": "' + b"x" * (2 << 20) + b'"}')
    assert reply.status == 413
    assert reply.error["kind"] == "limit" and client.get("/healthz")["status"] == "ok"


def test_requests_on_one_connection(client):
    link = client.connect()
    for _ in range(50):
        assert client.get("/healthz", connection=link)["status"] == "ok"
    assert client.raw("POST", "/v1/sandboxes", b"{", connection=link).status == 400
    assert client.get("/healthz", connection=link)["status"] == "ok"
    link.close()
