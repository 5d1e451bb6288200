"""Snapshots of sandboxes by the API: taken while they run or when they end, restored, forked; and kill -9
in the middle of each."""

import contextlib
import http.client
import os
import threading
import time

import pytest

from hobtest import Failure, repeating, wait_for

SQLITE_WRITER = r"""
import sqlite3, sys
link = sqlite3.connect("/workspace/data.db", isolation_level=None)
link.execute("PRAGMA journal_mode=WAL")
link.execute("CREATE TABLE IF NOT EXISTS pairs (n INTEGER PRIMARY KEY, text TEXT, sum INTEGER)")
n = 0
while True:
    link.execute("BEGIN")
    for _ in range(20):
        n += 1
        text = "row %d " % n * 20
        link.execute("INSERT INTO pairs VALUES (?, ?, ?)", (n, text, len(text)))
    link.execute("COMMIT")
    open("/workspace/counter", "w").write(str(n))
"""

SQLITE_CHECK = r"""
import sqlite3
link = sqlite3.connect("/workspace/data.db")
print(link.execute("PRAGMA integrity_check").fetchone()[0])
rows, last, odd = link.execute(
    "SELECT count(*), max(n), sum(sum != length(text)) FROM pairs").fetchone()
print(rows > 0 and rows == last and rows % 20 == 0 and odd == 0)
"""

TREE = "cd /workspace && find . -type f -not -path './.git/*' -print0 | sort -z | xargs -0 sha256sum"


def start(machine, least=1, **keys):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": least, "max": 60}, **keys)
    machine.build("app")
    machine.start()
    machine.wait_ready("app", least)
    return machine.client


def take(client, sandbox, **body):
    return client.post(f"/v1/sandboxes/{sandbox}/snapshots", body)


def clean(machine):
    """Nothing half: no staging, no layers but those that the catalog knows."""
    wait_for("staging to be empty", lambda: os.listdir(f"{machine.store}/staging") == [], 120)
    done = machine.hob("snapshots", "recover", "--json")
    assert done.returncode == 0, done.stderr
    assert not any(int(word.strip(" ,{}\n").split(":")[1]) for word in done.stdout.split(",")), done.stdout


@pytest.fixture
def kept(shared, sandbox):
    """A sandbox with some files of its own, and the snapshots and sandboxes that a test makes."""
    made = {"sandbox": sandbox, "sandboxes": [], "snapshots": []}
    shared.client.output(sandbox, "mkdir -p deep/er; echo mine > deep/er/file; rm README.md 2>/dev/null; "
                                  "ln -s file deep/er/link; echo changed >> hello.txt")
    yield made
    for name in made["sandboxes"]:
        shared.client.delete(name)
    for name in made["snapshots"]:
        shared.client.call("DELETE", f"/v1/snapshots/{name}")


def restore(client, kept, snapshot, **more):
    made = client.create(snapshot=snapshot, **more)
    kept["sandboxes"].append(made["id"])
    return made


def test_taken_and_restored(shared, client, kept):
    sandbox = kept["sandbox"]
    before = client.output(sandbox, TREE)
    taken = take(client, sandbox, label="first", metadata={"ticket": "T-1"})
    kept["snapshots"].append(taken["id"])
    assert taken["id"].startswith("snap-") and taken["reason"] == "manual" and taken["label"] == "first"
    assert taken["sandbox"] == sandbox and taken["metadata"] == {"ticket": "T-1"}
    assert taken["image"] == client.get(f"/v1/sandboxes/{sandbox}")["image"] and taken["parent"]
    assert 0 < taken["pause_us"] < taken["took_us"]
    client.output(sandbox, "echo later > deep/er/file; rm hello.txt")
    made = restore(client, kept, taken["id"], env={"MORE": "1"})
    assert (made["source"], made["reason"], made["snapshot"]) == ("restored", None, taken["id"])
    assert made["environment"] == "tiny" and made["image"] == taken["image"]
    assert client.output(made["id"], TREE) == before
    assert client.output(made["id"], "readlink deep/er/link; pwd; echo $TINY$MORE") == \
        "file\n/workspace\nyes1\n"
    shown = client.get(f"/v1/snapshots/{taken['id']}")
    assert shown["users"] == ["leased by hobd"] and len(shown["layers"]) == shown["layer_count"]
    listed = client.get("/v1/snapshots?environment=tiny")["snapshots"]
    assert taken["id"] in [snapshot["id"] for snapshot in listed]
    assert client.get("/v1/snapshots?environment=other")["snapshots"] == []


