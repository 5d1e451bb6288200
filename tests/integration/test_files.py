"""Files of a sandbox through the API: whole, large, by any name, and never outside."""

import hashlib
import os

import pytest

from hobtest import Failure


def get(client, sandbox, path):
    return client.raw("GET", client.file_path(sandbox, path))


def put(client, sandbox, path, data, query=""):
    return client.raw("PUT", client.file_path(sandbox, path) + query, data)


def test_put_get_delete(client, sandbox):
    made = put(client, sandbox, "/data/deep/file.txt", b"content", "?mode=0640")
    assert made.status == 201 and made.json == {"path": "/data/deep/file.txt", "bytes": 7}
    assert client.output(sandbox, "stat -c '%a %u %s' /data/deep/file.txt") == "640 0 7\n"
    got = get(client, sandbox, "/data/deep/file.txt")
    assert got.status == 200 and got.body == b"content"
    assert got.headers["Content-Type"] == "application/octet-stream"
    assert int(got.headers["X-Hob-Mode"], 8) & 0o7777 == 0o640 and got.headers["X-Hob-Mtime"]
    gone = client.call("DELETE", client.file_path(sandbox, "/data/deep/file.txt"))
    assert gone["path"] == "/data/deep/file.txt"
    assert get(client, sandbox, "/data/deep/file.txt").status == 404


def test_put_replaces_and_default_mode(client, sandbox):
    put(client, sandbox, "/tmp/f", b"a long first version")
    put(client, sandbox, "/tmp/f", b"short")
    assert get(client, sandbox, "/tmp/f").body == b"short"
    assert client.output(sandbox, "stat -c %a /tmp/f") == "644\n"
    put(client, sandbox, "/tmp/empty", b"")
    assert get(client, sandbox, "/tmp/empty").body == b""


def test_large_file_both_ways(client, sandbox):
    data = os.urandom(1 << 20) * 40
    assert put(client, sandbox, "/tmp/large", data).json["bytes"] == len(data)
    digest = hashlib.sha256(data).hexdigest()
    assert client.output(sandbox, "sha256sum < /tmp/large").split()[0] == digest
    assert hashlib.sha256(get(client, sandbox, "/tmp/large").body).hexdigest() == digest


def test_folder_lists_everything(client, sandbox):
    client.output(sandbox, "mkdir -p /d/sub && cd /d && echo x > file && ln -s file link && mkfifo pipe && "
                           "chmod 600 file && printf 1 > 'a b\"\\ü'")
    listed = get(client, sandbox, "/d").json
    assert listed["path"] == "/d"
    entries = {entry["name"]: entry for entry in listed["entries"]}
    assert {name: entry["type"] for name, entry in entries.items()} == {
        "sub": "dir", "file": "file", "link": "symlink", "pipe": "fifo", 'a b"\\ü': "file"}
    assert entries["file"]["mode"] == "0600" and entries["file"]["size"] == 2
    assert entries["link"]["target"] == "file" and entries["file"]["uid"] == 0
    assert entries["file"]["mtime"]


def test_folder_with_many_entries(client, sandbox):
    client.output(sandbox, "mkdir /many && cd /many && seq 1 20000 | xargs touch")
    assert len(get(client, sandbox, "/many").json["entries"]) == 20000


def test_odd_names(client, sandbox):
    for name in ("with space", "ümlaut", "per%cent", "que?ry", "has#hash", "new\nline", "plus+", "semi;"):
        assert put(client, sandbox, f"/tmp/{name}", name.encode()).status == 201, name
        assert get(client, sandbox, f"/tmp/{name}").body == name.encode()


def test_root_and_trailing_slash(client, sandbox):
    names = {entry["name"] for entry in get(client, sandbox, "/").json["entries"]}
    assert {"usr", "tmp", "proc", "workspace"} <= names
    assert get(client, sandbox, "/workspace/").json["path"].rstrip("/") == "/workspace"


