"""The command line against a stand-in for hobd: usage, what it prints, what it exits with. What the real
hobd does is for the other files here."""

import json
import os
import socket
import subprocess

import pytest

from clitest import BOX, HOB, OTHER, Terminal, environ, fake, hob  # noqa: F401


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
        if verb not in ("build", "snapshots", "store", "doctor"):
            for words in ([verb, "--help"], ["help", verb]):
                done = hob(fake, *words)
                assert done.code == 0 and f"Usage: hob {verb}" in done.out and "--json" in done.out
    for words in (["build"], ["snapshots"], ["store"], ["doctor"], ["snapshots", "verify"], ["images", "diff"]):
        asked = hob(fake, "help", *words)
        assert asked.code == 0 and "--json" in asked.out and asked.out == hob(fake, *words, "--help").out
    assert hob(fake).code == 2
    assert hob(fake, "--version").out.startswith("hob ")


def test_hobd_is_not_there(fake, tmp_path):
    missing = str(tmp_path / "none.sock")
    for words in (["ls"], ["exec", BOX, "true"]):
        done = hob(fake, "--socket", missing, *words)
        assert done.code == 9 and f"hobd is not running (no socket at {missing})" in done.err
        assert "hint: start it" in done.err


def test_socket_of_a_hobd_that_died(fake, tmp_path):
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
    child.wait(120)
    assert lines[2]["environments"][0]["ready"] == 1


def test_bytes_that_steer_terminals_are_not_printed(fake):
    fake.sandboxes[BOX]["metadata"] = {"x": "\033]0;owned\007"}
    done = hob(fake, "ls")
    assert "\033" not in done.out and "?]0;owned?" in done.out


def test_output_that_cannot_be_written(fake):
    with open("/dev/full", "w") as full:
        done = subprocess.run([HOB, "ls"], env=environ(fake), stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 10 and b"standard output" in done.stderr
