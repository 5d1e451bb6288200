"""A real hobd on a temporary store for the integration tests.

Everything that a Hob makes carries the run's token (see leftovers.py). `close` ends it and then
insists that no process, mount, cgroup or folder is left, that nothing in a sandbox's id range still
runs, and that no sanitizer complained in the daemon's log.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import pytest

import leftovers
from hobclient import BUILD, PATIENCE, Client, EventStream, Failure, WebSocket, wait_for

__all__ = ["BUILD", "LONG", "PATIENCE", "ROOT", "Client", "EventStream", "Failure", "Hob", "Repository", "WebSocket",
           "git", "only_long", "repeating", "wait_for"]

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Beyond the core of a file, for `make check-long`: the rarer points to die at, larger counts.
LONG = os.environ.get("HOB_TEST_LONG") == "1"
only_long = pytest.mark.skipif(not LONG, reason="HOB_TEST_LONG=1 runs it")
TOKEN = os.environ.setdefault("HOB_TEST_RUN", str(os.getpid()))
# Ranges for test daemons, above what install-deps gives to the installed hob.
ID_FIRST = 1879048192 + 2048 * 65536
ID_SLOTS = 288
ID_DAEMONS = 7
ALARMS = ("AddressSanitizer", "LeakSanitizer", "runtime error:", "ThreadSanitizer", "Assertion `")


def git(folder, *words):
    quiet = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "HOME": folder,
             "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.com",
             "GIT_COMMITTER_NAME": "Test", "GIT_COMMITTER_EMAIL": "test@example.com"}
    done = subprocess.run(["git", "-C", folder, *words], env={**os.environ, **quiet}, check=True,
                          stdout=subprocess.PIPE)
    return done.stdout.decode().strip()


def take_ids():
    """A range of ids that no other test daemon of this machine has, held by an abstract socket, which the
    kernel drops with the process."""
    def attempt():
        for place in range(ID_DAEMONS):
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0hob-test-ids-{place}")
                return lock, place
            except OSError:
                lock.close()
        return None
    return wait_for("a free range of ids", attempt, 600)


@contextlib.contextmanager
def repeating(work, count=1):
    """`count` threads that do work(number) again and again until the block ends, however it ends. What
    they raise fails the block."""
    stop, failures = threading.Event(), []

    def run(number):
        try:
            while not stop.is_set():
                work(number)
        except BaseException as failure:  # pylint: disable=broad-except
            failures.append(failure)
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


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
        self.id_lock, place = take_ids()
        self.id_base = ID_FIRST + place * ID_SLOTS * 65536
        self.client = Client(self.socket)
        self.daemon = None
        self.children = []
        os.mkdir(self.environments)
        self.settings = {"store": self.store, "run": self.run, "environments": self.environments,
                         "cgroup": self.cgroup, "id_base": self.id_base, "id_slots": ID_SLOTS,
                         "launchers": 1, "max_sandboxes": 250, "log_level": "debug", "hit_rate": 0,
                         **settings}
        self.write_config()

    def write_config(self):
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

    def hob_build(self, *words, env=None, timeout=180, **more):
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

    def hob(self, *words, env=None, timeout=180, stdin=None):
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
        code = self.daemon.wait(120 * PATIENCE)
        self.daemon = None
        return code

    def log(self):
        return leftovers.read_text(self.log_file)

    def tail(self, lines=60):
        return "\n".join(self.log().splitlines()[-lines:])

    def pool(self, name):
        return next(entry for entry in self.client.get("/v1/pool")["environments"]
                    if entry["environment"] == name)

    def wait_ready(self, name, count, seconds=120):
        wait_for(f"{count} ready sandboxes of {name}", lambda: self.pool(name)["ready"] == count, seconds)

    def waiting_at_gate(self):
        """Processes in the sandboxes that stand at a gate, which is a `sleep 600`."""
        return [pid for pid in self.inside_pids()
                if leftovers.read_text(f"/proc/{pid}/cmdline").startswith("sleep\x00600")]

    def let_go(self):
        """Opens the gate for who stands there; waits for somebody to."""
        leftovers.signal_all(wait_for("somebody to be at the gate", self.waiting_at_gate), signal.SIGKILL)

    def launchers(self):
        """Root processes that hobd forked: its children with the same executable."""
        pid = self.daemon.pid
        text = leftovers.read_text(f"/proc/{pid}/task/{pid}/children")
        return [int(word) for word in text.split()]

    def inside_pids(self):
        """Processes with ids of this hob's sandboxes, those in another daemon's cgroups apart."""
        found = []
        for pid in sorted(leftovers.ids_in_use(self.id_base, ID_SLOTS * 65536)):
            where = leftovers.read_text(f"/proc/{pid}/cgroup")
            if self.cgroup in where or not re.search(r"/(sb|bs)-[0-9a-f]{12}", where):
                found.append(pid)
        return found

    def init_pids(self):
        return [pid for pid in self.inside_pids()
                if leftovers.read_text(f"/proc/{pid}/cmdline").startswith("hob-init")]

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
                child.wait(120 * PATIENCE)
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
            lines = [f"process {pid} in a sandbox's id range" for pid in self.inside_pids()]
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
            wait_for("everything to go", lambda: not left())
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
        self.id_lock.close()
