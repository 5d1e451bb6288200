"""Histories with every kind of change that git knows, from a seed, and the comparison of an image's
sources with what `git checkout` writes."""

import json
import os
import random
import shutil
import stat
import subprocess
import sys

from hobtest import git

WORDS = ["alpha", "beta", "gamma", "delta", "with space", "größe", "quo\"te", "new\nline", "-dash", "x" * 120]


class History:
    """A repository of some two hundred files that changes in one to five ways with each commit."""

    def __init__(self, repository, seed, files=200):
        self.path = repository.path
        self.dice = random.Random(seed)
        self.modules = {}
        for number in range(files):
            self.write(f"base/{number % 7}/{number % 5}/file{number}", f"{number}\n" * (1 + number % 40))
        self.commit("Begin")

    def write(self, name, text):
        full = os.path.join(self.path, name)
        parent = os.path.dirname(full)
        while parent != self.path:
            if os.path.lexists(parent) and (os.path.islink(parent) or not os.path.isdir(parent)):
                os.unlink(parent)
            parent = os.path.dirname(parent)
        if os.path.isdir(full) and not os.path.islink(full):
            shutil.rmtree(full)
        elif os.path.islink(full):
            os.unlink(full)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8", newline="") as file:
            file.write(text)

    def commit(self, message):
        git(self.path, "add", "-A")
        for name, commit in self.modules.items():
            git(self.path, "update-index", "--add", "--cacheinfo", f"160000,{commit},{name}")
        git(self.path, "commit", "-q", "--allow-empty", "-m", message)

    def files(self):
        found = []
        for folder, folders, names in os.walk(self.path):
            if ".git" in folders and folder == self.path:
                folders.remove(".git")
            folders.sort()
            found += [os.path.relpath(os.path.join(folder, name), self.path) for name in sorted(names)
                      if name != ".gitattributes"]
        return found

    def name(self):
        depth = self.dice.randrange(4)
        parts = [self.dice.choice(WORDS[:6]) for _ in range(depth)] + [self.dice.choice(WORDS)]
        return "/".join(parts)

    def change(self):
        kinds = [self.modify, self.modify, self.add, self.add, self.delete, self.rename, self.executable,
                 self.link, self.file_to_folder, self.folder_to_file, self.delete_folder, self.empty,
                 self.pointer, self.crlf, self.submodule]
        message = []
        for _ in range(self.dice.randrange(1, 6)):
            kind = self.dice.choice(kinds)
            kind()
            message.append(kind.__name__)
        if self.dice.randrange(12) == 0:
            self.attributes()
            message.append("attributes")
        self.commit(" ".join(message))

    def modify(self):
        name = self.dice.choice(self.files())
        self.write(name, f"changed {self.dice.random()}\n" * self.dice.randrange(1, 300))

    def add(self):
        self.write(self.name(), f"new {self.dice.random()}\n")

    def delete(self):
        os.unlink(os.path.join(self.path, self.dice.choice(self.files())))

    def rename(self):
        old = os.path.join(self.path, self.dice.choice(self.files()))
        if not os.path.islink(old):
            with open(old, encoding="utf-8", newline="") as file:
                text = file.read()
            os.unlink(old)
            self.write(self.name(), text)

    def executable(self):
        name = os.path.join(self.path, self.dice.choice(self.files()))
        if not os.path.islink(name):
            os.chmod(name, os.stat(name).st_mode ^ 0o111)

    def link(self):
        name = self.dice.choice(self.files())
        os.unlink(os.path.join(self.path, name))
        os.symlink(self.dice.choice(["/etc/passwd", "../..", "nowhere", "a/b", "."]),
                   os.path.join(self.path, name))

    def file_to_folder(self):
        name = self.dice.choice(self.files())
        for below in ("one", "two/three"):
            self.write(f"{name}/{below}", f"{self.dice.random()}\n")

    def folders(self):
        return sorted({os.path.dirname(name) for name in self.files()} - {""})

    def folder_to_file(self):
        self.write(self.dice.choice(self.folders()), "was a folder\n")

    def delete_folder(self):
        folder = max((self.dice.choice(self.folders()) for _ in range(3)), key=len)
        shutil.rmtree(os.path.join(self.path, folder))

    def empty(self):
        self.write(self.name(), "")

    def pointer(self):
        self.write(self.name() + ".bin", "version https://git-lfs.github.com/spec/v1\n"
                   f"oid sha256:{self.dice.getrandbits(256):064x}\nsize 12345\n")

    def crlf(self):
        self.write(self.dice.choice(["a.txt", "b.txt", "deep/c.txt"]), f"{self.dice.random()}\nline\n")

    def submodule(self):
        name = f"modules/{self.dice.choice('abc')}"
        full = os.path.join(self.path, name)
        if name in self.modules and self.dice.randrange(2) == 0:
            os.rmdir(full)
            del self.modules[name]
        else:
            os.makedirs(full, exist_ok=True)
            self.modules[name] = f"{self.dice.getrandbits(160):040x}"

    def attributes(self):
        rules = ["*.txt text eol=crlf", "*.txt -text", "*.txt text eol=lf", "*.txt ident", "*.bin filter=lfs"]
        self.write(self.dice.choice([".gitattributes", "deep/.gitattributes"]),
                   "".join(f"{rule}\n" for rule in self.dice.sample(rules, 2)))


