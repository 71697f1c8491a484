"""The store: one directory of unpacked, verified wheels, shared by processes, containers, users and hosts.

    <root>/CACHEDIR.TAG
    <root>/v1/wheels/<sha256>/   an entry (see `manifest`): made in tmp, renamed here whole, never changed again
    <root>/v1/tmp/               unpacks and downloads in progress, poisoned entries on their way out
    <root>/v1/locks/             one lock per wheel; none of them is needed for safety

Invariants:

- An entry is there whole or not at all: it appears by one rename, with its manifest written before that.
  Whoever finds a directory without a manifest that can be read, found one that is being removed, or that
  somebody damaged.
- The key of an entry is the sha256 of the wheel that its files were unpacked from, computed here from the
  very bytes that were unpacked. An entry never becomes another one, so that readers need no lock.
- Populating needs no lock either: of two that add the same wheel, the first to rename wins and the other uses
  that entry. EEXIST and ENOTEMPTY alone do not prove that somebody won (see the lab's facts on network
  filesystems): the entry is read, with patience for caches between hosts, and only what stays unreadable is
  set aside.

After a crash there are leftovers in tmp, which nobody reads, `sweep` removes after a day, and `clean` at
once. After a lost node an entry may have files without their bytes: whoever links compares size and mtime
with the manifest and discards what does not fit.

Who removes entries holds `<root>/.lock` exclusively; whoever reads the store holds it shared. That is up to
the callers. The modification time of an entry's directory says when it was used last.

A store that cannot be written, somebody else's or on a read-only filesystem, is read all the same, and what it lacks
goes to another one (`Store.settle`).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from envsync import disk, replace
from envsync.cache import sharing
from envsync.cache.manifest import NAME, Manifest, load
from envsync.errors import FilesystemError, HashMismatchError, WheelError
from envsync.target import Artifact

if TYPE_CHECKING:
    import hashlib

PATIENCE = 2.0
"""Seconds for which an entry that somebody just renamed into place may be unreadable on another host."""
SETTLING = 1.0
"""Seconds for which directories that a group shares may have no bits for the group: they are being made."""
DISCARDED = "discarded"
"""How the names of trash in tmp begin: whoever put it there was removing it, and anybody may go on with that."""
ABANDONED = 24 * 3600
"""Seconds after which nobody is still working on something in tmp."""

_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# This directory is a cache of envsync. What is in it can be fetched again.
"""
_IN_PLACE = frozenset({errno.EXDEV, errno.ENOSPC, errno.EDQUOT})
"""What rename(2) answers where removing works: in a lower layer of an overlay, and if tmp would have to grow."""
OCCUPIED = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


