"""Whose failure is whose: what was tried is not tried again by each in turn, and what was not is."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envsync.errors import (
    ConflictError,
    DeadLeadersError,
    EnvsyncError,
    FetchError,
    FilesystemError,
    HashMismatchError,
    LockFileError,
    SharedFailureError,
    WheelError,
)
from envsync.launch import Environment
from envsync.system import processes
from envsync.waiting import failures
from envsync.waiting.failures import DIED, FATAL, KEPT, PASSING, Arrival, check, forgive, record, tell
from tests import needs
from tests.unit.scene import LIVENESS_SECONDS, ROOT, Clock, write_progress

KEY = "ours"


@pytest.fixture(autouse=True)
def _clock(clock: Clock) -> None:
    """All here is about time."""


def arrive(environment: Environment, *, whole_process: bool = False) -> Arrival:
    """Begin to wait."""
    arrival = Arrival(whole_process=whole_process)
    arrival.look(environment)
    return arrival


def fail(environment: Environment, error: EnvsyncError | None = None, key: str = KEY) -> None:
    """Fail as a leader does."""
    tell(environment, key, error or HashMismatchError("x-1.whl", "its hash is another"))


def die(environment: Environment, pid: int, key: str = KEY) -> None:
    """Die as a leader on another host does, and be found dead."""
    write_progress(environment, pid=pid, key=key, phase="staging")
    assert failures.bury(environment)["pid"] == pid


def is_shared(environment: Environment, arrival: Arrival, *, leading: bool = False, key: str = KEY) -> bool:
    try:
        check(environment, key, arrival, leading=leading)
    except SharedFailureError:
        return True
    return False


def kinds(environment: Environment) -> list[object]:
    return [failure.get("kind") for failure in failures.load(environment)]


class TestFatal:
    """What would fail for everybody."""

    def test_in_the_same_words(self, environment: Environment) -> None:
        """Whoever waited fails at once with the leader's words, hint and exit status, and says whose they are."""
        arrival = arrive(environment)
        error = LockFileError("pylock.toml", "no wheel fits", hint="lock again")
        error.exit_code = 77
        fail(environment, error)
        with pytest.raises(SharedFailureError) as caught:
            check(environment, KEY, arrival, leading=False)
        assert caught.value.message == (
            f"cannot use lock file `pylock.toml`: no wheel fits (the sync by pid {os.getpid()} on {processes.host()}, "
            "which this process waited for)"
        )
        assert (caught.value.hint, caught.value.exit_code) == ("lock again", 77)

    @pytest.mark.parametrize(
        ("error", "retryable"),
        [
            (HashMismatchError("x-1.whl", "its hash is another"), False),
            (FilesystemError("write", "x", OSError(errno.ENOSPC, "No space left on device")), True),
        ],
    )
    def test_what_it_was(self, environment: Environment, error: EnvsyncError, retryable: bool) -> None:
        """Whoever waited can tell what the leader's error was, and whether to try again, without its message."""
        arrival = arrive(environment)
        fail(environment, error)
        with pytest.raises(SharedFailureError) as caught:
            check(environment, KEY, arrival, leading=False)
        assert (caught.value.original, caught.value.retryable) == (type(error).__name__, retryable)
        tell(environment, KEY, caught.value)
        assert failures.load(environment)[-1]["error"] == type(error).__name__

    def test_of_an_older_version(self, environment: Environment) -> None:
        """Which did not say what it was."""
        arrival = arrive(environment)
        record(environment, KEY, FATAL, {"host": "h", "pid": 1, "message": "m"})
        with pytest.raises(SharedFailureError) as caught:
            check(environment, KEY, arrival, leading=False)
        assert (caught.value.original, caught.value.retryable) == ("", False)

    @pytest.mark.parametrize("leading", [False, True])
    def test_for_all(self, environment: Environment, leading: bool) -> None:
        """All who waited share it, whether or not they have got the lock meanwhile."""
        arrivals = [arrive(environment) for _ in range(5)]
        fail(environment)
        assert all(is_shared(environment, arrival, leading=leading) for arrival in arrivals)

    def test_of_another_request(self, environment: Environment) -> None:
        """Who waits for something else does not fail with it."""
        arrival = arrive(environment)
        fail(environment, key="theirs")
        assert not is_shared(environment, arrival)
        assert not is_shared(environment, arrival, leading=True)

    def test_it_is_read_once(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who looks twenty times a second reads the file only when it is another."""
        arrival = arrive(environment)
        fail(environment, key="theirs")
        assert not is_shared(environment, arrival)
        monkeypatch.setattr(failures, "load", pytest.fail)
        assert not is_shared(environment, arrival)

    def test_text_that_is_not_utf8(self, environment: Environment) -> None:
        """A path that is no text is in nobody's way."""
        arrival = arrive(environment)
        fail(environment, WheelError(os.fsdecode(b"x-\xff.whl"), "no"))
        with pytest.raises(SharedFailureError, match="\udcff"):
            check(environment, KEY, arrival, leading=False)


class TestPassing:
    """What may succeed for the next."""

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (FetchError("no route to host"), True),
            *[
                (FilesystemError("open", "/x", OSError(number, "no")), True)
                for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EROFS)
            ],
            (FilesystemError("open", "/x", OSError(errno.ESTALE, "no")), True),
            (FilesystemError("write", "/x", OSError(errno.ENOSPC, "no")), False),
            (FilesystemError("write", "/x", OSError(errno.EIO, "no")), False),
            (HashMismatchError("x", "no"), False),
            (ConflictError("env", ("x",)), False),
            (EnvsyncError("no"), False),
        ],
    )
    def test_which(self, environment: Environment, error: EnvsyncError, expected: bool) -> None:
        """The network, and the limits of one process or user; a full disk and bad input are everybody's."""
        fail(environment, error)
        assert kinds(environment) == [PASSING if expected else FATAL]

    def test_three_times_in_all(self, environment: Environment) -> None:
        """Another tries again, and a third, and then the rest fail with the last one's words."""
        arrivals = [arrive(environment) for _ in range(3)]
        for attempt in (1, 2):
            fail(environment, FetchError(f"attempt {attempt}"))
            assert not any(is_shared(environment, arrival) for arrival in arrivals)
            assert not any(is_shared(environment, arrival, leading=True) for arrival in arrivals)
        fail(environment, FetchError("attempt 3", hint="wait"))
        for arrival in arrivals:
            with pytest.raises(SharedFailureError, match=r"^attempt 3 .*; it was tried 3 times\)$") as caught:
                check(environment, KEY, arrival, leading=False)
            assert caught.value.hint == "wait"

    def test_only_those_that_concern_us(self, environment: Environment) -> None:
        """Attempts that had failed before we came do not count."""
        for _ in range(2):
            fail(environment, FetchError("before"))
        arrival = arrive(environment)
        fail(environment, FetchError("after"))
        assert not is_shared(environment, arrival)

    def test_a_fatal_one_among_them(self, environment: Environment) -> None:
        """After a failure that passes, one that does not is shared at once."""
        arrival = arrive(environment)
        fail(environment, FetchError("passes"))
        fail(environment)
        assert is_shared(environment, arrival)

    def test_of_other_requests(self, environment: Environment) -> None:
        """Each request has its own three attempts."""
        arrival = arrive(environment)
        for key in ("a", "b", KEY, "a", "b", KEY):
            fail(environment, FetchError("no"), key)
        assert not is_shared(environment, arrival)


