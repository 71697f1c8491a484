"""Prepare everything beside its place: the stage of one sync, inside site-packages so that a rename suffices.

The stage mirrors the environment: `<site-packages>/.envsync/<id>/new/lib/python3.11/site-packages/pkg/...`. Files
are linked from the store; where links are refused (another filesystem, another owner, a limit on links that some
report as ENOSPC) they are copied, mtime kept, because it is what makes bytecode stale. Only what names the
environment is made here: entry points, `#!` lines, and the RECORDs that list them.

Two threads link, one top-level entry each: link(2) and mkdir(2) release the GIL and contend for one directory only.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import posixpath
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from envsync.cache.manifest import Directory, Manifest
from envsync.cache.store import Store
from envsync.errors import EnvsyncError, FilesystemError, WheelError
from envsync.installed import Layout
from envsync.plan import Wanted
from envsync.progress import Report, quiet
from envsync.transaction import scripts
from envsync.transaction.steps import Node

COPY_INSTEAD = frozenset(
    {
        errno.EXDEV,
        errno.EPERM,
        errno.EACCES,
        errno.EMLINK,
        errno.ENOSPC,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
    }
)
"""What link(2) answers where a copy may still do. ENOSPC: gluster says it at 100 links of one file."""
RESERVED = (".lock", ".envsync")
THREADS = 2


@dataclass(frozen=True, slots=True)
class Item:
    """One distribution to be staged, and the files of it that another one provides (`envsync.transaction.sharing`)."""

    wanted: Wanted
    manifest: Manifest
    skip: frozenset[str] = frozenset()


@dataclass(slots=True)
class Staged:
    """What the stage holds."""

    tree: Node = field(default_factory=Node)
    records: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Distribution → (size, mtime_ns) of its RECORD."""
    copied: str | None = None
    """Why files had to be copied, if they had."""


@dataclass(frozen=True, slots=True)
class _Group:
    """The directories below one top-level entry, and the files to be linked into each."""

    directories: list[str]
    files: list[tuple[str, str, Manifest, Sequence[tuple[str, int, bool]]]]
    """(source directory, destination directory, manifest, files)"""


