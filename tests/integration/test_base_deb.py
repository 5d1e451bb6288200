"""Bases of a minimal Debian: made by mmdebstrap from a signed archive on loopback, as of one date."""

import contextlib
import json
import os
import threading
import time

import pytest

import deb_kit
import hobtest
import leftovers
from hobtest import wait_for


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    with deb_kit.archive(str(tmp_path_factory.mktemp("deb"))) as made:
        yield made


def fails(machine, *words, name="app", **keys):
    machine.environment(name, **keys)
    done = machine.hob_build(name, timeout=120)
    text = done.stdout + done.stderr
    assert done.returncode != 0, text
    for word in words:
        assert word in text, f"{word!r} is not in:\n{text}"
    assert os.listdir(f"{machine.store}/staging") == []
    return text


def installed(machine, image):
    done = machine.hob("images", "info", image, "--packages", "--json")
    assert done.returncode == 0, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout)["packages"]}


def test_made_once_and_recorded(machine, archive):
    """What is in it, that apt goes on from it, and that others take it without a word to the mirror."""
    machine.environment("app", base=archive.base(machine), packages={"apt": ["tiny-more=2:3.4-5"]}, workdir="/")
    explained = machine.hob_build("app", "--explain").stdout
    assert "base   deb:tiny@20240601T000000Z make: there is no layer of it" in explained
    assert "deb:tiny@20240601T000000Z: layer 1, " in machine.build("app").stdout
    asked = len(archive.asked)
    machine.environment("other", base=archive.base(machine), workdir="/")
    assert "deb:tiny@20240601T000000Z: layer 1, as before" in machine.build("other").stdout
    assert "deb:tiny@20240601T000000Z reuse layer 1" in machine.hob_build("other", "--explain").stdout
    assert len(archive.asked) == asked
    machine.start()
    made = machine.client.create("app")["id"]
    text = machine.client.output(made, ["sh", "-c", """
        cat /etc/tiny-configured /etc/more /etc/apt/sources.list; ls -A /var/lib/apt/lists /dev/null /tmp /opt
        [ ! -s /etc/resolv.conf ] && [ ! -e /etc/hostname ] && id -u && stat -c %u:%g /etc /usr/bin/dpkg"""])
    url = archive.mirror.replace("{date}", deb_kit.DATE)
    assert text.splitlines()[:3] == ["configured", "more",
                                     f"deb [signed-by=/etc/apt/keyrings/hob-base.gpg] {url} tiny main"], text
    assert text.splitlines()[-3:] == ["0", "0:0", "0:0"], text
    machine.client.delete(made)
    environments = {name: machine.client.get(f"/v1/environments/{name}")["head"] for name in ("app", "other")}
    packages = {name: installed(machine, head) for name, head in environments.items()}
    assert sorted(packages["other"]) == ["apt", "tiny-base", "tiny-data"]
    assert sorted(packages["app"]) == ["apt", "tiny-base", "tiny-data", "tiny-more"]
    for package in archive.packages:
        one = packages["app"][package.name]
        assert (one["version"], one["digest"]) == (package.version, f"sha256:{package.sha256}")
        assert one["requested"] == (package.name == "tiny-more")


def test_refused(machine, archive):
    """Without a date nothing is run; what cannot be had or is not as it should be is said, and leaves nothing."""
    asked = len(archive.asked)
    text = fails(machine, "app.yaml:", '"base" has no date', "now it would be deb:tiny@2", "hob env pin",
                 base=archive.base(machine, date=None))
    assert "T000000Z" in text
    text = fails(machine, "app.yaml:", "has a date that is none", base="deb:tiny@20240631T000000Z")
    assert len(archive.asked) == asked
    base = archive.base(machine)
    fails(machine, "mmdebstrap failed", "has the mirror this suite", base=archive.base(machine, suite="other"))
    fails(machine, "base.keyring must hold the key", base={key: base[key] for key in ("deb", "mirror")})
    fails(machine, "a file that user hob may read", base={**base, "keyring": "./none.gpg"})


@hobtest.only_long
def test_refused_late(machine, archive):
    base = archive.base(machine)
    fails(machine, "mmdebstrap failed", "as old as the date", base=archive.base(machine, date="20230101T000000Z"))
    fails(machine, "mmdebstrap failed", "check the network", base={**base, "mirror": "http://127.0.0.1:1/{date}"})
    fails(machine, "limits.disk", base=base, limits={"disk": "4MiB"})
    # A mirror without dates, that has moved on meanwhile.
    old = {**base, "deb": "tiny@20240101T000000Z", "mirror": archive.mirror.replace("{date}", deb_kit.DATE)}
    fails(machine, "release is of 20240531T182640Z, which is after 20240101T000000Z", base=old)
    machine.environment("app", base=base)
    machine.build("app")


def running(machine):
    """Processes with ids of this machine's sandboxes and builds."""
    return leftovers.ids_in_use(machine.id_base, hobtest.ID_SLOTS * 65536)


def test_killed(machine, archive):
    """In the middle of a download, and at each step after it: nothing is left, and the next build goes through; it
    takes what mends a package, too."""
    machine.environment("app", base=archive.base(machine))
    archive.hold = threading.Event()
    archive.asked.clear()
    try:
        child = machine.hob_build_start("app")
        wait_for("mmdebstrap asks for a package", lambda: any(path.endswith(".deb") for path in archive.asked), 120)
        assert running(machine)
        child.kill()
        child.wait()
        wait_for("all that it had started is gone", lambda: not running(machine), 120)
    finally:
        archive.hold.set()
        archive.hold = None
    for point in ("base.installed", "base.written") if hobtest.LONG else ():
        done = machine.hob_build("app", env={"HOB_FAULT": point})
        assert done.returncode == -9, done.stdout + done.stderr
        wait_for("nothing of it runs", lambda: not running(machine), 120)
    machine.environment("app", base=archive.base(machine, security=archive.mirror))
    machine.build("app")
    machine.start()
    found = installed(machine, "img-1")["tiny-data"]
    assert (found["version"], found["digest"]) == ("1.1", f"sha256:{archive.fixed.sha256}")
    assert os.listdir(f"{machine.store}/staging") == []
    assert len(os.listdir(f"{machine.store}/layers")) == 1


@hobtest.only_long
def test_debian_itself(machine):
    """From the network, with Debian's own keys: apt works in it, and has the digests of all there is."""
    machine.environment("app", workdir="/", build={"timeout": "30m"}, steps=[
        {"name": "apt", "run": "apt-get update && apt-get install -y --no-install-recommends hello && hello"}],
        base={"deb": time.strftime("bookworm@%Y%m%dT%H%M%SZ", time.gmtime()),
              "mirror": "http://deb.debian.org/debian"})
    done = machine.hob_build("app", timeout=1800)
    if any(words in done.stderr for words in ("check the network", "Temporary failure resolving")):
        pytest.skip(f"there is no Debian to be had: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    machine.start()
    made = machine.client.create("app")["id"]
    text = machine.client.output(made, "cat /etc/debian_version; hello; ls -ld /tmp; dpkg --audit; ls -A /dev/pts")
    assert text.startswith("12.") and "Hello, world!" in text and "drwxrwxrwt" in text, text
    machine.client.delete(made)
    found = installed(machine, "img-1")
    assert {"libc6", "dpkg", "apt", "base-files"} <= set(found) and len(found) > 60
    assert all(one["digest"].startswith("sha256:") for one in found.values())
