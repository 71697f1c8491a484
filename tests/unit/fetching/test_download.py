"""Downloads against a server that fails in every way it can."""

from __future__ import annotations

import hashlib
import os
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx2
import pytest

import envsync
from envsync.errors import FetchError, FilesystemError, HashMismatchError, WheelError
from envsync.fetching import body
from envsync.fetching.download import Downloader
from envsync.fetching.halting import Halt, HaltedError
from envsync.lockfile import retrying
from envsync.lockfile.target import Artifact
from envsync.store.store import Store
from envsync.wheel import verify
from tests.unit.fetching.server import File, Server, serving
from tests.wheels import artifact, build_wheel

DATA = random.Random(7).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = "demo-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True, params=["by the library", "from the connection"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read all bodies in one of both ways."""
    monkeypatch.setattr(body, "LARGE", 0 if request.param == "from the connection" else 1 << 60)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "cache"))
    made.prepare()
    return made


@pytest.fixture
def get(server: Server, store: Store) -> Callable[..., bytes]:
    """Return a function that downloads one file, compares its hash as the store does, and returns its bytes."""

    def download(
        url: str | None = None, *, index_urls: tuple[str, ...] = (), transport: Any = None, **changes: Any
    ) -> bytes:
        fields = {"hashes": {"sha256": SHA256}, "url": url or f"{server.url}/{NAME}", **changes}
        wanted = Artifact("demo", "1.0", NAME, **fields)
        counts: list[int] = []
        downloader = Downloader(store, index_urls, transport)
        try:
            with downloader.download(wanted, counts.append, Halt()) as path, verify.opened(path) as descriptor:
                assert os.path.dirname(path) == store.tmp
                if "sha512" not in wanted.hashes:  # of these, one is given that is none
                    verify.verify(descriptor, os.fstat(descriptor), path, wanted, lambda: None)
                data = Path(path).read_bytes()
        finally:
            downloader.close()
        assert sum(counts) == len(data)
        return data

    return download


def partial(store: Store) -> Path:
    return Path(store.tmp, f"{SHA256}.part")


def leftovers(store: Store) -> list[str]:
    return os.listdir(store.tmp)


def test_a_file_is_downloaded_and_then_gone(server: Server, store: Store, get: Callable[..., bytes]) -> None:
    """The file is lent while the context lasts, and nothing of it stays."""
    server.files[f"/{NAME}"] = File(DATA)
    assert get(size=len(DATA)) == DATA
    assert leftovers(store) == []
    ((_, headers),) = server.requests
    assert headers["user-agent"] == f"envsync/{envsync.__version__}"
    assert headers["accept-encoding"] == "identity"
    assert "range" not in headers


@pytest.mark.parametrize(
    "changes", [{"hashes": {}}, {"hashes": {"sha512": "0"}}, {"hashes": {"sha256": SHA256.upper()}}]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_neither_hash_nor_length_need_be_known(
    server: Server, store: Store, get: Callable[..., bytes], changes: dict[str, Any], chunked: bool
) -> None:
    """A file without a known sha256, size or length is downloaded all the same; the store verifies the rest."""
    server.files[f"/{NAME}"] = File(DATA, chunked=chunked)
    assert get(**changes) == DATA
    assert leftovers(store) == []


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: Server, get: Callable[..., bytes], status: int) -> None:
    """Answers that may be different the next time are asked for up to five times."""
    server.files[f"/{NAME}"] = File(DATA, statuses=[(status, {})] * 4)
    assert get() == DATA
    assert server.answers == [status] * 4 + [200]


def test_after_five_tries_it_is_over(server: Server, store: Store, get: Callable[..., bytes]) -> None:
    """The fifth failure is the last."""
    server.files[f"/{NAME}"] = File(DATA, statuses=[(503, {})] * 9)
    with pytest.raises(
        FetchError, match=re.escape(f"cannot fetch `{server.url}/{NAME}`: the server answers 503 (tried 5")
    ):
        get()
    assert server.answers == [503] * 5
    assert leftovers(store) == []


