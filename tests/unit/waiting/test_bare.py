"""An environment in which nobody has been served goes again: what may be removed, and by whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsync.errors import FilesystemError, LockingError
from envsync.installed.ledger import Ledger, LedgerEntry, dump_ledger
from envsync.installed.plan import Origin
from envsync.launch import Environment
from envsync.launch.demand import Demand
from envsync.launch.request import Request
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.locks.lease import Contender
from envsync.system import atomic, mounts, processes
from envsync.waiting import bare, directory
from envsync.waiting.waiter import Wait
from tests import needs
from tests.unit.scene import Clock, helper, holder, make_environment, make_request

FIRST = LedgerEntry("1.0", Origin("0" * 64, None), 0, 0, (), scripts=False)


@pytest.fixture
def made(tmp_path: Path) -> Environment:
    """An environment's directory, just made for a first sync, with two above it."""
    environment = Environment(str(tmp_path / "a" / "b" / "env"))
    directory.prepare(environment)
    return environment


def take(environment: Environment) -> Flock:
    """Take the environment lock, as a leader does."""
    lock = flock.acquire_nowait(environment.lock, shared=False)
    assert lock is not None
    return lock


def make_skeleton(environment: Environment) -> None:
    """Make what `venv` makes."""
    env = Path(environment.path)
    bare.announce_skeleton(environment)
    for below in ("bin", "include", "lib/python3.11/site-packages/.envsync/0123"):
        (env / below).mkdir(parents=True)
    (env / "pyvenv.cfg").touch()
    (env / "lib64").symlink_to("lib")
    for name in ("activate", "Activate.ps1", "python", "python3.11"):
        (env / "bin" / name).touch()
    (env / "lib/python3.11/site-packages/.envsync/0123/x.py").touch()
    (env / "CACHEDIR.TAG").touch()