def tree_of(folder):
    """Everything below a folder but .git: type and permission, and content or target. A .git that is a
    file is git's own way of a submodule's."""
    found = {}
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        names[:] = [name for name in names if name != ".git"]
        for name in folders + names:
            full = os.path.join(here, name)
            seen = os.lstat(full)
            kind = stat.S_IFMT(seen.st_mode)
            if kind == stat.S_IFLNK:
                content = os.readlink(full)
            elif kind == stat.S_IFREG:
                with open(full, "rb") as file:
                    content = file.read().hex()
            else:
                content = ""
            found[os.path.relpath(full, folder)] = (kind, seen.st_mode & 0o111 if kind == stat.S_IFREG else 0,
                                                    content)
    return found


def plain_git(folder, *words):
    return git(folder, "-c", "safe.directory=*", *words)


def assert_image(store, layers, path, origin, commit, scratch, modules="false"):
    """The workspace of an image, mounted as a sandbox has it, is what a clone of the commit would be."""
    done = subprocess.run(["unshare", "-m", "--propagation", "private", sys.executable, __file__, store,
                           ",".join(map(str, layers)), path, origin, commit, scratch, modules],
                          stdout=subprocess.PIPE, check=True)
    result = json.loads(done.stdout)
    assert result["differences"] == [], result["differences"][:5]
    assert result["status"] == "", result["status"]
    assert result["head"] == commit
    assert result["log"] == result["wanted_log"]
    assert result["modules"] == result["wanted_modules"]
    return result


def module_states(folder):
    """Of `git submodule status`: the sign, the commit and the path, without the names of refs."""
    lines = git(folder, "-c", "safe.directory=*", "submodule", "status", "--recursive").splitlines()
    return [line[:1 + 40].strip() + " " + line[1 + 40:].strip().split(" (")[0] for line in lines]


def main(store, layers, path, origin, commit, scratch, modules):
    os.makedirs(scratch)
    clone, view = f"{scratch}/clone", f"{scratch}/view"
    git(scratch, "clone", "-q", "-s", "--no-checkout", origin, "clone")
    git(clone, "checkout", "-q", commit)
    if modules != "false":
        words = ["--recursive"] if modules == "recursive" else []
        git(clone, "config", "submodule.active", ".")
        git(clone, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", *words)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True)
    for name in ("view", "upper", "work"):
        os.mkdir(f"/mnt/{name}")
    lower = []
    for layer in layers.split(","):
        os.symlink(f"{store}/layers/{layer}/tree", f"/mnt/{layer}")
        lower.insert(0, layer)
    subprocess.run(["mount", "-t", "overlay", "none", "-o",
                    f"lowerdir={':'.join(lower)},upperdir=upper,workdir=work", "view"], check=True, cwd="/mnt")
    view = f"/mnt/view{path}"
    trace = f"{scratch}/trace"
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    words = ["git", "-c", "safe.directory=*", "status", "--porcelain",
             *(["--ignore-submodules=dirty"] if modules == "false" else [])]
    if shutil.which("strace"):
        words = ["strace", "-f", "-qq", "-e", "trace=openat,open", "-o", trace, *words]
    status = subprocess.run(words, cwd=view, env=env, check=True, stdout=subprocess.PIPE).stdout.decode()
    seen, wanted = tree_of(view), tree_of(clone)
    read = set()
    if os.path.exists(trace):
        with open(trace, encoding="utf-8", errors="replace") as file:
            read = {line.split('"')[1] for line in file
                    if line.count('"') > 1 and "O_DIRECTORY" not in line and "= -1" not in line}
    print(json.dumps({
        "differences": [(name, str(seen.get(name))[:200], str(wanted.get(name))[:200])
                        for name in sorted(seen.keys() | wanted.keys()) if seen.get(name) != wanted.get(name)],
        "status": status, "head": plain_git(view, "rev-parse", "HEAD"),
        "log": plain_git(view, "log", "--format=%H"), "wanted_log": plain_git(clone, "log", "--format=%H"),
        "fsck": plain_git(view, "fsck", "--connectivity-only", "--no-dangling"),
        "modules": module_states(view) if modules != "false" else [],
        "wanted_modules": module_states(clone) if modules != "false" else [],
        "read": sorted(name for name in read if name in wanted and not name.endswith(".gitattributes")
                       and not name.endswith(".gitignore"))}))
    subprocess.run(["umount", "/mnt/view", "/mnt"], check=False)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main(*sys.argv[1:])
