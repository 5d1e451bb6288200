"""Bases from container images: what is in a sandbox is what other tools unpack, file by file."""

import json
import os
import shutil
import tarfile

import pytest

import oci_kit
from oci_kit import entry, layer

LINK, SYMLINK = tarfile.LNKTYPE, tarfile.SYMTYPE


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    oci_kit.needs("docker-registry", "skopeo", "umoci", "musl-gcc")
    folder = str(tmp_path_factory.mktemp("oci"))
    with oci_kit.registry(f"{folder}/registry") as running:
        running.kit_folder = folder
        running.lister = oci_kit.compile_lister(folder)
        yield running


def lister_layer(kit, *more):
    with open(kit.lister, "rb") as file:
        return layer(entry("bin"), entry("bin/list", file.read(), 0o755), *more)


def listing(machine, name, command="/bin/list"):
    made = machine.client.create(name)
    text = machine.client.output(made["id"], [command, "/"], user="0:0")
    machine.client.delete(made["id"])
    return text.splitlines()


def unpacked(kit, layout, tag="latest"):
    """What umoci makes of it, as a list."""
    folder = f"{layout}.unpacked"
    oci_kit.run("umoci", "raw", "unpack", "--image", f"{layout}:{tag}", folder)
    lines = oci_kit.run(kit.lister, folder).splitlines()
    shutil.rmtree(folder)
    return lines


def same(machine, kit, layout, base, tag="latest"):
    """Builds from `base`, and compares a sandbox with what umoci unpacks of the layout."""
    machine.environment("app", base=base, steps=[], workdir="/")
    done = machine.build("app")
    machine.start()
    wanted = unpacked(kit, layout, tag)
    assert len(wanted) >= 3
    assert listing(machine, "app") == wanted
    return done.stdout


def layers_of(machine, name="app"):
    head = machine.client.get(f"/v1/environments/{name}")["head"]
    return machine.client.get(f"/v1/images/{head}")["layers"]


def deep(kit):
    """Layers that use everything which one may say."""
    return (
        lister_layer(
            kit, entry("etc"), entry("etc/keep", b"keep\n", 0o600, uid=7, gid=8), entry("etc/gone", b"gone\n"),
            entry("etc/replaced", b"old\n"), entry("opt"), entry("opt/full"), entry("opt/full/a", b"a"),
            entry("opt/full/deep"), entry("opt/full/deep/b", b"b"), entry("opt/removed"),
            entry("opt/removed/c", b"c"), entry("opt/again"), entry("opt/again/old", b"old"),
            entry("opt/was-file", b"file"), entry("opt/was-dir"), entry("opt/was-dir/x", b"x"),
            entry("links"), entry("links/first", b"linked\n"), entry("links/second", kind=LINK, target="links/first"),
            entry("links/soft", kind=SYMLINK, target="../etc/keep"),
            entry("links/outside", kind=SYMLINK, target="/etc/passwd"),
            entry("n\u00e4me \u2603", b"utf-8\n"), entry("suid", b"s", 0o4755),
            entry("marked", b"m", xattrs={"user.color": "blue", "user.overlay.opaque": "y"}),
            entry("fifo", kind=tarfile.FIFOTYPE)),
        layer(entry("etc"), entry("etc/.wh.gone", b""), entry("etc/replaced", b"new, and longer\n"),
              entry("opt"), entry("opt/full"), entry("opt/full/.wh..wh..opq", b""), entry("opt/full/new", b"new"),
              entry("opt/.wh.removed", b""), entry("opt/.wh.again", b""), entry("opt/again", mode=0o750),
              entry("opt/again/fresh", b"fresh"), entry("opt/.wh.was-file", b""), entry("opt/was-file"),
              entry("opt/was-file/inside", b"i"), entry("opt/was-dir", b"file now")),
        layer(entry("etc", mode=0o711), entry("etc/gone", b"back\n"), entry("links"),
              entry("links/third", b"linked here\n"), entry("links/fourth", kind=LINK, target="links/third")))


def test_layers_of_a_layout(machine, kit, tmp_path):
    """Whiteouts, opaque folders, links, attributes, owners, modes; each layer is one of hob."""
    layout = oci_kit.Layout(f"{tmp_path}/image")
    made = layout.image(*deep(kit))
    machine.environment("app", base=f"oci:{layout.path}@{made['digest']}", workdir="/")
    print(machine.build("app").stdout)
    machine.start()
    lines = listing(machine, "app")
    names = [line.split(" ")[0] for line in lines]
    assert [name for name in names if name.startswith("/opt")] == [
        "/opt", "/opt/again", "/opt/again/fresh", "/opt/full", "/opt/full/new", "/opt/was-dir", "/opt/was-file",
        "/opt/was-file/inside"]
    assert len(layers_of(machine)) == 4
    layout.entries[-1]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    layout.write_index()
    wanted = [line.replace(" user.overlay.opaque=y", "") for line in unpacked(kit, layout.path)]
    assert lines == wanted


