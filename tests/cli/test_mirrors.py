"""A node that reaches nothing but a mirror: named in `[tool.envsync]`, in a variable or on the command line."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wheels import build_wheel

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("place", ["table", "variable", "option"])
def test_a_mirror_is_taken_instead(run_envsync: Run, tmp_path: Path, place: str) -> None:
    """Which one it is decides nothing: all that is locked has a hash."""
    files = tmp_path / "mirror" / "files"
    files.mkdir(parents=True)
    wheel = Path(build_wheel(files, "demo"))
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (tmp_path / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "test"\n[[packages]]\nname = "demo"\nversion = "1.0"\n'
        f'wheels = [{{url = "https://far.invalid/files/{wheel.name}", hashes = {{sha256 = "{sha256}"}}}}]\n'
    )
    mirror = (tmp_path / "mirror").as_uri()
    pair = f"https://far.invalid={mirror}"
    if place == "table":
        (tmp_path / "pyproject.toml").write_text(f'[tool.envsync]\nmirrors = {{"https://far.invalid" = "{mirror}"}}\n')
    arguments = ["--mirrors", pair] if place == "option" else []
    environ = {"ENVSYNC_MIRRORS": f"https://nobody.invalid=https://other.invalid {pair}"} if place == "variable" else {}
    done = run_envsync("sync", "--json", *arguments, env=environ, check=True)
    assert json.loads(done.stdout)["outcome"] == "synced"
    (tmp_path / "pyproject.toml").unlink(missing_ok=True)
    assert json.loads(run_envsync("sync", "--json", check=True).stdout)["outcome"] == "current"


def test_what_is_no_mirror_is_refused(run_envsync: Run, tmp_path: Path) -> None:
    """Before anything is done; its text, which may have a password, is not shown."""
    (tmp_path / "pylock.toml").write_text('lock-version = "1.0"\ncreated-by = "test"\npackages = []\n')
    done = run_envsync("sync", "--allow-empty", "--mirrors", "https://user:secret@far.invalid")
    assert done.returncode == 2
    assert "no pair of URLs" in done.stderr
    assert "secret" not in done.stderr
