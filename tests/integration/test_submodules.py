"""Submodules: what an image has of them is what `git clone --recurse-submodules` would make, also of one
commit after the other; and what a hostile repository says of them is refused."""

import os
import random
import shutil
import subprocess

import pytest

from git_servers import git_http
from history import assert_image, tree_of
from hobtest import Failure, Repository, git, only_long, wait_for
from test_build_history import head_layers

ROUNDS = 100
FILE = ("-c", "protocol.file.allow=always")


def add_module(repository, url, path):
    git(repository.path, *FILE, "submodule", "--quiet", "add", "--force", url, path)
    git(repository.path, "commit", "-q", "-m", f"Add {path}")


def move_module(repository, path, commit):
    """The submodule at another commit."""
    git(repository.path, "update-index", "--cacheinfo", f"160000,{commit},{path}")
    git(repository.path, "commit", "-q", "-m", f"Move {path}")
    return commit


class Family:
    """app with lib (which has deep) and tool, all in one folder."""

    def __init__(self, machine):
        self.machine = machine
        self.deep, self.lib, self.tool, self.app = (machine.repository(name)
                                                    for name in ("deep", "lib", "tool", "app"))
        for number in range(12):
            self.lib.commit({f"src/{number % 3}/{number}.c": f"{number}\n"})
        add_module(self.lib, "../deep", "vendor/deep")
        add_module(self.app, "../lib", "third party/lib")
        add_module(self.app, self.tool.path, "tool")
        self.app.commit({"README": "with submodules\n", **{f"many/{number}": "x\n" * 50 for number in range(40)}})

    def commit(self, message):
        """Of the index as it is: the work trees of the submodules are none of ours."""
        with open(f"{self.app.path}/README", "a", encoding="utf-8") as file:
            file.write(f"{message}\n")
        git(self.app.path, "add", "README")
        git(self.app.path, "commit", "-q", "-m", message)

    def check(self, modules="recursive"):
        layers = head_layers(self.machine)
        result = assert_image(self.machine.store, [layer[0] for layer in layers], "/workspace", self.app.path,
                              self.app.commit_id(), f"{self.machine.folder}/scratch", modules)
        return [layer[1] for layer in layers], result


def test_like_a_clone(machine):
    family = Family(machine)
    machine.environment("app", source={"url": family.app.path})
    machine.build("app")
    kinds, result = family.check()
    assert kinds == ["base", "source"] and len(result["modules"]) == 3
    assert all(line[0] not in "-+U" for line in result["modules"])
    layer = f"{machine.store}/layers/{head_layers(machine)[1][0]}/tree/workspace"
    assert os.path.exists(f"{layer}/third party/lib/vendor/deep/hello.txt")
    assert git(f"{layer}", "-c", "safe.directory=*", "config", "submodule.third party/lib.url") == family.lib.path


def test_mirrors_of_submodules_are_kept_with_that_of_the_source(machine):
    family = Family(machine)
    machine.environment("app", source={"url": family.app.path})
    machine.environment("other", source={"url": family.tool.path})
    assert machine.hob_build("--all").returncode == 0
    mirrors = f"{machine.store}/mirrors"

    def collected():
        for name in os.listdir(mirrors):
            if name.endswith(".git"):
                os.utime(f"{mirrors}/{name}", (1, 1))
        assert machine.hob_build("--all").returncode == 0
        return sum(name.endswith(".git") for name in os.listdir(mirrors))
    assert collected() == 4
    os.unlink(f"{machine.environments}/app.yaml")
    assert collected() == 1


def test_as_deep_as_the_environment_says(machine):
    family = Family(machine)
    for mode, count in (("true", 2), ("false", 0)):
        machine.environment("app", source={"url": family.app.path, "submodules": mode == "true"})
        done = machine.build("app")
        _, result = family.check(mode)
        assert sum(line[0] != "-" for line in result["modules"]) == count
        assert ("submodules are not fetched" in done.stdout) == (mode == "false" or count == 2), done.stdout


