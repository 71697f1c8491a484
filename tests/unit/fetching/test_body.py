"""Large bodies, which are read past the HTTP library, at their real size and encrypted."""

from __future__ import annotations

import hashlib
import random
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from envsync.errors import FetchError
from envsync.fetching import body
from envsync.fetching.download import Downloader
from envsync.fetching.halting import Halt
from envsync.lockfile.target import Artifact
from envsync.store.store import Store
from tests.unit.fetching.server import File, Server, serving

SMALL = random.Random(1).randbytes(100_000)
LARGE = random.Random(2).randbytes(body.LARGE + 500_000)
CERTIFICATE = (
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-subj",
    "/CN=tests",
    "-days",
    "2",
)

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Return a server's side of TLS, whose certificate this process trusts."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(
        ["openssl", "req", "-x509", *CERTIFICATE, "-addext", "subjectAltName=IP:127.0.0.1", *files],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.fixture
def server(tls: ssl.SSLContext) -> Iterator[Server]:
    with serving(tls) as running:
        yield running


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Iterator[Callable[[bytes], bytes]]:
    """Return a function that downloads what is served as this; all by one client."""
    store = Store(str(tmp_path / "cache"))
    store.prepare()

    def download(data: bytes) -> bytes:
        digest = hashlib.sha256(data).hexdigest()
        url = f"{server.url}/{digest}"
        wanted = Artifact("demo", "1.0", "demo-1.0-py3-none-any.whl", hashes={"sha256": digest}, url=url)
        with downloader.download(wanted, lambda _: None, Halt()) as path:
            return Path(path).read_bytes()

    with closing(Downloader(store)) as downloader:
        yield download


def serve(server: Server, data: bytes, **options: object) -> None:
    server.files[f"/{hashlib.sha256(data).hexdigest()}"] = File(data, **options)  # type: ignore[arg-type]


def test_only_a_large_body_costs_its_connection(server: Server, get: Callable[[bytes], bytes]) -> None:
    """After small ones it is used again; after a large one it is closed, and the next file comes over another."""
    serve(server, SMALL)
    serve(server, LARGE)
    assert get(SMALL) == SMALL
    assert get(SMALL) == SMALL
    assert server.connections == 1
    assert get(LARGE) == LARGE
    assert server.connections == 1
    assert get(SMALL) == SMALL
    assert server.connections == 2


def test_what_is_cut_off_is_continued(server: Server, get: Callable[[bytes], bytes]) -> None:
    """In its large part, then in the rest, which is small and comes by the library."""
    serve(server, LARGE, cuts=[1_000_000, body.LARGE - 1_000_000])
    assert get(LARGE) == LARGE
    assert server.ranges() == [None, "bytes=1000000-", f"bytes={body.LARGE}-"]


def test_nothing_is_taken_without_trust(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody vouches for is refused, and nothing was asked for."""
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    store = Store(str(tmp_path / "another"))
    store.prepare()
    wanted = Artifact("demo", "1.0", "demo-1.0-py3-none-any.whl", hashes={}, url=f"{server.url}/x")
    with (
        closing(Downloader(store)) as downloader,
        pytest.raises(FetchError, match="certificate verify failed"),
        downloader.download(wanted, lambda _: None, Halt()),
    ):
        pass
    assert server.requests == []
