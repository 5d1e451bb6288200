"""Repositories made to harm: their build fails with a reason, the head stays, nothing is written where it
should not be, and the next good commit is built."""

import hashlib
import os
import sqlite3
import subprocess
import zlib

import pytest

from history import History
from hobtest import git


def raw_object(repository, kind, data):
    """Writes an object whatever it holds, and returns its id."""
    whole = f"{kind} {len(data)}".encode() + b"\0" + data
    return write_loose(repository, hashlib.sha1(whole).hexdigest(), whole)


def write_loose(repository, name, whole):
    path = f"{repository.path}/.git/objects/{name[:2]}/{name[2:]}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.exists(path):
        with open(path, "wb") as file:
            file.write(zlib.compress(whole))
    return name


def tree(repository, *entries):
    return raw_object(repository, "tree", b"".join(
        f"{mode} ".encode() + name + b"\0" + bytes.fromhex(item) for mode, name, item in entries))


def blob(repository, data):
    return raw_object(repository, "blob", data)


def entries_of(repository, name="HEAD"):
    done = subprocess.run(["git", "-C", repository.path, "ls-tree", "-z", name], check=True, stdout=subprocess.PIPE)
    for line in done.stdout.split(b"\0"):
        if line:
            about, path = line.split(b"\t", 1)
            mode, _, item = about.decode().split()
            yield mode.lstrip("0"), path, item


def point_at(repository, root):
    commit = git(repository.path, "commit-tree", root, "-p", "HEAD", "-m", "A trap")
    git(repository.path, "update-ref", "refs/heads/main", commit)


def add_below(repository, *entries):
    """A commit with these entries beside those there are."""
    point_at(repository, tree(repository, *entries_of(repository), *entries))


NAMES = (b"..", b".", b".git", b".GIT", b"git~1", b".git::x", b".git. .", b"../escape", b"")


@pytest.fixture
def app(machine):
    repository = machine.repository("app")
    History(repository, 1, 60)
    machine.environment("app", source={"url": repository.path}, steps=[{"name": "s", "run": "true", "inputs": ["x"]}])
    machine.build("app")
    machine.repo = repository
    return machine


def assert_fails(machine, words):
    """Over the image before, and as the first of an environment; then the commit is taken back."""
    repository, good = machine.repo, git(machine.repo.path, "rev-parse", "HEAD~1")
    machine.environment("other", source={"url": repository.path}, steps=[{"name": "s", "run": "true"}])
    before = os.readlink(f"{machine.store}/heads/app")
    for name in ("app", "other"):
        done = machine.hob_build(name)
        assert done.returncode not in (0, 14), done.stdout
        assert any(word in done.stderr for word in words), done.stderr
    assert os.readlink(f"{machine.store}/heads/app") == before
    assert not os.path.lexists(f"{machine.store}/heads/other")
    assert machine.hob_build("--explain", "app", timeout=180).stderr is not None
    git(repository.path, "update-ref", "refs/heads/main", good)


def assert_refused(machine, words):
    assert_fails(machine, words)
    assert_builds(machine)


def assert_builds(machine):
    """The next good commit is built."""
    git(machine.repo.path, "reset", "-q", "--hard")
    machine.repo.commit({"good.txt": "again\n"})
    for name in ("app", "other"):
        machine.build(name)
    assert not os.listdir(f"{machine.store}/staging")


def test_names(app):
    evil = blob(app.repo, b"evil\n")
    below = tree(app.repo, ("100644", b"config", evil))
    for name in NAMES:
        add_below(app.repo, ("40000" if name else "100644", name, below if name else evil))
        assert_fails(app, ("path", "refuses", "invalid", "tree", "entry"))
    assert_builds(app)


def test_a_name_that_only_another_system_takes_for_git(app):
    add_below(app.repo, ("40000", b".g\xe2\x80\x8cit", tree(app.repo, ("100644", b"x", blob(app.repo, b"x")))))
    app.build("app")


def test_a_link_and_a_folder_of_one_name(app):
    """A file below the link's name would be written through the link."""
    target = f"{app.folder}/outside"
    os.mkdir(target)
    os.chmod(target, 0o777)
    link = blob(app.repo, target.encode())
    below = tree(app.repo, ("100644", b"evil", blob(app.repo, b"evil\n")))
    add_below(app.repo, ("120000", b"zz", link), ("40000", b"zz", below))
    app.hob_build("app")
    app.environment("other", source={"url": app.repo.path})
    app.hob_build("other")
    assert os.listdir(target) == []


def test_a_tree_that_holds_itself_many_times(app):
    item = blob(app.repo, b"x\n")
    node = tree(app.repo, *[("100644", b"f%d" % i, item) for i in range(10)])
    for _ in range(9):
        node = tree(app.repo, *[("40000", b"d%d" % i, node) for i in range(10)])
    add_below(app.repo, ("40000", b"zz", node))
    assert_refused(app, ("more than 4000000",))


def test_an_object_that_says_it_is_huge(app):
    data = b"small"
    whole = f"blob {1 << 40}".encode() + b"\0" + data
    name = hashlib.sha1(whole).hexdigest()
    write_loose(app.repo, name, whole)
    add_below(app.repo, ("100644", b"zz", name))
    assert_refused(app, ("",))


def test_a_commit_without_its_tree(app):
    commit = raw_object(app.repo, "commit", b"tree " + b"12" * 20 + b"\nparent " +
                        app.repo.commit_id().encode() + b"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n")
    git(app.repo.path, "update-ref", "refs/heads/main", commit)
    assert_refused(app, ("",))


def test_no_layer_of_a_failed_build_is_reachable(app):
    add_below(app.repo, ("40000", b"..", tree(app.repo, ("100644", b"x", blob(app.repo, b"x")))))
    app.hob_build("app")
    with sqlite3.connect(f"file:{app.store}/catalog.db?mode=ro", uri=True) as catalog:
        layers = {str(row[0]) for row in catalog.execute("SELECT id FROM layers")}
    assert set(os.listdir(f"{app.store}/layers")) == layers
