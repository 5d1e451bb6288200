"""The command line on the real hobd: a claimed sandbox from create to rm, its terminal and its files.
How it talks and fails is tested against a stand-in, in test_cli.py."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios

import hobtest
import pytest


@pytest.fixture
def hob(shared):
    def run(*words, code=0, stdin=""):
        done = shared.hob(*words, stdin=stdin)
        assert done.returncode == code, done.stderr
        return done
    return run


def test_from_create_to_rm(shared, hob):
    hob("build", "tiny")
    shared.wait_ready("tiny", 2)
    made = hob("create", "tiny", "-e", "OWN=1", "-m", "who=ann", "--timeout", "1h")
    box = made.stdout.strip()
    assert made.stderr.startswith("warm in ") and "tiny, img-1" in made.stderr
    assert "who=ann" in [line for line in hob("ls").stdout.splitlines() if box in line][0]
    assert "Environment: tiny" in hob("info", box[:9]).stdout
    assert hob("exec", box, "--", "sh", "-c", "echo $TINY$OWN; pwd; exit 3", code=3).stdout == "yes1\n/workspace\n"
    assert "ends 2" in hob("timeout", box, "30m").stdout
    assert hob("rm", box).stdout == box + "\n"
    assert hob("info", box, code=3).stdout == ""
    for words in (["pool"], ["env"], ["builds"], ["images"]):
        assert "tiny" in hob(*words).stdout
        assert json.loads(hob("--json", *words).stdout)
    assert "published" in hob("builds", "log", "bld-1").stdout


def test_streams_and_signals(hob, sandbox):
    done = hob("exec", sandbox, "--", "sh", "-c", "cat; echo err >&2; kill -9 $$", stdin="given\n", code=137)
    assert (done.stdout, done.stderr) == ("given\n", "err\n")
    result = json.loads(hob("exec", "--json", sandbox, "id", "-u").stdout)
    assert (result["stdout"], result["exit_code"], result["signal"]) == ("0\n", 0, None)
    assert "no-such-program" in hob("exec", sandbox, "no-such-program", code=127).stderr
    assert "Permission denied" in hob("exec", sandbox, "/etc/passwd", code=126).stderr
    assert "/nowhere" in hob("exec", "-w", "/nowhere", sandbox, "true", code=2).stderr
    assert "--timeout" in hob("exec", "--timeout", "200ms", sandbox, "sleep", "60", code=137).stderr


def test_detach_and_attach(hob, sandbox):
    command = "echo one; until test -e /tmp/go; do sleep 0.1; done; echo two >&2; exit 4"
    number = hob("exec", "-d", sandbox, "--", "sh", "-c", command).stdout.strip()
    assert "running" in hob("ps", sandbox).stdout
    hob("exec", sandbox, "touch", "/tmp/go")
    done = hob("attach", sandbox, number, code=4)
    assert (done.stdout, done.stderr) == ("one\n", "two\n")


def test_copies(hob, sandbox, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True, mode=0o700)
    (tree / "empty").mkdir()
    (tree / "sub" / "odd ?%# name").write_bytes(os.urandom(1 << 20))
    (tree / "run").write_text("#!/bin/sh\necho ran\n")
    (tree / "run").chmod(0o755)
    (tree / "sub" / "link").symlink_to("../run")
    hob("cp", str(tree), f"{sandbox}:")
    assert hob("exec", sandbox, "tree/sub/link").stdout == "ran\n"
    assert hob("exec", sandbox, "stat", "-c", "%a", "tree/sub", "tree/empty").stdout == "700\n755\n"
    hob("cp", f"{sandbox}:tree", str(tmp_path / "back"))
    subprocess.run(["diff", "-r", "--no-dereference", tree, tmp_path / "back"], check=True)
    assert os.stat(tmp_path / "back" / "sub").st_mode & 0o777 == 0o700
    hob("cp", "-", f"{sandbox}:/tmp/piped", stdin="piped")
    assert hob("cp", f"{sandbox}:/tmp/piped", "-").stdout == "piped"
    assert "/nowhere" in hob("cp", f"{sandbox}:/nowhere", str(tmp_path), code=3).stderr


def test_shell_on_a_terminal(shared, sandbox):
    """Size, resize, Ctrl-C and the exit code; the terminal is as it was afterwards."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    before = termios.tcgetattr(slave)
    child = subprocess.Popen(
        [shared.program("hob"), "--config", shared.config, "shell", sandbox], stdin=slave, stdout=slave,
        stderr=slave, start_new_session=True, env=shared.environ({"TERM": "xterm"}),
        preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0))
    os.set_blocking(master, False)
    seen = b""

    def expect(text):
        nonlocal seen

        def arrived():
            nonlocal seen
            try:
                seen += os.read(master, 65536)
            except BlockingIOError:
                pass
            return text in seen
        hobtest.wait_for(f"{text} in the terminal", arrived)
        seen = seen.split(text, 1)[1]

    try:
        os.write(master, b"stty size; echo $TERM\n")
        expect(b"40 100\r\nxterm")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        os.write(master, b"until stty size | grep '33 77'; do sleep 0.1; done\n")
        expect(b"33 77\r\n")
        os.write(master, b"sh -c 'echo go$((1)); exec sleep 600'\n")
        expect(b"go1\r\n")
        os.write(master, b"\x03")
        os.write(master, b"echo rc=$?\n")
        expect(b"rc=130")
        os.write(master, b"exit 5\n")
        assert child.wait(120) == 5
        assert termios.tcgetattr(slave) == before
    finally:
        child.kill()
        child.wait()
        os.close(master)
        os.close(slave)


def test_shell_of_an_environment(shared, hob):
    claimed = len(shared.client.get("/v1/sandboxes?state=claimed")["sandboxes"])
    assert hob("shell", "tiny", stdin="echo $TINY; exit 6\n", code=6).stdout == "yes\n"
    assert len(shared.client.get("/v1/sandboxes?state=claimed")["sandboxes"]) == claimed


def test_hob_is_told_why_nothing_answers(machine):
    done = machine.hob("ls")
    assert done.returncode == 9 and f"no socket at {machine.socket}" in done.stderr


def test_configuration_by_variable(shared, hob):
    done = subprocess.run([shared.program("hob"), "pool"], env={**os.environ, "HOB_CONFIG": shared.config},
                          stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0 and "tiny" in done.stdout
    assert hob("--config", "/nowhere/hob.yaml", "pool", code=3).stdout == ""
