"""Writing the stamp: what it vouches for can be seen to have changed, and it does not change that itself."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from envsync.errors import FilesystemError
from envsync.installed.ledger import Ledger, LedgerEntry
from envsync.installed.plan import Origin
from envsync.launch import Environment, fast_lane, stamp
from envsync.launch.stamp import Site, Stamp
from envsync.python.facts import Layout
from envsync.staging.parts import GUARD
from envsync.transaction import stamping

SITE = "lib/python3.11/site-packages"
LAYOUT = Layout(SITE, SITE, "bin", "include/site/python3.11")
SECOND = 1_000_000_000


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment as a sync leaves it, but for the stamp."""
    env = tmp_path / "env"
    for path in (f"{SITE}/.envsync", "bin", ".envsync"):
        (env / path).mkdir(parents=True)
    (env / "pyvenv.cfg").write_text("home = /usr/bin\n")
    for name in ("python", "tool", "two words", "new\nline"):
        (env / "bin" / name).touch()
    return Environment(str(env))


def observed(environment: Environment, layout: Layout = LAYOUT) -> Stamp:
    vouched = Stamp()
    vouched.environment = environment.path
    stamping.observe(vouched, environment, layout, 42)
    return vouched


def written(environment: Environment) -> Stamp:
    read = stamp.load(Path(environment.stamp).read_bytes())
    assert read is not None
    return read


