"""The hashes of files that a lock file has none of, kept since they were first fetched from the URLs in it.

Such a wheel, or archive to build of, is fetched once for a cache: whoever is sent to that URL later takes what the
cache has of it, without the network, and everybody has the same bytes. `v1/hashes` in the cache says which file that
was, by the URL without credentials. It is worth no more than the cache: if that has lost the file, what the URL has by
then is fetched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from envsync.launch.stamp import checksum
from envsync.system import groups, records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envsync.lockfile.target import Artifact, Target
    from envsync.store.store import Store
    from envsync.wheel.manifest import Manifest


def recalled(target: Target, store: Store) -> Target:
    """Return a target whose files without a hash have the ones that were kept, where the cache has them."""
    return target._replace(artifacts=tuple(_recalled(artifact, store) for artifact in target.artifacts))


def _recalled(artifact: Artifact, store: Store) -> Artifact:
    if artifact.place is None or artifact.path is not None:
        return artifact
    sha256 = records.text(records.load(_path(artifact.place, store)), "sha256")
    known = artifact._replace(hashes={"sha256": sha256})
    if not sha256:
        return artifact
    if artifact.source is not None:
        from envsync.store import archives

        return artifact if archives.find(store, known) is None else known
    return known if store.filename(sha256) == artifact.filename else artifact


def keep(target: Target, manifests: Mapping[str, Manifest], store: Store) -> None:
    """Keep the hashes of what was fetched without one."""
    for artifact in target.artifacts:
        if artifact.source is None:
            keep_one(artifact, manifests[artifact.name].sha256, store)


def keep_one(artifact: Artifact, sha256: str, store: Store) -> None:
    """Keep the hash of one file if it was fetched without."""
    if artifact.place is not None and artifact.path is None and not artifact.hashes:
        groups.write(store.memory, _path(artifact.place, store), {"sha256": sha256})


def _path(place: str, store: Store) -> str:
    return f"{store.memory}/v1/hashes/{checksum(f'hash 1 {place}'.encode('utf-8', 'surrogateescape'))}.json"
