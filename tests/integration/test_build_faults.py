"""Builds that cannot succeed: each says what is wrong and where, and the last good image stays."""

import hashlib
import io
import os
import subprocess
import tarfile
import time

import pytest

from git_servers import CuttingProxy, files_http, free_port, git_daemon, git_http
from hobtest import wait_for


@pytest.fixture
def app(machine):
    """An environment with one good image, and a function that spoils it and expects the build to fail
    with these words and within this time, with the good image in use after it."""
    machine.app = machine.repository("app")
    machine.environment("app", source={"url": machine.app.path})
    machine.build("app")
    machine.start()
    image = machine.client.get("/v1/environments/app")["head"]

    def fails(*words, code=None, seconds=300, rewrite=True, **keys):
        if rewrite:
            machine.environment("app", **{"source": {"url": machine.app.path}, **keys})
        start = time.monotonic()
        done = machine.hob_build("app", timeout=seconds)
        assert done.returncode != 0, done.stdout
        if code is not None:
            assert done.returncode == code, done.stderr
        text = done.stdout + done.stderr
        for word in words:
            assert word in text, f"{word!r} is not in:\n{text}"
        assert time.monotonic() - start < seconds
        assert machine.client.get("/v1/environments/app")["head"] == image
        made = machine.client.create("app")
        assert made["image"] == image
        assert machine.client.output(made["id"], "cat hello.txt") == "hello\n"
        machine.client.delete(made["id"])
        return text
    machine.fails = fails
    return machine


def last_build(machine):
    return machine.client.get("/v1/builds?environment=app&limit=1")["builds"][0]


def test_failing_step(app):
    app.fails("broken", "reason on stderr", steps=[
        {"name": "fine", "run": "true"}, {"name": "broken", "run": "echo reason on stderr >&2; exit 3"},
        {"name": "never", "run": "echo must not run"}])
    build = last_build(app)
    assert build["state"] == "failed" and "broken" in build["message"] and "3" in build["message"]
    log = app.client.raw("GET", f"/v1/builds/{build['id']}/log").body
    assert b"reason on stderr" in log and b"must not run" not in log


def test_step_killed_by_a_signal(app):
    app.fails("suicide", steps=[{"name": "suicide", "run": "kill -9 $$"}])


def test_hanging_step(app):
    app.fails("hang", "2s", steps=[
        {"name": "hang", "run": "trap '' TERM INT; echo waiting; sleep 100000 & wait; sleep 100000",
         "timeout": "2s"}])
    assert "time" in last_build(app)["message"]


def test_whole_build_over_its_time(app):
    app.fails(build={"timeout": "3s"},
              steps=[{"name": f"s{i}", "run": "sleep 2", "timeout": "1m"} for i in range(5)])


def test_step_that_fills_the_disk(app):
    app.fails("disk", limits={"disk": "64MiB"}, steps=[
        {"name": "fill", "run": "dd if=/dev/zero of=big bs=1M count=3000 2>&1; sleep 2; echo survived"}])
    used = subprocess.run(["du", "-sx", "-B1", app.store], check=True, stdout=subprocess.PIPE).stdout
    assert int(used.split()[0]) < 64 << 20, "what the step wrote must be gone"


def test_step_that_floods_its_output(app):
    app.environment("app", source={"url": app.app.path},
                    steps=[{"name": "loud", "run": "head -c 300000000 /dev/zero | tr '\\0' 'x'; echo"}])
    done = app.hob_build("app")
    assert done.returncode == 0
    log = app.client.raw("GET", f"/v1/builds/{last_build(app)['id']}/log").body
    assert len(log) < 100 << 20, "the log must have a limit"


def test_step_with_a_fork_bomb(app):
    app.fails(limits={"pids": 100}, steps=[
        {"name": "bomb", "run": "b() { b | b & b; }; b; sleep 3; exit 1", "timeout": "20s"}])


def test_failing_check_keeps_the_old_head(app):
    app.fails("check", "not good enough", check={"run": "echo not good enough; exit 1"})


def test_missing_ref(app):
    app.fails("nosuchbranch", code=3, source={"url": app.app.path, "ref": "nosuchbranch"})
    app.fails("0123456789", source={"url": app.app.path, "ref": "0123456789" * 4})


