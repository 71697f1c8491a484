"""Verify an environment: every file of every distribution by hash, and name what should not be there.

    whose is what (`envsync.checking.expected`) → compare each file (`envsync.checking.compare`) → look for what nobody
    has → findings

Nothing is changed and no lock is taken: whoever wants an answer that holds for more than a moment holds the in-use lock
meanwhile. Damage never raises. Nothing is read outside of the environment, and nothing through a symbolic link that
leads there.

What is not covered: bytecode in `__pycache__` that Python has compiled by itself, which belongs to its source and is
made anew by whoever runs that, and so is what envsync installed beside a source that has got another time; the content
of what nobody has recorded a hash for, which is what `venv` makes, and scripts of which RECORD was edited along with
them, and its time set back; files beside site-packages and bin that nobody has.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from envsync.checking.compare import Ground, Job, examine
from envsync.checking.expected import OUTSIDE, Claims, Finding, gather
from envsync.errors import FilesystemError
from envsync.installed.ledger import Ledger
from envsync.installed.scan import is_bytecode, is_skeleton, is_store_link
from envsync.launch import Environment, progress
from envsync.launch.progress import quiet
from envsync.python.facts import Layout
from envsync.store.store import Store
from envsync.system import paths
from envsync.system.regular import kind_of, read_regular
from envsync.wheel.archive import fold

__all__ = ["Finding", "Verified", "verify"]

_BYTECODE = "__pycache__"
_OWN = frozenset({".envsync", ".lock"})
"""Entries of site-packages that are ours, or uv's lock."""
_VIRTUALENV = frozenset({"_virtualenv.py", "_virtualenv.pth"})
"""What virtualenv, and uv until recently, put into site-packages."""
_ACTIVATION = ("activate", "Activate", "deactivate", "pydoc.bat", "libpypy")
"""How the names begin of what is in bin besides the interpreter."""
_INTERPRETER = ("python", "pypy", "\N{MATHEMATICAL ITALIC SMALL PI}thon")


class Verified(NamedTuple):
    """What an environment was found to be."""

    findings: tuple[Finding, ...]
    """Sorted."""
    distributions: int
    """How many there are, or should be."""
    files: int
    """How many files of them were looked at."""
    bytes: int
    """How many bytes of those were hashed."""

    @property
    def damaged(self) -> frozenset[str]:
        """The distributions that have to be installed anew."""
        return frozenset(
            finding.distribution
            for finding in self.findings
            if finding.distribution and finding.kind in ("missing", "changed")
        )

    @property
    def is_sound(self) -> bool:
        """Nothing is missing, changed or left over. What nobody has may be the user's."""
        return all(finding.kind == "unowned" for finding in self.findings)


def verify(  # noqa: PLR0917
    environment: Environment,
    layout: Layout,
    ledger: Ledger,
    store: Store | None,
    report: progress.Report = quiet,
    workers: int | None = None,
    leftovers: Iterable[str] = (),
) -> Verified:
    """Compare an environment with what was installed in it.

    :param store: where the wheels are that envsync installed; without it, or without an entry in it, RECORD is believed
    :param workers: how many threads; default: as many as processors, 8 at most
    :param leftovers: paths that are to be reported as left over
    :raises FilesystemError: the environment cannot be listed
    """
    root = environment.path
    try:
        os.listdir(root)
    except OSError as error:
        raise FilesystemError("list", root, error) from error
    ground = Ground(environment, layout)
    claims = gather(environment, layout, ledger, store, ground)
    findings = [*claims.findings, *_skeleton(environment, layout)]
    findings += [
        Finding("left over", _relative(path, root), "", "a sync has not cleared it away") for path in leftovers
    ]
    jobs = list(_jobs(claims, ground, findings))
    search = _Search(ground, layout, claims)
    result = examine(root, jobs, workers, report, meanwhile=search.run)
    for answer in result.answers:
        kind = "missing" if answer.is_missing else "changed"
        findings.append(Finding(kind, answer.job.path, answer.job.expectations[0].distribution, answer.detail))
    findings += search.findings
    return Verified(tuple(sorted(set(findings))), len(claims.names), len(jobs), result.bytes)


