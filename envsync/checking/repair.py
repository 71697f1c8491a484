"""`envsync check`: verify an environment, and repair it under the same transaction as any sync.

To check, the in-use lock is held shared, as a running command holds it: nobody changes the environment meanwhile.

To repair, a leader makes the environment what it was when it was synced last, as `installed.json` says it. No lock file
is needed: the wheels come from the store, and only if that lacks one of them, from where the lock file says. What is
damaged is installed anew, what is sound is left alone, and so is what envsync has not installed. If the result is
exactly what the stamp was for, it gets that stamp again; else the next sync decides.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from envsync.checking.verify import Verified, verify
from envsync.errors import (
    FilesystemError,
    InterpreterError,
    LockingError,
    NoEnvironmentError,
    NoWheelError,
    WaitTimeoutError,
)
from envsync.installed import leftovers
from envsync.installed.ledger import Ledger, load_ledger
from envsync.installed.plan import Wanted
from envsync.installed.scan import scan
from envsync.launch import Environment, signals, stamp
from envsync.launch.progress import Report
from envsync.launch.request import Request
from envsync.launch.stamp import Stamp
from envsync.leading.goal import Goal, Inputs, Python, Seeker, find_python
from envsync.leading.planning import make_plan
from envsync.leading.result import SyncResult
from envsync.leading.sync_cache import cache_directory
from envsync.library.reach import reach
from envsync.library.status import is_led
from envsync.locks import flock, kind
from envsync.locks.flock import Flock
from envsync.python import interpreter
from envsync.python.facts import Layout
from envsync.store.bytecode import Shelf
from envsync.store.damage import damaged_files
from envsync.store.store import Store
from envsync.system import atomic, core, native, paths, processes
from envsync.transaction import skeleton
from envsync.waiting import failures
from envsync.wheel.manifest import Manifest

if TYPE_CHECKING:
    from envsync.launch.options import Settings

HOW = frozenset({"timeout", "busy", "cache_dir", "durable", "link_mode", "quiet", "verbose"})
"""Options that say how, not what."""
NAMED = 5
"""So many distributions that cannot be restored are named."""
UNREFRESHED_SECONDS = 35.0
"""After which a lease that has not changed is nobody's any more (`envsync.locks.lease.SECONDS`)."""


class Checked(NamedTuple):
    """What a check found, and what a repair has made of it."""

    found: Verified
    repaired: tuple[str, ...] = ()
    """What was installed anew, as in `name==version`."""
    left: Verified | None = None
    """What was found after a repair."""

    notes: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        return (self.left or self.found).is_sound

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        now = self.left or self.found
        return {
            "sound": self.is_sound,
            "distributions": now.distributions,
            "files": now.files,
            "bytes": now.bytes,
            "findings": [finding._asdict() for finding in self.found.findings],
            "repaired": list(self.repaired),
            "left": None if self.left is None else [finding._asdict() for finding in self.left.findings],
            "notes": list(self.notes),
        }


def check(request: Request, environment: Environment, report: Report) -> Checked:
    """Verify every file of an environment.

    :raises NoEnvironmentError: there is none
    :raises WaitTimeoutError: it is being changed for longer than `--timeout` allows
    """
    if not skeleton.exists(environment):
        raise NoEnvironmentError(environment.path, hint="`envsync sync` makes it")
    recorded = kind.read(environment)
    if recorded is not None and not recorded.in_use:
        return Checked(_verify_unseen(request, environment, report))
    with _undisturbed(request, environment):
        return Checked(_verify(request, environment, report, led=is_led(environment)))


def check_and_repair(request: Request, asked: Request | None, environment: Environment, report: Report) -> Checked:
    """Verify every file of an environment, and restore what is missing or changed.

    :param request: how to wait and where the cache is
    :param asked: the lock file, if one is known, from which wheels can be had that the store lacks
    :raises EnvsyncError: as for a sync; before the journal is in place, the environment is as it was
    """
    before = check(request, environment, report)
    if before.is_sound:
        return before
    damaged = before.found.damaged
    outcome = _repair(request, asked, environment, report, damaged)
    said = tuple(note for note in outcome.notes if note not in outcome.told)
    return Checked(before.found, outcome.installed, check(request, environment, report).found, said)


