"""The journal: the ordered steps of a decided commit, and their redo, which is also how they are done at first.

The rules, in the order in which they matter:

1. The journal is written to a temporary file, ends in a checksum, and is renamed into place. From that rename on
   the commit is decided: whoever comes next finishes it. A journal without its checksum was never decided.
2. Doing the steps and redoing them after a crash is one and the same function, `apply`, and may be repeated: a
   step whose source is gone was done.
3. A step touches only what it was decided for. What goes is recognized by inode, size and mtime (a directory by its
   inode: what is compiled inside meanwhile changes its mtime), and what comes is put only where nothing is.
   Anything else was made by somebody else since; it is left, and reported as left, and the plan is made again from
   what is really there.
4. rename(2) of two hard links of one file onto each other does nothing and reports success. So where source and
   destination of a placement are one inode, the source is unlinked instead.
5. Where directories cannot be renamed, and on Windows always, they are moved file by file, which may be repeated, too:
   that one is gone is marked by a directory in its place in the trash after its last file was moved, that one comes by
   a directory in the workspace before its first file is.
6. The stamp is gone before the first step and written after the journal is removed.
7. With `--durable` stage, journal, steps and stamp reach the disk in this order (`envsync.system.atomic`); without,
   what a lost node leaves is undefined.

State after a crash: before the journal's rename, the environment is as it was and a stage lies about; after it,
every entry is wholly old, in the trash, or wholly new, and `apply` leads to the new state; after the journal is
removed, the environment is new but for the stamp, which the next leader writes.

A journal is believed no further than its environment goes, whoever has written it: one with a path that is absolute,
has `..` in it or is of the protocol's own files counts as damaged, and so as absent; and a step that a symbolic link
would lead out of the environment is not taken, as if somebody else's entry were there.

Not covered: somebody who changes the same entries while the steps are taken, without taking the environment lock
(pip does not). The look before each rename narrows that gap but cannot close it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from envsync.errors import EnvironmentRefusedError, FilesystemError
from envsync.errors.hints import UPGRADE
from envsync.launch import Environment
from envsync.launch.stamp import checksum, seal, unseal
from envsync.system import atomic, paths

FORMAT = 1


class Identity(NamedTuple):
    """By what an entry is recognized. Size and mtime of a directory are not part of it, for bytecode comes into it.

    But for the mtime of a .dist-info, which whoever installs over it makes anew, maybe with the inode of the old one.
    """

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str) -> Identity:
        """Look at an entry, not at what it links to.

        :raises OSError: there is none
        """
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            return cls(status.st_ino, 0, status.st_mtime_ns if path.endswith(".dist-info") else 0)
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class Remove(NamedTuple):
    """Rename `path` into the trash, if it is still what it was."""

    path: str
    identity: Identity
    trash: str


class Place(NamedTuple):
    """Rename `source` from the stage to `path`, if nothing is there."""

    source: str
    path: str


class Journal(NamedTuple):
    """A decided commit. All paths are relative to the environment."""

    workspace: str
    """The directory of stage and trash, removed when all is done."""
    steps: tuple[Remove | Place, ...]


def dump(journal: Journal) -> bytes:
    """Serialize a journal: a JSON value a line, and the seal.

    It is no record (`envsync.system.records`): an envsync that cannot read it takes the commit for one that was never
    decided, and throws the stage away, so it stays as those of before write it.
    """
    lines = [json.dumps({"format": FORMAT, "workspace": journal.workspace})]
    for step in journal.steps:
        if isinstance(step, Remove):
            identity = step.identity
            lines.append(
                json.dumps(["remove", step.path, identity.inode, identity.size, identity.mtime_ns, step.trash])
            )
        else:
            lines.append(json.dumps(["place", step.source, step.path]))
    return seal(("\n".join(lines) + "\n").encode())


def load(data: bytes, path: str) -> Journal | None:
    """Read a journal. Returns None if it is torn: then it was never decided. Or it makes no sense: nobody decided it.

    :raises EnvironmentRefusedError: it was written by a newer envsync, which has to finish it
    """
    try:
        head, *rest = (json.loads(line) for line in unseal(data).decode().splitlines())
        written = head["format"]
        if isinstance(written, int) and written > FORMAT:
            raise EnvironmentRefusedError(path, f"its journal has format {written}", hint=UPGRADE)
        return Journal(head["workspace"], tuple(_step(*fields) for fields in rest)) if written == FORMAT else None
    except atomic.SENSELESS:
        return None


def _step(kind: object, *fields: object) -> Remove | Place:
    """Make a step of what is in a journal.

    :raises ValueError: it is none
    """
    match kind, fields:
        case "remove", (str(path), int(inode), int(size), int(mtime_ns), str(trash)):
            return Remove(path, Identity(inode, size, mtime_ns), trash)
        case "place", (str(source), str(path)):
            return Place(source, path)
    raise ValueError("it is no step")


def is_confined(journal: Journal) -> bool:
    """Tell whether all paths of a journal are within the environment, as they are written, and none is the protocol's.

    What goes and comes is below the workspace, which is below a `.envsync`; nothing else is.
    """
    workspace = journal.workspace
    if not isinstance(workspace, str) or not _is_relative(workspace) or ".envsync" not in workspace.split("/")[:-1]:
        return False
    for step in journal.steps:
        aside = step.trash if isinstance(step, Remove) else step.source
        if not (aside.startswith(f"{workspace}/") and _is_relative(aside) and _is_relative(step.path)):
            return False
        if step.path == ".lock" or ".envsync" in step.path.split("/"):
            return False
    return True


def _is_relative(path: str) -> bool:
    return "\0" not in path and {"", ".", ".."}.isdisjoint(path.split("/"))


def is_within(env: str, path: str) -> bool:
    """Tell whether a path relative to an environment is in it when symbolic links are followed, the last one, too."""
    root = paths.realpath(env)
    return paths.realpath(f"{env}/{path}").startswith(root.rstrip("/") + "/")


def write(environment: Environment, journal: Journal, *, durable: bool = False) -> None:
    """Put the journal in place. When this returns the commit is decided.

    :param durable: force the stage to the disk first, then the journal
    """
    if durable:
        atomic.sync_filesystem(environment.path)
    atomic.write(environment.journal, dump(journal), durable=durable)


def read(environment: Environment) -> Journal | None:
    """Read the journal of an environment; None if there is none that was decided."""
    data = atomic.read_if_there(environment.journal)
    decided = None if data is None else load(data, environment.path)
    if decided is None or not is_confined(decided) or not is_within(environment.path, decided.workspace):
        return None
    return decided


def ledger_path(environment: Environment, journal: Journal) -> str:
    """Return where the `installed.json` of after the commit waits beside the stage."""
    return f"{environment.path}/{journal.workspace}/installed.json"


def finish(
    environment: Environment,
    journal: Journal,
    *,
    durable: bool = False,
    checkpoint: Callable[[], object] = lambda: None,
) -> tuple[str, ...]:
    """Take the steps, put the new `installed.json` in place, and remove the journal.

    :param durable: force the steps to the disk before the journal is removed
    :param checkpoint: called before each change; what it raises stops here, and the journal stays for who goes on
    :returns: the paths that are not as the steps assume, as `apply`
    :raises FilesystemError: the operating system refused something; the journal stays for the next leader
    """
    left = apply(environment, journal, checkpoint)
    checkpoint()
    atomic.rename_if_there(ledger_path(environment, journal), environment.installed)
    if durable:
        atomic.sync_filesystem(environment.path)
    atomic.remove(environment.journal)
    return left


def apply(
    environment: Environment, journal: Journal, checkpoint: Callable[[], object] = lambda: None
) -> tuple[str, ...]:
    """Take the steps, those that were taken before included.

    :param checkpoint: called before each step
    :returns: the paths that are not as the steps assume: they were left as they are
    :raises FilesystemError: the operating system refused a step; the journal has to stay
    """
    left = []
    os.makedirs(f"{environment.path}/{journal.workspace}/old", exist_ok=True)
    bounds = _Bounds(environment.path)
    for step in journal.steps:
        checkpoint()
        try:
            if not bounds.hold(step):
                taken = False
            elif isinstance(step, Remove):
                taken = _remove(environment.path, step)
            else:
                taken = _place(environment.path, journal.workspace, step)
        except OSError as error:
            raise FilesystemError("move", _named(error, f"{environment.path}/{step.path}"), error) from error
        if not taken:
            left.append(step.path)
    return tuple(left)


def _named(error: OSError, path: str) -> str:
    """Return the file that an error is about: the entry that was to be moved, or one below it."""
    return error.filename if isinstance(error.filename, str) and error.filename.startswith(f"{path}/") else path


class _Bounds:
    """The environment's bounds, which no step passes. Looks at each directory once, until something is moved there."""

    def __init__(self, env: str) -> None:
        self.env = env
        self.known: set[str] = set()

    def hold(self, step: Remove | Place) -> bool:
        """Tell whether no symbolic link leads a step out of the environment. The step is then taken."""
        paths = (step.path, step.trash if isinstance(step, Remove) else step.source)
        within = all(map(self._is_within, paths))
        moved = tuple(f"{path}/" for path in paths)
        self.known = {one for one in self.known if not f"{one}/".startswith(moved)}
        return within

    def _is_within(self, path: str) -> bool:
        above = path.rpartition("/")[0]
        if above and above not in self.known and not is_within(self.env, above):
            return False
        self.known.add(above)
        return True


