"""The store's part of `make bench`: what 50 rebuilds take on disk, and how long an inventory of 10,000
snapshots takes to list and to look through for garbage. Each on a store of its own."""

import json
import os
import shutil
import sqlite3
import subprocess
import time

MIB = 1024 * 1024
REBUILDS = 50
SNAPSHOTS = 10000
REPEATS = 15

# A step whose output is the same each time, as of package managers: times come from an archive.
STEP = ("mkdir -p /opt/kit && head -c 8000000 /dev/zero | tr '\\\\0' k > /opt/kit/data && "
        "cp f0.txt /opt/kit/ && touch -d @1500000000 /opt/kit/data")


class Store:
    """A store with one environment of a generated repository, below a folder."""

    def __init__(self, build, folder, token):
        self.build, self.folder = build, folder
        self.config = f"{folder}/hob.yaml"
        self.repository = f"{folder}/repository"
        os.makedirs(f"{folder}/environments")
        os.mkdir(self.repository)
        self.git("init", "-q", "-b", "main")
        self.commit({f"lib/m{n % 40}/f{n}.txt": f"line {n} of a file\n" * 200 for n in range(1999)} |
                    {"f0.txt": "0\n"})
        self.write(self.config, f"store: {folder}/store\nrun: {folder}/run\nenvironments: "
                                f"{folder}/environments\ncgroup: hob-test-{token}-store\nfree_space: 0\n")
        self.write(f"{folder}/environments/app.yaml", json.dumps({
            "name": "app", "base": "host", "source": {"url": self.repository},
            "schedule": {"every": 0}, "steps": [{"name": "kit", "run": STEP}]}))

    def write(self, path, text):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o644)

    def git(self, *words):
        names = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
                 for what, value in (("NAME", "Bench"), ("EMAIL", "bench@example.com"))}
        subprocess.run(["git", "-C", self.repository, *words], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, **names, "GIT_CONFIG_GLOBAL": "/dev/null"})

    def commit(self, files):
        for name, text in files.items():
            self.write(f"{self.repository}/{name}", text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "Change something")

    def run(self, program, *words):
        return subprocess.run([f"{self.build}/{program}", "--config", self.config, *words], check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).stdout

    def rebuild(self):
        self.run("hob-build", "app")

    def stored(self):
        return json.loads(self.run("hob-snapshots", "du", "--json"))["total"]["stored_bytes"]

    def timed(self, *words):
        """Milliseconds, the program's start included; the least of several."""
        least = None
        for _ in range(REPEATS):
            start = time.perf_counter()
            self.run("hob-snapshots", *words)
            took = 1000 * (time.perf_counter() - start)
            least = took if least is None or took < least else least
        return least


def measure_rebuilds(build, folder, token):
    """Commits of one changed file each; the images that retention keeps stay."""
    store = Store(build, folder, token)
    store.rebuild()
    first, changed, start = store.stored(), 0, time.monotonic()
    for number in range(REBUILDS):
        text = f"changed {number}\n" * 300
        store.commit({f"lib/m{number % 40}/f{number}.txt": text})
        changed += -(-len(text) // 4096) * 4096
        store.rebuild()
    return {"rebuilds": REBUILDS, "first_bytes": first, "changed_bytes": changed,
            "stored_bytes": store.stored(), "ratio": store.stored() / (first + changed),
            "seconds_each": (time.monotonic() - start) / REBUILDS}


def fill_catalog(path):
    """10,000 snapshots of 200 sandboxes, each with a layer of its own over one image's."""
    with sqlite3.connect(path) as db:
        image, = db.execute("SELECT max(id) FROM images").fetchone()
        below = [row[0] for row in db.execute(
            "SELECT layer_id FROM image_layers WHERE image_id = ? ORDER BY position", (image,))]
        for number in range(SNAPSHOTS):
            layer = db.execute(
                "INSERT INTO layers (state, staging, kind, title, step_key, id_base, id_count, host_usr,"
                " files, bytes, stored, created_ms) VALUES ('ready', '', 'session', 'bench', '', 0, 65536,"
                " 0, 10, 40960, 40960, ?)", (number,)).lastrowid
            snapshot = db.execute(
                "INSERT INTO snapshots (environment, image_id, reason, label, sandbox, commit_id,"
                " layer_count, own_count, bytes, stored, created_ms, metadata, manifest) VALUES ('app', ?,"
                " 'session', 'bench', ?, '', ?, 1, 1000000, 1000000, ?, '{}', '{}')",
                (image, f"sb-{number % 200:012x}", len(below) + 1, number)).lastrowid
            db.executemany("INSERT INTO snapshot_layers VALUES (?, 1, ?, ?)",
                           [(snapshot, place, each) for place, each in enumerate([*below, layer])])


def measure_inventory(build, folder, token):
    store = Store(build, folder, token)
    store.rebuild()
    fill_catalog(f"{folder}/store/catalog.db")
    return {"snapshots": SNAPSHOTS, "ls_ms": store.timed("ls"), "ls_json_ms": store.timed("ls", "--json"),
            "gc_ms": store.timed("gc", "--dry-run"), "start_ms": store.timed("ls", "--env", "nobody")}


def measure(build, folder, token):
    """{"rebuilds": [(file system, numbers)], "inventory": numbers}"""
    found = {"rebuilds": []}
    place = f"{folder}/rebuilds"
    os.mkdir(place)
    os.chmod(place, 0o755)
    kind = subprocess.run(["stat", "-f", "-c", "%T", place], stdout=subprocess.PIPE, check=True,
                          text=True).stdout.strip().replace("ext2/ext3", "ext4")
    found["rebuilds"].append((kind, measure_rebuilds(build, place, token)))
    place = f"{folder}/inventory"
    os.mkdir(place)
    os.chmod(place, 0o755)
    found["inventory"] = measure_inventory(build, place, token)
    if kind == "xfs" or not shutil.which("mkfs.xfs"):
        return found
    place, image = f"{folder}/rebuilds-xfs", f"{folder}/rebuilds.xfs"
    os.mkdir(place)
    with open(image, "wb") as file:
        file.truncate(2048 * MIB)
    try:
        subprocess.run(["mkfs.xfs", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
        os.chmod(place, 0o755)
        found["rebuilds"].append(("xfs in a loop file", measure_rebuilds(build, place, token)))
    finally:
        subprocess.run(["umount", place], check=False, stderr=subprocess.DEVNULL)
        os.remove(image)
    return found


def print_found(found, row):
    for name, numbers in found["rebuilds"]:
        row(f"{numbers['rebuilds']} rebuilds on {name}: stored", f"{numbers['stored_bytes'] / MIB:.1f} MiB",
            f"first and changed {(numbers['first_bytes'] + numbers['changed_bytes']) / MIB:.1f} MiB",
            f"{numbers['ratio']:.2f}x")
    numbers = found["inventory"]
    row(f"ls of {numbers['snapshots']} snapshots", f"{numbers['ls_ms']:.0f} ms",
        f"as JSON {numbers['ls_json_ms']:.0f} ms; of none {numbers['start_ms']:.0f} ms")
    row("gc that finds nothing there", f"{numbers['gc_ms']:.0f} ms")
