"""Lead or wait: what a waiter does at each poll, with a clock that only its sleeping moves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envsync import replace
from envsync.coordination import flock, waiter
from envsync.coordination.flock import Flock
from envsync.coordination.waiter import describe_holder, lead_or_wait, prepare, read_state
from envsync.environment import Environment
from envsync.errors import (
    EnvironmentRefusedError,
    EnvsyncError,
    FilesystemError,
    RefusedError,
    SharedFailureError,
    WaitTimeoutError,
)
from envsync.fastlane import Entry
from envsync.installed import Layout
from envsync.request import Request, describe_python
from envsync.stamp import Stamp, checksum
from envsync.transaction import stamping

ROOT = Path(__file__).parent.parent.parent.parent
SITE = "lib/python3.11/site-packages"
LAYOUT = Layout(SITE, SITE, "bin", "include/site/python3.11")


class Clock:
    """Time that passes by sleeping alone, and what happens meanwhile."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.events: list[tuple[float, Callable[[], object]]] = []
        self.naps = 0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.naps += 1
        assert self.naps < 10_000, "it waits for ever"
        self.now += max(seconds, 1e-4)
        while self.events and self.events[0][0] <= self.now:
            self.events.pop(0)[1]()

    def after(self, seconds: float, event: Callable[[], object]) -> None:
        """Let something happen while the waiter sleeps."""
        self.events.append((self.now + seconds, event))
        self.events.sort(key=lambda item: item[0])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(waiter, "time", clock)
    return clock


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment that is current for nothing yet."""
    env = tmp_path / "env"
    for path in (SITE, "bin", ".envsync"):
        (env / path).mkdir(parents=True)
    (env / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (env / ".envsync" / "in-use").touch()
    return Environment(str(env))


@pytest.fixture
def leader(environment: Environment) -> Iterator[Flock]:
    """Somebody who leads."""
    lock = flock.acquire_nowait(environment.lock, shared=False)
    assert lock is not None
    yield lock
    lock.release()


def make_request(tmp_path: Path, content: bytes = b"lock", **settings: object) -> Request:
    path = tmp_path / "pylock.toml"
    path.write_bytes(content)
    return Request(dict(settings), str(path), checksum(content), str(tmp_path / "env"))


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return make_request(tmp_path)


def write_stamp(environment: Environment, request: Request, *, racy: bool = False) -> None:
    """Make the environment current for a request."""
    vouched = Stamp()
    vouched.environment = environment.path
    vouched.python = describe_python("cpython", "3.11")
    vouched.digest = request.digest(vouched.python)
    stamping.observe(vouched, environment, LAYOUT, os.stat(environment.in_use).st_ino)
    stamping.write(vouched, environment)
    if racy:
        from envsync import stamp

        vouched.racy = True
        replace.write(environment.stamp, stamp.dump(vouched))


def write_failure(environment: Environment, request: Request, **changes: object) -> None:
    value = {"key": request.key, "message": "no space", "hint": "make some", "exit_code": 125, "host": "n1", "pid": 7}
    replace.write(environment.failure, json.dumps({**value, **changes}).encode())


def leave(held: Flock | Entry) -> None:
    if isinstance(held, Entry):
        os.close(held.fd)
    else:
        held.release()


def descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


class TestLead:
    """Nobody leads."""

    def test_the_first_leads(self, environment: Environment, request_: Request, clock: Clock) -> None:
        """Who finds the environment lock free holds it then, exclusively, without any waiting."""
        held = lead_or_wait(request_, environment)
        assert isinstance(held, Flock)
        assert not held.shared
        assert held.is_in_place()
        assert clock.naps == 0
        held.release()

    def test_a_place_is_made(self, tmp_path: Path, request_: Request) -> None:
        """Where nothing is, the environment's directory and `.envsync` are made, and nothing else but the lock file."""
        environment = Environment(str(tmp_path / "deep" / "env"))
        leave(lead_or_wait(request_, environment))
        assert sorted(os.listdir(environment.path)) == [".envsync", ".lock"]
        assert os.listdir(environment.state) == []


