"""An environment in which nobody has been served yet goes again, if its first sync comes to nothing.

A request may be refused when its environment has a lock and nothing else: what is in the lock file is found out by the
leader, once for all who wait. A directory with `.lock` and `.envsync` in it is no environment for anybody, and in its
way of other tools: uv refuses to work where it is. So what was made for a sync that ends with an error, or is
interrupted, is removed by the last one who wanted it.

What may be removed. `<env>/.envsync/bare` is there from the making of `.envsync`, in a directory that has no more than
that, until just before the first stamp. It is a directory of empty files, each of which says one thing by its name,
so that many who come at once add what each knows and nobody overwrites what others have said: `missing-N`, how many
directories were missing, the environment's own and those above it (the largest N counts, and without any the mark is
not finished); `spared-NAME`, what was there before; `skeleton`, that the leader has begun to make one.
An environment is bare if it has this mark and neither stamp, journal nor entries in `installed.json`,
if nobody holds its in-use lock, and if nothing is in it but what a leader makes before the first package: the skeleton
of a virtual environment, all or part of it, and our own files. What is there besides is somebody's, and everything
stays. So does a directory that was there before, empty as it was (uv fills an empty one).

Who removes it. Everybody who waits, or is about to lead, holds `<env>/.envsync/wanted` shared until it leads or is
served or leaves; a virtual environment without the mark needs none of this. Whoever leaves in vain
(the leader with its error while it holds the environment lock; a waiter that got the same error, that gave up, or was
interrupted, after it has let `wanted` go) tries this, and waits nowhere:

1. take the environment lock, or leave: who holds it leaves after us, or serves;
2. take `wanted` exclusively. If somebody holds it, let the environment lock go and look once more: if it is still
   held, leave, for whoever holds it comes after us and finds the environment lock free; if not, begin at 1;
3. look whether the environment is bare, and remove it.

So as long as anybody who wanted it has not heard how it ended, `failure.json` is there to be read: fifty at once are
one attempt and fifty equal errors, and the fiftieth takes the directory along. The last one cannot be missed: it lets
`wanted` go before it tries, so if somebody else holds the environment lock just then, that one, having been kept out
of `wanted` by it, looks once more after it has let the environment lock go.

In which order. The skeleton, pyvenv.cfg first; our state; `.lock`; then `wanted`, `bare`, and the directories, each
only if it is empty. Both locks are held throughout.

- Two leaders there cannot be: the environment lock is unlinked by its holder, and whoever takes it looks whether
  its path still names it (`Flock.is_in_place`), and begins again if it does not.
- A newcomer finds the old `wanted`, which is locked, or is unlinked when it gets it, and tries again; or no directory,
  and makes it; or, between two unlinks, what is left of the directory: it makes its own `wanted` in it, and the
  directory is not empty any more and stays, with a new mark. What it adds to the mark is either counted, or keeps the
  mark's directory from being removed.
- Who leaves makes `.lock` only with `wanted` in hand, so never in what another one is just removing.
- SIGKILL in between leaves the mark and part of the skeleton, which the next command fills, or removes as it would
  have been; or an empty `.envsync`, or an empty directory. The kernel frees the locks.
- uv waits for `.lock` only where there is a whole virtual environment: if somebody is blocked on it (proc(5),
  /proc/locks), the environment stays, and is served to them.

Not covered: locks that are leases, or where shared locks do not work. There, what was made stays, the mark, too:
`wanted` tells nobody who waits, and the list of those who do has none before they have waited for a while. To remove
what they wait for would take the failure from under them, and each would try once more. Only what was refused for its
locks, before anybody had decided how to lock, goes again: nobody has led there, so nobody waits to hear how it ended.
Who decides at that moment makes its lease, by which `.envsync` stays; it does without the mark and makes `.lock` anew.
A uv of another host that waits for the lock finds the environment gone. Whoever was started before an attempt failed,
but comes when the last who waited for it has left, tries once more.
"""

from __future__ import annotations

from envsync.launch import command
from envsync.locks import flock, kind
from envsync.locks.flock import Flock
from envsync.system import core, native, processes

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from envsync.launch import Environment
    from envsync.locks.environment_lock import EnvironmentLock

SKELETON = ("pyvenv.cfg", core.BIN, native.INCLUDE, *native.LIBRARIES)
"""What a leader makes before the first package, the first thing to go first."""
TAGS = (".gitignore", "CACHEDIR.TAG")
PROGRAMS = ("activate", "python", "pypy", "\N{MATHEMATICAL ITALIC SMALL PI}thon")
"""How the names begin of what `venv` puts into bin."""
TRIES = 100
"""How often a mark is removed to which others add meanwhile."""


class _Mark:
    """What a mark says.

    :ivar names: of its files
    """

    __slots__ = ("missing", "names", "skeleton", "spared")

    def __init__(self, names: list[str]) -> None:
        """:raises ValueError: it is not finished"""
        numbers = [name.removeprefix("missing-") for name in names]
        self.missing = max(int(number) for number in numbers if number.isdecimal())
        self.names = names
        self.skeleton = "skeleton" in names
        self.spared = frozenset(tag for tag in TAGS if f"spared-{tag}" in names)


