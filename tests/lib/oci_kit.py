"""Container images on loopback: layouts made by hand and by umoci, a real registry, a server of tokens
before it, and a list of a tree that comes out the same inside a sandbox and outside."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import urllib.parse
import urllib.request

import pytest

from git_servers import free_port, wait_listening

PROGRAMS = {"docker-registry": "docker-registry", "skopeo": "skopeo", "umoci": "umoci", "buildah": "buildah",
            "mmdebstrap": "mmdebstrap", "musl-gcc": "musl-tools"}
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "unknown")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"

# Every entry below a folder: type and mode, owner, size, time of files, content or target, attributes,
# and the first name of the same inode.
LISTER = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static struct seen { dev_t dev; ino_t ino; char *path; } *seen;
static size_t count;

static unsigned long hash_file(const char *path)
{
	unsigned long hash = 14695981039346656037UL;
	FILE *file = fopen(path, "r");
	int c;

	while (file != NULL && (c = fgetc(file)) != EOF)
		hash = (hash ^ (unsigned long)c) * 1099511628211UL;
	if (file != NULL)
		fclose(file);
	return hash;
}

static const char *first_name(const struct stat *st, const char *path)
{
	for (size_t i = 0; i < count; i++)
		if (seen[i].dev == st->st_dev && seen[i].ino == st->st_ino)
			return seen[i].path;
	seen = realloc(seen, (count + 1) * sizeof(*seen));
	seen[count++] = (struct seen){st->st_dev, st->st_ino, strdup(path)};
	return path;
}

static void print_attributes(const char *path)
{
	char names[4096], value[4096];
	ssize_t length = llistxattr(path, names, sizeof(names));

	for (char *name = names; length > 0 && name < names + length; name += strlen(name) + 1)
		if (strncmp(name, "user.", 5) == 0) {
			ssize_t size = lgetxattr(path, name, value, sizeof(value));
			printf(" %s=%.*s", name, (int)(size > 0 ? size : 0), value);
		}
}

static void list(const char *path, const char *shown)
{
	struct dirent **entries;
	int total = scandir(path, &entries, NULL, alphasort);

	for (int i = 0; i < total; i++) {
		char full[4096], name[4096], target[4096] = "";
		struct stat st;

		if (strcmp(entries[i]->d_name, ".") == 0 || strcmp(entries[i]->d_name, "..") == 0)
			continue;
		snprintf(full, sizeof(full), "%s/%s", strcmp(path, "/") == 0 ? "" : path, entries[i]->d_name);
		snprintf(name, sizeof(name), "%s/%s", shown, entries[i]->d_name);
		if (strcmp(name, "/proc") == 0 || strcmp(name, "/sys") == 0 || strcmp(name, "/dev") == 0 ||
			strcmp(name, "/run") == 0 || strcmp(name, "/tmp") == 0)
			continue;
		if (lstat(full, &st) < 0)
			continue;
		printf("%s %o %u:%u", name, st.st_mode, st.st_uid, st.st_gid);
		if (S_ISREG(st.st_mode))
			printf(" %ld %ld %lx =%s", (long)st.st_size, (long)st.st_mtime, hash_file(full),
				st.st_nlink > 1 ? first_name(&st, name) : "");
		if (S_ISLNK(st.st_mode) && readlink(full, target, sizeof(target) - 1) > 0)
			printf(" -> %s", target);
		print_attributes(full);
		printf("\n");
		if (S_ISDIR(st.st_mode))
			list(full, name);
	}
}

extern char **environ;

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--env") == 0) {
		for (char **entry = environ; *entry != NULL; entry++)
			puts(*entry);
		return 0;
	}
	if (argc > 2 && strcmp(argv[1], "-c") == 0) { /* a shell: "FILE" or "stay FILE" */
		int stay = strncmp(argv[2], "stay ", 5) == 0;
		char folder[4096] = "";
		FILE *file = fopen(argv[2] + (stay ? 5 : 0), "w");

		fprintf(file, "%u:%u %s %s", getuid(), getgid(), getcwd(folder, sizeof(folder)), getenv("COLOR"));
		fclose(file);
		while (stay)
			pause();
		return 0;
	}
	if (argc > 2 && strcmp(argv[1], "--cat") == 0) {
		FILE *file = fopen(argv[2], "r");
		int c;

		while (file != NULL && (c = fgetc(file)) != EOF)
			putchar(c);
		return 0;
	}
	list(argc > 1 ? argv[1] : "/", "");
	return 0;
}
"""


