"""An index of packages over HTTPS on loopback, for `network`: the wheels of a set, and nothing else.

It answers as PEP 691 (JSON, with hashes and sizes), PEP 658 (the metadata of each wheel) and HTTP/1.1 say, with
connections that stay open and ranges. It runs in processes of its own, and its CPU time is next to that of OpenSSL: a
wheel is sent from mapped memory by one call that does not hold the GIL. The certificate is made for each server, by the
`openssl` program; who is to trust it is told by SSL_CERT_FILE.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from measure import MeasuringError, cpu_of
from workplace import Wheel, Workplace, normalised

PROCESSES = 2
WAITING_CONNECTIONS = 256
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
BINARY_TYPE = "application/octet-stream"
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
FOR_SIGNING = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
FOR_SERVING = ("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1")


@dataclass(frozen=True)
class Answer:
    """What a path of the server has: its type, and its bytes or mapped file."""

    type: str
    content: bytes | mmap.mmap


@dataclass(frozen=True)
class Served:
    """What the server did until now: answers, bytes of their bodies, and its own CPU seconds."""

    requests: int
    bytes: int
    cpu: float

    def __sub__(self, before: Served) -> Served:
        return Served(self.requests - before.requests, self.bytes - before.bytes, self.cpu - before.cpu)


@dataclass(frozen=True)
class IndexServer:
    """A server that runs.

    :param certificates: the file that SSL_CERT_FILE has to name
    """

    url: str
    certificates: str
    pids: Sequence[int]
    counts: Any

    @property
    def served(self) -> Served:
        requests, size = self.counts[:]
        return Served(requests, size, sum(map(cpu_of, self.pids)))


@contextmanager
def index_server(place: Workplace, wheels: Sequence[Wheel]) -> Iterator[IndexServer]:
    """Serve wheels until the block ends.

    :raises MeasuringError: there is no `openssl` program, or it makes no certificate
    """
    directory = place.fresh_directory("certificates")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(directory))
    fork = multiprocessing.get_context("fork")
    counts = fork.Array("Q", 2)
    with socket.create_server(("127.0.0.1", 0), backlog=WAITING_CONNECTIONS) as listening:
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        answers = answers_of(url, wheels)
        processes = [
            fork.Process(target=serve, args=(listening, context, answers, counts), daemon=True)
            for _ in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        try:
            pids = [process.pid for process in processes if process.pid]
            yield IndexServer(f"{url}/simple/", os.path.join(directory, "authority.pem"), pids, counts)
        finally:
            for process in processes:
                process.kill()
                process.join()


def certificate(directory: str) -> tuple[str, str]:
    """Make an authority, and a certificate and a key of it for 127.0.0.1. Returns the paths of these two."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MeasuringError("openssl is needed to make a certificate\nhint: apt-get install openssl")
    one, its_key = (os.path.join(directory, name) for name in ("authority.pem", "authority.key"))
    other, key = (os.path.join(directory, name) for name in ("server.pem", "server.key"))
    make = (openssl, "req", "-x509", *CURVE, "-subj")
    for words in (
        (*make, "/CN=authority of a benchmark", *FOR_SIGNING, "-keyout", its_key, "-out", one),
        (*make, "/CN=127.0.0.1", *FOR_SERVING, "-CA", one, "-CAkey", its_key, "-keyout", key, "-out", other),
    ):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MeasuringError(f"openssl makes no certificate (3.0 or newer is needed):\n{done.stderr.strip()}")
    return other, key


def answers_of(url: str, wheels: Sequence[Wheel]) -> dict[str, Answer]:
    """Return all that is served, by path."""
    answers = {}
    for wheel in wheels:
        file, page = os.path.basename(wheel.path), f"/simple/{normalised(wheel.pin.partition('==')[0])}/"
        described = metadata_of(wheel)
        entry = {
            "filename": file,
            "url": f"{url}/files/{file}",
            "size": os.path.getsize(wheel.path),
            "hashes": {"sha256": wheel.sha256},
            "core-metadata": {"sha256": sha256(described).hexdigest()},
        }
        project = {"meta": {"api-version": "1.1"}, "name": page.split("/")[2], "versions": [], "files": [entry]}
        answers[page] = Answer(JSON_TYPE, json.dumps(project).encode())
        answers[f"/files/{file}.metadata"] = Answer(BINARY_TYPE, described)
        answers[f"/files/{file}"] = Answer(BINARY_TYPE, mapped(wheel.path))
    return answers


def metadata_of(wheel: Wheel) -> bytes:
    with zipfile.ZipFile(wheel.path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")))


def mapped(path: str) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def serve(listening: socket.socket, context: ssl.SSLContext, answers: Mapping[str, Answer], counts: Any) -> None:
    """Answer requests for ever: what one of the processes does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it

    class Handler(AnswersRequests):
        pass

    Handler.answers, Handler.counts = answers, counts
    server = Server(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket, server.context = listening, context
    server.serve_forever()


class Server(ThreadingHTTPServer):
    """A thread for each connection, which begins with the handshake: nobody has to wait for another's."""

    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # that is a client that went away
            super().handle_error(request, client_address)


class AnswersRequests(BaseHTTPRequestHandler):
    """One connection: any number of requests, each for a path that is there, whole or from a place on."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    answers: Mapping[str, Answer]
    counts: Any

    def do_GET(self) -> None:
        answer = self.answers.get(self.path)
        if answer is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        size = len(answer.content)
        begin, end = self._range(size)
        self.send_response(HTTPStatus.OK if end - begin == size else HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", answer.type)
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Accept-Ranges", "bytes")
        if end - begin < size:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        self.end_headers()
        with memoryview(answer.content) as whole, whole[begin:end] as part:
            self.wfile.write(part)
        with self.counts.get_lock():
            self.counts[0] += 1
            self.counts[1] += end - begin

    def _range(self, size: int) -> tuple[int, int]:
        """Return where the wanted part begins and ends: the whole, unless one part with a beginning is asked for."""
        asked = RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None or int(asked[1]) >= size:
            return 0, size
        return int(asked[1]), min(size, int(asked[2]) + 1 if asked[2] else size)

    def log_message(self, *_: object) -> None:
        pass