def umoci_image(kit, path):
    """Made and changed as people do: unpack, change files, repack; then inserts."""
    source = f"{path}.source"
    os.makedirs(f"{source}/opt")
    for name in ("one", "two"):
        with open(f"{source}/opt/{name}", "w", encoding="utf-8") as file:
            file.write(name * 100)
    oci_kit.run("umoci", "init", "--layout", path)
    oci_kit.run("umoci", "new", "--image", f"{path}:latest")
    bundle = f"{path}.bundle"
    oci_kit.run("umoci", "unpack", "--image", f"{path}:latest", bundle)
    root = f"{bundle}/rootfs"
    os.makedirs(f"{root}/bin")
    shutil.copy(kit.lister, f"{root}/bin/list")
    for number in range(40):
        os.makedirs(f"{root}/srv/{number}")
        for name in ("a", "b"):
            with open(f"{root}/srv/{number}/{name}", "w", encoding="utf-8") as file:
                file.write(f"{number} {name}\n" * 50)
    os.link(f"{root}/srv/1/a", f"{root}/srv/1/link")
    oci_kit.run("umoci", "repack", "--refresh-bundle", "--image", f"{path}:latest", bundle)
    shutil.rmtree(f"{root}/srv/2")
    shutil.rmtree(f"{root}/srv/3")
    os.mkdir(f"{root}/srv/3")
    os.unlink(f"{root}/srv/4/a")
    os.symlink("../5/a", f"{root}/srv/4/a")
    os.chmod(f"{root}/srv/6", 0o700)
    os.link(f"{root}/srv/7/a", f"{root}/srv/7/late-link")
    os.setxattr(f"{root}/srv/8/a", "user.note", b"noted")
    os.chown(f"{root}/srv/9/a", 1000, 1001)
    oci_kit.run("umoci", "repack", "--image", f"{path}:latest", bundle)
    shutil.rmtree(bundle)
    oci_kit.run("umoci", "config", "--image", f"{path}:latest", "--config.env", "GREETING=hello",
                "--config.env", "PATH=/bin", "--config.workingdir", "/srv/1", "--config.user", "1000:1001")
    return path


@pytest.fixture(scope="module")
def image(kit):
    return umoci_image(kit, f"{kit.kit_folder}/made")


def test_image_of_a_registry(machine, kit, image):
    digest = kit.push(image, "latest", "plain:latest")
    said = same(machine, kit, image, f"oci:{kit.host}/plain@{digest}")
    assert "1 layers" in said or "2 layers" in said, said


def buildah_image(kit, folder):
    """As `buildah` makes them from nothing: a layer copied in, then one of changes in the mounted container."""
    storage = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]

    def buildah(*words):
        return oci_kit.run("buildah", *storage, *words, env={**os.environ, "BUILDAH_ISOLATION": "chroot"}).strip()

    source = f"{folder}/source"
    os.makedirs(f"{source}/bin")
    os.makedirs(f"{source}/data/gone")
    shutil.copy(kit.lister, f"{source}/bin/list")
    for name in ("gone/file", "kept", "replaced"):
        with open(f"{source}/data/{name}", "w", encoding="utf-8") as file:
            file.write(name * 50)
    try:
        first = buildah("from", "scratch")
    except AssertionError as failure:
        pytest.skip(f"buildah does not work on this machine: {str(failure)[-300:]}")
    buildah("copy", "-q", first, source, "/")
    buildah("commit", "-q", first, "hob-first")
    second = buildah("from", "--pull-never", "hob-first")
    root = buildah("mount", second).splitlines()[-1]
    shutil.rmtree(f"{root}/data/gone")
    os.unlink(f"{root}/data/replaced")
    os.mkdir(f"{root}/data/replaced")
    os.link(f"{root}/data/kept", f"{root}/data/linked")
    os.symlink("kept", f"{root}/data/soft")
    os.chmod(f"{root}/data/kept", 0o640)
    os.chown(f"{root}/data/kept", 1000, 1001)
    buildah("umount", second)
    buildah("config", "--env", "GREETING=hello", "--workingdir", "/data", "--user", "1000:1001", second)
    buildah("commit", "-q", second, "hob-second")
    buildah("push", "-q", "hob-second", f"oci:{folder}/layout:latest")
    buildah("push", "-q", "--tls-verify=false", "hob-second", f"docker://{kit.host}/buildah:1")
    return f"{folder}/layout"