@pytest.mark.parametrize(
    ("status", "hint"), [(404, "lock again"), (401, "netrc"), (403, "netrc"), (400, None), (304, None)]
)
def test_what_does_not_pass_is_not_tried_again(
    server: Server, get: Callable[..., bytes], status: int, hint: str | None
) -> None:
    """Other answers are final, with a hint where there is one."""
    server.files[f"/{NAME}"] = File(DATA, statuses=[(status, {})] * 2)
    with pytest.raises(FetchError, match=f"the server answers {status}$") as caught:
        get()
    assert server.answers == [status]
    assert (hint or "") in (caught.value.hint or "")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what was waited for, without waiting."""
    waited: list[float] = []

    monkeypatch.setattr(Halt, "wait", lambda _, seconds: waited.append(seconds))
    return waited


def test_waits_grow(
    server: Server, get: Callable[..., bytes], waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between tries the wait doubles, give or take half of it, so that many clients do not come back at once."""
    monkeypatch.setattr(retrying, "BACKOFF", 1.0)
    server.files[f"/{NAME}"] = File(DATA, statuses=[(503, {})] * 4)
    get()
    assert len(waits) == 4
    assert all(2**n * 0.5 <= wait <= 2**n * 1.5 for n, wait in enumerate(waits))
    assert len(set(waits)) == 4


def test_the_server_may_say_how_long_to_wait(server: Server, get: Callable[..., bytes], waits: list[float]) -> None:
    """Retry-After is obeyed as seconds or as a date, within bounds, and ignored if it is neither."""
    answers = ["7", "86400", formatdate(time.time() + 20, usegmt=True), "nonsense"]
    server.files[f"/{NAME}"] = File(DATA, statuses=[(429, {"Retry-After": answer}) for answer in answers])
    get()
    assert waits[0] == 7
    assert waits[1] == retrying.LONGEST_WAIT
    assert 10 < waits[2] <= 20
    assert waits[3] == 0


def test_a_date_in_the_past_means_now(server: Server, get: Callable[..., bytes], waits: list[float]) -> None:
    """A Retry-After that is over does not lead to a negative wait."""
    server.files[f"/{NAME}"] = File(DATA, statuses=[(503, {"Retry-After": formatdate(1, usegmt=True)})])
    get()
    assert waits == [0]


def test_a_lost_connection_is_continued(server: Server, store: Store, get: Callable[..., bytes]) -> None:
    """A connection that is cut is continued where it broke off."""
    server.files[f"/{NAME}"] = File(DATA, etag='"v1"', cuts=[100_000, 50_000])
    assert get() == DATA
    first, second, third = server.requests
    assert "range" not in first[1]
    assert second[1]["range"] == "bytes=100000-"
    assert third[1]["range"] == "bytes=150000-"
    assert second[1]["if-range"] == third[1]["if-range"] == '"v1"'
    assert leftovers(store) == []


