"""Judge what a strike has left: whether anything is lost, or left over, or not said.

After every strike:

- the environment is taken for current only if it is whole: every file is there, with the content that it is to have
- before the commit is decided, the environment is the old one; and it still is current, unless the process was killed
- after an error: a message that names a path and the system's words, exit status 125, no traceback, no lock still
  held, no temporary file left; or the command got over it, and then the environment is current
- after a signal: the process ended by it, and no record of it is left as of a dead one
- of a first install that came to nothing, nothing is left, unless the disk refuses that, too
- the next command repairs all by itself, and leaves nothing over: in the environment nothing at all, in the cache
  nothing but what a later sweep removes
- a second one changes nothing

For `check --repair`, where the old environment is the damaged one, and the stamp may vouch for it all the same:

- once the repair is decided, the environment is not taken for current before it is whole
- `check` never calls it sound before it is whole
- if what it has replaced cannot be removed, it may say so and end with 1, as `check` does after it
- the next `check --repair` makes it whole. So does the next `sync` if the repair was decided; if not, it may leave the
  damage that no stamp shows, and no other

For `cache clean` and `cache prune`:

- the environment is what it was, and current
- the entries that are left are whole, and a sync goes on with them
- the next such command finishes it, and leaves nothing in tmp
"""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from envsync.errors import EnvsyncError
from envsync.store.store import Store
from tests.crash.harness import REMOVALS, Blow, Kind, strike
from tests.crash.looking import Counter, Snapshot, cache_listing, damaged_entries
from tests.crash.scenarios import CLEAN, CLEANING, REPAIR, SYNC
from tests.environments import leftovers, unowned, unverified

if TYPE_CHECKING:
    from tests.crash.stage import Stage

REFUSALS = (errno.EACCES, errno.EROFS)
"""Where a cache must not be written to, wheels come without bytecode, and are kept elsewhere; and that is said."""


def judge(stage: Stage, blow: Blow, kind: Kind) -> list[str]:
    """Say what is wrong with what a strike has left. Repairs the environment."""
    stage.may_lack_bytecode = kind.errno in REFUSALS
    wrong = _judge_end(stage, blow, kind)
    if stage.scenario.verb in CLEANING:
        return [*wrong, *_judge_cleaning(stage)]
    wrong += _judge_environment(stage, blow, kind)
    # What could not be removed is left for the next that has anything to do; it is in nobody's way.
    struck = {path for change in blow.struck if kind.errno and change.event in REMOVALS for path in change.paths}
    mark = {"bare" for path in struck if os.path.dirname(path).endswith("/.envsync/bare")}  # goes whole, or stays
    return [*wrong, *_judge_repair(stage, blow, kind, {os.path.basename(path) for path in struck} | mark)]


# How it ended, and what it said


def _judge_end(stage: Stage, blow: Blow, kind: Kind) -> list[str]:
    wrong = []
    if "Traceback" in blow.said:
        wrong.append(f"it shows a traceback: {blow.said}")
    succeeded = blow.status == 0
    if succeeded and not _is_done(stage, blow, kind):
        wrong.append("it says that it succeeded, and what was asked for is not so")
    if not blow.struck:
        return wrong if succeeded else [*wrong, f"untouched, it ends with {blow.status}: {blow.said}"]
    if blow.held:
        wrong.append(f"it still holds {blow.held}")
    if kind.signal and not (succeeded and kind.alone):
        if not os.WIFSIGNALED(blow.status) or os.WTERMSIG(blow.status) != kind.signal:
            wrong.append(f"it did not end by the signal, but with {blow.status}: {blow.said}")
    elif kind.errno and not succeeded and not _says_what_resists(stage, blow):
        if not os.WIFEXITED(blow.status) or os.WEXITSTATUS(blow.status) != 125:
            wrong.append(f"it ends with {blow.status}: {blow.said}")
        wrong += _judge_message(blow, kind)
    return wrong


def _is_done(stage: Stage, blow: Blow, kind: Kind) -> bool:
    """Tell whether all that was asked for is so. What could not be removed from tmp is left for the next cleaning."""
    if stage.scenario.verb in CLEANING:
        left = _left_in_cache(stage)
        resisted = bool(kind.errno) and any(change.event in REMOVALS for change in blow.struck)
        return not left or (resisted and all(name.startswith("/cache/v1/tmp/") for name in left))
    if stage.scenario.verb == REPAIR:
        return _is_new(stage)
    return stage.is_current(stage.lock) or (_is_read_only(blow, kind) and _is_new(stage))


