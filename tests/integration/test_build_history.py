"""Builds of one commit after the other: what a delta shows is what a clean checkout would be, whatever
happened between the commits."""

import os
import sqlite3
import subprocess

from history import History, assert_image
from hobtest import LONG, ROOT, Repository, git


def head_layers(machine, name="app"):
    """(id, kind, files, stored) of the head's layers, the lowest first."""
    with sqlite3.connect(f"file:{machine.store}/catalog.db?mode=ro", uri=True) as catalog:
        return catalog.execute(
            "SELECT l.id, l.kind, l.files, l.stored FROM heads h JOIN image_layers i ON i.image_id = h.image_id"
            " JOIN layers l ON l.id = i.layer_id WHERE h.environment = ? ORDER BY i.position", (name,)).fetchall()


def check(machine, repository, path="/workspace", name="app"):
    layers = head_layers(machine, name)
    return layers, assert_image(machine.store, [layer[0] for layer in layers], path, repository,
                                git(repository, "rev-parse", "HEAD"), f"{machine.folder}/scratch")


def test_a_history_of_everything(machine):
    repository = machine.repository("app")
    history = History(repository, 11)
    machine.environment("app", source={"url": repository.path})
    machine.build("app")
    kinds = []
    for _ in range(200 if LONG else 12):
        history.change()
        machine.build("app")
        layers, result = check(machine, repository.path)
        kinds.append(tuple(layer[1] for layer in layers))
        assert result["read"] == [], "git status read files that did not change"
    assert kinds.count(("base", "source", "delta")) > len(kinds) // 2
    assert ("base", "source") in kinds, "no new full checkout was ever made"


def test_this_repository(machine):
    """hob's own history, as far as it is here, each time from the commit before."""
    path = f"{machine.folder}/own"
    os.mkdir(path)
    subprocess.run(["git", "clone", "-q", "--bare", "-c", "safe.directory=*", ROOT, path], check=True,
                   env={**os.environ, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
                        "GIT_CONFIG_VALUE_0": "*"})
    branch = git(path, "symbolic-ref", "HEAD")
    commits = git(path, "log", "--first-parent", "--reverse", "--format=%H", "HEAD").split()
    for commit in commits[-(200 if LONG else 4):]:
        git(path, "update-ref", branch, commit)
        if not os.path.exists(f"{machine.environments}/app.yaml"):
            machine.environment("app", source={"url": path})
        machine.build("app")
        check(machine, path)


def test_several_repositories(machine):
    one, two = Repository(f"{machine.folder}/one"), Repository(f"{machine.folder}/two")
    first, second = History(one, 1, 60), History(two, 2, 60)
    machine.environment("app", source=[{"url": one.path, "path": "/workspace"},
                                       {"url": two.path, "path": "/srv/two"}])
    machine.build("app")
    for turn in range(6):
        (first if turn % 2 == 0 else second).change()
        machine.build("app")
        layers, _ = check(machine, one.path)
        assert_image(machine.store, [layer[0] for layer in layers], "/srv/two", two.path,
                     two.commit_id(), f"{machine.folder}/scratch")


def test_a_rewritten_history(machine):
    """The branch goes back and another way: objects come along, nothing of the old way shows."""
    repository = machine.repository("app")
    history = History(repository, 3)
    machine.environment("app", source={"url": repository.path})
    machine.build("app")
    start = repository.commit_id()
    history.modify()
    history.commit("One way")
    machine.build("app")
    git(repository.path, "reset", "-q", "--hard", start)
    machine.build("app")
    assert [layer[1] for layer in check(machine, repository.path)[0]] == ["base", "source"]
    history.add()
    history.commit("Another way")
    machine.build("app")
    assert [layer[1] for layer in check(machine, repository.path)[0]] == ["base", "source", "delta"]


def test_unchanged_files_keep_their_times(machine):
    repository = machine.repository("app")
    history = History(repository, 5)
    machine.environment("app", source={"url": repository.path})
    machine.build("app")

    def times():
        found = {}
        for number, _, _, _ in head_layers(machine):
            top = f"{machine.store}/layers/{number}/tree/workspace"
            for folder, _, names in os.walk(top):
                if ".git" not in folder:
                    found.update({os.path.relpath(f"{folder}/{name}", top): os.lstat(f"{folder}/{name}").st_mtime
                                  for name in names})
        return found
    before = times()
    history.write("base/0/0/file0", "first\n")
    history.commit("One file")
    machine.build("app")
    one = times()
    assert {name for name in one if one[name] != before.get(name)} == {"base/0/0/file0"}
    assert one["base/0/0/file0"] > before["base/0/0/file0"]
    for number in range(100):
        history.write(f"base/{number % 7}/{number % 5}/file{number}", "all changed\n")
    history.commit("Many files")
    machine.build("app")
    after = times()
    assert [layer[1] for layer in head_layers(machine)] == ["base", "source"]
    assert all(after[name] == one[name] for name in one if int(name.split("file")[-1] if "file" in name else 0) > 100)


def test_an_image_is_whole_without_its_mirror(machine):
    repository = machine.repository("app")
    history = History(repository, 7)
    machine.environment("app", source={"url": repository.path})
    machine.build("app")
    history.modify()
    history.commit("A change")
    machine.build("app")
    subprocess.run(["rm", "-rf", f"{machine.store}/mirrors"], check=True)
    assert check(machine, repository.path)[1]["fsck"] == ""


def test_mirrors_of_removed_environments_go(machine):
    for name in ("one", "two"):
        machine.environment(name, source={"url": machine.repository(name).path})
    assert machine.hob_build("--all").returncode == 0
    mirrors = f"{machine.store}/mirrors"
    names = {name for name in os.listdir(mirrors) if name.endswith(".git")}
    stale = "ab" * 32
    with open(f"{machine.store}/downloads/{stale}", "wb"):
        pass
    os.unlink(f"{machine.environments}/two.yaml")
    assert machine.hob_build("--all").returncode == 0
    assert len(names) == 2 and names < set(os.listdir(mirrors)), "it was taken before a day had passed"
    for path in [f"{mirrors}/{name}" for name in names] + [f"{machine.store}/downloads/{stale}"]:
        os.utime(path, (1, 1))
    machine.write(f"{machine.environments}/bad.yaml", "nam: x\n")
    machine.hob_build("--all")
    assert names <= set(os.listdir(mirrors)), "collected although an environment could not be read"
    os.unlink(f"{machine.environments}/bad.yaml")
    assert machine.hob_build("--all").returncode == 0
    assert len(names & set(os.listdir(mirrors))) == 1 and os.listdir(f"{machine.store}/downloads") == []
    machine.build("one")