def test_removing_folders(client, sandbox):
    client.output(sandbox, "mkdir -p /r/a/b && touch /r/a/b/c && ln -s /etc /r/a/etc")
    with pytest.raises(Failure) as full:
        client.call("DELETE", client.file_path(sandbox, "/r"))
    assert full.value.status in (400, 409)
    client.call("DELETE", client.file_path(sandbox, "/r") + "?recursive=1")
    assert client.exec(sandbox, "test -e /r")["exit_code"] == 1
    assert client.exec(sandbox, "test -e /etc/passwd")["exit_code"] == 0
    assert client.raw("DELETE", client.file_path(sandbox, "/r")).status == 404


def test_errors_name_the_path(client, sandbox):
    missing = get(client, sandbox, "/no/such/file")
    assert missing.status == 404 and "/no/such/file" in missing.error["message"]
    client.output(sandbox, "touch /tmp/plain")
    below = put(client, sandbox, "/tmp/plain/below", b"x")
    assert below.status >= 400 and below.status < 500
    onto = put(client, sandbox, "/workspace", b"x")
    assert 400 <= onto.status < 500
    mode = put(client, sandbox, "/tmp/f", b"x", "?mode=rwx")
    assert mode.status == 400 and mode.error["kind"] == "invalid"
    readonly = put(client, sandbox, "/usr/bin/hob-was-here", b"x")
    assert 400 <= readonly.status < 600 and not os.path.exists("/usr/bin/hob-was-here")


def test_files_that_are_no_files(client, sandbox):
    """Nothing here may hang: a fifo without a writer, a device without an end."""
    client.output(sandbox, "mkfifo /tmp/fifo")
    assert get(client, sandbox, "/tmp/fifo").status >= 400
    assert get(client, sandbox, "/dev/zero").status >= 400
    assert client.output(sandbox, "echo alive") == "alive\n"


def test_links_are_followed_inside_only(client, sandbox, tmp_path):
    """The host never resolves a path: a link to /etc/shadow is the sandbox's own, or nothing."""
    secret = tmp_path / "secret"
    secret.write_text("host")
    tmp_path.chmod(0o755)
    client.output(sandbox, f"ln -s {secret} /tmp/out; ln -s /proc/1/root/etc/shadow /tmp/shadow")
    assert get(client, sandbox, "/tmp/out").status == 404
    assert get(client, sandbox, "/../../../../etc/hostname").status in (200, 400, 404)
    assert get(client, sandbox, str(secret)).status == 404


def test_upload_that_breaks_off_leaves_nothing(client, sandbox):
    link = client.connect()
    link.putrequest("PUT", client.file_path(sandbox, "/tmp/partial"))
    link.putheader("Content-Length", "1000000")
    link.endheaders()
    link.send(b"x" * 300000)
    link.close()
    assert client.output(sandbox, "sleep 0.5; ls /tmp") == ""


def test_chunked_upload(client, sandbox):
    link = client.connect()
    link.request("PUT", client.file_path(sandbox, "/tmp/chunks"), body=iter([b"a" * 70000, b"b" * 10]),
                 encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert link.getresponse().status == 201
    link.close()
    assert client.output(sandbox, "wc -c < /tmp/chunks").strip() == "70010"


def test_full_disk_inside_is_an_error(machine):
    """/dev/shm has half of the memory; what does not fit is refused with a clear error and removed."""
    machine.environment("small", limits={"memory": "128MiB"}, workdir="/")
    machine.build("small")
    machine.start()
    sandbox = machine.client.create("small")["id"]
    reply = put(machine.client, sandbox, "/dev/shm/big", b"x" * (80 << 20))
    assert reply.status == 507 and reply.error["kind"] == "no_space"
    assert machine.client.output(sandbox, "ls /dev/shm") == ""


def test_file_over_its_limit(machine):
    repository = machine.repository("small")
    machine.settings["file_max"] = "1MiB"
    machine.write(machine.config, "".join(f"{k}: {v}\n" for k, v in machine.settings.items()))
    machine.environment("small", source={"url": repository.path})
    machine.build("small")
    machine.start()
    sandbox = machine.client.create("small")["id"]
    assert put(machine.client, sandbox, "/tmp/ok", b"x" * (1 << 20)).status == 201
    reply = put(machine.client, sandbox, "/tmp/over", b"x" * ((1 << 20) + 1))
    assert reply.status == 413 and reply.error["kind"] == "limit"
    assert machine.client.output(sandbox, "ls /tmp") == "ok\n"
