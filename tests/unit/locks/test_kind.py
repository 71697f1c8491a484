"""How an environment is locked: decided once, read by all."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import FilesystemError, LockingError
from envsync.launch import Environment
from envsync.locks import kind
from envsync.locks.kind import FLOCK, LEASE, Locking, read, record


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / "env" / ".envsync").mkdir(parents=True)
    return Environment(f"{tmp_path}/env")


@pytest.fixture(params=["links", "no links"])
def linking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are hard links, and where there are none."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "no links":
        monkeypatch.setattr(kind.os, "link", refuse)


@pytest.mark.usefixtures("linking")
class TestRecord:
    """Recording."""

    @pytest.mark.parametrize(
        "found", [Locking(), Locking(FLOCK, in_use=False, reason="why"), Locking(LEASE, in_use=False, reason='"\n')]
    )
    def test_what_is_recorded_is_read(self, environment: Environment, found: Locking) -> None:
        """All of it, and nothing else is left in the directory."""
        assert read(environment) is None
        for done in (record(environment, found), read(environment)):
            assert done is not None
            assert (done.kind, done.in_use, done.reason) == (found.kind, found.in_use, found.reason)
        assert os.listdir(environment.state) == ["locking"]

    def test_zeros_behind_a_whole_one_are_nothing(self, environment: Environment) -> None:
        """A page that a network filesystem fills up with them does not make it a damaged one."""
        record(environment, Locking())
        path = Path(environment.locking)
        path.write_bytes(path.read_bytes() + bytes(100))
        assert read(environment) is not None

    def test_the_first_one_counts(self, environment: Environment) -> None:
        """Who comes later learns what was decided."""
        record(environment, Locking(LEASE, in_use=False))
        assert record(environment, Locking()).kind == LEASE

    def test_many_at_once(self, environment: Environment) -> None:
        """However many decide at once, and differently: all go by one word."""
        said: list[str] = []
        start = threading.Barrier(8)

        def decide(number: int) -> None:
            start.wait()
            found = Locking(FLOCK) if number % 2 else Locking(LEASE, in_use=False)
            said.append(record(environment, found).kind)

        threads = [threading.Thread(target=decide, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(said) == 8
        assert len(set(said)) == 1
        assert os.listdir(environment.state) == ["locking"]

    def test_a_torn_one_is_replaced(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """A record that stays empty was left by a process that died while it wrote it."""
        monkeypatch.setattr(kind, "TORN_SECONDS", 0.05)
        Path(environment.locking).write_bytes(b"")
        assert read(environment) is None
        assert record(environment, Locking(LEASE, in_use=False)).kind == LEASE
        assert os.listdir(environment.state) == ["locking"]

    def test_it_cannot_be_written(self, environment: Environment) -> None:
        """Then that is said, with the path."""
        os.rmdir(environment.state)
        with pytest.raises(FilesystemError, match="cannot write") as caught:
            record(environment, Locking())
        assert (caught.value.path, caught.value.errno) == (environment.locking, errno.ENOENT)


class TestRead:
    """Reading."""

    @pytest.mark.parametrize("change", [{"format": 2}, {"format": 2, "kind": "magic"}, {"format": 17, "in_use": None}])
    def test_a_newer_one_is_refused(self, environment: Environment, change: dict[str, Any]) -> None:
        """Who does not understand how others lock must not lock otherwise."""
        record(environment, Locking())
        value = {**json.loads(Path(environment.locking).read_text()), **change}
        Path(environment.locking).write_text(json.dumps(value))
        with pytest.raises(LockingError, match="does not know") as caught:
            read(environment)
        assert "newer envsync" in (caught.value.hint or "")

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: data.replace(b"flock", b"flocj"),
            lambda data: data.replace(b"flock", b"lease"),  # which no shared locks go with
            lambda data: data.replace(b"true", b"null"),
            lambda data: data.replace(b'"format": 1', b'"format": "1"'),
            lambda data: data.replace(b'"format": 1', b'"format": 0'),
            lambda data: data.replace(b'"reason": ""', b'"reason": 7'),
            lambda data: data.replace(b'"in_use"', b'"in-use"'),
            lambda data: data.replace(b"{", b"[").replace(b"}", b"]"),
            lambda data: data.replace(b"}", b"|"),
            lambda data: b"\xff" + data[1:],
            lambda data: data + data,
            lambda _: b"flock\n",
            lambda _: b"{}",
            lambda _: b"[]",
            lambda _: b"null",
        ],
    )
    def test_a_damaged_one_is_refused(self, environment: Environment, damage: Callable[[bytes], bytes]) -> None:
        """It is named as what it is, with what to do, and is not decided anew: others may lock by what it said."""
        record(environment, Locking())
        path = Path(environment.locking)
        before = path.read_bytes()
        damaged = damage(before)
        assert damaged != before
        path.write_bytes(damaged)
        for call in (lambda: read(environment), lambda: record(environment, Locking(LEASE, in_use=False))):
            with pytest.raises(LockingError, match=f"`{environment.locking}` is damaged") as caught:
                call()
            assert f"`rm {environment.locking}`" in (caught.value.hint or "")
            assert "newer" not in f"{caught.value} {caught.value.hint}"
        assert path.read_bytes() == damaged
        path.unlink()
        assert record(environment, Locking()).kind == FLOCK

    def test_every_beginning_is_torn(self, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
        """However far its writer came, and with zeros for what is not written yet: then it is decided anew."""
        monkeypatch.setattr(kind, "TORN_SECONDS", 0.0)
        record(environment, Locking(FLOCK, in_use=False, reason="why {"))
        path = Path(environment.locking)
        whole = path.read_bytes()
        for length in range(len(whole) - 1):  # without its last line break it says all that it has to say
            for zeros in (0, len(whole) - length):
                path.write_bytes(whole[:length] + bytes(zeros))
                assert read(environment) is None, whole[:length]
        assert record(environment, Locking(LEASE, in_use=False)).kind == LEASE

    @pytest.mark.parametrize("cause", [errno.ESTALE, errno.EEXIST])
    def test_what_passes_is_waited_for(
        self, environment: Environment, monkeypatch: pytest.MonkeyPatch, cause: int
    ) -> None:
        """A network filesystem may not find it while it is made."""
        record(environment, Locking())
        original: Callable[..., int] = os.open
        left = [cause] * 3

        def passing(*arguments: Any) -> int:
            if left:
                raise OSError(left.pop(), "for a moment")
            return original(*arguments)

        monkeypatch.setattr(kind.os, "open", passing)
        assert read(environment) is not None

    def test_what_cannot_be_read_is_an_error(self, environment: Environment) -> None:
        """It is not taken for absent: others may lock by it."""
        os.mkdir(environment.locking)
        with pytest.raises(FilesystemError, match="cannot read"):
            read(environment)
