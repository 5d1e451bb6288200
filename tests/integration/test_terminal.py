"""Interactive commands over WebSocket: a terminal, its size, signals, input and its end."""

import pytest

from hobtest import WebSocket, wait_for


@pytest.fixture
def shell(client, sandbox):
    terminal = client.terminal(sandbox, {"argv": ["/bin/sh"], "tty": True, "rows": 30, "cols": 100,
                                         "env": {"PS1": "> "}})
    assert terminal.status == 101
    # What is typed before the prompt is echoed before it, in any order.
    terminal.read_until(rb"> ")
    yield terminal
    terminal.close()


def test_terminal(shell):
    shell.binary(b"tty; stty size; echo $((6*7))\n")
    seen = shell.read_until(rb"42\r\n")
    assert b"/dev/pts/" in seen and b"30 100" in seen
    shell.binary(b"exit 9\n")
    _, _, messages, code = shell.finish()
    assert messages[-1]["exit"]["exit_code"] == 9 and code == 1000


def test_resize(shell):
    shell.binary(b"trap 'stty size' WINCH; echo set\n")
    shell.read_until(rb"\nset\r\n")
    shell.text({"resize": {"rows": 50, "cols": 132}})
    shell.binary(b"\n")
    shell.read_until(rb"50 132\r\n")


def test_interrupt_by_key_and_by_message(shell):
    # The command itself says that it is in the foreground; before that the shell would get the key.
    shell.binary(b"sh -c 'echo go$((1)); exec sleep 100'\n")
    shell.read_until(rb"go1\r\n")
    shell.binary(b"\x03")
    shell.read_until(rb"\^C")
    shell.binary(b"echo alive $?\n")
    shell.read_until(rb"alive 130\r\n")


def test_signal_message_without_terminal(client, sandbox):
    terminal = client.terminal(sandbox, {"shell": "trap 'echo caught; exit 4' INT; echo ready; "
                                                  "while :; do sleep 0.05; done"})
    terminal.read_until(rb"ready\n")
    terminal.text({"signal": "INT"})
    output, _, messages, code = terminal.finish()
    assert output == b"caught\n" and messages[-1]["exit"]["exit_code"] == 4 and code == 1000
    terminal.close()


def test_pipes_without_terminal(client, sandbox):
    terminal = client.terminal(sandbox, {"shell": "cat; echo error >&2"})
    terminal.binary(b"one ")
    terminal.binary(b"two")
    terminal.text({"stdin_end": True})
    output, errors, messages, code = terminal.finish()
    assert (output, errors, code) == (b"one two", b"error\n", 1000)
    assert messages[0]["started"]["pid"] > 0 and messages[-1]["exit"]["exit_code"] == 0
    terminal.close()


def test_much_input_and_output(client, sandbox):
    terminal = client.terminal(sandbox, {"shell": "wc -c; head -c 5000000 /dev/zero"})
    for _ in range(80):
        terminal.binary(b"x" * 50000)
    terminal.text({"stdin_end": True})
    output, _, messages, _ = terminal.finish()
    count, zeros = output.split(b"\n", 1)
    assert int(count) == 4000000 and len(zeros) == 5000000
    assert messages[-1]["exit"]["exit_code"] == 0
    terminal.close()


def test_ping_is_answered(shell):
    shell.send(WebSocket.PING, b"there?")
    while True:
        opcode, payload = shell.frame()
        if opcode == WebSocket.PONG:
            break
    assert payload == b"there?"


def test_a_client_that_goes_away(client, sandbox):
    terminal = client.terminal(sandbox, {"argv": ["sleep", "7774"], "tty": True})
    wait_for("the command to run", lambda: client.exec(sandbox, ["pgrep", "-f", "7774"])["exit_code"] == 0)
    terminal.close()
    wait_for("it to be killed", lambda: client.exec(sandbox, ["pgrep", "-f", "7774"])["exit_code"] == 1)


def test_first_message_must_be_a_request(client, sandbox):
    for request in ({"argv": []}, {"argv": ["ls"], "unknown": 1}):
        terminal = client.terminal(sandbox, request)
        _, _, messages, code = terminal.finish()
        assert messages[-1]["error"]["kind"] == "invalid" and code is not None
        terminal.close()


def test_a_command_that_does_not_start(client, sandbox):
    terminal = client.terminal(sandbox, {"argv": ["nope"], "tty": True})
    _, _, messages, _ = terminal.finish()
    assert messages[-1]["error"]["kind"] == "invalid" and "nope" in messages[-1]["error"]["message"]
    terminal.close()


def test_unknown_sandbox_is_no_upgrade(client):
    terminal = client.terminal("sb-000000000000", {"argv": ["true"]})
    assert terminal.status == 404
    terminal.close()


def test_unmasked_frame_is_a_protocol_error(client, sandbox):
    terminal = client.terminal(sandbox, {"argv": ["cat"]})
    terminal.sock.sendall(bytes([0x82, 3]) + b"abc")
    with pytest.raises((EOFError, AssertionError, ConnectionResetError)):
        _, _, messages, code = terminal.finish()
        assert code == 1002, messages
        raise EOFError("closed as a protocol error")
    terminal.close()
    assert client.get("/healthz")["status"] == "ok"
