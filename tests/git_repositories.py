"""Git repositories for tests, and servers that serve them as they are served elsewhere."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WHO = {
    "GIT_AUTHOR_NAME": "Somebody",
    "GIT_AUTHOR_EMAIL": "somebody@example.org",
    "GIT_COMMITTER_NAME": "Somebody",
    "GIT_COMMITTER_EMAIL": "somebody@example.org",
    "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z",
    "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
}
STATIC = '[project]\nname = "thing"\nversion = "1.0"\n'
DYNAMIC = '[build-system]\nrequires = ["setuptools-scm"]\n[project]\nname = "thing"\ndynamic = ["version"]\n'


def git(at: Path, *words: str) -> str:
    """Run git in a directory, and return what it says."""
    answer = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *words],
        cwd=at,
        env={**os.environ, **WHO},
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    return answer.stdout.strip()


def new_repository(at: Path, **files: str) -> Path:
    """Make a repository with one commit on `main`."""
    at.mkdir(parents=True)
    git(at, "init", "--quiet", "--initial-branch=main")
    commit(at, **{"pyproject.toml": STATIC, **files})
    return at


def commit(at: Path, **files: str) -> str:
    """Write files, commit all, and return the commit."""
    for name, content in files.items():
        path = at / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git(at, "add", "--all")
    git(at, "commit", "--quiet", "--allow-empty", "--message=A change")
    return git(at, "rev-parse", "HEAD")


class Server(ThreadingHTTPServer):
    """Serves the repositories below a directory by HTTP.

    :ivar asked: the paths that were asked for, with their queries
    :ivar password: what `me` has to know; empty: anybody may fetch
    :ivar smart: by `git http-backend`; else as plain files
    """

    daemon_threads = True

    def __init__(self, root: Path, *, password: str = "", smart: bool = True) -> None:
        self.root = root
        self.password = password
        self.smart = smart
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a git that was killed does not hear the answer."""

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(root: Path, *, password: str = "", smart: bool = True) -> Iterator[Server]:
    """Serve repositories, in another thread."""
    server = Server(root, password=password, smart=smart)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        wanted = base64.b64encode(f"me:{self.server.password}".encode()).decode()
        if self.server.password and self.headers.get("Authorization") != f"Basic {wanted}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.server.smart:
            self._ask_git()
        else:
            self._send_file()

    do_POST = do_GET  # noqa: N815

    def _ask_git(self) -> None:
        path, _, query = self.path.partition("?")
        env = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        env["CONTENT_LENGTH"] = str(len(given))
        answer = subprocess.run(["git", "http-backend"], input=given, env=env, capture_output=True, check=False).stdout
        head, _, body = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self._answer(int(headers.pop("Status", "200").split()[0]), body, headers)

    def _send_file(self) -> None:
        path = self.server.root / self.path.partition("?")[0].lstrip("/")
        found = path.is_file()
        self._answer(200 if found else 404, path.read_bytes() if found else b"", {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
