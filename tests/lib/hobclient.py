"""A client for hob's API over its unix socket: requests, server-sent events, WebSocket."""

import base64
import contextlib
import http.client
import json
import os
import re
import socket
import struct
import time
import urllib.parse

BUILD = os.environ.get("HOB_BUILD", os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                 "../../build/release"))
# Sanitized programs are several times slower.
PATIENCE = 4 if "asan" in BUILD or "coverage" in BUILD else 1


class Failure(Exception):
    """A reply that is not the one wanted: status, kind and message."""

    def __init__(self, status, error):
        self.status, self.kind = status, error.get("kind")
        self.message, self.hint = error.get("message", ""), error.get("hint", "")
        super().__init__(f"{status} {self.kind}: {self.message} ({self.hint})")


def wait_for(what, condition, seconds=120):
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

    def __init__(self, path, timeout=180):
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
            # A server that refuses a body may answer and close before it has read all of it.
            with contextlib.suppress(BrokenPipeError):
                link.request(method, path, body=body, headers=headers)
            response = link.getresponse()
            return Reply(response, response.read())
        finally:
            if connection is None:
                link.close()

    def call(self, method, path, body=None, **more):
        reply = self.raw(method, path, body, **more)
        end = time.monotonic() + 120 * PATIENCE
        # Upkeep is reading it just then: "try again".
        while reply.status == 423 and method == "DELETE" and time.monotonic() < end:
            time.sleep(0.1)
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
