"""Git remotes on loopback: over git:// and http://, whole or cut off after so many bytes."""

import contextlib
import http.server
import os
import random
import socket
import subprocess
import threading

from hobclient import wait_for

RESERVED = []


def free_port():
    """A port below those that the kernel gives to connections. No other test has it while this process
    lives: an abstract socket holds its number."""
    while True:
        port, lock = random.randrange(12000, 30000), socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError), socket.socket() as probe:
            lock.bind(f"\0hob-test-port-{port}")
            probe.bind(("127.0.0.1", port))
            RESERVED.append(lock)
            return port
        lock.close()


def wait_listening(port, child):
    """Until somebody listens there, or the server that should has ended."""
    def attempt():
        assert child.poll() is None, f"the server for port {port} ended with {child.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False
    wait_for(f"a server on port {port}", attempt)


@contextlib.contextmanager
def git_daemon(folder):
    """git:// for every repository below the folder; gives the port."""
    port = free_port()
    child = subprocess.Popen(["git", "-c", "safe.directory=*", "daemon", "--listen=127.0.0.1",
                              f"--port={port}", "--export-all", f"--base-path={folder}", "--reuseaddr"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_listening(port, child)
        yield port
    finally:
        os.killpg(child.pid, 15)
        child.wait()


class CuttingProxy:
    """Forwards connections to a port and closes each after `limit` bytes of answer; `stall` keeps it
    open and silent instead."""

    def __init__(self, port, limit, stall=False):
        self.target, self.limit, self.stall = port, limit, stall
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.cut = threading.Event()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.forward, args=(client,), daemon=True).start()

    def forward(self, client):
        with contextlib.suppress(OSError), client, \
                socket.create_connection(("127.0.0.1", self.target)) as server:
            threading.Thread(target=self.pump, args=(client, server), daemon=True).start()
            left = self.limit
            while left > 0:
                data = server.recv(min(left, 16384))
                if not data:
                    return
                client.sendall(data)
                left -= len(data)
            self.cut.set()
            if self.stall:
                self.stop.wait(600)
            # Closing alone says nothing to the other end while the pump reads from it.
            client.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def pump(source, target):
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(16384)
                if not data:
                    return
                target.sendall(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.listener.close()


class FileHandler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *words, **more):
        super().__init__(*words, directory=self.folder, **more)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def git_http(folder, mode=""):
    """Smart HTTP for every repository below the folder (tests/lib/git_http.py); gives the port."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "git_http.py")
    child = subprocess.Popen(["/usr/bin/python3", script, folder, mode], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    try:
        yield int(child.stdout.readline())
    finally:
        child.stdin.close()
        child.kill()
        child.wait()
        child.stdout.close()


def files_http(folder):
    """Plain files over HTTP; a context that gives the port."""
    handler = type("Handler", (FileHandler,), {"folder": folder})
    return serve(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
