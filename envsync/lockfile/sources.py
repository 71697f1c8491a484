"""Where wheels may come from, and what of a URL may be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from envsync.errors import UsageError
from envsync.errors.redact import redacted
from envsync.launch import variables
from envsync.lockfile.target import GIT, Source
from envsync.system import paths

MALFORMED_HINT = "a URL is like https://USER:PASSWORD@HOST:PORT/PATH, with special characters as in %2F"
_NO_SECRET = re.compile(r"git|\$\{[\w-]+\}(:\$\{[\w-]+\})?", re.ASCII)
"""User information that says nothing (PEP 610)."""
_PAIR = re.compile(r"([a-z][a-z0-9+.-]*://.+?)=([a-z][a-z0-9+.-]*://.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sources:
    """The options that say where wheels may come from. URLs may hold credentials, so they are not shown."""

    index_urls: tuple[str, ...] = field(default=(), repr=False)
    """Empty: the library's default index."""
    find_links: tuple[str, ...] = field(default=(), repr=False)
    """Directories, wheels, or pages with links to wheels."""
    no_index: bool = False
    offline: bool = False
    """No network whatsoever."""
    extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    """Asked besides `index_urls` or the default index."""
    trusted_hosts: tuple[str, ...] = ()
    """Hosts that may be talked to without TLS, or without verifying it."""
    mirrors: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """What begins as the first is taken from where the second begins, be it an index or a file."""
    redirecting: bool = True
    """The indexes are asked for what is locked to be at a URL, too, and before that."""

    def __post_init__(self) -> None:
        """:raises UsageError: a URL is malformed"""
        for option in ("index_urls", "find_links", "extra_index_urls"):
            if not all(map(well_formed, getattr(self, option))):
                flag = option.removesuffix("_urls").replace("_", "-") + ("-url" if "index" in option else "")
                raise UsageError(f"a URL given to --{flag} is malformed", hint=MALFORMED_HINT)

    def over(self, lower: Sources) -> Sources:
        """Combine with the options of a lock file: what is given here wins, places are searched first."""
        return Sources(
            index_urls=self.index_urls or lower.index_urls,
            find_links=self.find_links + lower.find_links,
            no_index=self.no_index or lower.no_index,
            offline=self.offline,
            extra_index_urls=self.extra_index_urls
            if self.index_urls
            else self.extra_index_urls + lower.extra_index_urls,
            trusted_hosts=self.trusted_hosts + lower.trusted_hosts,
            mirrors=self.mirrors,
            redirecting=self.redirecting,
        )

    def mirrored(self, url: str) -> str:
        """Return where something is taken from: the longest beginning that has a mirror is replaced."""
        bare = variables.without_user(url)
        for place, mirror in sorted(self.mirrors, key=lambda pair: len(pair[0]), reverse=True):
            begin = variables.without_user(place).rstrip("/")
            if bare == begin or bare.startswith(begin + "/"):
                return mirror.rstrip("/") + bare[len(begin) :]
        return url

    def is_near(self, url: str) -> bool:
        """Tell whether a file at a URL is to be taken from there, rather than from indexes or pages that are given.

        Who gives some may reach no other host.
        """
        given = (*self.index_urls, *self.pages)
        return not given or any(host_of(place) == host_of(url) for place in map(as_url, given))

    @property
    def directories(self) -> tuple[str, ...]:
        """The absolute paths of find-links directories and wheels."""
        local = [_local_path(place) for place in self.find_links if not _is_page(place)]
        return tuple(paths.abspath(path) for path in local if path is not None)

    @property
    def pages(self) -> tuple[str, ...]:
        """The URLs of find-links pages; offline only those in files."""
        urls = tuple(self.mirrored(as_url(place)) for place in self.find_links if _is_page(place))
        return tuple(url for url in urls if is_file_url(url)) if self.offline else urls

    @property
    def indexes(self) -> tuple[str, ...]:
        """The URLs of the indexes that may be asked; offline only those in directories."""
        if self.no_index:
            return ()
        given = map(as_url, self.index_urls + self.extra_index_urls)
        urls = tuple(dict.fromkeys(map(self.mirrored, given)))
        return tuple(url for url in urls if is_file_url(url)) if self.offline else urls

    @property
    def default_index(self) -> bool:
        """Whether the library's default index may be asked, too."""
        return not (self.index_urls or self.no_index or self.offline)

    @property
    def searchable(self) -> bool:
        """Whether there is any page or index to be asked."""
        return self.default_index or bool(self.pages or self.indexes)

    @property
    def prohibition(self) -> str:
        """The option that rules out an index, if one does."""
        return "--offline" if self.offline else "--no-index" if self.no_index else ""


