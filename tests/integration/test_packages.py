"""Packages of apt, npm and pip in layers below the sources: exact, found again, recorded, and never half there."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile

import pytest

from hobtest import wait_for
from package_index import Server


@pytest.fixture
def server():
    with contextlib.closing(Server()) as made:
        yield made


def catalog(machine, query, *values):
    with sqlite3.connect(f"file:{machine.store}/catalog.db?mode=ro", uri=True) as db:
        return db.execute(query, values).fetchall()


def layers(machine, name="app"):
    return catalog(machine, "SELECT l.id, l.kind, l.title FROM heads h JOIN image_layers i ON i.image_id = h.image_id"
                   " JOIN layers l ON l.id = i.layer_id WHERE h.environment = ? ORDER BY i.position", name)


def manifest(machine):
    return json.loads(catalog(machine, "SELECT i.manifest FROM heads h JOIN images i ON i.id = h.image_id")[0][0])


def build(machine, *words):
    done = machine.hob_build("app", *words, timeout=300)
    text = done.stdout + done.stderr
    for sign in ("EAI_AGAIN", "ENOTFOUND registry", "Temporary failure resolving", "Could not resolve"):
        if sign in text:
            pytest.skip(f"no network here: {sign}")
    return done


def good(machine, *words):
    done = build(machine, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def output(machine, command):
    if machine.daemon is None:
        machine.start()
    image = f"img-{catalog(machine, 'SELECT image_id FROM heads')[0][0]}"
    made = machine.client.post("/v1/sandboxes", {"image": image})["id"]
    text = machine.client.output(made, command)
    machine.client.delete(made)
    return text


def test_pip(machine, server):
    server.add_wheels(("hob-tool", "1.0"), ("hob-tool", "1.1"), ("hob-part", "2.0"),
                      ("hob-whole", "3.0.post1", "hob-part"))
    repository = machine.repository("app")
    environment = {"source": {"url": repository.path}, "env": server.pip_env(),
                   "packages": {"pip": ["hob-tool==1.0", "Hob_Whole==3.0.post1"]},
                   "steps": [{"name": "use", "run": "hob-tool > used; python3 -c 'import hob_part'"}]}
    machine.environment("app", **environment)
    good(machine)
    assert output(machine, "cat used; hob-tool; command -v hob-whole; git status --porcelain") == \
        "hob-tool 1.0\nhob-tool 1.0\n/opt/hob/packages/pip/bin/hob-whole\n?? used\n"
    assert output(machine, "ls -A /opt/hob") == "packages\n"
    kinds = [kind for _, kind, _ in layers(machine)]
    assert kinds == ["base", "packages", "source", "step"]
    found = {one["name"]: one for one in manifest(machine)["packages"]}
    assert {name: one["requested"] for name, one in found.items()} == \
        {"hob-tool": True, "hob-whole": True, "hob-part": False}
    assert all(one["digest"].startswith("sha256:") and one["manager"] == "pip" for one in found.values())
    # A new commit asks the index for nothing.
    before, first = len(server.asked), layers(machine)
    repository.commit({"new": "1\n"})
    assert "as before" in good(machine)
    assert len(server.asked) == before and layers(machine)[1] == first[1]
    assert {one["name"] for one in manifest(machine)["packages"]} == set(found)
    plan = json.loads(build(machine, "--explain", "--json").stdout)["layers"]
    assert [(row["kind"], row["action"]) for row in plan][:2] == [("base", "reuse"), ("packages", "reuse")]
    # Another version does; and one that is not to be had leaves the image.
    environment["packages"]["pip"][0] = "hob-tool==1.1"
    machine.environment("app", **environment)
    good(machine)
    assert output(machine, "hob-tool") == "hob-tool 1.1\n"
    head = catalog(machine, "SELECT image_id FROM heads")
    environment["packages"]["pip"].append("hob-missing==1.0")
    machine.environment("app", **environment)
    done = build(machine)
    assert done.returncode == 1 and "packages.pip" in done.stderr and "hob-missing" in done.stderr, done.stderr
    assert catalog(machine, "SELECT image_id FROM heads") == head
    # Nor is half of what was asked for kept when the index fails in the middle.
    environment["packages"]["pip"] = ["hob-tool==1.0", "hob-part==2.0"]
    server.broken.update(path for path in server.files if "hob_part" in path)
    machine.environment("app", **environment)
    done = build(machine)
    assert done.returncode == 1 and "503" in done.stderr, done.stderr
    assert catalog(machine, "SELECT image_id FROM heads") == head
    server.broken.clear()
    good(machine)
    assert output(machine, "hob-tool; cat used") == "hob-tool 1.0\nhob-tool 1.0\n"


def candidate(name):
    """What this machine's apt would install; without its lists there is nothing to test against."""
    done = subprocess.run(["apt-cache", "policy", name], stdout=subprocess.PIPE, text=True, check=False,
                          env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"})
    for line in done.stdout.splitlines():
        if line.strip().startswith("Candidate:") and "(none)" not in line:
            return line.split()[1]
    pytest.skip(f"apt knows no {name} here: run apt-get update")
    return None


def test_npm_and_apt_over_the_host(machine):
    """From the registries that this machine is set up with."""
    version = candidate("hello")
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path},
                        packages={"apt": [f"hello={version}"], "npm": ["semver@7.5.4"]},
                        check={"run": "hello && semver 1.2.3"})
    good(machine)
    command = "hello; semver 1.2.3; command -v hello; command -v semver; cd /opt/hob; ls -A . packages"
    assert output(machine, command) == \
        ("Hello, world!\n1.2.3\n/opt/hob/packages/apt/usr/bin/hello\n"
         "/opt/hob/packages/npm/node_modules/.bin/semver\n.:\npackages\n\npackages:\napt\nnpm\n")
    assert output(machine, "ls -dR /etc/apt /var/lib/apt /var/lib/dpkg /var/cache/apt /opt/hob/work 2>/dev/null"
                  "; true") == ""
    found = {one["name"]: one for one in manifest(machine)["packages"]}
    assert found["hello"]["version"] == version and found["hello"]["requested"]
    assert found["hello"]["digest"].startswith("sha256:")
    assert found["semver"]["digest"].startswith("sha512-") and found["semver"]["requested"]
    assert not found["lru-cache"]["requested"] and found["yallist"]["manager"] == "npm"
    first = layers(machine)
    repository.commit({"new": "1\n"})
    good(machine)
    assert [one for one in layers(machine) if one[1] == "packages"] == [one for one in first if one[1] == "packages"]
    assert len([one for one in first if one[1] == "packages"]) == 2