@contextmanager
def _undisturbed(request: Request, environment: Environment) -> Iterator[None]:
    """Hold the in-use lock shared, so that nobody commits; wait for whoever does."""
    deadline = None if request.timeout is None else time.monotonic() + request.timeout
    lock: Flock | None = None
    try:
        while os.path.isdir(environment.state):
            lock = flock.acquire_nowait(environment.in_use, shared=True)
            if lock is not None:
                break
            if deadline is not None and time.monotonic() >= deadline:
                raise _changing(request, environment)
            signals.heed()
            time.sleep(0.05)
    except (FilesystemError, LockingError):
        pass  # read-only, say: then it is looked at as it is
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _verify_unseen(request: Request, environment: Environment, report: Report) -> Verified:
    """Verify where no lock keeps a leader out: look while nobody leads, and again if somebody has led meanwhile."""
    deadline = None if request.timeout is None else time.monotonic() + request.timeout
    while True:
        _wait_for_leader(request, environment, deadline)
        before = _traces(environment)
        verified = _verify(request, environment, report, led=False)
        if _traces(environment) == before:
            return verified


def _wait_for_leader(request: Request, environment: Environment, deadline: float | None) -> None:
    """Wait until nobody leads, or whoever does has given no sign of life for so long that others may take over."""
    seen, since = _traces(environment), time.monotonic()
    while is_led(environment):
        now, traces = time.monotonic(), _traces(environment)
        if traces != seen:
            seen, since = traces, now
        if os.path.lexists(environment.lease) and now - since >= UNREFRESHED_SECONDS:
            return
        if deadline is not None and now >= deadline:
            raise _changing(request, environment)
        signals.heed()
        time.sleep(0.05)


def _traces(environment: Environment) -> list[tuple[int, int]]:
    """Return what changes whenever somebody leads, or changes the environment."""
    paths = (environment.lease, environment.stamp, environment.installed, environment.journal, environment.progress)
    return [failures.identity(path) for path in paths]


def _changing(request: Request, environment: Environment) -> WaitTimeoutError:
    return WaitTimeoutError(f"gave up after {request.timeout:g} s: `{environment.path}` is being changed")


def _verify(request: Request, environment: Environment, report: Report, *, led: bool) -> Verified:
    left = [] if led else [*unfinished(environment), *leftovers.find(environment)]
    cache = cache_directory(request)
    store = Store(cache)
    store.mend()  # the environment may link to what somebody was killed over
    return verify(environment, _layout(environment, cache), load_ledger(environment), store, report, leftovers=left)


def unfinished(environment: Environment) -> Iterator[str]:
    """Name the state files that only a leader that goes on has."""
    for path in (environment.progress, environment.journal, environment.draining, environment.making):
        if os.path.lexists(path):
            yield path


def _layout(environment: Environment, cache: str) -> Layout:
    """Return the environment's layout, by a look at its directories if its interpreter does not run any more."""
    try:
        return skeleton.layout_of(environment, interpreter.inspect(environment.python, cache))
    except InterpreterError:
        pass
    site = max(native.site_packages(environment.path), default=native.SITE_PACKAGES)
    return Layout(site, site, core.BIN, f"{native.INCLUDE}/site/{site.split('/')[1]}")


def _repair(
    request: Request, asked: Request | None, environment: Environment, report: Report, damaged: frozenset[str]
) -> SyncResult:
    aim = partial(WhatItWas, asked=asked, damaged=damaged)
    done = reach(
        request,
        environment,
        launching=False,
        show=lambda lead: lead(report),
        distrust=True,
        check=signals.heed,
        aim=aim,
    )
    assert isinstance(done, SyncResult)
    return done


