"""Builds: what they make, what they leave alone, and how hobd starts, shows and repeats them."""

import json
import os
import subprocess
import tarfile
import threading

import pytest

from git_servers import files_http, git_daemon, git_http
from hobtest import git, wait_for


def claim(machine, name="app"):
    if machine.daemon is None:
        machine.start()
    wait_for("the new head", lambda: machine.client.get(f"/v1/environments/{name}")["head"])
    return machine.client.create(name)["id"]


def states(machine, name="app"):
    return [b["state"] for b in machine.client.get(f"/v1/builds?environment={name}")["builds"]]


def test_unchanged_stops_early(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path},
                        steps=[{"name": "step", "run": "echo the step ran; date +%N > when"}])
    assert "the step ran" in machine.build("app").stdout
    again = machine.build("app")
    assert "unchanged" in again.stdout + again.stderr and "the step ran" not in again.stdout + again.stderr
    repository.commit({"hello.txt": "second\n"})
    machine.build("app")
    machine.start()
    assert states(machine) == ["published", "unchanged", "published"]
    assert len(machine.client.get("/v1/images?environment=app")["images"]) == 2


def test_a_changed_environment_is_a_new_image(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, env={"A": "1"})
    machine.build("app")
    machine.environment("app", source={"url": repository.path}, env={"A": "2"})
    machine.build("app")
    assert machine.client is not None
    assert machine.client.output(claim(machine), "echo $A") == "2\n"
    assert states(machine) == ["published", "published"]


def test_ref_path_user_and_workdir(machine):
    repository = machine.repository("app")
    git(repository.path, "checkout", "-q", "-b", "side")
    commit = repository.commit({"hello.txt": "side\n"})
    git(repository.path, "checkout", "-q", "main")
    machine.environment("app", source={"url": repository.path, "ref": "side", "path": "/srv/code"},
                        user="1000", workdir="/srv", steps=[{"name": "who", "run": "id -u > /tmp/who; pwd"}])
    machine.build("app")
    sandbox = claim(machine)
    assert machine.client.output(sandbox, "cat code/hello.txt /tmp/who; pwd; id -u") == "side\n1000\n/srv\n1000\n"
    assert machine.client.get(f"/v1/sandboxes/{sandbox}")["commit"] == commit


@pytest.mark.parametrize("ref", ["v1.0", "commit", "refs/heads/main"])
def test_tags_commits_and_full_names(machine, ref):
    repository = machine.repository("app")
    git(repository.path, "tag", "-a", "v1.0", "-m", "first")
    first = repository.commit_id()
    machine.environment("app", source={"url": repository.path, "ref": first if ref == "commit" else ref})
    if ref == "commit":
        repository.commit({"hello.txt": "later\n"})
    machine.build("app")
    assert machine.client.output(claim(machine), "cat hello.txt") == "hello\n"


def test_several_sources(machine):
    one, two = machine.repository("one"), machine.repository("two")
    two.commit({"hello.txt": "two\n"})
    machine.environment("app", source=[{"url": one.path}, {"url": two.path, "path": "/workspace/lib/two"}])
    machine.build("app")
    assert machine.client.output(claim(machine), "cat hello.txt lib/two/hello.txt") == "hello\ntwo\n"
    two.commit({"hello.txt": "changed\n"})
    machine.build("app")
    assert states(machine)[0] == "published"


def test_no_source_at_all(machine):
    machine.environment("bare", workdir="/tmp")
    machine.build("bare")
    assert machine.client.output(claim(machine, "bare"), "pwd; ls /usr/bin/env") == "/tmp\n/usr/bin/env\n"


@pytest.mark.parametrize("scheme", ["file", "git", "http"])
def test_remotes(machine, scheme):
    repository = machine.repository("app")
    folder = os.path.dirname(repository.path)

    def build(url):
        machine.environment("app", source={"url": url})
        machine.build("app")
        repository.commit({"more.txt": "fetched later\n"})
        machine.build("app")
    if scheme == "file":
        build(f"file://{repository.path}")
    elif scheme == "git":
        with git_daemon(folder) as port:
            build(f"git://127.0.0.1:{port}/app")
    else:
        with git_http(folder) as port:
            build(f"http://127.0.0.1:{port}/app")
    sandbox = claim(machine)
    assert machine.client.output(sandbox, "cat hello.txt more.txt") == "hello\nfetched later\n"
    assert machine.client.output(sandbox, "git rev-list --count HEAD; git fsck") .startswith("2\n")


