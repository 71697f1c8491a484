"""Download wheels: in blocking threads, again after what may pass, and where a download broke off rather than from the
start.

A file whose sha256 the lock file gives is downloaded to `<tmp>/<sha256>.part`, under flock, so that whoever
comes next (after a lost connection, a crash, another job) continues it. Whoever finds it taken, or finds no
flock, and files without a sha256, use a file of their own that is not continued. A file that came in pieces is
compared with the sha256 at the end: a continuation that does not fit is thrown away and the file downloaded once more
from the start. One that came whole is hashed once, by whoever unpacks it, from the file itself and not from what
came: so it does not matter who else may have written to it meanwhile.

Credentials come from the URL, from the index URLs and from netrc, by unearth; they are in no message. A
redirect from https to http is refused, and TLS is always verified.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256

import httpx2
from unearth.auth import MultiDomainBasicAuth

from envsync import __version__
from envsync.errors import FetchError, FilesystemError, WheelError
from envsync.errors.hints import VARIABLES
from envsync.errors.redact import keep_out_of_logs
from envsync.fetching import CONNECTIONS
from envsync.fetching.body import Body, announced, body_of
from envsync.fetching.halting import Halt
from envsync.launch import command
from envsync.lockfile import hearing, retrying
from envsync.lockfile.target import Artifact
from envsync.store.store import Store
from envsync.system import core, groups, native
from envsync.wheel.manifest import is_sha256
from envsync.wheel.verify import origin, size_mismatch

TRIES = 5
REDIRECTS = 10
READ_SECONDS = 30.0
CONNECT_SECONDS = 10.0
FIRST_CONNECT_SECONDS = 4.0
"""The same in a first try. Each address of a host has so long, and the first of them may lead nowhere (IPv6). Long
enough for a packet that was lost: Linux sends it again after 1 and 3 seconds."""
PIECES = 32
"""As many are kept to be written at once."""
WRITE_SECONDS = 0.1
"""At the most until what came is written: whoever is killed then leaves that."""

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")


class Downloader:
    """A client for downloads into one store, for any number of threads. It has no connection before the first download:
    a process that has none yet may fork, and parent and children all use it.

    :param store: where to keep what is being downloaded
    :param index_urls: where to look for credentials besides the URL itself
    :param transport: instead of the network, for tests
    """

    def __init__(
        self, store: Store, index_urls: Iterable[str] = (), transport: httpx2.BaseTransport | None = None
    ) -> None:
        self._store = store
        hearing.attach()
        keep_out_of_logs()
        try:
            self._client = httpx2.Client(
                auth=MultiDomainBasicAuth(prompting=False, index_urls=index_urls),
                verify=httpx2.create_ssl_context(),  # once, for the proxies, too: to read the certificates takes long
                headers={"User-Agent": f"envsync/{__version__}", "Accept-Encoding": "identity"},
                timeout=_timeout(CONNECT_SECONDS),
                limits=httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
                transport=transport,
            )
        except (ImportError, ValueError, OSError) as error:
            # Its text may have a proxy's password.
            raise FetchError(f"cannot set up connections: {error}", hint=VARIABLES, retryable=False) from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def download(self, artifact: Artifact, progress: Callable[[int], None], halt: Halt) -> Iterator[str]:
        """Download a file and lend its path; it is gone afterwards.

        The file has the size that the lock file says. Its hash is up to whoever it is lent to: a `WheelError` of
        theirs says that it is not what it should be.

        Being halted, and an error that may pass, leave behind what can be continued.

        :param progress: called with the number of bytes that came in, or, negative, were thrown away
        :param halt: by what another thread ends this
        :raises FetchError: it could not be had
        :raises WheelError: it is not what the lock file says
        :raises HaltedError: somebody has ended this
        """
        part = _Part(self._store, artifact.sha256)
        keep = False
        try:
            _Transfer(artifact, part, progress, halt).run(self._client)
            yield part.path
        except WheelError:
            raise  # it would be no better the next time
        except BaseException:
            keep = True
            raise
        finally:
            part.close(keep=keep)


class _Part:
    """A file that a download goes to, held open and, if it may be continued by others, locked.

    :param sha256: of the whole, if known
    """

    def __init__(self, store: Store, sha256: str | None) -> None:
        self.shared = False
        self._group = groups.bits(store.root)
        if sha256 is not None and is_sha256(sha256):
            self.path = f"{store.tmp}/{sha256.lower()}.part"
            self.shared = self._take()
        if not self.shared:
            self.path = store.staging("download")
            try:
                self.descriptor = command.open_lock(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS)
            except OSError as error:
                raise FilesystemError("create", self.path, error) from error

    def _take(self) -> bool:
        """Open and lock the file that all share; False if somebody has it or this filesystem cannot lock."""
        try:
            descriptor = command.open_lock(self.path, os.O_RDWR | os.O_CREAT | _FLAGS)
        except OSError:
            return False  # somebody else's, say; a file of our own will tell if nothing can be written at all
        try:
            core.lock(descriptor, self.path, shared=False)
            if not os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                raise FileNotFoundError  # it was finished and removed between open and flock
            with suppress(OSError):  # or it might be swept while it is continued; some filesystems set no times
                native.utime(descriptor)
            groups.grant(self.path, self._group)
        except OSError:
            command.close_lock(descriptor)
            return False
        self.descriptor = descriptor
        return True

    def close(self, *, keep: bool) -> None:
        """Let go of the file, and remove it unless it is to be kept and somebody can continue it."""
        if not (keep and self.shared and os.fstat(self.descriptor).st_size):
            try:
                os.unlink(self.path)
            except OSError:
                pass  # swept later
        command.close_lock(self.descriptor)


_FLAGS = core.NOFOLLOW


class _PassingError(Exception):
    """A try failed, but another one may not.

    :param delay: the seconds that the server asked for, if it did
    """

    def __init__(self, problem: str, delay: float | None = None) -> None:
        super().__init__(problem)
        self.delay = delay


class _Transfer:
    """The download of one file over all its tries.

    :param progress: called with the number of bytes that came in, or, negative, were thrown away
    """

    def __init__(self, artifact: Artifact, part: _Part, progress: Callable[[int], None], halt: Halt) -> None:
        self._artifact = artifact
        self._part = part
        self._progress = progress
        self._halt = halt
        self._unwritten: list[bytes] = []
        self._written_at = 0.0
        self._done = 0
        self._total = artifact.size
        self._validator: str | None = None
        self._pieced = False
        """Whether what is there came from more than one answer."""

    def run(self, client: httpx2.Client) -> None:
        if self._part.shared and self._take_over():
            return
        for attempt in range(1, TRIES + 1):
            try:
                self._try(client, FIRST_CONNECT_SECONDS if attempt == 1 else CONNECT_SECONDS)
                return
            except _PassingError as problem:
                if attempt == TRIES:
                    raise self._error(f"{problem} (tried {TRIES} times)", retryable=True) from None
                self._halt.wait(retrying.wait_after(attempt, problem.delay))

    def _try(self, client: httpx2.Client, connect_seconds: float) -> None:
        try:
            with self._open(client, connect_seconds) as response:
                self._accept(response)
                self._receive(response)
        except httpx2.HTTPError as error:
            self._halt.check()  # then it was woken up
            raise self._translated(error) from None
        except (httpx2.InvalidURL, httpx2.StreamError) as error:
            raise self._error(type(error).__name__) from None
        finally:
            self._write()
        self._halt.check()
        self._check()

    def _receive(self, response: httpx2.Response) -> None:
        """Take in the body, if it can be waited for with the floor as soon as there is something to read."""
        body = body_of(response)
        if body is None:
            for data in response.iter_raw():
                self._take(data)
            return
        self._take(body.take())  # it may have come with the head
        while body.left > 0:
            if not body.wait(READ_SECONDS):
                raise httpx2.ReadTimeout("")
            with self._halt.floor.had():
                self._receive_some(body)
        while data := body.take():  # its end is to be seen, or the connection cannot be used again
            self._take(data)

    def _receive_some(self, body: Body) -> None:
        """Take in what is there, as long as nobody else asks for the floor."""
        while True:
            self._take(body.take())
            if body.left <= 0 or self._halt.floor.is_asked_for or not body.wait(0):
                return

    @contextmanager
    def _open(self, client: httpx2.Client, connect_seconds: float) -> Iterator[httpx2.Response]:
        """Ask for what is missing and follow redirects."""
        headers = {}
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            if self._validator is not None:
                headers["If-Range"] = self._validator
        extensions = {"trace": self._halt.watch}
        timeout = _timeout(connect_seconds)
        url = self._artifact.url or ""
        request = client.build_request("GET", url, headers=headers, extensions=extensions, timeout=timeout)
        for _ in range(REDIRECTS + 1):
            self._halt.check()
            response = client.send(request, stream=True, follow_redirects=False)
            try:
                following = response.next_request
                if following is None:
                    yield response
                    return
            finally:
                response.close()
            if request.url.scheme == "https" and following.url.scheme != "https":
                raise self._error("it redirects from https to an unprotected connection")
            request = following
        raise self._error("it redirects in circles")

    def _accept(self, response: httpx2.Response) -> None:
        """Look at the head of an answer and get ready for its body."""
        status = response.status_code
        if retrying.may_pass(response):
            raise _PassingError(f"the server answers {status}", retrying.asked_wait(response))
        if status == 416:
            self._start_over()
            raise _PassingError("the server refuses to continue", 0)
        if status not in (200, 206):
            raise self._refused(status)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._error("the server encodes what must come as it is")
        if status == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != self._done:
                self._start_over()
                raise _PassingError("the server continues elsewhere than asked", 0)
            self._pieced = True
            self._set_total(match[2])
        else:
            self._start_over()
            self._set_total(announced(response))
        tag = response.headers.get("ETag", "")
        # A weak tag may not be used for a range (RFC 9110, 13.1.5)
        self._validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")

    def _set_total(self, text: str) -> None:
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            return
        if self._artifact.size is not None and int(text) != self._artifact.size:
            raise self._wrong_size(text)
        self._total = int(text)

    def _take(self, data: bytes) -> None:
        """Take in what came. It is written in few large pieces: TLS hands on 16 KiB at most."""
        self._halt.check()
        if self._total is not None and self._done + len(data) > self._total:
            if self._artifact.size is not None:
                raise self._wrong_size("more")
            raise self._error(f"the server sends more than the {self._total} bytes it announced")
        self._unwritten.append(data)
        self._done += len(data)
        self._progress(len(data))
        now = time.monotonic()
        if len(self._unwritten) >= PIECES or now >= self._written_at + WRITE_SECONDS:
            self._written_at = now
            self._write()

    def _write(self) -> None:
        """Write what was taken in."""
        data = b"".join(self._unwritten)
        self._unwritten.clear()
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._part.descriptor, view) :]
        except OSError as error:
            raise FilesystemError("write", self._part.path, error) from error

    def _check(self) -> None:
        """Look at what there is at the end of an answer.

        What came whole is not hashed here: its hash is compared before it is unpacked, and another one is final.
        """
        if self._total is not None and self._done < self._total:
            raise _PassingError(f"the connection ended after {self._done} of {self._total} bytes")
        if self._expected is not None and self._pieced and self._digest() != self._expected:
            self._start_over()
            raise _PassingError("what was downloaded in pieces does not fit together", 0)

    def _take_over(self) -> bool:
        """Continue what somebody else downloaded before. Returns whether they had all, but did not get to unpack it."""
        self._done = os.lseek(self._part.descriptor, 0, os.SEEK_END)
        if not self._done:
            return False
        self._pieced = True
        self._progress(self._done)
        if self._total is not None and self._done < self._total:
            return False
        if self._digest() == self._expected:
            return True
        if self._total is not None:
            self._start_over()
        return False

    def _digest(self) -> str:
        """Hash all that is there. What is written next goes to the end."""
        hasher = sha256()
        try:
            os.lseek(self._part.descriptor, 0, os.SEEK_SET)
            while data := os.read(self._part.descriptor, 1024 * 1024):
                self._halt.check()
                hasher.update(data)
        except OSError as error:
            raise FilesystemError("read", self._part.path, error) from error
        return hasher.hexdigest()

    def _start_over(self) -> None:
        try:
            os.ftruncate(self._part.descriptor, 0)
            os.lseek(self._part.descriptor, 0, os.SEEK_SET)
        except OSError as error:
            raise FilesystemError("write", self._part.path, error) from error
        if self._done:
            self._progress(-self._done)
        self._done = 0
        self._total = self._artifact.size
        self._validator = None
        self._pieced = False

    @property
    def _expected(self) -> str | None:
        digest = self._artifact.sha256
        return None if digest is None else digest.lower()

    def _translated(self, error: httpx2.HTTPError) -> Exception:
        problem = _reason(error)
        return _PassingError(problem) if retrying.may_pass(error) else self._error(problem)

    def _refused(self, status: int) -> FetchError:
        hint = None
        if status in (401, 403, 407):
            hint = "put credentials into the index URL or into ~/.netrc, which only you may read: `chmod 600 ~/.netrc`"
        elif status in (404, 410):
            name = self._artifact.name
            hint = f"if the file was removed from the index, lock again: `pip index versions {name}` says what there is"
        return self._error(f"the server answers {status}", hint)

    def _wrong_size(self, size: str) -> WheelError:
        return size_mismatch(self._artifact, size)

    def _error(self, problem: str, hint: str | None = None, *, retryable: bool = False) -> FetchError:
        return FetchError(f"cannot fetch `{origin(self._artifact)}`: {problem}", hint=hint, retryable=retryable)


def _timeout(connect_seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(READ_SECONDS, connect=connect_seconds, pool=None)


def _reason(error: httpx2.HTTPError) -> str:
    if isinstance(error, httpx2.ConnectTimeout):
        return "no connection within 10 seconds"
    if isinstance(error, httpx2.TimeoutException):
        return "no answer for 30 seconds"
    return str(error) or type(error).__name__