def _jobs(claims: Claims, ground: Ground, findings: list[Finding]) -> Iterator[Job]:
    """List the files to look at; those that may not be looked at become findings."""
    for path, expectations in claims.files.items():
        if is_bytecode(path):
            continue  # whoever recorded it has compiled it in place
        place = ground.place_of_file(path)
        if place is None:
            findings.append(Finding("changed", path, expectations[0].distribution, OUTSIDE))
        else:
            yield Job(path, place, expectations)
    for path, several in claims.bytecode.items():
        place = ground.place_of_file(path)
        if place is not None and _has_time(ground, several[0].source, several[0].mtime):
            yield Job(path, place, [several[0].expected])


def _has_time(ground: Ground, path: str, mtime: int) -> bool:
    place = ground.place_of_file(path)
    try:
        return place is not None and os.stat(f"{ground.root}/{place}").st_mtime_ns == mtime * 1_000_000_000
    except OSError:
        return False  # it is missed by itself


def _relative(path: str, root: str) -> str:
    return path.removeprefix(root + "/")


# The skeleton


def _skeleton(environment: Environment, layout: Layout) -> Iterator[Finding]:
    """Say what is wrong with what `venv` made."""
    root = environment.path
    python = _relative(environment.python, root)
    try:
        mode = os.stat(environment.python).st_mode
    except OSError as error:
        detail = error.strerror or str(error)
        if os.path.islink(environment.python):
            detail = f"the Python that it links to is gone: `{paths.realpath(environment.python)}`"
        yield Finding("missing", python, "", detail)
    else:
        if not stat.S_ISREG(mode):
            yield Finding("changed", python, "", kind_of(mode))
        elif not os.access(environment.python, os.X_OK):
            yield Finding("changed", python, "", "it cannot be executed")
    config = _relative(environment.config, root)
    try:
        if not any(
            line.partition(b"=")[0].strip() == b"home" for line in read_regular(environment.config).splitlines()
        ):
            yield Finding("changed", config, "", "it does not say where the base Python is")
    except FileNotFoundError as error:
        yield Finding("missing", config, "", error.strerror or str(error))
    except OSError as error:
        yield Finding("changed", config, "", error.strerror or str(error))
    if not os.path.lexists(f"{root}/{layout.purelib}"):
        yield Finding("missing", layout.purelib, "", os.strerror(2))


def _is_of_skeleton(path: str, layout: Layout) -> bool:
    directory, _, name = path.rpartition("/")
    if directory in layout.sites:
        return name in _OWN or name in _VIRTUALENV or name == _BYTECODE
    if directory != layout.scripts:
        return False
    if name.startswith(_ACTIVATION) or is_skeleton(path):
        return True
    start = next((start for start in _INTERPRETER if name.startswith(start)), None)
    return start is not None and not name[len(start) :].strip("0123456789.td")


# What nobody has