def test_every_kind_of_file_is_checked_out(machine):
    repository = machine.repository("app")
    os.symlink("hello.txt", f"{repository.path}/link")
    os.symlink("/etc/hostname", f"{repository.path}/absolute")
    repository.commit({"run.sh": "#!/bin/sh\necho ran\n", "ünï code.txt": "x\n", "empty": "",
                       "deep/er/and/deeper/file": "deep\n"})
    os.chmod(f"{repository.path}/run.sh", 0o755)
    repository.commit({"crlf.txt": "a\r\nb\r\n"})
    machine.environment("app", source={"url": repository.path})
    machine.build("app")
    sandbox = claim(machine)
    assert machine.client.output(sandbox, "readlink link absolute; ./run.sh; cat 'ünï code.txt'; "
                                          "cat deep/er/and/deeper/file; wc -c < crlf.txt; git status -s") == \
        "hello.txt\n/etc/hostname\nran\nx\ndeep\n6\n"


def make_root(folder):
    """A root file system of one static program: the shell of busybox, or hob-init's own libc."""
    os.makedirs(f"{folder}/bin")
    source = f"{folder}/hello.c"
    with open(source, "w", encoding="ascii") as file:
        file.write('#include <stdio.h>\nint main(void) { puts("hello from a tar"); return 0; }\n')
    subprocess.run(["musl-gcc", "-static", "-o", f"{folder}/bin/hello", source], check=True)
    os.unlink(source)
    os.symlink("hello", f"{folder}/bin/alias")
    os.makedirs(f"{folder}/etc")
    with open(f"{folder}/etc/passwd", "w", encoding="ascii") as file:
        file.write("root:x:0:0::/:/bin/hello\n")


def sha256(path):
    return subprocess.run(["sha256sum", path], check=True, stdout=subprocess.PIPE).stdout.decode().split()[0]


@pytest.mark.parametrize("kind", ["gz", "xz", "plain", "url"])
def test_tar_bases(machine, kind):
    make_root(f"{machine.folder}/root")
    mode = {"gz": "w:gz", "xz": "w:xz"}.get(kind, "w")
    archive = f"{machine.folder}/served/base.tar"
    os.mkdir(os.path.dirname(archive))
    with tarfile.open(archive, mode) as tar:
        tar.add(f"{machine.folder}/root", ".")
    with files_http(os.path.dirname(archive)) as port:
        where = f"http://127.0.0.1:{port}/base.tar" if kind == "url" else archive
        machine.environment("app", base={"tar": where, "sha256": sha256(archive)}, workdir="/")
        machine.build("app")
    sandbox = claim(machine)
    assert machine.client.output(sandbox, ["/bin/alias"]) == "hello from a tar\n"
    made = machine.client.exec(sandbox, ["/bin/hello"], user="root")
    assert made["exit_code"] == 0


def test_scratch_base(machine):
    machine.environment("app", base="scratch", workdir="/")
    machine.build("app")
    sandbox = claim(machine)
    listed = machine.client.get(machine.client.file_path(sandbox, "/"))["entries"]
    assert {entry["name"] for entry in listed} >= {"proc", "dev"}
    program = f"{machine.folder}/root"
    make_root(program)
    with open(f"{program}/bin/hello", "rb") as file:
        machine.client.raw("PUT", machine.client.file_path(sandbox, "/hello") + "?mode=0755", file.read())
    assert machine.client.output(sandbox, ["/hello"]) == "hello from a tar\n"


