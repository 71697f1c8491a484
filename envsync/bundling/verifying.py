"""Is a bundle whole? All that its lock file names is read and compared, and all that a former one names that counts."""

from __future__ import annotations

import os
import stat
import time
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from packaging.pylock import PylockValidationError

from envsync.bundling.combining import wheels_in
from envsync.bundling.directory import KEPT_SECONDS, Bundle, place_of
from envsync.errors import FilesystemError, LockFileError, WheelError
from envsync.launch.progress import Report, quiet
from envsync.lockfile.bundled import BYTECODE, LETTERS, bytecode_in
from envsync.lockfile.target import Artifact
from envsync.store.inventory import names
from envsync.system.atomic import read_if_there
from envsync.wheel import verify
from envsync.wheel.manifest import is_sha256


class Version(NamedTuple):
    """A lock file that a bundle has, or had."""

    path: str
    replaced: float
    """When it last was known to be the present one, in seconds since the epoch."""
    files: dict[str, tuple[str, int | None]]
    """Wheels and bytecode: by place, the sha256 and the size."""


class Damage(NamedTuple):
    """What is wrong with a bundle."""

    path: str
    """Relative to it."""
    problem: str


class Verified(NamedTuple):
    """What was found."""

    wheels: int
    bytecode: int
    """Files of it."""
    bytes: int
    damage: tuple[Damage, ...]


def present(bundle: Bundle, text: bytes) -> Version:
    """Understand the lock file of a bundle.

    :raises LockFileError: it is damaged
    """
    return Version(bundle.lock_file, time.time(), _named(bundle.lock_file, text))


def former(bundle: Bundle, *, since: float) -> Iterator[Version | Damage]:
    """Yield the former lock files that still count.

    :param since: in seconds since the epoch
    """
    for name in sorted(names(bundle.versions)):
        path = f"{bundle.versions}/{name}"
        try:
            replaced = os.stat(path).st_mtime
            text = read_if_there(path)
            if name.endswith(".toml") and text is not None and replaced >= since:
                yield Version(path, replaced, _named(path, text))
        except (LockFileError, OSError, FilesystemError) as error:
            yield Damage(f"versions/{name}", str(error))


def _named(path: str, text: bytes) -> dict[str, tuple[str, int | None]]:
    """Return the wheels and the bytecode that a lock file names, all of which are in the bundle.

    :raises LockFileError: it is none of a bundle
    """
    hint = "make the bundle again: `envsync bundle --to bundle`"
    try:
        table = tomllib.loads(text.decode())
        found = list(wheels_in(table))
        files: dict[str, tuple[str, int | None]] = {file.place: (file.sha256, file.size) for file in bytecode_in(table)}
    except (ValueError, RecursionError, PylockValidationError) as error:
        raise LockFileError(path, f"it is damaged ({' '.join(str(error).split())[:120]})", hint=hint) from None
    for place, sha256, _, name in found:
        if not is_sha256(sha256) or place != place_of(sha256, os.path.basename(place)):
            raise LockFileError(path, f"the wheel of `{name}` is not where a bundle has it: `{place[:200]}`", hint=hint)
    return {place: (sha256, size) for place, sha256, size, _ in found} | files


def verified(bundle: Bundle, text: bytes, report: Report = quiet) -> Verified:
    """Read all that a bundle is to have.

    :param text: its lock file
    :raises LockFileError: that is damaged
    """
    damage: list[Damage] = []
    versions = [present(bundle, text)]
    for each in former(bundle, since=time.time() - KEPT_SECONDS):
        if isinstance(each, Damage):
            damage.append(each)
        else:
            versions.append(each)
    files = {place: said for version in reversed(versions) for place, said in version.files.items()}
    size = 0
    for done, (place, (sha256, expected)) in enumerate(sorted(files.items())):
        report("comparing", done, len(files))
        path = f"{bundle.root}/{place}"
        problem = _problem(path, sha256, expected, partial(report, "comparing", done, len(files)))
        if problem:
            damage.append(Damage(place, problem))
        else:
            size += os.stat(path).st_size
    bytecode = sum(is_bytecode(place) for place in files)
    return Verified(len(files) - bytecode, bytecode, size, tuple(damage))


def _problem(path: str, sha256: str, size: int | None, checkpoint: Callable[[], object]) -> str:
    """Say what is wrong with a wheel, or with bytecode; empty if nothing is."""
    artifact = Artifact("", "", os.path.basename(path), {"sha256": sha256}, size=size, path=path)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return "it is not a file"
        with verify.opened(path) as descriptor:
            verify.verify(descriptor, verify.status_of(descriptor, path), path, artifact, checkpoint)
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except FilesystemError as error:
        return error.message
    except WheelError as error:
        return error.problem
    return ""


def is_bytecode(place: str) -> bool:
    """Tell whether that is a place of bytecode."""
    return place.startswith(f"{BYTECODE}/")


def is_entry(name: str) -> bool:
    """Tell whether a name below `wheels` or `bytecode` is one that a bundle gives."""
    return len(name) == LETTERS and set(name) <= set("0123456789abcdef")