def test_an_address_that_leads_nowhere(
    server: Server, get: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host may have others, of which each has its time: little at first."""
    given: list[object] = []
    connect = socket.socket.connect

    def lose(each: socket.socket, address: Any) -> None:
        given.append((address[0], each.gettimeout()))
        if address[0] != "127.0.0.1" or len(given) < 4:
            raise TimeoutError
        connect(each, address)

    port = int(server.url.rpartition(":")[2])
    addresses = [
        (family, socket.SOCK_STREAM, 6, "", (host, port))
        for family, host in ((socket.AF_INET6, "2001:db8::1"), (socket.AF_INET, "127.0.0.1"))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    monkeypatch.setattr(socket.socket, "connect", lose)
    server.files[f"/{NAME}"] = File(DATA)
    assert get() == DATA
    assert given == [(host, seconds) for seconds in (4.0, 10.0) for host in ("2001:db8::1", "127.0.0.1")]


def test_a_chunked_answer_says_itself_where_it_ends(server: Server, get: Callable[..., bytes]) -> None:
    """Whatever else its head says (RFC 9112, 6.3)."""
    server.files[f"/{NAME}"] = File(DATA, chunked=True, length=len(DATA) + 7)
    assert get() == DATA
    assert len(server.requests) == 1


def test_an_unfinished_chunked_answer_is_continued(server: Server, get: Callable[..., bytes]) -> None:
    """So is an answer of unknown length."""
    server.files[f"/{NAME}"] = File(DATA, cuts=[100_000])
    assert get(hashes={}, size=len(DATA)) == DATA


@pytest.mark.parametrize(
    ("etag", "modified", "condition"),
    [
        (None, "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ('W/"weak"', None, None),
        ('W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 GMT"),
        (None, None, None),
    ],
)
def test_only_what_identifies_the_bytes_conditions_a_range(
    server: Server, get: Callable[..., bytes], etag: str | None, modified: str | None, condition: str | None
) -> None:
    """If-Range carries a strong tag, else the date, else nothing."""
    server.files[f"/{NAME}"] = File(DATA, etag=etag, modified=modified, cuts=[100_000])
    assert get() == DATA
    assert server.requests[1][1].get("if-range") == condition


def test_a_file_that_changed_is_taken_from_the_start(server: Server, get: Callable[..., bytes]) -> None:
    """If the server has other bytes now, it answers with all of them, and what was there is thrown away."""
    new = File(DATA, etag='"new"')
    server.files[f"/{NAME}"] = File(b"old" * 100_000, etag='"old"', cuts=[100_000], successor=new)
    assert get() == DATA
    assert server.answers == [200, 200]


def test_a_server_without_ranges_starts_over(server: Server, get: Callable[..., bytes]) -> None:
    """A server that ignores Range sends the whole file again, and that is what counts."""
    server.files[f"/{NAME}"] = File(DATA, ranges=False, cuts=[100_000, 200_000])
    assert get() == DATA
    assert server.answers == [200, 200, 200]


def test_a_server_that_continues_elsewhere_is_asked_again(server: Server, get: Callable[..., bytes]) -> None:
    """An answer that begins at another byte than asked is not appended."""
    server.files[f"/{NAME}"] = File(DATA, wrong_range=True, cuts=[100_000])
    assert get() == DATA
    assert server.answers == [200, 206, 200]


def test_another_process_left_the_beginning(server: Server, store: Store, get: Callable[..., bytes]) -> None:
    """What a former process downloaded is continued."""
    server.files[f"/{NAME}"] = File(DATA)
    partial(store).write_bytes(DATA[:123_456])
    assert get() == DATA
    assert server.ranges() == ["bytes=123456-"]
    assert leftovers(store) == []


@pytest.mark.parametrize("size", [None, len(DATA)])
def test_another_process_left_everything(
    server: Server, store: Store, get: Callable[..., bytes], size: int | None
) -> None:
    """If a former process had all of it, nobody is asked."""
    partial(store).write_bytes(DATA)
    assert get(size=size) == DATA
    assert server.requests == []
    assert leftovers(store) == []


@pytest.mark.parametrize("size", [None, len(DATA)])
@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(DATA), b"x" * (len(DATA) + 1000), DATA + b"x"])
def test_another_process_left_rubbish(
    server: Server, store: Store, get: Callable[..., bytes], left: bytes, size: int | None
) -> None:
    """Whatever was left there, the file is right in the end."""
    server.files[f"/{NAME}"] = File(DATA)
    partial(store).write_bytes(left)
    assert get(size=size) == DATA
    assert server.answers in ([200], [206, 200], [416, 200])
    assert leftovers(store) == []


def test_what_is_in_use_is_not_swept(store: Store) -> None:
    """An old download that somebody takes up is as new, so that nobody sweeps it away meanwhile."""
    partial(store).write_bytes(DATA)
    os.utime(partial(store), (1, 1))
    wanted = Artifact("demo", "1.0", NAME, hashes={"sha256": SHA256}, url="https://host.test/x")
    with Downloader(store).download(wanted, lambda _: None, Halt()) as path:
        assert store.sweep() == 0
        assert Path(path).read_bytes() == DATA


def test_a_failure_leaves_what_can_be_continued(server: Server, store: Store, get: Callable[..., bytes]) -> None:
    """A download that fails in the end leaves its beginning, and the next one continues it."""
    server.files[f"/{NAME}"] = File(DATA, cuts=[50_000, 10_000, 10_000, 10_000, 10_000])
    with pytest.raises(FetchError, match="tried 5 times"):
        get()
    assert partial(store).stat().st_size == 90_000
    assert get() == DATA
    assert server.ranges()[-1] == "bytes=90000-"
    assert leftovers(store) == []


def test_what_nobody_can_continue_is_not_left(server: Server, store: Store, get: Callable[..., bytes]) -> None:
    """Without a sha256 nobody could tell what the beginning belongs to, so it goes."""
    server.files[f"/{NAME}"] = File(DATA, cuts=[50_000] * 5)
    with pytest.raises(FetchError, match="tried 5 times"):
        get(hashes={})
    assert leftovers(store) == []


def test_two_do_not_write_to_one_file(server: Server, store: Store, get: Callable[..., bytes]) -> None:
    """Whoever finds the shared file taken downloads to a file of its own, and leaves the other alone."""
    import fcntl

    server.files[f"/{NAME}"] = File(DATA)
    partial(store).write_bytes(DATA[:1000])
    with partial(store).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert get() == DATA
    assert server.ranges() == [None]
    assert partial(store).read_bytes() == DATA[:1000]
    assert leftovers(store) == [f"{SHA256}.part"]


def test_a_file_that_was_removed_before_it_was_locked_is_not_used(
    server: Server, store: Store, get: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking somebody may have finished and removed the file: then it is nobody's."""
    import fcntl

    server.files[f"/{NAME}"] = File(DATA)
    flock = fcntl.flock

    def slow(descriptor: int, how: int) -> None:
        partial(store).unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    assert get() == DATA
    assert leftovers(store) == []


def test_without_flock_nothing_is_shared(
    server: Server, store: Store, get: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a filesystem that cannot lock, everybody downloads to a file of their own."""
    import fcntl

    server.files[f"/{NAME}"] = File(DATA)

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    partial(store).write_bytes(DATA[:1000])
    assert get() == DATA
    assert server.ranges() == [None]


def test_a_symbolic_link_is_not_followed(
    server: Server, store: Store, get: Callable[..., bytes], tmp_path: Path
) -> None:
    """A link where the shared file should be, by somebody who may write to the cache, leads nowhere."""
    server.files[f"/{NAME}"] = File(DATA)
    (tmp_path / "victim").write_bytes(b"precious")
    partial(store).symlink_to(tmp_path / "victim")
    assert get() == DATA
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_wrong_bytes_are_refused(server: Server, store: Store, get: Callable[..., bytes]) -> None:
    """A whole file with another hash is refused at once, naming where it came from, without credentials."""
    server.files[f"/{NAME}"] = File(DATA[:-1] + b"?")
    url = f"{server.url}/{NAME}".replace("//", "//user:secret@")
    got = hashlib.sha256(DATA[:-1] + b"?").hexdigest()
    with pytest.raises(HashMismatchError) as caught:
        get(f"{url}?token=hidden")
    assert caught.value.problem == f"the sha256 of {server.url}/{NAME} is {got}, but the lock file expects {SHA256}"
    assert server.answers == [200]
    assert leftovers(store) == []


@pytest.mark.parametrize("sha256", ["", "../../evil", "0" * 63])
def test_a_hash_that_is_none_names_no_file(
    server: Server, store: Store, get: Callable[..., bytes], sha256: str
) -> None:
    """Whatever a lock file gives for a sha256, nothing is written outside tmp, and the bytes do not match."""
    server.files[f"/{NAME}"] = File(DATA)
    with pytest.raises(HashMismatchError):
        get(hashes={"sha256": sha256})
    assert leftovers(store) == os.listdir(store.wheels) == []


def test_wrong_bytes_in_pieces_are_tried_once_more(server: Server, store: Store, get: Callable[..., bytes]) -> None:
    """If what was continued does not fit, the file is downloaded from the start before it is refused."""
    server.files[f"/{NAME}"] = File(DATA[:-1] + b"?", cuts=[100_000])
    with pytest.raises(HashMismatchError):
        get()
    assert server.answers == [200, 206, 200]
    assert leftovers(store) == []


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_another_size_than_the_lock_files_is_refused(
    server: Server, store: Store, get: Callable[..., bytes], size: int
) -> None:
    """If the server announces another size, nothing is downloaded."""
    server.files[f"/{NAME}"] = File(DATA)
    with pytest.raises(WheelError, match=f"has {len(DATA)} bytes, but the lock file says {size}"):
        get(size=size)
    assert leftovers(store) == []


def test_more_than_the_lock_file_says_is_refused(server: Server, store: Store, get: Callable[..., bytes]) -> None:
    """If the server announces nothing, the download stops at the size of the lock file."""
    server.files[f"/{NAME}"] = File(DATA, chunked=True)
    with pytest.raises(WheelError, match="has more bytes, but the lock file says 1000"):
        get(size=1000)
    assert leftovers(store) == []


def test_less_than_the_lock_file_says_is_not_enough(server: Server, get: Callable[..., bytes]) -> None:
    """If less comes than the lock file says, the connection is taken for lost."""
    server.files[f"/{NAME}"] = File(DATA[:1000], chunked=True, ranges=False)
    with pytest.raises(FetchError, match="ended after 1000 of 300000 bytes"):
        get(size=len(DATA))


class Body(httpx2.SyncByteStream):
    """A body of any length, whatever the headers say."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces


def test_more_than_was_announced_is_refused(get: Callable[..., bytes]) -> None:
    """A server that sends more than its Content-Length is cut off."""
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"Content-Length": "3"}, stream=Body(b"four", b"more"))
    )
    with pytest.raises(FetchError, match="sends more than the 3 bytes it announced"):
        get(transport=transport)