class TestDied:
    """Leaders that end without a word."""

    def test_three_are_enough(self, environment: Environment) -> None:
        """After the third death, who would be the fourth fails instead, and names them all."""
        arrival = arrive(environment)
        for pid in (1, 2):
            die(environment, pid)
            check(environment, KEY, arrival, leading=True)
        die(environment, 3)
        with pytest.raises(DeadLeadersError) as caught:
            check(environment, KEY, arrival, leading=True)
        assert caught.value.leaders == ("pid 1 on n7", "pid 2 on n7", "pid 3 on n7")
        assert environment.path in caught.value.message
        assert caught.value.exit_code == 125

    def test_only_a_leader_asks(self, environment: Environment) -> None:
        """Who does not hold the lock waits on: somebody may be at it who knows better."""
        arrival = arrive(environment)
        for pid in (1, 2, 3):
            die(environment, pid)
        check(environment, KEY, arrival, leading=False)

    def test_the_rest_are_told(self, environment: Environment) -> None:
        """What the one finds out is fatal for the others, in the same words, and the names are in them."""
        first, other = arrive(environment), arrive(environment)
        for pid in (1, 2, 3):
            die(environment, pid)
        with pytest.raises(DeadLeadersError) as caught:
            check(environment, KEY, first, leading=True)
        tell(environment, KEY, caught.value)
        with pytest.raises(SharedFailureError, match="pid 1 on n7, pid 2 on n7, pid 3 on n7") as shared:
            check(environment, KEY, other, leading=False)
        assert shared.value.hint == caught.value.hint

    def test_of_before(self, environment: Environment) -> None:
        """Who comes after the deaths tries afresh, and so does who comes after they were told."""
        for pid in (1, 2, 3):
            die(environment, pid)
        check(environment, KEY, arrive(environment), leading=True)
        tell(environment, KEY, DeadLeadersError("env", ("a",)))
        check(environment, KEY, arrive(environment), leading=True)

    def test_of_other_requests(self, environment: Environment) -> None:
        """Leaders that died over something else do not count."""
        arrival = arrive(environment)
        for pid, key in enumerate(("a", "b", "c", KEY, "a", KEY)):
            die(environment, pid + 1, key)
        check(environment, KEY, arrival, leading=True)

    def test_it_is_written_down(self, environment: Environment) -> None:
        """What the dead one last said is kept, handed on, and its progress is gone, so that it is counted once."""
        write_progress(environment, pid=5, key=KEY, phase="staging", command="envsync run x", done=3, total=9)
        said = failures.bury(environment)
        assert (said["pid"], said["phase"], said["done"]) == (5, "staging", 3)
        assert not os.path.exists(environment.progress)
        assert failures.bury(environment) == {}
        (failure,) = failures.load(environment)
        wanted = {"kind": DIED, "key": KEY, "pid": 5, "host": "n7", "phase": "staging", "command": "envsync run x"}
        assert wanted.items() <= failure.items()

    def test_once(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """A death is counted once, though whoever wrote it down died, too, before the progress was gone."""
        write_progress(environment, id="x", pid=5, key=KEY)
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", pytest.fail)
            patch.setattr("posix.unlink", lambda path: None)
            for _ in range(3):
                assert failures.bury(environment)["pid"] == 5
        assert [failure["id"] for failure in failures.load(environment)] == ["x"]
        write_progress(environment, id="y", pid=5, key=KEY)
        failures.bury(environment)
        assert [failure["id"] for failure in failures.load(environment)] == ["x", "y"]

    @pytest.mark.parametrize("content", [b"", b"{}", b"[", b'{"host": "n7"}', b'{"format": 2, "pid": 3}'])
    def test_progress_that_says_nothing(self, environment: Environment, content: bytes) -> None:
        """Nobody is buried on the word of a damaged file."""
        Path(environment.progress).write_bytes(content)
        assert failures.bury(environment) == {}
        assert failures.load(environment) == []


class TestWho:
    """An attempt concerns those who wanted it before it ended."""

    def test_who_starts_later(self, environment: Environment, clock: Clock) -> None:
        """Who starts after the failure tries afresh, at once."""
        fail(environment)
        clock.now += 0.001
        arrival = arrive(environment)
        assert not is_shared(environment, arrival)
        assert not is_shared(environment, arrival, leading=True)

    @needs.PROC
    def test_a_late_comer(self, environment: Environment, clock: Clock) -> None:
        """Who wanted it before the failure, and comes to the lock after it, shares it: on this boot, clocks compare."""
        arrival = Arrival(whole_process=False)
        clock.now += 1
        fail(environment)
        clock.now += 1
        arrival.look(environment)
        assert is_shared(environment, arrival, leading=True)

    def test_a_late_comer_of_another_boot(
        self, environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Clocks of different hosts are never compared: a late comer there tries afresh."""
        arrival = Arrival(whole_process=False)
        clock.now += 1
        fail(environment)
        monkeypatch.setattr(processes, "boot", lambda: "another")
        arrival.look(environment)
        assert not is_shared(environment, arrival, leading=True)

    def test_another_boot_that_waited(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who was waiting shares it, wherever: it had not seen it when it began."""
        arrival = arrive(environment)
        fail(environment)
        monkeypatch.setattr(processes, "boot", lambda: "another")
        assert is_shared(environment, arrival)

    def test_no_boot_is_known(self, environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two hosts that cannot name their boot are not one."""
        monkeypatch.setattr(processes, "boot", lambda: "")
        arrival = Arrival(whole_process=False)
        clock.now += 1
        fail(environment)
        arrival.look(environment)
        assert not is_shared(environment, arrival, leading=True)

    @needs.PROC
    def test_the_process_counts(self, environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that was started before the failure, for this, shares it, though envsync began in it later."""
        started = clock.now
        monkeypatch.setattr(processes, "started", lambda: started)
        clock.now += 1
        fail(environment)
        clock.now += 1
        assert is_shared(environment, arrive(environment, whole_process=True), leading=True)
        assert not is_shared(environment, arrive(environment, whole_process=False), leading=True)

    def test_a_process_that_was_something_else(
        self, environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A shell that did other things for a while, and then execs envsync, wants it from then on."""
        started = clock.now
        monkeypatch.setattr(processes, "started", lambda: started)
        clock.now += failures.EXEC_SECONDS - 1
        fail(environment)
        clock.now += 2
        assert not is_shared(environment, arrive(environment, whole_process=True), leading=True)

    def test_a_library_in_an_old_process(
        self, environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a server, or a notebook, each call begins anew."""
        monkeypatch.setattr(processes, "started", lambda: clock.now - 5)
        fail(environment)
        clock.now += 1
        assert not is_shared(environment, arrive(environment), leading=True)

    def test_a_second_beginning(self, environment: Environment, clock: Clock) -> None:
        """A wait that begins anew, in an environment that was replaced, knows what is there now, and when it began."""
        arrival = arrive(environment)
        fail(environment, key="theirs")
        arrival.look(environment)
        clock.now += 1
        fail(environment)
        assert is_shared(environment, arrival)

    def test_known_ids(self, environment: Environment) -> None:
        """What was known when the wait began stays known, when others have failed since and the file is another."""
        fail(environment)
        arrival = arrive(environment)
        fail(environment, key="theirs")
        assert not is_shared(environment, arrival)
        fail(environment)
        assert is_shared(environment, arrival)


class TestClocks:
    """Clocks that jump."""

    @pytest.mark.parametrize("jump", [-1e9, -7200.0, -60.0, 60.0, 7200.0, 1e9])
    def test_what_is_known_is_never_shared(
        self, environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch, jump: float
    ) -> None:
        """The time of day may go back or ahead as it likes: who starts later tries afresh."""
        fail(environment)
        clock.now += 1
        monkeypatch.setattr(clock, "time", lambda: clock.now + jump)
        arrival = arrive(environment)
        fail(environment, key="theirs")
        assert not is_shared(environment, arrival)
        assert not is_shared(environment, arrival, leading=True)

    @pytest.mark.parametrize("jump", [-1e9, -60.0, 60.0, 1e9])
    def test_what_is_new_is_always_shared(
        self, environment: Environment, clock: Clock, monkeypatch: pytest.MonkeyPatch, jump: float
    ) -> None:
        """And who waited shares it, whatever the time was."""
        arrival = arrive(environment)
        monkeypatch.setattr(clock, "time", lambda: clock.now + jump)
        fail(environment)
        assert is_shared(environment, arrival)


class TestKept:
    """The file stays small, and goes."""

    def test_others_are_untouched(self, environment: Environment) -> None:
        """Recording and forgiving ours leaves what is others' as it is."""
        fail(environment, key="theirs")
        (theirs,) = failures.load(environment)
        fail(environment)
        assert failures.load(environment)[0] == theirs
        forgive(environment, KEY)
        assert failures.load(environment) == [theirs]

    def test_forgiven(self, environment: Environment) -> None:
        """After a success nothing is left, not even a file."""
        fail(environment)
        fail(environment, FetchError("x"))
        forgive(environment, KEY)
        assert not os.path.exists(environment.failure)
        forgive(environment, KEY)

    def test_so_many(self, environment: Environment) -> None:
        """Of very many, the latest are kept."""
        for number in range(KEPT + 8):
            record(environment, KEY, PASSING, {"host": "n", "pid": number})
        assert [failure["pid"] for failure in failures.load(environment)] == list(range(8, KEPT + 8))

    def test_so_long(self, environment: Environment, clock: Clock) -> None:
        """What is too old to concern anybody is dropped with the next."""
        fail(environment, FetchError("old"))
        clock.now += failures.KEPT_SECONDS - 1
        fail(environment, FetchError("new"))
        assert len(failures.load(environment)) == 2
        clock.now += 2
        fail(environment, FetchError("newer"))
        assert [str(failure["message"]) for failure in failures.load(environment)] == ["new", "newer"]

    def test_only_old_ones(self, environment: Environment, clock: Clock) -> None:
        """If nothing is left of them, the file goes."""
        fail(environment, key="theirs")
        clock.now += failures.KEPT_SECONDS + 1
        forgive(environment, KEY)
        assert not os.path.exists(environment.failure)

    def test_ids_differ(self, environment: Environment) -> None:
        """Each has an id of its own, by which waiters know it."""
        for _ in range(5):
            fail(environment)
        assert len({failure["id"] for failure in failures.load(environment)}) == 5

    def test_a_full_disk(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where nothing can be written, recording does not become another failure."""
        os.rename(environment.state, environment.state + ".gone")
        fail(environment)
        forgive(environment, KEY)

    @pytest.mark.parametrize(
        "entry",
        [{}, {"key": KEY}, {"key": KEY, "kind": "new"}, {"key": KEY, "kind": FATAL}, {"key": KEY, "kind": DIED}],
    )
    def test_entries_of_a_kind_unknown(self, environment: Environment, entry: dict[str, object]) -> None:
        """An entry that lacks things is read as far as that goes, and nothing but a shared failure comes of it."""
        arrival = arrive(environment)
        Path(environment.failure).write_text(json.dumps({"format": 1, "failures": [entry]}))
        assert is_shared(environment, arrival, leading=True) == (entry.get("kind") == FATAL)


@needs.PROC
def test_started_is_before_an_exec() -> None:
    """A process counts from its start, what it was before an exec included: that is what EXEC_SECONDS is for."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from envsync.waiting import failures\n"
        "arrival = failures.Arrival(whole_process=True)\n"
        "print(arrival.when, arrival._began())"
    )
    script = 'echo up; read x; exec "$0" -I -c "$1"'
    with subprocess.Popen(
        ["sh", "-c", script, sys.executable, code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        up = time.clock_gettime(time.CLOCK_BOOTTIME)
        out, _ = process.communicate("go\n", timeout=LIVENESS_SECONDS)
    when, began = map(float, out.split())
    assert began <= up + failures.TICK_SECONDS  # the start is rounded up to the next tick
    assert up < when
