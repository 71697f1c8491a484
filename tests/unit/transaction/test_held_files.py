"""A file that is to go and cannot be moved, as on Windows, is found out before anything is decided."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import envsync
from envsync.errors import FilesystemError
from envsync.system import native
from tests.environments import FIXTURES, files, unverified

LOCK, NEXT = FIXTURES / "pylock.toml", FIXTURES / "pylock.next.toml"


def test_a_held_file_is_refused_before_anything_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file, the environment is as it was, and what goes well later goes well."""
    env, cache = tmp_path / "env", tmp_path / "cache"
    envsync.sync(LOCK, env=env, cache_dir=cache)
    before, asked = files(env), []

    def is_held(path: str) -> None:
        asked.append(os.path.relpath(path, env))
        if path.endswith("/greet/phrases.py") or (path.endswith("/greet") and os.path.isdir(path)):
            raise OSError(errno.EBUSY, "Windows says 32: pid 7 (`a.exe`) has it open", f"{path}/phrases.py")

    with monkeypatch.context() as patched:
        patched.setattr(native, "check_movable", is_held)
        with pytest.raises(FilesystemError, match=r"greet/phrases\.py`: Windows says 32: pid 7 \(`a\.exe`\) has it"):
            envsync.sync(NEXT, env=env, cache_dir=cache)
    assert files(env) == before
    assert not (env / ".envsync" / "journal").exists()
    assert envsync.sync(LOCK, env=env, cache_dir=cache).outcome == "current"
    assert asked
    envsync.sync(NEXT, env=env, cache_dir=cache)
    assert unverified(env) == []
