"""What has to be built, as lock files name it: a directory, a commit of a git repository, an archive.

What comes out has been looked at: a subdirectory is one within the tree, a commit is a whole hash, and a URL is one
that git may be given.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from urllib.parse import urlsplit, urlunsplit

from envsync.lockfile.sources import is_file_url, is_url, path_of_url, well_formed
from envsync.lockfile.target import ARCHIVE, DIRECTORY, GIT, Source
from envsync.system import core, paths

ARCHIVES = (".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar")
"""What source distributions and other archives of trees are called; of an index, only the first two (PEP 625, and what
was before)."""
SCHEMES = ("https", "http", "ssh", "git", "file")
"""How repositories may be reached. Others of git's run programs (`ext::`)."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CONTROL = re.compile(r"[\0-\x1f]")
_SCP = re.compile(r"([\w.-]+@)?([\w.-]+):(?![/:])(.*)", re.ASCII)
"""What ssh's copying made usual: `git@host:owner/name`."""


class TreeError(ValueError):
    """It cannot be built so; the text says why, and holds no secret.

    :ivar hint: what helps, if that is known here
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.hint = hint


def is_archive(filename: str) -> bool:
    """Tell whether a file may be an archive of a tree that has to be built, by its name."""
    plain = filename.isprintable() and "/" not in filename and "\\" not in filename
    return plain and filename.lower().endswith(ARCHIVES)


def archive(subdirectory: str = "") -> Source:
    """Describe the archive that an artifact's own file is.

    :raises TreeError: the subdirectory is not within it
    """
    return Source(ARCHIVE, subdirectory=within(subdirectory))


def directory(beside: str, place: str, *, editable: bool, subdirectory: str = "") -> Source:
    """Describe a directory.

    :param beside: the directory that `place` is relative to
    :raises TreeError: it makes no sense, or there is no such directory
    """
    if _CONTROL.search(place):
        raise TreeError(f"{place[:80]!r} is no name of a directory")
    path = paths.abspath(paths.join(beside, place))
    if not os.path.isdir(path):
        shown = f"`ls -la {shlex.quote(os.path.dirname(path))}` shows what is there"
        raise TreeError(f"there is no directory `{path}`", shown)
    return Source(DIRECTORY, path, subdirectory=within(subdirectory), editable=editable)


def repository(
    url: str, commit: str, *, beside: str, reference: str = "", subdirectory: str = "", lfs: bool = False
) -> Source:
    """Describe a commit of a git repository.

    :param url: or the path of a repository here, relative to `beside`
    :param reference: what the commit was found by
    :raises TreeError: it makes no sense
    """
    if not _COMMIT.fullmatch(commit.lower()):
        raise TreeError(f"`{commit[:80]}` is not the whole hash of a commit")
    place = _reachable(url.removeprefix("git+"), beside)
    return Source(GIT, place, commit.lower(), reference, within(subdirectory), lfs=lfs)


def within(subdirectory: str) -> str:
    """Return a path within a tree in its shortest form, empty for the tree itself.

    :raises TreeError: it leads out of it, or is no path
    """
    shortest = posixpath.normpath(subdirectory or ".")
    parts = subdirectory.split("/")
    if not subdirectory.isprintable() or "\\" in subdirectory or core.is_absolute(shortest) or ".." in parts:
        raise TreeError(f"its subdirectory {subdirectory[:80]!r} leads out of it")
    return "" if shortest == "." else shortest


def _reachable(url: str, beside: str) -> str:
    """Return the URL of a repository, as git takes it."""
    if not url or _CONTROL.search(url) or not well_formed(url):
        raise TreeError("the URL of its repository is malformed")
    if is_file_url(url):
        return paths.url_of(paths.abspath(paths.join(beside, _path_of(url))))
    if not is_url(url):
        short = None if core.is_absolute(url) else _SCP.fullmatch(url)  # a drive is no host
        if short is not None:
            return f"ssh://{short[1] or ''}{short[2]}/{short[3]}"
        if ":" in url.partition("/")[0] and not core.is_absolute(url):  # a program of git's, as in `ext::`
            raise TreeError("the URL of its repository is malformed")
        return paths.url_of(paths.abspath(paths.join(beside, url)))
    if " " in url:
        raise TreeError("the URL of its repository is malformed")
    parts = urlsplit(url)
    if parts.scheme.lower() not in SCHEMES:
        raise TreeError(
            f"its repository is reached by `{parts.scheme[:20]}:`, and git is used with {', '.join(SCHEMES)}"
        )
    if parts.netloc.rpartition("@")[2].startswith("-"):  # ssh would take it for an option
        raise TreeError("the URL of its repository is malformed")
    return urlunsplit(parts._replace(fragment=""))


def _path_of(url: str) -> str:
    try:
        return path_of_url(url)
    except ValueError as error:
        raise TreeError(str(error)) from None