class _Search:
    """Looks below site-packages and bin for what no distribution has.

    A directory in which nobody has anything is named once: it can be imported even if it is empty.
    """

    def __init__(self, ground: Ground, layout: Layout, claims: Claims) -> None:
        self.root = ground.root
        self.layout = layout
        self.trees = claims.trees
        self.findings: list[Finding] = []
        self.owned: dict[str, set[str]] = {}
        """Directory → the names in it that somebody has."""
        self.folded: dict[str, str] = {}
        """Each path that somebody has, by what it has in common with other spellings. Made when it is needed."""
        for path in (*claims.files, *claims.trees, *claims.directories):
            self._own(path)
            place = ground.place_of_file(path)
            if place is not None and place != path:
                self._own(place)
        places = [ground.place(base) for base in (*layout.sites, layout.scripts)]
        self.starts = sorted({place for place in places if place is not None})

    def run(self) -> None:
        """Look; what is found is in `findings`."""
        for start in self.starts:
            if os.path.isdir(f"{self.root}/{start}"):
                self._look(start)

    def _own(self, path: str) -> None:
        while path:
            directory, _, name = path.rpartition("/")
            names = self.owned.setdefault(directory, set())
            if name in names:
                return
            names.add(name)
            path = directory

    def _look(self, start: str) -> None:
        pending = [start]
        while pending:
            directory = pending.pop()
            owned = self.owned.get(directory, set())
            listed = self._list(directory)
            for entry in listed:
                path = f"{directory}/{entry.name}"
                if path in self.trees or _is_of_skeleton(path, self.layout):
                    continue
                is_directory = entry.is_dir(follow_symlinks=False) or is_store_link(entry.path)
                if is_directory and entry.name == _BYTECODE:
                    self._look_at_bytecode(directory)
                elif entry.name == _BYTECODE and entry.is_file(follow_symlinks=False):
                    continue  # it keeps bytecode out of a store entry (`envsync.staging.linked_directories`)
                elif entry.name not in owned and not (known := self._other_name(path, listed)):
                    self._name(path, entry, is_directory=is_directory)
                elif is_directory and (path if entry.name in owned else known) in self.owned:
                    pending.append(path)

    def _other_name(self, path: str, listed: Iterable[os.DirEntry[str]]) -> str:
        """Return the path of the same file that somebody has, as where case does not count; empty if none."""
        if not self.folded:
            each = (f"{directory}/{name}" for directory, names in self.owned.items() for name in names)
            self.folded = {fold(path): path for path in each}
        known = self.folded.get(fold(path), "")
        if not known:
            return ""
        name = known.rpartition("/")[2]
        if any(each.name == name for each in listed):
            return ""  # it is beside it, so that one is another: a hard link
        full = (f"{self.root}/{each}" for each in (path, known))
        try:
            return known if os.path.samestat(*map(os.lstat, full)) else ""
        except OSError:
            return ""

    def _list(self, directory: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(f"{self.root}/{directory}") as entries:
                return list(entries)
        except OSError as error:
            detail = f"it cannot be listed: {error.strerror or error}"
            self.findings.append(Finding("changed", directory, "", detail))
            return []

    def _look_at_bytecode(self, directory: str) -> None:
        """Name what in a `__pycache__` has no source. Of a source that nobody has, the source is named."""
        path = f"{directory}/{_BYTECODE}"
        owned = self.owned.get(path, set())
        sources = {name.removesuffix(".py") for name in self.owned.get(directory, ()) if name.endswith(".py")}
        for entry in self._list(path):
            stems = _stems(entry.name)
            if entry.name in owned or not sources.isdisjoint(stems):
                continue
            if not any(os.path.lexists(f"{self.root}/{directory}/{stem}.py") for stem in stems):
                self._name(f"{path}/{entry.name}", entry, is_directory=entry.is_dir(follow_symlinks=False))

    def _name(self, path: str, entry: os.DirEntry[str], *, is_directory: bool) -> None:
        if path.rpartition("/")[0] in self.layout.sites and entry.name.startswith("~"):
            self.findings.append(Finding("left over", path, "", "pip has not finished uninstalling it"))
            return
        detail = "nobody has installed it"
        if is_directory:
            count = sum(len(files) for _, _, files in os.walk(entry.path))
            detail = f"a directory with {count} files that nobody has installed" if count else "an empty directory"
        elif entry.is_symlink():
            detail = "a symbolic link that nobody has installed"
        self.findings.append(Finding("unowned", path, "", detail))


def _stems(name: str) -> list[str]:
    """Return what may be the name of a module in the name of a file in `__pycache__`, as `a` and `a.b` in `a.b.pyc`."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]
