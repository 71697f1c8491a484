"""Who waits, and whose turn it is next.

Whoever has waited for about a second puts its name into `<env>/.envsync/waiting/`: one small file each, locked by the
waiter for as long as it waits, so that a file whose lock is free belongs to nobody any more, on whatever host it was.
`envsync status` shows them, and they make the order fair:

Nobody queues for the environment lock itself: waiters try it now and then, and any of them may get it. With three or
more digests in demand, one that few ask for could lose every time. So a leader that ends looks at the names, and if
others wait for something else than what it has done, it writes to `turn` whose request has waited longest. While that
file names another request, nobody takes the environment lock, newcomers included, until the turn is taken or the
patience of the others is over, or nobody waits for it any more. So everybody who waits is served after at most as many
syncs as there are other requests that have waited longer, and one that had begun before.

Leaders and `envsync status` read all names; who waits never does, or five hundred of them would read a quarter of a
million files at each try. A name itself says for what its owner waits and whether it runs within environments, so that
a listing tells all that waiters compare; and they look only whether one of those that matter is still there, the same
one as long as it is (`Lookout`). So what a waiter asks of the filesystem does not grow with the number of the others.

Times of files are compared with each other only, and the filesystem gave them all: hosts' clocks are never compared.
"""

from __future__ import annotations

import time

from envsync.errors.redact import redacted
from envsync.launch import command, stamp
from envsync.system import core, processes, records, schedulers

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from envsync.launch import Environment
    from envsync.launch.demand import Demand

SUFFIX = ".new"
"""Of a name that is not complete and locked yet."""
NOWHERE = "-"
"""In a name: it runs within no environment."""
PATIENCE_SECONDS = 30.0
PATIENCE_TRIES = 12
"""For how many tries at the environment lock a turn is left to those whose it is."""


class Queued:
    """One that waits: its name, what it says of itself, and since when by the filesystem's clock."""

    __slots__ = ("mtime_ns", "name", "said")

    def __init__(self, name: str, said: dict[str, object], mtime_ns: int) -> None:
        self.name = name
        self.said = said
        self.mtime_ns = mtime_ns


