"""The store: one directory of unpacked, verified wheels, shared by processes, containers, users and hosts.

    <root>/CACHEDIR.TAG
    <root>/v1/wheels/<sha256>/   an entry (see `manifest`): made in tmp, renamed here whole, never changed again
    <root>/v1/tmp/               unpacks and downloads in progress, damaged entries on their way out
    <root>/v1/names/<project>/   the seconds that its entries have for their files (see `seconds`)
    <root>/v1/locks/             one lock per wheel; none of them is needed for safety

Invariants:

- An entry is there whole or not at all: it appears by one rename, with its manifest written before that.
  Whoever finds a directory without a manifest that can be read, found one that is being removed, or that
  somebody damaged.
- The key of an entry is the sha256 of the wheel that its files were unpacked from, computed here from the
  very bytes that were unpacked. An entry never becomes another one, so that readers need no lock.
- Populating needs no lock either: of two that add the same wheel, the first to rename wins and the other uses
  that entry (`envsync.store.publish`). It is read with patience for caches between hosts.

After a crash there are leftovers in tmp, which nobody reads, `sweep` removes after a day, and `clean` at
once (`envsync.store.trash`). After a lost node an entry may have files without their bytes: whoever links
compares size and mtime with the manifest and discards what does not fit.

Who removes entries holds `<root>/.lock` exclusively; whoever reads the store holds it shared. That is up to
the callers. The modification time of an entry's directory says when it was used last.

A store that cannot be written, somebody else's or on a read-only filesystem, is read all the same, and what it lacks
goes to another one (`Store.settle`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from envsync.errors import FilesystemError, WheelError
from envsync.store.directories import Directories
from envsync.store.trash import REPLACED
from envsync.system import core, groups
from envsync.system.patience import patiently
from envsync.wheel.manifest import NAME, Manifest, is_newer, is_sha256, load

if TYPE_CHECKING:
    from envsync.lockfile.target import Artifact

PATIENCE = 2.0
"""Seconds for which an entry that somebody just renamed into place may be unreadable on another host."""
SETTLED = 60.0
"""Seconds after which an entry was not put there just now, though the clocks of hosts and servers differ a little."""
SETTLING = 1.0
"""Seconds for which directories that a group shares may have no bits for the group: they are being made."""

NOWHERE = "/dev/null/envsync"
"""The cache of those who have none: nothing is ever there, and nobody can make it."""


class Store(Directories):
    """The content-addressed store below a cache directory.

    :param root: the cache directory; need not exist before `prepare`
    :param durable: force an entry to the disk before it gets its name
    :ivar root: the cache directory that is written to: another one than asked for once `settle` has fallen back
    :ivar below: the cache directory asked for, if it cannot be written to
    :ivar memory: the cache directory where it is remembered what is known of interpreters and lock files
    :ivar written: something that was missing was added, by this process or a child
    """

    def __init__(self, root: str, *, durable: bool = False) -> None:
        self.memory = root
        self.below: str | None = None
        self.written = False
        self.damaged_below: set[str] = set()
        """Entries in `below`, or bytecode of theirs, that are damaged, and cannot be removed."""
        self.damaged: dict[str, tuple[int, int]] = {}
        """By hash, what the damaged entries are known by that are about to be replaced."""
        self._may_hide = True
        """Whether an entry that cannot be read may be one that caches hide: no longer once it was none."""
        super().__init__(root, durable=durable)

    def settle(self, fallback: str, *, passing: bool = False) -> None:
        """Make the directories, or if that must not be, write what is missing below another directory.

        :param fallback: a cache directory; nothing is made in it before something is added
        :param passing: the fallback will not stay for long
        :raises FilesystemError: they can neither be made nor are they refused: a full disk, a file in the way, ...
        """
        deadline = time.monotonic() + SETTLING
        while self._is_refused():
            if time.monotonic() >= deadline or not groups.is_ours_too(self.root):
                self.below = self.root
                self.be_at(fallback)
                if not passing:
                    self.memory = fallback
                break
            time.sleep(0.02)  # another of the group may be making them just now
        self.mend()

    def move(self, root: str) -> None:
        """Forget all that is here, and be at another directory; nothing is made in it before something is added."""
        self.below = None
        self.be_at(root)

    def note_written(self) -> None:
        """Note that something was added that was missing."""
        self.written = True

    def _is_refused(self) -> bool:
        if self.root == NOWHERE:
            return True
        try:
            self.prepare()
        except FilesystemError as error:
            if not error.is_refusal:
                raise
            return True
        return not all(os.access(path, os.W_OK | os.X_OK) for path in (self.wheels, self.tmp))

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
        if not is_sha256(sha256) or sha256.lower() in self.damaged_below:
            return False
        try:
            patiently(_load, f"{self.below}/v1/wheels/{sha256.lower()}", sha256)
        except (OSError, ValueError):
            return False
        return True

    def get(self, sha256: str, *, lazily: bool = False) -> Manifest | None:
        """Read the manifest of an entry; None if there is none that can be used.

        :param lazily: as for `manifest.load`
        """
        try:
            return self._read(sha256, lazily=lazily)
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
            self.damaged_below.add(sha256.lower())
            return
        self.discard_path(self._place(sha256))

    @contextmanager
    def replacing(self, hashes: Iterable[str]) -> Iterator[None]:
        """Let damaged entries be added anew meanwhile: they are as good as absent.

        An environment that links directories of such an entry (`envsync.store.users`) had better have a changed file
        than none at all. So what is linked stays where it is until the new one is there to take its place
        (`envsync.store.publish`), and if none comes, it stays for good. What nobody links is removed at once.

        :raises FilesystemError: one is there and cannot be removed
        """
        from envsync.store import users

        linked: set[str] | None = None
        with suppress(FilesystemError):  # if it cannot be found out, any may be
            linked = users.used(self.root)
        staying = set()
        try:
            for sha256 in map(str.lower, hashes):
                is_ours = self.below is None or not self._is_below(sha256)
                if not is_ours or (linked is not None and sha256 not in linked):
                    self.discard(sha256)
                elif (identity := _identity(self._place(sha256))) is not None:  # else it is as good as absent already
                    self.damaged[sha256] = identity
                    staying.add(sha256)
            yield
        finally:
            for sha256 in staying:
                self.damaged.pop(sha256, None)

    def mend(self) -> None:
        """Put back what somebody was replacing who was killed; that takes no lock (`envsync.store.publish`)."""
        try:
            cut_off = [name for name in os.listdir(self.tmp) if name.startswith(REPLACED)]
        except OSError:
            return  # there is no such cache, or it is not for us to look into
        if cut_off:
            from envsync.store.publish import mend

            mend(self, cut_off)

    def discard_path(self, path: str) -> None:
        """Remove something from the store, whatever it is, as `discard`.

        :raises FilesystemError: it is there and cannot be removed
        """
        from envsync.store import trash

        trashed = self.staging(trash.PREFIX)
        trash.put_aside(path, trashed)
        trash.remove_tree(trashed)

    def add(self, wheel: str, artifact: Artifact, *, checkpoint: Callable[[], object] = lambda: None) -> Manifest:
        """Verify a wheel and unpack it into the store. Of an error nothing is left behind.

        Any number of threads and processes may add the same wheel at once.

        :param wheel: the path of the wheel, whatever its name
        :param checkpoint: called every few milliseconds; whatever it raises ends the work
        :raises WheelError: it is not what `artifact` says (`HashMismatchError`), or not sound
        :raises FilesystemError: it cannot be read, or the store cannot be written
        """
        from envsync.wheel import near, verify

        with verify.opened(wheel) as descriptor, ExitStack() as stack:
            before = verify.status_of(descriptor, wheel)
            copy = stack.enter_context(near.copy_of(before, self.tmp, lambda: self.staging("wheel")))
            keep = None if copy is None else partial(near.write, copy, directory=self.tmp)
            hashes = verify.verify(descriptor, before, wheel, artifact, checkpoint, hand_on=keep)
            sha256 = hashes["sha256"]
            manifest = self.get(sha256)
            if manifest is not None:
                verify.check_identity(manifest, artifact)
                verify.check_vouched(manifest, artifact, hashes)
                return manifest
            with self._staged() as directory:
                from envsync.wheel import seconds
                from envsync.wheel.unpack import unpack

                hint = None if verify.vouches(artifact, hashes) else verify.how_to_vouch(artifact)
                manifest = unpack(
                    descriptor if copy is None else copy,
                    artifact.filename,
                    sha256,
                    directory,
                    hint,
                    second_for=lambda name: seconds.take(self.root, name, sha256),
                    checkpoint=checkpoint,
                )
                verify.check_identity(manifest, artifact)
                if copy is None and verify.state(verify.status_of(descriptor, wheel)) != verify.state(before):
                    problem, hint = f"`{wheel}` changed while it was read", "run `envsync sync` again once it is whole"
                    raise WheelError(artifact.filename, problem, hint=hint)
                return self._publish(directory, manifest)

    def sweep(self) -> int:
        """Remove what was left over more than a day ago; return how many things that were."""
        from envsync.store import trash

        self.mend()
        return trash.sweep(self.root)

    def _read(self, sha256: str, *, lazily: bool = False) -> Manifest:
        path = self.path(sha256)
        damaged = self.damaged.get(sha256.lower())
        if damaged is not None and _identity(path) == damaged:
            raise ValueError("it is not what was put there")
        return patiently(_load, path, sha256, lazily=lazily)

    @contextmanager
    def _staged(self) -> Iterator[str]:
        """Make a directory in tmp that is gone in the end, unless it was renamed."""
        from envsync.store import trash

        directory = self.staging("unpack")
        try:  # around mkdir, too: a signal may end it just after
            try:
                os.mkdir(directory)
            except OSError as error:
                raise FilesystemError("create", directory, error) from error
            yield directory
        finally:
            trash.remove_tree(directory)

    def _publish(self, directory: str, manifest: Manifest) -> Manifest:
        """Rename an entry into place, or use the one that is there."""
        from envsync.store.publish import publish

        sha256 = manifest.sha256
        place = self._place(sha256)
        found = publish(self, directory, place, lambda: self._get_patiently(sha256), lambda: is_newer(place, load))
        return found or manifest

    def _get_patiently(self, sha256: str) -> Manifest | None:
        """Read an entry that another host may have made just now: caches may hide it for a while.

        What has long been there is not hidden, but empty: whoever purges a scratch filesystem leaves its directories.
        Nor is there time to wait for each of hundreds: once one was waited for in vain, the others are not.
        """
        deadline = time.monotonic() + (PATIENCE if self._may_hide else 0)
        while True:
            try:
                return self._read(sha256)
            except ValueError:
                return None  # damaged: waiting does not help
            except OSError:
                if not _is_new(self.path(sha256)):
                    return None
                if time.monotonic() >= deadline:
                    self._may_hide = False
                    return None
                time.sleep(0.05)


def _is_new(entry: str) -> bool:
    """Tell whether an entry may have been put there just now."""
    try:
        return time.time() - os.lstat(entry).st_mtime < SETTLED
    except OSError:
        return False


def _identity(entry: str) -> tuple[int, int] | None:
    """Return by what an entry is known to be the same one still: another one has another manifest."""
    try:
        status = os.stat(f"{entry}/{NAME}")
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _load(entry: str, sha256: str, *, lazily: bool = False) -> Manifest:
    descriptor = core.open_file(f"{entry}/{NAME}", os.O_RDONLY | core.NONBLOCK)
    try:
        data = os.read(descriptor, os.fstat(descriptor).st_size)  # in half the calls of a file object
    finally:
        os.close(descriptor)
    manifest = load(data, lazily=lazily)
    if manifest.sha256 != sha256.lower():
        raise ValueError(f"the manifest of {manifest.sha256}")
    return manifest