class TestPrepare:
    """Which directories may be filled."""

    @pytest.mark.parametrize("names", [(), (".lock",), ("CACHEDIR.TAG", ".gitignore"), ("pyvenv.cfg", "bin/", "x")])
    def test_accepted(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        """An empty directory, one with nothing but our own, and a virtual environment of anybody's."""
        for name in names:
            (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
        environment = Environment(str(tmp_path))
        prepare(environment)
        assert os.path.isdir(environment.state)

    def test_half_an_environment(self, tmp_path: Path) -> None:
        """An environment that has lost its pyvenv.cfg is one still: it has a bin/python, even a dangling one."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python").symlink_to("/nowhere")
        (tmp_path / "notes.txt").touch()
        prepare(Environment(str(tmp_path)))

    @pytest.mark.parametrize("name", ["notes.txt", "src", ".git", "bin"])
    def test_refused(self, tmp_path: Path, name: str) -> None:
        """A directory with anything else in it is somebody's, and left as it is."""
        (tmp_path / name).mkdir()
        with pytest.raises(EnvironmentRefusedError, match="not a virtual environment") as caught:
            prepare(Environment(str(tmp_path)))
        assert "--env" in str(caught.value.hint)
        assert os.listdir(tmp_path) == [name]

    def test_a_file(self, tmp_path: Path) -> None:
        """A file is no directory."""
        (tmp_path / "env").touch()
        with pytest.raises(EnvironmentRefusedError, match="not a directory"):
            prepare(Environment(str(tmp_path / "env")))

    def test_below_a_file(self, tmp_path: Path) -> None:
        """Nor is there a directory below one."""
        (tmp_path / "x").touch()
        with pytest.raises(EnvsyncError, match=f"{tmp_path}/x"):
            prepare(Environment(str(tmp_path / "x" / "env")))


class TestWait:
    """Somebody leads."""

    def test_enters_when_the_stamp_fits(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock
    ) -> None:
        """As soon as the stamp is there the waiter is in, with a shared hold, while the lock is still held."""
        clock.after(0.3, lambda: write_stamp(environment, request_))
        held = lead_or_wait(request_, environment)
        assert isinstance(held, Entry)
        assert held.stamp.environment == environment.path
        assert clock.now <= 1_000.3 + 2 * waiter.POLL_SECONDS
        assert flock.acquire_nowait(environment.in_use, shared=False) is None
        leave(held)

    def test_a_racy_stamp_will_do(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock
    ) -> None:
        """Who waited for this very sync may use a stamp that proves nothing to others."""
        clock.after(0.1, lambda: write_stamp(environment, request_, racy=True))
        held = lead_or_wait(request_, environment)
        assert isinstance(held, Entry)
        leave(held)

    def test_another_requests_stamp_does_not_fit(
        self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock
    ) -> None:
        """A stamp for another request is waited past; when its leader is done, the waiter leads."""
        other, ours = make_request(tmp_path, b"other"), make_request(tmp_path, b"ours")
        clock.after(0.1, lambda: write_stamp(environment, other))
        clock.after(0.2, leader.release)
        held = lead_or_wait(ours, environment)
        assert isinstance(held, Flock)
        leave(held)

    def test_succeeds_a_dead_leader(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock
    ) -> None:
        """When the leader is gone without a word, the waiter leads, within a fraction of a second."""
        clock.after(5, leader.release)
        held = lead_or_wait(request_, environment)
        assert isinstance(held, Flock)
        assert clock.now <= 1_005 + waiter.LOCK_SECONDS + 2 * waiter.POLL_SECONDS
        leave(held)

    def test_the_lock_is_tried_seldom(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The stamp is looked at often, the lock tried seldom, and the in-use lock left alone without a stamp."""
        tried: list[str] = []
        original = flock.acquire_nowait

        def counting(path: str, *, shared: bool, create: bool = True) -> Flock | None:
            tried.append(path)
            return original(path, shared=shared, create=create)

        monkeypatch.setattr(flock, "acquire_nowait", counting)
        clock.after(10, leader.release)
        leave(lead_or_wait(request_, environment))
        assert set(tried) == {environment.lock}
        assert len(tried) <= 10 / waiter.LOCK_SECONDS + 3
        assert clock.naps >= 10 / 0.1

    def test_an_interrupt_leaves_nothing_held(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock
    ) -> None:
        """Ctrl-C ends the wait at once, and nothing is held or open then."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        clock.after(0.5, interrupt)
        before = descriptors()
        with pytest.raises(KeyboardInterrupt):
            lead_or_wait(request_, environment)
        assert descriptors() == before

    def test_inside_a_command_of_ours(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A command that runs in the environment and wants it changed would wait for itself: it is refused at once."""
        monkeypatch.setenv("ENVSYNC_IN", f"{os.stat(environment.in_use).st_ino}:abc")
        inherited = os.open(environment.in_use, os.O_RDONLY)
        try:
            with pytest.raises(RefusedError, match="waiting would be for itself") as caught:
                lead_or_wait(request_, environment)
        finally:
            os.close(inherited)
        assert caught.value.exit_code == 124
        assert "{digest}" in str(caught.value.hint)
        assert clock.naps == 0

    @pytest.mark.parametrize("token", ["", "1:abc", "garbage", ":"])
    def test_inside_another_environment(
        self,
        environment: Environment,
        request_: Request,
        leader: Flock,
        clock: Clock,
        token: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Running in another environment is no reason not to wait for this one."""
        monkeypatch.setenv("ENVSYNC_IN", token)
        clock.after(0.1, leader.release)
        leave(lead_or_wait(request_, environment))


class TestTimeout:
    """`--timeout`."""

    @pytest.mark.parametrize("seconds", [0.0, 0.01, 3.0])
    def test_the_wait_ends(
        self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock, seconds: float
    ) -> None:
        """After that long the wait is over, 124, and for whom it was is said."""
        replace.write(environment.progress, json.dumps({"pid": 4711, "host": "n7", "since": 990}).encode())
        with pytest.raises(WaitTimeoutError, match=r"gave up after .* pid 4711 on n7") as caught:
            lead_or_wait(make_request(tmp_path, timeout=seconds), environment)
        assert caught.value.exit_code == 124
        assert "--timeout" in str(caught.value.hint)
        assert 1_000 + seconds <= clock.now <= 1_000 + seconds + 0.02

    def test_a_stamp_in_time(self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock) -> None:
        """A sync that ends within the limit is waited for."""
        request = make_request(tmp_path, timeout=2.0)
        clock.after(1.9, lambda: write_stamp(environment, request))
        leave(lead_or_wait(request, environment))

    def test_nothing_to_wait_for(self, environment: Environment, tmp_path: Path, clock: Clock) -> None:
        """No time at all is enough if nobody is in the way."""
        leave(lead_or_wait(make_request(tmp_path, timeout=0.0), environment))


class TestFailure:
    """What the leader leaves for its waiters."""

    def test_is_shared(self, environment: Environment, request_: Request, leader: Flock, clock: Clock) -> None:
        """The waiters for the same fail with the leader's words, hint and exit status, and say whose they are."""
        clock.after(0.2, lambda: write_failure(environment, request_, exit_code=126))
        with pytest.raises(SharedFailureError, match=r"^no space \(.*pid 7 on n1") as caught:
            lead_or_wait(request_, environment)
        assert (caught.value.hint, caught.value.exit_code) == ("make some", 126)

    def test_of_before_is_not(self, environment: Environment, request_: Request, leader: Flock, clock: Clock) -> None:
        """What failed before the wait began is tried again."""
        write_failure(environment, request_)
        clock.after(0.2, leader.release)
        leave(lead_or_wait(request_, environment))

    def test_of_another_request_is_not(
        self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock
    ) -> None:
        """What failed for others may succeed for us."""
        other, ours = make_request(tmp_path, b"other"), make_request(tmp_path, b"ours")
        clock.after(0.2, lambda: write_failure(environment, other))
        clock.after(0.3, leader.release)
        leave(lead_or_wait(ours, environment))

    def test_is_shared_by_who_gets_the_lock(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who gets the lock just after the leader failed does not repeat it, but shares the failure, too."""
        original = flock.acquire_nowait
        tries = 0

        def acquire(path: str, *, shared: bool, create: bool = True) -> Flock | None:
            nonlocal tries
            tries += 1
            if tries == 2:  # between the waiter's look at the failure and its try
                write_failure(environment, request_)
                leader.release()
            return original(path, shared=shared, create=create)

        monkeypatch.setattr(flock, "acquire_nowait", acquire)
        before = len(descriptors())
        with pytest.raises(SharedFailureError):
            lead_or_wait(request_, environment)
        assert len(descriptors()) < before  # the leader's is gone, and none of ours is left
        lock = original(environment.lock, shared=False)
        assert lock is not None
        lock.release()

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": 3}', b"\xff"])
    def test_a_damaged_one_is_none(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, content: bytes
    ) -> None:
        """A failure that cannot be read is none."""
        clock.after(0.2, lambda: replace.write(environment.failure, content))
        clock.after(0.3, leader.release)
        leave(lead_or_wait(request_, environment))

    @pytest.mark.parametrize("changes", [{"exit_code": None}, {"hint": None}, {"message": None}])
    def test_a_strange_one_is_shared_all_the_same(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, changes: dict[str, object]
    ) -> None:
        """What is odd about a failure does not become another failure."""
        clock.after(0.2, lambda: write_failure(environment, request_, **changes))
        with pytest.raises(SharedFailureError):
            lead_or_wait(request_, environment)


class TestMessages:
    """No silent wait."""

    def test_says_within_a_second_for_whom(
        self,
        environment: Environment,
        request_: Request,
        leader: Flock,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Within a second it is said for whom one waits, since when, and how far that one is; and then every minute."""
        said: list[tuple[float, str]] = []
        monkeypatch.setattr(waiter, "say", lambda text: said.append((clock.now - 1_000, text)))
        value = {"pid": 4711, "host": "n7", "since": 990, "phase": "downloading", "done": 3, "total": 9}
        replace.write(environment.progress, json.dumps(value).encode())
        clock.after(130, leader.release)
        leave(lead_or_wait(request_, environment))
        assert said[0][0] < 1
        assert said[0][1] == "waiting for pid 4711 on n7, syncing for 11 s: downloading 3 of 9"
        assert [round(when / 60) for when, _ in said] == [0, 1, 2]

    def test_quiet(
        self, environment: Environment, tmp_path: Path, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With --quiet nothing is said."""
        monkeypatch.setattr(waiter, "say", pytest.fail)
        clock.after(130, leader.release)
        leave(lead_or_wait(make_request(tmp_path, quiet=True), environment))

    def test_a_short_wait_is_not_worth_a_word(
        self, environment: Environment, request_: Request, leader: Flock, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A sync that takes half a second is waited for without a word."""
        monkeypatch.setattr(waiter, "say", pytest.fail)
        clock.after(0.5, lambda: write_stamp(environment, request_))
        leave(lead_or_wait(request_, environment))

    def test_describe_a_stranger(self, environment: Environment) -> None:
        """Who leaves no word of himself is another tool."""
        assert "uv, pip or another tool" in describe_holder(environment)
        assert environment.lock in describe_holder(environment)

    @pytest.mark.parametrize("value", [{"pid": 1}, {"pid": 1, "since": None}, {"pid": 1, "total": 3}, {"x": 1}])
    def test_describe_with_little_to_go_on(self, environment: Environment, value: dict[str, object]) -> None:
        """Progress that lacks something is described as far as that goes."""
        replace.write(environment.progress, json.dumps(value).encode())
        assert describe_holder(environment).startswith("waiting for ")

    def test_a_clock_that_is_ahead(self, environment: Environment, clock: Clock) -> None:
        """Another host's clock may be ahead of ours: nobody syncs since the future."""
        replace.write(environment.progress, json.dumps({"pid": 1, "host": "h", "since": 2_000}).encode())
        assert describe_holder(environment) == "waiting for pid 1 on h, syncing for 0 s"

    def test_read_state(self, tmp_path: Path) -> None:
        """A state file is a JSON object, or nothing."""
        assert read_state(str(tmp_path / "x")) == {}
        for content in ("", "[1]", "{", "3"):
            (tmp_path / "x").write_text(content)
            assert read_state(str(tmp_path / "x")) == {}
        (tmp_path / "x").write_text('{"a": 1}')
        assert read_state(str(tmp_path / "x")) == {"a": 1}


def test_waiting_imports_no_library() -> None:
    """Fifty waiters start at once on two cores: what they import is paid fifty times."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n"
        "import envsync.coordination.slowlane\n"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('envsync')))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"click", "rich", "anyio", "packaging", "json", "re", "dataclasses", "subprocess", "typing", "platformdirs"}
    assert not heavy & set(done.stdout.split())


def test_a_read_only_place(tmp_path: Path, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be made, that is a refusal by the system, with the path: the environment may still be right."""

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", read_only)
    with pytest.raises(FilesystemError, match=f"{tmp_path}/env") as caught:
        lead_or_wait(request_, Environment(str(tmp_path / "env")))
    assert caught.value.is_refusal
