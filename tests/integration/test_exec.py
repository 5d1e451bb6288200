"""Commands in a sandbox: captured, streamed, detached, and those whose client goes away."""

import threading
import time

import pytest

from hobtest import Failure, wait_for

# Stands until another command says that it may go on.
GATE = "until test -e /tmp/go; do sleep 0.05; done"


def test_result_of_a_captured_command(client, sandbox):
    result = client.exec(sandbox, "echo out; echo err >&2; exit 7")
    assert (result["exit_code"], result["signal"]) == (7, None)
    assert (result["stdout"], result["stderr"]) == ("out\n", "err\n")
    assert result["took_ms"] > 0 and result["max_rss_bytes"] > 0
    assert result["user_ms"] >= 0 and result["system_ms"] >= 0
    assert "stdout_truncated" not in result and "timed_out" not in result


def test_argv_is_not_a_shell(client, sandbox):
    assert client.output(sandbox, ["printf", "%s|", "a b", "$HOME", "", "*"]) == "a b|$HOME||*|"


def test_signal_is_reported(client, sandbox):
    result = client.exec(sandbox, "kill -TERM $$")
    assert result["exit_code"] == 128 + 15 and result["signal"] == 15


def test_stdin_cwd_user_and_environment(client, sandbox):
    assert client.output(sandbox, ["cat"], stdin="given\n") == "given\n"
    assert client.output(sandbox, ["cat"]) == ""
    assert client.output(sandbox, "pwd", cwd="/tmp") == "/tmp\n"
    assert client.output(sandbox, "id -u; echo $HOME") == "0\n/root\n"
    assert client.output(sandbox, "id -u", user="65534") == "65534\n"
    assert client.output(sandbox, "id -u; id -g", user="1000:1001") == "1000\n1001\n"
    assert client.output(sandbox, 'printf "%s" "$A"', env={"A": "x=y z"}) == "x=y z"


def test_large_stdin_comes_whole(client, sandbox):
    text = "0123456789abcde\n" * 40000
    assert client.output(sandbox, "wc -c; ", stdin=text).strip() == str(len(text))


def test_output_that_is_not_text(client, sandbox):
    result = client.exec(sandbox, r"printf '\377\000\376'; printf ok >&2")
    assert result["stdout"] == b"\xff\x00\xfe" and result["stdout_encoding"] == "base64"
    assert result["stderr"] == "ok" and "stderr_encoding" not in result


def test_text_with_zero_and_unicode(client, sandbox):
    assert client.output(sandbox, "printf 'gr\\303\\274\\303\\237e \\360\\237\\220\\235'") == "grüße 🐝"


def test_much_output_is_cut_and_flagged(client, sandbox):
    result = client.exec(sandbox, "head -c 20000000 /dev/zero | tr '\\0' x; echo end >&2")
    assert result["stdout_truncated"] is True and len(result["stdout"]) == 8 << 20
    assert result["stderr"] == "end\n" and result["exit_code"] == 0


def test_both_streams_full(client, sandbox):
    result = client.exec(sandbox, "head -c 3000000 /dev/zero | tr '\\0' a & "
                                  "head -c 3000000 /dev/zero | tr '\\0' b >&2; wait")
    assert len(result["stdout"]) == 3000000 and set(result["stdout"]) == {"a"}
    assert len(result["stderr"]) == 3000000 and set(result["stderr"]) == {"b"}


def test_timeout_kills_the_whole_command(client, sandbox):
    def attempt():
        result = client.exec(sandbox, "echo before; sleep 4321 & sleep 4321", timeout_ms=300)
        assert result["timed_out"] is True and result["signal"] == 9
        return result["stdout"]
    assert wait_for("it to say something within its time", attempt) == "before\n"
    wait_for("the children to die", lambda: client.exec(sandbox, ["pgrep", "-f", "4321"])["exit_code"] == 1)


def test_a_background_child_does_not_hold_the_reply(client, sandbox):
    assert client.output(sandbox, "sleep 4322 & echo done") == "done\n"


def test_command_not_found(client, sandbox):
    with pytest.raises(Failure) as refused:
        client.exec(sandbox, ["no-such-program"])
    assert refused.value.status == 400 and refused.value.kind == "invalid"
    assert "no-such-program" in refused.value.message
    body = client.raw("POST", f"/v1/sandboxes/{sandbox}/exec", {"argv": ["no-such-program"]}).error
    assert (body["step"], body["exit_code"]) == ("exec", 127)
    for argv, more, step in ((["/etc/passwd"], {}, "exec"), (["/etc"], {}, "exec"), (["true"], {"cwd": "/no"}, "cwd"),
                             (["true"], {"user": "nobody-at-all"}, "user")):
        body = client.raw("POST", f"/v1/sandboxes/{sandbox}/exec", {"argv": argv, **more}).error
        assert (body["step"], body.get("exit_code")) == (step, 126 if step == "exec" else None), body
    with pytest.raises(Failure) as refused:
        client.exec(sandbox, ["true"], cwd="/nowhere")
    assert refused.value.status == 400 and "/nowhere" in refused.value.message
    with pytest.raises(Failure) as refused:
        client.exec(sandbox, ["true"], user="nosuchuser")
    assert refused.value.status == 400 and "nosuchuser" in refused.value.message
    assert client.exec(sandbox, "no-such-program")["exit_code"] == 127