def _remove(env: str, step: Remove) -> bool:
    trash = f"{env}/{step.trash}"
    try:
        present = Identity.of(f"{env}/{step.path}")
    except (FileNotFoundError, NotADirectoryError):
        if os.path.lexists(f"{trash}.parts"):
            os.makedirs(trash, exist_ok=True)
        return True
    if os.path.lexists(trash):
        return True  # it was done, and what is there now came later
    begun = os.path.lexists(f"{trash}.parts")  # file by file, and its mtime changes with each
    if present.inode != step.identity.inode if begun else present != step.identity:
        return False
    try:
        atomic.move_entry(f"{env}/{step.path}", trash)
    except OSError as error:
        if not atomic.is_refused_directory(f"{env}/{step.path}", error):
            raise
        atomic.move_tree(f"{env}/{step.path}", f"{trash}.parts")
        os.mkdir(trash)  # now it is done
    return True


def _place(env: str, workspace: str, step: Place) -> bool:
    source, destination = f"{env}/{step.source}", f"{env}/{step.path}"
    try:
        present = Identity.of(destination)
    except (FileNotFoundError, NotADirectoryError):
        return _move_in(env, workspace, step)
    try:
        staged = Identity.of(source)
    except FileNotFoundError:
        return True  # it was done
    if os.path.lexists(_begun(env, workspace, step)):
        return atomic.move_tree(source, destination)
    if staged != present or os.path.isdir(source):
        return False
    atomic.unlink(source)  # two names of one file: rename(2) would do nothing
    return True


def _move_in(env: str, workspace: str, step: Place) -> bool:
    """Place what is staged where nothing is."""
    source, destination = f"{env}/{step.source}", f"{env}/{step.path}"
    try:
        atomic.move_entry(source, destination)
    except (FileNotFoundError, NotADirectoryError):
        return not os.path.lexists(source)  # else the directory that it belongs in was taken away
    except OSError as error:
        if not atomic.is_refused_directory(source, error):
            raise
        os.makedirs(_begun(env, workspace, step), exist_ok=True)
        return atomic.move_tree(source, destination)
    return True


def _begun(env: str, workspace: str, step: Place) -> str:
    """Name the mark of a directory that is moved file by file."""
    return f"{env}/{workspace}/placing.{checksum(step.path.encode('utf-8', 'surrogateescape'))}"
