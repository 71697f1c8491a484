"""Bytecode for a bundle: of each wheel, one file for each kind of Python that it is for and that can be run here.

It is compiled in the cache, as for a sync, by that Python itself (`envsync.fetching.compiling`), and packed from there
(`envsync.fetching.packed_bytecode`): so the same wheel and Python give the same bytes. What the bundle has already is
compared with what its lock file says, and then neither compiled nor replaced.

A Python that is here serves other platforms, too: bytecode is the same on all of them. For one that is not here there
is none, which is said; nodes compile.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from envsync.bundling import source_hash_child
from envsync.bundling.directory import Bundle
from envsync.bundling.keeping import Shelf, Wheel
from envsync.bundling.targets import BundleTarget
from envsync.errors import FilesystemError, InterpreterError
from envsync.errors.hints import AGAIN
from envsync.fetching.compiling import compile_wheels
from envsync.fetching.fetch import fetch
from envsync.fetching.packed_bytecode import ChangedBytecodeError, Hashes, pack
from envsync.fetching.progress import size_of
from envsync.leading import bundled_bytecode
from envsync.leading.provision import compile_all
from envsync.lockfile.bundled import BytecodeFile, bytecode_in, place_of_bytecode
from envsync.lockfile.target import Artifact
from envsync.store import bytecode
from envsync.store.bytecode import Compiled, sources
from envsync.store.store import Store
from envsync.system import atomic, paths
from envsync.wheel import seconds
from envsync.wheel.manifest import Manifest

if TYPE_CHECKING:
    from envsync.leading.goal import Seeker
    from envsync.python.facts import Interpreter

SHARE = 0.2
"""How many bytes of bytecode come with each byte of a wheel: so it is with the jupyter environment."""


def _known(text: bytes | None) -> dict[str, BytecodeFile]:
    """Return the bytecode that a bundle's lock file names, by place; nothing if that is damaged, or there is none."""
    try:
        return {file.place: file for file in bytecode_in(tomllib.loads((text or b"").decode()))}
    except (ValueError, RecursionError):
        return {}


def _compilers(targets: Iterable[BundleTarget]) -> tuple[dict[str, Interpreter], list[str]]:
    """Choose who compiles.

    :returns: Pythons by the titles of what they compile for, and for what there is none, a sentence each
    """
    found: dict[str, Interpreter] = {}
    notes = []
    for target in targets:
        python = target.builder
        if python is None:
            notes.append(f"there is no bytecode for {target.title}: it takes that Python to compile; nodes do")
        elif not python.bytecode:
            notes.append(f"there is no bytecode for {target.title}, which keeps none")
        elif any(other.cache_tag == python.cache_tag and other.magic != python.magic for other in found.values()):
            notes.append(f"there is no bytecode for {target.title}: another one of its name has it; nodes compile")
        else:
            found[target.title] = python
    return found, notes