def needs(*names):
    """`contrib/install-deps test` brings them; without one the test says which is missing."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is missing: apt-get install {PROGRAMS[name]}")


def run(*words, **more):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, **more)
    assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}"
    return done.stdout


def compile_lister(folder):
    source, program = f"{folder}/list.c", f"{folder}/list"
    with open(source, "w", encoding="utf-8") as file:
        file.write(LISTER)
    run("musl-gcc", "-std=gnu11", "-O1", "-static", "-o", program, source)
    return program


# ---- layers and layouts by hand ----

def entry(name, data=None, mode=None, kind=None, target="", uid=0, gid=0, xattrs=None, mtime=1600000000):
    made = tarfile.TarInfo(name)
    made.mode, made.uid, made.gid, made.mtime = mode or (0o755 if data is None else 0o644), uid, gid, mtime
    made.type = kind or (tarfile.REGTYPE if data is not None else tarfile.DIRTYPE)
    made.linkname, made.size = target, len(data or b"")
    made.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
    return made, data


def layer(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for made, data in entries:
            tar.addfile(made, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Layout:
    """An OCI image layout in a folder."""

    def __init__(self, path):
        self.path = path
        os.makedirs(f"{path}/blobs/sha256")
        with open(f"{path}/oci-layout", "w", encoding="utf-8") as file:
            file.write('{"imageLayoutVersion": "1.0.0"}')
        self.entries = []

    def blob(self, data):
        digest = sha256(data)
        with open(f"{self.path}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def document(self, value, kind):
        return {"mediaType": kind, **self.blob(json.dumps(value).encode())}

    def image(self, *layers, architecture=ARCHITECTURE, packed=True, **config):
        """Its manifest's descriptor."""
        blobs = [{"mediaType": "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if packed else ""),
                  **self.blob(gzip.compress(data, mtime=0) if packed else data)} for data in layers]
        about = {"architecture": architecture, "os": "linux", "config": config,
                 "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(data)}" for data in layers]}}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": blobs,
                    "config": self.document(about, "application/vnd.oci.image.config.v1+json")}
        made = {**self.document(manifest, MANIFEST), "platform": {"architecture": architecture, "os": "linux"}}
        self.entries.append(made)
        self.write_index()
        return made

    def index(self, *manifests):
        return self.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}, INDEX)

    def write_index(self):
        with open(f"{self.path}/index.json", "w", encoding="utf-8") as file:
            json.dump({"schemaVersion": 2, "manifests": self.entries[-1:]}, file)


def digest_of(path, tag):
    """Of an image in a layout made by others."""
    with open(f"{path}/index.json", encoding="utf-8") as file:
        entries = json.load(file)["manifests"]
    return next(item["digest"] for item in entries
                if item.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag)


# ---- a registry ----

class Registry:
    """Debian's docker-registry on loopback, its files below a folder."""

    def __init__(self, folder, realm=None):
        self.folder, self.port, self.child = folder, free_port(), None
        self.host = f"127.0.0.1:{self.port}"
        os.makedirs(f"{folder}/data", exist_ok=True)
        settings = {"version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}},
                    "storage": {"filesystem": {"rootdirectory": f"{folder}/data"}},
                    "http": {"addr": self.host}}
        if realm is not None:
            settings["auth"] = {"token": {"realm": realm, "service": "registry.test", "issuer": "hob tests",
                                          "rootcertbundle": f"{folder}/token.crt"}}
        with open(f"{folder}/config.yml", "w", encoding="utf-8") as file:
            json.dump(settings, file)

    def start(self):
        with open(f"{self.folder}/log", "ab") as log:
            self.child = subprocess.Popen(["docker-registry", "serve", f"{self.folder}/config.yml"],
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_listening(self.port, self.child)
        return self

    def stop(self):
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None

    def push(self, layout, tag, name, *options):
        """From a layout; gives the digest that the registry has it by."""
        done = run("skopeo", "copy", "-q", "--dest-tls-verify=false", *options, f"oci:{layout}:{tag}",
                   f"docker://{self.host}/{name}")
        del done
        return self.digest(name)

    def put(self, name, layout, descriptor):
        """An index or manifest with all it names, byte by byte."""
        repository, tag = name.split(":")
        self.put_tree(repository, layout, descriptor)
        data = self.read(layout, descriptor)
        self.request("PUT", f"{repository}/manifests/{tag}", data, descriptor["mediaType"])
        return descriptor["digest"]

    @staticmethod
    def read(layout, descriptor):
        with open(f"{layout}/blobs/sha256/{descriptor['digest'][7:]}", "rb") as file:
            return file.read()

    def put_tree(self, repository, layout, descriptor):
        document = json.loads(self.read(layout, descriptor))
        for item in document.get("manifests", []):
            self.put_tree(repository, layout, item)
            self.request("PUT", f"{repository}/manifests/{item['digest']}", self.read(layout, item),
                         item["mediaType"])
        for item in [*document.get("layers", []), *([document["config"]] if "config" in document else [])]:
            place = self.request("POST", f"{repository}/blobs/uploads/", b"").headers["Location"]
            place += ("&" if "?" in place else "?") + urllib.parse.urlencode({"digest": item["digest"]})
            self.request("PUT", place, self.read(layout, item), "application/octet-stream")

    def request(self, method, path, data=None, kind=None):
        url = path if path.startswith("http") else f"http://{self.host}/v2/{path}"
        headers = {"Content-Type": kind} if kind else {}
        return urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=180)

    def manifest(self, repository, reference):
        accept = {"Accept": f"{MANIFEST}, {INDEX}, application/vnd.docker.distribution.manifest.v2+json, "
                            "application/vnd.docker.distribution.manifest.list.v2+json"}
        url = f"http://{self.host}/v2/{repository}/manifests/{reference}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=accept), timeout=180) as reply:
            return reply.read()

    def digest(self, name):
        return f"sha256:{sha256(self.manifest(*name.split(':')))}"


@contextlib.contextmanager
def registry(folder):
    made = Registry(folder)
    try:
        yield made.start()
    finally:
        made.stop()
