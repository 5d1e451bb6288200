"""What the API does with the store's snapshots: lists, differences, pins and tags, and the long work with its
progress as events."""

import json
import os
import shutil
import subprocess

import pytest
from hobtest import Failure, wait_for


@pytest.fixture(scope="module")
def taken(shared):
    """Two snapshots of one sandbox: (first, second, sandbox)."""
    client = shared.client
    sandbox = client.create("tiny", idle_s=0)["id"]
    client.output(sandbox, "echo one > one; mkdir -p d; for i in $(seq 200); do echo $i > d/$i; done")
    first = client.post(f"/v1/sandboxes/{sandbox}/snapshots", {"label": "first"})["id"]
    client.output(sandbox, "echo two > two; rm d/1; python3 -c 'import socket; socket.socket(1).bind(\"/s\")'")
    second = client.post(f"/v1/sandboxes/{sandbox}/snapshots", {})["id"]
    yield first, second, sandbox
    client.delete(sandbox)


def events(client, method, path, body=None):
    return [(event[-2], event[-1]) for event in client.stream(method, path, body)]


def test_tree_and_du(shared, taken):
    tree = json.dumps(shared.client.get(f"/v1/snapshots/{taken[0]}/tree"))
    assert taken[0] in tree
    assert shared.client.get("/v1/snapshots/du")


def test_diff(shared, taken):
    text = json.dumps(shared.client.get(f"/v1/snapshots/{taken[1]}/diff?from={taken[0]}"))
    assert "two" in text and "d/1" in text and '"one"' not in text
    above = json.dumps(shared.client.get(f"/v1/snapshots/{taken[0]}/diff"))
    assert "one" in above
    with pytest.raises(Failure) as failure:
        shared.client.get("/v1/snapshots/snap-999/diff")
    assert failure.value.status == 404
    with pytest.raises(Failure) as failure:
        shared.client.get(f"/v1/snapshots/{taken[0]}/diff?from=--store")
    assert failure.value.status == 400


def test_pins_and_tags(shared, taken):
    client, first = shared.client, taken[0]
    assert client.post(f"/v1/snapshots/{first}/pin")["pinned"]
    with pytest.raises(Failure) as failure:
        client.call("DELETE", f"/v1/snapshots/{first}")
    assert failure.value.status == 409
    assert not client.post(f"/v1/snapshots/{first}/unpin")["pinned"]
    assert "good" in json.dumps(client.post(f"/v1/snapshots/{first}/tags", {"tag": "good"})["tags"])
    with pytest.raises(Failure) as failure:
        client.post(f"/v1/snapshots/{taken[1]}/tags", {"tag": "good"})
    assert failure.value.status == 409
    client.post(f"/v1/snapshots/{taken[1]}/tags", {"tag": "good", "move": True})
    assert client.get("/v1/snapshots/good")["id"] == taken[1]
    with pytest.raises(Failure):
        client.call("DELETE", f"/v1/snapshots/{first}/tags/good")
    client.call("DELETE", f"/v1/snapshots/{taken[1]}/tags/good")
    with pytest.raises(Failure) as failure:
        client.get("/v1/snapshots/good")
    assert failure.value.status == 404


def test_verify_with_progress(shared, taken):
    client = shared.client
    assert client.post("/v1/snapshots/verify")["damaged"] == 0
    heard = events(client, "POST", "/v1/snapshots/verify", {"snapshot": taken[0]})
    names = [name for name, _ in heard]
    assert names[-1] == "result" and "progress" in names[:-1]
    assert client.post("/v1/snapshots/verify", {"quick": True})["damaged"] == 0
    with pytest.raises(Failure) as failure:
        client.post("/v1/snapshots/verify", {"fast": True})
    assert failure.value.status == 400
    missing = events(client, "POST", "/v1/snapshots/verify", {"snapshot": "snap-999"})
    assert missing[-1][0] == "error"


def test_gc_and_flatten(shared, taken):
    client = shared.client
    assert client.post("/v1/snapshots/gc", {"dry_run": True})["dry_run"]
    heard = events(client, "POST", "/v1/snapshots/gc", {"dry_run": True})
    assert [name for name, _ in heard] == ["progress", "result"]
    assert client.post(f"/v1/snapshots/{taken[1]}/flatten")["id"] == taken[1]
    for path in (f"/v1/snapshots/{taken[1]}/flatten", "/v1/snapshots/dedupe"):
        names = [name for name, _ in events(client, "POST", path)]
        assert names[-1] == "result" and "progress" in names[:-1], path


