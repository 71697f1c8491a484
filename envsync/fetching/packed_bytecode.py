"""The bytecode of one wheel for one kind of Python in one file, as a bundle has it: packed of the store, and unpacked.

    bytecode.json                                   which wheel, which Python, and what has no bytecode
    purelib/pkg/__pycache__/mod.cpython-312.pyc     as the store has it (`envsync.store.bytecode`), but for the header

A header in it says "unchecked" (PEP 552): the times of sources are new on each node, so that nothing else could be said
of them beforehand, and who unpacks it by hand into site-packages has what Python runs. In a store, it gets the header
that it had: it is then byte for byte what would have been compiled there. So all that is true of bytecode is true of
it: a source that is changed is compiled anew, whatever replaces it never runs it, and a check compares it.

The same bytecode gives the same bytes, whoever packs it and when (with one version of zlib).

What is unpacked is not trusted. The file has the hash that the lock file says, or nothing of it is used; its structure
is that of a wheel (`envsync.wheel.archive`); each member is the bytecode of a module that the wheel has, made by that
Python; none is missing that is not said to be. Whoever is killed leaves a directory in the store's tmp.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple, NoReturn

from envsync.errors import EnvsyncError, FilesystemError, WheelError
from envsync.fetching.compile_work import Results
from envsync.lockfile.target import Artifact
from envsync.store.bytecode import CACHE, Compiled, Shelf, name_of, source_of, sources
from envsync.system import atomic, core, native, processes
from envsync.wheel import near, record, verify
from envsync.wheel.archive import RATIO, Archive, Member, printable
from envsync.wheel.manifest import Manifest

ABOUT = "bytecode.json"
FORMAT = 1
HEADER = 16
"""Bytes: the magic number, flags, and time and size, or the hash, of the source (PEP 552)."""
UNCHECKED, BY_TIME = 1, 0
"""Flags."""
UNSUSPECTED = 64 * 1024
"""Bytes that the bytecode of any source may have; of a larger one, `RATIO` times as many as the source."""
_LONGEST = 200
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | core.NOFOLLOW


class Module(NamedTuple):
    """A module of a wheel, and where its bytecode is."""

    scheme: str
    directory: str
    """Of the bytecode, below the scheme; ends in `__pycache__`."""
    name: str
    """Of the bytecode."""
    source: str
    """The path of the source, below the scheme."""
    size: int
    """Of the source, in bytes."""

    @property
    def member(self) -> str:
        """The name that its bytecode has in the file."""
        return f"{self.scheme}/{self.directory}/{self.name}"


def modules(manifest: Manifest, tag: str) -> Iterator[Module]:
    """List the modules of a wheel that have bytecode."""
    sizes = {(scheme, path, name): size for scheme, path, files in manifest.directories for name, size, _ in files}
    for scheme, path, names in sources(manifest):
        above = f"{path}/" if path else ""
        for name in names:
            size = sizes[scheme, path, name]
            yield Module(scheme, f"{above}{CACHE}", name_of(name, tag), f"{above}{name}", size)


# Packed

Hashes = dict[tuple[str, str], bytes]
"""(scheme, path of a source) → the 8 bytes that the Python in question has for a hash of it (PEP 552)."""


class ChangedBytecodeError(EnvsyncError):
    """Bytecode in the store is not what was put there."""

    def __init__(self, path: str, reason: str) -> None:
        hint = "`envsync cache verify` removes what was changed"
        super().__init__(f"cached bytecode has been changed: `{path}`: {reason}", hint=hint)


def pack(shelf: Shelf, manifest: Manifest, compiled: Compiled, hashes: Hashes) -> bytes:
    """Pack the bytecode that a store has of a wheel.

    :param hashes: of all of its sources
    :raises ChangedBytecodeError: it is not what was put there
    """
    place = shelf.path(manifest.sha256, manifest.mtime)
    about = {
        "format": FORMAT,
        "wheel": manifest.sha256,
        "python": compiled.tag,
        "failures": compiled.failures,
        "died": compiled.died,
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr(_member(ABOUT), json.dumps(about, indent=1).encode())
        for scheme, lines in compiled.record:
            for path, expected, _ in sorted(record.rows(lines)):
                content = _content(f"{place}/{scheme}/{path}", expected)
                header = content[:4] + struct.pack("<I", UNCHECKED) + hashes[scheme, source_of(path, compiled.tag)]
                archive.writestr(_member(f"{scheme}/{path}"), header + content[HEADER:])
    return packed.getvalue()


def _member(name: str) -> zipfile.ZipInfo:
    """Describe a member that says nothing of when and where it was packed."""
    info = zipfile.ZipInfo(name)  # of 1980
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = 0o100444 << 16
    return info


def _content(path: str, expected: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ChangedBytecodeError(path, error.strerror or str(error)) from error
    if record.hash_of(_digest(content)) != expected:
        raise ChangedBytecodeError(path, "its hash is not what it was")
    return content


def _digest(content: bytes) -> str:
    return record.encode(hashlib.sha256(content).digest())


# Unpacked


def is_of(descriptor: int, path: str, wheel: str, tag: str) -> bool:
    """Tell whether a file has all bytecode of a wheel for a Python: no compiler has died of any.

    :param descriptor: the file, open for reading
    :param wheel: its sha256
    """
    try:
        archive = Archive(descriptor, path)
        about = json.loads(archive.read(archive.members[ABOUT]))
        return bool((about["format"], about["wheel"], about["python"], about["died"]) == (FORMAT, wheel, tag, []))
    except (WheelError, *atomic.SENSELESS):
        return False


def unpack(artifact: Artifact, manifest: Manifest, shelf: Shelf, checkpoint: Callable[[], object]) -> str:
    """Bring the bytecode of a wheel from a file into the store.

    The file is read once, from its beginning to its end; what is far (`envsync.wheel.near`) is unpacked of a copy.

    :param artifact: the file: `path`, and its hash
    :param checkpoint: called now and then; whatever it raises ends the work
    :returns: why it cannot be used; empty if it is in the store now
    :raises FilesystemError: the store cannot be written; nothing is left
    """
    path, store = artifact.path or "", shelf.store
    directory = store.staging("compile")
    try:
        with verify.opened(path) as descriptor, ExitStack() as stack:
            before = verify.status_of(descriptor, path)
            copy = stack.enter_context(near.copy_of(before, store.tmp, lambda: store.staging("bytecode")))
            keep = None if copy is None else partial(near.write, copy, directory=store.tmp)
            verify.verify(descriptor, before, path, artifact, checkpoint, hand_on=keep)
            archive = Archive(descriptor if copy is None else copy, path)
            compiled = _Unpacking(archive, manifest, shelf, directory, checkpoint).run()
            if copy is None and verify.state(verify.status_of(descriptor, path)) != verify.state(before):
                archive.refuse("it changed while it was read")
        shelf.add(directory, compiled)
    except WheelError as error:
        return error.problem
    except FilesystemError as error:
        if error.path != path:
            raise
        return error.message
    finally:
        atomic.discard_tree(directory)
    return ""


class _Unpacking:
    """One file that is being unpacked into a directory."""

    def __init__(
        self, archive: Archive, manifest: Manifest, shelf: Shelf, directory: str, checkpoint: Callable[[], object]
    ) -> None:
        self._archive = archive
        self._manifest = manifest
        self._tag = shelf.tag
        self._magic = bytes.fromhex(shelf.tag.rpartition("-")[2])
        self._directory = directory
        self._checkpoint = checkpoint
        self._is_masked = bool(processes.read_umask() & 0o444)
        self._results = Results()

    def run(self) -> Compiled:
        """Compare all with what the wheel has, and write it.

        :raises WheelError: it does not fit
        :raises FilesystemError: it cannot be written
        """
        expected = {module.member: module for module in modules(self._manifest, self._tag)}
        self._read_about({module.source for module in expected.values()})
        self._compare(expected)
        self._make_directories({f"{module.scheme}/{module.directory}" for module in expected.values()})
        for name, module in expected.items():
            member = self._archive.members.get(name)
            if member is not None:
                self._checkpoint()
                self._write(module, self._read(module, member))
        return self._results.of(self._manifest, self._tag, set())

    def _refuse(self, problem: str) -> NoReturn:
        self._archive.refuse(problem)

    def _compare(self, expected: Mapping[str, Module]) -> None:
        """Compare the list of members with the modules of the wheel.

        :param expected: by the names that their bytecode has to have
        """
        members = self._archive.members
        strange = next((name for name in members if name not in expected and name != ABOUT), None)
        if strange is not None:
            self._refuse(f"`{strange}` is not the bytecode of a module of the wheel")
        if self._archive.repeated:
            self._refuse(f"it has `{self._archive.repeated[0].name}` twice")
        explained = self._without()
        for name, module in expected.items():
            member = members.get(name)
            if member is None and module.source not in explained:
                self._refuse(f"it has nothing of `{module.source}`")
            if member is not None and member.size > UNSUSPECTED + RATIO * module.size:
                self._refuse(f"`{name}` claims {member.size} bytes, more than makes sense")

    def _without(self) -> set[str]:
        """Return the sources that are said to have no bytecode."""
        return {path for path, _ in self._results.failures} | {path for _, path, _ in self._results.died}

    def _read_about(self, known: set[str]) -> None:
        """Read which wheel and Python it is for, and what has no bytecode.

        :param known: the sources that there are
        """
        member = self._archive.members.get(ABOUT)
        if member is None:
            self._refuse("it is no bytecode of a bundle")
        try:
            about = json.loads(self._archive.read(member))
            if about["format"] != FORMAT:
                self._refuse(f"it has format {about['format']!r}, which is not known here")
            if about["wheel"] != self._manifest.sha256:
                self._refuse("it is of another wheel")
            if about["python"] != self._tag:
                self._refuse(f"it was compiled for {about['python']!r}, and this Python takes `{self._tag}`")
            self._results.failures += [(path, _said(problem)) for path, problem in about["failures"]]
            self._results.died += [(scheme, path, _said(problem)) for scheme, path, problem in about["died"]]
        except atomic.SENSELESS:
            self._refuse(f"its `{ABOUT}` makes no sense")
        if not self._without() <= known:
            self._refuse(f"its `{ABOUT}` names what is no module of the wheel")

    def _read(self, module: Module, member: Member) -> bytes:
        """Return bytecode with the header that it has in this store."""
        content = self._archive.read(member)
        if content[:8] != self._magic + struct.pack("<I", UNCHECKED) or len(content) <= HEADER:
            self._refuse(f"`{member.name}` is no unchecked bytecode of this Python")
        source = (self._manifest.mtime & 0xFFFFFFFF, module.size & 0xFFFFFFFF)
        return self._magic + struct.pack("<3I", BY_TIME, *source) + content[HEADER:]

    def _make_directories(self, paths: set[str]) -> None:
        for path in ("", *sorted(paths)):
            try:
                os.makedirs(f"{self._directory}/{path}".rstrip("/"), exist_ok=True)
            except OSError as error:
                raise FilesystemError("create", f"{self._directory}/{path}", error) from error

    def _write(self, module: Module, content: bytes) -> None:
        """Write one file, as children do that compile (`envsync.fetching.compile_child`)."""
        path = f"{self._directory}/{module.member}"
        try:
            descriptor = core.open_file(path, _CREATE, 0o444)
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(descriptor, view) :]
                if self._is_masked:
                    with suppress(OSError):  # CIFS: the mount says the modes of all files
                        native.chmod(descriptor, 0o444)
                native.utime(descriptor, (time.time(), self._manifest.mtime))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise FilesystemError("write", path, error) from error
        self._results.add(module.scheme, module.directory, module.name, len(content), _digest(content))


def _said(problem: str) -> str:
    return printable(problem)[:_LONGEST]
