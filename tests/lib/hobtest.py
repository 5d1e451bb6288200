"""A real hobd on a temporary store, and a client for its API, for the integration tests.

Everything that a Hob makes carries the run's token (see leftovers.py). `close` ends it and then
insists that no process, mount, cgroup or folder is left, that nothing in a sandbox's id range still
runs, and that no sanitizer complained in the daemon's log.
"""

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.parse

import leftovers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("HOB_BUILD", os.path.join(ROOT, "build/release"))
TOKEN = os.environ.setdefault("HOB_TEST_RUN", str(os.getpid()))
# Ranges for test daemons, above what install-deps gives to the installed hob.
ID_FIRST = 1879048192 + 2048 * 65536
ID_SLOTS = 288
ID_DAEMONS = 7
# Sanitized programs are several times slower.
PATIENCE = 4 if "asan" in BUILD or "coverage" in BUILD else 1
ALARMS = ("AddressSanitizer", "LeakSanitizer", "runtime error:", "ThreadSanitizer", "Assertion `")


class Failure(Exception):
    """A reply that is not the one wanted: status, kind and message."""

    def __init__(self, status, error):
        self.status, self.kind = status, error.get("kind")
        self.message, self.hint = error.get("message", ""), error.get("hint", "")
        super().__init__(f"{status} {self.kind}: {self.message} ({self.hint})")


