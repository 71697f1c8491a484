"""A web server on this machine that misbehaves as told, for tests of downloads."""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = 16 * 1024
HOLD_SECONDS = 120
"""A limit on how long a file is held, so that a failure ends."""


@dataclass
class File:
    """What to serve at one path, and how badly.

    :param ranges: whether to honour Range
    :param statuses: answers to give before the file, each a status and further headers
    :param cuts: after how many bytes to cut the connection, for as many answers as there are numbers
    :param successor: what the file is replaced by when a connection has been cut
    :param hold: wait for this before sending the second half, of the rest alone, too, however little that is
    """

    data: bytes
    ranges: bool = True
    etag: str | None = None
    modified: str | None = None
    auth: tuple[str, str] | None = None
    location: str | None = None
    length: int | str | None = None
    chunked: bool = False
    encoding: str | None = None
    wrong_range: bool = False
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    successor: File | None = None
    hold: threading.Event | None = None


@dataclass
class Server:
    """A running server: the files it serves, by path, and what it was asked."""

    url: str
    files: dict[str, File] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    """Set as soon as the first half of an answer with a held file has been sent; once for each such answer."""
    connections: int = 0
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ranges(self) -> list[str | None]:
        """Return the Range of each request so far."""
        return [headers.get("range") for _, headers in self.requests]


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serve on a free port of this machine while the context lasts.

    :param tls: with what to encrypt
    """

    class Handler(_Handler):
        pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = False
    if tls is not None:
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    Handler.state = server = Server(f"{scheme}://127.0.0.1:{httpd.server_address[1]}")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        for file in server.files.values():
            if file.hold is not None:
                file.hold.set()
        httpd.shutdown()
        thread.join()
        httpd.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    state: Server

    def handle(self) -> None:
        with self.state.lock:
            self.state.connections += 1
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client went away while it could have asked for more

    def do_GET(self) -> None:
        state = self.state
        with state.lock:
            state.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            state.busy += 1
            state.busiest = max(state.busiest, state.busy)
        try:
            self._answer(state.files.get(self.path.partition("?")[0]))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client went away, as some tests want
        finally:
            with state.lock:
                state.busy -= 1

    def _answer(self, file: File | None) -> None:
        if file is None:
            self._head(404, {"Content-Length": "0"})
            return
        if file.statuses:
            status, headers = file.statuses.pop(0)
            self._head(status, {"Content-Length": "0", **headers})
            return
        if file.auth is not None:
            expected = "Basic " + base64.b64encode(":".join(file.auth).encode()).decode()
            if self.headers.get("Authorization") != expected:
                self._head(401, {"Content-Length": "0", "WWW-Authenticate": 'Basic realm="tests"'})
                return
        if file.location is not None:
            self._head(302, {"Content-Length": "0", "Location": file.location})
            return
        self._send_file(file)

    def _send_file(self, file: File) -> None:
        start = self._start(file)
        if start is not None and start >= len(file.data):
            self._head(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(file.data)}"})
            return
        body = file.data[start or 0 :]
        headers: dict[str, str] = {}
        if file.chunked:
            headers["Transfer-Encoding"] = "chunked"
        if not file.chunked or file.length is not None:
            headers["Content-Length"] = str(len(body) if file.length is None else file.length)
        if file.etag:
            headers["ETag"] = file.etag
        if file.modified:
            headers["Last-Modified"] = file.modified
        if file.encoding:
            headers["Content-Encoding"] = file.encoding
        if start is not None:
            first = start + 1 if file.wrong_range else start
            headers["Content-Range"] = f"bytes {first}-{len(file.data) - 1}/{len(file.data)}"
        self._head(200 if start is None else 206, headers)
        cut = file.cuts.pop(0) if file.cuts else len(body)
        self._send_body(file, body[:cut])
        if cut < len(body):
            self.close_connection = True
            if file.successor is not None:
                self.state.files[self.path] = file.successor

    def _start(self, file: File) -> int | None:
        asked = self.headers.get("Range")
        if not file.ranges or asked is None:
            return None
        condition = self.headers.get("If-Range")
        if condition is not None and condition not in (file.etag, file.modified):
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _send_body(self, file: File, body: bytes) -> None:
        hold = file.hold  # a test may take it away meanwhile
        if hold is None:
            self._send_pieces(file, body)
        else:
            middle = len(body) // 2
            self._send_pieces(file, body[:middle])
            self.wfile.flush()
            self.state.began.set()
            hold.wait(HOLD_SECONDS)
            self._send_pieces(file, body[middle:])
        if file.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _send_pieces(self, file: File, data: bytes) -> None:
        for offset in range(0, len(data), PIECE):
            piece = data[offset : offset + PIECE]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if file.chunked else piece)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        with self.state.lock:
            self.state.answers.append(status)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass
