"""A leader that was killed while it staged: the next one goes on with its stage, and with nothing else of it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.__main__ import main
from envsync.errors import EnvsyncError
from envsync.leading.result import SyncResult
from envsync.library import blocking
from envsync.staging import link_modes
from envsync.system import atomic, forking, native
from tests.crash.fixture_wheels import cache as cache  # noqa: PLC0414  # a fixture
from tests.crash.fixture_wheels import check_repaired, expected_files, kill
from tests.environments import FIXTURES, files, leftovers, site_packages, unowned, unverified

FIRST = FIXTURES / "pylock.toml"
NEXT = FIXTURES / "pylock.next.toml"


CAN_SHARE = forking.can_share


class Tally:
    """Counts what succeeds in a process and all that it forks."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def add(self) -> None:
        os.write(self.writing, b".")

    def total(self) -> int:
        """Return the count. Nobody counts any more."""
        os.close(self.writing)
        with open(self.reading, "rb") as file:
            return len(file.read())


def sync_in_child(
    lock: Path, env: Path, *options: str, before: Callable[[str], None] | None = None, tally: Tally | None = None
) -> int:
    """Sync in a child process.

    :param before: is called with the name of each file that is about to be linked or copied into the stage
    :param tally: counts what was linked or copied indeed
    :returns: the wait status
    """
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    status = 70
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 2)
        _watch(before or (lambda name: None), tally)
        status = main(["sync", "--lock", str(lock), "--env", str(env), "-q", *options])
    finally:
        os._exit(status)


def _watch(before: Callable[[str], None], tally: Tally | None) -> None:
    link, pour = native.link, link_modes.Pourer.pour

    def linking(source: str, destination: str, **options: int) -> None:
        before(os.path.basename(destination))
        link(source, destination, **options)
        if tally is not None:
            tally.add()

    def pouring(self: link_modes.Pourer, source: int, destination: int, size: int, *place: str | int | None) -> None:
        before(os.path.basename(os.readlink(f"/proc/self/fd/{destination}")))
        pour(self, source, destination, size)
        if tally is not None:
            tally.add()

    native.link = linking  # type: ignore[assignment]
    link_modes.Pourer.pour = pouring  # type: ignore[assignment]


def killer(nth: int) -> Callable[[str], None]:
    """Return what kills a leader before its N-th file."""
    count = 0

    def strike(_: str) -> None:
        nonlocal count
        count += 1
        if count == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    return strike


def stages(env: Path) -> list[Path]:
    return sorted((site_packages(env) / ".envsync").iterdir())


def die_staging(lock: Path, env: Path, *options: str, nth: int) -> Path:
    """Let a leader die before its N-th file. Returns its workspace."""
    status = sync_in_child(lock, env, *options, before=killer(nth))
    assert os.WIFSIGNALED(status)
    (stage,) = stages(env)
    assert os.listdir(stage) == ["new"]
    return stage


def all_links(tmp_path: Path, lock: Path, *options: str) -> int:
    tally = Tally()
    assert sync_in_child(lock, tmp_path / "counted", *options, tally=tally) == 0
    return tally.total()


def resume(lock: Path, env: Path, *options: str) -> int:
    """Sync in a child, and count what it had to link or copy."""
    tally = Tally()
    assert sync_in_child(lock, env, *options, tally=tally) == 0
    return tally.total()


def check_whole(env: Path, expected: set[str]) -> None:
    assert unverified(env) == []
    assert unowned(env) == set()
    assert files(env) == expected
    assert leftovers(env) == []


