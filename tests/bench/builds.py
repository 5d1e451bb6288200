"""Builds beside the same commands by hand and beside `buildah bud --layers`, on one repository.

For tests/bench/run, or alone: tests/bench/builds.py --build build/release [--files 70000] [--json FILE]
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
import leftovers  # noqa: E402

FILES = 70_000
ROUNDS = 5
DEPS = "cp lock /deps"
BUILD = "cat /deps src/0/*.c > /built"
DOCKERFILE = f"""FROM hob-bench-base
WORKDIR /workspace
COPY lock lock
RUN {DEPS}
COPY src src
COPY more more
RUN {BUILD}
"""
QUIET = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_AUTHOR_NAME": "B",
         "GIT_AUTHOR_EMAIL": "b@example.com", "GIT_COMMITTER_NAME": "B", "GIT_COMMITTER_EMAIL": "b@example.com"}


def run(*words, cwd=None, **more):
    return subprocess.run(words, cwd=cwd, env={**os.environ, **QUIET}, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **more).stdout.decode(errors="replace")


def git(folder, *words):
    return run("git", "-c", "safe.directory=*", "-C", folder, *words)


def timed(call):
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6


def median(values):
    return sorted(values)[len(values) // 2]


def make_repository(path, files):
    os.makedirs(path)
    git(path, "init", "-q", "-b", "main")
    parts = [b"commit refs/heads/main\ncommitter B <b@example.com> 1700000000 +0000\ndata 5\nBegin\n",
             b"M 100644 inline lock\ndata 2\n1\n\n"]
    for number in range(files):
        top = b"src" if number % 10 == 0 else b"more"
        text = b"int f%d(void) { return %d; }\n" % (number, number) * (1 + number % 60)
        parts.append(b"M 100644 inline %s/%d/%d/f%d.c\ndata %d\n%s\n" % (
            top, number % 40, number % 7, number, len(text), text) if top == b"more" else
            b"M 100644 inline src/%d/f%d.c\ndata %d\n%s\n" % (number % 40, number, len(text), text))
    run("git", "-C", path, "fast-import", "--quiet", input=b"".join(parts))
    git(path, "reset", "-q", "--hard")


def commit_one(repository, number):
    """One file that no step reads, as most commits are; returns its bytes."""
    name = next(f"more/{d}/{s}" for d in range(number % 40, 40) for s in range(7)
                if os.path.isdir(f"{repository}/more/{d}/{s}"))
    name = f"{name}/{sorted(os.listdir(f'{repository}/{name}'))[0]}"
    text = f"int changed{number};\n" * 200
    with open(f"{repository}/{name}", "w", encoding="utf-8") as file:
        file.write(text)
    git(repository, "commit", "-q", "-a", "-m", f"Change {number}")
    return len(text)


class Hob:
    def __init__(self, build, folder, repository):
        self.build, self.store, self.run = os.path.abspath(build), f"{folder}/store", f"{folder}/run"
        self.token = f"{os.getpid()}b"
        os.environ["HOB_TEST_RUN"] = self.token
        self.config = f"{folder}/hob.yaml"
        os.mkdir(f"{folder}/environments")
        steps = json.dumps([{"name": "deps", "run": DEPS, "inputs": ["/lock"]},
                            {"name": "build", "run": BUILD, "inputs": ["src/0/**"]}])
        for path, text in ((self.config, f"store: {self.store}\nrun: {self.run}\nenvironments: {folder}/environments\n"
                            f"cgroup: hob-test-{self.token}\n"),
                           (f"{folder}/environments/app.yaml",
                            f"name: app\nsource: {{url: {repository}}}\nsteps: {steps}\n")):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)

    def once(self):
        run(f"{self.build}/hob-build", "--config", self.config, "app")

    def last(self):
        """Of the last build: its own time in us, and what its layers hold."""
        with sqlite3.connect(f"{self.store}/catalog.db") as catalog:
            begun, ended, image = catalog.execute(
                "SELECT started_ms, ended_ms, image_id FROM builds ORDER BY id DESC LIMIT 1").fetchone()
            layers = [row[0] for row in catalog.execute(
                "SELECT layer_id FROM image_layers WHERE image_id = ? AND layer_id NOT IN"
                " (SELECT layer_id FROM image_layers WHERE image_id < ?)", (image, image))]
        return (ended - begun) * 1000, [f"{self.store}/layers/{layer}" for layer in layers]

    def layer_bytes(self):
        return sum(int(run("du", "-sB1", f"{self.store}/{room}").split()[0]) for room in ("layers", "mirrors"))


def stored(layers):
    """(bytes on disk that are the layers' own, of which the index is); packs are the mirror's too."""
    own = index = 0
    for layer in layers:
        for folder, folders, names in os.walk(layer):
            for name in folders + names:
                seen = os.lstat(f"{folder}/{name}")
                if name in folders or seen.st_nlink == 1:
                    own += seen.st_blocks * 512
                if folder.endswith("/.git") and name == "index":
                    index += seen.st_blocks * 512
    return own, index


def by_hand(repository, folder):
    run("git", "clone", "-q", f"file://{repository}", folder)
    run("sh", "-c", f"{DEPS} && {BUILD}".replace("/deps", f"{folder}/../deps").replace("/built", f"{folder}/../built"),
        cwd=folder)
    run("sync", "-f", folder)


def measure_hob(build, folder, repository):
    hob = Hob(build, folder, repository)
    result = {"first": {"hob_us": timed(hob.once), "hand_us": timed(lambda: by_hand(repository, f"{folder}/clone"))}}
    before = hob.layer_bytes()
    result["unchanged"] = {"us": median([timed(hob.once) for _ in range(2 * ROUNDS)]),
                           "bytes": hob.layer_bytes() - before}
    rounds = []
    for number in range(ROUNDS):
        changed = commit_one(repository, number)

        def fetch():
            git(f"{folder}/clone", "fetch", "-q", "origin", "main")
            git(f"{folder}/clone", "checkout", "-q", "FETCH_HEAD")
        hand = timed(fetch)
        synced = hand + timed(lambda: run("sync", "-f", f"{folder}/clone"))
        whole = timed(hob.once)
        own, layers = hob.last()
        total, index = stored(layers)
        rounds.append({"us": whole, "published_us": own, "hand_us": hand, "hand_synced_us": synced,
                       "changed": changed, "stored": total, "index": index})
    result["commit"] = sorted(rounds, key=lambda one: one["us"])[len(rounds) // 2]
    leftovers.sweep(hob.token, hob.run)
    return result


def buildah_base(buildah, folder):
    rootfs = f"{folder}/rootfs"
    for name in ("usr", "proc", "dev", "tmp", "etc", "workspace"):
        os.makedirs(f"{rootfs}/{name}")
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink("/" + name):
            os.symlink(os.readlink("/" + name), f"{rootfs}/{name}")
    made = run(*buildah, "from", "scratch").strip()
    run(*buildah, "add", "-q", made, rootfs, "/")
    run(*buildah, "commit", "-q", made, "hob-bench-base")
    run(*buildah, "rm", made)


def measure_buildah(folder, repository):
    if not shutil.which("buildah"):
        return {"failed": "buildah is not installed (contrib/install-deps bench)"}
    storage = f"{folder}/buildah"
    buildah = ["buildah", "--root", f"{storage}/root", "--runroot", f"{storage}/run"]
    context = f"{storage}/context"
    os.makedirs(storage)
    with open(f"{storage}/Dockerfile", "w", encoding="utf-8") as file:
        file.write(DOCKERFILE)
    bud = [*buildah, "bud", "-q", "--layers", "--isolation", "chroot", "-v", "/usr:/usr:ro", "-f",
           f"{storage}/Dockerfile", "-t", "hob-bench", context]
    try:
        buildah_base(buildah, storage)
        start = time.perf_counter()
        run("git", "clone", "-q", f"file://{repository}", context)
        run(*bud)
        first = (time.perf_counter() - start) * 1e6
        rounds = []
        for number in range(100, 102):
            commit_one(repository, number)
            start = time.perf_counter()
            git(context, "pull", "-q", "--ff-only")
            run(*bud)
            rounds.append((time.perf_counter() - start) * 1e6)
        return {"first_us": first, "commit_us": min(rounds), "unchanged_us": timed(lambda: run(*bud))}
    except subprocess.CalledProcessError as failure:
        words = failure.stderr.decode(errors="replace").strip().splitlines() or [str(failure)]
        return {"failed": words[-1][:200]}
    finally:
        subprocess.run(["umount", f"{storage}/root/overlay"], check=False, stderr=subprocess.DEVNULL)


def measure(build, files=FILES):
    folder = tempfile.mkdtemp(prefix="hob-bench-builds-", dir="/var/tmp")
    os.chmod(folder, 0o755)
    try:
        make_repository(f"{folder}/repository", files)
        return {"files": files, **measure_hob(build, folder, f"{folder}/repository"),
                "buildah": measure_buildah(folder, f"{folder}/repository")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rows(result):
    """(work, hob, beside it, ratio) for the table; a ratio over 1 is hob's slower side here."""
    def ms(value):
        return f"{value / 1000:.0f} ms"
    first, commit, buildah = result["first"], result["commit"], result["buildah"]
    yield (f"first build of {result['files']} files", ms(first["hob_us"]),
           f"by hand, synced {ms(first['hand_us'])}", f"{first['hand_us'] / first['hob_us']:.2f}x")
    if "failed" not in buildah:
        yield ("", "", f"buildah bud --layers {ms(buildah['first_us'])}",
               f"{buildah['first_us'] / first['hob_us']:.2f}x")
    yield ("rebuild, nothing changed", ms(result["unchanged"]["us"]),
           f"{result['unchanged']['bytes']} new bytes", "")
    if "failed" not in buildah:
        yield ("", "", f"buildah bud --layers {ms(buildah['unchanged_us'])}",
               f"{buildah['unchanged_us'] / result['unchanged']['us']:.2f}x")
    yield ("rebuild after a commit, steps unchanged", ms(commit["us"]),
           f"git fetch + checkout {ms(commit['hand_us'])}", f"{commit['hand_us'] / commit['us']:.2f}x")
    yield ("", "", f"the same, synced {ms(commit['hand_synced_us'])}",
           f"{commit['hand_synced_us'] / commit['us']:.2f}x")
    if "failed" in buildah:
        yield ("", "", f"buildah: {buildah['failed']}", "")
    else:
        yield ("", "", f"git pull + buildah bud {ms(buildah['commit_us'])}",
               f"{buildah['commit_us'] / commit['us']:.2f}x")
    yield (f"  stored for {commit['changed']} changed bytes", f"{commit['stored'] - commit['index']} B",
           f"and git's index of {commit['index']} B", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--json")
    options = parser.parse_args()
    result = measure(options.build, options.files)
    for work, hob, beside, ratio in rows(result):
        print(f"  {work:<44} {hob:>16}  {beside:<42} {ratio:>8}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
