"""Archives of sources, kept by hash: what was fetched to be built once can be built again without the network.

    <cache>/v1/sources/<sha256>/<file name>

Made in tmp and renamed into place whole. Whoever reads one compares its hash again (`check`): it is about to be run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

from envsync.errors import FilesystemError, WheelError
from envsync.lockfile.target import Artifact
from envsync.store import trash
from envsync.store.directories import Directories
from envsync.store.publish import publish
from envsync.system import core
from envsync.wheel import verify
from envsync.wheel.manifest import is_sha256


class Archive(NamedTuple):
    """An archive that is at hand."""

    path: str
    sha256: str


def find(store: Directories, artifact: Artifact) -> Archive | None:
    """Look for an archive among those that are kept, by one of the hashes that it may have."""
    for algorithm, digest in (*artifact.hashes.items(), *artifact.alternatives):
        if algorithm == "sha256" and is_sha256(digest):
            path = f"{store.sources}/{digest.lower()}/{artifact.filename}"
            if os.path.isfile(path):
                return Archive(path, digest.lower())
    return None


def check(path: str, artifact: Artifact, checkpoint: Callable[[], object] = lambda: None) -> Archive:
    """Compare an archive's bytes with what the lock file says of them.

    :raises WheelError: they are others (`HashMismatchError`)
    :raises FilesystemError: they cannot be read
    """
    with verify.opened(path) as descriptor:
        hashes = verify.verify(descriptor, verify.status_of(descriptor, path), path, artifact, checkpoint)
    return Archive(path, hashes["sha256"])


def keep(store: Directories, path: str, artifact: Artifact, checkpoint: Callable[[], object]) -> Archive:
    """Keep an archive that was downloaded, or say where a local one is, once its hash has been compared.

    :raises WheelError: it is not what the lock file says
    :raises FilesystemError: it cannot be read, or not be kept; nothing is left in place
    """
    found = check(path, artifact, checkpoint)
    if path == artifact.path:
        return found
    if core.has_directory(artifact.filename) or artifact.filename in ("", ".", ".."):
        raise WheelError(artifact.filename, "that is no name of an archive")
    place = f"{store.sources}/{found.sha256}"
    staged = store.staging("source")
    try:
        os.mkdir(staged)
        os.link(path, f"{staged}/{artifact.filename}")
    except OSError:
        try:
            shutil.copyfile(path, f"{staged}/{artifact.filename}")
        except OSError as error:
            raise FilesystemError("write", staged, error) from error
    kept = Archive(f"{place}/{artifact.filename}", found.sha256)
    try:
        publish(store, staged, place, lambda: kept if os.path.isfile(kept.path) else None)
    finally:
        trash.remove_tree(staged)
    return kept