def test_steps_run_in_order_each_over_the_last(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, env={"K": "v"}, steps=[
        {"name": "one", "run": "echo one > a; echo \"$K\" >> a; mkdir -p /opt/x"},
        {"name": "two", "run": "cat a > b; rm hello.txt; rmdir /opt/x; rm -rf src; mkdir src; touch src/new"},
        {"name": "may", "run": "echo tried > c; exit 3", "allow_failure": True},
        {"name": "three", "run": "ls /opt > d; echo end >> d"}])
    done = machine.build("app")
    sandbox = claim(machine)
    assert machine.client.output(sandbox, "cat a b d; ls; ls src") == \
        "one\nv\none\nv\nend\na\nb\nd\nsrc\nnew\n".replace("src\nnew", "src\nnew") or done
    layers = machine.client.get("/v1/images")["images"][0]["layers"]
    assert [layer["kind"] for layer in layers][:2] == ["base", "source"]
    assert sum(layer["kind"] == "step" for layer in layers) >= 3


def test_step_log_is_kept_and_shown(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path},
                        steps=[{"name": "talk", "run": "echo said this; echo and that >&2"}])
    done = machine.build("app")
    assert "said this" in done.stdout + done.stderr
    machine.start()
    build = machine.client.get("/v1/builds")["builds"][0]
    assert build["id"].startswith("bld-") and build["image"].startswith("img-") and build["took_ms"] > 0
    log = machine.client.raw("GET", f"/v1/builds/{build['id']}/log")
    assert log.headers["Content-Type"].startswith("text/plain")
    assert b"said this" in log.body and b"and that" in log.body


def test_json_progress(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, steps=[{"name": "x", "run": "echo hi"}])
    done = machine.hob_build("--json", "app")
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(events) >= 2 and "published" in json.dumps(events[-1])


def test_build_through_the_api(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": 1, "max": 3},
                        steps=[{"name": "slow", "run": "echo begin; sleep 1; echo end"}])
    machine.start()
    reply = machine.client.raw("POST", "/v1/environments/app/build", {})
    assert reply.status == 202 and reply.json["environment"] == "app"
    assert reply.json["state"] in ("queued", "running")
    build = wait_for("the build to show", lambda: machine.client.get("/v1/builds")["builds"])[0]
    link = machine.client.connect()
    link.request("GET", f"/v1/builds/{build['id']}/log?follow=1")
    text = link.getresponse().read().decode()
    link.close()
    assert "begin" in text and "end" in text
    wait_for("it to be published", lambda: states(machine) == ["published"])
    machine.wait_ready("app", 1)
    assert machine.client.raw("POST", "/v1/environments/nosuch/build", {}).status == 404


def test_the_schedule_builds_by_itself(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, schedule={"every": "2s"},
                        pool={"min": 1, "max": 2})
    machine.start()
    machine.wait_ready("app", 1)
    commit = repository.commit({"hello.txt": "by itself\n"})
    wait_for("the next build", lambda: machine.pool("app")["commit"] == commit)
    assert machine.client.get("/v1/environments/app")["next_due_at"]
    count = len(states(machine))
    wait_for("an unchanged one", lambda: len(states(machine)) > count and states(machine)[0] == "unchanged")


def test_due_builds_what_is_due(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, schedule={"every": "1h"})
    machine.environment("manual", source={"url": repository.path})
    first = machine.hob_build("--due")
    assert first.returncode == 0, first.stderr
    second = machine.hob_build("--due")
    assert second.returncode == 0
    machine.start()
    assert states(machine) == ["published"] and states(machine, "manual") == []


def test_two_builds_at_once(machine):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path},
                        steps=[{"name": "slow", "run": "sleep 600 || true"}])
    machine.environment("other", source={"url": repository.path})
    first = machine.hob_build_start("app")
    wait_for("its step to run", machine.waiting_at_gate)
    second = machine.hob_build("app")
    other = machine.hob_build("other")
    assert second.returncode == 5, second.stderr
    assert str(first.pid) in second.stderr, "the second says who holds it"
    assert other.returncode == 0, "another environment may build meanwhile"
    machine.let_go()
    assert first.wait(120) == 0


def test_many_builds_side_by_side(machine):
    repository = machine.repository("app")
    for number in range(6):
        machine.environment(f"app{number}", source={"url": repository.path},
                            steps=[{"name": "x", "run": f"echo {number} > number"}])
    results = []
    threads = [threading.Thread(target=lambda n=n: results.append(machine.hob_build(f"app{n}").returncode))
               for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 6
    machine.start()
    for number in range(6):
        made = machine.client.create(f"app{number}")["id"]
        assert machine.client.output(made, "cat number") == f"{number}\n"
