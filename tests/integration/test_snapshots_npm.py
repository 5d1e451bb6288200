"""A snapshot in the middle of a real `npm install`: restored, npm goes on from it and every package works.
The packages are those that npm itself or Debian has brought, packed, so that it needs no registry."""

import os
import shutil

import pytest
from hobtest import wait_for

PLACES = ["/usr/lib/node_modules/npm/node_modules", "/usr/share/nodejs", "/usr/share/npm/node_modules"]
MODULES = next((place for place in PLACES if os.path.isdir(place)), "")
WANTED = 60
SNAPSHOTS = 3


def modules():
    """Names of modules without a scope that have a package.json."""
    if not MODULES or not shutil.which("npm"):
        return []
    return sorted(name for name in os.listdir(MODULES)
                  if name[0].isalnum() and os.path.isfile(f"{MODULES}/{name}/package.json"))[:WANTED]


PREPARE = r"""
mkdir -p /workspace/app /workspace/packed && cd /workspace/packed
cat > /tmp/prepare.py <<'END'
import io, json, os, sys, tarfile
place, names = sys.argv[1], sys.argv[2:]
for name in names:
    top = os.path.join(place, name)
    with tarfile.open(name + ".tgz", "w:gz") as archive:
        for folder, below, files in os.walk(top):
            below[:] = [name for name in below if name != "node_modules"]
            for file in files:
                path = os.path.join(folder, file)
                inside = "package/" + os.path.relpath(path, top)
                if inside == "package/package.json":
                    about = json.load(open(path))
                    for key in ("dependencies", "devDependencies", "peerDependencies", "scripts",
                                "optionalDependencies", "bin"):
                        about.pop(key, None)
                    about["name"], about["version"] = name, "1.0.0"
                    data = json.dumps(about).encode()
                    info = tarfile.TarInfo(inside)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
                else:
                    archive.add(os.path.realpath(path), inside, recursive=False)
json.dump({"name": "app", "version": "1.0.0",
           "dependencies": {name: "file:../packed/" + name + ".tgz" for name in names}},
          open("/workspace/app/package.json", "w"))
END
python3 /tmp/prepare.py"""
INSTALL = "cd /workspace/app && npm install --offline --no-audit --no-fund --loglevel=error"
# What npm wrote down, what is there, and what it packed: all of one mind.
CHECK = r"""cd /workspace/app && npm ls --depth=0 > /dev/null && node -e '
const fs = require("fs"), names = Object.keys(require("./package.json").dependencies);
const lock = require("./package-lock.json"), hidden = require("./node_modules/.package-lock.json");
for (const name of names) {
  const about = JSON.parse(fs.readFileSync(`node_modules/${name}/package.json`));
  if (about.name !== name || !lock.packages[`node_modules/${name}`] || !hidden.packages[`node_modules/${name}`])
    throw new Error(name);
}
console.log(names.length);' && for name in node_modules/*/; do name=$(basename $name);
tar -xzf ../packed/$name.tgz -C /tmp && diff -r /tmp/package node_modules/$name >&2 || exit 1
rm -rf /tmp/package; done"""


@pytest.mark.skipif(not modules(), reason="npm and its modules are not here")
def test_in_the_middle_of_npm_install(shared):
    client = shared.client
    sandbox = client.create("tiny", idle_s=0)["id"]
    client.output(sandbox, f"{PREPARE} {MODULES} {' '.join(modules())}")
    # Without haste, so that there is a middle to be met.
    number = client.post(f"/v1/sandboxes/{sandbox}/exec", {"shell": INSTALL, "detach": True})["exec"]
    count = "find /workspace/app/node_modules -type f 2>/dev/null | wc -l"
    wait_for("npm to have begun", lambda: int(client.output(sandbox, count)) > 0)
    taken = [client.post(f"/v1/sandboxes/{sandbox}/snapshots", {})["id"] for _ in range(SNAPSHOTS)]
    done = client.get(f"/v1/sandboxes/{sandbox}/execs/{number}?wait=1")
    assert done["exit_code"] == 0, done
    assert client.output(sandbox, CHECK).strip() == str(len(modules()))
    seen = []
    for name in taken:
        restored = client.create(snapshot=name)["id"]
        seen.append(int(client.output(restored, count)))
        again = client.exec(restored, INSTALL)
        assert again["exit_code"] == 0, again
        assert client.output(restored, CHECK).strip() == str(len(modules()))
        client.delete(restored)
    assert seen[0] > 0
    client.delete(sandbox)
