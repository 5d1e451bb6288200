"""The command line against a stand-in for hobd: what it prints, what it exits with, and how it treats
terminals, signals and files. What the real hobd does is for the other files here."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
from fake_hobd import FakeHobd  # noqa: E402

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
    done = subprocess.run([HOB, *words], env=environ(fake), input=stdin, text=True, timeout=60,
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

    def expect(self, text, seconds=20):
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
            code = self.child.wait(20)
            assert termios.tcgetattr(self.slave) == self.before
            return code
        finally:
            self.child.kill()
            self.child.wait()
            os.close(self.slave)
            os.close(self.fd)


def wait_for(condition, seconds=20):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "it did not come to pass"
        time.sleep(0.01)


# ---- usage ----
@pytest.mark.parametrize("words, said, hint", [
    (["exce"], 'unknown verb "hob exce"', "hob exec"),
    (["builds", "lst"], 'unknown verb "hob builds lst"', "hob builds ls"),
    (["ls", "--sate", "ready"], "unknown option --sate", "--state"),
    (["ls", "extra"], 'one word too many: "extra"', "hob ls --help"),
    (["exec", BOX], "needs ID", "hob exec --help"),
    (["create", "webapp", "--idle", "90"], "--idle 90: not a duration", "90s"),
    (["create", "webapp", "--metadata", "x"], "KEY=VALUE", ""),
    (["rm"], "needs ids", ""),
    (["create"], "needs an environment", "hob env ls"),
    (["create", "webapp", "--image", "img-3"], "not both", ""),
    (["cp", "a", "b"], "neither side", "ID:PATH"),
    (["timeout", BOX, "soon"], "not a duration", "never"),
])
def test_usage_errors(fake, words, said, hint):
    done = hob(fake, *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err and hint in done.err
    assert fake.requests == []


def test_every_verb_explains_itself(fake):
    listing = hob(fake, "help").out
    verbs = [line.split()[0] for line in listing.splitlines() if line.startswith("  ") and line[2] not in " -"]
    assert {"create", "exec", "shell", "cp", "pool", "doctor"} <= set(verbs)
    for verb in verbs:
        if verb not in ("build", "snapshots", "doctor"):
            for words in ([verb, "--help"], ["help", verb]):
                done = hob(fake, *words)
                assert done.code == 0 and f"Usage: hob {verb}" in done.out and "--json" in done.out
    assert hob(fake).code == 2
    assert hob(fake, "--version").out.startswith("hob ")


def test_hobd_is_not_there(fake, tmp_path):
    missing = str(tmp_path / "none.sock")
    for words in (["ls"], ["exec", BOX, "true"]):
        done = hob(fake, "--socket", missing, *words)
        assert done.code == 9 and f"hobd is not running (no socket at {missing})" in done.err
        assert "hint: start it" in done.err


def test_socket_of_a_hobd_that_died(fake, tmp_path):
    import socket
    path = str(tmp_path / "dead.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    done = hob(fake, "--socket", path, "ls")
    assert done.code == 9 and "nobody listens" in done.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without permission")
def test_socket_without_permission(fake):
    os.chmod(fake.folder, 0o755)
    os.chmod(fake.socket, 0o600)
    try:
        done = hob(fake, "ls", user=65534)
    except PermissionError:
        pytest.skip("the build folder is not for others")
    assert done.code == 6 and "group hob" in done.err


# ---- sandboxes ----
def test_create(fake):
    done = hob(fake, "create", "webapp", "-e", "A=b=c", "--timeout", "5m", "--idle=1500ms", "-m", "who=me")
    assert done.code == 0 and done.out.strip() in fake.sandboxes
    assert done.err == "warm in 84 µs: webapp, img-3 at 1a2b3c4d5e6f\n"
    assert fake.requests[-1][2] == {"environment": "webapp", "env": {"A": "b=c"}, "metadata": {"who": "me"},
                                    "timeout_s": 300, "idle_s": 2}
    fake.source, fake.reason = "cold", "empty"
    assert "cold in 84 µs (no sandbox was ready)" in hob(fake, "create", "webapp").err
    quiet = hob(fake, "create", "-q", "webapp")
    assert quiet.out.strip() in fake.sandboxes and quiet.err == ""
    assert json.loads(hob(fake, "create", "--json", "--image", "img-3").out)["source"] == "cold"
    assert fake.requests[-1][2]["image"] == "img-3"


def test_create_passes_variables_of_here_on(fake):
    done = subprocess.run([HOB, "create", "-q", "webapp", "-e", "HERE", "-e", "NOT_SET"],
                          env=environ(fake, HERE="yes"), check=False, stdout=subprocess.PIPE)
    assert done.returncode == 0 and fake.requests[-1][2]["env"] == {"HERE": "yes"}


@pytest.mark.parametrize("name, code, hint", [("nope", 3, "hob env ls"), ("tool", 4, "hob build tool")])
def test_errors_of_the_api_come_with_hint_and_code(fake, name, code, hint):
    fake.environments["tool"]["head"] = None
    done = hob(fake, "create", name)
    assert done.code == code and hint in done.err.split("hint: ")[1]


def test_ls_and_filters(fake):
    fake.add_sandbox(OTHER, "tool", "ready")
    lines = hob(fake, "ls").out.splitlines()
    assert lines[0].split()[:3] == ["ID", "ENVIRONMENT", "IMAGE"] and "\033" not in "".join(lines)
    assert lines[1].index("webapp") == lines[0].index("ENVIRONMENT") and "who=ann" in lines[1]
    assert hob(fake, "ls", "-q").out.split() == [BOX, OTHER]
    assert hob(fake, "ls", "-q", "--state", "ready").out.split() == [OTHER]
    assert hob(fake, "ls", "-q", "--env", "webapp").out.split() == [BOX]
    empty = hob(fake, "ls", "--env", "a/b&c")
    assert (empty.code, empty.out, empty.err) == (0, "", "no sandboxes\n")
    assert fake.requests[-1][1] == "/v1/sandboxes?environment=a%2Fb%26c"
    assert len(json.loads(hob(fake, "ls", "--json").out)["sandboxes"]) == 2


def test_ids_by_prefix(fake):
    assert BOX in hob(fake, "info", "012").out
    assert BOX in hob(fake, "info", "sb-0").out
    fake.add_sandbox(OTHER)
    both = hob(fake, "info", "01")
    assert both.code == 2 and BOX in both.err and OTHER in both.err
    assert hob(fake, "info", "ff").code == 3
    assert hob(fake, "info", "sb-ffffffffffff").code == 3
    assert hob(fake, "info", "").code == 3


def test_info_about_a_sandbox_and_about_hobd(fake):
    text = hob(fake, "info", BOX).out
    assert "3.0 MiB of memory" in text and "15m" in text
    assert "9.9-fake" in hob(fake, "info").out
    assert json.loads(hob(fake, "info", "--json").out)["cgroup"] == "v2"
    assert "9.9-fake" in hob(fake, "version").out


def test_timeout(fake):
    assert "ends 2" in hob(fake, "timeout", BOX, "90s").out
    assert fake.requests[-1][2] == {"seconds": 90}
    assert "never" in hob(fake, "timeout", "01", "never").out


def test_rm(fake):
    fake.add_sandbox(OTHER, "tool")
    fake.add_sandbox("sb-aaaaaaaaaaaa", "tool", "ready")
    done = hob(fake, "rm", "nope", "012", "nope2")
    assert done.code == 3 and done.out == BOX + "\n" and done.err.count("no sandbox nope") == 2
    assert hob(fake, "rm", "--all", "--env", "webapp").code == 0
    assert hob(fake, "rm", "--all").out == OTHER + "\n"
    assert list(fake.sandboxes) == ["sb-aaaaaaaaaaaa"]
    assert hob(fake, "rm", "--all", "x").code == 2


def test_rm_all_asks_on_a_terminal(fake):
    terminal = Terminal(fake, "rm", "--all")
    terminal.expect("[y/N]")
    terminal.type("n\n")
    assert terminal.finish() == 14 and BOX in fake.sandboxes
    terminal = Terminal(fake, "rm", "--all")
    terminal.expect("[y/N]")
    terminal.type("y\n")
    assert terminal.finish() == 0 and not fake.sandboxes


# ---- exec ----
def test_exec_keeps_the_streams_apart_and_gives_the_code(fake):
    done = hob(fake, "exec", BOX, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")
    assert hob(fake, "exec", BOX, "sh", "-c", "kill -TERM $$").code == 143
    assert hob(fake, "exec", BOX, "ls", "-d", ".").out == ".\n"


def test_exec_options_reach_hobd(fake):
    done = hob(fake, "exec", "-e", "A=1", "-w", "/workspace", "--user", "1000", "--timeout", "90s", "01",
               "printenv", "A")
    assert (done.code, done.out) == (0, "1\n")
    request = [r for r in fake.requests if r[0] == "EXEC"][-1][2]
    assert request == {"argv": ["printenv", "A"], "env": {"A": "1"}, "cwd": "/workspace", "user": "1000",
                       "timeout_ms": 90000}


def test_exec_forwards_stdin(fake):
    assert hob(fake, "exec", BOX, "cat", stdin="given\n").out == "given\n"
    assert hob(fake, "exec", BOX, "cat").out == ""
    big = os.urandom(3 << 20)
    done = subprocess.run([HOB, "exec", BOX, "cat"], env=environ(fake), input=big, stdout=subprocess.PIPE,
                          timeout=60, check=False)
    assert done.returncode == 0 and done.stdout == big


def test_exec_does_not_wait_for_its_stdin(fake):
    child = subprocess.Popen([HOB, "exec", BOX, "true"], env=environ(fake), stdin=subprocess.PIPE)
    assert child.wait(20) == 0
    child.stdin.close()


def test_exec_json(fake):
    done = hob(fake, "exec", "--json", BOX, "--", "sh", "-c", r"printf 'a\377'; echo err >&2; exit 3", stdin="x")
    result = json.loads(done.out)
    assert (done.code, done.err, result["exit_code"], result["stderr"]) == (3, "", 3, "err\n")
    assert (result["stdout"], result["stdout_encoding"]) == ("Yf8=", "base64")


def test_exec_of_what_is_not_there(fake):
    done = hob(fake, "exec", BOX, "no-such-program")
    assert done.code == 2 and "no such program" in done.err
    done = hob(fake, "exec", "sb-ffffffffffff", "true")
    assert done.code == 3 and "no sandbox" in done.err


def test_signals_go_to_the_command(fake):
    for number in (signal.SIGINT, signal.SIGTERM):
        child = subprocess.Popen([HOB, "exec", BOX, "--", "sh", "-c", "echo up; exec sleep 60"], env=environ(fake),
                                 stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                 preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        assert child.stdout.readline() == b"up\n"
        child.send_signal(number)
        assert child.wait(20) == 128 + number
        assert ("FRAME", BOX, {"signal": number.name[3:]}) in fake.requests


def test_the_third_interrupt_gives_up(fake):
    child = subprocess.Popen([HOB, "exec", BOX, "--", "sh", "-c", "trap '' INT; echo up; sleep 60"],
                             env=environ(fake), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert child.stdout.readline() == b"up\n"
    for sent in (1, 2, 3):
        child.send_signal(signal.SIGINT)
        wait_for(lambda: sent == 3 or sum(r[0] == "FRAME" and "signal" in r[2] for r in fake.requests) == sent)
    assert child.wait(20) == 130
    with fake.ended:
        assert fake.ended.wait_for(lambda: fake.connections_ended, 20)


def test_output_that_nobody_reads_any_more(fake):
    command = f"{HOB} exec {BOX} yes | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environ(fake), stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.stdout == "y\n141\n"


def test_much_output_waits_for_a_slow_reader(fake):
    child = subprocess.Popen([HOB, "exec", BOX, "head", "-c", "30000000", "/dev/zero"], env=environ(fake),
                             stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    time.sleep(0.5)
    with open(f"/proc/{child.pid}/status") as status:
        resident = [int(line.split()[1]) for line in status if line.startswith("VmRSS")]
    assert "asan" in HOB or resident[0] < 25000
    assert len(child.stdout.read()) == 30000000
    assert child.wait(20) == 0


def test_hobd_goes_away_in_the_middle(fake):
    child = subprocess.Popen([HOB, "exec", BOX, "--", "sh", "-c", "echo up; sleep 60"], env=environ(fake),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert child.stdout.readline() == b"up\n"
    fake.drop_sessions()
    assert child.wait(20) == 9
    assert b"the connection ended before the command did" in child.stderr.read()


def test_detach_attach_and_ps(fake):
    assert hob(fake, "exec", "-d", BOX, "--", "sh", "-c", "echo 'a b'; echo err >&2; exit 5").out == "1\n"
    done = hob(fake, "attach", BOX, "1")
    assert (done.code, done.out, done.err) == (5, "a b\n", "err\n")
    line = hob(fake, "ps", BOX).out.splitlines()[1]
    assert "ended 5" in line and line.endswith("sh -c 'echo '\\''a b'\\''; echo err >&2; exit 5'")
    assert hob(fake, "attach", BOX, "9").code == 3


# ---- terminals ----
def test_shell_on_a_terminal(fake):
    terminal = Terminal(fake, "shell", "0123")
    terminal.type("stty size; echo $TERM\n")
    terminal.expect("40 100\r\nxterm")
    terminal.size(33, 77)
    wait_for(lambda: any(r[0] == "FRAME" and r[2].get("resize") == {"rows": 33, "cols": 77} for r in fake.requests))
    terminal.type("stty size\n")
    terminal.expect("33 77")
    terminal.type("sleep 60\n")
    terminal.expect("sleep 60")
    time.sleep(0.2)
    terminal.type("\x03")
    terminal.type("echo rc=$?\n")
    terminal.expect("rc=130")
    terminal.type("exit 5\n")
    assert terminal.finish() == 5


def test_shell_of_an_environment_goes_with_it(fake):
    terminal = Terminal(fake, "shell", "webapp")
    terminal.expect("warm in")
    terminal.type("exit 6\n")
    assert terminal.finish() == 6 and list(fake.sandboxes) == [BOX]
    terminal = Terminal(fake, "shell", "--keep", "webapp")
    terminal.type("exit\n")
    terminal.expect("kept: sb-")
    assert terminal.finish() == 0 and len(fake.sandboxes) == 2
    done = hob(fake, "shell", "nothing")
    assert done.code == 3 and 'no sandbox or environment "nothing"' in done.err


def test_shell_killed_restores_the_terminal(fake):
    for number in (signal.SIGTERM, signal.SIGHUP):
        terminal = Terminal(fake, "shell", BOX)
        terminal.type("echo u''p\n")
        terminal.expect("up\r\n")
        assert termios.tcgetattr(terminal.slave) != terminal.before
        terminal.child.send_signal(number)
        assert terminal.finish() == 128 + number


def test_shell_reads_a_script_without_a_terminal(fake):
    done = hob(fake, "shell", BOX, stdin="echo one; exit 4\n")
    assert (done.code, done.out) == (4, "one\n")


def test_exec_with_a_terminal(fake):
    terminal = Terminal(fake, "exec", "-it", BOX, "--", "sh", "-c", "tty; read x; echo got-$x")
    terminal.expect("/dev/pts/")
    terminal.type("this\n")
    terminal.expect("got-this")
    assert terminal.finish() == 0


def test_colour_only_on_a_terminal(fake):
    terminal = Terminal(fake, "ls")
    terminal.expect("\033[32mclaimed\033[0m")
    terminal.finish()
    done = subprocess.run(["script", "-qec", f"{HOB} ls", "/dev/null"], env=environ(fake, NO_COLOR="1", TERM="xterm"),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60, check=False)
    assert b"claimed" in done.stdout and b"\033" not in done.stdout


# ---- files ----
@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "sub" / "odd #?%&+ name").write_text("b")
    (folder / "sub" / "deep" / "big").write_bytes(os.urandom(2 << 20))
    (folder / "sub" / "deep" / "nothing").write_text("")
    (folder / "sub" / "link").symlink_to("../run")
    (folder / "sub").chmod(0o700)
    return folder


def same_trees(one, other):
    def listing(root):
        found = {}
        for folder, folders, files in os.walk(root):
            for name in folders + files:
                path = os.path.join(folder, name)
                key = os.path.relpath(path, root)
                if os.path.islink(path):
                    found[key] = os.readlink(path)
                else:
                    mode = os.stat(path).st_mode
                    found[key] = (mode, None if os.path.isdir(path) else open(path, "rb").read())
        return found
    return listing(one) == listing(other)


def test_cp_folder_in_and_out(fake, tree, tmp_path):
    assert hob(fake, "cp", str(tree), f"{BOX}:").err == ""
    assert same_trees(tree, fake.path(BOX, "workspace/tree"))
    assert hob(fake, "cp", "0123:tree", str(tmp_path / "back")).err == ""
    assert same_trees(tree, tmp_path / "back")
    (tmp_path / "into").mkdir()
    assert hob(fake, "cp", "0123:/workspace/tree", str(tmp_path / "into")).code == 0
    assert same_trees(tree, tmp_path / "into" / "tree")
    assert hob(fake, "cp", f"{tree}/.", "0123:/content").code == 0
    assert same_trees(tree, fake.path(BOX, "content"))
    again = hob(fake, "cp", "--json", "0123:tree/.", str(tmp_path / "back"))
    assert again.code == 0 and json.loads(again.out)["files"] == 5
    assert same_trees(tree, tmp_path / "back")


def test_cp_files_and_streams(fake, tmp_path):
    source = tmp_path / "a b"
    source.write_text("text")
    source.chmod(0o640)
    assert hob(fake, "cp", str(source), f"{BOX}:/new/name").code == 0
    assert os.stat(fake.path(BOX, "new/name")).st_mode & 0o7777 == 0o640
    assert hob(fake, "cp", f"{BOX}:/new/name", "-").out == "text"
    assert hob(fake, "cp", "-", f"{BOX}:/new/streamed", stdin="streamed").code == 0
    assert open(fake.path(BOX, "new/streamed")).read() == "streamed"
    os.chmod(fake.path(BOX, "new/name"), 0o4755)
    assert hob(fake, "cp", f"{BOX}:/new/name", str(tmp_path)).code == 0
    assert os.stat(tmp_path / "name").st_mode & 0o7777 == 0o755
    assert hob(fake, "cp", f"{BOX}:/new", "-").code == 2
    assert hob(fake, "cp", f"{BOX}:/missing", str(tmp_path)).code == 3
    assert hob(fake, "cp", f"{BOX}:/new/name", str(tmp_path / "no" / "folder")).code == 3
    assert hob(fake, "cp", str(tmp_path / "missing"), f"{BOX}:/x").code == 3
    assert [name for name in os.listdir(tmp_path) if name.startswith(".hob")] == []


def test_cp_out_never_leaves_its_target(fake, tmp_path):
    """A sandbox that lies about names, or that puts a link where a folder was."""
    precious = tmp_path / "precious"
    precious.mkdir()
    for name in ("../escaped", "..", "/etc/x", "a/b", ""):
        fake.listings["evil"] = [{"name": name, "type": "file", "mode": "0644"}]
        done = hob(fake, "cp", f"{BOX}:/evil", str(tmp_path / "out"))
        assert done.code == 12, name
    fake.listings["evil"] = [{"name": "x", "type": "symlink", "mode": "0777", "target": str(precious)},
                             {"name": "x", "type": "dir", "mode": "0755"}]
    fake.listings["evil/x"] = [{"name": "y", "type": "symlink", "mode": "0777", "target": "z"}]
    assert hob(fake, "cp", f"{BOX}:/evil", str(tmp_path / "out")).code != 0
    assert os.listdir(precious) == [] and not (tmp_path / "escaped").exists()


# ---- environments, builds, images, pool ----
def open_to_others(fake):
    os.chmod(fake.folder, 0o755)
    os.chmod(fake.socket, 0o666)
    try:
        subprocess.run([HOB, "--version"], user=65534, stdout=subprocess.DEVNULL, check=True)
    except PermissionError:
        pytest.skip("the build folder is not for others")
    return {"user": 65534}


def test_env(fake):
    done = hob(fake, "env")
    assert "webapp" in done.out and "30m" in done.out
    assert 'not used: bad.yaml: bad.yaml:3:1: unknown key "stepz"' in done.err
    assert "https://git.example.com/webapp.git" in hob(fake, "env", "info", "webapp").out
    assert hob(fake, "env", "info", "nope").code == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_images_through_hobd_when_not_root(fake):
    other = open_to_others(fake)
    done = hob(fake, "images", **other)
    line = done.out.splitlines()[1]
    assert line.split()[:2] == ["img-3", "webapp"] and "2.0 MiB" in line and line.endswith("head of webapp")
    assert hob(fake, "images", "ls", "tool", **other).err == "no images yet: `hob build ENV` makes one\n"
    assert "step deps" in hob(fake, "images", "info", "img-3", **other).out
    assert json.loads(hob(fake, "images", "info", "--json", "img-3", **other).out)["id"] == "img-3"
    assert hob(fake, "images", "rm", "img-3", **other).code == 4
    fake.images[0]["users"] = []
    assert hob(fake, "images", "rm", "img-3", **other).out == "img-3 removed, 2.0 MiB freed\n"
    assert hob(fake, "images", "rm", "img-3", **other).code == 3
    assert hob(fake, "images", "rm", **other).code == 2
    assert hob(fake, "images", "rm", "--head", "img-3", **other).code == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_build_asks_hobd_when_not_root(fake):
    other = open_to_others(fake)
    done = hob(fake, "build", "webapp", **other)
    assert (done.code, done.out) == (0, "fetch\nstep deps\n") and "bld-1: published img-4" in done.err
    fake.build_result = "failed"
    done = hob(fake, "build", "webapp", **other)
    assert done.code == 1 and "bld-2 failed: step deps: exit code 1" in done.err
    done = hob(fake, "build", "--json", "webapp", "nope", **other)
    assert done.code == 1 and json.loads(done.out)["id"] == "bld-3"
    assert hob(fake, "build", "nope", **other).code == 3
    assert hob(fake, "build", **other).code == 2


def test_builds(fake):
    assert "no builds yet" in hob(fake, "builds").err
    fake.builds = [{"id": "bld-7", "environment": "webapp", "state": "failed", "commit": None, "image": None,
                    "started_at": "2026-01-01T00:00:00.000Z", "ended_at": "2026-01-01T00:00:02.000Z",
                    "took_ms": 2000, "message": "no such ref"}]
    fake.logs["bld-7"] = b"a log\n"
    line = hob(fake, "builds", "ls", "--env", "webapp").out.splitlines()[1]
    assert line.split()[:3] == ["bld-7", "webapp", "failed"] and "2.0 s" in line and "no such ref" in line
    assert "no such ref" in hob(fake, "builds", "info", "bld-7").out
    assert hob(fake, "builds", "log", "bld-7").out == "a log\n"
    assert hob(fake, "builds", "log", "-f", "webapp").out == "a log\n"
    assert hob(fake, "builds", "log", "bld-8").code == 3
    for words in (["--json", "builds"], ["builds", "--json"], ["builds", "--json", "ls"], ["builds", "ls", "--json"],
                  ["builds", "--socket", fake.socket, "--json", "ls"]):
        assert json.loads(hob(fake, *words).out)["builds"][0]["id"] == "bld-7"
    assert hob(fake, "builds", "--socket").code == 2
    assert "Usage: hob builds VERB" in hob(fake, "builds", "--json", "--help").out


def test_pool(fake):
    entry = {"environment": "webapp", "image": "img-3", "commit": "c" * 40, "target": 2, "min": 2, "max": 9,
             "ready": 1, "warming": 1, "claimed": 3, "stale": 0, "hits": 10, "misses": {"empty": 2, "stale": 1},
             "failing": {"message": "check failed", "since": "2026-01-01T00:00:00.000Z", "attempts": 4,
                         "retry_in_ms": 1500}}
    fake.pool = [entry]
    line = hob(fake, "pool").out.splitlines()[1]
    assert "3 (empty 2, stale 1)" in line and "4 attempts, next in 1.5 s): check failed" in line
    assert json.loads(hob(fake, "pool", "--json").out)["environments"] == [entry]
    child = subprocess.Popen([HOB, "pool", "--watch", "--json", "--every", "50ms"], env=environ(fake),
                             stdout=subprocess.PIPE)
    lines = [json.loads(child.stdout.readline()) for _ in range(3)]
    child.terminate()
    child.wait(20)
    assert lines[2]["environments"][0]["ready"] == 1


def test_bytes_that_steer_terminals_are_not_printed(fake):
    fake.sandboxes[BOX]["metadata"] = {"x": "\033]0;owned\007"}
    done = hob(fake, "ls")
    assert "\033" not in done.out and "?]0;owned?" in done.out


def test_output_that_cannot_be_written(fake):
    with open("/dev/full", "w") as full:
        done = subprocess.run([HOB, "ls"], env=environ(fake), stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 10 and b"standard output" in done.stderr