@needs.GONE_AT_ONCE
class TestWhatGoes:
    """What may be removed, and what stays."""

    def test_what_was_made_goes(self, made: Environment, tmp_path: Path) -> None:
        """The directory, and those above it that were missing, too."""
        bare.leave(made, take(made))
        assert os.listdir(tmp_path) == []

    def test_what_has_replaced_it_stays(self, made: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever was stopped in the midst of a removal finds another environment there, and leaves it alone."""
        lock = take(made)
        make_skeleton(made)
        discard = atomic.discard_tree

        def discard_and_stop(path: str) -> None:
            discard(path)
            if not os.path.exists(f"{made.path}/there"):
                os.rename(made.path, f"{made.path}.old")
                for below in ("bin", "lib", ".envsync", "there"):
                    os.makedirs(f"{made.path}/{below}/theirs")

        monkeypatch.setattr(atomic, "discard_tree", discard_and_stop)
        bare.leave(made, lock)
        assert sorted(os.listdir(made.path)) == [".envsync", "bin", "lib", "there"]
        assert os.listdir(made.state) == ["theirs"]

    @pytest.mark.parametrize("written", ["a/./b//env", "./a/b/./env", "a/b/env/."])
    def test_however_its_path_is_written(self, tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What names the same directory once more is no directory that was missing."""
        monkeypatch.chdir(tmp_path)
        environment = Environment(written)
        directory.prepare(environment)
        bare.leave(environment)
        assert os.listdir(tmp_path) == []

    def test_a_damaged_mark_names_no_end_of_directories(self, made: Environment) -> None:
        """It is no reason to go on for hours."""
        Path(made.path, "..", "others").touch()
        bare.mark(made, 10**12)
        bare.leave(made)
        assert not os.path.lexists(made.lock)

    def test_a_directory_above_that_others_use_stays(self, made: Environment, tmp_path: Path) -> None:
        """Only empty ones go."""
        (tmp_path / "a" / "other").touch()
        bare.leave(made)
        assert os.listdir(tmp_path / "a") == ["other"]

    @pytest.mark.parametrize("names", [(), (".gitignore",)])
    def test_a_directory_that_was_there_stays(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        """It is somebody's; it is as it was."""
        environment = Environment(str(tmp_path / "env"))
        os.mkdir(environment.path)
        for name in names:
            (tmp_path / "env" / name).touch()
        directory.prepare(environment)
        bare.leave(environment)
        assert tuple(os.listdir(environment.path)) == names

    def test_a_skeleton_of_ours_goes(self, made: Environment, tmp_path: Path) -> None:
        """All of it or half of it, with a stage in it."""
        make_skeleton(made)
        os.unlink(made.python)
        bare.leave(made)
        assert os.listdir(tmp_path) == []

    def test_a_skeleton_of_others_stays(self, made: Environment) -> None:
        """Somebody has made a virtual environment where a leader was killed before it could."""
        make_skeleton(made)
        os.unlink(f"{made.bare}/skeleton")  # as it was before the leader said that there would be one
        bare.leave(made)
        assert os.path.lexists(made.config)

    @pytest.mark.parametrize(
        "name", ["notes.txt", "bin/tool", "lib/python3.11/site-packages/x.py", "include/x.h", "share", "lib/link"]
    )
    def test_a_file_of_somebody_stays(self, made: Environment, name: str) -> None:
        """With one, the environment is not bare, and all of it stays."""
        make_skeleton(made)
        (Path(made.path) / name).symlink_to("/usr")
        before = sorted(Path(made.path).rglob("*"))
        bare.leave(made)
        assert set(before) <= set(Path(made.path).rglob("*"))

    @pytest.mark.parametrize("name", ["stamp", "draining", "journal"])
    def test_what_was_synced_stays(self, made: Environment, name: str) -> None:
        """Whatever says that somebody was or will be served there keeps it, though the mark is there."""
        Path(getattr(made, name)).touch()
        bare.leave(made)
        assert os.path.lexists(made.bare)

    def test_an_environment_with_packages_stays(self, made: Environment) -> None:
        """Those that we know of, even if they cannot be seen."""
        atomic.write(made.installed, dump_ledger(Ledger("", "", {"x": FIRST})))
        bare.leave(made)
        assert os.path.lexists(made.bare)

    def test_an_environment_without_a_mark_stays(self, tmp_path: Path) -> None:
        """That of somebody else, or one that was synced before."""
        environment = make_environment(tmp_path / "env")
        bare.leave(environment, take(environment))
        assert os.path.isdir(environment.state)

    def test_one_that_was_served_stays(self, made: Environment) -> None:
        """The mark goes before the stamp comes."""
        bare.serve(made)
        bare.leave(made)
        assert os.path.isdir(made.state)

    def test_what_is_in_use_stays(self, made: Environment) -> None:
        """Nobody can be in it; but if anybody holds that lock, it is not ours to remove."""
        Path(made.in_use).touch()
        with holder(made.in_use, "shared"):
            bare.leave(made)
            assert os.path.isdir(made.state)

    def test_what_a_killed_remover_has_left_goes(self, made: Environment, tmp_path: Path) -> None:
        """An empty `.envsync` gets a new mark from the next leader, and its directory stays, empty."""
        atomic.discard_tree(made.bare)
        lock = take(made)
        bare.mark_again(made)
        bare.leave(made, lock)
        assert os.listdir(tmp_path / "a" / "b" / "env") == []


@needs.GONE_AT_ONCE
class TestWhoRemoves:
    """The last one who wanted it."""

    def test_not_while_somebody_wants_it(self, made: Environment) -> None:
        """Who waits has to hear how it ended; then that one removes it."""
        wanted = bare.want_nowait(made)
        assert wanted is not None
        bare.leave(made, take(made))
        assert os.path.lexists(made.bare)
        wanted.release()
        bare.leave(made)
        assert not os.path.lexists(made.path)

    def test_not_while_somebody_holds_the_lock(self, made: Environment) -> None:
        """A leader leaves after us; uv is served."""
        with holder(made.lock):
            bare.leave(made)
            assert os.path.lexists(made.bare)

    @needs.PROC
    def test_not_while_somebody_is_blocked_on_the_lock(self, made: Environment) -> None:
        """uv waits for the lock itself: the environment that it waits for stays."""
        blocked = (
            "import fcntl, os; fd = os.open(sys.argv[1], os.O_RDWR); print('here', flush=True);"
            "fcntl.flock(fd, fcntl.LOCK_EX); print('served', os.path.exists(sys.argv[1]), flush=True)"
        )
        lock = take(made)
        with helper(blocked, made.lock) as other:
            assert other.hear() == "here"
            while not processes.is_waited_for(made.lock):
                os.sched_yield()
            bare.leave(made, lock)
            assert other.hear() == "served True"

    def test_the_lock_is_released(self, made: Environment) -> None:
        """Whatever comes of it."""
        wanted = bare.want_nowait(made)
        lock = take(made)
        bare.leave(made, lock)
        assert lock.fd == -1
        take(made).release()
        assert wanted is not None
        wanted.release()

    def test_the_last_one_is_not_missed(self, made: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that lets go while we find it wanted, and then finds the lock taken by us: we look once more."""
        take(made).release()
        wanted = bare.want_nowait(made)
        assert wanted is not None
        is_over = bare._is_over

        def and_then_the_other_leaves(environment: Environment, lock: Flock) -> bool:
            over = is_over(environment, lock)
            if wanted.fd >= 0:
                wanted.release()
                bare.leave(environment)  # in vain: the lock is taken
                assert not over
                assert os.path.lexists(made.bare)
            return over

        monkeypatch.setattr(bare, "_is_over", and_then_the_other_leaves)
        bare.leave(made)
        assert not os.path.lexists(made.path)

    def test_nothing_is_made_beneath_who_removes(self, made: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """If `wanted` is gone when we look once more, somebody is at it: new files would keep the directory."""
        take(made).release()
        wanted = bare.want_nowait(made)
        assert wanted is not None
        is_over = bare._is_over

        def and_wanted_goes(environment: Environment, lock: Flock) -> bool:
            over = is_over(environment, lock)
            os.unlink(made.wanted)
            return over

        monkeypatch.setattr(bare, "_is_over", and_wanted_goes)
        bare.leave(made)
        assert not os.path.lexists(made.wanted)
        assert os.path.lexists(made.bare)
        wanted.release()

    def test_the_lock_that_was_replaced_removes_nothing(self, made: Environment) -> None:
        """`rm` and another leader: what is there now is that one's."""
        lock = take(made)
        os.unlink(made.lock)
        other = take(made)
        bare.leave(made, lock)
        assert other.is_in_place()
        other.release()

    def test_a_newcomer_in_the_midst_keeps_the_directory(
        self, made: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who comes between two unlinks has made its own `wanted`; it passes the directory on with a mark."""
        discard = bare._discard
        taken: list[Flock | None] = []

        def and_somebody_comes(path: str) -> None:
            discard(path)
            if path == f"{made.bare}/missing-3":
                taken.append(bare.want_nowait(made))

        monkeypatch.setattr(bare, "_discard", and_somebody_comes)
        bare.leave(made)
        monkeypatch.undo()
        (newcomer,) = taken
        assert newcomer is not None
        assert newcomer.is_in_place()
        newcomer.release()
        bare.leave(made)
        assert os.listdir(tmp_path) == []

    def test_what_a_newcomer_adds_to_the_mark_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It has made the uppermost directory, and the others have made the rest and are just removing it."""
        (tmp_path / "a").mkdir()
        made = Environment(str(tmp_path / "a" / "b" / "env"))
        directory.prepare(made)
        discard = bare._discard

        def and_somebody_adds(path: str) -> None:
            discard(path)
            if path == f"{made.bare}/missing-2":
                bare.mark(made, 3)

        monkeypatch.setattr(bare, "_discard", and_somebody_adds)
        bare.leave(made)
        assert os.listdir(tmp_path) == []

    def test_no_lock_is_made_beneath_who_removes(self, made: Environment) -> None:
        """It would keep the directory from being removed, without a mark."""
        with holder(made.wanted):
            bare.leave(made)
            assert not os.path.lexists(made.lock)
        bare.leave(made)
        assert not os.path.lexists(made.path)

    def test_a_lease_is_released(self, made: Environment) -> None:
        """Whoever is interrupted before it leads keeps nobody waiting, whatever the lock is."""
        made_lease = Contender(made).acquire_nowait()
        assert made_lease is not None
        atomic.write(made.locking, b'{\n"format": 1,\n"kind": "lease",\n"in_use": false,\n"reason": "x"\n}\n')
        bare.leave(made, made_lease)
        assert not os.path.lexists(made.lease)

    def test_where_locks_are_leases_all_stays(self, made: Environment) -> None:
        """Nobody could tell who wants it."""
        atomic.write(made.locking, b'{\n"format": 1,\n"kind": "lease",\n"in_use": false,\n"reason": "x"\n}\n')
        bare.leave(made)
        assert os.path.lexists(made.bare)


@needs.GONE_AT_ONCE
class TestWait:
    """What a waiter does about it."""

    def test_a_wait_in_vain_leaves_nothing(self, tmp_path: Path, clock: Clock) -> None:
        """A waiter that gives up is the last one when the leader has failed meanwhile."""
        request = make_request(tmp_path, timeout=1.0)
        environment = Environment(str(tmp_path / "env"))
        directory.prepare(environment)
        leader = take(environment)
        clock.after(0.9, lambda: bare.leave(environment, leader))
        clock.after(0.95, lambda: take(environment).release())
        wait = Wait(Demand(request, environment))
        assert wait.begin() is None
        bare.leave(environment, leader)
        assert os.path.lexists(environment.bare)
        wait.end()
        assert not os.path.lexists(environment.path)

    def test_a_lock_that_is_a_link_to_nothing(self, made: Environment, request_: Request) -> None:
        """It is not waited for: nobody can ever hold it."""
        os.symlink("nowhere/x", made.lock)
        with pytest.raises(FilesystemError) as raised:
            Wait(Demand(request_, made)).until_over()
        assert raised.value.hint == f"remove the link, which leads nowhere: `rm {made.lock}`"

    def test_a_mark_of_who_waits_that_is_a_link_to_nothing(self, made: Environment, request_: Request) -> None:
        """It keeps nobody from leading, nor from removing."""
        os.symlink("nowhere/x", made.wanted)
        held = Wait(Demand(request_, made)).until_over()
        assert isinstance(held, Flock)
        held.release()

    @needs.PROC
    def test_refused_for_locks_that_stay_within_the_node(
        self, tmp_path: Path, request_: Request, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody has led there, so nothing stays, though no lock excludes whoever comes."""
        monkeypatch.setattr(mounts, "LOCAL_BY_KIND", frozenset({mounts.mount_of(str(tmp_path)).kind}))
        environment = Environment(str(tmp_path / "a" / "env"))
        wait = Wait(Demand(request_, environment))
        with pytest.raises(LockingError, match="stays within the node"):
            wait.until_over()
        assert not os.path.lexists(tmp_path / "a")

    def test_who_leads_keeps_it(self, tmp_path: Path) -> None:
        """The end of the wait is not the end of what it was for."""
        request = make_request(tmp_path)
        environment = Environment(str(tmp_path / "env"))
        wait = Wait(Demand(request, environment))
        held = wait.begin()
        wait.end()
        assert isinstance(held, Flock)
        assert held.is_in_place()
        bare.leave(environment, held)
        assert not os.path.lexists(environment.path)

    def test_who_finds_it_being_removed_begins_again(self, made: Environment, request_: Request) -> None:
        """While it is locked by who removes it, one waits; then it is made anew."""
        import fcntl

        wait = Wait(Demand(request_, made))
        with open(made.wanted, "w", encoding="utf-8") as remover:
            fcntl.flock(remover, fcntl.LOCK_EX)
            assert wait.bid.try_nowait(0.4) is None
            os.unlink(made.wanted)
            atomic.discard_tree(made.bare)
            os.rmdir(made.state)
        held = wait.bid.try_nowait(0.4)
        assert isinstance(held, Flock)
        wait.end()
        held.release()

    def test_an_environment_of_others_is_not_locked_by_this(self, tmp_path: Path, request_: Request) -> None:
        """Nobody removes it, so there is nothing to keep others from."""
        environment = make_environment(tmp_path / "env")
        wait = Wait(Demand(request_, environment))
        held = wait.begin()
        assert wait.bid.wanted is None
        wait.end()
        assert isinstance(held, Flock)
        held.release()


@needs.GONE_AT_ONCE
def test_directories_that_go_before_they_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others remove them after they were seen to be there: whoever makes them again knows that they are its own."""
    environment = Environment(str(tmp_path / "envs" / "deep" / "env"))
    os.makedirs(environment.path)
    missing = directory._missing

    def look(path: str) -> int:
        found = missing(path)
        os.removedirs(path)
        (tmp_path).mkdir(exist_ok=True)
        return found

    monkeypatch.setattr(directory, "_missing", look)
    directory.prepare(environment)
    bare.leave(environment)
    assert os.listdir(tmp_path) == []


@needs.GONE_AT_ONCE
def test_who_has_made_the_uppermost_directory_remembers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one makes the next, and the environment in it, before we can: all of it goes in the end."""
    environment = Environment(str(tmp_path / "envs" / "deep" / "env"))
    make = os.mkdir
    others: list[str] = []

    def make_after_others(path: str) -> None:
        if path.endswith("/deep") and os.path.isdir(tmp_path / "envs") and not others:
            others.append(path)
            monkeypatch.setattr(os, "mkdir", make)
            directory.prepare(environment)
        make(path)

    monkeypatch.setattr(os, "mkdir", make_after_others)
    directory.prepare(environment)
    assert others
    bare.leave(environment)
    assert os.listdir(tmp_path) == []


@needs.GONE_AT_ONCE
def test_a_mark_is_finished_or_none(tmp_path: Path) -> None:
    """Who was killed while it wrote one has not said what is to be spared: nothing is removed."""
    environment = Environment(str(tmp_path / "env"))
    os.makedirs(environment.bare)
    bare.leave(environment)
    assert os.path.isdir(environment.bare)
    bare.mark(environment, 1, [".gitignore"])
    bare.leave(environment)
    assert not os.path.lexists(environment.path)