def test_image_of_buildah(machine, kit, tmp_path):
    oci_kit.needs("buildah")
    layout = buildah_image(kit, str(tmp_path))
    same(machine, kit, layout, f"oci:{kit.host}/buildah@{kit.digest('buildah:1')}")
    names = [item["title"] for item in layers_of(machine)]
    assert len(names) >= 2 and all(name.startswith("base") for name in names), names
    machine.kill(15)
    machine.environment("local", base=f"oci:{layout}@{oci_kit.digest_of(layout, 'latest')}")
    machine.build("local")
    machine.start()
    made = machine.client.create("local")
    assert (made["user"], made["cwd"]) == ("1000:1001", "/data")
    assert "GREETING=hello" in machine.client.output(made["id"], ["/bin/list", "--env"]).split("\n")


def test_docker_manifest(machine, kit, image):
    digest = kit.push(image, "latest", "docker:1", "--format", "v2s2")
    same(machine, kit, image, f"oci:{kit.host}/docker:1@{digest}")


def test_zstd_layers(machine, kit, tmp_path):
    layout = oci_kit.Layout(f"{tmp_path}/image")
    layout.image(lister_layer(kit, entry("zstd", b"zstd" * 1000)), packed=False)
    layout.entries[-1]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    layout.write_index()
    digest = kit.push(layout.path, "latest", "packed:1", "--dest-compress-format", "zstd", "--format", "oci")
    assert b"+zstd" in kit.manifest("packed", digest)
    same(machine, kit, layout.path, f"oci:{kit.host}/packed@{digest}")


def test_what_the_config_says(machine, kit, tmp_path):
    """Variables, user and folder come from the image where the environment says nothing."""
    layout = oci_kit.Layout(f"{tmp_path}/image")
    made = layout.image(lister_layer(kit, entry("srv", uid=1000)), User="1000:1001", WorkingDir="/srv",
                        Env=["PATH=/bin", "COLOR=blue", "EMPTY=", "nonsense"])
    base = f"oci:{layout.path}@{made['digest']}"
    machine.environment("app", base=base, env={"COLOR": "red"})
    machine.environment("own", base=base, user="7", workdir="/bin")
    machine.build("app")
    machine.build("own")
    machine.start()
    for name, user, folder, color in (("app", "1000:1001", "/srv", "red"), ("own", "7", "/bin", "blue")):
        made = machine.client.create(name)
        assert (made["user"], made["cwd"]) == (user, folder)
        env = machine.client.output(made["id"], ["/bin/list", "--env"]).split("\n")
        assert f"COLOR={color}" in env and "EMPTY=" in env and "nonsense" not in env
        machine.client.delete(made["id"])


def test_services_run_as_the_config_says(machine, kit, tmp_path):
    """Theirs and prime's variables, user and folder, and in the gate; and --explain knows steps and layers."""
    layout = oci_kit.Layout(f"{tmp_path}/image")
    with open(kit.lister, "rb") as file:
        shell = file.read()
    made = layout.image(lister_layer(kit, entry("bin/sh", shell, 0o755), entry("srv", uid=1000, gid=1001)),
                        User="1000:1001", WorkingDir="/srv", Env=["COLOR=blue"])
    base = f"oci:{layout.path}@{made['digest']}"
    machine.environment("app", base=base, services=[{"name": "web", "run": "stay web", "ready": {"file": "/srv/web"}}],
                        steps=[{"name": "one", "run": "one"}], prime={"run": "primed"}, pool={"min": 1, "max": 2})

    def plan():
        done = machine.hob_build("--explain", "--json", "app")
        assert done.returncode == 0, done.stderr
        return [(row["kind"], row["action"], row["why"]) for row in json.loads(done.stdout)["layers"]]
    assert plan() == [("base", "make", "its manifest has not been read yet"),
                      ("step", "run", "the image before has no such step")]
    machine.build("app")
    assert plan() == [("base", "reuse", "all of its 1 layers are there"),
                      ("step", "reuse", "nothing in the sources changed")]
    machine.start()
    machine.wait_ready("app", 1, 60)
    made = machine.client.create("app")["id"]
    for name in ("web", "primed", "one"):
        assert machine.client.output(made, ["/bin/list", "--cat", name]) == "1000:1001 /srv blue", name


