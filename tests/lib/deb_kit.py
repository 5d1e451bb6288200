"""A Debian archive on loopback, made and signed by the test: a tiny Debian of this machine's own programs
(what dpkg needs to run, and apt), so that a base is made of it in seconds and without any other network."""

import contextlib
import email.utils
import glob
import gzip
import hashlib
import http.server
import os
import shutil
import subprocess
import threading

import pytest

import oci_kit

DATE = "20240601T000000Z"
RELEASED = 1717180000  # some hours before
SUITE = "tiny"
PROGRAMS = ("dash", "dpkg", "dpkg-deb", "dpkg-query", "dpkg-split", "dpkg-trigger", "dpkg-divert", "tar", "rm", "env",
            "ls", "cat", "cp", "mv", "ln", "mkdir", "rmdir", "chmod", "chown", "cut", "sort", "head", "id", "true",
            "echo", "sha256sum", "diff", "find", "install", "stat", "touch", "basename", "dirname", "readlink",
            "uname", "mktemp", "sleep", "rev", "grep", "sed", "tail", "tr", "wc", "cmp", "expr")
SYSTEM_PROGRAMS = ("ldconfig", "start-stop-daemon")
APT = ("apt-get", "apt-cache", "apt-config", "apt-key", "gpgv")
METHODS = ("http", "store", "gpgv", "copy", "file")
CONFIG_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n_apt:x:100:65534::/nonexistent:/usr/sbin/nologin\n"
                  "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/debian_version": "tiny\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def needs():
    oci_kit.needs("mmdebstrap", "gpg", "dpkg-deb")
    if not os.path.exists("/usr/lib/apt/methods/http"):
        pytest.skip("this machine has no apt")


def run(*words, **more):
    return oci_kit.run(*words, **more)


def architecture():
    return run("dpkg", "--print-architecture").strip()


def place(path):
    """A file of this machine as it is called where /usr is merged."""
    first = path.lstrip("/")
    return first if first.startswith("usr/") else f"usr/{first}"


