"""The examples of the README and hob's own repository: real projects, built as they stand there. The
repositories come from the package registries (tests/lib/make_repos.py), once."""

import fcntl
import os
import re
import subprocess

import pytest

from hobtest import ROOT, git, only_long, wait_for

REPOS = os.path.join(ROOT, "build", "repos")
EXAMPLES = os.path.join(ROOT, "contrib", "examples")


def repository(name):
    """The path of a real project's repository; without the network the test cannot be run."""
    os.makedirs(REPOS, exist_ok=True)
    with open(f"{REPOS}/.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["/usr/bin/python3", f"{ROOT}/tests/lib/make_repos.py", "--out", REPOS, name],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                              timeout=300)
    path = f"{REPOS}/{name}"
    if done.returncode != 0 or not os.path.isdir(f"{path}/.git"):
        pytest.skip(f"cannot fetch {name} from its registry: {done.stderr.strip()[-200:]}")
    return path


def use_example(machine, name, project=None):
    with open(f"{EXAMPLES}/{name}.yaml", encoding="utf-8") as file:
        text = re.sub(r"url: .*", f"url: {repository(project or name)}", file.read())
    machine.write(f"{machine.environments}/{name}.yaml", text)
    done = machine.hob_build(name, timeout=300)
    text = done.stdout + done.stderr
    if "npm error" in text and re.search(r"EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ETIMEDOUT", text):
        pytest.skip("npm cannot reach its registry from here")
    if "apt" in text and re.search(r"Temporary failure resolving|Could not connect", text):
        pytest.skip("apt cannot reach its registry from here")
    assert done.returncode == 0, text
    machine.start()
    wait_for("a warm sandbox", lambda: machine.pool(name)["ready"] >= 1)
    made = machine.client.create(name)
    assert made["source"] == "warm"
    return made["id"]


def test_c_project(machine):
    sandbox = use_example(machine, "hello")
    assert machine.client.output(sandbox, ["./hello"]) == "Hello, world!\n"
    machine.client.output(sandbox, "touch src/hello.c && make -s man_MANS= 2>/dev/null")
    assert machine.client.output(sandbox, "git status --porcelain --untracked-files=no") == ""


def test_project_with_packages(machine):
    sandbox = use_example(machine, "tools", "toml")
    assert machine.client.output(sandbox, "semver 1.2.3; command -v tree") == \
        "1.2.3\n/opt/hob/packages/apt/usr/bin/tree\n"


def test_python_project(machine):
    sandbox = use_example(machine, "toml")
    assert machine.client.output(sandbox, ["python", "-c", "import toml; print(toml.__file__)"]) == \
        "/workspace/toml/__init__.py\n"
    assert "venv" in machine.client.output(sandbox, ["python", "-c", "import sys; print(sys.prefix)"])


def test_node_project(machine):
    sandbox = use_example(machine, "is-odd")
    assert machine.client.output(sandbox, ["node", "-p", "require('.')(7)"]) == "true\n"


def test_node_server(machine):
    sandbox = use_example(machine, "odd-server", "is-odd")
    fetch = "fetch('http://127.0.0.1:3000/9').then(r => r.text()).then(console.log)"
    assert machine.client.output(sandbox, ["node", "-e", fetch]) == "true\n"
    assert machine.hob("logs", sandbox, "api").stdout.endswith("/9\n")


def test_successive_releases(machine):
    """Each release is an image of its own; what a claim gets is always the newest."""
    path = f"{machine.folder}/releases.git"
    git("/", "clone", "-q", "--bare", repository("is-odd"), path)
    commits = git(path, "rev-list", "--reverse", "main").split()
    machine.environment("odd", source={"url": path, "ref": "main"}, pool={"min": 1, "max": 3})
    machine.start()
    for commit in commits:
        git(path, "update-ref", "refs/heads/main", commit)
        machine.build("odd")
        wait_for("the pool to follow", lambda commit=commit: machine.pool("odd")["commit"] == commit and
                 machine.pool("odd")["ready"] == 1 and machine.pool("odd")["stale"] == 0)
        made = machine.client.create("odd")
        assert (made["source"], made["commit"]) == ("warm", commit)
        inside = machine.client.output(made["id"], "git rev-parse HEAD; git status --porcelain")
        assert inside == commit + "\n"
        machine.client.delete(made["id"])
    states = [b["state"] for b in machine.client.get("/v1/builds?environment=odd&limit=50")["builds"]]
    assert states == ["published"] * len(commits)


@only_long
def test_hob_builds_itself(machine):
    """The demo of `make run`: this repository on this machine's /usr, compiled in a build sandbox."""
    with open(f"{ROOT}/configs/environments/hob.yaml", encoding="utf-8") as file:
        text = file.read().replace("url: ../..", f"url: {ROOT}").replace("unit-programs", "all")
    machine.write(f"{machine.environments}/hob.yaml", text)
    done = machine.hob_build("hob", timeout=580)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    again = machine.hob_build("hob")
    assert again.returncode == 0 and "unchanged" in again.stdout + again.stderr
    machine.start()
    machine.wait_ready("hob", 2)
    made = machine.client.create("hob")["id"]
    assert machine.client.output(made, "build/release/hobd --version").startswith("hobd ")
    assert machine.client.output(made, "make -s all && echo up to date") == "up to date\n"