def test_only_what_changed_is_written(machine):
    family = Family(machine)
    machine.environment("app", source={"url": family.app.path})
    machine.build("app")

    def delta():
        layer = head_layers(machine)[-1][0]
        return set(tree_of(f"{machine.store}/layers/{layer}/tree/workspace"))

    family.app.commit({"README": "another\n"})
    machine.build("app")
    assert family.check()[0] == ["base", "source", "delta"]
    assert delta() == {"README"}
    # A commit of the library that no longer is on a branch of its own: a change, a new file and one that goes.
    os.unlink(f"{family.lib.path}/src/0/0.c")
    family.lib.commit({"src/1/1.c": "changed\n", "src/new.c": "new\n"})
    move_module(family.app, "third party/lib", family.lib.commit_id())
    machine.build("app")
    assert family.check()[0] == ["base", "source", "delta"]
    assert {"third party/lib/src/1/1.c", "third party/lib/src/new.c", "third party/lib/src/0/0.c",
            "README"} <= delta()
    assert not any(name.startswith(("tool/", "third party/lib/src/2", "third party/lib/vendor/deep/"))
                   for name in delta())
    # The library's own submodule moves, then goes back with it.
    family.deep.commit({"hello.txt": "deeper\n"})
    move_module(family.lib, "vendor/deep", family.deep.commit_id())
    move_module(family.app, "third party/lib", family.lib.commit_id())
    machine.build("app")
    assert family.check()[0] == ["base", "source", "delta"]
    assert "third party/lib/vendor/deep/hello.txt" in delta()
    git(family.app.path, "reset", "-q", "--hard", "HEAD~1")
    family.app.commit({"more.txt": "more\n"})
    machine.build("app")
    assert family.check()[0] == ["base", "source", "delta"]
    assert "third party/lib/vendor/deep/hello.txt" not in delta()


def test_submodules_come_and_go(machine):
    """A folder that becomes a submodule, one that becomes a folder or a file, another url."""
    family = Family(machine)
    family.app.commit({f"vendored/{name}": f"{name}\n" for name in ("hello.txt", "only-here.txt")})
    machine.environment("app", source={"url": family.app.path})
    machine.build("app")
    git(family.app.path, "rm", "-rq", "vendored")
    add_module(family.app, "../tool", "vendored")
    machine.build("app")
    family.check()
    git(family.app.path, "rm", "-q", "tool")
    family.app.commit({"tool/hello.txt": "a folder now\n"})
    machine.build("app")
    family.check()
    git(family.app.path, "rm", "-q", "vendored")
    family.app.commit({"vendored": "a file now\n"})
    machine.build("app")
    family.check()
    git(family.app.path, "config", "-f", ".gitmodules", "submodule.third party/lib.url", "../lib/../lib")
    family.app.commit({})
    machine.build("app")
    family.check()


class Changes:
    """Submodules that move, come, go, and change places with folders and files, from a seed."""

    def __init__(self, family, seed):
        self.family, self.dice = family, random.Random(seed)
        self.places = {"third party/lib": "module", "tool": "module"}

    def modules(self):
        return [name for name, kind in self.places.items() if kind == "module"]

    def clear(self, name):
        git(self.family.app.path, "rm", "-rqf", "--ignore-unmatch", name)
        shutil.rmtree(f"{self.family.app.path}/{name}", ignore_errors=True)
        shutil.rmtree(f"{self.family.app.path}/.git/modules/{name}", ignore_errors=True)
        self.places.pop(name, None)

    def change(self):
        app, dice = self.family.app, self.dice
        kind = dice.choice(["move", "move", "move", "deep", "file", "file", "add", "gone", "folder", "plain"])
        name = dice.choice(["third party/lib", "tool", "a/module", "b"])
        source = dice.choice([self.family.lib, self.family.tool])
        if kind == "deep":
            self.family.deep.commit({"hello.txt": f"{dice.random()}\n"})
            move_module(self.family.lib, "vendor/deep", self.family.deep.commit_id())
        elif kind == "move" and self.modules():
            name = dice.choice(self.modules())
            url = git(app.path, "config", "-f", ".gitmodules", f"submodule.{name}.url")
            source = self.family.lib if url.endswith("lib") else self.family.tool
            text = f"{dice.random()}\n" * dice.randrange(1, 90)
            source.commit({f"src/{dice.randrange(4)}/{dice.randrange(9)}.c": text})
            move_module(app, name, source.commit_id())
        elif kind == "add":
            self.clear(name)
            git(app.path, *FILE, "submodule", "--quiet", "add", "--force", source.path, name)
            self.places[name] = "module"
        elif kind in ("gone", "folder", "plain"):
            self.clear(name)
            files = {"gone": {}, "folder": {f"{name}/hello.txt": "mine\n", f"{name}/src/own.c": "own\n"},
                     "plain": {name: "a file\n"}}[kind]
            for path, text in files.items():
                os.makedirs(os.path.dirname(f"{app.path}/{path}"), exist_ok=True)
                with open(f"{app.path}/{path}", "w", encoding="utf-8") as file:
                    file.write(text)
                git(app.path, "add", path)
            self.places[name] = kind
        self.family.commit(f"{kind} {name} {dice.random()}")