def is_binary(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(programs):
    """What the loader brings for them, by name."""
    found = set()
    for line in run("ldd", *filter(is_binary, programs)).splitlines():
        words = line.split()
        found.update(f"/{place(word)}" for word in words[:3] if word.startswith("/") and not word.endswith(":"))
    return found


class Package:
    def __init__(self, folder, name, version="1", depends="", essential=False, files=None, programs=(), postinst=None,
                 architecture_=None):
        self.name, self.version, self.depends, self.essential = name, version, depends, essential
        self.architecture = architecture_ or "all"
        self.file = f"{name}_{version}_{self.architecture}.deb"
        self.root = f"{folder}/{name}"
        for path, text in (files or {}).items():
            self.write(path, text)
        for path in programs:
            self.copy(path)
        self.write("DEBIAN/control", self.control())
        if postinst is not None:
            self.write("DEBIAN/postinst", f"#!/bin/sh\nset -e\n{postinst}\n", 0o755)

    def write(self, path, text, mode=0o644):
        full = f"{self.root}/{path}"
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(full, mode)

    def copy(self, path):
        full = f"{self.root}/{place(path)}"
        os.makedirs(os.path.dirname(full), exist_ok=True)
        shutil.copy(path, full)

    def link(self, path, target):
        full = f"{self.root}/{path}"
        os.makedirs(os.path.dirname(full), exist_ok=True)
        os.symlink(target, full)

    def control(self):
        fields = {"Package": self.name, "Version": self.version, "Architecture": self.architecture,
                  "Maintainer": "Test <test@example.com>", "Essential": "yes" if self.essential else None,
                  "Priority": "required" if self.essential else "optional", "Depends": self.depends or None,
                  "Description": "made by a test"}
        return "".join(f"{key}: {value}\n" for key, value in fields.items() if value)

    def pack(self, pool):
        target = f"{pool}/{self.file}"
        run("dpkg-deb", "--root-owner-group", "-Znone", "--build", self.root, target)
        with open(target, "rb") as file:
            data = file.read()
        self.sha256 = hashlib.sha256(data).hexdigest()
        return self.control() + (f"Filename: pool/{self.file}\nSize: {len(data)}\n"
                                 f"SHA256: {self.sha256}\n\n")


def tiny_packages(folder):
    which = {name: shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") for name in
             (*PROGRAMS, *SYSTEM_PROGRAMS, *APT)}
    system = [path for name in (*PROGRAMS, *SYSTEM_PROGRAMS) if (path := which[name])]
    apt = [path for name in APT if (path := which[name])] + [f"/usr/lib/apt/methods/{name}" for name in METHODS]
    shared = libraries(system)
    base = Package(folder, "tiny-base", "1.5", essential=True, files=CONFIG_FILES, programs=[*system, *shared],
                   postinst="echo configured >/etc/tiny-configured; : </dev/null; [ -c /dev/urandom ]",
                   architecture_=architecture())
    for name in ("bin", "sbin", "lib", "lib64"):
        base.link(name, f"usr/{name}")
    base.link("usr/bin/sh", "dash")
    for path in glob.glob("/usr/share/dpkg/*table"):
        base.copy(path)
    for name in ("usr/lib64", "dev", "proc", "sys", "tmp", "run", "root", "var/log", "var/tmp"):
        os.makedirs(f"{base.root}/{name}", exist_ok=True)
    return [base,
            Package(folder, "apt", "9.9", depends="tiny-base, tiny-data", programs=[*apt, *(libraries(apt) - shared)],
                    files={"etc/apt/apt.conf.d/10tiny": 'APT::Sandbox::User "root";\n'},
                    architecture_=architecture()),
            Package(folder, "tiny-data", files={"usr/share/tiny": "data\n"}),
            Package(folder, "tiny-more", "2:3.4-5", files={"usr/share/more": "more\n"},
                    postinst="cp /usr/share/more /etc/more")]


class Archive:
    """It is at .mirror, the public key in .keyring. `hold`: an event that requests for .deb wait for."""

    def __init__(self, folder):
        self.folder, self.hold, self.asked = folder, None, []
        self.home, self.keyring = f"{folder}/gnupg", f"{folder}/key.gpg"
        os.makedirs(self.home, 0o700)
        os.makedirs(f"{folder}/pool")
        self.packages = tiny_packages(f"{folder}/packages")
        self.index = "".join(package.pack(f"{folder}/pool") for package in self.packages)
        self.gpg("--quick-gen-key", "Test <test@example.com>", "ed25519", "sign", "never")
        self.gpg("--output", self.keyring, "--export")
        os.chmod(self.keyring, 0o644)
        self.publish(DATE, RELEASED)
        self.fixed = Package(f"{folder}/security", "tiny-data", "1.1", files={"usr/share/tiny": "mended\n"})
        self.publish(DATE, RELEASED, f"{SUITE}-security", self.fixed.pack(f"{folder}/pool"))

    def gpg(self, *words):
        run("gpg", "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback", *words,
            env={**os.environ, "GNUPGHOME": self.home})

    def publish(self, date, released, name_of_suite=SUITE, index=None):
        """The archive as it was on a date."""
        index = index or self.index
        suite = f"{self.folder}/archive/{date}/dists/{name_of_suite}"
        name = f"main/binary-{architecture()}/Packages.gz"
        os.makedirs(os.path.dirname(f"{suite}/{name}"))
        data = gzip.compress(index.encode(), mtime=0)
        with open(f"{suite}/{name}", "wb") as file:
            file.write(data)
        made = email.utils.formatdate(released, usegmt=True).replace("GMT", "UTC")
        past = email.utils.formatdate(released + 86400, usegmt=True).replace("GMT", "UTC")
        with open(f"{suite}/Release", "w", encoding="utf-8") as file:
            file.write(f"Origin: Tiny\nLabel: Tiny\nSuite: {name_of_suite}\nCodename: {name_of_suite}\nDate: {made}\n"
                       f"Valid-Until: {past}\nArchitectures: {architecture()}\nComponents: main\nSHA256:\n"
                       f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n"
                       f" {hashlib.sha256(index.encode()).hexdigest()} {len(index)} {name[:-3]}\n")
        self.gpg("--output", f"{suite}/InRelease", "--clearsign", f"{suite}/Release")
        if not os.path.lexists(f"{self.folder}/archive/{date}/pool"):
            os.symlink(f"{self.folder}/pool", f"{self.folder}/archive/{date}/pool")

    def start(self):
        archive = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *words, **more):
                super().__init__(*words, directory=f"{archive.folder}/archive", **more)

            def do_GET(self):
                archive.asked.append(self.path)
                if archive.hold is not None and self.path.endswith(".deb"):
                    archive.hold.wait(300)
                with contextlib.suppress(ConnectionError):
                    super().do_GET()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.mirror = f"http://127.0.0.1:{self.server.server_address[1]}/{{date}}"
        return self

    def base(self, machine, date=DATE, suite=SUITE, **more):
        """For an environment, beside which the key lies where everybody may read it."""
        shutil.copy(self.keyring, f"{machine.environments}/key.gpg")
        return {"deb": f"{suite}@{date}" if date else suite, "mirror": self.mirror, "keyring": "./key.gpg", **more}

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def close(self):
        subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": self.home}, check=False)


@contextlib.contextmanager
def archive(folder):
    needs()
    made = Archive(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        made.close()