def _says_what_resists(stage: Stage, blow: Blow) -> bool:
    """Tell whether a repair has repaired all, and names what it could not clear away."""
    found = re.findall("^still (.*): ", blow.said, re.MULTILINE)
    is_repaired = stage.scenario.verb == REPAIR and os.waitstatus_to_exitcode(blow.status) == 1 and _is_new(stage)
    return is_repaired and set(found) == {"left over"} and blow.struck[0].event in REMOVALS


def _is_read_only(blow: Blow, kind: Kind) -> bool:
    """Tell whether the environment could not even be locked: then it is compared, and gets no stamp."""
    could_lock = not any(change.event == "open" and change.paths[0].endswith("/env/.lock") for change in blow.struck)
    return kind.errno in REFUSALS and not could_lock


def _is_new(stage: Stage) -> bool:
    return not stage.differs(stage.new)


def _judge_message(blow: Blow, kind: Kind) -> list[str]:
    """A message names a path, the one that was struck or what it is part of, and has the system's words."""
    wrong = []
    if not re.search("^envsync: error: ", blow.said, re.MULTILINE):  # `venv` may have said something before
        wrong.append(f"it says: {blow.said!r}")
    if os.strerror(kind.errno) not in blow.said:
        wrong.append(f"it does not say {os.strerror(kind.errno)!r}: {blow.said!r}")
    paths = {path for change in blow.struck for path in change.paths or ("",)}
    named = re.findall("`([^`]*/[^`]*)`", blow.said)
    if not any(_is_about(name, path) for name in named for path in paths):
        wrong.append(f"it names none of {', '.join(paths)}: {blow.said!r}")
    return wrong


def _is_about(name: str, path: str) -> bool:
    """Tell whether a message that has a name in it leads to a path.

    What was opened has no path, and what is below an open directory only a name of its own.
    """
    related = path.startswith(name) or name.startswith(path)
    return related or os.path.basename(name) == os.path.basename(path)


# What is there before anybody repairs it


def _judge_environment(stage: Stage, blow: Blow, kind: Kind) -> list[str]:
    wrong = []
    if not blow.decided and blow.status != 0 and stage.old is not None:
        if differs := stage.differs(stage.old):
            wrong.append(f"before it was decided, the environment is not the old one: {differs}")
        can_clean = kind.signal != signal.SIGKILL and kind.name != "turns read-only"
        if can_clean and not stage.is_current(stage.before):
            wrong.append("nothing was decided, and yet the environment is not current any more")
    current = [lock for lock in {stage.before, stage.lock} if stage.is_current(lock)]
    differences = [_not_one_of(_wholes(stage, blow, lock), stage) for lock in current]
    wrong += [f"it is taken for current and is not: {differs}" for differs in differences if differs]
    if stage.scenario.verb == REPAIR and stage.check().is_sound and not _is_new(stage):
        wrong.append(f"`check` calls it sound, and it is not: {stage.differs(stage.new)}")
    if _should_be_tidy(stage, blow, kind):
        wrong += [f"left lying about: {name}" for name in _untidy(stage, kind, decided=blow.decided)]
    return wrong


def _wholes(stage: Stage, blow: Blow, lock: object) -> list[Snapshot]:
    """Return all that an environment may be if it is taken for current for a lock file."""
    wholes = [stage.new] if lock == stage.lock else []
    is_old_whole = lock == stage.before and (stage.scenario.verb != REPAIR or not blow.decided)
    return [*wholes, stage.old] if is_old_whole and stage.old is not None else wholes


def _not_one_of(wholes: list[Snapshot], stage: Stage) -> str:
    """Say how the environment differs from what it may be; empty if it is one of them."""
    differences = [stage.differs(whole) for whole in wholes]
    return "" if "" in differences else "; or ".join(differences)


def _should_be_tidy(stage: Stage, blow: Blow, kind: Kind) -> bool:
    """Tell whether the process had a chance to clear away what it made."""
    if not blow.struck or kind.signal == signal.SIGKILL or kind.name == "turns read-only":
        return False
    was_tidy = stage.scenario.prepare is None or stage.scenario.verb == REPAIR
    return blow.struck[0].event not in REMOVALS and was_tidy


def _untidy(stage: Stage, kind: Kind, *, decided: bool) -> list[str]:
    state = stage.env / ".envsync"
    found = [str(path) for path in stage.env.rglob("*.new")]
    if not decided:
        allowed = {"in-use", "locking", "stamp", "installed.json", "failure.json", "work", "making"}
        if kind.lasting:
            allowed |= {"bare", "wanted"}  # it cannot even be locked to be removed
        elif stage.before is None and stage.env.exists():
            found.append(str(stage.env))
        found += [name for name in (os.listdir(state) if state.is_dir() else ()) if name not in allowed]
        found += [str(path) for path in stage.env.glob("lib/*/site-packages/.envsync/*")]
    return found


# What the next commands make of it