def mark(environment: Environment, missing: int, there: Iterable[str] = ()) -> None:
    """Say that an environment is bare. Never fails: then it stays as it is.

    :param missing: how many directories were missing, the environment's own and those above it
    :param there: the names that were in it
    """
    spared = [f"spared-{name}" for name in TAGS if name in set(there)]
    try:
        os.mkdir(environment.bare)
    except OSError:
        pass  # others have made it, or `_say` fails, too
    try:
        _say(environment, *spared, f"missing-{missing}")  # last: from then on it counts
    except BaseException:  # an interrupt
        try:
            os.rmdir(environment.bare)
        except OSError:
            pass  # others have said something
        raise


def mark_again(environment: Environment) -> None:
    """Say it of a directory that was left with nothing but our own in it, and without a mark. The lock is held."""
    if _read(environment) is not None or _is_there(environment.config):
        return
    try:
        names = os.listdir(environment.path)
    except OSError:
        return
    if set(names) <= {".lock", ".envsync", *TAGS} and not _has_been_synced(environment):
        mark(environment, 0, names)


def announce_skeleton(environment: Environment) -> None:
    """Say that whatever skeleton there is from now on is the leader's. The lock is held."""
    if is_marked(environment):
        _say(environment, "skeleton")


def serve(environment: Environment) -> None:
    """Keep an environment for good: it has been synced, and is about to get its stamp. The lock is held."""
    _discard(environment.wanted)  # it is made, too, where an environment without a mark is made anew
    if is_marked(environment):
        from envsync.system import atomic

        atomic.discard_tree(environment.bare)


def is_marked(environment: Environment) -> bool:
    """Tell whether an environment may be bare."""
    return _is_there(environment.bare)


def may_go(environment: Environment) -> bool:
    """Tell whether an environment may be removed if nobody wants it: it is not one, or has the mark."""
    return is_marked(environment) or not _is_there(environment.config)


def want_nowait(environment: Environment) -> Flock | None:
    """Keep others from removing an environment. Returns None if somebody is about to: look again soon.

    :raises LockingError: there are no shared locks here, and so nothing is removed
    :raises FilesystemError: there is no such directory, or nothing can be made in it
    """
    lock = flock.acquire_nowait(environment.wanted, shared=True)
    if lock is not None and not lock.is_in_place():
        lock.release()
        return None
    return lock


def leave(environment: Environment, lock: EnvironmentLock | None = None) -> None:
    """Remove an environment that is bare and that nobody wants any more. Waits for nobody, never fails.

    :param lock: the environment lock, if the caller holds it; it is released in any case
    """
    own = lock
    try:
        while is_marked(environment):
            own = own if isinstance(own, Flock) and own.fd >= 0 else _lock_nowait(environment)
            if own is None or _is_over(environment, own):
                return
            own.release()
            if not _is_there(environment.wanted) or _is_held(environment.wanted):
                return  # who wants it leaves after us, or who held it is just removing all
    except Exception as error:
        from envsync.errors import EnvsyncError, LockingError

        if not isinstance(error, (OSError, EnvsyncError)):
            raise
        if isinstance(error, LockingError):
            _remove_undecided(environment)
        # What cannot be removed stays: the error to tell is the one that we leave with.
    finally:
        for held in (own, lock):
            if held is not None:
                held.release()


def _lock_nowait(environment: Environment) -> Flock | None:
    """Take the environment lock, if it is one that excludes.

    :raises LockingError: nobody has decided how to lock, and flock would not exclude
    """
    recorded = kind.read(environment)
    if recorded is None:
        from envsync.system import mounts

        if local := mounts.local_flock(environment.state):
            from envsync.errors import LockingError

            raise LockingError(f"flock stays within the node ({local})")
    elif recorded.kind != kind.FLOCK or not recorded.in_use:
        return None
    if not _is_there(environment.lock) and not _make_lock(environment):
        return None
    return flock.acquire_nowait(environment.lock, shared=False, create=False)


def _make_lock(environment: Environment) -> bool:
    """Make `.lock` where nobody has led, but not where somebody is just removing all, who has `wanted` in hand."""
    alone = flock.acquire_nowait(environment.wanted, shared=False)
    if alone is None:
        return False
    try:
        if not alone.is_in_place():
            return False
        command.close_unlocked(flock.open_file(environment.lock, shared=False, create=True))
        return True
    finally:
        alone.release()  # before the lock is taken: who holds that one looks once more whether we hold this one


def _is_over(environment: Environment, lock: Flock) -> bool:
    """Remove the environment if it is bare. False: somebody else wants it."""
    recorded = kind.read(environment)
    if not lock.is_in_place() or (recorded is not None and not recorded.in_use):
        return True
    alone = flock.acquire_nowait(environment.wanted, shared=False)
    if alone is None:
        return False
    try:
        said = _read(environment)
        if said is None or not alone.is_in_place() or not _is_bare(environment, said):
            return True
        if not processes.is_waited_for(environment.lock):
            _remove(environment, lock, said)
        return True
    finally:
        alone.release()