def mirrors_of(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Take pairs of URLs apart, as in `https://a.example=https://b.example/a`.

    :raises UsageError: one is none
    """
    pairs = []
    for text in texts:
        match = _PAIR.fullmatch(text)
        if match is None or not well_formed(match[1]) or not well_formed(match[2]):
            hint = (
                "each is a URL, an equals sign and a URL: `envsync sync --mirrors https://a.example=https://b.example`"
            )
            raise UsageError("what is given to --mirrors is no pair of URLs", hint=hint)
        pairs.append((match[1], match[2]))
    return tuple(pairs)


def _is_page(place: str) -> bool:
    return not is_file_url(as_url(place)) or place.lower().endswith((".html", ".htm"))


def _local_path(place: str) -> str | None:
    return path_of_url(place) if is_file_url(place) else place


def expanded(url: str) -> str:
    """Replace each `${NAME}` by the value of the variable; one that is not set stays, as what it is."""
    for begin, end, name in reversed(list(variables.find(url))):
        url = url[:begin] + os.environ.get(name, url[begin:end]) + url[end:]
    return url


def as_url(place: str) -> str:
    """Turn a path into a file URL; leave a URL alone."""
    if is_url(place):
        return place
    return paths.url_of(paths.abspath(place))


def well_formed(place: str) -> bool:
    """Whether a path or URL can be taken apart. What it is may not be shown if not: where is its password?"""
    try:
        _ = urlsplit(place).port if is_url(place) else None
    except ValueError:
        return False
    return True


def is_url(place: str) -> bool:
    return "://" in place or is_file_url(place)


def is_file_url(url: str) -> bool:
    return url[:5].lower() == "file:"


def path_of_url(url: str) -> str:
    """Give the path in a file URL.

    :raises ValueError: it names another host
    """
    parts = urlsplit(url)
    path = paths.of_url(parts.netloc, parts.path)
    if path is None:
        raise ValueError(f"a file URL cannot name the host `{parts.netloc.rpartition('@')[2]}`")
    return path


def filename_of(place: str) -> str:
    """Give the last component of a path or URL."""
    path = unquote(urlsplit(place).path) if is_url(place) else place
    return path.rpartition("/")[2]


def host_of(url: str) -> str:
    """Give the host of a URL, for messages; the path of a file URL."""
    parts = urlsplit(url)
    if is_file_url(url):
        return paths.of_url("", parts.path) or ""
    return parts.netloc.rpartition("@")[2]


def with_credentials(url: str, indexes: tuple[str, ...]) -> str:
    """Add the credentials that an index URL with the same scheme, host and port has."""
    with_some = [index for index in indexes if "@" in index]
    parts = urlsplit(url) if with_some else None
    if parts is None or "@" in parts.netloc:
        return url
    for index in map(urlsplit, with_some):
        userinfo, at, host = index.netloc.rpartition("@")
        if at and index.scheme == parts.scheme and host.lower() == parts.netloc.lower():
            return urlunsplit(parts._replace(netloc=f"{userinfo}@{parts.netloc}"))
    return url


def without_credentials(url: str) -> str:
    """Take the credentials out of a URL."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def direct_url_text(place: str, hashes: Mapping[str, str], subdirectory: str = "") -> str:
    """Write direct_url.json (PEP 610) for a file that was asked for by URL or absolute path, without secrets.

    :param subdirectory: of an archive of a tree, where in it the project is
    """
    import json

    from packaging.direct_url import ArchiveInfo, DirectUrl

    url = redacted(urlunsplit(urlsplit(as_url(place))._replace(fragment="")))
    info = ArchiveInfo(hashes=dict(hashes) or None)
    shown = DirectUrl(url=url, archive_info=info, subdirectory=subdirectory or None)
    return json.dumps(shown.to_dict(), sort_keys=True)


def direct_url_of(source: Source) -> str:
    """Write direct_url.json (PEP 610) for what was built of a directory or a git repository, without secrets.

    Of user information only what is none is kept, as in `ssh://git@host/`, and variables, as the specification has it.
    """
    import json

    from packaging.direct_url import DirectUrl, DirInfo, VcsInfo

    subdirectory = source.subdirectory or None
    if source.kind == GIT:
        vcs = VcsInfo(vcs="git", commit_id=source.commit, requested_revision=source.reference or None)
        url = DirectUrl(url=_shown(source.place), vcs_info=vcs, subdirectory=subdirectory)
    else:
        info = DirInfo(editable=source.editable)
        url = DirectUrl(url=as_url(source.place), dir_info=info, subdirectory=subdirectory)
    return json.dumps(url.to_dict(strip_user_password=False), sort_keys=True)


def _shown(url: str) -> str:
    """Return the URL of a repository without secrets."""
    bare = redacted(without_credentials(url))
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    return bare.replace("://", f"://{user}@", 1) if at and _NO_SECRET.fullmatch(user) else bare
