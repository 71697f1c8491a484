"""A wheel file as it came, before it is unpacked: compared with all that the lock file says of its bytes.

Nothing here is needed by a sync that finds all its wheels in the store.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from envsync.errors import FilesystemError, HashMismatchError, WheelError
from envsync.lockfile.target import Artifact
from envsync.system import core, native
from envsync.system.patience import patiently
from envsync.wheel.manifest import Manifest

if TYPE_CHECKING:
    import hashlib


def vouches(artifact: Artifact, hashes: Mapping[str, str]) -> bool:
    """Tell whether the lock file itself has the hash of the whole wheel, which covers each of its bytes.

    :param hashes: of the wheel
    """
    return any(hashes.get(algorithm) == digest for algorithm, digest in artifact.locked)


def check_vouched(manifest: Manifest, artifact: Artifact, hashes: Mapping[str, str]) -> None:
    """Refuse an entry of the store that another lock file's hash has vouched for, and this one's does not.

    :param hashes: of the wheel, as far as they are known
    :raises WheelError: nobody vouches for some of its files
    """
    if manifest.unrecorded and not vouches(artifact, hashes):
        raise WheelError(artifact.filename, manifest.unrecorded[0], hint=how_to_vouch(artifact))


def how_to_vouch(artifact: Artifact) -> str:
    """Say what helps where a wheel's RECORD does not vouch for all its files."""
    return (
        f"lock with hashes, for that of the whole wheel vouches for what RECORD does not: `{how_to_hash(artifact)}` "
        f"prints it (as soon as one line has a hash, each needs one)"
    )


def how_to_hash(artifact: Artifact) -> str:
    """Give the command that prints the hash that a wheel has where it is now, as an option for a lock file."""
    if artifact.path is not None:
        return f"pip hash {shlex.quote(artifact.path)}"
    wanted = origin(artifact) if artifact.direct_url else f"{artifact.name}=={artifact.version}"
    return f"pip download --no-deps {shlex.quote(wanted)} && pip hash {shlex.quote(artifact.filename)}"


def check_identity(manifest: Manifest, artifact: Artifact) -> None:
    """Refuse a wheel that is sound but another one than the lock file means.

    :raises WheelError: its name or version is not the artifact's
    """
    if manifest.name == artifact.name and manifest.version == artifact.version:
        return
    from packaging.utils import canonicalize_name, canonicalize_version

    if canonicalize_name(manifest.name) != canonicalize_name(artifact.name) or (
        canonicalize_version(manifest.version) != canonicalize_version(artifact.version)
    ):
        raise WheelError(
            artifact.filename,
            f"it is {manifest.name} {manifest.version}, but the lock file wants {artifact.name} {artifact.version}",
            hint=f"lock the one that is wanted: `pip download --no-deps {artifact.name}=={artifact.version}` gets it",
        )


def origin(artifact: Artifact) -> str:
    """Say where an artifact comes from, without credentials, query and fragment, for messages."""
    if artifact.path is not None:
        return artifact.path
    if artifact.url is None:
        return artifact.filename
    from urllib.parse import urlsplit, urlunsplit

    try:
        parts = urlsplit(artifact.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return artifact.filename  # a URL that cannot be taken apart is better not shown


@contextmanager
def opened(wheel: str) -> Iterator[int]:
    """Open a wheel file to read.

    :raises FilesystemError: it cannot be opened
    """
    try:
        flags = os.O_RDONLY | core.NONBLOCK
        descriptor = patiently(core.open_file, wheel, flags)
    except OSError as error:
        raise FilesystemError("open", wheel, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def verify(
    descriptor: int,
    status: os.stat_result,
    wheel: str,
    artifact: Artifact,
    checkpoint: Callable[[], object],
    *,
    hand_on: Callable[[bytes], object] | None = None,
) -> Mapping[str, str]:
    """Compare the wheel's bytes with all that is said of them; return their hashes by algorithm, sha256 among them.

    :param checkpoint: called every few milliseconds; whatever it raises ends the work
    :param hand_on: is given the bytes as they are read, before it is known whether they are the right ones
    :raises WheelError: they are others (`HashMismatchError`), or the lock file has a hash that cannot be computed
    :raises FilesystemError: they cannot be read
    """
    if not stat.S_ISREG(status.st_mode):
        hint = f"put the wheel there, or correct the path; `ls -ld {shlex.quote(wheel)}` shows what is there"
        raise WheelError(artifact.filename, f"`{wheel}` is not a file", hint=hint)
    if artifact.size is not None and artifact.size != status.st_size:
        raise size_mismatch(artifact, status.st_size)
    hashers = _hashers(artifact)
    position = 0
    while True:
        checkpoint()
        try:
            data = native.pread(descriptor, 1024 * 1024, position)
        except OSError as error:
            raise FilesystemError("read", wheel, error) from error
        if not data:
            break
        position += len(data)
        for hasher in hashers.values():
            hasher.update(data)
        if hand_on is not None:
            hand_on(data)
    got = {name: hasher.hexdigest() for name, hasher in hashers.items()}
    _compare(got, artifact)
    return got


def _hashers(artifact: Artifact) -> dict[str, hashlib._Hash]:
    """Return a hash for each algorithm that the lock file names, and for sha256."""
    import hashlib

    hashers = {"sha256": hashlib.sha256()}
    for name in (*artifact.hashes, *(name for name, _ in artifact.alternatives)):
        try:
            hasher = hashlib.new(name)
        except ValueError:
            hasher = None
        if hasher is not None and hasher.digest_size:  # the digests of shake have no size of their own
            hashers[name] = hasher
        elif name in artifact.hashes:
            hint = f"lock again with sha256; `{how_to_hash(artifact)}` prints it"
            raise WheelError(
                artifact.filename, f"the lock file has a hash of an unknown kind for it: {name}", hint=hint
            )
    return hashers


def _compare(got: dict[str, str], artifact: Artifact) -> None:
    for name, digest in artifact.hashes.items():
        if got[name] != digest.lower():
            raise hash_mismatch(artifact, name, digest.lower(), got[name])
    alternatives = artifact.alternatives
    if alternatives and not any(got.get(name) == digest.lower() for name, digest in alternatives):
        name = alternatives[0][0] if alternatives[0][0] in got else "sha256"
        raise hash_mismatch(artifact, name, f"one of {len(alternatives)} others", got[name])


def hash_mismatch(artifact: Artifact, algorithm: str, expected: str, got: str) -> HashMismatchError:
    """Build the error of a file whose bytes are not those that the lock file names."""
    return HashMismatchError(
        artifact.filename,
        f"the {algorithm} of {origin(artifact)} is {got}, but the lock file expects {expected}",
        hint=_how_to_judge(artifact),
    )


def size_mismatch(artifact: Artifact, size: object) -> WheelError:
    """Build the error of a file that has another size than the lock file says."""
    problem = f"{origin(artifact)} has {size} bytes, but the lock file says {artifact.size}"
    return WheelError(artifact.filename, problem, hint=_how_to_judge(artifact))


def _how_to_judge(artifact: Artifact) -> str:
    return (
        f"if the file was meant to change, lock again; if not, ask whoever publishes it; "
        f"`{how_to_hash(artifact)}` prints the hash that it has now"
    )


def status_of(descriptor: int, wheel: str) -> os.stat_result:
    """Look at an open wheel file.

    :raises FilesystemError: that fails
    """
    try:
        return os.fstat(descriptor)
    except OSError as error:
        raise FilesystemError("read", wheel, error) from error


def state(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes if somebody writes to the file, or puts another one in its place."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
