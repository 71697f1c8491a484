"""A clock that only sleeping moves, an environment, a request for it, and somebody who leads."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path, PurePath
from typing import Any

import pytest

from envsync.launch import Environment
from envsync.launch.request import Request
from envsync.leading import held, in_use, progress_file, session
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.system import processes
from envsync.waiting import failures, narrator, queue, waiter
from tests.unit import posix_only
from tests.unit.scene import Clock, make_environment, make_request


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the time of all modules here, and the host's clock."""
    clock = Clock()
    for module in (failures, held, narrator, in_use, progress_file, queue, session, waiter):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(processes, "clock", clock.monotonic)
    return clock


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment that is current for nothing yet."""
    return make_environment(tmp_path / "env")


@pytest.fixture
def leader(environment: Environment) -> Iterator[Flock]:
    """Somebody who leads."""
    lock = flock.acquire_nowait(environment.lock, shared=False)
    assert lock is not None
    yield lock
    lock.release()


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return make_request(tmp_path)


if sys.platform == "win32":

    class Slashed(type(Path())):  # type: ignore[misc]
        """A path as envsync writes them everywhere: with slashes."""

        def __str__(self) -> str:
            return str(super().__str__()).replace("\\", "/")

        def write_text(self, data: str, encoding: str = "utf-8", **options: Any) -> int:
            """Write a text as the tests compare it byte by byte: as on other systems."""
            return int(super().write_text(data, encoding, **{"newline": "\n", **options}))

    @pytest.fixture
    def tmp_path(tmp_path: Path) -> PurePath:
        """Return the test's directory as it would come from the command line."""
        return Slashed(tmp_path)

    class ForPosix(pytest.Module):
        """A module that cannot be imported."""

        def collect(self) -> Any:
            """Skip it."""
            pytest.skip(posix_only.reason_of_module(self.path.read_text()), allow_module_level=True)

    def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
        """Do not import what imports what is not there."""
        if posix_only.reason_of_module(module_path.read_text()):
            return ForPosix.from_parent(parent, path=module_path)
        return None

    def pytest_runtest_setup(item: pytest.Item) -> None:
        """Skip what may never end."""
        if isinstance(item, pytest.Function) and (why := posix_only.reason(item, posix_only.CANNOT_BEGIN)):
            pytest.skip(why)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Call a test skipped that failed for what it uses."""
        report = yield
        if report.failed and call.when != "teardown" and isinstance(item, pytest.Function):
            why = posix_only.reason(item, posix_only.USES)
            if why:
                report.outcome = "skipped"
                failed = call.excinfo.exconly().partition("\n")[0][:120] if call.excinfo else "?"
                report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: {why} ({failed})")
        return report
