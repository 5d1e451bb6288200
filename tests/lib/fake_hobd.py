"""A stand-in for hobd behind a unix socket, so that the command line can be tested without root.

Answers as the API promises, from tables that a test fills in. Commands really run, on this machine
in the fake's folder; the "sandboxes" are folders below it.
"""

import base64
import fcntl
import hashlib
import http.server
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import socketserver
import stat
import struct
import subprocess
import tempfile
import termios
import threading
import time
import urllib.parse

WEBSOCKET_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Tools that work on files: their absolute paths are inside the sandbox.
FILE_TOOLS = ("mkdir", "ln", "chmod", "cat", "ls")


class ApiError(Exception):
    def __init__(self, status, kind, message, hint=None, **more):
        super().__init__(message)
        self.status = status
        self.body = {"error": {"kind": kind, "message": message, **({"hint": hint} if hint else {}), **more}}


def stamp(offset=0):
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() + offset))


class FakeHobd:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="hob-fake-")
        self.socket = os.path.join(self.folder, "hob.sock")
        self.environments = {"webapp": self.environment("webapp"), "tool": self.environment("tool")}
        self.builds, self.logs, self.pool = [], {}, []
        self.images = [{"id": "img-3", "environment": "webapp", "commit": "1a2b3c4d5e6f7a8b9c0d", "head": True,
                        "created_at": stamp(-300), "bytes": 2 << 20, "exclusive_bytes": 2 << 20,
                        "shared_bytes": 0, "users": ["head of webapp"],
                        "layers": [{"id": 1, "kind": "step", "title": "step deps", "files": 3,
                                    "bytes": 2 << 20, "stored": 2 << 20}]}]
        self.sandboxes, self.requests, self.execs = {}, [], {}
        self.listings = {}  # path: entries, for folders that lie
        self.sessions = []
        self.source, self.reason = "warm", None
        self.build_result = "published"
        self.ended = threading.Condition()
        self.connections_ended = 0
        self.server = Server(self)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @staticmethod
    def environment(name):
        return {"name": name, "file": f"/etc/hob/environments/{name}.yaml", "ref": "main", "base": "host",
                "source_url": f"https://git.example.com/{name}.git", "every_ms": 1800000, "head": "img-3",
                "commit": "1a2b3c4d5e6f7a8b9c0d", "built_at": stamp(-300), "next_due_at": stamp(1500),
                "building": False}

    def add_sandbox(self, sandbox_id, environment="webapp", state="claimed", metadata=None):
        root = os.path.join(self.folder, sandbox_id)
        os.makedirs(os.path.join(root, "workspace"))
        self.sandboxes[sandbox_id] = {
            "id": sandbox_id, "environment": environment, "image": "img-3", "state": state,
            "commit": "1a2b3c4d5e6f7a8b9c0d", "created_at": stamp(-200), "claimed_at": stamp(-100),
            "expires_at": stamp(3600), "idle_s": 900, "last_active_at": stamp(-5),
            "metadata": metadata or {}, "cwd": "/workspace", "user": "root", "pid": 4242}
        return root

    def path(self, sandbox_id, name):
        return os.path.join(self.folder, sandbox_id, name.lstrip("/"))

    def drop_sessions(self):
        for connection in self.sessions:
            connection.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, hobd):
        self.hobd = hobd
        super().__init__(hobd.socket, Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hobd(self):
        return self.server.hobd

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        pass

    # ---- plumbing ----
    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            whole = b""
            while True:
                size = int(self.rfile.readline(), 16)
                whole += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    return whole
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def reply(self, status, content, kind="application/json", headers=()):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self):
        parts = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(parts.query))
        path = parts.path
        upgrade = self.headers.get("Upgrade") == "websocket"
        data = b"" if upgrade else self.body()
        is_json = self.headers.get("Content-Type") == "application/json"
        self.json = json.loads(data) if data and is_json else None
        self.hobd.requests.append((self.command, self.path, self.json))
        try:
            for method, pattern, function in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method == ("WEBSOCKET" if upgrade else self.command):
                    self.data = data
                    function(self, *map(urllib.parse.unquote, match.groups()))
                    return
            raise ApiError(404, "not_found", f"no such resource: {self.command} {path}")
        except ApiError as error:
            self.reply(error.status, error.body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def sandbox(self, sandbox_id):
        if sandbox_id not in self.hobd.sandboxes:
            raise ApiError(404, "not_found", f"no sandbox {sandbox_id}")
        return self.hobd.sandboxes[sandbox_id]

    # ---- sandboxes ----
    def info(self):
        self.reply(200, {"version": "9.9-fake", "pid": 1, "started_at": stamp(-60), "store": "/s", "run": "/r",
                         "cgroup": "v2", "sandboxes": len(self.hobd.sandboxes), "ready": 0, "claimed": 0,
                         "max_sandboxes": 100})

    def create(self):
        name = self.json.get("environment", "webapp")
        if name not in self.hobd.environments:
            raise ApiError(404, "not_found", f"no environment {name}", "`hob env ls` lists them")
        if not self.hobd.environments[name]["head"]:
            raise ApiError(409, "conflict", f"{name} has no image yet", f"hob build {name}")
        sandbox_id = "sb-%012x" % (0xABC000000000 + len(self.hobd.requests))
        self.hobd.add_sandbox(sandbox_id, name, metadata=self.json.get("metadata"))
        self.reply(201, dict(self.hobd.sandboxes[sandbox_id], source=self.hobd.source,
                             reason=self.hobd.reason, took_us=84, behind_s=0))

    def sandboxes(self):
        self.reply(200, {"sandboxes": [
            box for box in self.hobd.sandboxes.values()
            if self.query.get("environment", box["environment"]) == box["environment"]
            and self.query.get("state", box["state"]) == box["state"]]})

    def sandbox_info(self, sandbox_id):
        usage = {"memory_bytes": 3 << 20, "cpu_us": 1500, "pids": 2}
        self.reply(200, dict(self.sandbox(sandbox_id), usage=usage, execs=[]))

    def sandbox_delete(self, sandbox_id):
        self.sandbox(sandbox_id)
        del self.hobd.sandboxes[sandbox_id]
        self.reply(200, {"id": sandbox_id, "state": "gone", "snapshot": None})

    def set_timeout(self, sandbox_id):
        box = self.sandbox(sandbox_id)
        seconds = self.json["seconds"]
        box["expires_at"] = stamp(seconds) if seconds else None
        self.reply(200, box)

    # ---- commands ----
    def spawn(self, sandbox_id, request, **streams):
        root = os.path.join(self.hobd.folder, sandbox_id)
        argv = list(request["argv"])
        if argv[0] in FILE_TOOLS:
            paths = [len(argv) - 1] if argv[0] == "ln" else range(1, len(argv))
            for i in paths:
                if argv[i].startswith("/"):
                    argv[i] = root + argv[i]
        cwd = os.path.join(root, request.get("cwd", "/workspace").lstrip("/"))
        if not shutil.which(argv[0]):
            raise ApiError(400, "invalid", f"{argv[0]}: no such program in the sandbox", step="exec",
                           exit_code=127)

        def prepare():
            # A test run in the background hands down an ignored SIGINT.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if request.get("tty"):
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        return subprocess.Popen(argv, cwd=cwd, env=dict(os.environ, **request.get("env", {})),
                                start_new_session=True, preexec_fn=prepare, **streams)

    @staticmethod
    def result(child, number, began):
        code = child.returncode
        return {"exec": number, "exit_code": 128 - code if code < 0 else code,
                "signal": -code if code < 0 else None, "took_ms": (time.time() - began) * 1000,
                "user_ms": 1, "system_ms": 1, "max_rss_bytes": 1 << 20}

    def exec(self, sandbox_id):
        self.sandbox(sandbox_id)
        number = len(self.hobd.execs) + 1
        began = time.time()
        child = self.spawn(sandbox_id, self.json, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
        out, err = child.communicate()
        self.hobd.execs[number] = (child, out, err)
        result = self.result(child, number, began)
        if self.json.get("detach"):
            self.reply(202, {"exec": number})
        else:
            self.reply(200, dict(result, stdout=out.decode(), stderr=err.decode()))

    def exec_list(self, sandbox_id):
        self.sandbox(sandbox_id)
        self.reply(200, {"execs": [
            {"exec": number, "argv": child.args, "running": False, "pid": child.pid,
             "started_at": stamp(-3), "exit_code": child.returncode}
            for number, (child, _, _) in self.hobd.execs.items()]})

    def exec_follow(self, sandbox_id, number):
        self.sandbox(sandbox_id)
        if int(number) not in self.hobd.execs:
            raise ApiError(404, "not_found", f"no exec {number}")
        child, out, err = self.hobd.execs[int(number)]
        events = [("started", {"exec": int(number), "pid": child.pid})]
        events += [("stdout", {"data": base64.b64encode(out).decode(), "encoding": "base64"})]
        events += [("stderr", {"data": err.decode()})]
        events += [("exit", self.result(child, int(number), time.time()))]
        text = "".join(f"id: {i}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
                       for i, (name, data) in enumerate(events))
        self.reply(200, text.encode(), "text/event-stream")

    def exec_socket(self, sandbox_id):
        self.sandbox(sandbox_id)
        key = self.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_SUFFIX).digest()).decode()
        self.wfile.write(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          f"Sec-WebSocket-Accept: {accept}\r\n\r\n").encode())
        self.wfile.flush()
        self.close_connection = True
        session = Session(self, sandbox_id)
        self.hobd.sessions.append(self.connection)
        try:
            session.run()
        finally:
            session.end()
            with self.hobd.ended:
                self.hobd.connections_ended += 1
                self.hobd.ended.notify_all()

    # ---- files ----
    def file_get(self, sandbox_id, path):
        self.sandbox(sandbox_id)
        place = self.hobd.path(sandbox_id, path)
        if path in self.hobd.listings:
            self.reply(200, {"path": "/" + path, "entries": self.hobd.listings[path]})
        elif os.path.isdir(place):
            self.reply(200, {"path": "/" + path, "entries": [
                self.entry(place, name) for name in sorted(os.listdir(place))]})
        elif os.path.exists(place):
            with open(place, "rb") as file:
                self.reply(200, file.read(), "application/octet-stream",
                           [("X-Hob-Mode", "%04o" % stat.S_IMODE(os.stat(place).st_mode))])
        else:
            raise ApiError(404, "not_found", f"/{path}: no such file or folder")

    @staticmethod
    def entry(folder, name):
        about = os.lstat(os.path.join(folder, name))
        types = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}
        entry = {"name": name, "type": types[stat.S_IFMT(about.st_mode)],
                 "mode": "%04o" % stat.S_IMODE(about.st_mode), "size": about.st_size,
                 "mtime": stamp(), "uid": 0, "gid": 0}
        if entry["type"] == "symlink":
            entry["target"] = os.readlink(os.path.join(folder, name))
        return entry

    def file_put(self, sandbox_id, path):
        self.sandbox(sandbox_id)
        place = self.hobd.path(sandbox_id, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(self.data)
        os.chmod(place, int(self.query.get("mode", "0644"), 8))
        self.reply(201, {"path": "/" + path, "bytes": len(self.data)})

    # ---- environments, builds, pool ----
    def environments(self):
        self.reply(200, {"environments": list(self.hobd.environments.values()),
                         "failures": [{"file": "bad.yaml", "message": "bad.yaml:3:1: unknown key \"stepz\""}]})

    def environment_info(self, name):
        if name not in self.hobd.environments:
            raise ApiError(404, "not_found", f"no environment {name}")
        self.reply(200, self.hobd.environments[name])

    def build(self, name):
        self.environment_known(name)
        number = f"bld-{len(self.hobd.builds) + 1}"
        failed = self.hobd.build_result == "failed"
        self.hobd.builds.insert(0, {
            "id": number, "environment": name, "state": self.hobd.build_result, "commit": "feed" * 10,
            "image": None if failed else "img-4", "started_at": stamp(), "ended_at": stamp(),
            "took_ms": 1200, "message": "step deps: exit code 1" if failed else None})
        self.hobd.logs[number] = b"fetch\nstep deps\n"
        self.reply(202, {"environment": name, "state": "queued"})

    def environment_known(self, name):
        if name not in self.hobd.environments:
            raise ApiError(404, "not_found", f"no environment {name}")

    def builds(self):
        found = [build for build in self.hobd.builds
                 if self.query.get("environment", build["environment"]) == build["environment"]]
        self.reply(200, {"builds": found[:int(self.query.get("limit", 20))]})

    def build_info(self, number):
        for build in self.hobd.builds:
            if build["id"] == number:
                return self.reply(200, build)
        raise ApiError(404, "not_found", f"no build {number}")

    def build_log(self, number):
        if number not in self.hobd.logs:
            raise ApiError(404, "not_found", f"no build {number}")
        self.reply(200, self.hobd.logs[number], "text/plain")

    def images(self):
        self.reply(200, {"images": [
            image for image in self.hobd.images
            if self.query.get("environment", image["environment"]) == image["environment"]]})

    def image(self, number):
        for image in self.hobd.images:
            if image["id"] == number:
                return image
        raise ApiError(404, "not_found", f"no image {number}")

    def image_info(self, number):
        self.reply(200, self.image(number))

    def image_delete(self, number):
        image = self.image(number)
        if image["users"]:
            raise ApiError(409, "conflict", f"{number} is in use: {image['users'][0]}")
        self.hobd.images.remove(image)
        self.reply(200, {"id": number, "freed_bytes": image["bytes"]})

    def pool(self):
        self.reply(200, {"environments": self.hobd.pool})


BOX = r"/v1/sandboxes/([^/]+)"
ROUTES = [
    ("GET", r"/v1/info", Handler.info),
    ("POST", r"/v1/sandboxes", Handler.create),
    ("GET", r"/v1/sandboxes", Handler.sandboxes),
    ("GET", BOX, Handler.sandbox_info),
    ("DELETE", BOX, Handler.sandbox_delete),
    ("POST", BOX + "/timeout", Handler.set_timeout),
    ("POST", BOX + "/exec", Handler.exec),
    ("WEBSOCKET", BOX + "/exec", Handler.exec_socket),
    ("GET", BOX + "/execs", Handler.exec_list),
    ("GET", BOX + "/execs/([^/]+)", Handler.exec_follow),
    ("GET", BOX + "/files/(.*)", Handler.file_get),
    ("PUT", BOX + "/files/(.*)", Handler.file_put),
    ("GET", r"/v1/environments", Handler.environments),
    ("GET", r"/v1/environments/([^/]+)", Handler.environment_info),
    ("POST", r"/v1/environments/([^/]+)/build", Handler.build),
    ("GET", r"/v1/builds", Handler.builds),
    ("GET", r"/v1/builds/([^/]+)", Handler.build_info),
    ("GET", r"/v1/builds/([^/]+)/log", Handler.build_log),
    ("GET", r"/v1/pool", Handler.pool),
    ("GET", r"/v1/images", Handler.images),
    ("GET", r"/v1/images/([^/]+)", Handler.image_info),
    ("DELETE", r"/v1/images/([^/]+)", Handler.image_delete),
]


class Session:
    """The server's side of one exec over WebSocket."""

    def __init__(self, handler, sandbox_id):
        self.handler, self.sandbox_id = handler, sandbox_id
        self.socket, self.reader = handler.connection, handler.rfile
        self.lock = threading.Lock()
        self.child = None
        self.master = -1

    def send(self, opcode, payload):
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
        with self.lock:
            self.socket.sendall(head + payload)

    def send_text(self, message):
        self.send(1, json.dumps(message).encode())

    def frame(self):
        head = self.reader.read(2)
        if len(head) < 2:
            return None, b""
        size = head[1] & 127
        if size == 126:
            size = struct.unpack("!H", self.reader.read(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self.reader.read(8))[0]
        assert head[1] & 128, "a client must mask"
        mask = self.reader.read(4)
        data = self.reader.read(size)
        key = (mask * (size // 4 + 1))[:size]
        whole = (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
        return head[0] & 15, whole

    def pump(self, fd, stream):
        while True:
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            if not data:
                return
            try:
                self.send(2, bytes([stream]) + data)
            except OSError:
                return

    def start(self, request):
        if request.get("tty"):
            self.master, slave = pty.openpty()
            self.resize(request)
            self.child = self.handler.spawn(self.sandbox_id, request, stdin=slave, stdout=slave, stderr=slave)
            os.close(slave)
            self.stdin = self.master
            pumps = [(self.master, 1)]
        else:
            self.child = self.handler.spawn(self.sandbox_id, request, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.stdin = self.child.stdin.fileno()
            pumps = [(self.child.stdout.fileno(), 1), (self.child.stderr.fileno(), 2)]
        self.send_text({"started": {"exec": 1, "pid": self.child.pid}})
        return [threading.Thread(target=self.pump, args=args, daemon=True) for args in pumps]

    def resize(self, size):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ,
                    struct.pack("HHHH", size["rows"], size["cols"], 0, 0))

    def run(self):
        _, text = self.frame()
        request = json.loads(text)
        self.handler.hobd.requests.append(("EXEC", self.sandbox_id, request))
        began = time.time()
        try:
            pumps = self.start(request)
        except ApiError as error:
            self.send_text(error.body)
            self.send(8, struct.pack("!H", 1000))
            return

        def finish():
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()
            self.child.wait()
            try:
                self.send_text({"exit": Handler.result(self.child, 1, began)})
                self.send(8, struct.pack("!H", 1000))
                self.socket.shutdown(socket.SHUT_RD)
            except OSError:
                pass

        waiter = threading.Thread(target=finish, daemon=True)
        waiter.start()
        while True:
            opcode, data = self.frame()
            if opcode is None or opcode == 8:
                break
            if opcode == 2:
                self.write(data)
            elif opcode == 1:
                self.control(json.loads(data))
        if opcode is None and self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        waiter.join(60)

    def write(self, data):
        try:
            while data:
                data = data[os.write(self.stdin, data):]
        except OSError:
            pass

    def control(self, message):
        self.handler.hobd.requests.append(("FRAME", self.sandbox_id, message))
        if "resize" in message:
            self.resize(message["resize"])
        elif "signal" in message:
            os.killpg(self.child.pid, getattr(signal, "SIG" + message["signal"]))
        elif "stdin_end" in message and self.master < 0:
            self.child.stdin.close()
        elif "stdin_end" in message:
            self.write(b"\x04")

    def end(self):
        if self.child is not None:
            if self.child.poll() is None:
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
        if self.master >= 0:
            os.close(self.master)


if __name__ == "__main__":
    with FakeHobd() as fake:
        fake.add_sandbox("sb-0123456789ab")
        print(fake.socket, flush=True)
        select.select([], [], [])
