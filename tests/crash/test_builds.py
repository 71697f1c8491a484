"""Builds that are struck: at any change that envsync makes for them, and at any moment.

A linked project, a directory and a source distribution are built, several at once. Changes of all threads are counted
(`tests.crash.harness`), so the N-th is not the same one every time. Those of backends are not: they are made in a
directory that nobody else reads, which is what is judged here.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from envsync.store.store import Store
from envsync.system import records
from tests.conftest import envsync_command
from tests.crash.harness import ERRORS, KILLS, LASTING, SIGNALS, Blow, Kind, strike
from tests.environments import leftovers, unowned, unverified
from tests.projects import built, make_project, make_sdist

LOCK = """\
version = 1
revision = 3
requires-python = ">=3.9"

[[package]]
name = "app"
version = "1.0"
source = {{ editable = "." }}
dependencies = [{{ name = "lib" }}, {{ name = "packed" }}]

[[package]]
name = "lib"
version = "1.0"
source = {{ directory = "../lib" }}

[[package]]
name = "packed"
version = "1.0"
source = {{ path = "../packed-1.0.tar.gz" }}
sdist = {{ hash = "sha256:{sha256}" }}
"""
ALL_BUILT = ["build_editable app", "build_wheel lib", "build_wheel packed"]
NONE = Kind("none")
LEAST = 150
"""Changes that a sync with three builds makes at least: if it made fewer, nothing would be shown."""


class Yard:
    """A project that has to be built with all that it needs, in a directory of its own.

    :ivar log: what backends have run
    """

    def __init__(self, place: Path, *, sleepy: bool = False) -> None:
        place.mkdir(exist_ok=True)
        self.place, self.log = place, place / "log"
        packed = make_project(place / "packed", "packed", log=self.log)
        trees = [make_project(place / name, name, log=self.log) for name in ("app", "lib")]
        for tree in (packed, *trees) if sleepy else ():
            _be_slow(tree)
        sdist = make_sdist(packed, filename="packed-1.0.tar.gz")
        self.tree = place / "app"
        (self.tree / "uv.lock").write_text(LOCK.format(sha256=sha256(sdist.read_bytes()).hexdigest()))
        self.env, self.cache, self.known = place / "env", place / "cache", place / "known"
        self.arguments = ["sync", "-q", "--lock", f"{self.tree}/uv.lock", "--env", str(self.env)]
        self.arguments += ["--cache-dir", str(self.cache)]
        self.sync()
        builds = ("built", "wheels", "targets", "sources", "logs")
        shutil.copytree(self.cache, self.known, ignore=shutil.ignore_patterns(*builds))

    def restore(self, *, cold: bool = False) -> None:
        """Make everything as it was before: nothing built, nothing installed.

        :param cold: nothing known of Pythons, and no build environment either
        """
        shutil.rmtree(self.env, ignore_errors=True)
        shutil.rmtree(self.cache, ignore_errors=True)
        shutil.rmtree(self.tree / ".envsync-build", ignore_errors=True)
        self.log.unlink(missing_ok=True)
        if not cold:
            shutil.copytree(self.known, self.cache)

    def sync(self) -> Blow:
        """Sync to the end, and expect that to go well."""
        blow = strike(self.arguments, 0, NONE)
        assert blow.status == 0, blow.said
        return blow

    @property
    def hooks(self) -> list[str]:
        """What was built, in alphabetical order."""
        return sorted(built(self.log))


def _be_slow(tree: Path) -> None:
    """Let a backend sleep before it has written anything."""
    backend = tree / "backend" / "in_tree_backend.py"
    begin = '    """Write the wheel and return its file name."""\n'
    assert begin in backend.read_text()
    backend.write_text(backend.read_text().replace(begin, f"{begin}    time.sleep(0.3)\n"))


# What is judged


def judged(yard: Yard, blow: Blow, kind: Kind) -> Iterator[str]:
    """Say what is wrong with what a strike has left, and after the next sync."""
    yield from _judge_end(blow, kind)
    yield from (f"a process of a build is left: {each}" for each in left_running(yard.place))
    yield from _not_whole(yard)
    if kind.signal != signal.SIGKILL and not kind.lasting:
        # One whose removal was refused stays until somebody builds the same, or sweeps. Nothing is decided by it.
        kept = {path for change in blow.struck if kind.errno and change.event == "os.remove" for path in change.paths}
        told = (path for path in yard.cache.glob("v1/tmp/*.building") if str(path) not in kept)
        yield from (f"it says that it builds, and is dead: {path}" for path in told)
    yield from (f"it says that a build has failed: {path}" for path in yard.cache.glob("v1/built/*.failed"))
    done = _done(yard)
    before = len(yard.hooks)
    yard.sync()
    again = built(yard.log)[before:]
    yield from (f"{hook} was done, and is done again" for hook in again if hook in done)
    yield from (f"{hook} is not done" for hook in ALL_BUILT if hook not in done and hook not in again)
    yield from unverified(yard.env)
    yield from (f"nobody owns {path}" for path in unowned(yard.env))
    yield from (f"left over: {path}" for path in leftovers(yard.env))
    yield from _not_whole(yard)
    yield from _left_in_cache(yard)
    if yard.sync() and len(yard.hooks) != before + len(again):
        yield "a second sync builds again"


def _judge_end(blow: Blow, kind: Kind) -> Iterator[str]:
    if "Traceback" in blow.said:
        yield f"it shows a traceback: {blow.said}"
    if blow.held:
        yield f"it still holds {blow.held}"
    if not blow.struck:
        return
    if kind.signal and not (os.WIFSIGNALED(blow.status) and os.WTERMSIG(blow.status) == kind.signal):
        yield f"it did not end by the signal, but with {blow.status}: {blow.said}"
    if (
        kind.errno
        and blow.status
        and (os.waitstatus_to_exitcode(blow.status), os.strerror(kind.errno) in blow.said) != (125, True)
    ):
        yield f"it ends with {blow.status}: {blow.said}"


def _not_whole(yard: Yard) -> Iterator[str]:
    """Name what would be taken for built and is not whole."""
    for record in yard.cache.glob("v1/built/*/*/record"):
        said = records.load(str(record))
        wheel = record.parent / str(said.get("filename"))
        if not wheel.is_file() or sha256(wheel.read_bytes()).hexdigest() != said.get("sha256"):
            yield f"kept, and not whole: {record}"
    for wheel in yard.env.glob(".envsync/editables/*/*.whl"):
        if not zipfile.is_zipfile(wheel) or zipfile.ZipFile(wheel).testzip():
            yield f"an editable, and not whole: {wheel}"


def _done(yard: Yard) -> set[str]:
    """Return the hooks of which the outcome is kept."""
    kept = [*yard.cache.glob("v1/built/*/*/*.whl"), *yard.env.glob(".envsync/editables/*/*.whl")]
    names = {wheel.name.partition("-")[0] for wheel in kept}
    return {hook for hook in ALL_BUILT if hook.split()[1] in names}


def _left_in_cache(yard: Yard) -> Iterator[str]:
    """Name what stays when somebody sweeps the cache a day later, and is no use."""
    for path in (*(yard.cache / "v1/tmp").iterdir(), *yard.cache.rglob("*.new")):
        os.utime(path, (0, 0), follow_symlinks=False)
    Store(str(yard.cache)).sweep()
    yield from (f"left in the cache: {path}" for path in (yard.cache / "v1/tmp").iterdir())
    yield from (f"left in the cache: {path}" for path in yard.cache.rglob("*.new"))
    yield from (f"left in the cache, a log of nothing: {path}" for path in yard.cache.glob("v1/logs/*"))
    yield from (f"left in the cache: {path}" for path in yard.cache.glob("v1/built/*.failed"))


def left_running(place: Path, seconds: float = 20) -> list[str]:
    """Return the command lines of processes that work in or on something in a directory, once they had time to end."""
    until = time.monotonic() + seconds
    while (found := list(_running(place))) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def _running(place: Path) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = os.readlink(process / "cwd")
            is_ours = int(process.name) != os.getpid() and (str(place) in words or where.startswith(f"{place}/"))
        except OSError:
            continue
        if is_ours and words:
            yield f"{process.name} in {where}: {words}"


def wrong_points(yard: Yard, kinds: Callable[[int], Sequence[Kind]], step: int, *, cold: bool = False) -> list[str]:
    """Strike at every STEP-th change until it ends untouched, and say what is wrong."""
    found, nth, struck = [], 1, 0
    while True:
        blows = []
        for kind in kinds(nth):
            yard.restore(cold=cold)
            blow = strike(yard.arguments, nth, kind)
            blows.append(blow)
            what = f"{kind.name} at change {nth} ({blow.struck[0] if blow.struck else 'none'})"
            found += [f"{what}: {wrong}".replace(str(yard.place), "") for wrong in judged(yard, blow, kind)]
        if not any(blow.struck for blow in blows):
            break
        struck, nth = nth, nth + step
    assert struck + step > LEAST
    return found


def in_turn(nth: int) -> Sequence[Kind]:
    """Return one kind for each change, another for each next one."""
    kinds = (*KILLS, *SIGNALS, *ERRORS)
    return (kinds[(nth * 7 + nth // len(kinds)) % len(kinds)],)


def test_builds_struck_at_some_changes(tmp_path: Path) -> None:
    """Killed, signalled or refused something while it builds: nothing half built is used, the next sync goes on."""
    assert wrong_points(Yard(tmp_path / "yard"), in_turn, 37) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kinds", [KILLS, SIGNALS, ERRORS, LASTING], ids=["kills", "signals", "errors", "lasting"])
def test_builds_struck_at_any_change(tmp_path: Path, kinds: tuple[Kind, ...]) -> None:
    """So it is at each of the changes, with nothing known before."""
    assert wrong_points(Yard(tmp_path / "yard"), lambda _: kinds, 1, cold=True) == []


MOMENTS = 20
SEED = 13


def struck_at_moments(yard: Yard, number: int, moments: int) -> Iterator[str]:
    """Send a signal at random moments of a sync, and say what is wrong."""
    command = [*envsync_command(), *yard.arguments]
    yard.restore()
    began = time.monotonic()
    subprocess.run(command, check=True)
    whole = time.monotonic() - began
    chance = random.Random(SEED)
    for _ in range(moments):
        yard.restore()
        seconds = chance.uniform(0.1, whole)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        blow = Blow(0 if not process.returncode else number, (), False, said, (), 0)
        if process.returncode not in (0, -number):
            yield f"after {seconds:.2f} s, it ends with {process.returncode}: {said}"
        kind = Kind(signal.Signals(number).name, number)
        yield from (f"{kind.name} after {seconds:.2f} s: {wrong}" for wrong in judged(yard, blow, kind))


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGKILL, id="SIGKILL"), pytest.param(signal.SIGTERM, marks=pytest.mark.slow, id="SIGTERM")],
)
@pytest.mark.parametrize(
    "moments", [4, pytest.param(MOMENTS, marks=(pytest.mark.slow, pytest.mark.timeout(900)))], ids=["some", "all"]
)
def test_builds_struck_at_random_moments(tmp_path: Path, number: int, moments: int) -> None:
    """No backend, installer or supervisor outlives the sync, and only what was unfinished is built again."""
    assert list(struck_at_moments(Yard(tmp_path / "yard", sleepy=True), number, moments)) == []