class Compilation:
    """The bytecode of one bundle, while it is made; there is none if none is asked for.

    :param targets: what the bundle is for
    :ivar known: by place, what its lock file names until now
    :ivar files: by place, all that it is to name
    :ivar added: the places of those that were not there
    :ivar notes: what is worth knowing
    """

    def __init__(self, seeker: Seeker, bundle: Bundle, shelf: Shelf, targets: Iterable[BundleTarget]) -> None:
        self._seeker = seeker
        self._shelf = shelf
        wanted = seeker.request.flag("compile_bytecode")
        self.known = _known(atomic.read_if_there(bundle.lock_file)) if wanted else {}
        self._compilers, self.notes = _compilers(targets) if wanted else ({}, [])
        self.files: dict[str, BytecodeFile] = {}
        self.added: list[str] = []

    def places(self, target: BundleTarget, wheels: Iterable[Artifact]) -> list[str]:
        """Return where the bytecode of wheels is, or would be, as far as their hashes are known.

        Whether one has modules is not known before it is unpacked. One that is in the bundle and has no bytecode there,
        where others have, has none.
        """
        return [place for place, _ in self._places(target, wheels)]

    def _places(self, target: BundleTarget, wheels: Iterable[Artifact]) -> Iterator[tuple[str, Artifact]]:
        python = self._compilers.get(target.title)
        if python is None:
            return
        compiled = any(place.endswith(f"/{python.cache_tag}.zip") for place in self.known)
        for wheel in wheels:
            if wheel.sha256:
                place = place_of_bytecode(wheel.sha256, python.cache_tag)
                if place in self.known or not (compiled and self._shelf.has(wheel)):
                    yield place, wheel

    def expected(self, target: BundleTarget, wheels: Sequence[Artifact]) -> int:
        """Return about how many bytes the bytecode of wheels will have."""
        found = self._places(target, wheels)
        sizes = (self.known[place].size if place in self.known else SHARE * size_of(wheel) for place, wheel in found)
        return int(sum(sizes))

    def add(self, target: BundleTarget, wheels: Sequence[Wheel]) -> None:
        """Have bytecode of wheels in the bundle.

        :param wheels: they are in it
        :raises WheelError: one cannot be unpacked
        :raises FilesystemError: the cache or the bundle cannot be written
        """
        python = self._compilers.get(target.title)
        if python is None:
            return
        missing = []
        for done, wheel in enumerate(wheels):
            self._seeker.report("comparing", done, len(wheels))
            place = place_of_bytecode(wheel.sha256, python.cache_tag)
            if place not in self.files and not self._find(place, wheel, python):
                missing.append(wheel)
        if missing:
            self._bring(python, missing)

    def _find(self, place: str, wheel: Wheel, python: Interpreter) -> bool:
        """Look for bytecode that is in the bundle already."""
        file = self.known.get(place)
        if file is None or not self._shelf.has_bytecode(file, wheel.sha256, python.bytecode):
            return False
        self.files[place] = file
        return True

    def _bring(self, python: Interpreter, wheels: Sequence[Wheel]) -> None:
        store, report = self._seeker.store, self._seeker.report
        manifests = self._unpacked(wheels)
        if any(manifest.mtime == seconds.TIMELESS for manifest in manifests):
            self.notes.append(
                f"nothing is compiled, for files in cache `{store.root}` cannot be given times; name another one with "
                "--cache-dir; `envsync doctor` says what can be done there"
            )
            return

        def again(damaged: str) -> list[Manifest]:
            nonlocal manifests
            with store.replacing([damaged]):
                manifests = self._unpacked(wheels)
            return manifests

        kept = bytecode.Shelf(store, python.bytecode)
        self.notes += bundled_bytecode.take(self._seeker.request, kept.find(manifests)[1], kept, report)
        compiled = compile_all(manifests, python, store, report, again)
        hashes = _source_hashes(python, store, manifests)
        for done, manifest in enumerate(manifests):
            report("packing", done, len(manifests))
            if manifest.sha256 in compiled:
                packed = self._packed(python, manifest, compiled[manifest.sha256], hashes.get(manifest.sha256, {}))
                place = place_of_bytecode(manifest.sha256, python.cache_tag)
                self.files[place], is_new = self._shelf.add_bytecode(place, packed)
                self.added += [place] if is_new else []

    def _packed(self, python: Interpreter, manifest: Manifest, compiled: Compiled, hashes: Hashes) -> bytes:
        """Pack what was compiled. What is not what it was is compiled again, once."""
        store = self._seeker.store
        kept = bytecode.Shelf(store, python.bytecode)
        try:
            return pack(kept, manifest, compiled, hashes)
        except ChangedBytecodeError:
            kept.discard(manifest.sha256)
        again = compile_wheels([manifest], python, store, report=self._seeker.report)
        return pack(kept, manifest, again[manifest.sha256], hashes)

    def _unpacked(self, wheels: Sequence[Wheel]) -> list[Manifest]:
        """Have wheels of the bundle in the store."""
        artifacts = [
            Artifact(
                wheel.name,
                wheel.version,
                wheel.filename,
                {"sha256": wheel.sha256},
                size=wheel.size,
                path=self._shelf.path(wheel),
                locked=(("sha256", wheel.sha256),),
            )
            for wheel in wheels
        ]
        return [*fetch(artifacts, self._seeker.store, report=self._seeker.report).values()]


def _source_hashes(python: Interpreter, store: Store, manifests: Iterable[Manifest]) -> dict[str, Hashes]:
    """Have that Python hash all sources of wheels, by the wheel's sha256.

    :raises InterpreterError: it does not run
    :raises FilesystemError: a source cannot be read
    """
    asked = [(manifest.sha256, *each) for manifest in manifests for each in sources(manifest)]
    directories = [paths.join(store.path(sha256), scheme, path) for sha256, scheme, path, _ in asked]
    lines = [json.dumps([directory, names]) for directory, (*_, names) in zip(directories, asked, strict=True)]
    words = [python.executable, "-I", "-S", "-B", "-X", "utf8", source_hash_child.__file__]
    try:
        done = subprocess.run(words, input="\n".join(lines), capture_output=True, encoding="utf-8", check=True)
        answers = list(map(json.loads, done.stdout.splitlines()))
        answered = list(zip(directories, asked, answers, strict=True))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise InterpreterError(f"Python `{python.executable}` does not hash sources: {error}") from error
    found: dict[str, Hashes] = {}
    for directory, (sha256, scheme, path, names), hashes in answered:
        of_wheel = found.setdefault(sha256, {})
        for name, hash_ in zip(names, hashes, strict=True):
            if hash_ is None:
                gone = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                raise FilesystemError("read", paths.join(directory, name), gone, hint=AGAIN)
            of_wheel[scheme, f"{path}/{name}" if path else name] = bytes.fromhex(hash_)
    return found
