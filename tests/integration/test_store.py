"""`hob store`: a store with an XFS of its own, made, filled, grown, unmounted, and with a full disk below."""

import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess

import pytest

import leftovers
from history import assert_image
from hobtest import BUILD, Hob, wait_for

SIZE = 640 << 20


def store_verb(path, *words, shell_first=None):
    """`hob store WORDS` on a store; with `shell_first` in a mount namespace prepared by these commands."""
    argv = [os.path.join(BUILD, "hob-snapshots"), "store", *words, "--store", path]
    if shell_first:
        argv = ["unshare", "-m", "sh", "-c", shell_first + ' && exec "$@"', "sh", *argv]
    return subprocess.run(argv, text=True, capture_output=True, check=False, timeout=180)


def info(path):
    done = store_verb(path, "info", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def loops(file):
    done = subprocess.run(["losetup", "-j", file], text=True, capture_output=True, check=True)
    return done.stdout.splitlines()


def wait_no_loops(file):
    wait_for("the loop device to go", lambda: not loops(file))


@pytest.fixture
def hob():
    made = Hob()
    yield made
    if made.daemon is not None and made.daemon.poll() is None:
        assert made.kill(signal.SIGINT) == 0
    leftovers.unmount_soon(made.store)
    made.close()
    wait_no_loops(made.store + ".xfs")


@pytest.fixture
def place(tmp_path):
    path = str(tmp_path / "store")
    yield path
    leftovers.unmount_soon(path)
    wait_no_loops(path + ".xfs")


def shared_bytes(path):
    """Of the file's blocks those that others have too, as FIEMAP says."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        head = struct.pack("=QQLLLL", 0, 0xffffffffffffffff, 0, 0, 200, 0)
        reply = bytearray(head + bytes(200 * 56))
        fcntl.ioctl(file, 0xc020660b, reply)
    count = struct.unpack_from("=L", reply, 20)[0]
    extents = [struct.unpack_from("=QQQQQLLLL", reply, 32 + 56 * number) for number in range(count)]
    return sum(extent[2] for extent in extents if extent[5] & 0x2000)


def test_indexes_of_deltas_share_blocks(hob):
    """The index of a commit that changes one file is, but for some blocks, that of the full checkout."""
    assert store_verb(hob.store, "create", "--xfs", "640MiB").returncode == 0
    repository = hob.repository("app")
    repository.commit({f"folder/{number}.txt": f"{number}\n" for number in range(2000)})
    hob.environment("app", source={"url": repository.path})
    hob.build("app")
    repository.commit({"folder/1000.txt": "1001\n"})
    hob.build("app")
    index = f"{hob.store}/layers/3/tree/workspace/.git/index"
    assert os.path.exists(index) and os.path.getsize(index) > 100000
    assert shared_bytes(index) >= os.path.getsize(index) - 4 * 4096
    repository.commit({"folder/new.txt": "new\n"})
    hob.build("app")
    assert shared_bytes(f"{hob.store}/layers/4/tree/workspace/.git/index") > 0
    layers = [row["id"] for row in json.loads(hob.hob("images", "info", "app", "--json").stdout)["layers"]]
    assert_image(hob.store, sorted(layers), "/workspace", repository.path, repository.commit_id(),
                 f"{hob.folder}/scratch")


def test_made_mounted_grown_and_used(hob):
    made = store_verb(hob.store, "create", "--xfs", "640MiB")
    assert made.returncode == 0, made.stderr
    first = info(hob.store)
    assert first["kind"] == "xfs file" and first["shares_blocks"] and first["file"]["mounted"]
    assert first["file"]["bytes"] == SIZE
    assert first["file"]["stored_bytes"] < SIZE / 4
    hob.environment("tiny", source={"url": hob.repository("tiny").path}, pool={"min": 1, "max": 4})
    assert store_verb(hob.store, "unmount").returncode == 0
    wait_no_loops(hob.store + ".xfs")
    hob.build("tiny")                                   # hob-build mounts it
    assert info(hob.store)["file"]["mounted"]
    assert len(loops(hob.store + ".xfs")) == 1
    hob.start()
    sandbox = hob.client.create("tiny")["id"]
    done = hob.client.exec(sandbox, "head -c 50000000 /dev/urandom > /big; sync")
    assert done["exit_code"] == 0
    busy = store_verb(hob.store, "unmount")
    assert busy.returncode != 0 and "SIGINT" in busy.stderr
    grown = hob.hob("store", "grow", "900MiB")          # while hobd runs
    assert grown.returncode == 0, grown.stderr
    after = info(hob.store)
    assert after["total_bytes"] > first["total_bytes"] + (200 << 20)
    smaller = store_verb(hob.store, "grow", "600MiB")
    assert smaller.returncode == 2 and "cannot shrink" in smaller.stderr
    again = store_verb(hob.store, "create", "--xfs", "640MiB")
    assert again.returncode != 0 and "is there already" in again.stderr
    # What is deleted goes back to the host.
    stored = os.stat(hob.store + ".xfs").st_blocks * 512
    assert stored > 50000000
    hob.client.delete(sandbox)
    def shrunk():
        subprocess.run(["sync", "-f", hob.store], check=True)
        return os.stat(hob.store + ".xfs").st_blocks * 512 < stored - 40000000
    wait_for("deleted blocks to go back", shrunk)


def test_another_mount_namespace_gets_the_same_file_system(place):
    assert store_verb(place, "create", "--xfs", "640MiB").returncode == 0
    with open(place + "/mark", "w", encoding="utf-8") as file:
        file.write("here")
    inside = store_verb(place, "mount", shell_first=f"umount {place} && test ! -e {place}/mark")
    assert inside.returncode == 0, inside.stderr
    assert len(loops(place + ".xfs")) == 1


def test_many_starts_at_once_mount_it_once(place):
    assert store_verb(place, "create", "--xfs", "640MiB").returncode == 0
    assert store_verb(place, "unmount").returncode == 0
    argv = [os.path.join(BUILD, "hob-snapshots"), "store", "mount", "--store", place]
    children = [subprocess.Popen(argv, stdout=subprocess.DEVNULL) for _ in range(8)]
    assert [child.wait(120) for child in children] == [0] * 8
    with open("/proc/self/mounts", encoding="utf-8") as file:
        assert sum(line.split()[1] == place for line in file) == 1
    assert len(loops(place + ".xfs")) == 1


def test_a_store_that_is_there_is_copied_only_when_asked(hob):
    hob.environment("tiny", source={"url": hob.repository("tiny").path}, pool={"min": 1, "max": 4})
    hob.build("tiny")
    hob.start()
    sandbox = hob.client.create("tiny")["id"]
    assert hob.client.exec(sandbox, "ln /etc/hostname /l 2>/dev/null; echo kept > /mark")["exit_code"] == 0
    snapshot = hob.client.post(f"/v1/sandboxes/{sandbox}/snapshots", {})["id"]
    unasked = store_verb(hob.store, "create", "--xfs", "640MiB")
    assert unasked.returncode != 0 and "--copy" in unasked.stderr
    used = store_verb(hob.store, "create", "--xfs", "640MiB", "--copy")
    assert used.returncode != 0 and "uses the store" in used.stderr
    assert not os.path.exists(hob.store + ".xfs") and not os.path.exists(hob.store + ".xfs.new")
    hob.kill(signal.SIGINT)
    copied = store_verb(hob.store, "create", "--xfs", "640MiB", "--copy")
    assert copied.returncode == 0, copied.stderr
    assert os.path.exists(hob.store + ".old/catalog.db")
    hob.start()
    restored = hob.client.post("/v1/sandboxes", {"snapshot": snapshot})["id"]
    assert hob.client.exec(restored, "cat /mark")["stdout"] == "kept\n"
    verified = hob.hob("snapshots", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("point", ["volume.copied", "volume.filled", "volume.renamed", "volume.moved"])
def test_killed_while_it_is_made(hob, point):
    hob.environment("tiny", source={"url": hob.repository("tiny").path}, pool={"min": 1, "max": 4})
    hob.build("tiny")
    argv = [os.path.join(BUILD, "hob-snapshots"), "store", "create", "--xfs", "640MiB", "--copy", "--store",
            hob.store]
    subprocess.run(argv, env={**os.environ, "HOB_FAULT": point}, capture_output=True, check=False, timeout=180)
    new = point in ("volume.renamed", "volume.moved")
    hob.start()
    hob.wait_ready("tiny", 1)
    assert info(hob.store)["kind"] == ("xfs file" if new else "folder")
    assert hob.hob("snapshots", "images", "ls").stdout.count("img-") == 1
    shutil.rmtree(hob.store + ".old", ignore_errors=True)


def test_a_missing_program_is_named_with_its_package(place):
    done = store_verb(place, "create", "--xfs", "640MiB",
                      shell_first="mount --bind /dev/null $(command -v mkfs.xfs || echo /usr/sbin/mkfs.xfs)")
    assert done.returncode != 0 and "mkfs.xfs" in done.stderr and "xfsprogs" in done.stderr
    assert not os.path.exists(place + ".xfs.new")


def test_a_full_disk_below(tmp_path):
    """The file is sparse and its disk, a small tmpfs, fills up: an error that says so, and after room
    was made and it was mounted again, what was there before is there."""
    disk = str(tmp_path / "disk")
    os.mkdir(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "disk", disk], check=True)
    store = disk + "/store"
    try:
        assert store_verb(store, "create", "--xfs", "640MiB", "--force").returncode == 0
        with open(store + "/first", "wb") as file:
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())
        told = info(store)
        assert told["writable_bytes"] < told["free_bytes"]
        with pytest.raises(OSError):
            with open(store + "/large", "wb") as file:
                for _ in range(300):
                    file.write(os.urandom(1 << 20))
                os.fsync(file.fileno())
        assert info(store)["file"]["host_free_bytes"] < 32 << 20
        leftovers.unmount_soon(store)
        subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
        assert store_verb(store, "mount").returncode == 0
        assert os.stat(store + "/first").st_size == 1 << 20
        os.unlink(store + "/large")
    finally:
        leftovers.unmount_soon(store)
        leftovers.unmount_soon(disk)


def test_preallocated_room_is_taken_and_kept(place):
    done = store_verb(place, "create", "--xfs", "512MiB", "--preallocate")
    assert done.returncode == 0, done.stderr
    told = info(place)["file"]
    assert told["preallocated"] and told["stored_bytes"] >= told["bytes"]
    with open(place + "/large", "wb") as file:
        file.write(b"x" * (20 << 20))
        os.fsync(file.fileno())
    os.unlink(place + "/large")
    subprocess.run(["sync", "-f", place], check=True)
    assert info(place)["file"]["stored_bytes"] >= told["bytes"]