class Rank:
    """A waiter's name in the list. Leave it with `leave`; the end of the process does, too."""

    __slots__ = ("fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        command.own(fd, self)

    def leave(self) -> None:
        """Take the name off the list."""
        if self.fd >= 0:
            try:
                os.unlink(self.path)
            except OSError:
                pass  # somebody tidied up, or the environment was replaced
            fd, self.fd = self.fd, -1
            command.close_lock(fd)


def enlist(demand: Demand, holds: Sequence[str] = ()) -> Rank | None:
    """Put this process's name into the list. Returns None where that is not possible: then it waits all the same.

    :param holds: the environments that this process runs within
    """
    environment = demand.environment
    path = f"{environment.waiting}/{_new_name(demand.key, holds)}"
    said = records.dump(
        {
            "host": processes.host(),
            "pid": os.getpid(),
            "place": processes.here(),
            "command": processes.own_command(),
            "key": demand.key,
            "lock": redacted(demand.lock),
            "since": time.time(),
            "holds": "\n".join(holds),
            **schedulers.own(),
        }
    )
    try:
        fd = _create(environment, path + SUFFIX)
    except OSError:
        return None
    try:
        core.lock(fd, path, shared=False)
        os.write(fd, said)
        os.replace(path + SUFFIX, path)
    except OSError:
        command.close_lock(fd)
        try:
            os.unlink(path + SUFFIX)
        except OSError:
            pass  # a later leader tidies up
        return None
    except BaseException:
        command.close_lock(fd)
        raise
    return Rank(path, fd)


def _new_name(key: str, holds: Sequence[str]) -> str:
    """Make a name that nobody has: for what its owner waits and within what it runs, then who that is."""
    within = stamp.checksum("\n".join(holds).encode("utf-8", "surrogateescape")) if holds else NOWHERE
    name = f"{key}.{within}.{processes.host()}.{os.getpid()}.{os.urandom(4).hex()}"
    return name.replace("/", "_")


def key_of(name: str) -> str:
    """Return for which request the owner of a name waits."""
    return name.partition(".")[0]


def within_of(name: str) -> str:
    """Return what stands for the environments that the owner of a name runs within; `NOWHERE` for none."""
    return name.partition(".")[2].partition(".")[0]


def _create(environment: Environment, path: str) -> int:
    for _ in range(10):
        try:
            os.mkdir(environment.waiting)
        except FileExistsError:
            pass  # others wait, too
        try:
            return command.open_lock(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileNotFoundError:
            pass  # a leader has just removed the directory, empty as it was
    raise FileNotFoundError(path)


def waiting(environment: Environment, *, tidy: bool = False) -> list[Queued]:
    """Return those who wait, the longest first.

    :param tidy: remove the names of those who do not any more; only for whoever holds the environment lock
    """
    found = []
    for name in _names(environment):
        path = f"{environment.waiting}/{name}"
        try:
            mtime_ns = os.stat(path).st_mtime_ns
            if not name.endswith(SUFFIX) and is_held(path):
                found.append(Queued(name, records.load(path), mtime_ns))
            elif tidy and not is_held(path):
                os.unlink(path)
        except OSError:
            continue  # it has left just now
    return sorted(found, key=lambda waiter: waiter.mtime_ns)


def _names(environment: Environment) -> list[str]:
    try:
        return os.listdir(environment.waiting)
    except OSError:
        return []


def is_held(path: str) -> bool:
    """Tell whether somebody holds a file that only one process ever locks, so that asking is in nobody's way."""
    try:
        fd = command.open_lock(path, os.O_RDONLY | core.NONBLOCK)
    except OSError:
        return False
    close = command.close_unlocked
    try:
        for shared in (True, False):  # some filesystems refuse shared locks alone
            try:
                core.lock(fd, path, shared=shared)
            except BlockingIOError:
                return True
            except OSError:
                continue
            close = command.close_lock
            return False
    finally:
        close(fd)
    return False  # no locks on this filesystem, so nobody has any in such a file


def call_next(environment: Environment, key: str) -> None:
    """Say whose turn it is, now that a sync has ended. The caller holds the environment lock.

    :param key: of the request that was served: all who wait for the same are served with it
    """
    everybody = waiting(environment, tidy=True)
    if not everybody:
        try:
            os.rmdir(environment.waiting)
        except OSError:
            pass  # nobody had to wait, or somebody has just come
    others = [waiter for waiter in everybody if key_of(waiter.name) != key]
    if not others:
        end_turn(environment)
        return
    from envsync.errors import FilesystemError
    from envsync.system import atomic

    said = others[0].said
    turn: dict[str, object] = {name: records.text(said, name) for name in ("host", "command")}
    turn |= {"pid": int(records.number(said, "pid")), "name": others[0].name, "key": key_of(others[0].name)}
    try:
        atomic.write(environment.turn, records.dump(turn))
    except FilesystemError:
        pass  # then chance decides, as it does among those who have just come


def end_turn(environment: Environment) -> None:
    """End the turn: it has been taken, or nobody takes it. The caller holds the environment lock."""
    try:
        os.unlink(environment.turn)
    except OSError:
        pass  # there was none


class Lookout:
    """Finds somebody who waits, again and again, without asking all the others each time.

    Whoever was found is asked first the next time; a name that nobody holds any more is not asked again, since it never
    comes back.
    """

    __slots__ = ("environment", "gone", "here")

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.here: list[str] = []
        self.gone: set[str] = set()

    def names(self) -> list[str]:
        """Return the names in the list, in no order, without asking whether anybody holds them."""
        return [name for name in _names(self.environment) if name not in self.gone and not name.endswith(SUFFIX)]

    def find(self, wanted: Callable[[str], bool]) -> str | None:
        """Return the name of somebody who waits, or None if nobody does.

        :param wanted: tells of a name whether it is one of those that are looked for
        """
        found = next((name for name in [*self.here] if wanted(name) and self._waits(name)), None)
        if found is None:
            found = next((name for name in self.names() if wanted(name) and self._waits(name)), None)
            self.here += [found] if found else []
        return found

    def _waits(self, name: str) -> bool:
        if is_held(f"{self.environment.waiting}/{name}"):
            return True
        self.gone.add(name)
        self.here = [other for other in self.here if other != name]
        return False


class Turns:
    """One process's view of whose turn it is."""

    __slots__ = ("called", "environment", "key", "lookout", "seen", "since")

    def __init__(self, environment: Environment, key: str) -> None:
        self.environment = environment
        self.key = key
        self.called = ""
        """The key whose turn it is; empty if it is ours, or counts no more."""
        self.seen = (0, 0)
        self.since = 0.0
        self.lookout = Lookout(environment)

    def is_others(self, between_tries: float) -> bool:
        """Tell whether others are to take the environment lock next.

        :param between_tries: how many seconds a waiter lets pass between two tries: after a dozen of them, a turn
            that nobody has taken counts no more
        """
        try:
            status = os.stat(self.environment.turn)
        except OSError:
            return False
        identity = (status.st_ino, status.st_mtime_ns)
        now = time.monotonic()
        if identity != self.seen:
            self.seen, self.since = identity, now
            self._read()
        if now - self.since >= min(PATIENCE_TRIES * between_tries, PATIENCE_SECONDS):
            self.called = ""
        if self.called and self.lookout.find(self._is_called) is None:
            self.called = ""  # they have died, or have given up
        return self.called != ""

    def _read(self) -> None:
        turn = records.load(self.environment.turn)
        key, name = records.text(turn, "key"), records.text(turn, "name")
        self.called = "" if key == self.key else key
        if self.called and key_of(name) == key and "/" not in name:
            self.lookout.here.insert(0, name)

    def _is_called(self, name: str) -> bool:
        return key_of(name) == self.called
