"""Packages of apt, npm and pip in layers below the sources: exact, found again, recorded, and never half there."""

import contextlib
import json
import sqlite3
import subprocess

import pytest

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
    assert output(machine, "hob-tool") == "hob-tool 1.1\n"


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
