"""Private sources: a token, an ssh key, a GitHub App. What they are fetched with shows nowhere."""

import base64
import contextlib
import os
import pwd
import shutil
import subprocess
import time

import pytest

from git_servers import free_port, git_http, wait_listening
from hobtest import Hob

TOKEN = "tok_5f0c9a1b7e"


@pytest.fixture
def machine():
    hob = Hob(github_apps=[])
    os.mkdir(f"{hob.folder}/secrets")
    yield hob
    hob.close()


def secret(machine, name, text):
    path = machine.write(f"{machine.folder}/secrets/{name}", text)
    shutil.chown(path, group="hob")
    os.chmod(path, 0o640)


def shows(machine, text, *where):
    """Files of the store and the run folder that hold the text."""
    found = subprocess.run(["grep", "-rlaF", text, machine.store, machine.log_file, *where],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return found.stdout.split()


def arguments_seen(child, text):
    """Does any process show the text in its arguments or variables while the child runs?"""
    seen = False
    while child.poll() is None:
        for name in os.listdir("/proc"):
            for part in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    if name.isdigit():
                        with open(f"/proc/{name}/{part}", "rb") as file:
                            seen = seen or text.encode() in file.read()
        time.sleep(0.01)
    return seen


def test_token(machine):
    repository = machine.repository("app")
    forge = machine.write(f"{machine.folder}/forge-takes", TOKEN)
    with git_http(os.path.dirname(repository.path), f"token={forge}") as port:
        url = f"http://127.0.0.1:{port}/app"
        machine.environment("app", source={"url": url})
        open_door = machine.hob_build("app")
        assert open_door.returncode != 0 and "auth" in open_door.stderr
        machine.environment("app", source={"url": url, "auth": {"type": "token", "secret": "forge"}})
        missing = machine.hob_build("app")
        assert missing.returncode == 3 and 'no secret "forge"' in missing.stderr
        secret(machine, "forge", "wrong\n")
        wrong = machine.hob_build("app")
        assert wrong.returncode != 0 and "refused" in wrong.stderr
        secret(machine, "forge", TOKEN + "\n")
        child = machine.hob_build_start("--force", "app")
        assert not arguments_seen(child, TOKEN)
        assert child.wait() == 0, child.stdout.read()
        assert shows(machine, TOKEN) == []
        commit = repository.commit({"hello.txt": "private\n"})
        machine.build("app")
    machine.start()
    made = machine.client.create("app")
    assert made["commit"] == commit
    assert machine.client.output(made["id"], "cat hello.txt; git remote get-url origin; git status -s") == \
        f"private\n{url}\n"


def test_github_app(machine):
    repository = machine.repository("app")
    key = f"{machine.folder}/app.pem"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", f"{key}.pub"], check=True,
                   stderr=subprocess.DEVNULL)
    with open(key, encoding="ascii") as file:
        secret(machine, "acme-key", file.read())
    with git_http(os.path.dirname(repository.path), f"app=4711:99:{key}.pub") as port:
        url = f"http://127.0.0.1:{port}"
        machine.settings["github_apps"] = [{"name": "acme", "id": "4711", "installation": "99",
                                            "key": "acme-key", "api": url}]
        machine.write_config()
        machine.environment("app", source={"url": f"{url}/app", "auth": {"type": "github-app", "app": "acme"}})
        machine.build("app")
        repository.commit({"hello.txt": "second\n"})
        machine.build("app")
        with open(f"{key}.pub.tokens", encoding="ascii") as file:
            tokens = file.read().split()
        assert len(tokens) == 1, "the second build used the first one's token"
        assert shows(machine, tokens[0]) == []
        kept = [os.path.join(folder, name) for folder, _, names in os.walk(machine.run) for name in names
                if "tokens" in folder]
        assert len(kept) == 1 and os.stat(kept[0]).st_mode & 0o77 == 0
        os.unlink(kept[0])
        machine.settings["github_apps"][0]["id"] = "4712"
        machine.write_config()
        repository.commit({"hello.txt": "third\n"})
        wrong = machine.hob_build("app")
        assert wrong.returncode != 0 and "the claims are wrong" in wrong.stderr
        machine.environment("app", source={"url": f"{url}/app", "auth": {"type": "github-app", "app": "other"}})
        unknown = machine.hob_build("app")
        assert unknown.returncode == 3 and 'no GitHub App "other"' in unknown.stderr