@pytest.mark.parametrize("body", [
    {}, {"argv": []}, {"argv": "ls"}, {"argv": ["ls"], "shell": "ls"}, {"argv": [1]}, {"shell": ["ls"]},
    {"shell": "true", "timout_ms": 5}, {"shell": "true", "timeout_ms": -1}, {"shell": "true", "cwd": "tmp"},
    {"shell": "true", "env": []}, {"argv": ["a\u0000b"]}, {"shell": "true", "tty": "yes"}, [1],
])
def test_malformed_requests(client, sandbox, body):
    reply = client.raw("POST", f"/v1/sandboxes/{sandbox}/exec", body)
    assert reply.status == 400 and reply.error["kind"] == "invalid", reply.body
    assert client.get(f"/v1/sandboxes/{sandbox}/execs")["execs"] == []


def test_arguments_over_their_limit(client, sandbox):
    reply = client.raw("POST", f"/v1/sandboxes/{sandbox}/exec", {"argv": ["true", "x" * 100000]})
    assert reply.status in (400, 413) and reply.error["kind"] in ("invalid", "limit")
    assert client.output(sandbox, "echo fine") == "fine\n"


def test_many_commands_at_once(client, sandbox):
    outputs = {}

    def run(number):
        outputs[number] = client.output(sandbox, f"sleep 0.2; echo {number}")
    threads = [threading.Thread(target=run, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: f"{number}\n" for number in range(40)}


def test_events(client, sandbox):
    with client.stream("POST", f"/v1/sandboxes/{sandbox}/exec",
                       {"shell": f"echo one; {GATE}; echo two >&2; exit 3"}) as events:
        seen = []
        for number, event, data in events:
            seen.append((number, event, data))
            if event == "stdout":  # the output comes while the command runs
                client.output(sandbox, "touch /tmp/go")
    assert [event for _, event, _ in seen] == ["started", "stdout", "stderr", "exit"]
    assert [int(number) for number, _, _ in seen] == sorted({int(number) for number, _, _ in seen})
    assert seen[0][2]["pid"] > 1 and seen[0][2]["exec"] > 0
    assert seen[1][2]["data"] == "one\n" and seen[2][2]["data"] == "two\n"
    assert seen[3][2]["exit_code"] == 3 and "stdout" not in seen[3][2]


def test_much_output_through_events(client, sandbox):
    total = 0
    with client.stream("POST", f"/v1/sandboxes/{sandbox}/exec",
                       {"shell": "head -c 30000000 /dev/zero | tr '\\0' x"}) as events:
        for _, event, data in events:
            total += len(data["data"]) if event == "stdout" else 0
    assert total == 30000000 and data["exit_code"] == 0


def test_events_of_bytes_that_are_not_text(client, sandbox):
    with client.stream("POST", f"/v1/sandboxes/{sandbox}/exec", {"shell": "printf '\\377'"}) as events:
        outputs = [data for _, event, data in events if event == "stdout"]
    assert outputs == [{"data": "/w==", "encoding": "base64"}]


def test_event_for_a_command_that_does_not_start(client, sandbox):
    try:
        with client.stream("POST", f"/v1/sandboxes/{sandbox}/exec", {"argv": ["nope"]}) as events:
            kinds = [(event, data.get("kind")) for _, event, data in events]
        assert kinds[-1] == ("error", "invalid")
    except Failure as failure:
        assert failure.status == 400


def is_running(client, sandbox, mark):
    return client.exec(sandbox, ["pgrep", "-f", mark])["exit_code"] == 0


def test_a_streaming_client_that_goes_away(client, sandbox):
    events = client.stream("POST", f"/v1/sandboxes/{sandbox}/exec",
                           {"shell": "echo go; while sleep 0.05; do echo 7771; done"})
    for _, event, _ in events:
        if event == "stdout":
            break
    assert is_running(client, sandbox, "7771")
    events.close()
    wait_for("the command to be killed", lambda: not is_running(client, sandbox, "7771"))


def test_a_captured_client_that_goes_away(client, sandbox):
    link = client.connect()
    link.request("POST", f"/v1/sandboxes/{sandbox}/exec", body=b'{"argv": ["sleep", "7772"]}')
    wait_for("the command to run", lambda: is_running(client, sandbox, "7772"))
    link.close()
    wait_for("the command to be killed", lambda: not is_running(client, sandbox, "7772"))
    wait_for("its record to go", lambda: client.get(f"/v1/sandboxes/{sandbox}/execs")["execs"] == [])


def test_a_client_that_reads_slowly(client, sandbox):
    events = client.stream("POST", f"/v1/sandboxes/{sandbox}/exec", {"shell": "yes | head -c 50000000"})
    time.sleep(1)
    assert client.output(sandbox, "echo others go on") == "others go on\n"
    events.close()


def test_detached_command(client, sandbox):
    reply = client.raw("POST", f"/v1/sandboxes/{sandbox}/exec",
                       {"shell": f"echo first; {GATE}; echo second; exit 5", "detach": True})
    assert reply.status == 202
    number = reply.json["exec"]
    listed = client.get(f"/v1/sandboxes/{sandbox}/execs")["execs"]
    assert [(e["exec"], e["running"], e["exit_code"]) for e in listed] == [(number, True, None)]
    client.output(sandbox, "touch /tmp/go")
    result = client.get(f"/v1/sandboxes/{sandbox}/execs/{number}?wait=1")
    assert result["exit_code"] == 5 and result["stdout"] == "first\nsecond\n"
    again = client.get(f"/v1/sandboxes/{sandbox}/execs/{number}")
    assert again["stdout"] == "first\nsecond\n"
    client.call("DELETE", f"/v1/sandboxes/{sandbox}/execs/{number}")
    with pytest.raises(Failure) as forgotten:
        client.get(f"/v1/sandboxes/{sandbox}/execs/{number}")
    assert forgotten.value.status == 404


def test_detached_output_is_kept_and_followed(client, sandbox):
    number = client.post(f"/v1/sandboxes/{sandbox}/exec",
                         {"shell": f"echo kept; touch /tmp/said; {GATE}; echo live; exit 1", "detach": True})["exec"]
    path, seen = f"/v1/sandboxes/{sandbox}/execs/{number}", []
    wait_for("output to be kept", lambda: client.exec(sandbox, "test -e /tmp/said")["exit_code"] == 0)
    with client.stream("GET", path) as events:
        for _, event, data in events:
            seen.append((event, data))
            if event == "stdout" and data["data"] == "kept\n":
                client.output(sandbox, "touch /tmp/go")
    output = "".join(data["data"] for event, data in seen if event == "stdout")
    assert output == "kept\nlive\n"
    assert seen[-1][0] == "exit" and seen[-1][1]["exit_code"] == 1


def test_only_the_end_of_much_detached_output_is_kept(client, sandbox):
    number = client.post(f"/v1/sandboxes/{sandbox}/exec",
                         {"shell": "seq 1 200000; echo END", "detach": True})["exec"]
    result = client.get(f"/v1/sandboxes/{sandbox}/execs/{number}?wait=1")
    assert result["exit_code"] == 0 and result["stdout"].endswith("200000\nEND\n")
    assert len(result["stdout"]) <= 65536


def test_detached_command_is_killed_on_request(client, sandbox):
    number = client.post(f"/v1/sandboxes/{sandbox}/exec",
                         {"argv": ["sleep", "7773"], "detach": True})["exec"]
    assert is_running(client, sandbox, "7773")
    client.call("DELETE", f"/v1/sandboxes/{sandbox}/execs/{number}")
    wait_for("the command to be killed", lambda: not is_running(client, sandbox, "7773"))


def test_deleting_a_sandbox_ends_its_streams(client):
    sandbox = client.create("tiny")["id"]
    with client.stream("POST", f"/v1/sandboxes/{sandbox}/exec", {"argv": ["sleep", "1000"]}) as events:
        for _, event, _ in events:
            assert event == "started"
            break
        client.delete(sandbox)
        rest = [event for _, event, _ in events]
    assert rest in (["error"], ["exit"])


def test_an_ordinary_toolchain_works(client, sandbox):
    script = """
import multiprocessing, sqlite3, socket, tempfile, threading
with multiprocessing.Pool(2) as pool:
    assert sum(pool.map(abs, range(-10, 0))) == 55
base = sqlite3.connect(tempfile.mktemp()); base.execute('create table t(a)'); base.commit()
server = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(server.getsockname()); client.close()
print('fine')
"""
    assert client.output(sandbox, ["/usr/bin/python3", "-c", script]) == "fine\n"
    assert client.output(sandbox, "cc -o /tmp/a -x c - <<'X' && /tmp/a\n#include <stdio.h>\n"
                                  "int main(void) { puts(\"compiled\"); }\nX") == "compiled\n"
