"""What hobd does for its store by itself: deep snapshots are flattened, equal files are stored once, and
a watermark of free space makes builds wait, pools shrink and garbage go."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile

import pytest

import hobtest
import leftovers
from hobtest import LONG, Failure, wait_for

GOOD = 16  # SNAPSHOT_LAYERS_GOOD
MIB = 1 << 20


def snapshots(machine, *words):
    done = machine.hob("snapshots", *words, "--json", timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def depth(machine, name):
    return len(snapshots(machine, "info", name)["layers"])


# ---- chains ----

def test_generations(machine):
    """A file is added in each of 70 sandboxes, each on the snapshot of the one before: no snapshot is
    refused, none stays deep, and the last sandbox has every file."""
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": 0, "max": 8})
    machine.build("app")
    machine.start()
    client = machine.client
    sandbox, names = client.create("app")["id"], []
    for generation in range(70):
        client.output(sandbox, f"echo {generation} > file{generation}; rm -f file{generation - 3}")
        names.append(client.post(f"/v1/sandboxes/{sandbox}/snapshots", {})["id"])
        client.delete(sandbox)
        sandbox = client.create(snapshot=names[-1])["id"]
    files = client.output(sandbox, "cat file* | sort -n | tr '\\n' ' '").split()
    assert files == ["67", "68", "69"]
    client.delete(sandbox)
    wait_for("all snapshots to be flat",
             lambda: max(depth(machine, name) for name in names[::6] + names[-1:]) <= GOOD)
    assert "upkeep.flattens" in machine.log()
    done = machine.hob("snapshots", "verify")
    assert done.returncode == 0, done.stdout + done.stderr


# ---- rebuilds ----

STEP = ("mkdir -p /opt/kit && head -c 3000000 /dev/zero | tr '\\0' k > /opt/kit/data && "
        "cp hello.txt /opt/kit/ && touch -d @1500000000 /opt/kit/data")


def rebuild(machine, repository, count):
    """Builds of small commits; the bytes on disk of the first, of all at the end, and what changed."""
    repository.commit({f"lib/m{number % 20}/f{number}.txt": f"{number} " * 900 for number in range(600)})
    machine.environment("app", source={"url": repository.path}, steps=[{"name": "kit", "run": STEP}])
    machine.build("app")
    first = snapshots(machine, "du")["total"]["stored_bytes"]
    changed = 0
    for number in range(count):
        text = f"changed {number}\n" * 40
        repository.commit({f"lib/m{number % 20}/f{number}.txt": text})
        changed += 4096
        machine.build("app")
    snapshots(machine, "dedupe")
    return first, snapshots(machine, "du")["total"]["stored_bytes"], changed


def test_rebuilds(machine):
    """However often it is built again, an image takes little more than the first and what changed."""
    repository = machine.repository("app")
    first, stored, changed = rebuild(machine, repository, 50 if LONG else 12)
    assert stored <= 1.2 * (first + changed), f"{stored} bytes, the first took {first}, {changed} changed"
    done = machine.hob("snapshots", "verify")
    assert done.returncode == 0, done.stdout + done.stderr


def test_dedupe_says_what_it_does(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, steps=[{"name": "kit", "run": STEP}])
    machine.build("app")
    repository.commit({"other.txt": "x"})
    machine.build("app")
    again = snapshots(machine, "dedupe")
    assert again["layers"] == 0 and again["in_use"] == 0  # hob-build had it done, as no hobd runs
    images = machine.hob("images", "ls", "--json")
    assert images.returncode == 0, images.stderr
    usage = {row["name"]: row for row in snapshots(machine, "du")["items"]}
    for row in usage.values():
        assert row["stored_bytes"] == row["shared_bytes"] + row["exclusive_bytes"]
    # The step was run twice; its large file is there once, and is nobody's alone.
    assert usage["img-2"]["exclusive_bytes"] < 2 * MIB, usage
    text = machine.hob("snapshots", "dedupe").stdout
    assert text.startswith("compared 0 layers"), text
    # What removing says and does is the same.
    done = machine.hob("images", "rm", "img-1", "--json")
    assert done.returncode == 0, done.stderr
    assert abs(json.loads(done.stdout)["freed_bytes"] - usage["img-1"]["exclusive_bytes"]) < 4096


def test_running_sandboxes_see_nothing_of_it(machine):
    """Both images are in use: nothing is replaced. The older is let go: its names change, the other's
    sandbox sees the inodes that it saw."""
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, steps=[{"name": "kit", "run": STEP}],
                        pool={"min": 1, "max": 8})
    machine.build("app")
    machine.start()
    machine.wait_ready("app", 1)
    client = machine.client
    old = client.create("app")["id"]
    repository.commit({"other.txt": "x"})
    machine.build("app")
    wait_for("the pool to move on", lambda: machine.pool("app")["image"] == "img-2" and
             machine.pool("app")["ready"] == 1 and machine.pool("app")["stale"] == 0)
    new = client.create("app")["id"]
    look = "stat -c %i:%h /opt/kit/data; sha256sum /opt/kit/data"
    before = [client.output(name, look) for name in (old, new)]
    assert snapshots(machine, "dedupe")["files"] == 0
    assert [client.output(name, look) for name in (old, new)] == before
    client.delete(old)
    wait_for("the older image to share with the newer",
             lambda: snapshots(machine, "du")["total"]["linked_bytes"] >= 3000000)
    after = client.output(new, look)
    assert after.split()[0].split(":")[0] == before[1].split()[0].split(":")[0]
    assert after.split()[1] == before[1].split()[1]
    client.delete(new)


# ---- space ----

@contextlib.contextmanager
def small_disk(mib):
    """An ext4 of its own, mounted on a folder."""
    folder = tempfile.mkdtemp(prefix="hd")
    os.chmod(folder, 0o755)
    disk, at = f"{folder}/disk", f"{folder}/at"
    os.mkdir(at)
    with open(disk, "wb") as file:
        file.truncate(mib * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, at], check=True)
    os.chmod(at, 0o755)
    try:
        yield at
    finally:
        leftovers.unmount_soon(at)
        shutil.rmtree(folder)


@pytest.fixture
def tight():
    """A hob whose store is on a disk of 200 MiB, of which 80 are to stay free."""
    with small_disk(200) as at:
        hob = hobtest.Hob(store=f"{at}/store", free_space="80MiB")
        hob.store = f"{at}/store"
        hob.disk = at
        yield hob
        print("hobd's log ends:\n" + hob.tail())
        hob.close()


def fill(machine):
    """Leaves 40 MiB."""
    fs = os.statvfs(machine.disk)
    size = fs.f_bavail * fs.f_frsize - 40 * MIB
    with open(f"{machine.disk}/ballast", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def test_watermark(tight):
    repository = tight.repository("app")
    tight.environment("app", source={"url": repository.path}, pool={"min": 3, "max": 8})
    tight.build("app")
    tight.start()
    tight.wait_ready("app", 3)
    client = tight.client
    sandbox = client.create("app")["id"]
    tight.wait_ready("app", 3)
    fill(tight)
    # Fewer are ready; those that are claimed go on as if nothing were.
    tight.wait_ready("app", 1)
    assert client.get("/v1/info")["space"]["low"]
    assert "Space is short" in tight.hob("pool").stdout
    assert client.output(sandbox, "echo still here > note; cat note") == "still here\n"
    # Whoever wants new space is told.
    with pytest.raises(Failure) as failure:
        client.post(f"/v1/sandboxes/{sandbox}/snapshots", {})
    assert failure.value.status == 507 and "free_space" in str(failure.value), failure.value
    # A build waits, and says why; by itself it is refused.
    repository.commit({"other.txt": "x"})
    assert client.post("/v1/environments/app/build")["state"] == "queued"
    waits = client.get("/v1/environments/app")["waits_for"]
    assert "free_space" in waits and "space: " in waits, waits
    refused = tight.hob_build("app")
    assert refused.returncode != 0 and "free_space" in refused.stderr, refused.stderr
    assert "space" in tight.hob("doctor", "--json").stdout
    # And then there is room again.
    os.unlink(f"{tight.disk}/ballast")
    wait_for("the build that waited", lambda: tight.pool("app")["image"] == "img-2")
    tight.wait_ready("app", 3)
    assert client.get("/v1/environments/app")["waits_for"] is None
    client.post(f"/v1/sandboxes/{sandbox}/snapshots", {})


def test_garbage_goes_when_space_is_short(tight):
    """Images that only might be wanted again go, oldest first; what somebody needs stays."""
    repository = tight.repository("app")
    step = {"name": "bulk", "run": "date +%s%N > /opt/stamp; head -c 12000000 /dev/urandom > /opt/bulk"}
    tight.environment("app", source={"url": repository.path}, steps=[step])
    tight.build("app")
    tight.start()
    kept = tight.client.create("app")["id"]
    for number in range(3):
        repository.commit({"other.txt": str(number)})
        tight.build("app")
    names = {row["id"] for row in tight.client.get("/v1/images")["images"]}
    assert names == {"img-1", "img-2", "img-3", "img-4"}
    fill(tight)
    wait_for("images to be collected", lambda: {row["id"] for row in tight.client.get("/v1/images")["images"]}
             == {"img-1", "img-4"})
    assert tight.client.output(kept, "wc -c < /opt/bulk") == "12000000\n"
    tight.client.delete(kept)
