"""What always runs here is all changes of a few scenarios; all of all is in `pytest -m slow`, and in the table."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def only_if_asked(request: pytest.FixtureRequest) -> None:
    """Skip what takes minutes unless it is asked for."""
    if request.node.get_closest_marker("slow") and "slow" not in request.config.getoption("markexpr"):
        pytest.skip("takes minutes: run with pytest -m slow, or python -m tests.crash.table")
