"""Files on package indexes and pages with links: unearth reads them, here failures get their names.

unearth's collector, session and authentication are used (the simple API in HTML and JSON, netrc, keyring,
trusted hosts, file URLs). Its `PackageFinder` is used for the default index only: it reads a find-links page
again for each package, downloads whole wheels whose hash the index does not give, and keeps to itself why
nothing was chosen.

Importing this module imports an HTTP client, so only do so when one is needed.
"""

from __future__ import annotations

import logging
import os
import posixpath
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self, TypeVar, cast

import httpx2
from unearth.auth import MultiDomainBasicAuth
from unearth.collector import SUPPORTED_CONTENT_TYPES, collect_links_from_location, is_secure_origin
from unearth.fetchers import Fetcher
from unearth.fetchers.sync import PyPIClient
from unearth.finder import PackageFinder
from unearth.link import Link

from envsync.errors import FetchError
from envsync.errors.hints import VARIABLES
from envsync.errors.redact import keep_out_of_logs, redacted
from envsync.lockfile import hearing, retrying
from envsync.lockfile.hashes import strong
from envsync.lockfile.sources import Sources, host_of, is_file_url, path_of_url, with_credentials
from envsync.lockfile.wheels import Offer, offer_of

WORKERS = 8
TRIES = 3
"""Fewer than a download has: an index that is down is named before anything is begun."""
_ABSENT = frozenset({404, 410})

# Without a handler, Python prints to stderr what unearth logs for each package that an index does not have.
logging.getLogger("unearth").addHandler(logging.NullHandler())

ADDRESS = f"an index is given as in `envsync sync --index-url {PackageFinder().sources[0]['url']}`"

T = TypeVar("T")
U = TypeVar("U")


class _AnswerError(Exception):
    """An index cannot be asked, or answered something else than a list of files.

    :param passing: it may answer something else later
    """

    def __init__(self, problem: str, *, passing: bool = False) -> None:
        super().__init__(problem)
        self.passing = passing


class _DeniedError(_AnswerError):
    """403, which is also how some object stores say that there is no such page."""