class Stager:
    """Stages distributions for one environment.

    :param env: absolute path of the environment, as scripts name it
    :param root: the directory of the stage, which exists and is empty
    :param link: False to copy always
    """

    def __init__(self, env: str, layout: Layout, store: Store, root: str, *, link: bool, strict: bool = False) -> None:
        self.env = env
        self.layout = layout
        self.store = store
        self.root = root
        self.link = link
        self.strict = strict
        self.staged = Staged()
        self.lock = threading.Lock()
        self.umask = os.umask(0o022)
        os.umask(self.umask)

    def stage(self, items: Sequence[Item], report: Report = quiet) -> Staged:
        """Bring all files of the items into the stage.

        :raises WheelError: a store entry is not as its manifest says, or wants to write where it must not
        :raises FilesystemError: no space, no permission, ...; the stage holds a part
        """
        groups: dict[str, _Group] = {}
        for item in items:
            self._plan(item, groups)
        self._make_bases()
        self._link(list(groups.values()), report)
        for item in items:
            self._generate(item)
        return self.staged

    def _plan(self, item: Item, groups: dict[str, _Group]) -> None:
        manifest = item.manifest
        entry = self.store.path(manifest.sha256)
        for directory in manifest.directories:
            destination = self.destination(directory, manifest)
            files = self._chosen(directory, destination, item)
            if not files:
                continue
            node = self.staged.tree.directory(destination)
            node.files.update(name for name, _, _ in files)
            key = self.layout.entry(f"{destination}/{files[0][0]}" if destination in self._bases() else destination)
            group = groups.get(key)
            if group is None:
                group = groups[key] = _Group([], [])
            group.directories.append(destination)
            source = f"{entry}/{directory.scheme}/{directory.path}" if directory.path else f"{entry}/{directory.scheme}"
            group.files.append((source, destination, manifest, files))

    def destination(self, directory: Directory, manifest: Manifest) -> str:
        """Return where a directory of a wheel goes, relative to the environment.

        :raises WheelError: it would write into what is envsync's own
        """
        base = self.layout.directory(directory.scheme, manifest.name)
        path = "/".join(part for part in (base, directory.path) if part)
        inside = path.removeprefix(base + "/") if base else path
        first = inside.partition("/")[0]
        names = {first} if directory.path else {name for name, _, _ in directory.files}
        if base in (*self.layout.sites, "") and not names.isdisjoint(RESERVED):
            raise WheelError(manifest.filename, f"it has files in `{path}`, which is reserved")
        return path

    def _bases(self) -> tuple[str, ...]:
        return (*self.layout.sites, self.layout.scripts, "")

    def _chosen(self, directory: Directory, destination: str, item: Item) -> Sequence[tuple[str, int, bool]]:
        rewrite = item.manifest.rewrite if directory.scheme == "scripts" and not directory.path else ()
        if not rewrite and not item.skip:
            return directory.files
        return [
            file
            for file in directory.files
            if file[0] not in rewrite and posixpath.join(destination, file[0]) not in item.skip
        ]

    def _make_bases(self) -> None:
        """Make what several groups share; each group's own directories are made by its thread."""
        try:
            for base in (*self.layout.sites, self.layout.scripts):
                os.makedirs(f"{self.root}/{base}", exist_ok=True)
        except OSError as error:
            raise FilesystemError("make directory", self.root, error) from error

    def _link(self, groups: list[_Group], report: Report) -> None:
        total = sum(len(files) for group in groups for _, _, _, files in group.files)
        groups.sort(key=lambda group: sum(len(files) for _, _, _, files in group.files), reverse=True)
        pending = iter(groups)
        errors: list[BaseException] = []
        done = 0

        def work() -> None:
            nonlocal done
            while not errors:
                with self.lock:
                    group = next(pending, None)
                if group is None:
                    return
                try:
                    self._link_group(group)
                except BaseException as error:  # noqa: BLE001  # handed to the caller's thread
                    errors.append(error)
                    return
                with self.lock:
                    done += sum(len(files) for _, _, _, files in group.files)
                    report("staging", done, total)

        report("staging", 0, total)
        threads = [threading.Thread(target=work, name="envsync-link") for _ in range(THREADS - 1)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _link_group(self, group: _Group) -> None:
        root = self.root
        made: set[str] = set()
        for directory in sorted(set(group.directories)):
            _make(root, directory, made)
        for source, destination, manifest, files in group.files:
            self._link_directory(source, f"{root}/{destination}" if destination else root, manifest, files)

    def _link_directory(
        self, source: str, destination: str, manifest: Manifest, files: Iterable[tuple[str, int, bool]]
    ) -> None:
        mtime = manifest.mtime
        for name, size, executable in files:
            path = f"{source}/{name}"
            try:
                status = os.lstat(path)
            except OSError as error:
                raise self._poisoned(manifest, path, error.strerror) from error
            if status.st_size != size or status.st_mtime_ns != mtime * 1_000_000_000:
                raise self._poisoned(manifest, path, "its size or time has changed")
            if self.link:
                try:
                    os.link(path, f"{destination}/{name}")
                    continue
                except OSError as error:
                    if error.errno not in COPY_INSTEAD or self.strict:
                        raise FilesystemError("link", f"{destination}/{name}", error) from error
                    self.staged.copied = f"{error.strerror} (`{path}`)"
                    self.link = error.errno not in (errno.EXDEV, errno.EPERM)
            self._copy(path, f"{destination}/{name}", executable=executable, mtime=mtime)

    def _poisoned(self, manifest: Manifest, path: str, reason: str | None) -> PoisonedError:
        return PoisonedError(manifest, path, reason or "it cannot be read")

    def _copy(self, source: str, destination: str, *, executable: bool, mtime: int) -> None:
        try:
            shutil.copyfile(source, destination)
            os.chmod(destination, (0o777 if executable else 0o666) & ~self.umask)
            os.utime(destination, (mtime, mtime))
        except OSError as error:
            raise FilesystemError("write", destination, error) from error

    def _generate(self, item: Item) -> None:
        """Make what depends on the environment: scripts, direct_url.json and RECORD."""
        manifest = item.manifest
        dist_info = f"{self.layout.directory(manifest.root, manifest.name)}/{manifest.dist_info}"
        record = f"{dist_info}/RECORD"
        if manifest.complete and item.wanted.origin.direct_url is None:
            size = next(
                size
                for directory in manifest.directories
                if directory.path == manifest.dist_info
                for name, size, _ in directory.files
                if name == "RECORD"
            )
            self.staged.records[item.wanted.name] = (size, manifest.mtime * 1_000_000_000)
            return
        written: list[tuple[str, bytes]] = []
        for name, content in self._scripts(manifest):
            path = f"{self.layout.scripts}/{name}"
            written.append((path, content))
            if path not in item.skip:
                self._write(path, content, 0o777)
        if item.wanted.origin.direct_url is not None:
            path = f"{dist_info}/direct_url.json"
            content = item.wanted.origin.direct_url.encode()
            written.append((path, content))
            self._write(path, content, 0o666)
        self._discard(record)
        self._write(record, self._record(manifest, record, written), 0o666)
        status = os.lstat(f"{self.root}/{record}")
        self.staged.records[item.wanted.name] = (status.st_size, status.st_mtime_ns)

    def _scripts(self, manifest: Manifest) -> Iterable[tuple[str, bytes]]:
        python = f"{self.env}/{self.layout.scripts}/python"
        for script in manifest.scripts:
            yield script.name, scripts.entry_point(script, python)
        for name in manifest.rewrite:
            path = f"{self.store.path(manifest.sha256)}/scripts/{name}"
            try:
                with open(path, "rb") as file:
                    content = file.read()
            except OSError as error:
                raise self._poisoned(manifest, path, error.strerror) from error
            yield name, scripts.rewrite(content, python)

    def _record(self, manifest: Manifest, record: str, written: Iterable[tuple[str, bytes]]) -> bytes:
        site = self.layout.directory(manifest.root, manifest.name)
        lines: list[str] = []
        for scheme, text in manifest.record:
            prefix = posixpath.relpath(self.layout.directory(scheme, manifest.name) or ".", site)
            rows = text.splitlines()
            lines += rows if prefix == "." else [_prefixed(row, prefix) for row in rows]
        for path, content in written:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{_quoted(posixpath.relpath(path, site))},sha256={digest},{len(content)}")
        lines.append(f"{posixpath.relpath(record, site)},,")
        return ("\n".join(sorted(set(lines))) + "\n").encode()

    def _write(self, path: str, content: bytes, mode: int) -> None:
        directory, _, name = path.rpartition("/")
        self.staged.tree.directory(directory).files.add(name)
        full = f"{self.root}/{path}"
        try:
            fd = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            with open(fd, "wb", buffering=0) as file:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
        except OSError as error:
            raise FilesystemError("write", full, error) from error

    def _discard(self, path: str) -> None:
        # The store's RECORD, if it was linked: writing through the link would change the store.
        try:
            os.unlink(f"{self.root}/{path}")
        except FileNotFoundError:
            pass


class PoisonedError(EnvsyncError):
    """A store entry is not what was put there. Not the user's to see: the entry is set aside and fetched again."""

    def __init__(self, manifest: Manifest, path: str, reason: str) -> None:
        super().__init__(f"the cached files of `{manifest.filename}` have been changed: `{path}`: {reason}")
        self.sha256 = manifest.sha256
        self.name = manifest.name


def _make(root: str, directory: str, made: set[str]) -> None:
    if directory in made or not directory:
        return
    path = f"{root}/{directory}"
    try:
        os.mkdir(path)
    except FileExistsError:
        pass
    except FileNotFoundError:
        _make(root, directory.rpartition("/")[0], made)
        _make(root, directory, made)
        return
    except OSError as error:
        raise FilesystemError("make directory", path, error) from error
    made.add(directory)


def _prefixed(row: str, prefix: str) -> str:
    return f'"{prefix}/{row[1:]}' if row.startswith('"') else f"{prefix}/{row}"


def _quoted(path: str) -> str:
    return '"' + path.replace('"', '""') + '"' if any(c in path for c in ',"\n\r') else path
