#!/usr/bin/env python3
"""Serves the git repositories below a folder over smart HTTP, by git's own CGI program.

Prints its port on the first line of standard output; ends when standard input does.
    git_http.py FOLDER [MODE]    MODE: hang (answers nothing), cut (closes in the middle of a pack),
        token=FILE (refuses whoever does not send the token in it), app=ID:INSTALLATION:PUBLIC-KEY-FILE (a forge
        that gives tokens to the App with that key, and takes those tokens), ask=FILE (lets nobody in, and writes
        there what was offered)
"""
import base64
import json
import time
import http.server
import os
import subprocess
import sys
import threading

FOLDER = os.path.abspath(sys.argv[1])
MODE = sys.argv[2] if len(sys.argv) > 2 else ""
TOKENS = set(open(MODE[6:], encoding="ascii").read().split()) if MODE.startswith("token=") else set()


def unpad(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def check_jwt(text, app, key_file):
    """What is wrong with it, or None."""
    head, claims, signature = text.split(".")
    if json.loads(unpad(head)) != {"alg": "RS256", "typ": "JWT"}:
        return "another algorithm"
    with open(f"{key_file}.signature", "wb") as file:
        file.write(unpad(signature))
    done = subprocess.run(["openssl", "dgst", "-sha256", "-verify", key_file, "-signature",
                           f"{key_file}.signature"], input=f"{head}.{claims}".encode(),
                          stdout=subprocess.DEVNULL, check=False)
    said, now = json.loads(unpad(claims)), time.time()
    if done.returncode != 0:
        return "the signature is wrong"
    if said["iss"] != app or not said["iat"] <= now <= said["exp"] or said["exp"] - said["iat"] > 600:
        return f"the claims are wrong: {said}"
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def say(self, status, headers, content=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def give_token(self):
        app, installation, key_file = MODE[4:].split(":")
        if self.path != f"/app/installations/{installation}/access_tokens":
            return self.say(404, {}, b'{"message": "Not Found"}')
        problem = check_jwt(self.headers["Authorization"].removeprefix("Bearer "), app, key_file)
        if problem:
            return self.say(401, {}, json.dumps({"message": problem}).encode())
        token = f"ghs_{os.urandom(8).hex()}"
        TOKENS.add(token)
        with open(f"{key_file}.tokens", "a", encoding="ascii") as file:
            file.write(token + "\n")
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return self.say(201, {}, json.dumps({"token": token, "expires_at": expires}).encode())

    def is_let_in(self):
        kind, _, text = self.headers.get("Authorization", " ").partition(" ")
        if MODE.startswith("ask=") and text:
            with open(MODE[4:], "a", encoding="ascii") as file:
                file.write(f"{kind} {text}\n")
        return kind == "Basic" and base64.b64decode(text).decode().partition(":")[2] in TOKENS

    def answer(self):
        if MODE.startswith("app=") and self.path.startswith("/app/installations/"):
            return self.give_token()
        if "=" in MODE and not self.is_let_in():
            return self.say(401, {"WWW-Authenticate": 'Basic realm="forge"'})
        if MODE == "hang" and "git-upload-pack" in self.path:
            threading.Event().wait()
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while True:
                size = int(self.rfile.readline(), 16)
                body += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    break
        else:
            body = self.rfile.read(length)
        env = dict(os.environ, GIT_PROJECT_ROOT=FOLDER, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path,
                   QUERY_STRING=query, REQUEST_METHOD=self.command, REMOTE_ADDR="127.0.0.1",
                   CONTENT_TYPE=self.headers.get("Content-Type", ""), CONTENT_LENGTH=str(len(body)),
                   HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""),
                   GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
        out = subprocess.run(["git", "http-backend"], input=body, env=env, stdout=subprocess.PIPE,
                             check=False).stdout
        head, _, content = out.partition(b"\r\n\r\n")
        status, headers = 200, []
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            if name == "Status":
                status = int(value.split()[0])
            elif name:
                headers.append((name, value))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if MODE == "cut" and self.command == "POST":
            content = content[:len(content) // 2]
            self.close_connection = True
        return self.wfile.write(content)

    do_GET = do_POST = answer


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


main()