def went_on(result: SyncResult) -> bool:
    return any(note.startswith("went on with what ") and note.endswith(" had staged") for note in result.notes)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the leader link all by itself, so that the N-th file is the N-th."""
    from envsync.staging.link import Linker

    def run(self: Linker, sized: list[tuple[int, list[object]]], total: int, report: object) -> None:
        for _, group in sized:
            self._do_group(group)  # type: ignore[arg-type]

    monkeypatch.setattr(forking, "can_share", lambda count: False)
    monkeypatch.setattr(Linker, "_run_in_two_threads", run)


pytestmark = pytest.mark.usefixtures("cache", "alone")


@pytest.mark.parametrize("options", [(), ("--link-mode", "copy")], ids=["link", "copy"])
def test_what_is_staged_is_not_staged_again(tmp_path: Path, options: tuple[str, ...]) -> None:
    """A leader brings only what the dead one had not brought, and the result is the same to the byte."""
    expected = expected_files(tmp_path, FIRST)
    total = all_links(tmp_path, FIRST, *options)
    assert total > 20
    for nth in (2, total // 2, total):
        env = tmp_path / f"env{nth}"
        die_staging(FIRST, env, *options, nth=nth)
        assert resume(FIRST, env, *options) == total - (nth - 1)
        check_whole(env, expected)


def test_an_upgrade_goes_on(tmp_path: Path) -> None:
    """So it is with an upgrade: the environment is the old one until the second leader commits."""
    old, new = expected_files(tmp_path, FIRST), expected_files(tmp_path, NEXT)
    env = tmp_path / "env"
    blocking.sync(FIRST, env=env)
    die_staging(NEXT, env, nth=4)
    assert files(env) == old
    assert unverified(env) == []
    result = blocking.sync(NEXT, env=env)
    assert went_on(result)
    check_whole(env, new)


def test_it_is_said(tmp_path: Path) -> None:
    """The result says whose work it went on with; a sync that found nothing says nothing of the kind."""
    env = tmp_path / "env"
    pid = os.fork()
    if not pid:
        _watch(killer(5), None)
        main(["sync", "--lock", str(FIRST), "--env", str(env), "-q"])
        os._exit(0)
    os.waitpid(pid, 0)
    result = blocking.sync(FIRST, env=env)
    host = os.uname().nodename
    assert f"took over from pid {pid} on {host}, which ended while staging" in result.notes
    assert f"went on with what pid {pid} on {host} had staged" in result.notes
    assert not went_on(blocking.sync(NEXT, env=env))


def test_half_a_copy_is_not_used(tmp_path: Path) -> None:
    """A copy is whole once its time is set: one that was cut before is made again."""
    expected = expected_files(tmp_path, FIRST)
    env = tmp_path / "env"
    stage = die_staging(FIRST, env, "--link-mode", "copy", nth=10)
    total = all_links(tmp_path, FIRST, "--link-mode", "copy")
    staged = [path for path in (stage / "new").rglob("*") if path.is_file() and path.stat().st_size > 8]
    # Those with the store's time, in whole seconds; scripts and RECORDs are made among them.
    copies = [path for path in staged if path.stat().st_mtime_ns % 1_000_000_000 == 0]
    copies[0].write_bytes(copies[0].read_bytes()[:-3])  # cut
    copies[1].write_bytes(copies[1].read_bytes())  # whole, but for its time
    mode = copies[2].stat().st_mode
    copies[2].chmod(mode ^ 0o111)
    assert resume(FIRST, env, "--link-mode", "copy") == total - 9 + 3
    check_whole(env, expected)


def test_what_is_not_a_link_to_the_store_is_linked_anew(tmp_path: Path) -> None:
    """A file in a stage that is not the store's own, though of the same name and size, is replaced."""
    expected = expected_files(tmp_path, FIRST)
    env = tmp_path / "env"
    stage = die_staging(FIRST, env, nth=all_links(tmp_path, FIRST))
    path = next(path for path in (stage / "new").rglob("*.py") if path.stat().st_size > 8)
    content = path.read_bytes()
    status = path.stat()
    path.unlink()
    path.write_bytes(b"#" * len(content))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    blocking.sync(FIRST, env=env)
    check_whole(env, expected)