def wait_for(what, condition, seconds=30):
    """Polls until the condition is true, and returns its value."""
    end = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds * PATIENCE} s in vain for {what}")
        time.sleep(0.02)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("hob", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Reply:
    def __init__(self, response, body):
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


class Client:
    """One API. Each call is a connection of its own unless `connection` is given."""

    def __init__(self, path, timeout=60):
        self.path, self.timeout = path, timeout * PATIENCE

    def connect(self):
        return UnixConnection(self.path, self.timeout)

    def raw(self, method, path, body=None, headers=None, connection=None):
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        link = connection or self.connect()
        try:
            link.request(method, path, body=body, headers=headers)
            response = link.getresponse()
            return Reply(response, response.read())
        finally:
            if connection is None:
                link.close()

    def call(self, method, path, body=None, **more):
        reply = self.raw(method, path, body, **more)
        if reply.status >= 400:
            try:
                error = reply.error
            except (ValueError, KeyError, TypeError):
                error = {"kind": "not hob's JSON", "message": repr(reply.body[:300])}
            raise Failure(reply.status, error)
        return reply.json if reply.body else None

    def get(self, path, **more):
        return self.call("GET", path, **more)

    def post(self, path, body=None, **more):
        return self.call("POST", path, body if body is not None else {}, **more)

    def create(self, environment=None, **more):
        body = dict(more)
        if environment is not None:
            body["environment"] = environment
        return self.post("/v1/sandboxes", body)

    def delete(self, sandbox):
        return self.call("DELETE", f"/v1/sandboxes/{sandbox}")

    def exec(self, sandbox, command, **more):
        """Captured; a text is given to the shell. Output comes back as text, or bytes if it was not
        UTF-8."""
        key = "shell" if isinstance(command, str) else "argv"
        result = self.post(f"/v1/sandboxes/{sandbox}/exec", {key: command, **more})
        for stream in ("stdout", "stderr"):
            if result.get(f"{stream}_encoding") == "base64":
                result[stream] = base64.b64decode(result[stream])
        return result

    def output(self, sandbox, command, **more):
        result = self.exec(sandbox, command, **more)
        assert result["exit_code"] == 0, result
        return result["stdout"]

    def file_path(self, sandbox, path):
        return f"/v1/sandboxes/{sandbox}/files/{urllib.parse.quote(path.lstrip('/'))}"

    def stream(self, method, path, body=None):
        return EventStream(self, method, path, body)

    def terminal(self, sandbox, request):
        return WebSocket(self, f"/v1/sandboxes/{sandbox}/exec", request)


class EventStream:
    """Server-sent events, one at a time: (id, event, data as JSON)."""

    def __init__(self, client, method, path, body=None):
        self.link = client.connect()
        data = json.dumps(body).encode() if body is not None else None
        self.link.request(method, path, body=data, headers={"Accept": "text/event-stream"})
        self.response = self.link.getresponse()
        if self.response.status >= 400:
            text = self.response.read()
            self.close()
            raise Failure(self.response.status, json.loads(text)["error"])
        assert self.response.headers["Content-Type"].startswith("text/event-stream")

    def __iter__(self):
        fields = {}
        for line in self.response:
            line = line.decode().rstrip("\n")
            if line:
                key, _, value = line.partition(":")
                if key:
                    fields[key] = fields.get(key, "") + value.removeprefix(" ")
            elif fields:
                yield fields.get("id"), fields.get("event"), json.loads(fields["data"])
                fields = {}

    def close(self):
        if self.link.sock is not None:
            self.link.sock.close()
        self.link.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class WebSocket:
    """The little of RFC 6455 that a test needs; frames are (opcode, payload)."""

    TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

    def __init__(self, client, path, request):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(client.timeout)
        self.sock.connect(client.path)
        self.data = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall((f"GET {path} HTTP/1.1\r\nHost: hob\r\nUpgrade: websocket\r\n"
                           f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                           "Sec-WebSocket-Version: 13\r\n\r\n").encode())
        while b"\r\n\r\n" not in self.data:
            self.fill()
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        self.head = head.decode()
        self.status = int(self.head.split()[1])
        if self.status == 101:
            self.text(request)

    def fill(self):
        more = self.sock.recv(65536)
        if not more:
            raise EOFError("the connection ended")
        self.data += more

    def take(self, count):
        while len(self.data) < count:
            self.fill()
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def frame(self):
        first, second = self.take(2)
        length = second & 127
        if length == 126:
            length = struct.unpack(">H", self.take(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", self.take(8))[0]
        assert not second & 128, "a server does not mask"
        return first & 15, self.take(length)

    def send(self, opcode, payload):
        mask = os.urandom(4)
        length = len(payload)
        size = (bytes([128 | length]) if length < 126 else
                bytes([254]) + struct.pack(">H", length) if length < 65536 else
                bytes([255]) + struct.pack(">Q", length))
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
        self.sock.sendall(bytes([128 | opcode]) + size + mask + masked)

    def text(self, message):
        self.send(self.TEXT, json.dumps(message).encode())

    def binary(self, data):
        self.send(self.BINARY, data)

    def read_until(self, pattern):
        """Output so far, when it matches; both streams together."""
        seen = b""
        while not re.search(pattern, seen):
            opcode, payload = self.frame()
            if opcode == self.BINARY:
                seen += payload[1:]
            elif opcode == self.CLOSE:
                raise AssertionError(f"closed before {pattern!r}; seen: {seen!r}")
        return seen

    def finish(self):
        """Everything up to the close: (stdout, stderr, [messages], close code)."""
        streams, messages = {1: b"", 2: b""}, []
        while True:
            opcode, payload = self.frame()
            if opcode == self.BINARY:
                streams[payload[0]] += payload[1:]
            elif opcode == self.TEXT:
                messages.append(json.loads(payload))
            elif opcode == self.CLOSE:
                code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else None
                return streams[1], streams[2], messages, code

    def close(self):
        self.sock.close()


def git(folder, *words):
    quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "HOME": folder,
             "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.com",
             "GIT_COMMITTER_NAME": "Test", "GIT_COMMITTER_EMAIL": "test@example.com"}
    done = subprocess.run(["git", "-C", folder, *words], env={**os.environ, **quiet}, check=True,
                          stdout=subprocess.PIPE)
    return done.stdout.decode().strip()


class Repository:
    """A small git repository that grows by commits."""

    def __init__(self, path):
        self.path = path
        os.makedirs(path)
        git(path, "init", "-q", "-b", "main")
        self.commit({"hello.txt": "hello\n", "src/main.c": "int main(void)\n{\n\treturn 0;\n}\n"})

    def commit(self, files, message="Change something"):
        for name, text in files.items():
            full = os.path.join(self.path, name)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(text)
        git(self.path, "add", "-A")
        git(self.path, "commit", "-q", "-m", message)
        return self.commit_id()

    def commit_id(self):
        return git(self.path, "rev-parse", "HEAD")


class Hob:
    """One store, one folder of environments, and a daemon that may be started and killed."""

    numbers = iter(range(1 << 20))

    def __init__(self, **settings):
        number = next(self.numbers)
        self.folder = tempfile.mkdtemp(prefix="h")
        os.chmod(self.folder, 0o755)
        self.store, self.run = f"{self.folder}/store", f"{self.folder}/run"
        self.environments = f"{self.folder}/environments"
        self.config, self.log_file = f"{self.folder}/hob.yaml", f"{self.folder}/hobd.log"
        self.socket = f"{self.run}/hob.sock"
        self.cgroup = f"{leftovers.CGROUP_PREFIX}{TOKEN}-{os.getpid()}-{number}"
        slot = (os.getpid() + number) % ID_DAEMONS
        self.id_base = ID_FIRST + slot * ID_SLOTS * 65536
        self.client = Client(self.socket)
        self.daemon = None
        self.children = []
        os.mkdir(self.environments)
        self.settings = {"store": self.store, "run": self.run, "environments": self.environments,
                         "cgroup": self.cgroup, "id_base": self.id_base, "id_slots": ID_SLOTS,
                         "launchers": 1, "max_sandboxes": 250, "log_level": "debug", **settings}
        self.write(self.config, "".join(f"{key}: {json.dumps(value)}\n"
                                        for key, value in self.settings.items()))

    def write(self, path, text):
        temporary = f"{self.folder}/.new"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
        return path

    def repository(self, name):
        return Repository(f"{self.folder}/repos/{name}")

    def environment(self, name, **keys):
        """Writes NAME.yaml; JSON is YAML. Builds happen only when told unless keys say otherwise."""
        keys = {"name": name, "schedule": {"every": 0}, "pool": {"min": 0, "max": 8}, **keys}
        keys = {key: value for key, value in keys.items() if value is not None}
        return self.write(f"{self.environments}/{name}.yaml", json.dumps(keys, indent=1))

    def program(self, name):
        return os.path.join(BUILD, name)

    def environ(self, env=None):
        return {**os.environ, "HOB_TEST_RUN": TOKEN, **(env or {})}

    def hob_build(self, *words, env=None, timeout=120, **more):
        """The finished process; output as text."""
        return subprocess.run([self.program("hob-build"), "--config", self.config, *words],
                              env=self.environ(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace", check=False,
                              timeout=timeout * PATIENCE, **more)

    def hob_build_start(self, *words, env=None):
        child = subprocess.Popen([self.program("hob-build"), "--config", self.config, *words],
                                 env=self.environ(env), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.children.append(child)
        return child

    def build(self, name):
        done = self.hob_build(name)
        assert done.returncode == 0, f"hob-build {name}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def hob(self, *words, env=None, timeout=60, stdin=None):
        return subprocess.run([self.program("hob"), "--config", self.config, *words],
                              env=self.environ(env), input=stdin, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace", check=False,
                              timeout=timeout * PATIENCE)

    def start(self, env=None):
        with open(self.log_file, "ab") as log:
            self.daemon = subprocess.Popen([self.program("hobd"), "--config", self.config],
                                           env=self.environ(env), stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=log)
        wait_for("hobd to answer", self.is_up)
        return self

    def is_up(self):
        if self.daemon.poll() is not None:
            raise AssertionError(f"hobd ended with {self.daemon.returncode}:\n{self.tail()}")
        try:
            return Client(self.socket, 5).raw("GET", "/healthz").status == 200
        except OSError:
            return False

    def kill(self, number=signal.SIGKILL):
        self.daemon.send_signal(number)
        code = self.daemon.wait(30 * PATIENCE)
        self.daemon = None
        return code

    def log(self):
        return leftovers.read_text(self.log_file)

    def tail(self, lines=60):
        return "\n".join(self.log().splitlines()[-lines:])

    def pool(self, name):
        return next(entry for entry in self.client.get("/v1/pool")["environments"]
                    if entry["environment"] == name)

    def wait_ready(self, name, count, seconds=60):
        wait_for(f"{count} ready sandboxes of {name}", lambda: self.pool(name)["ready"] == count, seconds)

    def launchers(self):
        """Root processes that hobd forked: its children with the same executable."""
        pid = self.daemon.pid
        text = leftovers.read_text(f"/proc/{pid}/task/{pid}/children")
        return [int(word) for word in text.split()]

    def init_pids(self):
        return sorted(leftovers.ids_in_use(self.id_base, ID_SLOTS * 65536))

    def close(self):
        if self.link.sock is not None:
            self.link.sock.close()
        self.link.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class WebSocket:
    """The little of RFC 6455 that a test needs; frames are (opcode, payload)."""

    TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

    def __init__(self, client, path, request):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(client.timeout)
        self.sock.connect(client.path)
        self.data = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.sock.sendall((f"GET {path} HTTP/1.1\r\nHost: hob\r\nUpgrade: websocket\r\n"
                           f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                           "Sec-WebSocket-Version: 13\r\n\r\n").encode())
        while b"\r\n\r\n" not in self.data:
            self.fill()
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        self.head = head.decode()
        self.status = int(self.head.split()[1])
        if self.status == 101:
            self.text(request)

    def fill(self):
        more = self.sock.recv(65536)
        if not more:
            raise EOFError("the connection ended")
        self.data += more

    def take(self, count):
        while len(self.data) < count:
            self.fill()
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def frame(self):
        first, second = self.take(2)
        length = second & 127
        if length == 126:
            length = struct.unpack(">H", self.take(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", self.take(8))[0]
        assert not second & 128, "a server does not mask"
        return first & 15, self.take(length)

    def send(self, opcode, payload):
        mask = os.urandom(4)
        length = len(payload)
        size = (bytes([128 | length]) if length < 126 else
                bytes([254]) + struct.pack(">H", length) if length < 65536 else
                bytes([255]) + struct.pack(">Q", length))
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
        self.sock.sendall(bytes([128 | opcode]) + size + mask + masked)

    def text(self, message):
        self.send(self.TEXT, json.dumps(message).encode())

    def binary(self, data):
        self.send(self.BINARY, data)

    def read_until(self, pattern):
        """Output so far, when it matches; both streams together."""
        seen = b""
        while not re.search(pattern, seen):
            opcode, payload = self.frame()
            if opcode == self.BINARY:
                seen += payload[1:]
            elif opcode == self.CLOSE:
                raise AssertionError(f"closed before {pattern!r}; seen: {seen!r}")
        return seen

    def finish(self):
        """Everything up to the close: (stdout, stderr, [messages], close code)."""
        streams, messages = {1: b"", 2: b""}, []
        while True:
            opcode, payload = self.frame()
            if opcode == self.BINARY:
                streams[payload[0]] += payload[1:]
            elif opcode == self.TEXT:
                messages.append(json.loads(payload))
            elif opcode == self.CLOSE:
                code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else None
                return streams[1], streams[2], messages, code

    def close(self):
        self.sock.close()


def git(folder, *words):
    quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "HOME": folder,
             "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.com",
             "GIT_COMMITTER_NAME": "Test", "GIT_COMMITTER_EMAIL": "test@example.com"}
    done = subprocess.run(["git", "-C", folder, *words], env={**os.environ, **quiet}, check=True,
                          stdout=subprocess.PIPE)
    return done.stdout.decode().strip()


class Repository:
    """A small git repository that grows by commits."""

    def __init__(self, path):
        self.path = path
        os.makedirs(path)
        git(path, "init", "-q", "-b", "main")
        self.commit({"hello.txt": "hello\n", "src/main.c": "int main(void)\n{\n\treturn 0;\n}\n"})

    def commit(self, files, message="Change something"):
        for name, text in files.items():
            full = os.path.join(self.path, name)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(text)
        git(self.path, "add", "-A")
        git(self.path, "commit", "-q", "-m", message)
        return self.commit_id()

    def commit_id(self):
        return git(self.path, "rev-parse", "HEAD")


class Hob:
    """One store, one folder of environments, and a daemon that may be started and killed."""

    numbers = iter(range(1 << 20))

    def __init__(self, **settings):
        number = next(self.numbers)
        self.folder = tempfile.mkdtemp(prefix="h")
        os.chmod(self.folder, 0o755)
        self.store, self.run = f"{self.folder}/store", f"{self.folder}/run"
        self.environments = f"{self.folder}/environments"
        self.config, self.log_file = f"{self.folder}/hob.yaml", f"{self.folder}/hobd.log"
        self.socket = f"{self.run}/hob.sock"
        self.cgroup = f"{leftovers.CGROUP_PREFIX}{TOKEN}-{os.getpid()}-{number}"
        slot = (os.getpid() + number) % ID_DAEMONS
        self.id_base = ID_FIRST + slot * ID_SLOTS * 65536
        self.client = Client(self.socket)
        self.daemon = None
        self.children = []
        os.mkdir(self.environments)
        self.settings = {"store": self.store, "run": self.run, "environments": self.environments,
                         "cgroup": self.cgroup, "id_base": self.id_base, "id_slots": ID_SLOTS,
                         "launchers": 1, "max_sandboxes": 250, "log_level": "debug", **settings}
        self.write(self.config, "".join(f"{key}: {json.dumps(value)}\n"
                                        for key, value in self.settings.items()))

    def write(self, path, text):
        temporary = f"{self.folder}/.new"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
        return path

    def repository(self, name):
        return Repository(f"{self.folder}/repos/{name}")

    def environment(self, name, **keys):
        """Writes NAME.yaml; JSON is YAML. Builds happen only when told unless keys say otherwise."""
        keys = {"name": name, "schedule": {"every": 0}, "pool": {"min": 0, "max": 8}, **keys}
        keys = {key: value for key, value in keys.items() if value is not None}
        return self.write(f"{self.environments}/{name}.yaml", json.dumps(keys, indent=1))

    def program(self, name):
        return os.path.join(BUILD, name)

    def environ(self, env=None):
        return {**os.environ, "HOB_TEST_RUN": TOKEN, **(env or {})}

    def hob_build(self, *words, env=None, timeout=120, **more):
        """The finished process; output as text."""
        return subprocess.run([self.program("hob-build"), "--config", self.config, *words],
                              env=self.environ(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace", check=False,
                              timeout=timeout * PATIENCE, **more)

    def hob_build_start(self, *words, env=None):
        child = subprocess.Popen([self.program("hob-build"), "--config", self.config, *words],
                                 env=self.environ(env), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.children.append(child)
        return child

    def build(self, name):
        done = self.hob_build(name)
        assert done.returncode == 0, f"hob-build {name}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def hob(self, *words, env=None, timeout=60, stdin=None):
        return subprocess.run([self.program("hob"), "--config", self.config, *words],
                              env=self.environ(env), input=stdin, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace", check=False,
                              timeout=timeout * PATIENCE)

    def start(self, env=None):
        with open(self.log_file, "ab") as log:
            self.daemon = subprocess.Popen([self.program("hobd"), "--config", self.config],
                                           env=self.environ(env), stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=log)
        wait_for("hobd to answer", self.is_up)
        return self

    def is_up(self):
        if self.daemon.poll() is not None:
            raise AssertionError(f"hobd ended with {self.daemon.returncode}:\n{self.tail()}")
        try:
            return Client(self.socket, 5).raw("GET", "/healthz").status == 200
        except OSError:
            return False

    def kill(self, number=signal.SIGKILL):
        self.daemon.send_signal(number)
        code = self.daemon.wait(30 * PATIENCE)
        self.daemon = None
        return code

    def log(self):
        return leftovers.read_text(self.log_file)

    def tail(self, lines=60):
        return "\n".join(self.log().splitlines()[-lines:])

    def pool(self, name):
        return next(entry for entry in self.client.get("/v1/pool")["environments"]
                    if entry["environment"] == name)

    def wait_ready(self, name, count, seconds=60):
        wait_for(f"{count} ready sandboxes of {name}", lambda: self.pool(name)["ready"] == count, seconds)

    def launchers(self):
        """Root processes that hobd forked: its children with the same executable."""
        pid = self.daemon.pid
        text = leftovers.read_text(f"/proc/{pid}/task/{pid}/children")
        return [int(word) for word in text.split()]

    def init_pids(self):
        return sorted(leftovers.ids_in_use(self.id_base, ID_SLOTS * 65536))

    def drain(self):
        """Everything of this hob that lives outside the daemon is ended through its API."""
        for name in os.listdir(self.environments):
            os.unlink(f"{self.environments}/{name}")
        self.daemon.send_signal(signal.SIGHUP)
        for sandbox in self.client.get("/v1/sandboxes")["sandboxes"]:
            with contextlib.suppress(Failure):
                self.client.delete(sandbox["id"])
        wait_for("the last sandbox to go", lambda: self.client.get("/v1/info")["sandboxes"] == 0)

    def close(self):
        """Ends the daemon and checks that nothing is left; sweeps in any case."""
        problems = []
        try:
            if self.daemon is None and self.init_pids():
                self.start()
            if self.daemon is not None:
                code = self.kill(signal.SIGINT)
                problems += [f"hobd ended with {code}"] if code != 0 else []
            for child in self.children:
                child.wait(20 * PATIENCE)
            problems += self.left_behind()
        except (AssertionError, OSError, Failure, subprocess.TimeoutExpired) as failure:
            problems.append(f"{type(failure).__name__}: {failure}")
        finally:
            text = self.log()
            problems += [line for line in text.splitlines() if any(alarm in line for alarm in ALARMS)]
            tail = self.tail(80)
            self.sweep()
        assert not problems, "\n".join(problems) + f"\nhobd's log ends:\n{tail}"

    def left_behind(self):
        def left():
            lines = [f"process {pid} in a sandbox's id range" for pid in self.init_pids()]
            lines += [f"mount {path}" for path in leftovers.mounts(self.folder)]
            lines += [f"process {pid}: {leftovers.read_text(f'/proc/{pid}/cmdline')}"
                      for pid in leftovers.processes(TOKEN) if self.config in
                      leftovers.read_text(f"/proc/{pid}/cmdline")]
            lines += [f"cgroup {path}" for path in leftovers.cgroups_named(self.cgroup)
                      if os.path.basename(path) != self.cgroup]
            for room in ("sandboxes", "staging"):
                with contextlib.suppress(FileNotFoundError):
                    lines += [f"{room}/{name}" for name in os.listdir(f"{self.store}/{room}")]
            return lines
        with contextlib.suppress(AssertionError):
            wait_for("everything to go", lambda: not left(), 5)
        return left()

    def sweep(self):
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
        # Every process that serves this folder has its configuration on its command line.
        for pid in leftovers.processes(TOKEN):
            if self.config in leftovers.read_text(f"/proc/{pid}/cmdline"):
                leftovers.signal_all([pid], signal.SIGKILL)
        leftovers.remove_cgroups_named(self.cgroup)
        for path in leftovers.mounts(self.folder):
            leftovers.unmount(path)
        shutil.rmtree(self.folder, ignore_errors=True)