def test_an_encoded_answer_is_refused(server: Server, get: Callable[..., bytes]) -> None:
    """A wheel has to come as it is, not compressed once more."""
    server.files[f"/{NAME}"] = File(DATA, encoding="gzip")
    with pytest.raises(FetchError, match="must come as it is"):
        get()


def test_redirects_are_followed(server: Server, get: Callable[..., bytes]) -> None:
    """A file may be elsewhere."""
    server.files["/here"] = File(b"", location=f"/there?{NAME}")
    server.files["/there"] = File(b"", location=f"{server.url}/{NAME}")
    server.files[f"/{NAME}"] = File(DATA, cuts=[1000])
    assert get(f"{server.url}/here") == DATA
    assert [path for path, _ in server.requests] == ["/here", f"/there?{NAME}", f"/{NAME}"] * 2
    assert server.ranges()[-1] == "bytes=1000-"


def test_redirects_in_circles_end(server: Server, get: Callable[..., bytes]) -> None:
    """A redirect to itself is given up."""
    server.files[f"/{NAME}"] = File(b"", location=f"/{NAME}")
    with pytest.raises(FetchError, match="redirects in circles"):
        get()


def test_a_redirect_to_an_unprotected_connection_is_refused(get: Callable[..., bytes]) -> None:
    """Nobody may take a download from https to http."""
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return httpx2.Response(302, headers={"Location": "http://plain.test/x"})

    with pytest.raises(FetchError, match="redirects from https to an unprotected connection"):
        get("https://user:secret@safe.test/x", transport=httpx2.MockTransport(answer))
    assert asked == ["https://safe.test/x"]


