"""hob-build killed at every step that must survive: the last image stays in use, the next build works,
and nothing of the dead one is left."""

import hashlib
import os
import random
import signal
import sqlite3
import tarfile
import time

import pytest

import leftovers
from git_servers import git_http
from history import History
from hobtest import LONG, only_long, wait_for

STEPS = [{"name": "first", "run": "echo 1 > first; mkdir -m 700 hidden; echo x > hidden/file"},
         {"name": "second", "run": "echo 2 > second"}]


@pytest.fixture
def crashing(machine):
    """An environment whose build passes every stage (a fetch over http, an archive as the base, steps,
    a check) and whose source and archive change each time, so that no stage is skipped."""
    repository = machine.repository("app")
    numbers = iter(range(1 << 20))

    def change():
        number = next(numbers)
        repository.commit({"number": f"{number}\n"})
        os.makedirs(f"{machine.folder}/root/etc", exist_ok=True)
        with open(f"{machine.folder}/root/etc/number", "w", encoding="utf-8") as file:
            file.write(f"{number}\n")
        path = f"{machine.folder}/base.tar"
        with tarfile.open(path, "w") as tar:
            for folder in ("bin", "lib", "lib64", "etc"):
                tar.add(f"/{folder}" if folder != "etc" else f"{machine.folder}/root/etc", folder,
                        recursive=folder == "etc")
            for program in PROGRAMS:
                tar.add(os.path.realpath(program), program.lstrip("/"), recursive=False)
        with open(path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        machine.environment("app", source={"url": machine.url}, base={"tar": path, "sha256": digest},
                            steps=STEPS, check={"run": "cat first second"})
        return number
    machine.change = change
    with git_http(os.path.dirname(repository.path)) as port:
        machine.url = f"http://127.0.0.1:{port}/app"
        change()
        machine.build("app")
        yield machine


def shell_and_libraries():
    """/bin/sh, cat and mkdir with what they load, by their names in a merged or split layout."""
    found = set()
    for program in ("/usr/bin/sh", "/usr/bin/cat", "/usr/bin/mkdir"):
        found.add(program)
        for line in os.popen(f"ldd {os.path.realpath(program)}").read().split():
            if line.startswith("/"):
                found.add("/usr" + line if os.path.exists("/usr" + line) else line)
    return sorted(found)


PROGRAMS = shell_and_libraries()


def head(machine):
    return os.readlink(f"{machine.store}/heads/app")


def assert_tidy(machine):
    """After a build that went well: no staging folder, and layers/ is what the catalog says."""
    assert not os.listdir(f"{machine.store}/staging")
    with sqlite3.connect(f"file:{machine.store}/catalog.db?mode=ro", uri=True) as catalog:
        layers = {str(row[0]) for row in catalog.execute("SELECT id FROM layers")}
        states = {row[0] for row in catalog.execute("SELECT state FROM builds")}
    assert set(os.listdir(f"{machine.store}/layers")) == layers
    assert "running" not in states


def points_of_a_build(machine):
    path = f"{machine.folder}/points"
    with open(path, "w", encoding="utf-8"):
        os.chmod(path, 0o666)
    machine.change()
    done = machine.hob_build("app", env={"HOB_FAULT_LIST": path})
    assert done.returncode == 0, done.stderr
    with open(path, encoding="utf-8") as file:
        return sorted(set(file.read().split()))


def test_killed_at_every_point(crashing):
    points = points_of_a_build(crashing)
    assert {"build.begun", "git.fetched", "download.verified", "base.written", "checkout.written",
            "step.running", "build.step_sealed", "build.checked", "image.before_commit"} <= set(points)
    for point in points:
        before, number = head(crashing), crashing.change()
        done = crashing.hob_build("app", env={"HOB_FAULT": point})
        if done.returncode == 0:  # after the commit point, or in a helper that is asked again
            assert head(crashing) != before, point
        else:
            assert os.path.exists(f"{crashing.store}/layers"), point
        retry = crashing.hob_build("app")
        assert retry.returncode == 0, f"after {point}: {retry.stdout}{retry.stderr}"
        assert_tidy(crashing)
        crashing.start()
        made = crashing.client.create("app")["id"]
        assert crashing.client.output(made, "cat /etc/number number first second") == f"{number}\n{number}\n1\n2\n"
        crashing.client.delete(made)
        crashing.kill(signal.SIGTERM)


@only_long
def test_a_failing_disk_at_every_point(crashing):
    for point in points_of_a_build(crashing):
        before = head(crashing)
        crashing.change()
        done = crashing.hob_build("app", env={"HOB_FAULT": f"{point}:1:ENOSPC"})
        assert done.returncode == 0 or head(crashing) == before or "image." in point, point
        retry = crashing.hob_build("app")
        assert retry.returncode == 0, f"after {point}: {retry.stdout}{retry.stderr}"
        assert_tidy(crashing)


def test_killed_at_any_moment(crashing):
    dice = random.Random(7)
    for _ in range(12 if LONG else 5):
        crashing.change()
        child = crashing.hob_build_start("app")
        time.sleep(dice.random() * 0.25)
        child.kill()
        child.wait()
    wait_for("the sandboxes of killed builds to end", lambda: not crashing.inside_pids())
    crashing.build("app")
    assert_tidy(crashing)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cancelled(machine, number):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path},
                        steps=[{"name": "long", "run": "echo begun; sleep 1000"}])
    child = machine.hob_build_start("app")
    wait_for("the step to run", lambda: "begun" in child.stdout.readline())
    child.send_signal(number)
    assert child.wait(120) == 14
    assert "cancelled" in child.stdout.read()
    assert_tidy(machine)
    wait_for("the sandbox to end", lambda: not machine.inside_pids())