class Store:
    """The content-addressed store below a cache directory.

    :param root: the cache directory; need not exist before `prepare`
    :param durable: force an entry to the disk before it gets its name
    :ivar root: the cache directory that is written to: another one than asked for once `settle` has fallen back
    :ivar below: the cache directory asked for, if it cannot be written to
    :ivar memory: the cache directory where it is remembered what is known of interpreters and lock files
    :ivar written: something that was missing was added, by this process or a child
    """

    def __init__(self, root: str, *, durable: bool = False) -> None:
        self.durable = durable
        self.memory = root
        self.below: str | None = None
        self.written = False
        self.shunned: set[str] = set()
        """Entries in `below`, or bytecode of theirs, that are poisoned, and cannot be removed."""
        self._be_at(root)

    def _be_at(self, root: str) -> None:
        self.root = root
        self.wheels = f"{root}/v1/wheels"
        self.tmp = f"{root}/v1/tmp"
        self.locks = f"{root}/v1/locks"

    def settle(self, fallback: str, *, passing: bool = False) -> None:
        """Make the directories, or if that must not be, write what is missing below another directory.

        :param fallback: a cache directory; nothing is made in it before something is added
        :param passing: the fallback will not stay for long
        :raises FilesystemError: they can neither be made nor are they refused: a full disk, a file in the way, ...
        """
        deadline = time.monotonic() + SETTLING
        while self._is_refused():
            if time.monotonic() >= deadline or not sharing.is_ours_too(self.root):
                self.below = self.root
                self._be_at(fallback)
                if not passing:
                    self.memory = fallback
                return
            time.sleep(0.02)  # another of the group may be making them just now

    def _is_refused(self) -> bool:
        try:
            self.prepare()
        except FilesystemError as error:
            if not error.is_refusal:
                raise
            return True
        return not all(os.access(path, os.W_OK | os.X_OK) for path in (self.wheels, self.tmp))

    def prepare(self) -> None:
        """Make the directories.

        :raises FilesystemError: they are not there and cannot be made
        """
        for path in (self.wheels, self.tmp, self.locks):
            try:
                os.makedirs(path, exist_ok=True)
            except OSError as error:
                raise FilesystemError(
                    "create", path, error, hint="name another cache directory with --cache-dir"
                ) from error
        group = sharing.bits(self.root)
        for path in (f"{self.root}/v1", self.wheels, self.tmp, self.locks) if group else ():
            sharing.grant(path, group)
        tag = f"{self.root}/CACHEDIR.TAG"
        try:
            descriptor = os.open(tag, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError:
            return  # it is there already, or only backup programs will miss it
        sharing.grant(tag, group)
        try:
            os.write(descriptor, _TAG)
        except OSError:
            pass  # as above
        finally:
            os.close(descriptor)

    def path(self, sha256: str) -> str:
        """Return the directory of an entry, which need not exist.

        :raises ValueError: that is no sha256
        """
        if self.below is not None and self._is_below(sha256):
            return f"{self.below}/v1/wheels/{sha256.lower()}"
        return self._place(sha256)

    def _place(self, sha256: str) -> str:
        """Return where an entry is made."""
        if not is_sha256(sha256):
            raise ValueError(f"not a sha256: {sha256!r}")
        return f"{self.wheels}/{sha256.lower()}"

    def _is_below(self, sha256: str) -> bool:
        """Tell whether the store that cannot be written has an entry that can be used."""
        if not is_sha256(sha256) or sha256.lower() in self.shunned:
            return False
        try:
            _load(f"{self.below}/v1/wheels/{sha256.lower()}", sha256)
        except (OSError, ValueError):
            return False
        return True

    def get(self, sha256: str, *, lazily: bool = False) -> Manifest | None:
        """Read the manifest of an entry; None if there is none that can be used.

        :param lazily: as for `manifest.load`
        """
        try:
            return _load(self.path(sha256), sha256, lazily=lazily)
        except (OSError, ValueError):
            return None  # absent, damaged and unreadable come to the same: it has to be fetched

    def filename(self, sha256: str) -> str | None:
        """Return the file name of the wheel that an entry was unpacked from; None if there is no such entry."""
        manifest = self.get(sha256)
        return None if manifest is None else manifest.filename

    def touch(self, sha256: str) -> None:
        """Note that an entry is being used now."""
        try:
            os.utime(self.path(sha256))
        except OSError:
            pass  # read-only, or somebody else's: it will seem to be older than it is

    def discard(self, sha256: str) -> None:
        """Remove an entry: out of sight at once, then for good. Having nothing to remove is no error.

        :raises FilesystemError: it is there and cannot be removed
        """
        if self.below is not None and self._is_below(sha256):
            self.shunned.add(sha256.lower())
            return
        self.discard_path(self._place(sha256))

    @contextmanager
    def replacing(self, hashes: Iterable[str]) -> Iterator[None]:
        """Remove poisoned entries, to be added anew meanwhile; what environments link to comes back if that fails.

        An environment that links directories of such an entry (`envsync.cache.users`) had better have a changed file
        than none at all. It has none while the entry is fetched.

        :raises FilesystemError: one is there and cannot be removed
        """
        from envsync.cache import users

        linked: set[str] | None = None
        with suppress(FilesystemError):  # if it cannot be found out, any may be
            linked = users.used(self.root)
        aside: dict[str, str] = {}
        try:
            for sha256 in hashes:
                is_ours = self.below is None or not self._is_below(sha256)
                if is_ours and (linked is None or sha256.lower() in linked):
                    aside[self._place(sha256)] = self._put_aside(self._place(sha256), "replaced")
                else:
                    self.discard(sha256)
            yield
        except BaseException:
            for path, kept in aside.items():
                with suppress(OSError):
                    move_entry(kept, path)
            raise
        finally:
            for kept in aside.values():
                remove_tree(kept)

    def discard_path(self, path: str) -> None:
        """Remove something from the store, whatever it is, as `discard`.

        :raises FilesystemError: it is there and cannot be removed
        """
        remove_tree(self._put_aside(path))

    def _put_aside(self, path: str, purpose: str = DISCARDED) -> str:
        """Take something out of everybody's sight, as `discard`. Returns where it is now, if it is still anywhere."""
        aside = self.staging(purpose)
        if not os.path.lexists(path):
            return aside  # somebody else did it
        try:
            os.makedirs(self.tmp, exist_ok=True)
            set_aside(path, aside)
        except FileNotFoundError:
            pass  # as above, just now
        except OSError as error:
            refused = FilesystemError("remove", path, error)
            if refused.is_refusal:
                refused.hint = "let its owner run `envsync cache verify`, or name another cache with --cache-dir"
            raise refused from error
        return aside

    def add(self, wheel: str, artifact: Artifact, *, checkpoint: Callable[[], object] = lambda: None) -> Manifest:
        """Verify a wheel and unpack it into the store. Of an error nothing is left behind.

        Any number of threads and processes may add the same wheel at once.

        :param wheel: the path of the wheel, whatever its name
        :param checkpoint: called every few milliseconds; whatever it raises ends the work
        :raises WheelError: it is not what `artifact` says (`HashMismatchError`), or not sound
        :raises FilesystemError: it cannot be read, or the store cannot be written
        """
        with _opened(wheel) as descriptor:
            before = _status(descriptor, wheel)
            sha256 = _verify(descriptor, before, wheel, artifact, checkpoint)
            manifest = self.get(sha256)
            if manifest is not None:
                check_identity(manifest, artifact)
                return manifest
            with self._staged() as directory:
                from envsync.cache.unpack import unpack

                manifest = unpack(descriptor, artifact.filename, sha256, directory, checkpoint=checkpoint)
                check_identity(manifest, artifact)
                if _state(_status(descriptor, wheel)) != _state(before):
                    raise WheelError(artifact.filename, f"`{wheel}` changed while it was read")
                return self._publish(directory, manifest)

    def sweep(self) -> int:
        """Remove what was abandoned more than a day ago; return how many things that were."""
        removed = 0
        for path in self._unfinished():
            try:
                if time.time() - os.lstat(path).st_mtime < ABANDONED:
                    continue
            except OSError:
                continue  # gone meanwhile
            remove_tree(path)
            removed += 1
        return removed

    def _unfinished(self) -> Iterator[str]:
        """Name what is in tmp, and the temporary files of what is written beside its place."""
        beside = [
            (f"{self.root}/v1/{kind}", replace.SUFFIX) for kind in ("interpreters", "skeletons", "targets", "users")
        ]
        for directory, suffix in ((self.tmp, ""), *beside):
            try:
                names = os.listdir(directory)
            except OSError:
                continue  # nothing there, or nothing that we may see
            yield from (f"{directory}/{name}" for name in names if name.endswith(suffix))

    def staging(self, purpose: str) -> str:
        """Return a path in tmp that nobody else on any host uses."""
        return f"{self.tmp}/{purpose}-{os.urandom(12).hex()}"

    def _read(self, sha256: str) -> Manifest:
        return _load(self.path(sha256), sha256)

    @contextmanager
    def _staged(self) -> Iterator[str]:
        """Make a directory in tmp that is gone in the end, unless it was renamed."""
        directory = self.staging("unpack")
        try:  # around mkdir, too: a signal may end it just after
            try:
                os.mkdir(directory)
            except OSError as error:
                raise FilesystemError("create", directory, error) from error
            yield directory
        finally:
            remove_tree(directory)

    def _publish(self, directory: str, manifest: Manifest) -> Manifest:
        """Rename an entry into place, or use the one that is there."""
        path = self._place(manifest.sha256)
        sharing.grant_tree(directory, sharing.bits(self.root))
        if self.durable:
            disk.sync_filesystem(self.tmp)
        for _ in range(10):
            try:
                move_entry(directory, path)
            except OSError as error:
                if error.errno not in OCCUPIED:
                    raise FilesystemError("create", path, error) from error
            else:
                return manifest
            theirs = self._get_patiently(manifest.sha256)
            if theirs is not None:
                return theirs
            self.discard(manifest.sha256)
        raise FilesystemError("replace", path, FileExistsError(errno.EEXIST, "it keeps coming back damaged"))

    def _get_patiently(self, sha256: str) -> Manifest | None:
        """Read an entry that another host may have made just now: caches may hide it for a while."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._read(sha256)
            except ValueError:
                return None  # damaged: waiting does not help
            except OSError:
                if time.monotonic() >= deadline or not os.path.lexists(self.path(sha256)):
                    return None
                time.sleep(0.05)


def _load(entry: str, sha256: str, *, lazily: bool = False) -> Manifest:
    with open(f"{entry}/{NAME}", "rb", buffering=0) as stream:
        manifest = load(stream.read(), lazily=lazily)
    if manifest.sha256 != sha256.lower():
        raise ValueError(f"the manifest of {manifest.sha256}")
    return manifest


def set_aside(path: str, aside: str) -> None:
    """Take something out of everybody's sight by one rename, or where that does not work by removing it in place.

    :raises OSError: neither works
    """
    try:
        replace.move(path, aside)
    except OSError as error:
        if error.errno not in _IN_PLACE and not replace.is_refused_directory(path, error):
            raise
        # Without its manifest it is not used.
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(f"{path}/{NAME}")
        remove_tree(path)
        if os.path.lexists(path) and not os.path.isdir(path):
            raise


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


def is_sha256(text: str) -> bool:
    """Tell whether that may be the key of an entry: lock files can say anything."""
    return len(text) == 64 and not text.strip("0123456789abcdefABCDEF")


@contextmanager
def _opened(wheel: str) -> Iterator[int]:
    try:
        descriptor = os.open(wheel, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise FilesystemError("open", wheel, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _verify(
    descriptor: int, status: os.stat_result, wheel: str, artifact: Artifact, checkpoint: Callable[[], object]
) -> str:
    """Compare the wheel's bytes with all that the lock file says of them; return their sha256."""
    if not stat.S_ISREG(status.st_mode):
        raise WheelError(artifact.filename, f"`{wheel}` is not a file")
    if artifact.size is not None and artifact.size != status.st_size:
        raise WheelError(
            artifact.filename,
            f"{origin(artifact)} has {status.st_size} bytes, but the lock file says {artifact.size}",
        )
    hashers = _hashers(artifact)
    position = 0
    while True:
        checkpoint()
        try:
            data = os.pread(descriptor, 1024 * 1024, position)
        except OSError as error:
            raise FilesystemError("read", wheel, error) from error
        if not data:
            break
        position += len(data)
        for hasher in hashers.values():
            hasher.update(data)
    got = {name: hasher.hexdigest() for name, hasher in hashers.items()}
    _compare(got, artifact)
    return got["sha256"]


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
            raise WheelError(artifact.filename, f"the lock file has a hash of an unknown kind for it: {name}")
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
        hint="if the file was meant to change, lock again; if not, ask whoever publishes it",
    )


def _status(descriptor: int, wheel: str) -> os.stat_result:
    try:
        return os.fstat(descriptor)
    except OSError as error:
        raise FilesystemError("read", wheel, error) from error


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def move_entry(directory: str, path: str) -> None:
    """Put an entry in place: all at once, or where directories cannot be renamed, its manifest last.

    :raises OSError: it cannot be moved, or something is there
    """
    try:
        replace.move(directory, path)
    except OSError as error:
        if not replace.is_refused_directory(directory, error):
            raise
        if os.path.lexists(f"{path}/{NAME}"):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        # Whoever else does the same moves files of the same content, so one that is there is as good as ours.
        replace.move_tree(directory, path, last=NAME)


def remove_tree(path: str) -> None:
    """Remove a file or a tree in tmp as far as possible; what stays is not read by anybody and swept later."""
    import shutil

    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        if os.path.isdir(path):  # directories of it may be sealed (`envsync.transaction.sealing`)
            for directory, names, _ in os.walk(path):
                for name in names:
                    _make_writable(f"{directory}/{name}")
            shutil.rmtree(path, ignore_errors=True)


def _make_writable(path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            os.chmod(path, 0o700)
    except OSError:
        pass  # removing it will show whether that was needed