def _is_bare(environment: Environment, said: _Mark) -> bool:
    """Tell whether nobody has been served in an environment, and nothing in it is anybody's."""
    if _has_been_synced(environment) or _is_held(environment.in_use):
        return False
    names = set(os.listdir(environment.path)) - {".lock", ".envsync", *TAGS}
    if not names:
        return True
    return said.skeleton and names <= set(SKELETON) and _is_plain_skeleton(environment)


def _has_been_synced(environment: Environment) -> bool:
    if any(map(_is_there, (environment.stamp, environment.draining, environment.journal))):
        return True
    if not _is_there(environment.installed):
        return False
    from envsync.installed.ledger import load_ledger

    return bool(load_ledger(environment).entries)


def _is_held(path: str) -> bool:
    """Tell whether somebody holds a lock. Nobody does if its file is missing."""
    if not _is_there(path):
        return False
    lock = flock.acquire_nowait(path, shared=False, create=False)
    if lock is None:
        return True
    lock.release()
    return False


def _is_plain_skeleton(environment: Environment) -> bool:
    """Tell whether there is nothing in a skeleton but what `venv` makes without pip, and stages of ours."""
    import os

    if any(not name.lower().startswith(PROGRAMS) for name in _names(environment.bin)):
        return False
    for top in (native.INCLUDE, native.LIBRARIES[0]):
        for directory, names, files in os.walk(f"{environment.path}/{top}"):
            if files or any(os.path.islink(f"{directory}/{name}") for name in names):
                return False
            if ".envsync" in names:
                names.remove(".envsync")
    return True


def _remove(environment: Environment, lock: Flock, said: _Mark) -> None:
    """Remove a bare environment. Both locks are held.

    :param said: what its mark says
    """
    from envsync.system import atomic

    for name in (*SKELETON, *(tag for tag in TAGS if tag not in said.spared)):
        if not lock.is_in_place():
            return  # we were stopped, and the environment was replaced: what is there now is not ours
        atomic.discard_tree(f"{environment.path}/{name}")
    for name in set(os.listdir(environment.state)) - {"bare", "wanted"}:
        if not lock.is_in_place():
            return
        atomic.discard_tree(f"{environment.state}/{name}")
    left = set(os.listdir(environment.path)) - {".lock", ".envsync", *said.spared}
    if left or not lock.is_in_place():
        return  # something resisted, or the environment was replaced
    _remove_directories(environment, said)


def _remove_directories(environment: Environment, said: _Mark) -> None:
    """Remove what is left: the locks, the mark and the directories. Others may come in between, and add to the mark."""
    missing, spared = said.missing, said.spared
    for path in (environment.lock, environment.wanted):
        _discard(path)
    for _ in range(TRIES):
        for name in said.names:  # what was read, and no more
            _discard(f"{environment.bare}/{name}")
        try:
            os.rmdir(environment.bare)
            break
        except OSError:
            added = _read(environment)
            if added is None:
                break
            said, missing = added, max(missing, added.missing)
    remove_directories(environment.path, environment.state, missing)
    if _is_there(environment.state):  # somebody has come in between: what was made for us was made for them
        mark(environment, missing, spared)


def _remove_undecided(environment: Environment) -> None:
    """Remove an environment that cannot be locked, and in which nobody has ever decided how: so nobody has led there.

    Whoever decides at this moment makes a file in `.envsync`, which is then not empty, and stays.
    """
    said = _read(environment)
    if said is None or not set(_names(environment.path)) <= {".lock", ".envsync", *said.spared}:
        return
    if set(_names(environment.state)) <= {"bare", "wanted"}:
        _remove_directories(environment, said)


def remove_directories(path: str, state: str, missing: int) -> None:
    """Remove directories that were made for nothing, if they are empty.

    :param missing: how many were missing, of the environment's own and those above it
    """
    below, path = [state], plain(path)
    for _ in range(missing):
        if not path:
            break  # a mark that is damaged names more than there can be
        below.append(path)
        path = plain(path.rpartition("/")[0])
    for directory in below:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue  # it was never made
        except OSError:
            return  # it is not empty: somebody uses it


def plain(path: str) -> str:
    """Leave out what a path ends with that names the same directory again: `/` and `/.`."""
    while path.endswith(("/", "/.")):
        path = path.rpartition("/")[0]
    return path


def _say(environment: Environment, *names: str) -> None:
    """Add to the mark."""
    for name in names:
        try:
            os.close(core.open_file(f"{environment.bare}/{name}", os.O_WRONLY | os.O_CREAT, 0o666))
        except OSError:
            return  # then the environment stays


def _read(environment: Environment) -> _Mark | None:
    """Read the mark; None if there is none, or none that is finished."""
    try:
        return _Mark(_names(environment.bare))
    except ValueError:
        return None


def _discard(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # gone already, or it resists


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError:
        return False
    return True
