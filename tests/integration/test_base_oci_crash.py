"""hob-build killed while it makes a base of a container image: the last image stays in use, nothing half-made is
found by the next build, which goes through, and downloads are what their names say."""

import hashlib
import os
import sqlite3
import tarfile

import pytest

import oci_kit
from git_servers import CuttingProxy
from hobtest import LONG, PATIENCE
from oci_kit import entry, layer


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    oci_kit.needs("docker-registry", "musl-gcc")
    folder = str(tmp_path_factory.mktemp("oci"))
    with oci_kit.registry(f"{folder}/registry") as running:
        running.kit_folder, running.lister = folder, oci_kit.compile_lister(folder)
        yield running


class Images:
    """Each is another: two layers by themselves, and one that is put into one with what is below it."""

    def __init__(self, machine, kit):
        self.machine, self.kit, self.number = machine, kit, 0
        with open(kit.lister, "rb") as file:
            self.program = file.read()

    def change(self):
        self.number += 1
        text = b"%d\n" % self.number
        layout = oci_kit.Layout(f"{self.machine.folder}/image-{self.number}")
        made = layout.image(
            layer(entry("bin"), entry("bin/list", self.program, 0o755), entry("first", text)),
            layer(entry("linked"), entry("linked/first", kind=tarfile.LNKTYPE, target="first")),
            layer(entry("top"), entry("top/file", text)), Env=[f"NUMBER={self.number}"])
        self.kit.put(f"crash:{self.number}", layout.path, made)
        self.machine.environment("app", base=f"oci:{self.kit.host}/crash@{made['digest']}", workdir="/")

    def check(self):
        machine = self.machine
        machine.start()
        made = machine.client.create("app")["id"]
        lines = machine.client.output(made, ["/bin/list", "/"], user="0:0").splitlines()
        assert f"NUMBER={self.number}" in machine.client.output(made, ["/bin/list", "--env"]).split("\n")
        machine.client.delete(made)
        machine.kill(15)
        size = len(f"{self.number}\n")
        files = {line.split(" ")[0]: line.split(" ")[3] for line in lines if line.split(" ")[1].startswith("100")}
        assert {files[name] for name in ("/first", "/linked/first", "/top/file")} == {str(size)}, lines
        assert any(line.startswith("/linked/first ") and line.endswith(" =/first") for line in lines), lines


def assert_tidy(machine):
    assert not os.listdir(f"{machine.store}/staging")
    with sqlite3.connect(f"file:{machine.store}/catalog.db?mode=ro", uri=True) as catalog:
        layers = {str(row[0]) for row in catalog.execute("SELECT id FROM layers")}
        states = {row[0] for row in catalog.execute("SELECT state FROM builds")}
    assert set(os.listdir(f"{machine.store}/layers")) == layers
    assert "running" not in states
    for name in os.listdir(f"{machine.store}/downloads"):
        if len(name) == 64:
            with open(f"{machine.store}/downloads/{name}", "rb") as file:
                assert hashlib.sha256(file.read()).hexdigest() == name


def points_of_a_build(machine):
    path = f"{machine.folder}/points"
    with open(path, "w", encoding="utf-8"):
        os.chmod(path, 0o666)
    done = machine.hob_build("app", env={"HOB_FAULT_LIST": path})
    assert done.returncode == 0, done.stdout + done.stderr
    with open(path, encoding="utf-8") as file:
        names = file.read().split()
    return sorted((name, number) for name in set(names) for number in range(1, names.count(name) + 1))


def test_killed_at_every_point_of_a_base(machine, kit):
    images = Images(machine, kit)
    images.change()
    points = points_of_a_build(machine)
    assert {("base.resolved", 1), ("base.fetched", 1), ("base.unpacked", 1), ("base.unpacked", 2)} <= set(points)
    of_the_image = ("base.resolved", "base.fetched", "base.unpacked")
    for name, number in points if LONG else [point for point in points if point[0] in of_the_image]:
        images.change()
        done = machine.hob_build("app", env={"HOB_FAULT": f"{name}:{number}"})
        assert done.returncode != 0 or name not in of_the_image, f"{name}:{number}: {done.stdout}"
        retry = machine.hob_build("app")
        assert retry.returncode == 0, f"after {name}:{number}: {retry.stdout}{retry.stderr}"
        assert_tidy(machine)
    images.check()


def test_killed_while_a_layer_comes(machine, kit):
    """In the middle of a blob: what has come goes on from there or is thrown away."""
    layout = oci_kit.Layout(f"{machine.folder}/image")
    made = layout.image(layer(entry("noise", os.urandom(300_000))))
    kit.put("slow:1", layout.path, made)
    proxy = CuttingProxy(kit.port, 120_000, stall=True)
    machine.environment("app", base=f"oci:127.0.0.1:{proxy.port}/slow@{made['digest']}")
    child = machine.hob_build_start("app")
    assert proxy.cut.wait(120 * PATIENCE)
    child.kill()
    child.wait()
    proxy.limit, proxy.stall = 1 << 30, False
    machine.build("app")
    assert_tidy(machine)
    proxy.stop.set()
    proxy.listener.close()