class WhatItWas:
    """The aim of a repair: what the environment was when it was synced last.

    :param asked: the lock file, if one is known, from which wheels can be had that the store lacks
    """

    reclaim = True

    def __init__(
        self,
        request: Request,
        environment: Environment,
        store: Store,
        report: Report,
        *,
        asked: Request | None,
        damaged: frozenset[str],
    ) -> None:
        self.request = request
        self.asked = asked
        self.environment = environment
        self.store = store
        self.report = report
        self.damaged = damaged
        self.before: Stamp | None = None
        self.goal: Goal | None = None
        self.manifests: dict[str, Manifest] = {}
        self.notes: list[str] = []

    def seek(self, ledger: Ledger) -> Goal:
        data = atomic.read_if_there(self.environment.stamp)
        self.before = stamp.load(data) if data else None
        python = find_python(self.request, self.environment, ledger, self.store.memory)
        tag = python.interpreter.bytecode
        wanted = tuple(
            Wanted(name, entry.version, entry.origin, tag if entry.bytecode else "", entry.unverified)
            for name, entry in sorted(ledger.entries.items())
        )
        self.goal = Goal(Inputs(), python, self.before.digest if self.before else "", wanted)
        self._find_wheels(self.goal, ledger, self.damaged)
        return self.goal

    def mended(self) -> None:
        self.damaged = frozenset()

    def refetch(self, hashes: Iterable[str]) -> None:
        assert self.goal is not None
        damaged = {item.name for item in self.goal.wanted if item.origin.sha256 in hashes}
        self._find_wheels(self.goal, load_ledger(self.environment), self.damaged | damaged)

    def incomplete(self, _python: Python, _present: Collection[str]) -> str:
        return ""  # no lock file is asked

    def vouch(self, vouched: Stamp, goal: Goal, layout: Layout) -> bool:
        """Vouch for the environment again, if it is what the stamp was for."""
        installed = scan(self.environment, layout, load_ledger(self.environment))
        exact = self.request.replaced(inexact=False)
        if self.before is None or not make_plan(exact, goal, installed).is_empty:
            return False
        for name in stamp.OF_THE_REQUEST:
            setattr(vouched, name, getattr(self.before, name))
        return True

    def renewed(self, _former: Stamp) -> Stamp | None:
        return None  # files are compared, whatever the inputs say

    def _find_wheels(self, goal: Goal, ledger: Ledger, damaged: Collection[str]) -> None:
        """Get the manifests of all that is wanted; only those that have to be installed must be there."""
        found = {item.name: self.store.get(item.origin.sha256) for item in goal.wanted}
        needed = set(found) if goal.python.make else set(damaged)
        self._discard_damaged_bytecode([item for item in goal.wanted if item.name in needed and item.bytecode])
        with self.store.replacing(self._find_damaged({name: found[name] for name in needed if name in found})):
            found = {item.name: self.store.get(item.origin.sha256) for item in goal.wanted}
            missing = sorted(name for name in needed if name in found and found[name] is None)
            if missing and self.asked is not None:
                Seeker(self.asked, self.environment, self.store, self.report).bring(missing, ledger)
                found = {item.name: self.store.get(item.origin.sha256) for item in goal.wanted}
                missing = [name for name in missing if found[name] is None]
            if missing:
                raise self._no_wheel(missing)
        self.manifests = {name: manifest for name, manifest in found.items() if manifest is not None}

    def _no_wheel(self, names: Sequence[str]) -> NoWheelError:
        """Build the error for distributions whose wheels are nowhere."""
        shown = f"{', '.join(names[:NAMED])}{f' and {len(names) - NAMED} more' if len(names) > NAMED else ''}"
        env = paths.abspath(self.environment.path)
        wheels = "the wheels" if len(names) > 1 else "the wheel"
        if self.asked is None:
            return NoWheelError(
                "",
                f"cannot restore {shown} in environment `{env}`: {wheels} cannot be had from the cache any more",
                hint="name the lock file that it was installed from: `envsync check --repair --lock pylock.toml`",
            )
        return NoWheelError(
            self.asked.lock,
            f"it does not name {wheels} that environment `{env}` has {shown} from, nor has the cache",
            hint="name the lock file that it was installed from, or install what this one names: `envsync sync`",
        )

    def _find_damaged(self, manifests: Mapping[str, Manifest | None]) -> list[str]:
        """Whoever wrote through a hard link has changed the store's file, too: it must not be linked again."""
        hashes = []
        for manifest in manifests.values():
            if manifest is not None:
                path = next(damaged_files(self.store.path(manifest.sha256), manifest), None)
                if path is not None:
                    self.notes.append(
                        f"the cached files of `{manifest.filename}` have been changed, too (`{path}`), and set aside"
                    )
                    hashes.append(manifest.sha256)
        return hashes

    def _discard_damaged_bytecode(self, wanted: Iterable[Wanted]) -> None:
        """As for files; it is compiled again."""
        for item in wanted:
            shelf, sha256 = Shelf(self.store, item.bytecode), item.origin.sha256
            compiled = shelf.get(sha256)
            path = next(damaged_files(shelf.path(sha256), compiled), None) if compiled is not None else None
            if path is not None:
                self.notes.append(
                    f"the cached bytecode of `{item.name}` has been changed, too (`{path}`), and set aside"
                )
                shelf.discard(sha256)


def request_of(settings: Settings, env: str) -> Request:
    """Return a request that stands for no lock file: only how to wait and where the cache is counts."""
    kept = {key: value for key, value in settings.items() if key in HOW}
    return Request({**kept, "inexact": True}, "", f"repair {processes.host()}", env)