def test_a_stage_of_links_is_none_for_copies(tmp_path: Path) -> None:
    """Links staged by one leader are not taken for another's copies: that one's `--link-mode copy` is for a reason."""
    expected = expected_files(tmp_path, FIRST)
    env = tmp_path / "env"
    die_staging(FIRST, env, nth=10)
    result = blocking.sync(FIRST, env=env, link_mode="copy")
    assert not went_on(result)
    check_whole(env, expected)
    modules = [path for path in site_packages(env).rglob("*") if path.is_file() and ".envsync" not in path.parts]
    assert {path.stat().st_nlink for path in modules} == {1}


def test_a_commit_that_had_begun_is_not_gone_on_with(tmp_path: Path) -> None:
    """A workspace with trash in it was a commit's: nothing of it is used again."""
    expected = expected_files(tmp_path, FIRST)
    env = tmp_path / "env"
    stage = die_staging(FIRST, env, nth=10)
    (stage / "old" / "0").mkdir(parents=True)
    (stage / "old" / "0" / "secret.py").touch()
    total = all_links(tmp_path, FIRST)
    assert resume(FIRST, env) == total
    check_whole(env, expected)


def test_another_plan_sweeps_it_away(tmp_path: Path) -> None:
    """Who syncs something else uses nothing of it, and makes room before it stages its own."""
    expected = expected_files(tmp_path, NEXT)
    env = tmp_path / "env"
    stage = die_staging(FIRST, env, nth=10)
    total = all_links(tmp_path, NEXT)
    tally = Tally()

    def check_gone(_: str) -> None:
        assert not stage.exists()

    assert sync_in_child(NEXT, env, before=check_gone, tally=tally) == 0
    assert tally.total() == total
    check_whole(env, expected)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link of the stage's name is removed, and what it leads to is left alone."""
    expected = expected_files(tmp_path, FIRST)
    env = tmp_path / "env"
    stage = die_staging(FIRST, env, nth=10)
    stage.rename(tmp_path / "elsewhere")
    stage.symlink_to(tmp_path / "elsewhere")
    before = files(tmp_path / "elsewhere")
    result = blocking.sync(FIRST, env=env)
    assert not went_on(result)
    assert files(tmp_path / "elsewhere") == before
    check_whole(env, expected)


@pytest.mark.parametrize("where", ["package", "dist-info", "site", "bin", "scheme"])
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_stray_file_in_it_is_not_installed(tmp_path: Path, where: str, kind: str) -> None:
    """Whatever else is in a stage that is gone on with, what is installed is what the wheels have."""
    expected = expected_files(tmp_path, FIRST)
    env = tmp_path / "env"
    total = all_links(tmp_path, FIRST)
    stage = die_staging(FIRST, env, nth=total)
    site = stage / "new" / site_packages(env).relative_to(env)
    packages = sorted(path for path in site.iterdir() if path.is_dir())
    stray = {
        "package": next(path for path in packages if not path.name.endswith(".dist-info")) / "stray.py",
        "dist-info": next(path for path in packages if path.name.endswith(".dist-info")) / "stray.py",
        "site": site / "stray.py",
        "bin": stage / "new" / "bin" / "stray.py",
        "scheme": stage / "new" / "share" / "stray.py",
    }[where]
    stray.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        stray.write_text("stray\n")
    elif kind == "directory":
        stray.mkdir()
        (stray / "x.py").write_text("stray\n")
    else:
        stray.symlink_to(tmp_path / "nowhere")
    blocking.sync(FIRST, env=env)
    found = [path for path in env.rglob("*") if path.name == stray.name]
    assert found == []
    check_whole(env, expected)