class TestObserve:
    """What is put into the stamp."""

    def test_what_is_seen(self, environment: Environment) -> None:
        """Site-packages by inode and mtime, pyvenv.cfg by size and mtime, the in-use lock, and the commands."""
        vouched = observed(environment)
        (site,) = vouched.sites
        status = os.stat(f"{environment.path}/{SITE}")
        assert (site.path, site.inode, site.mtime_ns) == (
            f"{environment.path}/{SITE}",
            status.st_ino,
            status.st_mtime_ns,
        )
        config = os.stat(environment.config)
        assert vouched.config == f"{config.st_size} {config.st_mtime_ns}"
        assert vouched.in_use == 42
        assert vouched.commands == ["python", "tool"]

    def test_both_site_packages(self, environment: Environment) -> None:
        """Where pure and platform libraries are apart, the stamp is for both."""
        split = Layout(SITE, "lib64/python3.11/site-packages", "bin", "include")
        assert [site.path for site in observed(environment, split).sites] == [
            f"{environment.path}/{path}" for path in split.sites
        ]

    @pytest.mark.parametrize("missing", ["pyvenv.cfg", "bin"])
    def test_what_is_missing(self, environment: Environment, missing: str) -> None:
        """What cannot be looked at is an error that names it."""
        os.rename(f"{environment.path}/{missing}", f"{environment.path}/elsewhere")
        with pytest.raises(FilesystemError, match=missing):
            observed(environment)

    def test_the_first_import_changes_nothing(self, environment: Environment) -> None:
        """The first import of a single-file module writes bytecode, and the stamp still fits."""
        site = Path(environment.path, SITE)
        (site / "single.py").write_text("x = 1\n")
        vouched = observed(environment)
        stamping.write(vouched, environment)
        code = f"import sys; sys.path.insert(0, {str(site)!r}); import single; print(single.__cached__)"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
        assert Path(done.stdout.strip()).is_file()
        assert Path(done.stdout.strip()).parent == site / "__pycache__"
        assert fast_lane.is_untouched(written(environment), environment.config)

    def test_a_new_entry_changes_it(self, environment: Environment) -> None:
        """A distribution that somebody adds, removes or renames is noticed, even at once."""
        site = Path(environment.path, SITE)
        for change in (
            (site / "new").mkdir,
            (site / "new").rmdir,
            (site / "new.py").touch,
            lambda: (site / "new.py").rename(site / "newer.py"),
            (site / "newer.py").unlink,
        ):
            stamping.write(observed(environment), environment)
            assert not written(environment).racy
            assert fast_lane.is_untouched(written(environment), environment.config)
            change()
            assert not fast_lane.is_untouched(written(environment), environment.config)

    @pytest.mark.parametrize("network", [False, True])
    def test_a_client_that_answers_with_an_old_time(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch, network: bool
    ) -> None:
        """Over a network, the time of site-packages is set to now, which a client cannot but know; else it is left."""
        os.utime(f"{environment.path}/{SITE}", (1, 1))
        os.mkdir(f"{environment.path}/{SITE}/__pycache__")
        monkeypatch.setattr(stamping.mounts, "is_network", lambda path: network)
        before = os.stat(f"{environment.path}/{SITE}").st_mtime_ns
        (site,) = observed(environment).sites
        assert (site.mtime_ns > before) is network
        assert site.mtime_ns == os.stat(f"{environment.path}/{SITE}").st_mtime_ns

    def test_a_time_that_cannot_be_set(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is taken as it is found."""
        monkeypatch.setattr(stamping.mounts, "is_network", lambda path: True)

        def refused(path: str) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted", path)

        monkeypatch.setattr(stamping.os, "utime", refused)
        (site,) = observed(environment).sites
        assert site.mtime_ns == os.stat(f"{environment.path}/{SITE}").st_mtime_ns


class TestWrite:
    """Putting it in place."""

    def test_it_is_the_last_thing(self, environment: Environment) -> None:
        """The stamp is there, the draining one is not, and nothing temporary is left."""
        Path(environment.draining).write_bytes(b"old")
        stamping.write(observed(environment), environment)
        assert os.listdir(environment.state) == ["stamp"]
        assert not written(environment).racy

    def test_it_does_not_invalidate_itself(self, environment: Environment) -> None:
        """Writing the stamp, and a new one over it, changes nothing that it vouches for."""
        for _ in range(3):
            vouched = observed(environment)
            stamping.write(vouched, environment)
            assert fast_lane.is_untouched(written(environment), environment.config)
        assert fast_lane.is_untouched(vouched, environment.config)

    def test_it_is_later_than_what_it_vouches_for(self, environment: Environment) -> None:
        """A change after the stamp gets another mtime than the one in it: the clock has passed that."""
        site = Path(environment.path, SITE)
        for number in range(20):
            (site / f"{number}.py").touch()
            vouched = observed(environment)
            stamping.write(vouched, environment)
            (site / f"{number}.txt").touch()
            assert os.stat(site).st_mtime_ns > vouched.sites[0].mtime_ns

    def test_who_has_lost_the_environment_meanwhile(self, environment: Environment) -> None:
        """Whoever hung while the clock ticked does not vouch for what a successor has made of it."""
        Path(environment.stamp).write_bytes(b"of a successor")

        def lost() -> None:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            stamping.write(observed(environment), environment, checkpoint=lost)
        assert Path(environment.stamp).read_bytes() == b"of a successor"

    def test_a_full_disk(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where it cannot be written, there is none, and the one of before is as it was."""
        Path(environment.stamp).write_bytes(b"before")
        vouched = observed(environment)

        def full(*_: object, **__: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(FilesystemError, match="No space"):
                stamping.write(vouched, environment)
        assert Path(environment.stamp).read_bytes() == b"before"
        assert os.listdir(environment.state) == ["stamp"]


class Filesystem:
    """A filesystem whose clock has ticks: what os.fstat says of the probe, and time that passes only by sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, tick_ns: int, now_ns: int) -> None:
        self.tick_ns = tick_ns
        self.now_ns = now_ns
        self.slept = 0.0
        self.changed_ns = self.mtime_ns
        self.touched = 0
        monkeypatch.setattr(
            stamping,
            "time",
            SimpleNamespace(
                monotonic=lambda: self.now_ns / SECOND, sleep=self.sleep, time=lambda: self.now_ns / SECOND
            ),
        )
        monkeypatch.setattr(
            stamping,
            "os",
            SimpleNamespace(**{**vars(os), "fstat": lambda _: SimpleNamespace(st_mtime_ns=self.changed_ns)}),
        )
        monkeypatch.setattr(stamping.seconds, "touch", self.touch)

    @property
    def mtime_ns(self) -> int:
        """What a file that is changed now gets."""
        return self.now_ns // self.tick_ns * self.tick_ns

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept += seconds
        self.now_ns += int(seconds * SECOND)

    def touch(self, _: int) -> None:
        self.touched += 1
        self.changed_ns = self.mtime_ns


class TestClock:
    """The racy clock: an equal mtime proves nothing of a change within the tick in which the stamp was written."""

    @pytest.fixture
    def environment(self, environment: Environment) -> Iterator[Environment]:
        yield environment
        assert not [name for name in os.listdir(environment.state) if name.startswith("clock")]

    def stamp_at(self, environment: Environment, mtime_ns: int) -> Stamp:
        vouched = observed(environment)
        vouched.sites[0].mtime_ns = mtime_ns
        stamping.write(vouched, environment)
        return written(environment)

    @pytest.mark.parametrize("tick_ns", [1, 1_000, 4_000_000, 10_000_000, SECOND])
    def test_it_waits_for_the_next_tick(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch, tick_ns: int
    ) -> None:
        """On filesystems that count in anything up to seconds the stamp is written a tick later, and is not racy."""
        filesystem = Filesystem(monkeypatch, tick_ns=tick_ns, now_ns=1_000 * SECOND + SECOND // 3)
        last = filesystem.mtime_ns
        assert not self.stamp_at(environment, last).racy
        assert filesystem.mtime_ns > last
        assert filesystem.slept <= tick_ns / SECOND + 0.01

    def test_a_server_is_not_asked_all_the_time(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the tick is a whole second, its clock is asked a hundred times for it, not each half millisecond."""
        filesystem = Filesystem(monkeypatch, tick_ns=SECOND, now_ns=1_000 * SECOND)
        assert not self.stamp_at(environment, filesystem.mtime_ns).racy
        assert filesystem.touched <= 100

    def test_it_does_not_wait_for_what_is_past(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """An environment that was last changed a while ago is stamped at once."""
        filesystem = Filesystem(monkeypatch, tick_ns=SECOND, now_ns=1_000 * SECOND)
        assert not self.stamp_at(environment, 999 * SECOND).racy
        assert filesystem.slept == 0

    @pytest.mark.parametrize("ahead", [2, 3600])
    def test_a_clock_that_is_behind(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch, ahead: int
    ) -> None:
        """If the tick does not come, because another host's clock is ahead, the stamp says that it proves nothing."""
        filesystem = Filesystem(monkeypatch, tick_ns=1, now_ns=1_000 * SECOND)
        assert self.stamp_at(environment, (1_000 + ahead) * SECOND).racy
        assert filesystem.slept == pytest.approx(stamping.PATIENCE_SECONDS, abs=0.01)

    def test_two_site_packages(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """The latest change of all decides."""
        filesystem = Filesystem(monkeypatch, tick_ns=SECOND, now_ns=1_000 * SECOND)
        split = Layout(SITE, "lib64/python3.11/site-packages", "bin", "include")
        vouched = observed(environment, split)
        vouched.sites[0].mtime_ns, vouched.sites[1].mtime_ns = 999 * SECOND, 1_000 * SECOND
        stamping.write(vouched, environment)
        assert filesystem.mtime_ns > 1_000 * SECOND


def test_a_guard_that_was_made_anew_is_none(environment: Environment) -> None:
    """The file of a distribution that was installed again may have the inode and the time of the one of before."""
    entries = {}
    for name in ("old", "again"):
        info = f"{SITE}/{name}-1.dist-info"
        (Path(environment.path) / info).mkdir()
        (Path(environment.path) / info / GUARD).touch()
        entries[name] = LedgerEntry("1", Origin("0" * 64), 0, 0, (info,), scripts=False)
    paths = {name: f"{environment.path}/{SITE}/{name}-1.dist-info/{GUARD}" for name in entries}
    status = os.stat(paths["again"])
    before, vouched = observed(environment), observed(environment)
    before.environment = vouched.environment = environment.path
    before.guards = [Site(paths["again"], status.st_ino, status.st_mtime_ns)]
    stamping.guard(vouched, before, Ledger(environment.path, "", entries), {"again": 1})
    assert [guard.path for guard in vouched.guards] == [paths["old"]]