@only_long
def test_a_history_of_submodules(machine):
    family = Family(machine)
    changes = Changes(family, 5)
    machine.environment("app", source={"url": family.app.path})
    machine.build("app")
    kinds = []
    for _ in range(ROUNDS):
        changes.change()
        machine.build("app")
        kinds.append(tuple(family.check()[0]))
    assert ("base", "source", "delta") in kinds and ("base", "source") in kinds


def test_of_a_server(machine):
    """The token goes to its own server only; a commit need not be on a branch any more that was once there."""
    os.mkdir(f"{machine.folder}/secrets")
    family = Family(machine)
    other = Repository(f"{machine.folder}/elsewhere/public")
    forge = machine.write(f"{machine.folder}/forge-takes", "tok_38fa77ab19")
    offered = f"{machine.folder}/offered"
    secret = machine.write(f"{machine.folder}/secrets/forge", "tok_38fa77ab19")
    shutil.chown(secret, group="hob")
    os.chmod(secret, 0o640)
    git(family.app.path, "config", "-f", ".gitmodules", "submodule.tool.url", "../tool")
    git(family.app.path, "config", "-f", ".gitmodules", "submodule.third party/lib.update", "none")
    family.app.commit({})
    with git_http(f"{machine.folder}/repos", f"token={forge}") as private, \
            git_http(f"{machine.folder}/elsewhere", "") as public, \
            git_http(f"{machine.folder}/elsewhere", f"ask={offered}") as asking:
        machine.environment("app", source={"url": f"http://127.0.0.1:{private}/app",
                                           "auth": {"type": "token", "secret": "forge"}})
        git(family.app.path, "submodule", "--quiet", "add", f"http://127.0.0.1:{public}/public", "public")
        family.app.commit({})
        machine.build("app")
        other.commit({"hello.txt": "new\n"})
        move_module(family.app, "public", other.commit_id())
        machine.build("app")
        layer = head_layers(machine)[-1]
        assert layer[1] == "delta"
        top = f"{machine.store}/layers/{layer[0]}/tree/workspace"
        with open(f"{top}/public/hello.txt", encoding="utf-8") as file:
            assert file.read() == "new\n"
        git(family.app.path, "config", "-f", ".gitmodules", "submodule.public.url",
            f"http://127.0.0.1:{asking}/public")
        family.app.commit({})
        done = machine.hob_build("app")
        assert done.returncode != 0 and "submodule public" in done.stderr, done.stderr
        assert not os.path.exists(offered), "the token of one server was shown to another"


def test_warm_sandboxes_and_submodules(machine):
    """A sync cannot change a submodule: a sandbox in use stays as it was, a warm one is replaced."""
    family = Family(machine)
    machine.environment("app", source={"url": family.app.path}, pool={"min": 1, "max": 3})
    machine.build("app")
    machine.start()
    machine.wait_ready("app", 1, 60)
    used = machine.client.create("app")
    family.lib.commit({"src/1/1.c": "newer\n"})
    move_module(family.app, "third party/lib", family.lib.commit_id())
    machine.build("app")
    clean = ("git status --porcelain && git submodule status --recursive | grep -c '^[-+U]';"
             " cat 'third party/lib/src/1/1.c'")
    with pytest.raises(Failure) as failure:
        machine.client.post(f"/v1/sandboxes/{used['id']}/sync", {})
    assert "submodule third party/lib changes" in str(failure.value), failure.value
    assert machine.client.output(used["id"], clean) == "0\n1\n"

    def newest():
        made = machine.client.create("app")
        text = machine.client.output(made["id"], clean)
        machine.client.delete(made["id"])
        return text == "0\nnewer\n"
    wait_for("sandboxes of the new image", newest, 60)


def hostile(repository, text, path="sub"):
    with open(f"{repository.path}/.gitmodules", "w", encoding="utf-8") as file:
        file.write(text)
    git(repository.path, "add", "-A")
    git(repository.path, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},{path}")
    git(repository.path, "commit", "-q", "-m", "Hostile")


URLS = ["ext::sh -c touch% /tmp/x", "-uother", "--upload-pack=touch /tmp/x", "file:///etc", "/etc", "../../outside",
        "../../../../../../etc", "https:///x", "ssh://-oProxyCommand=x/y", "fd::17", "relative/without/dots",
        "http://127.0.0.1:1/a b", "https://host/x%0ay\\nz"]