def test_missing_repository(app):
    app.fails("/nowhere/at/all", source={"url": "/nowhere/at/all"})
    os.mkdir(f"{app.folder}/empty")
    app.fails("empty", source={"url": f"{app.folder}/empty"})


def test_repository_without_commits(app):
    subprocess.run(["git", "init", "-q", f"{app.folder}/new"], check=True)
    app.fails(source={"url": f"{app.folder}/new"})


def test_unreachable_remotes(app):
    for url in (f"git://127.0.0.1:{free_port()}/app", f"http://127.0.0.1:{free_port()}/app",
                "http://no-such-host.invalid/app"):
        text = app.fails(source={"url": url})
        assert url.split("/")[2].split(":")[0] in text


def test_remote_that_is_no_git_server(app):
    with files_http(app.folder) as port:
        app.fails(source={"url": f"http://127.0.0.1:{port}/"})


@pytest.mark.parametrize("limit", [200, 3000, 400000])
def test_remote_that_vanishes(app, limit):
    with open(f"{app.app.path}/big.bin", "wb") as file:
        file.write(os.urandom(2 << 20))
    app.app.commit({"big.txt": "x\n"})
    folder = os.path.dirname(app.app.path)
    with git_daemon(folder) as port, CuttingProxy(port, limit) as proxy:
        app.fails(source={"url": f"git://127.0.0.1:{proxy.port}/app"})
        assert proxy.cut.is_set() or limit == 400000
    with git_daemon(folder) as port:
        app.environment("app", source={"url": f"git://127.0.0.1:{port}/app"})
        app.build("app")


def test_http_remote_that_vanishes(app):
    app.app.commit({"more.txt": "more\n"})
    with git_http(os.path.dirname(app.app.path), "cut") as port:
        app.fails(source={"url": f"http://127.0.0.1:{port}/app"})


def test_remote_that_falls_silent(app):
    app.app.commit({"more.txt": "more\n"})
    with git_daemon(os.path.dirname(app.app.path)) as port, CuttingProxy(port, 100, stall=True) as proxy:
        app.fails(source={"url": f"git://127.0.0.1:{proxy.port}/app"}, build={"timeout": "4s"})


def archive(machine, entries, name="bad.tar"):
    path = f"{machine.folder}/{name}"
    with tarfile.open(path, "w") as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    with open(path, "rb") as file:
        return path, hashlib.sha256(file.read()).hexdigest()


