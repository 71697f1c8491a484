"""What looks right and is not: found by trying to break envsync, each once broken."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.leading import reconcile
from envsync.library import blocking
from tests.environments import FIXTURES, files, site_packages, unverified

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")


def test_a_base_python_is_never_taken_for_an_environment(run_envsync: Run, tmp_path: Path) -> None:
    """A prefix with a Python of its own and no pyvenv.cfg is not remade, but refused, untouched (P10)."""
    prefix = tmp_path / "opt"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    shutil.copy(os.path.realpath(sys.executable), prefix / "bin" / "python3.11")
    (prefix / "bin" / "python").symlink_to("python3.11")
    before = files(prefix)
    for command in (["sync"], ["run"]):
        done = run_envsync(*command, "--lock", LOCK, "--env", "opt", *(["--", "true"] if command == ["run"] else []))
        assert done.returncode == 125
        assert "not a virtual environment" in done.stderr
    assert files(prefix) == before
    assert not (prefix / ".envsync").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'[["shout", "1.0", null, null]]',
        b"\xff",
        *(pytest.param(each, marks=pytest.mark.slow) for each in (b"[]", b"{}", b"null")),
    ],
)
def test_a_damaged_cache_file_is_as_good_as_absent(run_envsync: Run, tmp_path: Path, content: bytes) -> None:
    """What the cache remembers never decides what is installed if it is not what was written."""
    cache = tmp_path / "cache"
    run_envsync("sync", "--lock", LOCK, "--env", "env", "--cache-dir", cache)
    remembered = [path for path in cache.rglob("*.json") if path.is_file()]
    assert {path.parent.name for path in remembered} >= {"interpreters", "targets", "skeletons"}
    for number, path in enumerate(remembered):
        kept = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(content)
        done = run_envsync("sync", "--lock", LOCK, "--env", f"env{number}", "--cache-dir", cache, "--json")
        assert done.returncode == 0, (path, done.stderr)
        assert len(json.loads(done.stdout)["installed"]) == 5
        assert unverified(tmp_path / f"env{number}") == []
        path.write_bytes(kept) if path.exists() else None


def test_a_script_that_is_gone_is_put_back(run_envsync: Run, tmp_path: Path) -> None:
    """The stamp does not see into bin; the kernel's ENOENT for what should be there makes us count the files."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    (tmp_path / "env" / "bin" / "greet").unlink()
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet")
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr


def test_sync_repairs_an_environment_without_a_python(run_envsync: Run, tmp_path: Path) -> None:
    """A fitting stamp is not enough for `sync` to say "current"."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    for link in (tmp_path / "env" / "bin").glob("python*"):
        link.unlink()
    assert run_envsync("sync", "--lock", LOCK, "--env", "env").returncode == 0
    assert run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"


def test_the_mark_of_a_command_that_has_ended_means_nothing(run_envsync: Run, tmp_path: Path) -> None:
    """A batch job that inherits ENVSYNC_IN without the lock is not inside, and waits like everybody else."""
    show = "import os; print(os.environ['ENVSYNC_IN'])"
    token = run_envsync("run", "--lock", LOCK, "--env", "env", "-q", "--", "python", "-c", show).stdout.strip()
    with (tmp_path / "env" / ".lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        words = ["run", "--lock", NEXT, "--env", "env", "--timeout", "0.2", "--", "greet"]
        done = run_envsync(*words, env={"ENVSYNC_IN": token})
        assert "gave up after 0.2 s" in done.stderr
    done = run_envsync("run", "--lock", NEXT, "--env", "env", "--", "greet", env={"ENVSYNC_IN": token})
    assert done.stdout == "HOWDY, PARTNER!\n"


def test_a_change_between_the_look_and_the_stamp_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who removes a distribution while the leader plans is not stamped over."""
    env = tmp_path / "env"
    blocking.sync(LOCK, env=env)
    (env / ".envsync" / "stamp").unlink()
    original = reconcile.change.damaged
    struck = []

    def damaged(*arguments: object) -> frozenset[str]:
        found = original(*arguments)  # type: ignore[arg-type]
        if not struck:
            struck.append(True)
            shutil.rmtree(site_packages(env) / "tally-1.0.dist-info")
        return found

    monkeypatch.setattr(reconcile.change, "damaged", damaged)
    assert blocking.sync(LOCK, env=env).installed == ("tally==1.0",)
    assert (site_packages(env) / "tally-1.0.dist-info").is_dir()
    assert unverified(env) == []


def test_closed_standard_streams_are_no_place_for_a_lock(tmp_path: Path) -> None:
    """With stderr closed, the next file opened would be descriptor 2, and messages would go into it."""
    from tests.conftest import envsync_command

    words = " ".join(f"'{word}'" for word in [*envsync_command()[:1], "-m", "envsync"])
    root = Path(__file__).parent.parent.parent
    script = f"{words} run --lock '{LOCK}' --env env -- greet 0<&- 2>&-"
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n")
    assert (tmp_path / "env" / ".lock").read_bytes() == b""


def test_what_is_outside_is_not_swept(run_envsync: Run, tmp_path: Path) -> None:
    """A link where our trash should be is not followed."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    work = tmp_path / "env" / ".envsync" / "work"
    work.mkdir(exist_ok=True)
    (work / "link").symlink_to(outside)
    run_envsync("sync", "--lock", NEXT, "--env", "env")
    assert (outside / "file").exists()
    assert not (work / "link").is_symlink()


def test_a_path_that_path_cannot_hold_is_refused(run_envsync: Run, tmp_path: Path) -> None:
    """An environment whose path cannot be on PATH is refused before anything is made."""
    done = run_envsync("sync", "--lock", LOCK, "--env", "a:b")
    assert done.returncode == 125
    assert "`:`" in done.stderr
    assert not (tmp_path / "a:b").exists()
