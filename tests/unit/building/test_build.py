"""What is around a build: the directory that it is done in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from envsync.building import build


def test_a_long_build_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directory is made to look new once an hour: other syncs remove from tmp what is a day old."""
    os.utime(tmp_path, (1, 1))
    called = []
    check = build._renewing(str(tmp_path), lambda: called.append(1))
    check()
    assert os.stat(tmp_path).st_mtime == 1
    monkeypatch.setattr(build, "RENEW_SECONDS", 0.0)
    check = build._renewing(str(tmp_path), lambda: called.append(1))
    check()
    assert os.stat(tmp_path).st_mtime > 1
    assert len(called) == 2


def test_what_is_told_of_builds() -> None:
    """Of one, since when; only of several, how many are done: `0 of 1` behind its seconds tells nobody anything."""
    told: list[tuple[str, int, int]] = []
    unused: Any = None
    for number in (1, 2):
        work = build._Work([unused] * number, unused, unused, lambda *said: told.append(said))
        work._states["demo 1.0"] = ""
        work._tell()
    assert told == [("building demo 1.0 for 0 s", 0, 0), ("building demo 1.0 for 0 s, built", 0, 2)]