DESCRIPTIONS = ['[submodule "../../x"]\n\tpath = sub\n\turl = ../lib\n',
                '[submodule "sub"]\n\tpath = ../sub\n\turl = ../lib\n',
                '[submodule "sub"]\n\tpath = .git/hooks\n\turl = ../lib\n',
                '[submodule "sub"]\n\tpath = -sub\n\turl = ../lib\n',
                '[submodule "sub"]\n\tpath = sub\n\turl = ../lib\n\tupdate = !touch /tmp/x\n',
                '[submodule "sub\n', '[submodule "sub"] path = "sub\n']


def test_what_is_refused(machine):
    """Urls and descriptions that lead elsewhere; the image before stays, and one may do without them."""
    repository = machine.repository("app")
    Repository(f"{machine.folder}/outside")
    machine.environment("app", source={"url": repository.path})
    machine.build("app")
    before = head_layers(machine)
    for url in URLS:
        hostile(repository, f'[submodule "sub"]\n\tpath = sub\n\turl = "{url}"\n')
        done = machine.hob_build("app")
        assert done.returncode != 0 and "sub" in done.stderr, (url, done.stderr)
        assert "submodules: false" in done.stderr, (url, done.stderr)
    for text in DESCRIPTIONS:
        hostile(repository, text)
        done = machine.hob_build("app")
        assert done.returncode != 0 and ("submodule" in done.stderr or ".gitmodules" in done.stderr), \
            (text, done.stderr)
    assert head_layers(machine) == before
    machine.environment("app", source={"url": repository.path, "submodules": False})
    machine.build("app")


def test_a_submodule_behind_a_link(machine):
    """A tree that git itself would not make: `sub` twice, as a link out of the workspace and as a submodule."""
    repository, lib = machine.repository("app"), machine.repository("lib")
    outside = f"{machine.folder}/outside"
    os.mkdir(outside)
    os.chmod(outside, 0o777)
    hostile(repository, '[submodule "sub"]\n\tpath = sub\n\turl = ../lib\n')
    target = subprocess.run(["git", "-C", repository.path, "hash-object", "-w", "--stdin"], input=outside.encode(),
                            stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    entries = git(repository.path, "ls-tree", "HEAD").replace("1" * 40, lib.commit_id())
    lines = [line for line in entries.split("\n") if not line.endswith("\tsub")]
    lines += [f"120000 blob {target}\tsub", f"160000 commit {lib.commit_id()}\tsub"]
    tree = subprocess.run(["git", "-C", repository.path, "mktree"], input=("\n".join(lines) + "\n").encode(),
                          stdout=subprocess.PIPE, check=True).stdout.decode().strip()
    commit = git(repository.path, "commit-tree", "-m", "Twice", "-p", "HEAD", tree)
    git(repository.path, "update-ref", "refs/heads/main", commit)
    machine.environment("app", source={"url": repository.path})
    done = machine.hob_build("app")
    assert os.listdir(outside) == [], "it wrote through the link"
    assert done.returncode != 0, done.stdout


def test_steps_that_read_submodules(machine):
    """Inputs may name files in them; a strict step sees those and no others."""
    family = Family(machine)
    steps = [{"name": "strict", "run": "find . -type f | sort > /strict", "strict": True,
              "inputs": ["third party/lib/src/1/**", "README"]},
             {"name": "wide", "run": "date +%N > /wide", "inputs": ["third party/lib/vendor/**"]}]
    steps.insert(0, {"name": "apart", "run": "date +%N > /apart", "inputs": ["tool/**"]})
    machine.environment("app", source={"url": family.app.path}, steps=steps)
    machine.build("app")

    def results():
        found = {}
        for number, kind, _, _ in head_layers(machine):
            for name in ("strict", "wide", "apart"):
                path = f"{machine.store}/layers/{number}/tree/{name}"
                if kind == "step" and os.path.exists(path):
                    with open(path, encoding="utf-8") as file:
                        found[name] = file.read()
        return found
    before = results()
    wanted = [f"./third party/lib/src/1/{number}.c" for number in range(12) if number % 3 == 1]
    assert before["strict"].split("\n")[:-1] == sorted(["./README", *wanted])
    family.lib.commit({"other.txt": "changed\n"})
    move_module(family.app, "third party/lib", family.lib.commit_id())
    machine.build("app")
    after = results()
    assert after["wide"] != before["wide"] and after["apart"] == before["apart"]
