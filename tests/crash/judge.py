"""Judge what a strike has left: whether anything is lost, or left over, or not said.

After every strike:

- the environment is taken for current only if it is whole: every file is there, with the content that it is to have
- before the commit is decided, the environment is the old one; and it still is current, unless the process was killed
- after an error: a message that names a path and the system's words, exit status 125, no traceback, no lock still
  held, no temporary file left; or the command got over it, and then the environment is current
- after a signal: the process ended by it
- the next command repairs all by itself, and leaves nothing over: in the environment nothing at all, in the cache
  nothing but what a later sweep removes
- a second one changes nothing
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from envsync.cache.store import Store
from envsync.errors import EnvsyncError
from tests.crash.harness import CHANGES, REMOVALS, Blow, Kind, writes
from tests.environments import leftovers, unowned, unverified

if TYPE_CHECKING:
    from tests.crash.stage import Stage

Snapshot = dict[str, tuple[str, ...]]


class Counter:
    """Counts the changes that this very process makes; there is no way to take an audit hook away again."""

    count = 0
    armed = False

    @classmethod
    def arm(cls) -> None:
        if not cls.armed:
            cls.armed = True
            sys.addaudithook(cls._audit)

    @classmethod
    def _audit(cls, event: str, args: tuple[object, ...]) -> None:
        if event in CHANGES or (event == "open" and writes(args)):
            cls.count += 1


def judge(stage: Stage, blow: Blow, kind: Kind) -> list[str]:
    """Say what is wrong with what a strike has left. Repairs the environment."""
    wrong = _judge_end(stage, blow, kind)
    wrong += _judge_environment(stage, blow, kind)
    # What could not be removed is left for the next that has anything to do; it is in nobody's way.
    resisted = {path for change in blow.struck if kind.errno and change.event in REMOVALS for path in change.paths}
    wrong += _judge_repair(stage, {os.path.basename(path) for path in resisted})
    return wrong


def _judge_end(stage: Stage, blow: Blow, kind: Kind) -> list[str]:
    """Judge how it ended, and what it said."""
    wrong = []
    if "Traceback" in blow.said:
        wrong.append(f"it shows a traceback: {blow.said}")
    succeeded = blow.status == 0
    if succeeded and not stage.is_current(stage.lock) and not (_is_read_only(blow, kind) and _is_new(stage)):
        wrong.append("it says that it succeeded, and the environment is not what was asked for")
    if not blow.struck:
        return wrong if succeeded else [*wrong, f"untouched, it ends with {blow.status}: {blow.said}"]
    if blow.held:
        wrong.append(f"it still holds {blow.held}")
    if kind.signal and not (succeeded and kind.alone):
        if not os.WIFSIGNALED(blow.status) or os.WTERMSIG(blow.status) != kind.signal:
            wrong.append(f"it did not end by the signal, but with {blow.status}: {blow.said}")
    elif kind.errno and not succeeded:
        if not os.WIFEXITED(blow.status) or os.WEXITSTATUS(blow.status) != 125:
            wrong.append(f"it ends with {blow.status}: {blow.said}")
        wrong += _judge_message(blow, kind)
    return wrong


def _is_read_only(blow: Blow, kind: Kind) -> bool:
    """Tell whether the environment could not even be locked: then it is compared, and gets no stamp."""
    could_lock = not any(change.event == "open" and change.paths[0].endswith("/env/.lock") for change in blow.struck)
    return kind.errno in (errno.EACCES, errno.EROFS) and not could_lock


def _is_new(stage: Stage) -> bool:
    return not _difference(stage.new, snapshot(stage.env))


def _judge_environment(stage: Stage, blow: Blow, kind: Kind) -> list[str]:
    """Judge what is there before anybody repairs it."""
    wrong = []
    if not blow.decided and blow.status != 0 and stage.old is not None:
        if differs := _difference(stage.old, snapshot(stage.env)):
            wrong.append(f"before it was decided, the environment is not the old one: {differs}")
        can_clean = kind.signal != signal.SIGKILL and kind.name != "turns read-only"
        if can_clean and not stage.is_current(stage.before):
            wrong.append("nothing was decided, and yet the environment is not current any more")
    for lock, whole in ((stage.before, stage.old), (stage.lock, stage.new)):
        if whole is not None and stage.is_current(lock) and (differs := _difference(whole, snapshot(stage.env))):
            wrong.append(f"it is taken for current and is not: {differs}")
    if _should_be_tidy(stage, blow, kind):
        wrong += [f"left lying about: {name}" for name in _untidy(stage, kind, decided=blow.decided)]
    return wrong


def _should_be_tidy(stage: Stage, blow: Blow, kind: Kind) -> bool:
    """Tell whether the process had a chance to clear away what it made."""
    if not blow.struck or kind.signal == signal.SIGKILL or kind.name == "turns read-only":
        return False
    return blow.struck[0].event not in REMOVALS and stage.scenario.prepare is None


def _untidy(stage: Stage, kind: Kind, *, decided: bool) -> list[str]:
    state = stage.env / ".envsync"
    found = [str(path) for path in stage.env.rglob("*.new")]
    if not decided:
        allowed = {"in-use", "stamp", "installed.json", "failure.json", "work", "making"}
        if kind.signal:
            allowed.add("progress.json")  # its waiters are told as if it had died
        found += [name for name in (os.listdir(state) if state.is_dir() else ()) if name not in allowed]
        found += [str(path) for path in stage.env.glob("lib/*/site-packages/.envsync/*")]
    return found


def _judge_repair(stage: Stage, resisted: set[str]) -> list[str]:
    """Let the next command repair it, and the one after do nothing."""
    try:
        stage.sync(stage.lock)
    except (EnvsyncError, OSError) as error:
        return [f"the next command does not repair it: {type(error).__name__}: {error}"]
    wrong = [f"after the repair, {problem}" for problem in unverified(stage.env) if problem not in stage.disputed]
    wrong += [f"after the repair, nobody owns {path}" for path in unowned(stage.env) - resisted]
    if differs := _difference(stage.new, snapshot(stage.env)):
        wrong.append(f"after the repair, it is not what it should be: {differs}")
    wrong += [f"after the repair, left over: {name}" for name in leftovers(stage.env) if name not in resisted]
    wrong += _judge_cache(stage)
    before = Counter.count
    if (outcome := stage.sync(stage.lock)) != "current":
        wrong.append(f"the second command ends with {outcome!r}")
    if Counter.count != before:
        wrong.append(f"the second command changes {Counter.count - before} things")
    return wrong


def _judge_cache(stage: Stage) -> list[str]:
    """Sweep the cache as somebody would a day later, and compare."""
    Store(str(stage.cache)).sweep()
    listing = cache_listing(stage.cache)
    extra = sorted(listing.keys() - stage.kept_in_cache.keys())
    wrong = [f"left in the cache for good: {name}" for name in extra if not _is_knowledge(name)]
    changed = [name for name, value in stage.kept_in_cache.items() if listing.get(name, value) != value]
    missing = [name for name in stage.kept_in_cache if name not in listing and "/wheels/" in name]
    return wrong + [f"different in the cache: {name}" for name in (*changed, *missing)]


def cache_listing(cache: Path) -> dict[str, str]:
    """List what is in the cache: for wheels, every file and its content."""
    found = {}
    for directory, names, entries in os.walk(cache):
        relative = directory[len(str(cache.parent)) :]
        for name in entries:
            is_wheel = "/wheels/" in relative
            found[f"{relative}/{name}"] = _content(f"{directory}/{name}") if is_wheel else ""
        if not names and not entries and ("/tmp/" in relative or "/wheels/" in relative):
            found[f"{relative}/"] = ""
    return found


def snapshot(env: Path) -> Snapshot:
    """Take down every file of an environment: its content or where it leads, and whether it can be executed.

    Without bytecode, temporary files, and what envsync keeps in `.envsync`.
    """
    found: Snapshot = {}
    for directory, names, entries in os.walk(env):
        for name in [*entries, *names]:
            path = f"{directory}/{name}"
            if os.path.islink(path):
                found[path[len(str(env)) + 1 :]] = ("link", os.readlink(path))
        names[:] = [name for name in names if name not in ("__pycache__", ".envsync")]
        for name in entries:
            path = f"{directory}/{name}"
            if not os.path.islink(path) and not name.endswith(".new"):
                found[path[len(str(env)) + 1 :]] = (_content(path), str(os.access(path, os.X_OK)))
    return found


def _content(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _difference(expected: Snapshot, found: Snapshot) -> str:
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    changed = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
    parts = {"missing": missing, "in addition": extra, "different": changed}
    return "; ".join(f"{word} {', '.join(names)}" for word, names in parts.items() if names)


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


def _is_knowledge(name: str) -> bool:
    """Tell whether a file of the cache is a whole one of a kind that may come at any time."""
    kinds = ("/cache/v1/interpreters/", "/cache/v1/skeletons/", "/cache/v1/targets/", "/cache/v1/wheels/")
    return name.startswith(kinds) and not name.endswith(".new")