def test_an_archive_goes_out_and_comes_back(shared, taken):
    client = shared.client
    whole = client.raw("GET", f"/v1/snapshots/{taken[1]}/export?with_parents=1")
    assert whole.status == 200
    again = client.raw("GET", f"/v1/snapshots/{taken[1]}/export?with_parents=1")
    assert again.body == whole.body
    reply = client.raw("POST", "/v1/snapshots/import", whole.body)
    assert reply.status == 201, reply.body
    made = reply.json["id"]
    sandbox = client.create(snapshot=made)["id"]
    assert client.output(sandbox, "cat two") == "two\n"
    client.delete(sandbox)
    broken = client.raw("POST", "/v1/snapshots/import", whole.body[: len(whole.body) // 2])
    assert broken.status >= 400, broken.body
    assert client.raw("GET", "/v1/snapshots/snap-999/export").status == 404
    client.call("DELETE", f"/v1/snapshots/{made}")


def test_an_import_says_how_far_it_is(shared, taken):
    client = shared.client
    whole = client.raw("GET", f"/v1/snapshots/{taken[1]}/export?with_parents=1").body
    accept = {"Accept": "text/event-stream"}
    reply = client.raw("POST", "/v1/snapshots/import?task=coming-in", whole, accept)
    assert reply.status == 200, reply.body
    names = [line[7:] for line in reply.body.decode().splitlines() if line.startswith("event: ")]
    assert names[-1] == "result", reply.body
    made = json.loads(reply.body.decode().rsplit("data: ", 1)[1])["id"]
    client.call("DELETE", f"/v1/snapshots/{made}")
    broken = client.raw("POST", "/v1/snapshots/import", whole[: len(whole) // 2], accept)
    assert broken.status >= 400 or b"event: error" in broken.body


def test_an_export_is_watched(shared, taken):
    """Its own answer is the archive; while nobody reads that, the work stands still and can be looked at."""
    client, sandbox = shared.client, taken[2]
    client.output(sandbox, "head -c 30000000 /dev/urandom > big")
    large = client.post(f"/v1/sandboxes/{sandbox}/snapshots", {})["id"]
    connection = client.connect()
    connection.request("GET", f"/v1/snapshots/{large}/export?task=going-out")
    wait_for("the export to say how far it is",
             lambda: any(one["key"] == "going-out" and one["progress"] for one in client.get("/v1/tasks")["tasks"]))
    seen = client.get("/v1/tasks/going-out")
    assert (seen["verb"], seen["subject"]) == ("export", large)
    assert seen["progress"]["phase"] in ("digest", "write") and seen["progress"]["bytes_all"] > 30000000
    with pytest.raises(Failure) as failure:
        client.get(f"/v1/snapshots/{large}/export?task=going-out")
    assert failure.value.status == 409
    with client.stream("GET", "/v1/tasks/going-out") as watching:
        first = next(iter(watching))
        assert first[-2] == "progress" and first[-1]["phase"] in ("digest", "write")
        assert len(connection.getresponse().read()) > 30000000
        connection.close()
        assert [event[-2] for event in watching][-1] == "result"
    with pytest.raises(Failure) as failure:
        client.get("/v1/tasks/going-out")
    assert failure.value.status == 404
    client.output(sandbox, "rm big")
    client.call("DELETE", f"/v1/snapshots/{large}")


def test_a_client_that_goes_away_ends_the_work(shared, taken):
    """An export whose client reads nothing and leaves: no process stays."""
    client, sandbox = shared.client, taken[2]
    client.output(sandbox, "head -c 30000000 /dev/urandom > big")
    large = client.post(f"/v1/sandboxes/{sandbox}/snapshots", {})["id"]
    connection = client.connect()
    connection.request("GET", f"/v1/snapshots/{large}/export")
    def exporting():
        done = subprocess.run(["pgrep", "-f", f"export.*{large}.*{shared.config}"], capture_output=True,
                              text=True, check=False)
        return done.stdout.split()
    wait_for("the export to run", exporting)
    connection.close()
    wait_for("the export to end", lambda: not exporting())
    assert client.get(f"/v1/snapshots/{large}")["id"] == large
    client.call("DELETE", f"/v1/snapshots/{large}")


def test_an_answer_that_is_too_long(machine):
    """It is refused, and who still has the rest to say is not waited for."""
    real, machine.program = machine.program, lambda name: f"{machine.folder}/programs/{name}"
    os.mkdir(machine.program(""))
    for name in ("hobd", "hob-init", "hob-build", "hob-snapshots"):
        shutil.copy(real(name), machine.program(name))
    machine.start()
    os.unlink(machine.program("hob-snapshots"))
    machine.write(machine.program("hob-snapshots"), "#!/bin/sh\nexec head -c 70000000 /dev/zero\n")
    os.chmod(machine.program("hob-snapshots"), 0o755)
    with pytest.raises(Failure) as failure:
        machine.client.get("/v1/snapshots/du")
    assert failure.value.status == 413 and "over 64 MiB" in failure.value.message
    assert not machine.client.get("/v1/tasks")["tasks"]