class _Client(PyPIClient):
    """A session that tells failure from absence, and tries again what may pass."""

    def __init__(self, trusted_hosts: Iterable[str], urls: Iterable[str]) -> None:
        super().__init__(trusted_hosts=trusted_hosts, follow_redirects=True)
        self.auth = MultiDomainBasicAuth(prompting=False, index_urls=urls)
        self.closing = threading.Event()

    def get(  # type: ignore[override]
        self, url: httpx2.URL | str, *, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """Fetch a page; that there is none is an answer, too."""
        for attempt in count(1):
            try:
                response = super().get(url, headers=headers)
            except httpx2.HTTPError as error:
                if not self._again(attempt, error):
                    raise
            else:
                if not self._again(attempt, response):
                    return _checked(response)
        raise AssertionError

    def _again(self, attempt: int, outcome: httpx2.Response | httpx2.HTTPError) -> bool:
        """Tell whether there is to be another try, and wait before it; nobody waits once we are closing."""
        if attempt == TRIES or not retrying.may_pass(outcome):
            return False
        asked = retrying.asked_wait(outcome) if isinstance(outcome, httpx2.Response) else None
        return not self.closing.wait(retrying.wait_after(attempt, asked))

    def is_absent(self, url: str) -> bool:
        """Tell whether there is no such page. One that cannot be asked may be there."""
        try:
            return super().head(url).status_code in _ABSENT
        except httpx2.HTTPError:
            return False


def _checked(response: httpx2.Response) -> httpx2.Response:
    status = f"{response.status_code} {response.reason_phrase}"
    if response.status_code in (401, 407):
        raise _AnswerError(f"it wants credentials, or other ones ({status})")
    if response.status_code == 403:
        raise _DeniedError(f"it answered {status}")
    if response.status_code >= 400 and response.status_code not in _ABSENT:
        raise _AnswerError(f"it answered {status}", passing=retrying.may_pass(response))
    kind = response.headers.get("Content-Type", "nothing")
    if response.status_code < 400 and not kind.lower().startswith(SUPPORTED_CONTENT_TYPES):
        raise _AnswerError(f"it answered with {kind} instead of a list of files")
    return response


class Index:
    """The indexes and pages that may be asked, with one session for all. Use it as a context manager."""

    def __init__(self, sources: Sources) -> None:
        """:raises FetchError: the settings of proxies or certificates cannot be used"""
        default = [source["url"] for source in PackageFinder().sources] if sources.default_index else []
        self._mirrored = sources.mirrored
        self.doubts: list[str] = []
        """What seems to be wrong with the addresses, if nothing at all was found."""
        hearing.attach()
        self._indexes = (*map(sources.mirrored, default), *sources.indexes)
        self._pages = sources.pages
        keep_out_of_logs()
        try:
            self._session = _Client(sources.trusted_hosts, (*self._indexes, *self._pages))
        except (ImportError, ValueError, OSError) as error:
            problem = f"cannot set up connections: {redacted(str(error))}"
            raise FetchError(problem, hint=VARIABLES, retryable=False) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.closing.set()
        self._session.close()

    def offers(self, names: Sequence[str]) -> dict[str, list[Offer]]:
        """Give all files of each package, in the order of pages and indexes. Blocks on the network.

        :param names: normalized
        :raises FetchError: an index or page does not answer, or not with a list of files
        """
        found: dict[str, list[Offer]] = {name: [] for name in names}
        for offers in self._each(self._collect, self._pages):
            for offer in offers:
                if offer.name in found:
                    found[offer.name].append(offer)
        for name, offers in zip(found, self._each(self._project, list(found)), strict=True):
            found[name] += offers
        if names and not any(found.values()):
            self._blame()
        return found

    def _blame(self) -> None:
        """Look whether the addresses are right, where nothing at all was found.

        :raises FetchError: there is nothing at a path that is given for an index
        """
        for url in (*(posixpath.join(index, "") for index in self._indexes), *self._pages):
            if is_file_url(url):
                path = path_of_url(url).rstrip("/")
                if not os.path.exists(path):
                    problem = f"there is no index `{path}`: it is neither a URL nor a directory"
                    raise FetchError(problem, hint=ADDRESS, retryable=False)
            elif self._session.is_absent(url):
                self.doubts.append(f"`{redacted(url)}` itself answers that there is no such page; {ADDRESS}")

    def _each(self, work: Callable[[U], T], items: Sequence[U]) -> list[T]:
        """Do the same for all items side by side; the first failure ends it.

        The threads are daemons, which no executor offers: who interrupts us does not wait for a silent index.
        """
        if len(items) < 2:
            return [work(item) for item in items]
        todo: SimpleQueue[tuple[int, U]] = SimpleQueue()
        done: SimpleQueue[tuple[int, T] | BaseException] = SimpleQueue()
        for numbered in enumerate(items):
            todo.put(numbered)
        for _ in range(min(WORKERS, len(items))):
            threading.Thread(target=self._work, args=(work, todo, done), daemon=True).start()
        results: dict[int, T] = {}
        while len(results) < len(items):
            outcome = done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            results[outcome[0]] = outcome[1]
        return [results[number] for number in range(len(items))]

    def _work(
        self,
        work: Callable[[U], T],
        todo: SimpleQueue[tuple[int, U]],
        done: SimpleQueue[tuple[int, T] | BaseException],
    ) -> None:
        try:
            while not self._session.closing.is_set():
                number, item = todo.get_nowait()
                done.put((number, work(item)))
        except Empty:
            pass  # all is done, or being done by the others
        except BaseException as error:  # noqa: BLE001 (raised again by the thread that waits)
            done.put(error)

    def _project(self, name: str) -> list[Offer]:
        """Give the files of one package on all indexes. One index may deny it if another has it."""
        offers: list[Offer] = []
        denied: FetchError | None = None
        for index in self._indexes:
            try:
                offers += self._collect(posixpath.join(index, name) + "/", whole=False)
            except FetchError as error:
                if not isinstance(error.__cause__, _DeniedError):
                    raise
                denied = error
        if denied is not None and not offers:
            raise denied
        return [offer for offer in offers if offer.name == name]

    def _collect(self, url: str, whole: bool = True) -> list[Offer]:
        """Give the files that a page links to.

        :param whole: a find-links page rather than one of an index
        """
        hint = "name a directory of wheels with --find-links, or use what the cache has: `envsync sync --offline`"
        location = Link(url)
        failure: Exception
        try:
            if location.parsed.scheme not in ("http", "https", "file"):
                hint = ADDRESS
                raise _AnswerError("its URL begins with neither https: nor http: nor file:")
            fetcher = cast("Fetcher", self._session)
            if not is_secure_origin(fetcher, location):
                host = location.parsed.hostname
                hint = (
                    f"use https, or trust it in a requirements file: `echo --trusted-host {host} >> requirements.txt`"
                )
                raise _AnswerError("it is neither encrypted nor trusted")
            links = collect_links_from_location(fetcher, location, expand=whole)
            # A page on the network has no business with local files.
            safe = (link for link in links if location.is_file or not is_file_url(link.normalized))
            return [offer for link in safe if (offer := self._offer(link)) is not None]
        except (_AnswerError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            failure, reason = error, redacted(str(error)) or type(error).__name__
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # The JSON and HTML parsers trust the page to be what it claims to be.
            failure, reason = error, f"its answer is malformed: {redacted(str(error))}"
        known = failure if isinstance(failure, _AnswerError) else None
        passing = isinstance(failure, httpx2.HTTPError) and retrying.may_pass(failure)
        problem = f"cannot list the files at `{host_of(url)}`: {reason}"
        raise FetchError(problem, hint=hint, retryable=passing if known is None else known.passing) from known

    def _offer(self, link: Link) -> Offer | None:
        hashes = strong({algorithm: digests[0] for algorithm, digests in (link.hash_option or {}).items()})
        place = self._mirrored(link.normalized.partition("#")[0])
        path = path_of_url(place) if is_file_url(place) else None
        url = with_credentials(place, (*self._indexes, *self._pages)) if path is None else None
        return offer_of(link.filename, hashes=hashes, path=path, url=url, requires_python=link.requires_python)