def test_credentials_do_not_follow_to_another_host(get: Callable[..., bytes]) -> None:
    """Credentials are for the host they were given for."""
    seen: list[tuple[str, str | None]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.url.host, request.headers.get("Authorization")))
        if request.url.host == "one.test":
            return httpx2.Response(302, headers={"Location": "https://two.test/x"})
        return httpx2.Response(200, stream=Body(DATA))

    get("https://user:secret@one.test/x", transport=httpx2.MockTransport(answer))
    assert [host for host, _ in seen] == ["one.test", "two.test"]
    assert seen[0][1] is not None
    assert seen[1][1] is None


def test_credentials_come_from_the_url(server: Server, get: Callable[..., bytes]) -> None:
    """User and password of the URL are used, percent-encoded or not."""
    server.files[f"/{NAME}"] = File(DATA, auth=("user", "p@ss"), cuts=[1000])
    assert get(f"{server.url}/{NAME}".replace("//", "//user:p%40ss@")) == DATA


def test_credentials_come_from_the_index_url(server: Server, get: Callable[..., bytes]) -> None:
    """Credentials of an index on the same host are used for its files."""
    server.files[f"/{NAME}"] = File(DATA, auth=("user", "pass"))
    assert get(index_urls=(f"{server.url}/simple".replace("//", "//user:pass@"),)) == DATA


