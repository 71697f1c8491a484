"""What envsync does where Linux's own calls and /proc are missing, as on macOS: `tests/macos.py` takes them away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import envsync
from tests.environments import FIXTURES, unverified

MACOS = Path(__file__).parent.parent / "macos.py"
LOCK, NEXT = str(FIXTURES / "pylock.toml"), str(FIXTURES / "pylock.next.toml")
SOURCE = str(Path(envsync.__file__).parent.parent)


def without_linux(*arguments: str, cwd: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(MACOS), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize(
    "options",
    [(), ("--link-mode", "copy"), ("--link-mode", "symlink"), ("--link-mode", "clone"), ("--compile-bytecode",)],
    ids=" ".join,
)
def test_every_way_to_install_works(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Nothing that only Linux has is needed to sync, whatever the link mode, nor to check, launch and look."""
    done = without_linux("sync", "--lock", LOCK, "--env", "env", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert unverified(tmp_path / "env") == []
    done = without_linux("check", "--env", "env", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    done = without_linux("run", "--lock", LOCK, "--env", "env", *options, "--", "greet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    done = without_linux("status", "--lock", LOCK, "--env", "env", *options, "--exit-code", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(
    "command", [("doctor", "--env", "env"), ("cache", "size"), ("cache", "verify"), ("cache", "clean")]
)
def test_every_other_command_works(tmp_path: Path, command: tuple[str, ...]) -> None:
    """None of them needs what only Linux has."""
    assert without_linux("sync", "--lock", LOCK, "--env", "env", "--durable", cwd=tmp_path).returncode == 0
    done = without_linux(*command, cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("ps", [True, False], ids=["ps", "no ps"])
@pytest.mark.parametrize("deep", [False, True], ids=["child", "grandchild"])
def test_a_sync_inside_a_run_is_refused_where_proc_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deep: bool, ps: bool
) -> None:
    """It would wait for itself: the descriptor is closed, no /proc names who holds the lock, and yet it is known."""
    if not ps:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert without_linux("sync", "--lock", LOCK, "--env", "env", cwd=tmp_path).returncode == 0
    sync = [sys.executable, str(MACOS), "sync", "--timeout", "20", "--lock", NEXT, "--env", "env"]
    words = ["sh", "-c", '"$@"; exit $?', "sh", *sync] if deep else sync
    inner = f"import subprocess; print(subprocess.run({words!r}, close_fds=True).returncode, flush=True)"
    done = without_linux("run", "--lock", LOCK, "--env", "env", "--", sys.executable, "-c", inner, cwd=tmp_path)
    assert done.stdout == "124\n", done.stderr
    assert "gave up" not in done.stderr
    assert "waiting would be for itself" in done.stderr


def test_what_outlives_its_command_is_not_inside(tmp_path: Path) -> None:
    """Whoever has inherited the variables alone, of a command that has ended, changes the environment as others do."""
    assert without_linux("sync", "--lock", LOCK, "--env", "env", cwd=tmp_path).returncode == 0
    show = "import os; print(os.environ['ENVSYNC_IN'], os.environ['ENVSYNC_IN_BY'])"
    done = without_linux("run", "--lock", LOCK, "--env", "env", "--", "python", "-c", show, cwd=tmp_path)
    token, by = done.stdout.split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENVSYNC_IN", token)
        patch.setenv("ENVSYNC_IN_BY", by)
        done = without_linux("sync", "--lock", NEXT, "--env", "env", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
