"""What the tests of the command line share: a stand-in for hobd, hob run against it, and terminals."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time

import pytest

from fake_hobd import FakeHobd

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOB = os.path.join(os.environ.get("HOB_BUILD", os.path.join(ROOT, "build/release")), "hob")
BOX, OTHER = "sb-0123456789ab", "sb-0199aaaaaaaa"


@pytest.fixture
def fake():
    with FakeHobd() as hobd:
        hobd.add_sandbox(BOX, metadata={"who": "ann"})
        yield hobd


class Result:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


def environ(fake, **more):
    return dict(os.environ, HOB_SOCKET=fake.socket, **more)


def hob(fake, *words, stdin=None, **more):
    done = subprocess.run([HOB, *words], env=environ(fake), input=stdin, text=True, timeout=180,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                          **({"stdin": subprocess.DEVNULL} if stdin is None else {}), **more)
    return Result(done)


class Terminal:
    """hob on a terminal of its own."""

    def __init__(self, fake, *words):
        self.fd, slave = pty.openpty()
        self.size(40, 100)
        self.before = termios.tcgetattr(slave)
        self.text = b""

        def own():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.slave = slave
        self.child = subprocess.Popen([HOB, *words], env=environ(fake, TERM="xterm"), stdin=slave, stdout=slave,
                                      stderr=slave, start_new_session=True, preexec_fn=own)

    def size(self, rows, cols):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, text):
        os.write(self.fd, text.encode())

    def expect(self, text, seconds=120):
        end = time.time() + seconds
        os.set_blocking(self.fd, False)
        while text.encode() not in self.text:
            assert time.time() < end, f"no {text!r} in {self.text!r}"
            try:
                self.text += os.read(self.fd, 65536)
            except BlockingIOError:
                time.sleep(0.01)
        self.text = self.text.split(text.encode(), 1)[1]

    def finish(self):
        """The exit code; the terminal must be as it was."""
        try:
            code = self.child.wait(120)
            assert termios.tcgetattr(self.slave) == self.before
            return code
        finally:
            self.child.kill()
            self.child.wait()
            os.close(self.slave)
            os.close(self.fd)


def wait_for(condition, seconds=120):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "it did not come to pass"
        time.sleep(0.01)
