"""A directory that somebody works in: what says how it is built, whether it has changed, a copy of it, and its lock.

An editable install is a link to the tree, so edits of its sources change nothing that is installed. What it was made of
are the files that say how: pyproject.toml, setup.py, setup.cfg, and what `[tool.uv] cache-keys` adds to these. Those
that are one file or variable can be looked at by every launch (`Deciding.files`, `variables`). Patterns, directories
and git are looked at by a sync alone (`signature`); so is all of a tree that is installed as a copy.

Left out of copies and of what counts is what tools leave behind: bytecode, virtual environments, `.egg-info`
directories, caches that say that they are (CACHEDIR.TAG). Git's own directory is not copied: the copy has a `.git` file
that leads there, so that a backend can ask git for a version.

A backend may write into the tree (setuptools does), so editables of one tree are built one after the other, whichever
environments and Pythons they are for: under a lock in `.envsync-build` in the tree, or in the cache if that cannot be.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tomllib
from collections.abc import Callable, Iterator
from glob import iglob
from hashlib import file_digest, sha256
from typing import Any, NamedTuple

from envsync.errors import FilesystemError, LockingError
from envsync.launch.reading import content_if_there
from envsync.lockfile import pyproject
from envsync.lockfile.target import Source
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.store.directories import Directories
from envsync.system import groups, paths

PROJECT = "pyproject.toml"
FIXED = (PROJECT, "setup.py", "setup.cfg")
"""What counts of a tree, as uv has it."""
_OF_PYPROJECT_ALONE = frozenset({"flit_core.buildapi", "hatchling.build", "poetry.core.masonry.api", "uv_build"})
"""Backends that look at neither setup.py nor setup.cfg: a launch need not, either."""
LOCKING = ".envsync-build"
"""The directory in a tree that holds its lock."""
_CACHES = frozenset({"__pycache__", ".tox", ".nox", ".mypy_cache", ".ruff_cache", ".pytest_cache", "node_modules"})
_LEFT_BEHIND = _CACHES | {".hg", ".svn", LOCKING, ".envsync-names"}
_MARKS = ("pyvenv.cfg", "CACHEDIR.TAG", ".envsync")
"""What a directory has that is a virtual environment, or a cache: ours may lie in the tree, and have no Python yet."""
_MAGIC = frozenset("*?[")
_ABOVE = re.compile(rb"(?:\.\./)+[^\s\0\"'\],;#]*")
"""A path that leads out of a tree, in the text of a file."""


class Deciding(NamedTuple):
    """What says how a tree is built."""

    files: tuple[str, ...] = FIXED
    """Relative to the tree. One that is not there counts as empty."""
    variables: tuple[str, ...] = ()
    """Names of environment variables."""
    patterns: tuple[str, ...] = ()
    """Of files, relative to the tree."""
    directories: tuple[str, ...] = ("src",)
    """Relative to the tree: that they come, go, or have other entries."""
    commit: bool = False
    tags: bool = False
    dated: tuple[str, ...] = FIXED
    """The files of which uv compares times: those that `cache-keys` name, if it is there."""


def project_of(source: Source) -> str:
    """Return the directory of the project in a tree."""
    return paths.normpath(f"{source.place}/{source.subdirectory}") if source.subdirectory else source.place


def deciding(tree: str) -> Deciding:
    """Find out what says how a tree is built; what cannot be read says nothing, and the backend will say why."""
    try:
        table: Any = tomllib.loads(content_if_there(f"{tree}/{PROJECT}").decode())
        keys = table.get("tool", {}).get("uv", {}).get("cache-keys")
        system = table.get("build-system", {})
        alone = system.get("build-backend") in _OF_PYPROJECT_ALONE and "backend-path" not in system
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return Deciding()
    files = (PROJECT,) if alone else FIXED
    if not isinstance(keys, list):
        return Deciding(files)
    found = Deciding(files, directories=(), dated=())
    for key in keys:
        found = _with(found, {"file": key} if isinstance(key, str) else key)
    return found


def _may_be(value: object) -> bool:
    """Tell whether a text may name a file or a variable: TOML has characters that no file system takes."""
    return not isinstance(value, str) or (bool(value) and value.isprintable())


def _with(found: Deciding, key: object) -> Deciding:
    """Add one of uv's cache keys."""
    if not isinstance(key, dict) or not all(_may_be(each) for each in key.values()):
        return found
    file, variable, directory, git = (key.get(name) for name in ("file", "env", "dir", "git"))
    if isinstance(file, str):
        return _with_file(found, file)
    if isinstance(variable, str):
        return found._replace(variables=(*found.variables, variable))
    if isinstance(directory, str):
        return found._replace(directories=(*found.directories, directory))
    if git is True:
        return found._replace(commit=True)
    if isinstance(git, dict):
        return found._replace(commit=bool(git.get("commit")), tags=bool(git.get("tags")))
    return found