def test_each_restore_is_its_own(client, kept):
    taken = take(client, kept["sandbox"])["id"]
    kept["snapshots"].append(taken)
    one, two = (restore(client, kept, taken)["id"] for _ in range(2))
    client.output(one, "echo one > deep/er/file; rm hello.txt")
    assert client.output(two, "cat deep/er/file; tail -n 1 hello.txt") == "mine\nchanged\n"
    client.output(two, "echo two > deep/er/file")
    assert client.output(one, "cat deep/er/file") == "one\n"
    three = restore(client, kept, taken)["id"]
    assert client.output(three, "cat deep/er/file") == "mine\n"


def test_lineage(client, kept):
    """A snapshot of a restored sandbox descends from the first, and stands without it."""
    first = take(client, kept["sandbox"])["id"]
    child = restore(client, kept, first)["id"]
    client.output(child, "echo second > second; rm deep/er/file")
    second = take(client, child, reason="session")
    assert second["parent"] == first and second["reason"] == "session"
    client.delete(child)
    kept["sandboxes"].remove(child)
    client.call("DELETE", f"/v1/snapshots/{first}")
    kept["snapshots"].append(second["id"])
    grandchild = restore(client, kept, second["id"])["id"]
    assert client.output(grandchild, "cat second; ls deep/er; tail -n 1 hello.txt") == \
        "second\nlink\nchanged\n"


def test_again_and_again(client, kept):
    """Each as of its own moment; what did not change is shared with the one before."""
    sandbox = kept["sandbox"]
    client.output(sandbox, "head -c 3000000 /dev/urandom > big")
    for number in range(3):
        client.output(sandbox, f"echo {number} > number")
        kept["snapshots"].append(take(client, sandbox)["id"])
    for number, name in enumerate(kept["snapshots"]):
        made = restore(client, kept, name)["id"]
        assert client.output(made, "cat number; sha256sum < big") == \
            f"{number}\n" + client.output(sandbox, "sha256sum < big")


def test_refused(shared, client, kept):
    sandbox = kept["sandbox"]
    for method, path, body, status, word in (
            ("POST", "/v1/sandboxes", {"snapshot": "snap-999999"}, 404, "snap-999999"),
            ("POST", "/v1/sandboxes", {"snapshot": "no-tag"}, 404, "no-tag"),
            ("POST", "/v1/sandboxes", {"snapshot": "snap-1", "environment": "tiny"}, 400, "either"),
            ("GET", "/v1/snapshots/snap-999999", None, 404, "snap-999999"),
            ("DELETE", "/v1/snapshots/snap-999999", None, 404, "snap-999999"),
            ("POST", "/v1/sandboxes/sb-000000000000/snapshots", {}, 404, "sb-000000000000"),
            ("POST", f"/v1/sandboxes/{sandbox}/snapshots", {"reason": "exit"}, 400, "reason"),
            ("POST", f"/v1/sandboxes/{sandbox}/snapshots", {"labell": "x"}, 400, "labell"),
            ("POST", f"/v1/sandboxes/{sandbox}/snapshots", {"label": "x" * 200}, 413, "label"),
            ("POST", f"/v1/sandboxes/{sandbox}/snapshots", {"label": "a\nb"}, 400, "label"),
            ("POST", f"/v1/sandboxes/{sandbox}/fork", {"count": 101}, 400, "count"),
            ("POST", f"/v1/sandboxes/{sandbox}/fork", {"count": 0}, 400, "count"),
            ("DELETE", f"/v1/sandboxes/{sandbox}?snapshot=2", None, 400, "snapshot")):
        reply = client.raw(method, path, body)
        assert (reply.status, word in reply.error["message"]) == (status, True), (path, body, reply.body)
    assert client.output(sandbox, "echo usable") == "usable\n"
    taken = take(client, sandbox)["id"]
    kept["snapshots"].append(taken)
    above = restore(client, kept, taken)["id"]
    reply = client.raw("DELETE", f"/v1/snapshots/{taken}")
    assert reply.status == 409 and "hobd" in reply.error["message"] and above in reply.error["hint"]
    assert client.get(f"/v1/snapshots/{taken}")["sandboxes"] == [above]
    refused = shared.hob("snapshots", "rm", taken)
    assert refused.returncode == 4 and above in refused.stderr, refused.stderr
    assert above in shared.hob("snapshots", "info", taken).stdout