@contextlib.contextmanager
def sshd(folder, public_key):
    """An ssh server that lets root in with the key, for git-upload-pack only; gives the port."""
    port = free_port()
    host_key = f"{folder}/host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key], check=True)
    with open(f"{folder}/authorized", "w", encoding="ascii") as file:
        file.write(f'command="exec git -c safe.directory=* shell -c \\"$SSH_ORIGINAL_COMMAND\\"" {public_key}')
    with open(f"{folder}/sshd_config", "w", encoding="ascii") as file:
        file.write(f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPermitRootLogin yes\n"
                   f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
                   f"PasswordAuthentication no\nPidFile none\n")
    os.makedirs("/run/sshd", exist_ok=True)
    child = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", f"{folder}/sshd_config"],
                             stderr=subprocess.PIPE, start_new_session=True)
    try:
        wait_listening(port, child)
        yield port
    finally:
        child.kill()
        child.wait()
        print(child.stderr.read().decode())


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_ssh_key(machine, kind):
    repository = machine.repository("app")
    key = f"{machine.folder}/key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
    with open(f"{key}.pub", encoding="ascii") as file:
        public = file.read()
    user = pwd.getpwuid(os.geteuid()).pw_name
    with sshd(machine.folder, public) as port:
        url = f"ssh://{user}@127.0.0.1:{port}{repository.path}"
        machine.environment("app", source={"url": url, "auth": {"type": "ssh-key", "secret": "deploy"}})
        with open(key, encoding="ascii") as file:
            secret(machine, "deploy", file.read())
        no_hosts = machine.hob_build("app")
        assert no_hosts.returncode == 3 and "ssh-keyscan" in no_hosts.stderr
        secret(machine, "known_hosts", f"[127.0.0.1]:{port} {public}")
        strange = machine.hob_build("app")
        assert strange.returncode != 0 and "host's key is not" in strange.stderr
        with open(f"{machine.folder}/host_key.pub", encoding="ascii") as file:
            secret(machine, "known_hosts", f"# keys\n[127.0.0.1]:{port} {file.read()}")
        machine.build("app")
        repository.commit({"hello.txt": "over ssh\n"})
        machine.build("app")
        with open(key, encoding="ascii") as file:
            line = file.read().splitlines()[2]
        assert shows(machine, line) == []
    machine.start()
    made = machine.client.create("app")
    assert machine.client.output(made["id"], "cat hello.txt") == "over ssh\n"


def test_a_steps_secret_is_there_and_stays_out_of_the_image(machine):
    secret(machine, "npm-token", TOKEN + "\n")
    use = "test $(cat /run/secrets/npm-token) = " + TOKEN[:6] + "${REST} && echo used > /tmp/used"
    machine.environment("app", workdir="/tmp", env={"REST": TOKEN[6:]}, steps=[
        {"name": "before", "run": "ls /run/secrets 2>&1 | wc -l > /tmp/before; true"},
        {"name": "use", "run": use, "secrets": ["npm-token"]}])
    machine.build("app")
    assert shows(machine, TOKEN) == []
    machine.start()
    made = machine.client.create("app")
    assert machine.client.output(made["id"], "cat used; ls -A /run") == "used\n"


def test_what_a_step_says_of_its_secret_is_masked(machine):
    """As it is, written in two goes, encoded: in the log, on the terminal and in the reason of a failure."""
    secret(machine, "npm-token", TOKEN + "\n")
    run = ("echo one $(cat /run/secrets/npm-token) two; printf " + TOKEN[:6] + "; printf '" + TOKEN[6:] + " three\\n';"
           " base64 /run/secrets/npm-token >&2; echo last $(cat /run/secrets/npm-token) >&2; exit 3")
    machine.environment("app", steps=[{"name": "tell", "run": run, "secrets": ["npm-token"]}])
    done = machine.hob_build("app")
    assert done.returncode != 0 and "one *** two\n*** three\n" in done.stdout, done.stdout
    assert "last ***" in done.stderr, done.stderr
    coded = base64.b64encode(TOKEN.encode()).decode()
    assert all(text not in done.stdout + done.stderr for text in (TOKEN, coded[:-4]))
    assert shows(machine, TOKEN) == [] and shows(machine, coded[:-4]) == []


@pytest.mark.parametrize("leak", [
    "cp /run/secrets/npm-token /tmp/kept", "base64 /run/secrets/npm-token > /tmp/kept",
    "printf 'user:%s' $(cat /run/secrets/npm-token) | base64 > /tmp/kept",
    "head -c 1048570 /dev/zero > /tmp/kept; cat /run/secrets/npm-token >> /tmp/kept",
    "ln -s $(cat /run/secrets/npm-token) /tmp/kept", "touch /tmp/kept-$(cat /run/secrets/npm-token)",
    "mkdir -m 0 /tmp/kept && cp /run/secrets/npm-token /tmp/kept/file && chmod 0 /tmp/kept/file"])
def test_a_layer_with_a_secret_is_refused(machine, leak):
    secret(machine, "npm-token", TOKEN + "\n")
    machine.environment("app", workdir="/tmp")
    machine.build("app")
    machine.environment("app", workdir="/tmp", steps=[
        {"name": "leak", "run": leak, "secrets": ["npm-token"]}])
    done = machine.hob_build("app")
    assert done.returncode != 0
    assert 'it left secret "npm-token" in /tmp/kept' in done.stderr
    assert os.readlink(f"{machine.store}/heads/app") == "img-1"
    assert [name for name in shows(machine, TOKEN) if "layers" in name or "staging" in name] == []


def test_a_step_without_its_secret(machine):
    machine.environment("app", steps=[{"name": "use", "run": "true", "secrets": ["none-such"]}])
    done = machine.hob_build("app")
    assert done.returncode == 3 and 'no secret "none-such"' in done.stderr
    secret(machine, "none-such", "short")
    done = machine.hob_build("app")
    assert done.returncode == 2 and "shorter than" in done.stderr
