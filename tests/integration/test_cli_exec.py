"""hob exec, attach and shell against a stand-in for hobd: streams, signals, terminals."""

import json
import os
import signal
import subprocess
import termios
import time

from clitest import BOX, HOB, Terminal, environ, fake, hob, wait_for  # noqa: F401


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
                          timeout=180, check=False)
    assert done.returncode == 0 and done.stdout == big


def test_exec_does_not_wait_for_its_stdin(fake):
    child = subprocess.Popen([HOB, "exec", BOX, "true"], env=environ(fake), stdin=subprocess.PIPE)
    assert child.wait(120) == 0
    child.stdin.close()


def test_exec_json(fake):
    done = hob(fake, "exec", "--json", BOX, "--", "sh", "-c", r"printf 'a\377'; echo err >&2; exit 3", stdin="x")
    result = json.loads(done.out)
    assert (done.code, done.err, result["exit_code"], result["stderr"]) == (3, "", 3, "err\n")
    assert (result["stdout"], result["stdout_encoding"]) == ("Yf8=", "base64")


def test_exec_of_what_is_not_there(fake):
    done = hob(fake, "exec", BOX, "no-such-program")
    assert done.code == 127 and "no such program" in done.err
    done = hob(fake, "exec", "sb-ffffffffffff", "true")
    assert done.code == 3 and "no sandbox" in done.err


def test_signals_go_to_the_command(fake):
    for number in (signal.SIGINT, signal.SIGTERM):
        child = subprocess.Popen([HOB, "exec", BOX, "--", "sh", "-c", "echo up; exec sleep 60"], env=environ(fake),
                                 stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                 preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        assert child.stdout.readline() == b"up\n"
        child.send_signal(number)
        assert child.wait(120) == 128 + number
        assert ("FRAME", BOX, {"signal": number.name[3:]}) in fake.requests


def test_the_third_interrupt_gives_up(fake):
    child = subprocess.Popen([HOB, "exec", BOX, "--", "sh", "-c", "trap '' INT; echo up; sleep 60"],
                             env=environ(fake), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert child.stdout.readline() == b"up\n"
    for sent in (1, 2, 3):
        child.send_signal(signal.SIGINT)
        wait_for(lambda: sent == 3 or sum(r[0] == "FRAME" and "signal" in r[2] for r in fake.requests) == sent)
    assert child.wait(120) == 130
    with fake.ended:
        assert fake.ended.wait_for(lambda: fake.connections_ended, 120)


def test_output_that_nobody_reads_any_more(fake):
    command = f"{HOB} exec {BOX} yes | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environ(fake), stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, timeout=180, check=False)
    assert done.stdout == "y\n141\n"


def test_much_output_waits_for_a_slow_reader(fake):
    child = subprocess.Popen([HOB, "exec", BOX, "head", "-c", "30000000", "/dev/zero"], env=environ(fake),
                             stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    time.sleep(0.5)
    with open(f"/proc/{child.pid}/status") as status:
        resident = [int(line.split()[1]) for line in status if line.startswith("VmRSS")]
    assert "asan" in HOB or resident[0] < 25000
    assert len(child.stdout.read()) == 30000000
    assert child.wait(120) == 0


def test_hobd_goes_away_in_the_middle(fake):
    child = subprocess.Popen([HOB, "exec", BOX, "--", "sh", "-c", "echo up; sleep 60"], env=environ(fake),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert child.stdout.readline() == b"up\n"
    fake.drop_sessions()
    assert child.wait(120) == 9
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
    # The command itself says that it is in the foreground.
    terminal.type("sh -c 'echo go$((1)); exec sleep 600'\n")
    terminal.expect("go1\r\n")
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
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=180, check=False)
    assert b"claimed" in done.stdout and b"\033" not in done.stdout
