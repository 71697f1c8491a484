"""Take bytecode out of a bundle into the store, instead of compiling: what its lock file names for this Python.

Each file is read once, by children as wheels are (`envsync.fetching.gathering`). One that cannot be used, for whatever
reason, costs nothing but that its wheel is compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from envsync.launch.request import BUNDLE

if TYPE_CHECKING:
    from envsync.fetching.crew import Keeper
    from envsync.launch.progress import Report
    from envsync.launch.request import Request
    from envsync.lockfile.target import Artifact
    from envsync.store.bytecode import Shelf
    from envsync.store.store import Store
    from envsync.wheel.manifest import Manifest


def take(request: Request, manifests: Sequence[Manifest], shelf: Shelf, report: Report) -> list[str]:
    """Bring into the store what a bundle has of the bytecode of wheels.

    :param request: its lock file need not be one of a bundle
    :param manifests: of wheels that the store has
    :returns: what is worth knowing: that some could not be used, and why
    :raises FilesystemError: the store cannot be written
    """
    if not manifests or request.data is None or BUNDLE not in request.data:
        return []  # as nearly always: so nothing is imported
    from envsync.fetching.fetch import fetch_files
    from envsync.lockfile.bundled import bytecode_of

    wheels = {manifest.sha256: manifest for manifest in manifests}
    names = {sha256: manifest.name for sha256, manifest in wheels.items()}
    found = bytecode_of(request.lock, request.data, names, shelf.tag.rpartition("-")[0])
    if not found:
        return []
    of_wheel = {artifact.name: wheels[sha256] for sha256, artifact in found.items()}
    said = fetch_files([*found.values()], shelf.store, _keeper(of_wheel, shelf), report=report, lock_file=request.lock)
    refused = [(artifact, said[artifact.name]) for artifact in found.values() if said[artifact.name]]
    return [_note(refused, os.path.dirname(request.lock))] if refused else []


def _keeper(of_wheel: Mapping[str, Manifest], shelf: Shelf) -> Keeper[str]:
    """What becomes of a file: it is in the store, which is said by the empty string, or why it cannot be used."""
    from envsync.fetching.crew import Keeper
    from envsync.fetching.packed_bytecode import unpack

    def find(artifact: Artifact, _: Store) -> str | None:
        manifest = of_wheel[artifact.name]
        return None if shelf.get(manifest.sha256, manifest.mtime) is None else ""

    def add(artifact: Artifact, _: str, checkpoint: Callable[[], object]) -> str:
        return unpack(artifact, of_wheel[artifact.name], shelf, checkpoint)

    return Keeper[str](find, add, str, str)


def _note(refused: Sequence[tuple[Artifact, str]], bundle: str) -> str:
    """Say once what could not be used, and why."""
    artifact, problem = refused[0]
    more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
    return (
        f"the bytecode of {artifact.name}{more} is compiled here, for what the bundle has of it cannot be used: "
        f"`{artifact.filename}`: {problem}; `envsync bundle verify {quote(bundle or '.')}` compares all of it"
    )
