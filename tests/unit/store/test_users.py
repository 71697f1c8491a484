"""Who needs store entries in their place, as far as every system can say so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from envsync.store import users
from envsync.system import processes


@pytest.mark.skipif(
    not processes.boot(), reason="needs a boot that has a name, by which who sees the same files is told"
)
def test_what_a_removed_environment_has_linked_to_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, for whoever sees the same files, wherever they are."""
    env, root = tmp_path / "env", str(tmp_path / "cache")
    (env / ".envsync").mkdir(parents=True)
    (env / ".envsync" / "in-use").touch()
    users.record(root, str(env), ["a" * 64])
    assert users.used(root) == {"a" * 64}
    monkeypatch.chdir(tmp_path)
    assert users.used(root) == {"a" * 64}
    shutil.rmtree(env)
    assert users.used(root, drop=True) == set()
    assert not list((tmp_path / "cache" / "v1" / "users").iterdir())