def test_launcher_killed(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path},
                        steps=[{"name": "long", "run": "echo begun; sleep 1000"}])
    child = machine.hob_build_start("app")
    wait_for("the step to run", lambda: "begun" in child.stdout.readline())
    with open(f"/proc/{child.pid}/task/{child.pid}/children", encoding="utf-8") as file:
        launchers = [int(word) for word in file.read().split()
                     if leftovers.read_text(f"/proc/{word}/comm").strip() == "hob-launcher"]
    assert launchers
    for pid in launchers:
        os.kill(pid, signal.SIGKILL)
    assert child.wait(120) == 9
    assert "launcher" in child.stdout.read()
    wait_for("the sandbox to end", lambda: not machine.inside_pids())
    machine.environment("app", source={"url": repository.path})
    machine.build("app")
    assert_tidy(machine)


def newest_of(machine):
    """The newest published build, and the head as the catalog has it."""
    with sqlite3.connect(f"file:{machine.store}/catalog.db?mode=ro", uri=True) as catalog:
        return catalog.execute("SELECT max(id), (SELECT image_id FROM heads) FROM builds"
                               " WHERE state = 'published'").fetchone()


REUSING = [{"name": "kept", "run": "cat lock > kept", "inputs": ["lock"]},
           {"name": "grown", "run": "cat number >> /grown", "inputs": ["number"], "incremental": True},
           {"name": "narrow", "run": "cat number > narrow; ls > seen", "inputs": ["number"], "strict": True}]


def test_killed_at_every_point_of_a_rebuild(machine):
    """A delta, a reused step, one that goes on from its result, and one that sees its inputs only."""
    repository = machine.repository("app")
    History(repository, 1, 60)
    repository.commit({"lock": "1\n", "number": "0\n"})
    machine.environment("app", source={"url": repository.path}, steps=REUSING)
    machine.build("app")
    number, path = 0, f"{machine.folder}/points"
    with open(path, "w", encoding="utf-8"):
        os.chmod(path, 0o666)
    repository.commit({"number": "1\n"})
    assert machine.hob_build("app", env={"HOB_FAULT_LIST": path}).returncode == 0
    with open(path, encoding="utf-8") as file:
        points = sorted(set(file.read().split()))
    assert {"delta.written", "layer.kept", "build.step_sealed", "image.before_commit"} <= set(points)
    for number, point in enumerate(points, 2):
        build, image = newest_of(machine)
        repository.commit({"number": f"{number}\n"})
        machine.hob_build("app", env={"HOB_FAULT": point})
        build_now, image_now = newest_of(machine)
        assert (build_now != build) == (image_now != image), point
        retry = machine.hob_build("app")
        assert retry.returncode == 0, f"after {point}: {retry.stdout}{retry.stderr}"
        assert_tidy(machine)
    machine.start()
    made = machine.client.create("app")["id"]
    assert machine.client.output(made, "cat number kept narrow; tail -n 1 /grown; cat seen; git status --porcelain") \
        == f"{number}\n1\n{number}\n{number}\nkept\nnarrow\nnumber\nseen\n?? kept\n?? narrow\n?? seen\n"
    machine.client.delete(made)
