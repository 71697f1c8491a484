"""SIGTERM and SIGINT at every file-system change of a command: it cleans up, and ends by the signal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.grid import check, strike_all
from tests.crash.harness import DOWNLOADING, SIGNALS
from tests.crash.scenarios import BY_NAME, Scenario, rows


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", rows("two processes"))
def test_a_signal_at_any_change(tmp_path: Path, scenario: Scenario) -> None:
    """Before the commit is decided, the old environment stays current; after, the next command finishes it."""
    check(scenario, strike_all(scenario, lambda nth: (SIGNALS[nth // 2 % len(SIGNALS)],), tmp_path))


@pytest.mark.timeout(900)
def test_a_signal_in_a_download(tmp_path: Path) -> None:
    """So it is at any wait for the network and any write of what has come, before and after it."""
    scenario = BY_NAME["downloads"]
    check(scenario, strike_all(scenario, lambda nth: (DOWNLOADING[nth // 2 % len(DOWNLOADING)],), tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", rows())
def test_every_signal_at_any_change(tmp_path: Path, scenario: Scenario) -> None:
    """So it is with each signal, before each change and right after it."""
    check(scenario, strike_all(scenario, lambda _: SIGNALS, tmp_path))
