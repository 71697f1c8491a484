"""For all tests of transactions: a lock file may ask for nothing."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _any_set_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the empty set be one like any other; that it is refused else is a claim of `tests/cli/test_empty.py`."""
    monkeypatch.setenv("ENVSYNC_ALLOW_EMPTY", "1")
