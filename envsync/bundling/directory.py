"""What is in a bundle, and how it gets there.

    <bundle>/pylock.toml                        the bundle: a lock file (PEP 751) that names wheels by path and hash
    <bundle>/wheels/<16 of the sha256>/<name>   the wheels
    <bundle>/bytecode/<16 of the wheel's sha256>/<cache tag>.zip    its bytecode for one kind of Python, if asked for
    <bundle>/versions/<16 of the sha256>.toml   each pylock.toml so far; its time: when it last was the one
    <bundle>/.lock                              shared by who adds, exclusive for who removes
    <bundle>/.tmp/                              what is being written, and leftovers

Invariants:

- Wheels appear by one rename, whole and verified, and never change. One whose bytes turn out to be others is replaced
  by one that has the right ones.
- So does bytecode. Who packs the same wheel for the same Python has the same bytes, so that two writers have no
  quarrel; should one's zlib pack it otherwise, the later file stays, and nodes that have read the other's pylock.toml
  compile: bytecode that is not what a lock file says is as good as none.
- pylock.toml is replaced by one rename, once all that it names is there. So whoever has read it has one version whole,
  before, during and after an update, and whoever writes is killed at any moment without harm.
- Only a prune removes. It keeps what the present pylock.toml names, or one that was replaced in the last seven days:
  whoever has read that one still finds its wheels. It also keeps what was added or asked for as lately, so that the
  wheels of one who is still writing stay where no lock works.
- Readers take no lock and write nothing. Writers exclude nobody but who removes: of two that write at once, both have
  their version whole, and the later one stays.

After a crash there are leftovers in `.tmp`, and wheels that no pylock.toml names; `prune` removes both, and the next
writer what is in `.tmp` for more than a day.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import suppress

from envsync.errors import FilesystemError, UsageError
from envsync.errors.hints import UPGRADE
from envsync.launch.request import BUNDLE
from envsync.lockfile.bundled import BYTECODE, LETTERS
from envsync.system import atomic, groups, paths

LOCK_FILE = "pylock.toml"
FORMAT = 1
"""What a pylock.toml says of the directory that it is in. Whoever installs from it need not know."""
KEPT_SECONDS = 7 * 86400.0
"""For how long a version stays usable once it was replaced."""
LEFTOVER_SECONDS = 86400.0

_FORMAT = re.compile(re.escape(BUNDLE) + rb"format = (\d+)\n")


class Bundle:
    """The paths of one bundle.

    :param root: its directory
    """

    def __init__(self, root: str) -> None:
        self.root = paths.abspath(root)
        self.lock_file = f"{self.root}/{LOCK_FILE}"
        self.wheels = f"{self.root}/wheels"
        self.bytecode = f"{self.root}/{BYTECODE}"
        self.versions = f"{self.root}/versions"
        self.lock = f"{self.root}/.lock"
        self.tmp = f"{self.root}/.tmp"

    def prepare(self) -> None:
        """Make the directories, and remove leftovers.

        :raises FilesystemError: they cannot be made
        """
        group = groups.bits(self.root)
        for path in (self.root, self.wheels, self.versions, self.tmp):
            try:
                atomic.make_directory(path)
            except OSError as error:
                raise FilesystemError("create", path, error) from error
            group = group or groups.bits(self.root)
            groups.grant(path, group)
        self.sweep()

    def sweep(self) -> None:
        """Remove what was left in `.tmp` more than a day ago."""
        try:
            with os.scandir(self.tmp) as entries:
                found = [(entry.path, entry.stat(follow_symlinks=False).st_mtime) for entry in entries]
        except OSError:
            return  # there is none, or somebody else sweeps it
        for path, mtime in found:
            if mtime < time.time() - LEFTOVER_SECONDS:
                atomic.discard_tree(path)

    def staging(self, kind: str) -> str:
        """Return a path in `.tmp` that is nobody else's."""
        return f"{self.tmp}/{kind}-{os.getpid()}-{os.urandom(8).hex()}"

    def version(self, text: bytes) -> str:
        """Return where a lock file is kept."""
        return f"{self.versions}/{hashlib.sha256(text).hexdigest()[:LETTERS]}.toml"

    def present(self) -> bytes | None:
        """Return the lock file; None if there is none.

        :raises FilesystemError: it cannot be read
        :raises UsageError: a newer envsync has made the bundle
        """
        text = atomic.read_if_there(self.lock_file)
        found = _FORMAT.search(text or b"")
        if found and int(found[1]) > FORMAT:
            raise UsageError(f"bundle `{self.root}` has format {found[1].decode()}", hint=UPGRADE)
        return text

    def publish(self, text: bytes, *, durable: bool = False) -> bool:
        """Make a lock file the bundle's. All that it names is there.

        :returns: whether it is another one than before
        :raises FilesystemError: it cannot be written; the former one is untouched
        :raises UsageError: the former one is a newer envsync's; likewise
        """
        before = self.present()
        for version in {before or text, text}:
            self._keep(version)  # so each is known, whoever else replaces it meanwhile
        if before == text:
            return False
        if durable:
            atomic.sync_filesystem(self.root)
        self._write(self.lock_file, text, durable=durable)
        return True

    def _keep(self, text: bytes) -> None:
        """Keep a version, and note that it was the present one until now."""
        path = self.version(text)
        if atomic.read_if_there(path) != text:
            self._write(path, text)
            return
        with suppress(OSError):  # another user's: it was written no longer ago than it was replaced
            os.utime(path)

    def _write(self, path: str, text: bytes, *, durable: bool = False) -> None:
        atomic.write(path, text, durable=durable)
        groups.grant(path, groups.bits(self.root))


def place_of(sha256: str, filename: str) -> str:
    """Return where a wheel is in a bundle, relative to it."""
    return f"wheels/{sha256[:LETTERS]}/{filename}"


def existing(root: str) -> tuple[Bundle, bytes]:
    """Return a bundle that is there, and its lock file.

    :raises UsageError: there is none, or a newer envsync has made it
    :raises FilesystemError: it cannot be read
    """
    bundle = Bundle(root)
    text = bundle.present()
    if text is None or BUNDLE not in text:
        hint = "make one: `envsync bundle --to bundle`"
        raise UsageError(f"`{root}` is no bundle: it has no {LOCK_FILE} of one", hint=hint)
    return bundle, text