def test_what_is_not_exact_is_refused_before_anything_runs(machine, server):
    server.add_wheels(("hob-tool", "1.0"), ("hob-tool", "1.1"), ("hob-tool", "2.0"))
    path = machine.write(f"{machine.environments}/app.yaml", "name: app # mine\nsource: {url: /nowhere}\npackages:\n"
                         "  pip: # of the index\n  - hob-tool<2   # the last of the old\n  - \"hob_tool2==1\"\n")
    env = {**server.pip_env(), "PIP_FIND_LINKS": ""}
    done = machine.hob_build("app", env=env)
    assert done.returncode == 2 and f"{path}:5:5: \"packages.pip\" names no exact version of hob-tool" in done.stderr
    assert f"now it would be hob-tool==1.1; `hob env pin {path}` writes that in" in done.stderr, done.stderr
    shown = machine.hob("env", "pin", "--dry-run", path, env=env)
    assert shown.stdout == (f"--- {path}\n+++ {path}\n@@ -5 +5 @@\n-  - hob-tool<2   # the last of the old\n"
                            "+  - hob-tool==1.1   # the last of the old\n"), shown.stdout + shown.stderr
    done = machine.hob("env", "pin", "--json", path, env=env)
    assert json.loads(done.stdout)["files"][0]["written"] is True
    with open(path, encoding="utf-8") as file:
        assert file.read() == ("name: app # mine\nsource: {url: /nowhere}\npackages:\n  pip: # of the index\n"
                               "  - hob-tool==1.1   # the last of the old\n  - \"hob_tool2==1\"\n")
    assert machine.hob("env", "pin", path, env=env).stdout == f"{path}: every version is exact\n"
    machine.write(path, "name: app\npackages: {pip: [hob-none]}\n")
    done = machine.hob("env", "pin", path, env=env)
    assert done.returncode == 3 and f"{path}:2:18: pip of this machine has no version" in done.stderr, done.stderr


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text), 0o755
            tar.addfile(member, io.BytesIO(text))
    return out.getvalue()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_files(machine, server):
    tool, packed = os.urandom(300_000), archive({"bin/run": b"#!/bin/sh\necho ran\n", "doc": b"x"})
    server.files.update({"/tool": tool, "/packed.tar.gz": packed, "/mirror": tool})
    server.cut.add("/tool")
    server.broken.add("/gone")
    repository = machine.repository("app")
    environment = {"source": {"url": repository.path}, "files": [
        {"url": f"{server.url}/tool", "sha256": sha256(tool), "path": "/opt/tool", "mode": "0755"},
        {"url": f"{server.url}/packed.tar.gz", "sha256": sha256(packed), "unpack": "/opt/packed"},
        {"url": f"{server.url}/tool", "sha256": sha256(tool), "path": "/root/deep/er/tool"}]}
    machine.environment("app", **environment)
    assert "trying again" in good(machine)
    assert server.ranges and server.ranges[0][0] == "/tool" and 0 < server.ranges[0][1] < len(tool)
    assert output(machine, "/opt/packed/bin/run; sha256sum < /opt/tool; cmp /opt/tool /root/deep/er/tool; "
                  "stat -c '%a %u' /opt/tool /root/deep/er/tool /root /root/deep /opt") == \
        f"ran\n{sha256(tool)}  -\n755 0\n644 0\n700 0\n755 0\n755 0\n"
    asked = len(server.asked)
    repository.commit({"new": "1\n"})
    good(machine)
    assert len(server.asked) == asked
    head = catalog(machine, "SELECT image_id FROM heads")
    # A wrong digest, a file that is too long, an archive that leads out: the image stays.
    other, long, wild = os.urandom(50_000), os.urandom(200_000), archive({"../../etc/evil": b"x"})
    server.files.update({"/other": other, "/long": long, "/wild": wild})
    for file, message in (
            ({"url": f"{server.url}/other", "sha256": sha256(b"else"), "path": "/opt/o"}, "has sha256"),
            ({"url": f"{server.url}/long", "sha256": sha256(long), "path": "/opt/o", "max_size": "100KiB"}, "longer"),
            ({"url": f"{server.url}/wild", "sha256": sha256(wild), "unpack": "/opt/o"}, "evil"),
            ({"url": f"{server.url}/other", "sha256": sha256(other), "path": "/opt/packed/bin"}, "")):
        machine.environment("app", **{**environment, "files": [*environment["files"], file]})
        done = build(machine)
        assert done.returncode != 0 and "app.yaml:" in done.stderr and message in done.stderr, done.stderr
        assert catalog(machine, "SELECT image_id FROM heads") == head
    # Mirrors, in their order; what comes from the wrong one is not taken.
    server.files["/wrong"] = long
    added = os.urandom(1000)
    server.files["/right"] = added
    machine.environment("app", **{**environment, "files": [
        {"url": f"{server.url}/missing", "sha256": sha256(added), "path": "/opt/m",
         "mirrors": [f"{server.url}/wrong", f"{server.url}/right"]}]})
    assert f"trying {server.url}/right" in good(machine)
    assert output(machine, "sha256sum < /opt/m; ls /opt") == f"{sha256(added)}  -\nm\n"