def _judge_repair(stage: Stage, blow: Blow, kind: Kind, resisted: set[str]) -> list[str]:
    """Let the next commands repair it, and one more do nothing."""
    wrong = []
    for verb in stage.scenario.then:
        try:
            wrong += _judge_sync(stage, blow) if verb == SYNC else _judge_check(stage)
        except (EnvsyncError, OSError) as error:
            return [*wrong, f"`{verb}` does not repair it: {type(error).__name__}: {error}"]
    wrong += [f"after the repair, {problem}" for problem in unverified(stage.env) if problem not in stage.disputed]
    wrong += [f"after the repair, nobody owns {path}" for path in unowned(stage.env) - resisted]
    if differs := stage.differs(stage.new):
        wrong.append(f"after the repair, it is not what it should be: {differs}")
    wrong += [f"after the repair, left over: {name}" for name in leftovers(stage.env) if name not in resisted]
    went_elsewhere = blow.status == 0 and kind.errno in REFUSALS
    wrong += _judge_cache(stage, may_lack=went_elsewhere)
    if stage.scenario.then[-1] != SYNC:
        stage.sync(stage.lock)  # no stamp is made out by a repair if there was none
    before = Counter.count
    if (outcome := stage.sync(stage.lock)) != "current":
        wrong.append(f"the second command ends with {outcome!r}")
    if Counter.count != before:
        wrong.append(f"the second command changes {Counter.count - before} things")
    if REPAIR in stage.scenario.then and not stage.check().is_sound:
        wrong.append("after all that, `check` finds something")
    return wrong


def _judge_sync(stage: Stage, blow: Blow) -> Iterator[str]:
    stage.sync(stage.lock)
    if differs := _not_one_of(_wholes(stage, blow, stage.lock), stage):
        yield f"after a sync, it is not what it should be: {differs}"


def _judge_check(stage: Stage) -> Iterator[str]:
    checked = stage.repair()
    if not checked.is_sound:
        yield f"after a repair, `check` finds {checked.left or checked.found}"
    if differs := stage.differs(stage.new):
        yield f"after a repair, it is not what it should be: {differs}"


def _judge_cache(stage: Stage, *, may_lack: bool) -> list[str]:
    """Sweep the cache as somebody would a day later, and compare.

    :param may_lack: wheels need not be there
    """
    Store(str(stage.cache)).sweep()
    listing = cache_listing(stage.cache)
    extra = sorted(listing.keys() - stage.kept_in_cache.keys())
    wrong = [f"left in the cache for good: {name}" for name in extra if not _is_knowledge(name)]
    changed = [name for name, value in stage.kept_in_cache.items() if listing.get(name, value) != value]
    missing = [name for name in stage.kept_in_cache if name not in listing and re.search("/(wheels|bytecode)/", name)]
    wrong += [f"different in the cache: {name}" for name in changed]
    return wrong if may_lack else wrong + [f"missing in the cache: {name}" for name in missing]


def _is_knowledge(name: str) -> bool:
    """Tell whether a file of the cache is a whole one of a kind that may come at any time."""
    kinds = ("bytecode", "hashes", "interpreters", "locks", "skeletons", "targets", "wheels")
    return name.startswith(tuple(f"/cache/v1/{kind}/" for kind in kinds)) and not name.endswith(".new")


# Cleaning


def _judge_cleaning(stage: Stage) -> Iterator[str]:
    """Sync from what is left of the cache, and clean again."""
    assert stage.old is not None
    if differs := stage.differs(stage.old):
        yield f"it changes the environment: {differs}"
    if not stage.is_current(stage.before):
        yield "the environment is not current any more"
    yield from (f"left in the cache, and not whole: {path}" for path in damaged_entries(stage.cache))
    try:
        stage.sync(stage.lock)
    except (EnvsyncError, OSError) as error:
        yield f"a sync does not go on with what is left: {type(error).__name__}: {error}"
    if differs := stage.differs(stage.new):
        yield f"after a sync with what is left, it is not what it should be: {differs}"
    yield from (f"in the cache after a sync, and not whole: {path}" for path in damaged_entries(stage.cache))
    again = strike(stage.arguments, 0, Kind("none"))
    if again.status != 0:
        yield f"a second cleaning ends with {again.status}: {again.said}"
    yield from (f"left by a second cleaning: {name}" for name in _left_in_cache(stage))


def _left_in_cache(stage: Stage) -> list[str]:
    """Name what a cleaning would have removed. What syncs have added since may stay where only the old is pruned."""
    extra = sorted(cache_listing(stage.cache).keys() - stage.kept_in_cache.keys())
    return [name for name in extra if stage.scenario.verb == CLEAN or not _is_knowledge(name)]
