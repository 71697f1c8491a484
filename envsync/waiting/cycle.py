"""Would this wait be for ourselves, through other environments?

A command that runs in environment A starts `run` in B, which has to change and waits for B's commands to end; one of
those starts `run` in A, which has to change and waits for A's commands to end. Both would wait for ever. A `run`
within a command of the very same environment is seen at once (`directory.is_inside`); this is for longer ways round.

Every process that waits says which environments it runs within (`holds`): in `progress.json` if it leads, beside its
name in the list if it does not. So whoever waits can walk back: who waits for the end of the commands that I am part
of, and of the commands that they are part of, and so on. If one of them runs in the environment that I wait for, there
is a cycle, and I refuse to wait. It is looked for again and again, since its last link may come later; two that see
it at once may both refuse.

Only processes of this host and pid namespace are seen, by /proc; there is none across hosts without a command that
starts others there, and those inherit no lock. Without a /proc, only the innermost environment is known.
"""

from __future__ import annotations

from envsync.launch import Environment, command
from envsync.system import core, processes, records
from envsync.waiting import queue

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from envsync.waiting.queue import Lookout

IN_USE = "/.envsync/in-use"
EVERY_SECONDS = 1.0


def holds(*, besides: int = -1) -> tuple[str, ...]:
    """Return the environments that this process runs within: it or an ancestor has their in-use lock open.

    :param besides: a descriptor of this process that does not count: it was not inherited
    """
    if not core.variable("ENVSYNC_IN"):
        return ()
    found = set()
    for process in ("self", *map(str, processes.ancestors())):  # pids as /proc knows them, or none
        try:
            fds = os.listdir(f"/proc/{process}/fd")
        except OSError:
            continue  # not ours to look into
        for fd in fds:
            if process == "self" and fd == str(besides):
                continue
            try:
                path = os.readlink(f"/proc/{process}/fd/{fd}")
            except OSError:
                continue
            if path.endswith(IN_USE):
                found.add(path.removesuffix(IN_USE))
    if not found and not processes.has_proc() and processes.is_below(core.variable(command.WHO)):
        found.add(core.variable("VIRTUAL_ENV"))  # the innermost at least, as `run` has said it
    return tuple(sorted(found - {""}))


def find(environment: Environment, held: tuple[str, ...], known: dict[str, Lookout] | None = None) -> str | None:
    """Look for a way back to the environment that this process waits for.

    :param held: the environments that this process runs within
    :param known: by environment, what an earlier look has found out of those who wait; is added to
    :returns: the environment by which it closes, or None
    """
    target = _identity(environment)
    if not held or target == (0, 0):
        return None  # no command runs in an environment without an in-use lock
    known = {} if known is None else known
    seen: set[str] = set()
    open_ways = list(held)
    while open_ways:
        path = open_ways.pop()
        if path in seen:
            continue
        seen.add(path)
        for said in _blocked_by(Environment(path), known):
            for further in records.text(said, "holds").split("\n"):
                if further and _identity(Environment(further)) == target:
                    return path
                if further:
                    open_ways.append(further)
    return None


def _blocked_by(environment: Environment, known: dict[str, Lookout]) -> Iterator[dict[str, object]]:
    """Yield what those say who run within environments and cannot go on before the commands in this one have ended.

    Of waiters who run within the same, one speaks for all.
    """
    said = records.load(environment.progress)
    if not records.text(said, "phase").startswith("waiting for commands"):
        return
    yield said
    lookout = known.setdefault(environment.path, queue.Lookout(environment))
    for within in set(map(queue.within_of, lookout.names())) - {queue.NOWHERE}:
        name = lookout.find(lambda name, within=within: queue.within_of(name) == within)  # type: ignore[misc]
        if name is not None:
            yield records.load(f"{environment.waiting}/{name}")


def _identity(environment: Environment) -> tuple[int, int]:
    try:
        status = os.stat(environment.in_use)
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


def refusal(environment: Environment, through: str) -> Exception:
    """Return the error for a wait that would be for ourselves."""
    from envsync.errors import RefusedError

    return RefusedError(
        f"environment `{environment.path}` cannot be waited for: commands that run in it wait for environment "
        f"`{through}`, in which this command runs, and neither would ever end",
        hint="give each its own environment: `envsync sync --env '.venvs/{digest}'`",
    )
