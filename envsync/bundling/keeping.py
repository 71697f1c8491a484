"""Wheels as files in a bundle: found there by their hash, or copied there while it is compared, each read once."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from envsync.bundling.directory import Bundle, place_of
from envsync.errors import FilesystemError, WheelError
from envsync.fetching.packed_bytecode import is_of
from envsync.lockfile.bundled import BytecodeFile
from envsync.lockfile.target import Artifact
from envsync.system import atomic, core, groups, native
from envsync.wheel import verify
from envsync.wheel.manifest import is_sha256


class Wheel(NamedTuple):
    """A wheel in a bundle."""

    name: str
    """Normalized."""
    version: str
    filename: str
    sha256: str
    size: int
    """In bytes."""

    @property
    def place(self) -> str:
        """Where it is, relative to the bundle."""
        return place_of(self.sha256, self.filename)


class Shelf:
    """The wheels of a bundle, as one writer knows them.

    :param durable: force each to the disk before it gets its name
    """

    def __init__(self, bundle: Bundle, *, durable: bool = False) -> None:
        self._bundle = bundle
        self._durable = durable
        self._known: dict[str, Wheel] = {}
        """By place, what was compared already."""

    def path(self, wheel: Wheel) -> str:
        """Return where a wheel is."""
        return f"{self._bundle.root}/{wheel.place}"

    def has(self, artifact: Artifact) -> bool:
        """Tell whether there is something in the place of a wheel of which the sha256 is known."""
        return os.path.lexists(f"{self._bundle.root}/{place_of(artifact.sha256 or '', artifact.filename)}")

    def find(self, artifact: Artifact, checkpoint: Callable[[], object] = lambda: None) -> Wheel | None:
        """Look for a wheel of which a sha256 is known. All of it is read: an update makes sure of the whole bundle.

        It counts as asked for now, so that nobody prunes it. One whose bytes are others is as good as absent.

        :raises FilesystemError: it cannot be read
        """
        for algorithm, digest in (*artifact.hashes.items(), *artifact.alternatives):
            place = place_of(digest.lower(), artifact.filename)
            if algorithm != "sha256" or not is_sha256(digest):
                continue
            path = f"{self._bundle.root}/{place}"
            with suppress(OSError):  # it is not there, or another user's
                os.utime(os.path.dirname(path))
            if place not in self._known and os.path.lexists(path):
                with suppress(WheelError):
                    self._known[place] = self._read(path, artifact, checkpoint)
            if place in self._known:
                return self._known[place]
        return None

    def _read(self, path: str, artifact: Artifact, checkpoint: Callable[[], object]) -> Wheel:
        with verify.opened(path) as descriptor:
            status = verify.status_of(descriptor, path)
            hashes = verify.verify(descriptor, status, path, artifact, checkpoint)
        return _wheel(artifact, hashes["sha256"], status.st_size)

    def add(self, artifact: Artifact, path: str, checkpoint: Callable[[], object]) -> Wheel:
        """Copy a wheel into the bundle, and compare it with all that is said of it on the way.

        :raises WheelError: it is not what the lock file says; nothing is left
        :raises FilesystemError: it cannot be read, or not be written; likewise
        """
        if core.has_directory(artifact.filename):
            raise WheelError(artifact.filename, "that is no name of a wheel")
        staged = self._bundle.staging("wheel")
        try:
            with verify.opened(path) as descriptor:
                sha256 = self._copy(descriptor, artifact, path, staged, checkpoint)
            wheel = _wheel(artifact, sha256, os.stat(staged).st_size)
            self._place(staged, f"{self._bundle.root}/{wheel.place}")
        finally:
            atomic.discard(staged)
        return wheel

    def has_bytecode(self, file: BytecodeFile, wheel: str, tag: str) -> bool:
        """Tell whether bytecode is there as the lock file has it. It counts as asked for now, so that nobody prunes it.

        :param wheel: the sha256 of its wheel
        :param tag: of the Python that it ought to be for
        :raises FilesystemError: it cannot be read
        """
        path = f"{self._bundle.root}/{file.place}"
        with suppress(OSError):  # it is not there, or another user's
            os.utime(os.path.dirname(path))
        if not os.path.lexists(path):
            return False
        artifact = Artifact("", "", file.place, {"sha256": file.sha256}, size=file.size, path=path)
        with verify.opened(path) as descriptor:
            try:
                verify.verify(descriptor, verify.status_of(descriptor, path), path, artifact, lambda: None)
            except WheelError:
                return False
            return is_of(descriptor, path, wheel, tag)

    def add_bytecode(self, place: str, content: bytes) -> tuple[BytecodeFile, bool]:
        """Write a file of bytecode.

        :returns: what is there now, and whether it is new; another writer may have the same
        :raises FilesystemError: it cannot be written; nothing is left
        """
        file = BytecodeFile(place, hashlib.sha256(content).hexdigest(), len(content))
        path, staged = f"{self._bundle.root}/{place}", self._bundle.staging("bytecode")
        try:
            if atomic.read_if_there(path) == content:
                return file, False
            atomic.write(staged, content, durable=self._durable, mode=0o444)
            self._place(staged, path)
        finally:
            atomic.discard(staged)
        return file, True

    def note(self, wheels: Iterable[Wheel]) -> list[Wheel]:
        """Know of wheels that were added, perhaps by children. Returns those that were not known."""
        new = [wheel for wheel in wheels if wheel.place not in self._known]
        self._known.update((wheel.place, wheel) for wheel in new)
        return new

    def _copy(
        self, descriptor: int, artifact: Artifact, path: str, staged: str, checkpoint: Callable[[], object]
    ) -> str:
        """Copy an open wheel. Returns its sha256."""
        try:
            copy = core.open_file(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            raise FilesystemError("write", staged, error) from error

        def write(data: bytes) -> None:
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(copy, view) :]
            except OSError as error:
                raise FilesystemError("write", staged, error) from error

        try:
            status = verify.status_of(descriptor, path)
            found = verify.verify(descriptor, status, path, artifact, checkpoint, hand_on=write)["sha256"]
            with suppress(OSError):  # CIFS: the mount says the modes of all files
                native.chmod(staged, stat.S_IMODE(os.fstat(copy).st_mode) & ~0o222)
            if self._durable:
                os.fsync(copy)
        finally:
            os.close(copy)
        return found

    def _place(self, staged: str, place: str) -> None:
        directory, group = os.path.dirname(place), groups.bits(self._bundle.root)
        groups.grant(staged, group)
        try:
            atomic.make_directory(directory)
            for made in (os.path.dirname(directory), directory):
                groups.grant(made, group)
            atomic.move(staged, place)
        except OSError as error:
            raise FilesystemError("write", place, error) from error


def _wheel(artifact: Artifact, sha256: str, size: int) -> Wheel:
    from envsync.lockfile.wheels import WheelName

    return Wheel(artifact.name, str(WheelName(artifact.filename).version), artifact.filename, sha256, size)


def total(wheels: Iterable[Wheel]) -> int:
    """Return how many bytes wheels have, each counted once."""
    return sum({wheel.place: wheel.size for wheel in wheels}.values())