def test_credentials_come_from_netrc(server: Server, get: Callable[..., bytes], tmp_path: Path) -> None:
    """Credentials in netrc are used."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password pass\n")
    (tmp_path / "netrc").chmod(0o600)
    server.files[f"/{NAME}"] = File(DATA, auth=("user", "pass"))
    assert get() == DATA


def test_wrong_credentials_are_not_shown(server: Server, get: Callable[..., bytes]) -> None:
    """If credentials are refused, the message does not give them away."""
    server.files[f"/{NAME}"] = File(DATA, auth=("user", "pass"))
    with pytest.raises(FetchError) as caught:
        get(f"{server.url}/{NAME}".replace("//", "//user:secret@"))
    assert caught.value.message == f"cannot fetch `{server.url}/{NAME}`: the server answers 401"
    assert server.answers == [401]


def test_nobody_listens(get: Callable[..., bytes]) -> None:
    """A connection that is refused is tried five times and reported."""
    with serving() as gone:
        pass
    with pytest.raises(FetchError, match=re.escape(f"cannot fetch `{gone.url}/x`: ")) as caught:
        get(f"{gone.url}/x")
    assert caught.value.message.endswith("(tried 5 times)")


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (httpx2.ConnectTimeout(""), "no connection within 10 seconds"),
        (httpx2.ReadTimeout(""), "no answer for 30 seconds"),
        (httpx2.RemoteProtocolError("odd"), "odd"),
        (httpx2.ReadError(""), "ReadError"),
        (httpx2.ProxyError("502"), "502"),
    ],
)
def test_troubles_of_the_network_are_tried_again(
    get: Callable[..., bytes], error: httpx2.TransportError, problem: str
) -> None:
    """Errors of the network are tried again and said in words."""
    tries: list[int] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        tries.append(1)
        raise error

    with pytest.raises(FetchError, match=re.escape(f": {problem} (tried 5 times)")):
        get(transport=httpx2.MockTransport(answer))
    assert len(tries) == 5


def test_a_certificate_that_is_refused_is_not_tried_again(get: Callable[..., bytes]) -> None:
    """A server that cannot prove who it is does not get a second chance."""
    tries: list[int] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        tries.append(1)
        raise httpx2.ConnectError("certificate verify failed") from ssl.SSLCertVerificationError("self-signed")

    with pytest.raises(FetchError, match=r"certificate verify failed$"):
        get("https://safe.test/x", transport=httpx2.MockTransport(answer))
    assert len(tries) == 1


@pytest.mark.parametrize("url", ["ftp://host.test/x", "nonsense", "http://[broken/x", "http://host.test:99999/x"])
def test_urls_that_cannot_be_used_are_said_to_be(get: Callable[..., bytes], url: str) -> None:
    """A URL of another kind, or none, is an error of the fetch and tried once."""
    with pytest.raises(FetchError, match="cannot fetch `"):
        get(url)


def test_a_proxy_that_cannot_be_used_is_said_to_be(get: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy variable that makes no sense is an error that says where to look."""
    monkeypatch.setenv("HTTP_PROXY", "nonsense://127.0.0.1:1")
    with pytest.raises(FetchError, match="cannot set up connections") as caught:
        get()
    assert "proxy" in (caught.value.hint or "")