def entry(name, kind=tarfile.REGTYPE, target=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, target, 0o777
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        made.devmajor, made.devminor = 1, 3
    return made


BAD_ARCHIVES = {
    "dotdot": [(entry("../escaped"), b"x")],
    "dotdot-inside": [(entry("a/b/../../../escaped"), b"x")],
    "absolute": [(entry("/escaped"), b"x")],
    "through-link": [(entry("link", tarfile.SYMTYPE, "/"), b""), (entry("link/escaped"), b"x")],
    "through-relative-link": [(entry("l", tarfile.SYMTYPE, "../../.."), b""), (entry("l/escaped"), b"x")],
    "hard-link-out": [(entry("passwd", tarfile.LNKTYPE, "/etc/shadow"), b"")],
    "hard-link-dotdot": [(entry("passwd", tarfile.LNKTYPE, "../../../../../../../../etc/shadow"), b"")],
}


@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_archives_that_want_out(app, kind):
    """Refused with the entry's name, or taken with the entry kept inside: never written outside, and no
    device and no foreign content inside."""
    path, digest = archive(app, BAD_ARCHIVES[kind])
    app.environment("app", base={"tar": path, "sha256": digest}, workdir="/")
    done = app.hob_build("app")
    outside = [folder for folder in ("/", app.folder, app.store, f"{app.store}/staging", f"{app.store}/layers",
                                     os.path.dirname(app.folder)) if os.path.exists(f"{folder}/escaped")]
    assert not outside
    assert done.returncode != 0, "an archive like this is refused"
    name = BAD_ARCHIVES[kind][-1][0].name
    assert name in done.stderr + done.stdout
    assert app.client.create("app")["source"] in ("cold", "warm")


def test_devices_of_an_archive_are_left_out(app):
    """Root file systems often hold a /dev that nobody needs here, so they are no reason to refuse one."""
    path, digest = archive(app, [(entry("null", tarfile.CHRTYPE), b""), (entry("disk", tarfile.BLKTYPE), b""),
                                 (entry("kept"), b"x")])
    app.environment("app", base={"tar": path, "sha256": digest}, workdir="/")
    done = app.build("app")
    assert "2" in done.stdout + done.stderr and "device" in done.stdout + done.stderr
    made = wait_for("the new head", lambda: claim_without_source(app))
    names = {e["name"] for e in app.client.get(app.client.file_path(made, "/"))["entries"]}
    assert "kept" in names and not names & {"null", "disk"}


def claim_without_source(machine):
    made = machine.client.create("app")
    if made["commit"] is None or made["commit"] == "":
        return made["id"]
    machine.client.delete(made["id"])
    return None


def test_archive_with_another_sha256(app):
    path, digest = archive(app, [(entry("file"), b"x")])
    wrong = ("0" if digest[0] != "0" else "1") + digest[1:]
    text = app.fails(wrong[:12], base={"tar": path, "sha256": wrong}, workdir="/")
    assert digest in text, "it says what the file has instead"
    with files_http(app.folder) as port:
        app.fails(base={"tar": f"http://127.0.0.1:{port}/bad.tar", "sha256": wrong}, workdir="/")
        app.fails("404", base={"tar": f"http://127.0.0.1:{port}/none.tar", "sha256": digest}, workdir="/")


def test_archive_that_is_cut_or_none(app):
    path, _ = archive(app, [(entry("file"), b"x" * 100000)])
    for data in (open(path, "rb").read()[:50000], b"this is no archive" * 1000, b""):
        with open(path, "wb") as file:
            file.write(data)
        app.fails(base={"tar": path, "sha256": hashlib.sha256(data).hexdigest()}, workdir="/")


BAD_FILES = {
    "misspelt": ("name: app\nsteps:\n  - nmae: x\n    run: y\n", ("nmae", "name", ":3:")),
    "misspelt-top": ("name: app\npol: {min: 1}\n", ("pol", "pool", ":2:")),
    "type": ("name: app\npool: {min: many}\n", ("min", ":2:")),
    "list-for-map": ("name: app\nlimits: [1]\n", ("limits", ":2:")),
    "range": ("name: app\npool: {min: -1}\n", ("min",)),
    "min-over-max": ("name: app\npool: {min: 9, max: 2}\n", ("min", "max")),
    "slash": ("name: ../app\n", ("name", ":1:")),
    "twice": ("name: app\nname: app\n", ("name", ":2:")),
    "not-yaml": ("name: [app\n", (":2:",)),
    "empty": ("", ("app.yaml",)),
    "duration": ("name: app\nschedule: {every: 5}\n", ("every", ":2:")),
    "sha": ("name: app\nbase: {tar: /x.tar, sha256: abc}\n", ("sha256",)),
    "relative-path": ("name: app\nworkdir: tmp\n", ("workdir",)),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_environment_files(app, kind):
    text, words = BAD_FILES[kind]
    app.write(f"{app.environments}/app.yaml", text)
    app.fails("app.yaml", *words, code=2, rewrite=False)
    checked = app.hob("env", "check", f"{app.environments}/app.yaml")
    assert checked.returncode == 2
    for word in ("app.yaml", *words):
        assert word in checked.stderr + checked.stdout


def test_unknown_environment(machine):
    machine.environment("webapp")
    done = machine.hob_build("webap")
    assert done.returncode == 3 and "webapp" in done.stderr, "it names the nearest one"
    for name in ("../webapp", "a/b", "", "-x"):
        assert machine.hob_build(name).returncode != 0


def test_misspelt_setting(machine):
    machine.write(machine.config, f"store: {machine.store}\nlaunchrs: 2\n")
    for program in ("hob-build", "hobd"):
        done = subprocess.run([machine.program(program), "--config", machine.config] +
                              (["x"] if program == "hob-build" else []), capture_output=True, text=True,
                              check=False, timeout=180)
        assert done.returncode == 2
        assert "launchrs" in done.stderr and "launchers" in done.stderr and ":2:" in done.stderr
