"""Things to install, made by the tests: wheels in a simple index, and a web server that can be told to misbehave."""

import base64
import contextlib
import hashlib
import http.server
import io
import threading
import zipfile


def wheel(name, version, requires=()):
    """(file name, bytes) of a wheel with one module, whose command says its version."""
    module = name.replace("-", "_")
    about = f"{module}-{version}.dist-info"
    files = {f"{module}.py": f'VERSION = "{version}"\n\n\ndef main():\n    print("{name}", VERSION)\n',
             f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
                                  + "".join(f"Requires-Dist: {one}\n" for one in requires),
             f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
             f"{about}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n"}
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    files[f"{about}/RECORD"] = record + f"{about}/RECORD,,\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return f"{module}-{version}-py3-none-any.whl", out.getvalue()


class Server:
    """Serves `files` ({path: bytes}) on loopback. `asked` counts requests; paths in `broken` answer 503, and
    those in `cut` break off in the middle, once."""

    def __init__(self):
        self.files, self.asked, self.ranges = {}, [], []
        self.broken, self.cut = set(), set()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):  # noqa: N802, the name that http.server calls
                server.answer(self)

            do_HEAD = do_GET

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def answer(self, request):
        path = request.path
        self.asked.append(path)
        body = self.files.get(path)
        if path in self.broken or body is None:
            request.send_response(503 if path in self.broken else 404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        wanted, start = request.headers.get("Range", ""), 0
        if wanted.startswith("bytes="):
            start = int(wanted[6:].split("-")[0])
            self.ranges.append((path, start))
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        request.send_header("Content-Type", "text/html" if path.endswith("/") else "application/octet-stream")
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        if request.command == "HEAD":
            return
        if path in self.cut:
            self.cut.discard(path)
            with contextlib.suppress(OSError):
                request.wfile.write(body[start:start + (len(body) - start) // 2])
            request.close_connection = True
            return
        request.wfile.write(body[start:])

    def add_wheels(self, *wheels):
        """Each (name, version, requirements…); as a simple index below /simple/."""
        pages = {}
        for name, version, *requires in wheels:
            file, content = wheel(name, version, requires)
            self.files[f"/wheels/{file}"] = content
            digest = hashlib.sha256(content).hexdigest()
            pages.setdefault(name, []).append(f'<a href="../../wheels/{file}#sha256={digest}">{file}</a><br>')
        for name, links in pages.items():
            self.files[f"/simple/{name}/"] = ("<!DOCTYPE html><html><body>" + "".join(links)
                                              + "</body></html>").encode()

    def pip_env(self):
        return {"PIP_INDEX_URL": f"{self.url}/simple/", "PIP_RETRIES": "0", "PIP_TIMEOUT": "10"}

    def close(self):
        self.httpd.shutdown()
        self.httpd.server_close()