def test_a_full_disk_is_reported(
    server: Server, store: Store, get: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk is one of the disk, with the path, and not tried again."""
    server.files[f"/{NAME}"] = File(DATA)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 1000:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FilesystemError, match=f"cannot write `{store.tmp}/.*No space left"):
        get()
    assert server.answers == [200]


def test_no_more_than_sixteen_at_once(server: Server, store: Store) -> None:
    """However many threads there are, sixteen files are downloaded at once."""
    downloader = Downloader(store)

    def get(number: int) -> None:
        wanted = Artifact("demo", "1", f"{number}.whl", url=f"{server.url}/{number}")
        with downloader.download(wanted, lambda _: None, Halt()) as path:
            assert os.path.getsize(path) == number

    for number in range(40):
        server.files[f"/{number}"] = File(b"x" * number)
    with ThreadPoolExecutor(40) as pool:
        for done in [pool.submit(get, number) for number in range(40)]:
            done.result()
    downloader.close()
    assert len(server.requests) == 40
    assert server.busiest <= 16
    assert leftovers(store) == []


@pytest.fixture
def download(server: Server, store: Store) -> Iterator[Callable[[Callable[[int], None], Halt], None]]:
    """Return a function that begins a download that has to be ended before it is done."""
    downloader = Downloader(store)
    wanted = Artifact("demo", "1.0", NAME, hashes={"sha256": SHA256}, url=f"{server.url}/{NAME}")

    def begin(progress: Callable[[int], None], halt: Halt) -> None:
        with pytest.raises(HaltedError), downloader.download(wanted, progress, halt):
            pytest.fail("it was not ended")

    yield begin
    downloader.close()


def test_ending_leaves_what_can_be_continued(
    server: Server, store: Store, download: Callable[[Callable[[int], None], Halt], None]
) -> None:
    """A download that is ended stops at once, and leaves its beginning to the next."""
    server.files[f"/{NAME}"] = File(DATA, hold=threading.Event())
    received: list[int] = []
    halt = Halt()

    def progress(count: int) -> None:
        received.append(count)
        if sum(received) >= len(DATA) // 4:
            halt.ask()

    download(progress, halt)
    left = partial(store).read_bytes()
    assert len(left) == sum(received) < len(DATA)
    assert DATA.startswith(left)


@pytest.mark.parametrize("status", [None, 503])
def test_ending_wakes_up_who_waits(
    server: Server,
    store: Store,
    download: Callable[[Callable[[int], None], Halt], None],
    monkeypatch: pytest.MonkeyPatch,
    status: int | None,
) -> None:
    """Whether for a server that has fallen silent, or for the time of the next try."""
    monkeypatch.setattr(retrying, "LONGEST_WAIT", 1000.0)
    statuses = [] if status is None else [(status, {"Retry-After": "1000"})]
    server.files[f"/{NAME}"] = File(DATA, hold=threading.Event(), statuses=statuses)
    halt = Halt()
    with ThreadPoolExecutor(1) as pool:
        came = threading.Event()
        ended = pool.submit(download, lambda _: came.set(), halt)
        if status is None:
            assert came.wait(30)
        else:
            while not server.answers:
                time.sleep(0.01)
        halt.ask()
        ended.result(30)
    assert leftovers(store) == ([f"{SHA256}.part"] if status is None else [])


def test_ending_closes_a_connection_that_is_just_made(
    server: Server, download: Callable[[Callable[[int], None], Halt], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shut down as soon as it is known, and nothing is asked for."""
    halt = Halt()
    connect = socket.create_connection

    def connect_and_end(*arguments: Any, **options: Any) -> socket.socket:
        made = connect(*arguments, **options)
        halt.ask()
        return made

    monkeypatch.setattr(socket, "create_connection", connect_and_end)
    download(lambda _: None, halt)
    assert server.requests == []


def test_an_error_of_the_wheel_removes_the_download(server: Server, store: Store) -> None:
    """If the file turns out to be no good wheel, it would not be the next time either, so it goes."""
    server.files[f"/{NAME}"] = File(DATA)
    wanted = Artifact("demo", "1.0", NAME, hashes={"sha256": SHA256}, url=f"{server.url}/{NAME}")
    downloader = Downloader(store)

    def run(error: BaseException) -> None:
        with downloader.download(wanted, lambda _: None, Halt()):
            raise error

    with pytest.raises(KeyError):
        run(KeyError())
    assert partial(store).read_bytes() == DATA
    with pytest.raises(WheelError):
        run(WheelError(NAME, "bad"))
    assert leftovers(store) == []
    downloader.close()


def test_what_others_write_to_the_file_is_found(server: Server, store: Store) -> None:
    """What is hashed is what is there once all has come, and not what came: nothing that others wrote gets by."""
    wheel = build_wheel(Path(store.root), "demo", "1.0", {"x": "content"})
    data = Path(wheel).read_bytes()
    wanted = artifact(wheel, path=None, url=f"{server.url}/{NAME}", size=len(data))
    server.files[f"/{NAME}"] = File(data)
    downloader = Downloader(store)

    def add() -> None:
        with downloader.download(wanted, lambda _: None, Halt()) as path:
            with open(path, "r+b") as file:
                file.write(b"?")
            store.add(path, wanted)

    with pytest.raises(HashMismatchError):
        add()
    downloader.close()
    assert leftovers(store) == os.listdir(store.wheels) == []
