#!/usr/bin/python3
"""Git repositories of real projects, for tests, benchmarks and the README:

    tests/lib/make_repos.py [--out build/repos] [hello] [toml] [is-odd]

hello (C) and toml (Python) are made from Debian's source packages, is-odd (Node) from npm's tarballs:
released versions as successive commits, the last one on `main`, each tagged. Nothing but the package
registries' own clients is used. What was made once is kept; prints the path of each repository.
"""

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SUITES = ("bullseye", "bookworm", "trixie")
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
FIRST_COMMIT = 1600000000  # and a day between two, so that commit ids are the same everywhere
DAY = 86400
DEBIAN = {"hello": ("hello", "hello"), "toml": ("python-toml", "python3-toml")}
NPM = {"is-odd": ("0.1.0", "1.0.0", "2.0.0", "3.0.0", "3.0.1")}


def run(*words, cwd=None, env=None):
    return subprocess.run(words, cwd=cwd, env={**os.environ, **(env or {})}, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).stdout


class Versions:
    """A repository that is made of whole trees, one a version."""

    def __init__(self, path):
        self.path, self.versions = path, []
        self.quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
                      "GIT_AUTHOR_NAME": "Releases", "GIT_AUTHOR_EMAIL": "releases@example.com",
                      "GIT_COMMITTER_NAME": "Releases", "GIT_COMMITTER_EMAIL": "releases@example.com"}
        run("git", "init", "-q", "-b", "main", path, env=self.quiet)

    def add(self, version, folder):
        """The content of `folder` as the next commit."""
        for name in os.listdir(self.path):
            if name != ".git":
                full = os.path.join(self.path, name)
                (shutil.rmtree if os.path.isdir(full) and not os.path.islink(full) else os.unlink)(full)
        shutil.copytree(folder, self.path, symlinks=True, dirs_exist_ok=True)
        when = f"{FIRST_COMMIT + len(self.versions) * DAY} +0000"
        env = {**self.quiet, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        run("git", "add", "-A", "-f", cwd=self.path, env=env)
        run("git", "commit", "-q", "--allow-empty", "-m", f"Release {version}", cwd=self.path, env=env)
        run("git", "tag", re.sub(r"[^0-9A-Za-z.+-]", "_", f"v{version}"), cwd=self.path, env=env)
        self.versions.append(version)


def unpack(archive, folder, strip):
    """An archive of a registry, inside `folder`, without the first `strip` parts of its names."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            parts = [part for part in member.name.split("/") if part not in ("", ".")][strip:]
            if not parts or ".." in parts or not (member.isreg() or member.isdir() or member.issym()):
                continue
            member.name = "/".join(parts)
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            tar.extract(member, folder, set_attrs=not member.issym())


def apt(folder, suite, *words):
    """apt-get with a list and state of its own: the machine's may lack sources."""
    sources = os.path.join(folder, f"{suite}.list")
    for path in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(folder, suite, path), exist_ok=True)
    signed = f"[signed-by={KEYRING}] " if os.path.exists(KEYRING) else ""
    with open(sources, "w", encoding="ascii") as file:
        for kind in ("deb-src", "deb"):
            file.write(f"{kind} {signed}{MIRROR} {suite} main\n")
    options = {"Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "-",
               "Dir::State::lists": f"{folder}/{suite}/lists", "Dir::Cache": f"{folder}/{suite}/cache",
               "APT::Sandbox::User": "root", "Acquire::Languages": "none", "Acquire::Retries": "3"}
    return run("apt-get", "-q", *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
               *words, cwd=folder)


def debian_source(folder, suite, source):
    """(version, folder) of a source package: the upstream archive, and Debian's part where the mirror has
    it (not every mirror has every file)."""
    here = os.path.join(folder, f"{suite}-{source}")
    os.makedirs(here)
    apt(folder, suite, "update")
    try:
        apt(folder, suite, "source", "--download-only", f"{source}/{suite}")
    except subprocess.CalledProcessError:
        pass
    upstream = [path for path in glob.glob(f"{folder}/{source}_*.orig.tar.*") if not path.endswith(".asc")]
    version = os.path.basename(upstream[0])[len(source) + 1:].split(".orig.tar")[0]
    unpack(upstream[0], here, 1)
    for archive in glob.glob(f"{folder}/{source}_{version}-*.debian.tar.*"):
        version = os.path.basename(archive)[len(source) + 1:].split(".debian.tar")[0]
        unpack(archive, here, 0)
    for path in glob.glob(f"{folder}/{source}_*"):
        os.unlink(path)
    return version, here


def debian_package(folder, suite, package):
    """(version, folder) of what a package installs, where there are no sources to be had."""
    here = os.path.join(folder, f"{suite}-{package}")
    apt(folder, suite, "update")
    apt(folder, suite, "download", f"{package}/{suite}")
    archive = glob.glob(f"{folder}/{package}_*.deb")[0]
    version = os.path.basename(archive).split("_")[1]
    run("dpkg-deb", "-x", archive, here)
    os.unlink(archive)
    return version, here


def make_debian(name, repository, folder):
    """From sources, all versions; only if there is none, from packages."""
    for get, what in zip((debian_source, debian_package), DEBIAN[name]):
        for suite in SUITES:
            try:
                version, tree = get(folder, suite, what)
            except (subprocess.CalledProcessError, IndexError, OSError, tarfile.TarError) as failure:
                why = (getattr(failure, "stderr", "") or str(failure)).strip().splitlines()[-1:]
                print(f"{name}: {what} of {suite}: {' '.join(why)}", file=sys.stderr)
                continue
            if version not in repository.versions:
                repository.add(version, tree)
        if repository.versions:
            return


def make_npm(name, repository, folder):
    for version in NPM[name]:
        here = os.path.join(folder, version)
        os.makedirs(here)
        packed = run("npm", "pack", "--silent", f"{name}@{version}", cwd=folder).split()[-1]
        unpack(os.path.join(folder, packed), here, 1)
        repository.add(version, here)


def make(name, out):
    path = os.path.join(out, name)
    if os.path.isdir(os.path.join(path, ".git")):
        return path
    os.makedirs(out, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".making-") as folder:
        os.chmod(folder, 0o755)
        repository = Versions(os.path.join(folder, name))
        work = os.path.join(folder, "work")
        os.makedirs(work)
        (make_debian if name in DEBIAN else make_npm)(name, repository, work)
        if not repository.versions:
            raise SystemExit(f"{name}: no version could be had from the registry")
        run("git", "gc", "-q", cwd=repository.path, env=repository.quiet)
        os.rename(repository.path, path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "repos"))
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help="hello, toml, is-odd; all without")
    options = parser.parse_args()
    known = [*DEBIAN, *NPM]
    for name in options.names or known:
        if name not in known:
            parser.error(f"no project {name}; there are {', '.join(known)}")
        print(make(name, os.path.abspath(options.out)), flush=True)


if __name__ == "__main__":
    main()