def test_info_and_diff(machine, server):
    server.add_wheels(("hob-tool", "1.0"), ("hob-tool", "1.1"), ("hob-part", "2.0"), ("hob-new", "0.1"))
    repository = machine.repository("app")
    step = {"name": "one", "run": "hob-tool > /made", "inputs": []}

    def make(*packages, **more):
        machine.environment("app", source={"url": repository.path}, env=server.pip_env(),
                            packages={"pip": list(packages)}, **more)
        good(machine)

    make("hob-tool==1.0", "hob-part==2.0", steps=[step])
    first = repository.commit_id()
    repository.commit({"new": "1\n"})
    make("hob-tool==1.1", "hob-new==0.1", steps=[step, {"name": "two", "run": "true"}])
    info = machine.hob("images", "info", "--packages", "img-1").stdout.splitlines()
    assert info[0].split() == ["MANAGER", "NAME", "VERSION", "ASKED", "FOR", "DIGEST"] and len(info) == 3
    known = {one["name"] for one in json.loads(machine.hob("images", "info", "--packages", "--json", "2").stdout)
             ["packages"]}
    assert known == {"hob-tool", "hob-new"}
    told = machine.hob("images", "diff", "--stat", "img-1", "app").stdout
    for line in (f"  ~ /workspace {first[:12]} -> {repository.commit_id()[:12]}", "  ~ pip hob-tool 1.0 -> 1.1",
                 "  + pip hob-new 0.1", "  - pip hob-part 2.0", "  ~ packages pip (packages)",
                 "  + step two (step)"):
        assert line in told.splitlines(), told
    assert "added" in told.splitlines()[-1]
    compared = json.loads(machine.hob("images", "diff", "--json", "img-1", "img-2").stdout)
    assert {change["path"] for change in compared["changes"]} >= {"workspace/new", "made"}
    assert [change["change"] for change in compared["packages"]] == ["changed", "removed", "added"]
    same = machine.hob("images", "diff", "img-2", "img-2").stdout
    assert same == "Tree:\n0 added (0 B), 0 changed (0 B), 0 deleted (0 B)\n"
    # The same through hobd, for those who are not root.
    machine.start()

    def others(*words):
        done = subprocess.run([machine.program("hob"), "--config", machine.config, *words], env=machine.environ(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                              user="hob", group="hob", extra_groups=[])
        assert done.returncode == 0, done.stdout
        return done.stdout
    assert others("images", "info", "--packages", "img-1").split() == " ".join(info).split()
    assert others("images", "diff", "--stat", "img-1", "app").splitlines()[:-1] == told.splitlines()[:-1]
    assert json.loads(others("images", "diff", "--json", "img-1", "img-2")) == compared
    assert "+ workspace/new" in others("images", "diff", "img-1", "img-2").splitlines()
    for path, status in (("img-1/diff", 400), ("img-1/diff?from=img-9", 404), ("img-9/packages", 404),
                         ("img-1/diff?from=--help", 404)):
        assert machine.client.raw("GET", f"/v1/images/{path}").status == status, path


@pytest.fixture
def debian(tmp_path):
    """A root file system with apt in it, from the mirror that this machine uses."""
    path = os.environ.get("HOB_TEST_DEBIAN", f"{tmp_path}/debian.tar")
    if not os.path.exists(path):
        if shutil.which("mmdebstrap") is None:
            pytest.skip("mmdebstrap is not installed")
        done = subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", "bookworm", path], check=False,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            pytest.skip(f"mmdebstrap cannot make a base here: {done.stderr[-200:]}")
    os.chmod(path, 0o644)
    return path


@pytest.mark.skipif(os.environ.get("HOB_TEST_LONG") != "1", reason="HOB_TEST_LONG=1 runs it")
def test_apt_get_over_a_base_of_its_own(machine, debian):
    """Install scripts run, and what is installed is known to the base's dpkg."""
    with open(debian, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    repository = machine.repository("app")
    environment = {"source": {"url": repository.path}, "base": {"tar": debian, "sha256": digest},
                   "packages": {"apt": [f"hello={candidate('hello')}", f"cron={candidate('cron')}"]}}
    machine.environment("app", **environment)
    good(machine)
    command = ("command -v hello; hello; dpkg-query -W -f '${db:Status-Abbrev}' cron; getent group crontab"
               " | cut -d: -f1; ls -A /opt; find /var/lib/apt/lists /var/cache/apt/archives -type f -size +0")
    assert output(machine, command) == "/usr/bin/hello\nHello, world!\nii crontab\n"
    found = {one["name"]: one for one in manifest(machine)["packages"]}
    assert found["cron"]["digest"].startswith("sha256:") and not found["cron-daemon-common"]["requested"]
    head = catalog(machine, "SELECT image_id FROM heads")
    environment["packages"]["apt"].append("hello-traditional=99")
    machine.environment("app", **environment)
    done = build(machine)
    assert done.returncode == 1 and "packages.apt" in done.stderr and "hello-traditional" in done.stderr
    assert catalog(machine, "SELECT image_id FROM heads") == head


def test_killed_in_the_middle(machine, server):
    """The image stays, and the next build takes what was finished and makes the rest."""
    server.files["/tool"] = os.urandom(1000)
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path})
    good(machine)
    head = catalog(machine, "SELECT image_id FROM heads")
    server.add_wheels(("hob-tool", "1.0"))
    machine.environment("app", source={"url": repository.path}, env=server.pip_env(),
                        packages={"pip": ["hob-tool==1.0"]},
                        files=[{"url": f"{server.url}/tool", "sha256": sha256(server.files["/tool"]), "path": "/t"}])
    for point in ("packages.installed", "download.verified", "files.placed", "build.packages"):
        done = machine.hob_build("app", env={"HOB_FAULT": f"{point}:1:kill"})
        assert done.returncode != 0, f"{point} was not passed"
        assert catalog(machine, "SELECT image_id FROM heads") == head
    asked = len(server.asked)
    assert good(machine).count("as before") >= 3
    assert len(server.asked) == asked
    assert output(machine, "hob-tool; sha256sum < /t") == f"hob-tool 1.0\n{sha256(server.files['/tool'])}  -\n"
    wait_for("an empty staging folder", lambda: not os.listdir(f"{machine.store}/staging"))
