"""An error at every file-system change of a command: said clearly, and nothing is lost.

Either the command gets over it and succeeds, or it fails with the path and the system's words and exit status 125,
and the environment is still the old one, and current, unless the commit was decided.

Errors of write, fsync and close raise no audit events; for the first two there is test_from_outside.py. That close(2)
fails (NFS and quotas do that) is out of reach of both.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.grid import check, strike_all
from tests.crash.harness import ERRORS, LASTING
from tests.crash.scenarios import Scenario, rows


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", rows("upgrade"))
def test_an_error_at_any_change(tmp_path: Path, scenario: Scenario) -> None:
    """One error at any change, each change meeting another one, does no harm."""
    check(scenario, strike_all(scenario, lambda nth: (ERRORS[nth % len(ERRORS)],), tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", rows())
def test_every_error_at_any_change(tmp_path: Path, scenario: Scenario) -> None:
    """So does each of the errors."""
    check(scenario, strike_all(scenario, lambda _: ERRORS, tmp_path))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", rows("upgrade"))
def test_a_disk_that_stays_full_or_turns_read_only(tmp_path: Path, scenario: Scenario) -> None:
    """What the disk refuses from some change on, when cleaning up, too, does no harm either."""
    check(scenario, strike_all(scenario, lambda _: LASTING, tmp_path))
