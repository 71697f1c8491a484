"""What the leader's own line says of a download."""

from __future__ import annotations

import pytest

from envsync.display import Display
from envsync.request import Request


def test_a_download(capfd: pytest.CaptureFixture[str]) -> None:
    """The bytes that have come, of how many, and the slowest download; in other phases neither."""
    display = Display(Request({}, "x", "x", "x"))
    for phase, volume in (
        ("downloading", (45_000_000, 310_000_000)),
        ("downloading", (45_000_000, 0)),
        ("staging", ()),
    ):
        display.next_line = 0.0
        display.detail("numpy 1.0 of 2.0 MB")
        display(phase, 3, 9, *volume)
    lines = [line.partition(", 0 s")[0] for line in capfd.readouterr().err.splitlines()]
    assert lines == [
        "envsync: downloading 3 of 9, 45.0 of 310.0 MB, numpy 1.0 of 2.0 MB",
        "envsync: downloading 3 of 9, 45.0 MB, numpy 1.0 of 2.0 MB",
        "envsync: staging 3 of 9",
    ]