def test_one_at_a_time(client, kept):
    sandbox = kept["sandbox"]
    client.output(sandbox, "for i in $(seq 2000); do echo $i > f$i; done")
    states = []

    def once():
        reply = client.raw("POST", f"/v1/sandboxes/{sandbox}/snapshots", {})
        if reply.status == 201:
            kept["snapshots"].append(reply.json["id"])
        states.append(reply.status)

    def four():
        """On a busy machine each may be over before the next is asked for."""
        threads = [threading.Thread(target=once) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 409 in states
    wait_for("two at once", four)
    assert set(states) == {201, 409}, states
    assert take(client, sandbox)["id"] not in kept["snapshots"]
    kept["snapshots"].append(client.get("/v1/snapshots")["snapshots"][0]["id"])


def test_fork_of_twenty(client, kept):
    sandbox = kept["sandbox"]
    reply = client.post(f"/v1/sandboxes/{sandbox}/fork", {"count": 20, "label": "twenty"})
    kept["snapshots"].append(reply["snapshot"]["id"])
    children = reply["children"]
    kept["sandboxes"] += [child["id"] for child in children if "id" in child]
    assert len(children) == 20 and len(set(kept["sandboxes"])) == 20
    assert all(child["source"] == "restored" and child["state"] == "claimed" for child in children)
    for number, child in enumerate(children):
        client.output(child["id"], f"echo {number} > deep/er/file; echo $TINY >> deep/er/file")
    for number, child in enumerate(children):
        assert client.output(child["id"], "cat deep/er/file") == f"{number}\nyes\n"
    assert client.output(sandbox, "cat deep/er/file") == "mine\n"


def test_fork_past_the_limit(client, kept):
    """tiny's pool.max is 40: those past it are errors of their own, the others are there."""
    reply = client.post(f"/v1/sandboxes/{kept['sandbox']}/fork", {"count": 60})
    kept["snapshots"].append(reply["snapshot"]["id"])
    good = [child["id"] for child in reply["children"] if "id" in child]
    bad = [child["error"] for child in reply["children"] if "error" in child]
    kept["sandboxes"] += good
    assert len(good) + len(bad) == 60 and 20 <= len(good) < 40
    assert all(error["kind"] == "unavailable" and "pool.max" in error["message"] for error in bad)
    assert client.output(good[-1], "cat deep/er/file") == "mine\n"


def test_command_line(shared, client, kept):
    done = shared.hob("snapshot", kept["sandbox"], "--label", "by hand")
    assert done.returncode == 0 and "stood still" in done.stderr, done.stderr
    snapshot = done.stdout.strip()
    kept["snapshots"].append(snapshot)
    assert "by hand" in shared.hob("snapshots", "ls").stdout
    done = shared.hob("restore", snapshot)
    kept["sandboxes"].append(done.stdout.strip())
    assert done.returncode == 0 and done.stderr.startswith("restored in"), done.stderr
    done = shared.hob("fork", kept["sandbox"], "-n", "3")
    made = done.stdout.split()
    kept["sandboxes"] += made
    kept["snapshots"].append(client.get("/v1/snapshots")["snapshots"][0]["id"])
    assert done.returncode == 0 and len(made) == 3 and "3 in" in done.stderr, done.stderr
    assert shared.hob("exec", made[1], "cat", "deep/er/file").stdout == "mine\n"
    assert shared.hob("fork", kept["sandbox"], "-n", "0").returncode == 2
    assert shared.hob("restore", "snap-999999").returncode != 0


# ---- what runs inside ----

def test_sqlite_writer(client, kept):
    sandbox = kept["sandbox"]
    client.call("PUT", client.file_path(sandbox, "/tmp/writer.py"), None)
    client.raw("PUT", client.file_path(sandbox, "/tmp/writer.py"), SQLITE_WRITER.encode())
    client.raw("PUT", client.file_path(sandbox, "/tmp/check.py"), SQLITE_CHECK.encode())
    number = client.post(f"/v1/sandboxes/{sandbox}/exec",
                         {"argv": ["/usr/bin/python3", "/tmp/writer.py"], "detach": True})["exec"]
    wait_for("rows", lambda: client.exec(sandbox, "test -s counter")["exit_code"] == 0)
    for _ in range(8):
        kept["snapshots"].append(take(client, sandbox)["id"])
        time.sleep(0.05)
    client.call("DELETE", f"/v1/sandboxes/{sandbox}/execs/{number}")
    for name in kept["snapshots"]:
        made = restore(client, kept, name)["id"]
        assert client.output(made, ["/usr/bin/python3", "/tmp/check.py"]) == "ok\nTrue\n", name


def test_in_the_middle_of_a_compile(client, kept):
    sandbox = kept["sandbox"]
    client.output(sandbox, r"""
        mkdir build && cd build
        for i in $(seq 40); do
            printf '#include <stdio.h>\n#include <string.h>\nint f%d(int x) { return x + %d; }\n' $i $i > f$i.c
            echo "int f$i(int);" >> all.h; echo "sum = f$i(sum);" >> calls.h
        done
        printf '#include <stdio.h>\n#include "all.h"\nint main(void) { int sum = 0;\n#include "calls.h"\n' > main.c
        printf '%s\n' 'printf("%d\n", sum); return 0; }' >> main.c
        printf 'O = $(patsubst %%.c,%%.o,$(wildcard *.c))\nprog: $(O)\n\tcc -o $@ $^\n' > Makefile
        printf '%%.o: %%.c\n\ttest $* != f40 || until test -e /tmp/go; do sleep 0.05; done; ' >> Makefile
        printf 'cc -O2 -c -o $@.part $< && mv $@.part $@\n' >> Makefile""")
    number = client.post(f"/v1/sandboxes/{sandbox}/exec", {"shell": "make -C build -j2", "detach": True})["exec"]
    wait_for("some objects", lambda: int(client.output(sandbox, "ls build | grep -c '\\.o$' || true")) >= 4)
    taken = take(client, sandbox)["id"]
    kept["snapshots"].append(taken)
    client.output(sandbox, "touch /tmp/go")
    client.get(f"/v1/sandboxes/{sandbox}/execs/{number}?wait=1")
    made = restore(client, kept, taken)["id"]
    built = client.exec(made, "touch /tmp/go; ls build | grep -c '\\.o$'; make -C build -j2 >&2 && build/prog")
    objects, result = built["stdout"].split()
    assert built["exit_code"] == 0 and result == "820", built
    assert 1 <= int(objects) < 41


# ---- at the end ----

def test_kept_on_delete(machine):
    client = start(machine, lifecycle={"snapshot": "exit"})
    sandbox = client.create("app")["id"]
    client.output(sandbox, "echo mine > mine; rm hello.txt; mkdir -m 700 closed; echo in > closed/in")
    gone = client.delete(sandbox)
    assert gone["state"] == "gone" and gone["snapshot"].startswith("snap-")
    shown = client.get(f"/v1/snapshots/{gone['snapshot']}")
    assert (shown["reason"], shown["sandbox"]) == ("exit", sandbox)
    made = client.create(snapshot=gone["snapshot"])["id"]
    assert client.output(made, "cat mine closed/in; ls hello.txt 2>/dev/null || echo gone") == "mine\nin\ngone\n"
    reply = client.call("DELETE", f"/v1/sandboxes/{made}?snapshot=0")
    assert reply["snapshot"] is None
    ready = client.get("/v1/sandboxes?state=ready")["sandboxes"][0]["id"]
    assert client.delete(ready)["snapshot"] is None, "nobody had it"
    clean(machine)


def test_kept_when_told(machine):
    client = start(machine)
    sandbox = client.create("app")["id"]
    assert client.delete(sandbox)["snapshot"] is None
    sandbox = client.create("app")["id"]
    client.output(sandbox, "echo mine > mine")
    name = client.call("DELETE", f"/v1/sandboxes/{sandbox}?snapshot=1")["snapshot"]
    assert client.output(client.create(snapshot=name)["id"], "cat mine") == "mine\n"


def test_kept_when_idle(machine):
    client = start(machine, lifecycle={"snapshot": "exit", "idle": "1s"})
    sandbox = client.create("app")["id"]
    client.output(sandbox, "echo mine > mine")
    found = wait_for("its snapshot", lambda: client.get("/v1/snapshots")["snapshots"])
    assert [(s["reason"], s["sandbox"]) for s in found] == [("exit", sandbox)]
    wait_for("its end", lambda: client.raw("GET", f"/v1/sandboxes/{sandbox}").status == 404)
    made = client.create(snapshot=found[0]["id"], idle_s=0)["id"]
    assert client.output(made, "cat mine") == "mine\n"
    client.call("DELETE", f"/v1/sandboxes/{made}?snapshot=0")


def test_released_while_a_snapshot_is_taken(machine):
    client = start(machine, lifecycle={"snapshot": "exit"})
    sandbox = client.create("app")["id"]
    client.output(sandbox, "for i in $(seq 3000); do echo $i > f$i; done")
    link = client.connect()
    link.request("POST", f"/v1/sandboxes/{sandbox}/snapshots", body=b"{}")
    time.sleep(0.03)
    kept = client.delete(sandbox)["snapshot"]
    reply = link.getresponse()
    assert reply.status in (201, 503), reply.read()
    link.close()
    made = client.create(snapshot=kept)["id"]
    assert client.output(made, "cat f3000") == "3000\n"
    client.call("DELETE", f"/v1/sandboxes/{made}?snapshot=0")
    clean(machine)


# ---- kill -9 ----

POINTS = ["snapshot.make", "snapshot.made", "staging.made", "snapshot.begun", "layer.row", "layer.synced",
          "layer.renamed", "layer.fsynced", "snapshot.before_commit", "snapshot.committed"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point(machine, point):
    """hobd dies at its own points, the process that it started at those of the store."""
    client = start(machine)
    sandbox = client.create("app", idle_s=0)["id"]
    client.output(sandbox, "echo mine > mine")
    machine.kill()
    machine.start(env={"HOB_FAULT": f"{point}:1:kill"})
    try:
        reply = client.raw("POST", f"/v1/sandboxes/{sandbox}/snapshots", {})
        assert reply.status >= 500, reply.body
    except OSError:
        pass
    machine.kill()
    machine.start()
    assert client.output(sandbox, "cat mine") == "mine\n"
    clean(machine)
    names = [snapshot["id"] for snapshot in client.get("/v1/snapshots")["snapshots"]]
    assert len(names) == (1 if point == "snapshot.committed" else 0)
    names.append(take(client, sandbox)["id"])
    for name in names:
        assert client.output(client.create(snapshot=name)["id"], "cat mine") == "mine\n"


def test_killed_at_any_moment(machine):
    """kill -9 of hobd while snapshots are taken, restored and forked; what is there afterwards is whole."""
    client = start(machine)
    sandbox = client.create("app", idle_s=0)["id"]
    client.output(sandbox, "for i in $(seq 500); do echo $i > f$i; done; echo whole > last")
    done = []

    def work(number):
        try:
            if number == 0:
                taken = take(client, sandbox)["id"]
                client.delete(client.create(snapshot=taken)["id"])
                done.append(taken)
            else:
                for child in client.post(f"/v1/sandboxes/{sandbox}/fork", {"count": 4})["children"]:
                    client.delete(child["id"])
        except (Failure, OSError, KeyError, ValueError, http.client.HTTPException):
            time.sleep(0.02)
    with repeating(work, 2):
        for pause in (0.05, 0.1, 0.2, 0.3, 0.15):
            time.sleep(pause)
            machine.kill()
            machine.start()
        before = len(done)
        wait_for("a snapshot after that", lambda: len(done) > before)
    for entry in client.get("/v1/sandboxes?state=claimed")["sandboxes"]:
        if entry["id"] != sandbox:
            client.delete(entry["id"])
    names = [snapshot["id"] for snapshot in client.get("/v1/snapshots")["snapshots"]]
    assert names
    for name in names:
        made = client.create(snapshot=name)["id"]
        assert client.output(made, "cat last; ls f* | wc -l") == "whole\n500\n", name
        client.delete(made)
    machine.kill()
    machine.start()
    clean(machine)


def test_restored_one_is_adopted(machine):
    client = start(machine)
    sandbox = client.create("app")["id"]
    client.output(sandbox, "echo mine > mine")
    taken = take(client, sandbox)["id"]
    made = client.create(snapshot=taken, metadata={"who": "me"}, idle_s=0)
    client.output(made["id"], "echo more > more")
    machine.kill()
    machine.start()
    now = client.get(f"/v1/sandboxes/{made['id']}")
    for key in ("state", "snapshot", "image", "metadata", "pid", "cwd", "user"):
        assert now[key] == made[key], key
    assert client.output(made["id"], "cat mine more") == "mine\nmore\n"
    assert client.raw("DELETE", f"/v1/snapshots/{taken}").status == 409
    second = take(client, made["id"])
    assert second["parent"] == taken
    client.delete(made["id"])
    client.call("DELETE", f"/v1/snapshots/{taken}")
    assert client.output(client.create(snapshot=second["id"])["id"], "cat mine more") == "mine\nmore\n"


def delete_or_fail(client, sandbox):
    with contextlib.suppress(OSError, Failure):
        client.delete(sandbox)


@pytest.mark.parametrize("point", ["snapshot.keep", "snapshot.made", "staging.made", "snapshot.begun",
                                   "layer.row", "layer.synced", "layer.renamed",
                                   "layer.fsynced", "snapshot.before_commit", "snapshot.committed"])
def test_end_killed(machine, point):
    """hobd, or the process that commits, dies while what a sandbox has become is kept, the moment after
    the rename included: the next hobd does it."""
    client = start(machine, lifecycle={"snapshot": "exit"})
    sandbox = client.create("app", idle_s=0)["id"]
    client.output(sandbox, "echo mine > mine")
    machine.kill()
    machine.start(env={"HOB_FAULT": f"{point}:1:kill"})
    deleting = threading.Thread(target=delete_or_fail, args=(client, sandbox))
    deleting.start()
    wait_for("somebody to die", lambda: machine.daemon.poll() is not None or not deleting.is_alive() or
             f"snapshot.failed sandbox={sandbox}" in machine.log())
    machine.kill()
    deleting.join()
    machine.start()
    names = wait_for("its snapshot", lambda: client.get("/v1/snapshots")["snapshots"])
    assert [(s["reason"], s["sandbox"]) for s in names] == [("exit", sandbox)]
    assert client.output(client.create(snapshot=names[0]["id"])["id"], "cat mine") == "mine\n"
    wait_for("the sandbox to be gone", lambda: all(s["id"] != sandbox for s in
                                                   client.get("/v1/sandboxes")["sandboxes"]))
