"""Container images that cannot be had, or that are hostile: each build says why, and the next goes
through. Registries that want a token, break off, or are gone."""

import base64
import contextlib
import grp
import http.server
import json
import os
import tarfile
import threading

import pytest

import oci_kit
from git_servers import CuttingProxy
from oci_kit import entry, layer


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    oci_kit.needs("docker-registry")
    with oci_kit.registry(str(tmp_path_factory.mktemp("oci"))) as running:
        yield running


def fails(machine, *words, **keys):
    machine.environment("app", **keys)
    done = machine.hob_build("app", timeout=180)
    text = done.stdout + done.stderr
    assert done.returncode != 0, text
    for word in words:
        assert word in text, f"{word!r} is not in:\n{text}"
    assert os.listdir(f"{machine.store}/staging") == []
    return text


BAD = {
    "dotdot": ([entry("../escaped", b"x")], '".."'),
    "absolute": ([entry("/etc/escaped", b"x")], "absolute"),
    "through a link": ([entry("l", kind=tarfile.SYMTYPE, target="/"), entry("l/escaped", b"x")], "symbolic link"),
    "link out": ([entry("l", kind=tarfile.LNKTYPE, target="../../../etc/shadow")], '".."'),
    "link absolute": ([entry("l", kind=tarfile.LNKTYPE, target="/etc/shadow")], "absolute"),
    "whiteout of dotdot": ([entry("a"), entry("a/.wh...", b"")], "takes a name away"),
    "whiteout of nothing": ([entry("a"), entry("a/.wh.", b"")], "takes a name away"),
    "whiteout through a link": ([entry("l", kind=tarfile.SYMTYPE, target="/etc"), entry("l/.wh.passwd", b"")],
                                "symbolic link"),
}


def test_hostile_layers(machine, tmp_path):
    for number, (name, (entries, word)) in enumerate(BAD.items()):
        for below in ((), (layer(entry("fine", b"fine")),)):
            layout = oci_kit.Layout(f"{tmp_path}/{number}-{len(below)}")
            made = layout.image(*below, layer(*entries))
            text = fails(machine, word, base=f"oci:{layout.path}@{made['digest']}")
            assert "escaped" not in os.listdir("/"), f"{name}: {text}"


def test_layer_bombs_and_devices(machine, tmp_path):
    layout = oci_kit.Layout(f"{tmp_path}/bomb")
    made = layout.image(layer(entry("zeros", bytes(64 << 20))))
    fails(machine, "unpacks to more than", "limits", base=f"oci:{layout.path}@{made['digest']}",
          limits={"disk": "16MiB"})
    halves = oci_kit.Layout(f"{tmp_path}/halves")
    made = halves.image(*[layer(entry(f"zeros{i}", bytes(12 << 20))) for i in range(4)])
    fails(machine, "unpacks to more than", base=f"oci:{halves.path}@{made['digest']}", limits={"disk": "16MiB"})
    devices = oci_kit.Layout(f"{tmp_path}/devices")
    made = devices.image(layer(entry("null", kind=tarfile.CHRTYPE), entry("disk", kind=tarfile.BLKTYPE),
                               entry("fine", b"fine")))
    machine.environment("app", base=f"oci:{devices.path}@{made['digest']}")
    assert "2 device nodes" in machine.build("app").stdout


def test_wrong_digests(machine, kit, tmp_path):
    layout = oci_kit.Layout(f"{tmp_path}/image")
    made = layout.image(layer(entry("a", b"a")))
    kit.put("wrong:1", layout.path, made)
    fails(machine, "has no wrong with the digest", base=f"oci:{kit.host}/wrong@sha256:{'0' * 64}")
    # A tag is refused, with the digest that it has now.
    text = fails(machine, "app.yaml:", "has no digest", made["digest"], base=f"oci:{kit.host}/wrong:1")
    assert "write that" in text
    # What a blob holds is not what its name says.
    manifest = json.loads(kit.read(layout.path, made))
    blob = f"{layout.path}/blobs/sha256/{manifest['layers'][0]['digest'][7:]}"
    with open(blob, "r+b") as file:
        file.write(b"tampered")
    fails(machine, "has sha256", base=f"oci:{layout.path}@{made['digest']}")
    with open(blob, "ab") as file:
        file.write(bytes(100))
    fails(machine, "longer than", base=f"oci:{layout.path}@{made['digest']}")


def test_registry_that_breaks_off(machine, kit, tmp_path):
    """A blob is resumed where it broke off; a registry that is gone is said to be so."""
    layout = oci_kit.Layout(f"{tmp_path}/image")
    made = layout.image(layer(entry("noise", os.urandom(300_000))))
    kit.put("cut:1", layout.path, made)
    proxy = CuttingProxy(kit.port, 120_000)
    machine.environment("app", base=f"oci:127.0.0.1:{proxy.port}/cut@{made['digest']}")
    assert "trying again" in machine.build("app").stdout
    proxy.listener.close()
    other = layout.image(layer(entry("other", os.urandom(1000))))
    fails(machine, "127.0.0.1", base=f"oci:127.0.0.1:{proxy.port}/cut@{other['digest']}")
    kit.put("cut:2", layout.path, other)
    machine.environment("app", base=f"oci:{kit.host}/cut@{other['digest']}")
    machine.build("app")