@pytest.mark.parametrize("kind", ["directory", "link to a directory", "link to a file", "dangling link"])
def test_something_else_of_a_files_name(tmp_path: Path, kind: str) -> None:
    """Something that is not a file where a file is to be staged is put out of the way, and never written through."""
    expected = expected_files(tmp_path, FIRST)
    env = tmp_path / "env"
    stage = die_staging(FIRST, env, nth=all_links(tmp_path, FIRST))
    path = next(path for path in (stage / "new").rglob("*.py"))
    path.unlink()
    elsewhere = tmp_path / "elsewhere"
    if "directory" in kind:
        (elsewhere if "link" in kind else path).mkdir()
    elif "file" in kind:
        elsewhere.write_text("mine")
    if "link" in kind:
        path.symlink_to(elsewhere)
    for _ in range(2):  # it may need another try, but not more
        try:
            blocking.sync(FIRST, env=env)
            break
        except EnvsyncError:
            continue
    check_whole(env, expected)
    assert not elsewhere.is_file() or elsewhere.read_text() == "mine"


def test_a_directory_that_leads_elsewhere(tmp_path: Path) -> None:
    """A link in a stage to a directory elsewhere is not staged into: nothing is written outside."""
    expected = expected_files(tmp_path, FIRST)
    env = tmp_path / "env"
    stage = die_staging(FIRST, env, nth=10)
    site = stage / "new" / site_packages(env).relative_to(env)
    package = next(path for path in sorted(site.iterdir()) if path.is_dir())
    elsewhere = tmp_path / "elsewhere"
    package.rename(tmp_path / "gone")
    elsewhere.mkdir()
    package.symlink_to(elsewhere)
    blocking.sync(FIRST, env=env)
    assert list(elsewhere.iterdir()) == []
    check_whole(env, expected)


@pytest.mark.timeout(600)
def test_killed_again_and_again(tmp_path: Path) -> None:
    """Leader after leader may die at any file: the last one ends with exactly the target, and nothing is done twice."""
    expected = expected_files(tmp_path, FIRST)
    total = all_links(tmp_path, FIRST)
    env = tmp_path / "env"
    done = 0
    while True:
        tally = Tally()
        status = sync_in_child(FIRST, env, before=_after(4), tally=tally)
        done += tally.total()
        if status == 0:
            break
        atomic.discard(str(env / ".envsync" / "failure.json"))  # or the fourth would be refused
    assert done == total
    check_repaired(FIRST, env, expected)


def _after(links: int) -> Callable[[str], None]:
    """Return what kills a leader after so many files that were not there."""
    from envsync.staging import bring

    count = 0
    original = bring.File.is_linked

    def strike(_: str) -> None:
        nonlocal count
        count += 1
        if count > links:
            kill()

    def counting(file: bring.File) -> bool:
        nonlocal count
        count -= 1  # it was there
        return original(file)

    bring.File.is_linked = counting  # type: ignore[method-assign]
    return strike


def test_a_child_that_outlives_its_leader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the leader dies and its child goes on staging, the next one waits for the child, and uses what both did."""
    monkeypatch.setattr(forking, "can_share", CAN_SHARE)
    expected = expected_files(tmp_path, FIRST)
    total = all_links(tmp_path, FIRST)
    env = tmp_path / "env"
    tally = Tally()
    ours = os.getpid()

    struck = tmp_path / "struck"

    def strike(_: str) -> None:
        if os.getppid() == ours:  # the leader itself, at its first file
            struck.touch()
            kill()
        while not struck.exists():  # else the child may have done all before the leader gets to a file
            time.sleep(0.001)

    status = sync_in_child(FIRST, env, before=strike, tally=tally)
    assert os.WIFSIGNALED(status)
    rest = resume(FIRST, env)
    done = tally.total()
    assert done > 0
    assert rest == total - done
    check_whole(env, expected)


def test_the_tally_counts() -> None:
    """The tests above would count nothing if this did not: children count, too."""
    tally = Tally()
    if not (pid := os.fork()):
        tally.add()
        os._exit(0)
    os.waitpid(pid, 0)
    tally.add()
    assert tally.total() == 2
    assert sys.platform != "win32"
