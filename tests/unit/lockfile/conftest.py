"""A target interpreter that is not the one that runs the tests, and a real HTTP server for indexes."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.tags import compatible_tags, cpython_tags

from envsync.python.facts import Interpreter

PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64"]


def make_interpreter(version: str = "3.11.7") -> Interpreter:
    """Describe a CPython on Linux x86_64 with glibc 2.28."""
    major, minor = (int(part) for part in version.split(".")[:2])
    cache_tag = f"cp{major}{minor}"
    tags = [
        *cpython_tags((major, minor), abis=[cache_tag], platforms=PLATFORMS),
        *compatible_tags((major, minor), interpreter=cache_tag, platforms=PLATFORMS),
    ]
    return Interpreter(
        executable="/opt/python/bin/python",
        prefix="/opt/python",
        base_prefix="/opt/python",
        implementation="cpython",
        version=version,
        machine="x86_64",
        libc="glibc",
        cache_tag=f"cpython-{major}{minor}",
        markers={
            "implementation_name": "cpython",
            "implementation_version": version,
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "6.1.0",
            "platform_system": "Linux",
            "platform_version": "#1 SMP",
            "python_full_version": version,
            "python_version": f"{major}.{minor}",
            "sys_platform": "linux",
        },
        tags=tuple(map(str, tags)),
        layout={},
        fingerprint="",
        key="",
    )


@pytest.fixture
def interpreter() -> Interpreter:
    return make_interpreter()


@pytest.fixture
def interpreter_of() -> Callable[[str], Interpreter]:
    return make_interpreter


@pytest.fixture(autouse=True)
def nobody_elses_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True


class Server:
    """A web server of fixed pages, and what it was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, str, str]] = {}
        self.asked: list[str] = []
        self.password: str | None = None
        self.failures = 0
        """How many of the next requests fail."""
        self.failure = 503
        """What they are answered with."""
        self.retry_after: str | None = None
        """How long they say to wait."""
        self.answering = threading.Event()
        """Clear it to accept requests and not answer them."""
        self.answering.set()
        self.woken = threading.Event()
        """Set when a request came in."""
        self._http = _HTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._http.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def index(self) -> str:
        return f"{self.url}/simple"

    @property
    def index_with_password(self) -> str:
        return f"http://user:{self.password}@{self.host}/simple"

    def page(self, path: str, body: str, *, status: int = 200, kind: str = "text/html") -> None:
        self.pages[path] = (status, kind, body)

    def project(self, name: str, *files: str) -> None:
        """Add a project's page in HTML. A file may end in a fragment, and in a space and further attributes."""
        anchors = []
        for file in files:
            href, _, attributes = file.partition(" ")
            text = href.partition("#")[0]
            anchors.append(f'<a href="../../files/{href}" {attributes}>{text}</a>')
        self.page(f"/simple/{name}/", "<!DOCTYPE html><html><body>" + "<br>".join(anchors) + "</body></html>")

    def close(self) -> None:
        self.answering.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                server.woken.set()
                server.answering.wait()
                status, kind, body = server.pages.get(self.path, (404, "text/plain", "there is no such page"))
                if server.password is not None:
                    expected = base64.b64encode(f"user:{server.password}".encode()).decode()
                    if self.headers.get("Authorization") != f"Basic {expected}":
                        status = 401
                if server.failures:
                    server.failures -= 1
                    status = server.failure
                data = body.encode()
                self.send_response(status)
                if server.retry_after is not None:
                    self.send_header("Retry-After", server.retry_after)
                if 300 <= status < 400:
                    self.send_header("Location", body)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()