class Guarded(http.server.BaseHTTPRequestHandler):
    """A registry that wants a token, and the server that gives it to user robot."""

    protocol_version = "HTTP/1.1"
    seen = None

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.seen.append((path, self.headers.get("Authorization")))
        if path == "/token":
            login = "Basic " + base64.b64encode(b"robot:open sesame").decode()
            good = self.headers.get("Authorization") == login and "scope=repository%3Aguarded%3Apull" in query
            return self.answer(200 if good else 401, json.dumps({"token": "tok-123"} if good else {}).encode())
        if self.headers.get("Authorization") != "Bearer tok-123":
            return self.answer(401, b"{}", {"WWW-Authenticate":
                f'Bearer realm="http://{self.headers["Host"]}/token",service="registry.test",'
                'scope="repository:guarded:pull"'})
        digest = self.server.tag if path.endswith("/manifests/1.0") else path.rsplit(":", 1)[-1]
        try:
            with open(f"{self.server.layout}/blobs/sha256/{digest}", "rb") as file:
                return self.answer(200, file.read())
        except FileNotFoundError:
            return self.answer(404, b"{}")

    def answer(self, code, body, headers=None):
        self.send_response(code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def guarded(layout, tag=None):
    handler = type("Handler", (Guarded,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.layout, server.tag = layout, tag
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], handler.seen
    finally:
        server.shutdown()
        server.server_close()


def write_secrets(machine):
    secrets = f"{machine.folder}/secrets"
    os.makedirs(secrets, exist_ok=True)
    for name, text in (("right", "open sesame"), ("wrong", "nonsense")):
        with open(f"{secrets}/{name}", "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.chmod(f"{secrets}/{name}", 0o640)
        os.chown(f"{secrets}/{name}", 0, grp.getgrnam("hob").gr_gid)


def test_tokens(machine, tmp_path):
    layout = oci_kit.Layout(f"{tmp_path}/image")
    made = layout.image(layer(entry("guarded", b"g")))
    write_secrets(machine)
    with guarded(layout.path) as (port, seen):
        base = f"127.0.0.1:{port}/guarded@{made['digest']}"
        fails(machine, "refuses to serve it to everybody", base=f"oci:{base}")
        fails(machine, "refuses user robot", base={"oci": base, "user": "robot", "secret": "wrong"})
        machine.environment("app", base={"oci": base, "user": "robot", "secret": "right"})
        done = machine.build("app")
        assert "sesame" not in done.stdout
        assert any(path.startswith("/v2/guarded/blobs/") and token == "Bearer tok-123" for path, token in seen)


def pin(machine, path, *words):
    done = machine.hob("env", "pin", *words, path)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_tags_are_pinned(machine, kit, tmp_path):
    """`hob env pin` asks the registry, with the secret where there is one, or looks into the layout; and what it has
    written is built."""
    layout = oci_kit.Layout(f"{tmp_path}/image")
    made = layout.image(layer(entry("pinned", b"p")))
    kit.put("pinned:1", layout.path, made)
    start = f"name: app # comments stay\nschedule: {{every: 0}}\nbase: oci:{kit.host}/pinned:1"
    path = machine.write(f"{machine.environments}/app.yaml", f"{start}   # a tag\n")
    shown = machine.hob("env", "pin", "--dry-run", path).stdout
    assert f"+base: oci:{kit.host}/pinned:1@{made['digest']}   # a tag\n" in shown
    assert pin(machine, path) == f"{start}@{made['digest']}   # a tag\n"
    machine.build("app")
    assert machine.hob("env", "pin", path).stdout == f"{path}: every version is exact\n"
    path = machine.write(f"{machine.environments}/app.yaml", f"name: app\nbase: oci:{kit.host}/pinned:2\n")
    done = machine.hob("env", "pin", path)
    assert done.returncode == 3 and f"{path}:2:7: {kit.host} has no pinned:2" in done.stderr, done.stderr
    # A layout that only root may read, and one of two images.
    os.chmod(f"{tmp_path}", 0o700)
    os.rename(layout.path, f"{machine.environments}/image")
    path = machine.write(f"{machine.environments}/app.yaml", "name: app\nbase: {oci: ./image}\n")
    assert pin(machine, path) == f"name: app\nbase: {{oci: ./image@{made['digest']}}}\n"
    oci_kit.run("tar", "-cf", f"{machine.environments}/image.tar", "-C", f"{machine.environments}/image", ".")
    path = machine.write(f"{machine.environments}/app.yaml", "name: app\nbase: oci:./image.tar\n")
    assert pin(machine, path) == f"name: app\nbase: oci:./image.tar@{made['digest']}\n"
    machine.build("app")
    with open(f"{machine.environments}/image/index.json", "w", encoding="utf-8") as file:
        json.dump({"schemaVersion": 2, "manifests": [made, made]}, file)
    path = machine.write(f"{machine.environments}/app.yaml", "name: app\nbase: oci:./image\n")
    done = machine.hob("env", "pin", path)
    assert done.returncode != 0 and "holds 2 images" in done.stderr and made["digest"] in done.stderr, done.stderr


def test_a_guarded_tag_is_pinned(machine, tmp_path):
    layout = oci_kit.Layout(f"{tmp_path}/image")
    made = layout.image(layer(entry("guarded", b"g")))
    write_secrets(machine)
    with guarded(layout.path, made["digest"][7:]) as (port, _):
        text = f"name: app\nbase:\n  oci: 127.0.0.1:{port}/guarded:1.0\n  user: robot\n  secret: "
        path = machine.write(f"{machine.environments}/app.yaml", f"{text}wrong\n")
        done = machine.hob("env", "pin", path)
        assert done.returncode != 0 and "refuses user robot" in done.stderr, done.stderr
        path = machine.write(path, f"{text}right\n")
        assert f"guarded:1.0@{made['digest']}\n" in pin(machine, path)