def _with_file(found: Deciding, file: str) -> Deciding:
    if not _MAGIC.isdisjoint(file):
        return found._replace(patterns=(*found.patterns, file))
    file = paths.normpath(file)
    files = found.files if file in found.files else (*found.files, file)
    return found._replace(files=files, dated=(*found.dated, file))


def canonical(path: str, content: bytes) -> bytes:
    """Return what decides in one of the files: its content, or of a pyproject.toml what counts."""
    return pyproject.canonical(content) if os.path.basename(path) == PROJECT else content


def signature(tree: str, *, editable: bool) -> str:
    """Stand for all that only a sync looks at; empty if there is nothing of the kind.

    Two that are equal were taken of a tree in which nothing has changed that times and sizes can tell.
    """
    decides = deciding(tree)
    if editable and not (decides.patterns or decides.directories or decides.commit or decides.tags):
        return ""
    whole = (f"{_look(path)} {_beyond(tree, path)}" for path in files_of(tree))
    seen = sorted(_looks(tree, decides) if editable else [*whole, *outside(tree)])
    return sha256("\n".join([*seen, *_git(tree, decides)]).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _looks(tree: str, decides: Deciding) -> Iterator[str]:
    for pattern in decides.patterns:
        yield from (_look(paths.join(tree, path)) for path in iglob(pattern, root_dir=tree, recursive=True))
    for directory in decides.directories:
        yield f"{tree}/{directory} {_entries(f'{tree}/{directory}')}"


def _entries(directory: str) -> list[str] | None:
    """Return what is in a directory, but for what tools leave behind: its time would tell of that, too."""
    try:
        return sorted(name for name in os.listdir(directory) if not _is_left_behind(directory, name))
    except OSError:
        return None


def _look(path: str) -> str:
    try:
        status = os.lstat(path)
    except OSError:
        return f"{path} -"
    return f"{path} {status.st_mode:o} {status.st_size} {status.st_mtime_ns}"


def files_of(tree: str) -> Iterator[str]:
    """Yield the paths of all files and links that count, in no order."""
    for directory, names, files in os.walk(tree):
        names[:] = [name for name in names if not _is_left_behind(directory, name)]
        yield from (f"{directory}/{name}" for name in files if name != ".git" and not name.endswith(".pyc"))
        links = [name for name in names if os.path.islink(f"{directory}/{name}")]
        yield from (f"{directory}/{name}" for name in links)


def _is_left_behind(directory: str, name: str) -> bool:
    known = name in _LEFT_BEHIND or name == ".git" or name.endswith(".egg-info")
    return known or any(os.path.exists(f"{directory}/{name}/{mark}") for mark in _MARKS)


def digest(tree: str, checkpoint: Callable[[], object]) -> str:
    """Compute what stands for the content of a tree, a SHA-256 in hexadecimal: trees of equal content have the same.

    :raises FilesystemError: it cannot be read
    """
    whole = sha256()
    try:
        for path in sorted(files_of(tree)):
            checkpoint()
            whole.update(f"{path[len(tree) :]}\0".encode("utf-8", "surrogateescape"))
            whole.update(_content(path))
            whole.update(_beyond(tree, path).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise FilesystemError("read", str(error.filename or tree), error) from error
    whole.update("\n".join(_git(tree, Deciding(commit=True, tags=True))).encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def _content(path: str) -> bytes:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return b"link " + os.fsencode(os.readlink(path)) + b"\0"
    if not stat.S_ISREG(status.st_mode):
        return b"other\0"
    with open(path, "rb") as file:
        found = file_digest(file, "sha256").digest()
    return (b"executable " if status.st_mode & 0o100 else b"file ") + found


def _leads_out(tree: str, path: str) -> bool:
    """Tell whether a file is a link out of its tree. A relative one would lead elsewhere from a copy."""
    return os.path.islink(path) and not paths.is_within(paths.realpath(path), paths.realpath(tree))


def _beyond(tree: str, path: str) -> str:
    """Return what stands for what a link out of a tree leads to, by times and sizes: it may be large; else nothing."""
    if not _leads_out(tree, path):
        return ""
    try:
        status = os.stat(path)
    except OSError:
        return f"{paths.realpath(path)} -"
    return f"{paths.realpath(path)} {status.st_size} {status.st_mtime_ns}"


def _git(tree: str, decides: Deciding) -> Iterator[str]:
    """Yield what is known of the commit and the tags of the repository that a tree is in."""
    if decides.commit:
        yield f"commit {commit_of(tree)}"
    if decides.tags:
        yield from (f"tag {name} {commit}" for name, commit in sorted((tags_of(tree) or {}).items()))


def commit_of(tree: str) -> str | None:
    """Return the commit that is checked out in the repository that a tree is in, by git's own files; None: unknown."""
    directory = _git_directory(tree)
    if directory is None:
        return None
    head = _text(f"{directory}/HEAD")
    if not head.startswith("ref: "):
        return head or None
    reference = head.removeprefix("ref: ")
    common = _common(directory)
    return _text(f"{common}/{reference}") or _packed(common).get(reference)


def tags_of(tree: str) -> dict[str, str] | None:
    """Return the tags of that repository, and what they name; None: there is no repository."""
    directory = _git_directory(tree)
    if directory is None:
        return None
    common = _common(directory)
    packed = {name: commit for name, commit in _packed(common).items() if name.startswith("refs/tags/")}
    loose = {path: _text(f"{common}/{path}") for path in iglob("refs/tags/**", root_dir=common, recursive=True)}
    found = packed | {path: commit for path, commit in loose.items() if commit}
    return {name.removeprefix("refs/tags/"): commit for name, commit in found.items()}


def _packed(common: str) -> dict[str, str]:
    """Return what git keeps in one file: reference → commit or tag."""
    lines = (line.split(" ", 1) for line in _text(f"{common}/packed-refs").splitlines() if line[:1] not in ("#", "^"))
    return {parts[1]: parts[0] for parts in lines if len(parts) == 2}


def _git_directory(tree: str) -> str | None:
    """Return git's own directory for a tree, which may belong to a work tree further up."""
    above = tree
    while True:
        place = f"{above}/.git"
        if os.path.isdir(place):
            return place
        if os.path.isfile(place):
            return paths.normpath(paths.join(above, _text(place).removeprefix("gitdir: ")))
        if above == (above := os.path.dirname(above)):
            return None


def _common(directory: str) -> str:
    """Return where the branches and tags are: a further work tree has a directory of its own within the first's."""
    return paths.normpath(paths.join(directory, _text(f"{directory}/commondir") or "."))


def _text(path: str) -> str:
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""


def copy(tree: str, into: str, checkpoint: Callable[[], object]) -> None:
    """Copy a tree to a directory that does not exist yet.

    :raises FilesystemError: it cannot be read or written; what was copied is left for the caller to remove
    """

    def leave(directory: str, names: list[str]) -> list[str]:
        checkpoint()
        return [name for name in names if _is_left_behind(directory, name) or name.endswith(".pyc")]

    try:
        shutil.copytree(tree, into, symlinks=True, ignore=leave)
        for path in files_of(tree):
            if _leads_out(tree, path):
                link = f"{into}{path[len(tree) :]}"
                os.unlink(link)
                os.symlink(paths.realpath(path), link)
        directory = _git_directory(tree)
        if directory is not None and os.path.lexists(f"{tree}/.git"):
            with open(f"{into}/.git", "w") as file:
                file.write(f"gitdir: {directory}\n")
    except (OSError, shutil.Error) as error:
        raise FilesystemError("copy", tree, error) from error


def looks_outside(tree: str) -> bool:
    """Tell whether how a tree is built may refer to files above it: then it cannot be built from a copy."""
    return any(b"../" in content or b'".."' in content for content in map(_read, (f"{tree}/{each}" for each in FIXED)))


def outside(tree: str) -> list[str]:
    """Return what stands for what a tree's own files name above it: the tree's place, and times and sizes of files.

    Empty if they name nothing there. What is built of it counts for no other tree then, whatever it holds itself.
    """
    if not looks_outside(tree):
        return []
    named = {os.fsdecode(name) for file in FIXED for name in _ABOVE.findall(_read(f"{tree}/{file}"))}
    files = sorted(paths.normpath(f"{tree}/{name}") for name in named)
    return [tree, *(_look(path) for path in files if os.path.isfile(path))]


def _read(path: str) -> bytes:
    try:
        return content_if_there(path)
    except OSError:
        return b""


def lock(tree: str, store: Directories) -> Flock | None:
    """Try to take the lock of a tree, for whoever runs a backend in it; None if somebody has it.

    :raises LockingError: neither beside the tree nor in the cache can anything be locked
    """
    place = f"{tree}/{LOCKING}"
    try:
        os.makedirs(place, exist_ok=True)
        if not os.path.lexists(f"{place}/.gitignore"):
            with open(f"{place}/.gitignore", "w") as file:
                file.write("*\n")
        return flock.acquire_nowait(f"{place}/lock", shared=False)
    except (OSError, FilesystemError, LockingError):
        path = f"{store.locks}/{sha256(f'tree {paths.realpath(tree)}'.encode()).hexdigest()}"
        groups.make_lock_file(store.root, path)
        return flock.acquire_nowait(path, shared=False)


def is_writable(tree: str) -> bool:
    """Tell whether a backend can write into a tree, as setuptools does for an editable."""
    return os.access(tree, os.W_OK | os.X_OK)