def test_links_and_folders_of_lower_layers(machine, kit, tmp_path):
    """A layer that only makes sense over those below it is put into one with them."""
    layout = oci_kit.Layout(f"{tmp_path}/image")
    made = layout.image(
        lister_layer(kit, entry("srv", mode=0o750, uid=5), entry("srv/file", b"below\n"), entry("srv/gone", b"g")),
        layer(entry("srv/new", b"without its folder\n"), entry("srv/.wh.gone", b"")),
        layer(entry("other"), entry("other/link", kind=LINK, target="srv/file")),
        layer(entry("top"), entry("top/alone", b"alone\n")))
    layout.entries[-1]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    layout.write_index()
    said = same(machine, kit, layout.path, f"oci:{layout.path}@{made['digest']}")
    assert "does not stand by itself" in said
    assert [item["title"] for item in layers_of(machine)][1] == "base oci 1-3" and len(layers_of(machine)) == 3
    # What was found out is remembered: nothing is unpacked again.
    done = machine.hob_build("app", "--force")
    assert "as before" in done.stdout, done.stdout


def test_many_layers(machine, kit, tmp_path):
    """More than a chain should have, one of them twice, and empty ones."""
    layout = oci_kit.Layout(f"{tmp_path}/image")
    again = layer(entry("again"), entry("again/file", b"again\n"))
    numbered = [layer(entry("n"), entry(f"n/{i}", b"%d" % i), *([entry(f"n/.wh.{i - 1}", b"")] if i % 3 == 0 else []))
                for i in range(1, 17)]
    made = layout.image(lister_layer(kit), again, *numbered[:3], again, *numbered[3:])
    layout.entries[-1]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    layout.write_index()
    same(machine, kit, layout.path, f"oci:{layout.path}@{made['digest']}")
    assert len(layers_of(machine)) == 13


def test_layers_are_shared(machine, kit, tmp_path):
    """Another image with the same blobs takes the layers, without a network."""
    layout = oci_kit.Layout(f"{tmp_path}/image")
    below = lister_layer(kit)
    one = layout.image(below, layer(entry("one", b"1")))
    two = layout.image(below, layer(entry("two", b"2")))
    kit.put("share:1", layout.path, one)
    kit.put("share:2", layout.path, two)
    machine.environment("app", base=f"oci:{kit.host}/share@{one['digest']}")
    machine.environment("other", base=f"oci:{kit.host}/share@{two['digest']}")
    machine.environment("third", base=f"oci:{kit.host}/share@{two['digest']}", env={"A": "1"})
    assert "2 unpacked" in machine.build("app").stdout
    assert "1 unpacked" in machine.build("other").stdout
    kit.stop()
    try:
        assert "as before" in machine.build("third").stdout
    finally:
        kit.start()
    machine.start()
    first, second = layers_of(machine), layers_of(machine, "other")
    assert [item["id"] for item in first[:2]] == [item["id"] for item in second[:2]]
    assert first[2]["id"] != second[2]["id"]


def test_index_of_two_architectures(machine, kit, tmp_path):
    layout = oci_kit.Layout(f"{tmp_path}/image")
    ours = layout.image(lister_layer(kit, entry("ours", b"yes")))
    other = layout.image(layer(entry("theirs", b"no")), architecture="s390x")
    attestation = {**layout.document({"schemaVersion": 2}, oci_kit.MANIFEST),
                   "platform": {"architecture": "unknown", "os": "unknown"}}
    both = layout.index(other, attestation, ours)
    alone = layout.index(other)
    kit.put("index:both", layout.path, {**layout.index(other, ours)})
    machine.environment("app", base=f"oci:{kit.host}/index@{layout.index(other, ours)['digest']}")
    machine.build("app")
    machine.environment("local", base=f"oci:{layout.path}@{both['digest']}")
    machine.build("local")
    for base, word in ((alone, "linux/s390x"), (other, "linux/s390x")):
        machine.environment("foreign", base=f"oci:{layout.path}@{base['digest']}")
        done = machine.hob_build("foreign")
        assert done.returncode != 0 and word in done.stderr, done.stderr


def test_archive_of_a_layout(machine, kit, image, tmp_path):
    path = f"{tmp_path}/image.tar"
    oci_kit.run("skopeo", "copy", "-q", f"oci:{image}:latest", f"oci-archive:{path}:latest")
    with tarfile.open(path) as tar:
        index = json.load(tar.extractfile("index.json"))
    same(machine, kit, image, f"oci:{path}@{index['manifests'][0]['digest']}")
