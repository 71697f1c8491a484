"""`envsync check`: what is damaged is found and named; `--repair` restores exactly that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.environments import FIXTURES, files, leftovers, site_packages, unverified

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def env(run_envsync: Run, tmp_path: Path) -> Path:
    """A synced environment; the lock file is nowhere near."""
    assert run_envsync("sync", "--lock", LOCK, "--env", "env").returncode == 0
    return tmp_path / "env"


def check(run_envsync: Run, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = run_envsync("check", "--env", "env", "--json", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def overwrite(path: Path, content: bytes) -> None:
    """Write to a file as root or the owner can, whatever its mode, through any hard link."""
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flip(path: Path) -> None:
    """Flip one bit: same size, same time, and the cache's file is changed with it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    overwrite(path, bytes(content))


def test_a_sound_environment(run_envsync: Run, env: Path) -> None:
    """It says how much it has looked at, and that all is well."""
    status, said = check(run_envsync)
    assert (status, said["sound"], said["findings"]) == (0, True, [])
    assert said["distributions"] == 5
    assert said["files"] >= 20
    done = run_envsync("check", "--env", "env")
    assert "sound" in done.stdout


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a module deleted": (lambda site: (site / "shout.py").unlink(), "missing", "shout"),
    "a module emptied": (lambda site: overwrite(site / "shout.py", b""), "changed", "shout"),
    "one bit": (lambda site: flip(site / "greet/__init__.py"), "changed", "greet"),
    "RECORD deleted": (lambda site: (site / "greet-1.0.dist-info/RECORD").unlink(), "missing", "greet"),
    "RECORD emptied": (lambda site: overwrite(site / "greet-1.0.dist-info/RECORD", b""), "changed", "greet"),
    "METADATA deleted": (lambda site: (site / "greet-1.0.dist-info/METADATA").unlink(), "missing", "greet"),
    "dist-info deleted": (lambda site: shutil.rmtree(site / "greet-1.0.dist-info"), "missing", "greet"),
    "a package deleted": (lambda site: shutil.rmtree(site / "greet"), "missing", "greet"),
    "a script deleted": (lambda site: (site.parents[2] / "bin/greet").unlink(), "missing", "greet"),
    "dist-info gone and a module edited": (
        lambda site: (shutil.rmtree(site / "shout-1.0.dist-info"), overwrite(site / "shout.py", b"x = 1\n")),
        "missing",
        "shout",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_repaired(run_envsync: Run, env: Path, name: str) -> None:
    """It is named with its distribution; the repair installs that one anew, and nothing else; then all is well."""
    spoil, kind, distribution = DAMAGE[name]
    whole = files(env)
    spoil(site_packages(env))
    status, said = check(run_envsync)
    assert (status, said["sound"]) == (1, False)
    assert (kind, distribution) in {(each["kind"], each["distribution"]) for each in said["findings"]}
    assert {each["distribution"] for each in said["findings"]} <= {distribution, ""}
    status, said = check(run_envsync, "--repair", "--lock", LOCK)
    assert (status, said["sound"], said["repaired"]) == (0, True, [f"{distribution}==1.0"])
    assert files(env) == whole
    assert unverified(env) == []
    assert leftovers(env) == []
    assert check(run_envsync)[0] == 0
    assert run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"
    done = run_envsync("sync", "--lock", LOCK, "--env", "env", "--json")
    assert json.loads(done.stdout)["outcome"] == "current"


@pytest.mark.parametrize("gone", ["bin/python", "pyvenv.cfg"])
def test_a_skeleton_is_made_anew(run_envsync: Run, env: Path, gone: str) -> None:
    """Without its Python or its pyvenv.cfg, an environment is remade with all that was in it, without a lock file."""
    (env / gone).unlink()
    status, said = check(run_envsync)
    assert status == 1
    assert any(each["path"] == gone for each in said["findings"])
    status, said = check(run_envsync, "--repair")
    assert (status, len(said["repaired"])) == (0, 5)
    assert unverified(env) == []
    assert run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"


def test_a_users_file_is_left_alone(run_envsync: Run, env: Path) -> None:
    """What nobody owns is named, is no damage, and survives a repair."""
    (site_packages(env) / "mine.py").write_text("x = 1\n")
    (site_packages(env) / "shout.py").unlink()
    _, said = check(run_envsync, "--repair")
    assert [each["path"] for each in said["left"]] == [f"{site_packages(env).relative_to(env)}/mine.py"]
    assert said["sound"] is True
    assert (site_packages(env) / "mine.py").read_text() == "x = 1\n"


def test_the_cached_wheel_is_damaged_and_no_lock_file_is_known(run_envsync: Run, env: Path) -> None:
    """Then nothing is changed, and the message says which wheel is wanted and what to do."""
    flip(site_packages(env) / "shout.py")
    done = run_envsync("check", "--env", "env", "--repair")
    assert done.returncode == 125
    assert f"cannot restore shout in environment `{env}`: the wheel cannot be had" in done.stderr
    assert "--repair --lock pylock.toml`" in done.stderr
    assert run_envsync("check", "--env", "env", "--repair", "--lock", LOCK).returncode == 0


def test_a_wheel_that_the_lock_file_does_not_name(run_envsync: Run, env: Path) -> None:
    """A repair says which lock file lacks it; what that hints at makes the environment whole."""
    flip(site_packages(env) / "greet/__init__.py")
    done = run_envsync("check", "--env", "env", "--repair", "--lock", NEXT)
    assert done.returncode == 125
    assert f"cannot use lock file `{NEXT}`: it does not name the wheel that" in done.stderr
    assert "greet" in done.stderr
    assert "installed.json" not in done.stderr
    assert f"`envsync sync --lock {NEXT} --env env`" in done.stderr
    assert run_envsync("sync", "--env", "env", "--lock", NEXT).returncode == 0
    assert check(run_envsync)[0] == 0


def test_leftovers_of_a_dead_leader(run_envsync: Run, env: Path) -> None:
    """They are named, and a repair sweeps them away."""
    stage = site_packages(env) / ".envsync/0123456789abcdef"
    (stage / "new/lib").mkdir(parents=True)
    status, said = check(run_envsync)
    assert (status, {each["kind"] for each in said["findings"]}) == (1, {"left over"})
    assert check(run_envsync, "--repair")[0] == 0
    assert not stage.exists()


def test_what_pip_installed_is_verified_and_not_repaired(run_envsync: Run, env: Path) -> None:
    """envsync has no wheel of it: the damage stays, and the exit status says so."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", "--inexact")
    site = site_packages(env)
    (site / "foreign.py").write_text("x = 1\n")
    info = site / "foreign-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "RECORD").write_text("foreign.py,,99\nforeign-1.0.dist-info/METADATA,,\nforeign-1.0.dist-info/RECORD,,\n")
    status, said = check(run_envsync)
    assert (status, {each["distribution"] for each in said["findings"]}) == (1, {"foreign"})
    status, said = check(run_envsync, "--repair")
    assert (status, said["repaired"]) == (1, [])


def test_no_environment(run_envsync: Run) -> None:
    """There is nothing to check where there is none, and nothing is made."""
    done = run_envsync("check", "--env", "no where")
    assert done.returncode == 125
    assert done.stderr == (
        "envsync: error: there is no environment `no where`\nhint: `envsync sync --env 'no where'` makes it\n"
    )


def test_a_check_keeps_others_from_changing_it(run_envsync: Run, env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While files are being read, nobody commits: the in-use lock is held as by a command."""
    import fcntl

    from envsync.checking import repair
    from envsync.launch import Environment
    from envsync.launch.progress import quiet

    held = []
    original = repair.verify

    def verify(*arguments: Any, **options: Any) -> Any:
        with (env / ".envsync/in-use").open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return original(*arguments, **options)

    monkeypatch.setattr(repair, "verify", verify)
    assert repair.check(repair.request_of({}, str(env)), Environment(str(env)), quiet).is_sound
    assert held == [True]
