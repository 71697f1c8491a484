"""What the tests of downloads and of fetching have in common: a server, and no waiting between tries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.lockfile import retrying
from tests.unit.fetching.server import Server, serving


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Do not wait between tries, and read no netrc or proxy of whoever runs the tests."""
    monkeypatch.setattr(retrying, "BACKOFF", 0.0)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running
